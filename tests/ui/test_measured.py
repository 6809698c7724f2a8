"""What the Systems page says of measured systems: the sentence that the numbers choose, and the page with cards."""

import json
import re
import shutil
import statistics
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import streamlit as st
import torch
from streamlit.testing.v1 import AppTest
from torch.nn import functional as F

from fusionviz import backbones, measured, pack, systems, texts
from fusionviz.board import Mark
from fusionviz.leaderboard import Figure
from fusionviz.pack import SystemCard
from fusionviz.scenes.colours import COLOURS
from fusionviz.systems.show_attend_tell import END, WORDS
from fusionviz.training import detecting, packing, telling
from fusionviz.ui.components import measured as page_component

ROOT = Path(__file__).resolve().parents[2]
each_language = pytest.mark.parametrize("language", texts.LANGUAGES)

CASES = {
    "more": (Figure(85.9, 0.4), Figure(76.8, 0.5)),
    "less": (Figure(76.8, 0.5), Figure(85.9, 0.4)),
    "tied": (Figure(80.2, 0.5), Figure(79.8, 0.6)),
    "single": (Figure(85.9), Figure(76.8, 0.5)),
}


def card(**changes: object) -> SystemCard:
    plain = {
        "backbone": "scene_resnet", "system": "ssd", "params": (), "metrics": {}, "spread": {}, "seeds": 1,
        "figures": {}, "parameters": 1, "fingerprint": "", "made": {}, "file": "", "sha256": "",
    }  # fmt: skip
    return SystemCard(**plain | changes)


# --- sentences -----------------------------------------------------------------------------------
@each_language
@pytest.mark.parametrize("word", CASES)
def test_the_numbers_choose_the_sentence(word: str, language: str) -> None:
    a, b = CASES[word]
    found = measured.gap(a, b)
    assert found.word == word
    said = measured.compare("AP", ("One", a), ("Other", b), language)
    apart = f"{abs(a.mean - b.mean):.1f}"
    told = {"metric": "AP", "a": "One", "x": a.text(), "b": "Other", "y": b.text(), "apart": apart}
    noise = {} if word == "single" else {"noise": f"{2 * np.hypot(a.sd, b.sd) / np.sqrt(2):.1f}"}
    assert said == texts.text(f"measured.compare.{word}", language, **told, **noise)
    others = {measured.compare("AP", ("One", x), ("Other", y), language) for w, (x, y) in CASES.items() if w != word}
    assert said not in others


def test_noise_is_twice_the_pooled_spread() -> None:
    found = measured.gap(Figure(50.0, 0.3), Figure(49.0, 0.4))
    assert found.noise == pytest.approx(2 * statistics.fmean([0.09, 0.16]) ** 0.5)
    assert found.word == "more"
    assert measured.gap(Figure(50.0, 0.7), Figure(49.0, 0.8)).word == "tied"


@each_language
def test_fewer_errors_are_better(language: str) -> None:
    few, many = Figure(12.0, 0.3), Figure(33.6, 1.5)
    helps = measured.errors("RAM", 6, few, many, language)
    harms = measured.errors("RAM", 6, many, few, language)
    assert "0.36" in helps
    assert "2.80" in harms
    words = {"en": ("helps", "harm", "chance"), "zh": ("有帮助", "有害", "偶然")}[language]
    assert words[0] in helps
    assert words[1] in harms
    assert words[2] in measured.errors("RAM", 6, Figure(12.0), Figure(33.6), language)
    alike = measured.errors("RAM", 6, Figure(33.0, 1.5), many, language)
    assert not any(word in alike for word in words)
    assert "0.98" in alike


def test_chinese_has_no_space_between_its_own_characters() -> None:
    said = measured.compare("小物体的 AP", ("FPN 检测器", Figure(1.0)), ("SSD", Figure(2.0)), "zh")
    assert "检测器为 1.0" in said
    assert not re.search(r"[\u4e00-\u9fff] [\u4e00-\u9fff]", said)


# --- cards ---------------------------------------------------------------------------------------
def test_figures_of_a_card() -> None:
    told = card(metrics={"ap": 90.0, "iou": float("nan"), "found": 3.0}, spread={"ap": 0.5})
    assert measured.figure(told, "ap") == Figure(90.0, 0.5)
    assert measured.figure(told, "found") == Figure(3.0)
    assert measured.figure(told, "iou") is None
    assert measured.figure(told, "silent") is None


def test_curves_of_a_card() -> None:
    kept = {"learned": {"error_1": 60.0, "error_10": 5.0, "error_2": 40.0}, "random": "none"}
    told = card(
        metrics={"learned_6": 10.0, "learned_2": 40.0, "random_2": 60.0}, spread={"learned_2": 1.0}, figures=kept
    )
    assert list(measured.curve(told, "learned").items()) == [(1, 60.0), (2, 40.0), (10, 5.0)]
    assert measured.curve(told, "random") == {}
    assert measured.points(told, "learned") == {2: Figure(40.0, 1.0), 6: Figure(10.0)}


# --- one picture ---------------------------------------------------------------------------------
def test_what_is_right_in_a_picture_is_what_counts_on_the_cards() -> None:
    draw = torch.Generator().manual_seed(0)
    at = torch.rand(12, 2, generator=draw) * 90
    real = torch.cat((at, at + 8 + 28 * torch.rand(12, 2, generator=draw)), 1)
    boxes = real.repeat(3, 1) + 6 * torch.randn(36, 4, generator=draw)
    labels = torch.randint(1, 3, (12,), generator=draw)
    guessed = torch.where(torch.rand(36, generator=draw) < 0.8, labels.repeat(3), 3 - labels.repeat(3))
    rows = torch.cat((boxes, torch.linspace(1, 0.6, 36)[:, None], guessed[:, None], torch.zeros(36, 1)), 1)
    counted = detecting.tally([rows], detecting.Things(real[None], labels[None], 128), 0.5)
    right, taken = measured.matched(
        boxes.numpy(), [str(k) for k in guessed.tolist()], real.numpy(), [str(k) for k in labels.tolist()]
    )
    assert right == counted.right.tolist()
    assert taken == (counted.by >= 0).tolist()
    assert 3 < sum(right) < 12
    assert measured.matched(np.zeros((0, 4)), [], real.numpy(), ["1"] * 12) == ([], [False] * 12)


@pytest.mark.parametrize("size", [(128, 128), (97, 131)])
def test_an_answer_is_enlarged_as_where_it_is_measured(size: tuple[int, int]) -> None:
    logits = torch.randn(1, 1, 49, 64, generator=torch.Generator().manual_seed(1)) * 4
    wanted = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)[0, 0].sigmoid()
    found = measured.enlarged(logits.sigmoid()[0, 0].numpy(), size)
    assert found.shape == size
    assert np.abs(found - wanted.numpy()).max() < 1e-3


def test_masks_that_cover_each_other() -> None:
    lit, meant = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    assert measured.covers(lit, meant) is None
    lit[:2], meant[1:3] = True, True
    assert measured.covers(lit, meant) == pytest.approx(1 / 3)
    assert measured.covers(lit, np.zeros((4, 4), bool)) == 0


def test_each_name_is_of_one_thing() -> None:
    red, blue = ("red", "ring"), ("blue", "tree")
    assert measured.named([red, red, blue], [blue, red]) == ([(red, True), (red, False), (blue, True)], 2)


def test_names_are_read_as_where_they_are_measured() -> None:
    said = ["red", "ring", "ring", "blue", "red", "tree", "teal"]
    positions = [WORDS.index(word) for word in said]
    wanted = [(WORDS[a], WORDS[b]) for a, b in telling.pairs([*positions, END])]
    assert measured.pairs(said, COLOURS) == wanted == [("red", "ring"), ("red", "tree")]


# --- the page ------------------------------------------------------------------------------------
HOW = {"test_scenes": 1234}
DETECTED = {f"{what}{end}": 70.0 for what in ("ap", "recall") for end in ("", "_small", "_medium", "_large")}
FOUND_BY = {f"{size}_{level}": 20.0 for size in ("small", "medium", "large") for level in ("s4", "s8", "s16", "s32")}
POINTED = dict.fromkeys(("iou", "found", "size", "extreme", "colour", "texture", "kind", "silent"), 80.0)
CURVES = {look: {f"error_{t}": high / t for t in range(1, 9)} for look, high in (("learned", 30.0), ("random", 72.0))}
LOOKED = {f"{look}_{t}": curve[f"error_{t}"] for look, curve in CURVES.items() for t in (2, 4, 6, 8)}
TOLD = {"described": 91.0, "colours": 95.0, "kinds": 93.0, "right": 92.0}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A pack without systems, which the app reads."""
    for end in ("json", "safetensors"):
        shutil.copy(pack.folder() / f"scene_resnet.{end}", tmp_path)
    monkeypatch.setattr(pack, "folder", lambda: tmp_path)
    st.cache_resource.clear()
    yield tmp_path
    st.cache_resource.clear()


def ship(folder: Path, key: str, mean: dict[str, float], sd: float = 0.0, more: dict | None = None) -> None:
    """Write a system with random numbers, and a card that says what a test wants."""
    module = systems.build(key, backbones.info("scene_resnet").levels)
    seeds = [{k: v + side * sd for k, v in mean.items()} for side in (-1, 0, 1)] if sd else [mean]
    packing.write_system(folder, "scene_resnet", module, seeds, HOW, more=more)


def open_page(**query: str) -> AppTest:
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    for key, value in query.items():
        app.query_params[key] = value
    app.run()
    assert not app.exception, app.exception
    app.switch_page("fusionviz/ui/pages/systems_page.py").run()
    assert not app.exception, app.exception
    return app


def drawn(app: AppTest) -> str:
    return "\n".join([*(h.proto.body for h in app.get("html")), *(m.value for m in app.markdown)])


@each_language
def test_detectors_stand_beside_each_other(folder: Path, language: str) -> None:
    ship(folder, "ssd", DETECTED, 0.5, FOUND_BY)
    ship(folder, "fpn_detector", DETECTED | {"ap_small": 79.0}, 0.5, FOUND_BY)
    page = drawn(open_page(m="ssd", img="scene:7", lang=language))
    ours, other = (texts.method_text(key, "short", language) for key in ("fpn_detector", "ssd"))
    metric = texts.text("measured.late.ap_small", language)
    assert (
        measured.compare(metric, (ours, Figure(79.0, 0.5)), (other, Figure(70.0, 0.5)), language).replace(
            " ± ", "\u00a0±\u00a0"
        )
        in page
    )
    assert page.count("<figure") == 3
    assert page.count('class="ms-shares"') == 2  # MS-CNN has no card
    missing = texts.method_text("mscnn", "short", language)
    assert texts.text("measured.missing", language, systems=missing) in page
    assert "1,234" in page
    assert page.count('<figure class="ms-figure chosen">') == 1


def test_the_other_detectors_have_the_same_knobs(folder: Path) -> None:
    """With no level heard, nobody finds anything, and every thing is drawn as missed."""
    page = drawn(open_page(m="ssd", img="scene:7", **{f"k.{level}": "off" for level in detecting.LEVELS}))
    things = page.count('class="ms-box missed"')
    assert things % 3 == 0
    assert things > 0
    assert page.count(f"0 of {things // 3} found, 0 wrong") == 3


@each_language
def test_four_answers_to_one_phrase(folder: Path, language: str) -> None:
    ship(folder, "phrase_concat", POINTED, 0.5)
    ship(folder, "phrase_product", POINTED | {"iou": 66.0}, 0.5)
    ship(folder, "gmu", POINTED | {"iou": 80.3}, 0.5)
    page = drawn(open_page(m="gmu", img="scene:7", lang=language, q="the largest ball"))
    assert page.count("<figure") == 4
    assert (
        page.count(texts.text("measured.compare.more", language).rpartition("{apart}")[2].partition("{noise}")[0]) == 1
    )
    missing = texts.method_text("film", "short", language)
    assert texts.text("measured.missing", language, systems=missing) in page


@each_language
def test_glimpses_have_a_curve_and_a_sentence(folder: Path, language: str) -> None:
    levels = LOOKED | {f"ratio_{t}": 0.417 for t in (2, 4, 6, 8)}
    ship(folder, "ram", levels, more=CURVES)
    page = drawn(open_page(m="ram", img="scene:7", lang=language))
    assert page.count('src="data:image/svg+xml') == 1
    said = measured.errors("RAM", 6, Figure(5.0), Figure(12.0), language)
    assert said.replace(" %", "\u00a0%") in page
    assert texts.text("measured.missing", language, systems="DRAM") in page


@each_language
def test_a_description_stands_beside_what_is_there(folder: Path, language: str) -> None:
    ship(folder, "show_attend_tell", TOLD, 0.3)
    page = drawn(open_page(m="show_attend_tell", img="scene:7", lang=language))
    for name, value in TOLD.items():
        assert f"{value:.1f} <i>± 0.3</i>" in page
        assert texts.text(f"measured.told.{name}_help", language) in page
    assert texts.text("measured.told.scene", language) in page
    photograph = drawn(open_page(m="show_attend_tell", img="sample:chelsea", lang=language))
    assert texts.text("measured.told.scene", language) not in photograph


def test_the_surest_box_lies_on_top_and_words_keep_clear_of_each_other() -> None:
    sure, other = Mark((10, 40, 60, 90), "ring 0.99", (0, 4)), Mark((12, 40, 70, 95), "tree 0.60", (3, 4))
    page = page_component._boxes([sure, other, Mark((5, 5, 9, 9), faint=True)], 128, 128)
    assert re.findall(r"ms-box missed|ring 0.99|tree 0.60", page) == ["ms-box missed", "tree 0.60", "ring 0.99"]
    assert len(set(re.findall(r'<b class="(\w+ \w+)"', page))) == 2  # not both on the same side
    rooms = []
    for mark in (sure, other):
        page_component._side(mark.label, tuple(100 * v / 128 for v in mark.box), rooms)
    assert not page_component._touch(*rooms)


def test_a_photograph_has_boxes_and_nothing_missed(folder: Path) -> None:
    page = drawn(open_page(m="ssd", img="sample:chelsea"))
    assert page.count("<figure") == 3
    assert 'class="ms-box missed"' not in page


def test_a_damaged_card_is_a_sentence(folder: Path) -> None:
    ship(folder, "ssd", DETECTED)
    ship(folder, "mscnn", DETECTED)
    path = next(folder.glob("*.mscnn.json"))
    path.write_text(json.dumps({"system": "mscnn"}), "utf-8")
    app = open_page(m="ssd", img="scene:7")
    assert path.name in "\n".join(e.value for e in app.error).replace("\\", "")
