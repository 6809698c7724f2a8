"""BiFPN: the weights and their sums, the graph for two levels and more, and a layer by an independent loop."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fusionviz import fusion

CHANNELS = (6, 10, 14, 18, 22)
SIZES = ((32, 24), (16, 12), (8, 6), (4, 3), (2, 2))


def levels(count: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    pairs = zip(CHANNELS[:count], SIZES[:count], strict=True)
    return [torch.randn(2, c, *size, generator=generator) for c, size in pairs]


def bifpn(count: int = 3, **params: object) -> fusion.FusionModule:
    return fusion.build("bifpn", CHANNELS[:count], **{"width": 8, **params})


def stirred(count: int = 3, **params: object) -> fusion.FusionModule:
    """With edges and normalisations that are not all the same, so that a mix-up would show."""
    module, generator = bifpn(count, **params), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for v in module.edges.values():
            v.copy_(torch.rand(v.shape, generator=generator) + 0.2)
        for norm in (m for m in module.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.running_mean.normal_(generator=generator)
            norm.running_var.uniform_(0.5, 2, generator=generator)
    return module


def test_fast_weights_sum_to_just_under_one() -> None:
    attention = bifpn()(*levels()).attention
    for weight in attention.values():
        n = weight.tensor.shape[1]
        total = weight.tensor.sum(1)
        assert bool((total < 1).all())
        torch.testing.assert_close(total, torch.full_like(total, n / (n + 1e-4)), rtol=0, atol=1e-7)
    assert round(attention["1_td_1"].tensor[0].sum().item(), 5) == 0.99995  # two ones
    assert round(attention["1_out_2"].tensor[0].sum().item(), 5) == 0.99997  # three


def test_edges_below_zero_let_nothing_pass() -> None:
    module = bifpn()
    with torch.no_grad():
        module.edges["1_td_1"].fill_(-1.0)
    result = module(*levels())
    assert not bool(result.attention["1_td_1"].tensor.any())
    assert not bool(next(s.tensor for s in result.trace if s.key == "1_td_1_sum").any())


def test_one_edge_below_zero_is_cut_and_the_other_gets_all() -> None:
    low, high = bifpn(shift=-2.0)(*levels()).attention["1_td_1"].tensor[0].flatten().tolist()
    assert low == 0
    assert high == pytest.approx(1 / 1.0001)


def test_weights_worked_by_hand() -> None:
    module = bifpn()
    with torch.no_grad():
        module.edges["1_out_2"].copy_(torch.tensor([3.0, -5.0, 1.0]))
    weight = module(*levels()).attention["1_out_2"].tensor
    assert weight.shape == (2, 3, 1, 1, 1)
    assert weight[1].flatten().tolist() == pytest.approx([3 / 4.0001, 0, 1 / 4.0001])


def test_only_the_ratio_of_edges_counts() -> None:
    module, maps = stirred(), levels()
    before = module(*maps).fused.tensor
    with torch.no_grad():
        for v in module.edges.values():
            v.mul_(7)
    torch.testing.assert_close(module(*maps).fused.tensor, before, atol=2e-3, rtol=2e-3)


def test_softmax_and_fast_agree_where_all_edges_are_equal() -> None:
    fast, soft, maps = bifpn(), bifpn(weighting="softmax"), levels()
    soft.load_state_dict(fast.state_dict())
    for name, weight in fast(*maps).attention.items():
        other = soft(*maps).attention[name]
        assert (weight.kind, other.kind) == ("normalised", "softmax")
        torch.testing.assert_close(weight.tensor, other.tensor, atol=1e-4, rtol=0)


def test_unbounded_weights_are_the_numbers_themselves() -> None:
    module = bifpn(weighting="unbounded")
    with torch.no_grad():
        module.edges["1_td_1"].copy_(torch.tensor([-2.0, 5.0]))
    assert module(*levels()).attention["1_td_1"].tensor[0].flatten().tolist() == [-2, 5]


@pytest.mark.parametrize("weighting", ["fast", "softmax", "unbounded"])
def test_raising_low_moves_the_other_edge_only_where_they_share_a_whole(weighting: str) -> None:
    maps = levels()
    plain, raised = (bifpn(weighting=weighting, shift=s)(*maps).attention for s in (0.0, 4.0))
    a, b = (r["1_td_1"].tensor[0].flatten() for r in (plain, raised))
    assert b[0] > a[0]
    assert (b[1] < a[1]) if weighting != "unbounded" else (b[1] == a[1])
    for name in set(plain) - {"1_td_1"}:
        assert torch.equal(plain[name].tensor, raised[name].tensor)


@pytest.mark.parametrize(
    ("count", "nodes"),
    [
        (2, {"1_td_1": 2, "1_out_2": 2}),
        (3, {"1_td_1": 2, "1_td_2": 2, "1_out_2": 3, "1_out_3": 2}),
        (5, {**{f"1_td_{i}": 2 for i in (1, 2, 3, 4)}, "1_out_2": 3, "1_out_3": 3, "1_out_4": 3, "1_out_5": 2}),
    ],
)
def test_the_graph_of_two_three_and_five_levels(count: int, nodes: dict[str, int]) -> None:
    module = bifpn(count)
    assert {name: len(v) for name, v in module.edges.items()} == nodes
    result = module(*levels(count))
    assert {name: a.tensor.shape[1] for name, a in result.attention.items()} == nodes
    assert next(iter(result.attention)) == "1_td_1"
    inputs = {s.key: s.inputs for s in result.trace}
    if count == 3:
        assert inputs["1_td_2_sum"] == ("1_td_2_w", "lateral_2", "1_up_2")
        assert inputs["1_td_1_sum"] == ("1_td_1_w", "lateral_1", "1_up_1")
        assert inputs["1_out_2_sum"] == ("1_out_2_w", "1_down_2", "lateral_2", "1_td_2")
        assert inputs["1_out_3_sum"] == ("1_out_3_w", "1_down_3", "lateral_3")
        assert (inputs["1_up_1"], inputs["1_down_2"]) == (("1_td_2",), ("1_td_1",))


def independent(module: fusion.FusionModule, maps: list[torch.Tensor]) -> list[torch.Tensor]:
    """Layers of the paper for three levels, written out."""

    def node(name: str, *inputs: torch.Tensor) -> torch.Tensor:
        w = module.edges[name].clamp_min(0)
        total = sum(w[k] * m for k, m in enumerate(inputs)) / (1e-4 + w.sum())
        _, depthwise, pointwise, norm = module.conv[name]
        out = F.conv2d(total * total.sigmoid(), depthwise.weight, padding=1, groups=8)
        return norm(F.conv2d(out, pointwise.weight))

    up = lambda t: t.repeat_interleave(2, 2).repeat_interleave(2, 3)  # noqa: E731
    i1, i2, i3 = (module.lateral[str(i)](m) for i, m in enumerate(maps, start=1))
    for r in range(1, module.repeats + 1):
        t2 = node(f"{r}_td_2", i2, up(i3))
        o1 = node(f"{r}_td_1", i1, up(t2))
        o2 = node(f"{r}_out_2", F.max_pool2d(o1, 3, 2, 1), i2, t2)
        i1, i2, i3 = o1, o2, node(f"{r}_out_3", F.max_pool2d(o2, 3, 2, 1), i3)
    return [i1, i2, i3]


@pytest.mark.parametrize("repeats", [1, 3])
def test_equals_the_paper_written_out(repeats: int) -> None:
    module, maps = stirred(repeats=repeats), levels()
    outputs = module(*maps).outputs
    for name, expected in zip(("p4", "p8", "p16"), independent(module, maps), strict=True):
        torch.testing.assert_close(outputs[name].tensor, expected)
    assert outputs["fused"].tensor is outputs["p4"].tensor


def test_the_last_layers_finest_node_comes_first_and_each_has_a_name() -> None:
    attention = bifpn(repeats=2)(*levels()).attention
    assert next(iter(attention)) == "2_td_1"
    assert len(attention) == 8
    assert {a.role for a in attention.values()} == {"edges_td", "edges_out"}
    assert [attention[n].of for n in ("1_td_1", "1_td_2", "1_out_3")] == ["low", "middle", "high"]


def test_the_share_of_low_is_of_the_weighed_maps_that_met() -> None:
    module = stirred()
    result = module(*levels())
    low, high = result.aligned
    w = result.attention["1_td_1"].tensor[0].flatten()
    a, b = (w[0] * low.tensor).norm(dim=1), (w[1] * high.tensor).norm(dim=1)
    torch.testing.assert_close(result.share_of_low().tensor[:, 0], a / (a + b))


def test_levels_of_one_size_are_neither_pooled_nor_enlarged() -> None:
    module = fusion.build("bifpn", (6, 6, 6), (16.0,) * 3, width=8)
    trace = module(*(torch.randn(1, 6, 4, 4) for _ in range(3))).trace
    assert not {s.op for s in trace} & {"resize_nearest", "max_pool"}


def test_odd_sizes_meet() -> None:
    maps = [torch.randn(1, c, *s) for c, s in zip(CHANNELS[:3], ((55, 55), (27, 27), (13, 13)), strict=True)]
    assert [o.size for n, o in bifpn()(*maps).outputs.items() if n != "fused"] == [(55, 55), (27, 27), (13, 13)]
