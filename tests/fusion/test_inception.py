"""Inception: the stack is the network's own, and what a convolution makes of it is a sum over the branches."""

import pytest
import torch

from fusionviz import backbones, fusion
from fusionviz.errors import ParameterError, ShapeError
from fusionviz.fusion import Context
from fusionviz.records import ANALYTIC

CHANNELS = (3, 5, 2, 4)


def branches(batch: int = 2) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(batch, c, 6, 7, generator=generator) for c in CHANNELS)


def test_every_branch_comes_back_exactly() -> None:
    maps = branches()
    result = fusion.build("inception", CHANNELS)(*maps)
    assert result.provenance == ANALYTIC
    for part, m in zip(result.fused.tensor.split(CHANNELS, 1), maps, strict=True):
        assert torch.equal(part, m)
    assert [s.key for s in result.trace] == ["b1", "b2", "b3", "b4", "fused"]


@pytest.mark.parametrize(
    ("key", "site", "channels"),
    [
        ("googlenet", "branches:inception3a", 64 + 128 + 32 + 32),
        ("inception_v3", "branches:Mixed_6a", 384 + 96 + 288),
        ("squeezenet1_1", "branches:features.3", 64 + 64),
    ],
)
def test_the_stack_is_the_networks_own(key: str, site: str, channels: int) -> None:
    network = backbones.load(key)
    wants = network.info.preprocessing
    x = torch.randn(
        1, 3, max(96, wants.minimum_px), max(96, wants.minimum_px), generator=torch.Generator().manual_seed(1)
    )
    with torch.no_grad():
        maps, _ = network.at(site)(x)
        fused = fusion.build("inception", tuple(m.channels for m in maps))(*maps).fused
        own = running(network, network.info.site(site).node, x)
    assert fused.channels == channels
    assert torch.equal(fused.tensor, own)
    assert (fused.stride, fused.offset) == (maps[0].stride, maps[0].offset)


def running(network: backbones.Backbone, node: str, x: torch.Tensor) -> torch.Tensor:
    """Return what the network's graph computes at a node."""
    kept = {}

    class Watching(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> object:
            value = super().run_node(n)
            if n.name == node:
                kept[node] = value.clone()
            return value

    Watching(network.module).run(x)
    return kept[node]


@pytest.mark.parametrize("off", ["b1", "b3"])
def test_a_branch_that_is_off_is_zero_and_the_others_stay(off: str) -> None:
    maps = branches()
    module = fusion.build("inception", CHANNELS, off=off)
    parts = module(*maps).fused.tensor.split(CHANNELS, 1)
    for i, (part, m) in enumerate(zip(parts, maps, strict=True), start=1):
        assert torch.equal(part, torch.zeros_like(m) if f"b{i}" == off else m)
    step = next(s for s in module(*maps).trace if s.op == "switch_off")
    assert step.inputs == (off,)


def test_a_branch_that_is_not_there_cannot_be_off() -> None:
    with pytest.raises(ParameterError, match=r"'off' cannot be b3\. Allowed: none, b1, b2"):
        fusion.build("inception", (4, 4), off="b3")


def test_a_convolution_of_the_stack_is_a_sum_over_the_branches() -> None:
    maps = branches()
    module = fusion.build("inception", CHANNELS, reduce=8)
    weight = module.reduce.weight[:, :, 0, 0]
    by_loop, start = torch.zeros(2, 8, 6, 7), 0
    for m in maps:
        columns = weight[:, start : start + m.shape[1]]
        by_loop += torch.einsum("oc,bchw->bohw", columns, m)
        start += m.shape[1]
    result = module(*maps)
    torch.testing.assert_close(result.fused.tensor, by_loop)
    low, rest = result.terms()
    torch.testing.assert_close(low + rest, by_loop)
    torch.testing.assert_close(low, torch.einsum("oc,bchw->bohw", weight[:, :3], maps[0]))


@pytest.mark.parametrize("reduce", [0, 8])
@pytest.mark.parametrize("low", [0, 2])
def test_the_share_is_of_the_branch_that_is_shown_as_low(reduce: int, low: int) -> None:
    maps = branches()
    module = fusion.build("inception", CHANNELS, reduce=reduce)
    result = module(*maps, context=Context(ends=(low, 3)))
    only = [m if i == low else torch.zeros_like(m) for i, m in enumerate(maps)]
    mine, rest = result.terms()
    torch.testing.assert_close(mine, module(*only).fused.tensor)
    torch.testing.assert_close(mine + rest, result.fused.tensor)
    roles = {s.key: s.role for s in result.trace if s.op == "input"}
    assert roles == {**dict.fromkeys(("b1", "b2", "b3", "b4"), ""), f"b{low + 1}": "low", "b4": "high"}


def test_maps_of_several_sizes_are_refused() -> None:
    first, *rest = branches()
    with pytest.raises(ShapeError, match=r"stacks maps of one size, but 3 × 7, 6 × 7, 6 × 7, 6 × 7 came"):
        fusion.build("inception", CHANNELS)(first[:, :, :3], *rest)
