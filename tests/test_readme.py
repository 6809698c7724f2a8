"""README's table of methods is the catalogue."""

import _readme
import pytest
from _readme import promised

from fusionviz import fusion, systems


def test_every_method_that_is_promised_is_there() -> None:
    assert len(promised()) > 30
    assert promised() <= set(fusion.names())


@pytest.mark.slow
def test_every_method_is_promised() -> None:
    """Before a release: an experiment has become a method when README names it and it has its heads."""
    assert set(fusion.names()) == promised()


def test_every_system_is_told_of() -> None:
    assert _readme.systems() == set(systems.names())
