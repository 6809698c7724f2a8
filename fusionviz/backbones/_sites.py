"""Where a network fuses inside: found by looking at its traced graph, like its levels.

Three patterns, each of maps that lie on one grid and meet in one operation:

skip      a sum of two maps that come from one map, one of them untouched or through a single layer, the other through
          more: the identity and the residual of a residual block, whatever the network calls it
branches  a stack of maps that were made of one map side by side, inside one module: Inception's layers, a Fire module
dense     a stack of maps that were made one out of the other: what a DenseNet's layer is given
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from torch import fx, nn

from fusionviz.backbones._levels import Look, Walk, blocks
from fusionviz.records import LevelInfo, Site

ADDS = ("add", "iadd")
STACKS = ("cat", "concat", "concatenate")
POOLS = ("max_pool2d", "avg_pool2d")


def find(seen: Look) -> tuple[Site, ...]:
    """Return the sites of a network, in the order in which it passes them."""
    graph = _Ancestry(seen.walk)
    found = [*_skips(graph), *_stacks(graph)]
    found.sort(key=lambda site: graph.position[site[1]])
    of_block = Counter(name for name, _, _ in found)
    count: Counter[str] = Counter()
    sites = []
    for name, node, operands in found:
        count[name] += 1
        name = f"{name}:{count[name]}" if of_block[name] > 1 else name
        sites.append(Site(name, operands, node.name))
    return tuple(sites)


_Found = tuple[str, fx.Node, tuple[LevelInfo, ...]]


def _skips(graph: _Ancestry) -> Iterator[_Found]:
    walk = graph.walk
    for node in walk.module.graph.nodes:
        maps = [a for a in node.args if isinstance(a, fx.Node) and a in walk.views]
        if _name(node) not in ADDS or len(maps) != 2 or walk.shape(maps[0]) != walk.shape(maps[1]):
            continue
        start, block = graph.common(maps), _block(node)
        if start is None or not block or not all(graph.inside(block, start, m) for m in maps):
            continue
        (short, identity), (long, residual) = sorted(
            ((graph.layers(start, m), m) for m in maps), key=lambda way: way[0]
        )
        if short <= 1 and short < long:
            named = enumerate((("identity", identity), ("residual", residual)), 1)
            yield f"skip:{block}", node, tuple(walk.info(name, m, stage) for stage, (name, m) in named)


def _stacks(graph: _Ancestry) -> Iterator[_Found]:
    walk, inner = graph.walk, set()
    for node in reversed(walk.module.graph.nodes):
        maps = list(node.args[0]) if _name(node) in STACKS and isinstance(node.args[0], list | tuple) else []
        known = all(m in walk.views and walk.places[m].learned for m in maps) and node in walk.views
        if len(set(maps)) < 2 or not known or node in inner:
            continue
        if sum(walk.views[m].channels for m in maps) != walk.views[node].channels:
            continue  # stacked along rows, columns or tokens
        block, nested = _block(node), any(graph.leads(a, b) for a in maps for b in maps if a is not b)
        if nested:
            yield f"dense:{block}", node, tuple(walk.info(f"x{i}", m, i + 1) for i, m in enumerate(maps))
            continue
        start = graph.common(maps)
        if start is None or not block or not all(graph.inside(block, start, m) for m in maps):
            continue
        inner |= {m for m in maps if _name(m) in STACKS}  # a branch that forks once more is one branch
        ways = [graph.way(start, m) for m in maps]
        infos = (walk.info(f"b{i}", m, i) for i, m in enumerate(maps, 1))
        yield f"branches:{block}", node, tuple(replace(v, way=w) for v, w in zip(infos, ways, strict=True))


class _Ancestry:
    """What leads to what in a graph. Each node has a bit; the bits of all that leads to a node are one number."""

    def __init__(self, walk: Walk) -> None:
        self.walk = walk
        self.nodes = list(walk.module.graph.nodes)
        self.position = {node: i for i, node in enumerate(self.nodes)}
        self.before: dict[fx.Node, int] = {}
        for i, node in enumerate(self.nodes):
            bits = 1 << i if node in walk.places else 0  # a size or a parameter says nothing of where a map comes from
            for operand in node.all_input_nodes:
                bits |= self.before[operand]
            self.before[node] = bits

    def leads(self, a: fx.Node, b: fx.Node) -> bool:
        """Say whether a map is made of another one."""
        return bool(self.before[b] >> self.position[a] & 1)

    def common(self, maps: list[fx.Node]) -> fx.Node | None:
        """Return the last map of which all of these are made, or which is one of them."""
        bits = self.before[maps[0]]
        for m in maps[1:]:
            bits &= self.before[m]
        return self.nodes[bits.bit_length() - 1] if bits else None

    def between(self, start: fx.Node, end: fx.Node) -> list[fx.Node]:
        """Return what lies on the ways from one map to another, the end included, the start not."""
        ways = self.nodes[self.position[start] + 1 : self.position[end] + 1]
        return [n for n in ways if n in self.walk.places and self.leads(start, n) and self.leads(n, end)]

    def inside(self, block: str, start: fx.Node, end: fx.Node) -> bool:
        """Say whether every step on the way is a module's own."""
        return all(block in blocks(n) for n in self.between(start, end))

    def layers(self, start: fx.Node, end: fx.Node) -> int:
        """Return how many layers stand on the longest way: what has a matrix or kernels, not a normalisation."""
        deep = {start: 0}
        for node in self.between(start, end):
            deep[node] = max(deep[n] for n in node.all_input_nodes if n in deep) + self._is_layer(node)
        return deep[end]

    def way(self, start: fx.Node, end: fx.Node) -> str:
        """Return how a map was made, see LevelInfo: the cells that one of its cells hears, or by pooling."""
        hears, step, pooled = {start: (1, 1)}, {start: (1, 1)}, False
        for node in self.between(start, end):
            known = [n for n in node.all_input_nodes if n in hears]
            sizes, steps = ([max(at[n][side] for n in known) for side in (0, 1)] for at in (hears, step))
            kernel, stride, pools = self._window(node)
            pooled |= pools
            hears[node] = tuple(s + (k - 1) * t for s, k, t in zip(sizes, kernel, steps, strict=True))
            step[node] = tuple(t * by for t, by in zip(steps, stride, strict=True))
        if pooled:
            return "pool"
        return "{}x{}".format(*hears[end]) if self.layers(start, end) else "same"

    def _window(self, node: fx.Node) -> tuple[tuple[int, int], tuple[int, int], bool]:
        """Return kernel, dilation counted in, and stride of an operation, and whether it pools."""
        layer = self.walk.module.get_submodule(node.target) if node.op == "call_module" else None
        pools = isinstance(layer, nn.MaxPool2d | nn.AvgPool2d) or _name(node) in POOLS
        if not pools and not isinstance(layer, nn.Conv2d):
            return (1, 1), (1, 1), False
        if layer is None:
            given = dict(zip(("input", "kernel_size", "stride"), node.args, strict=False)) | dict(node.kwargs)
            kernel, stride, dilation = given["kernel_size"], given.get("stride") or given["kernel_size"], 1
        else:
            kernel, stride, dilation = layer.kernel_size, layer.stride, getattr(layer, "dilation", 1)
        kernel, stride, dilation = (n if isinstance(n, tuple) else (n, n) for n in (kernel, stride, dilation))
        return tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)), stride, pools

    def _is_layer(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            return any(p.ndim > 1 for p in self.walk.module.get_submodule(node.target).parameters())
        parameters = [n for n in node.all_input_nodes if n.op == "get_attr"]
        return any(len(self.walk.shape(n)) > 1 for n in parameters)


def _name(node: fx.Node) -> str:
    """Return what a function or a method is called, whichever of them it is."""
    if node.op not in ("call_function", "call_method"):
        return ""
    name = node.target if node.op == "call_method" else getattr(node.target, "__name__", "")
    return name.strip("_")


def _block(node: fx.Node) -> str:
    around = blocks(node)
    return around[-1] if around else ""
