"""Random weights that are the same on every run: one seed, one lock around torch's global generator."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fusionviz.selection import check_seed

_lock = threading.RLock()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run a block that builds modules under `seed`, and leave torch's global generator as it was.

    Raises:
        ParameterError: if the seed is none that a link can carry.

    torch's initialisers draw from one generator of the whole process; the lock keeps two sessions that
    build at once from drawing each other's numbers.
    """
    seed = check_seed(seed)
    with _lock, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also reseed every GPU
        yield
