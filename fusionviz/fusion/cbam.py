"""CBAM: first which channels matter, then which places.

Paper: Woo, Park, Lee, Kweon, "CBAM: Convolutional Block Attention Module", ECCV 2018, arXiv 1807.06521.
Idea: a channel gate like SE's that sees the maximum beside the mean, and after it a gate per place, from the mean
and the maximum over channels and their 7x7 neighbourhood.
Differs from paper: there it stands inside a residual block; here on the map made of two levels (`on`).
Differs from the released code: there the bottleneck has biases, the two planes come as [max; mean] and a batch
normalisation follows the 7x7 convolution; `variant=released` gives that. The order of planes alone changes nothing
but the order of the kernel's two halves.
"""

import torch
from torch import Tensor, nn

from fusionviz.fusion._base import ALIGN, Context, Fused, FusionModule
from fusionviz.fusion._one import ON, Picked
from fusionviz.fusion.se import REDUCTION
from fusionviz.records import AttentionMap
from fusionviz.registry import FusionSpec, Param, register
from fusionviz.trace import NullTrace

PARTS = Param("parts", "both", choices=("both", "channel", "spatial"), refit=True)
KERNEL = Param("kernel", 7, choices=(3, 5, 7), refit=True)
VARIANT = Param("variant", "paper", choices=("paper", "released"), refit=True)

SPEC = FusionSpec(
    key="cbam",
    family="attention",
    equation=r"Z = V \otimes M_s(V), \quad V = U \otimes M_c(U), \quad U \in \{X+Y,\, [X;Y],\, X,\, Y\}",
    year=2018,
    params=(ON, REDUCTION, PARTS, KERNEL, VARIANT, *ALIGN),
    paper="Woo, Park, Lee, Kweon. CBAM: Convolutional Block Attention Module. ECCV 2018",
    link="https://arxiv.org/abs/1807.06521",
    cite="Woo et al., ECCV 2018 · arXiv 1807.06521",
)


@register(SPEC)
class CBAM(FusionModule):
    """Refine one map by a weight per channel, then by a weight per place.

    Two small gates instead of one number per element: cheap, but every channel gets the same map of places.

    Equation: V = U * Mc(U), Mc = sigma(MLP(avg over places) + MLP(max over places)), one MLP for both;
    Z = V * Ms(V), Ms = sigma(conv7x7 [avg over channels; max over channels]).
    Args:
        low, high: aligned maps [b c h w]; `on` says which of them, or their sum or concatenation, is U.
    Returns:
        FusionResult; fused is [b c h w] ([b 2c h w] on concat); attention "channel" is [b c 1 1] and "place"
        [b 1 h w], both in (0, 1); `parts` leaves one of them out.
    Differs from paper: `variant=released` restores the released code.
    Source: arXiv 1807.06521
    """

    def setup(self, on: str, r: int, parts: str, kernel: int, variant: str) -> None:
        self.pick = Picked(on, self.alignment.channels)
        self.released = variant == "released"
        self.mlp = self.conv = None
        if parts != "spatial":
            c, inner = self.pick.channels, max(1, self.pick.channels // r)
            down, up = (nn.Conv2d(*io, 1, bias=self.released) for io in ((c, inner), (inner, c)))
            self.mlp = nn.Sequential(down, nn.ReLU(), up)
        if parts != "channel":
            self.conv = nn.Sequential(nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False))
            if self.released:
                self.conv.append(nn.BatchNorm2d(1, momentum=0.01))

    def fuse(self, x: Tensor, y: Tensor, *, context: Context, trace: NullTrace) -> Fused:
        z, weights = self.pick(x, y, trace), []  # [b c h w]
        name, factor = self.pick.letter, self.pick.factor
        if self.mlp is not None:
            m = self._channel_gate(z, name, trace)  # [b c 1 1]
            weights.append(AttentionMap("channel", m, "b c 1 1", "gate", "channel_gate", self.pick.on))
            key, role, formula = ("refined", "", "V=") if self.conv is not None else ("fused", "fused", "")
            z = trace.step(key, "multiply", torch.mul, z, m, formula=rf"{formula}{factor}\otimes M_c", role=role)
            name = factor = "V"
        if self.conv is not None:
            m = self._place_gate(z, name, trace)  # [b 1 h w]
            weights.append(AttentionMap("place", m, "b 1 h w", "gate", "place_gate", self.pick.on))
            z = trace.step("fused", "multiply", torch.mul, z, m, formula=rf"{factor}\otimes M_s", role="fused")
        weigh = weights[0].tensor * weights[-1].tensor if len(weights) == 2 else weights[0].tensor
        return Fused(z, tuple(weights), terms=self.pick.terms(x, y, weigh))

    def _channel_gate(self, u: Tensor, name: str, trace: NullTrace) -> Tensor:
        mean, peak = (lambda t: t.mean((2, 3), keepdim=True)), (lambda t: t.amax((2, 3), keepdim=True))
        a = trace.step("mean", "pool", mean, u, formula=rf"\mathrm{{avg}}({name})")  # [b c 1 1]
        p = trace.step("max", "pool_max", peak, u, formula=rf"\mathrm{{max}}({name})")  # [b c 1 1]
        a = trace.step("mean_mlp", "mlp", self.mlp, a, formula=r"W_1\,\delta(W_0\,\mathrm{avg})")  # [b c 1 1]
        # The same bottleneck again, so its parameters are counted once.
        p = trace.step("max_mlp", "mlp", lambda t: self.mlp(t), p, formula=r"W_1\,\delta(W_0\,\mathrm{max})")
        s = trace.step(
            "scores", "add", torch.add, a, p, formula=r"\mathrm{MLP}(\mathrm{avg})+\mathrm{MLP}(\mathrm{max})"
        )
        return trace.step("channel", "sigmoid", torch.sigmoid, s, formula=r"M_c", role="weight")  # [b c 1 1]

    def _place_gate(self, v: Tensor, name: str, trace: NullTrace) -> Tensor:
        mean, peak = (lambda t: t.mean(1, keepdim=True)), (lambda t: t.amax(1, keepdim=True))
        a = trace.step("mean_plane", "pool_channels", mean, v, formula=rf"\mathrm{{avg}}({name})")  # [b 1 h w]
        p = trace.step("max_plane", "pool_channels_max", peak, v, formula=rf"\mathrm{{max}}({name})")  # [b 1 h w]
        planes, formula = (
            ((p, a), r"[\mathrm{max};\mathrm{avg}]") if self.released else ((a, p), r"[\mathrm{avg};\mathrm{max}]")
        )
        both = trace.step("planes", "concat", lambda *t: torch.cat(t, 1), *planes, formula=formula)  # [b 2 h w]
        k = self.conv[0].kernel_size[0]
        s = trace.step("conv", "conv", self.conv, both, formula=rf"f^{{{k}\times {k}}}{formula}")  # [b 1 h w]
        return trace.step("place", "sigmoid", torch.sigmoid, s, formula=r"M_s", role="weight")  # [b 1 h w]
