"""The row that fits a method live, through Streamlit's own test driver: start, stop, go on, forget."""

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from fusionviz import fits, texts
from fusionviz.training import live

ROOT = Path(__file__).resolve().parents[2]
QUERY = {"size": "64", "img": "scene:3", "net": "scene_resnet", "m": "aff", "lo": "s4", "hi": "s16"}


@pytest.fixture(autouse=True)
def _own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSIONVIZ_CACHE", str(tmp_path))
    monkeypatch.setattr(live, "FITS", live.Room(steps=24, scenes=24))


def open_app(**query: str) -> AppTest:
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    for key, value in (QUERY | query).items():
        app.query_params[key] = value
    return checked(app.run())


def checked(app: AppTest) -> AppTest:
    assert not app.exception, app.exception
    return app


def buttons(app: AppTest) -> set[str]:
    return {b.key for b in app.button if b.key and b.key.startswith("fit_")}


def under_way() -> live.LiveFit:
    (fit,) = live.FITS._fits.values()
    return fit


def html(app: AppTest) -> str:
    return "\n".join(h.proto.body for h in app.get("html"))


def test_a_fit_runs_is_shown_and_can_be_forgotten() -> None:
    app = open_app()
    assert buttons(app) == {"fit_start"}
    assert app.session_state.last_good.result.provenance.kind == "bundled"
    checked(app.button(key="fit_start").click().run())
    under_way().wait(120)
    checked(app.run())
    assert under_way().now().phase == "done"
    assert {"fit_which", "fit_forget"} <= buttons(app)
    checked(app.button(key="fit_which").click().run())
    found = app.session_state.last_good
    assert found.result.provenance.kind == "fitted_scenes"
    assert found.sweep.kind == "step"
    assert app.query_params["head"] in ("fit", ["fit"])
    checked(app.button(key="fit_which").click().run())
    assert app.session_state.last_good.result.provenance.kind == "bundled"
    checked(app.button(key="fit_forget").click().run())
    assert buttons(app) == {"fit_start"}
    assert fits.files() == ()


def test_while_it_runs_the_row_tells_how_far_it_is_and_it_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live.FITS, "steps", 5000)
    app = open_app(w="random")
    checked(app.button(key="fit_start").click().run())
    assert buttons(app) == {"fit_stop"}
    while under_way().now().step < 6:
        under_way().wait(0.05)
    checked(app.run())
    shown = html(app)
    assert 'class="fit-now" data-phase="fitting"' in shown
    assert shown.count("data:image/svg+xml") == 1
    assert "data:image/png" in shown.split("fit-figures")[1]
    checked(app.button(key="fit_stop").click().run())
    assert under_way().wait(60).phase == "stopped"
    checked(app.run())
    assert {"fit_resume", "fit_forget"} <= buttons(app)
    assert "fit_which" not in buttons(app)  # nothing ships for random weights: the fit is shown by itself
    found = app.session_state.last_good
    assert found.result.provenance.kind == "fitted_scenes"
    assert found.sweep.frames[-1].value == under_way().now().step
    step = under_way().now().step
    checked(app.button(key="fit_resume").click().run())
    while under_way().now().step <= step:
        under_way().wait(0.05)
    under_way().stop()
    under_way().wait(60)


def test_what_went_wrong_stands_in_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def burst(*_: object) -> dict:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(live, "features", burst)
    app = open_app()
    checked(app.button(key="fit_start").click().run())
    under_way().wait(60)
    checked(app.run())
    assert any("out of memory" in e.value for e in app.error)
    assert "fit_start" in buttons(app)


def test_a_damaged_fit_is_a_sentence_and_the_board_stays() -> None:
    app = open_app(w="random", m="se")
    of = fits.subject(app.session_state.last_good.selection)
    of.path.parent.mkdir(parents=True)
    of.path.write_bytes(b"no fit")
    checked(app.run())
    assert any("cut off, damaged" in e.value for e in app.error)
    assert buttons(app) == {"fit_start"}


@pytest.mark.parametrize("language", texts.LANGUAGES)
def test_the_row_speaks_the_language(language: str) -> None:
    app = open_app(lang=language)
    assert texts.text("live.title", language) in html(app)
    (start,) = [b for b in app.button if b.key == "fit_start"]
    assert start.label.startswith(texts.text("live.start", language, method="AFF", seconds=1)[:4])
