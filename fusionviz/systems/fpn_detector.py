"""FPN as a detector: features of all levels are merged first, and then every level predicts with the same head.

Paper: Lin, Dollár, Girshick, He, Hariharan, Belongie, "Feature Pyramid Networks for Object Detection", CVPR 2017,
arXiv 1612.03144.
Idea: what the coarse levels know comes down to the fine ones before anything is predicted. As all levels then speak
with the same channels, one head reads them all. Predictions are merged at the end as in SSD: what is early here is
the fusion of features.
Differs from paper: one stage, where the paper has a proposal network and a second look at each proposal; 48 channels,
not 256; the default boxes, matching and loss of `ssd`, so that both can be compared. As there, the head is a 3x3
convolution with ReLU and two 1x1 convolutions, and the pyramid is the method `fpn` with nothing changed.
`top_down` off is the paper's ablation: the same head and numbers, but no level hears of another.
"""

from collections.abc import Sequence
from dataclasses import replace

from fusionviz import fusion
from fusionviz.records import FeatureMap
from fusionviz.registry import FusionSpec, Param, register
from fusionviz.systems._detector import KNOBS, WIDTH, Detector, Reader, Reading
from fusionviz.trace import NullTrace

SPEC = FusionSpec(
    key="fpn_detector",
    family="late",
    equation=r"P_i = W_i\,C_i + {\uparrow} P_{i+1}, \quad D = \mathrm{NMS}(\,[K \ast P_1;\, \ldots;\, K \ast P_n]\,)",
    year=2017,
    takes="image",
    align="none",
    params=(*KNOBS, Param("top_down", True, refit=True)),
    paper="Lin, Dollár, Girshick, He, Hariharan, Belongie. Feature Pyramid Networks for Object Detection. CVPR 2017",
    link="https://arxiv.org/abs/1612.03144",
    cite="Lin et al., CVPR 2017 · arXiv 1612.03144",
)


@register(SPEC)
class FPNDetector(Detector):
    """Merge the levels' features from coarse to fine, then predict on each of them with one head.

    Equation: P_i = W_i C_i + up(P_{i+1}), each calmed by a 3x3 convolution; D = NMS([K * P_1; ...; K * P_n]).
    Args:
        levels: C_1 ... C_4, s4 to s32. A level that is switched off does not predict; its features still come down.
    Returns:
        FusionResult; as `ssd`, and "fused", the finest level of the pyramid [1 48 h w].
    Differs from paper: one stage; default boxes, matching and loss are those of `ssd`.
    Source: arXiv 1612.03144
    """

    def build(self, top_down: bool) -> None:
        channels, strides = tuple(i.channels for i in self.infos), tuple(i.stride[0] for i in self.infos)
        self.fpn = fusion.build("fpn", channels, strides, width=WIDTH, top_down=top_down, seed=self.seed)
        self.readers["all"] = Reader(WIDTH, len(self.shapes[0]))

    def reader(self, name: str) -> Reader:
        return self.readers["all"]

    def features(self, levels: tuple[FeatureMap, ...], trace: NullTrace) -> tuple[FeatureMap, ...]:
        merged = self.fpn(*levels, trace=trace).outputs
        return tuple(replace(merged[f"p{level.name[1:]}"], name=level.name) for level in levels)

    def more(self, readings: Sequence[Reading]) -> dict[str, FeatureMap]:
        finest = readings[0].level
        return {"fused": replace(finest, name="fused")}
