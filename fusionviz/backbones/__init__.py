"""Backbones: picture -> feature pyramid and logits, in one forward pass, from any network of the catalogue.

    backbones.names()                       keys, by family
    backbones.info("resnet18").levels       what it gives, before any weight is loaded
    pyramid, logits = backbones.load("resnet18")(x)

One file per family of networks (`bundled`, which this project trains itself, and `torchvision`); a network is cut into
levels by looking at it (`_levels`, `_grid`), not by a table of names, and so are the places where it fuses inside found
(`_sites`): `backbones.info(key).sites`, and `backbones.load(key).at("skip:layer3.1")` gives the maps that meet there.
"""

import sys
import threading
from collections.abc import Mapping
from types import ModuleType

import torch
from torch import Tensor

from fusionviz.backbones import _cache, bundled, torchvision
from fusionviz.backbones._base import Backbone, BackboneInfo, Recipe, describe, open_backbone
from fusionviz.backbones._cache import cache_home
from fusionviz.errors import UnknownNameError
from fusionviz.registry import nearest

__all__ = ("Backbone", "BackboneInfo", "cache_home", "family", "info", "load", "names", "title")

_known: dict[str, BackboneInfo] = {}
_looking = threading.Lock()


def names() -> tuple[str, ...]:
    """Return the keys of all backbones: the project's own, then torchvision's by family, small to large."""
    return (*bundled.names(), *torchvision.names())


def title(key: str) -> str:
    """Return a backbone's name as its paper writes it, without looking at the network: for lists of all."""
    return _recipe(key).title


def family(key: str) -> str:
    """Return a backbone's family, without looking at the network: for lists of all."""
    return _recipe(key).family


def info(key: str) -> BackboneInfo:
    """Return what is known of a backbone; builds no weights and takes no memory for them.

    The network is looked at once, for a tenth of a second to a second; what was found is kept between runs.

    Raises:
        UnknownNameError: with near matches and the list.
    """
    recipe = _recipe(key)
    if key not in _known:
        with _looking:
            if key not in _known:
                path = _cache.folder(torchvision.VERSION) / f"{key}.json"
                found = _cache.read(path)
                if found is None:
                    found = describe(recipe)
                    _cache.write(path, found)
                _known[key] = found
    return _known[key]


def load(
    key: str,
    *,
    state: Mapping[str, Tensor] | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Backbone:
    """Build a backbone, ready to run.

    Args:
        key: one of `names()`.
        state: its weights as a state dict, which is copied; the last layer may have any number of classes.
            None draws random weights.
        seed: of the random weights.
        device: where it runs; "meta" runs without numbers, for shapes and costs.

    Raises:
        UnknownNameError: with near matches and the list.
        WeightsError: if `state` does not fit; the message says which weights.
        LevelError: if the network is listed without levels.
    """
    return open_backbone(_recipe(key), info(key), state=state, seed=seed, device=device)


def _recipe(key: str) -> Recipe:
    if key not in names():
        raise UnknownNameError("unknown.backbone", name=key, near=nearest(key, list(names())), known=", ".join(names()))
    return (bundled if key in bundled.names() else torchvision).recipe(key)


class _Room(ModuleType):
    """This room, callable: the package has it as an attribute, and `fv.backbones()` is the front door to its names."""

    def __call__(self) -> tuple[str, ...]:
        return names()


sys.modules[__name__].__class__ = _Room
