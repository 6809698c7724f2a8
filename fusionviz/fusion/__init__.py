"""Fusion methods: maps -> FusionResult. One file per method, found by itself.

Every module of this folder whose name does not start with an underscore is imported, in order of its
name; one that fails to import stops the program with its file's name.
"""

import importlib
import pkgutil

from fusionviz.errors import ParameterError
from fusionviz.fusion._base import Context, FusionModule
from fusionviz.registry import FAMILIES, METHODS, FusionSpec
from fusionviz.seeds import seeded

for _found in sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")):
    try:
        importlib.import_module(f"{__name__}.{_found}")
    except Exception as broken:
        raise ImportError(f"fusion method file fusionviz/fusion/{_found}.py cannot be imported: {broken}") from broken

__all__ = ("Context", "FusionModule", "build", "names", "spec")


def names() -> tuple[str, ...]:
    """Return the methods' keys, by family, then year, then key: the order a course takes them in."""
    blocks = (key for key in METHODS if not spec(key).is_system)
    return tuple(sorted(blocks, key=lambda k: (FAMILIES.index(spec(k).family), spec(k).year or 9999, k)))


def spec(key: str) -> FusionSpec:
    """Return what is known of a method; raises UnknownNameError with near matches and the list."""
    return METHODS[key].spec


def build(
    key: str,
    channels: tuple[int, ...],
    strides: tuple[float, ...] | None = None,
    *,
    align: str | None = None,
    seed: int = 0,
    **params: object,
) -> FusionModule:
    """Build a method alone, in eval mode, its random weights drawn from `seed`.

    Args:
        key: a method.
        channels: of each level it will be given, fine to coarse.
        strides: of each level; None means octaves (4, 8, 16, ...).
        align: "none" | "size" | "size+channels"; None takes the method's own.
        seed: of its random weights.
        params: its knobs; the rest have the paper's values.

    Raises:
        ParameterError: for a whole system, which takes levels with names.
    """
    cls = METHODS[key]
    if cls.spec.is_system:
        raise ParameterError("fusion.system", method=key)
    known = cls.spec.parse(params)
    with seeded(seed):
        module = cls(tuple(channels), strides, align=align, seed=seed, **known)
    return module.eval()
