"""Multi-level fusion by an independent loop, its knobs, and the article's comparison that says nothing about fusion."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from fusionviz import fusion

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
def conv(c: int, out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(c, out, 3, stride, 1)


class Baseline(nn.Module):
    """The article's "baseline": strided convolutions, and a linear layer on all 32 x 32 places."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(3, 64, 2), nn.ReLU(), conv(64, 128, 2), nn.ReLU(), conv(128, 256, 2))
        self.head = nn.Linear(256 * 32 * 32, 10)

    def forward(self, picture: Tensor) -> Tensor:
        return self.head(self.body(picture).flatten(1))


class Encoder(nn.Module):
    """Three levels of 64, 128 and 256 channels at the picture's size, a half and a quarter of it."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList((conv(3, 64), conv(64, 128), conv(128, 256)))

    def forward(self, picture: Tensor) -> tuple[Tensor, ...]:
        found = []
        for layer in self.convs:
            found.append(F.relu(layer(F.max_pool2d(found[-1], 2) if found else picture)))
        return tuple(found)


class Classifier(nn.Module):
    """One encoder, this repository's fusion, pooling to 8 x 8, a linear layer; `fuses` off: the last level alone."""

    def __init__(self, *, fuses: bool) -> None:
        super().__init__()
        self.fuses, self.encoder, self.head = fuses, Encoder(), nn.Linear(256 * 8 * 8, 10)
        self.fusion = fusion.build("multilevel", (64, 128, 256), (1, 2, 4), target="coarsest") if fuses else conv_1x1()

    def forward(self, picture: Tensor) -> Tensor:
        maps = self.encoder(picture)
        fused = self.fusion(*maps).fused.tensor if self.fuses else F.relu(self.fusion(maps[-1]))
        return self.head(F.adaptive_avg_pool2d(fused, 8).flatten(1))


def conv_1x1() -> nn.Conv2d:
    return nn.Conv2d(256, 256, 1)


def cost(network: nn.Module, side: int = 256) -> tuple[int, int]:
    """Parameters, and multiply-accumulates of one picture."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.to("meta")(torch.empty(1, 3, side, side, device="meta"))
    return sum(p.numel() for p in network.parameters()), counter.get_total_flops() // 2


def test_the_articles_comparison_compares_everything_but_fusion() -> None:
    baseline, fused = cost(Baseline()), cost(Classifier(fuses=True))
    assert baseline == (2_992_266, 634_912_768)
    assert fused == (649_610, 2_999_091_200)
    assert round(baseline[0] / fused[0], 1) == 4.6
    assert round(fused[1] / baseline[1], 1) == 4.7
    heads = Baseline().head.weight.numel() - Classifier(fuses=True).head.weight.numel()
    assert heads == 2_457_600
    assert heads > baseline[0] - fused[0]  # the head alone is more than the whole difference


def test_a_fair_pair_differs_in_the_stack_alone() -> None:
    alone, fused = cost(Classifier(fuses=False)), cost(Classifier(fuses=True))
    more = (64 + 128) * 256  # the columns of the 1x1 that read the two finer levels
    assert fused[0] - alone[0] == more == 49_152
    assert fused[1] - alone[1] == more * 64 * 64
    assert round(fused[0] / alone[0], 2) == 1.08
    assert round(fused[1] / alone[1], 2) == 1.07


def test_pooling_to_a_size_takes_any_picture_and_a_flat_head_takes_one() -> None:
    for side in (224, 250):
        assert cost(Classifier(fuses=True), side)[0] == 649_610
    with pytest.raises(RuntimeError, match="200704"):
        cost(Baseline(), 224)
