"""Everything in `assets/weights`, from nothing: networks, then their heads, then the leaderboard."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fusionviz import backbones, fusion, pack, scenes
from fusionviz.backbones import Backbone, bundled
from fusionviz.selection import Value
from fusionviz.training import comparison, networks, series, wholes
from fusionviz.training.data import FROZEN_FROM, TEST, TRAIN, VALIDATION, Samples, draw
from fusionviz.training.heads import BASELINES, STACKED
from fusionviz.training.packing import head_entry, made, write_backbone, write_heads, write_json
from fusionviz.training.series import Data, Outcome, Split, Unit
from fusionviz.training.standings import Rows, maps_of, milliseconds
from fusionviz.training.weighing import chooses

WIDTH = {"board": 64, "leaderboard": 48}
"""Of every head of a setting, so that methods are compared at one size; the board's is the methods' own default."""

LEVELS = {"board": ("s4", "s16"), "leaderboard": ("s4", "s32")}
PREDICTION = {"board": "linear", "leaderboard": "conv"}
SIZE_PX = 128
ABLATION: Mapping[str, Mapping[str, Value]] = {
    "all_levels": {"merged": "sum"},
    "no_top_down": {"merged": "sum", "top_down": False},
    "no_lateral": {"merged": "sum", "lateral": False},
}
"""FPN taken apart as in its paper's Tables 1 and 2, rows c, d, e: knobs by control. Every level is read there, so they
are summed here; read at the finest alone, as FPN's own row is (row f), a path down that is off leaves one level."""

LARGEST = 450_000
"""Parameters of the largest head of the leaderboard that ships: the pack is small, and nothing on the board reads these
heads. Its row is in the table all the same."""

NOISE = 0.5
"""What two fits of one head may differ by, in mIoU: smaller differences are ties."""

Say = Callable[[str, Mapping[str, object]], None]
"""Called with the key of a text under `training` and what fills it."""


@dataclass(frozen=True)
class Budget:
    """How much is spent.

    Attributes:
        scenes: drawn for the training of networks.
        network_steps: by network, batches of 16.
        head_scenes: drawn for the fitting of heads.
        head_steps: batches of 16 for a head of the board.
        test_scenes: never looked at before they give the numbers on the cards.
        weighed_scenes: of these, on how many weights are looked at; and as many more where things hide each other.
        leaderboard_steps: batches of 16 for a head of the leaderboard.
        leaderboard_seeds: how often each is fitted.
        trial: of the comparison of two networks with and without fusion.
        systems: of detectors, of those that look in glimpses, of those that take words or a phrase.
    """

    scenes: int = 24_000
    network_steps: tuple[tuple[str, int], ...] = (("scene_resnet", 12_000), ("scene_mobilenet", 12_000))
    head_scenes: int = 6144
    head_steps: int = 800
    test_scenes: int = 5000
    weighed_scenes: int = 2000
    leaderboard_steps: int = 1000
    leaderboard_seeds: int = 3
    trial: comparison.Trial = comparison.Trial()
    systems: wholes.Budgets = wholes.Budgets()


FULL = Budget()
QUICK = Budget(
    64,
    (("scene_resnet", 6), ("scene_mobilenet", 3)),
    48,
    8,
    24,
    16,
    4,
    2,
    comparison.Trial(32, 48, 24, 3, 2),
    wholes.QUICK,
)
"""Minutes become seconds; it shows that everything runs, and its figures mean nothing."""


def methods() -> tuple[str, ...]:
    """Return what gets a head: the baselines and every registered method that takes two levels or a pyramid."""
    return (*BASELINES, *(m for m in fusion.names() if fusion.spec(m).takes in ("pair", "pyramid")))


PARTS = ("networks", "heads", "leaderboard", "comparison", "systems")


def parts_of(which: Sequence[str]) -> tuple[str, ...]:
    """Return which parts are rebuilt where only some methods are asked for; () asks for all.

    A new method's head needs no new network, and the comparison is of no method.
    """
    if not which:
        return PARTS
    blocks, whole = any(m in methods() for m in which), any(m in wholes.names() for m in which)
    return (*(("heads", "leaderboard") if blocks else ()), *(("systems",) if whole else ()))


def rebuild(
    folder: Path,
    budget: Budget,
    *,
    backbones: Sequence[str],
    parts: Sequence[str] = PARTS,
    which: Sequence[str] = (),
    jobs: int = 1,
    say: Say,
) -> None:
    """Train networks, fit their heads and the leaderboard, and write all of it to a folder.

    Args:
        backbones: keys of `bundled.names()`; the leaderboard is of the first of these, if it is among them.
        parts: of PARTS; heads need their network.
        which: only these methods; what is there of the others stays. () for all.
        jobs: how many heads are fitted at once.
    """
    first = bundled.names()[0]
    blocks = [m for m in which if m in methods()]
    with pack.reading(folder):
        for key in backbones:
            if "networks" in parts:
                rebuild_network(folder, key, budget, say=say)
            if "heads" in parts:
                rebuild_heads(folder, key, budget, which=blocks, jobs=jobs, say=say)
        if "leaderboard" in parts and first in backbones:
            rebuild_leaderboard(folder, first, budget, which=blocks, jobs=jobs, say=say)
        if "systems" in parts and first in backbones:
            rebuild_systems(folder, first, budget, which=[k for k in which if k in wholes.names()], say=say)
    if "comparison" in parts:
        rebuild_comparison(folder, budget, say=say)
    say("done", {"folder": folder})


# --- networks ------------------------------------------------------------------------------------
def rebuild_network(folder: Path, key: str, budget: Budget, *, seed: int = 0, say: Say) -> None:
    """Train a network, measure it on test scenes, and write it."""
    steps = dict(budget.network_steps)[key]
    samples = _draw(TRAIN, budget.scenes, say)

    def report(now: networks.Checkpoint) -> None:
        step = now.progress.step
        if step % 200 == 0 or step == steps:
            values = {"step": step, "steps": steps, "loss": f"{now.progress.loss:.3f}", "seconds": round(now.seconds)}
            say("step", {"name": key, **values})
        if step % 1000 == 0:
            figures = networks.score(now.readout, draw(VALIDATION, min(256, budget.test_scenes)))
            say("scored", {"name": key, "figures": _figures(figures)})

    readout = networks.train(key, samples, steps=steps, seed=seed, callback=report)
    figures, occluded = (
        networks.score(readout, _draw(TEST, budget.test_scenes, say, occlusion=hide)) for hide in (False, True)
    )
    how = made(steps, budget.scenes, seed)
    write_backbone(folder, key, readout.network.state_dict(), figures, how, occluded=occluded)
    say("scored", {"name": key, "figures": _figures(figures)})
    say("occluded", {"name": key, "figures": _figures(occluded)})


# --- heads ---------------------------------------------------------------------------------------
def open_shipped(key: str) -> Backbone:
    """Return a network with the numbers that ship, at half precision."""
    return backbones.load(key, state=pack.backbone_state(key))


def prepare(backbone: Backbone, budget: Budget, low: str, high: str, say: Say, *, occluded: bool = False) -> Data:
    """Return what heads are fitted on and what they are measured on: maps from `low` to `high`, and labels.

    Args:
        occluded: whether to measure on scenes too where things hide parts of each other.
    """
    names = [level.name for level in backbone.info.levels]
    levels = names[names.index(low) : names.index(high) + 1]

    def split(first: int, count: int, *, hide: bool = False) -> Split:
        return Split.of(backbone, _draw(first, count, say, occlusion=hide), levels)

    train, test = split(FROZEN_FROM, budget.head_scenes), split(TEST, budget.test_scenes)
    hidden = split(TEST, budget.weighed_scenes, hide=True) if occluded else None
    return Data(backbone.info.levels, train, test, hidden, budget.weighed_scenes)


def rebuild_heads(
    folder: Path, key: str, budget: Budget, *, which: Sequence[str] = (), jobs: int = 1, say: Say
) -> dict[str, Outcome]:
    """Fit the board's heads on a shipped network, measure them, write them, and return what came out by method.

    Args:
        which: methods; () for all.
        jobs: how many are fitted at once.
    """
    low, high = LEVELS["board"]
    data = prepare(open_shipped(key), budget, low, high, say)
    units = [
        Unit(m, low, high, PREDICTION["board"], width=WIDTH["board"], steps=budget.head_steps)
        for m in which or methods()
    ]
    found = {}
    for unit, outcome in series.run_all(units, data, _kept(folder, key, budget), jobs=jobs):
        found[unit.method] = (unit, outcome)
        _tell(say, key, "board", unit, outcome)
    _write_heads(folder, key, "board", [found[unit.method] for unit in units], data, budget, keep=bool(which))
    shutil.rmtree(_kept(folder, key, budget))
    return {method: outcome for method, (_, outcome) in found.items()}


def _write_heads(
    folder: Path,
    key: str,
    setting: str,
    found: Sequence[tuple[Unit, Outcome]],
    data: Data,
    budget: Budget,
    *,
    keep: bool,
) -> None:
    heads = {}
    for unit, outcome in found:
        head, levels = unit.build(data.levels), unit.levels(data.levels)
        if setting == "leaderboard" and sum(p.numel() for p in head.parameters()) > LARGEST:
            continue
        head.load_state_dict(outcome.state)
        entry = head_entry(
            unit.method, head, levels, outcome.figures, width=unit.width, steps=unit.steps, seed=unit.seed
        )
        heads[unit.method] = (head, entry)
    unit = found[0][0]
    how = made(unit.steps, budget.head_scenes, unit.seed, first=FROZEN_FROM)
    write_heads(folder, key, setting, heads, prediction=unit.prediction, width=unit.width, how=how, keep=keep)


def _tell(say: Say, key: str, setting: str, unit: Unit, outcome: Outcome) -> None:
    values = {"seconds": round(outcome.seconds), "figures": _figures(outcome.figures), "seed": unit.seed}
    say("head", {"name": key, "method": unit.method, "setting": setting, **values})


def _kept(folder: Path, key: str, budget: Budget) -> Path:
    """Return where outcomes wait until all are there: other networks and other budgets lie elsewhere."""
    card = pack.backbone_card(key)
    mark = hashlib.sha256(f"{card.sha256} {budget}".encode()).hexdigest()[:12]
    return folder / f".{key}-{mark}"


# --- leaderboard ---------------------------------------------------------------------------------
def rebuild_leaderboard(
    folder: Path, key: str, budget: Budget, *, which: Sequence[str] = (), jobs: int = 1, say: Say
) -> None:
    """Fit every method several times, with the controls that tell why, and write means and standard deviations.

    The first seed's heads ship. The table is written after every seed and says how many there were, so a run that is
    ended early has told something, and goes on where it stood.
    """
    low, high = LEVELS["leaderboard"]
    backbone = open_shipped(key)
    data = prepare(backbone, budget, low, high, say, occluded=True)
    kept, rows = _kept(folder, key, budget), Rows()
    rounds, found = list(_contest(budget, which)), {}
    for unit, outcome in series.run_all([u for _, units in rounds for u in units], data, kept, jobs=jobs):
        found[unit] = outcome
        _tell(say, key, "leaderboard", unit, outcome)
        while rounds and all(u in found for u in rounds[0][1]):
            part, units = rounds.pop(0)
            for u in units:
                rows.add(part, u, found[u])
            if not part and units[0].seed == 0:
                _write_heads(folder, key, "leaderboard", rows.first(), data, budget, keep=bool(which))
            _write_table(folder / "leaderboard.json", key, budget, data, rows, merge=bool(which))
    shutil.rmtree(kept)


def _write_table(path: Path, key: str, budget: Budget, data: Data, rows: Rows, *, merge: bool) -> None:
    low, high = LEVELS["leaderboard"]
    table = {
        "backbone": key,
        "low": low,
        "high": high,
        "width": WIDTH["leaderboard"],
        "size_px": SIZE_PX,
        "test_scenes": len(data.test),
        "weighed_scenes": min(budget.weighed_scenes, len(data.test)),
        "occluded_scenes": len(data.occluded),
        "noise_miou": NOISE,
        "made": made(budget.leaderboard_steps, budget.head_scenes, 0, first=FROZEN_FROM),
        **rows.told(data),
    }
    if merge and path.exists():
        table = merged(json.loads(path.read_text("utf-8")), table)
        timed_together(table["rows"], data)
    write_json(path, table)


def timed_together(rows: Sequence[dict[str, object]], data: Data) -> None:
    """Measure the milliseconds of all rows anew, in turns: of two runs not even the ratios would mean something."""
    low, high = LEVELS["leaderboard"]
    heads = []
    for row in rows:
        control, method = row["control"], row["method"]
        knobs = tuple(ABLATION.get(control, {}).items())
        unit = Unit(method, low, high, row["prediction"], control == "depth", WIDTH["leaderboard"], params=knobs)
        heads.append((unit.build(data.levels).eval(), maps_of(unit, data)))
    for row, ms in zip(rows, milliseconds(heads), strict=True):
        row["ms"] = round(ms, 3)


def _contest(budget: Budget, which: Sequence[str]) -> Iterator[tuple[str, list[Unit]]]:
    """Yield the units of each list of the leaderboard, one seed after the other: the methods, then the controls.

    "board": the board's heads of methods that choose, for what their weights say. "depth": `concat` ends in a 1x1
    convolution, normalisation and ReLU, and so do these. "linear": read by one 1x1 convolution, so that all the work is
    the fusion's. "levels4": FPN's levels without a way from level to level. Those of ABLATION: FPN with paths cut off.
    """
    (low, high), (board_low, board_high) = LEVELS["leaderboard"], LEVELS["board"]
    asked = list(which or methods())
    for seed in range(budget.leaderboard_seeds):
        how = {"width": WIDTH["leaderboard"], "steps": budget.leaderboard_steps, "seed": seed}
        yield "", [Unit(m, low, high, PREDICTION["leaderboard"], weights=chooses(m), **how) for m in asked]
        how = {"width": WIDTH["board"], "steps": budget.head_steps, "seed": seed}
        if choosing := [Unit(m, board_low, board_high, weights=True, **how) for m in asked if chooses(m)]:
            yield "board", choosing
    for seed in range(budget.leaderboard_seeds):
        how = {"width": WIDTH["leaderboard"], "steps": budget.leaderboard_steps, "seed": seed}
        if not which:
            yield "levels4", [Unit(STACKED, low, high, "conv", **how)]
        if deeper := [Unit(m, low, high, "conv", deeper=True, **how) for m in ("add", "aff") if m in asked]:
            yield "depth", deeper
        if linear := [Unit(m, low, high, "linear", **how) for m in ("add", "concat", "aff", "fpn") if m in asked]:
            yield "linear", linear
        for part, knobs in ABLATION.items() if "fpn" in asked else ():
            yield part, [Unit("fpn", low, high, PREDICTION["leaderboard"], params=tuple(knobs.items()), **how)]


def merged(old: Mapping[str, object], new: Mapping[str, object]) -> dict[str, object]:
    """Return a leaderboard with the rows of a new one in the place of the same rows, or behind the others."""
    told = {**old}
    for name, marks in (
        ("rows", ("method", "control")),
        ("occluded", ("method",)),
        ("attention", ("method", "setting")),
    ):
        rows = {tuple(row[m] for m in marks): row for row in (*old[name], *new[name])}
        told[name] = list(rows.values())
    return told


# --- comparison ----------------------------------------------------------------------------------
def rebuild_comparison(folder: Path, budget: Budget, *, say: Say) -> None:
    """Train the networks of `comparison` and write what came out."""
    trial = budget.trial

    def report(network: str, seed: int, accuracy: float) -> None:
        say("compared", {"name": network, "seed": seed, "accuracy": f"{accuracy:.1f}"})

    table = {
        "size_px": trial.size_px,
        "classes": len(scenes.KINDS),
        "test_scenes": trial.test,
        "made": made(trial.steps, trial.train, 0),
        "rows": comparison.run(trial, report),
    }
    write_json(folder / "comparison.json", table)


# --- systems -------------------------------------------------------------------------------------
def rebuild_systems(folder: Path, key: str, budget: Budget, *, which: Sequence[str] = (), say: Say) -> None:
    """Train the systems on a shipped network and write them.

    Args:
        which: of these; () for all.
    """
    mark = hashlib.sha256(f"{pack.backbone_card(key).sha256} {budget.systems}".encode()).hexdigest()[:12]
    kept = folder / f".{key}-systems-{mark}"

    def told(lesson: wholes.Lesson, seed: int, outcome: wholes.Outcome) -> None:
        values = {"seconds": round(outcome.seconds), "figures": _figures(outcome.figures), "seed": seed}
        say("system", {"name": lesson.name(seed), **values})

    wholes.rebuild(folder, open_shipped(key), budget.systems, kept, which=which, told=told)
    shutil.rmtree(kept)


def _draw(first: int, count: int, say: Say, *, occlusion: bool = False) -> Samples:
    began = time.perf_counter()
    samples = draw(first, count, occlusion=occlusion)
    say("drawn", {"count": count, "seconds": round(time.perf_counter() - began)})
    return samples


def _figures(figures: Mapping[str, float]) -> str:
    return " · ".join(f"{name} {value:.1f}" for name, value in figures.items())


def changed(budget: Budget, steps: int | None, seeds: int | None) -> Budget:
    """Return a budget with another number of steps for every head, or of seeds; None leaves it."""
    if steps is not None:
        budget = replace(budget, head_steps=steps, leaderboard_steps=steps)
    return budget if seeds is None else replace(budget, leaderboard_seeds=seeds)
