"""Cross-attention between two levels: every place of the low level asks all places of the high one.

Paper: Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser, Polosukhin, "Attention Is All You Need", NeurIPS 2017,
arXiv 1706.03762, section 3.2: the attention between decoder and encoder.
Idea: places are tokens. The low level's make queries, the high level's keys and values; each low place takes a mean of
the high level's values, with weights of its own, once in every head. The heads' answers are concatenated, mixed
linearly by W_O, and added to the low level. No map is resized for that: which high cells belong to a low one is
what the attention decides.
Differs from paper: one attention sublayer with its residual and normalisation; no feed-forward layer, which would mix
neither places nor levels, no stack, no dropout. The levels come to one width by a 1x1 convolution and batch
normalisation. Positions are the paper's sines in two dimensions, counted in cells of the low level, and stand in
queries and keys alone, as in DETR (arXiv 2005.12872): what is handed on is content. Their slowest sine is 32 times
slower than the quickest instead of 10,000 times: levels are shorter than texts. The keys' matrix starts as a copy of
the queries'. `layer_norm=before` normalises the tokens that ask instead of the sum, as in DETR's other variant. Above
`tokens` places a level is pooled first, and the answers are enlarged again.
"""

import torch
from torch import Tensor

from fusionviz.fusion._base import Context, Fused
from fusionviz.fusion._tokens import TokenMethod, knobs, sines
from fusionviz.records import AttentionMap, Tokens
from fusionviz.registry import FusionSpec, register
from fusionviz.trace import NullTrace

SPEC = FusionSpec(
    key="cross_attention",
    family="transformer",
    equation=r"Z = \mathrm{LN}(X + W_O\,[A_1 V_1; \ldots; A_h V_h]), "
    r"\quad A_i = \mathrm{softmax}(Q_i K_i^{\top} / \sqrt{d})",
    year=2017,
    align="none",  # bringing places together is the attention itself
    params=knobs(tokens=1024),
    paper="Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser, Polosukhin. Attention Is All You Need. "
    "NeurIPS 2017",
    link="https://arxiv.org/abs/1706.03762",
    cite="Vaswani et al., NeurIPS 2017 · arXiv 1706.03762",
)


@register(SPEC)
class CrossAttention(TokenMethod):
    """Let every place of the low level fetch what it needs from anywhere in the high level.

    Helps where what explains a place lies elsewhere in the picture. Costs a weight for every pair of places, and
    knows of nearness only what positions tell it.

    Equation: Z = LN(X + W_O [A_1 V_1; ...; A_h V_h]), A_i = softmax(Q_i K_i^T / (temperature sqrt(d))),
        Q = W_Q (X + P), K = W_K (Y + P), V = W_V Y.
    Args:
        low, high: maps [b p h w] and [b q h' w'] of any sizes and channels.
    Returns:
        FusionResult; fused is [b width h w]. Attention "pairs" is [b head q k] in [0, 1], each row summing to 1: one
        query for each low token, one key for each high token. The share of low is |X| / (|X| + |answer|), before
        normalisation; `aligned` are these two maps, at the low level's places.
    Raises:
        ParameterError: if the width is no multiple of 8.
    Differs from paper: one sublayer; see the head of this file.
    Source: arXiv 1706.03762
    """

    def fuse(self, x: Tensor, y: Tensor, *, context: Context, trace: NullTrace) -> Fused:
        low, high = self.project.projected(x, y, trace)  # [b width h w], [b width h' w']
        asking, queries = self.cut("low", low, context.levels[0], trace)  # [b q width]
        asked, keys = self.cut("high", high, context.levels[1], trace)  # [b k width]
        if self.norm_first:
            asking = trace.step(
                "low_norm_first", "layer_norm", self.norm, asking, formula=r"\mathrm{LN}(X)", role="low"
            )
        content, unit, letters = asked, context.levels[0].stride, ("X", "Y", "Y")
        if self.sine:
            asking = self._placed("low", asking, queries, unit, trace)
            asked = self._placed("high", asked, keys, unit, trace)
            letters = ("X+P", "Y+P", "Y")
        mixed, weights, _ = self.heads(asking, asked, content, trace, letters=letters)  # [b q width], [b head q k]
        answer = self.back("answer", mixed, 0, queries, tuple(low.shape[-2:]), trace, "high")  # [b width h w]
        key, role = ("fused", "fused") if self.norm_first else ("sum", "")
        z = trace.step(key, "add", torch.add, low, answer, formula="X+O", role=role)  # [b width h w]
        if not self.norm_first:
            norm, formula = self.at_places, r"\mathrm{LN}(X+O)"
            z = trace.step("fused", "layer_norm", norm, z, formula=formula, role="fused", module=self.norm)
        pairs = AttentionMap(
            "pairs", weights, "b head q k", "softmax", "rows", "high", "row", queries=(queries,), keys=(keys,)
        )
        return Fused(z, (pairs,), terms=lambda: (low, answer), aligned=(low, answer))

    @staticmethod
    def _placed(name: str, tokens: Tensor, block: Tokens, unit: tuple[float, float], trace: NullTrace) -> Tensor:
        add, letter = (lambda t: t + sines(block, unit, t.shape[-1], t)), "X" if name == "low" else "Y"
        return trace.step(f"{name}_placed", "positions", add, tokens, formula=f"{letter}+P", role=name)
