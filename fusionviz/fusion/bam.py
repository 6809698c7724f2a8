"""BAM, the bottleneck attention module: which channels and which places, asked side by side, answered in one weight.

Paper: Park, Woo, Lee, Kweon, "BAM: Bottleneck Attention Module", BMVC 2018, arXiv 1807.06514. Not the attention of
bottleneck transformers (BoTNet), which timm calls BottleneckAttn.
Idea: a channel branch like SE's and a place branch with a wide view, through dilated convolutions, look at the same map
at once. The sum of their scores, through a sigmoid, is a weight for every element; it is added to the map rather than
put in its place, so nothing can be switched off: every element is multiplied by a number between 1 and 2.
Differs from paper: there it stands between the stages of a network; here on the map made of two levels (`on`). The
paper's equation of the place branch writes no nonlinearity between its convolutions, and here there is none: they are
one linear filter with a wide view, in four cheap parts.
Differs from the released code: there the two scores are multiplied, and batch normalisation and ReLU follow every inner
layer instead of one batch normalisation at the end of a branch; `combine=mul` gives that. Two scores below zero then
open the gate.
"""

import torch
from torch import Tensor, nn

from fusionviz.fusion._base import ALIGN, Context, Fused, FusionModule
from fusionviz.fusion._one import ON, Picked
from fusionviz.records import AttentionMap
from fusionviz.registry import FusionSpec, Param, register
from fusionviz.trace import NullTrace

LEAST = 4
"""Channels of a bottleneck: behind fewer, one unlucky draw of weights silences a whole branch of ReLUs."""

SPEC = FusionSpec(
    key="bam",
    family="attention",
    equation=r"Z = U + U \otimes \sigma(M_c(U) + M_s(U)), \quad U \in \{X+Y,\, [X;Y],\, X,\, Y\}",
    year=2018,
    params=(
        ON,
        Param("r", 16, choices=(2, 4, 8, 16), refit=True),
        Param("d", 4, choices=(1, 2, 4, 6)),
        Param("combine", "add", choices=("add", "mul"), refit=True),
        *ALIGN,
    ),
    paper="Park, Woo, Lee, Kweon. BAM: Bottleneck Attention Module. BMVC 2018",
    link="https://arxiv.org/abs/1807.06514",
    cite="Park et al., BMVC 2018 · arXiv 1807.06514",
)


@register(SPEC)
class BAM(FusionModule):
    """Refine one map by 1 + a weight per element, made of one score per channel and one per place.

    Cheaper than a score for every element, and unlike CBAM's product of gates no gate dims what the other has passed.
    It can only strengthen: the least it does to an element is to leave it nearly as it is.

    Equation: Z = U * (1 + sigma(Mc + Ms)), Mc = BN(W1 relu(W0 GAP(U))), Ms = BN(1x1 of two dilated 3x3 of 1x1 of U).
    Args:
        low, high: aligned maps [b c h w]; `on` says which of them, or their sum or concatenation, is U. Any size:
            dilated kernels are padded with zeros, and see little else where d is larger than the map.
    Returns:
        FusionResult; fused is [b c h w] ([b 2c h w] on concat), between U and 2U; attention "gate" is [b c h w] in
        (0, 1), the weight before 1 is added.
    Raises:
        ShapeError: in training with a batch of one; give two pictures, or use eval mode.
    Differs from paper: `combine=mul` restores the released code.
    Source: arXiv 1807.06514
    """

    pools_to_one = True

    def setup(self, on: str, r: int, d: int, combine: str) -> None:
        self.pick, self.product = Picked(on, self.alignment.channels), combine == "mul"
        c = self.pick.channels
        inner = max(LEAST, c // r)
        wide = (inner, inner, 3, 1, d, d)  # kernel 3, stride 1, padding d, dilation d: the map keeps its size
        self.channel = self._branch((c, inner, 1), (inner, c, 1), bends=True)
        self.place = self._branch((c, inner, 1), wide, wide, (inner, 1, 1), bends=self.product)

    def _branch(self, *layers: tuple[int, ...], bends: bool) -> nn.Sequential:
        """Convolutions, with a ReLU between them if it bends; batch norm behind the last, or released, all others."""
        branch = nn.Sequential()
        for i, layer in enumerate(layers, start=1):
            last = i == len(layers)
            branch.append(nn.Conv2d(*layer))
            if last != self.product:
                branch.append(nn.BatchNorm2d(layer[1]))
            if bends and not last:
                branch.append(nn.ReLU())
        return branch

    def fuse(self, x: Tensor, y: Tensor, *, context: Context, trace: NullTrace) -> Fused:
        u, name, factor = self.pick(x, y, trace), self.pick.letter, self.pick.factor  # [b c h w]
        mean = lambda t: t.mean((2, 3), keepdim=True)  # noqa: E731
        g = trace.step("squeeze", "pool", mean, u, formula=rf"g=\mathrm{{GAP}}({name})")  # [b c 1 1]
        c = trace.step("channel", "channel_scores", self.channel, g, formula=r"M_c=\mathrm{MLP}(g)")  # [b c 1 1]
        s = trace.step("place", "place_scores", self.place, u, formula=rf"M_s({name})")  # [b 1 h w]
        op, meet, formula = ("multiply", torch.mul, r"M_c\cdot M_s") if self.product else ("add", torch.add, "M_c+M_s")
        t = trace.step("scores", op, meet, c, s, formula=formula)  # [b c h w]
        m = trace.step("weight", "sigmoid", torch.sigmoid, t, formula=rf"M=\sigma({formula})", role="weight")
        more = lambda u, m: u * (1 + m)  # noqa: E731 - the map itself stays in the sum
        z = trace.step("fused", "strengthen", more, u, m, formula=rf"{factor}\otimes (1+M)", role="fused")
        weight = AttentionMap("gate", m, "b c h w", "gate", "element_gate", self.pick.on)
        return Fused(z, (weight,), terms=self.pick.terms(x, y, 1 + m))
