"""Multi-level fusion by an independent loop, its knobs, and the article's comparison that says nothing about fusion."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fusionviz import fusion
from fusionviz.training import comparison

CHANNELS, SIZES = (3, 4, 5), ((8, 8), (4, 4), (2, 2))


def levels(sizes: tuple = SIZES) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, c, *size, generator=generator) for c, size in zip(CHANNELS, sizes, strict=True)]


def multilevel(**params: object) -> fusion.FusionModule:
    return fusion.build("multilevel", CHANNELS, **{"width": 8, **params})


def by_loop(module: fusion.FusionModule, maps: list[Tensor], n: int, y: int, x: int) -> Tensor:
    """One place of the middle target, from the picture's places: a 2x2 maximum, the cell itself, the cell above it."""
    fine, mid, coarse = (m[n] for m in maps)
    pooled = torch.stack([max(fine[c, 2 * y + i, 2 * x + j] for i in (0, 1) for j in (0, 1)) for c in range(3)])
    stack = torch.cat((pooled, mid[:, y, x], coarse[:, y // 2, x // 2]))
    return (module.mix.weight[:, :, 0, 0] @ stack + module.mix.bias).clamp_min(0)


def test_one_place_by_an_independent_loop() -> None:
    maps, module = levels(), multilevel(target="middle", up="nearest")
    fused = module(*maps).fused.tensor
    for place in ((0, 0, 0), (0, 3, 1), (1, 2, 3)):
        n, y, x = place
        torch.testing.assert_close(fused[n, :, y, x], by_loop(module, maps, *place))


@pytest.mark.parametrize(("target", "at"), [("finest", 0), ("middle", 1), ("coarsest", 2)])
def test_the_target_gives_size_and_place(target: str, at: int) -> None:
    result = multilevel(target=target)(*levels())
    assert result.fused.size == SIZES[at]
    assert result.fused.stride == (4.0 * 2**at,) * 2
    assert {m.size for m in result.aligned} == {SIZES[at]}
    ops = [s.op for s in result.trace if s.op not in ("input", "concat", "project", "relu")]
    assert ops == ["max_pool"] * at + ["resize_bilinear"] * (2 - at)  # the target itself passes as it is


def test_the_middle_of_an_even_number_is_the_finer_one() -> None:
    module = fusion.build("multilevel", (3, 4, 5, 6), width=8, target="middle")
    assert module.at == 1
    assert fusion.build("multilevel", (3, 4), width=8, target="middle").at == 0


def test_ways_down_worked_by_hand() -> None:
    fine = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])
    coarse = torch.zeros(1, 1, 1, 1)
    for down, value in (("max", 6), ("mean", 3), ("nearest", 1)):  # nearest drops three of four cells
        module = fusion.build("multilevel", (1, 1), width=4, target="coarsest", down=down)
        with torch.no_grad():
            module.mix.weight.fill_(1)
            module.mix.bias.zero_()
        assert module(fine, coarse).fused.tensor.flatten().tolist() == [value] * 4


def test_max_pooling_by_size_is_max_pooling_by_factor() -> None:
    maps = levels()
    steps = {s.key: s.tensor for s in multilevel(target="coarsest")(*maps).trace}
    assert torch.equal(steps["down_1"], F.max_pool2d(maps[0], 4))
    assert torch.equal(steps["down_2"], F.max_pool2d(maps[1], 2))


def test_a_louder_level_takes_over() -> None:
    """Nothing stands between the levels: what ION's norm is for."""
    maps, module = levels(), multilevel()
    share = module(*maps).share_of_low().tensor.mean()
    louder = module(100 * maps[0], *maps[1:]).share_of_low().tensor.mean()
    assert share < 0.8
    assert louder > 0.95


def test_the_stack_is_a_sum_of_one_convolution_for_each_level() -> None:
    maps, module = levels(((8, 8),) * 3), multilevel()
    result = module(*maps)
    low, rest = result.terms()
    total = low + rest + module.mix.bias[:, None, None]
    torch.testing.assert_close(total.clamp_min(0), result.fused.tensor)
    torch.testing.assert_close(low, F.conv2d(maps[0], module.mix.weight[:, :3]))


def test_levels_of_one_size_are_not_resized() -> None:
    maps = levels(((4, 4),) * 3)
    module = fusion.build("multilevel", CHANNELS, (16.0,) * 3, width=8, target="coarsest")
    assert [s.op for s in module(*maps).trace] == ["input"] * 3 + ["concat", "project", "relu"]


# --- the article's comparison --------------------------------------------------------------------
def cost(network: str, side: int = 256, built_for: int = 256) -> tuple[int, int]:
    """Parameters, and multiply-accumulates of one picture, with the article's ten classes."""
    return comparison.cost(comparison.build(network, 10, built_for), side)


def test_the_articles_comparison_compares_everything_but_fusion() -> None:
    baseline, fused = cost("baseline"), cost("fusion")
    assert baseline == (2_992_266, 634_912_768)
    assert fused == (649_610, 2_999_091_200)
    assert round(baseline[0] / fused[0], 1) == 4.6
    assert round(fused[1] / baseline[1], 1) == 4.7
    heads = (comparison.build(name, 10, 256).head.weight.numel() for name in ("baseline", "fusion"))
    more = next(heads) - next(heads)
    assert more == 2_457_600
    assert more > baseline[0] - fused[0]  # the head alone is more than the whole difference


def test_a_fair_pair_differs_in_the_stack_alone() -> None:
    alone, fused = cost("alone"), cost("fusion")
    more = (64 + 128) * 256  # the columns of the 1x1 that read the two finer levels
    assert fused[0] - alone[0] == more == 49_152
    assert fused[1] - alone[1] == more * 64 * 64
    assert round(fused[0] / alone[0], 2) == 1.08
    assert round(fused[1] / alone[1], 2) == 1.07


def test_pooling_to_a_size_takes_any_picture_and_a_flat_head_takes_one() -> None:
    for side in (224, 250):
        assert cost("fusion", side)[0] == 649_610
    with pytest.raises(RuntimeError, match="200704"):
        cost("baseline", 224)
