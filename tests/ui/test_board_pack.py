"""The bytes that the board sends to the browser, read back the way the browser reads them."""

import base64
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from fusionviz import scales, texts
from fusionviz.board import (
    Arithmetic,
    Badge,
    Bar,
    Board,
    BoardFrame,
    BoardSweep,
    Edge,
    Label,
    Map,
    Mark,
    Node,
    Panel,
    PanelView,
)
from fusionviz.selection import COLORMAPS, RANGES, Selection, View
from fusionviz.ui.components import board as component


def board_of(*values: np.ndarray, scale: str = "sequential", bars: tuple[Bar, ...] = ()) -> Board:
    """Return a board with one panel of these maps."""
    maps = tuple(Map(v, str(i), i) for i, v in enumerate(values))
    view = PanelView("own", "own", "2 × 3 × 4", "bars" if bars else "maps", scale, (4, 4), (1.5, 1.5), maps, bars)
    return Board((12, 16), (Panel("low", "low", "Low X", (view,)),), tuple(range(len(values))))


def packed(board: Board, view: View | None = None, language: str = "en") -> bytes:
    return component.pack(board, view or View(), language, digest="d1")


def header_of(data: bytes) -> dict:
    return json.loads(data[4 : 4 + int.from_bytes(data[:4], "little")])


def map_of(data: bytes, index: int) -> np.ndarray:
    """Decode one map as the browser does."""
    head = header_of(data)
    entry = head["maps"][index]
    start = 4 + int.from_bytes(data[:4], "little") + entry["at"]
    shape = (entry["h"], entry["w"])
    if entry["rgb"]:
        return np.frombuffer(data, np.uint8, 3 * np.prod(shape), start).reshape(*shape, 3)
    none = 2 ** entry["bits"] - 1
    q = np.frombuffer(data, {16: "<u2", 8: "u1"}[entry["bits"]], np.prod(shape), start).reshape(shape)
    value = entry["lo"] + q / (none - entry["holes"]) * (entry["hi"] - entry["lo"])
    return np.where((q == none) & entry["holes"], np.nan, value)


def normal(seed: int, *shape: int, times: float = 1.0) -> np.ndarray:
    return (times * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


@pytest.mark.parametrize("times", [1e-6, 1.0, 1e6])
def test_a_map_comes_back_within_half_a_step(times: float) -> None:
    values = normal(0, 30, 40, times=times)
    back = map_of(packed(board_of(values)), 0)
    step = (float(values.max()) - float(values.min())) / 65535
    assert np.abs(back - values).max() <= 0.51 * step
    assert (back.min(), back.max()) == pytest.approx((values.min(), values.max()), rel=1e-7)


def test_a_zero_after_relu_stays_exactly_zero() -> None:
    values = np.maximum(normal(1, 20, 20), 0)
    back = map_of(packed(board_of(values)), 0)
    assert (back[values == 0] == 0).all()
    assert (values == 0).any()


def test_constant_maps_have_one_number() -> None:
    data = packed(board_of(np.full((3, 4), -0.25, np.float32), np.zeros((3, 4), np.float32)))
    first, second = header_of(data)["maps"]
    assert (first["lo"], first["hi"]) == (-0.25, -0.25)
    assert (second["lo"], second["hi"]) == (0, 0)
    assert (map_of(data, 0) == -0.25).all()
    assert (map_of(data, 1) == 0).all()


def test_what_is_no_number_is_masked_and_spoils_no_range() -> None:
    values = normal(2, 6, 7)
    values[1, 2], values[3, 4], values[5, 6] = np.nan, np.inf, -np.inf
    known = np.isfinite(values)
    data = packed(board_of(values))
    back = map_of(data, 0)
    assert (np.isnan(back) == ~known).all()
    step = (values[known].max() - values[known].min()) / 65534
    assert np.abs(back[known] - values[known]).max() <= 0.51 * step


def test_the_largest_number_beside_a_hole_is_no_hole() -> None:
    values = np.array([[0, 1, np.nan]], np.float32)
    assert map_of(packed(board_of(values)), 0)[0, :2].tolist() == [0, 1]


def test_a_map_without_any_number() -> None:
    data = packed(board_of(np.full((2, 2), np.nan, np.float32)))
    assert np.isnan(map_of(data, 0)).all()
    assert header_of(data)["maps"][0]["lo"] == 0


def test_json_never_holds_nan() -> None:
    bars = (Bar("0", float("nan"), 0), Bar("1", float("inf"), 1), Bar("2", 0.5, 2))
    board = board_of(np.full((2, 2), np.inf, np.float32), bars=bars)
    board = Board(
        board.size, board.panels, board.channels, Arithmetic("{z} = {g} · {x}", {"x": ("low", "own")}, {"g": np.nan})
    )
    data = packed(board)
    text = data[4 : 4 + int.from_bytes(data[:4], "little")].decode()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in the header"))
    assert [b["value"] for b in header_of(data)["panels"][0]["views"][0]["bars"]] == [None, None, 0.5]
    assert header_of(data)["arithmetic"]["constants"] == {"g": None}


def test_rgb_travels_as_it_is() -> None:
    picture = np.random.default_rng(3).integers(0, 256, (5, 7, 3), np.uint8)
    np.testing.assert_array_equal(map_of(packed(board_of(picture, scale="rgb")), 0), picture)


def test_maps_of_odd_size_keep_the_next_one_aligned() -> None:
    picture = np.full((3, 3, 3), 9, np.uint8)
    odd = np.arange(9, dtype=np.float32).reshape(3, 3)
    views = (
        PanelView("seen", "seen", "3 × 3", scale="rgb", maps=(Map(picture),)),
        PanelView("own", "own", "3 × 3", maps=(Map(odd), Map(odd + 1))),
    )
    data = packed(Board((3, 3), (Panel("low", "low", "Low", views),)))
    assert all(m["at"] % 4 == 0 for m in header_of(data)["maps"])
    np.testing.assert_allclose(map_of(data, 2), odd + 1, atol=1e-4)


def test_equal_maps_travel_once() -> None:
    values = normal(4, 8, 8)
    maps = (Map(values, "1", 1), Map(values.copy(), "2", 2))
    views = tuple(PanelView(k, k, "8 × 8", maps=maps) for k in ("own", "aligned"))
    data = packed(Board((8, 8), (Panel("low", "low", "Low", views),)))
    head = header_of(data)
    assert len(head["maps"]) == 1
    assert [m["map"] for v in head["panels"][0]["views"] for m in v["maps"]] == [0, 0, 0, 0]
    assert [m["channel"] for m in head["panels"][0]["views"][0]["maps"]] == [1, 2]


def test_the_sum_under_the_crosshair_adds_up_to_three_digits() -> None:
    low, high = np.maximum(normal(5, 16, 16, times=4), 0), normal(6, 16, 16, times=4)
    weight = 1 / (1 + np.exp(-normal(7, 16, 16)))
    fused = weight * low + (1 - weight) * high
    data = packed(board_of(low, high, weight, fused))
    x, y, m, z = (map_of(data, i) for i in range(4))
    ranges = [entry["hi"] - entry["lo"] for entry in header_of(data)["maps"]]
    # Half a step of each map, carried through the equation, is all that 16 bits may cost: far below three digits.
    allowed = (ranges[0] + ranges[1] + ranges[3]) / 65535 / 2 + np.abs(x - y).max() / 65535
    assert np.abs(m * x + (1 - m) * y - z).max() <= 1.01 * allowed
    assert allowed < 5e-4 * np.median(np.abs(fused))


def test_the_header_says_what_the_board_says() -> None:
    values = normal(8, 3, 4)
    view = PanelView("place", "place", "3 × 4", scale="weight", stride=(4, 8), offset=(1.5, 3.5), maps=(Map(values),),
                     over_picture=True, note="a note")  # fmt: skip
    panel = Panel(
        "weight", "weight", "Weight of low", (view,), 0, Badge("random", "random weights", "never trained"), "low"
    )
    arithmetic = Arithmetic("{z} = {w} · {x}", {"w": ("weight", "place")}, {"g": 2})
    board = Board((12, 32), (panel,), (4, 7), arithmetic, "caption", "credit")
    chosen = View(colormap="magma", gamma=0.5, range="all", aligned=True, pin=(3, 9), pin_channel=7)
    head = header_of(packed(board, chosen))
    assert head["size"] == [12, 32]
    assert head["channels"] == [4, 7]
    assert (head["caption"], head["credit"], head["digest"], head["language"]) == ("caption", "credit", "d1", "en")
    assert head["view"] == {
        "pin": [3, 9], "pin_channel": 7, "colormap": "magma", "gamma": 0.5, "range": "all", "aligned": True,
        "frame": None,
    }  # fmt: skip
    assert head["sweep"] is None
    assert head["arithmetic"] == {
        "template": "{z} = {w} · {x}", "sources": {"w": ["weight", "place"]}, "constants": {"g": 2.0},
    }  # fmt: skip
    sent = head["panels"][0]
    assert (sent["id"], sent["role"], sent["of"], sent["view"]) == ("weight", "weight", "low", "place")
    assert sent["badge"] == {"kind": "random", "text": "random weights", "help": "never trained"}
    drawn = sent["views"][0]
    assert drawn["scale"] == "weight"
    assert (drawn["maps"][0]["stride"], drawn["maps"][0]["offset"]) == ([4, 8], [1.5, 3.5])
    assert (drawn["over"], drawn["note"]) == (True, "a note")


def test_maps_of_several_levels_and_graphs_travel_whole() -> None:
    fine, coarse = Map(normal(1, 4, 4), "C4", level=(0, 2)), Map(normal(2, 2, 2), "C8", None, (1, 2), (8, 8), (4, 4))
    nodes = (Node("C4", 0.1, 0.9, (0, 2)), Node("T4", 0.9, 0.9, (0, 2), fused=True))
    edges = (Edge(0, 1, 0.4, "0.40", (0.5, 0.5), (0.5, 0.6)),)
    views = (
        PanelView("mix", "mix", "", scale="rgb", stride=(4, 4), maps=(Map(np.zeros((4, 4, 3), np.uint8)),),
                  shares=(fine, coarse), title="Weights"),
        PanelView("graph", "graph", "", "graph", nodes=nodes, edges=edges, labels=(Label(0.1, 0.0, "backbone"),)),
    )  # fmt: skip
    head = header_of(packed(Board((16, 16), (Panel("weight", "weight", "Weight", views),))))
    mix, graph = head["panels"][0]["views"]
    assert mix["title"] == "Weights"
    assert [(m["label"], m["level"], m["stride"]) for m in mix["shares"]] == [
        ("C4", [0, 2], [4, 4]), ("C8", [1, 2], [8, 8]),
    ]  # fmt: skip
    assert [head["maps"][m["map"]]["w"] for m in (*mix["maps"], *mix["shares"])] == [4, 4, 2]
    assert [(n["label"], n["x"], n["fused"]) for n in graph["nodes"]] == [("C4", 0.1, False), ("T4", 0.9, True)]
    sent = graph["edges"][0]
    assert (sent["start"], sent["end"], sent["share"], sent["text"]) == (0, 1, 0.4, "0.40")
    assert (sent["through"], sent["mark"]) == ([0.5, 0.5], [0.5, 0.6])
    assert graph["labels"][0]["text"] == "backbone"


def test_marks_travel_in_numbers_that_json_knows_and_those_that_stand_nowhere_do_not() -> None:
    marks = (
        Mark(tuple(np.float32([1, 2, 3.5, 4])), "ring 0.93", (0, 3)),
        Mark((0, 0, float("inf"), 1), "lost"),
        Mark((5, 5, 5, 5), "1", on=1, follows=True, faint=True),
    )
    board = board_of(normal(1, 3, 4))
    view = replace(board["low"].shown, marks=marks)
    sent = header_of(packed(replace(board, panels=(replace(board["low"], views=(view,)),))))["panels"][0]["views"][0]
    assert sent["marks"] == [
        {
            "box": [1.0, 2.0, 3.5, 4.0],
            "label": "ring 0.93",
            "level": [0, 3],
            "on": None,
            "follows": False,
            "faint": False,
        },
        {"box": [5.0, 5.0, 5.0, 5.0], "label": "1", "level": None, "on": 1, "follows": True, "faint": True},
    ]


def test_every_position_of_the_slider_has_its_own_marks() -> None:
    board = swept_board(3, 4)
    frames = tuple(
        replace(f, panels=(replace(f.panels[0], views=(replace(f.panels[0].shown, marks=(Mark((i, 0, i, 0)),) * i),)),
                           *f.panels[1:]))
        for i, f in enumerate(board.sweep.frames)
    )  # fmt: skip
    head = header_of(packed(replace(board, sweep=replace(board.sweep, frames=frames))))
    assert [[m["box"][0] for m in f["panels"][0][0]["marks"]] for f in head["sweep"]["frames"]] == [[], [1], [2, 2]]


def test_the_view_shown_first_is_named_by_its_key() -> None:
    views = tuple(PanelView(k, k, "2 × 2", maps=(Map(normal(9, 2, 2)),)) for k in ("own", "aligned"))
    head = header_of(packed(Board((2, 2), (Panel("low", "low", "Low", views, 1),))))
    assert head["panels"][0]["view"] == "aligned"


# --- the slider ------------------------------------------------------------------------------------
def swept_board(count: int, side: int) -> Board:
    """Return a board with two panels and a slider: low never changes, fused does, and so does one constant."""
    low = normal(20, side, side)
    boards = []
    for i in range(count):
        fused = normal(21 + i, side, side)
        views = (
            PanelView("own", "own", "", maps=(Map(low, "0", 0),)),
            PanelView("f", "f", "", maps=(Map(fused, "0", 0),)),
        )
        bars = (Bar("0", i / count, 0),)
        panels = (
            Panel("low", "low", "Low X", views[:1]),
            Panel("weight", "weight", "W", (PanelView("bars", "bars", "", "bars", "weight", bars=bars, note=f"n{i}"),)),
            Panel("fused", "fused", "Fused Z", views[1:]),
        )
        boards.append((panels, Arithmetic("{z} = {a} · {x}", {"x": ("low", "own")}, {"a": i / count})))
    frames = tuple(BoardFrame(i / 2, i / (count - 1), str(i), f"f{i}", None, *b) for i, b in enumerate(boards))
    sweep = BoardSweep("balance", "Balance", ("detail", "meaning"), "curve", frames, 1, 1)
    return Board((side, side), boards[1][0], (0,), boards[1][1], sweep=sweep)


def test_every_position_of_the_slider_travels_once_with_what_differs() -> None:
    board = swept_board(4, 12)
    head = header_of(data := packed(board.at(3), View(frame=1.5)))
    assert head["view"]["frame"] == 1.5
    assert len(head["maps"]) == 5, "low once, fused at each position"
    assert head["arithmetic"]["constants"] == {"a": 0.25}, "the panels are those of the start"
    start = head["panels"][2]["views"][0]["maps"][0]["map"]
    sent = head["sweep"]["frames"]
    assert [f["panels"][0][0]["maps"] for f in sent] == [[0]] * 4
    assert sent[1]["panels"][2][0]["maps"] == [start]
    for i, (frame, was) in enumerate(zip(sent, board.sweep.frames, strict=True)):
        assert (frame["value"], frame["text"], frame["facts"], frame["height"]) == (i / 2, str(i), f"f{i}", None)
        assert frame["constants"] == {"a": i / 4}
        none = {"maps": [], "names": [], "shares": [], "edges": [], "marks": []}
        assert frame["panels"][1] == [{**none, "bars": [i / 4], "note": f"n{i}"}]
        values = was.panels[2].shown.maps[0].values
        np.testing.assert_allclose(map_of(data, frame["panels"][2][0]["maps"][0]), values, atol=2e-4)


def test_the_bytes_do_not_depend_on_where_the_slider_stands() -> None:
    board = swept_board(3, 8)
    heads = [header_of(packed(b)) for b in (board, board.at(0), board.at(2))]
    assert heads[0] == heads[1] == heads[2]


def test_positions_that_are_too_much_travel_with_eight_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    board = swept_board(6, 40)
    plain = packed(board)
    monkeypatch.setattr(component, "MOST_BYTES", 6 * 2 * 40 * 40)  # there are seven maps
    data = packed(board)
    maps = header_of(data)["maps"]
    assert [m["bits"] for m in header_of(plain)["maps"]] == [16] * 7
    assert [m["bits"] for m in maps] == [16, 16, 8, 8, 8, 8, 8], "the start keeps its digits"
    assert len(plain) - len(data) > 5 * 40 * 40 - 40
    last = board.sweep.frames[5].panels[2].shown.maps[0].values
    step = (last.max() - last.min()) / 255
    assert np.abs(map_of(data, 6) - last).max() <= 0.51 * step


def test_eight_bits_keep_holes_and_ends() -> None:
    values = np.array([[0, 1, np.nan, 0.5]], np.float32)
    entry, cells = component.quantise(values, 8)
    assert entry == {"lo": 0.0, "hi": 1.0, "bits": 8, "holes": True}
    assert list(cells) == [0, 254, 255, 127]


def test_frames_that_differ_in_more_than_numbers_are_refused() -> None:
    sweep = swept_board(3, 4).sweep
    panel = sweep.frames[2].panels[2]
    other = replace(panel, views=(replace(panel.shown, maps=(Map(normal(0, 4, 4), "7", 7),)),))
    frames = (*sweep.frames[:2], replace(sweep.frames[2], panels=(*sweep.frames[2].panels[:2], other)))
    with pytest.raises(ValueError, match="channels"):
        replace(sweep, frames=frames)


@pytest.mark.parametrize("language", texts.LANGUAGES)
def test_the_browser_gets_its_words(language: str) -> None:
    words = header_of(packed(board_of(normal(10, 2, 2)), language=language))["text"]
    assert words["high_wins"] == texts.text("board.high_wins", language)
    assert words["low"] == texts.text("attention.of.low", language)
    assert list(words["colormaps"]) == list(COLORMAPS)
    assert list(words["ranges"]) == list(RANGES)
    assert words["gestures"].keys() == words["meanings"].keys()


def test_every_word_of_the_script_exists_in_every_language() -> None:
    script = (component._HERE / "board.js").read_text("utf-8")
    used = set(re.findall(r'this\.t\("(\w+)"', script)) | {"place", "place_channel"}
    used |= {f"{name}{tip}" for name in ("overlay", "aligned", "colormap", "gamma", "range") for tip in ("", "_tip")}
    assert len(used) > 20
    for language in texts.LANGUAGES:
        missing = {key for key in used if not texts.has(f"board.{key}", language)}
        assert not missing


def test_browser_and_slide_share_their_colours() -> None:
    shared = json.loads(component._shared().removeprefix("const SHARED = ").rstrip(";\n"))
    assert shared["roles"] == scales.ROLE_COLOURS
    for name, table in scales.LUTS.items():
        np.testing.assert_array_equal(np.frombuffer(base64.b64decode(shared["luts"][name]), np.uint8), table.ravel())
    assert shared["pin"] == scales.PIN_COLOUR
    inks = {c: scales.ink_on(c) for theme in shared["branches"].values() for colours in theme for c in colours}
    assert shared["inks"] == {**inks, scales.PIN_COLOUR: scales.ink_on(scales.PIN_COLOUR)}
    assert shared["branches"]["dark"][3] == list(scales.branch_colours(3, dark=True))
    assert shared["none"]["light"] == scales.colour(np.array([[np.nan]]), 0, 1, "sequential")[0, 0].tolist()


def test_the_script_fetches_nothing() -> None:
    script = component._shared() + (component._HERE / "board.js").read_text("utf-8")
    style = (component._HERE / "board.css").read_text("utf-8")
    for word in ("http://", "https://", "fetch(", "@import", "url(", "import("):
        assert word not in script + style


# --- what comes back -------------------------------------------------------------------------------
def told(**values: object) -> dict:
    return {"changes": values}


def test_changes_fit_a_selection() -> None:
    sent = told(
        pin=[48, 71], pin_channel=27, colormap="magma", gamma=1, range="all", aligned=False, views={"low": "own"}
    )
    found = component.changes(sent)
    assert found == {
        "pin": (48, 71), "pin_channel": 27, "colormap": "magma", "gamma": 1.0, "range": "all", "aligned": False,
    }  # fmt: skip
    assert Selection().with_(**found).view.pin == (48, 71)


def test_where_the_slider_stands_is_a_number_or_its_start() -> None:
    assert component.changes(told(frame=1)) == {"frame": 1.0}
    assert component.changes(told(frame=0.46)) == {"frame": 0.46}
    assert component.changes(told(frame=None)) == {"frame": None}
    assert Selection().with_(**component.changes(told(frame=120))).view.frame == 120


def test_unpinning_is_told_from_not_touching() -> None:
    assert component.changes(told(pin=None, pin_channel=None)) == {"pin": None, "pin_channel": None}
    assert component.changes(told(colormap="gray")) == {"colormap": "gray"}
    for nothing in (None, {}, {"changes": None}):
        assert component.changes(nothing) == {}


@pytest.mark.parametrize(
    "bad",
    [
        {"pin": [1]}, {"pin": [1, -2]}, {"pin": [1.5, 2]}, {"pin": "12"}, {"pin": [True, 1]}, {"pin_channel": -1},
        {"pin_channel": "3"}, {"colormap": "jet"}, {"colormap": ["viridis"]}, {"gamma": 0}, {"gamma": "1"},
        {"gamma": float("nan")}, {"range": "none"}, {"aligned": None}, {"aligned": 1}, {"seed": 4}, {"frame": -0.1},
        {"frame": "0.5"}, {"frame": True}, {"frame": float("inf")}, {"frame": float("nan")}, {"frame": [0.5]},
    ],
)  # fmt: skip
def test_a_forged_change_is_dropped(bad: dict) -> None:
    assert component.changes(told(**bad, range="map") if "range" not in bad else told(**bad)) == (
        {} if "range" in bad else {"range": "map"}
    )


# --- on a page -------------------------------------------------------------------------------------
def _page() -> None:
    import numpy as np
    import streamlit as st

    from fusionviz.board import Board, Map, Panel, PanelView
    from fusionviz.selection import View
    from fusionviz.ui.components import board as component

    view = PanelView("own", "own", "4 × 4", maps=(Map(np.eye(4, dtype=np.float32), "0", 0),))
    shown = Board((4, 4), (Panel("low", "low", "Low", (view,)),), (0,))
    st.session_state.got = component.board(component.pack(shown, View(), "en", digest="a"), key="board")


def test_the_page_gets_bytes_and_reports_no_change_of_its_own() -> None:
    page = AppTest.from_function(_page, default_timeout=60).run()
    assert not page.exception
    proto = page.get("bidi_component")[0].proto
    assert proto.WhichOneof("data") == "bytes"
    np.testing.assert_array_equal(map_of(proto.bytes, 0), np.eye(4))
    assert page.session_state.got == {}
