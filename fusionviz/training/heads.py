"""A head: a fusion method, and what reads the fused map as classes. Two baselines look at one level only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionviz import fusion
from fusionviz.fusion import FusionModule
from fusionviz.records import FeatureMap, LevelInfo
from fusionviz.seeds import seeded
from fusionviz.trace import NullTrace

BASELINES = ("low_only", "high_only")
"""What a method must beat: one level by itself, through the same alignment and the same prediction."""

STACKED = "concat4"
"""A control beside FPN: every level projected, enlarged and concatenated, with no way from level to level."""

PREDICTIONS = ("linear", "conv")
"""How the fused map is read: by one 1x1 convolution, so that the fusion has to do the work, or by 3x3, ReLU and 1x1."""


NARROWER = {"unet": 2}
"""Methods whose `width` is only the finest level's and doubles with every coarser one: their heads have less."""


class Only(nn.Module):
    """One of two levels by itself: 1x1 projection, normalisation, and the high level enlarged to the low level's size.

    Args:
        which: "low_only" or "high_only".
        channels: of the low and the high level.
        width: channels after the projection.
    """

    def __init__(self, which: str, channels: tuple[int, int], width: int) -> None:
        super().__init__()
        self.at = BASELINES.index(which)
        self.project = nn.Sequential(nn.Conv2d(channels[self.at], width, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        x = self.project((low, high)[self.at])
        return F.interpolate(x, size=low.shape[-2:], mode="bilinear", align_corners=False)  # [b width h w]


class Stacked(nn.Module):
    """All levels at the finest one's size, concatenated, then 1x1, normalisation and ReLU: `concat` of many levels.

    Args:
        channels: of each level, fine to coarse.
        width: channels of each after its projection, and of the result.
    """

    def __init__(self, channels: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.project = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, width, 1, bias=False), nn.BatchNorm2d(width)) for c in channels
        )
        count = len(channels)
        self.mix = nn.Sequential(nn.Conv2d(count * width, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())

    def forward(self, *levels: Tensor) -> Tensor:
        maps = [project(x) for project, x in zip(self.project, levels, strict=True)]
        size = levels[0].shape[-2:]
        large = [F.interpolate(x, size=size, mode="bilinear", align_corners=False) for x in maps[1:]]
        return self.mix(torch.cat((maps[0], *large), 1))  # [b width h w]


class Head(nn.Module):
    """A fusion method with its prediction: levels in, class scores of every pixel out.

    Attributes:
        fusion: a method of the catalogue, Only or Stacked.
        predict: reads the fused map; a complex map is read as its real parts behind which stand the imaginary ones.

    Args:
        deeper: one more 1x1 convolution with normalisation and ReLU stands before the prediction, as `concat` has it.
        coarser: channels of a pyramid's other outputs; one of another width than the fused map has its own reader.
    """

    def __init__(
        self,
        module: FusionModule | Only | Stacked,
        channels: int,
        classes: int,
        *,
        prediction: str = "linear",
        width: int = 64,
        deeper: bool = False,
        coarser: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.fusion = module
        self.read_coarser = nn.ModuleDict({str(c): nn.Conv2d(c, classes, 1) for c in coarser if c != channels})
        before: list[nn.Module] = []
        if deeper:
            before = [nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        if prediction == "conv":
            before += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        last = nn.Conv2d(channels, classes, 1)
        self.predict: nn.Module = nn.Sequential(*before, last) if before else last

    def forward(self, levels: Sequence[FeatureMap | Tensor], size: tuple[int, int]) -> Tensor:
        """Return class scores [b classes *size].

        Args:
            levels: as the method takes them, fine to coarse.
            size: (h, w) of the picture.
        """
        return F.interpolate(self.scores(levels)[0], size=size, mode="bilinear", align_corners=False)

    def read(self, fused: Tensor, size: tuple[int, int]) -> Tensor:
        """Return class scores [b classes *size] of a map that the method has fused already."""
        return F.interpolate(self._predict(fused), size=size, mode="bilinear", align_corners=False)

    def scores(self, levels: Sequence[FeatureMap | Tensor]) -> tuple[Tensor, ...]:
        """Return class scores at the fused map's own places, [b classes h w].

        Of a method that gives a pyramid, the coarser levels follow, read by the same prediction, as FPN's detector
        does: the finest does not depend on their last convolutions, which would otherwise stay random. A level of
        other channels than the fused map's, as HRNet keeps them, is read by a 1x1 convolution of its own.
        """
        if not isinstance(self.fusion, FusionModule):
            return (self.predict(self.fusion(*(v.tensor if isinstance(v, FeatureMap) else v for v in levels))),)
        result = self.fusion(*levels, trace=NullTrace())
        fused, others = result.fused.tensor, ()
        if self.fusion.spec.takes == "pyramid":
            others = tuple(m.tensor for m in result.maps.values() if m.tensor is not fused)
        return (self._predict(fused), *(self._read(tensor) for tensor in others))

    def _read(self, coarser: Tensor) -> Tensor:
        own = dict(self.read_coarser).get(str(coarser.shape[1]))
        return self._predict(coarser) if own is None else own(coarser)

    def _predict(self, fused: Tensor) -> Tensor:
        return self.predict(torch.cat((fused.real, fused.imag), 1) if fused.is_complex() else fused)


def level_names(method: str, names: Sequence[str], low: str, high: str) -> tuple[str, ...]:
    """Return which levels a method's head takes: two, or all from low to high for a method that takes a pyramid."""
    first, last = names.index(low), names.index(high)
    pyramid = method == STACKED or (method not in BASELINES and fusion.spec(method).takes == "pyramid")
    return tuple(names[first : last + 1]) if pyramid else (names[first], names[last])


def head_params(method: str, width: int) -> dict[str, object]:
    """Return every knob of a method as its head has it: the defaults, and one width for all that have one."""
    if method in (*BASELINES, STACKED):
        return {}
    spec = fusion.spec(method)
    narrow = width // NARROWER.get(method, 1)
    return spec.parse({"width": narrow} if any(p.key == "width" for p in spec.params) else {})


def build_head(
    method: str,
    levels: Sequence[LevelInfo],
    classes: int,
    *,
    width: int = 64,
    prediction: str = "linear",
    deeper: bool = False,
    params: Mapping[str, object] | None = None,
    seed: int = 0,
) -> Head:
    """Build a head with random weights.

    Args:
        method: a key of the catalogue, one of BASELINES, or STACKED.
        levels: those that it is given, see `level_names`.
        classes: the background counted.
        width: the method's knob of that name, where it has one, and the width of a "conv" prediction.
        prediction: one of PREDICTIONS.
        deeper: see Head.
        params: knobs of the method that differ from those of `head_params`.
        seed: of all its random weights.
    """
    channels, strides = tuple(v.channels for v in levels), tuple(v.stride[0] for v in levels)
    coarser: tuple[int, ...] = ()
    if method in (*BASELINES, STACKED):
        with seeded(seed):
            own = Stacked(channels, width) if method == STACKED else Only(method, channels, width)
        module: FusionModule | Only | Stacked = own
        count = width
    else:
        knobs = {**head_params(method, width), **(params or {})}
        module = fusion.build(method, channels, strides, seed=seed, **knobs)
        count, *coarser = output_channels(module, strides)
    with seeded(seed):
        return Head(module, count, classes, prediction=prediction, width=width, deeper=deeper, coarser=coarser)


@torch.no_grad()
def output_channels(module: FusionModule, strides: Sequence[float]) -> tuple[int, ...]:
    """Return how many real channels a method's outputs have, the fused map first, found on the smallest maps."""
    sides = [max(round(2 * strides[-1] / stride), 1) for stride in strides]
    maps = [torch.zeros(1, c, side, side) for c, side in zip(module.channels, sides, strict=True)]
    outputs = module.eval()(*maps, trace=NullTrace()).maps.values()
    return tuple(m.tensor.shape[1] * (2 if m.tensor.is_complex() else 1) for m in outputs)
