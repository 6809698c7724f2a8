"""Recording what a method does, step by step, so that `forward` reads as the equation it computes.

    s = trace.step("sum", "add", torch.add, x, y, formula="X+Y")
    w = trace.step("weight", "sigmoid", torch.sigmoid, s, formula=r"\\sigma(X+Y)", role="weight")

`Trace` keeps every tensor; `NullTrace` (training) only calls the function.
"""

import copy
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fusionviz.records import TraceStep


class NullTrace:
    """Computes and keeps nothing."""

    def input(self, key: str, tensor: Tensor, *, formula: str = "", role: str = "") -> Tensor:
        return tensor

    def step(
        self,
        key: str,
        op: str,
        fn: Callable[..., Tensor],
        *inputs: Tensor,
        formula: str = "",
        role: str = "",
        module: nn.Module | Tensor | None = None,
    ) -> Tensor:
        return fn(*inputs)

    @property
    def steps(self) -> tuple[TraceStep, ...]:
        return ()


class Replacing(NullTrace):
    """Keeps nothing, and puts other tensors where some steps' results would be: what would come out if a weight were
    another one. Everything before such a step runs as ever, everything after it with the other tensor.

    Args:
        given: by step key, of the step's own shape.
    """

    def __init__(self, given: Mapping[str, Tensor]) -> None:
        self.given = dict(given)

    def step(self, key, op, fn, *inputs, formula="", role="", module=None):
        return self.given[key] if key in self.given else fn(*inputs)


class Trace(NullTrace):
    """Keeps every step with its inputs: the graph that the app draws."""

    def __init__(self) -> None:
        self._steps: dict[str, TraceStep] = {}
        self._key_of: dict[int, str] = {}

    @property
    def steps(self) -> tuple[TraceStep, ...]:
        return tuple(self._steps.values())

    def input(self, key: str, tensor: Tensor, *, formula: str = "", role: str = "") -> Tensor:
        """Record a map that came from outside."""
        return self._keep(TraceStep(key, "input", (), tensor, formula, role))

    def step(self, key, op, fn, *inputs, formula="", role="", module=None):
        unknown = [i for i, t in enumerate(inputs) if id(t) not in self._key_of]
        if unknown:
            raise ValueError(f"step '{key}': inputs {unknown} were made outside the trace; make them with trace.step")
        keys = tuple(self._key_of[id(t)] for t in inputs)
        out, macs, ms = self._run(fn, inputs)
        learned = module if module is not None else fn
        return self._keep(TraceStep(key, op, keys, out, formula, role, _parameters(learned), macs, ms))

    def _run(self, fn: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> tuple[Tensor, int | None, float | None]:
        return fn(*inputs), None, None

    def _keep(self, step: TraceStep) -> Tensor:
        if step.key in self._steps:
            raise ValueError(f"step '{step.key}' is recorded twice; keys are unique within a trace")
        self._steps[step.key] = step
        # Safe as long as the step keeps its tensor alive: an id is reused only after its object is gone.
        self._key_of[id(step.tensor)] = step.key
        return step.tensor


class Reusing(Trace):
    """Keeps every step, and takes the results of some from an earlier run of the same inputs: many runs that differ
    only behind those steps compute and hold them once.

    Args:
        known: results by step key, see `before`.
    """

    def __init__(self, known: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.known = dict(known)

    def step(self, key, op, fn, *inputs, formula="", role="", module=None):
        learned = fn if module is None else module
        run = (lambda *_: self.known[key]) if key in self.known else fn
        return super().step(key, op, run, *inputs, formula=formula, role=role, module=learned)


def before(steps: tuple[TraceStep, ...], *tensors: Tensor) -> dict[str, Tensor]:
    """Return the results of the steps that made some tensors, theirs and all that led to them, by key."""
    by_key, found = {s.key: s for s in steps}, {}
    waiting = [s.key for s in steps if any(s.tensor is t for t in tensors)]
    while waiting:
        step = by_key[waiting.pop()]
        waiting += step.inputs
        if step.op != "input":
            found[step.key] = step.tensor
    return found


class CostTrace(Trace):
    """Counts multiply-accumulates of each step (convolutions and matrix products; half of torch's FLOPs)."""

    def _run(self, fn, inputs):
        with FlopCounterMode(display=False) as counter:
            out = fn(*inputs)
        return out, counter.get_total_flops() // 2, None


class TimedTrace(Trace):
    """Milliseconds of each step, on demand: events on a GPU, read after the run, no synchronise in between."""

    def __init__(self) -> None:
        super().__init__()
        self._events: dict[str, tuple[torch.cuda.Event, torch.cuda.Event]] = {}
        self._last: tuple | None = None

    def _run(self, fn, inputs):
        if any(t.is_cuda for t in inputs):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            out = fn(*inputs)
            end.record()
            self._last = (begin, end)
            return out, None, None
        begin_s = time.perf_counter()
        out = fn(*inputs)
        if out.device.type == "mps":
            torch.mps.synchronize()
        return out, None, (time.perf_counter() - begin_s) * 1e3

    def _keep(self, step: TraceStep) -> Tensor:
        if self._last is not None:
            self._events[step.key], self._last = self._last, None
        return super()._keep(step)

    def milliseconds(self) -> dict[str, float]:
        """Return ms by step key; waits for the GPU once."""
        if self._events:
            torch.cuda.synchronize()
        timed = {step.key: step.ms for step in self.steps if step.ms is not None}
        return timed | {key: begin.elapsed_time(end) for key, (begin, end) in self._events.items()}


def _parameters(learned: object) -> int:
    if isinstance(learned, Tensor):  # a parameter, or the part of one that this step uses
        return learned.numel()
    if isinstance(learned, nn.Module):
        return sum(p.numel() for p in learned.parameters())
    return 0


def costs(module: nn.Module, shapes: tuple[tuple[int, ...], ...]) -> dict[str, int]:
    """Return the multiply-accumulates of every step of a fusion module, by step key.

    Runs on torch's meta device: shapes only, no arithmetic, no memory.
    """
    twin = copy.deepcopy(module).to("meta")
    trace = CostTrace()
    with torch.no_grad():
        twin(*(torch.empty(shape, device="meta") for shape in shapes), trace=trace)
    return {step.key: step.macs or 0 for step in trace.steps}
