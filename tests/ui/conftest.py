"""The app freezes the garbage collector for good; a test process thaws it again at its end."""

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def _thaw() -> Iterator[None]:
    yield
    gc.unfreeze()
