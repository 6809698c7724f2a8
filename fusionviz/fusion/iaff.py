"""iAFF, iterative attentional feature fusion: ask about a first, softly chosen mixture instead of a plain sum.

Paper: Dai, Gieseke, Oehmcke, Wu, Barnard, "Attentional Feature Fusion", WACV 2021, arXiv 2009.14082, section 3.3.
Idea: AFF asks MS-CAM about X + Y, and a bad first mixture spoils the answer. Let one AFF make the mixture and a
second one, with weights of its own, choose.
Differs from paper: nothing. Differs from a widely copied PyTorch port: its second stage calls the first stage's
global branch again, so that a quarter of its weights is never used; here, as in the authors' original, every
stage has both branches of its own. Unlike AFF, the released code has no factor 2 either.
"""

import torch
from torch import Tensor

from fusionviz.fusion._base import ALIGN, Context, Fused, FusionModule
from fusionviz.fusion.mscam import CONTEXT, REDUCTION, MSCAMGate
from fusionviz.records import AttentionMap
from fusionviz.registry import FusionSpec, register
from fusionviz.trace import NullTrace

SPEC = FusionSpec(
    key="iaff",
    family="select",
    equation=r"X \uplus Y = M_1(X+Y) \otimes X + (1 - M_1(X+Y)) \otimes Y, \quad "
    r"Z = M_2(X \uplus Y) \otimes X + (1 - M_2(X \uplus Y)) \otimes Y",
    year=2021,
    params=(REDUCTION, CONTEXT, *ALIGN),
    paper="Dai, Gieseke, Oehmcke, Wu, Barnard. Attentional Feature Fusion. WACV 2021",
    link="https://arxiv.org/abs/2009.14082",
    cite="Dai et al., WACV 2021 · arXiv 2009.14082",
    weighs="low",
    arithmetic=r"{z} = {low} · {x} + (1 − {low}) · {y}",
)


@register(SPEC)
class IAFF(FusionModule):
    """Choose softly between two maps, twice: the first choice makes the mixture that the second one looks at.

    The mixture is not symmetric in X and Y, so, unlike AFF's, the second weight can tell low from high:
    iAFF(x, y) + iAFF(y, x) is not x + y. It costs twice AFF's gate and is harder to optimise in deep networks.

    Equation: U = M1(X+Y) * X + (1 - M1(X+Y)) * Y, then Z = M2(U) * X + (1 - M2(U)) * Y; M1, M2 share no weights.
    Args:
        low, high: aligned maps [b c h w].
    Returns:
        FusionResult; fused is [b c h w], between X and Y everywhere; attention "low" is M2 and "first" is M1, both
        [b c h w] in (0, 1), the weight of low in the result and in the mixture; high has one minus it.
    Raises:
        ShapeError: in training with a batch of one where a branch pools; give two pictures, or use eval mode.
    Source: arXiv 2009.14082
    """

    pools_to_one = True

    def setup(self, r: int, context: str) -> None:
        channels = self.alignment.channels[0]
        self.first = MSCAMGate(channels, r, context)
        self.second = MSCAMGate(channels, r, context)
        self.pools_to_one = self.first.pools

    def fuse(self, x: Tensor, y: Tensor, *, context: Context, trace: NullTrace) -> Fused:
        s = trace.step("sum", "add", torch.add, x, y, formula="X+Y")  # [b c h w]
        m1 = self.first(s, trace, "first_", of="X+Y")  # [b c h w]
        formula = r"M_1\otimes X+(1-M_1)\otimes Y"
        u = trace.step("mixture", "select", self._select, m1, x, y, formula=formula)  # [b c h w]
        m2 = self.second(u, trace, "second_", of=r"X\uplus Y")  # [b c h w]
        formula = r"M_2\otimes X+(1-M_2)\otimes Y"
        z = trace.step("fused", "select", self._select, m2, x, y, formula=formula, role="fused")  # [b c h w]
        weights = (
            AttentionMap("low", m2, "b c h w", "gate", "weight", "low", "with_high"),
            AttentionMap("first", m1, "b c h w", "gate", "weight", "low", "with_high"),
        )
        return Fused(z, weights)

    @staticmethod
    def _select(m: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return torch.lerp(y, x, m)  # y + m (x - y): between the two, and x itself where both agree
