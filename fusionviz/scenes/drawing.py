"""Scenes by seed: one for a page, batches for training, and how often each class comes."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from operator import index

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusionviz.errors import ParameterError
from fusionviz.scenes.draws import uniform
from fusionviz.scenes.kinds import CLASSES
from fusionviz.scenes.paint import masks, nearest, paint
from fusionviz.scenes.phrases import Look, describe
from fusionviz.scenes.plan import OBJECTS, SIDE, Plan, plan

SIZE = 128
SIZE_BOUNDS = (32, 2048)
SEED_BOUNDS = (0, 2**63 - 1)

_PHRASES = 5  # stream of random numbers


@dataclass(frozen=True, eq=False)
class Scene:
    """One picture with everything that is known about it. The arrays are read-only.

    Attributes:
        seed: which scene.
        picture: [h w 3] uint8.
        classes: position in `CLASSES` at every pixel, [h w] uint8.
        instances: 0 on background, else one more than the thing's position in the tuples below, [h w] uint8.
        boxes: x0 y0 x1 y1 of what shows of each thing, px, [n 4] float32; x1 and y1 are the first pixels outside.
        labels: position in `CLASSES` of each thing.
        phrases: words for each thing, which fit no other one wherever there are such words.
        sizes: height of each thing before anything hides it, px.
        looks: kind, colour, texture and place of each thing, independent of the size in pixels.
    """

    seed: int
    picture: NDArray[np.uint8]
    classes: NDArray[np.uint8]
    instances: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    labels: tuple[int, ...]
    phrases: tuple[str, ...]
    sizes: tuple[float, ...]
    looks: tuple[Look, ...]


@dataclass(frozen=True, eq=False)
class Batch:
    """Several scenes as tensors; what differs in length from scene to scene stays a tuple.

    Attributes:
        seeds: which scenes.
        pictures: [b 3 h w] uint8.
        classes: position in `CLASSES` at every pixel, [b h w] uint8.
        instances: 0 on background, else one more than the thing's position, [b h w] uint8.
        boxes: for each scene x0 y0 x1 y1 of its things, px, [n 4] float32.
        labels: for each scene the position in `CLASSES` of each thing.
        phrases: for each scene the words for each thing.
        sizes: for each scene the height of each thing, px.
        looks: for each scene the kind, colour, texture and place of each thing.
    """

    seeds: tuple[int, ...]
    pictures: Tensor
    classes: Tensor
    instances: Tensor
    boxes: tuple[Tensor, ...]
    labels: tuple[tuple[int, ...], ...]
    phrases: tuple[tuple[str, ...], ...]
    sizes: tuple[tuple[float, ...], ...]
    looks: tuple[tuple[Look, ...], ...]

    def __len__(self) -> int:
        return len(self.seeds)


def scene(seed: int, size: int = SIZE, *, occlusion: bool = False, objects: int | None = None) -> Scene:
    """Draw one scene: the same seed is the same scene at every size, alone and in every batch.

    Args:
        seed: which scene, from 0.
        size: side of the picture, px.
        occlusion: things may hide parts of each other; every part stays at least half visible.
        objects: how many things, 1 to 9; by default the seed decides on 2 to 9. A full picture may have room for fewer.

    Raises:
        ParameterError: for a seed, size or number out of its bounds; it says which are allowed.
    """
    planned = plan(_seed(seed), occlusion=occlusion, objects=_objects(objects))
    picture, classes, instances = paint(planned, _size(size))
    boxes = _boxes(instances, len(planned.things))
    picture = np.ascontiguousarray(picture.transpose(1, 2, 0))  # [h w 3]
    for array in (picture, classes, instances, boxes):
        array.flags.writeable = False
    looks = _looks(planned)
    return Scene(
        planned.seed,
        picture,
        classes,
        instances,
        boxes,
        _labels(planned),
        _phrases(planned, looks),
        _sizes(planned, size),
        looks,
    )


def batch(
    seeds: Iterable[int],
    size: int = SIZE,
    *,
    occlusion: bool = False,
    objects: int | None = None,
    device: torch.device | str = "cpu",
) -> Batch:
    """Draw many scenes for training.

    It keeps to one core, so that a training step can use the others; more processes draw more scenes a second,
    and the result never depends on how the seeds are divided.

    Args:
        seeds: which scenes, at least one.
        size: side of the pictures, px.
        occlusion: things may hide parts of each other.
        objects: how many things in each scene; by default its seed decides.
        device: where the tensors go.

    Raises:
        ParameterError: for no seeds, or a seed, size or number out of its bounds.
    """
    seeds, size, objects = _seeds(seeds), _size(size), _objects(objects)
    pictures = np.empty((len(seeds), 3, size, size), np.uint8)
    classes, instances = (np.empty((len(seeds), size, size), np.uint8) for _ in range(2))
    plans = []
    for k, seed in enumerate(seeds):
        planned = plan(seed, occlusion=occlusion, objects=objects)
        pictures[k], classes[k], instances[k] = paint(planned, size)
        plans.append(planned)
    counts = [len(planned.things) for planned in plans]
    return Batch(
        seeds=seeds,
        pictures=torch.from_numpy(pictures).to(device),
        classes=torch.from_numpy(classes).to(device),
        instances=torch.from_numpy(instances).to(device),
        boxes=tuple(torch.from_numpy(_boxes(shown, n)).to(device) for shown, n in zip(instances, counts, strict=True)),
        labels=tuple(map(_labels, plans)),
        phrases=tuple(_phrases(planned, _looks(planned)) for planned in plans),
        sizes=tuple(_sizes(planned, size) for planned in plans),
        looks=tuple(map(_looks, plans)),
    )


def nearest_instances(
    seeds: Iterable[int],
    size: int = SIZE,
    *,
    within: float = 8.0,
    occlusion: bool = False,
    objects: int | None = None,
) -> Tensor:
    """Say for every pixel which thing it is nearest to, so that a score by size can also count what is wrong beside it.

    Args:
        seeds: which scenes, at least one.
        size: side of the pictures, px.
        within: scene units (128ths of the side) around a thing that still count as its own.
        occlusion: as in `batch`.
        objects: as in `batch`.

    Returns:
        Instances [b h w] uint8, 0 where no thing is near.

    Raises:
        ParameterError: as in `batch`.
    """
    seeds, size, objects = _seeds(seeds), _size(size), _objects(objects)
    plans = (plan(seed, occlusion=occlusion, objects=objects) for seed in seeds)
    return torch.from_numpy(np.stack([nearest(planned, size, within) for planned in plans]))


@lru_cache(64)
def _opened(seed: int, size: int, objects: int | None) -> Scene:
    return scene(seed, size, objects=objects)


def open_scene(seed: int | str, size: int = SIZE) -> Scene:
    """Return a scene for a page, kept in memory: what `scene:SEED` or `scene:SEED:THINGS` names.

    Args:
        seed: a number, or its digits; "7:1" is scene 7 with one thing.
        size: side of the picture, px.

    Raises:
        ParameterError: if `seed` is no number of a scene, or the size is out of bounds.
    """
    text, objects = seed.strip() if isinstance(seed, str) else seed, None
    if isinstance(text, str) and ":" in text:
        text, _, count = text.partition(":")
        objects = _objects(int(count) if count.isascii() and count.isdigit() else count)
    if isinstance(text, str):
        if not (text.isascii() and text.isdigit() and len(text) <= len(str(SEED_BOUNDS[1]))):
            raise ParameterError("scene.seed", received=seed, low=SEED_BOUNDS[0], high=SEED_BOUNDS[1])
        text = int(text)
    return _opened(_seed(text), _size(size), objects)


@lru_cache(8)
def class_frequencies(count: int = 512, first: int = 0, *, occlusion: bool = False) -> tuple[float, ...]:
    """Measure which share of all pixels each of `CLASSES` has, in scenes `first` to `first + count - 1`.

    Shares are what class weights are made of: a background covers most of a picture, a sign one pixel in a hundred.
    They hardly depend on the size in pixels, so the masks are drawn small.

    Raises:
        ParameterError: for a count below one or a seed out of bounds.
    """
    pixels = np.zeros(len(CLASSES), np.int64)
    for seed in _seeds(range(first, first + count)):
        classes, _ = masks(plan(seed, occlusion=occlusion), SIZE // 2)
        pixels += np.bincount(classes.ravel(), minlength=len(CLASSES))
    return tuple((pixels / pixels.sum()).tolist())


# --- what a plan says -----------------------------------------------------------------------------
def _labels(planned: Plan) -> tuple[int, ...]:
    return tuple(CLASSES.index(thing.kind) for thing in planned.things)


def _sizes(planned: Plan, size: int) -> tuple[float, ...]:
    return tuple(thing.height * size / SIDE for thing in planned.things)


def _looks(planned: Plan) -> tuple[Look, ...]:
    return tuple(Look(t.kind, t.colour, t.texture, t.height, t.x, t.y) for t in planned.things)


def _phrases(planned: Plan, looks: tuple[Look, ...]) -> tuple[str, ...]:
    return describe(looks, uniform(planned.seed, _PHRASES, len(looks)))


def _boxes(instances: NDArray[np.uint8], count: int) -> NDArray[np.float32]:
    """Return the boxes [n 4] around the pixels of instances 1 to `count`, every one of which shows somewhere."""
    boxes = np.empty((count, 4), np.float32)
    for k in range(count):
        inside = instances == k + 1
        columns, rows = np.flatnonzero(inside.any(0)), np.flatnonzero(inside.any(1))
        boxes[k] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes


# --- what a caller may ask for --------------------------------------------------------------------
def _whole_number(value: object) -> int | None:
    try:
        return None if isinstance(value, bool) else index(value)
    except TypeError:
        return None


def _seed(seed: object) -> int:
    number, (low, high) = _whole_number(seed), SEED_BOUNDS
    if number is None or not low <= number <= high:
        raise ParameterError("scene.seed", received=seed, low=low, high=high)
    return number


def _seeds(seeds: Iterable[int]) -> tuple[int, ...]:
    found = tuple(map(_seed, seeds))
    if not found:
        raise ParameterError("scene.empty")
    return found


def _size(size: object) -> int:
    number, (low, high) = _whole_number(size), SIZE_BOUNDS
    if number is None or not low <= number <= high:
        raise ParameterError("scene.size", received=size, low=low, high=high)
    return number


def _objects(objects: object) -> int | None:
    number, high = _whole_number(objects), OBJECTS[1]
    if objects is not None and (number is None or not 1 <= number <= high):
        raise ParameterError("scene.objects", received=objects, low=1, high=high)
    return number
