"""Colours and ranges: worked by hand, on maps of a few numbers."""

import numpy as np
import pytest
from _slide_boards import board
from hypothesis import given
from hypothesis import strategies as st

from fusionviz import scales
from fusionviz.board import Bar, Board, Map, Panel, PanelView
from fusionviz.selection import COLORMAPS


def view(*maps: list, scale: str = "sequential", **more: object) -> PanelView:
    return PanelView("v", "", "", scale=scale, maps=tuple(Map(np.array(m, np.float32)) for m in maps), **more)


def test_sequential_runs_from_its_minimum() -> None:
    found = scales.limits(view([[1, 3]], [[2, 7]]), "row")
    assert found == [(1, 7), (1, 7)]
    assert scales.limits(view([[1, 3]], [[2, 7]]), "map") == [(1, 3), (2, 7)]


def test_signed_is_symmetric() -> None:
    assert scales.limits(view([[-1, 3]], [[-4, 2]], scale="signed"), "row") == [(-4, 4), (-4, 4)]
    assert scales.limits(view([[-1, 3]], [[-4, 2]], scale="signed"), "map") == [(-3, 3), (-4, 4)]


@pytest.mark.parametrize(("scale", "expected"), [("weight", (0, 1)), ("gate", (0, 1)), ("phase", (-np.pi, np.pi))])
def test_fixed_scales_do_not_look_at_the_numbers(scale: str, expected: tuple) -> None:
    assert scales.limits(view([[0.4, 0.6]], scale=scale), "map") == [expected]


def test_constant_and_missing_numbers() -> None:
    assert scales.limits(view([[2, 2]]), "map") == [(2, 2)]
    assert scales.limits(view([[np.nan, 5, np.inf, 1]]), "map") == [(1, 5)]
    assert scales.limits(view([[np.nan]]), "map") == [(0, 0)]


def test_features_beside_bars_have_their_own_scale() -> None:
    bars = (Bar("0", 0.9, 0),)
    assert scales.map_scale(view([[0, 4]], scale="gate", kind="bars", bars=bars)) == "sequential"
    assert scales.map_scale(view([[-1, 4]], scale="gate", kind="bars", bars=bars)) == "signed"
    assert scales.limits(view([[0, 4]], scale="gate", kind="bars", bars=bars)) == [(0, 4)]


def panels(**shown: PanelView) -> Board:
    return Board((4, 4), tuple(Panel(role, role, role, (v,)) for role, v in shown.items()))


def test_all_shares_among_low_high_fused_of_one_scale() -> None:
    drawn = panels(
        low=view([[1, 2]]), high=view([[-9, 3]], scale="signed"), fused=view([[0, 5]]), weight=view([[7, 8]])
    )
    found = scales.ranges(drawn, "all")
    assert found["low", "v"] == found["fused", "v"] == [(0, 5)]
    assert found["high", "v"] == [(-9, 9)]
    assert found["weight", "v"] == [(7, 8)]
    assert scales.ranges(drawn, "row")["low", "v"] == [(1, 2)]


def test_every_view_of_every_panel_has_ranges() -> None:
    drawn = board("element")
    for mode in ("map", "row", "all"):
        found = scales.ranges(drawn, mode)
        assert {(p.id, v.key): len(v.maps) for p in drawn.panels for v in p.views} == {
            k: len(v) for k, v in found.items()
        }


# --- colour ----------------------------------------------------------------------------------------
def test_lookup_tables_are_the_published_ones() -> None:
    from matplotlib import colormaps

    for name, source in (*((n, n) for n in COLORMAPS), ("phase", "twilight")):
        published = np.round(colormaps[source](np.linspace(0, 1, 256))[:, :3] * 255)
        assert np.abs(scales.LUTS[name] - published).max() <= (1 if name == "gray" else 0), name


@pytest.mark.parametrize("name", ["weight", "signed"])
def test_diverging_maps_are_balanced(name: str) -> None:
    lightness = scales.oklab(scales.LUTS[name] / 255)[:, 0]
    assert np.abs(lightness - lightness[::-1]).max() < 0.02
    assert (np.diff(lightness[:128]) > -0.002).all()
    assert lightness[127] > 0.95


def test_weight_runs_from_orange_over_white_to_blue() -> None:
    rgb = scales.colour(np.array([[0.2, 0.5, 0.8]]), 0, 1, "weight")[0].astype(int)
    assert rgb[0, 0] > rgb[0, 2] + 100
    assert np.ptp(rgb[1]) < 12
    assert rgb[1].min() > 235
    assert rgb[2, 2] > rgb[2, 0] + 100


def test_the_hues_of_signed_are_no_level_s() -> None:
    def hue(rgb: np.ndarray) -> float:
        _, a, b = scales.oklab(rgb)
        return np.degrees(np.arctan2(b, a)) % 360

    levels = [
        hue(np.array([int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)])) for c in scales.ROLE_COLOURS["light"].values()
    ]
    for end in (scales.LUTS["signed"][40] / 255, scales.LUTS["signed"][215] / 255):
        assert min(abs((hue(end) - level + 180) % 360 - 180) for level in levels) > 25


def test_gamma_bends_sequential_and_both_arms_of_signed() -> None:
    values = np.array([[0.0, 0.25, 1.0]])
    bent = scales.colour(values, 0, 1, "sequential", "gray", gamma=0.5)[0, :, 0]
    assert bent.tolist() == [0, 128, 255]
    arms = scales.colour(np.array([[-0.25, 0.0, 0.25]]), -1, 1, "signed", gamma=0.5)
    straight = scales.colour(np.array([[-0.5, 0.0, 0.5]]), -1, 1, "signed")
    assert np.array_equal(arms, straight)


@pytest.mark.parametrize("scale", ["weight", "gate", "phase"])
def test_gamma_leaves_weights_alone(scale: str) -> None:
    values = np.linspace(0, 1, 7)[None]
    assert np.array_equal(scales.colour(values, 0, 1, scale, gamma=3), scales.colour(values, 0, 1, scale))


def test_constant_is_flat_and_nothing_is_grey() -> None:
    flat = scales.colour(np.full((2, 2), 3.0), 3, 3, "sequential")
    assert (flat == scales.LUTS["viridis"][0]).all()
    zero = scales.colour(np.zeros((2, 2)), 0, 0, "signed")
    assert zero.min() > 235
    light, dark = (scales.colour(np.array([[np.nan, 1.0]]), 0, 1, "gate", dark=d) for d in (False, True))
    assert light[0, 0].min() > 200
    assert dark[0, 0].max() < 80
    assert np.array_equal(light[0, 1], dark[0, 1])


def test_rgb_passes_untouched() -> None:
    rgb = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert np.array_equal(scales.colour(rgb, 0, 255, "rgb"), rgb)


# --- words ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0"), (7.784, "7.78"), (-0.5, "−0.500"), (12345.6, "12346"), (0.00123, "0.00123"), (9.999, "10.0"),
        (1.234e-5, "1.23×10⁻⁵"), (-2.5e7, "−2.50×10⁷"), (float("nan"), "–"), (999.6, "1000"),
    ],
)  # fmt: skip
def test_number(value: float, expected: str) -> None:
    assert scales.number(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [(9.1, "9.1"), (2.0, "2"), (-0.5, "−0.5"), (1e-7, "1×10⁻⁷"), (100, "100")]
)
def test_number_trimmed(value: float, expected: str) -> None:
    assert scales.number(value, trim=True) == expected


@given(st.floats(-1e9, 1e9))
def test_number_keeps_three_digits(value: float) -> None:
    text = scales.number(value).replace("−", "-")
    back = float(text.split("×10")[0])
    if "×10" in text:
        back *= 10.0 ** int(text.split("×10")[1].translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")))
    assert back == pytest.approx(value, rel=0.00501)


def test_branches_begin_low_and_end_high() -> None:
    for theme, dark in (("light", False), ("dark", True)):
        for count in range(2, 7):
            colours = scales.branch_colours(count, dark=dark)
            ends = scales.ROLE_COLOURS[theme]
            assert (len(colours), colours[0], colours[-1]) == (count, ends["low"], ends["high"])
            assert len(set(colours)) == count
    assert scales.branch_colours(1) == (scales.ROLE_COLOURS["light"]["low"],)


def test_a_level_alone_has_its_colour_and_equal_shares_are_pale() -> None:
    colours = scales.branch_colours(3)
    pure = np.eye(3, dtype=np.float32)[:, None]  # [3 levels, 1 x 3 places]
    for i, colour in enumerate(colours):
        assert (
            np.abs(
                scales.mixture(pure, colours)[0, i].astype(int) - [int(colour[k : k + 2], 16) for k in (1, 3, 5)]
            ).max()
            <= 2
        )
    equal = scales.mixture(np.full((3, 1, 1), 1 / 3, np.float32), colours)[0, 0]
    assert equal.min() > 235
    lightness = [
        scales.oklab(scales.mixture(np.array([[[w]], [[(1 - w) / 2]], [[(1 - w) / 2]]]), colours) / 255)[0, 0, 0]
        for w in np.linspace(1 / 3, 1, 12)
    ]
    assert all(b < a for a, b in zip(lightness, lightness[1:], strict=False)), "the surer, the darker"


def test_a_mixture_lies_between_its_colours() -> None:
    colours = scales.branch_colours(3)
    half = scales.mixture(np.array([[[0.5]], [[0.0]], [[0.5]]]), colours)
    a, b, c = (
        scales.oklab(np.array([int(x[k : k + 2], 16) / 255 for k in (1, 3, 5)])) for x in (*colours[::2], colours[1])
    )
    hue = scales.oklab(half / 255)[0, 0, 1:]
    middle = (a + b)[1:] / 2
    assert np.dot(hue, middle) / np.linalg.norm(hue) / np.linalg.norm(middle) > 0.98
    assert np.dot(hue, c[1:]) < 0.5 * np.linalg.norm(hue) * np.linalg.norm(c[1:]), "and not towards the third"


def test_of_four_levels_the_largest_gives_the_colour() -> None:
    colours = scales.branch_colours(4)
    shares = np.full((4, 1, 4), 0.2, np.float32)
    for i in range(4):
        shares[i, 0, i] = 0.4
    drawn = scales.oklab(scales.mixture(shares, colours) / 255)[0]
    for i, colour in enumerate(colours):
        own = scales.oklab(np.array([int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]))
        assert np.dot(drawn[i, 1:], own[1:]) > 0.95 * np.linalg.norm(drawn[i, 1:]) * np.linalg.norm(own[1:])
        assert drawn[i, 0] > own[0], "pale, as it is far from sure"


def test_amounts_start_at_zero() -> None:
    view = PanelView("rows", "", "", scale="amount", maps=(Map(np.array([[0.2, 0.7]], np.float32)),))
    assert scales.limits(view) == [(0.0, pytest.approx(0.7))]
    assert np.array_equal(
        scales.colour(np.array([[0.35]]), 0, 0.7, "amount", "magma"),
        scales.colour(np.array([[0.35]]), 0, 0.7, "sequential", "magma"),
    )
