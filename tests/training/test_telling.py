"""Learning to describe: what should be said, how sentences are counted, and that a small network learns to say it."""

import math

import pytest
import torch

from fusionviz import scenes, systems
from fusionviz.records import LevelInfo
from fusionviz.systems.show_attend_tell import END, LONGEST, WORDS
from fusionviz.training import telling
from fusionviz.training.data import TEST
from fusionviz.training.rebuild import open_shipped
from fusionviz.training.telling import Budget, Tellings

LEVELS = (LevelInfo("s8", 4, (8.0, 8.0), (0.5, 0.5), 1), LevelInfo("s16", 4, (16.0, 16.0), (0.5, 0.5), 2))
RED, BLUE, BALL, TREE = (WORDS.index(word) for word in ("red", "blue", "ball", "tree"))
PAINT = {RED: (230, 20, 20), BLUE: (20, 20, 230)}


def toy(count: int, seed: int) -> Tellings:
    """Two things side by side: the picture knows their colours and nothing else does, s8 knows their kinds."""
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.full((count, 3, 32, 32), 128, dtype=torch.uint8)
    low, high = torch.zeros(count, 4, 4, 4), torch.zeros(count, 4, 2, 2)
    words, named = torch.full((count, LONGEST), END), torch.full((count, 2, 4, 4), END)
    for i in range(count):
        for place in (0, 1):
            colour, kind, row = (int(torch.randint(0, n, (), generator=generator)) for n in (2, 2, 4))
            column = 3 * place
            words[i, 2 * place], words[i, 2 * place + 1] = (RED, BLUE)[colour], (BALL, TREE)[kind]
            named[i, :, row, column] = words[i, 2 * place : 2 * place + 2]
            paint = torch.tensor(PAINT[(RED, BLUE)[colour]], dtype=torch.uint8).view(3, 1, 1)
            pictures[i, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = paint
            low[i, kind, row, column], high[i, 2, row // 2, column // 2] = 2, 1
    return Tellings(pictures, {"s8": low.half(), "s16": high.half()}, words, named)


def build(**params: object):  # noqa: ANN201
    return systems.build("show_attend_tell", LEVELS, **params)


# --- what should be said -------------------------------------------------------------------------
def test_a_sentence_names_colour_and_kind_from_left_to_right_and_ends() -> None:
    looks = scenes.scene(4).looks
    said = telling.sentence(looks)
    assert len(said) == LONGEST
    words = [WORDS[w] for w in said[: said.index(END)]]
    across = sorted(looks, key=lambda v: v.x)
    assert words == [word for look in across for word in (look.colour, look.kind)]
    assert set(said[said.index(END) :]) == {END}


def test_the_longest_sentence_has_room_for_every_thing_of_a_scene() -> None:
    looks = tuple(scenes.Look("ball", "red", "plain", 9.0, float(x), 9.0) for x in range(9))
    said = telling.sentence(looks)
    assert (len(said), said.count(END)) == (LONGEST, 1)


def test_every_place_is_named_after_what_shows_most_of_itself_there() -> None:
    looks = tuple(
        scenes.Look(kind, colour, "plain", 2.0, 0.0, 0.0) for kind, colour in (("ball", "red"), ("tree", "blue"))
    )
    seen = torch.zeros(4, 8, dtype=torch.uint8)
    seen[0, 0] = 2  # a single pixel before the ground
    seen[2:, 4:6], seen[3, 4:7] = 1, 2  # two pixels of the first, three of the second
    named = telling.names(seen, looks, (2, 4))
    assert named.shape == (2, 2, 4)
    assert named[0].tolist() == [[BLUE, END, END, END], [END, END, RED, BLUE]]
    assert named[1].tolist() == [[TREE, END, END, END], [END, END, BALL, TREE]]


def test_names_of_places_are_right_where_kinds_are_and_colours_count_only_on_things() -> None:
    named = torch.full((1, 2, 1, 2), END)
    named[0, :, 0, 0] = torch.tensor([RED, BALL])
    scores = torch.zeros(1, len(WORDS), 1, 2)
    kinds, colours = len(WORDS) - len(telling.COLOURS), len(telling.COLOURS)
    assert float(telling.misnamed(scores, named)) == pytest.approx(math.log(kinds) + math.log(colours))
    scores[0, BALL, 0, 0] = scores[0, END, 0, 1] = scores[0, RED, 0, 0] = 50
    assert float(telling.misnamed(scores, named)) == pytest.approx(0, abs=1e-5)
    scores[0, BLUE, 0, 1] = 90  # a colour where nothing is: nobody asked
    assert float(telling.misnamed(scores, named)) == pytest.approx(0, abs=1e-5)
    nothing = telling.misnamed(torch.zeros(1, len(WORDS), 1, 2), torch.full((1, 2, 1, 2), END))
    assert float(nothing) == pytest.approx(math.log(kinds))


def test_words_are_counted_up_to_the_first_end() -> None:
    words = torch.tensor([[RED, BALL, END, END], [END] * 4, [RED, BALL, RED, BALL]])
    assert telling.lengths(words).tolist() == [3, 1, 4]


# --- figures -------------------------------------------------------------------------------------
def test_pairs_are_colours_with_the_kind_right_behind() -> None:
    assert telling.pairs([RED, BALL, BLUE, TREE, END, RED, TREE]) == [(RED, BALL), (BLUE, TREE)]
    assert telling.pairs([RED, BLUE, TREE, TREE]) == [(BLUE, TREE)]
    assert telling.pairs([END]) == []


def test_each_name_counts_for_one_thing() -> None:
    true = [[RED, BALL, RED, BALL, BLUE, TREE, END], [BLUE, BALL, END, END, END, END, END]]
    said = [[RED, BALL, BLUE, BALL, RED, TREE, END], [BLUE, BALL, BLUE, BALL, END, END, END]]
    told = telling.figures(said, true)
    # 4 things: one red ball and one blue ball are found. All colours of the first are right, kinds too.
    assert told == {"described": 50.0, "colours": 100.0, "kinds": 100.0, "right": 40.0}
    assert telling.figures(true, true) == {"described": 100.0, "colours": 100.0, "kinds": 100.0, "right": 100.0}
    assert telling.figures([[END]], [[RED, BALL, END]])["described"] == 0


def test_the_order_of_a_sentence_is_no_mistake_of_its_names() -> None:
    told = telling.figures([[BLUE, TREE, RED, BALL, END]], [[RED, BALL, BLUE, TREE, END]])
    assert told["described"] == told["right"] == 100


def test_what_is_described_is_also_told_by_the_number_of_things() -> None:
    true = [[RED, BALL, END, END], [BLUE, TREE, RED, TREE], [BLUE, BALL, RED, BALL]]
    said = [[RED, BALL, END, END], [BLUE, TREE, END, END], [END, END, END, END]]
    assert telling.by_number(said, true) == {"described_1": 100.0, "described_2": 25.0}


# --- learning ------------------------------------------------------------------------------------
def test_it_learns_to_name_what_it_never_saw() -> None:
    train, test = toy(256, 0), toy(64, 1)
    module = build()
    before = telling.score(module, test)
    losses = telling.fit(module, train, Budget(steps=160, batch=16, lr=8e-3))
    after = telling.score(module, test)
    assert losses[-1] < 0.5 * losses[0]
    assert before["described"] < 30  # of four names
    assert after["described"] > 70
    assert after["right"] > 70


def test_the_same_seed_learns_the_same_and_the_knob_doubly_changes_the_loss() -> None:
    train, short = toy(32, 0), Budget(steps=2, batch=8)
    one, same, other = (telling.fit(build(), train, short, seed=s) for s in (0, 0, 1))
    assert one == same
    assert one != other
    free = telling.fit(build(doubly=False), train, short)
    assert 0 < one[0] - free[0] <= 1  # the first step differs by the regulariser alone, a mean of squares


def test_a_callback_ends_a_fit() -> None:
    seen = []
    telling.fit(build(), toy(16, 0), Budget(steps=9, batch=8), callback=lambda now: seen.append(now) or now.step == 2)
    assert [now.step for now in seen] == [1, 2]


def test_drawn_scenes_come_with_the_maps_of_their_backbone_and_their_sentences() -> None:
    told = telling.draw(open_shipped("scene_resnet"), TEST, 2, 64)
    assert {name: tuple(v.shape) for name, v in told.maps.items()} == {"s8": (2, 64, 8, 8), "s16": (2, 96, 4, 4)}
    assert told.pictures.shape == (2, 3, 64, 64)
    assert told.named.shape == (2, 2, 8, 8)
    for i, words in enumerate(told.words.tolist()):
        assert set(told.named[i].flatten().tolist()) <= set(words)  # those of the scene's things, and END
        assert told.named[i].unique().numel() > 1
    assert told.words.tolist() == [telling.sentence(scenes.scene(TEST + i, 64).looks) for i in range(2)]


def test_a_run_gives_what_ships_and_its_figures() -> None:
    net = open_shipped("scene_resnet")
    train, test = telling.draw(net, 0, 8), telling.draw(net, TEST, 3)
    module = systems.build("show_attend_tell", net.info.levels, seed=3)
    told, more = telling.run(module, net, (train, test), budget=telling.QUICK, seed=3)
    assert not module.training
    assert all(bool((p == p.half().float()).all()) for p in module.parameters())
    assert told == telling.score(module, test)
    assert set(told) == {"described", "colours", "kinds", "right"}
    assert set(more) == {f"described_{len(telling.pairs(words))}" for words in test.words.tolist()}
