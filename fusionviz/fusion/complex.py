"""Complex fusion: one map becomes the real part, the other the imaginary part.

Paper: none is cited; parallel fusion by complex vectors is older than deep networks, and its primary source is
unconfirmed here.
Idea: z = x + iy keeps both numbers in one, where addition keeps only their sum and cannot be undone. The length
|z| says how much there is, the angle which level it came from: 0 for low alone, a quarter turn for high alone.
A complex-linear layer (A + iB) z is the real layer [[A, -B], [B, A]] on [x; y]: concatenation with half the weights.
Differs from papers: `theta` scales the high level, so that the angle is not ruled by the larger numbers.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from fusionviz.fusion._base import RESIZE, Context, Fused, FusionModule
from fusionviz.registry import FusionSpec, Param, register
from fusionviz.trace import NullTrace

SPEC = FusionSpec(
    key="complex",
    family="basic",
    equation=r"Z = X + i\,\theta\,Y",
    year=0,
    align="size",
    params=(Param("theta", 1.0, low=0.0, high=4.0, step=0.1), RESIZE),
)


@register(SPEC)
class Complex(FusionModule):
    """Hold two maps in the two parts of complex numbers.

    It is not addition: real and imaginary part give both maps back. The map with fewer channels gets channels of
    zeros behind its own, which is a step of its own; there the angle says only which map has channels left.

    Equation: Z = X + i theta Y, so |Z|^2 = X^2 + theta^2 Y^2 and arg Z = atan2(theta Y, X).
    Args:
        low, high: real maps [b p h w] and [b q h w] of one size.
    Returns:
        FusionResult; fused is complex [b max(p, q) h w], complex64 for float32. No attention; the share of low
        is |X| / (|X| + |theta Y|).
    """

    def setup(self, theta: float) -> None:
        self.theta = theta

    def fuse(self, x: Tensor, y: Tensor, *, context: Context, trace: NullTrace) -> Fused:
        widest = max(x.shape[1], y.shape[1])
        x = self._pad("low", x, widest, "X", trace)  # [b max(p, q) h w]
        y = self._pad("high", y, widest, "Y", trace)  # [b max(p, q) h w]
        if self.theta != 1:
            scale = lambda t: self.theta * t  # noqa: E731 - one line of the equation
            y = trace.step("theta", "scale", scale, y, formula=rf"{self.theta:g}\,Y", role="high")
        z = trace.step("fused", "complex", torch.complex, x, y, formula=r"X+i\,\theta\,Y", role="fused")
        return Fused(z, terms=lambda: (x, y))

    @staticmethod
    def _pad(name: str, tensor: Tensor, channels: int, letter: str, trace: NullTrace) -> Tensor:
        missing = channels - tensor.shape[1]
        if not missing:
            return tensor
        zeros = lambda t: F.pad(t, (0, 0, 0, 0, 0, missing))  # noqa: E731 - what stands in the trace
        return trace.step(f"{name}_pad", "pad_channels", zeros, tensor, formula=f"[{letter};0]", role=name)
