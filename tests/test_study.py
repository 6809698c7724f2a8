"""The use-case, whole: a selection in, everything that is shown out."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from _sites import at_home
from torch.utils.flop_counter import FlopCounterMode

from fusionviz import backbones, fusion, models, scenes, study
from fusionviz.errors import FusionvizError, LevelError, ParameterError, UnknownNameError
from fusionviz.records import AttentionMap
from fusionviz.selection import Selection
from fusionviz.trace import NullTrace

SMALL = Selection(picture="sample:coffee", backbone="resnet18", method="aff", size=96)


def test_one_study_has_everything() -> None:
    found = study.run(SMALL)
    assert (found.selection.low, found.selection.high) == ("s4", "s16")
    assert found.low.size == (24, 24)
    assert found.high.size == (6, 6)
    assert found.result.fused.tensor.shape == (1, 24, 24, 24)
    assert found.result.provenance.kind == "fitted"  # to this picture: no trained head covers this network
    assert found.provenance.kind == "random"  # but the network is random
    assert found.guesses == ()  # random weights recognise nothing
    assert set(found.timings) == {"picture", "backbone", "fit", "fusion"}
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
    report = json.loads(json.dumps(study.report(study.run(at_home(SMALL.with_(method=method))))))
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
        ({"low": "s32"}, LevelError, "before"),
        ({"high": "s2"}, LevelError, "before"),
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
    found = study.run(Selection(backbone="vit_b_16", method="wsum", params=(("alpha", 0.7),)))
    assert found.result.provenance.kind == "analytic"  # equal levels: nothing to learn, and alpha is set by hand
    assert found.provenance.kind == "random"  # but the backbone is
    low, high = found.low.tensor, found.high.tensor
    assert torch.allclose(found.result.fused.tensor, 0.7 * low + 0.3 * high, atol=1e-6)


def test_the_share_of_low_can_be_read_after_the_run() -> None:
    # Its terms are made from learned weights and from maps of inference mode, which autograd refuses to follow.
    found = study.run(SMALL.with_(method="concat", params=(("reduce", 8),)))
    with torch.no_grad():
        low, high = found.result.terms()
    assert torch.allclose(low + high, found.result.fused.tensor, atol=1e-5)
    share = low.norm(dim=1) / (low.norm(dim=1) + high.norm(dim=1))
    assert torch.allclose(found.weight.tensor[:, 0], share, atol=1e-6)
    assert not found.weight.tensor.requires_grad


@pytest.mark.parametrize("method", fusion.names())
def test_costs_are_those_of_the_whole_module(method: str) -> None:
    prepared = study.prepare(at_home(SMALL.with_(method=method)))
    found = study.run(prepared)
    levels = [found.pyramid[name].tensor for name in study.level_names(found.selection, found.pyramid)]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        prepared.method(*levels, trace=NullTrace())
    parameters = sum(p.numel() for p in prepared.method.parameters())
    assert found.costs() == {"parameters": parameters, "macs": counter.get_total_flops() // 2}


def test_asking_for_costs_draws_no_weights() -> None:
    before = torch.get_rng_state()
    study._macs.cache_clear()
    assert study.run(SMALL.with_(seed=3)).costs()["macs"] > 0
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("chosen", "both"),
    [({"low": "s16"}, ("s16", "s32")), ({"high": "s4"}, ("s2", "s4")), ({"high": "s32"}, ("s4", "s32"))],
)
def test_one_level_alone_is_completed(chosen: dict, both: tuple[str, str]) -> None:
    found = study.resolve(SMALL.with_(**chosen))
    assert (found.low, found.high) == both


@pytest.mark.parametrize(
    ("backbone", "low", "high"), [("vit_b_16", "d1", "d12"), ("vgg16_bn", "s1", "s2"), ("googlenet", "s2", "s32")]
)
def test_levels_at_the_ends_can_be_fused(backbone: str, low: str, high: str) -> None:
    info = backbones.info(backbone)
    names = [level.name for level in info.levels]
    low, high = (name if name in names else names[end] for name, end in ((low, 0), (high, 1 if high == "s2" else -1)))
    size = None if info.preprocessing.fixed else max(64, info.preprocessing.minimum_px)
    found = study.run(Selection(backbone=backbone, low=low, high=high, size=size))
    assert found.result.fused.size == found.low.size
    assert found.result.fused.tensor.isfinite().all()


def test_a_gpu_runs_once_unmeasured_and_a_cpu_does_not() -> None:
    prepared, ran = study.prepare(SMALL), []

    def counted(x: torch.Tensor) -> object:
        ran.append(tuple(x.shape))
        return prepared.backbone(x)

    counted.key = "counted"
    on_cpu = replace(prepared, backbone=counted)
    study._warm_up(on_cpu)
    assert ran == []
    on_gpu = replace(on_cpu, device=torch.device("cuda"))
    for _ in range(2):
        study._warm_up(on_gpu)
    assert len(ran) == 1
    study._warm_up(replace(on_gpu, tensor=prepared.tensor[..., :64, :64]))  # another size makes other plans
    assert len(ran) == 2


def test_many_sessions_at_once_get_what_one_alone_gets() -> None:
    chosen = [
        Selection(backbone=b, method=m, size=64, seed=s)
        for b in ("squeezenet1_0", "shufflenet_v2_x0_5")
        for m in ("aff", "concat")
        for s in (0, 1)
    ]
    alone = [study.run(c).result.fused.tensor for c in chosen]
    models.BACKBONES.clear()
    models.METHODS.clear()
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda c: study.run(c).result.fused.tensor, chosen * 3))
    assert all(torch.equal(a, b) for a, b in zip(alone * 3, together, strict=True))


def test_the_classes_are_the_five_likeliest(tmp_path) -> None:
    from torchvision.models import squeezenet1_0

    torch.manual_seed(4)
    torch.save(squeezenet1_0().state_dict(), tmp_path / "mine.pth")
    prepared = study.prepare(Selection("sample:coffee", "squeezenet1_0", f"file:{tmp_path / 'mine.pth'}", size=64))
    guesses = study.run(prepared).guesses
    with torch.inference_mode():
        likely = prepared.backbone(prepared.tensor)[1][0].softmax(0)
    # Another thread may have another number of OpenMP threads, and so another order of summation.
    assert [g.probability for g in guesses] == pytest.approx(likely.sort(descending=True).values[:5].tolist(), rel=1e-5)
    assert len({g.label for g in guesses}) == 5


def test_a_profile_is_the_fastest_run_after_the_first(monkeypatch) -> None:
    runs = iter([{"a": 9.0, "b": 5.0}, {"a": 7.0, "b": 6.0}])
    monkeypatch.setattr(study.trace.TimedTrace, "milliseconds", lambda self: next(runs))
    assert study.profile(study.prepare(SMALL), repeats=2) == {"a": 7.0, "b": 5.0}


def test_statistics_by_hand() -> None:
    tensor = torch.tensor([0.0, 0.5, 1.0, 0.5]).view(1, 1, 2, 2)
    said = study.attention_statistics(AttentionMap("low", tensor, "b 1 h w", "gate"))
    assert (said["minimum"], said["maximum"], said["mean"]) == (0, 1, 0.5)
    assert said["std"] == pytest.approx(0.125**0.5)
    assert said["shape"] == (1, 1, 2, 2)


def test_a_trained_knob_stands_where_it_was_trained() -> None:
    mine = Selection(picture="scene:21", backbone="scene_resnet", method="wsum")
    found = study.run(mine)
    alpha = found.selection.knobs["alpha"]
    assert alpha != 0.5  # training moved it
    assert found.result.attention["low"].tensor[0, 0].item() == pytest.approx(alpha, abs=1e-6)
    turned = study.run(mine.with_(params=(("alpha", 0.9),)))
    assert turned.result.attention["low"].tensor[0, 0].item() == pytest.approx(0.9, abs=1e-6)


def test_a_method_that_chooses_is_fitted_where_no_head_was_trained() -> None:
    found = study.run(SMALL)
    sweep = found.sweep
    assert sweep.kind == "balance"
    assert [f.value for f in sweep.frames] == sorted(f.value for f in sweep.frames)
    assert sweep.frames[sweep.start].value == 0.5
    assert found.result is sweep.frames[sweep.start].result
    for frame in sweep.frames:
        assert frame.result.provenance.detail == f"this picture, balance {frame.value:g}"
        assert set(frame.facts) == {"mean", "edges", "flat"}
        assert frame.facts["mean"] == pytest.approx(frame.result.attention["low"].tensor.mean().item(), abs=1e-6)
        steps = [(s.key, s.inputs, s.parameters) for s in frame.result.trace]
        assert steps == [(s.key, s.inputs, s.parameters) for s in found.result.trace]
    met = {id(m.tensor) for f in sweep.frames for m in f.result.aligned}
    assert len(met) == 2  # the maps that meet are kept once
    assert [s.key for s in found.result.trace][:5] == ["low", "high", "low_project", "high_project", "high_resize"]


def test_the_slider_chooses_a_frame() -> None:
    found = study.run(SMALL.with_(method="highway", frame=0.93))
    assert found.result is next(f.result for f in found.sweep.frames if f.value == 0.95)
    assert study.report(found)["balance"]["at"] == 0.95
    assert len(study.report(found)["balance"]["curve"]) == len(found.sweep.frames)
    assert found.at(None).result is found.sweep.frames[found.sweep.start].result


@pytest.mark.parametrize(
    ("change", "fitted"),
    [
        ({}, True),
        ({"weights": "random", "backbone": "scene_resnet"}, True),
        ({"backbone": "scene_resnet", "params": (("r", 8),)}, True),
        ({"params": (("width", 64), ("norm", "bn"), ("resize", "nearest"))}, True),
        ({"method": "wsum"}, True),
        ({"backbone": "scene_resnet"}, False),  # a trained head covers it
        ({"method": "se"}, False),  # it does not choose between levels
        ({"method": "wsum", "params": (("alpha", 0.7),)}, False),  # the weight is set by hand
        ({"method": "highway", "params": (("b_T", -8.0),)}, False),  # and so is where its mean lies
        ({"params": (("width", 68),)}, False),  # the low level has 64 channels: there are no more directions
    ],
)
def test_what_is_fitted_and_what_is_not(change: dict, fitted: bool) -> None:
    chosen = SMALL.with_(**change)
    found = study.run(chosen)
    assert (found.sweep is not None) == fitted
    assert (found.result.provenance.kind == "fitted") == fitted
    assert ("fit" in found.timings) == fitted
    assert (study.report(found)["balance"] is not None) == fitted
    assert study.resolve(found.selection) == found.selection
    if fitted:
        assert found.selection.knobs["width"] == chosen.knobs.get("width", 24)
        assert found.costs()["parameters"] == sum(p.numel() for p in study.prepare(chosen).method.parameters())


def test_a_fit_leaves_the_opened_method_as_it_was() -> None:
    prepared = study.prepare(SMALL)
    before = {k: v.clone() for k, v in prepared.method.state_dict().items()}
    study.run(prepared)
    assert all(torch.equal(v, before[k]) for k, v in prepared.method.state_dict().items())
    assert prepared.method.provenance.kind == "random"


def test_a_scenes_boxes_become_regions_and_a_photographs_do_not() -> None:
    chosen = Selection(picture="scene:21", backbone="scene_resnet", method="ion")
    found = study.run(chosen)
    drawn = scenes.open_scene(21, found.seen.shown.shape[0])
    regions = found.result.outputs["regions"]
    assert regions.labels == tuple(scenes.CLASSES[k] for k in drawn.labels)
    assert regions.boxes.tolist() == drawn.boxes.tolist()
    width, n = found.result.fused.channels, len(drawn.labels)
    report = json.loads(json.dumps(study.report(found)))["outputs"]
    assert report["regions"]["shape"] == [n, width, 7, 7]
    assert (report["regions"]["labels"], len(report["regions"]["boxes"])) == (list(regions.labels), n)
    assert set(report) == {"fused", "regions"}
    assert set(study.run(SMALL.with_(method="ion")).result.outputs) == {"fused"}
    assert set(study.profile(study.prepare(chosen), repeats=1)) >= {"roi_1", "regions"}


# --- sites inside the network --------------------------------------------------------------------
SKIP = SMALL.with_(site="skip:layer3.1")


def test_at_a_skip_the_method_is_given_identity_and_residual_as_they_are() -> None:
    found = study.run(SKIP)
    assert (found.low.name, found.high.name) == ("identity", "residual")
    assert found.low.tensor.shape == found.high.tensor.shape == (1, 256, 6, 6)
    x, y = (m.tensor for m in found.result.aligned)
    assert torch.equal(x, found.low.tensor)  # X is the identity, as in AFF's paper; its released code swaps them
    assert torch.equal(y, found.high.tensor)
    fused, low, high = (m.tensor for m in (found.result.fused, found.low, found.high))
    assert bool((fused >= torch.minimum(low, high) - 1e-5).all() and (fused <= torch.maximum(low, high) + 1e-5).all())


def test_the_sum_at_a_skip_is_the_networks_own() -> None:
    found = study.run(SKIP.with_(method="add", low="identity", high="residual"))
    block = study.run(SMALL.with_(method="add")).pyramid["s16"].tensor  # layer 3 ends with this block
    assert torch.equal(found.result.fused.tensor.relu(), block)


def test_at_a_site_nothing_is_fitted_to_the_picture_and_no_head_is_said_to_cover_it() -> None:
    scene = Selection(method="aff", site="skip:stage3.1")
    prepared = study.prepare(scene)
    assert not prepared.fits
    assert prepared.card is None
    found = study.run(prepared)
    assert found.sweep is None
    assert found.prediction is None
    assert found.result.provenance.kind == "random"
    assert found.pyramid.provenance.kind == "bundled"
    assert found.guesses  # the network itself still runs to its end


@pytest.mark.parametrize("method", ["aff", "iaff", "concat", "fpn", "se"])
def test_methods_for_levels_work_on_branches(method: str) -> None:
    at = Selection(picture="sample:coffee", backbone="googlenet", size=96, method=method, site="branches:inception3a")
    found = study.run(at)
    assert (found.low.name, found.high.name) == ("b1", "b4")
    assert found.result.fused.size == found.low.size == (12, 12)
    assert found.result.fused.tensor.isfinite().all()


def test_a_method_of_branches_takes_its_first_site_and_all_maps_of_it() -> None:
    inception = study.run(SMALL.with_(backbone="googlenet", method="inception", low="b2"))
    assert inception.selection.site == "branches:inception3a"
    assert inception.result.fused.channels == 256  # low and high choose what is shown beside the stack, not the stack
    assert [s.role for s in inception.result.trace if s.op == "input"] == ["", "low", "", "high"]
    dense = study.resolve(SMALL.with_(backbone="densenet121", method="densenet"))
    assert (dense.site, dense.low, dense.high) == ("dense:features.denseblock1", "x0", "x6")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": "inception"}, "Inception .* ResNet-18 has no such layer. .* GoogLeNet, Inception v3, SqueezeNet"),
        ({"method": "densenet"}, "DenseNet .* ResNet-18 has no such block. .* DenseNet-121"),
        ({"method": "inception", "backbone": "vgg16"}, "VGG-16 has no such layer"),
        ({"site": "skip:layer3.9"}, r"no place 'skip:layer3\.9'.*skip:layer3\.1"),
        ({"site": "skip:layer3.1", "low": "s4"}, "no level 's4'. Its levels are identity, residual"),
        ({"backbone": "densenet121", "method": "inception"}, "DenseNet-121 has no such layer"),
    ],
)
def test_a_place_that_is_not_there_is_answered_with_where_there_is_one(changes: dict, words: str) -> None:
    with pytest.raises(LevelError, match=words):
        study.resolve(SMALL.with_(**changes))


def test_networks_named_as_a_way_out_have_such_sites() -> None:
    for kind, keys in study.EXAMPLES.items():
        for key in keys:
            assert kind in {s.kind for s in backbones.info(key).sites}


def test_two_sites_and_the_levels_of_one_network_at_once() -> None:
    chosen = [SKIP, SMALL.with_(site="skip:layer1.0"), SMALL.with_(method="add")] * 2
    alone = [study.run(s).result.fused.tensor for s in chosen]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda s: study.run(s).result.fused.tensor, chosen))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))
