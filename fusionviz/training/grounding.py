"""Phrases and what they mean: fitting the systems of the family "language" to scenes, and measuring how they point.

iou                                    of what is lit up and what is meant, at full size: the mean over all phrases
found                                  of the phrases, how many have an IoU of at least one half
size, extreme, colour, texture, kind   the IoU of the phrases that would mean something else without such a word
silent                                 of the phrases that mean nothing in their scene, how many light up nothing
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionviz import scenes
from fusionviz.backbones import Backbone
from fusionviz.scenes import Look
from fusionviz.scenes.colours import COLOURS
from fusionviz.scenes.phrases import EXTREMES, SIZES
from fusionviz.scenes.plan import FINE_TEXTURE, OBJECTS, TEXTURES
from fusionviz.seeds import seeded
from fusionviz.systems._phrases import WIDTH, PhraseSystem, numbers
from fusionviz.trace import NullTrace
from fusionviz.training.data import FROZEN_FROM, TEST, Samples, as_bytes, features, normalise
from fusionviz.training.loop import Progress, advance, optimise, shuffled
from fusionviz.training.packing import as_shipped

WORDS: Mapping[str, tuple[str, ...]] = {
    "size": SIZES,
    "extreme": EXTREMES,
    "colour": COLOURS,
    "texture": (*TEXTURES, FINE_TEXTURE),
    "kind": scenes.KINDS,
}
"""The words of the vocabulary by what they speak of."""

LOOKS = {name: words for name, words in WORDS.items() if name != "extreme"}
"""What can be said of a thing whatever stands around it."""

NAMES = ("iou", "found", *WORDS, "silent")
"""What `score` gives, all in percent."""

BATCH, WARM_UP = 16, 60
OFTEN, TOLD = 3, 0.3
"""How much more often hard phrases are asked, and how much it counts that things can be told without any."""
_CHUNK = 64


@dataclass(frozen=True)
class Budget:
    """How much is spent on a system.

    Attributes:
        scenes: drawn for training, none of which the network behind the system was trained on.
        phrases: for each of them, beside a phrase for every thing.
        steps: batches of 16 scenes with a phrase each.
        test_scenes: never looked at before they give the numbers on the cards.
        test_phrases: for each of them, beside a phrase for every thing.
        lr: the highest learning rate.
    """

    scenes: int = 6144
    phrases: int = 12
    steps: int = 5000
    test_scenes: int = 1000
    test_phrases: int = 4
    lr: float = 4e-3

    @property
    def total(self) -> int:
        """Batches in all."""
        return self.steps


QUICK = Budget(scenes=32, phrases=2, steps=4, test_scenes=8, test_phrases=2)


# --- phrases -------------------------------------------------------------------------------------
def invent(looks: Sequence[Look], draw: random.Random) -> str:
    """Return a phrase of one word or several that means something in a scene: one thing of it, or more than one."""
    look = draw.choice(looks)
    adjectives = [look.size, look.colour, look.texture]
    said = [word for word in adjectives if draw.random() < 0.4]
    draw.shuffle(said)  # "small red" and "red small" mean the same
    if draw.random() < 0.4:
        said.insert(0, draw.choice(EXTREMES))
    if draw.random() < 0.7 or not said:
        said.append(look.kind)
    return " ".join((["the"] if draw.random() < 0.8 else []) + said)


def invent_absent(looks: Sequence[Look], draw: random.Random) -> str:
    """Return a phrase that means nothing in a scene."""
    while True:
        words = [draw.choice(of) for name, of in WORDS.items() if name != "extreme" and draw.random() < 0.5]
        phrase = " ".join(("the", *words))
        if not scenes.meant(phrase, looks):
            return phrase


def needed(phrase: str, looks: Sequence[Look]) -> frozenset[str]:
    """Return the kinds of words that a phrase would mean something else without: who is deaf to them must fail.

    "The red ball" needs its colour only where there is a ball of another one.
    """
    words, meant = phrase.split(), scenes.meant(phrase, looks)
    without = {name: " ".join(word for word in words if word not in of) for name, of in WORDS.items()}
    return frozenset(name for name, rest in without.items() if scenes.meant(rest, looks) != meant)


@dataclass(frozen=True)
class Asked:
    """Scenes, and phrases about them.

    Attributes:
        maps: of the frozen network by level, [n c h w] at half precision.
        pictures: [n 3 h w] uint8.
        instances: [n h w] uint8.
        phrases: for each scene.
        needs: for each scene and phrase, the kinds of words that matter, see `needed`.
        looks: of every instance by number, [n things + 1 4]: positions of its size, colour, texture and kind in LOOKS;
            -1 where there is none.
        meant: for each scene, [phrases things + 1] bool by number of the instance: which a phrase means.
    """

    maps: Mapping[str, Tensor]
    pictures: Tensor
    instances: Tensor
    phrases: tuple[tuple[str, ...], ...]
    needs: tuple[tuple[frozenset[str], ...], ...]
    looks: Tensor
    meant: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.pictures)

    def masks(self, scene: Tensor, phrase: Sequence[int]) -> Tensor:
        """Return which pixels are meant, [b h w] bool, by the phrase at a position of each scene."""
        table = torch.stack([self.meant[n][k] for n, k in zip(scene.tolist(), phrase, strict=True)])  # [b things + 1]
        instances = self.instances[scene]
        return table.gather(1, instances.flatten(1).long()).view(instances.shape)


def ask(
    backbone: Backbone,
    levels: Sequence[str],
    first: int,
    count: int,
    *,
    phrases: int = Budget.phrases,
    absent: float = 0.15,
    size: int = scenes.SIZE,
) -> Asked:
    """Draw scenes and think of phrases: the scene's own for each thing, and more of all sorts. The seeds decide.

    Args:
        levels: of the network that the systems are given.
        first, count: seeds of the scenes.
        phrases: how many more for each scene.
        absent: the share of these that means nothing there.
        size: side of the pictures in pixels.
    """
    drawn = [
        scenes.batch(range(at, min(at + _CHUNK, first + count)), size) for at in range(first, first + count, _CHUNK)
    ]
    pictures, classes, instances = (
        torch.cat([getattr(b, n) for b in drawn]) for n in ("pictures", "classes", "instances")
    )
    pictures = as_bytes(pictures)
    looks = [own for b in drawn for own in b.looks]
    said = []
    for seed, own, each in zip(range(first, first + count), (p for b in drawn for p in b.phrases), looks, strict=True):
        draw = random.Random(seed)
        more = (invent_absent if draw.random() < absent else invent for _ in range(phrases))
        said.append((*own, *(think(each, draw) for think in more)))
    needs = tuple(tuple(needed(p, own) for p in each) for each, own in zip(said, looks, strict=True))
    maps = features(backbone, Samples(pictures, classes, instances), levels)
    meant = tuple(
        torch.stack([_row(scenes.meant(p, own)) for p in each]) for each, own in zip(said, looks, strict=True)
    )
    return Asked(maps, pictures, instances, tuple(said), needs, torch.stack([_table(own) for own in looks]), meant)


def _table(looks: Sequence[Look]) -> Tensor:
    table = torch.full((1 + OBJECTS[1], len(LOOKS)), -1)
    for thing, look in enumerate(looks, start=1):
        table[thing] = torch.tensor([words.index(getattr(look, name)) for name, words in LOOKS.items()])
    return table


def _row(things: Sequence[int]) -> Tensor:
    row = torch.zeros(1 + OBJECTS[1], dtype=torch.bool)
    row[[1 + thing for thing in things]] = True
    return row


# --- training ------------------------------------------------------------------------------------
def prepare(backbone: Backbone, budget: Budget) -> tuple[Asked, Asked]:
    """Return what the systems are fitted on, and what they are measured on."""
    train = ask(backbone, PhraseSystem.takes_levels, FROZEN_FROM, budget.scenes, phrases=budget.phrases)
    return train, ask(backbone, PhraseSystem.takes_levels, TEST, budget.test_scenes, phrases=budget.test_phrases)


def run(
    module: PhraseSystem,
    backbone: Backbone,
    data: tuple[Asked, Asked],
    *,
    budget: Budget = Budget(),
    seed: int = 0,
    callback: Callable[[Progress], object] | None = None,
) -> tuple[dict[str, float], dict[str, float]]:
    """Fit a system, round its numbers as they ship, and return its figures; there is nothing else to tell."""
    train, test = data
    fit(module, backbone, train, steps=budget.steps, lr=budget.lr, seed=seed, callback=callback)
    as_shipped(module)
    return score(module, backbone, test), {}


def fit(
    module: PhraseSystem,
    backbone: Backbone,
    asked: Asked,
    *,
    steps: int = Budget.steps,
    lr: float = Budget.lr,
    seed: int = 0,
    callback: Callable[[Progress], object] | None = None,
) -> list[float]:
    """Fit a system in place and return the loss of every step. The same seed on the same CPU gives the same weights.

    Args:
        backbone: whose maps `asked` has; it says how it wants pictures.
        seed: of the order of scenes and phrases.
        callback: called after every step; a true answer ends the fit there.
    """
    module.requires_grad_(True).train().to(memory_format=torch.channels_last)
    with seeded(seed):
        telling = nn.Conv2d(WIDTH, sum(map(len, LOOKS.values())), 1)
    both = nn.ModuleList((module, telling))
    optimiser, schedule = optimise(both, lr, steps, min(WARM_UP, max(steps // 4, 1)))
    generator, losses = torch.Generator().manual_seed(seed), []
    order, often = shuffled(len(asked), min(BATCH, len(asked)), generator), [_often(needs) for needs in asked.needs]
    for step in range(1, steps + 1):
        chosen = next(order)
        draws = torch.rand(len(chosen), generator=generator).tolist()
        phrases = [often[n][int(u * len(often[n]))] for n, u in zip(chosen.tolist(), draws, strict=True)]
        with torch.autocast("cpu", torch.bfloat16):  # nearly twice as fast where a processor knows these numbers
            seen = module.seeing(*_maps(module, backbone, asked, chosen), NullTrace())
            said = module.reading(_words(asked, chosen, phrases), NullTrace())
            logits = module.meet(seen, said, NullTrace()).logits
            told = telling(F.relu(seen))
        loss = difference(logits.float(), asked.masks(chosen, phrases))
        advance(loss + TOLD * untold(told.float(), asked, chosen), both, optimiser, schedule)
        losses.append(loss.item())
        if callback is not None and callback(Progress(step, steps, losses[-1])):
            break
    module.eval()
    return losses


def _often(needs: Sequence[frozenset[str]]) -> list[int]:
    """Return positions of a scene's phrases, those several times that mean something else without a word that is no
    kind: nearly half of all phrases can be followed by the kind alone, and who hears only these is deaf to the rest."""
    return [k for k, kinds in enumerate(needs) for _ in range(OFTEN if kinds - {"kind"} else 1)]


def untold(told: Tensor, asked: Asked, chosen: Tensor) -> Tensor:
    """Return how badly things are told from what is seen of them, without any phrase: the sum of four cross-entropies.

    A phrase says whether a place is meant, and not why. So what is seen should tell size, colour, texture and kind by a
    1x1 convolution, which is thrown away afterwards.

    Args:
        told: scores of all words of LOOKS, [b words h w].
        chosen: which scenes.
    """
    places = F.interpolate(asked.instances[chosen].unsqueeze(1).float(), size=told.shape[-2:])[:, 0].long()  # [b h w]
    row = torch.arange(len(chosen)).view(-1, 1, 1)
    real = asked.looks[chosen][row, places]  # [b h w 4]
    parts = told.split([len(words) for words in LOOKS.values()], 1)
    return sum(F.cross_entropy(part, real[..., k], ignore_index=-1) for k, part in enumerate(parts))


def _maps(module: PhraseSystem, backbone: Backbone, asked: Asked, chosen: Tensor) -> tuple[Tensor, list[Tensor]]:
    levels = [asked.maps[name][chosen].float() for name in module.takes_levels]
    return normalise(asked.pictures[chosen], backbone.info.preprocessing), levels


def _words(asked: Asked, chosen: Tensor, phrases: Sequence[int]) -> Tensor:
    return numbers([asked.phrases[n][k] for n, k in zip(chosen.tolist(), phrases, strict=True)])


def _answer(module: PhraseSystem, backbone: Backbone, asked: Asked, chosen: Tensor, phrases: Sequence[int]) -> Tensor:
    """Return logits [b 1 h w] for one phrase about each of some scenes."""
    picture, levels = _maps(module, backbone, asked, chosen)
    return module.answer(picture, levels, _words(asked, chosen, phrases), NullTrace()).logits


def difference(logits: Tensor, mask: Tensor) -> Tensor:
    """Return how far logits [b 1 h w] are from a mask [b H W]: cross-entropy, and what is missing of Dice's overlap.

    A small thing is a few pixels in a thousand: cross-entropy alone would rather say nothing. Dice counts every phrase
    the same; a phrase that means nothing has no overlap to speak of, and is left to the cross-entropy.
    """
    target = F.adaptive_avg_pool2d(mask.float().unsqueeze(1), logits.shape[-2:])  # shares of a cell
    entropy = F.binary_cross_entropy_with_logits(logits, target)
    sure, there = logits.sigmoid(), mask.flatten(1).any(1)
    both, either = ((sure * target).sum((1, 2, 3)), (sure + target).sum((1, 2, 3)))
    dice = 1 - 2 * both / either.clamp_min(1e-6)
    return entropy + (dice * there).sum() / there.sum().clamp_min(1)


# --- measuring -----------------------------------------------------------------------------------
@torch.inference_mode()
def score(module: PhraseSystem, backbone: Backbone, asked: Asked) -> dict[str, float]:
    """Return a system's figures, NAMES, on scenes that it was not fitted to."""
    module.eval()
    found = Score()
    for at in range(0, len(asked), 8):
        pairs = [(n, k) for n in range(at, min(at + 8, len(asked))) for k in range(len(asked.phrases[n]))]
        chosen, phrases = torch.tensor([n for n, _ in pairs]), [k for _, k in pairs]
        logits = _answer(module, backbone, asked, chosen, phrases)
        size = tuple(asked.instances.shape[-2:])
        lit = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)[:, 0] > 0
        found.add([asked.needs[n][k] for n, k in pairs], lit, asked.masks(chosen, phrases))
    return found.read()


class Score:
    """Gathers answers; every phrase counts the same."""

    def __init__(self) -> None:
        self.ious: list[tuple[frozenset[str], float]] = []
        self.silent: list[bool] = []

    def add(self, needs: Sequence[frozenset[str]], lit: Tensor, mask: Tensor) -> None:
        """Count phrases by the kinds of words they need, with what is lit up and what is meant, [b h w] bool."""
        both, either = ((lit & mask).sum((1, 2)), (lit | mask).sum((1, 2)))
        for kinds, some, b, e in zip(
            needs, mask.flatten(1).any(1).tolist(), both.tolist(), either.tolist(), strict=True
        ):
            if some:
                self.ious.append((kinds, b / e))
            else:
                self.silent.append(e == 0)

    def read(self) -> dict[str, float]:
        """Return every figure of NAMES in percent; one that had nothing to count is nan."""
        ious = [iou for _, iou in self.ious]
        by_word = {name: [iou for kinds, iou in self.ious if name in kinds] for name in WORDS}
        found = [iou >= 0.5 for iou in ious]
        counted = {"iou": ious, "found": found, **by_word, "silent": self.silent}
        return {name: round(100 * fmean(values), 2) if values else float("nan") for name, values in counted.items()}
