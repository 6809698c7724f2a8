"""Sites in the app: the place is chosen in the sidebar, its maps are called what they are, and there is a way out."""

from pathlib import Path

from streamlit.testing.v1 import AppTest

from fusionviz import study

ROOT = Path(__file__).resolve().parents[2]


def open_app(**query: str) -> AppTest:
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    for key, value in ({"size": "96"} | query).items():
        app.query_params[key] = value
    return checked(app.run())


def checked(app: AppTest) -> AppTest:
    assert not app.exception, app.exception
    return app


def chosen(app: AppTest) -> tuple:
    s = app.session_state.selection
    return s.backbone, s.method, s.site, s.low, s.high


def keys(app: AppTest) -> set[str]:
    return {w.key for w in [*app.selectbox, *app.get("button_group"), *app.get("select_slider")] if w.key}


def captions(app: AppTest) -> str:
    return "\n".join(c.value for c in app.caption)


def test_a_place_is_chosen_and_given_up() -> None:
    app = open_app(lo="s8", hi="s32")
    place = app.selectbox(key="place")
    assert (place.label, place.value) == ("Place (short skips)", "")
    assert place.options == [
        "Between two levels",
        *(f"stage{b}" for b in ("1.0", "2.0", "2.1", "3.0", "3.1")),
    ] + [
        "stage4.0",
        "stage4.1",
    ]
    checked(place.set_value("skip:stage3.1").run())
    assert chosen(app) == ("scene_resnet", "aff", "skip:stage3.1", None, None)
    assert app.query_params["site"] in ("skip:stage3.1", ["skip:stage3.1"])
    assert "X: identity · Y: residual" in captions(app)
    assert "low_level" not in keys(app)  # two maps: nothing to choose
    assert not app.error
    checked(app.selectbox(key="method").set_value("concat").run())  # every method for pairs stands here too
    assert chosen(app)[2] == "skip:stage3.1"
    checked(app.selectbox(key="place").set_value("").run())
    assert chosen(app) == ("scene_resnet", "concat", None, None, None)
    assert "low_level" in keys(app)


def test_a_network_without_places_shows_none() -> None:
    assert "place" not in keys(open_app(net="vgg11"))


def test_a_site_goes_with_its_network() -> None:
    app = open_app(site="skip:stage3.1")
    checked(app.selectbox(key="backbone").set_value("squeezenet1_1").run())
    assert chosen(app) == ("squeezenet1_1", "aff", None, None, None)
    assert app.selectbox(key="place").label == "Place (branches)"
    assert not app.error


def test_branches_are_chosen_by_name_and_said_by_window() -> None:
    app = open_app(net="googlenet", m="inception")
    assert app.selectbox(key="place").value == "branches:inception3a"  # the first, without being asked for
    assert chosen(app)[2] is None
    assert "b1 · 1×1" in captions(app)
    assert "b4 · pooling" in captions(app)
    buttons = {g.key: g for g in app.get("button_group")}
    assert list(buttons["low_level"].options) == ["b1", "b2", "b3"]
    checked(buttons["low_level"].set_value("b2").run())
    assert chosen(app) == ("googlenet", "inception", None, "b2", "b4")
    checked(app.selectbox(key="place").set_value("branches:inception4a").run())
    assert chosen(app) == ("googlenet", "inception", "branches:inception4a", "b2", "b4")
    checked(app.selectbox(key="method").set_value("aff").run())
    assert chosen(app)[2:] == ("branches:inception4a", "b2", "b4")
    assert not app.error


def test_a_method_without_its_place_costs_nothing_and_shows_the_way_out() -> None:
    app = open_app(lo="s8", hi="s32")
    checked(app.selectbox(key="method").set_value("inception").run())
    assert any("Scene ResNet has no such layer" in e.value for e in app.error)
    assert chosen(app) == ("scene_resnet", "inception", None, "s8", "s32")
    assert {"low_level", "high_level"} <= keys(app)
    back = checked(app.selectbox(key="method").set_value("aff").run())
    assert chosen(back) == ("scene_resnet", "aff", None, "s8", "s32")
    checked(back.selectbox(key="method").set_value("inception").run())
    first = study.EXAMPLES["branches"][0]
    checked(back.button(key=f"switch_{first}").click().run())
    assert chosen(back) == (first, "inception", None, None, None)
    assert not back.error


def test_a_link_to_a_method_without_its_place_opens_where_there_is_one() -> None:
    app = open_app(m="densenet")
    assert any("Choose a network that has" in w.value for w in app.warning)
    assert chosen(app)[:2] == (study.EXAMPLES["dense"][0], "densenet")
    assert app.selectbox(key="place").value == "dense:features.denseblock1"


def test_a_long_list_of_places_has_short_names() -> None:
    app = open_app(net="densenet121", m="densenet")
    options = app.selectbox(key="place").options
    assert len(options) == 58
    assert options[:2] == ["block1.layer2", "block1.layer3"]
    assert "low_level" in keys(app)  # seven maps: a slider instead of buttons


def test_a_bad_site_of_a_link_is_named_once() -> None:
    app = open_app(site="skip:stage9.9", lo="identity")
    assert len(app.warning) == 1
    assert "skip\\:stage9.9" in app.warning[0].value
    assert chosen(app)[2:] == (None, None, None)
