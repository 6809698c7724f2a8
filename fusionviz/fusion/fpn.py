"""FPN, the feature pyramid network: hand what the coarse levels know down to the fine ones, by addition.

Paper: Lin, Dollár, Girshick, He, Hariharan, Belongie, "Feature Pyramid Networks for Object Detection", CVPR 2017,
arXiv 1612.03144.
Idea: from the top, enlarge a level by repeating its cells, add the next finer level through a 1x1 convolution, and go
on down; a 3x3 convolution then calms every sum. Every level speaks with the words of the deepest one.
Differs from paper: nothing by default. No nonlinearity anywhere, as there; the P6 of its detector, a subsampled top
level, is not built. `lateral` and `top_down` are the paper's ablations: without the top-down path every level
is its own 1x1 and 3x3; without laterals only the top keeps its 1x1, and the finer levels are enlargements of it.
`upsample` other than nearest and `smooth` off are ours. Weights start as in torchvision: kaiming uniform, biases 0.
`merged` makes one map of all levels, which the paper never does: "concat" is what printed "simplified FPNs" mean when
they stack maps of 32, 16 and 8 cells, which cannot be stacked before they have one size; "sum" is how a segmentation
branch does it. Those versions enlarge by transposed convolutions, whose kernels of 2, 3 and 4 are in `upsample`.
"""

import torch
from torch import Tensor, nn

from fusionviz.errors import ParameterError
from fusionviz.fusion._base import Context, Fused, FusionModule, resize
from fusionviz.fusion._pyramid import UPSAMPLE, WIDTH, learned_resize, merge, plain
from fusionviz.registry import FusionSpec, Param, register
from fusionviz.trace import NullTrace

SPEC = FusionSpec(
    key="fpn",
    family="pyramid",
    equation=r"P_i = W_i\,C_i + {\uparrow} P_{i+1}, \quad Z = K_1 \ast P_1",
    year=2017,
    takes="pyramid",
    align="none",  # bringing levels together is the method itself
    params=(
        WIDTH,
        UPSAMPLE,
        Param("lateral", True, refit=True),
        Param("top_down", True, refit=True),
        Param("smooth", True, refit=True),
        Param("merged", "off", choices=("off", "sum", "concat"), refit=True),
    ),
    paper="Lin, Dollár, Girshick, He, Hariharan, Belongie. Feature Pyramid Networks for Object Detection. CVPR 2017",
    link="https://arxiv.org/abs/1612.03144",
    cite="Lin et al., CVPR 2017 · arXiv 1612.03144",
)


@register(SPEC)
class FPN(FusionModule):
    """Give every level of a pyramid the meaning of the levels above it.

    Helps small things: the fine level learns what they are. Large things already had the top level and gain nothing.

    Equation: P_n = W_n C_n; P_i = W_i C_i + up(P_{i+1}); out_i = K_i * P_i, with level 1 the finest.
    Args:
        levels: two maps or more [b c_i h_i w_i], fine to coarse; a level's size need not be half of the last.
    Returns:
        FusionResult; "p4", "p8", ... (by the stride of their level) are [b width h_i w_i], and "fused" is the finest
        of them, or with `merged` all of them at its size, [b width h_1 w_1] or [b n*width h_1 w_1]. No attention; the
        share of low is |W_1 C_1| / (|W_1 C_1| + |up(P_2)|), taken at the finest level where the two meet, before the
        3x3 convolution; `aligned` are these two maps.
    Raises:
        ParameterError: if both `lateral` and `top_down` are off; nothing would reach the finer levels.
    Differs from paper: `upsample`, `smooth` and `merged` are ours; `lateral` and `top_down` are its Table 1 d, e.
    Source: arXiv 1612.03144
    """

    def setup(
        self, width: int, upsample: str, lateral: bool, top_down: bool, smooth: bool, merged: str = "off"
    ) -> None:
        if not (lateral or top_down):
            raise ParameterError("fpn.no_path")
        self.how, self.top_down, self.merged, top = upsample, top_down, merged, len(self.channels)
        self.lateral, self.up, self.smooth = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        for i, c in enumerate(self.channels, start=1):
            if lateral or i == top:
                self.lateral[str(i)] = nn.Conv2d(c, width, 1)
            if smooth:
                self.smooth[str(i)] = nn.Conv2d(width, width, 3, padding=1)
            factor = round(self.strides[min(i, top - 1)] / self.strides[i - 1])
            learned = learned_resize(upsample, width, factor) if top_down else None
            if learned is not None:
                self.up[str(i)] = learned
        for conv in (*self.lateral.values(), *self.smooth.values()):
            nn.init.kaiming_uniform_(conv.weight, a=1)
            nn.init.zeros_(conv.bias)

    def fuse(self, *maps: Tensor, context: Context, trace: NullTrace) -> Fused:
        levels, lateral, above = self._descend(maps, trace)
        return self._hand_out(levels, lateral, above, trace)

    def _descend(self, maps: tuple[Tensor, ...], trace: NullTrace) -> tuple:
        """Every level's K_i * P_i, fine to coarse, and the two maps that met in P_1; what a knob cut off is None."""
        outs, lateral, above, p = [], None, None, None
        for i in range(len(maps), 0, -1):  # from the top down
            lateral = self._lateral(i, maps[i - 1], trace)  # [b width h w] or None
            above = self._enlarge(i, p, maps[i - 1], trace)  # [b width h w] or None
            p = lateral if above is None else above
            if lateral is not None and above is not None:
                add = rf"P_{{{i}}}=W_{{{i}}}C_{{{i}}}+\uparrow P_{{{i + 1}}}"
                role = self._role(i, ends=True)
                p = trace.step(f"merge_{i}", "add", torch.add, lateral, above, formula=add, role=role)
            outs.append(self._calm(i, p, trace))  # [b width h w]
        return tuple(reversed(outs)), lateral, above

    def _hand_out(
        self, levels: tuple[Tensor, ...], lateral: Tensor | None, above: Tensor | None, trace: NullTrace
    ) -> Fused:
        met = None if lateral is None or above is None else (lateral, above)
        z = levels[0] if self.merged == "off" else merge(self.merged, levels, plain(self.how), trace)
        return Fused(z, terms=lambda: self._terms(lateral, above), levels=levels, aligned=met)

    def _lateral(self, i: int, c: Tensor, trace: NullTrace) -> Tensor | None:
        if str(i) not in self.lateral:
            return None
        role = self._role(i, ends=not self.top_down, other={1: "low", len(self.channels): "high"}.get(i, ""))
        return trace.step(f"lateral_{i}", "project", self.lateral[str(i)], c, formula=rf"W_{{{i}}}C_{{{i}}}", role=role)

    def _enlarge(self, i: int, p: Tensor | None, c: Tensor, trace: NullTrace) -> Tensor | None:
        """The level above at this level's size: always by size, so that odd sizes meet."""
        if p is None or not self.top_down:
            return None
        size, laterals = tuple(c.shape[-2:]), str(i) in self.lateral
        if tuple(p.shape[-2:]) == size and laterals:
            return p  # levels of one size, as a transformer has them, meet as they are
        learned = dict(self.up).get(str(i))
        how = plain(self.how) if learned is None else "transposed"  # levels of one stride have no factor to learn
        enlarge = (lambda t: learned(t, size)) if learned is not None else (lambda t: resize(t, size, how))
        role = self._role(i, ends=not laterals, other="high" if i == 1 else "")
        formula = rf"\uparrow P_{{{i + 1}}}"
        return trace.step(f"up_{i}", f"resize_{how}", enlarge, p, formula=formula, role=role, module=learned)

    def _calm(self, i: int, p: Tensor, trace: NullTrace) -> Tensor:
        if str(i) not in self.smooth:
            return p
        conv, formula = self.smooth[str(i)], rf"K_{{{i}}}\ast P_{{{i}}}"
        return trace.step(f"smooth_{i}", "conv", conv, p, formula=formula, role=self._role(i, ends=True, last=True))

    def _role(self, i: int, *, ends: bool, last: bool = False, other: str = "") -> str:
        """The role `fused` goes to the step that ends the finest level: the 3x3 convolution, where there is one."""
        return "fused" if i == 1 and ends and (last or not self.smooth) and self.merged == "off" else other

    @staticmethod
    def _terms(lateral: Tensor | None, above: Tensor | None) -> tuple[Tensor, Tensor]:
        """What the finest level brings and what comes down to it; what a knob has cut off is zero."""
        low = torch.zeros_like(above) if lateral is None else lateral
        return low, torch.zeros_like(low) if above is None else above
