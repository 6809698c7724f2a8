"""SE, squeeze and excitation: one number per channel, from the channel's mean over the whole picture.

Paper: Hu, Shen, Sun, Albanie, Wu, "Squeeze-and-Excitation Networks", CVPR 2018 and TPAMI, arXiv 1709.01507.
Idea: squeeze every channel to its mean, let a small bottleneck decide from all means how useful each channel is,
and scale the channels by its answer.
Differs from paper: there the gate stands inside a residual block; here on the map made of two levels (`on`). For
ResNets the authors drop the biases of both layers, which is the default; `bias` restores them, as torchvision and
timm have them. `gate=hard-sigmoid` is MobileNetV3's cheaper gate, which reaches 0 and 1 exactly. The bottleneck has
exactly c // r channels, never rounded to a multiple of 8 as timm does.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionviz.fusion._base import ALIGN, Context, Fused, FusionModule
from fusionviz.fusion._one import ON, Picked
from fusionviz.records import AttentionMap
from fusionviz.registry import FusionSpec, Param, register
from fusionviz.trace import NullTrace

REDUCTION = Param("r", 16, choices=(2, 4, 8, 16, 32), refit=True)
BIAS = Param("bias", False, refit=True)
GATE = Param("gate", "sigmoid", choices=("sigmoid", "hard-sigmoid"))

SPEC = FusionSpec(
    key="se",
    family="attention",
    equation=r"Z = U \otimes \sigma(W_2\,\delta(W_1\,\mathrm{GAP}(U))), \quad U \in \{X+Y,\, [X;Y],\, X,\, Y\}",
    year=2018,
    params=(ON, REDUCTION, BIAS, GATE, *ALIGN),
    paper="Hu, Shen, Sun, Albanie, Wu. Squeeze-and-Excitation Networks. CVPR 2018",
    link="https://arxiv.org/abs/1709.01507",
    cite="Hu et al., CVPR 2018 · arXiv 1709.01507",
)


@register(SPEC)
class SE(FusionModule):
    """Refine one map by a weight per channel.

    Only the mean is seen: shuffle the places and the gate is the same; a thing that covers few places hardly
    moves it.

    Equation: Z = U * sigma(W2 relu(W1 GAP(U))).
    Args:
        low, high: aligned maps [b c h w]; `on` says which of them, or their sum or concatenation, is U.
    Returns:
        FusionResult; fused is [b c h w] ([b 2c h w] on concat); attention "gate" is [b c 1 1], in (0, 1) with the
        sigmoid, in [0, 1] with the hard one; its channels do not compete, they sum to nothing in particular.
    Differs from paper: `bias` and `gate` as in the libraries.
    Source: arXiv 1709.01507
    """

    def setup(self, on: str, r: int, bias: bool, gate: str) -> None:
        self.pick = Picked(on, self.alignment.channels)
        self.hard = gate == "hard-sigmoid"
        inner = max(1, self.pick.channels // r)
        self.reduce = nn.Conv2d(self.pick.channels, inner, 1, bias=bias)
        self.expand = nn.Conv2d(inner, self.pick.channels, 1, bias=bias)

    def fuse(self, x: Tensor, y: Tensor, *, context: Context, trace: NullTrace) -> Fused:
        u = self.pick(x, y, trace)  # [b c h w]
        mean = lambda t: t.mean((2, 3), keepdim=True)  # noqa: E731 - all that the gate will ever know of the picture
        g = trace.step("squeeze", "pool", mean, u, formula=rf"g=\mathrm{{GAP}}({self.pick.letter})")  # [b c 1 1]
        few = lambda t: F.relu(self.reduce(t))  # noqa: E731 - too few numbers to keep every channel for itself
        e = trace.step("reduce", "reduce", few, g, formula=r"e=\delta(W_1\,g)", module=self.reduce)  # [b c/r 1 1]
        t = trace.step("expand", "expand", self.expand, e, formula=r"W_2\,e")  # [b c 1 1]
        gate, op = (F.hardsigmoid, "hard_sigmoid") if self.hard else (torch.sigmoid, "sigmoid")
        m = trace.step("weight", op, gate, t, formula=r"M=\sigma(W_2\,e)", role="weight")  # [b c 1 1]
        z = trace.step("fused", "multiply", torch.mul, u, m, formula=rf"{self.pick.factor}\otimes M", role="fused")
        weight = AttentionMap("gate", m, "b c 1 1", "gate", "channel_gate", self.pick.on)
        return Fused(z, (weight,), terms=self.pick.terms(x, y, m))
