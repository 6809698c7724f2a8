"""The pack: networks and heads that this project trained itself and ships, in `assets/weights`.

    state = pack.backbone_state("scene_resnet")                      for `backbones.load(..., state=state)`
    card = pack.head("scene_resnet", "aff", "s4", "s16")             None where nothing was trained for this
    if card and pack.covers(card, knobs): pack.fill_method(module, card, knobs)

One safetensors file for each network, and one for all heads of a network and setting; beside each lies a card in JSON
that says how it was made, how good it is, and the file's SHA-256. Numbers are kept at half precision and come out as
float32. A file is read when it is first asked for, and verified then.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from fusionviz import fusion, texts
from fusionviz.errors import WeightsError
from fusionviz.fusion import FusionModule
from fusionviz.records import Provenance
from fusionviz.registry import METHODS
from fusionviz.selection import Value

SETTINGS = ("board", "leaderboard")
"""What heads are for: "board" reads the fused map by one 1x1 convolution, so that the fusion has to do the work and
its weights can be read; "leaderboard" by 3x3 and 1x1, from s4 and s32, so that methods are compared at their best."""


@dataclass(frozen=True)
class BackboneCard:
    """What is known of a shipped network.

    Attributes:
        file: its name in `folder()`.
        classes: keys of the kinds that its logits name, `scenes.classes.<key>` in the locale.
        metrics: in percent, on test scenes.
        occluded: the same on scenes where things hide parts of each other; {} where it was not measured.
        made: how: seeds of the scenes, steps, commit, versions, licence.
    """

    key: str
    file: str
    sha256: str
    classes: tuple[str, ...]
    metrics: Mapping[str, float]
    made: Mapping[str, object]
    occluded: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class HeadCard:
    """What is known of a trained head, shipped or fitted on this machine: what it covers, and where its numbers lie.

    Attributes:
        method: a key of the catalogue, or "low_only" or "high_only".
        low, high: the levels that it was trained for.
        levels: all levels that it takes, from low to high.
        setting: one of SETTINGS.
        params: every knob of the method as it was trained, sorted.
        width: of the fused map where the method has that knob, and of a "conv" prediction.
        prediction: "linear" or "conv".
        classes: keys of the classes that it tells apart, the background first.
        metrics: in percent, on test scenes.
        parameters: learned numbers, the prediction counted.
        fingerprint: of the method's knobs and the shapes of its numbers, to notice that the method has changed.
        probe: what it answers to a fixed input, to notice that the method's equation has changed.
        file: its name in `folder`; `sha256` is of the whole file.
        origin: "bundled", or "fitted" on this machine, see `fits`.
        folder: where the file lies; "" is the pack's own.
        group: what stands before the names of this head's numbers; "" is the method.
    """

    backbone: str
    method: str
    low: str
    high: str
    levels: tuple[str, ...]
    setting: str
    params: tuple[tuple[str, Value], ...]
    width: int
    prediction: str
    classes: tuple[str, ...]
    metrics: Mapping[str, float]
    steps: int
    seed: int
    parameters: int
    fingerprint: str
    probe: tuple[float, ...]
    file: str
    sha256: str
    origin: str = "bundled"
    folder: str = ""
    group: str = ""

    @property
    def path(self) -> Path:
        return Path(self.folder or folder()) / self.file

    @property
    def provenance(self) -> Provenance:
        """Of a method that has this head's numbers."""
        if self.origin == "bundled":
            return Provenance("bundled", f"{self.file.removesuffix('.safetensors')}/{self.method}")
        if self.steps == 0:
            return Provenance("random", f"seed {self.seed}")
        return Provenance("fitted_scenes", f"scenes, {self.steps} steps")


_elsewhere: ContextVar[Path | None] = ContextVar("pack_folder", default=None)


def folder() -> Path:
    """Return where the pack lies."""
    return _elsewhere.get() or texts.ASSETS / "weights"


@contextmanager
def reading(place: Path) -> Iterator[None]:
    """Read another pack in this block, in this thread: one that is being built, or a test's."""
    token = _elsewhere.set(place)
    try:
        yield
    finally:
        _elsewhere.reset(token)


# --- networks ------------------------------------------------------------------------------------
def backbone_card(key: str) -> BackboneCard | None:
    """Return what is known of a shipped network, or None if it is none of these.

    Raises:
        WeightsError: if the card is there and cannot be read.
    """
    card = _card(folder() / f"{key}.json")
    if card is None:
        return None
    try:
        return BackboneCard(**{**card, "classes": tuple(card["classes"])})
    except (KeyError, TypeError) as cause:
        raise WeightsError("pack.card", path=folder() / f"{key}.json") from cause


def backbone_state(key: str) -> dict[str, Tensor] | None:
    """Return a shipped network's numbers for `backbones.load(key, state=...)`, or None if it is none of these.

    Raises:
        WeightsError: if the file is missing, or is not the one that the card describes.
    """
    card = backbone_card(key)
    return None if card is None else dict(_tensors(folder() / card.file, card.sha256))


# --- heads ---------------------------------------------------------------------------------------
def heads(backbone: str, setting: str = "board") -> dict[str, HeadCard]:
    """Return the shipped heads of a network by method, the baselines first; empty if there are none.

    Raises:
        WeightsError: if the card is damaged, or was made for another version of the network.
    """
    path = folder() / f"{backbone}.{setting}.json"
    card = _card(path)
    if card is None:
        return {}
    try:
        shared, found = card["shared"], {}
        for method, own in card["heads"].items():
            lists = {name: tuple(own[name]) for name in ("levels", "probe")}
            params = tuple(sorted(own["params"].items()))
            classes = tuple(shared["classes"])
            found[method] = HeadCard(**{**shared, **own, **lists, "params": params, "classes": classes})
        trained_on = card["backbone_sha256"]
    except (KeyError, TypeError, AttributeError) as cause:
        raise WeightsError("pack.card", path=path) from cause
    network = backbone_card(backbone)
    if network is None or network.sha256 != trained_on:
        raise WeightsError("pack.mixed", backbone=backbone, path=path)
    return found


def head(backbone: str, method: str, low: str, high: str, setting: str = "board") -> HeadCard | None:
    """Return the card of the head that was trained for these levels, or None.

    Args:
        method: a key of the catalogue, or "low_only" or "high_only".
        setting: one of SETTINGS.
    """
    card = heads(backbone, setting).get(method)
    return card if card is not None and (card.low, card.high) == (low, high) else None


def head_state(card: HeadCard) -> dict[str, Tensor]:
    """Return a head's numbers: "fusion.<name>" of the method, "predict.<name>" of the prediction.

    Raises:
        WeightsError: if the file is missing, or is not the one that the card describes.
    """
    start = f"{card.group or card.method}/"
    state = {k.removeprefix(start): v for k, v in _tensors(card.path, card.sha256).items() if k.startswith(start)}
    if not state:
        raise WeightsError("pack.card", path=card.path)
    return state


def beside(card: HeadCard, method: str) -> HeadCard | None:
    """Return the card of another head of the same network and levels, from where `card` is, or None.

    Args:
        method: "low_only" or "high_only"; of what ships, any.

    Raises:
        WeightsError: if the pack or the file is damaged.
    """
    if card.origin == "bundled":
        return head(card.backbone, method, card.low, card.high, card.setting)
    own = replace(card, method=method, group=method, levels=(card.low, card.high), params=())
    return own if any(name.startswith(f"{method}/") for name in _tensors(card.path, card.sha256)) else None


def covers(card: HeadCard, params: Mapping[str, Value]) -> bool:
    """Say whether a head's numbers belong to a method with these knobs.

    Knobs that change shapes must be as they were trained; live ones may differ, and knobs not given are the trained.
    """
    trained = dict(card.params)
    refit = {p.key for p in fusion.spec(card.method).params if p.refit} if card.method in METHODS else set()
    return all(key not in refit or trained.get(key) == value for key, value in params.items())


def trained_params(card: HeadCard) -> dict[str, Value]:
    """Return the knobs that a head was trained with, for a page that opens on what the pack covers."""
    return dict(card.params)


def fill_method(module: FusionModule, card: HeadCard, params: Mapping[str, Value] | None = None) -> None:
    """Load a head's numbers into its method; from then on the method says where they come from.

    Numbers that a knob sets by hand (`FusionModule.by_hand`) are left as the knob has set them once a live knob differs
    from what was trained; as long as none does, the trained ones are loaded.

    Args:
        params: the method's knobs, as far as they were set.

    Raises:
        WeightsError: if the method has changed since it was trained, or the file is damaged.
    """
    changed = _changed(card, params or {})
    state = {k.removeprefix("fusion."): v for k, v in head_state(card).items() if k.startswith("fusion.")}
    own = module.state_dict()
    kept = {name: own[name] for name in module.by_hand if changed and name in own}
    _load(module, {**state, **kept}, card)
    if any(True for _ in module.parameters()):
        module.trained = card.provenance


def fill_head(module: nn.Module, card: HeadCard) -> None:
    """Load all of a head's numbers into a `training.Head` built for its card.

    Raises:
        WeightsError: as `fill_method`.
    """
    _load(module, head_state(card), card)


def _changed(card: HeadCard, params: Mapping[str, Value]) -> bool:
    trained = dict(card.params)
    return any(trained.get(key) != value for key, value in params.items())


def _load(module: nn.Module, state: Mapping[str, Tensor], card: HeadCard) -> None:
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as cause:
        raise WeightsError("pack.stale", method=card.method, backbone=card.backbone) from cause
    module.eval()


# --- systems -------------------------------------------------------------------------------------
@dataclass(frozen=True)
class SystemCard:
    """What is known of a shipped system: a whole network behind a backbone.

    Attributes:
        system: its key.
        params: its knobs as they were trained, sorted.
        metrics: on test scenes: mean by name of the figure, over `seeds` trainings.
        spread: standard deviation of each; {} with one seed.
        figures: whatever else was measured, as the page shows it.
        made: how.
    """

    backbone: str
    system: str
    params: tuple[tuple[str, Value], ...]
    metrics: Mapping[str, float]
    spread: Mapping[str, float]
    seeds: int
    figures: Mapping[str, object]
    parameters: int
    fingerprint: str
    made: Mapping[str, object]
    file: str
    sha256: str

    @property
    def provenance(self) -> Provenance:
        return Provenance("bundled", self.file.removesuffix(".safetensors"))


def system_name(backbone: str, system: str, params: Mapping[str, Value]) -> str:
    """Return the name of a system's files: those of its knobs that have a head of their own are part of it."""
    own = [f"{k}-{v}" for k, v in sorted(params.items())]
    return ".".join((backbone, "system", "-".join((system, *own))))


def system(backbone: str, key: str, params: Mapping[str, Value] | None = None) -> SystemCard | None:
    """Return the card of a shipped system, or None.

    Args:
        params: the knobs, all; those that are trained apart choose among several cards.

    Raises:
        WeightsError: if a card is damaged, or was made for another version of the backbone.
    """
    for path in sorted(folder().glob(f"{backbone}.system.{key}*.json")):
        told = _card(path)
        try:
            trained_on = told.pop("backbone_sha256")
            found = SystemCard(**{**told, "params": tuple(sorted(told["params"].items()))})
        except (KeyError, TypeError, AttributeError) as cause:
            raise WeightsError("pack.card", path=path) from cause
        network = backbone_card(backbone)
        if network is None or network.sha256 != trained_on:
            raise WeightsError("pack.mixed", backbone=backbone, path=path)
        refit = {p.key for p in METHODS[key].spec.params if p.refit}
        same = all(value == (params or {}).get(name, value) for name, value in found.params if name in refit)
        if found.system == key and same:
            return found
    return None


def fill_system(module: nn.Module, card: SystemCard) -> None:
    """Load a system's numbers; from then on it says where they come from.

    Raises:
        WeightsError: if the system has changed since it was trained, or the file is damaged.
    """
    try:
        module.load_state_dict(_tensors(folder() / card.file, card.sha256), strict=True)
    except RuntimeError as cause:
        raise WeightsError("pack.stale", method=card.system, backbone=card.backbone) from cause
    module.eval()
    module.trained = card.provenance


# --- files ---------------------------------------------------------------------------------------
def _card(path: Path) -> dict | None:
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as cause:
        raise WeightsError("pack.card", path=path) from cause
    if not isinstance(content, dict):
        raise WeightsError("pack.card", path=path)
    return content


def _tensors(path: Path, sha256: str) -> Mapping[str, Tensor]:
    try:
        state = path.stat()
    except OSError as cause:
        raise WeightsError("pack.missing", path=path) from cause
    return _read(path, sha256, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=8)
def _read(path: Path, sha256: str, _mtime_ns: int, _size: int) -> Mapping[str, Tensor]:
    """Read and verify a file; read again only if it has changed. What comes out is shared, and nobody writes to it."""
    content = path.read_bytes()
    received = hashlib.sha256(content).hexdigest()
    if received != sha256:
        raise WeightsError("pack.damaged", path=path, expected=sha256[:12], received=received[:12])
    tensors = safetensors.torch.load(content)
    return {k: v.to(torch.float32) if v.is_floating_point() else v for k, v in tensors.items()}
