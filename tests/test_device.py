"""Choosing a device, queueing on it, timing on it."""

import os
import threading

import pytest
import torch

from fusionviz import device
from fusionviz.errors import DeviceError, FusionvizError


def test_the_best_device_is_chosen() -> None:
    assert str(device.choose()) == device.available()[0]
    assert str(device.choose("auto")) == device.available()[0]
    assert device.choose("cpu").type == "cpu"


def test_a_missing_device_is_answered_with_those_there_are() -> None:
    with pytest.raises(DeviceError, match="cpu"):
        device.choose("cuda:77")
    with pytest.raises(DeviceError):
        device.choose("abacus")


def test_cuda_means_the_first_of_its_kind(monkeypatch) -> None:
    monkeypatch.setattr(device, "available", lambda: ("cuda:0", "cuda:1", "cpu"))
    assert device.choose("cuda") == torch.device("cuda:0")
    assert device.choose("cuda:1") == torch.device("cuda:1")
    assert device.choose() == torch.device("cuda:0")


def test_one_core_stays_free_for_the_page() -> None:
    team = device.submit(torch.device("cpu"), torch.get_num_threads)
    assert team == max(1, os.cpu_count() - 1)


def test_work_runs_on_one_thread_in_the_order_it_came() -> None:
    cpu = torch.device("cpu")
    order: list[int] = []
    names = set()
    gate = threading.Event()

    def work(i: int) -> None:
        if i == 0:
            gate.wait(5)
        names.add(threading.current_thread().name)
        order.append(i)

    threads = [threading.Thread(target=device.submit, args=(cpu, lambda i=i: work(i))) for i in range(8)]
    threads[0].start()
    while not device._worker("cpu")._threads:  # the first is in the worker's hands before the rest queue up
        pass
    for t in threads[1:]:
        t.start()
    gate.set()
    for t in threads:
        t.join()
    assert sorted(order) == list(range(8))
    assert order[0] == 0
    assert len(names) == 1


def test_work_may_submit_more_work_without_waiting_for_itself() -> None:
    cpu = torch.device("cpu")
    assert device.submit(cpu, lambda: device.submit(cpu, lambda: 7)) == 7


def test_an_error_reaches_the_one_who_asked() -> None:
    def fail() -> None:
        raise FusionvizError("device.missing", name="x", known="y")

    with pytest.raises(FusionvizError, match="x"):
        device.submit(torch.device("cpu"), fail)


def test_the_clock_names_its_parts() -> None:
    clock = device.Clock(torch.device("cpu"))
    with clock.part("a"):
        pass
    with clock.part("b"):
        threading.Event().wait(0.02)
    read = clock.read()
    assert set(read) == {"a", "b"}
    assert read["b"] > read["a"] >= 0
    assert read["b"] > 10  # milliseconds: it slept through 20 of them


def test_there_is_no_peak_off_a_gpu() -> None:
    assert device.peak_bytes(torch.device("cpu")) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_gpu_clock_and_peak() -> None:
    where = device.choose("cuda:0")
    device.reset_peak(where)
    clock = device.Clock(where)
    with clock.part("work"):
        torch.randn(1024, 1024, device=where) @ torch.randn(1024, 1024, device=where)
    assert clock.read()["work"] > 0
    assert device.peak_bytes(where) >= 3 * 4 * 1024 * 1024
