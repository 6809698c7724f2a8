"""Where the boxes of a method's flow stand: a layered drawing of its trace, left to right.

Sugiyama's steps (1981): columns by longest path, rows by barycentre, then heights. A line that passes a column
gets a lane of its own there, as thin as a line, and only bends between columns: so it can cut no box.
Pure Python: the same trace gives the same drawing, on every machine.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

ALIGNED = ("low", "high")
"""Roles whose chains are preparation: `compact` draws such a chain as one box."""

_SWEEPS = 12
_LANE_PX = 4.0
"""Height that a passing line takes; the gap to its neighbours comes on top."""


@dataclass(frozen=True)
class Node:
    """One step of a trace.

    Attributes:
        key: unique.
        inputs: keys of earlier nodes.
        role: "low" | "high" | "weight" | "fused" | "": low stands above high, fused at the far right.
        title: for people.
        members: keys of the steps it stands for, itself alone unless `compact` or `gather` merged it.
    """

    key: str
    inputs: tuple[str, ...] = ()
    role: str = ""
    title: str = ""
    members: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.members:
            object.__setattr__(self, "members", (self.key,))


@dataclass(frozen=True)
class FlowLayout:
    """A drawing in pixels: `boxes` are (x, y, w, h) by key, `edges` (from, to, SVG path of cubic curves)."""

    width: float
    height: float
    boxes: dict[str, tuple[float, float, float, float]]
    edges: list[tuple[str, str, str]]


def compact(nodes: Iterable[Node]) -> list[Node]:
    """Merge chains of alignment steps (1×1, BN, resize) into one box each.

    A chain is made of steps of one role, low or high, each with one input and each read by the next alone. The
    merged node has the key of its last step, so whoever reads it finds it, and all titles: "1×1, BN, resize".
    """
    nodes = list(nodes)
    readers: dict[str, int] = {}
    for node in nodes:
        for key in set(node.inputs):
            readers[key] = readers.get(key, 0) + 1
    found: dict[str, Node] = {}
    for node in nodes:
        before = found.get(node.inputs[0]) if len(set(node.inputs)) == 1 else None
        chained = (
            before is not None
            and before.inputs  # a level itself keeps its own box
            and len(set(before.inputs)) == 1
            and node.role == before.role
            and node.role in ALIGNED
            and readers[before.key] == 1
        )
        if chained:
            del found[before.key]
            titles = ", ".join(t for t in (before.title, node.title) if t)
            node = replace(node, inputs=before.inputs, title=titles, members=before.members + node.members)
        found[node.key] = node
    return list(found.values())


def gather(nodes: Iterable[Node], most: int = 5) -> list[Node]:
    """Merge inputs without a role that are read by the same nodes into one box where there are more than `most`.

    A block that stacks twenty maps would else be twenty boxes too small to read. The merged node has the key of its
    last member and the title of each.
    """
    nodes = list(nodes)
    readers: dict[str, tuple[str, ...]] = {n.key: tuple(m.key for m in nodes if n.key in m.inputs) for n in nodes}
    alike: dict[tuple[str, ...], list[Node]] = {}
    for node in nodes:
        if not node.inputs and not node.role:
            alike.setdefault(readers[node.key], []).append(node)
    one: dict[str, Node] = {}
    for group in alike.values():
        if len(group) > most:
            merged = replace(group[-1], members=tuple(k for n in group for k in n.members))
            one |= dict.fromkeys((n.key for n in group), merged)
    found: dict[str, Node] = {}
    for node in nodes:
        node = one.get(node.key, node)
        inputs = tuple(dict.fromkeys(one[k].key if k in one else k for k in node.inputs))
        found.setdefault(node.key, replace(node, inputs=inputs))
    return list(found.values())


def layout(
    nodes: Iterable[Node],
    sizes: Mapping[str, tuple[float, float]],
    *,
    gap: tuple[float, float] = (28.0, 14.0),
    margin: float = 4.0,
) -> FlowLayout:
    """Place the boxes of a flow and draw the lines between them.

    Args:
        nodes: inputs before the nodes that read them.
        sizes: (width, height) of each box in pixels, by key.
        gap: least (horizontal, vertical) distance of boxes; columns move apart where lines climb steeply.
        margin: free space around the drawing.

    Raises:
        ValueError: if a node reads a key that no earlier node has, or a key comes twice.
    """
    nodes = list(nodes)
    _check(nodes)
    if not nodes:
        return FlowLayout(2 * margin, 2 * margin, {}, [])
    grid = _Grid(nodes, sizes, gap[1])
    grid.order_rows()
    grid.place_rows()
    return grid.drawn(gap[0], margin)


def _check(nodes: list[Node]) -> None:
    seen: set[str] = set()
    for node in nodes:
        missing = [key for key in node.inputs if key not in seen]
        if missing:
            raise ValueError(f"node '{node.key}' reads {missing}, which no earlier node has; give inputs first")
        if node.key in seen:
            raise ValueError(f"node '{node.key}' comes twice; keys are unique")
        seen.add(node.key)


Spot = tuple[str, int]
"""A box (key, its column), or the place where a line from box `key` passes a column."""


class _Grid:
    """Columns of spots, top to bottom: boxes, and lanes where lines pass."""

    def __init__(self, nodes: list[Node], sizes: Mapping[str, tuple[float, float]], gap: float) -> None:
        self.nodes = {n.key: n for n in nodes}
        self.sizes, self.gap = sizes, gap
        self.column = self._columns(nodes)
        self.lane = self._lanes(nodes)
        self.readers: dict[str, list[str]] = {n.key: [] for n in nodes}
        for n in nodes:
            for key in dict.fromkeys(n.inputs):
                self.readers[key].append(n.key)
        self.rows: list[list[Spot]] = [[] for _ in range(max(self.column.values()) + 1)]
        self.before: dict[Spot, list[Spot]] = {}
        self.after: dict[Spot, list[Spot]] = {}
        self._spots(nodes)
        self.y: dict[Spot, float] = {}

    # --- columns -----------------------------------------------------------------------------
    @staticmethod
    def _columns(nodes: list[Node]) -> dict[str, int]:
        column: dict[str, int] = {}
        for n in nodes:
            column[n.key] = 1 + max((column[k] for k in n.inputs), default=-1)
        read = {k for n in nodes for k in n.inputs}
        last = max(column.values())
        results = [n.key for n in nodes if n.role == "fused" and n.key not in read]
        # The result closes the picture, even where a side branch is longer.
        beside = any(column[n.key] == last and n.key not in results for n in nodes)
        for key in results:
            column[key] = last + 1 if beside else last
        return column

    @staticmethod
    def _lanes(nodes: list[Node]) -> dict[str, float]:
        """Say how high each node wants to stand: levels in their order, everything else between what it reads."""
        sources = [n for n in nodes if not n.inputs]
        rank = {"low": -1, "high": 1}
        sources.sort(key=lambda n: rank.get(n.role, 0))
        lane = {n.key: 2 * i / max(1, len(sources) - 1) - 1 for i, n in enumerate(sources)}
        if len(sources) == 1:
            lane[sources[0].key] = 0.0
        for n in nodes:
            if n.inputs:
                lane[n.key] = sum(lane[k] for k in n.inputs) / len(n.inputs)
        return lane

    def _spots(self, nodes: list[Node]) -> None:
        for n in nodes:
            here = (n.key, self.column[n.key])
            self.before.setdefault(here, [])
            self.after.setdefault(here, [])
            self.rows[here[1]].append(here)
        # All lines out of one box share one lane until they turn off: one bus, not a bundle.
        for key, readers in self.readers.items():
            start = self.column[key]
            for column in range(start + 1, max((self.column[r] for r in readers), default=start)):
                spot = (key, column)
                self.rows[column].append(spot)
                self.before[spot], self.after[spot] = [], []
                self._join((key, column - 1), spot)
            for reader in readers:
                self._join((key, self.column[reader] - 1), (reader, self.column[reader]))
        for row in self.rows:
            row.sort(key=self._wish)

    def _join(self, a: Spot, b: Spot) -> None:
        self.after[a].append(b)
        self.before[b].append(a)

    def is_box(self, spot: Spot) -> bool:
        return self.column[spot[0]] == spot[1]

    def _wish(self, spot: Spot) -> float:
        wish = self.lane[spot[0]]
        # A passing line keeps outside of the boxes of its own height.
        return wish if self.is_box(spot) else wish * 1.01

    # --- rows --------------------------------------------------------------------------------
    def order_rows(self) -> None:
        """Sort each column so that few lines cross; the levels' own order stays."""
        best, fewest = [list(r) for r in self.rows], self._crossings()
        for sweep in range(_SWEEPS):
            if fewest == 0:
                break
            forward = sweep % 2 == 0
            columns = range(1, len(self.rows)) if forward else range(len(self.rows) - 2, 0, -1)
            for c in columns:
                self._sort(c, self.before if forward else self.after, c - 1 if forward else c + 1)
            crossings = self._crossings()
            if crossings < fewest:
                best, fewest = [list(r) for r in self.rows], crossings
        self.rows = best
        self._swap(fewest)

    def _sort(self, column: int, neighbours: Mapping[Spot, list[Spot]], beside: int) -> None:
        index = {spot: i for i, spot in enumerate(self.rows[beside])}
        was = {spot: i for i, spot in enumerate(self.rows[column])}

        def centre(spot: Spot) -> tuple[float, float, int]:
            places = [index[n] for n in neighbours[spot]]
            scale = max(1, len(self.rows[beside]) - 1)
            own = was[spot] / max(1, len(was) - 1) * scale
            return (sum(places) / len(places) if places else own, self._wish(spot), was[spot])

        self.rows[column].sort(key=centre)

    def _swap(self, fewest: int) -> None:
        """Exchange neighbours as long as that removes crossings."""
        improved = True
        while improved and fewest:
            improved = False
            for c in range(1, len(self.rows)):
                for i in range(len(self.rows[c]) - 1):
                    row = self.rows[c]
                    row[i], row[i + 1] = row[i + 1], row[i]
                    now = self._crossings()
                    if now < fewest:
                        fewest, improved = now, True
                    else:
                        row[i], row[i + 1] = row[i + 1], row[i]

    def _crossings(self) -> int:
        total = 0
        for row, following in zip(self.rows, self.rows[1:], strict=False):
            index = {spot: i for i, spot in enumerate(following)}
            ends = [sorted(index[n] for n in self.after[spot]) for spot in row]
            for i, first in enumerate(ends):
                for second in ends[i + 1 :]:
                    total += sum(a > b for a in first for b in second)
        return total

    # --- heights -----------------------------------------------------------------------------
    def height(self, spot: Spot) -> float:
        return self.sizes[spot[0]][1] if self.is_box(spot) else _LANE_PX

    def place_rows(self) -> None:
        """Give every spot a height near what it is joined to; lines that pass are kept straight first of all."""
        for row in self.rows:
            y = 0.0
            for spot in row:
                self.y[spot] = y + self.height(spot) / 2
                y += self.height(spot) + self.gap
            middle = y / 2
            for spot in row:
                self.y[spot] -= middle
        for sweep in range(2 * _SWEEPS):
            columns = range(len(self.rows)) if sweep % 2 == 0 else range(len(self.rows) - 1, -1, -1)
            for c in columns:
                self._settle(self.rows[c])
        for _ in range(3):
            for run in self._runs():
                self._straighten(run)

    def _settle(self, row: list[Spot]) -> None:
        wishes, weights = [], []
        for spot in row:
            near = self.before[spot] + self.after[spot]
            pulls = [1.0 if self.is_box(spot) or self.is_box(n) else 8.0 for n in near]
            total = sum(pulls)
            wishes.append(
                sum(p * self.y[n] for p, n in zip(pulls, near, strict=True)) / total if near else self.y[spot]
            )
            weights.append(max(total, 1.0))
        # Keeping order and distance, as near to the wishes as squares allow: isotonic regression (pool adjacent).
        shifts, run = [], 0.0
        for i, spot in enumerate(row):
            if i:
                run += (self.height(row[i - 1]) + self.height(spot)) / 2 + self.gap
            shifts.append(run)
        pools: list[list[float]] = []  # value, weight, count
        for wish, shift, weight in zip(wishes, shifts, weights, strict=True):
            pools.append([wish - shift, weight, 1])
            while len(pools) > 1 and pools[-2][0] >= pools[-1][0]:
                value, w, n = pools.pop()
                last = pools[-1]
                last[0] = (last[0] * last[1] + value * w) / (last[1] + w)
                last[1] += w
                last[2] += n
        values = [pool[0] for pool in pools for _ in range(int(pool[2]))]
        for spot, value, shift in zip(row, values, shifts, strict=True):
            self.y[spot] = value + shift

    def _runs(self) -> list[list[Spot]]:
        """Return the chains that should be level: passing lines, and boxes that are each other's middle neighbour."""
        following: dict[Spot, Spot] = {}
        for row in self.rows:
            for spot in row:
                for n in self.after[spot]:
                    lane = spot[0] == n[0] and not self.is_box(spot)
                    if lane or (self._middle(self.after[spot]) == n and self._middle(self.before[n]) == spot):
                        following[spot] = n
        heads = [s for row in self.rows for s in row if s in following and s not in set(following.values())]
        runs = []
        for head in heads:
            run = [head]
            while run[-1] in following:
                run.append(following[run[-1]])
            runs.append(run)
        return sorted(runs, key=len, reverse=True)

    def _middle(self, near: list[Spot]) -> Spot | None:
        return sorted(near, key=lambda n: (self.y[n], n))[len(near) // 2] if len(near) % 2 else None

    def _straighten(self, run: list[Spot]) -> None:
        """Put a run on one height, or piece by piece on as few as leave every column its distances."""
        piece: list[Spot] = []
        room = (float("-inf"), float("inf"))
        for spot in run:
            lowest, highest = self._room(spot)
            both = max(room[0], lowest), min(room[1], highest)
            if both[0] > both[1]:
                self._level(piece, room)
                piece, both = [], (lowest, highest)
            piece.append(spot)
            room = both
        self._level(piece, room)

    def _level(self, piece: list[Spot], room: tuple[float, float]) -> None:
        level = min(max(sum(self.y[s] for s in piece) / len(piece), room[0]), room[1])
        for spot in piece:
            self.y[spot] = level

    def _room(self, spot: Spot) -> tuple[float, float]:
        """Return the heights between which a spot can move without touching its neighbours' distance."""
        row = self.rows[spot[1]]
        i = row.index(spot)
        lowest, highest = float("-inf"), float("inf")
        if i:
            above = row[i - 1]
            lowest = self.y[above] + (self.height(above) + self.height(spot)) / 2 + self.gap
        if i + 1 < len(row):
            below = row[i + 1]
            highest = self.y[below] - (self.height(below) + self.height(spot)) / 2 - self.gap
        # Rounding must not close a gap that is just wide enough.
        return lowest, max(lowest, highest)

    # --- the drawing -------------------------------------------------------------------------
    def drawn(self, gap: float, margin: float) -> FlowLayout:
        """Return boxes and lines in pixels."""
        top = min(y - self.height(spot) / 2 for spot, y in self.y.items()) - margin
        self.y = {spot: y - top for spot, y in self.y.items()}
        left, right = self._edges_of_columns(gap, margin)
        boxes = {}
        for key in self.nodes:
            c = self.column[key]
            w, h = self.sizes[key]
            x = left[c] + (right[c] - left[c] - w) / 2
            boxes[key] = tuple(round(v, 2) for v in (x, self.y[key, c] - h / 2, w, h))
        into, out = self._ports()
        edges = []
        for key, readers in self.readers.items():
            for reader in readers:
                edges.append((key, reader, self._path(key, reader, boxes, left, right, into, out)))
        height = max(y + self.height(spot) / 2 for spot, y in self.y.items()) + margin
        return FlowLayout(round(right[-1] + margin, 2), round(height, 2), boxes, edges)

    def _edges_of_columns(self, gap: float, margin: float) -> tuple[list[float], list[float]]:
        left, right, x = [], [], margin
        for c, row in enumerate(self.rows):
            wide = max((self.sizes[s[0]][0] for s in row if self.is_box(s)), default=0.0)
            left.append(x)
            right.append(x + wide)
            climb = max((abs(self.y[s] - self.y[n]) for s in row for n in self.after[s]), default=0.0)
            x += wide + (max(gap, min(0.3 * climb, 1.6 * gap)) if c + 1 < len(self.rows) else 0.0)
        return left, right

    def _ports(self) -> tuple[dict[tuple[Spot, Spot], float], dict[tuple[Spot, Spot], float]]:
        """Spread the ends of several lines over a box's side, in the order in which they come or go."""
        into: dict[tuple[Spot, Spot], float] = {}
        out: dict[tuple[Spot, Spot], float] = {}
        for spots, ports in ((self.before, into), (self.after, out)):
            for spot, near in spots.items():
                ordered = sorted(near, key=lambda n: (self.y[n], n))
                step = min(9.0, self.height(spot) / (len(ordered) + 1)) if self.is_box(spot) else 0.0
                for i, n in enumerate(ordered):
                    ports[spot, n] = self.y[spot] + (i - (len(ordered) - 1) / 2) * step
        return into, out

    def _path(self, key, reader, boxes, left, right, into, out) -> str:  # noqa: ANN001 - the drawing's own tables
        stops = [(key, c) for c in range(self.column[key], self.column[reader])] + [(reader, self.column[reader])]
        x, _, w, _ = boxes[key]
        at = (x + w, out[stops[0], stops[1]])
        path = [f"M{_n(at[0])} {_n(at[1])}"]
        for here, there in zip(stops, stops[1:], strict=False):
            start = (right[here[1]], out[here, there])
            end = (left[there[1]], into[there, here])
            # Through a column, and out of a box that is narrower than it, a line runs level.
            if start[0] > at[0] + 0.01:
                path.append(_curve(at, start))
            path.append(_curve(start, end))
            at = end
        x = boxes[reader][0]
        if x > at[0] + 0.01:
            path.append(_curve(at, (x, at[1])))
        return " ".join(path)


def _curve(a: tuple[float, float], b: tuple[float, float]) -> str:
    middle = (a[0] + b[0]) / 2
    return f"C{_n(middle)} {_n(a[1])} {_n(middle)} {_n(b[1])} {_n(b[0])} {_n(b[1])}"


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
