"""The trace: a graph of what was computed, its costs and its times, and nothing at all in training."""

import pytest
import torch
from torch import nn

from fusionviz.trace import CostTrace, NullTrace, Reusing, TimedTrace, Trace, before, costs


class Toy(nn.Module):
    """Two inputs, a convolution, a sum: a method in small."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, padding=1)

    def forward(self, x: torch.Tensor, y: torch.Tensor, trace: NullTrace) -> torch.Tensor:
        x, y = trace.input("low", x, formula="X", role="low"), trace.input("high", y, formula="Y", role="high")
        s = trace.step("sum", "add", torch.add, x, y, formula="X+Y")
        return trace.step("fused", "conv", self.conv, s, formula="W(X+Y)", role="fused")


def maps() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(1, 3, 6, 4, generator=generator) for _ in range(2))


def test_steps_know_what_they_are_made_of() -> None:
    trace, (x, y) = Trace(), maps()
    out = Toy()(x, y, trace)
    assert [(s.key, s.op, s.inputs, s.role) for s in trace.steps] == [
        ("low", "input", (), "low"),
        ("high", "input", (), "high"),
        ("sum", "add", ("low", "high"), ""),
        ("fused", "conv", ("sum",), "fused"),
    ]
    assert trace.steps[-1].tensor is out
    assert torch.equal(trace.steps[2].tensor, x + y)
    assert [s.parameters for s in trace.steps] == [0, 0, 0, 3 * 5 * 9 + 5]
    assert all(s.macs is None and s.ms is None for s in trace.steps)


def test_null_trace_computes_the_same_and_keeps_nothing() -> None:
    module, trace, (x, y) = Toy(), NullTrace(), maps()
    assert torch.equal(module(x, y, trace), module(x, y, Trace()))
    assert trace.steps == ()


def test_what_came_before_is_used_again() -> None:
    first, (x, y), toy = Trace(), maps(), Toy()
    toy(x, y, first)
    known = before(first.steps, first.steps[2].tensor)
    assert list(known) == ["sum"]
    assert set(before(first.steps, first.steps[3].tensor)) == {"sum", "fused"}
    toy.conv.weight.data.mul_(2)
    again = Reusing(known)
    toy(x, y, again)
    assert again.steps[2].tensor is first.steps[2].tensor
    assert not torch.equal(again.steps[3].tensor, first.steps[3].tensor)
    assert [(s.key, s.inputs, s.parameters) for s in again.steps] == [
        (s.key, s.inputs, s.parameters) for s in first.steps
    ]
    whole = Reusing(before(first.steps, first.steps[3].tensor))
    toy(x, y, whole)
    assert whole.steps[3].tensor is first.steps[3].tensor
    assert whole.steps[3].parameters == 3 * 5 * 9 + 5


def test_a_step_counts_the_module_it_is_told_to() -> None:
    trace, (x, _) = Trace(), maps()
    x = trace.input("low", x)
    alpha = nn.Parameter(torch.zeros(()))
    trace.step("scaled", "scale", lambda t: alpha * t, x, module=alpha)
    trace.step("plain", "scale", lambda t: 2 * t, x)
    trace.step("number", "weight", lambda: alpha * 1, module=alpha)
    assert [s.parameters for s in trace.steps] == [0, 1, 0, 1]
    assert trace.steps[-1].inputs == ()


def test_a_tensor_from_outside_is_refused() -> None:
    trace, (x, y) = Trace(), maps()
    x = trace.input("low", x)
    with pytest.raises(ValueError, match=r"step 'sum': inputs \[1\] were made outside the trace"):
        trace.step("sum", "add", torch.add, x, y)


def test_a_key_is_used_once() -> None:
    trace, (x, y) = Trace(), maps()
    trace.input("low", x)
    with pytest.raises(ValueError, match="'low' is recorded twice"):
        trace.input("low", y)


def test_costs_are_closed_forms_and_need_no_data() -> None:
    module = Toy()
    assert costs(module, ((1, 3, 6, 4), (1, 3, 6, 4))) == {"low": 0, "high": 0, "sum": 0, "fused": 3 * 9 * 5 * 24}
    assert costs(module, ((1, 3, 4096, 4096), (1, 3, 4096, 4096)))["fused"] == 3 * 9 * 5 * 4096 * 4096
    assert module.conv.weight.device.type == "cpu"


def test_costs_of_matrix_products_are_counted_too() -> None:
    trace = CostTrace()
    x = trace.input("x", torch.randn(2, 7))
    trace.step("score", "linear", nn.Linear(7, 3), x)
    assert trace.steps[-1].macs == 2 * 7 * 3


def test_every_step_but_the_inputs_is_timed() -> None:
    trace, (x, y) = TimedTrace(), maps()
    Toy()(x, y, trace)
    timed = trace.milliseconds()
    assert list(timed) == ["sum", "fused"]
    assert all(ms > 0 for ms in timed.values())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="reads GPU events; this machine has no CUDA device")
def test_every_step_is_timed_on_a_gpu() -> None:
    trace, (x, y) = TimedTrace(), maps()
    Toy().cuda()(x.cuda(), y.cuda(), trace)
    assert set(trace.milliseconds()) == {"sum", "fused"}
    assert all(ms > 0 for ms in trace.milliseconds().values())


def test_a_trace_works_without_gradients_and_with_them() -> None:
    module, (x, y) = Toy(), maps()
    with torch.inference_mode():
        module(x, y, trace := Trace())
    assert [s.key for s in trace.steps] == ["low", "high", "sum", "fused"]
    module(x, y, Trace()).sum().backward()
    assert module.conv.weight.grad is not None
