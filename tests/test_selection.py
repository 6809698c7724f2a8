"""A selection is one study, whole: hashable, comparable, changed by copies, and light to import."""

import dataclasses
import subprocess
import sys

import pytest

from fusionviz.errors import ParameterError
from fusionviz.selection import COLORMAPS, GRIDS, RANGES, SEEDS, SHOWS, Selection, View, check_seed, pair


def test_equal_choices_are_one_key() -> None:
    one = Selection(method="aff", params=(("r", 4), ("gain", 2)))
    other = Selection(method="aff", params=(("gain", 2), ("r", 4)))
    assert one == other
    assert hash(one) == hash(other)
    assert len({one, other, one.with_(seed=1)}) == 2


def test_knobs_are_the_params_as_a_dict() -> None:
    assert Selection(params=(("r", 4), ("gain", 2))).knobs == {"gain": 2, "r": 4}
    assert Selection().knobs == {}


def test_a_copy_is_changed_and_the_original_is_not() -> None:
    first = Selection()
    second = first.with_(method="add", params=(("gain", 2.0),), low="s4")
    assert (second.method, second.params, second.low) == ("add", (("gain", 2.0),), "s4")
    assert first == Selection()
    assert second.view is first.view


def test_names_of_the_view_go_to_the_view() -> None:
    first = Selection()
    second = first.with_(grid=25, method="add", pin=(3, 4))
    assert (second.view.grid, second.view.pin, second.method) == (25, (3, 4), "add")
    assert second.with_(show="mean").view == View(show="mean", grid=25, pin=(3, 4))
    assert second.with_(view=View(grid=4)).view.grid == 4


def test_a_view_given_whole_may_be_changed_at_once() -> None:
    assert Selection().with_(view=View(gamma=0.5), grid=16).view.grid == 16


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(TypeError, match="colour"):
        Selection().with_(colour="blue")


def test_selections_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Selection().method = "add"


def test_defaults_are_among_the_choices() -> None:
    view = View()
    assert view.show in SHOWS
    assert view.grid in GRIDS
    assert view.range in RANGES
    assert view.colormap in COLORMAPS


def test_nothing_heavy_is_imported() -> None:
    code = "import sys, fusionviz.selection; print([m for m in ('torch', 'numpy', 'streamlit') if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("wrong", "allowed"),
    [
        ({"show": "grids"}, "pca"),
        ({"grid": 5}, "4, 9, 16, 25"),
        ({"part": "real"}, "arg"),
        ({"colormap": "jet"}, "viridis"),
        ({"range": "none"}, "row"),
        ({"gamma": float("nan")}, "0.2"),
        ({"gamma": 0.1}, "0.2"),
        ({"channels": (3, -1)}, "0"),
        ({"pin_channel": -1}, "0"),
        ({"weights": "rnadom"}, "random"),
        ({"weights": "file:"}, "file:PATH"),
        ({"weights": None}, "auto"),
        ({"seed": -1}, "2147483647"),
        ({"seed": 2**31}, "2147483647"),
        ({"seed": 1.5}, "2147483647"),
        ({"seed": "1"}, "2147483647"),
    ],
)
def test_a_wrong_value_is_answered_when_it_is_chosen(wrong: dict, allowed: str) -> None:
    with pytest.raises(ParameterError, match=allowed) as caught:
        Selection().with_(**wrong)
    assert next(iter(wrong)) in caught.value.text("en")
    assert next(iter(wrong)) in caught.value.text("zh")


def test_the_ends_of_the_ranges_can_be_chosen() -> None:
    assert [Selection(seed=s).seed for s in SEEDS] == list(SEEDS)
    assert check_seed(True) == 1
    assert Selection(weights="file:w").weights == "file:w"
    View(gamma=0.2, channels=(0,), pin_channel=0)
    View(gamma=5)


NAMES = ("s2", "s4", "s8", "s16", "s32")


@pytest.mark.parametrize(
    ("low", "high", "both"),
    [
        (None, None, ("s4", "s16")),
        ("s8", None, ("s8", "s16")),
        ("s16", None, ("s16", "s32")),
        (None, "s8", ("s4", "s8")),
        (None, "s4", ("s2", "s4")),
        ("s32", None, ("s32", "s32")),  # no level is left: the caller says so
        (None, "s2", ("s2", "s2")),
        ("s16", "s8", ("s16", "s8")),  # both were named: not for this function to turn round
    ],
)
def test_a_pair_of_levels_is_completed_in_order(low: str | None, high: str | None, both: tuple[str, str]) -> None:
    assert pair(NAMES, ("s4", "s16"), low, high) == both
