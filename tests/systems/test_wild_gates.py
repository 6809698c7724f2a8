"""Gates of torchvision's networks: all of them, as its own forward pass computes them, and one block in steps."""

import pytest
import torch
from _torchvisions import build, check_trace, look, picture, steps
from torch import nn
from torchvision import models
from torchvision.models import list_models
from torchvision.ops import SqueezeExcitation

from fusionviz import systems, weights

KEY = "wild_gates"
NETS = systems.spec(KEY).param("net").choices
SMALL = ("mobilenet_v3_small", "mobilenet_v3_large", "efficientnet_b0", "efficientnet_v2_s", "regnet_y_400mf")
LARGE = tuple(net for net in NETS if net not in SMALL and net not in ("regnet_y_128gf", "regnet_y_32gf"))


def gates_of(module: systems.System, seen: torch.Tensor) -> tuple[torch.Tensor, list, list]:
    """torchvision's own scores, and what went into and came out of every gated block."""
    found = []
    blocks = [m for m in module.network.modules() if isinstance(m, SqueezeExcitation)]
    hooks = [b.register_forward_hook(lambda m, i, o: found.append((m, i[0].clone(), o.clone()))) for b in blocks]
    with torch.no_grad():
        scores = module.network(seen)
    for hook in hooks:
        hook.remove()
    return scores, [block for block, _, _ in found], [pair for _, *pair in found]


def test_every_network_with_gates_is_there():
    beginnings = ("mobilenet_v3", "efficientnet", "regnet_y")
    assert set(NETS) == {n for n in list_models(module=models) if n.startswith(beginnings)}


def lively(net: str, **knobs: object) -> systems.System:
    """A network in which signals neither vanish nor grow: normalised as in training, by what it sees itself."""
    module = build(KEY, net, scale="given", **knobs)
    at = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    norms = [m for m in module.network.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        module.network(at)
    module.network.eval()
    return module


@pytest.mark.parametrize("net", [*SMALL, *(pytest.param(net, marks=pytest.mark.slow) for net in LARGE)])
def test_it_is_torchvisions_forward_pass_with_a_gate_for_every_block(net):
    module, at = lively(net, depth=0.5), picture(70, 97)
    result = look(module, at)
    scores, blocks, pairs = gates_of(module, steps(result)["fitted"])
    torch.testing.assert_close(result.outputs["classes"].values, scores[0])
    assert scores.std() > 1e-6
    chosen, *others = result.attention
    assert sorted(result.attention, key=lambda n: int(n[5:])) == [f"gate_{i}" for i in range(1, len(blocks) + 1)]
    assert others == sorted(others, key=lambda n: int(n[5:]))
    for i, (block, (u, z)) in enumerate(zip(blocks, pairs, strict=True), start=1):
        gate = result.attention[f"gate_{i}"]
        with torch.no_grad():
            torch.testing.assert_close(gate.tensor, block._scale(u))
        assert gate.tensor.shape == (1, u.shape[1], 1, 1)
        assert (gate.axes, gate.kind) == ("b c 1 1", "gate")
        if gate.name == chosen:
            torch.testing.assert_close(result.outputs["before"].tensor, u)
            torch.testing.assert_close(result.fused.tensor, z)
            assert result.fused.size == tuple(-(-n // int(result.fused.stride[0])) for n in (70, 97))
    hard = isinstance(blocks[0].scale_activation, nn.Hardsigmoid)
    assert hard is net.startswith("mobilenet")
    ops = [step.op for step in result.trace]
    assert ops == [
        "input",
        "fit",
        "layers",
        "pool",
        "reduce",
        "expand",
        "hard_sigmoid" if hard else "sigmoid",
        "multiply",
        "layers",
    ]
    assert result.outputs["classes"].classes == weights.categories(net)
    check_trace(KEY, result)


def test_depth_goes_from_the_first_block_to_the_last():
    at, counts = picture(), []
    for depth, name in ((0.0, "gate_1"), (0.5, "gate_5"), (1.0, "gate_9")):
        result = look(build(KEY, "mobilenet_v3_small", scale="given", depth=depth), at)
        assert next(iter(result.attention)) == name
        counts.append(result.fused.stride[0])
    assert counts == [4, 16, 32]


def test_the_gate_multiplies_every_channel_at_every_place():
    made = steps(look(lively("mobilenet_v3_small"), picture()))
    torch.testing.assert_close(made["fused"], made["before"] * made["weight"])
    torch.testing.assert_close(made["squeeze"], made["before"].mean((2, 3), keepdim=True))
    weight = made["weight"]
    assert bool(((weight > 0) & (weight < 1)).any())


def test_nothing_of_a_run_stays_on_the_network():
    module = lively("mobilenet_v3_small")
    first = look(module, picture())
    look(module, picture(seed=1))
    again = look(module, picture())
    assert torch.equal(first.fused.tensor, again.fused.tensor)
    assert not torch.equal(first.fused.tensor, look(module, picture(seed=1)).fused.tensor)
    assert not any(m._forward_hooks for m in module.modules())


def test_the_short_side_becomes_that_of_the_published_weights():
    result = look(build(KEY, "mobilenet_v3_small"), picture(50, 80))
    assert steps(result)["fitted"].shape[-2:] == (224, 358)
    assert result.fused.stride == pytest.approx((32 * 50 / 224, 32 * 80 / 358))
