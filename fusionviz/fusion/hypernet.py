"""HyperNet: fine, middle and coarse levels meet at the middle one's size, each behind its own convolution and LRN.

Paper: Kong, Yao, Chen, Sun, "HyperNet: Towards Accurate Region Proposal Generation and Joint Object Detection",
CVPR 2016, arXiv 1604.00600. No relative of the "hypernetworks" that predict the weights of other networks.
Idea: take layers that lie far apart, for neighbours say nearly the same; pool the fine one, deconvolve the coarse one,
and let local response normalisation bring their numbers into one range before they are stacked.
Differs from paper: its network is a VGG-16 with three layers; here any number of levels, the fine half pooled, the
coarse half deconvolved. The deconvolution works on each channel alone and starts as bilinear. `width` and `alpha` are
knobs of ours: the constants of the normalisation are Caffe's own (5 neighbours, beta 0.75, k 1, alpha 1), as the text
gives none.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionviz.fusion._base import Context, Fused, FusionModule, TransposedResize, resize
from fusionviz.fusion._stack import listed, middle
from fusionviz.registry import FusionSpec, Param, register
from fusionviz.trace import NullTrace

NEIGHBOURS, BETA, K = 5, 0.75, 1.0

SPEC = FusionSpec(
    key="hypernet",
    family="early",
    equation=r"Z = [N(K_{1} \ast {\downarrow}C_{1});\,N(K_{2} \ast C_{2});\,N(K_{3} \ast {\uparrow}C_{3})]",
    year=2016,
    takes="pyramid",
    align="none",  # bringing levels together is the method itself
    params=(
        Param("width", 64, low=4, high=512, step=4, refit=True),
        Param("lrn", True),
        Param("alpha", 1.0, choices=(0.0001, 0.01, 1.0)),
    ),
    paper="Kong, Yao, Chen, Sun. HyperNet. CVPR 2016",
    link="https://arxiv.org/abs/1604.00600",
    cite="Kong et al., CVPR 2016 · arXiv 1604.00600",
)


@register(SPEC)
class HyperNet(FusionModule):
    """Meet in the middle: fine levels are pooled, coarse ones deconvolved, and each is normalised before the stack.

    Helps small things, which a coarse last level has lost, at a quarter of the cost of meeting at the finest level.

    Equation: Z = [N(K_1 * down(C_1)); ...; N(K_m * C_m); ...; N(K_n * up(C_n))], K a 5x5 convolution;
    N(a)_c = a_c / (k + alpha/5 (sum of a^2 over channels c - 2 ... c + 2))^beta.
    Args:
        levels: two maps or more [b c_i h_i w_i], fine to coarse; of an even number the finer of the two in the middle
            gives the size.
    Returns:
        FusionResult; fused is [b n*width h_m w_m], with the places of the middle level. No attention; the share of
        low is the norm of its channels in the sum of this and the norm of all others; `aligned` are the pooled finest
        and the enlarged coarsest level, before their convolutions.
    Differs from paper: any number of levels; see the head of this file.
    Source: arXiv 1604.00600
    """

    def setup(self, width: int, lrn: bool, alpha: float) -> None:
        self.at, self.lrn, self.alpha = middle(len(self.channels)), lrn, alpha
        self.deconv = nn.ModuleDict()
        for i in range(self.at + 1, len(self.channels)):
            factor = round(self.strides[i] / self.strides[self.at])
            if factor > 1:
                self.deconv[str(i + 1)] = TransposedResize(self.channels[i], factor)
        self.conv = nn.ModuleList(nn.Conv2d(c, width, 5, padding=2) for c in self.channels)
        for conv in self.conv:
            nn.init.zeros_(conv.bias)

    def fuse(self, *maps: Tensor, context: Context, trace: NullTrace) -> Fused:
        size = tuple(maps[self.at].shape[-2:])
        same, blocks, names = [], [], []
        for i, c in enumerate(maps, start=1):
            name, c = self._bring(i, c, size, trace)  # [b c_i h w]
            formula, role = rf"K_{{{i}}}\ast {name}", self._role(i)
            block = trace.step(f"conv_{i}", "conv", self.conv[i - 1], c, formula=formula, role=role)  # [b width h w]
            if self.lrn:
                formula = rf"H_{{{i}}}=N({formula})"
                block = trace.step(f"lrn_{i}", "lrn", self.normalise, block, formula=formula, role=role)
            same, blocks, names = [*same, c], [*blocks, block], [*names, rf"H_{{{i}}}" if self.lrn else formula]
        z = trace.step("fused", "concat", lambda *t: torch.cat(t, 1), *blocks, formula=listed(names), role="fused")
        terms = lambda: (blocks[0], torch.cat(blocks[1:], 1))  # noqa: E731
        return Fused(z, terms=terms, aligned=(same[0], same[-1]), at=self.at)  # [b n*width h w]

    def normalise(self, block: Tensor) -> Tensor:
        """Local response normalisation over neighbouring channels; 0 stays 0, what is loud is pressed down."""
        return F.local_response_norm(block, NEIGHBOURS, self.alpha, BETA, K)

    def _bring(self, i: int, c: Tensor, size: tuple[int, int], trace: NullTrace) -> tuple[str, Tensor]:
        """A level at the middle one's size, and its name in formulas; levels of one size pass as they are."""
        letter, role = rf"C_{{{i}}}", self._role(i)
        learned = dict(self.deconv).get(str(i))
        if tuple(c.shape[-2:]) == size and learned is None:
            return letter, c
        if i - 1 < self.at:
            name, pool = rf"{{\downarrow}}{letter}", lambda t: F.adaptive_max_pool2d(t, size)
            return name, trace.step(f"down_{i}", "max_pool", pool, c, formula=name, role=role)
        name = rf"{{\uparrow}}{letter}"
        up = (lambda t: learned(t, size)) if learned is not None else (lambda t: resize(t, size))
        op = "resize_transposed" if learned is not None else "resize_bilinear"
        return name, trace.step(f"up_{i}", op, up, c, formula=name, role=role, module=learned)

    def _role(self, i: int) -> str:
        return {1: "low", len(self.channels): "high"}.get(i, "")
