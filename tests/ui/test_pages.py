"""The app through Streamlit's own test driver: pages, both languages, links good and bad, mistakes as sentences."""

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from fusionviz import fusion, systems, texts
from fusionviz.ui.components import lesson

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"size": "96"}


def open_app(**query: str) -> AppTest:
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    for key, value in (SMALL | query).items():
        app.query_params[key] = value
    return checked(app.run())


def checked(app: AppTest) -> AppTest:
    assert not app.exception, app.exception
    return app


def shows_board(app: AppTest) -> bool:
    payloads = [c.proto.bytes for c in app.get("bidi_component") if c.proto.bytes]
    return any(len(p) > 1000 for p in payloads)


def said(app: AppTest) -> str:
    return "\n".join(w.value for w in [*app.warning, *app.error])


def test_the_first_page_shows_a_board() -> None:
    app = open_app()
    assert shows_board(app)
    assert app.selectbox(key="method").value == "aff"
    assert said(app) == ""


@pytest.mark.parametrize("method", fusion.names())
def test_every_method_can_be_opened_by_link_in_both_languages(method: str) -> None:
    for language in texts.LANGUAGES:
        app = open_app(m=method, lang=language)
        assert shows_board(app)
        assert app.selectbox(key="method" if language == "en" else "method_zh").value == method
        title = texts.method_text(method, "title", language)
        assert any(title in m.value for m in app.markdown)


@pytest.mark.parametrize("key", [key for key in systems.names() if systems.spec(key).family != "wild"])
def test_every_system_can_be_opened_by_link_in_both_languages(key: str) -> None:
    for language in texts.LANGUAGES:
        app = open_app(m=key, lang=language, img="scene:7")
        assert shows_board(app)
        title = texts.method_text(key, "title", language)
        assert any(title in m.value for m in app.markdown)
        assert said(app) == ""


@pytest.mark.parametrize("broken", [{"m": "ssd", "net": "vit_b_16"}, {"m": "film", "q": "the ufo"}])
def test_a_link_to_a_system_that_cannot_be_shown_keeps_the_system_and_says_why(broken: dict[str, str]) -> None:
    app = open_app(**broken)
    assert app.session_state.selection.method == broken["m"]
    assert shows_board(app)
    assert said(app)


def test_a_system_that_was_opened_is_not_on_the_page_of_methods() -> None:
    app = open_app(m="ssd")
    app.query_params.clear()  # as a browser does when the page changes
    checked(app.switch_page("fusionviz/ui/pages/explore_page.py").run())
    assert app.session_state.selection.method == "aff"
    app.query_params.clear()
    checked(app.switch_page("fusionviz/ui/pages/systems_page.py").run())
    assert app.session_state.selection.method == "ssd"


def test_a_page_keeps_its_kind_of_choice_whatever_way_leads_back() -> None:
    app = open_app(m="cbam")
    app.query_params.clear()
    checked(app.switch_page("fusionviz/ui/pages/systems_page.py").run())
    checked(app.run())
    app.query_params["m"] = "cbam"  # the browser's way back
    checked(app.switch_page("fusionviz/ui/pages/explore_page.py").run())
    assert app.session_state.selection.method == "cbam"
    app.query_params.clear()
    checked(app.switch_page("fusionviz/ui/pages/systems_page.py").run())
    assert systems.spec(app.session_state.selection.method).is_system
    app.query_params.clear()
    app.query_params["lesson"] = app.session_state.selection.method  # the heading's link
    checked(app.switch_page("fusionviz/ui/pages/lessons_page.py").run())
    assert systems.spec(app.session_state.selection.method).is_system
    app.query_params.clear()
    checked(app.switch_page("fusionviz/ui/pages/systems_page.py").run())
    assert said(app) == ""


@pytest.mark.parametrize("page", ["systems_page", "methods_page", "lessons_page", "explore_page"])
@pytest.mark.parametrize("language", texts.LANGUAGES)
def test_every_page_opens(page: str, language: str) -> None:
    app = open_app(lang=language)
    checked(app.switch_page(f"fusionviz/ui/pages/{page}.py").run())


def test_every_lesson_opens() -> None:
    app = open_app()
    checked(app.switch_page("fusionviz/ui/pages/lessons_page.py").run())
    count = len(app.radio(key="lesson_choice").options)
    assert count == len(fusion.names()) + len(systems.names()) + len(lesson.SUBJECTS)
    for key in (*lesson.SUBJECTS, *fusion.names(), *systems.names()):
        checked(app.radio(key="lesson_choice").set_value(key).run())
        assert app.title[0].value == texts.lesson(key, "en").front["title"]


def test_controls_change_the_board() -> None:
    app = open_app()
    checked(app.selectbox(key="method").set_value("se").run())
    assert any("Squeeze" in m.value for m in app.markdown)
    checked(app.selectbox(key="backbone").set_value("squeezenet1_1").run())
    assert shows_board(app)
    checked(app.selectbox(key="picture").set_value("sample:chelsea").run())
    assert app.session_state.selection.picture == "sample:chelsea"
    checked(app.selectbox(key="show").set_value("pca").run())
    assert app.session_state.selection.view.show == "pca"
    assert shows_board(app)


def test_a_knob_at_the_papers_value_is_not_in_the_link() -> None:
    app = open_app(m="aff", **{"k.gain": "2"})
    assert app.session_state.selection.params == (("gain", 2),)
    checked(app.selectbox(key="knob_aff_gain").set_value(1).run())
    assert app.session_state.selection.params == ()


def test_levels_push_each_other() -> None:
    app = open_app(lo="s4", hi="s8")
    levels = {g.key: g for g in app.get("button_group")}
    checked(levels["low_level"].set_value("s16").run())
    assert (app.session_state.selection.low, app.session_state.selection.high) == ("s16", "s32")
    levels = {g.key: g for g in app.get("button_group")}
    checked(levels["high_level"].set_value("s4").run())
    assert (app.session_state.selection.low, app.session_state.selection.high) == ("s2", "s4")


def test_bad_values_of_a_link_are_named_and_the_rest_is_kept() -> None:
    app = open_app(m="afff", net="resnet81", grid="5", img="sample:chelsea", **{"k.r": "99"})
    words = said(app)
    for named in ("afff", "resnet81", "grid", "99"):
        assert named in words
    assert app.session_state.selection.picture == "sample:chelsea"
    assert shows_board(app)


def test_remarks_go_with_the_next_choice() -> None:
    app = open_app(grid="5")
    assert said(app)
    checked(app.selectbox(key="picture").set_value("sample:chelsea").run())
    assert said(app) == ""


def test_what_is_quoted_from_a_link_is_not_rendered() -> None:
    app = open_app(m="[click](http://evil.example)")
    assert r"\[click\]" in said(app)


def test_a_size_that_does_not_fit_is_a_sentence_and_the_board_stays() -> None:
    app = open_app()
    checked(app.selectbox(key="picture").set_value("sample:chelsea").run())
    app.query_params["net"] = "vit_b_16"
    app.query_params["size"] = "100"
    checked(app.run())
    assert app.error
    assert shows_board(app)  # the last good one


def test_chinese_is_chosen_by_the_link_and_complete_on_the_page() -> None:
    app = open_app(lang="zh")
    assert app.selectbox(key="method_zh").label == texts.text("control.method", "zh")


def test_the_language_can_change_at_any_time_and_every_control_still_works() -> None:
    app = open_app()
    for language in ("zh", "en", "zh"):
        switch = next(g for g in app.get("button_group") if g.key.startswith("language_switch"))
        checked(switch.set_value(language).run())
        suffix = "" if language == "en" else "_zh"
        checked(app.selectbox(key=f"method{suffix}").set_value("se" if language == "zh" else "aff").run())
        assert shows_board(app)
        assert app.selectbox(key=f"method{suffix}").label == texts.text("control.method", language)
    assert said(app) == ""


def test_the_language_stays_in_the_link() -> None:
    app = open_app(lang="zh", m="cbam")
    assert app.query_params["lang"] in ("zh", ["zh"])
    checked(app.selectbox(key="method_zh").set_value("se").run())
    assert app.query_params["lang"] in ("zh", ["zh"])


@pytest.mark.parametrize(
    "query",
    [
        {"hi": "s2"},
        {"lo": "s32"},
        {"net": "vit_b_16", "size": "256"},
        {"m": "fpn", "k.lateral": "off", "k.top_down": "off"},
    ],
)
def test_a_link_that_cannot_be_shown_is_answered_with_a_board(query: dict[str, str]) -> None:
    app = open_app(**query)
    assert said(app)
    assert shows_board(app)
