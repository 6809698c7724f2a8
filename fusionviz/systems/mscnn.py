"""MS-CNN: branches that own object sizes, a loss for each, and a finest branch that is enlarged and looks around.

Paper: Cai, Fan, Feris, Vasconcelos, "A Unified Multi-scale Deep Convolutional Neural Network for Fast Object
Detection", ECCV 2016, arXiv 1607.07155.
Idea: as in SSD every level predicts by itself, but each is taught only the things whose size is its own, and the loss
is a weighted sum of the branches' losses. Fine detail comes from a map enlarged by a learned deconvolution instead of
a larger picture, and a thing is told by its surroundings too.
Differs from paper: simplified to one stage. There the branches only propose boxes, and a second network looks at each
proposal in the enlarged map, once at the box and once at a wider one around it. Here the finest branch itself reads
the enlarged map beside the mean over a wider window of it, so that it can be compared with `ssd`; every other branch
is as in `ssd`. Default boxes, box code, loss and backbone are those of `ssd` too.
"""

from dataclasses import replace
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from fusionviz.records import FeatureMap
from fusionviz.registry import FusionSpec, register
from fusionviz.systems._detector import KNOBS, Detector, Reader, inputs
from fusionviz.trace import NullTrace

ENLARGED = 16
"""Channels of the enlarged map."""
AROUND = 9
"""Cells across the window whose mean is the surroundings: 18 pixels, twice a small default box."""

SPEC = FusionSpec(
    key="mscnn",
    family="late",
    equation=r"D = \mathrm{NMS}(\,[K_1 \ast [U;\, \overline{U}];\, K_2 \ast C_2;\, \ldots]\,), \quad "
    r"L = \sum_m \alpha_m\,\ell_m",
    year=2016,
    takes="image",
    align="none",
    params=KNOBS,
    paper="Cai, Fan, Feris, Vasconcelos. A Unified Multi-scale Deep Convolutional Neural Network for Fast Object "
    "Detection. ECCV 2016",
    link="https://arxiv.org/abs/1607.07155",
    cite="Cai et al., ECCV 2016 · arXiv 1607.07155",
)


@register(SPEC)
class MSCNN(Detector):
    """Predict on each level alone, each taught its own range of sizes, the finest on an enlarged map with context.

    Equation: U = deconvolution of C_1, with its mean over a window beside it; D as in SSD; L = sum_m alpha_m l_m.
    Args:
        levels: C_1 ... C_4, s4 to s32; the knobs are those of `ssd`.
    Returns:
        FusionResult; as `ssd`; "o4" has twice the cells of s4 each way.
    Differs from paper: one stage, no proposals; the weights alpha are one for every branch.
    Source: arXiv 1607.07155
    """

    owned: ClassVar[bool] = True
    alpha: ClassVar[tuple[float, ...]] = (0.25, 0.25, 0.25, 0.25)

    def build(self) -> None:
        finest, *others = self.infos
        self.enlarge = nn.ConvTranspose2d(finest.channels, ENLARGED, 2, stride=2)  # windows that do not overlap
        self.readers[finest.name] = Reader(2 * ENLARGED, len(self.shapes[0]))
        for info, shapes in zip(others, self.shapes[1:], strict=True):
            self.readers[info.name] = Reader(info.channels, len(shapes))

    def features(self, levels: tuple[FeatureMap, ...], trace: NullTrace) -> tuple[FeatureMap, ...]:
        finest, *others = inputs(levels, trace)
        u = trace.step("enlarged", "enlarge", self.enlarge, finest.tensor, formula="U")  # [b 16 2h 2w]
        mean = lambda t: F.avg_pool2d(t, AROUND, 1, AROUND // 2, count_include_pad=False)  # noqa: E731
        around = trace.step("around", "around", mean, u, formula=r"\overline{U}")  # [b 16 2h 2w]
        both = trace.step("both", "concat", lambda *t: torch.cat(t, 1), u, around, formula=r"[U;\,\overline{U}]")
        stride = tuple(s / 2 for s in finest.stride)
        offset = tuple(o - s / 4 for o, s in zip(finest.offset, finest.stride, strict=True))  # two cells for one
        return replace(finest, tensor=both, stride=stride, offset=offset), *others
