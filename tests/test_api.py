"""The facade: light to import, complete in use."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from _sites import at_home

import fusionviz as fv
from fusionviz import state
from fusionviz.selection import Selection


def test_names() -> None:
    assert "aff" in fv.methods()
    assert "resnet18" in fv.backbones()
    assert "sample:coffee" in fv.images()
    with pytest.raises(AttributeError, match="explore"):
        _ = fv.nothing


def test_explore_gives_what_the_readme_says() -> None:
    picture = fv.open("sample:coffee")
    found = fv.explore(picture, backbone="resnet18", method="aff", low="s4", high="s16", size=96, r=8)
    assert found.pyramid["s4"].tensor.shape[1] == 64
    assert found.result.provenance.kind == "fitted"
    assert found.result.outputs["fused"].tensor.ndim == 4
    assert found.result.attention["low"].tensor.shape == found.result.outputs["fused"].tensor.shape
    assert found.prediction is None  # no trained head covers this network
    assert set(found.timings) == {"picture", "backbone", "fit", "fusion"}
    assert "Attentional Feature Fusion" in [t.get_text() for t in found.figure().texts]
    query = state.parse_text(found.link())
    assert query["k.r"] == "8"
    assert "k.gain" not in query
    from fusionviz import api

    again, notices = state.read(query, api.catalogue())
    assert notices == ()
    assert fv.explore(picture, "resnet18", size=again.size, r=8).selection.params == found.selection.params


def test_a_link_gives_back_the_very_crop() -> None:
    from fusionviz import api

    found = fv.explore("sample:coffee", size=64, method="add", crop=(1 / 3, 0.1234567891))
    again, notices = state.read(state.parse_text(found.link()), api.catalogue())
    assert notices == ()
    assert again.crop == found.selection.crop
    assert again == api.without_defaults(found.selection)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"weights": "rnadom"}, "random"),
        ({"weights": "model.pth"}, "file:PATH"),
        ({"seed": -1}, "seed"),
        ({"seed": None}, "seed"),
        ({"fit": "stretch"}, "crop, pad"),
        ({"crop": (2, 2)}, "0.5"),
        ({"size": "64"}, "1024"),
        ({"low": -9}, "s32"),
        ({"device": "abacus"}, "cpu"),
        ({"rr": 4}, "gain"),
    ],
)
def test_a_wrong_choice_is_answered_with_the_right_ones(wrong: dict, words: str) -> None:
    with pytest.raises(fv.FusionvizError, match=words):
        fv.explore("sample:coffee", **{"size": 64, **wrong})


def test_a_figure_in_a_language_that_is_not_there() -> None:
    with pytest.raises(fv.FusionvizError, match="en, zh"):
        fv.explore("sample:coffee", size=64, method="add").figure(language="fr")


def test_levels_may_be_positions_and_pictures_arrays() -> None:
    array = np.zeros((64, 80, 3), np.uint8)
    found = fv.explore(array, low=0, high=-1, size=64, method="add")
    assert (found.selection.low, found.selection.high) == ("s2", "s32")
    positions = np.arange(2)
    assert fv.explore(array, low=positions[0], high=positions[1], size=64, method="add").selection.high == "s4"


def test_explore_never_answers_from_a_cache() -> None:
    picture = fv.open("sample:coffee")
    a, b = (fv.explore(picture, size=64) for _ in range(2))
    assert a.result.fused.tensor.data_ptr() != b.result.fused.tensor.data_ptr()


def test_build_any_method_alone() -> None:
    module = fv.build("fpn", channels=(64, 128, 256, 512))
    levels = [torch.randn(1, c, 32 // 2**i, 32 // 2**i) for i, c in enumerate((64, 128, 256, 512))]
    assert module(*levels).outputs["fused"].tensor.shape == (1, 256, 32, 32)
    pair = fv.build("aff", channels=(64, 128), width=32)
    assert pair(levels[0], levels[1]).outputs["fused"].tensor.shape == (1, 32, 32, 32)


def test_importing_the_package_is_light() -> None:
    code = "import sys, fusionviz as fv; print(sorted({'torch', 'streamlit', 'matplotlib'} & set(sys.modules)))"
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("method", fv.methods())
@pytest.mark.parametrize("turned", [False, True])
def test_every_link_gives_back_the_very_study(method: str, turned: bool) -> None:
    from fusionviz import api, fusion, study

    # Turned to the paper's values, which need not be those of the head that ships.
    knobs = fusion.spec(method).parse({}) if turned else {}
    backbone = at_home(Selection(method=method)).backbone
    found = fv.explore(method=method, backbone=backbone, size=64, **knobs)
    again, notices = state.read(state.parse_text(found.link()), api.catalogue())
    assert notices == ()
    assert study.resolve(again) == found.selection


def test_what_nobody_turned_is_as_trained() -> None:
    found = fv.explore(method="fpn")
    assert found.result.provenance.kind == "bundled"
    assert found.prediction is not None
    assert fv.explore(method="fpn", width=256).result.provenance.kind == "random"


def test_a_fitted_study_stands_where_it_is_told() -> None:
    one, other = (fv.explore("sample:coffee", "resnet18", "wsum", size=64, at=at) for at in (0.1, 0.9))
    assert one.result.attention["low"].tensor[0, 0] > other.result.attention["low"].tensor[0, 0]
    assert state.parse_text(one.link())["at"] == "0.1"


def test_a_link_keeps_a_knob_that_another_knob_has_moved() -> None:
    from fusionviz import api, study

    # Turning r leaves what was trained, and a fit to the picture has a width and a norm of its own; not these.
    found = fv.explore(size=64, r=8, width=64, norm="bn")
    again, _ = state.read(state.parse_text(found.link()), api.catalogue())
    assert study.resolve(again) == found.selection


def test_explore_takes_a_site_and_its_maps_by_name_or_position() -> None:
    found = fv.explore(method="aff", site="skip:stage3.1", size=64)
    assert (found.selection.low, found.selection.high) == ("identity", "residual")
    assert found.pyramid.names == ("identity", "residual")
    assert "site=skip:stage3.1" in found.link()
    branches = fv.explore(method="add", backbone="squeezenet1_1", site="branches:features.3", low=0, high=-1, size=64)
    assert (branches.low.name, branches.high.name) == ("b1", "b2")
