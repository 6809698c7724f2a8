"""U-Net's decoder: enlarge what is coarse, put the encoder's own map of that size beside it, let two convolutions mix.

Paper: Ronneberger, Fischer, Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI 2015,
arXiv 1505.04597.
Idea: from the coarsest level down to the finest: a 2x2 up-convolution, the skip by concatenation, two 3x3 convolutions
with ReLU. What the encoder saw finely reaches the end without passing the coarse levels.
Differs from paper: the encoder is your backbone, so its levels come as they are, with their own numbers of channels;
`width` is the finest decoder level's, doubled with every doubling of the stride, as there. Convolutions are padded, for
levels of a lecture are small; `padding=valid` is the paper's, which crops every skip and returns a smaller map.
Differs from segmentation_models_pytorch: there nearest enlargement stands for the up-convolution, and a batch
normalisation follows every convolution: `upsample=nearest`, `norm=bn`. The 3x3 kernels start as the paper's,
Gaussian with variance 2 / fan in.
"""

from itertools import count
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionviz.axes import shape_text
from fusionviz.errors import ShapeError
from fusionviz.fusion._base import Context, Fused, FusionModule, resize
from fusionviz.fusion._stack import parts
from fusionviz.registry import FusionSpec, Param, register
from fusionviz.trace import NullTrace

CUT = 4
"""Cells by which two unpadded 3x3 convolutions shrink a side, one on either end each."""

SPEC = FusionSpec(
    key="unet",
    family="early",
    equation=r"D_{i} = \delta(K_{i2} \ast \delta(K_{i1} \ast [{\uparrow}D_{i+1};\,C_{i}])), \quad D_{n} = C_{n}, "
    r"\quad Z = D_{1}",
    year=2015,
    takes="pyramid",
    align="none",  # bringing levels together is the method itself
    params=(
        Param("width", 64, low=4, high=512, step=4, refit=True),
        Param("skip", True, refit=True),
        Param("upsample", "transposed", choices=("transposed", "nearest"), refit=True),
        Param("padding", "same", choices=("same", "valid"), refit=True),  # heads read a map with its edge
        Param("norm", "none", choices=("none", "bn"), refit=True),
    ),
    paper="Ronneberger, Fischer, Brox. U-Net. MICCAI 2015",
    link="https://arxiv.org/abs/1505.04597",
    cite="Ronneberger et al., MICCAI 2015 · arXiv 1505.04597",
)


class Ledger(NamedTuple):
    """The sides of every map of the paper's network, with unpadded convolutions, for one side of the input.

    Attributes:
        encoder: what each level hands to its skip, fine to coarse.
        bottom: before and behind the two convolutions of the coarsest level.
        decoder: (enlarged, skip, cropped from each end of the skip) by level, coarse to fine.
        out: of the result.
    """

    encoder: tuple[int, ...]
    bottom: tuple[int, int]
    decoder: tuple[tuple[int, int, int], ...]
    out: int


def ledger(side: int, depth: int = 4) -> Ledger:
    """Return the sides of every map of the paper's network, whose encoder pools `depth` times: 572 gives 388.

    Raises:
        ShapeError: with the next larger side that works, where a pooling meets an odd side or nothing is left.
    """
    found = _sides(side, depth)
    if found is None:
        raise ShapeError("unet.side", side=side, next=next(s for s in count(max(side, 1)) if _sides(s, depth)))
    return found


def _sides(side: int, depth: int) -> Ledger | None:
    encoder, decoder = [], []
    for _ in range(depth):
        encoder.append(side - CUT)
        if encoder[-1] < 2 or encoder[-1] % 2:
            return None
        side = encoder[-1] // 2
    bottom = (side, side - CUT)
    side = bottom[1]
    for skip in reversed(encoder):
        decoder.append((2 * side, skip, (skip - 2 * side) // 2))
        side = 2 * side - CUT
        if side < 1:
            return None
    return Ledger(tuple(encoder), bottom, tuple(decoder), side)


@register(SPEC)
class UNet(FusionModule):
    """Walk from coarse to fine; at every size the encoder's own map stands beside what came up.

    Helps wherever an edge has to lie exactly. Costs most where it helps most: convolutions at the finest size.

    Equation: D_n = C_n; D_i = relu(K_i2 * relu(K_i1 * [up(D_{i+1}); C_i])); Z = D_1, K 3x3, up a 2x2
    up-convolution.
    Args:
        levels: two maps or more [b c_i h_i w_i], fine to coarse.
    Returns:
        FusionResult; fused is [b width h w], with the places of the finest level (`valid`: without its edge). No
        attention; the share of low is |K_a * C_1| / (|K_a * C_1| + |K_b * up(D_2)|), the two blocks of the finest
        level's first kernel; `aligned` are (C_1, up(D_2)), or None where a knob leaves one out or crops.
    Raises:
        ShapeError: if `valid` leaves nothing; it says how many cells the coarsest level must have.
    Differs from paper: padding, and levels as they come; see the head of this file.
    Source: arXiv 1505.04597
    """

    def setup(self, width: int, skip: bool, upsample: str, padding: str, norm: str) -> None:
        self.skip, self.padded, self.up, self.convs = skip, padding == "same", nn.ModuleDict(), nn.ModuleDict()
        pairs = zip(self.strides, self.strides[1:], strict=False)
        self.factors = tuple(max(1, round(coarse / fine)) for fine, coarse in pairs)
        deep = self.channels[-1]
        for i in range(len(self.channels) - 1, 0, -1):  # from the coarsest down
            out = width * max(1, round(self.strides[i - 1] / self.strides[0]))
            if upsample == "transposed":
                self.up[str(i)] = nn.ConvTranspose2d(deep, out, self.factors[i - 1], self.factors[i - 1])
                deep = out
            for which, c in (("a", deep + skip * self.channels[i - 1]), ("b", out)):
                conv = nn.Conv2d(c, out, 3, padding=1, bias=norm == "none")
                normalise = [nn.BatchNorm2d(out)] if norm == "bn" else []
                self.convs[f"{i}{which}"] = nn.Sequential(conv, *normalise, nn.ReLU())
            deep = out
        for conv in (*self.up.values(), *(block[0] for block in self.convs.values())):
            if isinstance(conv, nn.Conv2d):
                nn.init.kaiming_normal_(conv.weight)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)

    def fuse(self, *maps: Tensor, context: Context, trace: NullTrace) -> Fused:
        p, inset = maps[-1], 0  # inset: cells that are missing at the top and at the left of p
        for i in range(len(maps) - 1, 0, -1):  # from the coarsest down
            c, inset = maps[i - 1], inset * self.factors[i - 1]
            up = self._enlarge(i, p, maps, inset, trace)  # [b d h w]
            c = self._crop(i, c, up, inset, trace) if self.skip else None  # [b c_i h w]
            p = up if c is None else self._beside(i, up, c, trace)  # [b d+c_i h w]
            p = self._conv(i, "a", p, trace)  # [b out h w]
            p = self._conv(i, "b", p, trace)  # [b out h w], 4 less on either axis if valid
            inset += 0 if self.padded else CUT // 2
        met = (c, up) if self.skip and self.padded else None
        return Fused(p, terms=lambda: self._terms(c, up), aligned=met, inset=inset)

    def _enlarge(self, i: int, p: Tensor, maps: tuple[Tensor, ...], inset: int, trace: NullTrace) -> Tensor:
        """What came up at the next finer size: all of it when padded, else as far as the level reaches."""
        factor, conv, size = self.factors[i - 1], dict(self.up).get(str(i)), tuple(maps[i - 1].shape[-2:])
        whole = size if self.padded else tuple(factor * have for have in p.shape[-2:])
        if not self.padded:
            size = tuple(min(up, have - inset) for up, have in zip(whole, size, strict=True))
            if min(size) <= CUT:
                received = shape_text(tuple(maps[-1].shape[-2:]))
                raise ShapeError("unet.too_small", need=self._least(), received=received)
        if conv is None and tuple(p.shape[-2:]) == size:
            return p  # levels of one size, as a transformer has them, meet as they are
        enlarge = conv if conv is not None else (lambda t: resize(t, whole, "nearest"))
        op = "up_conv" if conv is not None else "resize_nearest"
        formula, role = rf"{{\uparrow}}{self._below(i)}", self._role(i, "high")
        return trace.step(f"up_{i}", op, lambda t: _fit(enlarge(t), size), p, formula=formula, role=role, module=conv)

    def _crop(self, i: int, c: Tensor, up: Tensor, inset: int, trace: NullTrace) -> Tensor:
        h, w = up.shape[-2:]
        if (h, w) == tuple(c.shape[-2:]):
            return c
        cut = lambda t: t[..., inset : inset + h, inset : inset + w]  # noqa: E731 - the places that came up
        return trace.step(f"crop_{i}", "crop", cut, c, formula=rf"C_{{{i}}}", role=self._role(i, "low"))

    def _beside(self, i: int, up: Tensor, c: Tensor, trace: NullTrace) -> Tensor:
        formula = rf"S_{{{i}}}=[{{\uparrow}}{self._below(i)};\,C_{{{i}}}]"
        return trace.step(f"stack_{i}", "concat", lambda *t: torch.cat(t, 1), up, c, formula=formula)

    def _conv(self, i: int, which: str, p: Tensor, trace: NullTrace) -> Tensor:
        """The first (a) or second (b) 3x3 convolution of a level, with its ReLU."""
        block, role = self.convs[f"{i}{which}"], "fused" if (i, which) == (1, "b") else ""
        fn = block if self.padded else lambda t: block[1:](F.conv2d(t, block[0].weight, block[0].bias))
        given = f"S_{{{i}}}" if self.skip else rf"{{\uparrow}}{self._below(i)}"
        formula = {
            "a": rf"E_{{{i}}}=\delta(K_{{{i}1}}\ast {given})",
            "b": rf"D_{{{i}}}=\delta(K_{{{i}2}}\ast E_{{{i}}})",
        }
        op = "conv_relu" if len(block) == 2 else "conv_bn_relu"
        return trace.step(f"conv_{i}{which}", op, fn, p, formula=formula[which], role=role, module=block)

    def _terms(self, c: Tensor | None, up: Tensor) -> tuple[Tensor, Tensor]:
        """What the skip and what came up bring to the finest level's first convolution, at the fused map's places."""
        conv = self.convs["1a"][0]
        high, *low = parts(conv, (up,) if c is None else (up, c))
        low = low[0] if low else torch.zeros_like(high)
        edge = 0 if self.padded else CUT // 2
        return tuple(t[..., edge : t.shape[-2] - edge, edge : t.shape[-1] - edge] for t in (low, high))

    def _least(self) -> int:
        """Return how many cells a side the coarsest level needs, so that one is left at the end."""
        *finer, last = self.factors
        need = 1
        for factor in finer:
            need = -(-(need + CUT) // factor)
        return -(-(need + CUT + last - 1) // last)  # a level whose size is no multiple loses the last that came up

    def _below(self, i: int) -> str:
        return f"C_{{{i + 1}}}" if i == len(self.factors) else f"D_{{{i + 1}}}"

    @staticmethod
    def _role(i: int, role: str) -> str:
        return role if i == 1 else ""


def _fit(tensor: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut the last cells off, or repeat them, where a level's side is no multiple of the next coarser one's."""
    missing = [max(0, want - have) for want, have in zip(size, tensor.shape[-2:], strict=True)]
    tensor = F.pad(tensor, (0, missing[1], 0, missing[0]), mode="replicate") if any(missing) else tensor
    return tensor[..., : size[0], : size[1]]
