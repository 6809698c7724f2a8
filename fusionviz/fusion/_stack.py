"""What methods that stack several levels share: which one is the middle, and what each brings to a convolution."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def middle(count: int) -> int:
    """Return the position of the middle one of `count` levels; of an even number the finer of the two."""
    return (count - 1) // 2


def parts(conv: nn.Conv2d, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return what each of several maps brings to a convolution of their stack: together, with the bias, its result."""
    kernels = conv.weight.split([m.shape[1] for m in maps], 1)
    return tuple(F.conv2d(m, k, padding=conv.padding) for m, k in zip(maps, kernels, strict=True))


def low_and_rest(conv: nn.Conv2d, maps: Sequence[Tensor], low: int = 0) -> tuple[Tensor, Tensor]:
    """Return what one of the maps, the first, brings to a convolution of the stack, and what all others bring."""
    rest = list(parts(conv, maps))
    return rest.pop(low), sum(rest[1:], rest[0])


def alone_and_rest(maps: Sequence[Tensor], low: int = 0) -> tuple[Tensor, Tensor]:
    """Return the stack with only one of its maps, the first, and the stack without it: their sum is the stack."""
    alone = [m if i == low else torch.zeros_like(m) for i, m in enumerate(maps)]
    return torch.cat(alone, 1), torch.cat([m - a for m, a in zip(maps, alone, strict=True)], 1)


def listed(terms: Sequence[str]) -> str:
    """Return the TeX of a stack, `[A;\\,B;\\,C]`; of more than three only the first and the last are named."""
    shown = list(terms) if len(terms) <= 3 else [terms[0], r"\ldots", terms[-1]]
    return "[" + r";\,".join(shown) + "]"
