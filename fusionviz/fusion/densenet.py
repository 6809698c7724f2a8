"""DenseNet: every layer of a block is given the maps of all layers before it.

Paper: Huang, Liu, van der Maaten, Weinberger, "Densely Connected Convolutional Networks", CVPR 2017, arXiv 1608.06993,
equation 2 and table 1.
Idea: a sum mixes what was known with what is new, and the next layer cannot take them apart again. A stack keeps both:
features are used again instead of being learned again, so a layer needs to add only k new channels.
Differs from paper: the stack is the network's own, number for number. By default that is all; with `growth` the layer
behind it is built too, BN-ReLU-1x1 to 4k channels and BN-ReLU-3x3 to k as in DenseNet-B, with weights of its own, not
those of the network on the board.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionviz.fusion._base import Context, Fused, FusionModule
from fusionviz.fusion._stack import alone_and_rest, listed, low_and_rest
from fusionviz.registry import FusionSpec, Param, register
from fusionviz.trace import NullTrace

BOTTLENECK = 4

SPEC = FusionSpec(
    key="densenet",
    family="early",
    equation=r"x_{\ell} = H_{\ell}(Z), \quad Z = [x_{0};\, x_{1};\, \ldots;\, x_{\ell-1}]",
    year=2017,
    takes="branches",
    stands="dense",
    align="none",  # maps of one block agree by construction
    params=(Param("growth", 0, low=0, high=64, step=4, refit=True),),
    paper="Huang, Liu, van der Maaten, Weinberger. Densely Connected Convolutional Networks. CVPR 2017",
    link="https://arxiv.org/abs/1608.06993",
    cite="Huang et al., CVPR 2017 · arXiv 1608.06993",
)


@register(SPEC)
class DenseNet(FusionModule):
    """Stack all maps that a block has made so far, and let a thin layer add to them.

    Layer l is given k0 + k (l - 1) channels and adds k, so a block's width grows with its depth.

    Equation: Z = [x_0; ...; x_{l-1}]; with `growth` k > 0 the new map H(Z) = W' relu(bn(W relu(bn(Z)))).
    Args:
        maps: two or more [b c_i h w] of one size, in the order in which they were made.
    Returns:
        FusionResult; fused is Z [b c_0+...+c_{l-1} h w], or the new map [b k h w]. No attention; the share of low is
        the norm of the low map in the sum of this and the norm of all others; with `growth`, of what the 1x1
        convolution makes of each.
    Differs from paper: with `growth` the layer's weights are not the network's.
    Source: arXiv 1608.06993
    """

    inputs = ("x", 0)

    def setup(self, growth: int) -> None:
        self.growth, total = growth, sum(self.channels)
        if growth:
            inner = BOTTLENECK * growth
            self.norm1, self.norm2 = nn.BatchNorm2d(total), nn.BatchNorm2d(inner)
            self.narrow = nn.Conv2d(total, inner, 1, bias=False)
            self.conv = nn.Conv2d(inner, growth, 3, padding=1, bias=False)

    def fuse(self, *maps: Tensor, context: Context, trace: NullTrace) -> Fused:
        names, low = [f"x_{{{i}}}" for i in range(len(maps))], context.ends[0]
        key, role = ("stack", "") if self.growth else ("fused", "fused")
        z = trace.step(key, "concat", lambda *m: torch.cat(m, 1), *maps, formula=listed(names), role=role)
        if not self.growth:
            return Fused(z, terms=lambda: alone_and_rest(maps, low))  # [b c_0+...+c_{l-1} h w]
        heard = trace.step("heard", "norm_relu", lambda t: F.relu(self.norm1(t)), z, module=self.norm1)
        inner = trace.step("narrow", "conv_1x1", self.narrow, heard)  # [b 4k h w]
        inner = trace.step("inner", "norm_relu", lambda t: F.relu(self.norm2(t)), inner, module=self.norm2)
        new = trace.step("fused", "conv", self.conv, inner, formula=r"H_{\ell}(Z)", role="fused")  # [b k h w]
        return Fused(new, terms=lambda: low_and_rest(self.narrow, heard.split(self.channels, 1), low))
