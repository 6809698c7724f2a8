"""SSD: every level predicts by itself, and only the predictions are merged.

Paper: Liu, Anguelov, Erhan, Szegedy, Reed, Fu, Berg, "SSD: Single Shot MultiBox Detector", ECCV 2016, arXiv 1512.02325.
Idea: small default boxes stand on fine levels, large ones on coarse levels; 3x3 convolutions say at every cell, for
every default box, what is in it and how to move it. No feature of one level ever meets another's: late fusion.
Differs from paper: it stands on four levels of a small frozen backbone, where the paper adds six to a VGG-16 that is
trained along; because ours is frozen, a hidden layer of 48 channels with ReLU stands in each predictor. Four default
boxes at every cell, with sides from twice the level's stride, in pixels and around the cells' own places. The finest
level is normalised to length 1 at each place and scaled by a learned number a channel that starts at 20, as there.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionviz.records import FeatureMap
from fusionviz.registry import FusionSpec, register
from fusionviz.systems._detector import KNOBS, Detector, Reader, inputs
from fusionviz.trace import NullTrace

SPEC = FusionSpec(
    key="ssd",
    family="late",
    equation=r"D = \mathrm{NMS}(\,[K_1 \ast C_1;\, \ldots;\, K_n \ast C_n]\,)",
    year=2016,
    takes="image",
    align="none",
    params=KNOBS,
    paper="Liu, Anguelov, Erhan, Szegedy, Reed, Fu, Berg. SSD: Single Shot MultiBox Detector. ECCV 2016",
    link="https://arxiv.org/abs/1512.02325",
    cite="Liu et al., ECCV 2016 · arXiv 1512.02325",
)


class Length(nn.Module):
    """A map brought to length 1 at each place, then scaled by one learned number a channel: 20 at the start."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels,), 20.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale.view(1, -1, 1, 1) * F.normalize(x)  # [b c h w]


@register(SPEC)
class SSD(Detector):
    """Predict on each level alone, then merge what all of them claim.

    A fine level sees small things but little around them; a coarse one knows what things are but not the small ones.

    Equation: D = NMS([K_1 * C_1; ...; K_n * C_n]), one row of class scores and box codes for each default box.
    Args:
        levels: C_1 ... C_4, s4 to s32; `s4` ... `s32` say whose predictions are merged, `score` and `nms` how.
    Returns:
        FusionResult; "detections" with the level of each box, and how sure each level is of anything at each of its
        places, "o4" ... "o32" [1 1 h w]. No attention.
    Differs from paper: four levels of a frozen backbone, a hidden layer in every predictor.
    Source: arXiv 1512.02325
    """

    def build(self) -> None:
        self.length = Length(self.infos[0].channels)
        for info, shapes in zip(self.infos, self.shapes, strict=True):
            self.readers[info.name] = Reader(info.channels, len(shapes))

    def features(self, levels: tuple[FeatureMap, ...], trace: NullTrace) -> tuple[FeatureMap, ...]:
        finest, *others = inputs(levels, trace)
        formula = r"\gamma\,C_{1}/\Vert C_{1}\Vert"
        scaled = trace.step("length", "length", self.length, finest.tensor, formula=formula)  # [b c h w]
        return FeatureMap(finest.name, scaled, finest.stride, finest.offset, finest.stage), *others
