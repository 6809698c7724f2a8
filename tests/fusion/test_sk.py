"""SK: for every channel a softmax over the two levels, from the means of their sum; the same as timm's attention."""

import math

import pytest
import torch
from torch import nn

from fusionviz import fusion


def maps(channels: int = 8, size: tuple[int, int] = (5, 4)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(
        torch.randn(2, channels, *size, generator=generator) + 2 * torch.randn(2, channels, 1, 1, generator=generator)
        for _ in range(2)
    )


def sk(channels: int = 8, **params: object) -> fusion.FusionModule:
    return fusion.build("sk", (channels, channels), (4, 4), **params)


def test_equals_the_equations_written_as_loops(stir) -> None:
    c, d = 3, 4
    x, y = maps(c)
    module = stir(sk(c, L=d))
    result = module(x, y)
    conv, norm, _ = module.reduce
    for n in range(2):
        means = [float((x + y)[n, k].sum()) / 20 for k in range(c)]
        v = []
        for o in range(d):
            value = sum(float(conv.weight[o, k]) * means[k] for k in range(c))
            value = (value - float(norm.running_mean[o])) / math.sqrt(float(norm.running_var[o]) + norm.eps)
            v.append(max(0.0, value * float(norm.weight[o]) + float(norm.bias[o])))
        scores = [sum(float(module.choose.weight[row, o]) * v[o] for o in range(d)) for row in range(2 * c)]
        for k in range(c):
            a, b = math.exp(scores[k]), math.exp(scores[c + k])
            share = result.attention["low"].tensor[n, k, 0, 0]
            torch.testing.assert_close(share, torch.tensor(a / (a + b)), atol=1e-6, rtol=1e-5)
            mixed = (a * x[n, k] + b * y[n, k]) / (a + b)
            torch.testing.assert_close(result.fused.tensor[n, k], mixed, atol=1e-5, rtol=1e-4)


def test_equals_timm_with_the_same_weights(stir) -> None:
    timm_sk = pytest.importorskip("timm.layers.selective_kernel", reason="timm is not installed; loops are compared")
    x, y = maps()
    module = stir(sk(L=16))
    reference = timm_sk.SelectiveKernelAttn(8, num_paths=2, attn_channels=16).eval()
    reference.fc_reduce.load_state_dict(module.reduce[0].state_dict())
    reference.bn.load_state_dict(module.reduce[1].state_dict())
    reference.fc_select.load_state_dict(module.choose.state_dict())
    branches = torch.stack((x, y), 1)  # [b 2 c h w]
    shares = reference(branches)
    result = module(x, y)
    torch.testing.assert_close(result.attention["low"].tensor, shares[:, 0])
    torch.testing.assert_close(result.fused.tensor, (branches * shares).sum(1))


def test_shares_sum_to_one_and_the_panel_gets_one_number_for_each_channel() -> None:
    x, y = maps()
    result = sk()(x, y)
    steps = {s.key: s.tensor for s in result.trace}
    assert steps["shares"].shape == (2, 2, 8, 1, 1)
    torch.testing.assert_close(steps["shares"].sum(1), torch.ones(2, 8, 1, 1))
    weight = result.attention["low"]
    assert (weight.axes, weight.grain, weight.of, weight.sums) == ("b c 1 1", "channel", "low", "with_high")
    assert torch.equal(weight.tensor, steps["shares"][:, 0])
    assert float(weight.tensor.std(1).min()) > 0.01  # channels really decide for themselves


def test_equal_scores_give_the_mean() -> None:
    x, y = maps()
    module = sk()
    nn.init.zeros_(module.choose.weight)
    torch.testing.assert_close(module(x, y).fused.tensor, (x + y) / 2)


def test_lies_between_the_maps_and_leaves_equal_maps_alone(stir) -> None:
    x, y = maps()
    module = stir(sk())
    z = module(x, y).fused.tensor
    assert bool((z >= torch.minimum(x, y) - 1e-6).all())
    assert bool((z <= torch.maximum(x, y) + 1e-6).all())
    assert torch.equal(module(x, x).fused.tensor, x)


def test_the_weight_sees_the_sum_alone() -> None:
    """So it cannot tell which level is which: SK(x, y) + SK(y, x) = x + y, as for AFF."""
    x, y = maps()
    module = sk()
    there, back = module(x, y), module(y, x)
    torch.testing.assert_close(there.attention["low"].tensor, back.attention["low"].tensor)
    torch.testing.assert_close(there.fused.tensor + back.fused.tensor, x + y)


def test_the_weight_does_not_see_where_things_are() -> None:
    x, y = maps()
    module = sk()
    shuffled = module(x.flip(2, 3), y.flip(3)).attention["low"].tensor
    torch.testing.assert_close(shuffled, module(x, y).attention["low"].tensor)


@pytest.mark.parametrize(("channels", "inner"), [(64, 32), (512, 32), (1024, 64)])
def test_the_bottleneck_is_never_narrower_than_L(channels: int, inner: int) -> None:  # noqa: N802 - the paper's name
    module = sk(channels)
    assert module.reduce[0].out_channels == inner
    assert sum(p.numel() for p in module.parameters()) == 3 * channels * inner + 2 * inner


def test_every_parameter_learns_from_two_pictures() -> None:
    x, y = maps()
    module = sk().train()
    module(x, y).fused.tensor.square().sum().backward()
    for name, parameter in module.named_parameters():
        assert bool(parameter.grad.isfinite().all()), name
        assert bool(parameter.grad.any()), name
