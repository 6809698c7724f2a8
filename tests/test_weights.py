"""Published weights: found, downloaded, verified and read; every failure is said and leaves nothing behind."""

import errno
import hashlib
import io
import os
import pickle
import re
import shutil
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from argparse import Namespace
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torchvision
from _server import Answer, closed_port, file_server
from safetensors.torch import save_file
from torchvision.models import get_model, get_model_weights, list_models
from torchvision.models.densenet import _load_state_dict as torchvision_loads_densenet

from fusionviz import texts, weights
from fusionviz.errors import WeightsError
from fusionviz.weights import Published

KEY = "squeezenet1_1"
NETWORKS = list_models(module=torchvision.models)


def saved(content: object, **options: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def state_of(key: str, seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return get_model(key, weights=None).state_dict()


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return state_of(KEY)


@pytest.fixture(scope="module")
def body(state: dict[str, torch.Tensor]) -> bytes:
    return saved(state)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of torch's, a network without proxies, and no waiting between attempts."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.delenv(weights.MIRROR, raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(weights, "PAUSES_S", (0.0, 0.0))
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.fixture
def known(body: bytes, monkeypatch: pytest.MonkeyPatch) -> Published:
    """`body` as if torchvision had published it."""
    digest = hashlib.sha256(body).hexdigest()[:8]
    filename = f"{KEY}-{digest}.pth"
    record = replace(
        weights.published(KEY),
        url=f"https://weights.invalid/models/{filename}",
        filename=filename,
        checksum=digest,
        size_bytes=len(body),
    )
    real = weights.published
    monkeypatch.setattr(weights, "published", lambda key: record if key == KEY else real(key))
    return record


@pytest.fixture
def server(known: Published, body: bytes, monkeypatch: pytest.MonkeyPatch):
    with file_server() as running:
        running.files[known.filename] = body
        monkeypatch.setenv(weights.MIRROR, running.url)
        yield running


def left(cache: Path) -> list[str]:
    return sorted(p.name for p in cache.iterdir()) if cache.is_dir() else []


def fails(code: str, *, mentions: tuple[object, ...] = (), **options: object) -> WeightsError:
    """Fetch, expect this failure, and check that both languages say what they must."""
    with pytest.raises(WeightsError) as caught:
        weights.fetch(KEY, **options)
    assert caught.value.code == f"weights.{code}"
    for language in texts.LANGUAGES:
        sentence = caught.value.text(language)
        for mention in mentions:
            assert str(mention) in sentence, sentence
    return caught.value


# --- what is published ---------------------------------------------------------------------------
@pytest.mark.parametrize("key", NETWORKS)
def test_published_tells_what_torchvision_knows(key):
    known, entry = weights.published(key), get_model_weights(key).DEFAULT
    assert known.url == entry.url
    assert entry.url.endswith("/" + known.filename)
    assert known.checksum == torch.hub.HASH_REGEX.search(known.filename)[1]  # the checksum torchvision itself checks
    assert known.size_bytes / 2**20 == pytest.approx(entry.meta["_file_size"], abs=1e-6)
    assert known.name == entry.name
    assert list(known.categories) == entry.meta["categories"]
    assert len(known.categories) == 1000
    assert weights.categories(key) == known.categories


def test_resnet18_by_hand():
    known = weights.published("resnet18")
    assert (known.name, known.filename, known.checksum) == ("IMAGENET1K_V1", "resnet18-f37072fd.pth", "f37072fd")
    assert known.url == "https://download.pytorch.org/models/resnet18-f37072fd.pth"
    assert abs(known.size_bytes - 46_830_571) < 1024  # the size of the real file
    assert known.categories[:2] == ("tench", "goldfish")
    assert known.recipe.startswith("https://")
    assert known.licence == ""
    assert "SWAG" in weights.published("vit_h_14").licence


def test_nothing_published():
    with pytest.raises(WeightsError) as caught:
        weights.published("resnet81")
    assert caught.value.code == "weights.none"
    assert "resnet18" in str(caught.value)
    assert "resnet18" in caught.value.text("zh")
    assert weights.cached("resnet81") is None
    assert weights.categories("resnet81") == ()
    with pytest.raises(WeightsError, match="resnet81"):
        weights.fetch("resnet81")


# --- the cache -----------------------------------------------------------------------------------
def test_cache_is_torchs_own(cache, tmp_path, monkeypatch):
    assert weights.cache_folder() == cache
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "elsewhere"))
    assert weights.cache_folder() == tmp_path / "elsewhere" / "hub" / "checkpoints"


def test_cached_needs_the_full_size(cache, known, body):
    assert weights.cached(KEY) is None
    cache.mkdir(parents=True)
    path = cache / known.filename
    path.write_bytes(body[: len(body) // 2])
    assert weights.cached(KEY) is None
    path.write_bytes(body)
    assert weights.cached(KEY) == path
    path.unlink()
    path.mkdir()
    assert weights.cached(KEY) is None


def test_cached_believes_the_checksum_above_torchvisions_size(cache, known, body, monkeypatch):
    wrong = replace(known, size_bytes=known.size_bytes + 100_000)
    monkeypatch.setattr(weights, "published", lambda key: wrong)
    cache.mkdir(parents=True)
    (cache / known.filename).write_bytes(body)
    assert weights.cached(KEY) == cache / known.filename


def test_a_file_is_hashed_once_until_it_changes(tmp_path, body, monkeypatch):
    digest = hashlib.sha256(body).hexdigest()
    path = tmp_path / f"net-{digest[:8]}.pth"
    path.write_bytes(body)
    calls = []
    real = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda *a: calls.append(1) or real(*a))
    weights.verify(path)
    weights.verify(path)
    assert len(calls) == 1
    path.write_bytes(body + b"!")
    with pytest.raises(WeightsError) as caught:
        weights.verify(path)
    assert len(calls) == 2
    assert caught.value.code == "weights.corrupt"
    assert digest[:8] in str(caught.value)
    assert str(path) in caught.value.text("zh")


@pytest.mark.parametrize(("name", "code"), [("net.pth", "unnamed"), ("net-0123abcd.pth", "missing")])
def test_verify_never_says_yes_to_what_it_cannot_check(tmp_path, name, code):
    if code == "unnamed":
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(WeightsError) as caught:
        weights.verify(tmp_path / name)
    assert caught.value.code == f"weights.{code}"


# --- the download --------------------------------------------------------------------------------
def test_fetch_read_and_load(cache, known, server, state):
    seen = []
    path = weights.fetch(KEY, progress=lambda done, total: seen.append((done, total)))
    assert path == cache / known.filename == weights.cached(KEY)
    assert left(cache) == [known.filename]
    assert server.requests == [f"/models/{known.filename}"]
    assert seen[-1] == (known.size_bytes, known.size_bytes)
    weights.verify(path)
    network = get_model(KEY, weights=None)
    network.load_state_dict(weights.read(path, KEY), strict=True)
    assert same(network.state_dict(), state)


def test_what_fetch_brought_torchvision_finds(cache, known, server, state):
    weights.fetch(KEY)
    loaded = torch.hub.load_state_dict_from_url(known.url, check_hash=True)  # the host does not exist
    assert same(loaded, state)


def test_fetch_downloads_only_what_is_not_there(cache, known, server):
    path = weights.fetch(KEY)
    seen = []
    assert weights.fetch(KEY, progress=lambda *now: seen.append(now)) == path
    assert len(server.requests) == 1
    assert seen == [(known.size_bytes, known.size_bytes)]


def test_fetch_replaces_a_damaged_file(cache, known, server, body):
    cache.mkdir(parents=True)
    path = cache / known.filename
    path.write_bytes(b"?" + body[1:])
    assert weights.cached(KEY) == path  # its size is right ...
    with pytest.raises(WeightsError, match="damaged"):
        weights.read(path, KEY)  # ... and reading tells
    assert weights.fetch(KEY) == path
    assert path.read_bytes() == body


def test_other_users_may_read_the_file(cache, known, server):
    before = os.umask(0o022)
    try:
        path = weights.fetch(KEY)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644


def test_progress_never_goes_back_over_a_cut(cache, known, server, body):
    """The first attempt breaks near the end, the second pauses near the start: the bar must wait, not turn back."""
    late, early = len(body) * 3 // 4, len(body) // 4
    first, second = threading.Event(), threading.Event()
    server.answers = [Answer(cut_at=late, go=first), Answer(pause_at=early, go=second)]
    seen = []

    def progress(done, total):
        seen.append((done, total))
        if done >= late:
            first.set()

    def resume():
        while len(server.requests) < 2:
            time.sleep(0.01)
        time.sleep(0.25)  # a few looks at the second attempt while it stands behind the first
        second.set()

    helper = threading.Thread(target=resume, daemon=True)
    helper.start()
    weights.fetch(KEY, progress=progress)
    helper.join()
    done = [d for d, _ in seen]
    assert late in done
    assert done == sorted(done)
    assert {t for _, t in seen} == {len(body)}
    assert done[-1] == len(body)
    assert len(server.requests) == 2
    assert left(cache) == [known.filename]


def test_a_cut_connection_is_tried_again_cleanly(cache, known, server, body):
    server.answers = [Answer(cut_at=1000), Answer(cut_at=0)]
    assert weights.fetch(KEY).read_bytes() == body
    assert len(server.requests) == 3


def test_a_busy_server_is_tried_again(cache, server, body):
    server.answers = [Answer(status=503), Answer(status=429)]
    assert weights.fetch(KEY).read_bytes() == body


def test_cut_every_time(cache, known, server):
    server.answers = [Answer(cut_at=1000)] * 3
    fails("cut", mentions=("1000 B", f"{known.size_bytes / 1e6:.1f} MB", server.url, cache / known.filename, 3))
    assert len(server.requests) == 3
    assert left(cache) == []


def test_hung_up_before_an_answer(cache, known, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv(weights.MIRROR, f"http://127.0.0.1:{listener.getsockname()[1]}")

        def hang_up():
            for _ in range(3):
                connection, _ = listener.accept()
                connection.recv(4096)
                connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        fails("cut")
        thread.join()
    assert left(cache) == []


def test_wrong_checksum(cache, known, server, body):
    server.files[known.filename] = b"<html>Please log in</html>"
    fails("checksum", mentions=(known.checksum, "26 B", server.url, cache / known.filename))
    assert len(server.requests) == 1
    assert left(cache) == []
    server.files[known.filename] = body[:-1] + bytes([body[-1] ^ 1])
    fails("checksum")
    assert left(cache) == []


def test_a_failed_fetch_keeps_the_file_that_was_there(cache, known, server):
    cache.mkdir(parents=True)
    (cache / known.filename).write_bytes(b"older")
    server.answers = [Answer(body=b"wrong")]
    fails("checksum")
    assert left(cache) == [known.filename]
    assert (cache / known.filename).read_bytes() == b"older"


@pytest.mark.parametrize(
    ("status", "code", "requests"),
    [(404, "not_found", 1), (403, "forbidden", 1), (500, "server", 3), (503, "server", 3), (418, "status", 1)],
)
def test_http_statuses(cache, known, server, status, code, requests):
    server.answers = [Answer(status=status)] * 3
    fails(code, mentions=(status, server.url + known.filename, cache / known.filename))
    assert len(server.requests) == requests
    assert left(cache) == []


def test_nobody_listens(cache, known, monkeypatch):
    port = closed_port()
    monkeypatch.setenv(weights.MIRROR, f"http://127.0.0.1:{port}/")
    fails("refused", mentions=(f"127.0.0.1:{port}", cache / known.filename))
    assert left(cache) == []


def test_no_such_host(cache, known, monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    fails("offline", mentions=("weights.invalid", "Name or service not known", known.url, cache / known.filename))
    assert left(cache) == []


def test_certificate(cache, known, monkeypatch):
    class Opener:
        def open(self, *_, **__):
            raise urllib.error.URLError(ssl.SSLCertVerificationError("self-signed certificate"))

    monkeypatch.setattr(urllib.request, "build_opener", Opener)
    fails("certificate", mentions=("self-signed", "SSL_CERT_FILE", known.url))


def test_a_silent_server(cache, known, server):
    go = threading.Event()
    server.answers = [Answer(pause_at=1000, go=go)] * 3
    fails("timeout", mentions=(0.4, known.url.rpartition("/")[2], cache / known.filename), timeout_s=0.4)
    assert len(server.requests) == 3  # it had begun, so it is tried again
    assert left(cache) == []
    go.set()


def test_a_server_that_never_begins(cache, known, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listener:  # takes the connection, says nothing
        monkeypatch.setenv(weights.MIRROR, f"http://127.0.0.1:{listener.getsockname()[1]}")
        fails("timeout", timeout_s=0.1)
    assert left(cache) == []


def test_the_disk_is_full_before(cache, known, server, monkeypatch):
    usage = shutil.disk_usage(Path(__file__).parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=known.size_bytes - 1))
    written = []
    monkeypatch.setattr(weights._Download, "_write", lambda *_: written.append(1))
    fails("disk_full", mentions=(f"{known.size_bytes / 1e6:.1f} MB", cache, "TORCH_HOME"))
    assert written == []
    assert left(cache) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_the_disk_fills_on_the_way(cache, known, server, monkeypatch, number):
    class Full:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, chunk):
            self.file.write(chunk[:10])
            raise OSError(number, os.strerror(number))

    real = Path.open
    monkeypatch.setattr(Path, "open", lambda p, mode="r": Full(real(p, mode)) if mode == "xb" else real(p, mode))
    fails("disk_full", mentions=(cache, cache / known.filename, "TORCH_HOME"))
    assert len(server.requests) == 1
    assert left(cache) == []


def test_the_folder_cannot_be_made(cache, known, server, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "file"))
    fails("folder", mentions=(tmp_path / "file", "TORCH_HOME"))
    assert server.requests == []


def test_the_folder_cannot_be_written(cache, known, server, monkeypatch):
    real = Path.open

    def refuse(path, mode="r"):
        if mode == "xb":
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, mode)

    monkeypatch.setattr(Path, "open", refuse)
    fails("folder", mentions=(cache, "Permission denied"))
    assert left(cache) == []


def test_the_place_is_taken_by_a_folder(cache, known, server):
    (cache / known.filename).mkdir(parents=True)
    fails("folder", mentions=(cache / known.filename,))
    assert left(cache) == [known.filename]


def test_a_length_that_is_not_stated(cache, server, body):
    """A server may not say how long the file is; the checksum still does."""
    server.answers = [Answer(stated=False)]
    seen = []
    assert weights.fetch(KEY, progress=lambda *now: seen.append(now)).read_bytes() == body
    assert seen[-1] == (len(body), len(body))


def test_redirects_are_followed(cache, known, server, body):
    server.answers = [Answer(status=302, location=f"/moved/{known.filename}")]
    assert weights.fetch(KEY).read_bytes() == body
    assert server.requests == [f"/models/{known.filename}", f"/moved/{known.filename}"]


def test_proxies_of_the_environment_are_used(cache, known, server, body, monkeypatch):
    monkeypatch.setenv(weights.MIRROR, "http://mirror.invalid/models")
    monkeypatch.setenv("http_proxy", server.url.removesuffix("/models/"))
    assert weights.fetch(KEY).read_bytes() == body
    assert server.requests == [f"http://mirror.invalid/models/{known.filename}"]


def test_a_shared_folder_is_a_mirror(cache, known, body, tmp_path, monkeypatch):
    shared = tmp_path / "shared"
    shared.mkdir()
    monkeypatch.setenv(weights.MIRROR, shared.as_uri())
    fails("not_found", mentions=(known.filename,))
    (shared / known.filename).write_bytes(body)
    assert weights.fetch(KEY).read_bytes() == body


@pytest.mark.parametrize(
    "mirror", ["10.0.0.1:8000", "s3://bucket/models", "http://", "http://[::1/", "http://127.0.0.1:port/"]
)
def test_a_mirror_that_is_no_address(cache, known, monkeypatch, mirror):
    monkeypatch.setenv(weights.MIRROR, mirror)
    fails("mirror", mentions=(mirror, weights.MIRROR))
    assert left(cache) == []


def test_left_overs_of_killed_processes_go(cache, known, server):
    cache.mkdir(parents=True)
    old, living, other = (cache / n for n in (f"{known.filename}.1.part", f"{known.filename}.2.part", "other.3.part"))
    for path in (old, living, other):
        path.write_bytes(b"half")
    hours_ago = time.time() - 7200
    os.utime(old, (hours_ago, hours_ago))
    os.utime(other, (hours_ago, hours_ago))
    weights.fetch(KEY)
    assert left(cache) == sorted([known.filename, living.name, other.name])


# --- leaving early, sharing ----------------------------------------------------------------------
def test_cancel_while_the_server_is_silent(cache, known, server, body):
    go = threading.Event()
    server.answers = [Answer(pause_at=len(body) // 2, go=go)]
    seen = []
    fails(
        "cancelled",
        mentions=(known.filename,),
        progress=lambda done, total: seen.append((done, total)),
        cancelled=lambda: bool(seen) and seen[-1][0] >= len(body) // 2,
    )
    assert seen[-1] == (len(body) // 2, len(body))
    assert left(cache) == []  # though the server has not spoken since
    assert weights.fetch(KEY).read_bytes() == body  # afresh, not waiting for the abandoned one
    go.set()


def test_cancelled_from_the_start(cache, server):
    fails("cancelled", cancelled=lambda: True)
    assert left(cache) == []


def test_a_page_that_is_left_raises_from_its_progress(cache, known, server, body):
    class PageLeft(BaseException):
        pass

    go = threading.Event()
    server.answers = [Answer(pause_at=len(body) // 2, go=go)]

    def progress(done, total):
        raise PageLeft

    with pytest.raises(PageLeft):
        weights.fetch(KEY, progress=progress)
    assert left(cache) == []
    go.set()


def together(count: int, act) -> list[object]:
    """Run `act(i)` in threads at once; return what each gave or raised."""
    results: list[object] = [None] * count
    barrier = threading.Barrier(count)

    def run(i):
        barrier.wait()
        try:
            results[i] = act(i)
        except WeightsError as error:
            results[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_sessions_at_once_share_one_download(cache, known, server, body):
    seen = [[] for _ in range(8)]
    results = together(8, lambda i: weights.fetch(KEY, progress=lambda *now: seen[i].append(now)))
    assert results == [cache / known.filename] * 8
    assert len(server.requests) == 1
    assert all(s[-1] == (len(body), len(body)) for s in seen)
    assert left(cache) == [known.filename]


def test_one_leaves_the_others_go_on(cache, known, server, body):
    go = threading.Event()
    server.answers = [Answer(pause_at=len(body) // 2, go=go)]
    joined = set()

    def act(i):
        if i > 0:
            return weights.fetch(KEY, progress=lambda *_: joined.add(i))
        try:
            return weights.fetch(KEY, cancelled=lambda: len(joined) == 2)
        finally:
            go.set()

    first, *others = together(3, act)
    assert isinstance(first, WeightsError)
    assert first.code == "weights.cancelled"
    assert others == [cache / known.filename] * 2
    assert len(server.requests) == 1
    assert left(cache) == [known.filename]


def test_sessions_at_once_share_one_failure(cache, known, server):
    go = threading.Event()
    server.answers = [Answer(body=b"wrong" * 100, pause_at=0, go=go)]
    seen = [0, 0, 0]

    def progress_of(i):
        def progress(done, total):
            seen[i] = 1
            if all(seen):
                go.set()

        return progress

    results = together(3, lambda i: weights.fetch(KEY, progress=progress_of(i)))
    assert [r.code for r in results] == ["weights.checksum"] * 3
    assert len({id(r) for r in results}) == 3  # each has an error, and a traceback, of its own
    assert len(server.requests) == 1
    assert left(cache) == []


def test_processes_at_once_do_not_disturb_each_other(cache, known, server, body, monkeypatch):
    """Another process knows nothing of ours: the same as two downloads that are not on one list."""

    class Apart(dict):
        def get(self, *_):
            return None

    monkeypatch.setattr(weights, "_downloads", Apart())
    go = threading.Event()
    server.answers = [Answer(pause_at=len(body) // 2, go=go), Answer(pause_at=len(body) // 3, go=go)]
    threading.Timer(0.2, go.set).start()
    assert together(2, lambda _: weights.fetch(KEY)) == [cache / known.filename] * 2
    assert len(server.requests) == 2
    assert left(cache) == [known.filename]
    assert (cache / known.filename).read_bytes() == body


# --- reading -------------------------------------------------------------------------------------
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
def test_read_torch_files_of_both_formats(tmp_path, state, zipped):
    path = tmp_path / "mine.pth"
    path.write_bytes(saved(state, _use_new_zipfile_serialization=zipped))
    got = weights.read(path, KEY)
    assert same(got, state)
    get_model(KEY, weights=None).load_state_dict(got, strict=True)


@pytest.mark.parametrize("key", [KEY, "mnasnet0_5", "shufflenet_v2_x0_5"])
def test_read_safetensors(tmp_path, key):
    """MNASNet refuses a state without torch's layout versions, which this format does not keep."""
    expected = state_of(key)
    path = tmp_path / "mine.safetensors"
    save_file(expected, path)
    got = weights.read(path, key)
    assert same(got, expected)
    get_model(key, weights=None).load_state_dict(got, strict=True)


def test_read_keeps_layout_versions(tmp_path):
    expected = state_of("mnasnet0_5")
    path = tmp_path / "mine.pth"
    path.write_bytes(saved(expected))
    assert weights.read(path, "mnasnet0_5")._metadata == expected._metadata


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": s, "optimizer": {}},
        lambda s: OrderedDict(("module." + k, v) for k, v in s.items()),
        lambda s: {"model": {"module._orig_mod." + k: v for k, v in s.items()}},
        lambda s: {k: torch.nn.Parameter(v, requires_grad=v.is_floating_point()) for k, v in s.items()},
    ],
    ids=["state_dict", "model", "DataParallel", "compiled", "parameters"],
)
def test_read_unwraps(tmp_path, state, wrap):
    path = tmp_path / "mine.pth"
    path.write_bytes(saved(wrap(state)))
    got = weights.read(path, KEY)
    assert same(got, state)
    assert not any(v.requires_grad for v in got.values())
    get_model(KEY, weights=None).load_state_dict(got, strict=True)


def test_data_parallel_keeps_the_inner_layout_version(tmp_path):
    wrapped = torch.nn.DataParallel(get_model("mnasnet0_5", weights=None))
    path = tmp_path / "mine.pth"
    path.write_bytes(saved(wrapped.state_dict()))
    got = weights.read(path, "mnasnet0_5")
    assert got._metadata == wrapped.module.state_dict()._metadata
    get_model("mnasnet0_5", weights=None).load_state_dict(got, strict=True)


def test_densenets_old_names(tmp_path):
    expected = state_of("densenet121")
    old = OrderedDict(
        (re.sub(r"(denselayer\d+\.(?:norm|relu|conv))([12]\.)", r"\1.\2", name), value)
        for name, value in expected.items()
        if not name.endswith("num_batches_tracked")  # files of that age have none
    )
    assert sum(".norm.1." in name for name in old) == 58 * 4  # 6 + 12 + 24 + 16 layers, four numbers each
    path = tmp_path / "densenet.pth"
    path.write_bytes(saved(old, _use_new_zipfile_serialization=False))
    got = weights.read(path, "densenet121")
    network, torchvisions = (get_model("densenet121", weights=None) for _ in range(2))
    network.load_state_dict(got, strict=True)
    assert same(network.state_dict(), expected)
    remapped = old.copy()
    torchvision_loads_densenet(torchvisions, SimpleNamespace(get_state_dict=lambda **_: remapped), progress=False)
    assert same(got, remapped)
    assert same(network.state_dict(), torchvisions.state_dict())


class Malicious:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_is_refused_and_never_run(tmp_path, zipped):
    mark, path = tmp_path / "ran", tmp_path / "mine.pth"
    path.write_bytes(saved({"a": torch.ones(1), "b": Malicious(mark)}, _use_new_zipfile_serialization=zipped))
    with pytest.raises(WeightsError) as caught:
        weights.read(path, KEY)
    assert caught.value.code == "weights.unsafe"
    assert not mark.exists()
    torch.load(path, weights_only=False)
    assert mark.exists()  # so the file would have done it


def test_bare_pickles_are_refused(tmp_path):
    mark, path = tmp_path / "ran", tmp_path / "mine.pkl"
    content = pickle.dumps(Malicious(mark), protocol=2)
    path.write_bytes(content)
    with pytest.raises(WeightsError):
        weights.read(path, KEY)
    assert not mark.exists()
    pickle.loads(content)
    assert mark.exists()


@pytest.mark.parametrize(
    ("content", "found"),
    [(torch.nn.Linear(2, 2), "Linear"), ({"model": {}, "args": Namespace(lr=1)}, "argparse.Namespace")],
    ids=["module", "training script"],
)
def test_whole_modules_and_arguments_are_refused_by_name(tmp_path, content, found):
    path = tmp_path / "mine.pth"
    path.write_bytes(saved(content))
    with pytest.raises(WeightsError) as caught:
        weights.read(path, KEY)
    assert caught.value.code == "weights.unsafe"
    assert found in str(caught.value)
    assert "state_dict" in caught.value.text("zh")


@pytest.mark.parametrize(
    ("content", "received"),
    [
        ({}, "dict()"),
        ([torch.ones(1)], "list"),
        (torch.ones(1), "Tensor"),
        ({"a": 1}, "'a': int"),
        ({1: torch.ones(1)}, "1: Tensor"),
    ],
    ids=["empty", "list", "tensor", "number", "no name"],
)
def test_other_content_is_named(tmp_path, content, received):
    path = tmp_path / "mine.pth"
    path.write_bytes(saved(content))
    with pytest.raises(WeightsError) as caught:
        weights.read(path, KEY)
    assert caught.value.code == "weights.content"
    assert received in str(caught.value)


def test_nonsense_in_place_of_layout_versions_is_dropped(tmp_path, state):
    odd = OrderedDict(state)
    odd._metadata = {"features": 7, 3: {}, "": {"version": 1}}
    path = tmp_path / "mine.pth"
    path.write_bytes(saved(odd))
    got = weights.read(path, KEY)
    assert got._metadata == {"": {"version": 1}}
    get_model(KEY, weights=None).load_state_dict(got, strict=True)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"<html>no</html>"])
def test_damaged_files(tmp_path, state, suffix, damage):
    path = tmp_path / f"mine{suffix}"
    if suffix == ".pth":
        path.write_bytes(saved(state))
    else:
        save_file(state, path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(WeightsError) as caught:
        weights.read(path, KEY)
    assert caught.value.code == "weights.damaged"
    for language in texts.LANGUAGES:
        assert str(path) in caught.value.text(language)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("path", ["nothing.pth", ".", "~nobody-of-this-name/x.pth"])
def test_no_such_file(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError) as caught:
        weights.read(Path(path), KEY)
    assert caught.value.code == "weights.missing"


def test_a_name_too_long_to_look_up(tmp_path):
    with pytest.raises(WeightsError) as caught:
        weights.read(tmp_path / ("x" * 5000), KEY)
    assert caught.value.code == "weights.unreadable"


def test_a_published_name_must_have_the_published_content(tmp_path, state):
    """Also that of older weights of the same network, and nowhere else: a date looks like a checksum."""
    content = saved(state_of("resnet18"))
    for name in ("resnet50-11ad3fa6.pth", "resnet50-0676ba61.pth"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsError) as caught:
            weights.read(tmp_path / name, "resnet50")
        assert caught.value.code == "weights.corrupt"
    mine = tmp_path / "resnet18-20240115.pth"
    mine.write_bytes(content)
    assert len(weights.read(mine, "resnet18")) == 122


def test_any_network_may_read_a_file(tmp_path, state):
    path = tmp_path / "mine.pth"
    path.write_bytes(saved(state))
    assert same(weights.read(path, "a network of one's own"), state)


# --- texts ---------------------------------------------------------------------------------------
def test_every_error_has_a_text_in_both_languages_with_the_same_values():
    source = Path(weights.__file__).read_text("utf-8")
    raised = set(re.findall(r'"weights\.(\w+)"', source)) | set(re.findall(r'_error\(\s*"(\w+)"', source))
    assert len(raised) > 15
    english, chinese = (texts.locale(language)["errors"]["weights"] for language in ("en", "zh"))
    assert raised == set(english) == set(chinese)
    for code in raised:
        assert set(re.findall(r"{(\w+)}", english[code])) == set(re.findall(r"{(\w+)}", chinese[code])), code
        assert re.search(r"[\u4e00-\u9fff]", chinese[code])
