"""What is trained on: scenes kept as bytes, and the maps of a frozen backbone, kept at half precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fusionviz import scenes
from fusionviz.backbones import Backbone
from fusionviz.records import Preprocessing

TRAIN, VALIDATION, TEST = 1_000_000, 2_000_000, 3_000_000
"""First seed of each split. Scenes that people open by hand, `scene:7`, have small seeds, so nothing was fitted to
them; the test split is scored once, for the numbers on the cards."""

FROZEN_FROM = TRAIN + 500_000
"""What stands on a frozen network is fitted on scenes that the network was not trained on, where its maps are as good
as they will be."""

_CHUNK = 64


@dataclass(frozen=True)
class Samples:
    """Scenes with their labels, one byte a number.

    Attributes:
        pictures: [n 3 h w] uint8.
        classes: [n h w] uint8, 0 is the background.
        instances: [n h w] uint8, the objects of a scene counted from 1, 0 is the background.
    """

    pictures: Tensor
    classes: Tensor
    instances: Tensor

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, which: slice | Tensor) -> Samples:
        return Samples(self.pictures[which], self.classes[which], self.instances[which])


def draw(
    first: int,
    count: int,
    size: int = 128,
    *,
    occlusion: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Samples:
    """Return the scenes of `count` seeds from `first` on.

    Args:
        first: TRAIN, VALIDATION or TEST, plus an offset.
        size: side of the pictures in pixels.
        occlusion: whether things may hide parts of each other.
        progress: called with (scenes so far, scenes in all).
    """
    pictures = torch.empty(count, 3, size, size, dtype=torch.uint8)
    classes = torch.empty(count, size, size, dtype=torch.uint8)
    instances = torch.empty(count, size, size, dtype=torch.uint8)
    for at in range(0, count, _CHUNK):
        part = slice(at, min(at + _CHUNK, count))
        made = scenes.batch(range(first + part.start, first + part.stop), size, occlusion=occlusion)
        pictures[part] = as_bytes(made.pictures)
        classes[part], instances[part] = made.classes.to(torch.uint8), made.instances.to(torch.uint8)
        if progress is not None:
            progress(part.stop, count)
    return Samples(pictures, classes, instances)


def as_bytes(pictures: Tensor) -> Tensor:
    """Return pictures as uint8; floats in [0, 1] are rounded."""
    return (pictures * 255).round().to(torch.uint8) if pictures.is_floating_point() else pictures


def normalise(pictures: Tensor, wants: Preprocessing) -> Tensor:
    """Return pictures [n 3 h w], bytes or floats in [0, 1], as a network wants its input."""
    x = pictures.float() / 255 if pictures.dtype == torch.uint8 else pictures
    mean, std = (torch.tensor(v, device=x.device).view(3, 1, 1) for v in (wants.mean, wants.std))
    return ((x - mean) / std).contiguous(memory_format=torch.channels_last)  # many times faster on a CPU


@torch.inference_mode()
def features(backbone: Backbone, samples: Samples, levels: Sequence[str]) -> dict[str, Tensor]:
    """Return the maps of a frozen backbone for every scene, at half precision: {"s4": [n c h w], ...}.

    A head then trains in seconds, because the backbone is run once for each scene and not once for each step.
    """
    found: dict[str, list[Tensor]] = {name: [] for name in levels}
    for at in range(0, len(samples), _CHUNK):
        pyramid, _ = backbone(normalise(samples.pictures[at : at + _CHUNK], backbone.info.preprocessing))
        for name in levels:
            found[name].append(pyramid[name].tensor.to(torch.float16).contiguous(memory_format=torch.channels_last))
    # Out of inference mode's own kind of tensor, which the training loop could not use.
    with torch.inference_mode(False):
        return {name: torch.cat([part.clone() for part in parts]) for name, parts in found.items()}


def class_weights(classes: Tensor, count: int, power: float = 0.4) -> Tensor:
    """Return the weight of each class in the loss, (1 / frequency)^power with mean 1: rare kinds count more.

    Args:
        classes: labels [n h w].
        count: how many classes there are; one that never comes has the weight of the rarest that does.
    """
    pixels = torch.bincount(classes.flatten().int(), minlength=count).float()
    pixels = torch.where(pixels > 0, pixels, pixels[pixels > 0].min())
    weights = (pixels.sum() / pixels) ** power
    return weights / weights.mean()


def augment(pictures: Tensor, classes: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return pictures [b 3 h w] in [0, 1] and labels, mirrored, recoloured and brightened at random, each by itself.

    Colour must say nothing about what a thing is: channels change places, 3 in 10 pictures become negatives, and
    gamma runs from e^-0.35 to e^0.35.
    """
    b = len(pictures)
    flip = (torch.rand(b, generator=generator) < 0.5).view(-1, 1, 1)
    classes = torch.where(flip, classes.flip(-1), classes)
    pictures = torch.where(flip.unsqueeze(1), pictures.flip(-1), pictures)
    order = torch.rand(b, 3, generator=generator).argsort(1)
    pictures = pictures[torch.arange(b)[:, None], order]
    negative = (torch.rand(b, generator=generator) < 0.3).view(-1, 1, 1, 1)
    pictures = torch.where(negative, 1 - pictures, pictures)
    gamma = torch.exp(torch.empty(b).uniform_(-0.35, 0.35, generator=generator)).view(-1, 1, 1, 1)
    return pictures.clamp(1e-4, 1) ** gamma, classes
