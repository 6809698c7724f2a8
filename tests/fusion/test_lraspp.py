"""LR-ASPP: the same as torchvision's head with the same weights; votes add up; the gate and its laws."""

import pytest
import torch
from torch import nn
from torchvision.models.segmentation.lraspp import LRASPPHead

from fusionviz import fusion


def maps(low: tuple[int, int] = (13, 9), high: tuple[int, int] = (7, 5)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(2, c, *size, generator=generator) for c, size in ((6, low), (10, high)))


def lraspp(channels: tuple[int, int] = (6, 10), **params: object) -> fusion.FusionModule:
    module = fusion.build("lraspp", channels, **{"width": 8, "classes": 5, **params})
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        norm = module.reduce[1]
        norm.running_mean.normal_(generator=generator)
        norm.running_var.uniform_(0.5, 2, generator=generator)
    return module


def reference(module: fusion.FusionModule) -> LRASPPHead:
    low, high = module.channels
    head = LRASPPHead(low, high, module.high_votes.out_channels, module.high_votes.in_channels)
    ours = {
        "cbr": module.reduce,
        "low_classifier": module.low_votes,
        "high_classifier": module.high_votes,
    }
    for name, part in ours.items():
        getattr(head, name).load_state_dict(part.state_dict())
    head.scale[1].load_state_dict(module.scale.state_dict())
    return head.eval()


@pytest.mark.parametrize("sizes", [((13, 9), (7, 5)), ((28, 28), (14, 14)), ((4, 4), (4, 4))])
def test_equals_torchvision_with_the_same_weights(sizes: tuple) -> None:
    module, (low, high) = lraspp(), maps(*sizes)
    expected = reference(module)({"low": low, "high": high})
    torch.testing.assert_close(module(low, high).fused.tensor, expected)


def test_the_published_head_by_its_shapes() -> None:
    module = fusion.build("lraspp", (40, 960), (8.0, 16.0))
    result = module(torch.randn(1, 40, 28, 28), torch.randn(1, 960, 14, 14))
    assert result.fused.tensor.shape == (1, 21, 28, 28)
    assert result.attention["gate"].tensor.shape == (1, 128, 1, 1)
    head = LRASPPHead(40, 960, 21, 128)
    assert sum(p.numel() for p in module.parameters()) == sum(p.numel() for p in head.parameters())


def test_votes_add_up_and_each_level_votes_alone() -> None:
    module, (low, high) = lraspp(), maps()
    result = module(low, high)
    x, y = (m.tensor for m in result.aligned)
    torch.testing.assert_close(result.fused.tensor, x + y)
    torch.testing.assert_close(x, module.low_votes(low))
    other = module(torch.randn_like(low), high)
    assert torch.equal(other.aligned[1].tensor, y)
    assert torch.equal(other.attention["gate"].tensor, result.attention["gate"].tensor)


def test_without_votes_of_low_only_the_high_level_is_heard() -> None:
    module, (low, high) = lraspp(low_branch=False), maps()
    result = module(low, high)
    assert torch.equal(result.fused.tensor, module(torch.randn_like(low), high).fused.tensor)
    assert result.fused.size == (13, 9)
    assert not bool(result.share_of_low().tensor.any())
    assert module.low_votes is None


def test_zero_weights_are_gates_of_one_half() -> None:
    module = lraspp()
    nn.init.zeros_(module.scale.weight)
    assert torch.equal(module(*maps()).attention["gate"].tensor, torch.full((2, 8, 1, 1), 0.5))


def test_the_hard_gate_reaches_its_ends_and_the_sigmoid_does_not() -> None:
    low, high = maps()
    high[:, 0] = 1.0
    gates = []
    for module in (lraspp(), lraspp(gate="hard-sigmoid")):
        nn.init.zeros_(module.scale.weight)
        with torch.no_grad():
            module.scale.weight[:, 0, 0, 0] = torch.linspace(-5, 5, 8)
        gates.append(module(low, high).attention["gate"].tensor[0].flatten())
    soft, hard = gates
    assert bool(((soft > 0) & (soft < 1)).all())
    torch.testing.assert_close(hard, (torch.linspace(-5, 5, 8) / 6 + 0.5).clamp(0, 1))  # cut off from -3 and from 3 on
    assert hard[0] == 0
    assert hard[-1] == 1


def test_the_gate_sees_nothing_but_the_mean() -> None:
    low, high = maps()
    shuffled = high.flatten(2)[..., torch.randperm(35, generator=torch.Generator().manual_seed(2))].view_as(high)
    gates = [lraspp()(low, h).attention["gate"].tensor for h in (high, shuffled)]
    torch.testing.assert_close(*gates)


def test_the_resize_stands_behind_the_gate() -> None:
    keys = [s.key for s in lraspp()(*maps()).trace]
    assert keys.index("gated") < keys.index("high_resize") < keys.index("high_votes")
    same = lraspp()(*maps((4, 4), (4, 4)))
    assert "high_resize" not in [s.key for s in same.trace]


def test_the_share_of_low_leaves_the_biases_out() -> None:
    module, (low, high) = lraspp(), maps()
    before = module(low, high).share_of_low().tensor
    nn.init.constant_(module.low_votes.bias, 100.0)
    assert torch.equal(module(low, high).share_of_low().tensor, before)
    x, y = module(low, high).terms()
    torch.testing.assert_close(x, module.low_votes(low) - 100, rtol=0, atol=1e-4)  # 100 costs five digits
    torch.testing.assert_close(y, module(low, high).aligned[1].tensor - module.high_votes.bias[:, None, None])
