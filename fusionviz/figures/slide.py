"""The board as a slide of 16:9: the same record, ranges and colours as in the browser, as PNG, SVG or PDF.

`slide` draws, `save` writes. Figures are made without pyplot, which would keep every one of them alive.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from fusionviz import scales
from fusionviz.board import Bar, Board, Map, Panel, PanelView
from fusionviz.errors import ExportError
from fusionviz.figures import arithmetic, fonts, marks
from fusionviz.figures.canvas import DARK, HEIGHT, LIGHT, WIDTH, Canvas, Tile, cell_edges, cells, grid_side
from fusionviz.figures.fonts import language_for
from fusionviz.scales import number
from fusionviz.selection import View
from fusionviz.texts import text as say

__all__ = ["FORMATS", "kind_of", "language_for", "save", "slide"]

FORMATS = ("png", "svg", "pdf")

_EDGE = 26.0
_GAP = 10.0
_PAD = 8.0
_HEAD = 40.0
_FOOT = 32.0
_SMALL = 8.6
_NOTE_SIZES, _NOTE_LINE, _NOTE_LINES = (8.4, 8.0, 7.6), 11.4, 3
_ROW = 50.0
_TOP, _BOTTOM = 108.0, 500.0
_HEAT = 0.7
"""How much of a weight covers the grey picture below it, as in the browser."""


def slide(
    board: Board,
    view: View,
    *,
    language: str = "en",
    dark: bool = False,
    title: str = "",
    equation: str = "",
    cite: str = "",
    caption_lines: Sequence[str] = (),
) -> Figure:
    """Draw the board as a slide.

    Args:
        board: what to show, in the slide's language.
        view: range, colour map, gamma and pin, as on the page.
        language: "en" | "zh"; ask `language_for` first whether the system can write it.
        title, equation, cite: of the method; the equation is TeX.
        caption_lines: more lines under the caption.

    Returns:
        A figure of 13.33 × 7.5 inches; `save` writes it.
    """
    with fonts.LOCK:
        return _Slide(board, view, language, dark).drawn(title, equation, cite, tuple(caption_lines))


def kind_of(target: str | Path) -> str:
    """Return the format that a file's name asks for.

    Raises:
        ExportError: if it is none of FORMATS.
    """
    return _known(Path(target).suffix.removeprefix(".").lower() or str(Path(target).name))


def _known(kind: str) -> str:
    if kind not in FORMATS:
        raise ExportError("export.format", received=kind, allowed=", ".join(FORMATS))
    return kind


def save(figure: Figure, target: str | Path | BinaryIO, format: str | None = None, dpi: int = 200) -> None:  # noqa: A002
    """Write a slide; the same slide gives the same bytes, and no path or date of this machine stands in them.

    Args:
        target: a path, or a binary file.
        format: "png" | "svg" | "pdf"; None takes the path's ending.
        dpi: dots per inch of a PNG; maps inside SVG and PDF have twice as many.

    Raises:
        ExportError: for any other format, or where the file cannot be written.
    """
    is_path = isinstance(target, str | Path)
    kind = _known(format) if format is not None else kind_of(target if is_path else "")
    data = _written(figure, kind, dpi)
    if not is_path:
        target.write(data)
        return
    try:
        Path(target).write_bytes(data)
    except OSError as reason:
        raise ExportError("export.write", path=str(target), reason=reason.strerror or str(reason)) from reason


def _written(figure: Figure, kind: str, dpi: int) -> bytes:
    name = figure.get_label() or "fusionviz"
    about = {
        "png": {"Title": name, "Software": "fusionviz"},
        "svg": {"Title": name, "Creator": "fusionviz", "Date": None},
        "pdf": {"Title": name, "Creator": "fusionviz", "Producer": "fusionviz", "CreationDate": None},
    }[kind]
    file = io.BytesIO()
    with fonts.LOCK:
        words = [(t.get_text(), t.get_fontfamily()[0]) for t in figure.texts]
        settings = {
            "svg.fonttype": "path",  # letters as outlines: a slide looks the same on a machine without the font
            "svg.hashsalt": "fusionviz",
            "pdf.fonttype": 3 if fonts.needs_cff(words) else 42,
            "text.hinting": "none",  # widths as measured, at any number of dots
        }
        with mpl.rc_context(settings):
            figure.savefig(file, format=kind, dpi=dpi if kind == "png" else 2 * dpi, metadata=about)
    return file.getvalue()


@dataclass(frozen=True)
class _Box:
    x: float
    y: float
    w: float
    h: float


class _Slide:
    """One slide while it is drawn."""

    def __init__(self, board: Board, view: View, language: str, dark: bool) -> None:
        self.board, self.view, self.language, self.dark = board, view, language, dark
        self.theme = DARK if dark else LIGHT
        self.canvas = Canvas(language, self.theme)
        self.ranges = scales.ranges(board, view.range)
        self.channel = view.pin_channel if view.pin_channel is not None else next(iter(board.channels), None)

    def say(self, key: str, **values: object) -> str:
        return say(key, self.language, **values)

    def drawn(self, title: str, equation: str, cite: str, lines: tuple[str, ...]) -> Figure:
        self.canvas.figure.set_label(title or "fusionviz")
        self._heading(title, equation, cite)
        bottom = self._caption((*self._measured(), *lines))
        row = self._sum()
        self._panels(bottom, row)
        return self.canvas.figure

    # --- heading and caption -------------------------------------------------------------------
    def _heading(self, title: str, equation: str, cite: str) -> None:
        c = self.canvas
        room = WIDTH - 2 * _EDGE
        taken = min(c.width(cite, 10) + 24, 384.0) if cite else 0.0
        # The source stands on the title's line, unless the title needs that line for itself.
        beside = c.width(title, 20, bold=True) <= room - taken
        free = room - (taken if beside else 0)
        c.text(_EDGE, 50, title, c.fitted(title, 25, 14, free, bold=True), bold=True, room=free)
        if cite:
            c.text(WIDTH - _EDGE, 50 if beside else 88, cite, 10, self.theme.muted, align="right", room=360)
        if equation:
            c.formula(_EDGE, 88, equation, 22, room - (0 if beside else taken))

    def _caption(self, lines: tuple[str, ...]) -> float:
        """Write caption and credit at the foot; returns where they begin."""
        c, theme = self.canvas, self.theme
        credit, room = self.board.credit, WIDTH - 2 * _EDGE
        parts = self._caption_parts()
        words = "".join(text for text, _ in parts)
        # Caption and credit share a line, unless they are too long for one.
        beside = c.width(words, 9) + c.width(credit, 8) + 20 <= room
        below = len(lines) + (0 if beside else 1)
        y = HEIGHT - 20.0 - 13.0 * below
        wide = c.width(credit, 8) if beside and credit else 0.0
        if credit:
            c.text(WIDTH - _EDGE, y if beside else HEIGHT - 20, credit, 8, theme.muted, align="right", room=room)
        c.run(_EDGE, y, parts, c.fitted(words, 10.5, 8.0, room - wide - 16), room=room - wide)
        for i, line in enumerate(lines):
            c.text(_EDGE, y + 13.0 * (i + 1), line, 9, theme.muted, room=room)
        return y - 12

    def _caption_parts(self) -> list[tuple[str, str]]:
        """The caption with levels in their colours, and whatever is random in the colour of a warning."""
        warn = {p.badge.text for p in self.board.panels if p.badge and p.badge.kind == "random"}
        parts: list[tuple[str, str]] = []
        for i, piece in enumerate(self.board.caption.split(" · ") if self.board.caption else []):
            parts += [(" · ", self.theme.muted)] if i else []
            levels = re.fullmatch(r"((?:[sdbx]\d|identity)\S*) \+ ((?:[sdbx]\d|residual)\S*)", piece)
            if levels:
                parts += [(levels[1], self.theme.low), (" + ", self.theme.muted), (levels[2], self.theme.high)]
            else:
                parts.append((piece, self.theme.warning[0] if piece in warn else self.theme.ink))
        sweep = self.board.sweep
        if sweep:
            where = self.say(f"sweep.{sweep.kind}.caption", value=sweep.frames[sweep.at].text)
            parts += [(" · ", self.theme.muted)] if parts else []
            parts.append((where, self.theme.ink))
        return parts

    def _measured(self) -> list[str]:
        """What was measured at the slider's position."""
        facts = self.board.sweep.frames[self.board.sweep.at].facts if self.board.sweep else ""
        return [facts] if facts else []

    # --- the row of numbers --------------------------------------------------------------------
    def _sum(self) -> tuple[str, list[tuple[str, str]]] | None:
        """Return the place and its numbers as (text, colour), or None where nothing is pinned."""
        if self.view.pin is None:
            return None
        x, y = self.view.pin
        channel = self.channel
        key = "figure.place" if channel is None else "figure.place_channel"
        parts = arithmetic.filled(self.board, self.view.pin, channel) or self._readings(channel)
        return self.say(key, x=x, y=y, n=channel), [(t, self.theme.role(role)) for t, role in parts]

    def _readings(self, channel: int | None) -> list[tuple[str, str]]:
        parts: list[tuple[str, str]] = []
        for panel in self.board.panels:
            shown = panel.shown
            if shown.apart:  # levels or heads are no channels: the panel's own map speaks for it
                shown = next((v for v in panel.views if v.maps and v.maps[0].channel is not None), shown)
            value = None if panel.role == "picture" else arithmetic.value_at(shown, self.view.pin, channel)
            if value is not None:
                parts += [("     ", "")] if parts else []
                parts += [(panel.heading[0] + "  ", panel.role), (number(value), panel.role)]
        return parts

    def _draw_sum(self, y: float, place: str, parts: list[tuple[str, str]]) -> None:
        c = self.canvas
        c.card(_EDGE, y, WIDTH - 2 * _EDGE, _ROW, self.theme.card, self.theme.line)
        base = y + _ROW / 2 + 6
        left = _EDGE + 14 + c.text(_EDGE + 14, base - 1, place, 11, self.theme.muted) + 22
        family = [fonts.SERIF, *c.family]
        room = WIDTH - _EDGE - 14 - left
        size = c.fitted("".join(t for t, _ in parts), 20, 9, room, family=family)
        c.run(left, base, parts, size, family=family)

    # --- panels --------------------------------------------------------------------------------
    def _panels(self, bottom: float, row: tuple[str, list[tuple[str, str]]] | None) -> None:
        panels, c = self.board.panels, self.canvas
        if not panels:
            return
        height_px, width_px = self.board.size
        count = len(panels)
        space = min(_BOTTOM, bottom - 8) - _TOP - (_ROW + 14 if row else 0)
        wide = (WIDTH - 2 * _EDGE - _GAP * (count - 1)) / count
        side = wide - 2 * _PAD
        notes = max(len(self._note(p, side)[1]) for p in panels)
        more = _HEAD + _FOOT + _PAD + (notes * _NOTE_LINE + 4 if notes else 0)
        # The window has the picture's shape, and is as large as width and height of the slide allow.
        w = min(side, (space - more) * width_px / height_px)
        h = w * height_px / width_px
        high = h + more
        # What is left of the slide's height is shared between above and below.
        y = _TOP + max(0.0, (space - high) / 2)
        for i, panel in enumerate(panels):
            x = _EDGE + i * (wide + _GAP)
            c.card(x, y, wide, high, self.theme.card, self.theme.line)
            window = _Box(x + (wide - w) / 2, y + _HEAD, w, h)
            self._head(panel, x + _PAD, y, side)
            self._body(panel, window)
            self._foot(panel, _Box(x + _PAD, y + _HEAD + h, side, _FOOT))
            size, lines = self._note(panel, side)
            for n, line in enumerate(lines):
                at = y + _HEAD + h + _FOOT + 7 + n * _NOTE_LINE
                c.text(x + _PAD, at, line, size, self.theme.muted)
        if row:
            self._draw_sum(y + high + 14, *row)

    def _note(self, panel: Panel, room: float) -> tuple[float, list[str]]:
        """Return the size and lines of a panel's note: the largest size that needs the fewest lines."""
        wrapped = [(size, fonts.wrap(panel.shown.note, size, self.canvas.family, room, 9)) for size in _NOTE_SIZES]
        size = min(wrapped, key=lambda found: len(found[1]))[0]
        return size, fonts.wrap(panel.shown.note, size, self.canvas.family, room, _NOTE_LINES)

    def _head(self, panel: Panel, x: float, y: float, room: float) -> None:
        """Title and badge on one line, shape below; a long title sends the badge to the shape's line."""
        c, badge = self.canvas, panel.badge
        shape = panel.shown.shape
        labelled = f"{shape} · {panel.shown.label}" if shape and len(panel.views) > 1 else shape or panel.shown.label
        pill = c.width(badge.text, 7.2) + 10 if badge else 0.0
        title, _ = panel.heading
        beside = not badge or c.width(title, 10.5, bold=True) + pill + 6 <= room
        size = c.fitted(title, 13.5, 8.0, room - (pill + 6 if badge and beside else 0), bold=True)
        words = fonts.shorten(title, size, c.family, room, bold=True)
        c.run(x, y + 19, self._title_parts(panel, words), size, bold=True)
        left = room
        if badge:
            c.pill(x + room, y + (18.5 if beside else 32.5), badge.text, badge.kind, room)
            left = room if beside else room - pill - 6
        text = labelled if c.width(labelled, 7) <= left else shape
        c.text(x, y + 32.5, text, c.fitted(text, 9.0, 6.4, left), self.theme.muted, room=left + 0.5)

    def _title_parts(self, panel: Panel, title: str) -> list[tuple[str, str]]:
        """A level's title in its colour; in a weight's title only the level that it speaks of."""
        if panel.role != "weight":
            return [(title, self.theme.role(panel.role))]
        _, of = panel.heading
        word = self.say(f"attention.of.{of}") if of else ""
        at = title.lower().find(word.lower()) if word else -1
        if at < 0:
            return [(title, self.theme.ink)]
        end = at + len(word)
        parts = [
            (title[:at], self.theme.ink),
            (title[at:end], self.theme.role(of)),
            (title[end:], self.theme.ink),
        ]
        return [part for part in parts if part[0]]

    def _body(self, panel: Panel, window: _Box) -> None:
        if panel.shown.kind == "numbers":
            self._numbers(panel.shown, window)
        elif panel.shown.kind == "bars":
            self._bars(panel, window)
        elif panel.shown.kind == "graph":
            self._graph(panel.shown, window)
        else:
            self._maps(panel, window)
        self._labels(panel.shown, window)

    # --- maps ----------------------------------------------------------------------------------
    def _tile(self, panel: Panel, index: int) -> Tile:
        shown = panel.shown
        lo, hi = self.ranges[panel.id, shown.key][index]
        rgb = self._colour(shown.maps[index].values, lo, hi, scales.map_scale(shown))
        tile = Tile(rgb, *shown.cells(shown.maps[index]))
        return self._over_picture(tile) if shown.over_picture else tile

    def _colour(self, values: np.ndarray, lo: float, hi: float, scale: str) -> np.ndarray:
        return scales.colour(values, lo, hi, scale, self.view.colormap, self.view.gamma, self.dark)

    def _over_picture(self, tile: Tile) -> Tile:
        """Blend a weight over the grey picture, pixel by pixel of the network's input."""
        pictures = [v for p in self.board.panels if p.role == "picture" for v in p.views if v.scale == "rgb" and v.maps]
        if not pictures:
            return tile
        below, size = pictures[0], self.board.size
        seen = Tile(below.maps[0].values, *below.cells(below.maps[0]))
        grey = _on_pixels(seen, size) @ np.array([0.299, 0.587, 0.114])
        mixed = _HEAT * _on_pixels(tile, size) + (1 - _HEAT) * grey[..., None]
        return Tile(np.round(mixed).astype(np.uint8), (1.0, 1.0), (0.5, 0.5))

    def _maps(self, panel: Panel, window: _Box) -> None:
        shown, c = panel.shown, self.canvas
        if not shown.maps:
            return
        boxes, several = self._boxes(shown, window), len(shown.maps) > 1
        c.maps(
            [self._tile(panel, i) for i in range(len(shown.maps))],
            [(b.x, b.y, b.w, b.h) for b in boxes],
            self.board.size,
        )
        for i, (m, box) in enumerate(zip(shown.maps, boxes, strict=True)):
            room = (box.x, box.y, box.x + box.w, box.y + box.h)
            found = marks.on_map(shown, i, room, self.board.size, dark=self.dark)
            marks.draw_shapes(c, found)
            named = self._label(m, box) if several and m.label else None
            marks.draw_tags(c, found, [named] if named else [])
            self._pin(panel, m, box, active=m.channel == self.channel or (m.channel is None and m.box is None))
            if shown.asks:
                x, y = (start + v / n * extent for start, extent, v, n in self._axes(box, shown.asks))
                self.canvas.ring(x, y, max(2.4, box.w / 16))

    def _axes(self, box: _Box, place: tuple[float, float]) -> tuple[tuple[float, float, float, int], ...]:
        """For x and y: where a box begins, its extent, the place in the picture, and the picture's pixels."""
        height, width = self.board.size
        return (box.x, box.w, place[0], width), (box.y, box.h, place[1], height)

    def _boxes(self, shown: PanelView, window: _Box) -> list[_Box]:
        """Where maps stand: in a square grid, or where their boxes say."""
        if any(m.box for m in shown.maps):
            return [
                _Box(window.x + x * window.w, window.y + y * window.h, side * window.w, side * window.h)
                for x, y, side in (m.box for m in shown.maps)
            ]
        side = grid_side(len(shown.maps))
        gap = 2.0 if side > 1 else 0.0
        w, h = ((extent + gap) / side - gap for extent in (window.w, window.h))
        return [
            _Box(window.x + i % side * (w + gap), window.y + i // side * (h + gap), w, h)
            for i in range(len(shown.maps))
        ]

    def _label(self, m: Map, box: _Box) -> marks.Rect | None:
        """Say what a map is, in its corner: a channel's number, or a level, whose colour stands before it.

        Returns:
            the room that it took, or None where there was too little.
        """
        size = min(6.6, box.h / 3.6 if m.box else box.h / 6.5)
        if size < 4.5:
            return None
        stripe = 0.3 * size if m.level else 0.0
        wide = self.canvas.width(m.label, size) + 0.7 * size + stripe
        self.canvas.bar(box.x, box.y, wide, 1.4 * size, "#0C0E12A6")
        if m.level:
            self.canvas.bar(box.x, box.y, stripe, 1.4 * size, scales.branch_colours(m.level[1], dark=True)[m.level[0]])
        self.canvas.text(box.x + 0.35 * size + stripe, box.y + 1.06 * size, m.label, size, "#FFFFFF")
        return box.x, box.y, box.x + wide, box.y + 1.4 * size

    def _labels(self, shown: PanelView, window: _Box) -> None:
        """Words that stand in a panel, all of one size."""
        c = self.canvas
        if not shown.labels:
            return
        words = [(f"{label.name}  " if label.name else "", label.text) for label in shown.labels]
        widths = [c.width(name, 1.0, bold=True) + c.width(text, 1.0) for name, text in words]
        size = min(8.2, *(label.room * window.w / wide for label, wide in zip(shown.labels, widths, strict=True)))
        for label, (name, text), wide in zip(shown.labels, words, widths, strict=True):
            x, y = window.x + label.x * window.w, window.y + label.y * window.h + 0.36 * size
            x -= wide * size / 2 if label.align == "center" else 0.0
            if name:
                c.text(x, y, name.strip(), size, self._level_colour(label.level), bold=True)
            c.text(x + c.width(name, size, bold=True), y, text, size, self.theme.muted)

    def _level_colour(self, level: tuple[int, int] | None) -> str:
        return scales.branch_colours(level[1], dark=self.dark)[level[0]] if level else self.theme.ink

    def _pin(self, panel: Panel, m: Map, box: _Box, *, active: bool) -> None:
        if self.view.pin is None or not panel.shown.placed:
            return
        shown, shape = panel.shown, m.values.shape
        # The picture has cells of one pixel; it shows the place as large as the finest level does.
        if panel.role == "picture":
            shown, m = self._finest() or (shown, m)
            shape = m.values.shape
        cell, (stride, offset) = arithmetic.cell_of(shown, m, self.view.pin), shown.cells(m)
        spans = []
        for axis, (start, extent) in enumerate(((box.y, box.h), (box.x, box.w))):
            a, b = cell_edges(shape[axis], stride[axis], offset[axis], cell[axis], self.board.size[axis])
            a, b = (start + v / self.board.size[axis] * extent for v in (a, b))
            least = min(4.0 if active else 2.4, extent)
            grow = max(0.0, least - (b - a)) / 2
            a, b = a - grow, b + grow
            shift = max(start - a, 0.0) - max(b - start - extent, 0.0)
            spans.append((a + shift, b + shift))
        (top, bottom), (left, right) = spans
        self.canvas.outline(left, top, right - left, bottom - top, 0.9 if active else 0.5)
        if active and m.channel is not None and len(panel.shown.maps) > 1 and panel.role in ("low", "high", "fused"):
            self.canvas.frame(box.x, box.y, box.w, box.h, self.theme.role(panel.role), 1.6)

    def _finest(self) -> tuple[PanelView, Map] | None:
        views = [p.shown for p in self.board.panels if p.role in ("low", "fused") and p.shown.maps]
        return (views[0], views[0].maps[0]) if views else None

    # --- graphs --------------------------------------------------------------------------------
    def _graph(self, shown: PanelView, window: _Box) -> None:
        """Who hears whom: an edge is as thick as its share of what meets in its node."""
        c, theme = self.canvas, self.theme
        side = min(window.w, window.h)
        size = min(7.4, 0.046 * side)

        def at(place: tuple[float, float]) -> tuple[float, float]:
            return window.x + place[0] * window.w, window.y + place[1] * window.h

        for edge in shown.edges:
            ends = [shown.nodes[i] for i in (edge.start, edge.end)]
            points = [at((ends[0].x, ends[0].y)), at(edge.through), at((ends[1].x, ends[1].y))]
            thick = max(0.5, 0.055 * side * edge.share)
            c.curve(points, self._level_colour(ends[0].level) + "BF", thick)
        for edge in shown.edges:
            x, y = at(edge.mark)
            wide = c.width(edge.text, size) + 0.35 * size
            if edge.text:
                c.bar(x - wide / 2, y - 0.58 * size, wide, 1.16 * size, theme.card)
            c.text(x, y + 0.36 * size, edge.text, size, align="center")
        for node in shown.nodes:
            x, y = at((node.x, node.y))
            colour = theme.fused if node.fused else self._level_colour(node.level)
            radius = node.radius * side
            c.disc(x, y, radius, theme.fused if node.fused else theme.card, colour)
            ink = theme.card if node.fused else theme.ink
            small = min(size, 0.8 * radius)
            c.text(x, y + 0.36 * small, node.label, small, ink, bold=True, align="center")

    # --- bars and numbers ----------------------------------------------------------------------
    def _bar_limits(self, shown: PanelView) -> tuple[float, float]:
        if shown.scale in ("weight", "gate"):
            return 0.0, 1.0
        values = [b.value for b in shown.bars if np.isfinite(b.value)]
        low, high = min([0.0, *values]), max([0.0, *values])
        far = max(-low, high)
        return (-far, far) if shown.scale == "signed" else (low, high)

    def _bar_colour(self, shown: PanelView, value: float) -> str:
        r, g, b = self._colour(np.array([[value]]), *self._bar_limits(shown), shown.scale)[0, 0]
        return f"#{r:02x}{g:02x}{b:02x}"

    def _span(self, shown: PanelView, value: float) -> tuple[float, float]:
        """Return where a bar begins and ends, as parts of its track; it begins at what is neutral."""
        low, high = self._bar_limits(shown)
        neutral = 0.5 if shown.scale == "weight" else 0.0
        places = [min(max((v - low) / (high - low), 0.0), 1.0) if high > low else 0.0 for v in (neutral, value)]
        return min(places), max(places)

    def _bars(self, panel: Panel, window: _Box) -> None:
        """A row for each pictured channel, heaviest first, and at the right the profile of all channels."""
        shown, c = panel.shown, self.canvas
        pictured = {m.channel: i for i, m in enumerate(shown.maps)}
        ranked = list(enumerate(shown.bars))
        fit = max(2, min(9, int(window.h / 15.5)))
        rows = ranked
        if len(ranked) > fit:
            top = (fit + 1) // 2
            rows = ranked[:top] + ranked[len(ranked) - (fit - top) :]
            chosen = next((r for r in ranked if r[1].channel == self.channel), None)
            if self.view.pin_channel is not None and chosen and chosen not in rows:
                rows = [*rows[: top - 1], chosen, *rows[top:]]
        if not rows:
            return
        high = min(window.h / len(rows), window.h / 4)
        strip = window.w * 0.18 if len(ranked) > len(rows) else 0.0
        room = window.w - (strip + 6 if strip else 0)
        size = min(7.6, high * 0.5)
        label = max(c.width(b.label, size) for _, b in rows)
        figures = c.width("−0.000", size)
        for i, (rank, bar) in enumerate(rows):
            y = window.y + i * high
            box = _Box(window.x, y, high - 2, high - 2)
            if bar.channel in pictured:
                tile = self._tile(panel, pictured[bar.channel])
                c.maps([tile], [(box.x, box.y, box.w, box.h)], self.board.size)
            middle = y + box.h / 2
            left = window.x + high + 3 + label
            c.text(left, middle + size * 0.36, bar.label, size, self.theme.muted, align="right")
            self._track(shown, bar, _Box(left + 4, y + box.h * 0.22, room - high - label - figures - 11, box.h * 0.56))
            chosen = self.view.pin is not None and bar.channel == self.channel
            c.text(window.x + room, middle + size * 0.36, number(bar.value), size, align="right", bold=chosen)
            if i and rank != rows[i - 1][0] + 1:
                c.bar(window.x, y - 1.3, room, 0.6, self.theme.muted)
        if strip:
            self._profile(shown, _Box(window.x + window.w - strip, window.y, strip, window.h))

    def _track(self, shown: PanelView, bar: Bar, box: _Box) -> None:
        c = self.canvas
        c.bar(box.x, box.y, box.w, box.h, self.theme.plain[1])
        if np.isfinite(bar.value):
            a, b = self._span(shown, bar.value)
            wide = max(0.8, (b - a) * box.w)
            # A pale bar on a pale track needs an edge.
            c.bar(box.x + a * box.w, box.y, wide, box.h, self._bar_colour(shown, bar.value), self.theme.muted)
        if shown.scale in ("weight", "signed"):
            c.bar(box.x + box.w / 2 - 0.3, box.y - 1, 0.6, box.h + 2, self.theme.muted)

    def _profile(self, shown: PanelView, box: _Box) -> None:
        """Every channel as one thin line: how many are open, and how far."""
        c = self.canvas
        c.bar(box.x, box.y, box.w, box.h, self.theme.plain[1])
        each = box.h / len(shown.bars)
        for rank, bar in enumerate(shown.bars):
            if np.isfinite(bar.value):
                a, b = self._span(shown, bar.value)
                wide = max(0.5, (b - a) * box.w)
                c.bar(box.x + a * box.w, box.y + rank * each, wide, each, self._bar_colour(shown, bar.value))

    def _numbers(self, shown: PanelView, window: _Box) -> None:
        """A few large numbers, one per branch, in the colours of the branches."""
        c = self.canvas
        count = max(1, len(shown.bars))
        block = min(window.h / count, 74.0)
        top = window.y + (window.h - block * count) / 2
        low, high = self._bar_limits(shown)
        for i, bar in enumerate(shown.bars):
            colour = self._level_colour(bar.level or (i, count))
            y = top + i * block
            base = y + block * 0.56
            words = number(bar.value)
            big = min(block * 0.42, 26.0)
            small = min(block * 0.24, 12.0)
            c.text(window.x + 4, base, bar.label, small, colour, bold=True, room=window.w * 0.5)
            c.text(window.x + window.w - 4, base, words, big, colour, bold=True, align="right")
            c.bar(window.x + 4, y + block * 0.7, window.w - 8, max(3.0, block * 0.1), self.theme.plain[1])
            share = (bar.value - low) / (high - low) if np.isfinite(bar.value) and high > low else 0.0
            wide = min(max(share, 0.0), 1.0) * (window.w - 8)
            c.bar(window.x + 4, y + block * 0.7, wide, max(3.0, block * 0.1), colour)

    # --- colour bar ----------------------------------------------------------------------------
    def _foot(self, panel: Panel, box: _Box) -> None:
        """The colour bar with its ends, and the value at the pinned place between them."""
        shown, c, theme = panel.shown, self.canvas, self.theme
        y = box.y + 22
        value = self._value(panel)
        if shown.shares:
            self._share_legend(shown, box)
            return
        if shown.scale == "rgb" or shown.kind in ("numbers", "graph"):
            text = value or (shown.label if panel.role == "picture" else "")
            c.text(box.x, y, text, _SMALL, theme.muted, room=box.w)
            return
        scale, limits = self._bar_scale(panel)
        ramp = self._colour(np.linspace(*limits, 256)[None], *limits, scale)
        c.maps([Tile(ramp, (1.0, 1.0), (0.5, 0.5))], [(box.x, box.y + 7, box.w, 5.0)], (1, 256))
        ends, colours = self._ends(panel, scale, limits)
        widths = [c.width(e, _SMALL) for e in ends]
        c.text(box.x, y, ends[0], _SMALL, colours[0])
        c.text(box.x + box.w, y, ends[1], _SMALL, colours[1], align="right")
        if not value:
            return
        room = box.w - sum(widths) - 12
        if c.width(value, 6.6) <= room:
            # In the middle of the panel if the ends leave it free, else in the middle of what they leave.
            size = c.fitted(value, _SMALL, 6.6, room)
            half = c.width(value, size) / 2
            middle = min(max(box.x + box.w / 2, box.x + widths[0] + 6 + half), box.x + box.w - widths[1] - 6 - half)
            c.text(middle, y, value, size, theme.ink, align="center")
        else:
            c.text(box.x + box.w / 2, y + 11, value, _SMALL, theme.ink, align="center", room=box.w)

    def _share_legend(self, shown: PanelView, box: _Box) -> None:
        """Each level's colour from pale to full, its name, and its share at the pinned place."""
        c, count = self.canvas, len(shown.shares)
        wide = (box.w + 2) / count
        parts = np.linspace(1 / count, 1, 64)
        for i, m in enumerate(shown.shares):
            rest = np.repeat(((1 - parts) / (count - 1))[None], count, 0)
            rest[i] = parts
            ramp = scales.mixture(rest[:, None], scales.branch_colours(count))
            x = box.x + i * wide
            c.maps([Tile(ramp, (1.0, 1.0), (0.5, 0.5))], [(x, box.y + 7, wide - 2, 5.0)], (1, 64))
            text = m.label
            if self.view.pin is not None:
                text += f" {m.values[arithmetic.cell_of(shown, m, self.view.pin)]:.2f}"
            size = c.fitted(text, _SMALL, 5.5, wide - 4, bold=True)
            c.text(x, box.y + 22, text, size, self._level_colour(m.level), bold=True, room=wide - 2)

    def _bar_scale(self, panel: Panel) -> tuple[str, tuple[float, float]]:
        shown = panel.shown
        if shown.kind == "bars":
            return shown.scale, self._bar_limits(shown)
        ranges = self.ranges[panel.id, shown.key] or [(0.0, 0.0)]
        return shown.scale, ranges[self._active(panel) or 0]

    def _ends(self, panel: Panel, scale: str, limits: tuple[float, float]) -> tuple[tuple[str, str], tuple[str, str]]:
        muted = (self.theme.muted, self.theme.muted)
        if scale == "weight":
            return (self.say("figure.high_wins"), self.say("figure.low_wins")), (self.theme.high, self.theme.low)
        if scale == "phase":
            return ("−π", "π"), muted
        ranges = set(self.ranges[panel.id, panel.shown.key])
        if len(ranges) > 1 and panel.shown.kind == "maps" and (self.view.pin is None or self._active(panel) is None):
            return (self.say("figure.lowest"), self.say("figure.highest")), muted
        return (number(limits[0], trim=True), number(limits[1], trim=True)), muted

    def _active(self, panel: Panel) -> int | None:
        maps = panel.shown.maps
        if len(maps) == 1:
            return 0
        return next((i for i, m in enumerate(maps) if m.channel == self.channel), None)

    def _value(self, panel: Panel) -> str:
        """Return what a panel has at the pinned place, or what its colours mean where that is not plain."""
        shown = panel.shown
        if self.view.pin is None:
            each = shown.kind == "maps" and len(set(self.ranges.get((panel.id, shown.key), []))) > 1
            return self.say("figure.each_map") if each else ""
        if panel.role == "picture":
            return f"x {self.view.pin[0]}  y {self.view.pin[1]}"
        value = arithmetic.value_at(shown, self.view.pin, self.channel)
        if value is None:
            return ""
        if shown.kind == "maps" and shown.maps[0].channel is None:
            label = shown.maps[0].label
            return self.say("figure.value", name=label, value=number(value)) if label else number(value)
        return self.say("figure.value", name=self.say("figure.channel", n=self.channel), value=number(value))


def _on_pixels(tile: Tile, size: tuple[int, int]) -> np.ndarray:
    """Return uint8 [H W 3]: to each pixel of the network's input the colour of the cell that holds it."""
    rows, columns = (
        cells(tile.rgb.shape[axis], tile.stride[axis], tile.offset[axis], np.arange(size[axis]) + 0.5)
        for axis in (0, 1)
    )
    return tile.rgb[rows][:, columns]
