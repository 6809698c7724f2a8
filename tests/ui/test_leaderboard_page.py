"""The leaderboard's page: with invented numbers, without any, with damaged ones; lessons that quote them."""

import json
import re
import sys
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from fusionviz import leaderboard, texts
from fusionviz.leaderboard import records

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from _leaderboard import ablation, table  # noqa: E402 - beside the other tests, not in this folder

each_language = pytest.mark.parametrize("language", texts.LANGUAGES)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "leaderboard.json"
    path.write_text(json.dumps(table()), "utf-8")
    monkeypatch.setattr(records, "PATH", path)
    return path


def open_page(page: str = "leaderboard", language: str = "en", **query: str) -> AppTest:
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    for key, value in {"size": "96", "lang": language, **query}.items():
        app.query_params[key] = value
    app.run()
    app.switch_page(f"fusionviz/ui/pages/{page}_page.py").run()
    assert not app.exception, app.exception
    return app


def drawn(app: AppTest) -> str:
    return "\n".join(h.proto.body for h in app.get("html"))


def cells(page: str, row: str) -> list[str]:
    """What stands in a row of the first table, without marks."""
    found = re.search(rf'<td class="name">{row}.*?</tr>', page, flags=re.S)[0]
    return [re.sub(r"<[^>]+>", "", cell).strip() for cell in re.findall(r"<td[^>]*>(.*?)</td>", found, flags=re.S)]


@each_language
def test_the_page_has_every_method_with_its_numbers(file: Path, language: str) -> None:
    page = drawn(open_page(language=language))
    board = leaderboard.read()
    for row in board.standing():
        found = cells(page, re.escape(leaderboard.name(row.method, language=language)))
        assert row.miou.text() in found
        assert row.figures["boundary_f1"].text() in found
    bars = re.findall(r'class="tie( begins)?( ends)?"', page)
    assert [sum(bool(b[i]) for b in bars) for i in (0, 1)] == [7, 7]
    for paper in leaderboard.published():
        assert texts.text(f"published.{paper.key}.title", language) in page
        assert paper.link in page


def test_differences_within_the_noise_are_ties_beside_the_controls(file: Path) -> None:
    page = drawn(open_page())
    depth = page.split(texts.text("leaderboard.why.depth.title"))[1]
    assert cells(depth, "Add")[-1] == "+0.8"
    assert cells(depth, "AFF")[-1] == texts.text("leaderboard.tie")
    linear = page.split(texts.text("leaderboard.why.linear.title"))[1]
    assert cells(linear, "Add")[-1] == "−6.9"
    other = cells(page, "with another picture")
    assert other[-2:] == ["tie", "77.4 ± 0.4"]  # softmax2, one weight for the whole picture
    assert other.count("−7.5") == 3


@each_language
def test_fpns_ablation_is_shown_once_it_is_measured(file: Path, language: str) -> None:
    title = texts.text("leaderboard.why.ablation.title", language)
    assert title not in drawn(open_page(language=language))
    told = table()
    told["rows"] += ablation(without="no_lateral")
    file.write_text(json.dumps(told), "utf-8")
    card = drawn(open_page(language=language)).split(title)[1]
    paper = leaderboard.published()[0]
    apart = cells(card, paper.row("no_top_down", language))
    assert apart[1:] == ["81.2 ± 0.2", "61.2 ± 0.2", "85.2 ± 0.2", "49.5", "30.5", "68.0", "24.9", "10.9", "38.5"]
    assert cells(card, paper.row("no_lateral", language))[1:5] == ["–", "–", "–", "46.1"]


def test_weights_are_of_the_heads_that_are_chosen(file: Path) -> None:
    told = table()
    for row in told["attention"]:
        if row["setting"] == "leaderboard":
            row["mean"] = dict.fromkeys(row["mean"], 0.123)
    file.write_text(json.dumps(told), "utf-8")
    app = open_page()
    assert "0.71 <i>± 0.0" in drawn(app)
    assert "0.12 <i>± 0.0" not in drawn(app)
    switch = next(g for g in app.get("button_group") if g.key.startswith("leaderboard_setting_switch"))
    switch.set_value("leaderboard").run()
    assert not app.exception
    assert "0.12 <i>± 0.0" in drawn(app)
    assert "0.71 <i>± 0.0" not in drawn(app)


@each_language
def test_without_numbers_the_page_says_how_they_are_made(file: Path, language: str) -> None:
    file.unlink()
    app = open_page(language=language)
    assert "python" in app.error[0].value
    assert texts.text("published.title", language) in drawn(app)
    assert texts.text("leaderboard.why.title", language) not in drawn(app)


def test_damaged_numbers_are_a_sentence_and_lessons_go_on(file: Path) -> None:
    file.write_text('{"rows": []}', "utf-8")
    assert "leaderboard.json" in open_page().error[0].value.replace("\\", "")
    app = open_page("lessons", lesson="aff")
    assert not app.error


@each_language
def test_a_lesson_quotes_the_numbers_only_where_there_are_some(file: Path, language: str) -> None:
    def prose() -> str:
        app = open_page("lessons", language)
        key = "lesson_choice" if language == "en" else "lesson_choice_zh"
        app.radio(key=key).set_value("fpn").run()
        assert not app.exception
        return "\n".join(m.value for m in app.markdown)

    said = prose()
    assert leaderboard.read().row("fpn").miou.text() in said
    assert "{{" not in said
    file.unlink()
    bare = prose()
    assert "{{" not in bare
    assert len(bare) < len(said)
