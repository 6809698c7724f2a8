"""The attention gate of Attention U-Net: the coarse level says where the skip connection may speak.

Paper: Oktay, Schlemper, Le Folgoc, Lee, Heinrich, Misawa, Mori, McDonagh, Hammerla, Kainz, Glocker, Rueckert,
"Attention U-Net: Learning Where to Look for the Pancreas", 2018, arXiv 1804.03999.
Idea: U-Net copies its skip in full. Score every place by additive attention, from what the skip shows there and what
the coarse level knows about it, and multiply the skip by the answer before the two are concatenated.
Differs from paper: scores are made on the coarse grid and enlarged, as there; the skip comes to that grid by means over
cells. Behind the concatenation stands one 1x1 convolution, without a bias, instead of U-Net's two 3x3; `output=gated`
stops at the gated skip.
Differs from the released code: there the skip comes to the coarse grid by a strided 2x2 convolution, a 1x1 convolution
with batch norm follows the gate, and half the skip's channels score, as here. Differs from the widely copied 2-D port:
there the coarse level is enlarged first and every fine place scored (`grid=fine`), with batch norm in each layer.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionviz.fusion._base import RESIZE, WIDTH, Alignment, Context, Fused, FusionModule
from fusionviz.fusion._base import resize as resized
from fusionviz.records import AttentionMap
from fusionviz.registry import FusionSpec, Param, register
from fusionviz.trace import NullTrace

SPEC = FusionSpec(
    key="attention_gate",
    family="attention",
    equation=r"Z = W [\alpha \otimes X; {\uparrow}Y], "
    r"\quad \alpha = \sigma(\psi^{\top} \delta(W_x X + W_g Y + b) + b_{\psi})",
    year=2018,
    align="none",  # the scores are made before the two levels have one size
    params=(
        Param("grid", "coarse", choices=("coarse", "fine")),
        Param("output", "concat", choices=("concat", "gated"), refit=True),
        WIDTH,
        RESIZE,
    ),
    paper="Oktay, Schlemper, Le Folgoc, Lee, Heinrich, Misawa, Mori, McDonagh, Hammerla, Kainz, Glocker, Rueckert. "
    "Attention U-Net: Learning Where to Look for the Pancreas. 2018",
    link="https://arxiv.org/abs/1804.03999",
    cite="Oktay et al., 2018 · arXiv 1804.03999",
)


@register(SPEC)
class AttentionGate(FusionModule):
    """Let the low level through only where both levels agree that it matters.

    Helps where a picture is mostly background. A gate on a coarse grid draws no fine edges: alpha is smooth, and the
    detail it lets through is all the low level's own.

    Equation: Z = W [alpha * X; up(Y)], alpha = sigma(psi relu(W_x X + W_g Y + b) + b_psi), one number per place.
    Args:
        low, high: the skip [b p h w] and the gating map [b q h' w'], of any sizes and channels.
    Returns:
        FusionResult; fused is [b width h w] ([b p h w] on `output=gated`); attention "place" is alpha [b 1 h w] in
        (0, 1). The share of low is |W_a (alpha * X)| / (|W_a (alpha * X)| + |W_b up(Y)|); `aligned` are alpha * X and
        up(Y). A gated skip alone is all low: the high level has only said where.
    Differs from paper: one 1x1 convolution behind the gate; see the head of this file.
    Source: arXiv 1804.03999
    """

    def setup(self, grid: str, output: str, width: int, resize: str) -> None:
        low, high = self.channels
        inner, self.fine = max(1, low // 2), grid == "fine"
        self.low_score = nn.Conv2d(low, inner, 1, bias=False)
        self.high_score = nn.Conv2d(high, inner, 1)
        self.psi = nn.Conv2d(inner, 1, 1)
        self.mix = nn.Conv2d(low + high, width, 1, bias=False) if output == "concat" else None
        # A kernel would have nothing to learn where Y is enlarged for no one.
        self.enlarge = Alignment((low, high), self.strides, "size", resize=resize if self.mix else "bilinear")

    def fuse(self, x: Tensor, y: Tensor, *, context: Context, trace: NullTrace) -> Fused:
        up = self.enlarge(x, y, trace)[1] if self.fine or self.mix is not None else None  # [b q h w]
        alpha = self._gate(x, up if self.fine else y, trace)  # [b 1 h w]
        weight = AttentionMap("place", alpha, "b 1 h w", "gate", "place_gate", "low")
        key, role = ("fused", "fused") if self.mix is None else ("gated", "low")
        skip = trace.step(key, "multiply", torch.mul, x, alpha, formula=r"\alpha\otimes X", role=role)  # [b p h w]
        if self.mix is None:
            return Fused(skip, (weight,), terms=lambda: (skip, torch.zeros_like(skip)))
        join, formula = (lambda a, b: torch.cat((a, b), 1)), r"[\alpha\otimes X;\uparrow Y]"
        both = trace.step("concat", "concat", join, skip, up, formula=formula)  # [b p+q h w]
        z = trace.step("fused", "project", self.mix, both, formula=rf"W{formula}", role="fused")  # [b width h w]
        return Fused(z, (weight,), terms=lambda: self._terms(skip, up), aligned=(skip, up))

    def _gate(self, x: Tensor, y: Tensor, trace: NullTrace) -> Tensor:
        """Return alpha [b 1 h w], scored on the grid of the map that asks, y."""
        size, grid = tuple(x.shape[-2:]), tuple(y.shape[-2:])
        name = "X"
        if grid != size:
            means, name = (lambda t: F.adaptive_avg_pool2d(t, grid)), r"\downarrow X"
            x = trace.step("low_means", "resize_mean", means, x, formula=name, role="low")  # [b p h' w']
        a = trace.step("low_score", "conv_1x1", self.low_score, x, formula=rf"W_x {name}", role="low")  # [b p/2 h' w']
        b = trace.step("high_score", "conv_1x1", self.high_score, y, formula="W_g Y+b", role="high")
        both = lambda a, b: F.relu(a + b)  # noqa: E731 - additive attention: either level can raise a score
        f = trace.step("both", "add_relu", both, a, b, formula=rf"f=\delta(W_x {name}+W_g Y+b)")
        s = trace.step("score", "conv_1x1", self.psi, f, formula=r"q=\mathrm{conv}(f)")  # [b 1 h' w'], psi and b_psi
        if grid == size:
            return trace.step("weight", "sigmoid", torch.sigmoid, s, formula=r"\alpha=\sigma(q)", role="weight")
        coarse = trace.step("coarse", "sigmoid", torch.sigmoid, s, formula=r"\sigma(q)", role="weight")  # [b 1 h' w']
        whole = lambda t: resized(t, size)  # noqa: E731 - alpha stays between its neighbours, so it stays a gate
        formula = r"\alpha=\uparrow\sigma(q)"
        return trace.step("weight", "resize_bilinear", whole, coarse, formula=formula, role="weight")  # [b 1 h w]

    def _terms(self, skip: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
        """The two maps whose sum is Z: W_a (alpha * X) and W_b up(Y)."""
        p, weight = skip.shape[1], self.mix.weight  # [width p+q 1 1]
        return F.conv2d(skip, weight[:, :p]), F.conv2d(up, weight[:, p:])
