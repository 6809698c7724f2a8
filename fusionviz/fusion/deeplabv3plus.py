"""DeepLabv3+: look at the high level through several windows at once, then let a few channels of the low level help.

Paper: Chen, Zhu, Papandreou, Schroff, Adam, "Encoder-Decoder with Atrous Separable Convolution for Semantic Image
Segmentation", ECCV 2018, arXiv 1802.02611.
Idea: the high level knows what is there; atrous convolutions of several rates and the mean of the picture tell each of
its places what is around it (ASPP). It is enlarged and stacked on the low level, whose channels are first cut down to
48, so that they show where edges run and do not drown what the others mean. Two 3x3 convolutions mix both.
Differs from paper: nothing in the decoder by default; the last enlargement, to the size of the picture, belongs to what
reads the fused map. The rates are those for an output stride of 16; `rates=1-2-3` is ours, for maps of a few cells.
Differs from the released code: that drops numbers out behind ASPP while it is trained, enlarges with aligned corners,
and with `separable` normalises between the depthwise and the 1x1 convolution too; here, as the paper draws it, nothing
stands between them. segmentation_models_pytorch has `separable`, one convolution instead of two (`convs=1`) and one
more behind ASPP, and aligned corners; torchvision has DeepLabv3 only, which has no low level.
"""

import torch
from torch import Tensor, nn

from fusionviz.fusion._base import Context, Fused, FusionModule, resize
from fusionviz.fusion._pyramid import WIDTH
from fusionviz.registry import FusionSpec, Param, register
from fusionviz.trace import NullTrace

SPEC = FusionSpec(
    key="deeplabv3plus",
    family="early",
    equation=r"Z = \delta(K_{2} \ast \delta(K_{1} \ast [{\uparrow}A;\,\delta(W_x X)])), \quad A = \mathrm{ASPP}(Y)",
    year=2018,
    align="none",  # low is made narrow and high wide, and the method enlarges by itself
    params=(
        WIDTH,
        Param("budget", 48, choices=(8, 16, 32, 48, 64, 256), refit=True),
        Param("rates", "6-12-18", choices=("6-12-18", "12-24-36", "1-2-3")),
        Param("convs", 2, choices=(1, 2, 3), refit=True),
        Param("separable", False, refit=True),
    ),
    paper="Chen, Zhu, Papandreou, Schroff, Adam. Encoder-Decoder with Atrous Separable Convolution for Semantic Image "
    "Segmentation. ECCV 2018",
    link="https://arxiv.org/abs/1802.02611",
    cite="Chen et al., ECCV 2018 · arXiv 1802.02611",
)


def block(c: int, width: int, kernel: int = 3, rate: int = 1, separable: bool = False) -> nn.Sequential:
    """Return convolution, normalisation, ReLU; the size stays."""
    around = {"kernel_size": kernel, "padding": rate * (kernel // 2), "dilation": rate, "bias": False}
    convs = [nn.Conv2d(c, width, **around)]
    if separable:
        convs = [nn.Conv2d(c, c, groups=c, **around), nn.Conv2d(c, width, 1, bias=False)]
    return nn.Sequential(*convs, nn.BatchNorm2d(width), nn.ReLU())


@register(SPEC)
class DeepLabV3Plus(FusionModule):
    """Stack a narrow low level on a high level that has looked far around, and mix.

    Helps outlines, which ASPP alone returns in cells of the high level. The budget says how loud the low level may be.

    Equation: Z = relu(BN(K_2 * relu(BN(K_1 * [up(A); relu(BN(W_x X))])))), A = relu(BN(W [A_0; ...; A_4])), A_0 = 1x1
    of Y, A_1 ... A_3 = 3x3 of Y with the three rates, A_4 = 1x1 of the mean of Y; every one behind BN and ReLU.
    Args:
        low, high: maps [b p h w] and [b q h' w'] of any sizes and channels; they are not aligned before.
    Returns:
        FusionResult; fused is [b width h w]. No attention; the share of low is the norm of what K_1's block for the low
        level brings, over the sum with that of its block for up(A); `aligned` are relu(BN(W_x X)) [b budget h w] and
        up(A) [b width h w].
    Raises:
        ShapeError: in training with a batch of one, for the mean is normalised; give two pictures, or use eval mode.
    Differs from paper: see the head of this file.
    Source: arXiv 1802.02611
    """

    pools_to_one = True

    def setup(self, width: int, budget: int, rates: str, convs: int, separable: bool) -> None:
        low, high = self.channels
        self.rates = tuple(int(r) for r in rates.split("-"))
        self.look = nn.ModuleList([block(high, width, 1)])
        self.look.extend(block(high, width, rate=r, separable=separable) for r in self.rates)
        self.look.append(block(high, width, 1))
        self.project = block(len(self.look) * width, width, 1)
        self.reduce = block(low, budget, 1)
        starts = (width + budget, *[width] * (convs - 1))
        self.mix = nn.ModuleList(block(c, width, separable=separable) for c in starts)

    def fuse(self, x: Tensor, y: Tensor, *, context: Context, trace: NullTrace) -> Fused:
        size, up = tuple(x.shape[-2:]), self._pyramid_of(y, trace)  # [b width h' w']
        if tuple(y.shape[-2:]) != size:  # levels of one size, as a transformer has them, meet as they are
            enlarge = lambda t: resize(t, size)  # noqa: E731
            up = trace.step("high_resize", "resize_bilinear", enlarge, up, formula=r"{\uparrow}A", role="high")
        formula = r"L=\delta(\mathrm{BN}(W_x X))"
        low = trace.step("reduce", "reduce_bn_relu", self.reduce, x, formula=formula, role="low")  # [b budget h w]
        beside = lambda *t: torch.cat(t, 1)  # noqa: E731
        z = trace.step("stack", "concat", beside, up, low, formula=r"[{\uparrow}A;\,L]")  # [b width+budget h w]
        for i, conv in enumerate(self.mix, start=1):
            given, role = r"[{\uparrow}A;\,L]" if i == 1 else f"Z_{{{i - 1}}}", "fused" if i == len(self.mix) else ""
            formula = rf"Z_{{{i}}}=\delta(\mathrm{{BN}}(K_{{{i}}}\ast {given}))"
            z = trace.step(f"conv_{i}", "conv_bn_relu", conv, z, formula=formula, role=role)  # [b width h w]
        return Fused(z, terms=lambda: self._terms(low, up), aligned=(low, up))

    def _pyramid_of(self, y: Tensor, trace: NullTrace) -> Tensor:
        """Atrous spatial pyramid pooling: [b q h' w'] -> [b width h' w']."""
        point, *around, image = self.look
        size = tuple(y.shape[-2:])
        found = [trace.step("at_1x1", "reduce_bn_relu", point, y, formula=r"A_{0}=\delta(\mathrm{BN}(W_{0} Y))")]
        for i, (rate, conv) in enumerate(zip(self.rates, around, strict=True), start=1):
            formula = (
                rf"A_{{{i}}}=\delta(\mathrm{{BN}}(K^{{{rate}}}\ast Y))"  # the kernel's taps lie `rate` cells apart
            )
            found.append(trace.step(f"at_{i}", "atrous", conv, y, formula=formula))
        mean = lambda t: t.mean((2, 3), keepdim=True)  # noqa: E731 - the window that no rate is large enough for
        g = trace.step("squeeze", "pool", mean, y, formula=r"g=\mathrm{GAP}(Y)")  # [b q 1 1]
        g = trace.step("at_image", "reduce_bn_relu", image, g, formula=r"A_{4}=\delta(\mathrm{BN}(W_{4}\,g))")
        spread = lambda t: t.expand(-1, -1, *size)  # noqa: E731 - one value at every place
        found.append(trace.step("spread", "spread", spread, g, formula=r"{\uparrow}A_{4}"))
        beside = lambda *t: torch.cat(t, 1)  # noqa: E731
        stack = trace.step(
            "windows", "concat", beside, *found, formula=r"S=[A_{0};\,A_{1};\,A_{2};\,A_{3};\,{\uparrow}A_{4}]"
        )
        formula = r"A=\delta(\mathrm{BN}(W S))"
        return trace.step("aspp", "reduce_bn_relu", self.project, stack, formula=formula, role="high")

    def _terms(self, low: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
        """What each of the two brings to the first convolution of their stack, before it is normalised."""
        linear = self.mix[0][:-2]  # without normalisation and ReLU it has no bias, so a part alone is its own term
        return linear(torch.cat((torch.zeros_like(up), low), 1)), linear(torch.cat((up, torch.zeros_like(low)), 1))
