"""What methods over a whole pyramid share: enlarging with learned kernels, shrinking, meeting at one size."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionviz.fusion._base import TransposedResize, resize
from fusionviz.registry import Param
from fusionviz.trace import NullTrace

WIDTH = Param("width", 256, low=4, high=1024, step=4, refit=True)
KERNELS = {"transposed2": 2, "transposed3": 3, "transposed4": 4}
UPSAMPLE = Param("upsample", "nearest", choices=("nearest", "bilinear", "transposed", *KERNELS), refit=True)


class EvenKernel(nn.Module):
    """A depthwise transposed convolution that starts with equal weights: where its windows overlap, it shows.

    For a factor of 2 its kernel has 2, 3 or 4 taps a side, for another factor as many times more. With 2 every
    output cell hears one input, and it is nearest; with 4 every one hears four, and all alike; with 3 they hear 1, 2
    or 4 in turn, which draws a checkerboard on a map without any. The weights start so that a constant map keeps its
    mean.
    """

    def __init__(self, channels: int, factor: int, kernel: int) -> None:
        super().__init__()
        self.factor = factor
        taps = kernel * factor // 2
        self.weight = nn.Parameter(torch.full((channels, 1, taps, taps), (factor / taps) ** 2))

    def forward(self, tensor: Tensor, size: tuple[int, int]) -> Tensor:
        r, taps = self.factor, self.weight.shape[-1]
        padded = F.pad(tensor, (1, 1, 1, 1), mode="replicate")  # else the border would hear fewer inputs
        out = F.conv_transpose2d(padded, self.weight, stride=r, groups=tensor.shape[1])
        start = r + (taps - r + 1) // 2
        out = out[..., start : start + r * tensor.shape[-2], start : start + r * tensor.shape[-1]]
        missing = [max(0, want - have) for want, have in zip(size, out.shape[-2:], strict=True)]
        out = F.pad(out, (0, missing[1], 0, missing[0]), mode="replicate") if any(missing) else out
        return out[..., : size[0], : size[1]]


def learned_resize(how: str, channels: int, factor: int) -> nn.Module | None:
    """Return what enlarges by `factor`, or None where `how` has nothing to learn: no kernel, or no factor."""
    if factor < 2 or not how.startswith("transposed"):
        return None
    return EvenKernel(channels, factor, KERNELS[how]) if how in KERNELS else TransposedResize(channels, factor)


def plain(how: str) -> str:
    """The resize without weights nearest to `how`: what a kernel that has nothing to learn would start as."""
    return "nearest" if how in ("nearest", "transposed2") else "bilinear"


def fitted(tensor: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a map that a stride has brought to nearly [b c *size] at exactly that size."""
    return tensor if tuple(tensor.shape[-2:]) == tuple(size) else resize(tensor, size, "nearest")


def pooled(tensor: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the maximum over windows of stride + 1, centred on the cells of [b c *size]."""
    steps = [max(1, -(-have // want)) for have, want in zip(tensor.shape[-2:], size, strict=True)]
    if steps == [1, 1]:
        return fitted(tensor, size)
    windows = [s + 1 if s > 1 else 1 for s in steps]
    return fitted(F.max_pool2d(tensor, windows, steps, [w // 2 if w > 1 else 0 for w in windows]), size)


def merge(how: str, levels: Sequence[Tensor], enlarge: str, trace: NullTrace) -> Tensor:
    """Return all levels as one map of the finest one's size: "sum" or "max" [b c h w], or "concat" [b n*c h w].

    Args:
        levels: [b c h_i w_i], fine to coarse.
        enlarge: "nearest" | "bilinear".
    """
    size, large = tuple(levels[0].shape[-2:]), [levels[0]]
    for i, level in enumerate(levels[1:], start=2):
        if tuple(level.shape[-2:]) != size:
            whole = lambda t: resize(t, size, enlarge)  # noqa: E731 - always by size
            level = trace.step(f"whole_{i}", f"resize_{enlarge}", whole, level, formula=rf"\uparrow Z_{{{i}}}")
        large.append(level)  # [b c h w]
    sign, form, op, fn = {
        "sum": ("+", "{}", "add", lambda *maps: torch.stack(maps).sum(0)),
        "max": (r",\,", r"\max({})", "max_levels", lambda *maps: torch.stack(maps).amax(0)),
        "concat": (r";\,", "[{}]", "concat", lambda *maps: torch.cat(maps, 1)),
    }[how]
    names = [f"Z_{{{i + 1}}}" for i in range(len(large))]
    return trace.step("merged", op, fn, *large, formula=form.format(sign.join(names)), role="fused")


def place_of(level: int, channels: Sequence[int]) -> str:
    """Return what a level is called, counted from 1 at the finest: "low" | "middle" | "high"."""
    return {1: "low", len(channels): "high"}.get(level, "middle")
