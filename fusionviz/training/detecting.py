"""Detectors on frozen features: which default box is of which thing, one loss for all detectors, recall and AP by size.

The loss is SSD's for all of them, so that a comparison compares how levels are used: cross-entropy and smooth L1 over
the default boxes that are of a thing, and cross-entropy over the hardest others, three for each of those, divided by
how many there are. The hardest are sought in the whole batch; with a batch of one it is torchvision's loss of SSD. A
detector whose levels own sizes, MS-CNN, has the same loss once for each level, and their weighted sum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_iou

from fusionviz.backbones import Backbone
from fusionviz.records import FeatureMap, LevelInfo
from fusionviz.systems._boxes import CODER, MATCHER, owner, suppressed
from fusionviz.systems._detector import LEVELS, SIDES, Detector, Reading
from fusionviz.trace import NullTrace
from fusionviz.training.data import FROZEN_FROM, TEST, Samples, draw, features
from fusionviz.training.loop import BATCH, WARM_UP, Progress, advance, optimise, shuffled
from fusionviz.training.metrics import LARGE_PX, SMALL_PX
from fusionviz.training.packing import as_shipped

HARDEST = 3
"""How many boxes without a thing are learned from, for each with one."""
NOTHING, IGNORED = -1, -2
"""Instead of a thing: the default box has none; or it has one that another level owns, so nothing is learned."""
LEAST = 0.01
"""Detections from this score on count for AP, as in SSD."""
RIGHT = 0.5
"""IoU from which a box is right."""
SIZES = ("small", "medium", "large")
NAMES = tuple(f"{figure}{size}" for figure in ("ap", "recall") for size in ("", *(f"_{s}" for s in SIZES)))
"""What `score` gives, all in percent."""


@dataclass(frozen=True)
class Budget:
    """How much is spent on one training of one detector; the lead figures are of `test_scenes` unseen scenes."""

    scenes: int = 6144
    steps: int = 1500
    test_scenes: int = 2000
    lr: float = 2e-3

    @property
    def total(self) -> int:
        """Batches in all."""
        return self.steps


QUICK = Budget(scenes=24, steps=3, test_scenes=8)


@dataclass(frozen=True)
class Things:
    """What stands in some scenes, padded to the most in one of them.

    Attributes:
        boxes: [n m 4] x0 y0 x1 y1 in pixels; x1 and y1 are the first pixels outside.
        labels: [n m] classes, 0 where there is no further thing.
        side: of the pictures, in pixels.
    """

    boxes: Tensor
    labels: Tensor
    side: int

    @classmethod
    def of(cls, samples: Samples) -> Things:
        """Read them off the labels of scenes: the same boxes and labels as `scenes.batch` gives."""
        count, side = int(samples.instances.max()) + 1, samples.instances.shape[-1]
        parts = [_things(c.long(), i.long(), count) for c, i in zip(*_chunks(samples), strict=True)]
        boxes, labels = (torch.cat(found) for found in zip(*parts, strict=True))
        return cls(boxes, labels, side)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, which: slice | Tensor) -> Things:
        return Things(self.boxes[which], self.labels[which], self.side)


def _chunks(samples: Samples) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    return samples.classes.split(64), samples.instances.split(64)


def _things(classes: Tensor, ids: Tensor, count: int) -> tuple[Tensor, Tensor]:
    b, side, _ = ids.shape
    labels = torch.zeros(b, count, dtype=torch.long).scatter_(1, ids.flatten(1), classes.flatten(1))[:, 1:]
    edges = []
    for axis in (2, 1):  # columns, then rows, in which a thing is seen
        lines = ids if axis == 1 else ids.transpose(1, 2)
        seen = torch.zeros(b, side, count, dtype=torch.bool).scatter_(2, lines, True)[:, :, 1:]
        at = torch.arange(side).view(1, side, 1)
        edges.append((torch.where(seen, at, side).amin(1), torch.where(seen, at + 1, 0).amax(1)))
    (x0, x1), (y0, y1) = edges
    boxes = torch.stack((x0, y0, x1, y1), -1).float()
    return boxes * (labels > 0).unsqueeze(-1), labels


# --- what each default box has to say ------------------------------------------------------------
def maps_of(levels: Sequence[LevelInfo], tensors: Sequence[Tensor]) -> tuple[FeatureMap, ...]:
    """Return tensors [b c h w] as the levels that they are of."""
    return tuple(FeatureMap(i.name, t, i.stride, i.offset, i.stage) for i, t in zip(levels, tensors, strict=True))


def assign(boxes: Tensor, defaults: Sequence[Tensor], *, owned: bool = False) -> Tensor:
    """Return for every default box which thing it is of, or NOTHING, or IGNORED, [all of them].

    By SSD's rule: the thing that it covers best, if that is at least half, and for each thing its best default box.

    Args:
        boxes: of the things in one scene, [n 4].
        defaults: of each level, [m 4].
        owned: a thing has default boxes of one level only, the one whose range has its size; others that cover it
            at least half are ignored.
    """
    every = torch.cat(tuple(defaults))
    if not len(boxes):
        return torch.full((len(every),), NOTHING, dtype=torch.long)
    overlap = box_iou(boxes, every)
    if not owned:
        return MATCHER(overlap)
    level = torch.cat([torch.full((len(d),), i) for i, d in enumerate(defaults)])
    own = owned_by(boxes, len(defaults)).unsqueeze(1) == level  # [n all]
    match = MATCHER(overlap.where(own, -1.0))
    elsewhere = (overlap.where(~own, 0.0) >= RIGHT).any(0)
    return match.where((match >= 0) | ~elsewhere, IGNORED)


def owned_by(boxes: Tensor, levels: int) -> Tensor:
    """Return which level owns things of boxes [n 4], 0 the finest.

    A range begins halfway, in octaves, between the level's smallest square and the largest of the level before.
    """
    return owner(boxes, SIDES * 4 * 2**-0.25, levels)


def assign_all(module: Detector, readings: Sequence[Reading], things: Things) -> Tensor:
    """Return `assign` for every scene, [n all] int8; default boxes do not move, so once is enough."""
    defaults = module.defaults(readings, (things.side, things.side))
    rows = [assign(b[v > 0], defaults, owned=module.owned) for b, v in zip(things.boxes, things.labels, strict=True)]
    return torch.stack(rows).to(torch.int8)


# --- the loss ------------------------------------------------------------------------------------
def loss(classes: Tensor, codes: Tensor, defaults: Tensor, match: Tensor, things: Things) -> Tensor:
    """Return the loss of some default boxes over a batch.

    Args:
        classes: scores [b n classes]; codes: [b n 4].
        defaults: [n 4].
        match: [b n], see `assign`.
    """
    which, here = match.long().clamp_min(0), match >= 0
    labels = torch.where(here, things.labels.gather(1, which), 0)  # [b n]
    boxes = things.boxes.gather(1, which.unsqueeze(-1).expand(-1, -1, 4))[here]
    wanted = CODER.encode_single(boxes, defaults.expand(len(match), -1, 4)[here])
    placed = F.smooth_l1_loss(codes[here], wanted, reduction="sum")
    each = F.cross_entropy(classes.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape)
    empty, count = match == NOTHING, int(here.sum())
    hard = each.detach().masked_fill(~empty, -1.0).flatten().topk(min(HARDEST * count, int(empty.sum()))).indices
    return (placed + each[here].sum() + each.flatten()[hard].sum()) / max(count, 1)


def total_loss(module: Detector, readings: Sequence[Reading], match: Tensor, things: Things) -> Tensor:
    """Return a detector's loss of a batch: one over all default boxes, or sum_m alpha_m l_m over its levels."""
    defaults = module.defaults(readings, (things.side, things.side))
    rows = [r.rows() for r in readings]
    if not module.alpha:
        classes, codes = (torch.cat(parts, 1) for parts in zip(*rows, strict=True))
        return loss(classes, codes, torch.cat(defaults), match, things)
    matches = match.split([len(d) for d in defaults], 1)
    parts = [loss(*row, d, m, things) for row, d, m in zip(rows, defaults, matches, strict=True)]
    return weighted(parts, module.alpha)


def weighted(losses: Sequence[Tensor], alpha: Sequence[float]) -> Tensor:
    """Return L = sum_m alpha_m l_m."""
    return sum(a * part for a, part in zip(alpha, losses, strict=True))


def fit(
    module: Detector,
    features: Mapping[str, Tensor],
    things: Things,
    *,
    steps: int,
    lr: float = Budget.lr,
    seed: int = 0,
    callback: Callable[[Progress], object] | None = None,
) -> list[float]:
    """Fit a detector in place and return the loss of every step; AdamW with a warm-up and a cosine.

    The same seed on the same CPU gives the same numbers.

    Args:
        features: of every level that it takes, [n c h w] of any precision.
        seed: of the order of the scenes; the starting weights are those of `systems.build`.
    """
    generator = torch.Generator().manual_seed(seed)
    order = shuffled(len(things), min(BATCH, len(things)), generator)
    with torch.no_grad():
        match = assign_all(module, _read(module, features, slice(0, 1)), things)
    module.train().requires_grad_(True)
    optimiser, schedule = optimise(module, lr, steps, min(WARM_UP, steps))
    losses = []
    for step in range(1, steps + 1):
        chosen = next(order)
        now = total_loss(module, _read(module, features, chosen), match[chosen], things[chosen])
        advance(now, module, optimiser, schedule)
        losses.append(now.item())
        if callback is not None and callback(Progress(step, steps, losses[-1])):
            break
    module.eval()
    return losses


@dataclass(frozen=True)
class Data:
    """Maps of a frozen network by level at half precision, and the things of the same scenes."""

    train: tuple[Mapping[str, Tensor], Things]
    test: tuple[Mapping[str, Tensor], Things]


def prepare(backbone: Backbone, budget: Budget) -> Data:
    """Return what detectors are fitted on and what they are measured on."""

    def split(first: int, count: int) -> tuple[Mapping[str, Tensor], Things]:
        samples = draw(first, count)
        return features(backbone, samples, LEVELS), Things.of(samples)

    return Data(split(FROZEN_FROM, budget.scenes), split(TEST, budget.test_scenes))


def run(
    module: Detector,
    backbone: Backbone,
    data: Data,
    *,
    budget: Budget = Budget(),
    seed: int = 0,
    callback: Callable[[Progress], object] | None = None,
) -> tuple[dict[str, float], dict[str, float]]:
    """Fit a detector, round its numbers as they ship, and return its figures and which level found what."""
    fit(module, *data.train, steps=budget.steps, lr=budget.lr, seed=seed, callback=callback)
    as_shipped(module)
    told = held(module, *data.test)
    return read(told), by_level(told)


def _read(module: Detector, features: Mapping[str, Tensor], which: slice | Tensor) -> tuple[Reading, ...]:
    tensors = [features[info.name][which].float() for info in module.infos]
    return module.read(maps_of(module.infos, tensors), NullTrace())


# --- figures -------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Tally:
    """What was found in many scenes: one row a detection, one row a thing.

    Attributes:
        sure, label: score and class of each detection.
        size: 0, 1, 2 for small, medium, large: of the thing that it found, of its own box where it found none.
        right: whether it found a thing that no surer one had.
        real_label, real_size: of each thing.
        by: [things], position of the level whose detection found it among those that are shown, or -1.
    """

    sure: Tensor
    label: Tensor
    size: Tensor
    right: Tensor
    real_label: Tensor
    real_size: Tensor
    by: Tensor


def sizes(boxes: Tensor, side: int) -> Tensor:
    """Return 0, 1, 2 for small, medium and large boxes [n 4] by their height, in the scenes' bands."""
    height = (boxes[:, 3] - boxes[:, 1]) * 128 / side
    return (height >= SMALL_PX).long() + (height >= LARGE_PX).long()


def tally(found: Sequence[Tensor], things: Things, shown: float) -> Tally:
    """Hold detections against what is there.

    The surest first, each takes the thing of its class that it covers best and no other has taken, if the IoU is at
    least RIGHT.

    Args:
        found: of each scene [m 7], see `candidates`, the surest first.
        shown: score from which a detection is shown, and counts for recall.
    """
    rows, by = [], []
    for detections, boxes, labels in zip(found, things.boxes, things.labels, strict=True):
        boxes, labels = boxes[labels > 0], labels[labels > 0]
        overlap = box_iou(detections[:, :4], boxes) * (detections[:, 5:6] == labels)  # [m n]
        bands, taken = sizes(boxes, things.side), torch.full((len(labels),), -1)
        free = torch.ones(len(labels), dtype=torch.bool)
        size, right = sizes(detections[:, :4], things.side), torch.zeros(len(detections), dtype=torch.bool)
        for i, row in enumerate(overlap * 1.0):
            best = int((row * free).argmax()) if len(labels) else -1
            if best >= 0 and free[best] and row[best] >= RIGHT:
                free[best], right[i], size[i] = False, True, bands[best]
                if detections[i, 4] >= shown:
                    taken[best] = int(detections[i, 6])
        rows.append((detections[:, 4], detections[:, 5].long(), size, right, labels, bands))
        by.append(taken)
    return Tally(*(torch.cat(parts) for parts in zip(*rows, strict=True)), torch.cat(by))


def average_precision(sure: Tensor, right: Tensor, there: int) -> float:
    """Return the area under precision over recall, precision being the best at that recall or a higher one.

    Args:
        sure, right: of each detection of one class.
        there: how many things of it there are; with none it is nan.
    """
    if not there:
        return float("nan")
    hits = right[sure.argsort(descending=True, stable=True)].double().cumsum(0)
    precision = hits / torch.arange(1, len(hits) + 1)
    best = precision.flip(0).cummax(0).values.flip(0)
    return float((best * hits.diff(prepend=hits.new_zeros(1))).sum() / there)


def read(told: Tally) -> dict[str, float]:
    """Return every figure of NAMES in percent: AP is the mean over the classes that are there.

    By size, detections that found a thing of another size are left out, and so are wrong ones of another size.
    """
    figures: dict[str, float] = {}
    for name, band in (("", None), *((f"_{s}", i) for i, s in enumerate(SIZES))):
        ours, real = (slice(None), slice(None)) if band is None else (told.size == band, told.real_size == band)
        sure, label, right = told.sure[ours], told.label[ours], told.right[ours]
        labels = told.real_label[real]
        each = [
            average_precision(sure[label == c], right[label == c], int((labels == c).sum())) for c in labels.unique()
        ]
        figures[f"ap{name}"] = sum(each) / len(each) if each else float("nan")
        figures[f"recall{name}"] = float((told.by[real] >= 0).double().mean())
    return {name: round(100 * figures[name], 2) for name in NAMES}


def by_level(told: Tally) -> dict[str, float]:
    """Return what share of the things of each size each level found, in percent: "small_s4", ... A size's add up to
    its recall."""
    return {
        f"{size}_{level}": round(100 * float((told.by[told.real_size == i] == j).double().mean()), 2)
        for i, size in enumerate(SIZES)
        for j, level in enumerate(LEVELS)
    }


@torch.inference_mode()
def detect(module: Detector, features: Mapping[str, Tensor], side: int, *, least: float = LEAST) -> list[Tensor]:
    """Return what a detector finds in each scene, [m 7], see `candidates`, with the levels that its knobs leave on."""
    found, count = [], len(next(iter(features.values())))
    module.eval()
    for at in range(0, count, 32):
        readings = _read(module, features, slice(at, at + 32))
        found += [suppressed(c, module.overlap) for c in module.claims(readings, (side, side), least)]
    return found


def held(module: Detector, features: Mapping[str, Tensor], things: Things) -> Tally:
    """Return what a detector finds in scenes, held against what is there; recall is at the score that its knob has."""
    return tally(detect(module, features, things.side), things, module.score)


def score(module: Detector, features: Mapping[str, Tensor], things: Things) -> dict[str, float]:
    """Return a detector's figures (NAMES, in percent) on scenes that it was not fitted to; see `read`."""
    return read(held(module, features, things))
