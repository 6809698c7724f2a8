"""Concatenation: both maps stand one behind the other, and the next layer decides what to do with them.

Paper: Ronneberger, Fischer, Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI 2015,
arXiv 1505.04597, whose decoder meets its encoder so. Older literature calls it serial fusion.
Idea: lose nothing and choose nothing. A 1x1 convolution behind it is a sum of two: W [X; Y] = W_A X + W_B Y, so
addition is the special case W_A = W_B = 1, and |W_A| against |W_B| tells which level is listened to.
Differs from paper: there the larger map is cropped to the smaller and two 3x3 convolutions follow; here the high
level is resized, and `reduce` adds one 1x1 convolution, without a bias, which would belong to neither level.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionviz.fusion._base import RESIZE, Context, Fused, FusionModule
from fusionviz.registry import FusionSpec, Param, register
from fusionviz.trace import NullTrace

SPEC = FusionSpec(
    key="concat",
    family="basic",
    equation=r"Z = [X; Y]",
    year=2015,
    align="size",
    params=(Param("reduce", 0, low=0, high=1024, step=8, refit=True), RESIZE),
    paper="Ronneberger, Fischer, Brox. U-Net: Convolutional Networks for Biomedical Image Segmentation. MICCAI 2015",
    link="https://arxiv.org/abs/1505.04597",
    cite="Ronneberger et al., MICCAI 2015 · arXiv 1505.04597",
)


@register(SPEC)
class Concat(FusionModule):
    """Put the channels of one map behind those of the other.

    Helps where the two say different things; costs p + q channels in the next layer. Without normalisation the
    level with the larger numbers is heard most.

    Equation: Z = [X; Y], with `reduce` Z = W [X; Y] = W_A X + W_B Y.
    Args:
        low, high: maps [b p h w] and [b q h w] of one size; p and q may differ.
    Returns:
        FusionResult; fused is [b p+q h w], its first p channels exactly X; with `reduce` [b reduce h w]. No
        attention; the share of low is |X| / (|X| + |Y|), with `reduce` |W_A X| / (|W_A X| + |W_B Y|).
    Source: arXiv 1505.04597
    """

    def setup(self, reduce: int) -> None:
        self.low_channels = self.alignment.channels[0]
        self.reduce = nn.Conv2d(sum(self.alignment.channels), reduce, 1, bias=False) if reduce else None

    def fuse(self, x: Tensor, y: Tensor, *, context: Context, trace: NullTrace) -> Fused:
        key, role = ("fused", "fused") if self.reduce is None else ("concat", "")
        z = trace.step(key, "concat", self._stack, x, y, formula="[X;Y]", role=role)  # [b p+q h w]
        if self.reduce is not None:
            z = trace.step("fused", "project", self.reduce, z, formula="W[X;Y]", role="fused")  # [b reduce h w]
        return Fused(z, terms=lambda: self._terms(x, y))

    @staticmethod
    def _stack(x: Tensor, y: Tensor) -> Tensor:
        return torch.cat((x, y), 1)

    def _terms(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The two maps whose sum is Z: W_A X and W_B Y, or [X; 0] and [0; Y]."""
        p, q = x.shape[1], y.shape[1]
        if self.reduce is None:
            return F.pad(x, (0, 0, 0, 0, 0, q)), F.pad(y, (0, 0, 0, 0, p, 0))
        weight = self.reduce.weight  # [reduce p+q 1 1]
        return F.conv2d(x, weight[:, :p]), F.conv2d(y, weight[:, p:])
