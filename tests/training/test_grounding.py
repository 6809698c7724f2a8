"""Phrases for training mean what they should, figures are right, and a system really learns to point."""

import random
from collections import Counter
from dataclasses import replace

import pytest
import torch

from fusionviz import scenes, systems
from fusionviz.backbones import Backbone
from fusionviz.systems._phrases import Met
from fusionviz.training import grounding
from fusionviz.training.data import TEST, TRAIN
from fusionviz.training.grounding import NAMES, WORDS, Asked, Score
from fusionviz.training.rebuild import open_shipped

LEVELS = ("s4", "s8", "s16", "s32")
LOOKS = scenes.batch(range(TRAIN, TRAIN + 40), 32).looks


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return open_shipped("scene_resnet")


@pytest.fixture(scope="module")
def asked(backbone: Backbone) -> Asked:
    return grounding.ask(backbone, LEVELS, TRAIN, 16, phrases=6)


def small(asked: Asked, count: int) -> Asked:
    maps = {name: v[:count] for name, v in asked.maps.items()}
    others = (getattr(asked, name)[:count] for name in ("pictures", "instances", "phrases", "needs", "looks", "meant"))
    return Asked(maps, *others)


# --- phrases -------------------------------------------------------------------------------------
def test_the_kinds_of_words_are_the_vocabulary() -> None:
    assert {"the", *(word for of in WORDS.values() for word in of)} == set(scenes.VOCABULARY)


def test_invented_phrases_mean_something_now_one_thing_now_several() -> None:
    draw = random.Random(0)
    phrases = [(grounding.invent(looks, draw), looks) for looks in LOOKS for _ in range(25)]
    counts = [len(scenes.meant(phrase, looks)) for phrase, looks in phrases]
    assert min(counts) == 1
    assert 0.05 < sum(n > 1 for n in counts) / len(counts) < 0.6
    said = {word for phrase, _ in phrases for word in phrase.split()}
    assert said == set(scenes.VOCABULARY)
    assert {1, 2, 3, 4} <= {len(phrase.split()) for phrase, _ in phrases}


def test_absent_phrases_mean_nothing() -> None:
    draw = random.Random(0)
    phrases = [(grounding.invent_absent(looks, draw), looks) for looks in LOOKS for _ in range(5)]
    assert not any(scenes.meant(phrase, looks) for phrase, looks in phrases)


def test_a_word_is_needed_where_the_phrase_means_something_else_without_it() -> None:
    ball = scenes.Look("ball", "red", "plain", 10.0, 20.0, 20.0)
    looks = (ball, replace(ball, colour="blue", x=60.0), replace(ball, kind="tent", height=50.0, y=90.0))
    for phrase, kinds in (
        ("the red ball", {"colour", "kind"}),  # there are a blue ball and a red tent
        ("the small red ball", {"colour"}),  # the tent is told by its size as well as by its kind
        ("the blue ball", {"colour"}),
        ("the leftmost plain ball", {"extreme", "kind"}),
        ("the lowest", {"extreme"}),
        ("the tent", {"kind"}),
        ("the", set()),
    ):
        assert grounding.needed(phrase, looks) == kinds, phrase


def test_masks_are_the_pixels_of_what_is_meant(asked: Asked) -> None:
    made = scenes.batch(range(TRAIN, TRAIN + 16))
    assert torch.equal(asked.pictures, made.pictures)
    empty = 0
    for n, (phrases, looks) in enumerate(zip(asked.phrases, made.looks, strict=True)):
        assert phrases[: len(looks)] == made.phrases[n]
        assert len(phrases) == len(looks) + 6
        for k, phrase in enumerate(phrases):
            wanted = torch.zeros(128, 128, dtype=torch.bool)
            for thing in scenes.meant(phrase, looks):
                wanted |= made.instances[n] == thing + 1
            assert torch.equal(asked.masks(torch.tensor([n]), [k])[0], wanted)
            empty += not wanted.any()
    assert empty  # phrases that mean nothing are asked too


def test_the_same_scenes_are_asked_the_same(backbone: Backbone, asked: Asked) -> None:
    again = grounding.ask(backbone, LEVELS, TRAIN + 4, 2, phrases=6)
    assert again.phrases == asked.phrases[4:6]


# --- figures -------------------------------------------------------------------------------------
def rows(*spans: tuple[int, int]) -> torch.Tensor:
    """Masks [b 8 8] of whole rows."""
    masks = torch.zeros(len(spans), 8, 8, dtype=torch.bool)
    for mask, (first, last) in zip(masks, spans, strict=True):
        mask[first:last] = True
    return masks


def test_figures_worked_by_hand() -> None:
    score = Score()
    needs = [{"size", "kind"}, {"colour", "kind"}, {"extreme", "texture"}, {"kind"}, {"colour"}]
    mask = rows((0, 2), (0, 4), (4, 6), (0, 0), (0, 0))
    lit = rows((0, 2), (0, 1), (0, 2), (0, 0), (7, 8))  # IoU 1, 1/4, 0; silent; not silent
    score.add([frozenset(kinds) for kinds in needs], lit, mask)
    assert score.read() == {
        "iou": 41.67,
        "found": 33.33,
        "size": 100.0,
        "extreme": 0.0,
        "colour": 25.0,
        "texture": 0.0,
        "kind": 62.5,
        "silent": 50.0,
    }


class Told(systems.System):
    """Knows what is meant, or lights up everything."""

    takes_levels = LEVELS

    def setup(self, logits: torch.Tensor) -> None:
        self.logits = logits

    def answer(self, *_: object) -> Met:
        return Met(self.logits, self.logits)


def test_who_knows_has_all_of_it_and_who_lights_up_everything_the_share_of_it(asked: Asked, backbone: Backbone) -> None:
    few = small(asked, 8)
    pairs = [(n, k) for n in range(8) for k in range(len(few.phrases[n]))]
    mask = few.masks(torch.tensor([n for n, _ in pairs]), [k for _, k in pairs]).unsqueeze(1).float()
    knows, floods = (Told(backbone.info.levels, logits=v) for v in (20 * mask - 10, torch.ones_like(mask)))
    assert grounding.score(knows, backbone, few) == dict.fromkeys(NAMES, 100.0)
    flooded, shares = grounding.score(floods, backbone, few), mask.mean((1, 2, 3))
    assert flooded["iou"] == pytest.approx(100 * float(shares[shares > 0].mean()), abs=0.01)
    assert flooded["silent"] == 0


def test_the_loss_counts_a_small_thing_as_much_as_a_large_one() -> None:
    mask = rows((0, 1), (0, 6))
    right = (20.0 * mask - 10).unsqueeze(1)
    assert float(grounding.difference(right, mask)) < 1e-3
    silent = torch.full_like(right, -10.0)
    lost = [float(grounding.difference(silent[k : k + 1], mask[k : k + 1])) for k in (0, 1)]
    assert all(value > 1 for value in lost)  # Dice has nothing of either
    wrong = [grounding.difference(silent[k : k + 1], mask[k : k + 1]) - 10 * mask[k].float().mean() for k in (0, 1)]
    assert float(wrong[0]) == pytest.approx(float(wrong[1]), abs=1e-2)


def test_a_phrase_that_means_nothing_asks_for_silence() -> None:
    nothing = rows((0, 0))
    quiet, loud = (float(grounding.difference(torch.full((1, 1, 4, 4), v), nothing)) for v in (-8.0, 8.0))
    assert quiet < 1e-3 < 1 < loud


# --- learning ------------------------------------------------------------------------------------
def test_the_same_seed_gives_the_same_weights(asked: Asked, backbone: Backbone) -> None:
    fitted = []
    for seed in (0, 0, 1):
        module = systems.build("film", backbone.info.levels)
        losses = grounding.fit(module, backbone, small(asked, 4), steps=2, seed=seed)
        fitted.append((losses, module.state_dict()))
    (first, a), (second, b), (other, _) = fitted
    assert first == second
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert other != first


def test_a_callback_may_end_a_fit(asked: Asked, backbone: Backbone) -> None:
    module = systems.build("gmu", backbone.info.levels)
    losses = grounding.fit(module, backbone, small(asked, 2), steps=9, callback=lambda now: now.step == 2)
    assert len(losses) == 2
    assert not module.training


@pytest.mark.parametrize("key", ["film", "gmu", "phrase_concat", "phrase_product"])
def test_it_learns_to_point(key: str, backbone: Backbone) -> None:
    module = systems.build(key, backbone.info.levels)
    train, test = (grounding.ask(backbone, LEVELS, *of, phrases=2, size=64) for of in ((TRAIN, 48), (TEST, 16)))
    before = grounding.score(module, backbone, test)
    losses = grounding.fit(module, backbone, train, steps=80)
    after = grounding.score(module, backbone, test)
    assert tuple(after) == NAMES
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    assert after["iou"] > 1.5 * before["iou"]


def test_a_run_gives_numbers_as_they_ship_and_their_figures(backbone: Backbone) -> None:
    budget = grounding.QUICK
    train = grounding.ask(backbone, LEVELS, TRAIN, budget.scenes, phrases=budget.phrases, size=64)
    test = grounding.ask(backbone, LEVELS, TEST, budget.test_scenes, phrases=budget.test_phrases, size=64)
    module = systems.build("film", backbone.info.levels)
    figures, _ = grounding.run(module, backbone, (train, test), budget=budget)
    assert figures == pytest.approx(grounding.score(module, backbone, test), nan_ok=True)
    assert all(torch.equal(p, p.half().float()) for p in module.parameters())


def test_things_are_told_by_what_they_are(backbone: Backbone) -> None:
    asked = grounding.ask(backbone, LEVELS, TRAIN, 3, phrases=1, size=64)
    sizes = [len(words) for words in grounding.LOOKS.values()]
    places = asked.instances[:, ::4, ::4].long()  # the places of 16 x 16 cells
    right = torch.full((3, sum(sizes), 16, 16), -20.0)
    start = 0
    for k, count in enumerate(sizes):
        word = asked.looks[torch.arange(3).view(-1, 1, 1), places][..., k]
        right[:, start : start + count].scatter_(1, word.clamp_min(0).unsqueeze(1), 20.0)
        start += count
    chosen = torch.arange(3)
    assert grounding.untold(right, asked, chosen) < 1e-3
    assert grounding.untold(-right, asked, chosen) > 50
    assert (asked.looks[:, 0] == -1).all()  # the background is nothing that has a look


def test_hard_phrases_are_asked_more_often() -> None:
    needs = (frozenset(), frozenset({"kind"}), frozenset({"colour"}), frozenset({"colour", "kind"}))
    assert Counter(grounding._often(needs)) == {0: 1, 1: 1, 2: grounding.OFTEN, 3: grounding.OFTEN}
