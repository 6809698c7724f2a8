"""A study -> the board: right maps, right titles, right scales, and arithmetic that adds up."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from _sites import at_home

from fusionviz import fusion, panels, reduce, scales, study
from fusionviz.board import ROLES
from fusionviz.records import AttentionMap, Provenance, Tokens
from fusionviz.selection import Selection, View
from fusionviz.texts import text

BASE = Selection(picture="sample:coffee", backbone="resnet18", size=96)
VIT = Selection(picture="sample:coffee", backbone="vit_b_16")
ROWS = ("cross_attention", "self_attention")


def as_drawn(selection: Selection) -> study.StudyResult:
    """Return a study whose weights are as drawn: a method that chooses is not fitted to the picture, so no slider."""
    wide = {"width": 64} if fusion.spec(selection.method).weighs else {}
    selection = selection.with_(params=tuple({**wide, **selection.knobs}.items()))
    return study.run(replace(study.prepare(selection), fits=False))


@pytest.fixture(scope="module")
def found() -> dict[str, study.StudyResult]:
    by_hand = {"wsum": (("alpha", 0.4),)}
    return {m: as_drawn(at_home(BASE.with_(method=m, params=by_hand.get(m, ())))) for m in fusion.names()}


@pytest.mark.parametrize("method", fusion.names())
@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_method_fills_the_board(found: dict, method: str, language: str) -> None:
    board = panels.build(found[method], View(), language)
    assert [p.id for p in board.panels] == list(ROLES)
    assert board.size == (96, 96)
    for panel in board.panels[1:]:
        assert panel.badge is not None, "learned numbers are behind it"
        by_hand = (method, panel.id) == ("wsum", "weight")  # its slider has set it
        assert panel.badge.kind == ("analytic" if by_hand else "random")
        for view in panel.views:
            assert view.maps or view.bars or (view.nodes and view.edges)
            for m in view.maps:
                assert np.isfinite(m.values).all()
    assert len(board["fused"].shown.maps) == 9


def test_a_weight_fitted_on_random_maps_says_that_it_was_fitted() -> None:
    board = panels.build(study.run(BASE.with_(method="aff")), View(), "en")
    kinds = {panel: board[panel].badge.kind for panel in ("low", "high", "weight", "fused")}
    assert kinds == {"low": "random", "high": "random", "weight": "fitted", "fused": "random"}


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
    assert panels.build(found["aff"], View(channels=(5, 5, 3, 5)), "en").channels == (5, 3)
    plain = panels.build(found["aff"], View(grid=4), "en").channels
    assert panels.build(found["aff"], View(grid=4, channels=(999,)), "en").channels == plain
    assert panels.build(found["aff"], View(grid=4, pin_channel=64), "en").channels == plain  # there are 0 to 63


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
            if view.kind == "bars":  # the pictures beside the bars are features, not weights
                values[name] = next(b.value for b in view.bars if b.channel == channel)
                continue
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
    assert panels.build(z, View(part="re"), "en")["fused"].shown.scale == "sequential"  # both maps follow a ReLU


@pytest.mark.parametrize("part", ["arg", "domain"])
@pytest.mark.parametrize("show", ["mean", "max", "norm", "pca"])
def test_angles_are_never_averaged_or_measured_as_lengths(found: dict, part: str, show: str) -> None:
    z = found["complex"]
    shown = panels.build(z, View(part=part, show=show), "en")["fused"].shown
    length = panels.build(z, View(part="abs", show=show), "en")["fused"].shown
    if part == "arg" and show in ("mean", "max"):
        assert shown.scale == "phase"
        assert np.array_equal(shown.maps[0].values, reduce.reduced_phase(z.result.fused.tensor, show))
    else:
        assert shown.scale == length.scale
        assert np.array_equal(shown.maps[0].values, length.maps[0].values)


def test_signs_decide_the_scale(found: dict) -> None:
    assert panels.build(found["aff"], View(), "en")["low"].shown.scale == "sequential"  # after a ReLU
    assert panels.build(found["aff"], View(), "en")["fused"].shown.scale == "signed"


def test_every_level_of_a_pyramid_can_be_seen() -> None:
    result = study.run(BASE.with_(method="fpn", low="s4", high="s32", params=(("width", 16),)))
    labels = [v.label for v in panels.build(result, View(), "en")["fused"].views]
    assert {"P8", "P16", "P32"} <= set(labels)
    reduced = [v.label for v in panels.build(result, View(show="mean"), "en")["fused"].views]
    assert {"Mean", "P8 · Mean", "P8"} <= set(reduced)
    assert len(set(reduced)) == len(reduced)


@pytest.mark.parametrize("off", ["lateral", "top_down", "smooth"])
def test_a_pyramid_with_a_path_cut_off_still_fills_the_board(off: str) -> None:
    result = study.run(BASE.with_(method="fpn", params=(("width", 16), (off, False))))
    board = panels.build(result, View(), "en")
    assert [p.id for p in board.panels] == list(ROLES)
    share = board["weight"].shown.maps[0].values
    assert {"lateral": share.max() == 0, "top_down": share.min() == 1, "smooth": share.min() > 0}[off]


@pytest.mark.parametrize("method", ["se", "cbam", "mscam", "concat"])
def test_stacked_maps_show_the_channels_they_became(method: str) -> None:
    knobs = () if method == "concat" else (("on", "concat"),)
    result = study.run(BASE.with_(method=method, params=knobs))
    x, _ = result.result.aligned
    board = panels.build(result, View(aligned=True, channels=(3, x.channels + 5)), "en")
    assert board.channels == (3, x.channels + 5)
    assert [m.channel for m in board["low"].shown.maps] == [3]
    assert [m.channel for m in board["high"].shown.maps] == [5]


def test_behind_a_convolution_no_channel_is_one_of_the_stacked_ones() -> None:
    result = study.run(BASE.with_(method="concat", params=(("reduce", 320),)))  # as many channels as went in: 64 + 256
    board = panels.build(result, View(channels=(3, 70)), "en")
    strongest = list(reduce.strongest(result.low.tensor, 9))
    assert [m.channel for m in board["low"].shown.maps] == strongest


def test_a_map_seen_through_random_projections_says_so(found: dict) -> None:
    result = found["aff"]
    trained = replace(result, pyramid=replace(result.pyramid, provenance=Provenance("pretrained", "IMAGENET1K_V1")))
    own = panels.build(trained, View(aligned=False), "en")["low"]
    assert own.badge.kind == "pretrained"
    assert own.shown.note == ""
    seen = next(v for v in own.views if v.key == "aligned")
    assert "random" in seen.note
    for role in ("low", "high"):  # of the high level, the last step is a resize, which learns nothing by itself
        met = panels.build(trained, View(aligned=True), "en")[role]
        assert (met.shown.key, met.badge.kind, met.shown.note) == ("aligned", "random", "")


def test_a_resize_alone_learns_nothing(found: dict) -> None:
    result = found["concat"]  # resizes the high level and projects nothing
    trained = replace(result, pyramid=replace(result.pyramid, provenance=Provenance("pretrained", "IMAGENET1K_V1")))
    high = panels.build(trained, View(aligned=True), "en")["high"]
    assert (high.shown.key, high.badge.kind, high.shown.note) == ("aligned", "pretrained", "")


def fused_with(study_result: study.StudyResult, tensor: torch.Tensor) -> study.StudyResult:
    outputs = {"fused": replace(study_result.result.fused, tensor=tensor)}
    return replace(study_result, result=replace(study_result.result, outputs=outputs))


@pytest.mark.parametrize(
    ("value", "scale", "ends"),
    [(-2.0, "signed", (-2, 2)), (0.0, "sequential", (0, 0)), (1e-12, "sequential", (1e-12, 1e-12))],
)
def test_constant_maps_of_any_sign_have_an_honest_scale(found: dict, value: float, scale: str, ends: tuple) -> None:
    result = found["aff"]
    flat = fused_with(result, torch.full_like(result.result.fused.tensor, value))
    shown = panels.build(flat, View(), "en")["fused"].shown
    assert shown.scale == scale
    assert scales.limits(shown)[0] == pytest.approx(ends, rel=1e-6)


def test_maps_without_numbers_do_not_break_the_board(found: dict) -> None:
    result = found["aff"]
    lost = fused_with(result, torch.full_like(result.result.fused.tensor, float("nan")))
    for show in ("grid", "mean", "max", "norm", "pca"):
        assert panels.build(lost, View(show=show), "en")["fused"].shown.maps


def test_another_view_of_a_panel_comes_first_if_it_was_chosen(found: dict) -> None:
    board = panels.build(found["aff"], View(views=(("weight", "bars"), ("fused", "nothing"))), "en")
    assert board["weight"].shown.key == "bars"
    assert board["fused"].shown.key == "fused"  # a view that it does not have changes nothing


def test_a_flat_mean_gives_way_to_the_channels(found: dict) -> None:
    weight = panels.build(found["aff"], View(), "en")["weight"]
    mean = next(v for v in weight.views if v.key == "place").maps[0].values
    assert (weight.shown.key == "channels") == (np.ptp(mean) < 0.05)


def test_every_view_of_a_panel_has_its_own_key_and_name(found: dict) -> None:
    for method, result in found.items():
        for panel in panels.build(result, View(show="mean"), "en").panels:
            assert len({v.key for v in panel.views}) == len(panel.views), method
            assert len({v.label for v in panel.views}) == len(panel.views), method


def test_a_weight_per_place_lies_over_the_picture(found: dict) -> None:
    for method, key in (("cbam", "place-place"), ("add", "place")):
        view = next(v for v in panels.build(found[method], View(), "en")["weight"].views if v.key == key)
        assert view.over_picture
        assert view.maps[0].values.shape == (24, 24)


@pytest.mark.parametrize("on", ["low", "high", "sum"])
def test_bars_stand_beside_the_channels_that_the_gate_weighs(on: str) -> None:
    result = study.run(BASE.with_(method="se", params=(("on", on),)))
    x, y = (m.tensor for m in result.result.aligned)
    weighed = {"low": x, "high": y, "sum": x + y}[on]
    bars = panels.build(result, View(), "en")["weight"].shown
    for m in bars.maps:
        assert np.array_equal(m.values, weighed[0, m.channel].numpy())


# --- several levels --------------------------------------------------------------------------------
def views_of(board, panel: str) -> dict:
    return {v.key: v for v in board[panel].views}


def pyramid_of(method: str, **params: object) -> study.StudyResult:
    width = {"width": 16} if method != "unet" else {}
    return as_drawn(BASE.with_(method=method, low="s4", high="s32", params=tuple({**width, **params}.items())))


def test_three_levels_are_mixed_and_each_can_be_read(found: dict) -> None:
    weight = found["asff"].result.attention["low"].tensor[0].numpy()  # s4, s8, s16
    views = views_of(panels.build(found["asff"], View(), "en"), "weight")
    mix, each = views["mix"], views["each"]
    assert panels.build(found["asff"], View(), "en")["weight"].title == "Weights of the levels"
    assert [m.label for m in each.maps] == [m.label for m in mix.shares] == ["s4", "s8", "s16"]
    assert [m.level for m in mix.shares] == [(0, 3), (1, 3), (2, 3)]
    for i, (a, b) in enumerate(zip(each.maps, mix.shares, strict=True)):
        assert np.array_equal(a.values, weight[i])
        assert np.array_equal(b.values, weight[i])
    assert np.array_equal(mix.maps[0].values, scales.mixture(weight, scales.branch_colours(3)))
    assert (each.scale, each.over_picture, mix.over_picture) == ("gate", True, True)
    coarser = views["at-2-mix"]
    assert coarser.stride == (8.0, 8.0)
    assert coarser.title == "Weights in P8"


def test_two_levels_keep_the_scale_of_low_against_high() -> None:
    two = as_drawn(BASE.with_(method="asff", low="s4", high="s8", params=(("width", 16),)))
    board = panels.build(two, View(), "en")
    assert (board["weight"].shown.key, board["weight"].shown.scale) == ("place", "weight")
    assert board["weight"].title == "Weight of low"
    assert np.array_equal(board["weight"].shown.maps[0].values, two.result.attention["low"].tensor[0, 0].numpy())
    assert views_of(board, "weight")["at-2-place"].title == "Weight of low in P8"


@pytest.mark.parametrize("method", ["fpn", "panet", "bifpn", "asff", "gff"])
def test_a_pyramid_shows_every_level_in_and_out(method: str) -> None:
    result = pyramid_of(method)
    shown = views_of(panels.build(result, View(), "en"), "fused")["pyramid"]
    assert [m.label for m in shown.maps] == ["C4", "C8", "C16", "C32", "P4", "P8", "P16", "P32"]
    for m in shown.maps:
        out = m.label[0] == "P"
        level = result.result.outputs[f"p{m.label[1:]}"] if out else result.pyramid[f"s{m.label[1:]}"]
        assert np.allclose(m.values, level.tensor[0].square().mean(0).sqrt().numpy(), atol=1e-6)
        assert (m.stride, m.offset, m.row) == (level.stride, level.offset, int(out))
    assert [label.name for label in shown.labels] == [m.label for m in shown.maps]
    assert shown.labels[1].text == "12 × 12 · stride 8"


def test_one_map_out_of_many_levels_stands_below_them() -> None:
    result = pyramid_of("hypernet")
    shown = views_of(panels.build(result, View(), "en"), "fused")["pyramid"]
    assert [m.label for m in shown.maps] == ["C4", "C8", "C16", "C32", "Z"]
    z, same = shown.maps[-1], next(m for m in shown.maps if m.stride == result.result.fused.stride)
    assert z.box[2] == pytest.approx(same.box[2])
    assert z.level == same.level


def test_rows_of_a_pyramid_have_a_range_each() -> None:
    result = pyramid_of("fpn")
    board = panels.build(result, View(), "en")
    shown = views_of(board, "fused")["pyramid"]
    ranges = scales.ranges(board)["fused", "pyramid"]
    for row in (0, 1):
        most = max(float(m.values.max()) for m in shown.maps if m.row == row)
        assert {r for m, r in zip(shown.maps, ranges, strict=True) if m.row == row} == {(0.0, most)}


def test_the_graph_of_edges_comes_first_where_edges_have_weights() -> None:
    result = pyramid_of("bifpn")
    board = panels.build(result, View(), "en")
    graph = board["weight"].shown
    assert (graph.kind, board["weight"].heading) == ("graph", ("Weights of the edges", ""))
    names = [n.label for n in graph.nodes]
    assert names == ["C4", "C8", "C16", "C32", "T16", "T8", "T4", "O8", "O16", "O32"]
    into = {names[e.start]: e.text for e in graph.edges if names[e.end] == "O8"}
    assert into == {"T4": "0.33", "C8": "0.33", "T8": "0.33"}
    assert [t.text for t in graph.labels] == ["backbone", "top-down", "bottom-up"]
    node = views_of(board, "weight")["1-out-2-branches"]
    assert (node.label, node.title) == ("O8, bottom-up", "Weights into O8, bottom-up")
    assert [(b.label, b.level) for b in node.bars] == [("T4", (0, 4)), ("C8", (1, 4)), ("T8", (1, 4))]


def test_without_weights_the_graph_says_that_it_is_a_contribution() -> None:
    board = panels.build(pyramid_of("panet"), View(views=(("weight", "graph"),)), "en")
    graph = board["weight"].shown
    assert "not attention" in graph.note
    assert board["weight"].heading == ("Contributions at the nodes", "")
    for end in {e.end for e in graph.edges}:
        assert sum(e.share for e in graph.edges if e.end == end) == pytest.approx(1)


def test_layers_of_one_graph_have_names_of_their_own() -> None:
    board = panels.build(pyramid_of("bifpn", repeats=2), View(), "en")
    labels = [v.label for v in board["weight"].views]
    assert len(set(labels)) == len(labels)
    assert views_of(board, "weight")["2-td-2-branches"].title == "Weights into T8, layer 2"


def test_a_gate_says_of_which_level_it_is() -> None:
    views = views_of(panels.build(pyramid_of("gff"), View(), "en"), "weight")
    assert [views[f"gate-{i}-place"].title for i in (2, 3, 4)] == [
        "Place gate of s8", "Place gate of s16", "Place gate of high",
    ]  # fmt: skip


def test_links_can_name_every_view(found: dict) -> None:
    for method, result in found.items():
        for panel in panels.build(result, View(), "en").panels:
            for view in panel.views:
                assert re.fullmatch(r"[a-z0-9-]{1,40}", view.key), (method, view.key)


# --- attention between tokens ----------------------------------------------------------------------
LOW, HIGH = Tokens("low", (6, 6), (16.0, 16.0), (8.0, 8.0)), Tokens("high", (3, 3), (32.0, 32.0), (16.0, 16.0))


def asking(found: dict, keys: tuple[Tokens, ...]) -> study.StudyResult:
    """A study whose method has answered with rows of attention: 4 heads, from each token of low to `keys`."""
    scores = torch.randn(1, 4, LOW.count, sum(k.count for k in keys), generator=torch.Generator().manual_seed(3))
    pairs = AttentionMap("pairs", scores.softmax(-1), "b head q k", "softmax", queries=(LOW,), keys=keys)
    was = found["add"]
    return replace(was, result=replace(was.result, attention={"pairs": pairs}))


@pytest.mark.parametrize(
    ("pin", "cell", "asks"),
    [((0, 0), (0, 0), (8, 8)), ((95, 20), (1, 5), (88, 24)), ((16, 15), (0, 1), (24, 8)), (None, (3, 3), (56, 56))],
)
def test_the_row_is_that_of_the_pinned_token(found: dict, pin: tuple | None, cell: tuple, asks: tuple) -> None:
    result = asking(found, (HIGH,))
    assert panels.asks(result)
    shown = panels.build(result, View(pin=pin), "en")["weight"].shown
    rows = result.result.attention["pairs"].tensor[0, :, cell[0] * 6 + cell[1]].unflatten(1, (3, 3)).numpy()
    assert [m.label for m in shown.maps] == ["head 1", "head 2", "head 3", "head 4"]
    assert all(np.array_equal(m.values, row) for m, row in zip(shown.maps, rows, strict=True))
    assert shown.asks == asks
    assert ("middle" in shown.note) == (pin is None)
    assert (shown.stride, shown.offset, shown.over_picture) == (HIGH.stride, HIGH.offset, True)
    assert scales.limits(shown) == [(0.0, float(rows.max()))] * 4, "one range for all heads, from zero"
    mean = views_of(panels.build(result, View(pin=pin), "en"), "weight")["mean"]
    assert np.allclose(mean.maps[0].values, rows.mean(0))


def test_each_block_of_keys_has_views_and_its_part_of_the_whole(found: dict) -> None:
    result = asking(found, (LOW, HIGH))
    views = views_of(panels.build(result, View(pin=(50, 50)), "en"), "weight")
    assert list(views) == ["rows", "rows-high", "mean", "mean-high"]
    row = result.result.attention["pairs"].tensor[0, :, 3 * 6 + 3]
    low, high = row[:, :36], row[:, 36:]
    assert np.array_equal(views["rows-high"].maps[2].values, high[2].unflatten(0, (3, 3)).numpy())
    assert views["rows"].maps[0].label == f"head 1 · {float(low[0].sum()):.2f}"
    assert views["mean-high"].maps[0].label == f"mean · {float(high.sum(1).mean()):.2f}"
    assert (views["rows"].stride, views["rows-high"].stride) == ((16.0, 16.0), (32.0, 32.0))


def test_a_slider_over_rows_and_over_a_graph_goes_through_their_numbers(found: dict) -> None:
    rows = asking(found, (LOW, HIGH))
    graphs = [pyramid_of("bifpn", shift=value) for value in (-0.5, 0.0, 0.5)]
    pairs = rows.result.attention["pairs"]
    other = replace(rows.result, attention={"pairs": replace(pairs, tensor=pairs.tensor.flip(2))})
    for results, start in (((rows.result, other), rows), ([g.result for g in graphs], graphs[0])):
        frames = tuple(study.Frame(float(i), r, facts={"loss": 1.0}) for i, r in enumerate(results))
        swept_study = replace(start, sweep=study.Sweep("step", frames, 0))
        board = panels.build(swept_study, View(), "en")
        shown = [next(p for p in f.panels if p.id == "weight").shown for f in board.sweep.frames]
        said = [tuple(m.label for m in v.maps) or tuple(e.text for e in v.edges) for v in shown]
        assert len(set(said)) == len(results)


def test_other_methods_ask_for_no_row(found: dict) -> None:
    assert not any(panels.asks(result) for result in found.values() if result.selection.method not in ROWS)


# --- the slider ------------------------------------------------------------------------------------
BALANCES = (0.0, 0.25, 0.5, 0.75, 1.0)


def swept(kind: str = "balance", method: str = "wsum") -> study.StudyResult:
    """Return a study with a slider made of five runs with other weights."""
    runs = [as_drawn(BASE.with_(method="wsum", params=(("alpha", 1 - value),))) for value in BALANCES]
    facts = [{"mean": 1 - value, "edges": 0.5, "flat": 0.25} for value in BALANCES]
    values = BALANCES
    if method == "aff":  # other weights altogether: other channels are the strongest, other bars the longest
        runs = [as_drawn(BASE.with_(method="aff", seed=seed)) for seed in range(5)]
    if kind == "step":
        values = (0, 10, 20, 100, 400)
        facts = [{"loss": 2.0 - 0.3 * i, "miou": 20.0 * i} for i in range(5)]
    frames = [study.Frame(float(v), r.result, facts=f) for v, r, f in zip(values, runs, facts, strict=True)]
    return replace(runs[2], sweep=study.Sweep(kind, tuple(frames), 2))


def test_a_study_without_a_slider_has_a_board_without_one(found: dict) -> None:
    assert panels.build(found["aff"], View(), "en").sweep is None


@pytest.mark.parametrize("method", ["wsum", "aff"])
@pytest.mark.parametrize("view", [View(), View(show="mean", grid=4), View(pin_channel=50)])
def test_every_position_shows_the_channels_of_the_start(method: str, view: View) -> None:
    result = swept(method=method)
    board = panels.build(result, view, "en")
    start = panels.build(replace(result.at(None), sweep=None), view, "en")
    assert board.channels == start.channels
    fused = [reduce.strongest(f.result.fused.tensor, view.grid) for f in result.sweep.frames]
    assert len(set(fused)) > 1, "left alone, other channels would come first"
    for frame in board.sweep.frames:
        for panel, first in zip(frame.panels, start.panels, strict=True):
            assert panel.view == first.view
            for seen, was in zip(panel.views, first.views, strict=True):
                assert [m.channel for m in seen.maps] == [m.channel for m in was.maps]
                assert [b.channel for b in seen.bars] == [b.channel for b in was.bars]


def test_every_position_shows_its_own_numbers() -> None:
    result = swept(method="aff")
    board = panels.build(result, View(views=(("weight", "channels"),)), "en")
    for frame, was in zip(board.sweep.frames, result.sweep.frames, strict=True):
        shown = {p.id: p for p in frame.panels}
        for m in shown["fused"].shown.maps:
            assert np.array_equal(m.values, was.result.fused.tensor[0, m.channel].numpy())
        weight = was.result.attention["low"].tensor[0]
        seen = {v.key: v for v in shown["weight"].views}
        for m in seen["channels"].maps:
            assert np.array_equal(m.values, weight[m.channel].numpy())
        for bar in seen["bars"].bars:
            assert bar.value == pytest.approx(float(weight[bar.channel].mean()), abs=1e-6)
    assert board["weight"].shown.key == "channels"


def test_one_scale_serves_every_position() -> None:
    result = swept(method="aff")
    frames = list(result.sweep.frames)
    fused = frames[0].result.fused
    positive = replace(fused, tensor=fused.tensor.abs())
    frames[0] = replace(frames[0], result=replace(frames[0].result, outputs={"fused": positive}))
    board = panels.build(replace(result, sweep=replace(result.sweep, frames=tuple(frames))), View(), "en")
    assert {next(p for p in f.panels if p.id == "fused").shown.scale for f in board.sweep.frames} == {"signed"}
    (lowest, highest), *_ = scales.ranges(board)["fused", "fused"]
    far = max(float(np.abs(m.values).max()) for f in board.sweep.frames for m in f.panels[-1].shown.maps)
    assert (lowest, highest) == pytest.approx((-far, far))
    per_map = scales.ranges(board, "map")["fused", "fused"][0]
    assert per_map[1] == max(float(np.abs(f.panels[-1].shown.maps[0].values).max()) for f in board.sweep.frames)


def test_the_board_stands_where_the_view_says() -> None:
    result = swept()
    for frame, at in ((None, 2), (0.0, 0), (0.7, 3), (9.0, 4)):
        board = panels.build(result, View(frame=frame), "en")
        assert board.sweep.at == at
        assert board.arithmetic.constants["low"] == pytest.approx(1 - BALANCES[at])
        assert board["weight"].shown.bars[0].value == pytest.approx(1 - BALANCES[at])
        assert board.channels == panels.build(result, View(), "en").channels


@pytest.mark.parametrize(
    ("language", "balance", "step"),
    [
        ("en", "mean weight of low 0.75 · on edges 0.50 · on flat parts 0.25", "loss 1.70 · mIoU 20.0"),
        ("zh", "低层权重均值 0.75，边缘处 0.50，平坦处 0.25", "损失 1.70，mIoU 20.0"),
    ],
)
def test_facts_are_a_sentence(language: str, balance: str, step: str) -> None:
    slid = panels.build(swept(), View(), language).sweep
    assert slid.frames[1].facts == balance
    assert [f.text for f in slid.frames] == ["0.00", "0.25", "0.50", "0.75", "1.00"]
    assert [f.height for f in slid.frames] == [1, 0.75, 0.5, 0.25, 0]
    assert [f.place for f in slid.frames] == list(BALANCES)
    trained = panels.build(swept("step"), View(), language).sweep
    assert trained.frames[1].facts == step
    assert [f.text for f in trained.frames] == ["0", "10", "20", "100", "400"]
    assert [f.place for f in trained.frames] == [0, 0.25, 0.5, 0.75, 1], "the first steps change most"
    assert trained.ends == ("0", "400")
    assert [f.height for f in trained.frames] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])


def test_facts_that_were_not_measured_are_left_out() -> None:
    result = swept()
    frames = tuple(replace(f, facts={"mean": 0.5}) for f in result.sweep.frames[:1]) + tuple(
        replace(f, facts={}) for f in result.sweep.frames[1:]
    )
    slid = panels.build(replace(result, sweep=replace(result.sweep, frames=frames)), View(), "en").sweep
    assert [(f.facts, f.height) for f in slid.frames[:2]] == [("mean weight of low 0.50", 0.5), ("", None)]


def test_a_stride_that_differs_by_axis_is_written_twice() -> None:
    assert (panels._stride((4.0, 4.0)), panels._stride((4.0, 8.0))) == ("4", "4 × 8")


def test_regions_stand_where_their_boxes_are_under_the_names_of_what_is_in_them() -> None:
    found = study.run(Selection(picture="scene:21", backbone="scene_resnet", method="ion"))
    regions = found.result.outputs["regions"]
    for language in ("en", "zh"):
        view = next(v for v in panels.build(found, View(), language)["fused"].views if v.key == "regions")
        assert [m.label for m in view.maps] == [text(f"scenes.classes.{key}", language) for key in regions.labels]
        assert view.shape == regions.shape_text
        for m, box, cells in zip(view.maps, regions.boxes.tolist(), regions.tensor.mean(1), strict=True):
            rows, columns = np.nonzero(m.values)
            assert set(np.unique(m.values[m.values != 0])) <= set(cells.flatten().tolist())
            sides = [(at + 0.5) * s for at, s in zip((columns, rows), view.stride, strict=True)]
            assert [x for at in sides for x in (at.min(), at.max())] == pytest.approx(
                [box[0], box[2], box[1], box[3]], abs=view.stride[0]
            )
