"""The rows of the leaderboard: means and standard deviations over seeds, and what a head costs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence

import torch

from fusionviz import trace
from fusionviz.training.heads import Head
from fusionviz.training.series import Data, Outcome, Unit

_ROUNDS = 15


class Rows:
    """Gathers outcomes: the methods themselves under "", controls by name, heads asked for their weights as "board"."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], list[tuple[Unit, Outcome]]] = {}

    def add(self, part: str, unit: Unit, outcome: Outcome) -> None:
        """Add one seed of a method."""
        self._found.setdefault((part, unit.method), []).append((unit, outcome))

    def first(self) -> list[tuple[Unit, Outcome]]:
        """Return every method with its first seed."""
        return [min(found, key=lambda f: f[0].seed) for (part, _), found in self._found.items() if not part]

    def told(self, data: Data) -> dict[str, list]:
        """Return the leaderboard's lists as plain values: "rows", "occluded", "attention"."""
        compared = {key: found for key, found in self._found.items() if key[0] != "board"}
        heads = {key: _first(found).build(data.levels).eval() for key, found in compared.items()}
        ms = milliseconds([(heads[key], maps_of(_first(found), data)) for key, found in compared.items()])
        rows = []
        for (key, found), one in zip(compared.items(), ms, strict=True):
            unit = _first(found)
            rows.append(
                {
                    "method": unit.method,
                    "control": key[0],
                    "prediction": unit.prediction,
                    "levels": [level.name for level in unit.levels(data.levels)],
                    "seeds": len(found),
                    **_over_seeds([outcome.figures for _, outcome in found]),
                    "parameters": sum(p.numel() for p in heads[key].parameters()),
                    "macs": macs(heads[key], maps_of(unit, data)),
                    "ms": round(one, 3),
                }
            )
        occluded = [
            {"method": method, **_over_seeds([outcome.occluded for _, outcome in found])}
            for (part, method), found in self._found.items()
            if not part and found[0][1].occluded
        ]
        return {"rows": rows, "occluded": occluded, "attention": self._attention()}

    def _attention(self) -> list[dict[str, object]]:
        rows = []
        for (part, method), found in self._found.items():
            if not found[0][1].weights:
                continue
            unit, causal = _first(found), _over_seeds([outcome.causal for _, outcome in found])
            rows.append(
                {
                    "method": method,
                    "setting": part or "leaderboard",
                    "low": unit.low,
                    "high": unit.high,
                    "seeds": len(found),
                    **_over_seeds([outcome.weights for _, outcome in found], digits=4),
                    "causal": causal["mean"],
                    "causal_sd": causal["sd"],
                }
            )
        return rows


def _first(found: Sequence[tuple[Unit, Outcome]]) -> Unit:
    return found[0][0]


def maps_of(unit: Unit, data: Data) -> list[torch.Tensor]:
    """Return what a unit's head takes of one scene."""
    return [data.test.maps[level.name][:1].float() for level in unit.levels(data.levels)]


def _over_seeds(figures: Sequence[Mapping[str, float]], digits: int = 2) -> dict[str, dict[str, float | None]]:
    names = figures[0]
    # One value has no spread, which is not a spread of zero.
    spread = {n: round(statistics.stdev(f[n] for f in figures), digits) if len(figures) > 1 else None for n in names}
    return {"mean": {n: round(statistics.fmean(f[n] for f in figures), digits) for n in names}, "sd": spread}


@torch.inference_mode()
def macs(head: Head, maps: Sequence[torch.Tensor], size_px: int = 128) -> int:
    """Return multiply-accumulates of a head for one picture, the prediction counted."""
    with trace.FlopCounterMode(display=False) as counter:
        head(maps, (size_px, size_px))
    return counter.get_total_flops() // 2


@torch.inference_mode()
def milliseconds(heads: Sequence[tuple[Head, Sequence[torch.Tensor]]], size_px: int = 128) -> list[float]:
    """Return how long each head takes for one picture on this machine: the fastest of many rounds, taken in turns.

    In turns, because a machine is faster at one time than at another; only their ratios mean something elsewhere.
    """
    best = [float("inf")] * len(heads)
    for _ in range(_ROUNDS):
        for i, (head, maps) in enumerate(heads):
            began = time.perf_counter()
            head(maps, (size_px, size_px))
            best[i] = min(best[i], 1e3 * (time.perf_counter() - began))
    return best
