"""Concatenation: nothing is lost, and a 1x1 convolution behind it is a sum of two."""

import pytest
import torch
from torch.nn import functional as F

from fusionviz import fusion
from fusionviz.errors import ParameterError
from fusionviz.records import ANALYTIC


def maps(p: int = 3, q: int = 5, size: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(2, c, size, size, generator=generator) for c in (p, q))


def test_slices_give_both_maps_back_exactly() -> None:
    x, y = maps()
    result = fusion.build("concat", (3, 5), (4, 4))(x, y)
    assert result.fused.tensor.shape == (2, 8, 4, 4)
    assert torch.equal(result.fused.tensor[:, :3], x)
    assert torch.equal(result.fused.tensor[:, 3:], y)
    assert result.provenance == ANALYTIC


def test_only_the_size_is_aligned_and_channels_may_differ() -> None:
    x, _ = maps()
    _, y = maps(size=2)
    result = fusion.build("concat", (3, 5))(x, y)
    assert [s.key for s in result.trace] == ["low", "high", "high_resize", "fused"]
    bilinear = F.interpolate(y, size=(4, 4), mode="bilinear", align_corners=False)
    assert torch.equal(result.fused.tensor[:, 3:], bilinear)
    assert result.provenance == ANALYTIC


def test_one_by_one_convolution_behind_it_is_a_sum_of_two() -> None:
    x, y = maps()
    module = fusion.build("concat", (3, 5), (4, 4), reduce=6)
    weight = module.reduce.weight[:, :, 0, 0]
    by_loop = torch.einsum("oc,bchw->bohw", weight[:, :3], x) + torch.einsum("oc,bchw->bohw", weight[:, 3:], y)
    result = module(x, y)
    assert [s.key for s in result.trace] == ["low", "high", "concat", "fused"]
    torch.testing.assert_close(result.fused.tensor, by_loop)
    assert sum(p.numel() for p in module.parameters()) == (3 + 5) * 6
    assert result.provenance.kind == "random"


def test_addition_is_the_special_case_of_two_identities() -> None:
    x, y = maps(3, 3)
    module = fusion.build("concat", (3, 3), (4, 4), reduce=3)
    with torch.no_grad():
        module.reduce.weight.copy_(torch.cat((torch.eye(3), torch.eye(3)), 1)[:, :, None, None])
    torch.testing.assert_close(module(x, y).fused.tensor, x + y)


def test_permuting_channels_is_permuting_columns_of_the_weight() -> None:
    x, y = maps()
    module = fusion.build("concat", (3, 5), (4, 4), reduce=4)
    z = module(x, y).fused.tensor
    order = torch.tensor([2, 0, 1])
    with torch.no_grad():
        module.reduce.weight[:, :3] = module.reduce.weight[:, :3][:, order].clone()
    torch.testing.assert_close(module(x[:, order], y).fused.tensor, z)


@pytest.mark.parametrize("reduce", [0, 4])
def test_the_two_terms_add_up_to_the_result(reduce: int) -> None:
    x, y = maps()
    result = fusion.build("concat", (3, 5), (4, 4), reduce=reduce)(x, y)
    low, high = result.terms()
    torch.testing.assert_close(low + high, result.fused.tensor)


def test_share_of_low_is_that_of_the_norms() -> None:
    x, y = maps()
    share = fusion.build("concat", (3, 5), (4, 4))(x, y).share_of_low().tensor
    by_hand = x.square().sum(1).sqrt() / (x.square().sum(1).sqrt() + y.square().sum(1).sqrt())
    torch.testing.assert_close(share[:, 0], by_hand)
    heard = fusion.build("concat", (3, 5), (4, 4), reduce=4)
    with torch.no_grad():
        heard.reduce.weight[:, 3:] = 0  # a layer that does not listen to the high level
    assert torch.equal(heard(x, y).share_of_low().tensor, torch.ones(2, 1, 4, 4))


def test_reduce_out_of_bounds_is_refused_with_the_bounds() -> None:
    with pytest.raises(ParameterError, match=r"'reduce' cannot be -1.*0 … 1024"):
        fusion.build("concat", (3, 5), reduce=-1)
