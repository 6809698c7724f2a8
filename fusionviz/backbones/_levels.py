"""Cutting a network into levels: one mechanism for all of them.

A network is traced into a graph of operations (torch.fx) and run once without numbers (the "meta" device), while the
place of every tensor in the picture is worked out (`_grid`). Where the stride grows, the level is the map that enters
the largest block around that growth: a residual block that halves the map is one block, so the level is what the
block before it hands over, not some inner map. The last level is the last map before the head. A network with one
stride and many depths (ViT) has the outputs of its repeated blocks as levels.

Sizes alone would not do: Inception's unpadded convolutions and AlexNet give sizes that divide nothing, and the
position tables and windows of MaxViT and Swin are square tensors that are no maps.
"""

from __future__ import annotations

import math
import operator
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx, nn

from fusionviz.backbones import _grid
from fusionviz.backbones._grid import Place, View
from fusionviz.records import LevelInfo

WINDOWS = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
KEEPS_ORDER = ("reshape", "view", "flatten", "unflatten", "unsqueeze", "squeeze")
GATHERS_PLACES = ("mean", "sum", "amax", "adaptive_avg_pool2d", "adaptive_max_pool2d")

_tracing = threading.Lock()


@dataclass(frozen=True)
class Look:
    """What was seen of a network in one run without numbers.

    Attributes:
        walk: its graph, and where every tensor of it lies.
        head: path of the layer that gives the logits, whose rows are the classes.
        classes: how many logits there are.
    """

    walk: Walk
    head: str
    classes: int


@dataclass(frozen=True)
class Cut:
    """A network cut into levels.

    Attributes:
        graph: returns ((level, ...), logits); every level is [b c h w].
        levels: what they are, fine to coarse.
        head, classes: as in Look.
    """

    graph: fx.Graph
    levels: tuple[LevelInfo, ...]
    head: str
    classes: int


def look(network: nn.Module, size_px: int) -> Look:
    """Trace a network that is built on the meta device, in eval mode, and run it at a square input of this side.

    Raises:
        Exception: whatever torch.fx or the network raises where it cannot be traced.
    """
    walk = Walk(fx.GraphModule(network, _Tracer().run(network)))
    with torch.no_grad():
        logits = walk.run(torch.empty(2, 3, size_px, size_px, device="meta"))
    head = [node.target for node in walk.module.graph.nodes if walk.has_parameters(node)][-1]
    return Look(walk, head, logits.shape[1])


def cut(network: nn.Module, size_px: int) -> Cut:
    """Look at a network and cut it into levels; see `look`."""
    return into_levels(look(network, size_px))


def into_levels(seen: Look) -> Cut:
    """Cut a network into levels."""
    walk, taps = seen.walk, _taps(seen.walk, seen.head.partition(".")[0])
    levels = tuple(walk.info(name, node, stage) for stage, (name, node) in enumerate(taps, 1))
    return Cut(giving(walk, [node for _, node in taps]), levels, seen.head, seen.classes)


def giving(walk: Walk, taps: list[fx.Node]) -> fx.Graph:
    """Return a copy of the graph that returns ((map, ...), logits): the tensors of these nodes, each [b c h w]."""
    graph, own = fx.Graph(), {}
    logits = graph.graph_copy(walk.module.graph, own)
    end = graph.output(())
    outputs = tuple(_show(graph, own[node], walk.views[node], copy=walk.is_overwritten(node)) for node in taps)
    picture = next(node for node in walk.module.graph.nodes if node.op == "placeholder")
    if walk.is_overwritten(picture):
        with graph.inserting_after(own[picture]):
            kept = graph.call_method("clone", (own[picture],))
        own[picture].replace_all_uses_with(kept, delete_user_cb=lambda user: user is not kept)
    end.args = ((outputs, logits),)
    # A line such as `x.mul_(2)` has a result that nobody uses, and does something all the same.
    act = {own[n] for n in walk.module.graph.nodes if n in own and (n in walk.writers or n.is_impure())}
    graph.eliminate_dead_code(lambda node: node in act or node is end)
    graph.lint()
    return graph


class _Tracer(fx.Tracer):
    """torch.fx's tracer for a process with other threads.

    While it traces, torch.fx replaces the call of every module in the process; a forward pass of another session at
    that moment must run as ever, and two traces must not undo each other's replacement.
    """

    # A buffer is looked up in every run: what is computed from it must not become a number of the traced copy.
    proxy_buffer_attributes = True

    def run(self, network: nn.Module) -> fx.Graph:
        with _tracing:
            self.thread = threading.get_ident()
            return self.trace(network)

    def call_module(self, m: nn.Module, forward: Callable, args: tuple, kwargs: dict) -> object:
        if threading.get_ident() != self.thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: object, parameter_proxy_cache: dict) -> object:
        if threading.get_ident() != self.thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)


class Walk(fx.Interpreter):
    """Runs a graph and works out the place of every tensor on the way.

    Attributes:
        places: of every node whose tensor lies on a grid.
        views: of every node whose tensor can be seen as a map [b c h w].
        writers: nodes that write into a tensor that was there before; torch counts the writes of every memory.
    """

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.places: dict[fx.Node, Place | tuple] = {}
        self.views: dict[fx.Node, View] = {}
        self.writers: set[fx.Node] = set()
        self._made: dict[fx.Node, tuple[Tensor, int]] = {}

    def run_node(self, node: fx.Node) -> object:
        args, kwargs = self.fetch_args_kwargs_from_env(node)
        given = [self.env[operand] for operand in _operands(node)]
        writes = [(tensor, tensor._version) for tensor in given if isinstance(tensor, Tensor)]
        value = super().run_node(node)
        if any(tensor._version != count for tensor, count in writes):
            self.writers.add(node)
        place = self._place(node, args, kwargs, value)
        if place is not None:
            self.places[node] = place
        if isinstance(value, Tensor):
            self._made[node] = (value, value._version)
            view = _grid.as_map(place, tuple(value.shape)) if isinstance(place, Place) else None
            if view is not None:
                self.views[node] = view
        return value

    def is_overwritten(self, node: fx.Node) -> bool:
        """Say whether a later operation writes into the node's memory."""
        value, writes = self._made[node]
        return value._version != writes

    def info(self, name: str, node: fx.Node, stage: int) -> LevelInfo:
        """Return what a node's tensor is as a map."""
        place = self.places[node]
        return LevelInfo(name, self.views[node].channels, place.stride, place.offset, stage, node.name)

    def shape(self, node: fx.Node) -> tuple[int, ...]:
        """Return the shape of a node's tensor, of two pictures."""
        return tuple(self._made[node][0].shape)

    def has_parameters(self, node: fx.Node) -> bool:
        return node.op == "call_module" and any(True for _ in self.module.get_submodule(node.target).parameters())

    def _place(self, node: fx.Node, args: tuple, kwargs: dict, value: object) -> Place | tuple | None:
        if node.op == "placeholder":
            return _grid.of_picture(tuple(value.shape))
        operands = _operands(node)
        places = [self.places.get(a) for a in operands]
        if all(place is None for place in places):
            return None
        if node.op == "call_module":
            layer = self.module.get_submodule(node.target)
            place, learned = _behind_layer(layer, places, value), self.has_parameters(node)
        else:
            name = node.target if node.op == "call_method" else getattr(node.target, "__name__", "")
            place = _behind_function(name.strip("_"), args, kwargs, places, value)
            # A parameter used by itself, as in `layer_norm(x, self.weight)`, makes features too.
            learned = any(a.op == "get_attr" for a in operands)
        return replace(place, learned=True) if learned and isinstance(place, Place) else place


def _operands(node: fx.Node) -> list[fx.Node]:
    found: list[fx.Node] = []
    fx.map_arg((node.args, node.kwargs), found.append)
    return found


def _behind_layer(layer: nn.Module, places: list, value: object) -> Place | tuple | None:
    """Return the place behind a module of torch.nn; None where its result lies on no grid."""
    first = places[0]
    if not isinstance(first, Place):
        return None
    if isinstance(layer, nn.MultiheadAttention):
        return (first, None)  # the answer stands where the query stands
    shape = tuple(value.shape)
    if isinstance(layer, WINDOWS):
        stride = layer.kernel_size if layer.stride is None else layer.stride
        return _behind_window(first, layer.kernel_size, stride, layer.padding, getattr(layer, "dilation", 1), shape)
    if isinstance(layer, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d):
        return None
    if isinstance(layer, nn.Linear):
        return _grid.resize_other(first, -1, shape[-1])
    if isinstance(layer, nn.Flatten | nn.Unflatten):
        return _grid.reshape(first, shape)
    return _element_by_element(places, shape)


def _behind_function(name: str, args: tuple, kwargs: dict, places: list, value: object) -> Place | tuple | None:
    """Return the place behind a function or method; None where its result lies on no grid."""
    first, shape = places[0], tuple(value.shape) if isinstance(value, Tensor) else ()
    if name == "getitem" and isinstance(first, tuple):
        return first[args[1]]
    if name in ("chunk", "split", "tensor_split") and isinstance(first, Place):
        axis = args[2] if len(args) > 2 else kwargs.get("dim", 0)
        return tuple(_grid.resize_other(first, axis, part.shape[axis]) for part in value)
    if not shape or name in GATHERS_PLACES:
        return None
    if name == "einsum":
        return _grid.einsum(args[0], places)
    if name in ("cat", "concat", "concatenate"):
        axis = args[1] if len(args) > 1 else kwargs.get("dim", 0)
        return _grid.concatenate([(p, t.shape[axis]) for p, t in zip(places, args[0], strict=True)], axis)
    if not isinstance(first, Place):
        return _element_by_element(places, shape)
    if name == "getitem":
        return _grid.take(first, args[1] if isinstance(args[1], tuple) else (args[1],), shape)
    if name in ("permute", "transpose", "swapaxes", "swapdims"):
        return _grid.permute(first, _order(name, args, kwargs, len(shape)))
    if name in KEEPS_ORDER:
        return _grid.reshape(first, shape)
    if name in ("max_pool2d", "avg_pool2d"):
        names = ("input", "kernel_size", "stride", "padding", "dilation" if name == "max_pool2d" else "ceil_mode")
        given = dict(zip(names, args, strict=False)) | kwargs
        kernel = given["kernel_size"]
        stride = given.get("stride") or kernel
        return _behind_window(first, kernel, stride, given.get("padding", 0), given.get("dilation", 1), shape)
    if name == "linear":
        return _grid.resize_other(first, -1, shape[-1])
    if name == "patch_merging_pad":
        # torchvision's Swin gathers 2x2 neighbours inside one function that torch.fx does not look into.
        return _grid.merge_neighbours(first, shape)
    return _element_by_element(places, shape)


def _behind_window(
    place: Place, kernel: object, stride: object, padding: object, dilation: object, shape: tuple[int, ...]
) -> Place | None:
    kernel, stride, dilation = (n if isinstance(n, tuple) else (n, n) for n in (kernel, stride, dilation))
    if padding == "same":
        padding = tuple(d * (k - 1) // 2 for d, k in zip(dilation, kernel, strict=True))
    elif padding == "valid":
        padding = (0, 0)
    padding = padding if isinstance(padding, tuple) else (padding, padding)
    place = _grid.window(place, kernel, stride, padding, dilation, shape[-2:])
    return place and _grid.resize_other(place, -3, shape[-3])


def _element_by_element(places: list, shape: tuple[int, ...]) -> Place | None:
    """Return the place of a result that has the operands' own places: activations, norms, sums, gates."""
    place = _grid.combine([p for p in places if isinstance(p, Place)], len(shape))
    if place is None:
        return None
    sizes = (math.prod(run.size for run in axis) for axis in place.axes)
    return place if all(size in (1, n) for size, n in zip(sizes, shape, strict=True)) else None


def _order(name: str, args: tuple, kwargs: dict, rank: int) -> tuple[int, ...]:
    if name == "permute":
        given = args[1:] or (kwargs["dims"],)
        return tuple(given if isinstance(given[0], int) else given[0])
    a, b = args[1:] if len(args) == 3 else (v for k, v in kwargs.items() if k != "input")
    order = list(range(rank))
    order[a], order[b] = order[b], order[a]
    return tuple(order)


# --- where a level ends --------------------------------------------------------------------------
def _taps(walk: Walk, head: str) -> list[tuple[str, fx.Node]]:
    """Return the levels' names and nodes, fine to coarse."""
    nodes = [n for n in walk.module.graph.nodes if isinstance(walk.places.get(n), Place) and head not in blocks(n)]
    features = [n for n in nodes if walk.places[n].learned and n in walk.views]
    strides = [walk.places[n].stride for n in features]
    if len(set(strides)) == 1:
        return [(f"d{i}", node) for i, node in enumerate(_depths(features), 1)]
    found, reached = [], walk.places[nodes[0]].stride
    for node in nodes:
        stride = walk.places[node].stride
        if stride > reached:
            found.append(_entering(walk, nodes, node, reached))
            reached = stride
    found.append(features[-1])
    return [(f"s{walk.places[node].stride[0]:g}", node) for node in found if node in features]


def _entering(walk: Walk, nodes: list[fx.Node], growth: fx.Node, before: tuple[float, float]) -> fx.Node:
    """Return the map that enters the largest block around `growth` in which the stride grows only this once."""
    after = walk.places[growth].stride
    entering = next(a for a in growth.all_input_nodes if a in walk.places)
    for block in reversed(blocks(growth)):
        inside = {n for n in nodes if block in blocks(n)}
        sources = {a for n in inside for a in n.all_input_nodes if a not in inside and a in walk.places}
        if len(sources) != 1 or any(walk.places[n].stride not in (before, after) for n in inside):
            break
        entering = sources.pop()
    return entering


def _depths(features: list[fx.Node]) -> list[fx.Node]:
    """Return the outputs of the blocks of the longest chain: the container with the most blocks that end in a map."""
    chains: dict[str, dict[str, fx.Node]] = {}
    for node in features:
        for block in blocks(node):
            chains.setdefault(block.rpartition(".")[0], {})[block] = node
    return list(max(chains.values(), key=len).values())


def blocks(node: fx.Node) -> list[str]:
    """Return the paths of the modules around an operation, outermost first."""
    return [path for path, _ in node.meta.get("nn_module_stack", {}).values()]


def _show(graph: fx.Graph, node: fx.Node, view: View, *, copy: bool) -> fx.Node:
    """Add what turns the node's tensor into a map [b c h w], all of it views, and return it.

    A later operation that works in place would change the level after the fact; then the level is a copy taken at once.
    """
    with graph.inserting_after(node):
        shown = graph.call_method("clone", (node,)) if copy else node
    last = graph.output_node()
    with graph.inserting_before(last):
        if view.lead:
            shown = graph.call_function(operator.getitem, (shown, (slice(None), slice(view.lead, None))))  # [b q c]
        if view.grid:
            shown = graph.call_method("transpose", (shown, 1, 2))  # [b c q]
            shown = graph.call_method("unflatten", (shown, 2, view.grid))  # [b c h w]
        elif view.order != (0, 1, 2, 3):
            shown = graph.call_method("permute", (shown, *view.order))  # [b c h w]
    return shown
