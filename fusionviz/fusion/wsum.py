"""Weighted sum: one number for the whole network says how much of each level is taken.

Paper: none; the plainest way to weigh two maps, and the first that can be learned.
Idea: alpha of the low level and 1 - alpha of the high level, the same at every place, for every picture. Learned,
alpha = sigma(a), so that no step of training can push it out of (0, 1).
Trap: with nothing but linear layers around it, it adds nothing: a W1 X + (1 - a) W2 X is one convolution of X. A
projection before it can also take alpha over, so that a learned alpha need not say which level matters more.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fusionviz.fusion._base import ALIGN, Context, Fused, FusionModule
from fusionviz.records import AttentionMap
from fusionviz.registry import FusionSpec, Param, register
from fusionviz.selection import Value
from fusionviz.trace import NullTrace

SATURATED = 128.0
"""sigma of it is exactly 1 in float32, and of its negative exactly 0; unlike infinity it survives weight decay."""

SPEC = FusionSpec(
    key="wsum",
    family="basic",
    equation=r"Z = \alpha X + (1 - \alpha) Y",
    year=0,
    params=(Param("alpha", 0.5, low=0.0, high=1.0, step=0.05), *ALIGN),
    weighs="low",
    arithmetic=r"{z} = {low} · {x} + (1 − {low}) · {y}",
)


def logit(alpha: float) -> float:
    """Return a with sigma(a) = alpha, finite also for 0 and 1."""
    if alpha in (0, 1):
        return SATURATED if alpha else -SATURATED
    return math.log(alpha) - math.log1p(-alpha)


@register(SPEC)
class WeightedSum(FusionModule):
    """Cross-fade between two maps.

    Equation: Z = alpha X + (1 - alpha) Y, alpha = sigma(a); dL/da = alpha (1 - alpha) <dL/dZ, X - Y>, so at the
    ends, where alpha is exactly 0 or 1, nothing is learned any more.
    Args:
        low, high: aligned maps [b c h w].
    Returns:
        FusionResult; fused is [b c h w], between X and Y everywhere, exactly Y for alpha 0 and X for alpha 1;
        attention "low" is [b 2 1 1 1], the weights of low and high, the same for every picture; they sum to 1.
    """

    by_hand = ("a",)
    weight_knobs = ("alpha",)

    def setup(self, alpha: float) -> None:
        self.a = nn.Parameter(torch.tensor(logit(alpha)))

    @classmethod
    def trained_knobs(cls, state: Mapping[str, Tensor]) -> dict[str, Value]:
        # To the slider's own step: what the page shows is then what is computed.
        return {"alpha": round(20 * float(torch.sigmoid(state["a"]))) / 20}

    def fuse(self, x: Tensor, y: Tensor, *, context: Context, trace: NullTrace) -> Fused:
        weigh = lambda: self._weights(x.shape[0])  # noqa: E731 - it looks at no map, only at their number
        formula = r"(\alpha, 1-\alpha),\ \alpha=\sigma(a)"
        w = trace.step("weight", "branch_weights", weigh, formula=formula, role="weight", module=self.a)  # [b 2 1 1 1]
        mix = lambda w, x, y: torch.lerp(y, x, w[:, 0])  # noqa: E731 - y + alpha (x - y), exact at both ends
        z = trace.step("fused", "select", mix, w, x, y, formula=r"\alpha X+(1-\alpha)Y", role="fused")  # [b c h w]
        return Fused(z, (AttentionMap("low", w, "b n 1 1 1", "softmax", "weight", "low", "branches"),))

    def _weights(self, pictures: int) -> Tensor:
        alpha = torch.sigmoid(self.a)
        return torch.stack((alpha, 1 - alpha)).view(1, 2, 1, 1, 1).expand(pictures, -1, -1, -1, -1)
