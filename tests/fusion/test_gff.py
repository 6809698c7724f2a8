"""GFF: what gates of 0 and 1 leave of the levels, the equation by an independent loop, and both of its forms."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fusionviz import fusion

CHANNELS, SIZES = (6, 10, 14), ((13, 9), (7, 5), (4, 3))


def levels(channels: tuple[int, ...] = CHANNELS, sizes: tuple = SIZES) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, c, *size, generator=generator) for c, size in zip(channels, sizes, strict=False)]


def gff(channels: tuple[int, ...] = CHANNELS, strides: tuple | None = None, **params: object) -> fusion.FusionModule:
    return fusion.build("gff", channels, strides, **{"width": 8, **params})


def with_gates(module: fusion.FusionModule, *open_: float) -> fusion.FusionModule:
    """Gates that are 0 or 1 in float32, whatever they see."""
    for gate, value in zip(module.gate.values(), open_, strict=True):
        nn.init.zeros_(gate.weight)
        nn.init.constant_(gate.bias, 200.0 if value else -200.0)
    return module


def projected(module: fusion.FusionModule, maps: list[torch.Tensor]) -> list[torch.Tensor]:
    return [module.project[str(i)](m) for i, m in enumerate(maps, start=1)]


def at(tensor: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(tensor, size=size, mode="bilinear", align_corners=False)


@pytest.mark.parametrize("gate", ["paper", "released"])
def test_gates_of_one_double_every_level(gate: str) -> None:
    module, maps = with_gates(gff(gate=gate), 1, 1, 1), levels()
    outputs = module(*maps).outputs
    for name, x in zip(("p4", "p8", "p16"), projected(module, maps), strict=True):
        torch.testing.assert_close(outputs[name].tensor, 2 * x)


def test_gates_of_zero_leave_every_level_as_it_is() -> None:
    module, maps = with_gates(gff(), 0, 0, 0), levels()
    outputs = module(*maps).outputs
    for name, x in zip(("p4", "p8", "p16"), projected(module, maps), strict=True):
        torch.testing.assert_close(outputs[name].tensor, x)


def test_a_level_that_knows_nothing_takes_all_the_others() -> None:
    module, maps = with_gates(gff(), 0, 1, 1), levels()
    x, *others = projected(module, maps)
    torch.testing.assert_close(module(*maps).fused.tensor, x + sum(at(o, (13, 9)) for o in others))


def test_it_is_no_selection() -> None:
    """Larger than any of its levels: nothing sums to 1."""
    module, maps = gff(), levels()
    xs = torch.stack([at(x, (13, 9)) for x in projected(module, maps)])
    assert bool((module(*maps).fused.tensor > xs.amax(0) + 1e-3).any())


@pytest.mark.parametrize("gate", ["paper", "released"])
@pytest.mark.parametrize("update", ["parallel", "sequential"])
def test_the_equation_written_out(gate: str, update: str) -> None:
    module, maps = gff(gate=gate, update=update), levels()
    x = projected(module, maps)
    seen = maps if gate == "released" else x
    g = [1 / (1 + torch.exp(-module.gate[str(i)](m))) for i, m in enumerate(seen, start=1)]
    result, now = module(*maps), list(x)
    for to, name in enumerate(("p4", "p8", "p16")):
        size = tuple(x[to].shape[-2:])
        heard = sum(at(g[i] * now[i], size) for i in range(3) if i != to)
        z = (1 + g[to]) * x[to] + (1 - g[to]) * heard
        torch.testing.assert_close(result.outputs[name].tensor, z)
        if update == "sequential":
            now[to] = z


def test_in_turn_changes_all_but_the_first() -> None:
    maps, together, in_turn = levels(), gff(), gff(update="sequential")
    in_turn.load_state_dict(together.state_dict())
    a, b = together(*maps).outputs, in_turn(*maps).outputs
    assert torch.equal(a["p4"].tensor, b["p4"].tensor)
    for name in ("p8", "p16"):
        assert not torch.allclose(a[name].tensor, b[name].tensor)


@pytest.mark.parametrize(("gate", "deep", "axes"), [("paper", 1, "b 1 h w"), ("released", 8, "b c h w")])
def test_gates_have_the_places_of_their_own_levels(gate: str, deep: int, axes: str) -> None:
    attention = gff(gate=gate)(*levels()).attention
    assert list(attention) == ["gate_1", "gate_2", "gate_3"]
    for (weight, size), stride in zip(zip(attention.values(), SIZES, strict=True), (4, 8, 16), strict=True):
        assert weight.tensor.shape == (2, deep, *size)
        assert (weight.axes, weight.stride) == (axes, (stride, stride))
    assert [a.of for a in attention.values()] == ["low", "middle", "high"]


def test_the_share_of_low_is_of_what_is_kept_and_what_is_let_in() -> None:
    result = gff()(*levels())
    x, heard = (m.tensor for m in result.aligned)
    g = result.attention["gate_1"].tensor
    kept, let_in = ((1 + g) * x).norm(dim=1), ((1 - g) * heard).norm(dim=1)
    torch.testing.assert_close(result.share_of_low().tensor[:, 0], kept / (kept + let_in))


def test_two_levels_of_one_size_need_no_resize() -> None:
    result = gff((6, 6), (16.0, 16.0))(*levels((6, 6), ((4, 4), (4, 4))))
    assert not [s for s in result.trace if s.op.startswith("resize")]
