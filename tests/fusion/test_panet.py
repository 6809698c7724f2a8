"""PANet: FPN with the way up taken away, the way up by an independent loop, and pooling over levels."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fusionviz import fusion

CHANNELS, SIZES = (6, 10, 14), ((13, 9), (7, 5), (4, 3))  # odd on purpose: 13 -> 7 -> 4
NAMES = ("p4", "p8", "p16")


def levels(channels: tuple[int, ...] = CHANNELS, sizes: tuple = SIZES) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, c, *size, generator=generator) for c, size in zip(channels, sizes, strict=True)]


def panet(channels: tuple[int, ...] = CHANNELS, strides: tuple | None = None, **params: object) -> fusion.FusionModule:
    module = fusion.build("panet", channels, strides, **{"width": 8, **params})
    for i, conv in enumerate(m for m in module.modules() if isinstance(m, nn.Conv2d)):
        nn.init.normal_(conv.bias, generator=torch.Generator().manual_seed(i))  # zero biases would hide a lost one
    return module


def fpn_of(module: fusion.FusionModule) -> fusion.FusionModule:
    twin = fusion.build("fpn", module.channels, module.strides, width=8)
    twin.load_state_dict({k: v for k, v in module.state_dict().items() if k.startswith(("lateral", "smooth"))})
    return twin


def test_without_the_way_up_it_is_fpn() -> None:
    maps, module = levels(), panet(bottom_up=False, pooling="off")
    assert not [name for name, _ in module.named_parameters() if name.startswith(("shrink", "settle"))]
    ours, theirs = module(*maps).outputs, fpn_of(module)(*maps).outputs
    for name in ("fused", *NAMES):
        assert torch.equal(ours[name].tensor, theirs[name].tensor)


def test_the_finest_level_never_hears_of_the_way_up() -> None:
    maps, module = levels(), panet(pooling="off")
    result, plain = module(*maps), fpn_of(module)(*maps)
    assert torch.equal(result.fused.tensor, plain.fused.tensor)
    assert result.outputs["p4"].tensor is result.fused.tensor
    for name in NAMES[1:]:
        assert not torch.allclose(result.outputs[name].tensor, plain.outputs[name].tensor)


@pytest.mark.parametrize("relu", ["inner", "both", "none"])
def test_the_way_up_step_by_step(relu: str) -> None:
    maps, module = levels(), panet(relu=relu)
    plain, outputs = fpn_of(module)(*maps).outputs, module(*maps).outputs
    n = plain["p4"].tensor
    for i, name in enumerate(NAMES[1:], start=1):
        down, out = module.shrink[str(i)], module.settle[str(i)]
        s = F.conv2d(n, down.weight, down.bias, stride=2, padding=1)
        s = s if relu == "none" else s.relu()
        n = F.conv2d(s + plain[name].tensor, out.weight, out.bias, padding=1)
        n = n.relu() if relu == "both" else n
        torch.testing.assert_close(outputs[name].tensor, n)


@pytest.mark.parametrize("pooling", ["max", "sum"])
def test_pooling_takes_every_level_at_the_finest_places(pooling: str) -> None:
    result = panet(pooling=pooling)(*levels())
    large = torch.stack([F.interpolate(result.outputs[n].tensor, size=(13, 9), mode="nearest") for n in NAMES])
    torch.testing.assert_close(result.fused.tensor, large.amax(0) if pooling == "max" else large.sum(0))


def test_the_maximum_worked_by_hand() -> None:
    """Identity everywhere: N_1 = P_1 = C_1 + up(C_2); N_2 = every second N_1, its ReLU, + C_2; Z the larger of both."""
    module = fusion.build("panet", (1, 1), width=4)
    for conv in (m for m in module.modules() if isinstance(m, nn.Conv2d)):
        nn.init.dirac_(conv.weight)
    low = torch.tensor([[[[1.0, 2.0, -30.0, 4.0], [5.0, 6.0, 7.0, 8.0]]]])
    high = torch.tensor([[[[10.0, -20.0]]]])
    outputs = module(low, high).outputs
    assert outputs["p4"].tensor[0, 0].tolist() == [[11, 12, -50, -16], [15, 16, -13, -12]]
    assert outputs["p8"].tensor[0, 0].tolist() == [[21, -20]]  # relu(11) + 10, relu(-50) - 20
    assert outputs["fused"].tensor[0, 0].tolist() == [[21, 21, -20, -16], [21, 21, -13, -12]]


def test_levels_whose_sizes_no_stride_gives_still_meet() -> None:
    maps = levels((6, 10, 14), ((55, 55), (27, 27), (13, 13)))  # as an AlexNet has them: floor, not ceiling
    outputs = panet()(*maps).outputs
    assert [outputs[n].size for n in NAMES] == [(55, 55), (27, 27), (13, 13)]


def test_levels_of_one_stride_go_up_without_a_stride() -> None:
    module = panet((6, 6), (16.0, 16.0))
    assert module.shrink["1"].stride == (1, 1)
    assert not [s for s in module(*levels((6, 6), ((4, 4), (4, 4)))).trace if s.op.startswith("resize")]
