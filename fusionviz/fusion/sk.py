"""SK, selective kernel attention: for every channel a whole is shared out between two branches.

Paper: Li, Wang, Hu, Yang, "Selective Kernel Networks", CVPR 2019, arXiv 1903.06586.
Idea: add the branches, squeeze the sum to its means, let a bottleneck read them, and give every channel a softmax over
the branches. SE scales channels one by one; here the branches compete for each of them.
Differs from paper: there the branches are a 3x3 and a 5x5 convolution of one map, so the choice is between sizes of
view; here they are two levels, whose views differ by depth, so Split is the backbone's and only Fuse and Select are
here. As a level stands on its own, no convolution is put before it.
Differs from timm: nothing in the attention. Its SelectiveKernel layer, around it, splits the input's channels between
the branches, and rounds the bottleneck to a multiple of 8.
"""

import torch
from torch import Tensor, nn

from fusionviz.fusion._base import ALIGN, Context, Fused, FusionModule
from fusionviz.fusion.se import REDUCTION
from fusionviz.records import AttentionMap
from fusionviz.registry import FusionSpec, Param, register
from fusionviz.trace import NullTrace

SPEC = FusionSpec(
    key="sk",
    family="select",
    equation=r"Z = a \otimes X + b \otimes Y, \quad (a, b) = \mathrm{softmax}(A\,v, B\,v), "
    r"\quad v = \delta(\mathrm{BN}(W\,\mathrm{GAP}(X+Y)))",
    year=2019,
    params=(REDUCTION, Param("L", 32, choices=(4, 8, 16, 32, 64), refit=True), *ALIGN),
    paper="Li, Wang, Hu, Yang. Selective Kernel Networks. CVPR 2019",
    link="https://arxiv.org/abs/1903.06586",
    cite="Li et al., CVPR 2019 · arXiv 1903.06586",
    weighs="low",
    arithmetic=r"{z} = {low} · {x} + (1 − {low}) · {y}",
)


@register(SPEC)
class SK(FusionModule):
    """Let the whole picture decide, channel by channel, how much of each level it gets.

    Between softmax2, which has one pair of weights for all channels, and AFF, which has one for every element. Like
    every gate behind a mean it cannot take an edge from one level and a surface from the other.

    Equation: Z = a * X + b * Y, a + b = 1; a = e^(A v) / (e^(A v) + e^(B v)), v = relu(BN(W GAP(X + Y))) of d numbers,
    d = max(c / r, L).
    Args:
        low, high: aligned maps [b c h w], the paper's two branches.
    Returns:
        FusionResult; fused is [b c h w], between X and Y everywhere; attention "low" is a, [b c 1 1] in (0, 1); high
        has b = 1 - a.
    Raises:
        ShapeError: in training with a batch of one; give two pictures, or use eval mode.
    Differs from paper: the branches are levels, not kernels.
    Source: arXiv 1903.06586
    """

    pools_to_one = True

    def setup(self, r: int, L: int) -> None:  # noqa: N803 - the paper's name
        c = self.alignment.channels[0]
        d = max(c // r, L)
        self.reduce = nn.Sequential(nn.Conv2d(c, d, 1, bias=False), nn.BatchNorm2d(d), nn.ReLU())
        self.choose = nn.Conv2d(d, 2 * c, 1, bias=False)  # A above B

    def fuse(self, x: Tensor, y: Tensor, *, context: Context, trace: NullTrace) -> Fused:
        u = trace.step("sum", "add", torch.add, x, y, formula="U=X+Y")  # [b c h w]
        mean = lambda t: t.mean((2, 3), keepdim=True)  # noqa: E731 - both branches at once, and no places
        g = trace.step("squeeze", "pool", mean, u, formula=r"g=\mathrm{GAP}(U)")  # [b c 1 1]
        v = trace.step("reduce", "reduce_norm", self.reduce, g, formula=r"v=\delta(\mathrm{BN}(W g))")  # [b d 1 1]
        s = trace.step("scores", "expand", self.choose, v, formula=r"(A v,\,B v)")  # [b 2c 1 1]
        share = lambda t: t.unflatten(1, (2, -1)).softmax(1)  # noqa: E731 - each channel's two scores compete
        ab = trace.step("shares", "softmax", share, s, formula=r"(a,b)=\mathrm{softmax}(A v,\,B v)")  # [b 2 c 1 1]
        a = trace.step("weight", "share_of_low", lambda t: t[:, 0], ab, formula="a=1-b", role="weight")  # [b c 1 1]
        mix = lambda a, x, y: torch.lerp(y, x, a)  # noqa: E731 - y + a (x - y), and b = 1 - a
        z = trace.step("fused", "select", mix, a, x, y, formula=r"a\otimes X+b\otimes Y", role="fused")  # [b c h w]
        return Fused(z, (AttentionMap("low", a, "b c 1 1", "gate", "weight", "low", "with_high"),))
