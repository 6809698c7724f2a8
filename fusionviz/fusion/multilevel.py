"""Many levels at once: bring all of them to one size, stack them, and mix the stack by one 1x1 convolution.

No paper: this is how articles and tutorials write "multi-level feature fusion", and the common core of ION, HyperNet
and hypercolumns.
Idea: fine levels are pooled, coarse ones enlarged, until all have the size of one of them; then the channels are
stacked and a 1x1 convolution with ReLU picks from the stack. Nothing makes the levels equally loud before they meet.
Differs from the article that this repository began with: there the size is always the coarsest level's
(`target=coarsest`), one level is pooled by its maximum and the next by dropping three of four cells, and no reason is
given; here one rule holds for all (`down`), by size and not by factor, so that odd sizes meet. Its comparison with a
"baseline" is worked out in the lesson and in this method's tests: the two networks differ in everything but fusion.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionviz.fusion._base import Context, Fused, FusionModule, resize
from fusionviz.fusion._stack import listed, low_and_rest, middle
from fusionviz.registry import FusionSpec, Param, register
from fusionviz.trace import NullTrace

DOWN = {
    "max": ("max_pool", F.adaptive_max_pool2d),
    "mean": ("mean_pool", F.adaptive_avg_pool2d),
    "nearest": ("resize_nearest", lambda t, size: resize(t, size, "nearest")),
}
"""How a level is made smaller: the step's op, and the function of a map and a size."""

SPEC = FusionSpec(
    key="multilevel",
    family="early",
    equation=r"Z = \delta(W\,[R(C_{1});\,\ldots;\,R(C_{n})])",
    year=0,
    takes="pyramid",
    align="none",  # bringing levels together is the method itself
    params=(
        Param("width", 256, low=4, high=1024, step=4, refit=True),
        Param("target", "finest", choices=("finest", "middle", "coarsest")),
        Param("down", "max", choices=tuple(DOWN)),
        Param("up", "bilinear", choices=("nearest", "bilinear")),
    ),
)


@register(SPEC)
class Multilevel(FusionModule):
    """Stack all levels at one size and let a 1x1 convolution pick from the stack.

    Helps where a decision needs several levels at once, and is cheap to write. Hurts where one level is much louder
    than the others, for it then fills every channel, and where the size is the coarsest one's: what was fine is gone.

    Equation: Z = relu(W [R(C_1); ...; R(C_n)] + b), R brings a level to the size of the target level.
    Args:
        levels: two maps or more [b c_i h_i w_i], fine to coarse.
    Returns:
        FusionResult; fused is [b width h w], with the places of the target level. No attention; the share of low is
        |W_1 R(C_1)| / (|W_1 R(C_1)| + |sum of the other terms|), before bias and ReLU; `aligned` are the resized
        finest and coarsest level.
    Differs from the article: see the head of this file.
    """

    def setup(self, width: int, target: str, down: str, up: str) -> None:
        count = len(self.channels)
        self.at = {"finest": 0, "middle": middle(count), "coarsest": count - 1}[target]
        self.down, self.up = down, up
        self.mix = nn.Conv2d(sum(self.channels), width, 1)

    def fuse(self, *maps: Tensor, context: Context, trace: NullTrace) -> Fused:
        size = tuple(maps[self.at].shape[-2:])
        named = [self._bring(i, m, size, trace) for i, m in enumerate(maps)]
        names, same = zip(*named, strict=True)  # each [b c_i h w]
        stack = listed(names)
        f = trace.step("stack", "concat", lambda *t: torch.cat(t, 1), *same, formula=rf"F={stack}")  # [b sum(c_i) h w]
        m = trace.step("mix", "project", self.mix, f, formula=r"W\,F")  # [b width h w]
        z = trace.step("fused", "relu", F.relu, m, formula=r"\delta(W\,F)", role="fused")  # [b width h w]
        return Fused(z, terms=lambda: low_and_rest(self.mix, same), aligned=(same[0], same[-1]), at=self.at)

    def _bring(self, i: int, c: Tensor, size: tuple[int, int], trace: NullTrace) -> tuple[str, Tensor]:
        """A level at the target's size, and its name in formulas; a level that has this size passes as it is."""
        letter, role = rf"C_{{{i + 1}}}", {0: "low", len(self.channels) - 1: "high"}.get(i, "")
        if tuple(c.shape[-2:]) == size:
            return letter, c
        if i < self.at:
            op, shrink = DOWN[self.down]
            name = rf"{{\downarrow}}{letter}"
            return name, trace.step(f"down_{i + 1}", op, lambda t: shrink(t, size), c, formula=name, role=role)
        enlarge, name = (lambda t: resize(t, size, self.up)), rf"{{\uparrow}}{letter}"
        return name, trace.step(f"up_{i + 1}", f"resize_{self.up}", enlarge, c, formula=name, role=role)
