"""CBAM: a gate per channel, then one per place that looks at the map which the first has left."""

import math

import pytest
import torch
from torch import nn

from fusionviz import fusion, trace


def maps(channels: int = 8, size: tuple[int, int] = (5, 4)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(2, channels, *size, generator=generator) for _ in range(2))


def cbam(channels: int = 8, **params: object) -> fusion.FusionModule:
    return fusion.build("cbam", (channels, channels), (4, 4), **{"r": 2, **params})


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def test_equals_the_equations_written_as_loops() -> None:
    """Plain Python over every channel and place: no convolution, no broadcasting, padding by hand."""
    x, y = maps(4, (4, 3))
    module = cbam(4, kernel=3)
    result = module(x, y)
    u = (x + y)[0].tolist()
    down, up = module.mlp[0].weight[:, :, 0, 0].tolist(), module.mlp[2].weight[:, :, 0, 0].tolist()
    kernel = module.conv[0].weight[0].tolist()  # [avg, max] [3] [3]
    places = [(i, j) for i in range(4) for j in range(3)]

    def mlp(pooled: list[float]) -> list[float]:
        inner = [max(0.0, sum(w * p for w, p in zip(row, pooled, strict=True))) for row in down]
        return [sum(w * e for w, e in zip(row, inner, strict=True)) for row in up]

    mean = mlp([sum(u[c][i][j] for i, j in places) / 12 for c in range(4)])
    peak = mlp([max(u[c][i][j] for i, j in places) for c in range(4)])
    channel = [sigmoid(a + b) for a, b in zip(mean, peak, strict=True)]
    v = [[[channel[c] * u[c][i][j] for j in range(3)] for i in range(4)] for c in range(4)]
    for i, j in places:
        score = 0.0
        for di, dj in ((a, b) for a in (-1, 0, 1) for b in (-1, 0, 1)):
            if (i + di, j + dj) in places:
                column = [v[c][i + di][j + dj] for c in range(4)]
                score += kernel[0][di + 1][dj + 1] * sum(column) / 4 + kernel[1][di + 1][dj + 1] * max(column)
        got = result.fused.tensor[0, :, i, j]
        torch.testing.assert_close(got, torch.tensor([v[c][i][j] * sigmoid(score) for c in range(4)]))
        torch.testing.assert_close(result.attention["place"].tensor[0, 0, i, j], torch.tensor(sigmoid(score)))
    torch.testing.assert_close(result.attention["channel"].tensor[0].flatten(), torch.tensor(channel))


@pytest.mark.parametrize(("parts", "left"), [("both", 4), ("channel", 2), ("spatial", 2)])
@pytest.mark.parametrize("variant", ["paper", "released"])
def test_zero_weights_leave_a_half_for_each_gate(parts: str, left: int, variant: str) -> None:
    x, y = maps()
    module = cbam(parts=parts, variant=variant)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    assert torch.equal(module(x, y).fused.tensor, (x + y) / left)


def test_equals_timm_with_the_same_weights() -> None:
    """timm has the paper's planes and bottleneck, but the released code's batch norm; it is taken out."""
    timm_cbam = pytest.importorskip("timm.layers.cbam", reason="timm is not installed; the loops above are compared")
    x, y = maps()
    module = cbam()
    reference = timm_cbam.CbamModule(8, rd_channels=4).eval()
    reference.spatial.conv.bn = nn.Identity()
    reference.load_state_dict(
        {
            "channel.fc1.weight": module.mlp[0].weight,
            "channel.fc2.weight": module.mlp[2].weight,
            "spatial.conv.conv.weight": module.conv[0].weight,
        }
    )
    torch.testing.assert_close(module(x, y).fused.tensor, reference(x + y))


def test_released_variant_equals_timm_with_swapped_planes(stir) -> None:
    timm_cbam = pytest.importorskip("timm.layers.cbam", reason="timm is not installed; the loops above are compared")
    x, y = maps()
    module = stir(cbam(variant="released"))
    reference = timm_cbam.CbamModule(8, rd_channels=4, mlp_bias=True).eval()
    reference.channel.fc1.load_state_dict(module.mlp[0].state_dict())
    reference.channel.fc2.load_state_dict(module.mlp[2].state_dict())
    reference.spatial.conv.bn.load_state_dict(module.conv[1].state_dict())
    reference.spatial.conv.conv.load_state_dict({"weight": module.conv[0].weight.flip(1)})  # [max; mean] here
    torch.testing.assert_close(module(x, y).fused.tensor, reference(x + y))


def test_released_variant_has_biases_and_a_slow_batch_norm() -> None:
    paper, released = cbam(), cbam(variant="released")
    assert paper.mlp[0].bias is None
    assert released.mlp[0].bias is not None
    assert len(paper.conv) == 1
    assert released.conv[1].momentum == 0.01


def test_the_place_gate_ignores_the_order_of_channels() -> None:
    x, y = maps()
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    module = cbam(parts="spatial")
    gates = [module(*pair).attention["place"].tensor for pair in ((x, y), (x[:, order], y[:, order]))]
    torch.testing.assert_close(gates[0], gates[1])


def test_the_channel_gate_ignores_the_order_of_places() -> None:
    x, y = maps()
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    module = cbam(parts="channel")
    shuffled = tuple(t.flatten(2)[..., order].view_as(t) for t in (x, y))
    gates = [module(*pair).attention["channel"].tensor for pair in ((x, y), shuffled)]
    torch.testing.assert_close(gates[0], gates[1])


def test_the_channel_gate_sees_the_maximum_too() -> None:
    """Two maps of one mean: SE could not tell them apart."""
    flat, peaked = torch.ones(1, 8, 4, 4), torch.zeros(1, 8, 4, 4)
    peaked[..., 0, 0] = 16
    module = cbam(parts="channel")
    gates = [module(m, torch.zeros_like(m)).attention["channel"].tensor for m in (flat, peaked)]
    assert not torch.allclose(gates[0], gates[1], atol=1e-3)


@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_the_place_gate_reaches_as_far_as_its_kernel(kernel: int) -> None:
    module, reach = cbam(parts="spatial", kernel=kernel), kernel // 2
    still = torch.zeros(1, 8, 11, 11)
    moved = still.clone()
    moved[..., 5, 5] = 1
    gates = [module(m, torch.zeros_like(m)).attention["place"].tensor for m in (still, moved)]
    changed = (gates[0] != gates[1])[0, 0].nonzero()
    assert changed.min() == 5 - reach
    assert changed.max() == 5 + reach


def test_attention_is_named_shaped_and_ordered() -> None:
    x, y = maps()
    expected = {"both": ["channel", "place"], "channel": ["channel"], "spatial": ["place"]}
    for parts, names in expected.items():
        attention = cbam(parts=parts)(x, y).attention
        assert list(attention) == names
        assert [(a.axes, a.role, a.kind) for a in attention.values()] == [
            ("b c 1 1", "channel_gate", "gate") if n == "channel" else ("b 1 h w", "place_gate", "gate") for n in names
        ]
    assert attention["place"].stride == (4, 4)


def test_gates_only_make_smaller() -> None:
    x, y = maps()
    ratio = cbam()(x, y).fused.tensor / (x + y)
    assert bool((ratio > 0).all())
    assert bool((ratio < 1).all())


def test_on_and_terms() -> None:
    x, y = maps()
    for on, u in {"sum": x + y, "low": x, "high": y, "concat": torch.cat((x, y), 1)}.items():
        for parts in ("both", "channel", "spatial"):
            result = cbam(on=on, parts=parts)(x, y)
            weigh = torch.ones(())
            for gate in result.attention.values():
                assert gate.of == on
                weigh = weigh * gate.tensor
            torch.testing.assert_close(result.fused.tensor, u * weigh)
            low, high = result.terms()
            whole = torch.cat((low, high), 1) if on == "concat" else low + high
            torch.testing.assert_close(whole, result.fused.tensor)


def test_counts_and_costs() -> None:
    """2 c^2 / r for the bottleneck, counted once though it runs twice, and 2 k^2 for the places."""
    module = fusion.build("cbam", (64, 64), (4, 4))
    assert sum(p.numel() for p in module.parameters()) == 2 * 64 * 4 + 98
    result = module(*(torch.zeros(1, 64, 3, 5) for _ in range(2)))
    assert sum(step.parameters for step in result.trace) == 2 * 64 * 4 + 98
    macs = trace.costs(module, ((1, 64, 3, 5),) * 2)
    assert macs["mean_mlp"] == macs["max_mlp"] == 2 * 64 * 4
    assert macs["conv"] == 98 * 15
    assert sum(macs.values()) == 4 * 64 * 4 + 98 * 15


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_every_parameter_learns_also_from_a_single_picture(variant: str) -> None:
    x, y = (t[:1] for t in maps())
    module = cbam(variant=variant).train()
    module(x, y).fused.tensor.square().sum().backward()
    for name, parameter in module.named_parameters():
        assert bool(parameter.grad.isfinite().all()), name
        assert bool(parameter.grad.any()), name
