"""Highway: the gate carries the low level on, looks at it alone, and its bias says how much is carried."""

import pytest
import torch

from fusionviz import fusion


def maps(channels: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(2, channels, 4, 4, generator=generator) for _ in range(2))


def highway(**params: object) -> fusion.FusionModule:
    return fusion.build("highway", (3, 3), (4, 4), **params)


def bias(module: fusion.FusionModule, value: float) -> fusion.FusionModule:
    with torch.no_grad():
        module.gate.bias.fill_(value)
    return module


def test_equals_the_equation_place_by_place() -> None:
    x, y = maps()
    module = highway()
    weight, b = module.gate.weight[:, :, 0, 0], module.gate.bias
    z = module(x, y).fused.tensor
    for place in ((0, 0, 0), (1, 3, 2), (0, 1, 3)):
        n, i, j = place
        t = 1 / (1 + torch.exp(-(weight @ x[n, :, i, j] + b)))
        torch.testing.assert_close(z[n, :, i, j], y[n, :, i, j] * t + x[n, :, i, j] * (1 - t))


def test_closed_gate_carries_the_low_level_and_open_gate_takes_the_high() -> None:
    x, y = maps()
    assert torch.equal(bias(highway(), -200)(x, y).fused.tensor, x)
    assert torch.equal(bias(highway(), 200)(x, y).fused.tensor, y)


def test_bias_starts_where_the_knob_says_and_is_negative_by_default() -> None:
    assert highway().gate.bias.tolist() == [-1, -1, -1]
    assert highway(b_T=-3).gate.bias.tolist() == [-3, -3, -3]
    x, y = maps()
    carried = [highway(b_T=b)(x, y).attention["low"].tensor.mean().item() for b in (-3, -1, 0, 2)]
    assert carried == sorted(carried, reverse=True)
    assert carried[1] > 0.5


def test_without_weights_the_bias_alone_decides() -> None:
    x, y = maps()
    module = highway(b_T=-1)
    torch.nn.init.zeros_(module.gate.weight)
    low = module(x, y).attention["low"].tensor
    torch.testing.assert_close(low, torch.full_like(low, 1 - 1 / (1 + 2.718281828)))


def test_gate_looks_at_the_low_level_only() -> None:
    x, y = maps()
    module = highway()
    low = module(x, y).attention["low"].tensor
    assert torch.equal(module(x, 5 * y + 1).attention["low"].tensor, low)
    assert not torch.equal(module(x + 1, y).attention["low"].tensor, low)


def test_lies_between_the_maps() -> None:
    x, y = maps()
    result = highway()(x, y)
    z = result.fused.tensor
    assert bool((z >= torch.minimum(x, y) - 1e-6).all())
    assert bool((z <= torch.maximum(x, y) + 1e-6).all())
    result.attention["low"].check()
    assert result.attention["low"].tensor.shape == z.shape


def test_closed_gate_passes_the_gradient_as_it_is() -> None:
    x, y = (m.requires_grad_() for m in maps())
    bias(highway(), -200)(x, y).fused.tensor.sum().backward()
    torch.testing.assert_close(x.grad, torch.ones_like(x))
    torch.testing.assert_close(y.grad, torch.zeros_like(y))


def test_counts_its_numbers() -> None:
    assert sum(p.numel() for p in highway().parameters()) == 3 * 3 + 3
    assert highway().provenance.kind == "random"


@pytest.mark.parametrize("b_t", [-8.0, 0.0, 8.0])
def test_carry_and_transform_sum_to_one(b_t: float) -> None:
    x, y = maps()
    steps = {s.key: s.tensor for s in highway(b_T=b_t)(x, y).trace}
    torch.testing.assert_close(steps["carry"] + steps["transform"], torch.ones_like(x))
