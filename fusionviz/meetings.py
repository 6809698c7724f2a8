"""Where levels meet: the graph of a method over a pyramid, read off its trace.

A node is a step that adds, weighs or stacks maps of several levels; an edge says which earlier node, or which level of
the backbone, one of its terms comes from, and how much that term counts. Nothing is named here by method: the letter
and the level of a node stand on the left of its formula, as in "T_{2}=...".
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fusionviz.records import TraceStep

_MEETS = ("add", "weighted_sum", "concat")
_PASSED = ("max_levels", "scores")
"""Several maps enter these steps too, but they end a method or only look at its maps."""
_NAMED = re.compile(r"([A-Za-z])_\{(\d+)\}=")


@dataclass(frozen=True)
class Edge:
    """One term of a node.

    Attributes:
        start: position of the node that it comes from.
        weight: what it is multiplied by, averaged over places; without weights, the share of its norm in the sum of
            the norms of all terms.
        share: the same as a part of 1: how thick it is drawn.
    """

    start: int
    weight: float
    share: float


@dataclass(frozen=True)
class Node:
    """A level of the backbone, or a map in which levels meet.

    Attributes:
        letter, level: "T", 2 of a node T_2; levels count from 1 at the finest.
        column: 0 for the backbone; nodes of one letter and one layer share theirs.
        edges: where its terms come from, in the order of its step.
        weight: the weights of its terms, if it has them.
        layer: counts from 1 where a method goes through the levels several times.
        way: "down" (terms from its level and coarser ones), "up" (finer ones), or "" (both).
        fused: it makes the fused map.
    """

    letter: str
    level: int
    column: int
    edges: tuple[Edge, ...] = ()
    weight: Tensor | None = None
    layer: int = 1
    way: str = ""
    fused: bool = False


def graph(trace: tuple[TraceStep, ...]) -> tuple[Node, ...]:
    """Return the nodes of a method, earlier ones first, or () where its trace is no such graph."""
    steps = {s.key: s for s in trace}
    nodes: list[Node] = []
    found: dict[str, int] = {}  # the node that a step belongs to
    columns: dict[tuple[str, int], int] = {}
    for step in trace:
        if step.op == "input":
            found[step.key] = len(nodes)
            nodes.append(Node("C", len(nodes) + 1, 0))
            continue
        if step.role == "weight" or step.key in found:
            continue
        terms = [k for k in step.inputs if steps[k].role != "weight"]
        if len(terms) < 2:
            found |= {step.key: found[terms[0]]} if terms and terms[0] in found else {}
            continue
        chain = _chain(step, trace)
        names = [m for s in chain if (m := _NAMED.match(s.formula))]
        if step.op not in (*_MEETS, *_PASSED):
            return ()
        if step.op in _PASSED or not names:
            continue
        if not all(k in found for k in terms):
            return ()
        letter, level = names[-1][1], int(names[-1][2])
        layer = 1 + sum((n.letter, n.level) == (letter, level) for n in nodes)
        column = columns.setdefault((letter, layer), len(columns) + 1)
        weight = next((steps[k].tensor for k in step.inputs if steps[k].role == "weight"), None)
        starts = [found[k] for k in terms]
        edges = _edges(starts, [steps[k].tensor for k in terms], weight)
        way = _way(level, [nodes[s].level for s in starts])
        found |= {s.key: len(nodes) for s in chain}
        fused = any(s.role == "fused" for s in chain)
        nodes.append(Node(letter, level, column, edges, weight, layer, way, fused))
    return tuple(nodes) if columns else ()


def _chain(step: TraceStep, trace: tuple[TraceStep, ...]) -> list[TraceStep]:
    """The step and what is made of it alone, as far as only one step reads it."""
    chain = [step]
    while True:
        readers = [s for s in trace if chain[-1].key in s.inputs]
        if len(readers) != 1 or len(readers[0].inputs) > 1:
            return chain
        chain.append(readers[0])


def _edges(starts: list[int], terms: list[Tensor], weight: Tensor | None) -> tuple[Edge, ...]:
    if weight is None:
        sizes = torch.stack([torch.linalg.vector_norm(t[0].detach().float()) for t in terms])
        counts = sizes / sizes.sum().clamp_min(torch.finfo(sizes.dtype).tiny)
    else:
        counts = weight[0].detach().float().flatten(1).mean(1)
    shares = counts.abs() / counts.abs().sum().clamp_min(torch.finfo(counts.dtype).tiny)
    return tuple(Edge(s, w, p) for s, w, p in zip(starts, counts.tolist(), shares.tolist(), strict=True))


def _way(level: int, sources: list[int]) -> str:
    if all(s >= level for s in sources):
        return "down"
    return "up" if all(s <= level for s in sources) else ""


def made_by(nodes: tuple[Node, ...], weight: Tensor) -> Node | None:
    """Return the node whose terms a weight weighs, or None."""
    return next((n for n in nodes if n.weight is not None and n.weight is weight), None)


def columns(nodes: tuple[Node, ...]) -> Mapping[int, str]:
    """Return the way of each column, "" where its nodes differ; column 0 is the backbone."""
    ways: dict[int, set[str]] = {}
    for node in nodes:
        ways.setdefault(node.column, set()).add(node.way)
    return {column: found.pop() if len(found) == 1 else "" for column, found in ways.items()}
