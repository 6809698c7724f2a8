"""Everything in `assets/weights`, from nothing: networks, then their heads, then the leaderboard."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from fusionviz import backbones, fusion, pack, scenes, trace
from fusionviz.backbones import Backbone
from fusionviz.records import LevelInfo
from fusionviz.training import networks
from fusionviz.training.data import TEST, TRAIN, VALIDATION, Samples, draw, features
from fusionviz.training.heads import BASELINES, Head, build_head, level_names
from fusionviz.training.loop import fit, score
from fusionviz.training.metrics import NAMES
from fusionviz.training.packing import as_shipped, head_entry, made, write_backbone, write_heads, write_json

WIDTH = 64
"""Of every head, so that methods are compared at one size; it is the default of all methods that meet at one width."""

LEVELS = {"board": ("s4", "s16"), "leaderboard": ("s4", "s32")}
PREDICTION = {"board": "linear", "leaderboard": "conv"}
HEAD_SCENES_FROM = TRAIN + 500_000
"""Heads are fitted on scenes that the network was not trained on, where its maps are as good as they will be."""

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
        leaderboard_steps: batches of 16 for a head of the leaderboard.
        leaderboard_seeds: how often each is fitted.
    """

    scenes: int = 24_000
    network_steps: tuple[tuple[str, int], ...] = (("scene_resnet", 12_000), ("scene_mobilenet", 12_000))
    head_scenes: int = 6144
    head_steps: int = 800
    test_scenes: int = 5000
    leaderboard_steps: int = 1600
    leaderboard_seeds: int = 3


FULL = Budget()
QUICK = Budget(64, (("scene_resnet", 6), ("scene_mobilenet", 3)), 48, 8, 24, 4, 2)
"""Minutes become seconds; it shows that everything runs, and its figures mean nothing."""


def methods() -> tuple[str, ...]:
    """Return what gets a head: the baselines and every registered method that takes two levels or a pyramid."""
    return (*BASELINES, *(m for m in fusion.names() if fusion.spec(m).takes in ("pair", "pyramid")))


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


def prepare(backbone: Backbone, budget: Budget, low: str, high: str, say: Say) -> tuple[Prepared, Prepared]:
    """Return what heads are fitted on and what they are measured on: maps from `low` to `high`, and labels."""
    names = [level.name for level in backbone.info.levels]
    levels = names[names.index(low) : names.index(high) + 1]
    both = []
    for first, count in ((HEAD_SCENES_FROM, budget.head_scenes), (TEST, budget.test_scenes)):
        samples = _draw(first, count, say)
        both.append(Prepared(features(backbone, samples, levels), samples))
    return both[0], both[1]


@dataclass(frozen=True)
class Prepared:
    """Maps of a frozen backbone by level, and the scenes that they are of."""

    maps: Mapping[str, torch.Tensor]
    samples: Samples

    def of(self, names: Sequence[str]) -> dict[str, torch.Tensor]:
        """Return the maps that a head takes, in its order."""
        return {name: self.maps[name] for name in names}


def fit_head(
    method: str, levels: Sequence[LevelInfo], data: Prepared, *, prediction: str, steps: int, seed: int
) -> Head:
    """Return a head fitted from nothing, its numbers as they ship."""
    head = build_head(method, levels, len(scenes.CLASSES), width=WIDTH, prediction=prediction, seed=seed)
    names = [level.name for level in levels]
    fit(head, data.of(names), data.samples.classes, steps=steps, seed=seed)
    return as_shipped(head)


def rebuild_heads(
    folder: Path,
    key: str,
    budget: Budget,
    *,
    setting: str = "board",
    which: Sequence[str] = (),
    seeds: int = 1,
    after_seed: Callable[[dict[str, list[dict[str, float]]]], None] | None = None,
    say: Say,
) -> dict[str, list[dict[str, float]]]:
    """Fit every method's head on a shipped network, measure it, and write the first seed's.

    Args:
        which: methods; () for all.
        after_seed: called with the figures so far each time a seed has been through all methods.

    Returns:
        The figures of every seed, by method.
    """
    backbone, (low, high) = open_shipped(key), LEVELS[setting]
    train, test = prepare(backbone, budget, low, high, say)
    steps = budget.head_steps if setting == "board" else budget.leaderboard_steps
    prediction, infos = PREDICTION[setting], {level.name: level for level in backbone.info.levels}
    shipped: dict[str, tuple[Head, dict[str, object]]] = {}
    found: dict[str, list[dict[str, float]]] = {}
    for seed in range(seeds):
        for method in which or methods():
            levels = [infos[name] for name in level_names(method, list(infos), low, high)]
            names = [level.name for level in levels]
            began = time.perf_counter()
            head = fit_head(method, levels, train, prediction=prediction, steps=steps, seed=seed)
            figures = score(head, test.of(names), test.samples.classes, test.samples.instances)
            found.setdefault(method, []).append(figures)
            if seed == 0:
                entry = head_entry(method, head, levels, figures, width=WIDTH, steps=steps, seed=seed)
                shipped[method] = (head, entry)
            values = {"seconds": round(time.perf_counter() - began), "figures": _figures(figures)}
            say("head", {"name": key, "method": method, "setting": setting, **values})
        if seed == 0:
            how = made(steps, budget.head_scenes, 0)
            write_heads(folder, key, setting, shipped, prediction=prediction, width=WIDTH, how=how)
        if after_seed is not None:
            after_seed(found)
    return found


# --- leaderboard ---------------------------------------------------------------------------------
def rebuild_leaderboard(folder: Path, key: str, budget: Budget, *, say: Say) -> None:
    """Fit every method several times, and write means and standard deviations; the first seed's heads ship.

    The table is written after every seed and says how many there were, so a run that is ended early has told something.
    """

    def write(found: dict[str, list[dict[str, float]]]) -> None:
        write_json(folder / "leaderboard.json", leaderboard(key, budget, found))

    seeds = budget.leaderboard_seeds
    rebuild_heads(folder, key, budget, setting="leaderboard", seeds=seeds, after_seed=write, say=say)


def leaderboard(key: str, budget: Budget, found: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, object]:
    """Return the leaderboard as plain values.

    Args:
        found: the figures of every seed, by method.
    """
    low, high = LEVELS["leaderboard"]
    infos = {level.name: level for level in backbones.info(key).levels}
    rows = []
    for method, figures in found.items():
        levels = [infos[name] for name in level_names(method, list(infos), low, high)]
        head = build_head(method, levels, len(scenes.CLASSES), width=WIDTH, prediction="conv")
        rows.append(
            {
                "method": method,
                "levels": [level.name for level in levels],
                "seeds": len(figures),
                "mean": {name: _mean([f[name] for f in figures]) for name in NAMES},
                "sd": {name: _spread([f[name] for f in figures]) for name in NAMES},
                "parameters": sum(p.numel() for p in head.parameters()),
                "macs": macs(head, levels),
            }
        )
    return {
        "backbone": key,
        "low": low,
        "high": high,
        "prediction": PREDICTION["leaderboard"],
        "width": WIDTH,
        "test_scenes": budget.test_scenes,
        "size_px": 128,
        "made": made(budget.leaderboard_steps, budget.head_scenes, 0),
        "rows": rows,
    }


def macs(head: Head, levels: Sequence[LevelInfo], size_px: int = 128) -> int:
    """Return multiply-accumulates of a head for one picture, the prediction counted."""
    maps = [torch.zeros(1, v.channels, *(2 * [size_px // round(v.stride[0])])) for v in levels]
    with torch.inference_mode(), trace.FlopCounterMode(display=False) as counter:
        head.eval()(maps, (size_px, size_px))
    return counter.get_total_flops() // 2


def _draw(first: int, count: int, say: Say, *, occlusion: bool = False) -> Samples:
    began = time.perf_counter()
    samples = draw(first, count, occlusion=occlusion)
    say("drawn", {"count": count, "seconds": round(time.perf_counter() - began)})
    return samples


def _mean(values: Sequence[float]) -> float:
    return round(statistics.fmean(values), 2)


def _spread(values: Sequence[float]) -> float | None:
    """One value has no spread, which is not a spread of zero."""
    return round(statistics.stdev(values), 2) if len(values) > 1 else None


def _figures(figures: Mapping[str, float]) -> str:
    return " · ".join(f"{name} {value:.1f}" for name, value in figures.items())


def shorter(budget: Budget, steps: int) -> Budget:
    """Return a budget with another number of steps for every head."""
    return replace(budget, head_steps=steps, leaderboard_steps=steps)
