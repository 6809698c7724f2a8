"""The equation with its numbers: the sign says whether the written numbers really give the written result."""

import dataclasses

import numpy as np
import pytest
from _slide_boards import board

from fusionviz.board import Arithmetic, Bar, Board, Map, Panel, PanelView
from fusionviz.figures import arithmetic


def one(template: str, constants: dict | None = None, **numbers: float) -> Board:
    """Return a board whose panels hold one number each."""
    panels = tuple(
        Panel(name, name, name, (PanelView("v", "", "", maps=(Map(np.array([[value]], np.float32), "0", 0),)),))
        for name, value in numbers.items()
    )
    return Board((4, 4), panels, (0,), Arithmetic(template, {n: (n, "v") for n in numbers}, constants or {}))


def written(drawn: Board) -> str:
    return "".join(text for text, _ in arithmetic.filled(drawn, (0, 0), 0))


def test_written_numbers_that_add_up_say_equal() -> None:
    drawn = one("{z} = {low} · {x} + (1 − {low}) · {y}", z=3.0, low=0.25, x=6.0, y=2.0)
    assert written(drawn) == "3.00 = 0.250 · 6.00 + (1 − 0.250) · 2.00"


def test_written_numbers_that_do_not_say_so() -> None:
    # 0.8337 · 2.2249 = 1.8549 is written 1.85, but 0.834 · 2.22 = 1.8515 reads 1.85 as well; 1.86 is not it.
    assert " ≈ " in written(one("{z} = {a} · {x}", z=1.8649, a=0.8337, x=2.2249))
    assert " = " in written(one("{z} = {a} · {x}", z=1.8549, a=0.8337, x=2.2249))


def test_roles_colour_the_terms() -> None:
    drawn = one("{z} = {x} + {y}", z=3, x=1, y=2)
    roles = [(text, role) for text, role in arithmetic.filled(drawn, (0, 0), 0) if role]
    assert roles == [("3.00", "fused"), ("1.00", "low"), ("2.00", "high")]


def test_a_factor_of_one_and_its_brackets_go() -> None:
    assert written(one("{z} = {gain} · ({x} + {y})", {"gain": 1.0}, z=3, x=1, y=2)) == "3.00 = 1.00 + 2.00"
    assert written(one("{z} = {gain} · ({x} + {y})", {"gain": 2.0}, z=6, x=1, y=2)) == "6.00 = 2 · (1.00 + 2.00)"
    assert written(one("{z} = ({x} + 1) · ({y} + 1)", z=6, x=1, y=2)) == "6.00 = (1.00 + 1) · (2.00 + 1)"


def test_negative_numbers_after_a_sign_stand_in_brackets() -> None:
    assert written(one("{z} = {x} + {y}", z=-1, x=1, y=-2)) == "−1.00 = 1.00 + (−2.00)"


def test_no_equation_where_a_number_is_missing() -> None:
    drawn = one("{z} = {x} + {y}", z=3, x=1, y=2)
    assert arithmetic.filled(drawn, (0, 0), 5) is None
    assert arithmetic.filled(dataclasses.replace(drawn, arithmetic=None), (0, 0), 0) is None
    lost = Arithmetic("{z} = {x} + {q}", drawn.arithmetic.sources)
    assert arithmetic.filled(dataclasses.replace(drawn, arithmetic=lost), (0, 0), 0) is None


def test_the_fused_map_of_a_board_is_what_its_equation_says() -> None:
    drawn = board("place")
    for x, y in ((0, 0), (63, 63), (17, 40)):
        values = {
            name: arithmetic.value_at(next(v for v in drawn[panel].views if v.key == key), (x, y), 6)
            for name, (panel, key) in drawn.arithmetic.sources.items()
        }
        blend = values["low"] * values["x"] + (1 - values["low"]) * values["y"]
        assert values["z"] == pytest.approx(blend, abs=1e-6)


@pytest.mark.parametrize(
    ("pin", "expected"),
    [((0, 0), (0, 0)), ((1, 1), (0, 0)), ((3, 2), (1, 1)), ((63, 63), (15, 15)), ((29, 5), (1, 7)), ((31, 5), (1, 8))],
)
def test_a_pixel_belongs_to_the_nearest_centre(pin: tuple, expected: tuple) -> None:
    view = PanelView("v", "", "", stride=(4, 4), offset=(0.5, 0.5))
    found = arithmetic.cell_of(view, Map(np.zeros((16, 16), np.float32)), pin)
    assert found == expected
    centres = 0.5 + 4 * np.arange(16)
    for axis in (0, 1):
        away = np.abs(centres - (pin[1 - axis] + 0.5))
        assert away[found[axis]] == away.min()


def test_a_map_of_another_level_has_cells_of_its_own() -> None:
    coarse = Map(np.zeros((4, 4), np.float32), stride=(16, 16), offset=(8, 8))
    view = PanelView("v", "", "", stride=(4, 4), offset=(0.5, 0.5), maps=(coarse,))
    assert arithmetic.cell_of(view, coarse, (40, 17)) == (1, 2)


def test_bars_answer_by_channel() -> None:
    view = PanelView("v", "", "", "bars", "gate", bars=(Bar("4", 0.7, 4),))
    assert arithmetic.value_at(view, (0, 0), 4) == 0.7
    assert arithmetic.value_at(view, (0, 0), 5) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(1 − 0.25) · 4", 3), ("1.5×10⁻² · 2", 0.03), ("−2 + 3", 1), ("6 / 4", 1.5), ("3²", 9), ("max(1, 2)", 2),
        ("1 / 0", None), ("__import__('os')", None), ("a + 1", None), ("2 +", None),
    ],
)  # fmt: skip
def test_evaluate(text: str, expected: float | None) -> None:
    assert arithmetic.evaluate(text) == (pytest.approx(expected) if expected is not None else None)
