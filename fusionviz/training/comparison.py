"""An article's comparison of "fusion" with a "baseline", and a fair one: four small networks trained alike.

The article's two networks differ in everything but fusion: where the picture shrinks, how much of it the linear layer
reads, what it costs. The fair pair is the article's second network with the fusion and without: one encoder, one
pooling, one linear layer, and a 1x1 convolution that reads the stack of all levels or the last level alone. All learn,
from nothing, to name the one thing of a scene.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_align

from fusionviz import fusion, scenes, trace
from fusionviz.seeds import seeded
from fusionviz.training.data import TEST, TRAIN, augment
from fusionviz.training.loop import BATCH, WARM_UP, advance, optimise, shuffled

NETWORKS = ("baseline", "alone", "fusion")
"""The article's baseline, its other network without fusion, and with it; the last two are the fair pair."""

WIDTHS = (64, 128, 256)
POOLED = 8
LR = 1e-3
FIRST = 700_000
"""Behind which seeds of a split lie the scenes of this comparison; no others have one thing only."""


SMALLEST_PX = 24
AROUND = 1.3
"""Side of what is cut out, for a thing of side 1."""

CHUNK = 64


def conv(c: int, out: int, stride: int = 1) -> nn.Conv2d:
    """Return the article's 3x3 convolution."""
    return nn.Conv2d(c, out, 3, stride, 1)


class Baseline(nn.Module):
    """The article's "baseline": three strided convolutions, and a linear layer that reads every place of the last.

    Args:
        classes: how many it tells apart.
        size_px: side of the pictures; the linear layer fits no other.
    """

    def __init__(self, classes: int, size_px: int) -> None:
        super().__init__()
        a, b, c = WIDTHS
        self.body = nn.Sequential(conv(3, a, 2), nn.ReLU(), conv(a, b, 2), nn.ReLU(), conv(b, c, 2))
        self.head = nn.Linear(c * (size_px // 8) ** 2, classes)

    def forward(self, picture: Tensor) -> Tensor:
        return self.head(self.body(picture).flatten(1))


class Encoder(nn.Module):
    """Three levels at the picture's size, a half and a quarter of it."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(map(conv, (3, *WIDTHS[:-1]), WIDTHS))

    def forward(self, picture: Tensor) -> tuple[Tensor, ...]:
        found: list[Tensor] = []
        for layer in self.convs:
            found.append(F.relu(layer(F.max_pool2d(found[-1], 2) if found else picture)))
        return tuple(found)


class Classifier(nn.Module):
    """One encoder, `multilevel` or a 1x1 convolution of the last level, pooling, a linear layer.

    Args:
        classes: how many it tells apart.
        fuses: whether the 1x1 convolution reads the stack of all levels, or the last level alone.
    """

    def __init__(self, classes: int, *, fuses: bool) -> None:
        super().__init__()
        self.fuses, self.encoder = fuses, Encoder()
        width = WIDTHS[-1]
        self.fusion = (
            fusion.build("multilevel", WIDTHS, (1, 2, 4), width=width, target="coarsest")
            if fuses
            else nn.Conv2d(width, width, 1)
        )
        self.head = nn.Linear(width * POOLED**2, classes)

    def forward(self, picture: Tensor) -> Tensor:
        maps = self.encoder(picture)
        fused = (
            self.fusion(*maps, trace=trace.NullTrace()).fused.tensor if self.fuses else F.relu(self.fusion(maps[-1]))
        )
        return self.head(F.adaptive_avg_pool2d(fused, POOLED).flatten(1))


def build(network: str, classes: int, size_px: int, seed: int = 0) -> nn.Module:
    """Build one of NETWORKS with random weights."""
    with seeded(seed):
        if network == "baseline":
            return Baseline(classes, size_px)
        return Classifier(classes, fuses=network == "fusion")


def cost(network: nn.Module, size_px: int) -> tuple[int, int]:
    """Return parameters, and multiply-accumulates of one picture; the network is on the meta device afterwards."""
    with trace.FlopCounterMode(display=False) as counter, torch.no_grad():
        network.to("meta")(torch.empty(1, 3, size_px, size_px, device="meta"))
    return sum(p.numel() for p in network.parameters()), counter.get_total_flops() // 2


# --- training --------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Trial:
    """How the networks are trained and measured.

    Attributes:
        size_px: side of the pictures.
        train, test: scenes with one thing.
        steps: batches of 16 for each network.
        seeds: how often each is trained.
    """

    size_px: int = 96
    train: int = 4000
    test: int = 2000
    steps: int = 600
    seeds: int = 2


def pictures(first: int, count: int, size_px: int) -> tuple[Tensor, Tensor]:
    """Return things cut out of scenes with one thing [n 3 h w] as bytes, and which of `scenes.KINDS` each is [n].

    Things smaller than SMALLEST_PX in their scene would be blurs, so the next scene stands in their place.
    """
    cut, kinds = [], []
    while len(kinds) < count:
        made = scenes.batch(range(first, first + CHUNK), objects=1)
        first += CHUNK
        for picture, boxes, labels in zip(made.pictures, made.boxes, made.labels, strict=True):
            x0, y0, x1, y1 = boxes[0].tolist()
            side = max(x1 - x0, y1 - y0)
            if side < SMALLEST_PX or len(kinds) == count:
                continue
            x, y, half = (x0 + x1) / 2, (y0 + y1) / 2, AROUND * side / 2
            window = torch.tensor([[0, x - half, y - half, x + half, y + half]])
            cut.append(roi_align(picture[None].float(), window, size_px, aligned=True).round().to(torch.uint8))
            kinds.append(labels[0] - 1)
    return torch.cat(cut), torch.tensor(kinds)


def run(trial: Trial, say: Callable[[str, int, float], None]) -> list[dict[str, object]]:
    """Train every network and return a row for each.

    Args:
        say: called with network, seed and accuracy in percent after each training.
    """
    train, test = (pictures(split + FIRST, n, trial.size_px) for split, n in ((TRAIN, trial.train), (TEST, trial.test)))
    rows = []
    for name in NETWORKS:
        found = []
        for seed in range(trial.seeds):
            network = build(name, len(scenes.KINDS), trial.size_px, seed)
            fit(network, *train, steps=trial.steps, seed=seed)
            found.append(accuracy(network, *test))
            say(name, seed, found[-1])
        parameters, macs = cost(network, trial.size_px)
        spread = round(statistics.stdev(found), 2) if len(found) > 1 else None
        right: Mapping[str, float | None] = {"mean": round(statistics.fmean(found), 2), "sd": spread}
        rows.append({"network": name, "parameters": parameters, "macs": macs, "seeds": len(found), "accuracy": right})
    return rows


def fit(network: nn.Module, shown: Tensor, kinds: Tensor, *, steps: int, seed: int) -> None:
    """Train a network in place: cross-entropy, AdamW, mirrored and recoloured pictures."""
    generator = torch.Generator().manual_seed(seed)
    order = shuffled(len(shown), min(BATCH, len(shown)), generator)
    network.train().to(memory_format=torch.channels_last)
    optimiser, schedule = optimise(network, LR, steps, WARM_UP)
    for _ in range(steps):
        chosen = next(order)
        seen, _ = augment(shown[chosen].float() / 255, shown[chosen, 0], generator)
        loss = F.cross_entropy(network(_centred(seen)), kinds[chosen])
        advance(loss, network, optimiser, schedule)
    network.eval()


@torch.inference_mode()
def accuracy(network: nn.Module, shown: Tensor, kinds: Tensor) -> float:
    """Return how many in a hundred are named rightly."""
    said = [network(_centred(part.float() / 255)).argmax(1) for part in shown.split(50)]
    return 100 * float((torch.cat(said) == kinds).float().mean())


def _centred(seen: Tensor) -> Tensor:
    return ((seen - 0.5) * 4).contiguous(memory_format=torch.channels_last)
