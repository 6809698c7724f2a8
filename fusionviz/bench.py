"""Speed as ratios inside one run: nothing absolute holds on a shared machine.

python -m fusionviz bench            engine overhead of `study.run` against the bare forward
"""

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from fusionviz import device, pictures, study
from fusionviz.errors import ParameterError
from fusionviz.selection import Selection
from fusionviz.systems import System
from fusionviz.trace import NullTrace

WARM_UP = 3


def run(backbone: str = "resnet50", method: str = "aff", *, rounds: int = 15, on: str | None = None) -> dict:
    """Measure what the engine adds to the bare networks, as a ratio of two runs side by side.

    Args:
        rounds: how often the two are measured; every other time the second goes first.

    Returns:
        "study_over_bare": `study.run` on a prepared picture against the same two networks called alone, with no
        trace and no records; the median over the pairs. "prepare_over_bare": opening and fitting the picture, with
        the models open. "ms" holds the medians; "fit" among them is the one fit of the method to the picture, where it
        is fitted, which is no part of the ratios.

    Raises:
        ParameterError: for fewer than one round.
    """
    if rounds < 1:
        raise ParameterError("selection.value", name="rounds", received=rounds, allowed="1, 2, 3, …")
    selection = Selection(picture="sample:coffee", backbone=backbone, method=method, weights="random")
    file = pictures.catalogue.sample_bytes(pictures.catalogue.sample("coffee"))  # a sample itself stays opened
    prepared = study.prepare(selection, on=on)
    fit_ms = study.run(prepared).timings["fit"] if prepared.fits else None
    prepared = replace(prepared, fits=False)  # a fit is work of its own, not what running the networks costs
    whole = isinstance(prepared.method, System)
    levels = () if whole else prepared.backbone.levels
    chosen = () if whole else study.level_names(prepared.selection, levels)
    taken = [i for i, level in enumerate(levels) if level.name in chosen]

    @torch.inference_mode()
    def bare() -> None:
        if whole:
            prepared.method(prepared.tensor, study.levels_for(prepared), context=prepared.context, trace=NullTrace())
        else:
            tensors, _ = prepared.backbone.module.forward(prepared.tensor)
            prepared.method(*(tensors[i] for i in taken), trace=NullTrace())
        if prepared.device.type == "cuda":
            torch.cuda.synchronize(prepared.device)
        elif prepared.device.type == "mps":
            torch.mps.synchronize()

    tasks: dict[str, Callable[[], object]] = {
        # On the worker's own thread, as `study.run` is: one team of threads for both.
        "bare": lambda: device.submit(prepared.device, bare),
        "study": lambda: study.run(prepared),
        "prepare": lambda: study.prepare(selection, pictures.open_picture(file), on=on),
    }
    samples: dict[str, list[float]] = {name: [] for name in tasks}

    def measure(name: str) -> None:
        begin_s = time.perf_counter()
        tasks[name]()
        samples[name].append((time.perf_counter() - begin_s) * 1e3)

    for _ in range(WARM_UP):
        for task in tasks.values():
            task()
    gc.collect()
    for i in range(rounds):
        for name in ("bare", "study") if i % 2 else ("study", "bare"):
            measure(name)
    for _ in range(rounds):
        measure("prepare")
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
        "ms": medians | ({"fit": fit_ms} if fit_ms is not None else {}),
    }
