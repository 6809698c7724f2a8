"""ION: every level equally loud whatever its numbers were, and the same inside a box."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align

from fusionviz import fusion
from fusionviz.errors import ShapeError
from fusionviz.records import FeatureMap, RegionMaps

CHANNELS, SIZES = (3, 4, 5), ((9, 7), (5, 4), (3, 2))


def levels(sizes: tuple = SIZES, channels: tuple = CHANNELS) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, c, *size, generator=generator) for c, size in zip(channels, sizes, strict=True)]


def ion(**params: object) -> fusion.FusionModule:
    return fusion.build("ion", CHANNELS, **{"width": 8, **params})


def steps(module: fusion.FusionModule, maps: list[Tensor]) -> dict[str, Tensor]:
    return {s.key: s.tensor for s in module(*maps).trace}


@pytest.mark.parametrize("gain", [1e-3, 1.0, 100.0])
def test_every_level_has_the_norm_of_its_scale_whatever_came(gain: float) -> None:
    found = steps(ion(), [gain * m for m in levels()])
    for i in (1, 2, 3):
        norms = found[f"scale_{i}"].flatten(1).norm(dim=1)
        torch.testing.assert_close(norms, torch.full((2,), 1000.0), atol=0, rtol=1e-5)


@pytest.mark.parametrize("gain", [1e-3, 1.0, 100.0])
def test_norm_over_position_is_per_place(gain: float) -> None:
    found = steps(ion(l2="position"), [gain * m for m in levels()])
    for i in (1, 2, 3):
        torch.testing.assert_close(found[f"scale_{i}"].norm(dim=1), torch.full((2, 9, 7), 1000.0), atol=0, rtol=1e-5)


@pytest.mark.parametrize("norm", ["roi", "position"])
@pytest.mark.parametrize("louder", [0, 1, 2])
def test_a_level_a_hundred_times_louder_changes_nothing(norm: str, louder: int) -> None:
    maps, module = levels(), ion(l2=norm)
    loud = [m * (100 if i == louder else 1) for i, m in enumerate(maps)]
    torch.testing.assert_close(module(*loud).fused.tensor, module(*maps).fused.tensor, rtol=1e-4, atol=1e-3)


def test_without_the_norm_it_changes_nearly_everything() -> None:
    maps, module = levels(), ion(l2="none")
    quiet, loud = module(*maps), module(100 * maps[0], *maps[1:])
    assert (loud.fused.tensor - quiet.fused.tensor).norm() > 10 * quiet.fused.tensor.norm()
    assert loud.share_of_low().tensor.mean() > 0.95 > quiet.share_of_low().tensor.mean()
    assert not list(module.scale)  # plain stack and 1x1


def test_worked_by_hand() -> None:
    low = torch.tensor([[[[3.0, 0.0], [0.0, 4.0]]]])  # norm 5
    high = torch.tensor([[[[2.0]]]])  # enlarged to four cells of 2, norm 4
    module = fusion.build("ion", (1, 1), width=4)
    with torch.no_grad():
        module.mix.weight.fill_(1)
        module.mix.bias.fill_(7)
        module.scale[1].fill_(10)
    fused = module(low, high).fused.tensor
    expected = torch.tensor([[600.0, 0.0], [0.0, 800.0]]) + 10 * 0.5 + 7
    torch.testing.assert_close(fused, expected.expand(1, 4, 2, 2))


def test_scaling_levels_then_stacking_is_stacking_then_scaling() -> None:
    """The paper's order: normalise, concatenate, scale; one number per channel makes both the same."""
    maps, module = levels(((6, 6),) * 3), ion()
    with torch.no_grad():
        for i, s in enumerate(module.scale):
            s.copy_(torch.rand(s.shape, generator=torch.Generator().manual_seed(i)))
    unit = torch.cat([m / m.flatten(1).norm(dim=1)[:, None, None, None] for m in maps], 1)
    scaled = unit * torch.cat(list(module.scale), 1)
    torch.testing.assert_close(module(*maps).fused.tensor, F.conv2d(scaled, module.mix.weight, module.mix.bias))


def test_counts_of_the_papers_region() -> None:
    """Levels of 256, 512 and 512 channels: a 1x1 convolution to 512, and one number for each channel read."""
    module = fusion.build("ion", (256, 512, 512))
    assert sum(p.numel() for p in module.parameters()) == 1280 * 512 + 512 + 1280
    assert sum(p.numel() for p in module.scale) == 1280


def test_an_empty_level_stays_empty() -> None:
    maps = levels()
    result = ion()(torch.zeros_like(maps[0]), *maps[1:])
    assert bool(result.fused.tensor.isfinite().all())
    assert not bool(result.aligned[0].tensor.any())


# --- regions -------------------------------------------------------------------------------------
def placed(tensors: list[Tensor], offset: float | None = None) -> list[FeatureMap]:
    return [
        FeatureMap(f"s{s}", t, (s, s), (s / 2 if offset is None else offset,) * 2, i)
        for i, (s, t) in enumerate(zip((4, 8, 16), tensors, strict=True), start=1)
    ]


def test_a_region_is_the_fusion_of_its_pooled_levels() -> None:
    """A box whose 7 x 7 cells lie on cells of a level: pooling has nothing to do there, and the rest follows."""
    maps = levels(((14, 14),) * 3)
    module = fusion.build("ion", CHANNELS, (4, 4, 4), width=8)
    given = [FeatureMap(f"d{i}", t, (4, 4), (2, 2), i) for i, t in enumerate(maps, start=1)]
    boxes = torch.tensor([[0.0, 0.0, 56.0, 56.0]])
    found = module.roi_features(given, boxes, 14)
    torch.testing.assert_close(found[:, 0], module(*maps).fused.tensor, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("offset", [None, 0.5])
def test_boxes_are_read_at_the_true_places_of_cells(offset: float | None) -> None:
    """Maps that hold their own cells' x and y in pixels: a region's cells must hold theirs."""
    maps = []
    for s, n in ((4, 32), (8, 16), (16, 8)):
        at = (s / 2 if offset is None else offset) + s * torch.arange(n)
        maps.append(torch.stack((at.expand(n, n), at[:, None].expand(n, n)))[None])
    module = fusion.build("ion", (2, 2, 2), width=4, l2="none")
    with torch.no_grad():
        module.mix.bias.zero_()
        module.mix.weight.copy_(torch.eye(2).repeat(2, 3)[..., None, None] / 3)  # the mean of the three levels
    boxes = torch.tensor([[24.0, 38.0, 80.0, 94.0], [30.0, 30.0, 58.0, 72.0]])
    found = module.roi_features(placed(maps, offset), boxes)
    assert found.shape == (1, 2, 4, 7, 7)
    for box, cells in zip(boxes.tolist(), found[0], strict=True):
        along = (torch.arange(7) + 0.5) / 7
        xs, ys = box[0] + along * (box[2] - box[0]), box[1] + along * (box[3] - box[1])
        torch.testing.assert_close(cells[0], xs.expand(7, 7), atol=1e-2, rtol=0)
        torch.testing.assert_close(cells[1], ys[:, None].expand(7, 7), atol=1e-2, rtol=0)


def test_regions_have_the_papers_size_and_every_picture_its_own() -> None:
    tensors = levels(((32, 32), (16, 16), (8, 8)))
    module = fusion.build("ion", CHANNELS)
    boxes = torch.tensor([[8.0, 8.0, 64.0, 64.0], [40.0, 16.0, 120.0, 100.0], [0.0, 0.0, 16.0, 16.0]])
    both = module.roi_features(placed(tensors), boxes)
    assert both.shape == (2, 3, 512, 7, 7)
    second = module.roi_features(placed([t[1:] for t in tensors]), boxes)
    torch.testing.assert_close(both[1:], second, rtol=1e-4, atol=1e-3)
    loud = module.roi_features(placed([100 * tensors[0], *tensors[1:]]), boxes)
    torch.testing.assert_close(loud, both, rtol=1e-4, atol=1e-3)  # the norm is of each region by itself
    assert module.roi_features(placed(tensors), boxes[:0]).shape == (2, 0, 512, 7, 7)


BOXES = torch.tensor([[8.0, 8.0, 64.0, 64.0], [40.0, 16.0, 120.0, 100.0], [3.0, 5.0, 11.0, 9.0]])


def pyramid(batch: int = 1) -> list[FeatureMap]:
    return placed([t[:batch] for t in levels(((32, 32), (16, 16), (8, 8)))])


def regions(module: fusion.FusionModule, maps: list[FeatureMap]) -> RegionMaps:
    return module(*maps, context=fusion.Context(boxes=BOXES, labels=("ball", "house", "sign"))).outputs["regions"]


def only(module: fusion.FusionModule, level: int) -> fusion.FusionModule:
    """Let the 1x1 convolution hand through one level's channels as they are."""
    start, count = sum(CHANNELS[:level]), CHANNELS[level]
    with torch.no_grad():
        module.mix.bias.zero_()
        module.mix.weight.zero_()
        for c in range(count):
            module.mix.weight[c, start + c] = 1
    return module


def test_regions_by_hand_against_roi_align_of_each_level() -> None:
    """Without norm and scale: W on the stack of what torchvision pools from each level, at half a cell's offset."""
    module, maps = ion(l2="none"), pyramid()
    pooled = [roi_align(m.tensor, [BOXES], 7, 1 / m.stride[0], aligned=True) for m in maps]
    found = regions(module, maps)
    torch.testing.assert_close(found.tensor, module.mix(torch.cat(pooled, 1)))
    assert found.tensor.shape == (3, 8, 7, 7)
    assert found.labels == ("ball", "house", "sign")
    assert torch.equal(found.boxes, BOXES)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_every_level_has_the_norm_of_its_scale_in_every_box(level: int) -> None:
    maps = pyramid()
    norms = regions(only(ion(), level), maps).tensor.flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, torch.full((3,), 1000.0), atol=0, rtol=1e-5)
    at = regions(only(ion(l2="position"), level), maps).tensor.norm(dim=1)
    torch.testing.assert_close(at, torch.full((3, 7, 7), 1000.0), atol=0, rtol=1e-5)


@pytest.mark.parametrize("louder", [0, 1, 2])
def test_a_level_a_hundred_times_louder_leaves_the_regions_as_they_are(louder: int) -> None:
    module, maps = ion(), pyramid()
    loud = [replace(m, tensor=m.tensor * (100 if i == louder else 1)) for i, m in enumerate(maps)]
    torch.testing.assert_close(regions(module, loud).tensor, regions(module, maps).tensor, rtol=1e-4, atol=1e-3)
    plain = ion(l2="none")
    assert not torch.allclose(regions(plain, loud).tensor, regions(plain, maps).tensor, rtol=0.1, atol=0.1)


def test_regions_are_steps_of_the_trace_and_share_all_parameters() -> None:
    module, maps = ion(), pyramid()
    result = module(*maps, context=fusion.Context(boxes=BOXES))
    last = result.trace[-1]
    assert last.tensor is result.outputs["regions"].tensor
    assert last.inputs == ("roi_1", "roi_2", "roi_3")
    assert sum(s.parameters for s in result.trace) == sum(p.numel() for p in module.parameters())
    assert set(result.maps) == {"fused"}
    assert torch.equal(result.fused.tensor, module(*maps).fused.tensor)
    torch.testing.assert_close(last.tensor, module.roi_features(maps, BOXES)[0])


def test_boxes_of_several_pictures_at_once_are_refused() -> None:
    with pytest.raises(ShapeError, match="Boxes belong to one picture, but 2"):
        regions(ion(), pyramid(2))


def test_boxes_of_another_shape_are_refused() -> None:
    tensors = levels(((32, 32), (16, 16), (8, 8)))
    with pytest.raises(ShapeError, match="list of boxes should have axes n 4"):
        ion().roi_features(placed(tensors), torch.zeros(3, 5))
    with pytest.raises(ShapeError, match="3, 4, 5"):
        ion().roi_features(placed(tensors)[:2], torch.zeros(3, 4))
