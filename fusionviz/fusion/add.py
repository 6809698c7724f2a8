"""Addition: the plainest fusion, and the one inside every ResNet and FPN.

Paper: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv 1512.03385.
Idea: put both maps on one grid and add them, number by number; nothing chooses.
Differs from paper: there the two maps come from the two ends of one block; here from two levels, so an
alignment (1x1 projection, normalisation, resize) may stand in front. The gain of the low level is ours.
"""

from torch import Tensor

from fusionviz.fusion._base import ALIGN, Context, Fused, FusionModule
from fusionviz.registry import FusionSpec, Param, register
from fusionviz.trace import NullTrace

SPEC = FusionSpec(
    key="add",
    family="basic",
    equation=r"Z = X + Y",
    year=2016,
    params=(Param("gain", 1.0, low=0.0, high=4.0, step=0.1), *ALIGN),
    paper="He, Zhang, Ren, Sun. Deep Residual Learning for Image Recognition. CVPR 2016",
    link="https://arxiv.org/abs/1512.03385",
    cite="He et al., CVPR 2016 · arXiv 1512.03385",
    arithmetic=r"{z} = {gain} · {x} + {y}",
)


@register(SPEC)
class Add(FusionModule):
    """Return the sum of two maps.

    Independent maps of unit variance add up to variance 2: the larger map wins, which the gain shows.

    Equation: Z = g X + Y, and g = 1 in the paper.
    Args:
        low, high: aligned maps [b c h w], any real values.
    Returns:
        FusionResult; fused is [b c h w]. No attention; the share of low is |gX| / (|gX| + |Y|).
    Source: arXiv 1512.03385
    """

    def setup(self, gain: float) -> None:
        self.gain = gain

    def fuse(self, x: Tensor, y: Tensor, *, context: Context, trace: NullTrace) -> Fused:
        gx = x
        if self.gain != 1:
            gx = trace.step("gain", "scale", lambda t: self.gain * t, x, formula=rf"{self.gain:g}\,X", role="low")
        z = trace.step("fused", "add", lambda a, b: a + b, gx, y, formula="X+Y", role="fused")  # [b c h w]
        return Fused(z, terms=lambda: (gx, y))
