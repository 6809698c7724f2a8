"""One shared copy of each model, at most a few, opened once however many ask at once."""

import gc
import os
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from fusionviz import models, weights
from fusionviz.errors import WeightsError


def test_a_model_is_opened_once_for_all_who_ask_at_once() -> None:
    store, made, got = models.Store(), [], []

    def make() -> nn.Module:
        threading.Event().wait(0.05)
        made.append(1)
        return nn.Linear(2, 2)

    threads = [threading.Thread(target=lambda: got.append(store.get(("a",), make))) for _ in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(made) == 1
    assert all(g is got[0] for g in got)


def test_the_least_used_goes_first() -> None:
    store = models.Store(most=2)
    a, b = store.get(("a",), lambda: nn.Linear(1, 1)), store.get(("b",), lambda: nn.Linear(1, 1))
    assert store.get(("a",), nn.Identity) is a  # used again, so b is older
    store.get(("c",), lambda: nn.Linear(1, 1))
    assert store.get(("a",), nn.Identity) is a
    assert store.get(("b",), lambda: nn.Linear(1, 1)) is not b
    assert len(store) == 2


def test_bytes_are_bounded_but_the_newest_always_stays() -> None:
    store = models.Store(most=9, most_bytes=100)
    store.get(("small",), lambda: nn.Linear(2, 2))
    big = store.get(("big",), lambda: nn.Linear(64, 64))
    assert len(store) == 1
    assert store.get(("big",), nn.Identity) is big


def test_an_evicted_model_is_freed_even_after_a_freeze() -> None:
    store = models.Store(most=1, freeze=True)
    try:
        # A traced module holds cycles, as every backbone does: only the collector can free it.
        gone = weakref.ref(store.get(("a",), lambda: torch.fx.symbolic_trace(nn.Linear(4, 4))))
        assert gc.get_freeze_count() > 0
        store.get(("b",), lambda: nn.Linear(1, 1))
        assert gone() is None
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()


def test_closing_everything_frees_it_and_keeps_the_rest_frozen() -> None:
    store = models.Store(freeze=True)
    try:
        gone = weakref.ref(store.get(("a",), lambda: torch.fx.symbolic_trace(nn.Linear(4, 4))))
        store.clear()
        assert gone() is None
        assert len(store) == 0
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()


def test_many_threads_opening_and_evicting_leave_nothing_behind() -> None:
    store, alive = models.Store(most=2, freeze=True), weakref.WeakSet()

    def make(n: int) -> nn.Module:
        # A cycle, as traced modules have; torch.fx itself traces in one thread only, which backbones see to.
        module = nn.Linear(n, 4)
        module.cycle = [module]
        alive.add(module)
        return module

    def fits(first: int) -> list[bool]:
        return [store.get((n,), lambda n=n: make(n))(torch.ones(1, n)).shape == (1, 4)
                for n in (1 + (first + i) % 5 for i in range(12))]  # fmt: skip

    try:
        with ThreadPoolExecutor(8) as pool:
            assert all(all(row) for row in pool.map(fits, range(8)))
        store.get((99,), lambda: make(99))  # thaws what went while another thread still held it
        assert len(store) == 2
        assert len(alive) == 2
        assert not store._locks
    finally:
        gc.unfreeze()


def test_one_collection_at_a_time(monkeypatch) -> None:
    done = []

    def step(name: str) -> None:
        done.append(name)
        threading.Event().wait(0.01)

    monkeypatch.setattr(models.gc, "unfreeze", lambda: step("thaw"))
    monkeypatch.setattr(models.gc, "collect", lambda: step("collect"))
    monkeypatch.setattr(models.gc, "freeze", lambda: step("freeze"))
    store = models.Store(most=1, freeze=True)
    store.get((0,), nn.Identity)
    done.clear()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: store.get((n,), nn.Identity), range(1, 5)))
    # A freeze between another's thaw and its collection would keep what that one has to free.
    assert done == ["thaw", "collect", "freeze"] * 4


def test_a_failed_opening_can_be_tried_again() -> None:
    store = models.Store()
    with pytest.raises(ZeroDivisionError):
        store.get(("a",), lambda: 1 / 0)
    assert not store._locks  # names that cannot be opened must not pile up
    assert isinstance(store.get(("a",), nn.Identity), nn.Identity)


def test_without_weights_the_network_is_random_and_the_same_for_all() -> None:
    a, notices = models.backbone("squeezenet1_0")
    b, _ = models.backbone("squeezenet1_0", "random")
    assert a is b
    assert notices == ()
    assert a.provenance.kind == "random"


def test_a_users_own_file_is_opened_and_named(tmp_path) -> None:
    from torchvision.models import squeezenet1_1

    torch.manual_seed(3)
    state = squeezenet1_1().state_dict()
    file = tmp_path / "mine.pth"
    torch.save(state, file)
    opened, _ = models.backbone("squeezenet1_1", f"file:{file}")
    assert (opened.provenance.kind, opened.provenance.detail) == ("pretrained", "mine.pth")
    key = "features.0.weight"
    assert torch.equal(dict(opened.module.named_parameters())[key], state[key])
    with pytest.raises(WeightsError):
        models.backbone("squeezenet1_0", f"file:{tmp_path / 'absent.pth'}")


def test_a_file_that_was_written_again_is_opened_again(tmp_path) -> None:
    from torchvision.models import squeezenet1_1

    file, key = tmp_path / "mine.pth", "features.0.weight"
    for value in (1.0, 2.0):
        state = squeezenet1_1().state_dict()
        state[key].fill_(value)
        torch.save(state, file)
        os.utime(file, (value, value))
        opened, _ = models.backbone("squeezenet1_1", f"file:{file}")
        assert (dict(opened.module.named_parameters())[key] == value).all()


def test_a_damaged_download_is_reported_and_the_network_runs_on(monkeypatch, tmp_path) -> None:
    damaged = tmp_path / "squeezenet1_0-b66bff10.pth"
    damaged.write_bytes(b"not weights")
    monkeypatch.setattr(weights, "cached", lambda key: damaged)
    opened, notices = models.backbone("squeezenet1_0")
    assert opened.provenance.kind == "random"
    assert isinstance(notices[0], WeightsError)


def test_another_seed_is_another_network() -> None:
    a, _ = models.backbone("squeezenet1_0", "random", seed=1)
    b, _ = models.backbone("squeezenet1_0", "random", seed=2)
    key = "features.0.weight"
    assert not torch.equal(dict(a.module.named_parameters())[key], dict(b.module.named_parameters())[key])
