"""PANet, the path aggregation network: after FPN's way down, a short way up again.

Paper: Liu, Qi, Qin, Shi, Jia, "Path Aggregation Network for Instance Segmentation", CVPR 2018, arXiv 1803.01534.
Idea: where a thing's outline lies is known below, and its way to the top of the backbone is a hundred layers long. A
second, bottom-up path of a few convolutions carries it there. A prediction then looks at all levels at once, and takes
the strongest answer of each channel (adaptive feature pooling).
Differs from paper: it pools all levels over a proposed region, each behind a layer of its own; here over the whole map,
at the finest level's places, without that layer. `pooling=off` hands out the finest level alone, which is FPN's:
N_1 = P_1, the way up never comes back. Its branch for masks is not built.
Differs from the released code: with group normalisation it has a ReLU behind both convolutions of a step, which
`relu=both` restores, without the normalisation; without it none at all, `relu=none`.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionviz.fusion._base import Context, Fused
from fusionviz.fusion._pyramid import UPSAMPLE, WIDTH, fitted
from fusionviz.fusion.fpn import FPN
from fusionviz.registry import FusionSpec, Param, register
from fusionviz.trace import NullTrace

SPEC = FusionSpec(
    key="panet",
    family="pyramid",
    equation=r"N_1 = P_1, \quad N_{i+1} = K_i \ast (\delta(S_i \ast N_i) + P_{i+1}), \quad Z = \max_i {\uparrow} N_i",
    year=2018,
    takes="pyramid",
    align="none",  # bringing levels together is the method itself
    params=(
        WIDTH,
        UPSAMPLE,
        Param("bottom_up", True, refit=True),
        Param("pooling", "max", choices=("max", "sum", "off"), refit=True),
        Param("relu", "inner", choices=("inner", "both", "none"), refit=True),
    ),
    paper="Liu, Qi, Qin, Shi, Jia. Path Aggregation Network for Instance Segmentation. CVPR 2018",
    link="https://arxiv.org/abs/1803.01534",
    cite="Liu et al., CVPR 2018 · arXiv 1803.01534",
)


@register(SPEC)
class PANet(FPN):
    """Give the coarse levels the places of the fine ones, after the fine ones got the meaning of the coarse.

    Helps large things, whose outline is known below. With the bottom-up path off it is FPN.

    Equation: P_1 ... P_n as FPN's outputs; N_1 = P_1; N_{i+1} = K_i * (relu(S_i * N_i) + P_{i+1}), S_i 3x3 with the
    stride between the levels, K_i 3x3; Z = max over i of up(N_i).
    Args:
        levels: two maps or more [b c_i h_i w_i], fine to coarse.
    Returns:
        FusionResult; "p4", "p8", ... are N_1, N_2, ... [b width h_i w_i]; "fused" is [b width h_1 w_1]. No attention;
        the share of low is FPN's, at the place where the finest level meets what comes down.
    Differs from paper: pooling is over the whole map; `relu` is as in the released code.
    Source: arXiv 1803.01534
    """

    def setup(self, width: int, upsample: str, bottom_up: bool, pooling: str, relu: str) -> None:
        super().setup(width, upsample, lateral=True, top_down=True, smooth=True, merged=pooling)
        self.relu = relu
        self.shrink, self.settle = nn.ModuleDict(), nn.ModuleDict()
        for i in range(1, len(self.channels) if bottom_up else 1):
            factor = max(1, round(self.strides[i] / self.strides[i - 1]))
            self.shrink[str(i)] = nn.Conv2d(width, width, 3, factor, 1)
            self.settle[str(i)] = nn.Conv2d(width, width, 3, 1, 1)
        for conv in (*self.shrink.values(), *self.settle.values()):
            nn.init.kaiming_uniform_(conv.weight, a=1)
            nn.init.zeros_(conv.bias)

    def fuse(self, *maps: Tensor, context: Context, trace: NullTrace) -> Fused:
        levels, lateral, above = self._descend(maps, trace)
        if self.shrink:
            levels = self._ascend(levels, trace)
        return self._hand_out(levels, lateral, above, trace)

    def _ascend(self, levels: tuple[Tensor, ...], trace: NullTrace) -> tuple[Tensor, ...]:
        outs = [levels[0]]  # nothing is done to the finest level: N_1 = P_1
        for i, p in enumerate(levels[1:], start=1):
            n = self._shrink(i, outs[-1], tuple(p.shape[-2:]), trace)  # [b width h w]
            sum_ = rf"\downarrow N_{{{i}}}+P_{{{i + 1}}}"
            n = trace.step(f"meet_{i + 1}", "add", torch.add, n, p, formula=sum_)  # [b width h w]
            k, both = self.settle[str(i)], self.relu == "both"
            settle, formula = self._conv(k, both), rf"N_{{{i + 1}}}=K_{{{i}}}\ast(\downarrow N_{{{i}}}+P_{{{i + 1}}})"
            outs.append(trace.step(f"n_{i + 1}", f"conv{'_relu' * both}", settle, n, formula=formula, module=k))
        return tuple(outs)

    def _shrink(self, i: int, n: Tensor, size: tuple[int, int], trace: NullTrace) -> Tensor:
        conv, relu = self.shrink[str(i)], self.relu != "none"
        formula = rf"\delta(S_{{{i}}}\ast N_{{{i}}})" if relu else rf"S_{{{i}}}\ast N_{{{i}}}"
        shrink = lambda t: fitted(self._conv(conv, relu)(t), size)  # noqa: E731 - odd sizes meet
        return trace.step(f"down_{i}", f"conv{'_relu' * relu}", shrink, n, formula=formula, module=conv)

    @staticmethod
    def _conv(conv: nn.Conv2d, relu: bool) -> Callable[[Tensor], Tensor]:
        return (lambda t: F.relu(conv(t))) if relu else conv
