"""GMU, the gated multimodal unit: for every number a gate decides how much comes from the picture, how much from text.

Paper: Arevalo, Solorio, Montes-y-Gomez, Gonzalez, "Gated Multimodal Units for Information Fusion", 2017,
arXiv 1702.01992.
Idea: which source to trust changes from case to case, so a gate looks at both and mixes them, as the gates of a GRU mix
old and new.
Differs from paper: there both sources are vectors; here what is seen is a map, so the phrase's vector stands at every
place and the gate has a number for every channel at every place. A mask is pointed out, not a class told.
"""

import torch
from torch import Tensor, nn

from fusionviz.records import AttentionMap
from fusionviz.registry import FusionSpec, Param, register
from fusionviz.systems._phrases import TEXT, WIDTH, Met, PhraseSystem, Pointing
from fusionviz.trace import NullTrace

SPEC = FusionSpec(
    key="gmu",
    family="language",
    equation=r"Z = M \otimes \mathrm{tanh}(W_{v} X) + (1 - M) \otimes \mathrm{tanh}(W_{t} Y), "
    r"\quad M = \sigma(W_{z} [X;\, Y])",
    year=2017,
    takes="image+text",
    align="none",
    params=(Param("gate", "learned", choices=("learned", "vision", "text")),),
    paper="Arevalo, Solorio, Montes-y-Gómez, González. Gated Multimodal Units for Information Fusion. 2017",
    link="https://arxiv.org/abs/1702.01992",
    cite="Arevalo et al., 2017 · arXiv 1702.01992",
    weighs="low",
    arithmetic="{z} = {low} · {x} + (1 − {low}) · {y}",
)


@register(SPEC)
class GMU(PhraseSystem):
    """Mix what is seen and what is said by a gate that looks at both, then point.

    Convex: every number lies between the two it is mixed from, and so between -1 and 1.

    Equation: Z = M * tanh(Wv X) + (1 - M) * tanh(Wt Y), M = sigma(Wz [X; Y]).
    Args:
        picture [b 3 h w], levels, and a phrase in the context.
    Returns:
        FusionResult; "fused" is Z [b c h w], "answer" the probability [b 1 h w] that a place is meant, at twice the
        resolution. Attention "low" is M [b c h w] in (0, 1), the weight of vision; text has the rest.
    Raises:
        ParameterError: without a phrase, or for a word that is not in the vocabulary.
    Differs from paper: `gate` can hold M at 1 (vision alone) or at 0 (text alone).
    Source: arXiv 1702.01992
    """

    def build(self, gate: str) -> None:
        self.held = {"learned": None, "vision": 1.0, "text": 0.0}[gate]
        self.vision = nn.Conv2d(WIDTH, WIDTH, 1, bias=False)
        self.text = nn.Linear(TEXT, WIDTH, bias=False)
        self.gate = nn.Conv2d(WIDTH + TEXT, WIDTH, 1, bias=False)
        self.pointing = Pointing(WIDTH)

    def meet(self, x: Tensor, y: Tensor, trace: NullTrace) -> Met:
        see, say = lambda t: torch.tanh(self.vision(t)), lambda t: torch.tanh(self.text(t))[..., None, None]
        formula = r"\mathrm{tanh}(W_{v}\,X)"
        v = trace.step("vision", "tanh", see, x, formula=formula, role="low", module=self.vision)  # [b c h w]
        # One number for each channel: a phrase has no places, so it says the same at all of them.
        formula = r"\mathrm{tanh}(W_{t}\,Y)"
        t = trace.step("said", "tanh", say, y, formula=formula, role="high", module=self.text)  # [b c 1 1]
        m = trace.step(
            "gate", "gate", self._gate, x, y, formula=r"M=\sigma(W_{z}[X;Y])", role="weight", module=self.gate
        )
        mix = lambda m, v, t: m * v + (1 - m) * t  # noqa: E731
        formula = r"M\otimes\mathrm{tanh}(W_{v}X)+(1-M)\otimes\mathrm{tanh}(W_{t}Y)"
        z = trace.step("fused", "select", mix, m, v, t, formula=formula, role="fused")  # [b c h w]
        weight = AttentionMap("low", m, "b c h w", "gate", "vision_weight", "vision", "with_text")
        return Met(z, self.pointing(z, trace), (weight,), aligned=(v, t.expand_as(v)))

    def _gate(self, x: Tensor, y: Tensor) -> Tensor:
        if self.held is not None:
            return torch.full_like(x, self.held)
        both = torch.cat((x, y[..., None, None].expand(-1, -1, *x.shape[-2:])), 1)  # [b width + text h w]
        return torch.sigmoid(self.gate(both))
