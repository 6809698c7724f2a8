"""Complex fusion: both maps come back, length and angle mean something, and it is not addition."""

import math

import pytest
import torch

from fusionviz import fusion
from fusionviz.records import ANALYTIC


def maps(p: int = 3, q: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(2, c, 4, 4, generator=generator) for c in (p, q))


def fuse(x: torch.Tensor, y: torch.Tensor, **params: object):  # noqa: ANN201 - FusionResult
    return fusion.build("complex", (x.shape[1], y.shape[1]), (4, 4), **params)(x, y)


def test_real_and_imaginary_part_are_the_maps_bit_for_bit() -> None:
    x, y = maps()
    result = fuse(x, y)
    assert result.fused.tensor.dtype == torch.complex64
    assert torch.equal(result.fused.tensor.real, x)
    assert torch.equal(result.fused.tensor.imag, y)
    assert result.provenance == ANALYTIC


def test_length_and_angle_by_hand() -> None:
    z = fuse(torch.tensor([[[[3.0, 0.0, 1.0]]]]), torch.tensor([[[[4.0, 2.0, 0.0]]]])).fused.tensor.flatten()
    assert z.abs().tolist() == pytest.approx([5, 2, 1])
    assert z.angle().tolist() == pytest.approx([math.atan2(4, 3), math.pi / 2, 0])


def test_is_never_shorter_than_either_map() -> None:
    x, y = maps()
    z = fuse(x, y).fused.tensor.abs()
    assert bool((z >= torch.maximum(x.abs(), y.abs()) - 1e-6).all())


@pytest.mark.parametrize(("p", "q", "padded"), [(2, 5, "low_pad"), (5, 2, "high_pad")])
def test_the_narrower_map_gets_channels_of_zeros_in_the_open(p: int, q: int, padded: str) -> None:
    x, y = maps(p, q)
    result = fuse(x, y)
    z = result.fused.tensor
    assert z.shape == (2, 5, 4, 4)
    assert [s.key for s in result.trace] == ["low", "high", padded, "fused"]
    assert torch.equal(z.real[:, :p], x)
    assert torch.equal(z.imag[:, :q], y)
    assert not z.real[:, p:].any()
    assert not z.imag[:, q:].any()


def test_theta_scales_the_high_level_only() -> None:
    x, y = maps()
    result = fuse(x, y, theta=2)
    assert torch.equal(result.fused.tensor, torch.complex(x, 2 * y))
    assert [s.key for s in result.trace] == ["low", "high", "theta", "fused"]
    low, high = result.terms()
    assert torch.equal(low, x)
    assert torch.equal(high, 2 * y)
    assert not fuse(x, y, theta=0).fused.tensor.imag.any()


def test_share_of_low_by_hand() -> None:
    x, y = torch.tensor([[[[3.0]], [[4.0]]]]), torch.tensor([[[[0.0]], [[5.0]]]])
    assert fuse(x, y).share_of_low().tensor.item() == pytest.approx(0.5)
    assert fuse(x, y, theta=3).share_of_low().tensor.item() == pytest.approx(5 / 20)


def test_tells_apart_what_addition_cannot() -> None:
    x, y = (torch.round(m * 8) / 8 for m in maps())
    add = fusion.build("add", (3, 3), (4, 4))
    assert torch.equal(add(x, y).fused.tensor, add(y, x).fused.tensor)
    assert not torch.equal(fuse(x, y).fused.tensor, fuse(y, x).fused.tensor)


def test_a_complex_linear_layer_is_concatenation_with_tied_weights() -> None:
    x, y = maps()
    a, b = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(1))
    z = fuse(x, y).fused.tensor
    out = torch.einsum("oc,bchw->bohw", torch.complex(a, b), z)
    stacked = fusion.build("concat", (3, 3), (4, 4))(x, y).fused.tensor
    tied = torch.cat((torch.cat((a, -b), 1), torch.cat((b, a), 1)), 0)  # 8 x 6 numbers, half of them free
    real = torch.einsum("oc,bchw->bohw", tied, stacked)
    torch.testing.assert_close(torch.cat((out.real, out.imag), 1), real, atol=1e-5, rtol=1e-5)
