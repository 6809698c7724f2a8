"""Fits of this machine: heads that people trained here on drawn scenes, in the user's cache, one file each.

    found, notices = fits.find(fits.subject(selection))     None where there is none that can be used
    card = found.card                                       for `pack.fill_method`, as the card of a shipped head

A file is written whole or not at all, and tells what it is; whatever else lies in the folder under its name, cut off,
damaged, or made for another version of the method, is left alone with a notice. The folder stays below MOST_BYTES.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from fusionviz import backbones, fusion, models, pack, scenes
from fusionviz.backbones import cache_home
from fusionviz.errors import WeightsError
from fusionviz.records import LevelInfo
from fusionviz.selection import Selection, Value
from fusionviz.training import packing
from fusionviz.training.heads import Head, build_head, head_params, level_names

WIDTH = 64
PREDICTION = "linear"
"""As the shipped heads of the board: one 1x1 convolution, so that the fusion has to do the work."""

MOST_BYTES = 256 << 20
_PARTIAL = ".partial"
_STALE_S = 3600.0
_FORMAT = 1


# --- what is fitted ------------------------------------------------------------------------------
@dataclass(frozen=True)
class Subject:
    """What a fit is of: two fits of one subject are the same fit.

    Attributes:
        source: of the backbone's numbers, as `Selection.weights` has it.
        weights: a mark of these numbers themselves, see `models.backbone_mark`.
        levels: all levels that the method takes, from low to high.
        params: every knob of the method as the fit starts; live ones tell no subjects apart.
        size: side of the network's input in pixels.
        seed: of the method's first numbers, of the scenes' order, and of a random backbone.
    """

    backbone: str
    source: str
    weights: str
    low: str
    high: str
    levels: tuple[str, ...]
    method: str
    params: tuple[tuple[str, Value], ...]
    size: int
    seed: int

    @property
    def digest(self) -> str:
        """A mark of all that makes two fits different."""
        refit = {p.key for p in fusion.spec(self.method).params if p.refit}
        known = {**asdict(self), "source": "", "params": [pair for pair in self.params if pair[0] in refit]}
        return hashlib.sha256(json.dumps([known, list(scenes.CLASSES)], sort_keys=True).encode()).hexdigest()[:20]

    @property
    def path(self) -> Path:
        """Where its fit lies, if there is one."""
        return folder() / f"{self.backbone}.{self.low}-{self.high}.{self.method}.{self.digest}.safetensors"

    def taken(self) -> tuple[LevelInfo, ...]:
        """The levels that the method takes, fine to coarse."""
        return tuple(v for v in backbones.info(self.backbone).levels if v.name in self.levels)

    def build(self, reader: str = "fused") -> Head:
        """Build the head with its first numbers, or one of the baselines beside it.

        Args:
            reader: "fused", "low_only" or "high_only".
        """
        knobs, classes = dict(self.params), len(scenes.CLASSES)
        how = {"width": int(knobs.get("width", WIDTH)), "prediction": PREDICTION, "seed": self.seed}
        if reader == "fused":
            return build_head(self.method, self.taken(), classes, params=knobs, **how)
        ends = [v for v in self.taken() if v.name in (self.low, self.high)]
        return build_head(reader, ends, classes, **how)


def subject(selection: Selection) -> Subject | None:
    """Return what a fit of a selection with named levels would be of, or None where a method takes no two levels.

    The maps of a site inside the network are none: heads read levels.
    """
    if fusion.spec(selection.method).takes not in ("pair", "pyramid") or selection.site:
        return None
    info = backbones.info(selection.backbone)
    low, high = selection.low, selection.high
    knobs = fusion.spec(selection.method).parse({**head_params(selection.method, WIDTH), **selection.knobs})
    return Subject(
        selection.backbone,
        selection.weights,
        models.backbone_mark(selection.backbone, selection.weights, seed=selection.seed),
        low,
        high,
        level_names(selection.method, [v.name for v in info.levels], low, high),
        selection.method,
        tuple(sorted(knobs.items())),
        selection.size or info.preprocessing.crop_px,
        selection.seed,
    )


# --- what a file holds ---------------------------------------------------------------------------
@dataclass(frozen=True)
class Moment:
    """A step at which the method's numbers were kept, and how good they were on scenes that it was not fitted to."""

    step: int
    loss: float
    miou: float


@dataclass(frozen=True)
class Fit:
    """A fit as its file has it.

    Attributes:
        subject: as it was when it began: its live knobs may have been turned since.
        steps: how many there are in all, of the method and of each baseline.
        done: steps that were done by reader; "low_only" and "high_only" come after "fused".
        moments: by rising step; the last one is where the method stands.
        drawn: how many scenes were drawn for it; some of them were only measured on, see `held`.
        card: of the method's head as it stands.
    """

    subject: Subject
    steps: int
    done: Mapping[str, int]
    moments: tuple[Moment, ...]
    drawn: int
    card: pack.HeadCard

    @property
    def complete(self) -> bool:
        return all(self.done.get(reader) == self.steps for reader in READERS)

    def card_at(self, moment: Moment) -> pack.HeadCard:
        """Return the card of the method's head as it stood at a moment."""
        return replace(self.card, group=f"fused/{moment.step}", steps=moment.step, metrics={"miou": moment.miou})

    def state(self) -> dict[str, Tensor]:
        """Return what `Fitting.go_on` needs for the reader that is under way; {} once all are done."""
        tensors = safetensors.torch.load(self.subject.path.read_bytes())
        return {k.removeprefix("now/"): v for k, v in tensors.items() if k.startswith("now/")}

    def kept(self) -> dict[str, Tensor]:
        """Return the numbers that are kept for good: "fused/<step>/<name>", "low_only/<name>", "high_only/<name>"."""
        tensors = safetensors.torch.load(self.subject.path.read_bytes())
        return {k: v for k, v in tensors.items() if not k.startswith("now/")}


READERS = ("fused", "low_only", "high_only")


def held(drawn: int) -> int:
    """Return how many of the scenes that were drawn for a fit it is not fitted to, but measured on."""
    return max(drawn // 6, 1)


def folder() -> Path:
    """Return where fits lie."""
    return cache_home() / "fits"


def halved(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return numbers at half precision, where they fit into it."""
    out = {}
    for name, tensor in state.items():
        tensor = tensor.detach().cpu().contiguous()
        half = tensor.half() if tensor.is_floating_point() else tensor
        out[name] = half.clone() if half.isfinite().all() else tensor.clone()
    return out


# --- writing -------------------------------------------------------------------------------------
def save(
    of: Subject,
    kept: Mapping[str, Tensor],
    now: Mapping[str, Tensor],
    *,
    steps: int,
    done: Mapping[str, int],
    moments: tuple[Moment, ...],
    drawn: int,
) -> None:
    """Write a fit, whole or not at all, in the place of an older one; then let the oldest fits go, if they are many.

    Args:
        kept: see `Fit.kept`.
        now: what `Fitting.state` gave, where the fit is not complete.

    Raises:
        WeightsError: if it cannot be written.
    """
    tensors = {**kept, **{f"now/{name}": tensor for name, tensor in now.items()}}
    head = of.build()
    head.load_state_dict(_group(kept, f"fused/{moments[-1].step}"))
    about = {
        "format": _FORMAT,
        "digest": of.digest,
        "subject": {**asdict(of), "source": ""},
        "steps": steps,
        "done": dict(done),
        "moments": [asdict(m) for m in moments],
        "drawn": drawn,
        "parameters": sum(p.numel() for p in head.parameters()),
        "fingerprint": packing.fingerprint(of.method, head),
        "probe": packing.probe(head, of.taken()),
        "content": _digest(tensors),
        "torch": torch.__version__,
    }
    content = safetensors.torch.save(tensors, {"fusionviz": json.dumps(about)})
    try:
        _write(of.path, content)
    except OSError as cause:
        raise WeightsError("live.write", path=of.path, cause=cause.strerror or cause) from cause
    _bound(keep=of.path)


def forget(of: Subject) -> None:
    """Delete a subject's fit, if there is one.

    Raises:
        WeightsError: if it cannot be deleted.
    """
    try:
        of.path.unlink(missing_ok=True)
    except OSError as cause:
        raise WeightsError("live.write", path=of.path, cause=cause.strerror or cause) from cause


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent, suffix=_PARTIAL)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave the name without the bytes
        Path(partial).replace(path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def _bound(keep: Path) -> None:
    """Delete partial files of processes that were killed, and the oldest fits above MOST_BYTES."""
    with suppress(OSError):  # another process may tidy up at the same time
        for partial in keep.parent.glob(f"*{_PARTIAL}"):
            if time.time() - partial.stat().st_mtime > _STALE_S:
                partial.unlink()
        found = sorted(((p.stat(), p) for p in files() if p != keep), key=lambda pair: pair[0].st_mtime_ns)
        total = keep.stat().st_size + sum(state.st_size for state, _ in found)
        for state, path in found:
            if total <= MOST_BYTES:
                break
            path.unlink()
            total -= state.st_size


def files() -> tuple[Path, ...]:
    """Return the files of all fits."""
    return tuple(sorted(folder().glob("*.safetensors"))) if folder().is_dir() else ()


# --- reading -------------------------------------------------------------------------------------
def find(of: Subject | None) -> tuple[Fit | None, tuple[WeightsError, ...]]:
    """Return a subject's fit, or None with what has to be said about a file that cannot be used."""
    now = stamp(of)
    if now is None:
        return None, ()
    found, mistake = _find(of, of.path, *now)
    return found, (mistake,) if mistake else ()


def stamp(of: Subject | None) -> tuple[int, int] | None:
    """Return what changes whenever the subject's file does; None while there is none."""
    try:
        state = of.path.stat() if of is not None else None
    except OSError:
        return None
    return (state.st_mtime_ns, state.st_size) if state else None


@lru_cache(maxsize=64)
def _find(of: Subject, path: Path, _mtime_ns: int, _size: int) -> tuple[Fit | None, WeightsError | None]:
    try:
        content = path.read_bytes()
        tensors = safetensors.torch.load(content)
        about = json.loads(_metadata(content)["fusionviz"])
        if about["content"] != _digest(tensors):
            raise ValueError("its numbers are not those that were written")
        began = replace(of, params=tuple(sorted((k, v) for k, v in about["subject"]["params"])))
        if (about["format"], about["digest"], began.digest) != (_FORMAT, of.digest, of.digest):
            return None, WeightsError("live.stale", path=path)
        moments = tuple(Moment(**m) for m in about["moments"])
        done = {reader: int(about["done"].get(reader, 0)) for reader in READERS}
        card = _card(began, about, moments[-1], path, hashlib.sha256(content).hexdigest())
        head = began.build()
        if packing.fingerprint(of.method, head) != card.fingerprint:
            return None, WeightsError("live.stale", path=path)
        head.load_state_dict(_group(tensors, card.group))
        if not packing.same_probe(packing.probe(head, began.taken()), card.probe):
            return None, WeightsError("live.stale", path=path)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, IndexError, RuntimeError) as cause:
        return None, WeightsError("live.damaged", path=path, cause=type(cause).__name__)
    except safetensors.SafetensorError as cause:
        return None, WeightsError("live.damaged", path=path, cause=type(cause).__name__)
    return Fit(began, int(about["steps"]), done, moments, int(about["drawn"]), card), None


def _card(of: Subject, about: Mapping, last: Moment, path: Path, sha256: str) -> pack.HeadCard:
    return pack.HeadCard(
        backbone=of.backbone,
        method=of.method,
        low=of.low,
        high=of.high,
        levels=of.levels,
        setting="board",
        params=of.params,
        width=int(dict(of.params).get("width", WIDTH)),
        prediction=PREDICTION,
        classes=tuple(scenes.CLASSES),
        metrics={"miou": last.miou},
        steps=last.step,
        seed=of.seed,
        parameters=int(about["parameters"]),
        fingerprint=about["fingerprint"],
        probe=tuple(about["probe"]),
        file=path.name,
        sha256=sha256,
        origin="fitted",
        folder=str(path.parent),
        group=f"fused/{last.step}",
    )


def _metadata(content: bytes) -> Mapping[str, str]:
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size])["__metadata__"]


def _digest(tensors: Mapping[str, Tensor]) -> str:
    mark = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        mark.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        mark.update(tensor.contiguous().numpy().tobytes())
    return mark.hexdigest()


def _group(tensors: Mapping[str, Tensor], group: str) -> dict[str, Tensor]:
    start = f"{group}/"
    found = {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
    return {k: v.float() if v.is_floating_point() else v for k, v in found.items()}
