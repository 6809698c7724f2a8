"""What every method shares: taking levels, aligning two of them in the open, handing out a FusionResult.

A method's file then holds its equation and nothing else.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionviz.axes import shape_text
from fusionviz.errors import ParameterError, ShapeError
from fusionviz.records import (
    ANALYTIC,
    AttentionMap,
    FeatureMap,
    FusionResult,
    Preprocessing,
    Provenance,
    RegionMaps,
)
from fusionviz.registry import FusionSpec, Param
from fusionviz.selection import Value
from fusionviz.trace import NullTrace, Trace

WIDTH = Param("width", 64, low=4, high=1024, step=4, refit=True)
RESIZE = Param("resize", "bilinear", choices=("nearest", "bilinear", "transposed"), refit=True)
NORM = Param("norm", "bn", choices=("bn", "none"), refit=True)
ALIGN = (WIDTH, RESIZE, NORM)
"""The knobs of a method that brings two levels to one size and one number of channels."""
ALIGNS = ("none", "size", "size+channels", "project")
"""What is done before two levels meet; "project" is "size+channels" with a projection also where channels agree."""


@dataclass(frozen=True)
class Context:
    """What some methods look at besides maps.

    Attributes:
        picture: the network's input [b 3 h w].
        boxes: of one picture, [n 4], x0 y0 x1 y1 in pixels of the network's input.
        labels: what is in each box, as keys of the scenes' classes; () where nobody said.
        levels: the maps as they came, with the places of their cells; the module itself fills them in.
        ends: positions of the two maps that the board shows as low and high, among those that the method is given.
        preprocessing: how the picture was normalised; None: as the project's own backbones want it.
    """

    picture: Tensor | None = None
    boxes: Tensor | None = None
    labels: tuple[str, ...] = ()
    phrase: str | None = None
    generator: torch.Generator | None = None
    levels: tuple[FeatureMap, ...] = ()
    ends: tuple[int, int] = (0, -1)
    preprocessing: Preprocessing | None = None


@dataclass(frozen=True)
class Fused:
    """What `fuse` hands back: the fused tensor, its weights by name, and the two terms of a sum without a weight.

    Attributes:
        more: further outputs, by name.
        levels: for methods that return a pyramid, one tensor for every level taken; they become outputs p4, p8, ...
        aligned: for methods that align by themselves, the two maps that met at the fused map's places.
        at: position of the level on whose grid the fused map lies; 0 is the finest.
        inset: cells of that grid that convolutions without padding have cut from the top and from the left.
    """

    tensor: Tensor
    attention: tuple[AttentionMap, ...] = ()
    terms: Callable[[], tuple[Tensor, Tensor]] | None = None
    more: dict[str, FeatureMap | RegionMaps] = field(default_factory=dict)
    levels: tuple[Tensor, ...] = ()
    aligned: tuple[Tensor, Tensor] | None = None
    at: int = 0
    inset: int = 0


def resize(tensor: Tensor, size: tuple[int, int], how: str = "bilinear") -> Tensor:
    """Return [b c *size]; always by size, never by factor, so that odd sizes meet."""
    if how == "nearest":
        return F.interpolate(tensor, size=size, mode="nearest")
    return F.interpolate(tensor, size=size, mode="bilinear", align_corners=False)


class TransposedResize(nn.Module):
    """A depthwise transposed convolution that starts as bilinear upsampling and can learn better.

    Kernel 2r (2r - 1 for odd r, so that it has a middle), stride r for a factor r: every output cell hears the
    same weight of inputs, so it draws no checkerboard at the start.
    """

    def __init__(self, channels: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        taps = 2 * factor - factor % 2
        place = (torch.arange(taps) - (taps - 1) / 2) / factor
        tent = (1 - place.abs()).clamp_min(0)
        self.weight = nn.Parameter((tent[:, None] * tent[None, :]).expand(channels, 1, -1, -1).clone())

    def forward(self, tensor: Tensor, size: tuple[int, int]) -> Tensor:
        r = self.factor
        padded = F.pad(tensor, (1, 1, 1, 1), mode="replicate")
        out = F.conv_transpose2d(padded, self.weight, stride=r, groups=tensor.shape[1])
        out = out[..., r + r // 2 :, r + r // 2 :]  # the first cell again starts where the input did
        missing = [max(0, want - have) for want, have in zip(size, out.shape[-2:], strict=True)]
        out = F.pad(out, (0, missing[1], 0, missing[0]), mode="replicate") if any(missing) else out
        return out[..., : size[0], : size[1]]


class Alignment(nn.Module):
    """Bring two levels together in steps that can be seen: 1x1 projection, normalisation, resize.

    Only what is needed is there: channels that agree are not projected, sizes that agree not resized, so
    two maps that already match pass as they are and there is nothing to learn.
    """

    def __init__(
        self,
        channels: tuple[int, int],
        strides: tuple[float, float],
        align: str,
        *,
        width: int = 64,
        resize: str = "bilinear",
        norm: str = "bn",
    ) -> None:
        super().__init__()
        projects = align == "project" or (align == "size+channels" and channels[0] != channels[1])
        self.channels = (width, width) if projects else channels
        self.align, self.how = align, resize
        for name, c in zip(("low", "high"), channels, strict=True):
            setattr(self, f"{name}_project", nn.Conv2d(c, width, 1, bias=norm == "none") if projects else None)
            setattr(self, f"{name}_norm", nn.BatchNorm2d(width) if projects and norm == "bn" else None)
        factor = round(strides[1] / strides[0])
        learns = resize == "transposed" and align != "none" and factor > 1
        self.up = TransposedResize(self.channels[1], factor) if learns else None

    def forward(self, low: Tensor, high: Tensor, trace: NullTrace) -> tuple[Tensor, Tensor]:
        size = tuple(low.shape[-2:])
        x, y = self.projected(low, high, trace)
        if tuple(high.shape[-2:]) != size:
            if self.align == "none":
                raise ShapeError(
                    "shape.align_none",
                    low=shape_text(tuple(low.shape[1:])),
                    high=shape_text(tuple(high.shape[1:])),
                )
            how = (
                "bilinear" if self.how == "transposed" and self.up is None else self.how
            )  # nothing to learn at factor 1
            enlarge = (lambda t: self.up(t, size)) if self.up else (lambda t: resize(t, size, how))
            op = "resize_" + how
            y = trace.step("high_resize", op, enlarge, y, formula=r"Y", role="high", module=self.up)  # [b width h w]
        return x, y

    def projected(self, low: Tensor, high: Tensor, trace: NullTrace) -> tuple[Tensor, Tensor]:
        """Return both levels with one number of channels, [b width h w] and [b width h' w'], each at its own size."""
        return self._project("low", low, "X", trace), self._project("high", high, "Y", trace)

    def _project(self, name: str, tensor: Tensor, letter: str, trace: NullTrace) -> Tensor:
        for op in ("project", "norm"):
            module = getattr(self, f"{name}_{op}")
            if module is not None:
                formula = rf"W_{{{letter}}}\,{letter}" if op == "project" else rf"\mathrm{{BN}}({letter})"
                tensor = trace.step(f"{name}_{op}", op, module, tensor, formula=formula, role=name)
        return tensor


class FusionModule(nn.Module):
    """A method that takes levels and returns a FusionResult. Subclasses write `setup` and `fuse`.

    Nothing a forward pass computes is kept on the module: one copy serves every session at once.
    """

    spec: ClassVar[FusionSpec]
    by_hand: ClassVar[tuple[str, ...]] = ()
    """Parameters that a knob sets to a meaningful value, so that they are not random numbers."""
    weight_knobs: ClassVar[tuple[str, ...]] = ()
    """Knobs that set the weight, or its mean: turned by hand, they leave a fit to the picture nothing to choose."""
    pools_to_one: ClassVar[bool] = False
    """True where a batch norm stands behind global pooling: it cannot be trained with a batch of one."""
    inputs: ClassVar[tuple[str, int]] = ("C", 1)
    """What formulas call several maps: the letter, and the number of the first."""

    def __init__(
        self,
        channels: tuple[int, ...],
        strides: tuple[float, ...] | None = None,
        *,
        align: str | None = None,
        seed: int = 0,
        **params: object,
    ) -> None:
        super().__init__()
        self.channels = tuple(channels)
        octave = 1 if self.spec.takes == "branches" else 2  # branches stand on one grid
        self.strides = tuple(strides) if strides else tuple(4.0 * octave**i for i in range(len(channels)))
        self.seed, self.params = seed, params
        self.trained: Provenance | None = None
        if len(self.strides) != len(self.channels):
            raise ShapeError(
                "shape.strides", method=self.spec.key, channels=len(self.channels), strides=len(self.strides)
            )
        self._check_count(len(self.channels))
        self.align = self.spec.align if align is None else align
        if self.align not in ALIGNS:
            raise ParameterError(
                "param.value", method=self.spec.key, param="align", received=align, allowed=", ".join(ALIGNS)
            )
        self.alignment: Alignment | None = None
        if self.spec.takes == "pair" and self.spec.align != "none":  # such a method brings the two together itself
            keep = {k: params[k] for k in ("width", "resize", "norm") if k in params}
            self.alignment = Alignment(self.channels, self.strides, self.align, **keep)
            if self.spec.align == "size+channels" and self.alignment.channels[0] != self.alignment.channels[1]:
                raise ShapeError(
                    "shape.channels_differ",
                    method=self.spec.key,
                    low=self.alignment.channels[0],
                    high=self.alignment.channels[1],
                )
        self.setup(**{k: v for k, v in params.items() if k not in ("width", "resize", "norm") or not self.alignment})

    def setup(self, **params: object) -> None:
        """Build what the equation needs; `self.alignment.channels` are the channels that will meet."""

    def fuse(self, *maps: Tensor, context: Context, trace: NullTrace) -> Fused:
        """Return the equation's result for aligned maps."""
        raise NotImplementedError(type(self).__name__)

    @classmethod
    def trained_knobs(cls, state: Mapping[str, Tensor]) -> dict[str, Value]:
        """Return the knobs whose values were trained, so that a page shows them where they really stand.

        Args:
            state: the method's trained numbers by name.
        """
        return {}

    @property
    def provenance(self) -> Provenance:
        """Where this module's numbers come from: trained if so loaded, analytic without any, else random."""
        if self.trained is not None:
            return self.trained
        known = (*self.by_hand, "alignment.up.weight")  # a transposed resize starts as bilinear, not at random
        learned = [name for name, _ in self.named_parameters() if name not in known]
        return Provenance("random", f"seed {self.seed}") if learned else ANALYTIC

    def forward(
        self,
        *levels: FeatureMap | Tensor,
        context: Context | None = None,
        trace: NullTrace | None = None,
    ) -> FusionResult:
        trace = Trace() if trace is None else trace
        maps = self._take(levels)
        context = replace(context or Context(), levels=tuple(maps))
        tensors = self._inputs(maps, trace, context.ends)
        met = None
        if self.alignment is not None:
            tensors = met = self.alignment(*tensors, trace)
        fused = self.fuse(*tensors, context=context, trace=trace)
        grid = self._grid(maps[fused.at], fused.inset)
        met = fused.aligned if met is None else met
        aligned = met and tuple(
            FeatureMap(name, t, grid.stride, grid.offset, m.stage)
            for name, t, m in zip(("low", "high"), met, (grid, maps[-1]), strict=True)
        )
        outputs = {"fused": FeatureMap("fused", fused.tensor, grid.stride, grid.offset, grid.stage), **fused.more}
        outputs |= self._pyramid(fused.levels, maps)
        attention = {a.name: self._place(a, (grid, *maps)) for a in fused.attention}
        return FusionResult(outputs, attention, trace.steps, aligned, fused.terms, self.provenance)

    def _check_count(self, count: int) -> None:
        want = {"one": (1, 1), "pair": (2, 2), "pyramid": (2, 99), "branches": (2, 99)}.get(self.spec.takes, (1, 99))
        if not want[0] <= count <= want[1]:
            code = "shape.count_exactly" if want[0] == want[1] else "shape.count"
            raise ShapeError(code, method=self.spec.key, expected=want[0], received=count)

    def _take(self, levels: tuple[FeatureMap | Tensor, ...]) -> list[FeatureMap]:
        self._check_count(len(levels))
        maps = []
        for i, level in enumerate(levels):
            if not isinstance(level, FeatureMap):
                stride = self.strides[min(i, len(self.strides) - 1)]  # one level too many is reported below
                level = FeatureMap(f"s{stride:g}", level, (stride, stride), (stride / 2, stride / 2), i + 1)
            maps.append(level)
        if tuple(m.channels for m in maps) != self.channels:
            raise ShapeError(
                "shape.levels",
                method=self.spec.key,
                expected=", ".join(map(str, self.channels)),
                received=", ".join(str(m.channels) for m in maps),
            )
        if self.spec.takes == "branches" and len({m.size for m in maps}) > 1:
            received = ", ".join(shape_text(m.size) for m in maps)
            raise ShapeError("shape.one_size", method=self.spec.key, received=received)
        if self.training and self.pools_to_one and maps[0].tensor.shape[0] == 1:
            raise ShapeError("shape.batch_of_one", method=self.spec.key)
        return maps

    def _inputs(self, maps: list[FeatureMap], trace: NullTrace, ends: tuple[int, int]) -> list[Tensor]:
        if self.spec.takes == "pair":
            # A tensor given twice still is two inputs: the trace tells steps apart by their tensor.
            low, high = maps[0].tensor, maps[1].tensor
            high = high.view_as(high) if high is low else high
            return [
                trace.input("low", low, formula="X", role="low"),
                trace.input("high", high, formula="Y", role="high"),
            ]
        letter, first = self.inputs
        roles = dict(zip((i % len(maps) for i in ends), ("low", "high"), strict=True))
        return [
            # Its own view, as above.
            trace.input(
                f"{letter.lower()}{i + first}",
                m.tensor.view_as(m.tensor),
                formula=f"{letter}_{{{i + first}}}",
                role=roles.get(i, ""),
            )
            for i, m in enumerate(maps)
        ]

    @staticmethod
    def _grid(level: FeatureMap, inset: int) -> FeatureMap:
        """The level on whose places the fused map lies, its first cell moved by what was cut off."""
        moved = tuple(o + inset * s for o, s in zip(level.offset, level.stride, strict=True))
        return replace(level, offset=moved) if inset else level

    @staticmethod
    def _pyramid(tensors: tuple[Tensor, ...], maps: list[FeatureMap]) -> dict[str, FeatureMap]:
        """One output for every level taken, named after it: s4 gives p4, d3 gives p3."""
        names = [f"p{m.name[1:]}" for m in maps]
        if len(set(names)) < len(names):  # bare tensors of one stride are called by position
            names = [f"p{i + 1}" for i in range(len(maps))]
        return {
            name: FeatureMap(name, t, m.stride, m.offset, m.stage)
            for name, t, m in zip(names, tensors, maps, strict=False)
        }

    @staticmethod
    def _place(attention: AttentionMap, grids: tuple[FeatureMap, ...]) -> AttentionMap:
        """A weight with places lies on the fused map's grid, or on that of the level whose size it has."""
        if "h" not in attention.axes.split() or attention.stride is not None:
            return attention
        grid = next((g for g in grids if g.size == tuple(attention.tensor.shape[-2:])), grids[0])
        return replace(attention, stride=grid.stride, offset=grid.offset)
