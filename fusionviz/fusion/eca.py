"""ECA, efficient channel attention: a weight per channel from its own mean and those of its neighbours in the list.

Paper: Wang, Wu, Zhu, Li, Zuo, Hu, "ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks", CVPR
2020, arXiv 1910.03151.
Idea: SE's bottleneck mixes all means and loses some on the way. Keep every mean, and let a one-dimensional convolution
over the list of channels look at k of them at a time: k parameters in all, whatever the number of channels.
Differs from paper: there the gate stands inside a residual block; here on the map made of two levels (`on`). The paper
takes k = |log2(c) / 2 + 1/2|, made odd: rounded down, then up if even, as in its listing and in timm, never below 3.
Differs from the released code: there k is given by hand, 3 unless told otherwise (its ResNet-50 has 3, 5, 5 and 7 by
stage); `kernel` gives any of them.
"""

from math import log2

import torch
from torch import Tensor, nn

from fusionviz.fusion._base import ALIGN, Context, Fused, FusionModule
from fusionviz.fusion._one import ON, Picked
from fusionviz.records import AttentionMap
from fusionviz.registry import FusionSpec, Param, register
from fusionviz.trace import NullTrace

KERNEL = Param("kernel", "adaptive", choices=("adaptive", "1", "3", "5", "7", "9"), refit=True)

SPEC = FusionSpec(
    key="eca",
    family="attention",
    equation=r"Z = U \otimes \sigma(w \ast \mathrm{GAP}(U)), \quad U \in \{X+Y,\, [X;Y],\, X,\, Y\}",
    year=2020,
    params=(ON, KERNEL, *ALIGN),
    paper="Wang, Wu, Zhu, Li, Zuo, Hu. ECA-Net: Efficient Channel Attention for Deep CNNs. CVPR 2020",
    link="https://arxiv.org/abs/1910.03151",
    cite="Wang et al., CVPR 2020 · arXiv 1910.03151",
)


def adaptive_kernel(channels: int) -> int:
    """Return the paper's k for a number of channels: 3 up to 127, 5 from 128, 7 from 2048."""
    k = int((log2(channels) + 1) / 2)
    return max(3, k if k % 2 else k + 1)


@register(SPEC)
class ECA(FusionModule):
    """Refine one map by a weight per channel that asks only its neighbours in the list of channels.

    Cheap, and no mean is lost in a bottleneck. But who is a neighbour is an accident of training: shuffle the channels
    of the network before, and the same gate sees other neighbours.

    Equation: Z = U * sigma(w conv GAP(U)), w of k numbers that slide over the c means, with zeros beyond both ends.
    Args:
        low, high: aligned maps [b c h w]; `on` says which of them, or their sum or concatenation, is U.
    Returns:
        FusionResult; fused is [b c h w] ([b 2c h w] on concat); attention "gate" is [b c 1 1] in (0, 1); its channels
        do not compete, they sum to nothing in particular.
    Differs from paper: `kernel` sets k by hand, as in the released code.
    Source: arXiv 1910.03151
    """

    def setup(self, on: str, kernel: str) -> None:
        self.pick = Picked(on, self.alignment.channels)
        k = adaptive_kernel(self.pick.channels) if kernel == "adaptive" else int(kernel)
        self.conv = nn.Conv1d(1, 1, k, padding=k // 2, bias=False)

    def fuse(self, x: Tensor, y: Tensor, *, context: Context, trace: NullTrace) -> Fused:
        u = self.pick(x, y, trace)  # [b c h w]
        mean = lambda t: t.mean((2, 3), keepdim=True)  # noqa: E731 - all that the gate will ever know of the picture
        g = trace.step("squeeze", "pool", mean, u, formula=rf"g=\mathrm{{GAP}}({self.pick.letter})")  # [b c 1 1]
        k = self.conv.kernel_size[0]
        s = trace.step("scores", "conv_channels", self._slide, g, formula=rf"w_{{{k}}}\ast g", module=self.conv)
        m = trace.step("weight", "sigmoid", torch.sigmoid, s, formula=rf"M=\sigma(w_{{{k}}}\ast g)", role="weight")
        z = trace.step("fused", "multiply", torch.mul, u, m, formula=rf"{self.pick.factor}\otimes M", role="fused")
        weight = AttentionMap("gate", m, "b c 1 1", "gate", "channel_gate", self.pick.on)
        return Fused(z, (weight,), terms=self.pick.terms(x, y, m))

    def _slide(self, means: Tensor) -> Tensor:
        """Convolve along the channels, which stand in a row as places do elsewhere."""
        row = means.flatten(2).transpose(1, 2)  # [b 1 c]
        return self.conv(row).transpose(1, 2).unsqueeze(3)  # [b c 1 1]
