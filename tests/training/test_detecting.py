"""Training of detectors: boxes from labels, whose thing is whose, figures of predictions made by hand; it learns."""

import math

import pytest
import torch

from fusionviz import scenes, systems
from fusionviz.records import LevelInfo
from fusionviz.training import detecting
from fusionviz.training.data import TRAIN, draw
from fusionviz.training.detecting import IGNORED, NOTHING, Things, assign, average_precision, tally

INFOS = tuple(LevelInfo(f"s{s}", 4, (s, s), (s / 2, s / 2), i) for i, s in enumerate((4, 8, 16, 32)))


def detection(box: tuple[float, ...], score: float, label: int, level: int = 0) -> list[float]:
    return [*box, score, label, level]


def test_things_are_those_of_the_scenes() -> None:
    seeds = range(TRAIN, TRAIN + 6)
    things, made = Things.of(draw(TRAIN, 6)), scenes.batch(seeds)
    for boxes, labels, wanted, kinds in zip(things.boxes, things.labels, made.boxes, made.labels, strict=True):
        assert torch.equal(boxes[labels > 0], wanted)
        assert tuple(labels[labels > 0].tolist()) == kinds


def test_sizes_are_the_scenes_bands() -> None:
    boxes = torch.tensor([[0.0, 0, 50, 15.9], [0, 0, 5, 16], [0, 0, 5, 39], [0, 0, 5, 40]])
    assert detecting.sizes(boxes, 128).tolist() == [0, 1, 1, 2]
    assert detecting.sizes(boxes, 256).tolist() == [0, 0, 1, 1]


# --- whose thing is whose -------------------------------------------------------------------------
SMALL, LARGE = torch.tensor([[0.0, 0, 8, 8], [20, 20, 28, 28]]), torch.tensor([[0.0, 0, 16, 16], [64, 64, 80, 80]])


def test_a_thing_belongs_to_the_boxes_that_it_covers_and_to_its_best_one() -> None:
    things = torch.tensor([[0.0, 0, 9, 9], [66, 66, 70, 70]])  # the second covers none by half
    assert assign(things, (SMALL, LARGE)).tolist() == [0, NOTHING, NOTHING, 1]
    assert assign(torch.zeros(0, 4), (SMALL, LARGE)).tolist() == [NOTHING] * 4


def test_a_branch_owns_the_sizes_that_its_default_boxes_have() -> None:
    sides = torch.tensor([4.0, 8, 11.3, 13.4, 13.5, 16, 22.6, 32, 64, 90, 300])
    boxes = torch.stack((torch.zeros(11), torch.zeros(11), sides, sides), 1)
    assert detecting.owned_by(boxes, 4).tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 3, 3, 3]


def test_an_owned_thing_is_taught_to_its_branch_alone() -> None:
    thing = torch.tensor([[0.0, 0, 12, 12]])  # of side 12: the fine branch's, though it covers a box of each by half
    coarse = torch.tensor([[0.0, 0, 13, 13], [64, 64, 80, 80]])
    fine = torch.tensor([[0.0, 0, 11, 11], [20, 20, 28, 28]])
    assert assign(thing, (fine, coarse)).tolist() == [0, NOTHING, 0, NOTHING]
    assert assign(thing, (fine, coarse), owned=True).tolist() == [0, NOTHING, IGNORED, NOTHING]
    other = torch.tensor([[0.0, 0, 16, 16]])  # the coarse branch's, even where only the fine one covers it
    assert assign(other, (torch.tensor([[0.0, 0, 16, 15]]), coarse), owned=True).tolist() == [IGNORED, 0, NOTHING]


def test_the_hardest_three_for_each_box_with_a_thing_are_learned_from() -> None:
    """By hand: two classes, equal scores but for one surely wrong box; codes are right."""
    things = Things(torch.tensor([[[0.0, 0, 8, 8]]]), torch.tensor([[1]]), 32)
    defaults = torch.tensor([[0.0, 0, 8, 8]] * 6)
    classes = torch.zeros(1, 6, 2)
    classes[0, 5] = torch.tensor([0.0, 4.0])
    match = torch.tensor([[0, NOTHING, NOTHING, NOTHING, IGNORED, NOTHING]])
    value = detecting.loss(classes, torch.zeros(1, 6, 4), defaults, match, things)
    assert float(value) == pytest.approx(math.log(2) + math.log(1 + math.e**4) + 2 * math.log(2))
    match[0, 5] = IGNORED
    assert float(detecting.loss(classes, torch.zeros(1, 6, 4), defaults, match, things)) == pytest.approx(
        4 * math.log(2)
    )
    moved = torch.zeros(1, 6, 4)
    moved[0, 0, 0] = 3.0
    assert float(detecting.loss(classes, moved, defaults, match, things)) == pytest.approx(4 * math.log(2) + 2.5)


def test_the_joint_loss_is_linear_in_its_weights() -> None:
    parts = [torch.tensor(v) for v in (1.0, 2.0, 4.0, 8.0)]
    assert float(detecting.weighted(parts, (1, 0, 0, 0))) == 1
    assert float(detecting.weighted(parts, (0.5, 1, 0, 0.25))) == 4.5
    assert float(detecting.weighted(parts, (1, 2, 0, 0.5))) == 9


# --- figures --------------------------------------------------------------------------------------
def test_average_precision_by_hand() -> None:
    right = torch.tensor([True, False, True, False])
    # precision 1, 1/2, 2/3, 1/2; recall steps of 1/3 at the first and the third
    assert average_precision(torch.tensor([0.9, 0.8, 0.7, 0.6]), right, 3) == pytest.approx((1 + 2 / 3) / 3)
    # a later precision that is higher stands for the earlier recall too
    assert average_precision(torch.tensor([0.9, 0.8, 0.7]), torch.tensor([False, True, True]), 2) == pytest.approx(
        2 / 3
    )
    assert average_precision(torch.tensor([0.1, 0.9]), torch.tensor([True, False]), 1) == pytest.approx(1 / 2)
    assert average_precision(torch.zeros(0), torch.zeros(0, dtype=torch.bool), 2) == 0
    assert math.isnan(average_precision(torch.zeros(0), torch.zeros(0, dtype=torch.bool), 0))


def test_figures_of_predictions_made_by_hand() -> None:
    small, medium, large = (0.0, 0, 10, 10), (40.0, 40, 60, 70), (64.0, 0, 120, 60)
    things = Things(torch.tensor([[small, medium, large]]), torch.tensor([[1, 2, 2]]), 128)
    found = [
        torch.tensor(
            [
                detection((40, 40, 60, 68), 0.9, 2, 2),  # the medium one
                detection((41, 41, 60, 70), 0.8, 2, 1),  # the same again: wrong
                detection(small, 0.7, 2, 0),  # the small one, of the wrong class
                detection(large, 0.6, 2, 3),
                detection((0, 0, 10, 9), 0.3, 1, 0),  # the small one, but not sure enough to be shown
            ]
        )
    ]
    told = tally(found, things, shown=0.5)
    assert told.right.tolist() == [True, False, False, True, True]
    assert told.by.tolist() == [-1, 2, 3]
    figures = detecting.read(told)
    assert tuple(figures) == detecting.NAMES
    # class 1: 100; class 2: recall 1/2 at precision 1, then at 2/4
    assert figures["ap"] == pytest.approx(100 * (1 + (1 + 0.5) / 2) / 2)
    assert figures["recall"] == pytest.approx(66.67)
    assert figures["ap_small"] == 100  # of class 1 alone, which no wrong one has; the small wrong one is of class 2
    assert (figures["ap_medium"], figures["ap_large"]) == (100, 100)  # the copy of the medium one comes later
    assert (figures["recall_small"], figures["recall_medium"], figures["recall_large"]) == (0, 100, 100)
    levels = detecting.by_level(told)
    assert {name for name, value in levels.items() if value} == {"medium_s16", "large_s32"}
    assert sum(v for k, v in levels.items() if k.startswith("medium")) == figures["recall_medium"]


def test_perfect_and_empty_predictions() -> None:
    things = Things.of(draw(TRAIN, 4))
    perfect = [
        torch.cat((b[v > 0], torch.full((int((v > 0).sum()), 1), 0.9), v[v > 0, None], 0 * v[v > 0, None]), 1)
        for b, v in zip(things.boxes, things.labels, strict=True)
    ]
    figures = detecting.read(tally(perfect, things, 0.5))
    assert all(value == 100 for value in figures.values())
    figures = detecting.read(tally([torch.zeros(0, 7)] * 4, things, 0.5))
    assert all(value == 0 for value in figures.values())


# --- it learns ------------------------------------------------------------------------------------
def toy(count: int = 24) -> tuple[dict[str, torch.Tensor], Things]:
    """Squares of 12 and of 32 pixels on the grid; the level of their size sees them, the kind in two channels."""
    generator = torch.Generator().manual_seed(3)
    maps = {}
    for info in INFOS:
        n = int(64 / info.stride[0])
        maps[info.name] = 0.1 * torch.randn(count, 4, n, n, generator=generator)
        maps[info.name][:, 3] += 1  # so that nothing has no direction
    boxes, labels = torch.zeros(count, 1, 4), torch.zeros(count, 1, dtype=torch.long)
    for n in range(count):
        large, kind = (int(v) for v in torch.randint(0, 2, (2,), generator=generator))
        y, x = (int(v) for v in torch.randint(1, 3, (2,), generator=generator))
        step, side = (16, 32) if large else (4, 12)
        boxes[n, 0] = torch.tensor([x * step, y * step, x * step + side, y * step + side])
        labels[n, 0] = 1 + kind
        name = "s16" if large else "s4"
        cells = slice(y, y + side // step), slice(x, x + side // step)
        maps[name][n, kind, cells[0], cells[1]] += 3
    return {name: m.half() for name, m in maps.items()}, Things(boxes, labels, 64)


@pytest.mark.parametrize("key", ["ssd", "mscnn", "fpn_detector"])
def test_it_learns_and_the_same_seed_gives_the_same_numbers(key: str) -> None:
    maps, things = toy()
    module, again = systems.build(key, INFOS), systems.build(key, INFOS)
    before = detecting.score(module, maps, things)
    losses = detecting.fit(module, maps, things, steps=40, lr=1e-2)
    after = detecting.score(module, maps, things)
    assert losses[-1] < 0.5 * losses[0]
    assert after["ap"] > before["ap"] + 40
    assert not module.training
    assert detecting.fit(again, maps, things, steps=3, lr=1e-2, callback=lambda now: now.step == 2)[:1] == losses[:1]
    repeat = systems.build(key, INFOS)
    detecting.fit(repeat, maps, things, steps=40, lr=1e-2)
    for mine, other in zip(module.parameters(), repeat.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_a_level_that_is_off_finds_nothing_in_the_figures_either() -> None:
    maps, things = toy(8)
    module = systems.build("ssd", INFOS, s4=False, s8=False, s32=False)
    found = detecting.detect(module, maps, 64)
    assert {int(v) for rows in found for v in rows[:, 6]} == {2}
