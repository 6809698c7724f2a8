"""A leaderboard of invented numbers, in the form of the real one: for tests, and never shown as a result."""

from fusionviz.leaderboard.records import METRICS
from fusionviz.scenes import KINDS

MIOU = {
    "low_only": 26.2,
    "high_only": 61.4,
    "concat": 80.1,
    "add": 78.9,
    "complex": 79.6,
    "wsum": 78.8,
    "fpn": 84.3,
    "se": 79.1,
    "cbam": 79.4,
    "mscam": 79.3,
    "highway": 79.9,
    "softmax2": 78.7,
    "aff": 80.2,
    "iaff": 80.9,
}
SD = 0.2


def figures(miou: float, sd: float | None = SD) -> dict[str, dict[str, float | None]]:
    """Means and spreads of every metric around one mIoU."""
    away = {"miou": 0.0, "small": -20.0, "medium": -6.0, "large": 4.0, "boundary_f1": -3.0, "class_accuracy": 9.0}
    return {"mean": {k: round(miou + away[k], 2) for k in METRICS}, "sd": dict.fromkeys(METRICS, sd)}


def row(method: str, miou: float, control: str = "", sd: float | None = SD) -> dict[str, object]:
    """One row as it stands in the file."""
    four = method in ("fpn", "concat4")
    return {
        "method": method,
        "control": control,
        "prediction": "linear" if control == "linear" else "conv",
        "levels": ["s4", "s8", "s16", "s32"] if four else ["s4", "s32"],
        "seeds": 1 if sd is None else 3,
        **figures(miou, sd),
        "parameters": 34_000 + 1000 * len(method),
        "macs": 35_000_000 + 1_000_000 * len(method),
        "ms": 4.1 + len(method) / 10,
    }


def ablation(*, without: str = "") -> list[dict[str, object]]:
    """FPN's paths cut off, as rows of the file; all three, or all but one."""
    found = {"all_levels": 84.0, "no_top_down": 81.2, "no_lateral": 63.4}
    return [row("fpn", miou, control) for control, miou in found.items() if control != without]


def weighing(method: str, setting: str, *, texture: float = 0.71, other: float = 70.0) -> dict[str, object]:
    """What a method's weights say, as it stands in the file."""
    one = method in ("wsum", "softmax2")
    mean = {"background": 0.47, "edge": 0.61, "interior": 0.44, "small": 0.57, "large": 0.46}
    mean |= {kind: 0.40 + 0.02 * i for i, kind in enumerate(KINDS)} | {"beachball": texture}
    mean = dict.fromkeys(mean, 0.53) if one else mean
    return {
        "method": method,
        "setting": setting,
        "low": "s4",
        "high": "s16" if setting == "board" else "s32",
        "seeds": 3,
        "mean": mean,
        "sd": dict.fromkeys(mean, 0.015),
        "causal": {"own": 77.5, "other": 77.4 if one else other, "flat": 77.5 if one else 73.1},
        "causal_sd": {"own": 0.2, "other": 0.4, "flat": 0.3},
    }


def table() -> dict[str, object]:
    """The whole file."""
    linear = {"add": 72.0, "concat": 75.1, "se": 74.2, "aff": 77.5, "iaff": 78.0, "fpn": 82.0}
    depth = {"add": 79.7, "aff": 80.3, "iaff": 80.8}
    weighed = ("highway", "softmax2", "wsum", "aff", "iaff")
    return {
        "backbone": "scene_resnet",
        "low": "s4",
        "high": "s32",
        "width": 64,
        "size_px": 128,
        "test_scenes": 5000,
        "weighed_scenes": 2000,
        "occluded_scenes": 2000,
        "noise_miou": 0.5,
        "made": {
            "data_seed": 0,
            "test_seed": 1,
            "scenes": 6144,
            "steps": 1600,
            "seed": 0,
            "commit": "0",
            "torch": "0",
            "fusionviz": "0",
            "licence": "MIT",
        },
        "rows": [
            *(row(method, miou) for method, miou in MIOU.items()),
            *(row(method, miou, "depth") for method, miou in depth.items()),
            *(row(method, miou, "linear") for method, miou in linear.items()),
            row("concat4", 83.9, "levels4"),
        ],
        "occluded": [{"method": m, **figures(v - 9 - len(m) / 5)} for m, v in MIOU.items()],
        "attention": [weighing(m, setting) for setting in ("leaderboard", "board") for m in weighed],
    }
