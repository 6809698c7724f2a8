"""Whole systems through the front door of everything else: study, board, slide, link, command line."""

import io
import json

import pytest

import fusionviz as fv
from fusionviz import api, bench, panels, scales, scenes, state, study, system_panels, systems, texts
from fusionviz.cli import main
from fusionviz.errors import LevelError, ParameterError
from fusionviz.figures import slide
from fusionviz.selection import Selection, View

OURS = [key for key in systems.names() if systems.spec(key).family != "wild"]
DETECTORS = [key for key in OURS if systems.spec(key).family == "late"]
ASKED = [key for key in OURS if systems.spec(key).takes == "image+text"]
each_of_ours = pytest.mark.parametrize("key", OURS)


@each_of_ours
def test_a_system_has_a_study_a_board_and_a_report(key: str) -> None:
    found = study.run(Selection(method=key))
    assert found.selection.site is None
    assert found.costs()["parameters"] > 10_000
    assert found.costs()["macs"] > 100_000
    once, whole = sum(found.step_macs().values()), found.costs()["macs"]
    assert once == whole or (once < whole and systems.spec(key).family == "place_time")  # who looks several times
    counted = sum(step.parameters for step in found.result.trace)
    assert counted >= 0.99 * found.costs()["parameters"]
    report = json.loads(json.dumps(study.report(found)))
    assert report["method"]["key"] == key
    assert report["outputs"]
    for language in texts.LANGUAGES:
        board = panels.build(found, View(), language)
        assert board.panels[0].id == "picture"
        assert board.panels[-1].id == "fused"
        assert all(view.label and view.shape for panel in board.panels for view in panel.views)
        assert not any("{" in panel.title for panel in board.panels)


@each_of_ours
def test_a_system_has_a_slide(key: str) -> None:
    found = fv.explore("scene:3", method=key)
    file = io.BytesIO()
    slide.save(found.figure(), file, "png")
    assert file.getvalue().startswith(b"\x89PNG")


@each_of_ours
def test_a_link_opens_the_same_system(key: str) -> None:
    found = fv.explore("scene:3", method=key)
    link = found.link()
    selection, notices = state.read(state.parse_text(link), api.catalogue())
    assert notices == ()
    assert study.resolve(selection) == found.selection
    assert "lo=" not in link


@each_of_ours
def test_a_system_says_what_it_took(key: str) -> None:
    found = study.run(Selection(method=key))
    assert found.timings["system"] > 0
    assert ("backbone" in found.timings) is bool(study.takes_levels(found.selection))
    times = study.profile(study.prepare(Selection(method=key)), repeats=1)
    assert times.keys() <= {step.key for step in found.result.trace}
    assert len(times) > 3


@pytest.mark.parametrize("key", DETECTORS)
def test_boxes_have_the_colour_of_their_level_and_truth_stands_beside(key: str) -> None:
    found = study.run(Selection(method=key, params=(("score", 0.02),)))
    board = panels.build(found, View())
    told = found.result.outputs["detections"]
    assert len(told) > 0
    marks = board["fused"].shown.marks
    assert len(marks) == len(told)
    surest = marks[0]
    assert surest.level == (int(told.level[0]), 4)
    assert surest.box == pytest.approx(told.boxes[0].tolist(), abs=0.01)
    truth = next(view for view in board["picture"].views if view.key == "truth")
    assert len(truth.marks) == len(scenes.scene(21).boxes)
    assert [m.label for m in board["weight"].shown.maps] == ["s4", "s8", "s16", "s32"]
    assert [m.label for m in board["low"].shown.maps] == ["C₁", "C₂", "C₃", "C₄"]


@pytest.mark.parametrize("key", DETECTORS)
def test_a_level_that_is_off_claims_nothing(key: str) -> None:
    some = (("score", 0.02),)
    one = study.run(Selection(method=key, params=(*some, ("s4", False), ("s8", False), ("s16", False))))
    assert set(one.result.outputs["detections"].level.tolist()) <= {3}
    none = study.run(Selection(method=key, params=tuple((f"s{n}", False) for n in (4, 8, 16, 32))))
    assert len(none.result.outputs["detections"]) == 0
    panels.build(none, View())


@pytest.mark.parametrize("key", ["ram", "dram"])
def test_the_path_is_drawn_in_the_order_of_the_glimpses(key: str) -> None:
    found = study.run(Selection(method=key, params=(("glimpses", 4),)))
    board = panels.build(found, View())
    dots = [m for m in board["weight"].shown.marks if not m.faint]
    assert [m.label for m in dots] == ["1", "2", "3", "4"]
    assert [m.follows for m in dots] == [False, True, True, True]
    path = found.result.outputs["path"]
    assert [(m.box[1], m.box[0]) for m in dots] == [pytest.approx(p, abs=0.01) for p in path.places.tolist()]
    windows = board["low"].shown.maps
    assert len(windows) == 4 * len(path.sides)
    assert all(0 <= v <= 1 and v + m.box[2] <= 1.001 for m in windows for v in m.box[:2])


def test_every_word_has_a_map_and_hard_attention_a_place() -> None:
    soft, hard = (study.run(Selection(method="show_attend_tell", params=(("attention", a),))) for a in ("soft", "hard"))
    told = soft.result.outputs["words"]
    board = panels.build(soft, View())
    assert len(board["weight"].shown.maps) == len(told.words)
    assert board["weight"].shown.marks == ()
    marks = panels.build(hard, View())["weight"].shown.marks
    assert [m.on for m in marks] == list(range(len(hard.result.outputs["words"].words)))


def test_a_sentence_is_written_as_people_write_it() -> None:
    words = ("red", "ring", "blue", "tree")
    assert system_panels.sentence(words) == "red ring, blue tree"
    assert "、" in system_panels.sentence(words, "zh")
    assert system_panels.sentence(()) == ""


# --- phrases -------------------------------------------------------------------------------------
@pytest.mark.parametrize("key", ASKED)
def test_nobody_has_to_say_a_phrase(key: str) -> None:
    selection = study.resolve(Selection(method=key))
    assert selection.phrase in scenes.scene(21).phrases
    other = study.resolve(Selection(method=key, picture="sample:coffee"))
    scenes.words_of(other.phrase)


@pytest.mark.parametrize("key", ASKED)
def test_an_unknown_word_is_answered_with_the_words_there_are(key: str) -> None:
    with pytest.raises(ParameterError) as caught:
        study.run(Selection(method=key, phrase="the blue unicorn"))
    assert "unicorn" in str(caught.value)
    assert "ring" in str(caught.value)


def test_a_phrase_travels_in_a_link_and_only_where_one_is_taken() -> None:
    selection = Selection(method="film", phrase="the small blue ring")
    query = state.write_query(selection)
    assert query["q"] == "the small blue ring"
    back, notices = state.read(query, api.catalogue())
    assert (back.phrase, notices) == (selection.phrase, ())
    back, _ = state.read({"m": "ssd", "q": "the ring"}, api.catalogue())
    assert back.phrase is None
    back, notices = state.read({"m": "film", "q": "x" * 500}, api.catalogue())
    assert back.phrase is None
    assert len(notices) == 1


def test_capitals_and_spaces_are_no_other_phrase() -> None:
    a, b = (study.resolve(Selection(method="film", phrase=p)) for p in ("the red ring", "  The  RED ring "))
    assert a == b


# --- pictures ---------------------------------------------------------------------------------------
def test_a_scene_has_one_thing_for_who_was_trained_so_and_all_of_them_for_others() -> None:
    ram, ssd = Selection(method="ram"), Selection(method="ssd")
    assert study.picture_for(ram, ssd) == "scene:21:1"
    assert study.picture_for(ssd.with_(picture="scene:21:1"), ram) == "scene:21"
    assert study.picture_for(ssd.with_(picture="scene:1"), ram) == "scene:1"
    assert study.picture_for(ram.with_(picture="scene:1:3"), ram) == "scene:1:3"
    assert study.picture_for(ssd.with_(picture="scene:4:1"), ssd) == "scene:4:1"
    assert study.picture_for(ram.with_(picture="sample:coffee"), ssd) == "sample:coffee"


# --- mistakes --------------------------------------------------------------------------------------
def test_a_network_without_the_levels_is_answered() -> None:
    with pytest.raises(LevelError) as caught:
        study.run(Selection(method="ssd", backbone="vit_b_16"))
    assert "s4, s8, s16, s32" in str(caught.value)


def test_on_another_network_a_system_is_random_and_says_so() -> None:
    found = study.run(Selection(method="ssd", backbone="scene_mobilenet"))
    assert found.result.provenance.kind == "random"
    assert found.card is None


def test_a_system_is_no_block_between_maps() -> None:
    with pytest.raises(ParameterError, match="whole system"):
        fv.build("ssd", (16, 32, 64, 96))


@pytest.mark.parametrize("key", ["ssd", "ram"])
def test_the_bench_takes_a_system(key: str) -> None:
    found = bench.run("scene_resnet", key, rounds=1)
    assert found["study_over_bare"] > 0


# --- command line ------------------------------------------------------------------------------------
@each_of_ours
def test_the_command_line_runs_a_system(key: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--image", "scene:5", "--method", key, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["method"]["key"] == key
    assert main(["run", "--image", "scene:5", "--method", key]) == 0
    assert key in capsys.readouterr().out


def test_the_command_line_lists_systems_and_answers_unknown_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "methods", "--json"]) == 0
    rows = {row["key"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(systems.names()) <= set(rows)
    assert rows["film"]["takes"] == "image+text"
    assert main(["run", "--method", "film", "--phrase", "the ufo"]) == 2
    assert "ufo" in capsys.readouterr().err


# --- networks in the wild ----------------------------------------------------------------------------
WILD = (
    ("wild_gates", "mobilenet_v3_small"),
    ("wild_segment", "lraspp_mobilenet_v3_large"),
    ("wild_segment", "deeplabv3_mobilenet_v3_large"),
    ("wild_detect", "ssdlite320_mobilenet_v3_large"),
    ("wild_detect", "fasterrcnn_mobilenet_v3_large_320_fpn"),
    ("wild_attention", "vit_b_32"),
    ("wild_attention", "swin_t"),
)


@pytest.mark.parametrize(("key", "net"), WILD)
def test_a_network_in_the_wild_has_a_study_a_board_a_slide_and_a_link(key: str, net: str) -> None:
    knobs = {"scale": "given"} if "scale" in {p.key for p in systems.spec(key).params} else {}
    found = fv.explore("sample:coffee", method=key, size=96, net=net, **knobs)
    assert found.provenance.kind == "random"
    assert found.costs()["parameters"] > 500_000
    assert json.loads(json.dumps(study.report(found)))["outputs"]
    for language in texts.LANGUAGES:
        board = panels.build(found, View(), language)
        assert board.panels[0].id == "picture"
        assert all(view.label and view.shape for panel in board.panels for view in panel.views)
        for panel in board.panels:
            assert len({view.key for view in panel.views}) == len(panel.views)
    file = io.BytesIO()
    slide.save(found.figure(), file, "png")
    assert len(file.getvalue()) > 10_000
    selection, notices = state.read(state.parse_text(found.link()), api.catalogue())
    assert notices == ()
    assert study.resolve(selection) == found.selection


def test_a_vit_is_asked_at_a_place_and_its_class_token_has_a_row() -> None:
    found = fv.explore("sample:coffee", method="wild_attention", net="vit_b_32", size=96)
    pairs = found.result.attention["pairs"].tensor[0]
    side = int((pairs.shape[-1] - 1) ** 0.5)
    board = panels.build(found, View(pin=(0, 0)))
    shown = {view.key: view for view in board["weight"].views}
    asked, token = shown["rows"], shown["class-rows"]
    assert asked.maps[0].values == pytest.approx(pairs[0, 1, 1:].view(side, side).numpy())
    assert token.maps[0].values == pytest.approx(pairs[0, 0, 1:].view(side, side).numpy())
    assert asked.asks is not None
    assert token.asks is None


def test_a_place_has_the_colour_of_its_class() -> None:
    found = fv.explore("sample:coffee", method="wild_segment", size=96, net="lraspp_mobilenet_v3_large", scale="given")
    told = found.result.outputs["classes"]
    picture = panels.build(found, View())["fused"].shown.maps[0].values
    colours = scales.class_colours(len(told.classes))
    assert len({tuple(c) for c in colours.tolist()}) == len(told.classes)
    assert (picture == colours[told.tensor.numpy()]).all()


def test_a_swin_window_is_asked_where_the_pin_lies() -> None:
    found = fv.explore("sample:coffee", method="wild_attention", net="swin_t", depth=0.0)
    height, width = found.seen.shown.shape[:2]
    for pin in ((3, 3), (width - 3, 3), (3, height - 3), (width // 2, height // 2)):
        board = panels.build(found, View(pin=pin))
        shown = board["weight"].shown
        y0, x0 = shown.offset[0] - shown.stride[0] / 2, shown.offset[1] - shown.stride[1] / 2
        rows, columns = shown.maps[0].values.shape
        assert x0 <= pin[0] < x0 + columns * shown.stride[1]
        assert y0 <= pin[1] < y0 + rows * shown.stride[0]
        assert len(board["weight"].views) <= 4


def test_turning_a_knob_does_not_build_a_network_anew() -> None:
    one = study.prepare(Selection(method="wild_gates", params=(("net", "mobilenet_v3_small"),)))
    other = study.prepare(Selection(method="wild_gates", params=(("net", "mobilenet_v3_small"), ("depth", 0.5))))
    assert one.method.network is other.method.network
    assert one.method.params["depth"] != other.method.params["depth"]
