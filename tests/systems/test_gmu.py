"""GMU: a mixture, number by number, of what is seen and what is said; its limits, and the equation by a loop."""

import math

import torch
from _asking import ask, build, seen_and_said, steps
from torch import nn

from fusionviz.systems._phrases import TEXT, WIDTH
from fusionviz.trace import NullTrace


def test_the_equation_by_a_loop_over_one_place() -> None:
    module, (x, y) = build("gmu"), seen_and_said()
    with torch.no_grad():
        met = module.meet(x, y, NullTrace())
    b, row, column = 1, 4, 2
    seen, said = x[b, :, row, column].tolist(), y[b].tolist()

    def times(weight: torch.Tensor, vector: list[float]) -> float:
        return sum(w * v for w, v in zip(weight.flatten().tolist(), vector, strict=True))

    for c in (0, 11, WIDTH - 1):
        v = math.tanh(times(module.vision.weight[c], seen))
        t = math.tanh(times(module.text.weight[c], said))
        m = 1 / (1 + math.exp(-times(module.gate.weight[c], [*seen, *said])))
        torch.testing.assert_close(float(met.fused[b, c, row, column]), m * v + (1 - m) * t, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(float(met.attention[0].tensor[b, c, row, column]), m, atol=1e-5, rtol=1e-4)


def test_every_number_lies_between_the_two_it_is_mixed_from() -> None:
    module, (x, y) = build("gmu"), seen_and_said()
    with torch.no_grad():
        for loud in (1, 30):  # far out, where tanh is flat
            z = module.meet(loud * x, loud * y, NullTrace()).fused
            v, t = torch.tanh(module.vision(loud * x)), torch.tanh(module.text(loud * y))[..., None, None].expand_as(z)
            assert bool((z >= torch.minimum(v, t) - 1e-6).all())
            assert bool((z <= torch.maximum(v, t) + 1e-6).all())
            assert float(z.abs().max()) < (1 if loud == 1 else 1 + 1e-6)


def test_a_gate_of_one_is_vision_alone_and_of_zero_text_alone() -> None:
    x, y = seen_and_said()
    for gate, of in (("vision", 0), ("text", 1)):
        module = build("gmu", gate=gate)
        with torch.no_grad():
            met = module.meet(x, y, NullTrace())
            alone = torch.tanh(module.vision(x)), torch.tanh(module.text(y))[..., None, None].expand_as(met.fused)
        assert torch.equal(met.fused, alone[of])
        assert bool((met.attention[0].tensor == 1 - of).all())


def test_a_gate_that_is_driven_to_its_ends_gets_there() -> None:
    x, y = seen_and_said()
    module = build("gmu")
    nn.init.zeros_(module.gate.weight)
    with torch.no_grad():
        module.gate.weight[:, WIDTH] = 1e3
        for sign, alone in ((1, torch.tanh(module.vision(x))), (-1, torch.tanh(module.text(y))[..., None, None])):
            said = torch.cat((torch.full((2, 1), float(sign)), y[:, 1:]), 1)
            alone = alone if sign == 1 else torch.tanh(module.text(said))[..., None, None].expand_as(x)
            torch.testing.assert_close(module.meet(x, said, NullTrace()).fused, alone)


def test_zero_gate_weights_take_the_mean() -> None:
    module, (x, y) = build("gmu"), seen_and_said()
    nn.init.zeros_(module.gate.weight)
    with torch.no_grad():
        z = module.meet(x, y, NullTrace()).fused
        torch.testing.assert_close(z, (torch.tanh(module.vision(x)) + torch.tanh(module.text(y))[..., None, None]) / 2)


def test_the_gate_looks_at_picture_and_phrase() -> None:
    module, (x, y), (other_x, other_y) = build("gmu"), seen_and_said(), seen_and_said(1)
    with torch.no_grad():
        gates = [module.meet(*both, NullTrace()).attention[0].tensor for both in ((x, y), (other_x, y), (x, other_y))]
    assert not torch.allclose(gates[0], gates[1])
    assert not torch.allclose(gates[0], gates[2])


def test_with_text_alone_every_place_hears_the_same() -> None:
    result = ask(build("gmu", gate="text"))
    fused = result.fused.tensor
    assert torch.equal(fused, fused[..., :1, :1].expand_as(fused))
    assert torch.equal(steps(result)["said"].expand_as(fused), fused)


def test_its_gate_is_shown_as_the_weight_of_vision() -> None:
    result = ask(build("gmu"), count=2)
    gate = result.attention["low"]
    assert (gate.axes, gate.kind, gate.of, gate.sums) == ("b c h w", "gate", "vision", "with_text")
    assert gate.tensor.shape == result.fused.tensor.shape
    assert bool(((gate.tensor > 0) & (gate.tensor < 1)).all())


def test_the_arithmetic_under_the_crosshair_comes_out() -> None:
    result = ask(build("gmu"), count=2)
    m, (x, y) = result.attention["low"].tensor, (v.tensor for v in result.aligned)
    torch.testing.assert_close(m * x + (1 - m) * y, result.fused.tensor)


def test_its_own_numbers_are_three_matrices() -> None:
    module = build("gmu")
    own = sum(p.numel() for part in (module.vision, module.text, module.gate) for p in part.parameters())
    assert own == WIDTH * (WIDTH + TEXT + (WIDTH + TEXT))
