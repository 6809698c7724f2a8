"""MS-CAM: channel attention at two scales, each place for itself and the whole picture at once.

Paper: Dai, Gieseke, Oehmcke, Wu, Barnard, "Attentional Feature Fusion", WACV 2021, arXiv 2009.14082.
Idea: a squeeze-and-excitation gate sees only the picture's mean, so small things vanish in it. Add a second
bottleneck that looks at every place alone; the sum of both, through a sigmoid, weighs every element.
Differs from paper: nothing by default; `context` gives the paper's ablation (the same scale twice, with as many
parameters) and one branch alone. Like the released code, 1x1 convolutions have biases and every one is
followed by batch normalisation. The paper's r is 4 for small pictures and 16 for ImageNet.
"""

import torch
from torch import Tensor, nn

from fusionviz.fusion._base import ALIGN, Context, Fused, FusionModule
from fusionviz.fusion._one import ON, Picked
from fusionviz.records import AttentionMap
from fusionviz.registry import FusionSpec, Param, register
from fusionviz.trace import NullTrace

CONTEXT = Param(
    "context",
    "local+global",
    choices=("local+global", "local+local", "global+global", "local", "global"),
    refit=True,
)
REDUCTION = Param("r", 4, choices=(1, 2, 4, 8, 16), refit=True)

SPEC = FusionSpec(
    key="mscam",
    family="attention",
    equation=r"Z = U \otimes \sigma(L(U) + g(U)), \quad U \in \{X+Y,\, [X;Y],\, X,\, Y\}",
    year=2021,
    params=(ON, REDUCTION, CONTEXT, *ALIGN),
    paper="Dai, Gieseke, Oehmcke, Wu, Barnard. Attentional Feature Fusion. WACV 2021",
    link="https://arxiv.org/abs/2009.14082",
    cite="Dai et al., WACV 2021 · arXiv 2009.14082",
)


class MSCAMGate(nn.Module):
    """The weight alone: sigma(L(s) + g(s)) for a map s; what AFF and iAFF ask for their weights.

    Args:
        channels: c of the map.
        r: the bottleneck has c // r channels, at least one.
        context: "local+global" (paper) | "local+local" | "global+global" (its ablation) | "local" | "global".
    """

    def __init__(self, channels: int, r: int = 4, context: str = "local+global") -> None:
        super().__init__()
        first, *second = context.split("+")
        names = [first] + [scale if scale != first else f"{scale}_2" for scale in second]
        self.branches = nn.ModuleDict({name: self._bottleneck(channels, max(1, channels // r)) for name in names})
        self.pools = "global" in context

    @staticmethod
    def _bottleneck(channels: int, inner: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(channels, inner, 1),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(inner, channels, 1),
            nn.BatchNorm2d(channels),
        )

    def forward(self, s: Tensor, trace: NullTrace, prefix: str = "", of: str = "X") -> Tensor:
        """Return the weight [b c h w] in (0, 1); each step's key starts with `prefix`."""
        sees = {"local": s}
        if self.pools:
            mean = lambda t: t.mean((2, 3), keepdim=True)  # noqa: E731 - what SE sees: the picture's mean alone
            sees["global"] = trace.step(f"{prefix}pool", "pool", mean, s, formula=rf"\mathrm{{GAP}}({of})")  # [b c 1 1]
        letters, logits = [], []
        for name, branch in self.branches.items():
            scale, _, again = name.partition("_")
            letters.append({"local": "L", "global": "g"}[scale] + (f"_{again}" if again else ""))
            logits.append(
                trace.step(f"{prefix}{name}", f"mscam_{scale}", branch, sees[scale], formula=f"{letters[-1]}({of})")
            )  # [b c h w] or [b c 1 1]
        total = logits[0]
        if len(logits) == 2:
            formula = "+".join(f"{letter}({of})" for letter in letters)
            total = trace.step(f"{prefix}scales", "add", torch.add, *logits, formula=formula)  # [b c h w]
        spread = lambda t: torch.sigmoid(t).expand(s.shape)  # noqa: E731 - global alone is one number per channel
        formula = rf"\sigma({'+'.join(letters)})"
        return trace.step(f"{prefix}weight", "sigmoid", spread, total, formula=formula, role="weight")  # [b c h w]


@register(SPEC)
class MSCAM(FusionModule):
    """Refine one map by a weight per element.

    The local branch keeps small things that the mean of a whole picture drowns; it sees one place and never
    its neighbours.

    Equation: Z = U * sigma(L(U) + g(U)), L(U) = BN W2 relu(BN W1 U) at every place, g the same on the mean of U.
    Args:
        low, high: aligned maps [b c h w]; `on` says which of them, or their sum or concatenation, is U.
    Returns:
        FusionResult; fused is [b c h w] ([b 2c h w] on concat); attention "gate" is [b c h w] in (0, 1).
    Raises:
        ShapeError: in training with a batch of one where a branch pools; give two pictures, or use eval mode.
    Source: arXiv 2009.14082
    """

    pools_to_one = True

    def setup(self, on: str, r: int, context: str) -> None:
        self.pick = Picked(on, self.alignment.channels)
        self.gate = MSCAMGate(self.pick.channels, r, context)
        self.pools_to_one = self.gate.pools

    def fuse(self, x: Tensor, y: Tensor, *, context: Context, trace: NullTrace) -> Fused:
        s = self.pick(x, y, trace)  # [b c h w]
        m = self.gate(s, trace, of=self.pick.letter)  # [b c h w]
        z = trace.step("fused", "multiply", torch.mul, s, m, formula=rf"{self.pick.factor}\otimes M", role="fused")
        weight = AttentionMap("gate", m, "b c h w", "gate", "element_gate", self.pick.on)
        return Fused(z, (weight,), terms=self.pick.terms(x, y, m))
