"""ION's skip pooling: make every level equally loud, then stack them.

Paper: Bell, Zitnick, Bala, Girshick, "Inside-Outside Net: Detecting Objects in Context with Skip Pooling and Recurrent
Neural Networks", CVPR 2016, arXiv 1512.04143.
Idea: numbers of an early layer can be many times those of a late one, and a stack of both then speaks with one voice.
So every level is divided by its L2 norm and multiplied by a learned number per channel before a 1x1 convolution reads
the stack.
Differs from paper: there all of this happens inside regions of interest, pooled to 7x7 cells; here the whole picture is
one region too, every level enlarged to the low level's places. Where boxes are known, as in a drawn scene, each of them
is pooled as well, by RoIAlign, which came later, instead of by maxima over rounded cells. Its "outside", four-direction
recurrent networks over the last level, is not built. `l2=position` takes the norm over the channels at each place
instead; `none` leaves out norm and scale. No code of the authors was found to compare with.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_align

from fusionviz.axes import expect
from fusionviz.errors import ShapeError
from fusionviz.fusion._base import Context, Fused, FusionModule, resize
from fusionviz.fusion._stack import listed, low_and_rest
from fusionviz.records import FeatureMap, RegionMaps
from fusionviz.registry import FusionSpec, Param, register
from fusionviz.trace import NullTrace

SCALE = 1000.0
"""What every channel is multiplied by at the start; a vector of norm 1 over thousands of cells is tiny without it."""

CELLS = 7
"""Cells a side that every level pools a box to, as in the paper."""

OVER = {"roi": (1, 2, 3), "position": (1,)}

SPEC = FusionSpec(
    key="ion",
    family="early",
    equation=r"Z = W\,[s_{1} \otimes \hat{C}_{1};\,\ldots;\,s_{n} \otimes \hat{C}_{n}], "
    r"\quad \hat{C}_{i} = C_{i} / \Vert C_{i} \Vert_{2}",
    year=2016,
    takes="pyramid",
    align="none",  # bringing levels together is the method itself
    params=(
        Param("width", 512, low=4, high=1024, step=4, refit=True),
        Param("l2", "roi", choices=("roi", "position", "none"), refit=True),
    ),
    paper="Bell, Zitnick, Bala, Girshick. Inside-Outside Net. CVPR 2016",
    link="https://arxiv.org/abs/1512.04143",
    cite="Bell et al., CVPR 2016 · arXiv 1512.04143",
)


@register(SPEC)
class ION(FusionModule):
    """Stack levels that were made equally loud.

    Multiply one level by 100 and nothing changes; without the norm, that level alone would be heard.

    Equation: Z = W [s_1 * C_1 / |C_1|; ...; s_n * C_n / |C_n|] + b, |C_i| the L2 norm over the region (all places and
    channels), or over the channels of each place; s_i one learned number per channel, 1000 at the start.
    Args:
        levels: two maps or more [b c_i h_i w_i], fine to coarse; coarse ones are enlarged (bilinear).
    Returns:
        FusionResult; fused is [b width h w], with the places of the finest level. With boxes in the context there is
        "regions" beside it: the same for each box by itself, [n width 7 7]. No attention; the share of low is
        |W_1 s_1 C_1/|C_1|| in the sum of this and the norm of all other terms; `aligned` are the normalised, scaled
        finest and coarsest level.
    Raises:
        ShapeError: if boxes, which belong to one picture, come with several.
    Differs from paper: the whole picture is a region too; RoIAlign; no recurrent context.
    Source: arXiv 1512.04143
    """

    def setup(self, width: int, l2: str) -> None:
        self.over = OVER.get(l2)
        starts = [torch.full((1, c, 1, 1), SCALE) for c in self.channels] if self.over else []
        self.scale = nn.ParameterList(starts)
        self.mix = nn.Conv2d(sum(self.channels), width, 1)
        nn.init.xavier_uniform_(self.mix.weight)

    def fuse(self, *maps: Tensor, context: Context, trace: NullTrace) -> Fused:
        size = tuple(maps[0].shape[-2:])
        same = [self._enlarge(i, m, size, trace) for i, m in enumerate(maps, start=1)]  # each [b c_i h w]
        z, loud = self._join(same, trace)  # [b width h w]
        regions = {} if context.boxes is None else {"regions": self._regions(maps, context, trace)}
        return Fused(z, terms=lambda: low_and_rest(self.mix, loud), more=regions, aligned=(loud[0], loud[-1]))

    def _regions(self, maps: Sequence[Tensor], context: Context, trace: NullTrace) -> RegionMaps:
        """The same fusion inside each box, which all levels pool to one size."""
        boxes = expect(context.boxes, "n 4", of="list of boxes")
        if maps[0].shape[0] != 1:
            raise ShapeError("ion.boxes", received=maps[0].shape[0])
        pooled = []
        for i, (c, level) in enumerate(zip(maps, context.levels, strict=True), start=1):
            inside = lambda t, m=level: self._pool(replace(m, tensor=t), boxes, CELLS)  # noqa: E731
            formula, role = rf"\mathrm{{RoI}}(C_{{{i}}})", self._role(i)
            pooled.append(trace.step(f"roi_{i}", "roi_align", inside, c, formula=formula, role=role))  # [n c_i 7 7]
        again = lambda *t: self._join(t, NullTrace())[0]  # noqa: E731 - the very weights of the whole picture
        formula = rf"W\,{listed(self._names())}"
        tensor = trace.step("regions", "regions", again, *pooled, formula=formula)  # [n width 7 7]
        return RegionMaps("regions", tensor, boxes, context.labels)

    def roi_features(self, levels: Sequence[FeatureMap | Tensor], boxes: Tensor, size: int = CELLS) -> Tensor:
        """Return what the paper gives its classifier: the same fusion inside each box, [b n width size size].

        Args:
            levels: as for the module itself.
            boxes: [n 4], left, top, right, bottom in pixels of the network's input; the same boxes in every picture.
            size: cells a side of each pooled region.
        """
        expect(boxes, "n 4", of="list of boxes")
        maps = self._take(tuple(levels))
        pooled = [self._pool(m, boxes, size) for m in maps]  # each [b*n c_i size size]
        return self._join(pooled, NullTrace())[0].unflatten(0, (maps[0].tensor.shape[0], len(boxes)))

    @staticmethod
    def _pool(level: FeatureMap, boxes: Tensor, size: int) -> Tensor:
        """RoIAlign at the level's true places: a cell's centre is its offset, not half of its stride."""
        stride, offset = (boxes.new_tensor(v[::-1] * 2) for v in (level.stride, level.offset))  # x, y, x, y
        cells = (boxes - offset) / stride + 0.5  # cell i spans [i, i + 1]
        batch = [cells.to(level.tensor)] * level.tensor.shape[0]
        return roi_align(level.tensor, batch, size, spatial_scale=1.0, aligned=True)

    def _join(self, maps: Sequence[Tensor], trace: NullTrace) -> tuple[Tensor, list[Tensor]]:
        """The fused map, and the levels as the 1x1 convolution hears them."""
        loud = [self._normalise(i, m, trace) for i, m in enumerate(maps, start=1)]
        f = trace.step("stack", "concat", lambda *t: torch.cat(t, 1), *loud, formula=rf"F={listed(self._names())}")
        return trace.step("fused", "project", self.mix, f, formula=r"W\,F", role="fused"), loud

    def _names(self) -> list[str]:
        """The terms of the stack, in TeX."""
        return [
            rf"s_{{{i}}}\otimes N_{{{i}}}" if self.over else rf"C_{{{i}}}" for i in range(1, len(self.channels) + 1)
        ]

    def _enlarge(self, i: int, c: Tensor, size: tuple[int, int], trace: NullTrace) -> Tensor:
        if tuple(c.shape[-2:]) == size:
            return c
        formula = rf"{{\uparrow}}C_{{{i}}}"
        return trace.step(
            f"up_{i}", "resize_bilinear", lambda t: resize(t, size), c, formula=formula, role=self._role(i)
        )

    def _normalise(self, i: int, c: Tensor, trace: NullTrace) -> Tensor:
        if not self.over:
            return c
        unit, scale = (lambda t: F.normalize(t, dim=self.over)), self.scale[i - 1]
        formula = rf"N_{{{i}}}=C_{{{i}}}/|C_{{{i}}}|"
        c = trace.step(f"norm_{i}", "l2_norm", unit, c, formula=formula, role=self._role(i))  # norm 1
        times = lambda t: t * scale  # noqa: E731 - one number per channel, learned
        formula = rf"s_{{{i}}}\otimes N_{{{i}}}"
        return trace.step(f"scale_{i}", "scale", times, c, formula=formula, role=self._role(i), module=scale)

    def _role(self, i: int) -> str:
        return {1: "low", len(self.channels): "high"}.get(i, "")
