"""Speed as ratios inside one run: nothing absolute holds on a shared machine.

python -m fusionviz bench            engine overhead of `study.run` against the bare forward
"""

import gc
import statistics
import time
from collections.abc import Callable

import torch

from fusionviz import device, study
from fusionviz.selection import Selection
from fusionviz.trace import NullTrace


def run(backbone: str = "resnet50", method: str = "aff", *, rounds: int = 15, on: str | None = None) -> dict:
    """Measure what the engine adds to the bare networks, as ratios of medians, in turn in one run.

    Args:
        rounds: how often each is measured, in turn: A B C A B C ...

    Returns:
        "study_over_bare": `study.run` on a prepared picture against backbone and method called alone with a null
        trace; "ms" holds the medians, and opening and preparing measured beside them.
    """
    selection = Selection(backbone=backbone, method=method, weights="random")
    prepared = study.prepare(selection, on=on)
    levels = None

    @torch.inference_mode()
    def bare() -> None:
        nonlocal levels
        pyramid, _ = prepared.backbone(prepared.tensor)
        levels = [pyramid[name] for name in study.level_names(prepared.selection, pyramid)]
        prepared.method(*levels, trace=NullTrace())
        if prepared.device.type == "cuda":
            torch.cuda.synchronize(prepared.device)

    def prepare() -> None:
        study.prepare(selection, on=on)

    tasks: dict[str, Callable[[], object]] = {
        # On the worker's own thread, as `study.run` is: one team of threads for both.
        "bare": lambda: device.submit(prepared.device, bare),
        "study": lambda: study.run(prepared),
        "prepare": prepare,
    }
    samples: dict[str, list[float]] = {name: [] for name in tasks}
    gc.collect()
    for i in range(rounds + 3):
        for name, task in tasks.items():
            begin_s = time.perf_counter()
            task()
            if i >= 3:
                samples[name].append((time.perf_counter() - begin_s) * 1e3)
    medians = {name: statistics.median(values) for name, values in samples.items()}
    pairs = [s / b for s, b in zip(samples["study"], samples["bare"], strict=True)]
    return {
        "backbone": backbone,
        "method": method,
        "device": str(prepared.device),
        "device_title": device.title(str(prepared.device)),
        "rounds": rounds,
        "study_over_bare": statistics.median(pairs),
        "study_over_bare_spread": [min(pairs), max(pairs)],
        "prepare_over_bare": medians["prepare"] / medians["bare"],
        "ms": medians,
    }
