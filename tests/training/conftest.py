"""A toy problem on which a head can learn in a blink, and one thread, so that sums come in one order."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from fusionviz.records import LevelInfo


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True)
class Toy:
    """Maps of two levels and labels that need both: the low level knows where, the high level knows what."""

    levels: tuple[LevelInfo, ...]
    maps: dict[str, Tensor]
    labels: Tensor


def make_toy(count: int = 32, seed: int = 0) -> Toy:
    generator = torch.Generator().manual_seed(seed)
    levels = (
        LevelInfo("s4", 6, (4.0, 4.0), (0.5, 0.5), 1),
        LevelInfo("s16", 8, (16.0, 16.0), (0.5, 0.5), 2),
    )
    kind = torch.randint(1, 3, (count,), generator=generator)
    labels = torch.zeros(count, 32, 32, dtype=torch.uint8)
    for i in range(count):
        y, x = torch.randint(0, 4, (2,), generator=generator).tolist()
        labels[i, 4 * y : 4 * y + 16, 4 * x : 4 * x + 16] = int(kind[i])
    low = torch.randn(count, 6, 8, 8, generator=generator)
    low[:, 0] += 4 * (labels[:, ::4, ::4] > 0)
    high = torch.randn(count, 8, 2, 2, generator=generator)
    high[:, 0] += 4 * (2 * kind.view(-1, 1, 1) - 3)
    return Toy(levels, {"s4": low.half(), "s16": high.half()}, labels)


@pytest.fixture
def toy() -> Toy:
    return make_toy()


@pytest.fixture
def fresh_toy() -> Toy:
    return make_toy(seed=1)
