"""Many heads fitted side by side, one on each core: a head is too small a thing to be shared out between cores.

Each is a `Unit`: what is fitted and how. What came out is kept as a file as soon as it is there, so a series that is
ended early goes on where it stood, and one core gives the same numbers as eight.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, multiprocessing

from fusionviz import scenes
from fusionviz.backbones import Backbone
from fusionviz.records import LevelInfo
from fusionviz.registry import write
from fusionviz.selection import Value
from fusionviz.training.data import Samples, features
from fusionviz.training.heads import Head, build_head, level_names
from fusionviz.training.loop import fit, score
from fusionviz.training.metrics import Truth
from fusionviz.training.packing import as_shipped, halved
from fusionviz.training.weighing import used, weights_of_low


@dataclass(frozen=True)
class Unit:
    """One head to be fitted.

    Attributes:
        method: what `heads.build_head` takes.
        low, high: the levels between which it fuses.
        prediction, deeper, width: see `heads.build_head`.
        steps, seed: of the fit.
        weights: whether to ask what its weights say, and what they are good for.
        params: knobs of the method that differ from those of its other heads.
    """

    method: str
    low: str
    high: str
    prediction: str = "linear"
    deeper: bool = False
    width: int = 64
    steps: int = 800
    seed: int = 0
    weights: bool = False
    params: tuple[tuple[str, Value], ...] = ()

    @property
    def name(self) -> str:
        """Return a name for its file, which no other unit has."""
        marks = ["deeper"] * self.deeper + ["weights"] * self.weights
        marks += [f"{key}={write(value)}" for key, value in self.params]
        parts = (self.method, self.low, self.high, self.prediction, *marks, self.width, self.steps, self.seed)
        return "-".join(map(str, parts))

    def levels(self, all_levels: Sequence[LevelInfo]) -> list[LevelInfo]:
        """Return which levels of a network it is given, fine to coarse."""
        by_name = {level.name: level for level in all_levels}
        return [by_name[name] for name in level_names(self.method, list(by_name), self.low, self.high)]

    def build(self, all_levels: Sequence[LevelInfo]) -> Head:
        """Build its head, with random weights of its seed."""
        return build_head(
            self.method,
            self.levels(all_levels),
            len(scenes.CLASSES),
            width=self.width,
            prediction=self.prediction,
            deeper=self.deeper,
            params=dict(self.params),
            seed=self.seed,
        )


@dataclass(frozen=True)
class Outcome:
    """What came of a unit: figures in percent, and the head's numbers as they ship.

    Attributes:
        figures: on the test scenes, `metrics.NAMES`.
        occluded: the same on scenes where things hide parts of each other; {} without such scenes.
        weights: mean weight of low by region, see `weighing.weights_of_low`; {} where it was not asked for.
        causal: mIoU with its own weights, another picture's, and flat ones; {} likewise.
        seconds: that it took.
    """

    figures: Mapping[str, float]
    occluded: Mapping[str, float] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    causal: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    state: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Split:
    """Maps of a frozen network by level at half precision, and what the labels say."""

    maps: Mapping[str, Tensor]
    truth: Truth

    @classmethod
    def of(cls, backbone: Backbone, samples: Samples, levels: Sequence[str]) -> Split:
        """Run a network over scenes."""
        return cls(features(backbone, samples, levels), Truth.of(samples.classes, samples.instances))

    def first(self, count: int) -> Split:
        """Return the first scenes."""
        return Split({name: maps[:count] for name, maps in self.maps.items()}, self.truth[:count])

    def __len__(self) -> int:
        return len(self.truth)


@dataclass(frozen=True)
class Data:
    """What a series is fitted on and measured on.

    Attributes:
        levels: of the network, all.
        train, test, occluded: scenes; `occluded` may be None.
        weighed: on how many test scenes weights are looked at.
    """

    levels: tuple[LevelInfo, ...]
    train: Split
    test: Split
    occluded: Split | None = None
    weighed: int = 2000


def run(unit: Unit, data: Data) -> Outcome:
    """Fit one head from nothing, round its numbers as they ship, and measure it."""
    began = time.perf_counter()
    head, names = unit.build(data.levels), [level.name for level in unit.levels(data.levels)]

    def maps(split: Split) -> dict[str, Tensor]:
        return {name: split.maps[name] for name in names}

    fit(head, maps(data.train), data.train.truth.classes, steps=unit.steps, seed=unit.seed)
    as_shipped(head)
    figures = score(head, maps(data.test), data.test.truth)
    occluded = score(head, maps(data.occluded), data.occluded.truth) if data.occluded is not None else {}
    weights: Mapping[str, float] = {}
    causal: Mapping[str, float] = {}
    if unit.weights:
        some = data.test.first(data.weighed)
        weights, causal = weights_of_low(head, maps(some), some.truth), used(head, maps(some), some.truth)
    return Outcome(figures, occluded, weights, causal, time.perf_counter() - began, halved(head.state_dict()))


def run_all(units: Sequence[Unit], data: Data, kept: Path, *, jobs: int = 1) -> Iterator[tuple[Unit, Outcome]]:
    """Yield every unit with its outcome, as they are ready; what lies in `kept` already is not fitted again.

    Args:
        kept: folder of outcomes; the caller deletes it when they are of no more use.
        jobs: how many are fitted at once, each on one core.
    """
    kept.mkdir(parents=True, exist_ok=True)
    waiting = []
    for unit in units:
        found = _kept(kept, unit)
        if found is None:
            waiting.append(unit)
        else:
            yield unit, found
    if jobs == 1 or len(waiting) < 2:
        for unit in waiting:
            _keep(kept, unit, _alone(unit, data))
            yield unit, _kept(kept, unit)
        return
    with tempfile.TemporaryDirectory() as folder:
        shared = Path(folder) / "data.pt"
        torch.save(data, shared)  # read by all as one piece of memory
        with multiprocessing.get_context("spawn").Pool(min(jobs, len(waiting)), _open, (shared, kept)) as pool:
            for unit in pool.imap_unordered(_one, waiting):
                yield unit, _kept(kept, unit)


def _alone(unit: Unit, data: Data) -> Outcome:
    """Run on one core, as in a pool: sums over several come in another order, and so to other digits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return run(unit, data)
    finally:
        torch.set_num_threads(before)


# --- in a process of its own -----------------------------------------------------------------------
_here: tuple[Data, Path] | None = None


def _open(shared: Path, kept: Path) -> None:
    global _here
    torch.set_num_threads(1)
    _here = torch.load(shared, mmap=True, weights_only=False), kept


def _one(unit: Unit) -> Unit:
    data, kept = _here
    _keep(kept, unit, run(unit, data))
    return unit


# --- kept outcomes ---------------------------------------------------------------------------------
def _keep(folder: Path, unit: Unit, outcome: Outcome) -> None:
    told = {f.name: getattr(outcome, f.name) for f in fields(outcome) if f.name != "state"}
    path = folder / f"{unit.name}.safetensors"
    partial = path.with_suffix(".part")
    partial.write_bytes(safetensors.torch.save(dict(outcome.state), {"outcome": json.dumps(told)}))
    partial.replace(path)


def _kept(folder: Path, unit: Unit) -> Outcome | None:
    path = folder / f"{unit.name}.safetensors"
    if not path.is_file():
        return None
    with safetensors.safe_open(path, "pt") as file:
        told = json.loads(file.metadata()["outcome"])
        return Outcome(**told, state={name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 - no dict
