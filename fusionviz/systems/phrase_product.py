"""Late fusion of picture and phrase: each makes up its mind alone, and only the scores meet.

Idea: vision scores every place on a fixed list of questions before a word has been read; the phrase says which of the
questions it asks. The product of both, summed up, is the answer. Scores of pictures can be kept and asked again, but
what is the leftmost of the *red* ones nobody can have worked out before "red" was said.
"""

import torch
from torch import Tensor, nn

from fusionviz.records import AttentionMap
from fusionviz.registry import FusionSpec, register
from fusionviz.systems._phrases import TEXT, WIDTH, Met, PhraseSystem, Pointing
from fusionviz.trace import NullTrace

QUESTIONS = 24

SPEC = FusionSpec(
    key="phrase_product",
    family="language",
    equation=r"Z_{k} = a_{k}(Y)\, s_{k}(X), \quad s = \sum_{k} Z_{k}",
    year=0,
    takes="image+text",
    align="none",
)


@register(SPEC)
class PhraseProduct(PhraseSystem):
    """Score every place on questions of its own, and let the phrase say how much each question counts.

    Linear in what is asked: half of one question and half of another are answered by the mean of both answers.

    Equation: s = sum over k of a_k(Y) s_k(X) + b.
    Args:
        picture [b 3 h w], levels, and a phrase in the context.
    Returns:
        FusionResult; "fused" are the products [b 24 h w] at twice the finest level's resolution, "answer" the
        probability [b 1 h w] that a place is meant, at the same places. Attention "asked" is a [b 24 1 1], unbounded.
    Raises:
        ParameterError: without a phrase, or for a word that is not in the vocabulary.
    """

    def build(self) -> None:
        self.pointing = Pointing(WIDTH, QUESTIONS)
        self.ask = nn.Linear(TEXT, QUESTIONS + 1)

    def meet(self, x: Tensor, y: Tensor, trace: NullTrace) -> Met:
        scores = self.pointing(x, trace, letter="X")  # [b questions 2h 2w]
        said = trace.step("said", "linear", self.ask, y, formula=r"(a,b)=W\,Y+c")  # [b questions + 1]
        split = lambda t: t[:, :QUESTIONS, None, None]  # noqa: E731
        a = trace.step("asked", "scale_of_text", split, said, formula=r"a", role="weight")  # [b questions 1 1]
        z = trace.step("fused", "multiply", torch.mul, scores, a, formula=r"a\otimes s", role="fused")
        add = lambda z, t: z.sum(1, keepdim=True) + t[:, QUESTIONS:, None, None]  # noqa: E731
        logits = trace.step("total", "sum_channels", add, z, said, formula=r"\sum_{k} a_{k}\,s_{k}+b")  # [b 1 2h 2w]
        bounds = {"minimum": -torch.inf, "maximum": torch.inf}
        asked = AttentionMap("asked", a, "b c 1 1", "affine", "asked", "vision", **bounds)
        return Met(z, logits, (asked,), fine=True)
