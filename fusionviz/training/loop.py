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
) -> Fitting:
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
    return Fitting(head, features, labels, steps, lr, seed)


class Fitting(Iterator[Progress]):
    """A fit under way, see `fitting`; it can be written down after any step, and gone on with in another process."""

    def __init__(
        self, head: Head, features: Mapping[str, Tensor], labels: Tensor, steps: int, lr: float, seed: int
    ) -> None:
        self.head, self.steps, self.step = head, steps, 0
        self._features, self._labels = features, labels
        self._weights = class_weights(labels, classes_of(head)).to(labels.device)
        head.requires_grad_(True).to(memory_format=torch.channels_last)
        self._optimiser, self._schedule = optimise(head, lr, steps, WARM_UP)
        self._generator = torch.Generator().manual_seed(seed)
        self._order = shuffled(len(labels), min(BATCH, len(labels)), self._generator)

    def __next__(self) -> Progress:
        if self.step == self.steps:
            self.head.eval()
            raise StopIteration
        self.head.train()  # each time: whoever looks on may have asked for a picture in between
        chosen, y, x = self._draw()
        levels = [v[chosen].float().contiguous(memory_format=torch.channels_last) for v in self._features.values()]
        truth = self._labels[chosen].long()
        finest, *others = (
            F.cross_entropy(enlarged(scores, truth.shape[-2:], y, x), truth[:, y::2, x::2], self._weights)
            for scores in self.head.scores(levels)
        )
        loss = finest + COARSER * sum(others) / max(len(others), 1)
        advance(loss, self.head, self._optimiser, self._schedule)
        self.step += 1
        return Progress(self.step, self.steps, loss.item())

    def _draw(self) -> tuple[Tensor, int, int]:
        """Return the scenes of a batch, and which quarter of their pixels."""
        chosen = next(self._order)
        y, x = torch.randint(0, 2, (2,), generator=self._generator).tolist()
        return chosen, y, x

    def state(self) -> dict[str, Tensor]:
        """Return all that is needed to go on: "head.<name>", and the optimiser's memory of each parameter."""
        memory = self._optimiser.state_dict()["state"]
        kept = {f"memory.{i}.{name}": v for i, own in memory.items() for name, v in own.items()}
        own = {f"head.{name}": v for name, v in self.head.state_dict().items()}
        return {name: v.detach().cpu().contiguous().clone() for name, v in {**own, **kept}.items()}

    def go_on(self, step: int, state: Mapping[str, Tensor]) -> None:
        """Stand where a fit of the same head, scenes, steps and seed stood after `step` steps, when it gave `state`.

        Raises:
            RuntimeError: if the state is another head's.
        """
        self.head.load_state_dict({k.removeprefix("head."): v for k, v in state.items() if k.startswith("head.")})
        parameters, memory = list(self.head.parameters()), {}
        for name, value in state.items():
            if name.startswith("memory."):
                _, i, part = name.split(".")
                like = parameters[int(i)]
                # In the parameter's own order of memory: the optimiser goes through both as they lie.
                own = torch.empty_like(like).copy_(value) if value.shape == like.shape else value.clone()
                memory.setdefault(int(i), {})[part] = own.detach()
        self._optimiser.load_state_dict({**self._optimiser.state_dict(), "state": memory})
        self._schedule.last_epoch, self._schedule._step_count = step, step + 1
        for group, rate, factor in zip(
            self._optimiser.param_groups, self._schedule.base_lrs, self._schedule.lr_lambdas, strict=True
        ):
            group["lr"] = rate * factor(step)
        for _ in range(step - self.step):  # the same numbers are drawn again
            self._draw()
        self.step = step


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
