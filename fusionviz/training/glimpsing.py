"""Training `ram` and `dram` to name the one thing of a scene: answers by cross-entropy, places by REINFORCE.

No gradient runs through a place that was drawn. So its mean is moved towards draws after which the right kind became
likelier than a baseline had expected, and away from the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionviz import scenes
from fusionviz.backbones import bundled
from fusionviz.seeds import seeded
from fusionviz.systems._glimpses import MOST, Glimpses
from fusionviz.training.data import augment, normalise
from fusionviz.training.loop import Progress, advance, optimise, shuffled

WARM_UP = 50


@dataclass(frozen=True)
class Budget:
    """How much is spent.

    Attributes:
        scenes: drawn for training, each with one thing, mirrored and recoloured at random.
        steps: batches of `batch` scenes.
        glimpses: at each of them; there is an answer after every one.
        sigma: how far places are scattered about their means, to find out what is better.
        policy: how much places count in the loss, beside answers.
        left_out: share of scenes whose coarse picture DRAM is not shown: its knob does so too.
        test_scenes: never looked at before they give the numbers on the card.
    """

    scenes: int = 16_000
    steps: int = 12_000
    batch: int = 64
    lr: float = 2e-3
    glimpses: int = MOST
    sigma: float = 0.15
    policy: float = 0.5
    left_out: float = 0.15
    test_scenes: int = 2000


@dataclass(frozen=True)
class Ones:
    """Scenes with one thing each: pictures [n 3 h w] uint8, and positions of their kinds [n]."""

    pictures: Tensor
    kinds: Tensor

    def __len__(self) -> int:
        return len(self.kinds)


def draw(first: int, count: int, size: int = 128) -> Ones:
    """Return the scenes of `count` seeds from `first` on, each with one thing."""
    parts = [
        scenes.batch(range(at, min(at + 64, first + count)), size, objects=1) for at in range(first, first + count, 64)
    ]
    kinds = [labels[0] - 1 for part in parts for labels in part.labels]
    return Ones(torch.cat([part.pictures for part in parts]), torch.tensor(kinds))


def fit(
    module: Glimpses,
    ones: Ones,
    budget: Budget | None = None,
    *,
    look: str = "learned",
    seed: int = 0,
    callback: Callable[[Progress], object] | None = None,
) -> list[float]:
    """Fit a module in place and return the loss of the answers at every step.

    Args:
        look: "learned", or "random" for the network to compare with, whose places are always random.
        seed: of the order of scenes, of their looks, of places, and of the baseline's first numbers.
        callback: called after every step; a true answer ends the fit there.
    """
    budget = budget or Budget()
    generator, losses = torch.Generator().manual_seed(seed), []
    with seeded(seed):
        baseline = nn.Linear(module.next.in_features, 1)
    both = nn.ModuleList((module, baseline))
    optimiser, schedule = optimise(both, budget.lr, budget.steps, min(WARM_UP, budget.steps))
    order = shuffled(len(ones), min(budget.batch, len(ones)), generator)
    for step in range(1, budget.steps + 1):
        module.train()
        chosen = next(order)
        pictures, _ = augment(ones.pictures[chosen].float() / 255, torch.zeros(len(chosen), 1, 1), generator)
        kinds, shape = ones.kinds[chosen], (len(chosen), budget.glimpses, 2)
        draws = torch.rand(shape, generator=generator) * 2 - 1, torch.randn(shape, generator=generator)
        how = {}
        if "context" in module.params:
            how["keep"] = (torch.rand(len(chosen), 1, generator=generator) >= budget.left_out).float()
        picture = normalise(pictures, bundled.PREPROCESSING)
        walk = module.walk(picture, count=budget.glimpses, look=look, sigma=budget.sigma, draws=draws, **how)
        answers = F.cross_entropy(walk.scores.flatten(0, 1), kinds.repeat_interleave(budget.glimpses))
        loss = answers
        if any(walk.decided):
            reward = to_come(right(walk.scores, kinds))  # [b t]
            expected = baseline(walk.states.detach()).squeeze(-1)
            chose = torch.tensor(walk.decided, dtype=torch.float32)
            placed = reinforce(reward - expected, walk.places, walk.means, budget.sigma)
            guess = (reward - expected).square()
            loss = loss + ((budget.policy * placed + guess) * chose).sum() / (len(chosen) * chose.sum())
        advance(loss, both, optimiser, schedule)
        losses.append(answers.item())
        if callback is not None and callback(Progress(step, budget.steps, losses[-1])):
            break
    module.eval()
    return losses


def right(scores: Tensor, kinds: Tensor) -> Tensor:
    """Return the chance of the right answer after each glimpse [b t]: the mean of the paper's reward, 1 if right."""
    chances = scores.detach().softmax(-1)
    return chances.gather(2, kinds[:, None, None].expand(-1, scores.shape[1], 1)).squeeze(-1)


def to_come(rewards: Tensor) -> Tensor:
    """Return for each glimpse the mean reward from it on, [b t]: what came before was not its doing."""
    left = torch.arange(rewards.shape[1], 0, -1, device=rewards.device)
    return rewards.flip(1).cumsum(1).flip(1) / left


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
    found = {}
    told, other = score(learned, ones, look="learned"), score(scattered, ones, look="random")
    for t in counts:
        mine, theirs = told[f"error_{t}"], other[f"error_{t}"]
        found |= {f"learned_{t}": mine, f"random_{t}": theirs, f"ratio_{t}": round(mine / max(theirs, 0.01), 3)}
    return found
