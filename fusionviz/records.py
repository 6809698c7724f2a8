"""The central types: what rooms hand to each other. Frozen, checked on construction; nothing here draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fusionviz.axes import expect, shape_text
from fusionviz.errors import LevelError, ShapeError

# --- where learned numbers come from -------------------------------------------------------------
_RANK = {"analytic": 0, "bundled": 1, "pretrained": 1, "fitted_scenes": 2, "fitted": 2, "random": 3}


@dataclass(frozen=True)
class Provenance:
    """Where learned numbers come from; stands beside every picture that depends on them.

    Attributes:
        kind: "analytic" (no learned numbers) | "bundled" (trained by this project) | "pretrained" |
            "fitted_scenes" (on this machine, to drawn scenes) | "fitted" (to one picture) | "random".
        detail: the weights' name, how it was fitted, or the seed.
    """

    kind: str
    detail: str = ""

    def __post_init__(self) -> None:
        if self.kind not in _RANK:
            raise ValueError(f"provenance is one of {', '.join(_RANK)}, not {self.kind!r}")

    def __or__(self, other: Provenance) -> Provenance:
        """Return the weaker of two: what is fused from random numbers is random."""
        return max(self, other, key=lambda p: _RANK[p.kind])


ANALYTIC = Provenance("analytic")


# --- maps ----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class FeatureMap:
    """One level of features.

    Attributes:
        name: "s4" by stride, "d3" by depth, or an output's name such as "fused".
        tensor: [b c h w], real or complex.
        stride: (y, x) distance of neighbouring cells in pixels of the network's input.
        offset: (y, x) centre of cell (0, 0) in pixels of the network's input, where pixel i spans [i, i + 1).
            A 3x3 convolution of stride 2 and padding 1 has its first centre at 0.5; a 16-pixel patch at 8.
        stage: position in the network, counted from 1; strictly increases along a pyramid.
    """

    name: str
    tensor: Tensor
    stride: tuple[float, float]
    offset: tuple[float, float]
    stage: int = 0

    def __post_init__(self) -> None:
        expect(self.tensor, "b c h w", of=f"map '{self.name}'")
        if not (self.tensor.is_floating_point() or self.tensor.is_complex()):
            raise TypeError(f"map '{self.name}' must be real or complex floating point, not {self.tensor.dtype}")
        if min(self.stride) <= 0:
            raise ValueError(f"map '{self.name}' has stride {self.stride}; strides are positive")

    @property
    def channels(self) -> int:
        return self.tensor.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        """(h, w)."""
        return tuple(self.tensor.shape[-2:])

    @property
    def shape_text(self) -> str:
        """`64 × 56 × 56`."""
        return shape_text(tuple(self.tensor.shape[1:]))

    def cell_at(self, y_px: float, x_px: float) -> tuple[int, int]:
        """Return the (row, column) of the cell whose centre is nearest to a place of the input."""
        return tuple(
            min(max(round((p - o) / s), 0), n - 1)
            for p, o, s, n in zip((y_px, x_px), self.offset, self.stride, self.size, strict=True)
        )


@dataclass(frozen=True)
class RegionMaps:
    """What a method made of boxes in one picture: for each of them a map of its own, all of one size.

    Attributes:
        name: of the output, "regions".
        tensor: [n c h w], h x w cells spread evenly over each box.
        boxes: [n 4], x0 y0 x1 y1 in pixels of the network's input.
        labels: what is in each box, as keys of the scenes' classes; () where nobody said.
    """

    name: str
    tensor: Tensor
    boxes: Tensor
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        count = expect(self.tensor, "n c h w", of=f"regions '{self.name}'").shape[0]
        expect(self.boxes, "n 4", of=f"boxes of '{self.name}'", n=count)
        if self.labels and len(self.labels) != count:
            raise ValueError(f"regions '{self.name}' have {len(self.labels)} labels for {count} boxes")

    @property
    def shape_text(self) -> str:
        """`5 × 512 × 7 × 7`."""
        return shape_text(tuple(self.tensor.shape))


@dataclass(frozen=True)
class FeaturePyramid:
    """A backbone's levels, fine to coarse; called by name ("s4"), or by position (0, -1)."""

    levels: tuple[FeatureMap, ...]
    source: str
    provenance: Provenance

    def __post_init__(self) -> None:
        for a, b in zip(self.levels, self.levels[1:], strict=False):
            if b.stage <= a.stage or any(q < p for p, q in zip(a.stride, b.stride, strict=True)):
                raise ValueError(
                    f"{self.source}: levels run from fine to coarse, but {a.name} (stage {a.stage}, stride {a.stride}) "
                    f"stands before {b.name} (stage {b.stage}, stride {b.stride})"
                )

    def __getitem__(self, name: str | int) -> FeatureMap:
        return self.levels[self.position(name)]

    def __iter__(self) -> Iterator[FeatureMap]:
        return iter(self.levels)

    def __len__(self) -> int:
        return len(self.levels)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(level.name for level in self.levels)

    def position(self, name: str | int) -> int:
        """Return the position of a level; raises LevelError with the levels there are."""
        if isinstance(name, int) and -len(self) <= name < len(self):
            return name % len(self)
        if name in self.names:
            return self.names.index(name)
        raise LevelError("level.unknown", level=name, backbone=self.source, levels=", ".join(self.names))


@dataclass(frozen=True)
class LevelInfo:
    """What is known of a level before any picture is seen: a FeatureMap without its tensor.

    Attributes:
        node: of the network's graph, whose tensor it is.
        way: of an inner site's map, how it was made of what the site is given: "3x3" (the cells of that map which one
            cell hears), "pool", "same" (as it was); else "".
    """

    name: str
    channels: int
    stride: tuple[float, float]
    offset: tuple[float, float]
    stage: int
    node: str = ""
    way: str = ""


SITES = ("skip", "branches", "dense")


@dataclass(frozen=True)
class Site:
    """A place inside a network where it fuses maps by itself.

    Attributes:
        name: "skip:layer3.1" (a residual block adds what it was given), "branches:inception3a" (a layer stacks what
            parallel branches made of one map), "dense:features.denseblock2.denselayer6" (a layer stacks all earlier
            maps of its block): the kind, and the path of the module that does it. Where a module does it more than
            once, the count follows: "skip:encoder.layers.encoder_layer_3:2".
        operands: the maps that meet, all on one grid: "identity" and "residual", "b1" ... "b4", or "x0", "x1", ...
        node: of the network's graph, whose tensor is what the network makes of them.
    """

    name: str
    operands: tuple[LevelInfo, ...]
    node: str = ""

    @property
    def kind(self) -> str:
        """One of SITES."""
        return self.name.partition(":")[0]

    @property
    def block(self) -> str:
        """The path of the module, and its count: "layer3.1"."""
        return self.name.partition(":")[2]


@dataclass(frozen=True)
class Preprocessing:
    """How a network wants its input: resize the short side, crop a square, scale, normalise.

    Attributes:
        resize_px: the short side after resizing.
        crop_px: the side of the square that the network sees.
        mean, std: per channel of an RGB picture in [0, 1].
        interpolation: "bilinear" | "bicubic" | "nearest".
        fixed: the network takes no other size than crop_px.
        multiple: other sizes must be a multiple of this many pixels.
    """

    resize_px: int
    crop_px: int
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"
    fixed: bool = False
    multiple: int = 1
    minimum_px: int = 32


# --- attention -----------------------------------------------------------------------------------
KINDS = ("gate", "softmax", "normalised", "affine", "place", "share")


@dataclass(frozen=True)
class Tokens:
    """A block of tokens in a row of attention: the places of one level, row by row.

    Attributes:
        level: whose places they are: "low" or "high".
        size: (h, w) of the block, h * w tokens.
        stride, offset: the place of its cells, as in FeatureMap.
    """

    level: str
    size: tuple[int, int]
    stride: tuple[float, float]
    offset: tuple[float, float]

    @property
    def count(self) -> int:
        return self.size[0] * self.size[1]


@dataclass(frozen=True)
class AttentionMap:
    """A weight that a method computed and used; returned, never stored on a module.

    Attributes:
        name: unique within a result; "low" is the weight that the low level gets.
        tensor: the weight itself, shaped as `axes` says.
        axes: "b c 1 1" per channel, "b 1 h w" per place, "b c h w" per element, "b n 1 1 1" per branch,
            "b n c 1 1", "b n h w", "b head q k", "b t h w".
        kind: "gate" (each in [0, 1]) | "softmax" (sums to 1) | "normalised" | "affine" | "place" | "share".
        role: key of its title in the locale, `attention.<role>`: "weight", "channel_gate", "place_gate", ...
        of: whose weight it is: "low", "high", "sum", "concat", or a branch's name.
        sums: what it sums to over what, as a key of the locale: "with_high" (low + high = 1), "branches", "none".
        stride, offset: the place of its cells, as in FeatureMap, where it has places.
        minimum, maximum: the bounds it cannot leave.
        queries, keys: of "b head q k", the blocks of tokens that stand behind each other along q and along k.
    """

    name: str
    tensor: Tensor
    axes: str
    kind: str
    role: str = "weight"
    of: str = "low"
    sums: str = "none"
    stride: tuple[float, float] | None = None
    offset: tuple[float, float] | None = None
    minimum: float = 0.0
    maximum: float = 1.0
    queries: tuple[Tokens, ...] = ()
    keys: tuple[Tokens, ...] = ()

    def __post_init__(self) -> None:
        expect(self.tensor, self.axes, of=f"attention '{self.name}'")
        if self.kind not in KINDS:
            raise ValueError(f"attention '{self.name}' is one of {', '.join(KINDS)}, not {self.kind!r}")
        if self.queries or self.keys:
            counts = tuple(sum(block.count for block in blocks) for blocks in (self.queries, self.keys))
            if counts != tuple(self.tensor.shape[-2:]):
                raise ValueError(f"attention '{self.name}' has blocks of {counts} tokens for {self.tensor.shape[-2:]}")

    @property
    def grain(self) -> str:
        """ "channel" | "place" | "element" | "branch" | "pairs" | "time": what one number of it belongs to."""
        return {
            "b c 1 1": "channel",
            "b 1 h w": "place",
            "b c h w": "element",
            "b n 1 1 1": "branch",
            "b n c 1 1": "channel",
            "b n h w": "place",
            "b head q k": "pairs",
            "b t h w": "time",
        }[self.axes]

    def check(self, tolerance: float = 1e-4) -> None:
        """Raise if the law of its kind is broken; costs a pass over the data, so tests call it, not every run."""
        value = self.tensor.detach()
        if self.kind in ("gate", "softmax", "share", "normalised") and not (
            bool((value >= self.minimum - tolerance).all()) and bool((value <= self.maximum + tolerance).all())
        ):
            raise ShapeError(
                "attention.range",
                name=self.name,
                low=self.minimum,
                high=self.maximum,
                received=f"{float(value.min()):.4g} … {float(value.max()):.4g}",
            )
        if self.kind == "softmax":
            names = self.axes.split()
            over = ("h", "w") if "t" in names else ("k",) if "k" in names else ("n",)  # a step of time looks at places
            total = value.sum([names.index(name) for name in over])
            if not torch.allclose(total, torch.ones_like(total), atol=tolerance):
                raise ShapeError(
                    "attention.sum", name=self.name, received=f"{float(total.min()):.4g} … {float(total.max()):.4g}"
                )


# --- the trace -----------------------------------------------------------------------------------
@dataclass(frozen=True)
class TraceStep:
    """One step of a method, as the flow draws it and the arithmetic inspector reads it.

    Attributes:
        key: unique within the trace.
        op: the kind of step, key of its title in the locale (`steps.<op>`).
        inputs: keys of earlier steps.
        tensor: what came out.
        formula: TeX, for example "M(X+Y)".
        role: "low" | "high" | "weight" | "fused" | "": whose colour it has.
        parameters: learned numbers of this step.
        macs: multiply-accumulates of this step, when costs were asked for; else None.
        ms: milliseconds of this step, when a profile was asked for; else None.
    """

    key: str
    op: str
    inputs: tuple[str, ...]
    tensor: Tensor
    formula: str = ""
    role: str = ""
    parameters: int = 0
    macs: int | None = None
    ms: float | None = None


# --- what whole networks give --------------------------------------------------------------------
@dataclass(frozen=True)
class Detections:
    """Things that a detector found in one picture, the surest first.

    Attributes:
        boxes: [n 4] x0 y0 x1 y1 in pixels of the network's input.
        scores: [n] in [0, 1].
        labels: [n] positions in `classes`.
        level: [n] positions in `levels`: whose prediction each is.
        classes: keys of the kinds of things.
        levels: names of the levels that predict, fine to coarse.
    """

    name: str
    boxes: Tensor
    scores: Tensor
    labels: Tensor
    level: Tensor
    classes: tuple[str, ...]
    levels: tuple[str, ...]

    def __post_init__(self) -> None:
        expect(self.boxes, "n 4", of=f"boxes of '{self.name}'")
        for told in ("scores", "labels", "level"):
            expect(getattr(self, told), "n", of=f"{told} of '{self.name}'", n=len(self.boxes))

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass(frozen=True)
class GlimpsePath:
    """Where a network looked in one picture, one glimpse after the other, and what it saw and thought there.

    Attributes:
        places: [t 2] (y, x) of each glimpse's middle in pixels of the network's input.
        sides: of the square windows around a place in pixels, small to large.
        patches: [t k c g g] what was seen in each window, in [0, 1], all resized to g cells.
        scores: [t classes] probabilities after each glimpse.
        classes: keys of the classes.
    """

    name: str
    places: Tensor
    sides: tuple[float, ...]
    patches: Tensor
    scores: Tensor
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        expect(self.places, "t 2", of=f"places of '{self.name}'")
        count = len(self.places)
        expect(self.patches, "t k c g g", of=f"patches of '{self.name}'", t=count, k=len(self.sides))
        expect(self.scores, "t n", of=f"scores of '{self.name}'", t=count, n=len(self.classes))

    def __len__(self) -> int:
        return len(self.places)


@dataclass(frozen=True)
class Words:
    """What a network says about one picture, one word after the other.

    Attributes:
        words: as said, the end not counted; attention over time has one row for each.
        probabilities: [t] of each word when it was said.
        places: [t 2] (y, x) in pixels of the network's input where it looked for each word, if it looked at one place
            (hard attention); else None.
    """

    name: str
    words: tuple[str, ...]
    probabilities: Tensor
    places: Tensor | None = None

    def __post_init__(self) -> None:
        expect(self.probabilities, "t", of=f"probabilities of '{self.name}'", t=len(self.words))
        if self.places is not None:
            expect(self.places, "t 2", of=f"places of '{self.name}'", t=len(self.words))


@dataclass(frozen=True)
class Logits:
    """Numbers for classes, before a softmax or sigmoid.

    Attributes:
        values: [n].
        classes: their keys or names.
    """

    name: str
    values: Tensor
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        expect(self.values, "n", of=f"logits '{self.name}'", n=len(self.classes))


@dataclass(frozen=True)
class ClassMap:
    """Which class every place of a picture was given.

    Attributes:
        tensor: positions in `classes`, [h w].
        classes: their keys or names, the background first.
        stride, offset: the place of its cells, as in FeatureMap.
    """

    name: str
    tensor: Tensor
    classes: tuple[str, ...]
    stride: tuple[float, float]
    offset: tuple[float, float]

    def __post_init__(self) -> None:
        expect(self.tensor, "h w", of=f"classes '{self.name}'")


Output = FeatureMap | RegionMaps | Detections | GlimpsePath | Words | Logits | ClassMap


# --- results -------------------------------------------------------------------------------------
@dataclass(frozen=True)
class FusionResult:
    """What a method made of the maps it was given.

    Attributes:
        outputs: by name; "fused" is the one that the board shows, "regions" what came of boxes.
        attention: by name; the panel shows the first unless another is chosen.
        trace: every step, inputs before outputs; the last step of role "fused" made outputs["fused"].
        aligned: (x, y), the two maps that met, after alignment; None for methods without such a pair.
        terms: a function that gives (term of low, term of high) whose norms are the share of low; for
            methods without a weight between the levels.
        provenance: of the method's own learned numbers.
    """

    outputs: Mapping[str, Output]
    attention: Mapping[str, AttentionMap] = field(default_factory=dict)
    trace: tuple[TraceStep, ...] = ()
    aligned: tuple[FeatureMap, FeatureMap] | None = None
    terms: Callable[[], tuple[Tensor, Tensor]] | None = None
    provenance: Provenance = ANALYTIC

    @property
    def fused(self) -> FeatureMap:
        return self.outputs["fused"]

    @property
    def maps(self) -> dict[str, FeatureMap]:
        """The outputs that lie on the picture's grid, by name, the fused one first; without regions."""
        return {name: out for name, out in self.outputs.items() if isinstance(out, FeatureMap)}

    @torch.no_grad()  # a measurement; and terms of a study cannot be tracked, as they were made in inference mode
    def share_of_low(self) -> AttentionMap | None:
        """Return the share of low, |low term| / (|low term| + |high term|) per place, or None without terms.

        A contribution, not attention: it is measured on the result, it decided nothing.
        """
        if self.terms is None:
            return None
        low, high = (torch.linalg.vector_norm(t, dim=1, keepdim=True) for t in self.terms())
        share = low / (low + high).clamp_min(torch.finfo(low.dtype).tiny)
        share = torch.where(low + high > 0, share, torch.full_like(share, 0.5))
        fused = self.fused
        return AttentionMap("share", share, "b 1 h w", "share", "share", "low", "with_high", fused.stride, fused.offset)
