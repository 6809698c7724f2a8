"""DeepLabv3+: the paper's shapes, equality with segmentation_models_pytorch, and what each of the two levels brings."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fusionviz import fusion


def maps(low: tuple[int, int] = (16, 12), high: tuple[int, int] = (4, 3)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(2, c, *size, generator=generator) for c, size in ((6, low), (10, high)))


def deeplab(**params: object) -> fusion.FusionModule:
    return fusion.build("deeplabv3plus", (6, 10), (4.0, 16.0), **{"width": 8, **params})


def shapes(module: fusion.FusionModule, *levels: torch.Tensor) -> dict[str, tuple[int, ...]]:
    return {s.key: tuple(s.tensor.shape) for s in module(*levels).trace}


def leaves(module: nn.Module) -> list[nn.Module]:
    return [m for m in module.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]


def test_the_papers_shapes() -> None:
    """ResNet's levels: 256 channels at stride 4, 2048 at stride 16. Five windows of 256, then 256 + 48 = 304."""
    found = shapes(
        fusion.build("deeplabv3plus", (256, 2048), (4.0, 16.0)), torch.ones(1, 256, 8, 8), torch.ones(1, 2048, 2, 2)
    )
    assert found["windows"] == (1, 5 * 256, 2, 2)
    assert found["aspp"] == (1, 256, 2, 2)
    assert found["reduce"] == (1, 48, 8, 8)
    assert found["stack"] == (1, 304, 8, 8)
    assert found["conv_1"] == found["conv_2"] == (1, 256, 8, 8)


def test_parameters_worked_by_hand() -> None:
    count = lambda **knobs: sum(p.numel() for n, p in deeplab(**knobs).named_parameters() if p.ndim == 4)  # noqa: E731
    aspp, reduce = 2 * 10 * 8 + 3 * 9 * 10 * 8 + 40 * 8, 6 * 48
    assert count() == aspp + reduce + 9 * 56 * 8 + 9 * 8 * 8
    assert count(convs=3) - count() == 9 * 8 * 8
    assert count(budget=256) - count() == 208 * (6 + 9 * 8)
    thin = lambda c: 9 * c + c * 8  # noqa: E731 - depthwise, then 1x1
    assert count(separable=True) == 2 * 10 * 8 + 3 * thin(10) + 40 * 8 + reduce + thin(56) + thin(8)


@pytest.mark.parametrize("rates", ["6-12-18", "1-2-3"])
def test_equals_segmentation_models_pytorch_with_the_same_weights(stir, rates: str) -> None:
    """Two things of theirs are taken out: a further separable convolution behind ASPP, and aligned corners."""
    smp = pytest.importorskip("segmentation_models_pytorch.decoders.deeplabv3.decoder")
    module = stir(deeplab(rates=rates, convs=1, separable=True))
    theirs = smp.DeepLabV3PlusDecoder((3, 3, 6, 3, 10), 4, 8, [int(r) for r in rates.split("-")], 16, True, 0.5).eval()
    aspp, further, norm, _ = theirs.aspp
    depthwise, pointwise = further
    nn.init.dirac_(depthwise.weight, groups=8)
    nn.init.dirac_(pointwise.weight)
    norm.running_var.fill_(1 - norm.eps)  # the identity, exactly
    theirs.up = nn.Upsample(scale_factor=4, mode="bilinear", align_corners=False)
    pairs = [*zip(module.look, aspp.convs, strict=True), (module.project, aspp.project)]
    for ours, there in [*pairs, (module.reduce, theirs.block1), (module.mix[0], theirs.block2)]:
        for a, b in zip(leaves(ours), leaves(there), strict=True):
            b.load_state_dict(a.state_dict())
    low, high = maps()
    expected = theirs([None, None, low, None, high])
    torch.testing.assert_close(module(low, high).fused.tensor, expected)


@pytest.mark.parametrize("separable", [False, True])
def test_the_terms_are_the_two_blocks_of_the_first_kernel(stir, separable: bool) -> None:
    module, (low, high) = stir(deeplab(separable=separable)), maps()
    result = module(low, high)
    x, y = result.terms()
    first, norm = module.mix[0][:-2], module.mix[0][-2]
    narrow, wide = (m.tensor for m in result.aligned)
    torch.testing.assert_close(x + y, first(torch.cat((wide, narrow), 1)))
    z = next(s.tensor for s in result.trace if s.key == "conv_1")
    torch.testing.assert_close(norm(x + y).relu(), z)
    if not separable:
        torch.testing.assert_close(x, F.conv2d(narrow, first[0].weight[:, 8:], padding=1))


def test_with_the_low_paths_weights_at_zero_edges_reach_nothing() -> None:
    module, (low, high) = deeplab(), maps()
    nn.init.zeros_(module.reduce[0].weight)
    result = module(low, high)
    assert torch.equal(result.fused.tensor, module(torch.randn_like(low), high).fused.tensor)
    assert bool((result.share_of_low().tensor == 0).all())


@pytest.mark.parametrize(("rates", "padding_only"), [("6-12-18", True), ("1-2-3", False)])
def test_a_rate_beyond_the_map_leaves_a_1x1_convolution(rates: str, padding_only: bool) -> None:
    """On 4 x 3 cells every tap of the paper's rates but the middle one lies on padding; the others may be anything."""
    module, (low, high) = deeplab(rates=rates), maps()
    before = module(low, high).fused.tensor
    with torch.no_grad():
        for branch in module.look[1:-1]:
            middle = branch[0].weight[..., 1:2, 1:2].clone()
            branch[0].weight.normal_(generator=torch.Generator().manual_seed(1))
            branch[0].weight[..., 1:2, 1:2] = middle
    assert torch.allclose(module(low, high).fused.tensor, before) is padding_only


def test_a_rate_moves_the_taps_apart() -> None:
    high = torch.zeros(1, 10, 13, 13)
    high[..., 6, 6] = 1
    module = deeplab()
    with torch.no_grad():
        module.look[1][0].weight.fill_(1)
    at = {s.key: s.tensor for s in module(torch.zeros(1, 6, 52, 52), high).trace}["at_1"]
    seen = {tuple(p) for p in at[0, 0].nonzero().tolist()}
    assert seen == {(i, j) for i in (0, 6, 12) for j in (0, 6, 12)}


def test_the_window_of_the_whole_picture_is_one_value_for_all_places() -> None:
    module, (low, high) = deeplab(), maps()
    steps = {s.key: s.tensor for s in module(low, high).trace}
    assert torch.equal(steps["spread"], steps["at_image"].expand_as(steps["spread"]))
    torch.testing.assert_close(steps["squeeze"], high.mean((2, 3), keepdim=True))
    assert len(steps["windows"][0]) == 5 * 8


def test_sizes_need_not_be_multiples_and_equal_ones_are_not_resized() -> None:
    assert shapes(deeplab(), *maps((15, 13), (4, 4)))["conv_2"] == (2, 8, 15, 13)
    assert "high_resize" not in shapes(deeplab(), *maps((4, 4), (4, 4)))
    assert deeplab()(*maps((1, 1), (1, 1))).fused.size == (1, 1)


@pytest.mark.parametrize("knob", [{"rates": "1-2-3"}, {"convs": 3}, {"budget": 8}, {"separable": True}])
def test_every_knob_changes_the_map(knob: dict) -> None:
    low, high = maps((32, 32), (16, 16))
    assert not torch.allclose(deeplab(**knob)(low, high).fused.tensor, deeplab()(low, high).fused.tensor)
