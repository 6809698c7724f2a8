"""The weighted sum: exact at both ends, convex in between, trainable, and no stronger than one convolution."""

import pytest
import torch
from torch.nn import functional as F

from fusionviz import fusion
from fusionviz.fusion.wsum import logit
from fusionviz.records import ANALYTIC


def maps(channels: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(2, channels, 4, 4, generator=generator) for _ in range(2))


def wsum(**params: object) -> fusion.FusionModule:
    return fusion.build("wsum", (3, 3), (4, 4), **params)


def test_numbers_by_hand() -> None:
    module = fusion.build("wsum", (1, 1), (4, 4), alpha=0.25)
    z = module(torch.tensor([[[[4.0, -8.0]]]]), torch.tensor([[[[0.0, 4.0]]]])).fused.tensor
    assert z.flatten().tolist() == pytest.approx([1.0, 1.0])


def test_ends_give_the_maps_bit_for_bit() -> None:
    x, y = maps()
    assert torch.equal(wsum(alpha=1)(x, y).fused.tensor, x)
    assert torch.equal(wsum(alpha=0)(x, y).fused.tensor, y)


@pytest.mark.parametrize("alpha", [0.0, 0.05, 0.5, 0.95, 1.0])
def test_attention_holds_alpha_and_the_rest_for_every_picture(alpha: float) -> None:
    x, y = maps()
    weight = wsum(alpha=alpha)(x, y).attention["low"]
    weight.check()
    assert weight.tensor.shape == (2, 2, 1, 1, 1)
    assert weight.tensor[:, 0].flatten().tolist() == pytest.approx([alpha] * 2, abs=1e-7)
    assert weight.tensor[:, 1].flatten().tolist() == pytest.approx([1 - alpha] * 2, abs=1e-7)
    assert (weight.kind, weight.of, weight.grain) == ("softmax", "low", "branch")


def test_lies_between_the_maps_and_leaves_equal_maps_alone() -> None:
    x, y = maps()
    z = wsum(alpha=0.3)(x, y).fused.tensor
    assert bool((z >= torch.minimum(x, y)).all())
    assert bool((z <= torch.maximum(x, y)).all())
    assert torch.equal(wsum(alpha=0.3)(x, x).fused.tensor, x)


def test_gradient_of_a_is_the_closed_form() -> None:
    x, y = maps()
    g = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    module = wsum(alpha=0.3)
    (module(x, y).fused.tensor * g).sum().backward()
    assert module.a.grad.item() == pytest.approx(0.3 * 0.7 * (g * (x - y)).sum().item(), rel=1e-4)


@pytest.mark.parametrize("alpha", [0, 1])
def test_ends_stay_finite_under_training(alpha: int) -> None:
    x, y = maps()
    module = wsum(alpha=alpha)
    assert torch.isfinite(module.a)
    optimiser = torch.optim.AdamW(module.parameters(), lr=0.01, weight_decay=0.01)
    module(x, y).fused.tensor.square().sum().backward()
    assert module.a.grad.item() == 0
    optimiser.step()
    assert torch.isfinite(module.a)


def test_learns_the_alpha_that_made_the_target() -> None:
    x, y = maps()
    target = 0.8 * x + 0.2 * y
    module = wsum()
    optimiser = torch.optim.Adam(module.parameters(), lr=0.2)
    for _ in range(100):
        optimiser.zero_grad()
        F.mse_loss(module(x, y).fused.tensor, target).backward()
        optimiser.step()
    assert torch.sigmoid(module.a).item() == pytest.approx(0.8, abs=0.01)


def test_logit_turns_sigmoid_back() -> None:
    for alpha in (0.0, 1e-6, 0.05, 0.5, 0.999, 1.0):
        assert torch.sigmoid(torch.tensor(logit(alpha))).item() == pytest.approx(alpha, rel=1e-5)
    assert logit(0.5) == 0


def test_set_by_hand_it_holds_no_random_number() -> None:
    x, y = maps()
    assert wsum(alpha=0.3)(x, y).provenance == ANALYTIC
    assert fusion.build("wsum", (3, 5)).provenance.kind == "random"  # its projections are


def test_between_linear_layers_it_is_one_convolution() -> None:
    generator = torch.Generator().manual_seed(2)
    picture = torch.randn(1, 2, 6, 6, generator=generator)
    w1, w2 = (torch.randn(3, 2, 3, 3, generator=generator) for _ in range(2))
    block = wsum(alpha=0.3)(F.conv2d(picture, w1), F.conv2d(picture, w2)).fused.tensor
    torch.testing.assert_close(block, F.conv2d(picture, 0.3 * w1 + 0.7 * w2), atol=1e-5, rtol=1e-5)


def test_weight_stands_in_the_trace_as_a_step_that_looks_at_no_map() -> None:
    x, y = maps()
    result = wsum()(x, y)
    step = next(s for s in result.trace if s.key == "weight")
    assert (step.inputs, step.parameters, step.role) == ((), 1, "weight")
    assert result.trace[-1].inputs == ("weight", "low", "high")
