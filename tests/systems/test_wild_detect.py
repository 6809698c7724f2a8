"""torchvision's detectors: its own boxes, the level that claimed each, and the levels themselves."""

import pytest
import torch
from _torchvisions import build, check_trace, look, picture, pixels, steps
from torchvision.models import detection, list_models
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.ops.poolers import LevelMapper

from fusionviz import backbones, systems
from fusionviz.records import Detections
from fusionviz.systems._wild_levels import grids

KEY = "wild_detect"
NETS = systems.spec(KEY).param("net").choices
SIZE = (160, 224)
SMALL = "fasterrcnn_mobilenet_v3_large_320_fpn"
STAGES = {"fasterrcnn": 2, "maskrcnn": 2, "retinanet": 1, "fcos": 1, "ssd300": 1, "ssdlite320": 1}
CHANNELS = {
    "ssd300_vgg16": (512, 1024, 512, 256, 256, 256),
    "ssdlite320_mobilenet_v3_large": (672, 480, 512, 256, 256, 128),
}
CELLS = {
    "ssd300_vgg16": ((38, 38), (19, 19), (10, 10), (5, 5), (3, 3), (1, 1)),
    "ssdlite320_mobilenet_v3_large": ((20, 20), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1)),
}


def unsure(net: str, most: int = 12, **knobs: object) -> systems.System:
    """A detector that hands out what it is hardly sure of, as one with random weights is, and few of it."""
    module = build(KEY, net, **{"scale": "given", "score": 0.01, **knobs})
    network = module.network
    heads = getattr(network, "roi_heads", network)
    heads.score_thresh, heads.detections_per_img = 0.01, most
    if heads is not network:
        network.rpn._post_nms_top_n["testing"] = 60
    if net.startswith("ssdlite"):  # as drawn, every box of every level says the same
        generator = torch.Generator().manual_seed(1)
        for conv in network.head.classification_head.module_list:
            torch.nn.init.normal_(conv[-1].bias, generator=generator)
    return module


def reference(module: systems.System, at: torch.Tensor) -> tuple[dict, dict]:
    """torchvision's own result, and the levels that it predicted on."""
    network, found = module.network, {}
    if module.params["scale"] == "given":
        network.transform.min_size, network.transform.max_size = (min(at.shape[-2:]),), max(at.shape[-2:])
    hook = network.backbone.register_forward_hook(lambda m, i, o: found.update(o))
    with torch.no_grad():
        (result,) = network([pixels(at)[0]])
    hook.remove()
    return result, found


def same(found: Detections, expected: dict) -> None:
    torch.testing.assert_close(found.boxes, expected["boxes"])
    torch.testing.assert_close(found.scores, expected["scores"])
    assert torch.equal(found.labels, expected["labels"])


def claims(module: systems.System, found: Detections, made: dict[str, torch.Tensor]) -> list[int]:
    """Whose each box is, found out anew from what every level or region said."""
    if STAGES[module.net.partition("_")[0]] == 1:
        sure = [made[f"sure_{name}"] for name in found.levels]
        background = int(module.net.startswith("ssd"))
        assert background == 0 or torch.allclose(sure[0].sum(-1), torch.ones(1))
        return [
            [i for i, s in enumerate(sure) if bool((s[..., k] == p).any())]
            for p, k in zip(found.scores, found.labels, strict=True)
        ]
    mobile = "mobilenet" in module.net
    levels = LevelMapper(*((5, 5) if mobile else (2, 5)), 224, 4)([made["proposals"]])
    return [
        sorted(set(levels[made["sure"][:, k] == p].tolist())) for p, k in zip(found.scores, found.labels, strict=True)
    ]


def test_every_detector_of_torchvision_is_there_but_that_of_joints():
    assert set(NETS) == set(list_models(module=detection)) - {"keypointrcnn_resnet50_fpn"}


@pytest.mark.parametrize("net", NETS)
def test_it_is_torchvisions_forward_pass_and_says_whose_each_box_is(net):
    module, at = unsure(net), picture(*SIZE)
    expected, taps = reference(module, at)
    result = look(module, at)
    out, made = result.outputs, steps(result)
    found = out["detections"]
    assert len(found) > 0
    same(found, expected)
    whose = claims(module, found, made)
    assert all(level in who for level, who in zip(found.level.tolist(), whose, strict=True))
    assert sum(len(who) == 1 for who in whose) > 0  # so that it could have been another
    assert found.classes[1] == "person"
    assert (found.classes[0], len(found.classes)) == ("__background__", 91)
    places = grids(net)
    assert found.levels == tuple(p.name for p in places)
    for i, (place, tap) in enumerate(zip(places, taps.values(), strict=True)):
        level, sure = out[place.name], out[f"o{place.name[1:]}"]
        torch.testing.assert_close(level.tensor, tap)
        assert level.channels == CHANNELS.get(net, (256,) * len(places))[i]
        square = {"ssd300_vgg16": 300, "ssdlite320_mobilenet_v3_large": 320}.get(net)
        ratio = tuple(s / square for s in SIZE) if square else (1, 1)
        assert level.stride == pytest.approx(tuple(place.stride * r for r in ratio))
        assert level.offset == pytest.approx(tuple(place.offset * r for r in ratio))
        if square:
            assert level.size == CELLS[net][i]
        else:
            assert level.size == tuple(-(-n // place.stride) for n in SIZE)
        assert sure.tensor.shape == (1, 1, *level.size)
        assert bool(((sure.tensor >= 0) & (sure.tensor <= 1)).all())
    late = net.startswith("ssd")
    assert late is ("fused" not in out)
    if not late:
        assert torch.equal(out["fused"].tensor, out[places[0].name].tensor)
        assert torch.equal(
            out["high"].tensor, made[f"c{3 if net.startswith(('retina', 'fcos')) else 2 if 'mobile' in net else 4}"]
        )
    assert ("masks" in out) is net.startswith("maskrcnn")
    if "masks" in out:
        drawn = paste_masks_in_image(out["masks"].tensor, out["masks"].boxes, SIZE)
        torch.testing.assert_close(drawn, expected["masks"])
        assert out["masks"].labels == tuple(found.classes[i] for i in found.labels)
    check_trace(KEY, result)


def test_regions_of_different_sizes_go_to_different_levels():
    found = look(unsure("fasterrcnn_resnet50_fpn", most=100), picture(256, 320)).outputs["detections"]
    assert len(set(found.level.tolist())) > 1


def test_the_top_down_path_is_projected_enlarged_and_added():
    module = unsure(SMALL)
    made = steps(look(module, picture(*SIZE)))
    fpn = module.network.backbone.fpn
    with torch.no_grad():
        lateral, above = fpn.inner_blocks[0](made["c1"]), fpn.inner_blocks[1](made["c2"])
        torch.testing.assert_close(made["sum_1"], lateral + above)  # of one stride, so nothing is enlarged
        torch.testing.assert_close(made["p_1"], fpn.layer_blocks[0](lateral + above))
    assert torch.equal(made["p64"], made["p_2"][..., ::2, ::2])


@pytest.mark.parametrize("net", [SMALL, "ssdlite320_mobilenet_v3_large"])
def test_a_picture_is_enlarged_as_torchvision_does_and_boxes_come_back_to_it(net):
    module, at = unsure(net, scale="own"), picture(100, 141)
    expected, _ = reference(module, at)
    result = look(module, at)
    found = result.outputs["detections"]
    same(found, expected)
    size = (320, 451) if net == SMALL else (320, 320)  # filled up to whole strides of 32
    assert steps(result)["fitted"].shape[-2:] == ((320, 480) if net == SMALL else (320, 320))
    ratio = (100 / size[0], 141 / size[1])
    first = grids(net)[0]
    assert result.outputs[first.name].stride == pytest.approx(tuple(first.stride * r for r in ratio))
    limit = torch.tensor([141.0, 100, 141, 100])
    assert bool((found.boxes >= 0).all())
    assert bool((found.boxes <= limit + 1e-3).all())


@pytest.mark.parametrize("net", [SMALL, "ssdlite320_mobilenet_v3_large"])
def test_the_score_only_leaves_boxes_out(net):
    at = picture(*SIZE)
    found = look(unsure(net, most=100), at).outputs["detections"]
    values = found.scores.unique()
    middle = values[len(values) // 2 - 1 : len(values) // 2 + 1].mean().item()
    left = look(unsure(net, most=100, score=middle), at).outputs["detections"]
    keep = found.scores > middle
    assert 0 < len(left) == int(keep.sum()) < len(found)
    torch.testing.assert_close(left.boxes, found.boxes[keep])
    assert torch.equal(left.level, found.level[keep])


def test_with_random_weights_nothing_is_found_and_the_levels_are_shown():
    result = look(build(KEY, SMALL, scale="given", score=0.99), picture(*SIZE))
    assert len(result.outputs["detections"]) == 0
    assert result.fused.size == (5, 7)


def test_nothing_of_a_run_stays_on_the_network():
    module, at = unsure(SMALL), picture(*SIZE)
    before = look(module, at).outputs["detections"].boxes
    look(module, picture(64, 448))
    assert torch.equal(look(module, at).outputs["detections"].boxes, before)
    assert module.network.roi_heads.box_roi_pool.scales is None


def test_cells_of_vggs_levels_stand_where_its_poolings_put_them():
    known = {level.stride[0]: level.offset[0] for level in backbones.info("vgg16").levels}
    ours = {g.stride: g.offset for g in grids("ssd300_vgg16")[:2]}
    assert ours == {stride: known[stride] for stride in ours}
    for body in ("resnet50", "mobilenet_v3_large"):
        assert {level.offset for level in backbones.info(body).levels} == {(0.5, 0.5)}
