"""Addition: numbers by hand, what it keeps and what it loses."""

import pytest
import torch

from fusionviz import fusion
from fusionviz.errors import ShapeError
from fusionviz.records import ANALYTIC, FeatureMap


def maps(channels: int = 3, size: int = 4, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(2, channels, size, size, generator=generator) for _ in range(2))


def add(**params: object) -> fusion.FusionModule:
    return fusion.build("add", (3, 3), (4, 4), **params)


def test_numbers_by_hand() -> None:
    x = torch.tensor([[[[1.0, -2.0]], [[0.5, 3.0]]]])
    y = torch.tensor([[[[4.0, 2.0]], [[-0.5, 1.0]]]])
    module = fusion.build("add", (2, 2), (4, 4))
    assert module(x, y).fused.tensor.tolist() == [[[[5.0, 0.0]], [[0.0, 4.0]]]]
    assert fusion.build("add", (2, 2), (4, 4), gain=2)(x, y).fused.tensor.tolist() == [[[[6.0, -2.0]], [[0.5, 7.0]]]]


def test_equal_maps_meet_without_any_alignment() -> None:
    x, y = maps()
    result = add()(x, y)
    assert result.provenance == ANALYTIC
    assert [s.key for s in result.trace] == ["low", "high", "fused"]
    assert result.aligned[0].tensor is x


def test_is_commutative_and_zero_is_neutral() -> None:
    x, y = maps()
    assert torch.equal(add()(x, y).fused.tensor, add()(y, x).fused.tensor)
    assert torch.equal(add()(x, torch.zeros_like(y)).fused.tensor, x)


def test_gradient_of_each_map_is_one() -> None:
    x, y = (m.requires_grad_() for m in maps())
    add()(x, y).fused.tensor.sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))
    assert torch.equal(y.grad, torch.ones_like(y))


def test_loses_which_map_said_what() -> None:
    x, y = (torch.round(m * 8) / 8 for m in maps())  # eighths add without rounding
    assert torch.equal(add()(x, y).fused.tensor, add()(x + 1.5, y - 1.5).fused.tensor)


def test_doubles_the_variance_of_independent_maps() -> None:
    x, y = maps(size=64)
    assert add()(x, y).fused.tensor.var().item() == pytest.approx(2.0, abs=0.05)


def test_share_of_low_by_hand() -> None:
    x, y = torch.tensor([[[[3.0]], [[4.0]]]]), torch.tensor([[[[0.0]], [[15.0]]]])
    share = fusion.build("add", (2, 2), (4, 4))(x, y).share_of_low()
    assert share.tensor.item() == pytest.approx(5 / (5 + 15))
    assert (share.kind, share.axes, share.of) == ("share", "b 1 h w", "low")
    loud = fusion.build("add", (2, 2), (4, 4), gain=3)(x, y).share_of_low()
    assert loud.tensor.item() == pytest.approx(15 / (15 + 15))


def test_levels_are_projected_normalised_and_resized_in_the_open() -> None:
    module = fusion.build("add", (3, 5), width=4)
    result = module(torch.randn(1, 3, 8, 8), torch.randn(1, 5, 4, 4))
    keys = [s.key for s in result.trace]
    assert keys == ["low", "high", "low_project", "low_norm", "high_project", "high_norm", "high_resize", "fused"]
    assert {s.key: s.parameters for s in result.trace}["low_project"] == 3 * 4
    assert result.provenance.kind == "random"
    assert result.fused.tensor.shape == (1, 4, 8, 8)


def test_place_of_the_result_is_that_of_the_low_level() -> None:
    low = FeatureMap("s4", torch.randn(1, 3, 4, 4), (4, 4), (1.5, 1.5), 1)
    high = FeatureMap("s8", torch.randn(1, 3, 2, 2), (8, 8), (3.5, 3.5), 2)
    result = fusion.build("add", (3, 3))(low, high)
    assert (result.fused.stride, result.fused.offset) == ((4, 4), (1.5, 1.5))


def test_maps_that_cannot_meet_are_refused_with_the_fix() -> None:
    with pytest.raises(ShapeError, match=r"low is 3 × 4 × 4 and high is 3 × 2 × 2.*align = size"):
        fusion.build("add", (3, 3), align="none")(torch.randn(1, 3, 4, 4), torch.randn(1, 3, 2, 2))
    with pytest.raises(ShapeError, match=r"low has 3 and high has 5.*align = size\+channels"):
        fusion.build("add", (3, 5), align="size")
