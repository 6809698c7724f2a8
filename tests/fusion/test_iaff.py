"""iAFF: AFF twice, and two traps: a second stage with weights of its own, and a first one that is not symmetric."""

import pytest
import torch
from torch import nn

from fusionviz import fusion, trace
from fusionviz.errors import ShapeError
from fusionviz.fusion.mscam import MSCAMGate
from fusionviz.trace import NullTrace


def maps(channels: int = 8, size: tuple[int, int] = (5, 4)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(2, channels, *size, generator=generator) for _ in range(2))


def iaff(channels: int = 8, **params: object) -> fusion.FusionModule:
    return fusion.build("iaff", (channels, channels), (4, 4), **{"r": 2, **params})


def settle(gate: MSCAMGate, shift: float) -> None:
    for branch in gate.branches.values():
        nn.init.zeros_(branch[4].weight)
        nn.init.constant_(branch[4].bias, shift)


def test_is_two_aff_equations_in_a_row(stir) -> None:
    x, y = maps()
    module = stir(iaff())
    m1 = module.first(x + y, NullTrace())
    mixture = m1 * x + (1 - m1) * y
    m2 = module.second(mixture, NullTrace())
    result = module(x, y)
    torch.testing.assert_close(result.attention["first"].tensor, m1)
    torch.testing.assert_close(result.attention["low"].tensor, m2)
    torch.testing.assert_close(result.fused.tensor, m2 * x + (1 - m2) * y)
    assert not torch.allclose(m1, m2, atol=0.05)


def test_the_first_stage_is_aff_with_the_same_weights(stir) -> None:
    x, y = maps()
    module, single = stir(iaff()), fusion.build("aff", (8, 8), (4, 4), r=2)
    single.gate.load_state_dict(module.first.state_dict())
    result, expected = module(x, y), single(x, y)
    mixture = next(step for step in result.trace if step.key == "mixture")
    torch.testing.assert_close(mixture.tensor, expected.fused.tensor)
    torch.testing.assert_close(result.attention["first"].tensor, expected.attention["low"].tensor)


def test_lies_between_the_two_maps_everywhere(stir) -> None:
    x, y = maps()
    z = stir(iaff())(x, y).fused.tensor
    assert bool((torch.minimum(x, y) <= z).all())
    assert bool((z <= torch.maximum(x, y)).all())


def test_of_equal_maps_is_that_map(stir) -> None:
    x, _ = maps()
    assert torch.equal(stir(iaff())(x, x).fused.tensor, x)


def test_can_tell_which_map_is_which(stir) -> None:
    """AFF(x, y) + AFF(y, x) = x + y; here that breaks, because the mixture is not symmetric."""
    x, y = maps()
    module = stir(iaff())
    there, back = module(x, y), module(y, x)
    torch.testing.assert_close(there.attention["first"].tensor, back.attention["first"].tensor)
    error = (there.fused.tensor + back.fused.tensor - x - y).abs().max()
    assert error > 0.05


def test_silent_last_norms_give_the_mean(stir) -> None:
    x, y = maps()
    module = stir(iaff())
    settle(module.first, 0)
    settle(module.second, 0)
    torch.testing.assert_close(module(x, y).fused.tensor, (x + y) / 2)


def test_the_second_stage_decides_and_the_first_only_asks(stir) -> None:
    x, y = maps()
    module = stir(iaff())
    settle(module.second, 100)
    settle(module.first, -100)
    result = module(x, y)
    assert torch.equal(result.fused.tensor, x)
    assert torch.equal(next(s.tensor for s in result.trace if s.key == "mixture"), y)


@pytest.mark.parametrize("context", ["local+global", "local+local", "global+global", "local", "global"])
def test_every_parameter_of_both_stages_learns(context: str, stir) -> None:
    x, y = maps()
    module = stir(iaff(context=context))
    module(x, y).fused.tensor.square().sum().backward()
    for name, parameter in module.named_parameters():
        assert bool(parameter.grad.isfinite().all()), name
        assert bool(parameter.grad.any()), name


def test_every_branch_runs_once_in_a_step_of_training() -> None:
    """The port that calls the first stage's global branch twice would count 2 there and 0 in the second stage."""
    x, y = maps()
    module = iaff().train()
    module(x, y)
    counts = {name: int(t) for name, t in module.state_dict().items() if name.endswith("num_batches_tracked")}
    assert len(counts) == 8
    assert set(counts.values()) == {1}


def test_the_second_stages_global_branch_matters(stir) -> None:
    x, y = maps()
    module = stir(iaff())
    before = module(x, y)
    with torch.no_grad():
        module.second.branches["global"][4].bias += 1
    after = module(x, y)
    assert torch.equal(before.attention["first"].tensor, after.attention["first"].tensor)
    assert bool((after.attention["low"].tensor > before.attention["low"].tensor).all())


def test_counts_and_costs() -> None:
    module = iaff(64, r=4)
    assert sum(p.numel() for p in module.parameters()) == 9_152
    macs = trace.costs(module, ((1, 64, 3, 5),) * 2)
    assert macs["first_local"] == macs["second_local"] == 2 * 64 * 16 * 15
    assert sum(macs.values()) == 2 * 2 * 64 * 16 * (15 + 1)


def test_attention_names_the_choice_first() -> None:
    x, y = maps()
    attention = iaff()(x, y).attention
    assert list(attention) == ["low", "first"]
    assert fusion.spec("iaff").weighs == "low"
    assert all((a.of, a.sums, a.axes) == ("low", "with_high", "b c h w") for a in attention.values())


def test_a_batch_of_one_needs_eval_mode() -> None:
    x, y = (t[:1] for t in maps())
    module = iaff()
    module(x, y)
    with pytest.raises(ShapeError, match="batch of one"):
        module.train()(x, y)
    assert bool(iaff(context="local").train()(x, y).fused.tensor.isfinite().all())
