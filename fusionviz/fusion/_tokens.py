"""What methods that attend share: places as tokens, their positions, and multi-head attention in visible steps."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionviz.errors import ParameterError
from fusionviz.fusion._base import NORM, Alignment, FusionModule, resize
from fusionviz.records import FeatureMap, Tokens
from fusionviz.registry import Param
from fusionviz.trace import NullTrace

HEADS = Param("heads", 4, choices=(1, 2, 4, 8), refit=True)
WIDTH = Param("width", 64, low=8, high=1024, step=8, refit=True)  # 8 heads of one size, and sines in fours
TEMPERATURE = Param("temperature", 1.0, low=0.1, high=10.0, step=0.1)
POSITIONS = Param("positions", "sine", choices=("sine", "none"))
LAYER_NORM = Param("layer_norm", "after", choices=("after", "before"), refit=True)
SLOWEST = 32.0
"""Of the sines: the slowest is this many times slower than the quickest, some 200 cells long. Texts need 10,000."""


def knobs(tokens: int) -> tuple[Param, ...]:
    """Return the knobs of a method that attends, with the most tokens that it makes of a level by default."""
    most = Param("tokens", tokens, choices=(64, 256, 1024))
    return (HEADS, TEMPERATURE, POSITIONS, LAYER_NORM, most, WIDTH, NORM)


def token_size(size: tuple[int, int], most: int) -> tuple[int, int]:
    """Return the (h, w) of a level's tokens: its own, or that of the fewest cells pooled into one that fit."""
    factor = 1
    while math.prod(math.ceil(n / factor) for n in size) > most:
        factor += 1
    return tuple(math.ceil(n / factor) for n in size)


def block(name: str, level: FeatureMap, size: tuple[int, int]) -> Tokens:
    """Return where the tokens of a level lie: `size` of them share out its places evenly."""
    stride = tuple(s * n / k for s, n, k in zip(level.stride, level.size, size, strict=True))
    offset = tuple(o + (t - s) / 2 for o, s, t in zip(level.offset, level.stride, stride, strict=True))
    return Tokens(name, size, stride, offset)


def sines(tokens: Tokens, unit: tuple[float, float], width: int, like: Tensor) -> Tensor:
    """Return a code of every token's place [n width]: half of the channels tell the row, the others the column.

    Args:
        unit: (y, x) pixels that count as one step. Given the same for two levels, tokens at one place of the picture
            have one code, whatever their level.
    """
    rates = SLOWEST ** -(torch.arange(width // 4, device=like.device, dtype=like.dtype) / (width // 4))
    codes = []
    for n, s, o, u in zip(tokens.size, tokens.stride, tokens.offset, unit, strict=True):
        place = (torch.arange(n, device=like.device, dtype=like.dtype) * s + o) / u
        angle = place[:, None] * rates  # [n width/4]
        codes.append(torch.cat((angle.sin(), angle.cos()), 1))  # [n width/2]
    h, w = tokens.size
    row, column = codes[0][:, None].expand(-1, w, -1), codes[1][None].expand(h, -1, -1)
    return torch.cat((row, column), 2).flatten(0, 1)


def as_tokens(t: Tensor) -> Tensor:
    """[b c h w] -> [b n c], row by row."""
    return t.flatten(2).transpose(1, 2)


def as_map(t: Tensor, size: tuple[int, int]) -> Tensor:
    """[b n c] -> [b c *size]."""
    return t.transpose(1, 2).unflatten(2, size)


class Heads(nn.MultiheadAttention):
    """Multi-head attention: every token that asks takes a mean of the values, weighed by how its query meets the keys.

    It is torch's own module, without biases, as in the paper's equation; at temperature 1 `super().forward` gives the
    same answer, which a test compares. That makes queries, keys, weights and output in one call; here each is a step
    of its own, so that one can look at it and put other weights in. Neither keys nor weights would feel biases: one
    of the keys adds the same number to all scores of a row, and the softmax does not see it.
    """

    def __init__(self, width: int, count: int, temperature: float) -> None:
        super().__init__(width, count, bias=False, batch_first=True)
        self.temperature = temperature
        for matrix in (*self.matrices, self.out_proj.weight):
            nn.init.xavier_uniform_(matrix)  # keeps the variance, so that scores start at the size of 1
        with torch.no_grad():  # at the start like finds like, and with the sines near finds near: it learns much sooner
            self.matrices[1].copy_(self.matrices[0])

    @property
    def matrices(self) -> tuple[Tensor, Tensor, Tensor]:
        """W_Q, W_K and W_V, each [width width]; the module keeps them as one parameter."""
        return self.in_proj_weight.chunk(3)

    def forward(
        self, asking: Tensor, asked: Tensor, content: Tensor, trace: NullTrace, *, letters: tuple[str, str, str]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return answers [b q width], weights [b head q k] and values [b k width].

        Args:
            asking: what queries are made of [b q width].
            asked, content: what keys and values are made of [b k width].
            letters: how formulas call the three.
        """
        q, k, v = (
            trace.step(
                key,
                key,
                lambda t, w=w: F.linear(t, w),
                tokens,
                formula=rf"{m}=W_{m}\,{f'({letter})' if '+' in letter else letter}",
                module=w,
            )  # [b q width], [b k width], [b k width]
            for key, w, tokens, m, letter in zip(
                ("queries", "keys", "values"), self.matrices, (asking, asked, content), "QKV", letters, strict=True
            )
        )
        scale = r"\sqrt{d}" if self.temperature == 1 else rf"({self.temperature:g}\,\sqrt{{d}})"
        formula = rf"A_i=\mathrm{{softmax}}(Q_i K_i^{{\top}}/{scale})"
        # One step from products to weights: kept apart, the scores would take as much memory again.
        a = trace.step("weight", "attend", self.weigh, q, k, formula=formula, role="weight")  # [b head q k]
        gather = lambda a, v: self.join(a @ self.split(v))  # noqa: E731
        stacked = r"[A_1 V_1;\ldots;A_h V_h]" if self.num_heads > 1 else "A_1 V_1"
        u = trace.step("heads", "heads", gather, a, v, formula=stacked)  # [b q width]
        o = trace.step("mixed", "mix_heads", self.out_proj, u, formula=rf"O=W_O\,{stacked}")  # [b q width]
        return o, a, v

    def weigh(self, q: Tensor, k: Tensor) -> Tensor:
        """Return every query's shares of the keys, head by head: [b head q k], rows summing to 1."""
        q, k = self.split(q), self.split(k)
        return torch.softmax(q / (self.temperature * math.sqrt(self.head_dim)) @ k.transpose(-2, -1), -1)

    def split(self, t: Tensor) -> Tensor:
        """[b n width] -> [b head n d]."""
        return t.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    @staticmethod
    def join(t: Tensor) -> Tensor:
        """[b head n d] -> [b n width]: the heads' answers behind each other."""
        return t.transpose(1, 2).flatten(2)


class TokenMethod(FusionModule):
    """A method whose levels are projected to one width, cut into tokens, and attend."""

    def setup(
        self, heads: int, temperature: float, positions: str, layer_norm: str, tokens: int, width: int, norm: str
    ) -> None:
        if width % 8:
            raise ParameterError(
                "param.value", method=self.spec.key, param="width", received=width, allowed="8, 16, 24, … 1024"
            )
        self.most, self.sine, self.norm_first = tokens, positions == "sine", layer_norm == "before"
        self.project = Alignment(self.channels, self.strides, "project", width=width, norm=norm)
        self.heads = Heads(width, heads, temperature)
        self.norm = nn.LayerNorm(width)

    def cut(self, name: str, tensor: Tensor, level: FeatureMap, trace: NullTrace) -> tuple[Tensor, Tokens]:
        """Return a level's tokens [b n width], of pooled cells where there would be too many, and where they lie."""
        size, letter = token_size(tuple(tensor.shape[-2:]), self.most), "X" if name == "low" else "Y"
        if size != tuple(tensor.shape[-2:]):
            means = lambda t: F.adaptive_avg_pool2d(t, size)  # noqa: E731
            formula = rf"\downarrow {letter}"
            tensor = trace.step(f"{name}_pool", "mean_pool", means, tensor, formula=formula, role=name)
        tokens = trace.step(f"{name}_tokens", "tokens", as_tokens, tensor, formula=letter, role=name)  # [b n width]
        return tokens, block(name, level, size)

    def back(
        self,
        key: str,
        mixed: Tensor,
        begin: int,
        block: Tokens,
        size: tuple[int, int],
        trace: NullTrace,
        role: str = "",
    ) -> Tensor:
        """Return the answers to one level's tokens at its own places [b width *size].

        Args:
            mixed: all answers [b n width]; those of this level begin at `begin`.
        """
        cells = lambda t: as_map(t[:, begin : begin + block.count], block.size)  # noqa: E731
        answer = trace.step(key, "cells", cells, mixed, formula="O", role=role)
        if block.size == size:
            return answer
        enlarge = lambda t: resize(t, size)  # noqa: E731
        return trace.step(f"{key}_resize", "resize_bilinear", enlarge, answer, formula=r"\uparrow O", role=role)

    def at_places(self, t: Tensor) -> Tensor:
        """Layer normalisation over the channels of every place of a map."""
        return self.norm(t.movedim(1, -1)).movedim(-1, 1)
