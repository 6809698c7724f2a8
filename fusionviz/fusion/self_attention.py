"""Self-attention over the tokens of both levels: every place asks every place, of its own level and of the other.

Paper: Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser, Polosukhin, "Attention Is All You Need", NeurIPS 2017,
arXiv 1706.03762, section 3.2: the self-attention of the encoder.
Idea: the tokens of both levels stand behind each other as one sequence, and each takes a mean of the values of all,
with weights of its own. So it is no longer given which level asks and which one answers: how much of a row lies on the
other level is learned, place by place.
Differs from paper: one attention sublayer with its residual and normalisation; no feed-forward layer, no stack, no
dropout. The levels come to one width by a 1x1 convolution and batch normalisation. A learned code says of which level a
token is, as in Deformable DETR (arXiv 2010.04159); it stands with the paper's sines, here in two dimensions and counted
in cells of the low level, in queries and keys alone: what is handed on is content. The sines' range and the start of
the keys are those of cross_attention.py. `layer_norm=before` normalises the tokens instead of the sum. A sequence of
both levels is long, and its pairs are its length squared: by default a level is pooled to 256 tokens or fewer, and the
answers are enlarged again before they are added.
"""

import torch
from torch import Tensor, nn

from fusionviz.fusion._base import Context, Fused, resize
from fusionviz.fusion._tokens import TokenMethod, as_map, knobs, sines
from fusionviz.records import AttentionMap, Tokens
from fusionviz.registry import FusionSpec, register
from fusionviz.trace import NullTrace

SPEC = FusionSpec(
    key="self_attention",
    family="transformer",
    equation=r"T = [X; Y], \quad [Z; Z'] = \mathrm{LN}(T + W_O\,[A_1 V_1; \ldots; A_h V_h]), "
    r"\quad A_i = \mathrm{softmax}(Q_i K_i^{\top} / \sqrt{d})",
    year=2017,
    align="none",  # bringing places together is the attention itself
    params=knobs(tokens=256),
    paper="Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser, Polosukhin. Attention Is All You Need. "
    "NeurIPS 2017",
    link="https://arxiv.org/abs/1706.03762",
    cite="Vaswani et al., NeurIPS 2017 · arXiv 1706.03762",
)


@register(SPEC)
class SelfAttention(TokenMethod):
    """Let the places of both levels look at each other, and at their own level.

    Helps where two fine places belong together, which cross-attention cannot say. Costs a weight for every pair of
    tokens of both levels.

    Equation: [Z; Z'] = LN(T + W_O [A_1 V_1; ...; A_h V_h]), T = [X; Y], A_i = softmax(Q_i K_i^T / (temperature
        sqrt(d))), Q = W_Q (T + P + E), K = W_K (T + P + E), V = W_V T; E has one row for each level.
    Args:
        low, high: maps [b p h w] and [b q h' w'] of any sizes and channels.
    Returns:
        FusionResult; fused is Z [b width h w], also as "p4" or the like beside Z' [b width h' w'], the high level's.
        Attention "pairs" is [b head n n] in [0, 1], each row summing to 1; the low level's tokens come first. The share
        of low is that of X and what its own tokens answer, against what the high level's answer, before normalisation.
    Raises:
        ParameterError: if the width is no multiple of 8.
    Differs from paper: one sublayer; see the head of this file.
    Source: arXiv 1706.03762
    """

    def setup(self, width: int, **params: object) -> None:
        super().setup(width=width, **params)
        self.level = nn.Parameter(torch.randn(2, width) * 0.02)

    def fuse(self, x: Tensor, y: Tensor, *, context: Context, trace: NullTrace) -> Fused:
        maps = self.project.projected(x, y, trace)  # [b width h w], [b width h' w']
        cuts = [self.cut(*of, trace) for of in zip(("low", "high"), maps, context.levels, strict=True)]
        blocks = tuple(block for _, block in cuts)
        stack = lambda a, b: torch.cat((a, b), 1)  # noqa: E731
        tokens = trace.step("tokens", "concat", stack, cuts[0][0], cuts[1][0], formula="T=[X;Y]")  # [b n width]
        if self.norm_first:
            tokens = trace.step("norm_first", "layer_norm", self.norm, tokens, formula=r"\mathrm{LN}(T)")
        name, unit = "T+P+E" if self.sine else "T+E", context.levels[0].stride
        code = lambda t: t + self._code(blocks, unit, t)  # noqa: E731
        coded = trace.step("coded", "codes", code, tokens, formula=name, module=self.level)  # [b n width]
        mixed, weights, values = self.heads(coded, coded, tokens, trace, letters=(name, name, "T"))
        begins, sizes = (0, blocks[0].count), [tuple(m.shape[-2:]) for m in maps]
        low, high = (
            self.back(f"{level.level}_answer", mixed, begin, level, size, trace)
            for level, begin, size in zip(blocks, begins, sizes, strict=True)
        )
        z = self._added("fused", "X+O", maps[0], low, "fused", trace)  # [b width h w]
        z_high = self._added("high_out", "Y+O", maps[1], high, "high", trace)  # [b width h' w']
        pairs = AttentionMap(
            "pairs", weights, "b head q k", "softmax", "rows", "both", "row", queries=blocks, keys=blocks
        )
        terms = lambda: self._terms(maps[0], weights, values, blocks)  # noqa: E731
        return Fused(z, (pairs,), terms=terms, levels=(z, z_high))

    def _code(self, blocks: tuple[Tokens, ...], unit: tuple[float, float], like: Tensor) -> Tensor:
        """Of which level every token is, and where it stands: [n width]."""
        rows = [self.level[i].expand(b.count, -1) for i, b in enumerate(blocks)]
        if self.sine:
            rows = [row + sines(b, unit, like.shape[-1], like) for row, b in zip(rows, blocks, strict=True)]
        return torch.cat(rows)

    def _added(self, key: str, letters: str, own: Tensor, answer: Tensor, role: str, trace: NullTrace) -> Tensor:
        if self.norm_first:
            return trace.step(key, "add", torch.add, own, answer, formula=letters, role=role)
        z = trace.step(f"{key}_sum", "add", torch.add, own, answer, formula=letters)
        # One normalisation serves all tokens; its numbers are counted once, at the low level's.
        module, formula = self.norm if role == "fused" else None, rf"\mathrm{{LN}}({letters})"
        return trace.step(key, "layer_norm", self.at_places, z, formula=formula, role=role, module=module)

    def _terms(self, own: Tensor, weights: Tensor, values: Tensor, blocks: tuple[Tokens, ...]) -> tuple[Tensor, Tensor]:
        """What each level puts into the sum: low itself with its tokens' part of the answer, high its tokens' part."""
        n, values = blocks[0].count, self.heads.split(values)  # [b head n d]
        rows, parts = weights[:, :, :n], []
        for columns in (slice(n), slice(n, None)):
            part = self.heads.out_proj(self.heads.join(rows[..., columns] @ values[:, :, columns]))  # [b low width]
            parts.append(resize(as_map(part, blocks[0].size), tuple(own.shape[-2:])))
        return own + parts[0], parts[1]
