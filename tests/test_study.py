"""The use-case, whole: a selection in, everything that is shown out."""

import json

import pytest
import torch

from fusionviz import backbones, fusion, study
from fusionviz.errors import FusionvizError, LevelError, ParameterError, UnknownNameError
from fusionviz.selection import Selection

SMALL = Selection(picture="sample:coffee", backbone="resnet18", method="aff", size=96)


def test_one_study_has_everything() -> None:
    found = study.run(SMALL)
    assert (found.selection.low, found.selection.high) == ("s4", "s16")
    assert found.low.size == (24, 24)
    assert found.high.size == (6, 6)
    assert found.result.fused.tensor.shape == (1, 64, 24, 24)
    assert found.provenance.kind == "random"
    assert found.guesses == ()  # random weights recognise nothing
    assert set(found.timings) == {"picture", "backbone", "fusion"}
    assert all(ms > 0 for ms in found.timings.values())
    assert found.seen.shown.shape == (96, 96, 3)
    assert not found.result.fused.tensor.requires_grad


def test_the_same_selection_gives_the_same_numbers() -> None:
    a, b = study.run(SMALL), study.run(SMALL)
    assert torch.equal(a.result.fused.tensor, b.result.fused.tensor)
    c = study.run(SMALL.with_(seed=1))
    assert not torch.equal(a.result.fused.tensor, c.result.fused.tensor)


def test_a_pyramid_method_is_given_every_level_between() -> None:
    found = study.run(SMALL.with_(method="fpn", low="s4", high="s32", params=(("width", 32),)))
    assert {"fused", "p4", "p8", "p16", "p32"} <= set(found.result.outputs)


@pytest.mark.parametrize("method", fusion.names())
def test_every_method_reports_itself_as_json(method: str) -> None:
    report = json.loads(json.dumps(study.report(study.run(SMALL.with_(method=method)))))
    assert report["method"]["key"] == method
    assert report["outputs"]["fused"]["shape"][0] == 1
    assert report["attention"], "a weight, or the share of low"
    for a in report["attention"]:
        assert a["minimum"] <= a["mean"] <= a["maximum"]
    keys = [s["key"] for s in report["steps"]]
    assert all(set(s["inputs"]) <= set(keys[:i]) for i, s in enumerate(report["steps"]))
    assert report["costs"]["parameters"] == sum(s["parameters"] for s in report["steps"])
    assert report["provenance"] == "random"


def test_costs_count_the_projections_by_hand() -> None:
    found = study.run(SMALL.with_(method="add", params=(("norm", "none"),)))
    low, high = 64 * 64 * 24 * 24, 256 * 64 * 6 * 6
    assert found.low.channels == found.result.fused.channels == 64
    assert found.step_macs()["low_project"] == low
    assert found.step_macs()["high_project"] == high
    assert found.costs() == {"parameters": 64 * 64 + 64 + 256 * 64 + 64, "macs": low + high}


def test_a_profile_has_every_step() -> None:
    prepared = study.prepare(SMALL)
    times = study.profile(prepared, repeats=1)
    computed = {s.key for s in study.run(prepared).result.trace if s.op != "input"}
    assert set(times) == computed
    assert all(ms >= 0 for ms in times.values())


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"backbone": "resnet19"}, UnknownNameError, "resnet18"),
        ({"method": "af"}, UnknownNameError, "aff"),
        ({"low": "s3"}, LevelError, "s4"),
        ({"low": "s16", "high": "s4"}, LevelError, "before"),
        ({"low": "s4", "high": "s4"}, LevelError, "before"),
        ({"params": (("gain", 3),)}, ParameterError, "1, 2"),
        ({"params": (("gian", 1),)}, ParameterError, "gain"),
        ({"picture": "sample:cofee"}, FusionvizError, "coffee"),
    ],
)
def test_mistakes_are_answered_with_the_choices(change: dict, error: type, words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        study.run(SMALL.with_(**change))
    assert caught.value.text("zh") != caught.value.text("en")


def test_one_stride_networks_fuse_two_depths_without_alignment() -> None:
    info = backbones.info("vit_b_16")
    assert info.default_low != info.default_high
    found = study.run(Selection(backbone="vit_b_16", method="wsum"))
    assert found.result.provenance.kind == "analytic"  # equal levels: nothing to learn, and alpha is set by hand
    assert found.provenance.kind == "random"  # but the backbone is
    low, high = found.low.tensor, found.high.tensor
    assert torch.allclose(found.result.fused.tensor, 0.5 * low + 0.5 * high, atol=1e-6)
