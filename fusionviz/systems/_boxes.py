"""Default boxes, and the torchvision parts that every detector here shares: box code, matcher, suppression."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection._utils import BoxCoder, SSDMatcher
from torchvision.ops import batched_nms, clip_boxes_to_image
from torchvision.ops.poolers import LevelMapper

from fusionviz.records import FeatureMap

CODER = BoxCoder(weights=(10.0, 10.0, 5.0, 5.0))
"""SSD's: middles in tenths of the default box, sides as five times the logarithm of how much larger they are."""
MATCHER = SSDMatcher(0.5)
"""A default box is of the thing that it covers with an IoU of at least 0.5; each thing has its best box in any case."""

CANDIDATES, KEPT = 400, 100
"""The most boxes of a picture that go into the suppression, and that come out of it."""


def box_shapes(side: float, above: float, ratios: Sequence[float]) -> tuple[tuple[float, float], ...]:
    """Return (w, h) of the default boxes at every cell of a level, by SSD's rule.

    A square of `side`, a square between it and the next level's, sqrt(side * above), and for each ratio r a box of
    the first square's area that is r times as wide as high, and one that is r times as high as wide.
    """
    between = math.sqrt(side * above)
    shapes = [(side, side), (between, between)]
    for ratio in ratios:
        wide, high = side * math.sqrt(ratio), side / math.sqrt(ratio)
        shapes += [(wide, high), (high, wide)]
    return tuple(shapes)


def default_boxes(level: FeatureMap, shapes: Sequence[tuple[float, float]], picture: tuple[int, int]) -> Tensor:
    """Return the default boxes of a level, x0 y0 x1 y1 in pixels, [h*w*len(shapes) 4]: cell by cell, row by row.

    They stand around the cells' own places, and none is larger than the picture. torchvision's generator measures
    them in parts of the picture; here they are pixels, because that is what a level's stride and sight are.

    Args:
        level: whose cells; its channels do not matter.
        shapes: (w, h) in pixels.
        picture: (h, w) in pixels.
    """
    like = {"device": level.tensor.device, "dtype": torch.float32}
    y, x = (torch.arange(n, **like) * s + o for n, s, o in zip(level.size, level.stride, level.offset, strict=True))
    middles = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1).view(-1, 1, 2)  # [h*w 1 2] of x, y
    sides = torch.tensor(shapes, **like).minimum(torch.tensor(picture[::-1], **like))  # [n 2]
    return torch.cat((middles - sides / 2, middles + sides / 2), -1).view(-1, 4)


def owner(boxes: Tensor, finest_px: float, levels: int, *, at: int = 0) -> Tensor:
    """Return which level boxes [n 4] belong to by their size, 0 the finest: at + log2(sqrt(w h) / finest_px), floored.

    FPN's rule, and torchvision's part for it: with 224 pixels, 4 levels and `at` 2 it is the paper's.
    """
    return LevelMapper(0, levels - 1, finest_px, at)([boxes])


def as_rows(maps: Tensor, columns: int) -> Tensor:
    """Return what a level predicts [b n*columns h w] as one row for each default box, [b h*w*n columns]."""
    b, _, h, w = maps.shape
    return maps.view(b, -1, columns, h, w).permute(0, 3, 4, 1, 2).reshape(b, -1, columns)


def decoded(codes: Tensor, defaults: Tensor, picture: tuple[int, int]) -> Tensor:
    """Return predicted boxes [b n 4] within the picture, of codes [b n 4] for default boxes [n 4]."""
    b, n, _ = codes.shape
    boxes = CODER.decode_single(codes.reshape(-1, 4), defaults.expand(b, n, 4).reshape(-1, 4))
    return clip_boxes_to_image(boxes, picture).view(b, n, 4)


def candidates(boxes: Tensor, probabilities: Tensor, level: Tensor, score: float) -> Tensor:
    """Return what one picture's default boxes claim, [m 7]: x0 y0 x1 y1, score, class, level; the surest first.

    A box claims every class, the background (0) not counted, whose probability is above `score`.

    Args:
        boxes: [n 4]; probabilities: [n classes]; level: [n], whose boxes they are.
    """
    row, kind = (probabilities[:, 1:] > score).nonzero(as_tuple=True)
    sure = probabilities[row, kind + 1]
    found = torch.cat((boxes[row], torch.stack((sure, (kind + 1).to(sure), level[row].to(sure)), 1)), 1)
    return found[sure.argsort(descending=True, stable=True)]


def suppressed(found: Tensor, overlap: float) -> Tensor:
    """Return those of the candidates [m 7] that stay: of each class, none overlaps a surer one by more than `overlap`.

    All levels together: here the predictions of all of them are merged, and which one claims a thing is settled.
    """
    found = found[:CANDIDATES]
    return found[batched_nms(found[:, :4], found[:, 4], found[:, 5], overlap)[:KEPT]]


def objectness(scores: Tensor, classes: int) -> Tensor:
    """Return how sure a level is of anything at each of its places, [b 1 h w]: the surest of the boxes there.

    Args:
        scores: [b n*classes h w], the background first.
    """
    b, _, h, w = scores.shape
    background = F.softmax(scores.view(b, -1, classes, h, w), 2)[:, :, 0]
    return 1 - background.amin(1, keepdim=True)
