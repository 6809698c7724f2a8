"""Softmax of two branches: every picture gets its own two weights, one for each level.

Paper: none; selective-kernel attention without its bottleneck and with one number for each branch instead of one
for each channel.
Idea: pool both maps to their means, ask one linear layer for two scores, and let a softmax share out a whole. The
plainest selection that looks at both levels, and only at the picture as a whole: it cannot differ from place to place.
Traps that printed versions fall into: feeding the linear layer the flattened map ties it to one picture size, and
viewing the weights as [-1 64 1 1] takes pictures for channels at a batch of 64. Here they are [b 2 1 1 1].
"""

import torch
from torch import Tensor, nn

from fusionviz.fusion._base import ALIGN, Context, Fused, FusionModule
from fusionviz.records import AttentionMap
from fusionviz.registry import FusionSpec, Param, register
from fusionviz.trace import NullTrace

SPEC = FusionSpec(
    key="softmax2",
    family="select",
    equation=r"Z = p_0 X + p_1 Y, \quad p = \mathrm{softmax}(W [\bar{X}; \bar{Y}])",
    year=0,
    params=(Param("temperature", 1.0, low=0.1, high=10.0, step=0.1), *ALIGN),
    weighs="low",
    arithmetic=r"{z} = {low} · {x} + (1 − {low}) · {y}",
)


@register(SPEC)
class Softmax2(FusionModule):
    """Let the whole picture decide how much of each level it gets.

    Equation: Z = p0 X + p1 Y, p = softmax((W [mean X; mean Y] + b) / temperature), W of 2 x 2c numbers and b of 2.
    Args:
        low, high: aligned maps [b c h w] of any size.
    Returns:
        FusionResult; fused is [b c h w], between X and Y everywhere; attention "low" is [b 2 1 1 1], the weights of
        low and high, which sum to 1 for each picture. A low temperature makes the choice hard, a high one even.
    """

    def setup(self, temperature: float) -> None:
        self.temperature = temperature
        self.score = nn.Linear(2 * self.alignment.channels[0], 2)

    def fuse(self, x: Tensor, y: Tensor, *, context: Context, trace: NullTrace) -> Fused:
        mean = lambda t: t.mean((2, 3))  # noqa: E731 - global average pooling
        low = trace.step("low_pool", "pool", mean, x, formula=r"\bar{X}", role="low")  # [b c]
        high = trace.step("high_pool", "pool", mean, y, formula=r"\bar{Y}", role="high")  # [b c]
        join = lambda a, b: torch.cat((a, b), 1)  # noqa: E731 - both means, one behind the other
        both = trace.step("means", "concat", join, low, high, formula=r"[\bar{X};\bar{Y}]")  # [b 2c]
        s = trace.step("score", "linear", self.score, both, formula=r"s=W[\bar{X};\bar{Y}]+b")  # [b 2]
        heat = "" if self.temperature == 1 else f"/{self.temperature:g}"
        formula = rf"p=\mathrm{{softmax}}(s{heat})"
        p = trace.step("weight", "softmax", self._share, s, formula=formula, role="weight")  # [b 2 1 1 1]
        mix = lambda p, x, y: torch.lerp(y, x, p[:, 0])  # noqa: E731 - y + p0 (x - y), and p1 = 1 - p0
        z = trace.step("fused", "select", mix, p, x, y, formula=r"p_0 X+p_1 Y", role="fused")  # [b c h w]
        return Fused(z, (AttentionMap("low", p, "b n 1 1 1", "softmax", "weight", "low", "branches"),))

    def _share(self, score: Tensor) -> Tensor:
        return torch.softmax(score / self.temperature, 1)[:, :, None, None, None]
