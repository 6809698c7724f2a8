"""Systems: whole networks on a shipped backbone, picture -> boxes, words, a path, an answer. One file each.

Every module of this folder whose name does not start with an underscore is imported, in order of its name; one that
fails to import stops the program with its file's name. They stand in the same catalogue as the methods of `fusion`,
under the same kind of spec, with `takes` "image" or "image+text".
"""

import importlib
import pkgutil

from fusionviz.records import LevelInfo
from fusionviz.registry import FAMILIES, METHODS, FusionSpec
from fusionviz.seeds import seeded
from fusionviz.systems._base import System

for _found in sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")):
    try:
        importlib.import_module(f"{__name__}.{_found}")
    except Exception as broken:
        raise ImportError(f"system file fusionviz/systems/{_found}.py cannot be imported: {broken}") from broken

__all__ = ("System", "build", "names", "networks", "spec")


def names() -> tuple[str, ...]:
    """Return the systems' keys, by family, then year, then key."""
    whole = (key for key in METHODS if METHODS[key].spec.is_system)
    return tuple(sorted(whole, key=lambda k: (FAMILIES.index(spec(k).family), spec(k).year or 9999, k)))


def spec(key: str) -> FusionSpec:
    """Return what is known of a system; raises UnknownNameError with near matches and the list."""
    return METHODS[key].spec


def networks() -> tuple[str, ...]:
    """Return the names of all networks in the wild that a system can show."""
    wild = (spec(key) for key in names() if spec(key).family == "wild")
    return tuple(dict.fromkeys(net for known in wild for net in known.param("net").choices))


def build(key: str, levels: tuple[LevelInfo, ...], *, seed: int = 0, **params: object) -> System:
    """Build a system alone, in eval mode, its random weights drawn from `seed`.

    Args:
        key: a system.
        levels: all levels of the backbone it stands on, fine to coarse.
        seed: of its random weights.
        params: its knobs; the rest have the paper's values.

    Raises:
        LevelError: if the backbone lacks a level that it takes.
    """
    cls = METHODS[key]
    known = cls.spec.parse(params)
    with seeded(seed):
        module = cls(levels, seed=seed, **known)
    return module.eval()
