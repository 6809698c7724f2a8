"""Show, Attend and Tell: weights over places that sum to 1, temperature from hard to soft, the end of a sentence."""

import math

import pytest
import torch

from fusionviz import systems
from fusionviz.errors import LevelError
from fusionviz.records import ANALYTIC, FeatureMap, FeaturePyramid, LevelInfo, Words
from fusionviz.systems.show_attend_tell import (
    END,
    LONGEST,
    WORDS,
    doubly_stochastic,
    drawn,
    sharpened,
)
from fusionviz.trace import NullTrace

LEVELS = tuple(
    LevelInfo(name, channels, (stride, stride), (0.5, 0.5), stage)
    for stage, (name, channels, stride) in enumerate((("s8", 6, 8.0), ("s16", 10, 16.0)), 1)
)


def inputs(size: tuple[int, int] = (64, 64), batch: int = 1, seed: int = 0) -> tuple[torch.Tensor, FeaturePyramid]:
    generator = torch.Generator().manual_seed(seed)
    picture = torch.randn(batch, 3, *size, generator=generator)
    maps = tuple(
        FeatureMap(
            v.name,
            torch.randn(batch, v.channels, *(math.ceil(n / v.stride[0]) for n in size), generator=generator),
            v.stride,
            v.offset,
            v.stage,
        )
        for v in LEVELS
    )
    return picture, FeaturePyramid(maps, "toy", ANALYTIC)


def tell(**params: object):
    return systems.build("show_attend_tell", LEVELS, **params)


def annotations(module, batch: int = 1, seed: int = 0) -> torch.Tensor:  # noqa: ANN001
    picture, pyramid = inputs(batch=batch, seed=seed)
    with torch.no_grad():
        return module.annotate(picture, pyramid["s8"].tensor, pyramid["s16"].tensor, NullTrace())


def scores(places: int = 12) -> torch.Tensor:
    return torch.randn(3, places, generator=torch.Generator().manual_seed(2))


# --- weights -------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [(64, 64), (70, 41)])
def test_every_word_has_a_map_that_sums_to_one_on_the_places_of_s8(size: tuple[int, int]) -> None:
    picture, pyramid = inputs(size)
    result = tell()(picture, pyramid)
    weight, words = result.attention["words"], result.outputs["words"]
    weight.check()
    assert weight.tensor.shape == (1, len(words.words), *pyramid["s8"].size)
    torch.testing.assert_close(weight.tensor.sum((2, 3)), torch.ones(1, len(words.words)))
    assert (weight.stride, weight.offset, weight.grain) == ((8.0, 8.0), (0.5, 0.5), "time")
    assert result.fused.size == pyramid["s8"].size


def test_cold_is_all_on_the_best_place_and_hot_is_all_alike() -> None:
    e = scores()
    best = torch.nn.functional.one_hot(e.argmax(1), 12).float()
    assert torch.equal(sharpened(e, 0.0), best)
    torch.testing.assert_close(sharpened(e, 1e-3), best)
    torch.testing.assert_close(sharpened(e, 1e6), torch.full((3, 12), 1 / 12))
    torch.testing.assert_close(sharpened(e, 1.0), e.softmax(1))


def test_the_mean_of_hard_attention_is_soft_attention() -> None:
    alpha, values = sharpened(scores(), 1.0), torch.randn(12, 5, generator=torch.Generator().manual_seed(3))
    numbers = torch.rand(20_000, generator=torch.Generator().manual_seed(4))
    for row in alpha:
        places = torch.stack([drawn(row[None], n)[0] for n in numbers[:2000]])
        every = drawn(row.expand(20_000, -1), numbers[:, None])
        assert torch.equal(every[:2000], places)
        torch.testing.assert_close(values[every].mean(0), row @ values, atol=0.04, rtol=0)


def test_a_draw_never_takes_a_place_without_weight() -> None:
    alpha = torch.tensor([[0.0, 0.5, 0.0, 0.5, 0.0]])
    assert [int(drawn(alpha, torch.tensor(n))[0]) for n in (0.0, 0.49, 0.51, 0.9999)] == [1, 1, 3, 3]


def test_the_context_lies_between_the_annotations() -> None:
    picture, pyramid = inputs()
    steps = {s.key: s.tensor for s in tell()(picture, pyramid).trace}
    a, z = steps["places"][0], steps["context"][0]
    torch.testing.assert_close(z, steps["weights"][0] @ a)
    assert bool(((z >= a.amin(0)) & (z <= a.amax(0))).all())
    assert 0 < steps["gate"].item() < 1
    assert steps["gate"].numel() == 1  # a scalar for each picture, as in the released code
    torch.testing.assert_close(steps["gated"][0], steps["gate"][0] * z)


def test_scores_are_additive_attention_through_tanh() -> None:
    module = tell()
    steps = {s.key: s.tensor for s in module(*inputs()).trace}
    h = steps["start"][:, :80]
    asked = torch.einsum("kd,nd->nk", module.asks.weight, h)
    each = [module.score.weight[0] @ torch.tanh(key + asked[0]) for key in steps["keys"][0]]
    torch.testing.assert_close(steps["scores"][0], torch.stack(each))


def test_hard_attention_sees_one_place_and_says_which() -> None:
    picture, pyramid = inputs()
    result = tell(attention="hard")(picture, pyramid)
    words, steps = result.outputs["words"], {s.key: s.tensor for s in result.trace}
    cell = (words.places[0] - 0.5) / 8
    index = int(cell[0] * pyramid["s8"].size[1] + cell[1])
    assert torch.equal(steps["context"][0], steps["places"][0, index])
    assert tell()(picture, pyramid).outputs["words"].places is None


def test_at_zero_temperature_hard_and_soft_agree() -> None:
    soft, hard = (tell(attention=kind, temperature=0.0)(*inputs()) for kind in ("soft", "hard"))
    assert soft.outputs["words"].words == hard.outputs["words"].words
    assert torch.equal(soft.attention["words"].tensor, hard.attention["words"].tensor)


# --- the regulariser -----------------------------------------------------------------------------
def test_the_regulariser_is_zero_exactly_where_each_place_was_looked_at_once() -> None:
    even = torch.full((2, 4, 4), 0.25)
    spoken = torch.ones(2, 4)
    assert float(doubly_stochastic(even, spoken)) == 0
    one_by_one = torch.eye(4).expand(2, 4, 4)
    assert float(doubly_stochastic(one_by_one, spoken)) == 0
    same = torch.zeros(1, 4, 4)
    same[..., 0] = 1  # four looks at one place: sums 4, 0, 0, 0
    assert float(doubly_stochastic(same, spoken[:1])) == pytest.approx((9 + 1 + 1 + 1) / 4)
    assert float(doubly_stochastic(even, torch.tensor([[1.0, 1, 0, 0]] * 2))) == pytest.approx(0.25)


# --- sentences -----------------------------------------------------------------------------------
def endless(module, end: float):  # noqa: ANN001, ANN202
    with torch.no_grad():
        module.out.weight.zero_()
        module.out.bias.zero_()
        module.out.bias[END], module.out.bias[3] = end, 1.0
    return module


def test_a_sentence_stops_at_the_end_and_in_any_case_after_nine_things() -> None:
    picture, pyramid = inputs()
    silent = endless(tell(), 2.0)(picture, pyramid)
    assert silent.outputs["words"].words == ()
    assert silent.attention == {}
    on_and_on = endless(tell(), 0.0)(picture, pyramid).outputs["words"]
    assert on_and_on.words == (WORDS[3],) * LONGEST
    assert isinstance(on_and_on, Words)


def test_the_end_is_not_counted_and_what_follows_it_is_not_said() -> None:
    module = tell()
    a = annotations(module, batch=4)
    told = module.tell(a)
    for i in range(4):
        alone = module.tell(a[i : i + 1]).words[0].tolist()
        said = told.words[i].tolist()
        cut = said[: said.index(END) + 1] if END in said else said
        assert alone == cut


@pytest.mark.parametrize("attention", ["soft", "hard"])
def test_a_batch_is_its_singles(attention: str) -> None:
    module = tell(attention=attention)
    a = annotations(module, batch=3)
    given = torch.tensor([[1, 14, 2, 15]] * 3)
    together = module.tell(a, given=given, generator=torch.Generator().manual_seed(0))
    for i in range(3):
        one = module.tell(a[i : i + 1], given=given[:1], generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(one.logits[0], together.logits[i], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(one.attention[0], together.attention[i], atol=1e-6, rtol=1e-4)


def test_greedy_words_are_those_that_would_be_given() -> None:
    module = tell()
    a = annotations(module)
    greedy = module.tell(a)
    again = module.tell(a, given=greedy.words)
    torch.testing.assert_close(again.logits, greedy.logits)
    assert torch.equal(again.logits.argmax(2), greedy.words)


# --- what is heard -------------------------------------------------------------------------------
@pytest.mark.parametrize(("maps", "deaf"), [("low", "s16"), ("high", "s8")])
def test_a_level_left_out_changes_nothing_and_is_as_in_training(maps: str, deaf: str) -> None:
    module, (picture, pyramid) = tell(maps=maps), inputs()
    low, high = pyramid["s8"].tensor, pyramid["s16"].tensor
    told = module.annotate(picture, low, high, NullTrace())
    other = (low, high + 1) if deaf == "s16" else (low + 1, high)
    assert torch.equal(told, module.annotate(picture, *other, NullTrace()))
    keep = tuple(torch.full((1, 1, 1, 1), float(name == maps)) for name in ("low", "high"))
    torch.testing.assert_close(told, tell().annotate(picture, low, high, NullTrace(), keep))


def test_the_colours_of_the_picture_are_heard() -> None:
    module, (picture, pyramid) = tell(), inputs()
    maps = pyramid["s8"].tensor, pyramid["s16"].tensor
    assert not torch.equal(
        module.annotate(picture, *maps, NullTrace()), module.annotate(picture.flip(1), *maps, NullTrace())
    )


def test_every_parameter_gets_a_finite_gradient() -> None:
    module, (picture, pyramid) = tell(), inputs(batch=2)
    a = module.annotate(picture, pyramid["s8"].tensor, pyramid["s16"].tensor, NullTrace())
    module.tell(a, given=torch.tensor([[1, 14, 2, 0]] * 2)).logits.square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in module.parameters())


def test_a_backbone_without_its_levels_is_answered() -> None:
    with pytest.raises(LevelError):
        systems.build("show_attend_tell", LEVELS[:1])


def test_the_same_seed_says_the_same() -> None:
    first, again, other = (
        systems.build("show_attend_tell", LEVELS, seed=s, attention="hard")(*inputs()) for s in (0, 0, 1)
    )
    assert first.outputs["words"].words == again.outputs["words"].words
    assert torch.equal(first.outputs["words"].places, again.outputs["words"].places)
    assert not torch.equal(first.fused.tensor, other.fused.tensor)
