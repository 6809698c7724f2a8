"""fusionviz: see how vision networks fuse low- and high-level features.

    import fusionviz as fv
    study = fv.explore("sample:coffee", backbone="resnet18", method="aff")
    study.figure()

Importing this package is light: torch, streamlit and matplotlib load on first use of a name.
"""

import importlib
import os

# OpenMP threads that spin while they wait starve everything else on a busy laptop (a video call, a
# recorder): the same forward pass took 25 times as long. The setting is read once, when torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"

_API = ("build", "explore", "images", "methods", "open")
__all__ = (*_API, "FusionvizError", "__version__", "backbones")


def __getattr__(name: str) -> object:
    if name in _API:
        return getattr(importlib.import_module("fusionviz.api"), name)
    if name == "backbones":  # a room that can be called: `fv.backbones()` gives its names
        return importlib.import_module("fusionviz.backbones")
    if name == "FusionvizError":
        return importlib.import_module("fusionviz.errors").FusionvizError
    raise AttributeError(f"module 'fusionviz' has no attribute {name!r}; it offers {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
