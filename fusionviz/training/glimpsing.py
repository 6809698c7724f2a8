"""Training `ram` and `dram` to name the one thing of a scene: answers by cross-entropy, places by REINFORCE.

No gradient runs through a place that was drawn. So its mean is moved towards draws after which the right kind became
likelier than a baseline had expected, and away from the others. Who cannot tell a tree from a house learns nothing
from looking at it, so lessons come first: the eye, which begins as the first layers of the shipped network, learns to
tell from each window alone what is in it and where. It is left as it is while the walk is learned, and learns with the
rest in further rounds. The state also has to tell where the thing is, through a layer that is thrown away. Where to
look is told to nobody: that is REINFORCE's alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionviz import pack, scenes
from fusionviz.backbones import Backbone, bundled
from fusionviz.seeds import seeded
from fusionviz.systems._glimpses import FEATURES, MOST, SIDES, Glimpses, Walk, retina
from fusionviz.systems._glimpses import eye as first_layers
from fusionviz.training.data import FROZEN_FROM, TEST, normalise
from fusionviz.training.loop import Progress, advance, optimise, shuffled
from fusionviz.training.packing import as_shipped

WARM_UP = 50
HEIGHTS = (12.0, 48.0)
"""Of the things, in scene units."""
UNSEEN = TEST + 500_000
"""First seed of the scenes that give the figures: how often RAM goes on was chosen by a look at those of TEST."""
_CHUNK = 64


@dataclass(frozen=True)
class Budget:
    """How much is spent.

    Attributes:
        scenes: drawn for training, each with one thing, mirrored and recoloured at random.
        lessons: batches of `batch` scenes by which the eye learns to see.
        steps: as many after them, by which the rest learns to look.
        rounds: how often it goes on after them; the eye then learns with the rest, from the places that it is led to.
        again: batches in each of these rounds, with 0.6 of the learning rate and of the scatter.
        glimpses: at most; each batch has from two to as many, and there is an answer after every one.
        sigma: how far places are scattered about their means at first, to find out what is better.
        still: the same at the end; it falls evenly.
        pointed: how much it counts in the loss whether the state tells where the thing is; see the head.
        policy: how much places count in the loss, beside answers.
        fade: how much the reward of each further glimpse counts, beside that of the one before.
        left_out: share of scenes whose coarse picture DRAM is not shown: its knob does so too.
        test_scenes: never looked at before they give the numbers on the card.
    """

    scenes: int = 8192
    lessons: int = 900
    steps: int = 1500
    rounds: int = 0
    again: int = 700
    batch: int = 64
    lr: float = 3e-3
    glimpses: int = MOST
    sigma: float = 0.3
    still: float = 0.1
    pointed: float = 3.0
    policy: float = 0.3
    fade: float = 0.5
    left_out: float = 0.15
    test_scenes: int = 2000

    @property
    def total(self) -> int:
        """Batches in all."""
        return self.lessons + self.steps + self.rounds * self.again


BUDGETS = {"ram": Budget(rounds=2), "dram": Budget()}
"""RAM's first look is blind, so that it has a longer way to go."""
QUICK = Budget(scenes=32, lessons=4, steps=4, rounds=1, again=2, batch=8, glimpses=2, test_scenes=8)


@dataclass(frozen=True)
class Ones:
    """Scenes with one thing each: pictures [n 3 h w] uint8, positions of their kinds [n], and where the things are.

    `middles` [n 2] are (y, x) from -1 to 1, as places are.
    """

    pictures: Tensor
    kinds: Tensor
    middles: Tensor

    def __len__(self) -> int:
        return len(self.kinds)


def draw(first: int, count: int, size: int = 128) -> Ones:
    """Return `count` scenes from a seed on, with one thing each of a height within HEIGHTS; other seeds are left out.

    What is large shows in every window, and what is tiny in none.
    """
    pictures, kinds, middles, at = [], [], [], first
    while len(kinds) < count:
        part = scenes.batch(range(at, at + _CHUNK), size, objects=1)
        at += _CHUNK
        for picture, (look,) in zip(part.pictures, part.looks, strict=True):
            if HEIGHTS[0] <= look.height < HEIGHTS[1] and len(kinds) < count:
                pictures.append(picture)
                kinds.append(scenes.KINDS.index(look.kind))
                middles.append((look.y, look.x))
    return Ones(torch.stack(pictures), torch.tensor(kinds), torch.tensor(middles) / (scenes.SIZE / 2) - 1)


def prepare(backbone: Backbone, budget: Budget) -> tuple[Ones, Ones]:
    """Return what they are fitted on, and what they are measured on; `backbone` sees none of it."""
    return draw(FROZEN_FROM, budget.scenes), draw(UNSEEN, budget.test_scenes)


def run(
    module: Glimpses,
    backbone: Backbone,
    data: tuple[Ones, Ones],
    *,
    budget: Budget | None = None,
    seed: int = 0,
    callback: Callable[[Progress], object] | None = None,
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Fit a module, round its numbers as they ship, and return its figures, and the curves behind them.

    A second network is fitted by the same budget at random places, to compare with; it is not kept. The curves are the
    errors after each number of glimpses, of "learned" and "random", see `score`.

    Args:
        budget: by default that of `BUDGETS`.
    """
    budget = budget or BUDGETS[module.spec.key]
    (train, test), curves = data, {}
    open_eye(module)
    teach(module, train, budget, seed=seed, callback=callback)
    taught, first = copy.deepcopy(module.state_dict()), replace(budget, lessons=0)
    lower = {name: 0.6 * getattr(budget, name) for name in ("lr", "sigma", "still")}
    further = replace(first, steps=budget.again, **lower)
    for look in ("random", "learned"):
        module.load_state_dict(taught)
        fit(module, train, first, look=look, seed=seed, callback=callback)
        for n in range(1, 1 + budget.rounds):
            fit(module, train, further, look=look, seed=seed + n, eye=True, callback=callback)
        curves[look] = score(as_shipped(module), test, look=look, seed=seed)
    figures = versus(curves["learned"], curves["random"])
    return {name: v for name, v in figures.items() if not name.startswith("ratio")}, curves


def teach(
    module: Glimpses,
    ones: Ones,
    budget: Budget,
    *,
    seed: int = 0,
    callback: Callable[[Progress], object] | None = None,
) -> list[float]:
    """Teach the eye in place and return the loss of every step: is a thing in a window, of which kind, and where?

    Each window tells by itself, through a layer that is thrown away.
    """
    generator, losses = torch.Generator().manual_seed(seed), []
    sees = module.glimpse.see, module.glimpse.settle
    with seeded(seed):
        telling = nn.Linear(FEATURES, 3 + len(scenes.KINDS))
    both = nn.ModuleList((*sees, telling)).train()
    optimiser, schedule = optimise(both, budget.lr, budget.lessons, min(WARM_UP, budget.lessons))
    order = shuffled(len(ones), min(budget.batch, len(ones)), generator)
    for step in range(1, budget.lessons + 1):
        chosen = next(order)
        pictures, middles = varied(ones.pictures[chosen], ones.middles[chosen], generator)
        picture, kinds = normalise(pictures, bundled.PREPROCESSING), ones.kinds[chosen]
        reach = 0.05 * 16 ** torch.rand(len(chosen), 1, generator=generator)  # near for the sharp windows, far for all
        place = (middles + reach * torch.randn(len(chosen), 2, generator=generator)).clamp(-1, 1)
        windows = torch.cat([retina(picture, place, k) for k, _ in enumerate(SIDES)])
        told = telling(sees[1](sees[0](windows))).unflatten(0, (len(SIDES), -1))  # [k b 12]
        sides = torch.tensor(SIDES)[:, None, None] / picture.shape[-1]
        off = (middles - place) / sides  # [k b 2], from -1 to 1 inside
        inside = off.abs().amax(-1) < 1
        loss = F.binary_cross_entropy_with_logits(told[..., 0], inside.float())
        if inside.any():
            loss = loss + F.cross_entropy(told[inside][:, 3:], kinds.expand(len(SIDES), -1)[inside])
            loss = loss + 3 * (torch.tanh(told[inside][:, 1:3]) - off[inside]).square().mean()
        advance(loss, both, optimiser, schedule)
        losses.append(loss.item())
        if callback is not None and callback(Progress(step, budget.lessons, losses[-1])):
            break
    module.eval()
    return losses


def fit(
    module: Glimpses,
    ones: Ones,
    budget: Budget | None = None,
    *,
    look: str = "learned",
    seed: int = 0,
    eye: bool = False,
    callback: Callable[[Progress], object] | None = None,
) -> list[float]:
    """Fit a module in place and return the loss of the answers at every step.

    Args:
        look: "learned", or "random" for the network to compare with, whose places are always random.
        seed: of the order of scenes, of their looks, of places, and of the baseline's first numbers.
        eye: whether the eye goes on learning; its BatchNorm keeps to what it knows.
        callback: called after every step; a true answer ends the fit there.
    """
    budget = budget or Budget()
    if budget.lessons:
        teach(module, ones, budget, seed=seed)
    generator, losses = torch.Generator().manual_seed(seed), []
    with seeded(seed):
        baseline, pointing = (nn.Linear(module.next.in_features + n, m) for n, m in ((1, 1), (0, 2)))
    both = nn.ModuleList((module, baseline, pointing))
    optimiser, schedule = optimise(both, budget.lr, budget.steps, min(WARM_UP, budget.steps))
    order = shuffled(len(ones), min(budget.batch, len(ones)), generator)
    for step in range(1, budget.steps + 1):
        chosen = next(order)
        module.train()
        for part in (module.glimpse.see, module.glimpse.settle):
            part.eval().requires_grad_(eye)
        pictures, middles = varied(ones.pictures[chosen], ones.middles[chosen], generator)
        picture = normalise(pictures, bundled.PREPROCESSING)
        count = int(torch.randint(min(2, budget.glimpses), budget.glimpses + 1, (), generator=generator))
        kinds, shape = ones.kinds[chosen], (len(chosen), count, 2)
        uniform, normal = torch.rand(shape, generator=generator) * 2 - 1, torch.randn(shape, generator=generator)
        how = {}
        if "context" in module.params:
            how["keep"] = (torch.rand(len(chosen), 1, generator=generator) >= budget.left_out).float()
        sigma = budget.sigma + (budget.still - budget.sigma) * step / budget.steps
        walk = module.walk(picture, count=count, look=look, sigma=sigma, draws=(uniform, normal), **how)
        answers = F.cross_entropy(walk.scores.flatten(0, 1), kinds.repeat_interleave(count))
        pointed = torch.tanh(pointing(walk.states))  # [b t 2]
        loss = answers + budget.pointed * (pointed - middles[:, None]).square().mean()
        if any(walk.decided):
            loss = loss + _aimed(walk, kinds, baseline, sigma, budget)
        advance(loss, both, optimiser, schedule)
        losses.append(answers.item())
        if callback is not None and callback(Progress(step, budget.steps, losses[-1])):
            break
    module.requires_grad_(True).eval()
    return losses


def _aimed(walk: Walk, kinds: Tensor, baseline: nn.Module, sigma: float, budget: Budget) -> Tensor:
    """Return the loss of the places that a network chose, and of the baseline that knew what to expect of them."""
    chances = right(walk.scores, kinds)
    reward = to_come(chances, budget.fade)  # [b t]
    # What the answer was worth before the glimpse is no doing of its place, so the baseline may know it.
    before = torch.cat((torch.full_like(chances[:, :1], 1 / walk.scores.shape[2]), chances[:, :-1]), 1)
    expected = baseline(torch.cat((walk.states.detach(), before[..., None]), 2)).squeeze(-1)
    advantage = reward - expected.detach()
    chose = torch.tensor(walk.decided)
    advantage = advantage / advantage[:, chose].std().clamp_min(1e-3)
    placed = reinforce(advantage, walk.places, walk.means, sigma)
    return (budget.policy * placed + (reward - expected).square())[:, chose].mean()


def open_eye(module: Glimpses) -> None:
    """Let a module see as the shipped network does in its first layers; it goes on learning from there."""
    network = bundled.build("scene_resnet")
    network.load_state_dict(pack.backbone_state("scene_resnet"))
    module.glimpse.see.load_state_dict(first_layers(network).state_dict())


def varied(pictures: Tensor, middles: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return pictures [b 3 h w] uint8, mirrored, with channels in another order and as negatives at random.

    And the middles of their things [b 2], mirrored with them.
    """
    b = len(pictures)
    flip, negative = torch.rand(2, b, generator=generator)
    flip, negative = flip < 0.5, negative < 0.3
    order = torch.rand(b, 3, generator=generator).argsort(1)
    pictures = pictures[torch.arange(b)[:, None], order]
    pictures = torch.where(flip.view(-1, 1, 1, 1), pictures.flip(-1), pictures)
    middles = torch.stack((middles[:, 0], torch.where(flip, -middles[:, 1], middles[:, 1])), 1)
    return torch.where(negative.view(-1, 1, 1, 1), 255 - pictures, pictures), middles


def right(scores: Tensor, kinds: Tensor) -> Tensor:
    """Return the chance of the right answer after each glimpse [b t]: the mean of the paper's reward, 1 if right."""
    chances = scores.detach().softmax(-1)
    return chances.gather(2, kinds[:, None, None].expand(-1, scores.shape[1], 1)).squeeze(-1)


def to_come(rewards: Tensor, fade: float = 1.0) -> Tensor:
    """Return for each glimpse the mean reward from it on, [b t]: what came before was not its doing.

    Args:
        rewards: after each glimpse [b t].
        fade: weight of each further reward, beside the one before.
    """
    total, weight, found = 0.0, 0.0, []
    for reward in reversed(rewards.unbind(1)):
        total, weight = reward + fade * total, 1 + fade * weight
        found.append(total / weight)
    return torch.stack(found[::-1], 1)


def reinforce(advantage: Tensor, places: Tensor, means: Tensor, sigma: float) -> Tensor:
    """Return -(R - b) log N(l; mu, sigma^2) up to a constant, [b t]; its gradient reaches the means alone.

    Args:
        advantage: reward less baseline [b t].
        places, means: [b t 2].
    """
    log = -(places.detach() - means).square().sum(-1) / (2 * sigma**2)
    return -advantage.detach() * log


@torch.no_grad()
def score(module: Glimpses, ones: Ones, *, look: str | None = None, seed: int = 0) -> dict[str, float]:
    """Return the error after each number of glimpses, in percent: "error_1" ... "error_8".

    Args:
        look: in the place of the module's knob.
        seed: of random places, each picture's own.
    """
    module.eval()
    generator, wrong = torch.Generator().manual_seed(seed), torch.zeros(MOST)
    for part in torch.arange(len(ones)).split(64):
        uniform = torch.rand(len(part), MOST, 2, generator=generator) * 2 - 1
        draws = uniform, torch.randn(len(part), MOST, 2, generator=generator)
        picture = normalise(ones.pictures[part], bundled.PREPROCESSING)
        walk = module.walk(picture, count=MOST, look=look, draws=draws)
        wrong += errors(walk.scores, ones.kinds[part])
    return {f"error_{t}": round(100 * float(n) / len(ones), 2) for t, n in enumerate(wrong, 1)}


def errors(scores: Tensor, kinds: Tensor) -> Tensor:
    """Return how many answers are wrong after each glimpse, [t] of scores [b t kinds]."""
    return (scores.argmax(-1) != kinds[:, None]).float().sum(0)


def compare(
    learned: Glimpses, scattered: Glimpses, ones: Ones, counts: Sequence[int] = (2, 4, 6, 8)
) -> dict[str, float]:
    """Return errors of two networks, one that chose its places and one that was trained at random ones, in percent.

    "learned_6", "random_6" are errors after six glimpses, "ratio_6" is the first by the second, no percentage.
    """
    return versus(score(learned, ones, look="learned"), score(scattered, ones, look="random"), counts)


def versus(
    learned: Mapping[str, float], scattered: Mapping[str, float], counts: Sequence[int] = (2, 4, 6, 8)
) -> dict[str, float]:
    """Return what `compare` does, from both networks' errors as `score` gives them."""
    found = {}
    for t in counts:
        mine, theirs = learned[f"error_{t}"], scattered[f"error_{t}"]
        found |= {f"learned_{t}": mine, f"random_{t}": theirs, f"ratio_{t}": round(mine / max(theirs, 0.01), 3)}
    return found
