"""MS-CAM: a weight per element from two views of the same map, one place and the whole picture."""

import pytest
import torch
from torch import nn

from fusionviz import fusion, trace
from fusionviz.errors import ParameterError, ShapeError


def maps(channels: int = 8, size: tuple[int, int] = (5, 4)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(2, channels, *size, generator=generator) for _ in range(2))


def mscam(channels: int = 8, **params: object) -> fusion.FusionModule:
    return fusion.build("mscam", (channels, channels), (4, 4), **{"r": 2, **params})


def bottleneck(branch: nn.Sequential, column: torch.Tensor) -> torch.Tensor:
    """BN W2 relu(BN W1 column) of one column [c], written out with matrices and moments."""
    for conv, norm, last in ((branch[0], branch[1], False), (branch[3], branch[4], True)):
        column = conv.weight[:, :, 0, 0] @ column + conv.bias
        column = (column - norm.running_mean) / (norm.running_var + norm.eps) ** 0.5 * norm.weight + norm.bias
        column = column if last else column.clamp_min(0)
    return column


def test_equals_the_equation_place_by_place(stir) -> None:
    x, y = maps()
    module = stir(mscam())
    result = module(x, y)
    u, branches = x + y, module.gate.branches
    for n in range(2):
        overview = bottleneck(branches["global"], u[n].flatten(1).mean(1))
        for i, j in ((0, 0), (4, 3), (2, 1)):
            weight = torch.sigmoid(bottleneck(branches["local"], u[n, :, i, j]) + overview)
            torch.testing.assert_close(result.attention["gate"].tensor[n, :, i, j], weight)
            torch.testing.assert_close(result.fused.tensor[n, :, i, j], u[n, :, i, j] * weight)


def test_counts_of_the_reference() -> None:
    assert sum(p.numel() for p in mscam(64, r=4).parameters()) == 4_576
    assert mscam(8, r=16).gate.branches["local"][0].out_channels == 1


def test_costs_the_local_branch_at_every_place_and_the_global_once() -> None:
    macs = trace.costs(mscam(64, r=4), ((1, 64, 6, 7),) * 2)
    assert macs["local"] == 2 * 64 * 16 * 42
    assert macs["global"] == 2 * 64 * 16
    assert sum(macs.values()) == macs["local"] + macs["global"]


def test_silent_last_norms_halve_the_map(stir) -> None:
    x, y = maps()
    module = stir(mscam())
    for branch in module.gate.branches.values():
        nn.init.zeros_(branch[4].weight)
        nn.init.zeros_(branch[4].bias)
    assert torch.equal(module(x, y).fused.tensor, (x + y) / 2)


def test_a_map_without_places_gets_a_weight_without_places(stir) -> None:
    x, y = (t[..., :1, :1].expand(-1, -1, 3, 6) for t in maps())
    gate = stir(mscam())(x, y).attention["gate"].tensor
    torch.testing.assert_close(gate, gate[..., :1, :1].expand_as(gate))


def test_local_alone_looks_at_one_place_and_global_alone_at_all(stir) -> None:
    x, y = maps()
    moved = x.clone()
    moved[..., 0, 0] += 3
    elsewhere = torch.ones(5, 4, dtype=torch.bool)
    elsewhere[0, 0] = False

    def change(context: str) -> torch.Tensor:
        module = stir(mscam(context=context))
        gates = [module(m, y).attention["gate"].tensor for m in (x, moved)]
        return (gates[1] - gates[0]).abs().amax((0, 1))  # [h w]

    local, overview, both = (change(context) for context in ("local", "global", "local+global"))
    assert local[0, 0] > 1e-3
    torch.testing.assert_close(local[elsewhere], torch.zeros(19))
    assert bool((overview > 1e-3).all())
    torch.testing.assert_close(overview, overview[0, 0].expand(5, 4))
    assert bool((both > 1e-3).all())
    assert bool((both[0, 0] - both[elsewhere]).abs().max() > 1e-3)


@pytest.mark.parametrize("scale", ["local", "global"])
def test_same_scale_twice_has_the_papers_parameters_in_two_different_branches(scale: str, stir) -> None:
    """The ablation of the paper: what helps is the second scale, not the second branch."""
    x, y = maps()
    module = stir(mscam(context=f"{scale}+{scale}"))
    assert sum(p.numel() for p in module.parameters()) == sum(p.numel() for p in mscam().parameters())
    first, second = module.gate.branches.values()
    result = module(x, y)
    seen = (x + y) if scale == "local" else (x + y).mean((2, 3), keepdim=True)
    weight = torch.sigmoid(first(seen) + second(seen)).expand_as(x)
    torch.testing.assert_close(result.attention["gate"].tensor, weight)
    assert not torch.allclose(first(seen), second(seen), atol=1e-2)
    assert [s.key for s in result.trace if s.op == f"mscam_{scale}"] == [scale, f"{scale}_2"]


@pytest.mark.parametrize("context", ["local+global", "local+local", "global+global", "local", "global"])
def test_every_parameter_learns(context: str, stir) -> None:
    x, y = maps()
    module = stir(mscam(context=context))  # in eval mode, where a norm does not take the biases before it away
    module(x, y).fused.tensor.square().sum().backward()
    for name, parameter in module.named_parameters():
        assert bool(parameter.grad.isfinite().all()), name
        assert bool(parameter.grad.any()), name


@pytest.mark.parametrize("context", ["local+global", "global+global", "global"])
def test_a_batch_of_one_cannot_train_what_pools(context: str) -> None:
    x, y = (t[:1] for t in maps())
    module = mscam(context=context)
    module(x, y)  # eval mode takes it
    with pytest.raises(ShapeError, match="batch of one"):
        module.train()(x, y)


@pytest.mark.parametrize("context", ["local", "local+local"])
def test_a_batch_of_one_trains_what_does_not_pool(context: str) -> None:
    x, y = (t[:1] for t in maps())
    result = mscam(context=context).train()(x, y)
    assert bool(result.fused.tensor.isfinite().all())
    assert "pool" not in [step.key for step in result.trace]


def test_on_says_which_map_is_refined(stir) -> None:
    x, y = maps()
    for on, u in {"sum": x + y, "low": x, "high": y, "concat": torch.cat((x, y), 1)}.items():
        result = stir(mscam(on=on))(x, y)
        gate = result.attention["gate"]
        assert (gate.of, gate.axes, gate.role, gate.stride) == (on, "b c h w", "element_gate", (4, 4))
        torch.testing.assert_close(result.fused.tensor, u * gate.tensor)
        low, high = result.terms()
        whole = torch.cat((low, high), 1) if on == "concat" else low + high
        torch.testing.assert_close(whole, result.fused.tensor)


def test_formulas_name_the_map_and_the_branches() -> None:
    x, y = maps()
    formulas = {s.key: s.formula for s in mscam(context="local", on="concat")(x, y).trace}
    assert formulas["local"] == "L([X;Y])"
    assert formulas["weight"] == r"\sigma(L)"
    formulas = {s.key: s.formula for s in mscam()(x, y).trace}
    assert formulas["scales"] == "L(X+Y)+g(X+Y)"
    assert formulas["fused"] == r"(X+Y)\otimes M"


def test_refuses_an_unknown_context() -> None:
    with pytest.raises(ParameterError, match="local\\+global"):
        mscam(context="none")
