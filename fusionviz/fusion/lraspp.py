"""LR-ASPP: the high level gates its own channels by what the whole picture holds; then low and high vote together.

Paper: Howard, Sandler, Chu, Chen, Chen, Tan, Wang, Zhu, Pang, Vasudevan, Le, Adam, "Searching for MobileNetV3",
ICCV 2019, arXiv 1905.02244, section 6.4.
Idea: MobileNetV3's cheap head for segmentation. A gate for each channel, from the mean of the high level, says which
of its channels matter in this picture; what is left is enlarged, and both levels give scores for the classes, which
are added. So what is fused are no features but votes.
Differs from paper: as torchvision has it, the mean runs over the whole map instead of over large windows.
`gate=hard-sigmoid` is the gate of MobileNetV3's own SE blocks, which reaches 0 and 1 exactly; `low_branch=off` leaves
the low level's votes out. The classes are 21 by default, as in the published head.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionviz.fusion._base import Context, Fused, FusionModule, resize
from fusionviz.records import AttentionMap
from fusionviz.registry import FusionSpec, Param, register
from fusionviz.trace import NullTrace

SPEC = FusionSpec(
    key="lraspp",
    family="pyramid",
    equation=r"Z = W_x X + W_y\,{\uparrow}(\delta(\mathrm{BN}(W Y)) \otimes s), \quad s = \sigma(W_s\,\mathrm{GAP}(Y))",
    year=2019,
    align="none",  # the high level is gated at its own size, and enlarged by the method itself
    params=(
        Param("width", 128, low=4, high=1024, step=4, refit=True),
        Param("classes", 21, low=2, high=1024, step=1, refit=True),
        Param("low_branch", True, refit=True),
        Param("gate", "sigmoid", choices=("sigmoid", "hard-sigmoid")),
    ),
    paper="Howard, Sandler, Chu, Chen, Chen, Tan, Wang, Zhu, Pang, Vasudevan, Le, Adam. Searching for MobileNetV3. "
    "ICCV 2019",
    link="https://arxiv.org/abs/1905.02244",
    cite="Howard et al., ICCV 2019 · arXiv 1905.02244",
)


@register(SPEC)
class LRASPP(FusionModule):
    """Add the votes of a fine level to those of a coarse one whose channels were gated.

    Cheap: everything is 1x1, and nothing but the last product runs at the fine level's size.

    Equation: Z = W_x X + b_x + W_y up(V * s) + b_y, V = relu(BN(W Y)), s = sigma(W_s GAP(Y)).
    Args:
        low, high: maps [b p h w] and [b q h' w'] of any sizes and channels; they are not aligned before.
    Returns:
        FusionResult; fused is [b classes h w], scores before any softmax; attention "gate" is [b width 1 1], in (0, 1)
        with the sigmoid, in [0, 1] with the hard one. The share of low is |W_x X| / (|W_x X| + |W_y up(V * s)|): the
        biases belong to neither. `aligned` are the two maps of scores.
    Differs from paper: the mean is global, as in torchvision.
    Source: arXiv 1905.02244; torchvision's LRASPPHead
    """

    def setup(self, width: int, classes: int, low_branch: bool, gate: str) -> None:
        low, high = self.channels
        self.hard = gate == "hard-sigmoid"
        self.reduce = nn.Sequential(nn.Conv2d(high, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.scale = nn.Conv2d(high, width, 1, bias=False)
        self.low_votes = nn.Conv2d(low, classes, 1) if low_branch else None
        self.high_votes = nn.Conv2d(width, classes, 1)

    def fuse(self, x: Tensor, y: Tensor, *, context: Context, trace: NullTrace) -> Fused:
        size, gates, alone = tuple(x.shape[-2:]), (torch.sigmoid, F.hardsigmoid), self.low_votes is None
        mean = lambda t: t.mean((2, 3), keepdim=True)  # noqa: E731 - the whole picture in one number for each channel
        v = trace.step("reduce", "conv_bn_relu", self.reduce, y, formula=r"V=\delta(\mathrm{BN}(W\,Y))", role="high")
        g = trace.step("squeeze", "pool", mean, y, formula=r"g=\mathrm{GAP}(Y)")  # [b q 1 1]
        t = trace.step("scale", "conv_1x1", self.scale, g, formula=r"W_s\,g")  # [b width 1 1]
        op, formula = "hard_sigmoid" if self.hard else "sigmoid", r"s=\sigma(W_s\,g)"
        s = trace.step("gate", op, gates[self.hard], t, formula=formula, role="weight")  # [b width 1 1]
        vs = trace.step("gated", "multiply", torch.mul, v, s, formula=r"V\otimes s", role="high")  # [b width h' w']
        u = vs  # levels of one size, as a transformer has them, meet as they are
        if tuple(y.shape[-2:]) != size:
            up = lambda t: resize(t, size)  # noqa: E731
            u = trace.step("high_resize", "resize_bilinear", up, vs, formula=r"\uparrow(V\otimes s)", role="high")
        key, role = ("fused", "fused") if alone else ("high_votes", "high")
        z = high = trace.step(key, "votes", self.high_votes, u, formula=r"W_y\,{\uparrow}(V\otimes s)", role=role)
        met = None
        if not alone:
            low = trace.step("low_votes", "votes", self.low_votes, x, formula=r"W_x X", role="low")  # [b classes h w]
            formula = r"W_x X+W_y\,{\uparrow}(V\otimes s)"
            z = trace.step("fused", "add", torch.add, low, high, formula=formula, role="fused")  # [b classes h w]
            met = (low, high)
        weight = AttentionMap("gate", s, "b c 1 1", "gate", "channel_gate", "high")
        return Fused(z, (weight,), terms=lambda: self._terms(x, u), aligned=met)

    def _terms(self, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """The votes of each level without the biases, which belong to neither."""
        high = F.conv2d(u, self.high_votes.weight)
        return torch.zeros_like(high) if self.low_votes is None else F.conv2d(x, self.low_votes.weight), high
