"""Early fusion of picture and phrase: the phrase's vector is stacked on what is seen, at every place.

Paper: Hu, Rohrbach, Darrell, "Segmentation from Natural Language Expressions", ECCV 2016, arXiv 1603.06180.
Idea: the plainest meeting there is. One 1x1 convolution reads the stack, so the phrase adds the same numbers to every
place; whatever depends on both, the layers behind have to make of the sum.
Differs from paper: a GRU reads the phrase where the paper has an LSTM; the place of a cell is added to what is seen,
not stacked on it; the network behind the map stays as it was.
"""

import torch
from torch import Tensor, nn

from fusionviz.registry import FusionSpec, register
from fusionviz.systems._phrases import TEXT, WIDTH, Met, PhraseSystem, Pointing
from fusionviz.trace import NullTrace

SPEC = FusionSpec(
    key="phrase_concat",
    family="language",
    equation=r"Z = W [X;\, Y] = W_{v} X + W_{t} Y",
    year=2016,
    takes="image+text",
    align="none",
    paper="Hu, Rohrbach, Darrell. Segmentation from Natural Language Expressions. ECCV 2016",
    link="https://arxiv.org/abs/1603.06180",
    cite="Hu et al., ECCV 2016 · arXiv 1603.06180",
)


@register(SPEC)
class PhraseConcat(PhraseSystem):
    """Stack picture and phrase, mix by one 1x1 convolution, then point.

    It is FiLM with gamma = 1 (behind one more 1x1 convolution): the phrase can shift channels, not scale them.

    Equation: Z = W [X; Y].
    Args:
        picture [b 3 h w], levels, and a phrase in the context.
    Returns:
        FusionResult; "fused" is Z [b c h w], "answer" the probability [b 1 h w] that a place is meant, at twice the
        resolution. Nothing is weighed.
    Raises:
        ParameterError: without a phrase, or for a word that is not in the vocabulary.
    Source: arXiv 1603.06180
    """

    def build(self) -> None:
        self.stack = nn.Conv2d(WIDTH + TEXT, WIDTH, 1)
        self.pointing = Pointing(WIDTH)

    def meet(self, x: Tensor, y: Tensor, trace: NullTrace) -> Met:
        spread = lambda y, x: y[..., None, None].expand(-1, -1, *x.shape[-2:])  # noqa: E731
        t = trace.step("spread", "spread", spread, y, x, formula=r"Y", role="high")  # [b text h w]
        both = trace.step("stack", "concat", _stack, x, t, formula=r"[X;Y]")  # [b width + text h w]
        z = trace.step("fused", "conv_1x1", self.stack, both, formula=r"W[X;Y]", role="fused")  # [b width h w]
        return Met(z, self.pointing(z, trace))


def _stack(x: Tensor, t: Tensor) -> Tensor:
    return torch.cat((x, t), 1)
