"""Weights through the page: fetched by a button from a server on loopback; then classes and a new badge."""

import hashlib
import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from _server import Answer, file_server
from streamlit.testing.v1 import AppTest
from torchvision.models import squeezenet1_1

from fusionviz import models, weights

ROOT = Path(__file__).resolve().parents[2]
KEY = "squeezenet1_1"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A mirror with a file that we made, in torchvision's own format and under a name with its checksum."""
    torch.manual_seed(5)
    file = io.BytesIO()
    torch.save(squeezenet1_1().state_dict(), file)
    body = file.getvalue()
    checksum = hashlib.sha256(body).hexdigest()[:8]
    name = f"{KEY}-{checksum}.pth"
    real = weights.published(KEY)
    mine = replace(real, filename=name, checksum=checksum, size_bytes=len(body))
    plain = weights.published
    monkeypatch.setattr(weights, "published", lambda key: mine if key == KEY else plain(key))
    monkeypatch.setattr(weights, "PAUSES_S", ())
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with file_server() as running:
        running.files[name] = body
        monkeypatch.setenv("FUSIONVIZ_WEIGHTS_URL", running.url)
        yield running
    models.BACKBONES.clear()


def opened() -> AppTest:
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    for key, value in {"net": KEY, "size": "96", "m": "add"}.items():
        app.query_params[key] = value
    app.run()
    assert not app.exception
    return app


def fetch(app: AppTest) -> AppTest:
    next(b for b in app.button if "IMAGENET1K" in b.label).click().run()
    assert not app.exception
    return app


def test_the_button_downloads_and_the_board_is_of_trained_weights(server) -> None:
    app = opened()
    assert app.session_state.last_good.pyramid.provenance.kind == "random"
    fetch(app)
    assert [e.value for e in app.error] == []
    found = app.session_state.last_good
    assert found.pyramid.provenance.kind == "pretrained"
    assert found.result.provenance.kind == "random"  # the fusion block still is, and says so
    assert len(found.guesses) == 5
    assert sum(g.probability for g in found.guesses) <= 1
    assert any(found.guesses[0].label in h.proto.body for h in app.get("html"))
    assert not any("IMAGENET1K" in b.label for b in app.button)


def test_a_failed_download_is_a_sentence_and_the_board_stays(server) -> None:
    server.answers = [Answer(status=404)] * 5
    app = fetch(opened())
    said = "\n".join(w.value for w in [*app.warning, *app.error])
    assert "404" in said
    assert app.session_state.last_good.pyramid.provenance.kind == "random"
    fetch(app)  # and it can be tried again
