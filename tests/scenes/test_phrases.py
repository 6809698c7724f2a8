"""Phrases name one thing each, in words of one vocabulary, in both languages."""

import itertools
import re

import pytest

from fusionviz import scenes, texts
from fusionviz.errors import ParameterError
from fusionviz.scenes import CLASSES, VOCABULARY, Look, meant, phrase_text, plan, words_of
from fusionviz.scenes.colours import COLOURS
from fusionviz.scenes.phrases import EXTREMES, SIZES, describe

RED = Look("ball", "red", "plain", 10.0, 20.0, 20.0)


def look(**changes: object) -> Look:
    return Look(**{**vars(RED), **changes})


def looks_of(seed: int) -> tuple[Look, ...]:
    return tuple(Look(t.kind, t.colour, t.texture, t.height, t.x, t.y) for t in plan.plan(seed).things)


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("the small red ball", (0, 3)),
        ("the large striped ball", (1,)),
        ("the blue ball", (1,)),
        ("the ball", (0, 1, 3)),
        ("the tent", (2,)),
        ("the largest ball", (1,)),
        ("the smallest ball", (3,)),
        ("the smallest red ball", (3,)),
        ("the leftmost ball", (0,)),
        ("the rightmost red ball", (3,)),
        ("the highest ball", (0,)),
        ("the lowest ball", (3,)),
        ("the green ball", ()),
        ("the largest green ball", ()),
        ("the medium tent", (2,)),
    ],
)
def test_a_phrase_means_what_its_words_say(phrase: str, expected: tuple[int, ...]) -> None:
    things = (
        RED,
        look(colour="blue", texture="striped", height=50.0, x=60.0, y=60.0),
        look(kind="tent", height=30.0, x=90.0),
        look(height=7.0, x=100.0, y=100.0),
    )
    assert meant(phrase, things) == expected


def test_superlatives_need_a_difference_that_an_eye_sees() -> None:
    pair = (look(height=10.0, x=20.0), look(height=10.5, x=23.0))
    for word in EXTREMES:
        assert meant(f"the {word} ball", pair) == (0, 1)


@pytest.mark.parametrize(("height", "size"), [(6.0, "small"), (15.9, "small"), (16.0, "medium"), (40.0, "large")])
def test_sizes_have_three_bands(height: float, size: str) -> None:
    assert look(height=height).size == size


def test_a_word_outside_the_vocabulary_is_a_mistake() -> None:
    with pytest.raises(ParameterError, match="the word 'shiny'"):
        meant("the shiny ball", [RED])


def test_the_order_of_adjectives_changes_nothing() -> None:
    for seed in range(40):
        scene = looks_of(seed)
        for thing in scene:
            words = (thing.size, thing.colour, thing.texture, thing.kind)
            found = {meant(" ".join(order), scene) for order in itertools.permutations(words)}
            assert len(found) == 1
            assert found.pop()


def test_words_come_apart_at_spaces_and_are_all_known() -> None:
    assert words_of(" the  small ball ") == ("the", "small", "ball")
    assert words_of("") == ()
    with pytest.raises(ParameterError, match="beachball"):  # it says which there are
        words_of("the ball?")


def test_colour_or_texture_comes_first_by_draw() -> None:
    things = (look(texture="dotted"),)
    assert describe(things, [0.2]) == ("the small dotted ball",)
    assert describe(things, [0.7]) == ("the small red ball",)


def test_a_phrase_says_more_where_less_would_be_ambiguous() -> None:
    striped = look(texture="striped", x=90.0)
    assert describe((RED, striped), [0.9, 0.9]) == ("the small red plain ball", "the small striped ball")
    bigger = look(height=14.0, x=90.0)
    assert describe((RED, bigger), [0.9, 0.9]) == ("the smallest ball", "the largest ball")
    right = look(x=90.0)
    assert describe((RED, right), [0.9, 0.9]) == ("the leftmost ball", "the rightmost ball")


def test_twins_get_the_fullest_words_there_are() -> None:
    assert describe((RED, RED), [0.9, 0.9]) == ("the small red plain ball",) * 2


def test_phrases_of_scenes_name_one_thing_each() -> None:
    total = unique = 0
    for seed in range(250):
        scene = looks_of(seed)
        for k, phrase in enumerate(describe(scene, ([0.3, 0.8] * 5)[: len(scene)])):
            found = meant(phrase, scene)
            assert k in found
            unique += found == (k,)
            total += 1
    assert unique / total > 0.995


def test_the_phrases_of_a_scene_fit_its_looks() -> None:
    for seed in range(20):
        scene = scenes.scene(seed, 32)
        for k, (phrase, thing) in enumerate(zip(scene.phrases, scene.looks, strict=True)):
            words = phrase.split()
            assert words[0] == "the"
            assert words[-1] == thing.kind == CLASSES[scene.labels[k]]
            assert meant(phrase, scene.looks) == (k,)


def test_every_word_is_used_and_none_twice() -> None:
    assert len(set(VOCABULARY)) == len(VOCABULARY)
    used = set()
    for seed in range(400):
        scene = looks_of(seed)
        used |= {word for phrase in describe(scene, [seed % 2] * len(scene)) for word in phrase.split()}
    assert used <= set(VOCABULARY)
    assert set(VOCABULARY) - used <= {
        "leftmost",
        "rightmost",
        "highest",
        "lowest",
        plan.FINE_TEXTURE,
    }  # needed by rare scenes only
    assert set(SIZES) | set(COLOURS) < used


@pytest.mark.parametrize("language", texts.LANGUAGES)
def test_every_word_and_class_has_its_text(language: str) -> None:
    assert set(texts.locale(language)["scenes"]["words"]) == set(VOCABULARY)
    assert set(texts.locale(language)["scenes"]["classes"]) == set(CLASSES)


def test_phrases_read_well_in_both_languages() -> None:
    for phrase in scenes.scene(3, 32).phrases:
        assert phrase_text(phrase) == phrase
        assert re.fullmatch(r"[\u4e00-\u9fff]+", phrase_text(phrase, "zh"))
    assert phrase_text("the small striped ball", "zh") == "小的条纹球"
