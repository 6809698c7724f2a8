"""Training `show_attend_tell` to name the things of a scene from left to right, each as colour and kind.

A sentence is a thin lesson: it says which words were wrong and not where their things are. So in training every
annotation has to name the thing at its place too, through a layer that is thrown away; the decoder then finds places
that already know what they show.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionviz import scenes
from fusionviz.backbones import Backbone, bundled
from fusionviz.scenes import Look, colours
from fusionviz.seeds import seeded
from fusionviz.systems.show_attend_tell import END, LONGEST, WIDTH, WORDS, ShowAttendTell, doubly_stochastic
from fusionviz.trace import NullTrace
from fusionviz.training.data import FROZEN_FROM, TEST, Samples, features, normalise
from fusionviz.training.loop import Progress, advance, optimise, shuffled
from fusionviz.training.packing import as_shipped

WARM_UP = 50
COLOURS = range(1, 1 + len(colours.COLOURS))
"""Positions of the colours in WORDS; kinds follow."""
_CHUNK = 64


@dataclass(frozen=True)
class Budget:
    """How much is spent.

    Attributes:
        scenes: drawn for training.
        first: of them, those of the first round.
        steps: batches of `batch` scenes in the first round.
        again: the same in the second, on all scenes.
        lr: highest learning rate of the first round; the second has 0.6 of it.
        even: how much it counts in the first round whether places are looked at equally often; the second has 0.05 of
            it, because small things need sharp looks.
        named: how much the names of places count in the loss, beside those of the sentence.
        left_out: share of scenes of which one level's term is left out, half of them each: the knob does so too.
        test_scenes: never looked at before they give the numbers on the card.
    """

    scenes: int = 18_432
    first: int = 10_240
    steps: int = 3200
    again: int = 1200
    batch: int = 32
    lr: float = 5e-3
    even: float = 1.0
    named: float = 1.0
    left_out: float = 0.1
    test_scenes: int = 1024

    @property
    def total(self) -> int:
        """Batches in all."""
        return self.steps + self.again


QUICK = Budget(scenes=32, first=16, steps=4, again=2, batch=8, test_scenes=8)


@dataclass(frozen=True)
class Tellings:
    """Scenes, the maps of a frozen backbone, and what should be said.

    Attributes:
        pictures: [n 3 h w] uint8.
        maps: by level [n c h w], "s8" and "s16".
        words: positions in WORDS [n t], filled up with ends.
        named: colour and kind of the thing at every place of s8, positions in WORDS [n 2 h w]; END where there is none.
    """

    pictures: Tensor
    maps: dict[str, Tensor]
    words: Tensor
    named: Tensor

    def __len__(self) -> int:
        return len(self.words)

    def __getitem__(self, which: slice) -> Tellings:
        maps = {name: v[which] for name, v in self.maps.items()}
        return Tellings(self.pictures[which], maps, self.words[which], self.named[which])


def draw(backbone: Backbone, first: int, count: int, size: int = 128) -> Tellings:
    """Return the scenes of `count` seeds from `first` on, with a backbone's maps and their sentences."""
    drawn = [
        scenes.batch(range(at, min(at + _CHUNK, first + count)), size) for at in range(first, first + count, _CHUNK)
    ]
    pictures, instances = (torch.cat([getattr(part, name) for part in drawn]) for name in ("pictures", "instances"))
    maps = features(backbone, Samples(pictures, instances, instances), ShowAttendTell.takes_levels)
    looks = [own for part in drawn for own in part.looks]
    size = tuple(maps[ShowAttendTell.takes_levels[0]].shape[-2:])
    named = torch.stack([names(seen, own, size) for seen, own in zip(instances, looks, strict=True)])
    return Tellings(pictures, maps, torch.tensor([sentence(own) for own in looks]), named)


def names(instances: Tensor, looks: Sequence[Look], size: tuple[int, int]) -> Tensor:
    """Return colour and kind of what shows most of itself at each of h x w places, [2 h w]; END where nothing shows.

    Args:
        instances: [H W], things counted from 1.
        looks: of the things, in this order.
    """
    shown = F.adaptive_avg_pool2d(F.one_hot(instances.long(), 1 + len(looks)).permute(2, 0, 1).float(), size)
    shown[0] = 1e-6  # the ground, so that the smallest thing in front of it counts
    table = torch.tensor([(END, END), *((WORDS.index(v.colour), WORDS.index(v.kind)) for v in looks)])
    return table[shown.argmax(0)].permute(2, 0, 1)


def sentence(looks: Sequence[Look]) -> list[int]:
    """Return what should be said of things: positions in WORDS, from left to right, filled up with ends."""
    said = [WORDS.index(word) for look in sorted(looks, key=lambda v: v.x) for word in (look.colour, look.kind)]
    return said + [END] * (LONGEST - len(said))


def prepare(backbone: Backbone, budget: Budget) -> tuple[Tellings, Tellings]:
    """Return what it is fitted on, and what it is measured on."""
    return draw(backbone, FROZEN_FROM, budget.scenes), draw(backbone, TEST, budget.test_scenes)


def run(
    module: ShowAttendTell,
    backbone: Backbone,
    data: tuple[Tellings, Tellings],
    *,
    budget: Budget = Budget(),
    seed: int = 0,
    callback: Callable[[Progress], object] | None = None,
) -> tuple[dict[str, float], dict[str, float]]:
    """Fit it, round its numbers as they ship, and return its figures, and what is described by the number of things.

    `backbone` is in what was drawn already.
    """
    train, test = data
    fit(module, train[: budget.first], budget, seed=seed, callback=callback)
    second = replace(budget, steps=budget.again, lr=0.6 * budget.lr, even=0.05 * budget.even)
    fit(module, train, second, seed=seed + 1, callback=callback)
    as_shipped(module)
    said, true = say(module, test), test.words.tolist()
    return figures(said, true), by_number(said, true)


def fit(
    module: ShowAttendTell,
    told: Tellings,
    budget: Budget | None = None,
    *,
    seed: int = 0,
    callback: Callable[[Progress], object] | None = None,
) -> list[float]:
    """Fit a module in place and return the loss of every step: cross-entropy of the words, each after the right ones.

    To it comes that of the names of places. Where the module's knob `doubly` is on, every place should be looked at
    equally often; see `doubly_stochastic`.

    Args:
        seed: of the order of scenes, of what is left out, and of the layer that names places.
        callback: called after every step; a true answer ends the fit there.
    """
    budget = budget or Budget()
    generator, losses = torch.Generator().manual_seed(seed), []
    with seeded(seed):
        naming = nn.Conv2d(WIDTH, len(WORDS), 1)
    both = nn.ModuleList((module, naming)).to(memory_format=torch.channels_last)
    optimiser, schedule = optimise(both, budget.lr, budget.steps, min(WARM_UP, budget.steps))
    order = shuffled(len(told), min(budget.batch, len(told)), generator)
    for step in range(1, budget.steps + 1):
        module.train()
        chosen = next(order)
        words = told.words[chosen]
        words = words[:, : int(lengths(words).max())]
        lot = torch.rand(len(chosen), 1, 1, 1, generator=generator) / max(budget.left_out, 1e-9)
        keep = (lot >= 0.5).float(), ((lot < 0.5) | (lot >= 1)).float()
        a = _annotate(module, told, chosen, keep)
        said = module.tell(a, given=words, generator=generator)
        spoken = (torch.arange(words.shape[1]) < lengths(words)[:, None]).float()
        each = F.cross_entropy(said.logits.flatten(0, 1), words.flatten(), reduction="none").view_as(spoken)
        loss = (each * spoken).sum() / spoken.sum() + budget.named * misnamed(naming(a), told.named[chosen])
        if module.params["doubly"]:
            loss = loss + budget.even * doubly_stochastic(said.attention, spoken)
        advance(loss, both, optimiser, schedule)
        losses.append(loss.item())
        if callback is not None and callback(Progress(step, budget.steps, losses[-1])):
            break
    module.eval()
    return losses


def misnamed(scores: Tensor, named: Tensor) -> Tensor:
    """Return the cross-entropy of the kinds at all places, "none" among them, and of the colours where things are.

    Args:
        scores: of all words [b words h w].
        named: [b 2 h w], see Tellings.
    """
    colour, kind = named.unbind(1)
    kinds = torch.cat((scores[:, :1], scores[:, COLOURS.stop :]), 1)
    loss = F.cross_entropy(kinds, (kind - COLOURS.stop + 1).clamp_min(0))
    there = kind != END
    colours = scores[:, COLOURS.start : COLOURS.stop].movedim(1, -1)[there]
    return loss + F.cross_entropy(colours, colour[there] - COLOURS.start) if len(colours) else loss


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


def score(module: ShowAttendTell, told: Tellings) -> dict[str, float]:
    """Return figures in percent on scenes that a module was not fitted to, saying the likeliest word each time."""
    return figures(say(module, told), told.words.tolist())


@torch.no_grad()
def say(module: ShowAttendTell, told: Tellings) -> list[list[int]]:
    """Return the sentences of a module about scenes, the likeliest word each time."""
    module.eval()
    said = []
    for part in torch.arange(len(told)).split(32):
        # Draws of hard attention are those of the module's seed.
        generator = torch.Generator().manual_seed(module.seed)
        said += module.tell(_annotate(module, told, part), generator=generator).words.tolist()
    return said


def by_number(said: Sequence[Sequence[int]], true: Sequence[Sequence[int]]) -> dict[str, float]:
    """Return "described" of `figures` for scenes with two things, three, ... each: {"described_2": percent}."""
    groups: dict[int, list[tuple[Sequence[int], Sequence[int]]]] = {}
    for one, other in zip(said, true, strict=True):
        groups.setdefault(len(pairs(other)), []).append((one, other))
    return {f"described_{n}": figures(*zip(*groups[n], strict=True))["described"] for n in sorted(groups)}


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
