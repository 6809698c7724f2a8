"""ASFF, adaptively spatial feature fusion: at every place, a softmax over the levels says which of them to believe.

Paper: Liu, Huang, Wang, "Learning Spatial Fusion for Single-Shot Object Detection", arXiv 1911.09516.
Idea: a thing is an answer on one level of a pyramid and background on the others, and a plain sum mixes both. So bring
all levels to the size of each one, let small 1x1 convolutions score them place by place, and share out a whole: the
weights of a place sum to 1 over the levels, and all channels share them.
Differs from paper: nothing for its three levels; here there are two or more, and `width` channels on each. Finer levels
come down by a strided 3x3 convolution, behind a maximum where the step is larger than 2; coarser ones through a 1x1
convolution and by repeating cells, as in the released code (convolution, normalisation, leaky ReLU of slope 0.1; 16
channels to score with). `expand` off stops before the last 3x3 convolution; `temperature` is ours.
"""

import torch
from torch import Tensor, nn

from fusionviz.fusion._base import Context, Fused, FusionModule, resize
from fusionviz.fusion._pyramid import fitted, pooled
from fusionviz.records import AttentionMap
from fusionviz.registry import FusionSpec, Param, register
from fusionviz.trace import NullTrace

SCORED = 16
"""Channels of each level that its score is made of."""

SPEC = FusionSpec(
    key="asff",
    family="pyramid",
    equation=r"Z = K \ast \sum_i w_i \otimes C_i^1, \quad w = \mathrm{softmax}_i(s_i / \tau)",
    year=2019,
    takes="pyramid",
    align="none",  # bringing levels together is the method itself
    params=(
        Param("width", 64, low=4, high=1024, step=4, refit=True),
        Param("temperature", 1.0, low=0.1, high=10.0, step=0.1),
        Param("expand", True, refit=True),
    ),
    paper="Liu, Huang, Wang. Learning Spatial Fusion for Single-Shot Object Detection. 2019",
    link="https://arxiv.org/abs/1911.09516",
    cite="Liu et al., 2019 · arXiv 1911.09516",
    weighs="low",
)


def block(c: int, width: int, kernel: int = 1, stride: int = 1) -> nn.Sequential:
    """Return convolution, normalisation, leaky ReLU."""
    conv = nn.Conv2d(c, width, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.LeakyReLU(0.1))


class Scores(nn.Module):
    """One score for each of n maps at every place: [b c h w] n times -> [b n h w]."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.look = nn.ModuleList(block(width, SCORED) for _ in range(count))
        self.compare = nn.Conv2d(count * SCORED, count, 1)

    def forward(self, *maps: Tensor) -> Tensor:
        return self.compare(torch.cat([look(m) for look, m in zip(self.look, maps, strict=True)], 1))


@register(SPEC)
class ASFF(FusionModule):
    """Choose between levels at every place.

    Before the last convolution every value lies between those of the levels at that place. With two levels it is a
    soft selection between low and high.

    Equation: y_l = sum_i w_i * C_i^l; w = softmax over i of s_i / temperature; out_l = K_l * y_l.
    Args:
        levels: two maps or more [b c_i h_i w_i], fine to coarse.
    Returns:
        FusionResult; "p4", "p8", ... are out_l [b width h_l w_l], "fused" is the finest. Attention "low" holds the
        weights of all levels, fine to coarse, at the finest level's places: [b n h w], in (0, 1), summing to 1 over n;
        its first is the low level's. "at_2", "at_3", ... are those of the coarser outputs at their places. `aligned`
        are C_1^1 and C_n^1.
    Source: arXiv 1911.09516
    """

    def setup(self, width: int, temperature: float, expand: bool) -> None:
        self.temperature = temperature
        self.bring, self.scores, self.expand = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        for to, stride in enumerate(self.strides, start=1):
            for i, c in enumerate(self.channels, start=1):
                if i < to and round(stride / self.strides[i - 1]) > 1:
                    self.bring[f"{i}_{to}"] = block(c, width, 3, 2)
                elif i != to or c != width:
                    self.bring[f"{i}_{to}"] = block(c, width)
            self.scores[str(to)] = Scores(len(self.channels), width)
            if expand:
                self.expand[str(to)] = block(width, width, 3)

    def fuse(self, *maps: Tensor, context: Context, trace: NullTrace) -> Fused:
        outs, weights, met = [], [], None
        for to, own in enumerate(maps, start=1):
            size = tuple(own.shape[-2:])
            brought = [self._bring(i, to, c, size, trace) for i, c in enumerate(maps, start=1)]  # n times [b width h w]
            met = met or (brought[0], brought[-1])
            s = trace.step(f"scores_{to}", "scores", self.scores[str(to)], *brought, formula=r"s_{i}")  # [b n h w]
            heat = "" if self.temperature == 1 else f"/{self.temperature:g}"
            share, formula = lambda t: torch.softmax(t / self.temperature, 1), rf"w=\mathrm{{softmax}}_i(s_i{heat})"
            w = trace.step(f"weight_{to}", "softmax", share, s, formula=formula, role="weight")  # [b n h w]
            mix = lambda w, *maps: sum(w[:, k : k + 1] * m for k, m in enumerate(maps))  # noqa: E731
            role, conv = "fused" if to == 1 else "", self.expand[str(to)] if self.expand else None
            formula, inner = rf"y_{{{to}}}=\sum_i w_i\otimes C_i^{{{to}}}", role if conv is None else ""
            y = trace.step(f"sum_{to}", "weighted_sum", mix, w, *brought, formula=formula, role=inner)  # [b width h w]
            if conv is not None:
                y = trace.step(f"out_{to}", "conv_bn_relu", conv, y, formula=rf"K_{{{to}}}\ast y_{{{to}}}", role=role)
            outs.append(y)
            weights.append(self._attention(to, w))
        return Fused(outs[0], tuple(weights), levels=tuple(outs), aligned=met)

    def _bring(self, i: int, to: int, c: Tensor, size: tuple[int, int], trace: NullTrace) -> Tensor:
        """Level i with the size and channels of output `to`."""
        key, module, letter = f"{i}_{to}", dict(self.bring).get(f"{i}_{to}"), rf"C_{{{i}}}"
        role = {1: "low", len(self.channels): "high"}.get(i, "") if to == 1 else ""
        formula = rf"C_{{{i}}}^{{{to}}}"
        if module is None:
            return c  # its own level, and as wide as it should be
        if module[0].stride == (2, 2):
            half = tuple(2 * n for n in size)
            if round(self.strides[to - 1] / self.strides[i - 1]) > 2:
                shrink = lambda t: pooled(t, half)  # noqa: E731 - until one stride of 2 is left
                c = trace.step(f"pool_{key}", "max_pool", shrink, c, formula=rf"\max\,{letter}")
            stride = lambda t: fitted(module(t), size)  # noqa: E731 - odd sizes meet
            return trace.step(f"to_{key}", "conv_bn_relu", stride, c, formula=formula, module=module)
        c = trace.step(f"to_{key}", "project", module, c, formula=rf"W\,{letter}", role=role)
        if tuple(c.shape[-2:]) == size:
            return c
        repeat = lambda t: resize(t, size, "nearest")  # noqa: E731
        return trace.step(f"up_{key}", "resize_nearest", repeat, c, formula=formula, role=role)

    def _attention(self, to: int, weight: Tensor) -> AttentionMap:
        """With two levels it chooses: low + high = 1. With more, the rest is shared by all levels above."""
        sums = "with_high" if len(self.channels) == 2 else "branches"
        if to == 1:
            return AttentionMap("low", weight, "b n h w", "softmax", "weight", "low", sums)
        return AttentionMap(f"at_{to}", weight, "b n h w", "softmax", "coarser_weight", "low", sums)
