"""Opened models: one shared copy of each, at most a few, for every session at once.

Models hold no state of a run, so sharing needs no lock while they compute; only opening is serialised.
"""

import gc
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from fusionviz import backbones, fusion, pack, systems, weights
from fusionviz.backbones import Backbone
from fusionviz.errors import FusionvizError, WeightsError
from fusionviz.fusion import FusionModule
from fusionviz.records import LevelInfo, Provenance
from fusionviz.systems import System
from fusionviz.training.heads import Head, build_head

T = TypeVar("T")
_collecting = threading.Lock()


class Store:
    """A bounded set of opened models, least recently used out first.

    Args:
        most: how many models are kept.
        most_bytes: how many bytes of parameters are kept, the newest model always.
        freeze: move everything that is alive out of the garbage collector's sight once a model is open. Only
            for a server: Streamlit collects after every rerun, and with torch loaded that takes 0.2 s unfrozen.
    """

    def __init__(self, most: int = 4, most_bytes: int = 4 << 30, *, freeze: bool = False) -> None:
        self.most, self.most_bytes, self.freeze = most, most_bytes, freeze
        self._open: OrderedDict[tuple, nn.Module | Backbone] = OrderedDict()
        self._guard = threading.Lock()
        self._locks: dict[tuple, threading.Lock] = {}

    def get(self, key: tuple, make: Callable[[], T]) -> T:
        """Return the model under `key`, opening it with `make` if it is not open; waits if another is opening it."""
        with self._guard:
            if key in self._open:
                self._open.move_to_end(key)
                return self._open[key]
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            with self._guard:
                if key in self._open:
                    return self._open[key]
            try:
                model = make()
                with self._guard:
                    self._open[key] = model
                    evicted = self._evict()
            finally:
                with self._guard:
                    self._locks.pop(key, None)
        if evicted or self.freeze:
            self._collect(thaw=evicted)
        return model

    def clear(self) -> None:
        """Close every model."""
        with self._guard:
            self._open.clear()
        self._collect(thaw=True)

    def _collect(self, *, thaw: bool) -> None:
        # What is frozen is never freed, and traced modules hold cycles: thaw before an evicted one can go. One at a
        # time: a freeze between another's thaw and its collection would keep what that one has to free.
        with _collecting:
            if thaw and self.freeze:
                gc.unfreeze()
            gc.collect()
            if self.freeze:
                gc.freeze()

    def __len__(self) -> int:
        return len(self._open)

    def _evict(self) -> bool:
        evicted = False
        while len(self._open) > self.most or (len(self._open) > 1 and self._bytes() > self.most_bytes):
            self._open.popitem(last=False)
            evicted = True
        return evicted

    def _bytes(self) -> int:
        modules = (m.module if isinstance(m, Backbone) else m for m in self._open.values())
        return sum(p.numel() * p.element_size() for m in modules for p in m.parameters())


BACKBONES = Store(most=4)
METHODS = Store(most=32, most_bytes=1 << 30)


def serve() -> None:
    """Keep models out of the garbage collector's sight: call once, in a server."""
    BACKBONES.freeze = METHODS.freeze = True


def backbone(
    key: str, source: str = "auto", *, seed: int = 0, device: torch.device | str = "cpu"
) -> tuple[Backbone, tuple[FusionvizError, ...]]:
    """Return an opened backbone and what had to be said about its weights.

    Args:
        source: "auto": those that ship with the project, else the published ones if they are on this machine, else
            random; "random"; "file:PATH".

    Raises:
        WeightsError: if a file named by the user cannot be used. With "auto" a damaged download is reported in
            the second value, and the network runs with random weights.
    """
    notices: tuple[FusionvizError, ...] = ()
    if source == "auto" and (card := pack.backbone_card(key)) is not None:
        return BACKBONES.get((key, card.sha256, str(device)), lambda: _bundled(key, card, device)), notices
    path, provenance = None, None
    if source.startswith("file:"):
        path = Path(source.removeprefix("file:"))
        provenance = Provenance("pretrained", path.name)
    elif source == "auto" and (path := weights.cached(key)) is not None:
        provenance = Provenance("pretrained", weights.published(key).name)
    if path is not None:
        stamp = path.stat().st_mtime_ns if path.exists() else 0
        try:
            opened = BACKBONES.get(
                (key, str(path), stamp, str(device)), lambda: _with_weights(key, path, provenance, device)
            )
            return opened, notices
        except WeightsError as broken:
            if source != "auto":
                raise
            notices = (broken,)
    opened = BACKBONES.get((key, "random", seed, str(device)), lambda: backbones.load(key, seed=seed, device=device))
    return opened, notices


def backbone_mark(key: str, source: str = "auto", *, seed: int = 0) -> str:
    """Return a mark of the numbers that `backbone` opens: other numbers have another mark. Opens nothing.

    Args:
        source, seed: as in `backbone`.
    """
    if source == "auto" and (card := pack.backbone_card(key)) is not None:
        return f"bundled {card.sha256}"
    if source.startswith("file:"):
        path = Path(source.removeprefix("file:"))
        state = path.stat() if path.exists() else None
        return f"file {path.name} {state.st_size} {state.st_mtime_ns}" if state else "file"
    if source == "auto" and (path := weights.cached(key)) is not None:
        return f"published {path.name}"
    return f"random {seed}"


def _bundled(key: str, card: pack.BackboneCard, device: torch.device | str) -> Backbone:
    opened = backbones.load(key, state=pack.backbone_state(key), device=device)
    return replace(opened, provenance=Provenance("bundled", card.file))


def _with_weights(key: str, path: Path, provenance: Provenance, device: torch.device | str) -> Backbone:
    opened = backbones.load(key, state=weights.read(path, key), device=device)
    return replace(opened, provenance=provenance)


def method(
    key: str,
    channels: tuple[int, ...],
    strides: tuple[float, ...],
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    card: pack.HeadCard | None = None,
    **params: object,
) -> FusionModule:
    """Return an opened method for levels of these channels and strides.

    Args:
        card: of the trained head whose trained numbers it gets; None leaves them random.
    """
    trained = (card.file, card.sha256, card.group) if card else ()
    name = (key, channels, strides, seed, str(device), tuple(sorted(params.items())), trained)

    def make() -> FusionModule:
        module = fusion.build(key, channels, strides, seed=seed, **params)
        if card is not None:
            pack.fill_method(module, card, params)
        return module.to(device)

    return METHODS.get(name, make)


def system(
    key: str,
    levels: tuple[LevelInfo, ...],
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    card: pack.SystemCard | None = None,
    published: bool = False,
    **params: object,
) -> tuple[System, tuple[FusionvizError, ...]]:
    """Return an opened system and what had to be said about its weights.

    Args:
        levels: of the backbone it stands on; () where it takes none.
        card: of the training whose numbers it gets; None leaves them random.
        published: whether somebody else's network gets its published weights, if they are on this machine.
    """
    path = weights.cached(str(params["net"])) if published else None
    trained = (card.file, card.sha256) if card else (str(path), path.stat().st_mtime_ns) if path else ()
    name = ("system", key, levels, seed, str(device), tuple(sorted(params.items())), trained)

    def make() -> System:
        module = systems.build(key, levels, seed=seed, **params)
        if card is not None:
            pack.fill_system(module, card)
        module.notices = module.recall() if path else ()
        return module.to(device)

    opened = METHODS.get(name, make)
    return opened, opened.notices


def heads(card: pack.HeadCard, levels: tuple[LevelInfo, ...], *, device: torch.device | str = "cpu") -> dict[str, Head]:
    """Return what reads the maps of a trained head as classes: "fused", and the baselines "low_only", "high_only".

    A baseline that was not fitted yet is left out.

    Args:
        card: of the method's head; the baselines are those of the same network and levels.
        levels: of the backbone.

    Raises:
        WeightsError: if the pack is damaged.
    """

    def make(one: pack.HeadCard) -> Head:
        taken = [level for level in levels if level.name in one.levels]
        knobs = dict(one.params)
        head = build_head(one.method, taken, len(one.classes), width=one.width, prediction=one.prediction, params=knobs)
        pack.fill_head(head, one)
        return head.to(device)

    found = {}
    for reader, name in (("low_only", "low_only"), ("high_only", "high_only"), ("fused", card.method)):
        one = card if reader == "fused" else pack.beside(card, name)
        if one is None:
            continue
        key = ("head", one.file, one.sha256, one.group, name, str(device))
        found[reader] = METHODS.get(key, lambda one=one: make(one))
    return found
