"""ECA: k numbers that slide over the means of the channels, the same as timm's."""

import math

import pytest
import torch
from torch import nn

from fusionviz import fusion, trace
from fusionviz.fusion.eca import adaptive_kernel


def maps(channels: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """Two maps whose channels have means of their own: the only thing that the gate sees."""
    generator = torch.Generator().manual_seed(0)
    mean, spread = (torch.randn(2, 2, channels, *size, generator=generator) for size in ((1, 1), (5, 4)))
    return tuple(2 * mean + spread)


def eca(channels: int = 8, **params: object) -> fusion.FusionModule:
    return fusion.build("eca", (channels, channels), (4, 4), **params)


def gate(module: nn.Module, *levels: torch.Tensor) -> torch.Tensor:
    return module(*levels).attention["gate"].tensor


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def test_numbers_worked_by_hand() -> None:
    module = eca(4, kernel="3")
    with torch.no_grad():
        module.conv.weight.copy_(torch.tensor([[[1.0, 2.0, -1.0]]]))
    x = torch.tensor([1.0, 0.0, 2.0, -1.0]).view(1, 4, 1, 1).expand(1, 4, 2, 2).clone()
    x[0, 2] = torch.tensor([[0.0, 4.0], [1.0, 3.0]])  # its mean is 2
    result = module(x, torch.zeros_like(x))
    # before, itself, behind: 1·g[c-1] + 2·g[c] − 1·g[c+1], nothing beyond the ends
    scores = [2 * 1 - 0, 1 + 2 * 0 - 2, 0 + 2 * 2 + 1, 2 + 2 * -1]
    expected = torch.tensor([sigmoid(s) for s in scores])
    torch.testing.assert_close(result.attention["gate"].tensor.flatten(), expected)
    torch.testing.assert_close(result.fused.tensor[0, 2, 0, 1], 4 * expected[2])


def test_equals_timm_with_the_same_weights() -> None:
    layers = pytest.importorskip("timm.layers", reason="timm is not installed; the numbers by hand are compared")
    for channels, kernel in ((8, "adaptive"), (128, "adaptive"), (8, "5")):
        x, y = maps(channels)
        module = eca(channels, kernel=kernel)
        reference = (
            layers.EcaModule(channels) if kernel == "adaptive" else layers.EcaModule(kernel_size=int(kernel))
        ).eval()
        reference.conv.load_state_dict(module.conv.state_dict())
        torch.testing.assert_close(module(x, y).fused.tensor, reference(x + y))


def test_k_follows_the_number_of_channels() -> None:
    assert [adaptive_kernel(c) for c in (4, 16, 64, 127, 128, 256, 512, 1024, 2047, 2048)] == [3] * 4 + [5] * 5 + [7]
    assert eca(64).conv.kernel_size == (3,)
    assert eca(64, on="concat").conv.kernel_size == (5,)  # 128 channels


def test_it_has_k_parameters_and_no_more() -> None:
    for kernel in ("1", "3", "5", "7", "9"):
        assert sum(p.numel() for p in eca(64, kernel=kernel).parameters()) == int(kernel)
    by_stage = zip((3, 4, 6, 3), ("3", "5", "5", "7"), strict=True)  # the released ResNet-50
    total = sum(n * sum(p.numel() for p in eca(kernel=k).parameters()) for n, k in by_stage)
    assert total == 80  # as the paper's abstract says


def test_costs_k_products_for_each_channel_whatever_the_size() -> None:
    for side in (4, 9):
        macs = trace.costs(eca(64), ((1, 64, side, side),) * 2)
        assert sum(macs.values()) == macs["scores"] == 64 * 3


@pytest.mark.parametrize(("kernel", "reach"), [("1", 0), ("3", 1), ("9", 4)])
def test_a_channel_is_heard_by_its_neighbours_only(kernel: str, reach: int) -> None:
    module, still = eca(16, kernel=kernel), torch.zeros(1, 16, 3, 3)
    moved = still.clone()
    moved[0, 7] = 1
    changed = (gate(module, still, still) != gate(module, moved, still)).flatten().nonzero().flatten().tolist()
    assert changed == list(range(7 - reach, 7 + reach + 1))


def test_the_same_answer_at_every_channel_that_has_the_same_neighbours() -> None:
    """It shares its weights along the list, as SE does not: a shifted list of means gives a shifted list of gates."""
    x, _ = maps(16)
    shifted = x.roll(1, 1)
    module = eca(16)
    before, after = (gate(module, m, torch.zeros_like(m)) for m in (x, shifted))
    torch.testing.assert_close(after[:, 3:-2], before[:, 2:-3])


def test_the_order_of_channels_matters() -> None:
    x, y = maps()
    order = torch.tensor([3, 0, 5, 1, 7, 2, 6, 4])
    module = eca()
    assert not torch.allclose(gate(module, x[:, order], y[:, order]), gate(module, x, y)[:, order], atol=1e-3)


def test_the_gate_does_not_see_where_things_are() -> None:
    x, y = maps()
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    shuffled = [t.flatten(2)[..., order].view_as(t) for t in (x, y)]
    module = eca()
    torch.testing.assert_close(gate(module, *shuffled), gate(module, x, y))


def test_zero_weights_halve_the_map() -> None:
    x, y = maps()
    module = eca()
    nn.init.zeros_(module.conv.weight)
    assert torch.equal(module(x, y).fused.tensor, (x + y) / 2)


def test_on_and_terms() -> None:
    x, y = maps()
    for on, u in {"sum": x + y, "low": x, "high": y, "concat": torch.cat((x, y), 1)}.items():
        result = eca(on=on)(x, y)
        weight = result.attention["gate"]
        assert (weight.of, weight.axes, weight.role) == (on, "b c 1 1", "channel_gate")
        torch.testing.assert_close(result.fused.tensor, u * weight.tensor)
        low, high = result.terms()
        torch.testing.assert_close(torch.cat((low, high), 1) if on == "concat" else low + high, result.fused.tensor)
