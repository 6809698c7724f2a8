"""Systems, each trained several times and measured: what each is fitted on, and what its card says.

What came out of a training is kept as a file as soon as it is there, so that a run that is ended early goes on where
it stood. The numbers of the first seed ship; the figures are the mean over all seeds, with their spread.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import safetensors.torch
from torch import Tensor

from fusionviz import systems
from fusionviz.backbones import Backbone
from fusionviz.registry import write
from fusionviz.selection import Value
from fusionviz.training import detecting, glimpsing, grounding, telling
from fusionviz.training.data import FROZEN_FROM, TEST
from fusionviz.training.loop import Progress
from fusionviz.training.packing import halved, made, write_system


@dataclass(frozen=True)
class Budgets:
    """How much is spent on each kind of system, and how often it is trained."""

    detecting: detecting.Budget = detecting.Budget()
    grounding: grounding.Budget = grounding.Budget()
    telling: telling.Budget = telling.Budget()
    ram: glimpsing.Budget = glimpsing.BUDGETS["ram"]
    dram: glimpsing.Budget = glimpsing.BUDGETS["dram"]
    seeds: int = 3


QUICK = Budgets(detecting.QUICK, grounding.QUICK, telling.QUICK, glimpsing.QUICK, glimpsing.QUICK, seeds=2)


@dataclass(frozen=True)
class Lesson:
    """One training.

    Attributes:
        system: its key.
        params: knobs that differ from the paper's, and have numbers of their own.
        seeds: how often at most; None: as often as the budget says.
        apart: knobs that are part of the file's name.
    """

    system: str
    params: tuple[tuple[str, Value], ...] = ()
    seeds: int | None = None
    apart: tuple[str, ...] = ()

    def name(self, seed: int) -> str:
        """Return a name for its file, which no other training has."""
        return "-".join((self.system, *(f"{k}={write(v)}" for k, v in self.params), str(seed)))


LESSONS: Mapping[str, tuple[Lesson, ...]] = {
    "detecting": (
        Lesson("ssd"),
        Lesson("mscnn"),
        Lesson("fpn_detector", apart=("top_down",)),
        Lesson("fpn_detector", (("top_down", False),), 1, ("top_down",)),
    ),
    "grounding": tuple(map(Lesson, ("film", "gmu", "phrase_concat", "phrase_product"))),
    "telling": (Lesson("show_attend_tell"),),
    "ram": (Lesson("ram", apart=("join",)), Lesson("ram", (("join", "multiply"),), 1, ("join",))),
    "dram": (Lesson("dram", apart=("join",)), Lesson("dram", (("join", "add"),), 1, ("join",))),
}
"""By their budget."""

_TRAINERS = {"detecting": detecting, "grounding": grounding, "telling": telling, "ram": glimpsing, "dram": glimpsing}


def names() -> tuple[str, ...]:
    """Return the keys of all systems that are trained."""
    return tuple(dict.fromkeys(lesson.system for lessons in LESSONS.values() for lesson in lessons))


@dataclass(frozen=True)
class Outcome:
    """What came of a training.

    Attributes:
        figures: on test scenes, in percent, by name.
        more: whatever else was measured.
        state: its numbers as they ship.
    """

    figures: Mapping[str, float]
    more: Mapping[str, object]
    seconds: float
    state: Mapping[str, Tensor]


def rebuild(
    folder: Path,
    backbone: Backbone,
    budgets: Budgets,
    kept: Path,
    *,
    which: Sequence[str] = (),
    told: Callable[[Lesson, int, Outcome], object],
    step: Callable[[Lesson, Progress], object] = lambda *_: None,
) -> None:
    """Train systems on a frozen network and write their numbers and cards.

    Args:
        which: only these; () for all.
        kept: folder of outcomes; what lies there already is not trained again.
        told: called with what came of each training.
        step: called after every step of each.
    """
    for kind, lessons in LESSONS.items():
        wanted = [lesson for lesson in lessons if not which or lesson.system in which]
        if not wanted:
            continue
        trainer, budget = _TRAINERS[kind], getattr(budgets, kind)
        data: list = []
        for lesson in wanted:
            found = []
            for seed in range(min(lesson.seeds or budgets.seeds, budgets.seeds)):
                outcome = keep(kept, lesson.name(seed), None)
                if outcome is None:
                    data = data or [trainer.prepare(backbone, budget)]  # once, and only if anything is trained
                    outcome = train(lesson, trainer, backbone, data[0], budget, seed, step)
                    keep(kept, lesson.name(seed), outcome)
                found.append(outcome)
                told(lesson, seed, outcome)
            _write(folder, backbone, lesson, found, budget)


def train(
    lesson: Lesson,
    trainer: object,
    backbone: Backbone,
    data: object,
    budget: object,
    seed: int,
    step: Callable[[Lesson, Progress], object] = lambda *_: None,
) -> Outcome:
    """Train one system from nothing, round its numbers as they ship, and measure it."""
    began = time.perf_counter()
    module = systems.build(lesson.system, backbone.info.levels, seed=seed, **dict(lesson.params))
    figures, more = trainer.run(
        module, backbone, data, budget=budget, seed=seed, callback=lambda now: step(lesson, now)
    )
    return Outcome(figures, more, round(time.perf_counter() - began, 1), halved(module.state_dict()))


def _write(folder: Path, backbone: Backbone, lesson: Lesson, found: Sequence[Outcome], budget: object) -> None:
    module = systems.build(lesson.system, backbone.info.levels, **dict(lesson.params))
    module.load_state_dict(found[0].state)
    trainer = next(_TRAINERS[kind] for kind, lessons in LESSONS.items() if lesson in lessons)
    tested = {"test_seed": getattr(trainer, "UNSEEN", TEST), "test_scenes": budget.test_scenes}
    how = made(budget.total, budget.scenes, 0, first=FROZEN_FROM) | tested
    figures = [o.figures for o in found]
    write_system(folder, backbone.key, module, figures, how, more=found[0].more, apart=lesson.apart)


def keep(folder: Path, name: str, outcome: Outcome | None) -> Outcome | None:
    """Write an outcome to a file; or, with None, return the one that lies there, if there is one."""
    path = folder / f"{name}.safetensors"
    if outcome is not None:
        folder.mkdir(parents=True, exist_ok=True)
        told = {f.name: getattr(outcome, f.name) for f in fields(outcome) if f.name != "state"}
        partial = path.with_suffix(".part")
        partial.write_bytes(safetensors.torch.save(dict(outcome.state), {"outcome": json.dumps(told)}))
        partial.replace(path)
        return outcome
    if not path.is_file():
        return None
    with safetensors.safe_open(path, "pt") as file:
        told = json.loads(file.metadata()["outcome"])
        return Outcome(**told, state={key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118 - no dict
