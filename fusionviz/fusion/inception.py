"""Inception: look at one map through several windows at once, and stack what each of them found.

Paper: Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, arXiv 1409.4842, figure 2b.
Idea: nobody knows beforehand how large a thing is. So one layer has a 1x1, a 3x3, a 5x5 convolution and a pooling side
by side, and the next layer takes from the stack what it needs. All branches stand on one grid and come from one map:
this is fusion inside a layer, neither early nor late.
Differs from paper: nothing in the stack itself, which is the network's own, number for number; the branches are those
of the network on the board. torchvision's GoogLeNet has a 3x3 convolution where the paper has 5x5, which its source
calls a known bug (issue 906). `off` replaces one branch by zeros, and `reduce` appends a 1x1 convolution as the next
layer would; neither is in the paper.
"""

import torch
from torch import Tensor, nn

from fusionviz.errors import ParameterError
from fusionviz.fusion._base import Context, Fused, FusionModule
from fusionviz.fusion._stack import alone_and_rest, listed, low_and_rest
from fusionviz.registry import FusionSpec, Param, register
from fusionviz.trace import NullTrace

SPEC = FusionSpec(
    key="inception",
    family="early",
    equation=r"Z = [B_{1};\, B_{2};\, \ldots;\, B_{n}]",
    year=2015,
    takes="branches",
    stands="branches",
    align="none",  # branches of one layer agree by construction
    params=(
        Param("off", "none", choices=("none", "b1", "b2", "b3", "b4")),
        Param("reduce", 0, low=0, high=1024, step=8, refit=True),
    ),
    paper="Szegedy et al. Going Deeper with Convolutions. CVPR 2015",
    link="https://arxiv.org/abs/1409.4842",
    cite="Szegedy et al., CVPR 2015 · arXiv 1409.4842",
)


@register(SPEC)
class Inception(FusionModule):
    """Stack the maps that parallel branches made of one map.

    Helps where things of several sizes are in one picture; the widths of the branches are set by hand.

    Equation: Z = [B_1; ...; B_n], with `reduce` Z = W [B_1; ...; B_n] = W_1 B_1 + ... + W_n B_n.
    Args:
        branches: two maps or more [b c_i h w] of one size.
    Returns:
        FusionResult; fused is [b c_1+...+c_n h w], or [b reduce h w]. No attention; the share of low is the norm of the
        low branch in the sum of this and the norm of all others, with `reduce` the same of what W makes of them.
    Raises:
        ParameterError: if `off` names a branch that is not there.
    Source: arXiv 1409.4842
    """

    inputs = ("B", 1)

    def setup(self, off: str, reduce: int) -> None:
        names = [f"b{i + 1}" for i in range(len(self.channels))]
        if off != "none" and off not in names:
            allowed = ", ".join(("none", *names))
            raise ParameterError("param.value", method=self.spec.key, param="off", received=off, allowed=allowed)
        self.off = names.index(off) if off in names else None
        self.reduce = nn.Conv2d(sum(self.channels), reduce, 1, bias=False) if reduce else None

    def fuse(self, *branches: Tensor, context: Context, trace: NullTrace) -> Fused:
        maps, names = list(branches), [f"B_{{{i + 1}}}" for i in range(len(branches))]
        if self.off is not None:
            i = self.off
            maps[i] = trace.step(
                f"off_b{i + 1}", "switch_off", torch.zeros_like, maps[i], formula=f"0\\cdot {names[i]}"
            )
            names[i] = "0"
        key, role = ("fused", "fused") if self.reduce is None else ("stack", "")
        z = trace.step(key, "concat", lambda *m: torch.cat(m, 1), *maps, formula=listed(names), role=role)
        low = context.ends[0]
        if self.reduce is None:
            return Fused(z, terms=lambda: alone_and_rest(maps, low))  # [b c_1+...+c_n h w]
        z = trace.step("fused", "project", self.reduce, z, formula=f"W\\,{listed(names)}", role="fused")
        return Fused(z, terms=lambda: low_and_rest(self.reduce, maps, low))  # [b reduce h w]
