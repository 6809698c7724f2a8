"""Where the maps of a pyramid and the nodes of a graph stand in their panel, as parts of it."""

from collections.abc import Mapping, Sequence

from fusionviz import meetings
from fusionviz.board import Edge, Label, Map, Node

_GAP = 0.022
_LEAST_LINE = 0.044


# --- a pyramid -------------------------------------------------------------------------------------
def staircase(rows: Sequence[Sequence[int]]) -> list[list[tuple[float, float, float]]]:
    """Return the boxes (x, y, side) of rows of maps whose sides are in proportion to their cells.

    A row stands on one line, its maps from large to small; where its maps are too many or too much alike for one line,
    it is broken into lines of as many maps each. All maps are as large as the panel allows.

    Args:
        rows: cells per side of each map, fine to coarse.
    """
    most = max(cells for row in rows for cells in row)
    parts = [[cells / most for cells in row] for row in rows]
    scale, lines = max((_fit([_broken(row, n) for row in parts]), -n) for n in range(1, len(max(parts, key=len)) + 1))
    boxes, y = [], 0.0
    for row in parts:
        found = []
        for line in _broken(row, -lines):
            tall = max(line) * scale
            free = 1.0 - sum(line) * scale
            gap, x = min(_GAP * 2, free / max(1, len(line) - 1)), 0.0
            for part in line:
                side = part * scale
                found.append((x, y + tall - side, side))
                x += side + gap
            y += tall + _GAP
        boxes.append(found)
    free = 1.0 - (y - _GAP)  # what is left of the height is shared between above and below
    return [[(x, y + free / 2, side) for x, y, side in row] for row in boxes]


def _broken(row: Sequence[float], lines: int) -> list[Sequence[float]]:
    each = -(-len(row) // lines)
    return [row[i : i + each] for i in range(0, len(row), each)]


def _fit(rows: list[list[Sequence[float]]]) -> float:
    """The size of the largest map at which all lines fit."""
    lines = [line for row in rows for line in row]
    wide = min((1 - _GAP * (len(line) - 1)) / sum(line) for line in lines)
    return min(wide, (1 - _GAP * (len(lines) - 1)) / sum(max(line) for line in lines))


def legend(maps: Sequence[Map], texts: Sequence[str]) -> tuple[Label, ...]:
    """Return one line for each map of a staircase, in the free corner above its small maps; () where there is none."""
    first, second = maps[0].box, maps[1].box if len(maps) > 1 else None
    if second is None or second[1] <= first[1]:
        return ()
    left, high = second[0], second[1] - first[1]
    line = min(high / len(maps), 0.075)
    if line < _LEAST_LINE:
        return ()
    return tuple(
        Label(left, first[1] + (i + 0.5) * line, text, m.label, 1 - left, level=m.level)
        for i, (m, text) in enumerate(zip(maps, texts, strict=True))
    )


# --- a graph ---------------------------------------------------------------------------------------
_LEFT, _RIGHT, _TOP, _BOTTOM, _HEAD = 0.09, 0.91, 0.185, 0.925, 0.04
_NUMBER, _ASIDE = 0.05, 0.105
MOST_COLUMNS = 5
"""With more, there is no room for numbers at the edges."""


def graph(
    found: Sequence[meetings.Node], names: Sequence[str], levels: int, heads: Mapping[int, str]
) -> tuple[tuple[Node, ...], tuple[Edge, ...], tuple[Label, ...]]:
    """Return nodes, edges and the names of columns: the backbone left, the fine level at the bottom.

    Args:
        names: of each node.
        levels: how many there are.
        heads: what stands above each column.
    """
    count = 1 + max(n.column for n in found)
    down = (_BOTTOM - _TOP) / max(1, levels - 1)
    dense = down < 2 * Node.radius + _NUMBER  # no room for a number between a node and the next below
    across = (_RIGHT - _LEFT - dense * _ASIDE) / max(1, count - 1)
    radius = min(Node.radius, 0.45 * down)
    nodes = tuple(
        Node(name, _LEFT + n.column * across, _BOTTOM - (n.level - 1) * down, (n.level - 1, levels), n.fused, radius)
        for n, name in zip(found, names, strict=True)
    )
    taken = {(n.column, n.level) for n in found}
    crowded = count == 2 and any(len(n.edges) > 2 for n in found)
    edges = []
    for end, node in enumerate(found):
        for edge in node.edges:
            start = found[edge.start]
            a, b = nodes[edge.start], nodes[end]
            x, y = (a.x + b.x) / 2, (a.y + b.y) / 2
            between = range(start.column + 1, node.column)
            # An edge along its row goes around the nodes that stand in its way.
            bent = start.level == node.level and any((c, node.level) in taken for c in between)
            bend = 0.85 * down if bent else 0.0
            slanted = start.level != node.level and start.column != node.column
            at = 0.8 if bent else 0.78 if crowded else 0.7 if dense and slanted else 0.5
            through, mark = (x, y - bend), _on_curve((a.x, a.y), (x, y - bend), (b.x, b.y), at)
            if dense and start.column == node.column:
                mark = (mark[0] + _ASIDE, mark[1])
            text = f"{edge.weight:.2f}".replace("-", "−") if count <= MOST_COLUMNS else ""
            edges.append(Edge(edge.start, end, edge.share, text, through, mark))
    labels = tuple(
        Label(min(max(_LEFT + c * across, 0.14), 0.86), _HEAD, text, room=0.98 / count, align="center")
        for c, text in heads.items()
    )
    return nodes, tuple(edges), labels


def _on_curve(a: tuple[float, float], through: tuple[float, float], b: tuple[float, float], t: float) -> tuple:
    """A point of the quadratic curve from a to b."""
    return tuple((1 - t) ** 2 * p + 2 * t * (1 - t) * q + t**2 * r for p, q, r in zip(a, through, b, strict=True))
