"""Boxes and dots over the maps of a slide, and their words: in points, as the browser draws them in its pixels."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fusionviz import scales
from fusionviz.board import Mark, PanelView
from fusionviz.figures import fonts
from fusionviz.figures.canvas import Canvas

Rect = tuple[float, float, float, float]
"""x0, y0, x1, y1."""

SIZE, FAINT = 7.0, 0.7
"""Of words, and of a faint line."""


@dataclass(frozen=True)
class Measures:
    """How large marks are on a map: `halo` runs around all of them, `head` is an arrow's."""

    line: float
    halo: float
    radius: float
    head: float
    words: bool


LARGE = Measures(1.3, 0.65, 6.0, 5.6, words=True)
SMALL = Measures(1.0, 0.35, 3.0, 3.6, words=False)


def measures(room: Rect) -> Measures:
    """Return how large marks are on a map of this room: one of a large grid has none for words."""
    return LARGE if min(room[2] - room[0], room[3] - room[1]) >= 60 else SMALL


@dataclass(frozen=True)
class Placed:
    """A mark where it stands on a map.

    Attributes:
        rect: its box, cut to the picture; a dot's has no extent.
        room: the map's.
        colour, ink: of the mark, and of what can be read on that and seen around it.
    """

    mark: Mark
    rect: Rect
    room: Rect
    colour: str
    ink: str

    @property
    def dot(self) -> bool:
        return _is_dot(self.mark)

    @property
    def middle(self) -> tuple[float, float]:
        return (self.rect[0] + self.rect[2]) / 2, (self.rect[1] + self.rect[3]) / 2

    @property
    def has(self) -> Measures:
        return measures(self.room)


def on_map(view: PanelView, index: int, room: Rect, size: tuple[int, int], *, dark: bool) -> list[Placed]:
    """Return the marks of a view's map `index`, which fills `room` with the whole picture of `size` (h, w) pixels.

    They are cut to the picture, so that a line at its border is seen whole; a box beside it is left out.
    """
    found, has = [], measures(room)
    for mark in view.marks:
        if mark.on not in (None, index) or not _in_picture(mark, size):
            continue
        reach = (has.radius if _is_dot(mark) else has.line / 2) + has.halo
        ends = []
        for i, value in enumerate(mark.box):
            start, end = room[i % 2], room[i % 2 + 2]
            at = start + value / size[1 - i % 2] * (end - start)
            ends.append(min(max(at, start + reach), end - reach))
        colour = scales.mark_colour(mark.level, dark=dark)
        found.append(Placed(mark, tuple(ends), room, colour, scales.ink_on(colour)))
    return found


def faint(m: Placed) -> tuple[tuple[str, float], ...]:
    """Return the lines (colour, thickness), one over the other, of a mark that is there for comparison."""
    return (m.ink + "A6", 2 * FAINT), (m.colour, FAINT)


def draw_shapes(c: Canvas, marks: Sequence[Placed]) -> None:
    """Draw boxes, then the lines that lead from mark to mark, then dots with what stands in them."""
    for m in marks:
        x0, y0, x1, y1 = m.rect
        if m.mark.faint and not m.dot:
            for colour, thick in faint(m):
                c.frame(x0, y0, x1 - x0, y1 - y0, colour, thick, dashed=True)
        elif not m.dot:
            c.frame(x0, y0, x1 - x0, y1 - y0, m.ink, m.has.line + 2 * m.has.halo)
            c.frame(x0, y0, x1 - x0, y1 - y0, m.colour, m.has.line)
    for before, m in zip(marks, marks[1:], strict=False):
        if m.mark.follows:
            _arrow(c, before, m)
    for m in marks:
        if m.dot and m.mark.faint:
            for colour, thick in faint(m):
                c.disc(*m.middle, m.has.radius, "none", colour, thick, dashed=True)
        elif m.dot:
            c.disc(*m.middle, m.has.radius, m.colour, m.ink, m.has.halo)
            if m.has.words:
                size = c.fitted(m.mark.label, 7.4, 4.0, 1.7 * m.has.radius, bold=True)
                x, y = m.middle
                c.text(x, y + 0.36 * size, m.mark.label, size, m.ink, bold=True, align="center")


def _arrow(c: Canvas, before: Placed, m: Placed) -> None:
    """A line from one middle to the next; its head ends where the dot begins."""
    (x, y), (to_x, to_y) = before.middle, m.middle
    whole, size = math.hypot(to_x - x, to_y - y), m.has.head
    far = whole - (m.has.radius + m.has.halo if m.dot else 0.0)
    if far < size:
        return
    along = (to_x - x) / whole, (to_y - y) / whole

    def at(ahead: float, aside: float = 0.0) -> tuple[float, float]:
        return x + ahead * along[0] - aside * along[1], y + ahead * along[1] + aside * along[0]

    head = [at(far), at(far - size, 0.55 * size), at(far - size, -0.55 * size)]
    for colour, more in ((m.ink, 2 * m.has.halo), (m.colour, 0.0)):
        c.line([at(0.0), at(far - 0.8 * size)], colour, m.has.line + more)
        c.polygon(head, colour, more)


def draw_tags(c: Canvas, marks: Sequence[Placed], taken: Iterable[Rect] = ()) -> None:
    """Write each box's label on a tag at its edge; tags keep away from each other, from dots and from `taken`."""
    full = [*taken]
    for m in marks:
        if m.dot and not m.mark.faint:
            (x, y), radius = m.middle, m.has.radius
            full.append((x - radius, y - radius, x + radius, y + radius))
    named = [m for m in marks if not m.dot and not m.mark.faint]
    tags = []
    for m in named:
        if not m.mark.label or not m.has.words:
            continue
        pad, halo, wide = 0.4 * SIZE, m.has.halo, m.room[2] - m.room[0]
        most = min(max(m.rect[2] - m.rect[0], 0.62 * wide), wide - 2 * halo) - 2 * pad
        text = fonts.shorten(c.spelt(m.mark.label), SIZE, c.family, most, bold=True)
        tag = best_spot(m, c.width(text, SIZE, bold=True) + 2 * pad, 1.4 * SIZE, full, [n.rect for n in named])
        full.append(tag)
        tags.append((m, text, tag))
    for m, text, (x0, y0, x1, y1) in reversed(tags):  # the first lies on top
        halo = m.has.halo
        c.bar(x0 - halo, y0 - halo, x1 - x0 + 2 * halo, y1 - y0 + 2 * halo, m.ink)
        c.bar(x0, y0, x1 - x0, y1 - y0, m.colour)
        c.text(x0 + 0.4 * SIZE, y0 + 1.05 * SIZE, text, SIZE, m.ink, bold=True)


def best_spot(m: Placed, w: float, h: float, taken: Sequence[Rect], boxes: Sequence[Rect]) -> Rect:
    """Return where a mark's tag stands: above its box, inside at the top, below, or inside at the bottom.

    A spot costs the part of the tag that is `taken`, which counts most, and the part of each of `boxes` that the tag
    hides; of equal spots the first is best, at the left before at the right. A tag never leaves the mark's room.
    """
    x0, y0, x1, y1 = m.rect
    half, edge = m.has.line / 2, m.has.halo
    left, top, right, bottom = m.room[0] + edge, m.room[1] + edge, m.room[2] - edge - w, m.room[3] - edge - h
    within = min(max(y0 - half, top), bottom)
    spots = []
    for y in (y0 + half - h, within, y1 - half, y1 + half - h):
        if top <= y <= bottom:
            spots += [(min(max(x, left), right), y) for x in (x0 - half, x1 + half - w)]

    def cost(rank: int) -> float:
        x, y = spots[rank]
        tag = (x, y, x + w, y + h)
        hidden = sum(_shared(tag, box) / max(_area(box), 1.0) for box in boxes)
        return 4 * sum(_shared(tag, other) for other in taken) / (w * h) + hidden + 0.03 * rank

    x, y = spots[min(range(len(spots)), key=cost)]
    return x, y, x + w, y + h


def _is_dot(mark: Mark) -> bool:
    return mark.box[:2] == mark.box[2:]


def _in_picture(mark: Mark, size: tuple[int, int]) -> bool:
    x0, y0, x1, y1 = mark.box
    if not all(map(math.isfinite, mark.box)):
        return False
    return _is_dot(mark) or (x1 > 0 and y1 > 0 and x0 < size[1] and y0 < size[0])


def _area(r: Rect) -> float:
    return (r[2] - r[0]) * (r[3] - r[1])


def _shared(a: Rect, b: Rect) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
