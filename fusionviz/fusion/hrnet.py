"""HRNet's exchange: every level hears every other one, each at its own size and with its own number of channels.

Papers: Sun, Xiao, Liu, Wang, "Deep High-Resolution Representation Learning for Human Pose Estimation", CVPR 2019,
arXiv 1902.09212; Wang and others, the same for visual recognition, TPAMI, arXiv 1908.07919.
Idea: do not shrink first and recover the size later; keep all sizes side by side and let them exchange what they know
again and again. One exchange is n times n transforms: the identity on the diagonal, 1x1 and nearest enlargement
downwards, strided 3x3 convolutions upwards, and a sum with ReLU for each level.
Differs from paper: there four residual blocks stand on every branch before each exchange, and the branches are the
network; here the levels are your backbone's, and only the exchange is built. A step between two levels that is no
multiple of 2, or none, as in a transformer, has as many strided convolutions as octaves lie in it, at last by size.
`merged=off` hands out the finest level (HRNetV1, for keypoints), `concat` all of them at its size (HRNetV2, for
segmentation; its 1x1 convolution belongs to what reads the map). timm's exchange is the same.
"""

from collections.abc import Sequence
from math import log2

import torch
from torch import Tensor, nn

from fusionviz.fusion._base import Context, Fused, FusionModule, resize
from fusionviz.fusion._pyramid import fitted, merge
from fusionviz.registry import FusionSpec, Param, register
from fusionviz.trace import NullTrace

SPEC = FusionSpec(
    key="hrnet",
    family="early",
    equation=r"R_{i} = \delta(\sum_{j} f_{ji}(C_{j})), \quad f_{ii}(C) = C, \quad Z = R_{1}",
    year=2019,
    takes="pyramid",
    align="none",  # bringing levels together is the method itself
    params=(
        Param("exchanges", 1, low=1, high=4, step=1, refit=True),
        Param("merged", "off", choices=("off", "concat")),
    ),
    paper="Sun, Xiao, Liu, Wang. Deep High-Resolution Representation Learning for Human Pose Estimation. CVPR 2019",
    link="https://arxiv.org/abs/1902.09212",
    cite="Sun et al., CVPR 2019 · arXiv 1902.09212",
)


def transform(given: int, wanted: int, octaves: int) -> nn.Sequential:
    """Return f from a level with `given` channels to one with `wanted`, that many octaves coarser; no ReLU at its end.

    Only the last convolution changes the channels. To a finer level, or one of the same size, it is a 1x1 convolution.
    """
    if octaves <= 0:
        return nn.Sequential(nn.Conv2d(given, wanted, 1, bias=False), nn.BatchNorm2d(wanted))
    layers: list[nn.Module] = []
    for left in range(octaves - 1, -1, -1):
        out = given if left else wanted
        layers += [nn.Conv2d(given, out, 3, 2, 1, bias=False), nn.BatchNorm2d(out)] + [nn.ReLU()] * bool(left)
    return nn.Sequential(*layers)


@register(SPEC)
class HRNet(FusionModule):
    """Let all levels of a pyramid talk to each other at once, and keep every one of them.

    Helps where places must stay exact and meaning is needed at once. Costs n squared transforms where FPN has n.

    Equation: R_i = relu(sum_j f_ji(C_j)); f_ii(C) = C; j > i: up(BN(W_ji C_j)), W 1x1; j < i: 3x3 convolutions of
    stride 2, one for each octave, BN behind all and ReLU behind all but the last.
    Args:
        levels: two maps or more [b c_i h_i w_i], fine to coarse.
    Returns:
        FusionResult; "p4", "p8", ... are R_i [b c_i h_i w_i], as large and as wide as they came; "fused" is R_1, or
        with `merged` all of them [b sum(c_i) h_1 w_1]. No attention; the share of low is |C_1| / (|C_1| + |what all
        others brought|) at the finest level in the last exchange; `aligned` are these two.
    Differs from paper: no blocks between exchanges.
    Source: arXiv 1902.09212; timm's HighResolutionModule
    """

    def setup(self, exchanges: int, merged: str) -> None:
        self.merged, self.exchanges = merged, exchanges
        self.transforms = nn.ModuleDict()
        for e in range(1, exchanges + 1):
            for i, wanted in enumerate(self.channels, start=1):
                for j, given in enumerate(self.channels, start=1):
                    octaves = round(log2(self.strides[i - 1] / self.strides[j - 1]))
                    if j != i:
                        self.transforms[f"{e}_{j}_{i}"] = transform(given, wanted, octaves if j < i else 0)

    def fuse(self, *maps: Tensor, context: Context, trace: NullTrace) -> Fused:
        levels, count = maps, len(maps)
        for e in range(1, self.exchanges + 1):
            heard = [self._heard(e, i, levels, trace) for i in range(1, count + 1)]  # n times n maps, [b c_i h_i w_i]
            levels = tuple(self._sum(e, i, h, trace) for i, h in enumerate(heard, start=1))  # as they came
        own, first, *rest = heard[0]
        met = (own, sum(rest, first))
        z = levels[0] if self.merged == "off" else merge(self.merged, levels, "bilinear", trace)
        return Fused(z, terms=lambda: met, levels=levels, aligned=met)

    def _heard(self, e: int, i: int, levels: Sequence[Tensor], trace: NullTrace) -> list[Tensor]:
        """What reaches level i in exchange e: from every level one map of its size and channels, fine to coarse."""
        size = tuple(levels[i - 1].shape[-2:])
        return [c if j == i else self._transform(e, j, i, c, size, trace) for j, c in enumerate(levels, start=1)]

    def _sum(self, e: int, i: int, heard: list[Tensor], trace: NullTrace) -> Tensor:
        add = lambda *t: torch.stack(t).sum(0).relu()  # noqa: E731
        role = "fused" if (i, e, self.merged) == (1, self.exchanges, "off") else ""
        names = [f"f_{{{j}{i}}}({self._name(e, j)})" if j != i else self._name(e, i) for j in range(1, len(heard) + 1)]
        formula = rf"{self._name(e + 1, i)}=\delta({'+'.join(names)})"
        return trace.step(f"r{e}_{i}", "add_relu", add, *heard, formula=formula, role=role)

    def _transform(self, e: int, j: int, i: int, level: Tensor, size: tuple[int, int], trace: NullTrace) -> Tensor:
        """What level i hears of level j."""
        key, module, name = f"{e}_{j}_{i}", self.transforms[f"{e}_{j}_{i}"], self._name(e, j)
        role = {1: "low", len(self.channels): "high"}.get(j, "") if e == 1 else ""
        if j < i and module[0].stride == (2, 2):
            shrink = lambda t: fitted(module(t), size)  # noqa: E731 - odd sizes meet
            formula = rf"f_{{{j}{i}}}({name})"
            return trace.step(f"f{key}", "strided", shrink, level, formula=formula, role=role, module=module)
        formula = rf"\mathrm{{BN}}(W_{{{j}{i}}}{name})"
        t = trace.step(f"f{key}", "conv_bn", module, level, formula=formula, role=role)  # [b c_i h_j w_j]
        if tuple(t.shape[-2:]) == size:
            return t
        repeat = lambda t: resize(t, size, "nearest")  # noqa: E731
        return trace.step(f"up{key}", "resize_nearest", repeat, t, formula=rf"f_{{{j}{i}}}({name})", role=role)

    def _name(self, e: int, i: int) -> str:
        """What exchange e is given of level i: the backbone's own, or what the exchange before made of it."""
        if e == 1:
            return f"C_{{{i}}}"
        return f"R_{{{i}}}" if self.exchanges == 1 else f"R_{{{i}}}^{{{e - 1}}}"
