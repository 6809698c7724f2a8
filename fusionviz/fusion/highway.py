"""Highway: a gate decides for every element whether it is carried on as it is or replaced by what later layers made.

Paper: Srivastava, Greff, Schmidhuber, "Highway Networks", 2015, arXiv 1505.00387; "Training Very Deep Networks",
NeurIPS 2015, arXiv 1507.06228.
Idea: y = H(x) T(x) + x (1 - T(x)). The first soft selection between an early and a late map: the two weights sum to
1, but they are read from the early map alone, so the gate never sees what it would let in. AFF asks both.
Differs from paper: there H is one layer, here it is everything the backbone has between two levels. So the low level
is x, which is carried, and the high level is H(x): the roles "earlier" and "later" are the paper's, and a gate that
is closed leaves the low level untouched. T is a 1x1 convolution, the smallest of the paper's convolutional gates.
The paper only asks for a negative bias, and names -1 and -3 as examples; -1 is the default.
"""

import torch
from torch import Tensor, nn

from fusionviz.fusion._base import ALIGN, Context, Fused, FusionModule
from fusionviz.records import AttentionMap
from fusionviz.registry import FusionSpec, Param, register
from fusionviz.trace import NullTrace

SPEC = FusionSpec(
    key="highway",
    family="select",
    equation=r"Z = (1 - T(X)) \otimes X + T(X) \otimes Y",
    year=2015,
    params=(Param("b_T", -1.0, low=-8.0, high=8.0, step=0.5), *ALIGN),
    paper="Srivastava, Greff, Schmidhuber. Highway Networks. 2015",
    link="https://arxiv.org/abs/1505.00387",
    cite="Srivastava et al., 2015 · arXiv 1505.00387",
    weighs="low",
    arithmetic=r"{z} = {low} · {x} + (1 − {low}) · {y}",
)


@register(SPEC)
class Highway(FusionModule):
    """Carry the low level on, and let the high level in where the low level asks for it.

    Helps depth: a closed gate passes signal and gradient as they are. Hurts where only the high level could know
    that it is needed: two pictures with one low map get one gate, whatever their high maps say.

    Equation: Z = (1 - T) * X + T * Y, T = sigma(W_T X + b_T) at every place.
    Args:
        low, high: aligned maps [b c h w]; low is the paper's x, high its H(x).
    Returns:
        FusionResult; fused is [b c h w], between X and Y everywhere; attention "low" is the carry gate 1 - T
        [b c h w] in (0, 1), the weight of low; high has T, one minus it.
    Differs from paper: H is the backbone between the levels. b_T is where every channel's bias starts.
    Source: arXiv 1505.00387, 1507.06228
    """

    by_hand = ("gate.bias",)
    weight_knobs = ("b_T",)

    def setup(self, b_T: float) -> None:  # noqa: N803 - the paper's name
        c = self.alignment.channels[0]
        self.gate = nn.Conv2d(c, c, 1)
        nn.init.constant_(self.gate.bias, b_T)

    def fuse(self, x: Tensor, y: Tensor, *, context: Context, trace: NullTrace) -> Fused:
        score = trace.step("score", "conv_1x1", self.gate, x, formula="W_T X+b_T")  # [b c h w]
        t = trace.step("transform", "sigmoid", torch.sigmoid, score, formula=r"T=\sigma(W_T X+b_T)")  # [b c h w]
        carry = trace.step("carry", "complement", lambda t: 1 - t, t, formula="1-T", role="weight")  # [b c h w]
        mix = lambda c, x, y: torch.lerp(y, x, c)  # noqa: E731 - y + c (x - y), exactly between the two
        z = trace.step("fused", "select", mix, carry, x, y, formula=r"(1-T)\otimes X+T\otimes Y", role="fused")
        return Fused(z, (AttentionMap("low", carry, "b c h w", "gate", "weight", "low", "with_high"),))
