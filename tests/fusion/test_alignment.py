"""Bringing two levels together: what stands in the trace, that cells stay where they are, what is learned."""

import pytest
import torch
from torch.nn import functional as F

from fusionviz import fusion
from fusionviz.fusion._base import Alignment, TransposedResize, resize
from fusionviz.records import ANALYTIC
from fusionviz.trace import Trace


def maps(low: tuple[int, ...], high: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(2, *shape, generator=generator) for shape in (low, high))


def align(channels: tuple[int, int], how: str, low: torch.Tensor, high: torch.Tensor, **params: object):  # noqa: ANN201
    trace = Trace()
    low, high = trace.input("low", low), trace.input("high", high)
    module = Alignment(channels, params.pop("strides", (4, 8)), how, **params).eval()
    return module, *module(low, high, trace), {s.key: s for s in trace.steps}


@pytest.mark.parametrize("factor", [2, 3, 4, 5, 8])
def test_transposed_resize_starts_as_bilinear_for_every_factor(factor: int) -> None:
    y = torch.randn(1, 3, 6, 4, generator=torch.Generator().manual_seed(0))
    size = (6 * factor, 4 * factor)
    torch.testing.assert_close(TransposedResize(3, factor)(y, size), resize(y, size), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(11, 7), (12, 8), (13, 10)])
def test_transposed_resize_meets_any_size(size: tuple[int, int]) -> None:
    assert TransposedResize(2, 2)(torch.randn(1, 2, 6, 4), size).shape == (1, 2, *size)


def test_transposed_resize_draws_no_checkerboard_at_the_start() -> None:
    flat = TransposedResize(2, 4)(torch.ones(1, 2, 3, 3), (12, 12))
    torch.testing.assert_close(flat, torch.ones(1, 2, 12, 12))


def test_transposed_resize_starts_at_no_random_number_and_then_learns() -> None:
    module = fusion.build("add", (3, 3), resize="transposed")
    low, high = maps((3, 8, 8), (3, 4, 4))
    result = module(low, high)
    assert result.provenance == ANALYTIC
    assert [s.op for s in result.trace][2] == "resize_transposed"
    assert {s.key: s.parameters for s in result.trace}["high_resize"] == 3 * 4 * 4
    result.fused.tensor.sum().backward()
    assert module.alignment.up.weight.grad.abs().min() > 0


@pytest.mark.parametrize("how", ["nearest", "bilinear"])
def test_resize_is_by_size(how: str) -> None:
    y = torch.randn(1, 2, 3, 2)
    options = {"mode": how} if how == "nearest" else {"mode": how, "align_corners": False}
    assert torch.equal(resize(y, (7, 5), how), F.interpolate(y, size=(7, 5), **options))


def test_nearest_repeats_cells() -> None:
    y = torch.arange(4.0).view(1, 1, 2, 2)
    assert resize(y, (4, 4), "nearest")[0, 0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]


def test_each_change_is_a_step_and_nothing_else_is() -> None:
    low, high = maps((3, 8, 8), (5, 4, 4))
    _, x, y, steps = align((3, 5), "size+channels", low, high, width=6)
    assert list(steps) == ["low", "high", "low_project", "low_norm", "high_project", "high_norm", "high_resize"]
    assert x.shape == y.shape == (2, 6, 8, 8)
    assert [steps[k].role for k in ("low_norm", "high_resize")] == ["low", "high"]
    assert steps["high_resize"].inputs == ("high_norm",)
    _, _, _, steps = align((3, 5), "size", low, high)
    assert list(steps) == ["low", "high", "high_resize"]


def test_without_normalisation_the_projection_has_a_bias() -> None:
    low, high = maps((3, 8, 8), (5, 4, 4))
    module, x, _, steps = align((3, 5), "size+channels", low, high, width=6, norm="none")
    assert "low_norm" not in steps
    assert steps["low_project"].parameters == 3 * 6 + 6
    by_hand = torch.einsum("oc,bchw->bohw", module.low_project.weight[:, :, 0, 0], low)
    torch.testing.assert_close(x, by_hand + module.low_project.bias[:, None, None])


def test_equal_strides_of_two_sizes_are_resized_bilinearly_and_said_to_be() -> None:
    low, high = maps((3, 8, 8), (3, 4, 4))
    module, _, y, steps = align((3, 3), "size", low, high, resize="transposed", strides=(8, 8))
    assert module.up is None
    assert steps["high_resize"].op == "resize_bilinear"
    assert torch.equal(y, resize(high, (8, 8)))


def test_maps_that_agree_pass_as_they_are() -> None:
    low, high = maps((3, 4, 4), (3, 4, 4))
    module, x, y, steps = align((3, 3), "size+channels", low, high)
    assert x is low
    assert y is high
    assert list(steps) == ["low", "high"]
    assert not list(module.parameters())
