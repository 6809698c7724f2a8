"""What holds for every system that takes a phrase: what it gives, refuses, and what plays no part."""

import re
from dataclasses import replace

import pytest
import torch
from _asking import KEYS, LEVELS, PHRASE, ask, build, view
from matplotlib.mathtext import MathTextParser

from fusionviz import systems, texts
from fusionviz.errors import LevelError, ParameterError
from fusionviz.registry import write
from fusionviz.scenes import VOCABULARY
from fusionviz.systems._phrases import coordinates, numbers
from fusionviz.trace import NullTrace

each = pytest.mark.parametrize("key", KEYS)
each_language = pytest.mark.parametrize("language", texts.LANGUAGES)


def variants(key: str) -> list[systems.System]:
    """The system as it is, and with every choice of its knobs."""
    choices = [{p.key: choice} for p in systems.spec(key).params for choice in p.choices]
    return [build(key, **choice) for choice in [{}, *choices]]


@each
@pytest.mark.parametrize("size", [(64, 64), (70, 51)])
def test_it_answers_with_a_probability_for_every_place(key: str, size: tuple[int, int]) -> None:
    result = ask(build(key), count=2, size=size)
    h, w = (-(-n // 4) for n in size)
    answer, fused = result.outputs["answer"], result.outputs["fused"]
    assert answer.tensor.shape == (2, 1, 2 * h, 2 * w)
    assert bool(((answer.tensor > 0) & (answer.tensor < 1)).all())
    assert (answer.stride, answer.offset) == ((2.0, 2.0), (1.0, 1.0))
    assert fused.tensor.shape[-2:] == ((2 * h, 2 * w) if key == "phrase_product" else (h, w))
    assert fused.stride == ((2.0, 2.0) if key == "phrase_product" else (4.0, 4.0))
    for weight in result.attention.values():
        weight.check()
        assert bool(weight.tensor.isfinite().all())
        assert (weight.stride == fused.stride) if "w" in weight.axes.split() else weight.stride is None


@each
def test_the_trace_is_closed_and_its_last_fused_step_is_what_is_shown(key: str) -> None:
    result = ask(build(key))
    known: set[str] = set()
    for step in result.trace:
        assert set(step.inputs) <= known
        known.add(step.key)
    used = {name for step in result.trace for name in step.inputs}
    assert known - used == {"answer"}
    assert [s for s in result.trace if s.role == "fused"][-1].tensor is result.fused.tensor
    assert sum(s.parameters for s in result.trace) == sum(p.numel() for p in build(key).parameters())


@each
def test_the_picture_itself_is_looked_at(key: str) -> None:
    """The network behind the levels was trained to look past colour, and colours are words."""
    module, (picture, pyramid) = build(key), view()
    words = numbers([PHRASE])
    levels = [m.tensor for m in pyramid]
    with torch.no_grad():
        before, after = (module.answer(p, levels, words, NullTrace()).logits for p in (picture, picture.flip(1)))
    assert not torch.allclose(before, after)


@each
def test_same_seed_same_numbers_and_the_inputs_stay_as_they_were(key: str) -> None:
    picture, pyramid = view()
    kept = [picture.clone(), *(m.tensor.clone() for m in pyramid)]
    first, second, other = (ask(systems.build(key, LEVELS, seed=s)).outputs["answer"].tensor for s in (3, 3, 4))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    module = build(key)
    module.answer(picture, [m.tensor for m in pyramid], numbers([PHRASE]), NullTrace())
    assert all(torch.equal(a, b) for a, b in zip(kept, [picture, *(m.tensor for m in pyramid)], strict=True))
    assert module.provenance.kind == "random"


# --- phrases -------------------------------------------------------------------------------------
@each
@each_language
def test_an_unknown_word_is_answered_with_the_words_there_are(key: str, language: str) -> None:
    with pytest.raises(ParameterError) as caught:
        ask(build(key), "the shiny ring")
    text = caught.value.text(language)
    assert "shiny" in text
    assert all(word in text for word in VOCABULARY)


@each
@pytest.mark.parametrize("phrase", [None, "", "  "])
def test_no_phrase_is_answered_with_the_words_there_are(key: str, phrase: str | None) -> None:
    with pytest.raises(ParameterError) as caught:
        ask(build(key), phrase)
    for language in texts.LANGUAGES:
        assert all(word in caught.value.text(language) for word in VOCABULARY)


@each
def test_capitals_and_spaces_do_not_matter_but_words_do(key: str) -> None:
    module = build(key)
    plain, typed, other = (
        ask(module, p).outputs["answer"].tensor for p in (PHRASE, " The small  Blue RING", "the tree")
    )
    assert torch.equal(plain, typed)
    assert not torch.allclose(plain, other)


def test_phrases_are_padded_behind_their_last_word() -> None:
    rows = numbers(["ball", PHRASE])
    assert rows.tolist() == [
        [1 + VOCABULARY.index("ball"), 0, 0, 0],
        [1 + VOCABULARY.index(word) for word in PHRASE.split()],
    ]


@each
def test_many_at_once_give_what_each_gives_alone(key: str) -> None:
    """Pictures, phrases of different lengths, and so padding: none touches another's answer."""
    module, phrases = build(key), ("ball", PHRASE, "the leftmost red striped house")
    picture, pyramid = view(count=3)
    with torch.no_grad():
        many = module.answer(picture, [m.tensor for m in pyramid], numbers(phrases), NullTrace()).logits
        for i, phrase in enumerate(phrases):
            levels = [m.tensor[i : i + 1] for m in pyramid]
            alone = module.answer(picture[i : i + 1], levels, numbers([phrase]), NullTrace()).logits
            torch.testing.assert_close(many[i : i + 1], alone, atol=1e-5, rtol=1e-4)


def test_the_order_of_words_reaches_the_vector() -> None:
    module = build("film")
    a, b = (module.reading(numbers([p]), NullTrace()) for p in ("smallest leftmost ball", "leftmost smallest ball"))
    assert not torch.allclose(a, b)


# --- learning ------------------------------------------------------------------------------------
@each
def test_every_parameter_gets_a_gradient(key: str) -> None:
    module = build(key).train()
    picture, pyramid = view(count=3)
    words = numbers(["ball", PHRASE, "the leftmost red striped house"])
    met = module.answer(picture, [m.tensor for m in pyramid], words, NullTrace())
    (met.logits * torch.randn(met.logits.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
        assert bool(parameter.grad.any()), name


@each
def test_it_is_small_enough_to_ship(key: str) -> None:
    levels = tuple(replace(v, channels=c) for v, c in zip(LEVELS, (32, 64, 96, 128), strict=True))  # of the network
    assert 2 * sum(p.numel() for p in systems.build(key, levels).parameters()) < 300_000  # bytes, at half precision


@each
def test_a_state_goes_out_and_comes_back(key: str) -> None:
    one, two = systems.build(key, LEVELS, seed=1), systems.build(key, LEVELS, seed=2)
    two.load_state_dict(one.state_dict())
    assert torch.equal(ask(one).outputs["answer"].tensor, ask(two).outputs["answer"].tensor)


@each
def test_a_network_without_the_levels_is_refused(key: str) -> None:
    with pytest.raises(LevelError, match="s32"):
        systems.build(key, LEVELS[:3])


# --- places --------------------------------------------------------------------------------------
def test_places_run_from_left_to_right_and_from_top_to_bottom() -> None:
    x, y = coordinates((2, 4), torch.zeros(1))[0]
    assert x.tolist() == [[-0.75, -0.25, 0.25, 0.75]] * 2
    assert y.tolist() == [[-0.5] * 4, [0.5] * 4]


@each
def test_far_away_things_are_compared_with(key: str) -> None:
    """A superlative needs all places: a change in one corner reaches the opposite one."""
    module = build(key)
    picture, pyramid = view(size=(128, 128))
    levels = [m.tensor for m in pyramid]
    changed = [levels[0].clone(), *levels[1:]]
    changed[0][..., :3, :3] += 20
    with torch.no_grad():
        corners = [
            module.answer(picture, v, numbers([PHRASE]), NullTrace()).logits[..., -4:, -4:] for v in (levels, changed)
        ]
    assert not torch.allclose(*corners)


# --- words ---------------------------------------------------------------------------------------
@each
@each_language
def test_every_knob_step_and_weight_has_its_words(key: str, language: str) -> None:
    spec = systems.spec(key)
    for param in spec.params:
        assert 1 <= len(texts.method_text(key, f"params.{param.key}.label", language)) <= 20
        assert texts.method_text(key, f"params.{param.key}.help", language).endswith((".", "。"))
        for choice in param.choices:
            assert texts.method_text(key, f"params.{param.key}.choices.{write(choice)}", language)
    for result in map(ask, variants(key)):
        for op in {step.op for step in result.trace}:
            assert len(texts.method_text(key, f"steps.{op}", language)) <= 24
        for weight in result.attention.values():
            of = texts.text(f"attention.of.{weight.of}", language)
            assert of in texts.text(f"attention.{weight.role}", language, of=of)
            assert texts.text(f"attention.note.{weight.role}", language)
            assert texts.text(f"attention.sums.{weight.sums}", language)


@each
def test_formulas_are_set_by_mathtext_and_katex(key: str) -> None:
    parser = MathTextParser("path")
    steps = [step.formula for module in variants(key) for step in ask(module).trace]
    for formula in (systems.spec(key).equation, *filter(None, steps)):
        parser.parse(f"${formula}$")
        assert formula.isascii(), formula
        assert not re.search(r"[_^]\s*[XYZ]", formula), f"{formula}: a coloured letter behind _ or ^ needs braces"


@each
def test_a_lesson_has_no_words_for_knobs_choices_or_steps_that_do_not_exist(key: str) -> None:
    front, spec = texts.lesson(key).front, systems.spec(key)
    for name, own in front.get("params", {}).items():
        assert set(own.get("choices", {})) <= {write(c) for c in spec.param(name).choices}
    assert set(front.get("steps", {})) <= {step.op for step in ask(build(key)).trace}


@each
@each_language
def test_a_lesson_has_its_six_sections_and_its_source(key: str, language: str) -> None:
    body = texts.lesson(key, language).body
    heads = [line[3:] for line in body.splitlines() if line.startswith("## ")]
    wanted = {
        "en": ["Idea", "Equation", "Knobs", "What to look at", "In the literature", "Source"],
        "zh": ["思路", "公式", "旋钮", "看什么", "文献中的结果", "来源"],
    }
    assert heads == wanted[language]
    assert systems.spec(key).link in body.split("## ")[-1]
