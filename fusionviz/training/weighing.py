"""What a trained method's weights say, and what they are good for: measured over many scenes.

A weight is no explanation. Where it is high is a description; that a head answers worse with another picture's weights
shows that they are used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from fusionviz import fusion, scenes
from fusionviz.records import AttentionMap
from fusionviz.trace import NullTrace, Replacing, Trace
from fusionviz.training.heads import Head
from fusionviz.training.metrics import Score, Truth

EDGE_PX = 2
"""So near to an outline, on either side of it, a pixel belongs to the edge."""

CONTROLS = ("own", "other", "flat")
_CHUNK = 32


def chooses(method: str) -> bool:
    """Say whether a method has a weight that chooses between its two levels."""
    return method in fusion.names() and bool(fusion.spec(method).weighs)


@torch.inference_mode()
def weights_of_low(head: Head, maps: Mapping[str, Tensor], truth: Truth) -> dict[str, float]:
    """Return the mean weight of the low level by region of the picture, over scenes [n ...].

    "background", "edge" (EDGE_PX on both sides of an outline) and "interior" divide the picture; "small" and "large"
    are all pixels of things of that size, and each kind of `scenes.KINDS` is the interior of its things.
    """
    total: dict[str, float] = {}
    count: dict[str, int] = {}
    head.eval()
    for levels, part in _chunks(maps, truth):
        weight = _of_low(_attention(head, levels))  # [b 1 h w]
        weight = F.interpolate(weight, size=part.classes.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
        for name, where in _regions(part).items():
            total[name] = total.get(name, 0.0) + float((weight * where).sum())
            count[name] = count.get(name, 0) + int(where.sum())
    return {name: round(total[name] / count[name], 4) for name in total if count[name]}


@torch.inference_mode()
def used(head: Head, maps: Mapping[str, Tensor], truth: Truth) -> dict[str, float]:
    """Return the mIoU in percent with the weights a head computes, with another scene's, and with flat ones.

    Flat is each weight's own mean over the places; a weight without places is replaced by its mean over pictures.
    """
    found = {name: Score(len(scenes.CLASSES)) for name in CONTROLS}
    head.eval()
    key = None
    for levels, part in _chunks(maps, truth):
        key = key or _step(head, [level[:1] for level in levels])
        weight = _attention(head, levels)
        own, over = weight.tensor, (2, 3) if weight.grain in ("place", "element") else 0
        flat = own.mean(over, keepdim=True).expand_as(own)
        for name, weight in (("own", own), ("other", own.roll(1, 0)), ("flat", flat)):
            fused = head.fusion(*levels, trace=Replacing({key: weight})).fused.tensor
            found[name].hold(head.read(fused, tuple(part.classes.shape[-2:])).argmax(1), part)
    return {name: s.read()["miou"] for name, s in found.items()}


def _chunks(maps: Mapping[str, Tensor], truth: Truth) -> Iterator[tuple[list[Tensor], Truth]]:
    for at in range(0, len(truth), _CHUNK):
        part = slice(at, at + _CHUNK)
        yield [v[part].float() for v in maps.values()], truth[part]


def _attention(head: Head, levels: list[Tensor]) -> AttentionMap:
    return head.fusion(*levels, trace=NullTrace()).attention[head.fusion.spec.weighs]


def _step(head: Head, levels: list[Tensor]) -> str:
    """Return the key of the step that makes the weight."""
    result = head.fusion(*levels, trace=Trace())
    weight = result.attention[head.fusion.spec.weighs].tensor
    return next(step.key for step in result.trace if step.tensor is weight)


def _of_low(weight: AttentionMap) -> Tensor:
    """Return the weight of low as [b 1 h w], its mean over channels."""
    if weight.grain == "branch":
        return weight.tensor[:, :1, 0]
    if weight.axes == "b n h w":  # low is the first of n levels
        return weight.tensor[:, :1]
    return weight.tensor.mean(1, keepdim=True)


def _regions(truth: Truth) -> dict[str, Tensor]:
    """Return where each region is, [b h w] bool."""
    thing, side = truth.classes > 0, 2 * EDGE_PX + 1
    edge = F.max_pool2d(truth.outline.float().unsqueeze(1), side, 1, EDGE_PX).squeeze(1) > 0
    inside = thing & ~edge
    return {
        "background": ~thing & ~edge,
        "edge": edge,
        "interior": inside,
        "small": thing & (truth.sizes == 1),
        "large": thing & (truth.sizes == 3),
        **{kind: inside & (truth.classes == k) for k, kind in enumerate(scenes.KINDS, 1)},
    }
