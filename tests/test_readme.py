"""README's table of methods is the catalogue."""

import _readme
import pytest
from _readme import promised

from fusionviz import fusion, measured, systems


def test_every_method_that_is_promised_is_there() -> None:
    assert len(promised()) > 30
    assert promised() <= set(fusion.names())


@pytest.mark.slow
def test_every_method_is_promised() -> None:
    """Before a release: an experiment has become a method when README names it and it has its heads."""
    assert set(fusion.names()) == promised()


def test_every_system_is_told_of() -> None:
    assert _readme.systems() == set(systems.names())


def test_the_figures_of_systems_are_those_of_their_cards() -> None:
    """After a training: python -m fusionviz.measured writes them."""
    readme = _readme.README.read_text("utf-8")
    assert measured.in_readme(readme, measured.readme_tables(measured.shipped())) == readme
