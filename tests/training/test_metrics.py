"""Every figure worked by hand on pictures of a few pixels."""

import math

import pytest
import torch

from fusionviz.training import Score, metrics


def scene(rows: list[str]) -> torch.Tensor:
    """Return classes [1 h w] of rows of digits."""
    return torch.tensor([[[int(c) for c in row] for row in rows]])


def block(size: int, top: int, bottom: int, left: int, right: int, value: int = 1) -> torch.Tensor:
    out = torch.zeros(1, size, size, dtype=torch.uint8)
    out[:, top:bottom, left:right] = value
    return out


def test_miou_is_the_mean_over_the_classes_that_are_there() -> None:
    truth = scene(["0011", "0011"])
    prediction = scene(["0001", "0021"])
    score = Score(4)
    score.add(prediction, truth, (truth > 0).byte())
    figures = score.read()
    # Background: 4 of 5 pixels. Class 1: 2 of 4. Class 2 was predicted but is nowhere: it counts against class 1 only.
    assert figures["miou"] == pytest.approx(100 * (4 / 5 + 2 / 4) / 2, abs=0.01)
    # Things were called things at 3 pixels, and at 2 of them the right kind.
    assert figures["class_accuracy"] == pytest.approx(100 * 2 / 3, abs=0.01)


def test_a_perfect_prediction_is_100_everywhere() -> None:
    truth = block(128, 10, 20, 10, 20) + block(128, 40, 70, 40, 70, 2) + block(128, 80, 126, 2, 60, 3)
    score = Score(4)
    score.add(truth, truth, truth)
    assert score.read() == dict.fromkeys(metrics.NAMES, 100.0)


def test_what_is_not_there_is_no_number() -> None:
    truth = block(128, 10, 20, 10, 20)
    score = Score(2)
    score.add(truth, truth, truth)
    assert math.isnan(score.read()["large"])
    assert score.read()["small"] == 100


def test_scenes_are_counted_together_however_they_come() -> None:
    generator = torch.Generator().manual_seed(0)
    truth, prediction = (torch.randint(0, 3, (4, 16, 16), generator=generator) for _ in range(2))
    whole, parts = Score(3), Score(3)
    whole.add(prediction, truth, truth.byte())
    for i in range(4):
        parts.add(prediction[i : i + 1], truth[i : i + 1], truth[i : i + 1].byte())
    assert whole.read() == pytest.approx(parts.read(), nan_ok=True)


@pytest.mark.parametrize(("height", "size"), [(6, 1), (15, 1), (16, 2), (39, 2), (40, 3), (80, 3)])
def test_a_things_size_is_its_height(height: int, size: int) -> None:
    around = metrics.around(block(128, 20, 20 + height, 50, 60))
    assert around[0, 20, 50] == around[0, 19 + height, 59] == size


def test_size_is_measured_at_128_pixels_whatever_the_picture() -> None:
    assert metrics.around(block(256, 0, 30, 0, 30))[0, 0, 0] == 1
    assert metrics.around(block(256, 0, 32, 0, 32))[0, 0, 0] == 2


def test_eight_pixels_around_a_thing_are_its_own() -> None:
    around = metrics.around(block(128, 50, 60, 50, 60))
    assert around[0, 50, 42] == around[0, 42, 42] == around[0, 67, 67] == 1
    assert around[0, 50, 41] == around[0, 68, 60] == 0


def test_between_two_things_the_nearer_one_owns_a_pixel() -> None:
    instances = block(128, 50, 60, 20, 30, 1) + block(128, 40, 90, 40, 60, 2)
    around = metrics.around(instances)
    assert around[0, 55, 33] == 1
    assert around[0, 55, 37] == 3


def test_a_false_alarm_beside_a_small_thing_counts_against_small_ones_only() -> None:
    truth = block(128, 50, 60, 50, 60) + block(128, 70, 120, 70, 120)
    prediction = truth.clone()
    prediction[:, 46:50, 50:60] = 1
    score = Score(2)
    score.add(prediction, truth, block(128, 50, 60, 50, 60, 1) + block(128, 70, 120, 70, 120, 2))
    assert score.read()["small"] == pytest.approx(100 * 100 / 140, abs=0.01)
    assert score.read()["large"] == 100


def test_an_outline_is_where_the_next_pixel_differs() -> None:
    edge = metrics.outline(scene(["000", "010", "000"]))
    assert edge[0].int().tolist() == [[0, 1, 0], [1, 1, 0], [0, 0, 0]]


def test_an_outline_one_pixel_off_is_right_and_two_off_is_wrong() -> None:
    truth = block(32, 8, 24, 0, 32)  # two straight horizontal outlines
    for shift, expected in ((0, 100), (1, 100), (2, 0)):
        score = Score(2)
        score.add(truth.roll(shift, 1), truth, truth)
        assert score.read()["boundary_f1"] == expected


def test_boundary_f1_weighs_what_is_found_against_what_is_right() -> None:
    truth = block(32, 8, 24, 0, 32)
    prediction = torch.zeros_like(truth)
    prediction[:, 8:] = 1  # the upper of two outlines: all of it is right, half of the truth is found
    score = Score(2)
    score.add(prediction, truth, truth)
    assert score.read()["boundary_f1"] == pytest.approx(100 * 2 * 1 * 0.5 / 1.5, abs=0.01)


def test_no_outline_at_all_is_zero_where_there_is_one() -> None:
    truth = block(32, 8, 24, 0, 32)
    score = Score(2)
    score.add(torch.zeros_like(truth), truth, truth)
    assert score.read()["boundary_f1"] == 0
