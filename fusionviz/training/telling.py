"""Training `show_attend_tell` to name the things of a scene from left to right, each as colour and kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fusionviz import scenes
from fusionviz.backbones import Backbone, bundled
from fusionviz.scenes import Look, colours
from fusionviz.systems.show_attend_tell import END, LONGEST, WORDS, ShowAttendTell, doubly_stochastic
from fusionviz.trace import NullTrace
from fusionviz.training.data import Samples, features, normalise
from fusionviz.training.loop import Progress, advance, optimise, shuffled

WARM_UP = 50
COLOURS = range(1, 1 + len(colours.COLOURS))
"""Positions of the colours in WORDS; kinds follow."""


@dataclass(frozen=True)
class Budget:
    """How much is spent.

    Attributes:
        scenes: drawn for training.
        steps: batches of `batch` scenes.
        left_out: share of scenes of which one level's term is left out, half of them each: the knob does so too.
        test_scenes: never looked at before they give the numbers on the card.
    """

    scenes: int = 12_000
    steps: int = 8000
    batch: int = 32
    lr: float = 2e-3
    left_out: float = 0.1
    test_scenes: int = 2000


@dataclass(frozen=True)
class Tellings:
    """Scenes, the maps of a frozen backbone, and what should be said.

    Attributes:
        pictures: [n 3 h w] uint8.
        maps: by level [n c h w], "s8" and "s16".
        words: positions in WORDS [n t], filled up with ends.
    """

    pictures: Tensor
    maps: dict[str, Tensor]
    words: Tensor

    def __len__(self) -> int:
        return len(self.words)


def draw(backbone: Backbone, first: int, count: int, size: int = 128) -> Tellings:
    """Return the scenes of `count` seeds from `first` on, with a backbone's maps and their sentences."""
    drawn = [scenes.scene(seed, size) for seed in range(first, first + count)]
    pictures = torch.stack([torch.from_numpy(s.picture.copy()).permute(2, 0, 1) for s in drawn])
    labels = torch.zeros(count, 1, 1, dtype=torch.uint8)  # nobody looks at the masks
    maps = features(backbone, Samples(pictures, labels, labels), ShowAttendTell.takes_levels)
    return Tellings(pictures, maps, torch.tensor([sentence(s.looks) for s in drawn]))


def sentence(looks: Sequence[Look]) -> list[int]:
    """Return what should be said of things: positions in WORDS, from left to right, filled up with ends."""
    said = [WORDS.index(word) for look in sorted(looks, key=lambda v: v.x) for word in (look.colour, look.kind)]
    return said + [END] * (LONGEST - len(said))


def fit(
    module: ShowAttendTell,
    told: Tellings,
    budget: Budget | None = None,
    *,
    seed: int = 0,
    callback: Callable[[Progress], object] | None = None,
) -> list[float]:
    """Fit a module in place and return the loss of every step: cross-entropy of the words, each after the right ones.

    Where the module's knob `doubly` is on, every place should be looked at equally often; see `doubly_stochastic`.

    Args:
        seed: of the order of scenes and of what is left out.
        callback: called after every step; a true answer ends the fit there.
    """
    budget = budget or Budget()
    generator, losses = torch.Generator().manual_seed(seed), []
    optimiser, schedule = optimise(module, budget.lr, budget.steps, min(WARM_UP, budget.steps))
    order = shuffled(len(told), min(budget.batch, len(told)), generator)
    for step in range(1, budget.steps + 1):
        module.train()
        chosen = next(order)
        words = told.words[chosen]
        words = words[:, : int(lengths(words).max())]
        lot = torch.rand(len(chosen), 1, 1, 1, generator=generator) / max(budget.left_out, 1e-9)
        keep = (lot >= 0.5).float(), ((lot < 0.5) | (lot >= 1)).float()
        said = module.tell(_annotate(module, told, chosen, keep), given=words, generator=generator)
        spoken = (torch.arange(words.shape[1]) < lengths(words)[:, None]).float()
        each = F.cross_entropy(said.logits.flatten(0, 1), words.flatten(), reduction="none").view_as(spoken)
        loss = (each * spoken).sum() / spoken.sum()
        if module.params["doubly"]:
            loss = loss + doubly_stochastic(said.attention, spoken)
        advance(loss, module, optimiser, schedule)
        losses.append(loss.item())
        if callback is not None and callback(Progress(step, budget.steps, losses[-1])):
            break
    module.eval()
    return losses


def lengths(words: Tensor) -> Tensor:
    """Return how many words there are up to the first end, the end counted, [n] of [n t]."""
    ends = (words == END).int()
    return torch.where(ends.any(1), ends.argmax(1) + 1, words.shape[1])


def _annotate(
    module: ShowAttendTell, told: Tellings, chosen: Tensor, keep: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    picture = normalise(told.pictures[chosen], bundled.PREPROCESSING)
    low, high = (told.maps[name][chosen].float() for name in module.takes_levels)
    return module.annotate(picture, low, high, NullTrace(), keep)


@torch.no_grad()
def score(module: ShowAttendTell, told: Tellings) -> dict[str, float]:
    """Return figures in percent on scenes that a module was not fitted to, saying the likeliest word each time."""
    module.eval()
    said = []
    for part in torch.arange(len(told)).split(32):
        # Draws of hard attention are those of the module's seed.
        generator = torch.Generator().manual_seed(module.seed)
        said += module.tell(_annotate(module, told, part), generator=generator).words.tolist()
    return figures(said, told.words.tolist())


def figures(said: Sequence[Sequence[int]], true: Sequence[Sequence[int]]) -> dict[str, float]:
    """Return how good sentences are, in percent.

    described: of the things, how many were named by colour and kind; each name counts for one thing.
    colours, kinds: the same by one of the two words.
    right: of the names said, how many belong to a thing.
    """
    found, things, names = Counter(), 0, 0
    for one, other in zip(said, true, strict=True):
        mine, real = pairs(one), pairs(other)
        things, names = things + len(real), names + len(mine)
        found["described"] += _both(mine, real)
        found["colours"] += _both([c for c, _ in mine], [c for c, _ in real])
        found["kinds"] += _both([k for _, k in mine], [k for _, k in real])
    told = {name: found[name] / max(things, 1) for name in ("described", "colours", "kinds")}
    told["right"] = found["described"] / max(names, 1)
    return {name: round(100 * value, 2) for name, value in told.items()}


def pairs(words: Sequence[int]) -> list[tuple[int, int]]:
    """Return every colour that a kind follows at once, with that kind, up to the end."""
    words = list(words)
    words = words[: words.index(END)] if END in words else words
    return [(a, b) for a, b in zip(words, words[1:], strict=False) if a in COLOURS and b not in COLOURS]


def _both(mine: Sequence[object], real: Sequence[object]) -> int:
    return sum((Counter(mine) & Counter(real)).values())
