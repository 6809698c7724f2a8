"""What a backbone is, and how a recipe becomes one: build, cut into levels, fill with weights."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

from fusionviz.axes import expect, shape_text
from fusionviz.backbones import _levels, _sites
from fusionviz.errors import LevelError, ShapeError, WeightsError
from fusionviz.records import FeatureMap, FeaturePyramid, LevelInfo, Preprocessing, Provenance, Site
from fusionviz.registry import nearest
from fusionviz.seeds import seeded

MOST_CUTS = 6
"""How many sites of one open network stay cut: a cut holds no numbers, but a graph of the whole network."""
_cutting = threading.Lock()

SMALLEST_PX = 32
"""A side below which no network is asked: its coarsest map would be smaller than one cell."""


@dataclass(frozen=True)
class BackboneInfo:
    """What is known of a backbone before it is built.

    Attributes:
        key: "resnet18".
        family: "resnet"; groups a picker.
        title: "ResNet-18".
        levels: fine to coarse; empty where the network cannot be cut, and `exception` says why.
        preprocessing: as its published weights want it.
        weights: name of its published weights, "IMAGENET1K_V2".
        parameters: how many numbers its forward pass uses; training-only heads are not among them.
        classes: how many logits it gives.
        exception: "" or a key of the locale that says what is special about its levels.
        multilabel: each logit is a class by itself (sigmoid), because a picture holds several; else softmax.
        sites: where the network fuses inside, in the order in which it passes them.
    """

    key: str
    family: str
    title: str
    levels: tuple[LevelInfo, ...]
    preprocessing: Preprocessing
    weights: str
    parameters: int
    classes: int
    exception: str = ""
    multilabel: bool = False
    sites: tuple[Site, ...] = ()

    def site(self, name: str) -> Site:
        """Return an inner site by its name; raises LevelError with near matches."""
        for found in self.sites:
            if found.name == name:
                return found
        names = [s.name for s in self.sites]
        raise LevelError("site.unknown", site=name, backbone=self.title, near=nearest(name, names), count=len(names))

    @property
    def default_low(self) -> str:
        """Name of the level nearest to stride 4; where strides repeat, a quarter of the way up; "" without levels."""
        return self.levels[self._defaults()[0]].name if self.levels else ""

    @property
    def default_high(self) -> str:
        """Name of the level nearest to stride 16; where strides repeat, three quarters of the way up."""
        return self.levels[self._defaults()[1]].name if self.levels else ""

    def _defaults(self) -> tuple[int, int]:
        strides, last = [level.stride[0] for level in self.levels], len(self.levels) - 1
        if len(set(strides)) < len(strides):
            low, high = (math.ceil(len(strides) * share) - 1 for share in (0.25, 0.75))
        else:
            # Strides are compared in octaves: 8 is as far from 16 as 32 is, and the finer of two equals is taken.
            low, high = (min(range(last + 1), key=lambda i: abs(math.log2(strides[i] / want))) for want in (4, 16))
        low = min(low, max(last - 1, 0))
        return low, max(high, min(low + 1, last))


@dataclass(frozen=True)
class Backbone:
    """A network that gives its levels, or the maps that meet at a site inside it, and its logits in one forward pass.

    It keeps nothing of a run, so one copy serves every thread at once.

    Attributes:
        module: a traced graph in eval mode that returns ((level, ...), logits); nothing in it is trained.
        provenance: where its numbers come from.
        site: whose maps it gives, see `at`; None: its levels.
    """

    key: str
    info: BackboneInfo
    module: fx.GraphModule
    provenance: Provenance
    recipe: Recipe = field(repr=False)
    site: Site | None = None
    _cuts: dict[str, fx.GraphModule] = field(default_factory=dict, repr=False, compare=False)

    @property
    def levels(self) -> tuple[LevelInfo, ...]:
        """What it gives: its levels, or the maps that meet at its site."""
        return self.info.levels if self.site is None else self.site.operands

    def at(self, name: str | None) -> Backbone:
        """Return this very network, giving the maps that meet at one of its sites; its numbers are shared.

        Args:
            name: of one of `info.sites`; None is this network as it is.

        Raises:
            LevelError: if the network has no such site; the message has near matches.
        """
        if name is None:
            return self
        site = self.info.site(name)
        with _cutting:
            module = self._cuts.get(name)
            if module is None:
                while len(self._cuts) >= MOST_CUTS:
                    self._cuts.pop(next(iter(self._cuts)))
                module = self._cuts[name] = _cut_at(self.recipe, site, self.module)
        return replace(self, module=module, site=site, _cuts={})

    def __call__(self, x: Tensor) -> tuple[FeaturePyramid, Tensor]:
        """Return the pyramid of a batch and its logits.

        Args:
            x: pictures [b 3 h w], scaled and normalised as `info.preprocessing` says.

        Returns:
            The levels, or the maps of the site, each [b c h w], fine to coarse; the logits [b classes].

        Raises:
            ShapeError: if the network does not take this size; the message says which sizes it takes.
        """
        expect(x, "b 3 h w", of="picture")
        self._check_size(*x.shape[-2:])
        # Not `self.module(x)`: on an error that one prints its generated source to the terminal.
        tensors, logits = self.module.forward(x)
        levels = tuple(
            FeatureMap(level.name, tensor, level.stride, level.offset, level.stage)
            for level, tensor in zip(self.levels, tensors, strict=True)
        )
        return FeaturePyramid(levels, self.info.title, self.provenance), logits

    def _check_size(self, h: int, w: int) -> None:
        wants, received = self.info.preprocessing, shape_text((h, w))
        if wants.fixed and (h, w) != (wants.crop_px, wants.crop_px):
            size = shape_text((wants.crop_px, wants.crop_px))
            raise ShapeError("backbone.size_fixed", backbone=self.info.title, size=size, received=received)
        if min(h, w) < wants.minimum_px or h % wants.multiple or w % wants.multiple:
            raise ShapeError(
                "backbone.size",
                backbone=self.info.title,
                minimum=wants.minimum_px,
                multiple=wants.multiple,
                received=received,
            )


# --- recipes -------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Recipe:
    """How a family's file describes a network; everything else is found out by looking at the network.

    Attributes:
        preprocessing: without `fixed`, `multiple` and `minimum_px`, which are found by trying.
        build: (classes, names) -> network with random weights; `names` are those of the weights it will be given
            afterwards, or () if none, so that it can leave out what these do not have.
        rename: name of a published weight -> its name today.
        multilabel: see BackboneInfo.
    """

    key: str
    family: str
    title: str
    weights: str
    classes: int
    preprocessing: Preprocessing
    build: Callable[[int, Collection[str]], nn.Module]
    rename: Callable[[str], str] = str
    multilabel: bool = False


class _Unfilled(TorchFunctionMode):
    """Build networks without drawing their weights, and with `meta` without memory for them.

    Layers ask torch for empty memory and fill it in place; here the filling is left out. Only this thread is touched.
    """

    def __init__(self, *, meta: bool) -> None:
        super().__init__()
        self.meta = meta

    def __torch_function__(self, func: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None) -> object:
        kwargs = kwargs or {}
        if func is torch.empty and self.meta:
            kwargs = {**kwargs, "device": "meta"}
        name = getattr(func, "__name__", "")
        if args and isinstance(args[0], nn.Parameter) and name.endswith("_") and not name.endswith("__"):
            return args[0]
        return func(*args, **kwargs)


def _on_meta(recipe: Recipe, classes: int = 0, names: Collection[str] = ()) -> nn.Module:
    with _Unfilled(meta=True):
        network = recipe.build(classes or recipe.classes, names)
    return network.to("meta").eval()


@lru_cache(maxsize=2)  # what is found is kept elsewhere; a look holds every tensor of a large network's graph
@torch.inference_mode(False)
def _look(recipe: Recipe) -> _levels.Look:
    return _levels.look(_on_meta(recipe), recipe.preprocessing.crop_px)


@cache
@torch.inference_mode(False)
def _cut(recipe: Recipe) -> _levels.Cut:
    return _levels.into_levels(_look(recipe))


@torch.inference_mode(False)
def describe(recipe: Recipe) -> BackboneInfo:
    """Find out levels, sizes and parameters of a network without its weights or its memory.

    A network that cannot be traced, or has fewer than two levels, is described too, with the reason.
    """
    sites: tuple[Site, ...] = ()
    try:
        cut = _cut(recipe)
        sites = _sites.find(_look(recipe))
    except Exception:
        # Whatever a network of a later release does that torch.fx cannot follow: it is listed, and says why.
        count = sum(p.numel() for p in _on_meta(recipe).parameters())
        wants, levels, classes, exception = recipe.preprocessing, (), recipe.classes, "backbones.exception.untraceable"
    else:
        module = fx.GraphModule(_on_meta(recipe), copy.deepcopy(cut.graph))
        count = sum(p.numel() for p in module.parameters())
        wants, levels, classes = _sizes(module, recipe.preprocessing), cut.levels, cut.classes
        exception = "" if len(levels) > 1 else "backbones.exception.one_level"
        if len({level.stride for level in levels}) < len(levels):
            exception = "backbones.exception.depths"
    return BackboneInfo(
        recipe.key,
        recipe.family,
        recipe.title,
        levels,
        wants,
        recipe.weights,
        count,
        classes,
        exception,
        recipe.multilabel,
        sites,
    )


def _sizes(module: nn.Module, wants: Preprocessing) -> Preprocessing:
    """Find by trying, without numbers, which sizes a network takes."""

    def takes(h: int, w: int) -> bool:
        try:
            with torch.no_grad():
                module.forward(torch.empty(1, 3, h, w, device="meta"))
        except (RuntimeError, ValueError, AssertionError, IndexError):
            return False
        return True

    size = wants.crop_px
    multiple = next((m for m in (1, 2, 4, 8, 16, 32) if takes(size + m, size - m)), 0)
    if not multiple:
        return replace(wants, fixed=True, multiple=1, minimum_px=size)
    # The smallest of the multiples from SMALLEST_PX on: `low` is too small, `high` works.
    low, high = math.ceil(SMALLEST_PX / multiple) - 1, max(size // multiple, math.ceil(SMALLEST_PX / multiple))
    while high - low > 1:
        # Nearly every network takes the first one, so that is asked before halving.
        middle = low + 1 if low * multiple < SMALLEST_PX else (low + high) // 2
        low, high = (low, middle) if takes(middle * multiple, middle * multiple) else (middle, high)
    return replace(wants, multiple=multiple, minimum_px=high * multiple)


@torch.inference_mode(False)
def open_backbone(
    recipe: Recipe,
    info: BackboneInfo,
    *,
    state: Mapping[str, Tensor] | None,
    seed: int,
    device: torch.device | str,
) -> Backbone:
    """Build a network, fill it, and make it give its levels; see `backbones.load`."""
    if not info.levels:
        raise LevelError("backbone.no_levels", backbone=info.title)
    cut, provenance = _cut(recipe), Provenance("random", f"seed {seed}")
    if torch.device(device).type == "meta":
        network = _on_meta(recipe)
    elif state is None:
        with seeded(seed):
            network = recipe.build(recipe.classes, ())
    else:
        state = {recipe.rename(name): tensor for name, tensor in state.items()}
        head = state.get(f"{cut.head}.weight")
        classes = head.shape[0] if isinstance(head, Tensor) and head.ndim else recipe.classes
        with _Unfilled(meta=False):
            network = recipe.build(classes, state.keys())
        _fill(network, state, info.title)
        info, provenance = replace(info, classes=classes), Provenance("pretrained", info.weights)
    module = fx.GraphModule(network.eval(), copy.deepcopy(cut.graph)).eval().requires_grad_(False)
    return Backbone(info.key, info, module.to(device), provenance, recipe)


@torch.inference_mode(False)
def _cut_at(recipe: Recipe, site: Site, network: fx.GraphModule) -> fx.GraphModule:
    """Return the network with the site's maps as its outputs: another graph over the same layers."""
    walk = _look(recipe).walk
    by_name = {node.name: node for node in walk.module.graph.nodes}
    return fx.GraphModule(network, _levels.giving(walk, [by_name[v.node] for v in site.operands])).eval()


def _fill(network: nn.Module, state: dict[str, Tensor], title: str) -> None:
    wanted = network.state_dict()
    # Batch norms of old releases did not count their batches; torch fills the counter in.
    missing = [name for name in wanted if name not in state and not name.endswith("num_batches_tracked")]
    unknown = [name for name, tensor in state.items() if name not in wanted or not isinstance(tensor, Tensor)]
    shapes = [
        f"{name} {shape_text(tuple(state[name].shape)) or 1} ≠ {shape_text(tuple(tensor.shape)) or 1}"
        for name, tensor in wanted.items()
        if name in state and name not in unknown and state[name].shape != tensor.shape
    ]
    if missing or unknown or shapes:
        raise WeightsError(
            "backbone.state",
            backbone=title,
            missing=_some(missing),
            unknown=_some(unknown),
            shapes=_some(shapes),
        )
    # The version of the whole network travels beside a state dict and is lost in other formats; MNASNet asks for it.
    stamped = _Stamped(state)
    stamped._metadata = {"": {"version": network._version}}
    network.load_state_dict(stamped, strict=True)


class _Stamped(dict):
    """A state dict with versions."""

    _metadata: dict


def _some(names: list[str], most: int = 3) -> str:
    more = f", … ({len(names)})" if len(names) > most else ""
    return ", ".join(names[:most]) + more if names else "–"
