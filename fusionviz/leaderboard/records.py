"""What `leaderboard.json` says, checked once and then only read."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fusionviz import texts
from fusionviz.errors import FusionvizError

PATH = texts.ASSETS / "weights" / "leaderboard.json"
METRICS = ("miou", "small", "medium", "large", "boundary_f1", "class_accuracy")
BASELINES = ("low_only", "high_only")
"""One level by itself: what a method must beat."""

REGIONS = ("background", "edge", "interior", "small", "large")
"""Where weights are averaged; beside these, every kind of thing."""

CONTROLS = ("own", "other", "flat")
"""With whose weights a head answers: the picture's own, another picture's, their mean at every place."""


@dataclass(frozen=True)
class Figure:
    """A mean over seeds and its standard deviation, None with one seed."""

    mean: float
    sd: float | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.mean) or (self.sd is not None and not (math.isfinite(self.sd) and self.sd >= 0)):
            raise ValueError(f"a mean and a spread are finite numbers, but {self.mean} ± {self.sd} came")

    def text(self, digits: int = 1) -> str:
        """Return `78.3 ± 0.2`, without the spread where there is none."""
        spread = "" if self.sd is None else f" ± {self.sd:.{digits}f}"
        return f"{self.mean:.{digits}f}{spread}".replace("-", "−")


@dataclass(frozen=True)
class Row:
    """One method, or a control of one, on the test scenes.

    Attributes:
        control: "" for a method itself | "depth" | "linear" | "levels4" | "all_levels" | "no_top_down" | "no_lateral".
        prediction: "conv" (3x3, ReLU, 1x1) or "linear" (1x1).
        levels: that it was given, fine to coarse.
        figures: by METRICS, in percent.
        ms: for one picture on the machine that trained; only ratios mean something elsewhere.
    """

    method: str
    control: str
    prediction: str
    levels: tuple[str, ...]
    seeds: int
    figures: Mapping[str, Figure]
    parameters: int
    macs: int
    ms: float

    @property
    def miou(self) -> Figure:
        return self.figures["miou"]


@dataclass(frozen=True)
class Weighing:
    """What a method's weights of the low level say.

    Attributes:
        setting: "board" (read by one 1x1 convolution) or "leaderboard".
        regions: mean weight of low by REGIONS and kind of thing.
        causal: mIoU by CONTROLS.
    """

    method: str
    setting: str
    low: str
    high: str
    seeds: int
    regions: Mapping[str, Figure]
    causal: Mapping[str, Figure]

    @property
    def kinds(self) -> dict[str, Figure]:
        """Weights on the inside of things, by kind."""
        return {name: figure for name, figure in self.regions.items() if name not in REGIONS}


@dataclass(frozen=True)
class Leaderboard:
    """All of it.

    Attributes:
        noise_miou: two fits of one head may differ by so much, so smaller differences are ties.
        made: seeds, scenes, steps, commit, versions, licence.
        occluded: figures by method on scenes where things hide parts of each other.
    """

    backbone: str
    low: str
    high: str
    width: int
    size_px: int
    test_scenes: int
    weighed_scenes: int
    occluded_scenes: int
    noise_miou: float
    made: Mapping[str, object]
    rows: tuple[Row, ...]
    occluded: Mapping[str, Mapping[str, Figure]]
    weighings: tuple[Weighing, ...]

    @property
    def seeds(self) -> str:
        """How many fits stand behind each method: "3", or "1–3" where some have fewer; a control may have fewer yet."""
        counts = sorted({row.seeds for row in self.rows if not row.control})
        return "–".join(map(str, dict.fromkeys((counts[0], counts[-1]))))

    def row(self, method: str, control: str = "") -> Row | None:
        """Return a row, or None if it was not measured."""
        return next((r for r in self.rows if (r.method, r.control) == (method, control)), None)

    def standing(self) -> list[Row]:
        """Return methods and baselines without the controls, the best mIoU first."""
        return sorted((r for r in self.rows if not r.control), key=lambda r: -r.miou.mean)

    def weighing(self, setting: str, method: str) -> Weighing | None:
        """Return what a method's weights say, or None if it was not asked."""
        return next((w for w in self.weighings if (w.setting, w.method) == (setting, method)), None)


def read(path: Path | None = None) -> Leaderboard | None:
    """Return the leaderboard that ships, or None if it has not been made yet.

    Raises:
        FusionvizError: if the file is there and does not say what it should.
    """
    path = path or PATH
    try:
        return _board(json.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        return None
    except KeyError as cause:
        raise FusionvizError("leaderboard.damaged", path=path.name, reason=f"no {cause}") from cause
    except (OSError, ValueError, TypeError, AttributeError) as cause:
        raise FusionvizError("leaderboard.damaged", path=path.name, reason=str(cause)) from cause


def _board(told: Mapping) -> Leaderboard:
    counts = {k: int(told[k]) for k in ("width", "size_px", "test_scenes", "weighed_scenes", "occluded_scenes")}
    rows = tuple(_row(row) for row in told["rows"])
    if not any(not row.control and row.method not in BASELINES for row in rows):
        raise ValueError("no row of a method")
    if len({(r.method, r.control) for r in rows}) < len(rows):
        raise ValueError("two rows of one method and control")
    return Leaderboard(
        backbone=str(told["backbone"]),
        low=str(told["low"]),
        high=str(told["high"]),
        noise_miou=float(told["noise_miou"]),
        made=dict(told["made"]),
        rows=rows,
        occluded={row["method"]: _figures(row["mean"], row["sd"], METRICS) for row in told["occluded"]},
        weighings=tuple(_weighing(row) for row in told["attention"]),
        **counts,
    )


def _row(told: Mapping) -> Row:
    return Row(
        method=str(told["method"]),
        control=str(told["control"]),
        prediction=str(told["prediction"]),
        levels=tuple(told["levels"]),
        seeds=int(told["seeds"]),
        figures=_figures(told["mean"], told["sd"], METRICS),
        parameters=int(told["parameters"]),
        macs=int(told["macs"]),
        ms=float(told["ms"]),
    )


def _weighing(told: Mapping) -> Weighing:
    kinds = [name for name in told["mean"] if name not in REGIONS]
    return Weighing(
        method=str(told["method"]),
        setting=str(told["setting"]),
        low=str(told["low"]),
        high=str(told["high"]),
        seeds=int(told["seeds"]),
        regions=_figures(told["mean"], told["sd"], (*REGIONS, *kinds)),
        causal=_figures(told["causal"], told["causal_sd"], CONTROLS),
    )


def _figures(means: Mapping, spreads: Mapping, names: tuple[str, ...]) -> dict[str, Figure]:
    return {name: Figure(float(means[name]), _spread(spreads[name])) for name in names}


def _spread(told: float | None) -> float | None:
    return None if told is None else float(told)
