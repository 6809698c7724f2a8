"""FiLM: the phrase sets a scale and a shift for every channel of what is seen.

Paper: Perez, Strub, de Vries, Dumoulin, Courville, "FiLM: Visual Reasoning with a General Conditioning Layer",
AAAI 2018, arXiv 1709.07871.
Idea: a phrase is no picture and has no places, so it need not become a map. It only says, channel by channel, how much
of it matters here (gamma) and from where on (beta); the picture keeps every place.
Differs from paper: one FiLM layer on the sum of a frozen network's levels, where the paper has one in each of four
residual blocks; a mask is pointed out, not a question answered. Everything but the layer is shared with `gmu`,
`phrase_concat` and `phrase_product`.
"""

import torch
from torch import Tensor, nn

from fusionviz.records import AttentionMap
from fusionviz.registry import FusionSpec, Param, register
from fusionviz.systems._phrases import TEXT, WIDTH, Met, PhraseSystem, Pointing
from fusionviz.trace import NullTrace

SPEC = FusionSpec(
    key="film",
    family="language",
    equation=r"Z = \gamma(Y) \otimes X + \beta(Y), \quad \gamma(Y) = 1 + \Delta(Y)",
    year=2018,
    takes="image+text",
    align="none",
    params=(
        Param("strength", 1.0, low=0.0, high=2.0, step=0.05),
        Param("by", "both", choices=("both", "scale", "shift")),
    ),
    paper="Perez, Strub, de Vries, Dumoulin, Courville. FiLM: Visual Reasoning with a General Conditioning Layer. "
    "AAAI 2018",
    link="https://arxiv.org/abs/1709.07871",
    cite="Perez et al., AAAI 2018 · arXiv 1709.07871",
)


@register(SPEC)
class FiLM(PhraseSystem):
    """Modulate every channel by the phrase, then point.

    Affine in the map: gamma = 1 and beta = 0 leave it as it is, gamma = 0 leaves beta alone at every place.

    Equation: Z = gamma * X + beta, gamma = 1 + Delta; (Delta, beta) is linear in the phrase's vector.
    Args:
        picture [b 3 h w], levels, and a phrase in the context.
    Returns:
        FusionResult; "fused" is Z [b c h w], "answer" the probability [b 1 h w] that a place is meant, at twice the
        resolution. Attention "gamma" and "beta" are [b c 1 1], unbounded.
    Raises:
        ParameterError: without a phrase, or for a word that is not in the vocabulary.
    Differs from paper: one layer, not four; `strength` multiplies Delta and beta, `by` leaves one of the two out.
    Source: arXiv 1709.07871
    """

    def build(self, strength: float, by: str) -> None:
        self.scales, self.shifts = (strength if by in ("both", one) else 0.0 for one in ("scale", "shift"))
        self.condition = nn.Linear(TEXT, 2 * WIDTH)
        self.pointing = Pointing(WIDTH)

    def meet(self, x: Tensor, y: Tensor, trace: NullTrace) -> Met:
        said = trace.step("condition", "linear", self.condition, y, formula=r"(\Delta,\beta)=W\,Y+b")  # [b 2c]
        # A gamma that starts at 1, not at 0, lets what is seen through from the first step of training on.
        scale = lambda t: 1 + self.scales * t[:, :WIDTH, None, None]  # noqa: E731
        shift = lambda t: self.shifts * t[:, WIDTH:, None, None]  # noqa: E731
        gamma = trace.step(
            "gamma", "scale_of_text", scale, said, formula=r"\gamma=1+\Delta", role="weight"
        )  # [b c 1 1]
        beta = trace.step("beta", "shift_of_text", shift, said, formula=r"\beta", role="weight")  # [b c 1 1]
        z = trace.step("fused", "film", modulate, x, gamma, beta, formula=r"\gamma\otimes X+\beta", role="fused")
        unbounded = {"axes": "b c 1 1", "kind": "affine", "of": "vision", "minimum": -torch.inf, "maximum": torch.inf}
        attention = (
            AttentionMap("gamma", gamma, role="gamma", **unbounded),
            AttentionMap("beta", beta, role="beta", **unbounded),
        )
        return Met(z, self.pointing(z, trace), attention)


def modulate(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """Return gamma * x + beta, a scale and a shift [b c 1 1] for every channel of x [b c h w]."""
    return gamma * x + beta
