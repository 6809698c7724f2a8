"""Late fusion: vision's scores do not know the phrase, and the answer is linear in what is asked."""

import torch
from _asking import ask, build, seen_and_said, steps
from torch import nn

from fusionviz.systems.phrase_product import QUESTIONS
from fusionviz.trace import NullTrace


def test_vision_has_made_up_its_mind_before_a_word_is_read() -> None:
    module = build("phrase_product")
    one, two = (steps(ask(module, phrase)) for phrase in ("the small blue ring", "the leftmost tree"))
    assert torch.equal(one["scores"], two["scores"])
    assert not torch.allclose(one["answer"], two["answer"])


def test_the_answer_is_the_sum_of_the_products() -> None:
    result = ask(build("phrase_product"), count=2)
    found = steps(result)
    asked, offset = found["said"].split((QUESTIONS, 1), 1)
    assert torch.equal(result.attention["asked"].tensor, asked[..., None, None])
    total = torch.einsum("bkhw,bk->bhw", found["scores"], asked) + offset[..., None]
    torch.testing.assert_close(result.outputs["answer"].tensor[:, 0], torch.sigmoid(total))
    torch.testing.assert_close(result.fused.tensor, found["scores"] * asked[..., None, None])


def test_half_of_two_questions_is_answered_by_half_of_both_answers() -> None:
    module, (x, y), (_, other) = build("phrase_product"), seen_and_said(), seen_and_said(1)
    with torch.no_grad():
        one, two, mixed = (module.meet(x, v, NullTrace()).logits for v in (y, other, (y + other) / 2))
    torch.testing.assert_close(mixed, (one + two) / 2, atol=1e-5, rtol=1e-4)


def test_who_asks_nothing_hears_the_same_everywhere() -> None:
    module = build("phrase_product")
    nn.init.zeros_(module.ask.weight)
    nn.init.zeros_(module.ask.bias)
    assert bool((ask(module).outputs["answer"].tensor == 0.5).all())
