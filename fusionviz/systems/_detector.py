"""What the detectors share: default boxes of twice a level's stride, a small reader, predictions merged at the end.

A detector's file says what its readers are given, and which reader a level has: there they differ, and nowhere else,
so that a comparison of them compares that. All have one hidden layer between the frozen levels and a prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionviz import scenes
from fusionviz.axes import expect
from fusionviz.fusion import Context
from fusionviz.records import Detections, FeatureMap, FusionResult
from fusionviz.registry import Param
from fusionviz.systems._base import System
from fusionviz.systems._boxes import as_rows, box_shapes, candidates, decoded, default_boxes, objectness, suppressed
from fusionviz.trace import NullTrace

CLASSES = scenes.CLASSES
WIDTH = 48
"""Channels of a reader's hidden layer, and of FPN's levels."""
RATIOS = (2.0,)
"""Of default boxes: squares, and boxes twice as wide as high, or as high as wide."""
SIDES = 2.0
"""Side of a level's smallest square in strides of the level: 8 pixels at s4, 64 at s32."""
LEVELS = ("s4", "s8", "s16", "s32")
KNOBS = (
    *(Param(name, True) for name in LEVELS),
    Param("score", 0.5, low=0.01, high=0.99, step=0.01),
    Param("nms", 0.45, low=0.05, high=0.95, step=0.05),
)


class Reader(nn.Module):
    """Reads a level: a 3x3 convolution with ReLU, then class scores and box codes of every default box, 1x1 each."""

    def __init__(self, channels: int, shapes: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Conv2d(channels, WIDTH, 3, padding=1), nn.ReLU())
        self.classes = nn.Conv2d(WIDTH, shapes * len(CLASSES), 1)
        self.codes = nn.Conv2d(WIDTH, shapes * 4, 1)
        nn.init.xavier_uniform_(self.hidden[0].weight)
        for last in (self.classes, self.codes):  # nothing is known, nothing moved: whatever the features' scale is
            nn.init.normal_(last.weight, std=0.01)
        for conv in (self.hidden[0], self.classes, self.codes):
            nn.init.zeros_(conv.bias)


@dataclass(frozen=True)
class Reading:
    """What one level predicts.

    Attributes:
        level: whose prediction: its place and size are those of its cells; the tensor is what was read.
        classes: scores [b n*classes h w]; codes: [b n*4 h w], for n default boxes at each cell.
    """

    level: FeatureMap
    classes: Tensor
    codes: Tensor

    def rows(self) -> tuple[Tensor, Tensor]:
        """Return scores [b h*w*n classes] and codes [b h*w*n 4], one row for each default box."""
        return as_rows(self.classes, len(CLASSES)), as_rows(self.codes, 4)


class Detector(System):
    """Boxes from every level of a frozen backbone, merged at the end. Subclasses write `build` and `features`."""

    takes_levels: ClassVar[tuple[str, ...]] = LEVELS
    owned: ClassVar[bool] = False
    """Whether a thing belongs to one level by its size, or to every level whose default boxes fit it."""
    alpha: ClassVar[tuple[float, ...]] = ()
    """Weight of each level's own loss; () where all default boxes have one loss together."""

    def setup(self, *, score: float, nms: float, **knobs: bool) -> None:
        self.score, self.overlap = score, nms
        self.used = tuple(knobs.pop(name) for name in LEVELS)
        sides = [SIDES * info.stride[0] for info in self.infos]
        self.shapes = tuple(box_shapes(a, b, RATIOS) for a, b in zip(sides, [*sides[1:], 2 * sides[-1]], strict=True))
        self.readers = nn.ModuleDict()
        self.build(**knobs)

    def build(self, **knobs: object) -> None:
        """Build what it learns: `self.readers`, and what the levels go through before."""
        raise NotImplementedError(type(self).__name__)

    def features(self, levels: tuple[FeatureMap, ...], trace: NullTrace) -> tuple[FeatureMap, ...]:
        """Return what the readers read, one map for each level, named after it."""
        raise NotImplementedError(type(self).__name__)

    def reader(self, name: str) -> Reader:
        """The reader of a level; all levels may have the same one."""
        return self.readers[name]

    def read(self, levels: tuple[FeatureMap, ...], trace: NullTrace) -> tuple[Reading, ...]:
        """Return what each level predicts, fine to coarse."""
        return tuple(self._read(i, level, trace) for i, level in enumerate(self.features(levels, trace), start=1))

    def defaults(self, readings: Sequence[Reading], picture: tuple[int, int]) -> tuple[Tensor, ...]:
        """Return the default boxes [n 4] of each level in pixels."""
        by_name = dict(zip(LEVELS, self.shapes, strict=True))
        return tuple(default_boxes(r.level, by_name[r.level.name], picture) for r in readings)

    def claims(self, readings: Sequence[Reading], picture: tuple[int, int], score: float | None = None) -> list[Tensor]:
        """Return for each picture of a batch what is claimed before suppression, see `candidates`.

        Args:
            score: the least probability; None is the knob's.
        """
        classes, codes = self._stacked(readings)
        boxes = decoded(codes, self._rows(self.defaults(readings, picture), readings), picture)
        level, sure = self._rows(self._numbers(readings), readings), F.softmax(classes, -1)
        least = self.score if score is None else score
        return [candidates(b, p, level, least) for b, p in zip(boxes, sure, strict=True)]

    def see(
        self, picture: Tensor, levels: tuple[FeatureMap, ...], *, context: Context, trace: NullTrace
    ) -> FusionResult:
        expect(picture, "1 3 h w", of="picture")
        size, readings = tuple(picture.shape[-2:]), self.read(levels, trace)
        on = {r.level.name: i for i, r in enumerate(readings, start=1) if self.used[LEVELS.index(r.level.name)]}
        heard = ";\\,".join(f"S_{{{i}}}" for i in on.values()) or "S"
        scores = trace.step(
            "scores",
            "rows",
            lambda *t: self._merged(readings, t, len(CLASSES)),
            *(r.classes for r in readings),
            formula=f"[{heard}]",
        )  # [1 n classes]
        sure = trace.step("sure", "softmax", lambda s: F.softmax(s, -1), scores, formula=r"\mathrm{softmax}(S)")
        codes = trace.step(
            "codes",
            "rows",
            lambda *t: self._merged(readings, t, 4),
            *(r.codes for r in readings),
            formula=f"[{heard.replace('S', 'T')}]",
        )  # [1 n 4]
        defaults = self._rows(self.defaults(readings, size), readings)
        boxes = trace.step("boxes", "decode", lambda c: decoded(c, defaults, size), codes, formula="B")  # [1 n 4]
        level = self._rows(self._numbers(readings), readings)
        kept = trace.step(
            "kept",
            "suppress",
            lambda b, p: suppressed(candidates(b[0], p[0], level, self.score), self.overlap),
            boxes,
            sure,
            formula=r"\mathrm{NMS}(B)",
        )  # [m 7]
        outputs: dict = {
            "detections": Detections(
                "detections", kept[:, :4], kept[:, 4], kept[:, 5].long(), kept[:, 6].long(), CLASSES, LEVELS
            )
        }
        for r in readings:
            name = f"o{r.level.name[1:]}"
            anything = trace.step(
                f"objectness_{r.level.name}",
                "objectness",
                lambda s: objectness(s, len(CLASSES)),
                r.classes,
                formula=r"1-\min\,p_{0}",
            )  # [1 1 h w]
            outputs[name] = replace(r.level, name=name, tensor=anything)
        outputs |= self.more(readings)
        return FusionResult(outputs, trace=trace.steps, provenance=self.provenance)

    def more(self, readings: Sequence[Reading]) -> dict[str, FeatureMap]:
        """Return further outputs by name."""
        return {}

    def _read(self, i: int, level: FeatureMap, trace: NullTrace) -> Reading:
        name, reader = level.name, self.reader(level.name)
        hidden = trace.step(f"hidden_{name}", "hidden", reader.hidden, level.tensor, formula=rf"H_{{{i}}}")
        classes = trace.step(f"classes_{name}", "classes", reader.classes, hidden, formula=rf"S_{{{i}}}")
        codes = trace.step(f"codes_{name}", "codes", reader.codes, hidden, formula=rf"T_{{{i}}}")
        return Reading(level, classes, codes)

    def _merged(self, readings: Sequence[Reading], tensors: Sequence[Tensor], columns: int) -> Tensor:
        return self._rows([as_rows(t, columns) for t in tensors], readings, 1)

    def _stacked(self, readings: Sequence[Reading]) -> tuple[Tensor, Tensor]:
        return tuple(self._rows(parts, readings, 1) for parts in zip(*(r.rows() for r in readings), strict=True))

    def _numbers(self, readings: Sequence[Reading]) -> list[Tensor]:
        """Of every row, the position of its level."""
        n = len(self.shapes[0])
        return [
            torch.full((n * r.level.size[0] * r.level.size[1],), LEVELS.index(r.level.name), device=r.codes.device)
            for r in readings
        ]

    def _rows(self, parts: Sequence[Tensor], readings: Sequence[Reading], dim: int = 0) -> Tensor:
        """The rows of the levels that are on, behind each other; none where all are off."""
        used = [p for p, r in zip(parts, readings, strict=True) if self.used[LEVELS.index(r.level.name)]]
        return torch.cat(used, dim) if used else parts[0].narrow(dim, 0, 0)


def inputs(levels: tuple[FeatureMap, ...], trace: NullTrace) -> list[FeatureMap]:
    """Return the backbone's levels as the trace's inputs C_1 ... C_n."""
    last = len(levels)
    return [
        replace(
            level,
            tensor=trace.input(
                f"c{i}",
                level.tensor.view_as(level.tensor),  # its own view: the trace tells steps apart by their tensor
                formula=f"C_{{{i}}}",
                role={1: "low", last: "high"}.get(i, ""),
            ),
        )
        for i, level in enumerate(levels, start=1)
    ]
