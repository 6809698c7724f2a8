"""What RAM and DRAM share: the foveated glimpse, what and where put together, and the walk from glimpse to glimpse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionviz.backbones import bundled
from fusionviz.fusion import Context
from fusionviz.records import FeatureMap, FusionResult, GlimpsePath, Logits, Preprocessing
from fusionviz.registry import Param
from fusionviz.scenes.kinds import KINDS
from fusionviz.selection import Value
from fusionviz.systems._base import System, pixels
from fusionviz.trace import NullTrace

CELLS = 12
"""Of a glimpse's side, at every scale."""
SIDES = (12.0, 24.0, 48.0, 96.0)
"""Of the windows in pixels: each is twice as wide as the one before."""
FEATURES = 48
"""Numbers that a window becomes before all of them are put together."""
MOST = 8
"""Glimpses, at most; networks are trained to answer after each of them."""
WIDTH = 80
"""Numbers in what a glimpse says, and in the state that remembers them."""

GLIMPSES = Param("glimpses", 6, low=1, high=MOST, step=1)
LOOK = Param("look", "learned", choices=("learned", "random"))
SIGMA = Param("sigma", 0.0, low=0.0, high=0.5, step=0.01)
JOINS = ("add", "multiply")


@dataclass(frozen=True)
class Walk:
    """Glimpses at a batch of pictures, one after the other.

    Attributes:
        places: where it looked, [b t 2], (y, x) from -1 to 1.
        means: of the places' distribution [b t 2]; the first has none of its own in RAM and is the place itself.
        scores: of the kinds after each glimpse, [b t kinds].
        states: what the next place is made of, before each glimpse, [b t n]: what a baseline may look at.
        patches: [b t k 3 g g], as normalised as the picture was.
        decided: which glimpses the network chose the place of, [t]: not random ones.
    """

    places: Tensor
    means: Tensor
    scores: Tensor
    states: Tensor
    patches: Tensor
    decided: tuple[bool, ...]


def shrunk(picture: Tensor, scale: int) -> Tensor:
    """Return a picture in which each cell is the mean of 2^scale x 2^scale pixels; at the edge of fewer."""
    return F.avg_pool2d(picture, 2**scale, ceil_mode=True, count_include_pad=False) if scale else picture


def retina(picture: Tensor, place: Tensor, scale: int, small: Tensor | None = None) -> Tensor:
    """Return a square window of each picture, [b 3 g g]: g * 2^scale pixels wide, each cell the mean of its pixels.

    Windows that reach over the edge see the edge's pixels again.

    Args:
        picture: [b 3 h w].
        place: middles [b 2], (y, x) from -1 to 1.
        scale: 0 for the sharp window; each further one is twice as wide.
        small: the picture as `shrunk` makes it, if that is there already.
    """
    small = shrunk(picture, scale) if small is None else small
    size = place.new_tensor(picture.shape[-2:])
    middle = (place + 1) / 2 * size / 2**scale  # in cells of the small picture
    offsets = torch.arange(CELLS, device=place.device, dtype=place.dtype) - (CELLS - 1) / 2
    # grid_sample's -1 and 1 are the outer edges of the first and the last cell.
    y, x = (2 * (middle[:, i, None] + offsets) / small.shape[2 + i] - 1 for i in (0, 1))  # [b g]
    grid = torch.stack((x[:, None].expand(-1, CELLS, -1), y[:, :, None].expand(-1, -1, CELLS)), -1)
    return F.grid_sample(small, grid, padding_mode="border", align_corners=False)


class Glimpse(nn.Module):
    """What a glimpse shows, by convolutions, and where it was, by a layer; then both joined.

    Equation: g = relu(A + L) or g = relu(A * L), A what and L where.
    """

    def __init__(self, joins: str) -> None:
        super().__init__()
        self.joins = joins
        self.see = eye(bundled.build("scene_resnet"))  # each window becomes a map [b 64 2 2], by the same filters
        self.settle = nn.Sequential(*conv(64, FEATURES, 2), nn.Flatten())
        self.what = nn.Linear(FEATURES * len(SIDES), WIDTH, bias=joins == "add")
        self.where = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, WIDTH))
        if joins == "multiply":
            nn.init.ones_(self.where[-1].bias)  # at first no place silences anything

    def forward(
        self, picture: Tensor, place: Tensor, trace: NullTrace, smalls: tuple[Tensor, ...] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return what the glimpse says [b 80], and the windows [b k 3 g g].

        Args:
            smalls: the picture shrunk for each of the windows; many glimpses at one picture share them.
        """
        smalls, windows = smalls or tuple(shrunk(picture, k) for k, _ in enumerate(SIDES)), []
        for k, small in enumerate(smalls):
            crop = lambda p, l, k=k, small=small: retina(p, l, k, small)  # noqa: E731, E741
            formula = rf"\rho_{k + 1}(I,l_t)"
            windows.append(trace.step(f"window_{k + 1}", "retina", crop, picture, place, formula=formula))  # [b 3 g g]
        learned = nn.ModuleList((self.see, self.settle, self.what))
        what = trace.step("what", "what", self._what, *windows, formula=r"A=W_g h_{\rho}", role="low", module=learned)
        where = trace.step("where", "where", self.where, place, formula=r"L=W_l h_l", role="high")  # [b 80]
        # A * L is 0 wherever either is; a sum is not.
        join, op, sign = {
            "add": (torch.add, "add_relu", "+"),
            "multiply": (torch.mul, "multiply_relu", r"\otimes"),
        }[self.joins]
        both = lambda a, b: F.relu(join(a, b))  # noqa: E731
        return trace.step("glimpse", op, both, what, where, formula=rf"g_t=\delta(A{sign}L)"), torch.stack(windows, 1)

    def _what(self, *windows: Tensor) -> Tensor:
        seen = self.settle(self.see(torch.cat(windows)))  # [k*b 48]
        return self.what(torch.cat(seen.split(len(windows[0])), 1))


def eye(network: bundled.SceneResNet) -> nn.Sequential:
    """Return the first layers of a network trained on scenes, which see a glimpse: [b 3 h w] -> [b 64 h/8 w/8]."""
    return nn.Sequential(network.stem, network.stage1, network.stage2[0])


def conv(inputs: int, outputs: int, side: int, **how: int) -> tuple[nn.Module, ...]:
    """Return a convolution, BatchNorm and ReLU."""
    return nn.Conv2d(inputs, outputs, side, bias=False, **how), nn.BatchNorm2d(outputs), nn.ReLU()


class Glimpses(System):
    """A network that sees only glimpses and chooses each next place by itself. Subclasses say what it remembers."""

    takes_levels = ()
    one_thing = True

    @classmethod
    def wants(cls, params: Mapping[str, Value]) -> Preprocessing:
        return bundled.PREPROCESSING

    def begin(self, picture: Tensor, trace: NullTrace) -> tuple[Tensor, ...]:
        """Return the states before the first glimpse; the last is what a place is made of."""
        raise NotImplementedError

    def remember(self, glimpse: Tensor, states: tuple[Tensor, ...], trace: NullTrace) -> tuple[Tensor, ...]:
        """Return the states after a glimpse [b 80]; the first is what an answer is made of."""
        raise NotImplementedError

    chooses_first = False
    """Whether the first place comes from the network; else it is random."""

    def build(self, join: str, state: int, place: int) -> None:
        """Build what both have: the glimpse, the answer and the next place, from states of these widths."""
        self.glimpse = Glimpse(join)
        self.answer = nn.Linear(state, len(KINDS))
        self.next = nn.Linear(place, 2)
        with torch.no_grad():
            self.next.weight.mul_(0.1)  # tanh saturates; the first looks go near the middle

    def walk(
        self,
        picture: Tensor,
        *,
        count: int | None = None,
        look: str | None = None,
        sigma: float | None = None,
        draws: tuple[Tensor, Tensor] | None = None,
        trace: NullTrace | None = None,
        **how: object,
    ) -> Walk:
        """Look at pictures [b 3 h w] several times.

        Args:
            count, look, sigma: in the place of the knobs of these names.
            draws: numbers from [-1, 1) and normal ones, each [b t 2]: of random places, and of how far each place
                lies from its mean. By default those of the module's seed, the same for every picture.
            trace: sees the first glimpse; the others run the same steps.
            how: passed on to `begin`.
        """
        count = self.params["glimpses"] if count is None else count
        look = self.params["look"] if look is None else look
        sigma = self.params["sigma"] if sigma is None else sigma
        trace = trace or NullTrace()
        uniform, normal = self._draws(len(picture)) if draws is None else draws
        uniform, normal = uniform.to(picture), normal.to(picture)
        smalls = tuple(shrunk(picture, k) for k, _ in enumerate(SIDES))
        picture = trace.input("picture", picture, formula="I")
        states = self.begin(picture, trace, **how)
        decided = tuple(look == "learned" and (t > 0 or self.chooses_first) for t in range(count))
        kept: tuple[list[Tensor], ...] = ([], [], [], [], [])
        mean = self._aim(states[-1], "aim_1", "l_1", trace) if self.chooses_first else None
        for t in range(count):
            before = states[-1]
            mean = mean if decided[t] else uniform[:, t]
            if decided[t]:
                # A draw is a number like any other: no gradient runs through it.
                scatter = lambda m, n=normal[:, t]: (m + sigma * n).clamp(-1, 1).detach()  # noqa: E731
                place = trace.step("place", "scatter", scatter, mean, formula=r"l_t\sim\mathcal{N}(\mu,\sigma^2)")
            else:
                place = trace.input("place", mean, formula="l_t")
            seen, patches = self.glimpse(picture, place, trace, smalls)  # [b 80]
            states = self.remember(seen, states, trace)
            scores = trace.step("answer", "linear", self.answer, states[0], formula=r"W_a h_t", role="fused")
            for values, value in zip(kept, (place, mean, scores, before, patches), strict=True):
                values.append(value)
            mean, trace = self._aim(states[-1], "aim", r"l_{t+1}", trace), NullTrace()
        return Walk(*(torch.stack(values, 1) for values in kept), decided)

    def _aim(self, state: Tensor, key: str, name: str, trace: NullTrace) -> Tensor:
        """Return the mean of the next place [b 2]."""
        aim = lambda s: torch.tanh(self.next(s))  # noqa: E731
        return trace.step(key, "aim", aim, state, formula=rf"{name}=\tanh(W_l h)", role="weight", module=self.next)

    def _draws(self, batch: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(self.seed)
        uniform = torch.rand(1, MOST, 2, generator=generator) * 2 - 1
        normal = torch.randn(1, MOST, 2, generator=generator)
        return uniform.expand(batch, -1, -1), normal.expand(batch, -1, -1)

    def see(
        self, picture: Tensor, levels: tuple[FeatureMap, ...], *, context: Context, trace: NullTrace
    ) -> FusionResult:
        walk = self.walk(picture, trace=trace)
        size = walk.places.new_tensor(picture.shape[-2:])
        wants = bundled.PREPROCESSING
        path = GlimpsePath(
            "path",
            (walk.places[0] + 1) / 2 * size,
            SIDES,
            pixels(walk.patches[0], wants.mean, wants.std),
            walk.scores[0].softmax(1),
            KINDS,
        )
        kinds = Logits("kinds", walk.scores[0, -1], KINDS)
        return FusionResult({"path": path, "kinds": kinds}, {}, trace.steps, provenance=self.provenance)
