"""AFF, attentional feature fusion: for every element, how much of the low level and how much of the high.

Paper: Dai, Gieseke, Oehmcke, Wu, Barnard, "Attentional Feature Fusion", WACV 2021, arXiv 2009.14082, equation 4.
Idea: add the maps, ask MS-CAM about the sum, and let its answer choose between the two.
Differs from paper: nothing by default. Differs from the released code: there both terms are multiplied by 2, so
that the weights add up to 2 as they do in a plain sum; `gain=2` gives that. In the released short-skip blocks X
is the residual, in the paper the identity; here X is the low level, and at a short skip the identity, as in the
paper, and the picture's title says whose weight it is.
"""

import torch
from torch import Tensor

from fusionviz.fusion._base import ALIGN, Context, Fused, FusionModule
from fusionviz.fusion.mscam import CONTEXT, REDUCTION, MSCAMGate
from fusionviz.records import AttentionMap
from fusionviz.registry import FusionSpec, Param, register
from fusionviz.trace import NullTrace

SPEC = FusionSpec(
    key="aff",
    family="select",
    equation=r"Z = M(X+Y) \otimes X + (1 - M(X+Y)) \otimes Y",
    year=2021,
    params=(REDUCTION, CONTEXT, Param("gain", 1, choices=(1, 2)), *ALIGN),
    paper="Dai, Gieseke, Oehmcke, Wu, Barnard. Attentional Feature Fusion. WACV 2021",
    link="https://arxiv.org/abs/2009.14082",
    cite="Dai et al., WACV 2021 · arXiv 2009.14082",
    weighs="low",
    arithmetic=r"{z} = {gain} · ({low} · {x} + (1 − {low}) · {y})",
)


@register(SPEC)
class AFF(FusionModule):
    """Choose softly between two maps, element by element, from what both of them say.

    The weight depends on X + Y alone, so it does not know which map is which: AFF(x, y) + AFF(y, x) = x + y.

    Equation: Z = g (M(X+Y) * X + (1 - M(X+Y)) * Y), M = MS-CAM's weight, g = 1 in the paper.
    Args:
        low, high: aligned maps [b c h w].
    Returns:
        FusionResult; fused is [b c h w], between X and Y everywhere (gain 1); attention "low" is [b c h w] in (0, 1),
        the weight of low; high has one minus it.
    Raises:
        ShapeError: in training with a batch of one where a branch pools; give two pictures, or use eval mode.
    Differs from paper: `gain=2` restores the released code.
    Source: arXiv 2009.14082
    """

    pools_to_one = True

    def setup(self, r: int, context: str, gain: int) -> None:
        self.gain = gain
        self.gate = MSCAMGate(self.alignment.channels[0], r, context)
        self.pools_to_one = self.gate.pools

    def fuse(self, x: Tensor, y: Tensor, *, context: Context, trace: NullTrace) -> Fused:
        s = trace.step("sum", "add", torch.add, x, y, formula="X+Y")  # [b c h w]
        m = self.gate(s, trace, of="X+Y")  # [b c h w]
        chosen = r"M\otimes X+(1-M)\otimes Y"
        formula = chosen if self.gain == 1 else rf"{self.gain}\,({chosen})"
        z = trace.step("fused", "select", self._select, m, x, y, formula=formula, role="fused")  # [b c h w]
        return Fused(z, (AttentionMap("low", m, "b c h w", "gate", "weight", "low", "with_high"),))

    def _select(self, m: Tensor, x: Tensor, y: Tensor) -> Tensor:
        chosen = torch.lerp(y, x, m)  # y + m (x - y): between the two, and x itself where both agree
        return chosen if self.gain == 1 else self.gain * chosen
