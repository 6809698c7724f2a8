"""Where the arithmetic runs: choosing a device, queueing work on it, and timing it honestly.

One worker thread per device takes requests in the order they came: every session waits its turn, none
starves, and torch makes one team of OpenMP threads instead of one for each browser.
"""

import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

import torch

from fusionviz.errors import DeviceError

T = TypeVar("T")
PRECISION = "fp32"


def available() -> tuple[str, ...]:
    """Return the devices of this machine, best first: "cuda:0" ..., "mps", "cpu"."""
    found = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    if torch.backends.mps.is_available():
        found.append("mps")
    return (*found, "cpu")


def choose(name: str | None = None) -> torch.device:
    """Return a device by name, or the best one for None or "auto": CUDA, else MPS, else CPU.

    Raises:
        DeviceError: with the devices that this machine has.
    """
    there = available()
    if name in (None, "", "auto"):
        return torch.device(there[0])
    wanted = "cuda:0" if name == "cuda" else name
    if wanted not in there:
        raise DeviceError("device.missing", name=name, known=", ".join(there))
    return torch.device(wanted)


@cache
def title(device: str) -> str:
    """Return what people call a device: the GPU's product name, or the processor's."""
    kind = torch.device(device)
    if kind.type == "cuda":
        return torch.cuda.get_device_name(kind)
    if kind.type == "mps":
        return f"Apple GPU ({platform.machine()})"
    return f"CPU × {os.cpu_count() or 1}"


@cache
def _worker(device: str) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix=f"fusionviz-{device}", initializer=_leave_a_core)


def _leave_a_core() -> None:
    # One core stays free for the page itself, the recorder and the video call.
    torch.set_num_threads(max(1, (os.cpu_count() or 2) - 1))


_inside = threading.local()


def submit(device: torch.device, work: Callable[[], T]) -> T:
    """Run `work` on the device's own thread, after what is queued there, and return its result."""
    if getattr(_inside, "device", None) == str(device):
        return work()

    def marked() -> T:
        _inside.device = str(device)
        return work()

    return _worker(str(device)).submit(marked).result()


class Clock:
    """Milliseconds by name. On a GPU, events around each part; read once, after everything was queued.

    with clock.part("backbone"): ...
    clock.read()  -> {"backbone": 3.1}
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._parts: dict[str, object] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        if self._device.type == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            yield
            end.record()
            self._parts[name] = (begin, end)
            return
        self._wait()  # or what was queued before would be counted here
        begin_s = time.perf_counter()
        yield
        self._wait()
        self._parts[name] = (time.perf_counter() - begin_s) * 1e3

    def _wait(self) -> None:
        if self._device.type == "mps":
            torch.mps.synchronize()

    def read(self) -> dict[str, float]:
        """Return milliseconds by part; on a GPU this waits until the work is done."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return {n: p[0].elapsed_time(p[1]) if isinstance(p, tuple) else p for n, p in self._parts.items()}


def reset_peak(device: torch.device) -> None:
    """Start measuring peak memory; nothing to do off CUDA."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int | None:
    """Return the peak memory that torch held on a CUDA device since `reset_peak`, else None."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
