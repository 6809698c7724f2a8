"""A study -> the board: right maps, right titles, right scales, and arithmetic that adds up."""

import re

import numpy as np
import pytest

from fusionviz import fusion, panels, study
from fusionviz.board import ROLES
from fusionviz.selection import Selection, View

BASE = Selection(picture="sample:coffee", backbone="resnet18", size=96)
VIT = Selection(picture="sample:coffee", backbone="vit_b_16")


@pytest.fixture(scope="module")
def found() -> dict[str, study.StudyResult]:
    return {m: study.run(BASE.with_(method=m)) for m in fusion.names()}


@pytest.mark.parametrize("method", fusion.names())
@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_method_fills_the_board(found: dict, method: str, language: str) -> None:
    board = panels.build(found[method], View(), language)
    assert [p.id for p in board.panels] == list(ROLES)
    assert board.size == (96, 96)
    for panel in board.panels[1:]:
        assert panel.badge is not None, "learned numbers are behind it"
        assert panel.badge.kind == "random"
        for view in panel.views:
            assert view.maps or view.bars
            for m in view.maps:
                assert np.isfinite(m.values).all()
    assert len(board["fused"].shown.maps) == 9


@pytest.mark.parametrize("show", ["mean", "max", "norm", "pca"])
def test_reduced_pictures_come_first_and_channels_stay(found: dict, show: str) -> None:
    board = panels.build(found["aff"], View(show=show), "en")
    for panel in ("low", "high", "fused"):
        views = board[panel].views
        assert len(views[0].maps) == 1
        assert any(len(v.maps) == 9 for v in views)


def test_the_same_channels_stand_in_all_aligned_panels(found: dict) -> None:
    board = panels.build(found["aff"], View(aligned=True), "en")
    assert board["low"].shown.key == board["high"].shown.key == "aligned"
    lists = [[m.channel for m in board[p].shown.maps] for p in ("low", "high", "fused")]
    assert lists[0] == lists[1] == lists[2] == list(board.channels)


def test_random_alignment_is_not_shown_first(found: dict) -> None:
    board = panels.build(found["aff"], View(), "en")
    assert board["low"].shown.key == "own"
    assert board["low"].shown.maps[0].values.shape == (24, 24)
    assert board["high"].shown.maps[0].values.shape == (6, 6)


def test_chosen_and_pinned_channels_are_shown(found: dict) -> None:
    board = panels.build(found["aff"], View(channels=(5, 3, 60, 999)), "en")
    assert board.channels == (5, 3, 60)
    pinned = panels.build(found["aff"], View(grid=4, pin_channel=61), "en")
    assert 61 in pinned.channels
    assert len(pinned.channels) == 4


@pytest.mark.parametrize("method", [m for m in fusion.names() if fusion.spec(m).arithmetic])
@pytest.mark.parametrize("base", [BASE, VIT], ids=["aligned", "equal"])
def test_the_arithmetic_adds_up_everywhere(method: str, base: Selection) -> None:
    board = panels.build(study.run(base.with_(method=method)), View(), "en")
    sums = board.arithmetic
    assert sums is not None
    for i, channel in enumerate(board.channels):
        values = dict(sums.constants)
        for name, (panel, key) in sums.sources.items():
            view = next(v for v in board[panel].views if v.key == key)
            values[name] = next((m.values for m in view.maps if m.channel == channel), None)
            if values[name] is None and len(view.maps) == 1:
                values[name] = view.maps[0].values
        left, right = re.sub(r"[·×]", "*", sums.template).replace("−", "-").split("=", 1)
        right = re.sub(r"\{(\w+)\}", r"(\1)", right)
        z = eval(right, {"__builtins__": {}}, values)
        np.testing.assert_allclose(z, values[left.strip(" {}")], atol=1e-4, rtol=1e-4, err_msg=f"{method} {i}")


def test_titles_say_whose_weight_it_is(found: dict) -> None:
    aff = panels.build(found["aff"], View(), "en")["weight"]
    assert "low" in aff.title.lower()
    assert (aff.of, aff.shown.scale) == ("low", "weight")
    share = panels.build(found["add"], View(), "en")["weight"]
    assert "contribution" in share.title.lower()
    assert "not attention" in share.shown.note.lower()
    gate = panels.build(found["se"], View(), "en")["weight"]
    assert gate.shown.kind == "bars"
    heights = [b.value for b in gate.shown.bars]
    assert heights == sorted(heights, reverse=True)
    assert len(heights) == 64
    both = panels.build(found["softmax2"], View(), "en")["weight"].shown
    assert both.kind == "numbers"
    assert sum(b.value for b in both.bars) == pytest.approx(1, abs=1e-5)


def test_complex_maps_have_their_parts(found: dict) -> None:
    z = found["complex"]
    assert panels.build(z, View(part="arg"), "en")["fused"].shown.scale == "phase"
    assert panels.build(z, View(part="domain"), "en")["fused"].shown.scale == "rgb"
    assert panels.build(z, View(part="abs"), "en")["fused"].shown.scale == "sequential"


def test_signs_decide_the_scale(found: dict) -> None:
    assert panels.build(found["aff"], View(), "en")["low"].shown.scale == "sequential"  # after a ReLU
    assert panels.build(found["aff"], View(), "en")["fused"].shown.scale == "signed"


def test_every_level_of_a_pyramid_can_be_seen() -> None:
    result = study.run(BASE.with_(method="fpn", low="s4", high="s32", params=(("width", 16),)))
    labels = [v.label for v in panels.build(result, View(), "en")["fused"].views]
    assert {"P8", "P16", "P32"} <= set(labels)
