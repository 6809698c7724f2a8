"""GAU, global attention upsample: the high level's mean says which channels of the low level to let in.

Paper: Li, Xiong, An, Wang, "Pyramid Attention Network for Semantic Segmentation" (PAN), BMVC 2018, arXiv 1805.10180.
Not the gated attention unit of transformers, and PAN is not PANet.
Idea: an FPN-like decoder adds a fine level as it comes, noise and all. Let the coarse level, which knows what is in the
picture, first weigh the fine one's channels; then add the coarse one, enlarged. It is never weighed itself.
Differs from paper: there the high level comes from the pyramid attention before it, with the decoder's number of
channels; here a 1x1 convolution brings it there where the two levels differ. The paper calls the gate's nonlinearity
just that; it is a sigmoid here, as in segmentation_models_pytorch.
Differs from that library: there batch norm and ReLU follow the 3x3 convolution, convolutions before a batch norm have
biases, and the corners of both maps are laid on one another; `variant=library` gives the first two.
"""

import torch
from torch import Tensor, nn

from fusionviz.fusion._base import RESIZE, WIDTH, Alignment, Context, Fused, FusionModule
from fusionviz.records import AttentionMap
from fusionviz.registry import FusionSpec, Param, register
from fusionviz.trace import NullTrace

SPEC = FusionSpec(
    key="gau",
    family="attention",
    equation=r"Z = {\uparrow}Y + (K \ast X) \otimes \sigma(\mathrm{BN}(W\,\mathrm{GAP}(Y)))",
    year=2018,
    align="none",  # the gate has to see the high level before it is enlarged, and K brings X to its channels
    params=(Param("variant", "paper", choices=("paper", "library"), refit=True), WIDTH, RESIZE),
    paper="Li, Xiong, An, Wang. Pyramid Attention Network for Semantic Segmentation. BMVC 2018",
    link="https://arxiv.org/abs/1805.10180",
    cite="Li et al., BMVC 2018 · arXiv 1805.10180",
)


@register(SPEC)
class GAU(FusionModule):
    """Add to the high level what it asks the low level for, channel by channel.

    Modulation, not selection: the gate is read from the high level alone, and closing it leaves Y, not nothing. The
    same answer holds everywhere in the picture; where in it a channel of the low level is right, no one asks.

    Equation: Z = up(Y) + (K conv X) * sigma(BN(W GAP(Y))), K 3x3, W 1x1.
    Args:
        low, high: maps [b p h w] and [b q h' w'] of any sizes. Where p = q both keep their channels, else both get
            `width`: Y by a 1x1 convolution, X by K.
    Returns:
        FusionResult; fused is [b c h w]; attention "gate" is [b c 1 1] in (0, 1), of the low level. The share of low
        is |(K conv X) * M| / (|(K conv X) * M| + |up(Y)|); `aligned` are K conv X and up(Y).
    Raises:
        ShapeError: in training with a batch of one; give two pictures, or use eval mode.
    Differs from paper: the 1x1 convolution before Y; `variant=library` is another reading of K.
    Source: arXiv 1805.10180
    """

    pools_to_one = True

    def setup(self, variant: str, width: int, resize: str) -> None:
        low, high = self.channels
        c, library = high if low == high else width, variant == "library"
        self.project = nn.Conv2d(high, c, 1, bias=False) if high != c else None
        self.gate = nn.Sequential(nn.Conv2d(c, c, 1, bias=library), nn.BatchNorm2d(c))
        self.conv = nn.Sequential(nn.Conv2d(low, c, 3, padding=1, bias=library))
        if library:
            self.conv.extend((nn.BatchNorm2d(c), nn.ReLU()))
        self.enlarge = Alignment((c, c), self.strides, "size", resize=resize)

    def fuse(self, x: Tensor, y: Tensor, *, context: Context, trace: NullTrace) -> Fused:
        if self.project is not None:
            y = trace.step("high_project", "project", self.project, y, formula=r"W_{Y} Y", role="high")  # [b c h' w']
        mean = lambda t: t.mean((2, 3), keepdim=True)  # noqa: E731 - before Y is enlarged, which would bend its mean
        g = trace.step("squeeze", "pool", mean, y, formula=r"g=\mathrm{GAP}(Y)")  # [b c 1 1]
        s = trace.step("scores", "conv_norm", self.gate, g, formula=r"\mathrm{BN}(W g)")  # [b c 1 1]
        m = trace.step("weight", "sigmoid", torch.sigmoid, s, formula=r"M=\sigma(\mathrm{BN}(W g))", role="weight")
        op, formula = ("conv_bn_relu", r"\delta(\mathrm{BN}(K\ast X))") if len(self.conv) > 1 else ("conv", r"K\ast X")
        k = trace.step("low_conv", op, self.conv, x, formula=formula, role="low")  # [b c h w]
        low = trace.step(
            "gated", "multiply", torch.mul, k, m, formula=rf"({formula})\otimes M", role="low"
        )  # [b c h w]
        _, high = self.enlarge(k, y, trace)  # [b c h w]
        add = rf"\uparrow Y+({formula})\otimes M"
        z = trace.step("fused", "add", torch.add, high, low, formula=add, role="fused")  # [b c h w]
        weight = AttentionMap("gate", m, "b c 1 1", "gate", "channel_gate", "low")
        return Fused(z, (weight,), terms=lambda: (low, high), aligned=(k, high))
