"""AFF: a soft choice between two maps, element by element; the properties the equation promises."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fusionviz import fusion, trace
from fusionviz.errors import ParameterError, ShapeError


def maps(channels: int = 8, size: tuple[int, int] = (5, 4)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(2, channels, *size, generator=generator) for _ in range(2))


def aff(channels: int = 8, **params: object) -> fusion.FusionModule:
    return fusion.build("aff", (channels, channels), (4, 4), **{"r": 2, **params})


def settle(module: fusion.FusionModule, scale: float, shift: float) -> fusion.FusionModule:
    """Give the last norm of every branch this gamma and beta."""
    for branch in module.gate.branches.values():
        nn.init.constant_(branch[4].weight, scale)
        nn.init.constant_(branch[4].bias, shift)
    return module


def test_equals_the_paper_written_with_functions(stir) -> None:
    """Equation 4 with linear layers on tokens instead of 1x1 convolutions on maps."""
    x, y = maps()
    module = stir(aff())
    state = {name.removeprefix("gate.branches."): t for name, t in module.state_dict().items()}

    def branch(name: str, tokens: torch.Tensor) -> torch.Tensor:
        for conv, norm in ((0, 1), (3, 4)):
            tokens = F.linear(tokens, state[f"{name}.{conv}.weight"][:, :, 0, 0], state[f"{name}.{conv}.bias"])
            moments = (state[f"{name}.{norm}.{m}"] for m in ("running_mean", "running_var", "weight", "bias"))
            tokens = F.batch_norm(tokens.movedim(-1, 1), *moments).movedim(1, -1)
            tokens = F.relu(tokens) if norm == 1 else tokens
        return tokens

    tokens = (x + y).movedim(1, -1)  # [b h w c]
    weight = torch.sigmoid(branch("local", tokens) + branch("global", tokens.mean((1, 2), keepdim=True))).movedim(-1, 1)
    result = module(x, y)
    torch.testing.assert_close(result.attention["low"].tensor, weight)
    torch.testing.assert_close(result.fused.tensor, weight * x + (1 - weight) * y)


def test_lies_between_the_two_maps_everywhere(stir) -> None:
    x, y = maps()
    z = stir(aff())(x, y).fused.tensor
    assert bool((torch.minimum(x, y) <= z).all())
    assert bool((z <= torch.maximum(x, y)).all())


def test_of_equal_maps_is_that_map(stir) -> None:
    x, _ = maps()
    assert torch.equal(stir(aff())(x, x).fused.tensor, x)


def test_cannot_tell_which_map_is_which(stir) -> None:
    x, y = maps()
    module = stir(aff())
    there, back = module(x, y), module(y, x)
    torch.testing.assert_close(there.fused.tensor + back.fused.tensor, x + y)
    torch.testing.assert_close(there.attention["low"].tensor, back.attention["low"].tensor)
    assert not torch.allclose(there.fused.tensor, back.fused.tensor, atol=0.1)


def test_silent_last_norms_give_the_mean_and_with_gain_2_the_sum(stir) -> None:
    x, y = maps()
    torch.testing.assert_close(settle(stir(aff()), 0, 0)(x, y).fused.tensor, (x + y) / 2)
    torch.testing.assert_close(settle(stir(aff(gain=2)), 0, 0)(x, y).fused.tensor, x + y)


def test_gain_2_is_twice_the_paper(stir) -> None:
    x, y = maps()
    paper, released = (stir(aff(gain=gain))(x, y) for gain in (1, 2))
    assert torch.equal(released.fused.tensor, 2 * paper.fused.tensor)
    assert torch.equal(released.attention["low"].tensor, paper.attention["low"].tensor)
    assert released.trace[-1].formula == r"2\,(M\otimes X+(1-M)\otimes Y)"


def test_the_weight_is_the_low_levels(stir) -> None:
    x, y = maps()
    assert torch.equal(settle(aff(), 0, 100)(x, y).fused.tensor, x)
    assert torch.equal(settle(aff(), 0, -100)(x, y).fused.tensor, y)
    weight = aff()(x, y).attention["low"]
    assert (weight.of, weight.sums, weight.axes, weight.kind) == ("low", "with_high", "b c h w", "gate")


def test_one_place_worked_by_hand() -> None:
    module = settle(aff(1), 0, 0)
    nn.init.constant_(module.gate.branches["local"][4].bias, 1.0)
    nn.init.constant_(module.gate.branches["global"][4].bias, 0.5)
    z = module(torch.full((1, 1, 2, 2), 3.0), torch.full((1, 1, 2, 2), -1.0)).fused.tensor
    torch.testing.assert_close(z, torch.full((1, 1, 2, 2), 0.8175745 * 3 - (1 - 0.8175745)))  # sigmoid(1.5)


def test_counts_and_costs() -> None:
    module = aff(64)
    assert sum(p.numel() for p in module.parameters()) == 8_768
    macs = trace.costs(module, ((1, 64, 3, 5),) * 2)
    assert sum(macs.values()) == 2 * 64 * 32 * (15 + 1)


def test_every_parameter_learns(stir) -> None:
    x, y = maps()
    module = stir(aff())
    module(x, y).fused.tensor.square().sum().backward()
    for name, parameter in module.named_parameters():
        assert bool(parameter.grad.isfinite().all()), name
        assert bool(parameter.grad.any()), name


def test_meets_levels_of_other_sizes_and_channels_at_the_low_one() -> None:
    low, high = torch.randn(2, 8, 9, 7), torch.randn(2, 12, 5, 4)
    result = fusion.build("aff", (8, 12), width=16)(low, high)
    x, y = (m.tensor for m in result.aligned)
    assert result.fused.tensor.shape == x.shape == y.shape == (2, 16, 9, 7)
    m = result.attention["low"].tensor
    torch.testing.assert_close(result.fused.tensor, m * x + (1 - m) * y)


def test_a_batch_of_one_needs_eval_mode() -> None:
    x, y = (t[:1] for t in maps())
    module = aff()
    module(x, y)
    with pytest.raises(ShapeError, match="batch of one"):
        module.train()(x, y)
    assert bool(aff(context="local").train()(x, y).fused.tensor.isfinite().all())


def test_refuses_a_gain_nobody_published() -> None:
    with pytest.raises(ParameterError, match="1, 2"):
        aff(gain=3)
