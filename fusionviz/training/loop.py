"""The one loop that fits a head on frozen features, and the measuring of what came out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionviz.training.data import class_weights
from fusionviz.training.heads import Head
from fusionviz.training.metrics import Score, Truth

BATCH = 16
WARM_UP = 30
DECAY = 1e-2
CLIP = 1.0
COARSER = 0.3
"""How much the coarser levels of a pyramid count in the loss, beside the finest."""


@dataclass(frozen=True)
class Progress:
    """Where a fit stands: `step` of `steps` are done, and the loss of the last one."""

    step: int
    steps: int
    loss: float


def fit(
    head: Head,
    features: Mapping[str, Tensor],
    labels: Tensor,
    steps: int = 800,
    lr: float = 4e-3,
    seed: int = 0,
    callback: Callable[[Progress], object] | None = None,
) -> list[float]:
    """Fit a head in place and return the loss of every step; see `fitting`.

    Args:
        callback: called after every step; a true answer ends the fit there.
    """
    losses = []
    for now in fitting(head, features, labels, steps, lr, seed):
        losses.append(now.loss)
        if callback is not None and callback(now):
            break
    head.eval()
    return losses


def fitting(
    head: Head, features: Mapping[str, Tensor], labels: Tensor, steps: int = 800, lr: float = 4e-3, seed: int = 0
) -> Iterator[Progress]:
    """Fit a head in place, one step each time the next value is asked for: to stop is to ask no more.

    Cross-entropy at a quarter of the labels' pixels, every second one of every second row, another quarter each time;
    rare classes weighted up; AdamW with a warm-up and a cosine. The same seed on the same CPU gives the same weights.

    Args:
        features: by level, in the order in which the head takes them, [n c h w] of any precision.
        labels: classes [n h w].
        steps: how many batches in all; the learning rate follows a cosine over them.
        lr: the highest learning rate.
        seed: of the order of the scenes.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = class_weights(labels, classes_of(head)).to(labels.device)
    optimiser, schedule = optimise(head, lr, steps, WARM_UP)
    batch = min(BATCH, len(labels))
    order = shuffled(len(labels), batch, generator)
    head.requires_grad_(True).to(memory_format=torch.channels_last)
    for step in range(1, steps + 1):
        head.train()  # each time: whoever looks on may have asked for a picture in between
        chosen = next(order)
        levels = [v[chosen].float().contiguous(memory_format=torch.channels_last) for v in features.values()]
        truth = labels[chosen].long()
        y, x = torch.randint(0, 2, (2,), generator=generator).tolist()
        finest, *others = (
            F.cross_entropy(enlarged(scores, truth.shape[-2:], y, x), truth[:, y::2, x::2], weights)
            for scores in head.scores(levels)
        )
        loss = finest + COARSER * sum(others) / max(len(others), 1)
        advance(loss, head, optimiser, schedule)
        yield Progress(step, steps, loss.item())
    head.eval()


def enlarged(scores: Tensor, size: Sequence[int], y: int, x: int) -> Tensor:
    """Return every second pixel from (y, x) on of scores [b classes h w], enlarged to a size bilinearly.

    Neighbouring pixels say nearly the same, and enlarging and comparing all of them is most of a step's time. As two
    matrix products it is exactly what F.interpolate gives at these pixels, and its gradient is several times faster.
    """
    rows, columns = (_bilinear(n, wanted) for n, wanted in zip(scores.shape[-2:], size, strict=True))
    return rows[y::2].to(scores) @ scores.contiguous() @ columns[x::2].T.to(scores)


@cache
def _bilinear(n: int, wanted: int) -> Tensor:
    """Return the matrix [wanted n] that enlarges n values to `wanted`."""
    with torch.inference_mode(False), torch.no_grad():
        eye = torch.eye(n).view(1, n, n, 1)
        return F.interpolate(eye, size=(wanted, 1), mode="bilinear", align_corners=False)[0, :, :, 0].T.contiguous()


def classes_of(head: Head) -> int:
    """Return how many classes a head tells apart."""
    *_, last = (m for m in head.predict.modules() if isinstance(m, nn.Conv2d))
    return last.out_channels


def shuffled(count: int, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield batches of positions without end; every position comes once before any comes again."""
    while True:
        order = torch.randperm(count, generator=generator)
        for at in range(0, count - batch + 1, batch):
            yield order[at : at + batch]


def optimise(
    module: nn.Module, lr: float, steps: int, warm_up: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Return AdamW and a schedule that rises for `warm_up` steps and falls along a cosine to zero."""
    optimiser = torch.optim.AdamW(module.parameters(), lr, weight_decay=DECAY, fused=True)

    def factor(step: int) -> float:
        return min((step + 1) / warm_up, 0.5 * (1 + math.cos(math.pi * step / steps)))

    return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, factor)


def advance(
    loss: Tensor,
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> None:
    """Take one step downhill, with the gradient's length bounded."""
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(module.parameters(), CLIP)
    optimiser.step()
    schedule.step()


@torch.inference_mode()
def score(head: Head, features: Mapping[str, Tensor], truth: Truth) -> dict[str, float]:
    """Return a head's figures (`metrics.NAMES`, in percent) on scenes that it was not fitted to."""
    found, chunk = Score(classes_of(head)), 32
    head.eval()
    for at in range(0, len(truth), chunk):
        part = slice(at, at + chunk)
        levels = [v[part].float() for v in features.values()]
        prediction = head(levels, tuple(truth.classes.shape[-2:])).argmax(1)
        found.hold(prediction, truth[part])
    return found.read()
