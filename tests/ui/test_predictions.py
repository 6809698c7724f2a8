"""What the features know: the row's payload, and the button that exchanges attention."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from fusionviz import exchange, study, texts
from fusionviz.scales import CLASS_COLOURS
from fusionviz.selection import Selection
from fusionviz.ui import words
from fusionviz.ui.components import predictions

ROOT = Path(__file__).resolve().parents[2]
SCENE = Selection(picture="scene:21", backbone="scene_resnet", method="aff")


def pixels(source: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))))


@pytest.fixture(params=["light", "dark"])
def theme(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(words, "is_dark", lambda: request.param == "dark")
    monkeypatch.setattr(words, "language", lambda: "en")
    return request.param


def test_errors_are_missed_invented_confused() -> None:
    truth, said = np.array([[0, 0, 3, 3, 3]]), np.array([[0, 2, 0, 3, 2]])
    assert predictions.errors(said, truth).tolist() == [[0, 2, 1, 0, 3]]


def test_every_reader_has_classes_and_errors(theme: str) -> None:
    found = study.run(SCENE)
    row = predictions.packed(found, None)
    assert [f["name"] for f in row["figures"]] == ["low only", "high only", "AFF", "truth"]
    for reader, drawn in zip(("low_only", "high_only", "fused"), row["figures"], strict=False):
        said, truth = found.prediction.maps[reader].numpy(), found.prediction.truth.numpy()
        assert (pixels(drawn["classes"]) == np.array(CLASS_COLOURS)[said]).all()
        assert drawn["figures"]["classes"] == f"{found.prediction.miou[reader]:.1f}"
        assert drawn["figures"]["wrong"] == f"{100 * (said != truth).mean():.1f} %"
        wrong, grey = pixels(drawn["wrong"]), said == truth
        assert (wrong[grey] == wrong[grey][:, :1]).all()
        colours = {tuple(c) for c in wrong[~grey].tolist()}
        assert colours == {rgb for rgb, n in _counts(said, truth, theme) if n}
    assert [v["key"] for v in row["views"]] == ["classes", "wrong"]
    assert len(row["legends"]["wrong"]) == 3
    assert json.dumps(row)


def _counts(said: np.ndarray, truth: np.ndarray, theme: str) -> list[tuple[tuple[int, ...], int]]:
    kinds = ((truth > 0) & (said == 0), (truth == 0) & (said > 0), (truth > 0) & (said > 0) & (said != truth))
    return [(rgb, int(k.sum())) for rgb, k in zip(predictions._ERROR_COLOURS[theme], kinds, strict=True)]


def test_a_photograph_has_no_errors_and_no_exchange(theme: str) -> None:
    row = predictions.packed(study.run(SCENE.with_(picture="sample:coffee")), None)
    assert [v["key"] for v in row["views"]] == ["classes"]
    assert row["exchange"] is None
    assert row["notes"] == {"classes": texts.text("prediction.photograph")}
    assert all("wrong" not in f for f in row["figures"])


def test_the_exchange_says_what_it_costs(theme: str) -> None:
    found, done = study.run(SCENE), exchange.exchange(SCENE)
    told = predictions.packed(found, done)["exchange"]
    assert told["figures"]["from_to"] == f"{done.own.miou:.1f} → {done.other.miou:.1f}"
    assert told["figures"]["change"] == f"−{done.own.miou - done.other.miou:.1f}"
    assert told["same"] == ""
    assert f"−{done.own.miou - done.flat.miou:.1f}" in told["flat"]["text"]
    assert (pixels(told["figure"]["classes"]) == np.array(CLASS_COLOURS)[done.other.classes.numpy()]).all()
    assert (pixels(told["other"]["picture"]) == done.seen.shown).all()
    assert pixels(told["other"]["weight"]).shape[:2] == (32, 32)


def test_a_weight_that_is_the_same_everywhere_is_said_to_be(theme: str) -> None:
    told = predictions.packed(study.run(SCENE), exchange.exchange(SCENE.with_(method="wsum")))["exchange"]
    assert told["figures"]["change"] == "±0"
    assert told["same"] == texts.text("exchange.same")
    assert told["flat"] is None


@pytest.mark.parametrize("method", ["aff", "highway", "softmax2", "wsum", "se", "cbam", "mscam"])
def test_every_attention_has_a_picture(theme: str, method: str) -> None:
    done = exchange.exchange(SCENE.with_(method=method))
    image = pixels(predictions.packed(study.run(SCENE.with_(method=method)), done)["exchange"]["other"]["weight"])
    assert image.shape[0] == image.shape[1]
    assert image.shape[2] == 3


# --- on the page ---------------------------------------------------------------------------------
def open_app(**query: str) -> AppTest:
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    for key, value in ({"img": "scene:21", "net": "scene_resnet", "m": "aff"} | query).items():
        app.query_params[key] = value
    return checked(app.run())


def checked(app: AppTest) -> AppTest:
    assert not app.exception, app.exception
    return app


def row_of(app: AppTest) -> dict | None:
    """Return what the browser was given to draw the row with."""
    for component in app.get("bidi_component"):
        if component.proto.component_name.endswith("predictions"):
            return json.loads(component.proto.json)
    return None


@pytest.mark.parametrize("language", texts.LANGUAGES)
def test_the_button_is_there_and_goes_there_and_back(language: str) -> None:
    app = open_app(lang=language)
    assert row_of(app)["exchange"]["ask"] == texts.text("exchange.start", language)
    app.session_state["exchange"] = True
    checked(app.run())
    told = row_of(app)["exchange"]
    assert told["ask"] == texts.text("exchange.stop", language)
    assert told["figures"]["change"].startswith("−")
    app.session_state["exchange"] = False
    checked(app.run())
    assert "figure" not in row_of(app)["exchange"]


def test_the_exchange_stays_while_the_method_changes_to_one_without_attention() -> None:
    app = open_app()
    app.session_state["exchange"] = True
    checked(app.run())
    checked(app.selectbox(key="method").set_value("add").run())
    assert row_of(app)["exchange"] is None
    checked(app.selectbox(key="method").set_value("highway").run())
    assert "figure" in row_of(app)["exchange"]


def test_no_row_where_no_head_reads_the_maps() -> None:
    assert row_of(open_app(net="resnet18", size="96")) is None
