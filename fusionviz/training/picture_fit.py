"""The fit to one picture, without labels: a method learns to choose between two levels of the picture that it shows.

Both levels are brought to a few channels by fixed projections, so that the method cannot hand each level channels of
its own and must choose. Then the gate learns to make a fused map Z from which one linear reading recovers the low level
and another the high level, as well as both can be had at once. A balance between *detail* and *meaning* says which
matters:

    loss = (1 - balance) * detail^2 + balance * meaning^2 + a little pull of the weight towards 1 - balance
    detail  = what the best linear reading of Z misses of X, counted where the low level changes
    meaning = what the best linear reading of Z misses of Y, counted where the low level is even

That a gate draws edges under such a loss is what the loss asks for, not what a network knows. Squares, because with
plain errors a share of one level costs what the same share of the other gives, and a weight would jump from 1 to 0 at a
balance of 1/2.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionviz import fusion
from fusionviz.fusion import Context, FusionModule
from fusionviz.records import AttentionMap, FeatureMap, Provenance
from fusionviz.trace import NullTrace

BALANCES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
"""From detail to meaning; finer at the ends, where the weight falls most steeply."""
WIDTH, MOST_WIDTH = 24, 64
"""Channels in which the levels meet where nobody says otherwise, and the most for which a fit still takes a moment."""
SIDE = 32
"""A gate sees one cell at a time, so it is fitted on every n-th row and column: at most this many of each."""
WHITEN = 0.8
"""How far the principal components are brought to one size: 0 not at all, 1 wholly."""
EVEN = 0.3
"""How even a place must be to count for the meaning, in mean changes of the low level."""
RIDGE = 1e-3
PULL = 0.02
"""How much a weight is drawn to 1 - balance: it decides where both levels read equally well from either."""
STEPS, MORE_STEPS = 40, 20
"""Iterations in the middle of the balance, and from each balance to the next."""
EDGES, FLAT = 0.15, 0.4
"""The shares of places whose mean weight is told: those with the strongest edges, and the flattest."""


def balances(level: FeatureMap) -> tuple[float, ...]:
    """Return the balances to fit for a low level: fewer for large maps, of which each takes its memory."""
    cells = level.size[0] * level.size[1]
    return BALANCES[:: 1 if cells <= 2**14 else 2 if cells <= 2**16 else 3]


def width(channels: tuple[int, int]) -> int:
    """Return in how many channels two levels meet: a projection has no more directions than a level has channels."""
    return max(4, min(WIDTH, *channels) // 4 * 4)


@torch.inference_mode(False)
@torch.enable_grad()
def fit(
    method: FusionModule, low: FeatureMap, high: FeatureMap, values: tuple[float, ...] = BALANCES
) -> tuple[FusionModule, ...]:
    """Return copies of a method, one fitted to the picture of these levels for each balance.

    Runs on the CPU in one order, so the same method gives the same numbers; only the gate's first numbers are drawn,
    from the method's seed. Live knobs stand at their defaults meanwhile and take effect on what was fitted, as they do
    on a trained method: the fit would undo a temperature.

    Args:
        method: built with `align="project"`; it stays as it is.
        low, high: one picture's levels [1 c h w], of any device; they stay as they are.
        values: rising, 0.5 among them.
    """
    live = {p.key: p.default for p in method.spec.params if not p.refit}
    params = {**method.params, **live}
    start = fusion.build(
        method.spec.key, method.channels, method.strides, align=method.align, seed=method.seed, **params
    )
    start.alignment.requires_grad_(False)
    maps = [level.tensor.detach().to("cpu", torch.float32, copy=True) for level in (low, high)]
    with torch.no_grad():
        x, y = _project(start, *maps)  # [1 w h w'] both
        change = _change(x)  # [1 1 h w']
    problem = _Problem(*(_thin(t) for t in (x, y, change)))
    middle, found = values.index(0.5), {}
    problem.solve(start, 0.5, STEPS)
    found[0.5] = start
    for side in (values[middle + 1 :], values[:middle][::-1]):
        last = start
        for value in side:  # from a neighbour it is a short way, and the nearest of several solutions is taken
            last = found[value] = copy.deepcopy(last)
            problem.solve(last, value, MORE_STEPS)
    return tuple(_filled(method, found[value], value) for value in values)


def _filled(method: FusionModule, fitted: FusionModule, balance: float) -> FusionModule:
    module = copy.deepcopy(method).requires_grad_(False)
    module.load_state_dict(fitted.state_dict())
    module.trained = Provenance("fitted", f"this picture, balance {balance:g}")
    return module


class _Problem:
    """What is recovered from the fused map, and where it counts."""

    def __init__(self, x: Tensor, y: Tensor, change: Tensor) -> None:
        self.x, self.y = x, y
        weights = (change + 1e-6, 1 / (change + EVEN))
        self.targets = [(t[0].flatten(1), (w / w.sum()).flatten()) for t, w in zip((x, y), weights, strict=True)]

    def solve(self, module: FusionModule, balance: float, steps: int) -> None:
        """Fit a method's own numbers in place; the whole picture is the batch, so the steps can be Newton's."""
        learned = [p for p in module.parameters() if p.requires_grad]
        optimiser = torch.optim.LBFGS(learned, 1.0, steps, history_size=10, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimiser.zero_grad()
            fused = module.fuse(self.x, self.y, context=Context(), trace=NullTrace())
            z = fused.tensor[0].flatten(1)  # [w cells]
            detail, meaning = (_missed(z, target, weight) for target, weight in self.targets)
            low = _of_low(next(a for a in fused.attention if a.name == module.spec.weighs))
            total = (1 - balance) * detail**2 + balance * meaning**2 + PULL * (low - (1 - balance)).square().mean()
            total.backward()
            return total

        optimiser.step(loss)


def _missed(z: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return the share of a target [k n] that the best linear reading of z [w n] cannot recover; `weight` sums to 1."""
    z = z - (z * weight).sum(1, keepdim=True)
    target = target - (target * weight).sum(1, keepdim=True)
    with torch.no_grad():  # at the best reading a change of the reading changes nothing, so it needs no gradient
        within = (z * weight) @ z.T
        within += RIDGE * within.diagonal().mean().clamp_min(1e-9) * torch.eye(len(within))
        reading = torch.linalg.solve(within, (z * weight) @ target.T).T  # [k w]
    left = (reading @ z - target).square() * weight
    return left.sum() / (target.square() * weight).sum().clamp_min(1e-9)


def _project(module: FusionModule, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Fill the projections with principal components, both maps at one scale where they meet, and return the maps."""
    alignment = module.alignment
    for name, level in (("low", low), ("high", high)):
        weight, mean = _components(level, alignment.channels[0])
        _fill(alignment, name, weight, mean)
    met = alignment(low, high, NullTrace())
    for name, level, tensor in zip(("low", "high"), (low, high), met, strict=True):
        weight, mean = _components(level, alignment.channels[0])
        _fill(alignment, name, weight / tensor.square().mean().sqrt().clamp_min(1e-9), mean)
    return alignment(low, high, NullTrace())


def _components(level: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return principal components [count c], softly whitened, and the mean [c] of a level [1 c h w]."""
    cells = _thin(level)[0].flatten(1)  # [c n]
    mean = cells.mean(1)
    directions, sizes, _ = torch.linalg.svd(cells - mean[:, None], full_matrices=False)
    directions, sizes = directions[:, :count].T, sizes[:count]  # [k c]
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    directions = directions * largest.sign()  # a direction has no sign of its own: each takes that of its largest entry
    scale = (sizes / sizes[0].clamp_min(1e-9)).clamp_min(1e-3) ** -WHITEN
    return F.pad(directions * scale[:, None], (0, 0, 0, count - len(sizes))), mean


def _fill(alignment: nn.Module, name: str, weight: Tensor, mean: Tensor) -> None:
    project, norm = getattr(alignment, f"{name}_project"), getattr(alignment, f"{name}_norm")
    project.weight.copy_(weight[:, :, None, None])
    if norm is None:
        project.bias.copy_(-weight @ mean)
    else:  # a projection before a batch norm has no bias: the norm takes the mean away
        norm.running_mean.copy_(weight @ mean)


def _thin(tensor: Tensor) -> Tensor:
    """Return every n-th row and column of [b c h w], at most SIDE of each."""
    rows, columns = (-(-n // SIDE) for n in tensor.shape[-2:])
    return tensor[..., ::rows, ::columns].contiguous()


def _change(x: Tensor) -> Tensor:
    """Return [1 1 h w]: how much a map [1 c h w] changes around each place, in mean changes."""
    down, right = F.pad(x.diff(dim=2), (0, 0, 0, 1)), F.pad(x.diff(dim=3), (0, 1))
    squared = (down.square() + right.square()).sum(1, keepdim=True)
    around = F.avg_pool2d(F.pad(squared, (1, 1, 1, 1), mode="replicate"), 3, 1).sqrt()
    return around / around.mean().clamp_min(1e-9)


# --- what came out -------------------------------------------------------------------------------
def edges(picture: Tensor, level: FeatureMap) -> Tensor:
    """Return how strong the picture's edges are at a level's cells, [h w].

    Args:
        picture: the network's input [1 3 H W].
    """
    grey = picture.detach().float().cpu().mean(1, keepdim=True)
    down, right = F.pad(grey.diff(dim=2), (0, 0, 0, 1)), F.pad(grey.diff(dim=3), (0, 1))
    around = [max(1, round(s)) // 2 * 2 + 1 for s in level.stride]  # odd, so that it has a middle
    strength = (down.square() + right.square()).sqrt()
    strength = F.avg_pool2d(strength, around, 1, [a // 2 for a in around], count_include_pad=False)[0, 0]
    rows, columns = (
        (offset + stride * torch.arange(n)).long().clamp(0, side - 1)
        for offset, stride, n, side in zip(level.offset, level.stride, level.size, strength.shape, strict=True)
    )
    return strength[rows][:, columns]


def measure(weight: AttentionMap, edges: Tensor) -> dict[str, float]:
    """Return the mean weight of low and, where it has places, its mean on the strongest edges and the flattest places.

    Args:
        weight: of the low level, one picture.
        edges: their strength at the weight's places [h w].
    """
    value = _of_low(weight).detach().float().cpu()
    found = {"mean": value.mean().item()}
    if weight.grain in ("place", "element"):
        places = value[0].mean(0).flatten()[edges.flatten().argsort(stable=True)]
        found["edges"] = places[-max(1, round(EDGES * len(places))) :].mean().item()
        found["flat"] = places[: max(1, round(FLAT * len(places)))].mean().item()
    return found


def _of_low(weight: AttentionMap) -> Tensor:
    """Return the low level's part of a weight: the first branch, where there are branches."""
    return weight.tensor[:, :1] if "n" in weight.axes.split() else weight.tensor
