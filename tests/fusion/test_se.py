"""SE: one number per channel from the channel's mean, the same as the libraries' where these follow the paper."""

import math

import pytest
import torch
from torch import nn
from torchvision.ops import SqueezeExcitation

from fusionviz import fusion, trace
from fusionviz.errors import ParameterError


def maps(channels: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    """Two maps whose channels have means of their own: the only thing that the gate sees."""
    generator = torch.Generator().manual_seed(0)
    mean, spread = ((torch.randn(2, 2, channels, *size, generator=generator)) for size in ((1, 1), (5, 4)))
    return tuple(2 * mean + spread)


def se(channels: int = 16, **params: object) -> fusion.FusionModule:
    return fusion.build("se", (channels, channels), (4, 4), **{"r": 2, **params})


def zero(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    return module


def copy_into(reference: nn.Module, module: fusion.FusionModule) -> nn.Module:
    state = {"fc1.weight": module.reduce.weight, "fc2.weight": module.expand.weight}
    if module.reduce.bias is not None:
        state |= {"fc1.bias": module.reduce.bias, "fc2.bias": module.expand.bias}
    reference.load_state_dict(state)
    return reference.eval()


def test_numbers_worked_by_hand() -> None:
    module = se(2)  # two channels, a bottleneck of one
    with torch.no_grad():
        module.reduce.weight.copy_(torch.tensor([1.0, 1.0]).view(1, 2, 1, 1))
        module.expand.weight.copy_(torch.tensor([2.0, -1.0]).view(2, 1, 1, 1))
    x = torch.tensor([[[[0.0, 2.0], [4.0, 2.0]], [[-1.0, -1.0], [-3.0, 1.0]]]])  # means 2 and -1
    result = module(x, torch.zeros_like(x))
    gate = [1 / (1 + math.exp(-2)), 1 / (1 + math.exp(1))]  # e = relu(2 - 1) = 1, W2 e = (2, -1)
    torch.testing.assert_close(result.attention["gate"].tensor.flatten(), torch.tensor(gate))
    torch.testing.assert_close(result.fused.tensor[0, 0, 1, 0], torch.tensor(4 * gate[0]))
    torch.testing.assert_close(result.fused.tensor[0, 1, 1, 0], torch.tensor(-3 * gate[1]))


def test_the_bottleneck_is_rectified() -> None:
    module = se(2)
    with torch.no_grad():
        module.reduce.weight.fill_(-1)
    x = torch.ones(1, 2, 3, 3)  # W1 g = -2 at most
    assert torch.equal(module(x, x).attention["gate"].tensor, torch.full((1, 2, 1, 1), 0.5))


@pytest.mark.parametrize("gate", ["sigmoid", "hard-sigmoid"])
def test_zero_weights_halve_the_map(gate: str) -> None:
    x, y = maps()
    assert torch.equal(zero(se(gate=gate, bias=True))(x, y).fused.tensor, (x + y) / 2)


def test_the_gate_does_not_see_where_things_are() -> None:
    x, y = maps()
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    shuffled = [t.flatten(2)[..., order].view_as(t) for t in (x, y)]
    module = se()
    before, after = module(x, y), module(*shuffled)
    torch.testing.assert_close(after.attention["gate"].tensor, before.attention["gate"].tensor)
    torch.testing.assert_close(after.fused.tensor, before.fused.tensor.flatten(2)[..., order].view_as(x))


def test_a_small_thing_drowns_in_the_mean() -> None:
    module, picture = se(), torch.zeros(1, 16, 16, 16)
    thing = torch.randn(1, 16, 1, 1, generator=torch.Generator().manual_seed(3))

    @torch.no_grad()
    def moved(side: int) -> float:
        seen = picture.clone()
        seen[..., :side, :side] = thing
        gates = [module(m, torch.zeros_like(m)).attention["gate"].tensor for m in (picture, seen)]
        return float((gates[1] - gates[0]).abs().max())

    assert 0 < moved(1) < moved(4) < moved(16)


@pytest.mark.parametrize("gate", ["sigmoid", "hard-sigmoid"])
def test_equals_torchvision_with_the_same_weights(gate: str) -> None:
    x, y = maps()
    module = se(bias=True, gate=gate)
    kind = nn.Sigmoid if gate == "sigmoid" else nn.Hardsigmoid
    reference = copy_into(SqueezeExcitation(16, 8, scale_activation=kind), module)
    result = module(x, y)
    torch.testing.assert_close(result.fused.tensor, reference(x + y))
    assert bool((result.attention["gate"].tensor.std(0) > 0.01).any())  # the pictures really have gates of their own


@pytest.mark.parametrize("bias", [True, False])
def test_equals_timm_with_the_same_weights(bias: bool) -> None:
    layers = pytest.importorskip("timm.layers", reason="timm is not installed; torchvision's SE is compared")
    x, y = maps()
    module = se(bias=bias)
    reference = copy_into(layers.SEModule(16, rd_channels=8, bias=bias), module)
    torch.testing.assert_close(module(x, y).fused.tensor, reference(x + y))


def test_the_bottleneck_is_exactly_c_over_r() -> None:
    assert se(64, r=16).reduce.out_channels == 4  # timm rounds it up to 8
    assert se(8, r=16).reduce.out_channels == 1


def test_counts_of_the_paper() -> None:
    """2 c^2 / r for each block; ResNet-50's blocks have 2.5 million together, as the paper's table says."""
    blocks = {256: 3, 512: 4, 1024: 6, 2048: 3}
    counts = {c: sum(p.numel() for p in se(c, r=16).parameters()) for c in blocks}
    assert counts[256] == 2 * 256**2 // 16
    assert sum(counts[c] * n for c, n in blocks.items()) == 2_514_944
    assert sum(p.numel() for p in se(64, r=16, bias=True).parameters()) == 2 * 64 * 4 + 64 + 4


def test_costs_two_small_products_whatever_the_size() -> None:
    for side in (4, 9):
        macs = trace.costs(se(64, r=16), ((1, 64, side, side),) * 2)
        assert macs["reduce"] == macs["expand"] == 64 * 4
        assert sum(macs.values()) == 2 * 64 * 4


def test_the_hard_gate_reaches_both_ends_and_the_soft_one_does_not() -> None:
    x, y = maps()

    def gates(kind: str, score: float) -> torch.Tensor:
        module = zero(se(gate=kind, bias=True))
        with torch.no_grad():
            module.expand.bias.fill_(score)
        return module(x, y).attention["gate"].tensor

    assert bool((gates("hard-sigmoid", -3) == 0).all())
    assert bool((gates("hard-sigmoid", 3) == 1).all())
    torch.testing.assert_close(gates("hard-sigmoid", 1.5), torch.full((2, 16, 1, 1), 0.75))
    assert bool((gates("sigmoid", 3) < 1).all())
    assert bool((gates("sigmoid", -3) > 0).all())


def test_on_says_which_map_is_refined() -> None:
    x, y = maps()
    refined = {"sum": x + y, "low": x, "high": y, "concat": torch.cat((x, y), 1)}
    for on, u in refined.items():
        module = se(on=on)
        result = module(x, y)
        gate = result.attention["gate"]
        assert gate.of == on
        assert gate.axes == "b c 1 1"
        assert gate.grain == "channel"
        torch.testing.assert_close(result.fused.tensor, u * gate.tensor)


def test_the_terms_are_what_each_level_contributes() -> None:
    x, y = maps()
    for on in ("sum", "low", "high"):
        result = se(on=on)(x, y)
        low, high = result.terms()
        torch.testing.assert_close(low + high, result.fused.tensor)
    assert torch.equal(se(on="low")(x, y).share_of_low().tensor, torch.ones(2, 1, 5, 4))
    assert torch.equal(se(on="high")(x, y).share_of_low().tensor, torch.zeros(2, 1, 5, 4))
    result = se(on="concat")(x, y)
    torch.testing.assert_close(torch.cat(result.terms(), 1), result.fused.tensor)


def test_trains_on_a_single_picture() -> None:
    x, y = (t[:1] for t in maps())
    module = se(bias=True).train()
    module(x, y).fused.tensor.square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in module.parameters())
    assert bool(module.expand.weight.grad.any())


def test_refuses_a_reduction_the_paper_does_not_have() -> None:
    with pytest.raises(ParameterError, match="2, 4, 8, 16, 32"):
        se(r=3)
