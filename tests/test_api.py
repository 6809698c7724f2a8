"""The facade: light to import, complete in use."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import fusionviz as fv
from fusionviz import state


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
    assert found.result.outputs["fused"].tensor.ndim == 4
    assert found.result.attention["low"].tensor.shape == found.result.outputs["fused"].tensor.shape
    assert found.prediction is None
    assert set(found.timings) == {"picture", "backbone", "fusion"}
    assert found.figure().axes
    query = state.parse_text(found.link())
    assert query["k.r"] == "8"
    assert "k.gain" not in query
    from fusionviz import api

    again, notices = state.read(query, api.catalogue())
    assert notices == ()
    assert fv.explore(picture, "resnet18", size=again.size, r=8).selection.params == found.selection.params


def test_levels_may_be_positions_and_pictures_arrays() -> None:
    array = np.zeros((64, 80, 3), np.uint8)
    found = fv.explore(array, low=0, high=-1, size=64, method="add")
    assert (found.selection.low, found.selection.high) == ("s2", "s32")


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
