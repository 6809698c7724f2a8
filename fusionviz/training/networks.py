"""Training the backbones that ship: every level must help to name every pixel.

Each of the levels s4 to s32 gives class scores by a 1x1 convolution; their sum, enlarged to the picture, is held
against the mask (Long, Shelhamer, Darrell, 2015, arXiv 1411.4038). So no level may rely on another one, and the fine
ones stay fine. Beside it the last level learns which kinds are in the picture, which are the network's own logits.

Heads that add, and heads of four levels, are a little favoured by that: they meet maps that were made to be added.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionviz.backbones import bundled
from fusionviz.seeds import seeded
from fusionviz.training.data import Samples, augment, class_weights, normalise
from fusionviz.training.loop import BATCH, Progress, advance, enlarged, optimise, shuffled
from fusionviz.training.metrics import Score

WARM_UP = 100
PRESENCE = 0.2
"""How much the kinds in the picture count in the loss, beside the mask."""


class Readout(nn.Module):
    """What is thrown away after training: the sum of every level's own class scores."""

    def __init__(self, network: nn.Module, classes: int) -> None:
        super().__init__()
        self.network = network
        self.scores = nn.ModuleList(nn.Conv2d(c, classes, 1) for c in network.channels[1:])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return class scores [b classes h w] and the logits of the kinds in the picture [b kinds]."""
        total, kinds = self.read(x)
        return F.interpolate(total, size=x.shape[-2:], mode="bilinear", align_corners=False), kinds

    def read(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return class scores at the places of s4 [b classes h/4 w/4], and the logits of the kinds [b kinds]."""
        levels = self.network.levels(x)
        size = levels[1].shape[-2:]
        total = self.scores[0](levels[1])
        for scores, level in zip(self.scores[1:], levels[2:], strict=True):
            total = total + F.interpolate(scores(level), size=size, mode="bilinear", align_corners=False)
        return total, self.network.head(levels[-1].amax((2, 3)))


@dataclass(frozen=True)
class Checkpoint:
    """Where the training of a network stands; `readout` may be written to disk at any time."""

    progress: Progress
    readout: Readout
    seconds: float


def training(key: str, samples: Samples, *, steps: int = 4000, lr: float = 3e-3, seed: int = 0) -> Iterator[Checkpoint]:
    """Train a network, one step each time the next value is asked for; a quarter of the pixels each time, as `fitting`.

    Args:
        key: one of `bundled.names()`.
        samples: the scenes, which are mirrored and recoloured at random.
        steps: batches of 16.
        seed: of the weights, the order and the recolouring.
    """
    generator = torch.Generator().manual_seed(seed)
    with seeded(seed):
        readout = Readout(bundled.build(key), bundled.KINDS + 1).to(memory_format=torch.channels_last)
    weights = class_weights(samples.classes, bundled.KINDS + 1)
    optimiser, schedule = optimise(readout, lr, steps, WARM_UP)
    order, began = shuffled(len(samples), min(BATCH, len(samples)), generator), time.perf_counter()
    for step in range(1, steps + 1):
        readout.train()
        chosen = next(order)
        pictures, truth = augment(samples.pictures[chosen].float() / 255, samples.classes[chosen], generator)
        scores, kinds = readout.read(normalise(pictures, bundled.PREPROCESSING))
        y, x = torch.randint(0, 2, (2,), generator=generator).tolist()
        here = enlarged(scores, truth.shape[-2:], y, x)
        loss = F.cross_entropy(here, truth[:, y::2, x::2].long(), weights)
        loss = loss + PRESENCE * F.binary_cross_entropy_with_logits(kinds, presence(truth, bundled.KINDS))
        advance(loss, readout, optimiser, schedule)
        yield Checkpoint(Progress(step, steps, loss.item()), readout, time.perf_counter() - began)
    readout.eval()


def train(
    key: str,
    samples: Samples,
    *,
    steps: int = 4000,
    seed: int = 0,
    callback: Callable[[Checkpoint], object] | None = None,
) -> Readout:
    """Train a network to the end and return it in eval mode; see `training`."""
    for now in training(key, samples, steps=steps, seed=seed):
        if callback is not None:
            callback(now)
    return now.readout.eval()


def presence(classes: Tensor, kinds: int) -> Tensor:
    """Return 1 for every kind that a label [b h w] holds a pixel of, else 0: [b kinds]."""
    return torch.stack([(classes == k).flatten(1).any(1) for k in range(1, kinds + 1)], 1).float()


@torch.inference_mode()
def score(readout: Readout, samples: Samples) -> dict[str, float]:
    """Return the figures of the sum of all levels' scores, and how often the kinds in the picture are named right."""
    found, right, count = Score(bundled.KINDS + 1), 0, 0
    readout.eval()
    for at in range(0, len(samples), 32):
        part = samples[at : at + 32]
        scores, kinds = readout(normalise(part.pictures, bundled.PREPROCESSING))
        found.add(scores.argmax(1), part.classes, part.instances)
        right += int(((kinds > 0) == presence(part.classes, bundled.KINDS).bool()).sum())
        count += kinds.numel()
    return {**found.read(), "presence_accuracy": round(100 * right / count, 2)}
