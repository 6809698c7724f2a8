"""Where published weights come from: torch's cache, a download, a file of one's own; checksummed, never pickled code.

torchvision names a file after its own content: `resnet18-f37072fd.pth` has a SHA-256 that begins with f37072fd.
So a name and a file are enough to know that the file is whole, whoever brought it there.

Environment:
    TORCH_HOME: the folder of torch's cache; files lie in `hub/checkpoints` below it, shared with torchvision.
    FUSIONVIZ_WEIGHTS_URL: a mirror for a classroom: `http://10.0.0.1:8000/models/`, or `file:///srv/models/` for a
        shared folder. It replaces everything in front of the file's name; the checksum keeps a mirror honest.
    http_proxy, https_proxy, no_proxy: as everywhere.
"""

import errno
import hashlib
import http.client
import os
import re
import shutil
import ssl
import threading
import time
import urllib.error
import urllib.request
import uuid
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import torch
from torch import Tensor
from torchvision import models
from torchvision.models import get_model_weights, list_models

from fusionviz.errors import WeightsError
from fusionviz.registry import nearest

MIRROR = "FUSIONVIZ_WEIGHTS_URL"
PAUSES_S = (0.5, 2.0)  # before the second and the third attempt
TIMEOUT_S = 30.0

_PUBLISHING = (models, models.detection, models.segmentation)
_CHUNK_BYTES = 1 << 20
_LOOK_S = 0.1  # how often a caller looks at the download's progress
_PARTIAL = ".part"
_STALE_S = 3600.0  # a partial file this old belongs to a process that was killed
_SIZE_SLACK_BYTES = 1024  # torchvision gives sizes rounded to 0.001 MiB
_CHECKSUM = re.compile(r"-([0-9a-f]{8,64})\.[^.]+$")
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_OLD_DENSE_LAYER = re.compile(
    r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.(?:weight|bias|running_mean|running_var|num_batches_tracked))$"
)


# --- what is published ---------------------------------------------------------------------------
@dataclass(frozen=True)
class Published:
    """The weights that torchvision recommends for one of its networks.

    Attributes:
        name: torchvision's name of the training, "IMAGENET1K_V2".
        url: where torchvision publishes the file.
        filename: the file's name there and in torch's cache.
        checksum: first hex digits of the file's SHA-256.
        size_bytes: the file's size, to within a kilobyte.
        recipe: link to how they were trained.
        licence: link to their own licence, or "" where torchvision states none.
        categories: names of the classes, in the order of the logits.
    """

    key: str
    name: str
    url: str
    filename: str
    checksum: str
    size_bytes: int
    recipe: str
    licence: str
    categories: tuple[str, ...]


def published(key: str) -> Published:
    """Return what is published for the network `key`.

    Raises:
        WeightsError: if nothing is published under this name, with near names that have weights.
    """
    try:
        entry = get_model_weights(key).DEFAULT
    except (ValueError, AttributeError):  # not a name of torchvision's, or one without weights
        near = nearest(key, [name for module in _PUBLISHING for name in list_models(module=module)])
        raise WeightsError("weights.none", key=key, near=near) from None
    filename = urlsplit(entry.url).path.rpartition("/")[2]
    return Published(
        key=key,
        name=entry.name,
        url=entry.url,
        filename=filename,
        checksum=_checksum_in(filename),
        size_bytes=round(entry.meta["_file_size"] * 2**20),
        recipe=entry.meta.get("recipe") or "",
        licence=entry.meta.get("license") or "",
        categories=tuple(entry.meta["categories"]),
    )


def categories(key: str) -> tuple[str, ...]:
    """Return the names of a network's classes in the order of its logits, or () where no weights are published."""
    try:
        return published(key).categories
    except WeightsError:
        return ()


def _checksum_in(filename: str) -> str:
    found = _CHECKSUM.search(filename)
    return found[1] if found else ""


# --- the cache -----------------------------------------------------------------------------------
def cache_folder() -> Path:
    """Return the folder of torch's own cache, so that a download of torchvision's is found, and ours by torchvision."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def cached(key: str) -> Path | None:
    """Return the file of a network's published weights if it is in the cache with its full size, else None.

    Costs a look at the folder: the content is verified by `read` and `fetch`. Only a file of unexpected size is read
    here, once, because torchvision's sizes are approximate and its checksum is not.
    """
    try:
        known = published(key)
    except WeightsError:
        return None
    path = cache_folder() / known.filename
    try:
        if not path.is_file():
            return None
        if abs(path.stat().st_size - known.size_bytes) <= _SIZE_SLACK_BYTES:
            return path
        return path if _digest(path).startswith(known.checksum) else None
    except OSError:
        return None


def verify(path: Path) -> None:
    """Check a file against the beginning of the SHA-256 that its name carries; a file is read once, then remembered.

    Raises:
        WeightsError: if name and content differ (delete the file and fetch it again), if the name carries no
            checksum (then nothing can be said), or if there is no such file.
    """
    path = Path(path)
    expected = _checksum_in(path.name)
    if not expected:
        raise WeightsError("weights.unnamed", path=path)
    _expect_file(path)
    try:
        digest = _digest(path)
    except OSError as cause:
        raise WeightsError("weights.unreadable", path=path, cause=_say(cause)) from cause
    if not digest.startswith(expected):
        size = _size(path.stat().st_size)
        raise WeightsError("weights.corrupt", path=path, expected=expected, received=digest[: len(expected)], size=size)


_digests: dict[Path, tuple[tuple[int, int, int], str]] = {}


def _digest(path: Path) -> str:
    """SHA-256 of a file, computed again only if the file changed."""
    with path.open("rb") as file:
        stamp = _stamp(file.fileno())
        known = _digests.get(path)
        if known is None or known[0] != stamp:
            known = _digests[path] = (stamp, hashlib.file_digest(file, "sha256").hexdigest())
    return known[1]


def _stamp(descriptor: int) -> tuple[int, int, int]:
    state = os.fstat(descriptor)
    return state.st_mtime_ns, state.st_size, state.st_ino


def _expect_file(path: Path) -> None:
    try:
        there = path.is_file()
    except OSError as cause:  # a folder that may not be looked into, a name that is too long
        raise WeightsError("weights.unreadable", path=path, cause=_say(cause)) from cause
    if not there:
        raise WeightsError("weights.missing", path=path)


# --- the download --------------------------------------------------------------------------------
def fetch(
    key: str,
    *,
    progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Path:
    """Return the file of a network's published weights, downloading it if it is not whole in the cache.

    The file appears under its name only when it is complete and its checksum is right. Callers that want the same
    file at the same time share one download; it ends early only when the last of them has left.

    Args:
        progress: called in the caller's thread with (bytes so far, bytes in all), never going back, at most ten
            times a second; the last call has both equal.
        cancelled: asked in the caller's thread, ten times a second; True leaves the download.
        timeout_s: how long the server may be silent.

    Raises:
        WeightsError: with the address, the place for a file brought by hand, and what to do: nothing published, no
            network, refused, silent, cut, HTTP status, certificate, wrong checksum, full disk, folder not writable,
            a mirror that is no address, cancelled.
    """
    known = published(key)
    path = cache_folder() / known.filename
    with _guard:
        download = _downloads.get(path)
        if download is None:
            download = _Download(known, path, timeout_s)
            download.start()  # before it is listed: nobody may wait for a thread that could not start
            _downloads[path] = download
        download.callers += 1
    try:
        return _follow(download, progress, cancelled)
    finally:  # also when `progress` raises, as a page does that is left in the middle
        with _guard:
            download.callers -= 1
            leave = download.callers == 0 and not download.over.is_set()
            if leave:
                download.forget()
        if leave:
            download.abandon()


_guard = threading.Lock()
_downloads: dict[Path, "_Download"] = {}


def _follow(
    download: "_Download", progress: Callable[[int, int], None] | None, cancelled: Callable[[], bool] | None
) -> Path:
    shown = None
    over = False
    while not over:
        if cancelled is not None and cancelled():
            raise WeightsError("weights.cancelled", filename=download.known.filename)
        over = download.over.wait(_LOOK_S)
        now = download.done_bytes, download.total_bytes
        if progress is not None and now != shown and now[1] and not download.failure:
            progress(*now)
            shown = now
    if isinstance(download.failure, WeightsError):  # each caller gets an error of its own
        raise WeightsError(download.failure.code, **download.failure.values) from download.failure
    if download.failure is not None:
        raise download.failure
    return download.path


class _Passing(Exception):
    """A failure that may pass by itself; holds the error to raise if it does not."""

    def __init__(self, error: WeightsError) -> None:
        super().__init__(str(error))
        self.error = error


class _Abandoned(Exception):
    """Nobody waits for this download any more."""


class _Download:
    """One file on its way, in a thread of its own: a silent server then keeps nobody from leaving."""

    def __init__(self, known: Published, path: Path, timeout_s: float) -> None:
        self.known, self.path, self.timeout_s = known, path, timeout_s
        self.url = known.url
        self.callers = 0
        self.done_bytes = self.total_bytes = 0
        self.failure: BaseException | None = None
        self.over = threading.Event()
        self._stop = threading.Event()
        self._partial: Path | None = None
        self._thread = threading.Thread(target=self._run, name=f"fetch {known.filename}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def forget(self) -> None:
        """Let the next caller start afresh; the caller of this holds the guard."""
        if _downloads.get(self.path) is self:
            del _downloads[self.path]

    def abandon(self) -> None:
        """Stop, and leave nothing behind even if the thread still waits for a silent server."""
        self._stop.set()
        self._thread.join(0.5)
        if self._thread.is_alive() and self._partial is not None:
            try:
                self._partial.unlink(missing_ok=True)
            except OSError:  # Windows keeps an open file; the thread removes it when the server's silence ends
                return

    def _run(self) -> None:
        try:
            self._fetch()
        except BaseException as failure:  # noqa: BLE001 - handed to every caller, who raises it
            self.failure = failure
        finally:
            with _guard:
                self.forget()
                self.over.set()

    def _fetch(self) -> None:
        if self._there():
            self.done_bytes = self.total_bytes = self.path.stat().st_size
            return None
        self.url = self._source()
        folder = self.path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _sweep(folder, self.path.name)
        except OSError as cause:
            raise self._error("folder", cause, folder=folder) from cause
        for pause_s in (*PAUSES_S, None):
            try:
                return self._attempt()
            except _Passing as passing:
                if pause_s is None:
                    raise passing.error from passing.__cause__
            if self._stop.wait(pause_s):
                raise _Abandoned
        return None

    def _there(self) -> bool:
        try:
            return _digest(self.path).startswith(self.known.checksum)
        except OSError:
            return False

    def _source(self) -> str:
        mirror = os.environ.get(MIRROR, "").strip()
        if not mirror:
            return self.known.url
        try:
            parts = urlsplit(mirror)
        except ValueError as cause:
            raise self._error("mirror", cause, mirror=mirror) from cause
        if parts.scheme not in ("http", "https", "file") or not (parts.netloc or parts.scheme == "file"):
            raise self._error("mirror", mirror=mirror)
        return f"{mirror.rstrip('/')}/{self.known.filename}"

    def _attempt(self) -> None:
        """Download once: the partial file becomes the file, or is removed."""
        partial = self.path.with_name(f"{self.path.name}.{uuid.uuid4().hex}{_PARTIAL}")
        with self._open() as response:
            if self._stop.is_set():
                raise _Abandoned
            stated = response.headers.get("Content-Length") or ""
            length = int(stated) if stated.isdigit() else 0
            self.total_bytes = length or self.known.size_bytes
            self._expect_space(self.total_bytes)
            self._partial = partial
            try:
                digest, stamp = self._write(response, length, partial)
                if not digest.startswith(self.known.checksum):
                    raise self._error(
                        "checksum",
                        expected=self.known.checksum,
                        received=digest[: len(self.known.checksum)],
                        expected_size=_size(self.known.size_bytes),
                        size=_size(stamp[1]),
                    )
                self._place(partial)
            finally:
                partial.unlink(missing_ok=True)
        _digests[self.path] = (stamp, digest)
        self.done_bytes = self.total_bytes = stamp[1]

    def _open(self) -> http.client.HTTPResponse:
        """Ask for the file; the opener is built anew each time, so that it has the environment's proxies of now."""
        request = urllib.request.Request(self.url, headers={"User-Agent": "fusionviz"})
        try:
            return urllib.request.build_opener().open(request, timeout=self.timeout_s)
        except urllib.error.HTTPError as answer:
            answer.close()
            raise self._refusal(answer) from answer
        except (urllib.error.URLError, http.client.HTTPException, OSError) as cause:
            raise self._no_answer(cause) from cause
        except ValueError as cause:  # an address that Python cannot read
            raise self._error("mirror", cause, mirror=self.url) from cause

    def _refusal(self, answer: urllib.error.HTTPError) -> Exception:
        status = answer.code
        if status in (404, 410):
            return self._error("not_found", status=status)
        if status in (401, 403, 407, 451):
            return self._error("forbidden", status=status)
        if status == 429 or status >= 500:
            return _Passing(self._error("server", status=status, attempts=len(PAUSES_S) + 1))
        return self._error("status", status=status, cause=answer.reason)

    def _no_answer(self, cause: Exception) -> Exception:
        reason = cause.reason if isinstance(cause, urllib.error.URLError) else cause
        if isinstance(reason, http.client.InvalidURL):
            return self._error("mirror", reason, mirror=self.url)
        if isinstance(reason, FileNotFoundError):  # a mirror that is a folder
            return self._error("not_found", status=404)
        if isinstance(reason, TimeoutError):
            return self._error("timeout", timeout_s=f"{self.timeout_s:g}")
        if isinstance(reason, ssl.SSLCertVerificationError):
            return self._error("certificate", reason)
        if isinstance(reason, ConnectionRefusedError):
            return self._error("refused", host=self._host())
        if isinstance(reason, ConnectionError | http.client.HTTPException):  # it answered, then hung up
            return _Passing(self._cut(0))
        return self._error("offline", reason, host=self._host())

    def _write(
        self, response: http.client.HTTPResponse, length: int, partial: Path
    ) -> tuple[str, tuple[int, int, int]]:
        """Write the answer to `partial`; return its SHA-256 and its stamp."""
        sha256, received = hashlib.sha256(), 0
        try:
            # "x", not mkstemp: the umask decides who may read, as for torch's own downloads into a shared cache
            with partial.open("xb") as file:
                while chunk := self._read(response, received):
                    file.write(chunk)
                    sha256.update(chunk)
                    received += len(chunk)
                    self.total_bytes = max(self.total_bytes, received)
                    self.done_bytes = max(self.done_bytes, received)  # a second attempt does not turn the bar back
                if received < length:
                    raise _Passing(self._cut(received))
                file.flush()
                os.fsync(file.fileno())  # so that a power cut cannot leave a half file under the final name
            with partial.open("rb") as file:
                return sha256.hexdigest(), _stamp(file.fileno())
        except OSError as cause:
            if cause.errno in _FULL:
                raise self._full(self.total_bytes, cause) from cause
            raise self._error("folder", cause, folder=self.path.parent) from cause

    def _read(self, response: http.client.HTTPResponse, received: int) -> bytes:
        if self._stop.is_set():
            raise _Abandoned
        try:
            return response.read1(_CHUNK_BYTES)
        except TimeoutError as cause:
            raise _Passing(self._error("timeout", timeout_s=f"{self.timeout_s:g}")) from cause
        except (OSError, http.client.HTTPException) as cause:
            raise _Passing(self._cut(received)) from cause

    def _place(self, partial: Path) -> None:
        if self._stop.is_set():
            raise _Abandoned
        try:
            partial.replace(self.path)
        except OSError as cause:
            raise self._error("folder", cause, folder=self.path.parent) from cause

    def _expect_space(self, needed_bytes: int) -> None:
        if shutil.disk_usage(self.path.parent).free < needed_bytes:
            raise self._full(needed_bytes)

    def _full(self, needed_bytes: int, cause: OSError | None = None) -> WeightsError:
        free = _size(shutil.disk_usage(self.path.parent).free)
        return self._error("disk_full", cause, folder=self.path.parent, needed=_size(needed_bytes), free=free)

    def _cut(self, received: int) -> WeightsError:
        return self._error(
            "cut",
            expected=_size(self.total_bytes or self.known.size_bytes),
            received=_size(received),
            attempts=len(PAUSES_S) + 1,
        )

    def _host(self) -> str:
        return urlsplit(self.url).netloc or self.url

    def _error(self, code: str, cause: object = None, **values: object) -> WeightsError:
        if cause is not None:
            values["cause"] = _say(cause)
        return WeightsError(
            f"weights.{code}", **{"filename": self.known.filename, "url": self.url, "path": self.path, **values}
        )


def _sweep(folder: Path, filename: str) -> None:
    """Remove what killed processes left of this file; a living download writes to its own all the time."""
    for left in folder.glob(f"{filename}.*{_PARTIAL}"):
        if time.time() - left.stat().st_mtime > _STALE_S:
            left.unlink(missing_ok=True)


# --- reading -------------------------------------------------------------------------------------
def read(path: Path, key: str) -> dict[str, Tensor]:
    """Return the tensors of a weights file by parameter name, ready for the network `key`'s load_state_dict.

    Takes torch.save files old and new and .safetensors; tensors are mapped from the disk where the format allows.
    Code in a file is never run: one that needs it is refused. A wrapping {"state_dict": ...} or {"model": ...} is
    opened, the prefixes of DataParallel and torch.compile are taken off, and DenseNet's old names ("norm.1.weight")
    get today's ("norm1.weight"). torch's layout versions stay on the result as `_metadata`: MNASNet asks for them.

    Args:
        path: any file; one that carries the name of published weights is verified first.
        key: the network that it is for.

    Raises:
        WeightsError: if there is no file, it is damaged, holds code, or holds something else than tensors by name.
    """
    path = Path(path)
    with suppress(RuntimeError):  # "~name" of nobody here may still be a file's name
        path = path.expanduser()
    _expect_file(path)
    if path.name in _published_filenames(key):  # only there: in a name of one's own, 20240115 is a date
        verify(path)
    try:
        content = _load(path)
    except WeightsError:
        raise
    except PermissionError as cause:
        raise WeightsError("weights.unreadable", path=path, cause=_say(cause)) from cause
    except MemoryError:
        raise
    except Exception as cause:  # torch and safetensors raise many kinds for a file that is not theirs
        raise WeightsError("weights.damaged", path=path, cause=_say(cause)) from cause
    return _named_tensors(content, path)


def _published_filenames(key: str) -> set[str]:
    """Names of all files published for a network, its older weights too."""
    try:
        names = {urlsplit(entry.url).path.rpartition("/")[2] for entry in get_model_weights(key)}
        return names | {published(key).filename}
    except (ValueError, WeightsError):
        return set()


def _load(path: Path) -> object:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as cause:
        # torch says the same "weights only load failed" for code and for damage; these words are those for code
        text = str(cause)
        if found := re.search(
            r"GLOBAL (\S+)|unrecognized function (<.*?>)|Unsupported class (\S+)|(TorchScript)", text
        ):
            raise WeightsError("weights.unsafe", path=path, found=next(filter(None, found.groups()))) from cause
        raise


def _named_tensors(content: object, path: Path) -> dict[str, Tensor]:
    for wrapper in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if not isinstance(content, Mapping) or not content:
        received = f"{type(content).__name__}()" if isinstance(content, Mapping) else type(content).__name__
        raise WeightsError("weights.content", path=path, received=received)
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise WeightsError("weights.content", path=path, received=f"{name!r}: {type(value).__name__}")
    versions = getattr(content, "_metadata", None)
    versions = dict(versions) if isinstance(versions, Mapping) else {}
    versions = {name: v for name, v in versions.items() if isinstance(name, str) and isinstance(v, Mapping)}
    # A file without layout versions (safetensors has none) is taken to be of today's: MNASNet refuses to guess.
    versions.setdefault("", {"version": 2})
    tensors = OrderedDict((name, value.detach()) for name, value in content.items())
    for prefix in ("module.", "_orig_mod."):
        if all(name.startswith(prefix) for name in tensors):
            tensors = OrderedDict((name.removeprefix(prefix), value) for name, value in tensors.items())
            versions = {"": {"version": 2}} | {
                f"{name}.".removeprefix(prefix).rstrip("."): version
                for name, version in versions.items()
                if f"{name}.".startswith(prefix)
            }
    state = OrderedDict((_OLD_DENSE_LAYER.sub(r"\1\2", name), value) for name, value in tensors.items())
    state._metadata = OrderedDict(versions)
    return state


def _say(cause: object) -> str:
    """The first sentence of a library's error, without terminal colours, in at most 160 characters."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", str(cause)).strip().splitlines() or [""]
    return f"{type(cause).__name__}: {lines[0].strip()[:160]}".removesuffix(": ")


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 100_000 else f"{size_bytes} B"
