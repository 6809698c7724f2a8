"""MS-CAM: channel attention at two scales, each place for itself and the whole picture at once.

Paper: Dai, Gieseke, Oehmcke, Wu, Barnard, "Attentional Feature Fusion", WACV 2021, arXiv 2009.14082.
Idea: a squeeze-and-excitation gate sees only the picture's mean, so small things vanish in it. Add a second
bottleneck that looks at every place alone; the sum of both, through a sigmoid, weighs every element.
Differs from paper: nothing by default; `context` switches a branch off. Like the paper's code, 1x1 convolutions
have biases and every one is followed by batch normalisation.
"""

import torch
from torch import Tensor, nn

from fusionviz.fusion._base import ALIGN, Context, Fused, FusionModule
from fusionviz.fusion._one import ON, Picked
from fusionviz.records import AttentionMap
from fusionviz.registry import FusionSpec, Param, register
from fusionviz.trace import NullTrace

CONTEXT = Param("context", "local+global", choices=("local+global", "local", "global"), refit=True)
REDUCTION = Param("r", 4, choices=(1, 2, 4, 8, 16), refit=True)

SPEC = FusionSpec(
    key="mscam",
    family="attention",
    equation=r"Z = X \otimes \sigma(L(X) + g(X))",
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
        context: "local+global" (paper) | "local" | "global".
    """

    def __init__(self, channels: int, r: int = 4, context: str = "local+global") -> None:
        super().__init__()
        inner = max(1, channels // r)
        self.local = self._bottleneck(channels, inner) if "local" in context else None
        self.glob = self._bottleneck(channels, inner) if "global" in context else None

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
        parts = []
        if self.local is not None:
            parts.append(trace.step(f"{prefix}local", "mscam_local", self.local, s, formula=f"L({of})"))  # [b c h w]
        if self.glob is not None:
            mean = trace.step(f"{prefix}pool", "pool", lambda t: t.mean((2, 3), keepdim=True), s)  # [b c 1 1]
            parts.append(trace.step(f"{prefix}global", "mscam_global", self.glob, mean, formula=f"g({of})"))
        total = parts[0]
        if len(parts) == 2:
            total = trace.step(f"{prefix}scales", "add", torch.add, *parts, formula=f"L({of})+g({of})")  # [b c h w]
        spread = lambda t: torch.sigmoid(t).expand(s.shape)  # noqa: E731 - global alone is one number per channel
        return trace.step(f"{prefix}weight", "sigmoid", spread, total, formula=r"\sigma(L+g)", role="weight")


@register(SPEC)
class MSCAM(FusionModule):
    """Refine one map by a weight per element.

    Equation: Z = X * sigma(L(X) + g(X)), L(X) = BN W2 relu(BN W1 X) at every place, g the same on the mean of X.
    Args:
        low, high: aligned maps [b c h w]; `on` says which of them, or their sum or concatenation, is refined.
    Returns:
        FusionResult; fused is [b c h w] ([b 2c h w] on concat); attention "gate" is [b c h w] in (0, 1).
    Source: arXiv 2009.14082
    """

    pools_to_one = True

    def setup(self, on: str, r: int, context: str) -> None:
        self.pick = Picked(on, self.alignment.channels)
        self.gate = MSCAMGate(self.pick.channels, r, context)

    def fuse(self, x: Tensor, y: Tensor, *, context: Context, trace: NullTrace) -> Fused:
        s = self.pick(x, y, trace)  # [b c h w]
        m = self.gate(s, trace, of=self.pick.letter)  # [b c h w]
        z = trace.step("fused", "multiply", torch.mul, s, m, formula=rf"{self.pick.letter}\otimes M", role="fused")
        weight = AttentionMap("gate", m, "b c h w", "gate", "element_gate", self.pick.on)
        return Fused(z, (weight,), terms=self.pick.terms(x, y, m))
