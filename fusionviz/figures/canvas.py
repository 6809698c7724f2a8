"""Drawing on a slide in points from the top left: words, runs of coloured words, formulas, boxes, maps."""

import math
from dataclasses import dataclass

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Circle, FancyBboxPatch, PathPatch, Rectangle
from matplotlib.path import Path
from matplotlib.textpath import text_to_path
from matplotlib.transforms import Affine2D

from fusionviz.figures import fonts
from fusionviz.scales import ROLE_COLOURS

WIDTH, HEIGHT = 960.0, 540.0
"""A slide of 16:9 in points."""

_DASH, _PAUSE = 2.8, 2.1


def _style(thick: float, dashed: bool) -> object:
    """Return a line's style; matplotlib multiplies dashes with the line's thickness, here they are points."""
    return (0.0, (_DASH / thick, _PAUSE / thick)) if dashed else "-"


@dataclass(frozen=True)
class Theme:
    """The colours of a slide besides those of the maps."""

    paper: str
    ink: str
    muted: str
    line: str
    card: str
    warning: tuple[str, str]
    calm: tuple[str, str]
    plain: tuple[str, str]
    low: str
    high: str
    fused: str

    def role(self, name: str) -> str:
        """Return the colour of low, high or fused; ink for anything else."""
        return getattr(self, name) if name in ("low", "high", "fused") else self.ink

    def badge(self, kind: str) -> tuple[str, str]:
        """Return (ink, ground) of a badge for learned numbers of a kind of provenance."""
        return {"random": self.warning, "analytic": self.plain}.get(kind, self.calm)


LIGHT = Theme(
    paper="#FFFFFF",
    ink="#161B22",
    muted="#5B6573",
    line="#DFE3E9",
    card="#FFFFFF",
    warning=("#A61B1B", "#FCE4E2"),
    calm=("#1B6B43", "#DFF2E7"),
    plain=("#4A5462", "#EBEEF2"),
    **ROLE_COLOURS["light"],
)
DARK = Theme(
    paper="#0E1117",
    ink="#EEF1F5",
    muted="#A3ADBA",
    line="#2B323C",
    card="#151A22",
    warning=("#FFB0A8", "#47191A"),
    calm=("#8FDCB2", "#15372A"),
    plain=("#C3CBD6", "#262D37"),
    **ROLE_COLOURS["dark"],
)


@dataclass(frozen=True)
class Tile:
    """One map on a slide: colours of its cells, and where they lie in the picture.

    Attributes:
        rgb: uint8 [h w 3], one colour per cell.
        stride, offset: (y, x) in pixels of the network's input, as in `board.PanelView`.
    """

    rgb: np.ndarray
    stride: tuple[float, float]
    offset: tuple[float, float]


def cells(length: int, stride: float, offset: float, places: np.ndarray) -> np.ndarray:
    """Return the cell to which each place (in pixels) belongs: the one whose centre is nearest.

    So the first and the last cell reach to the border, however far their centres are from it.
    """
    return np.clip(np.floor((places - offset) / stride + 0.5), 0, length - 1).astype(np.intp)


def cell_edges(length: int, stride: float, offset: float, cell: int, extent: float) -> tuple[float, float]:
    """Return where a cell begins and ends, in pixels of a picture of `extent` pixels."""
    begin = 0.0 if cell == 0 else offset + (cell - 0.5) * stride
    end = extent if cell == length - 1 else offset + (cell + 0.5) * stride
    return min(max(begin, 0.0), extent), min(max(end, 0.0), extent)


class Maps(Artist):
    """A square grid of maps, painted cell by cell at the resolution of the output: no smoothing, nowhere.

    Painting happens when the figure is written, because only then the number of dots is known; every tile begins
    and ends on a whole dot, so equal cells look equal.
    """

    def __init__(
        self, tiles: list[Tile], boxes: list[tuple[float, float, float, float]], size: tuple[int, int]
    ) -> None:
        super().__init__()
        self.tiles, self.boxes, self.picture = tiles, boxes, size

    def draw(self, renderer) -> None:  # noqa: ANN001 - a matplotlib renderer of any backend
        """Paint every tile."""
        if not self.get_visible():
            return
        zoom = renderer.get_image_magnification()
        dot = renderer.points_to_pixels(1.0)
        vector = renderer.option_scale_image()
        high = self.get_figure().bbox.height
        for tile, (x, y, w, h) in zip(self.tiles, self.boxes, strict=True):
            left, right = (round(v * dot * zoom) for v in (x, x + w))
            top, bottom = (round(v * dot * zoom) for v in (y, y + h))
            dots = (max(1, bottom - top), max(1, right - left))
            index = []
            for axis in (0, 1):
                places = (np.arange(dots[axis]) + 0.5) / dots[axis] * self.picture[axis]
                index.append(cells(tile.rgb.shape[axis], tile.stride[axis], tile.offset[axis], places))
            rgba = np.full((*dots, 4), 255, np.uint8)
            rgba[..., :3] = tile.rgb[index[0]][:, index[1]]
            context = renderer.new_gc()
            context.set_clip_rectangle(self.get_clip_box())
            low = high - bottom / zoom
            if vector:
                # With a transform, a vector file says that its dots are not to be smoothed.
                fill = Affine2D().scale(dots[1] / zoom, dots[0] / zoom)
                renderer.draw_image(context, left / zoom, low, rgba[::-1], fill)
            else:
                renderer.draw_image(context, left, round(low), rgba[::-1])
            context.restore()


class Canvas:
    """A slide to draw on; places and sizes are points, y runs down, text sits on its baseline."""

    def __init__(self, language: str, theme: Theme) -> None:
        self.figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72), facecolor=theme.paper)
        self.theme, self.language = theme, language
        self.family = fonts.families(language)
        self._order = 0
        self.to_dots = Affine2D().scale(1 / 72, -1 / 72).translate(0, HEIGHT / 72) + self.figure.dpi_scale_trans

    # --- words -------------------------------------------------------------------------------
    def width(self, text: str, size: float, *, bold: bool = False, family: list[str] | None = None) -> float:
        """Return how wide a text is, in points."""
        return fonts.width(self.spelt(text), size, family or self.family, bold=bold)

    def spelt(self, text: str) -> str:
        """Return the text with the middle dot of Latin typesetting: a Chinese font's own is as wide as a word sign."""
        return text.replace(" · ", " ⋅ ") if self.language == "zh" else text

    def text(
        self,
        x: float,
        y: float,
        text: str,
        size: float,
        colour: str | None = None,
        *,
        bold: bool = False,
        align: str = "left",
        room: float | None = None,
        family: list[str] | None = None,
    ) -> float:
        """Write one line, cut with an ellipsis to `room` points if given; returns its width."""
        family = family or self.family
        text = self.spelt(text)
        if room is not None:
            text = fonts.shorten(text, size, family, room, bold=bold)
        self.figure.text(
            x,
            y,
            text,
            fontsize=size,
            color=colour or self.theme.ink,
            family=family,
            fontweight="bold" if bold else "normal",
            ha=align,
            va="baseline",
            transform=self.to_dots,
            parse_math=False,
            zorder=self._next(),
        )
        return self.width(text, size, bold=bold, family=family)

    def fitted(
        self, text: str, size: float, least: float, room: float, *, bold: bool = False, family: list[str] | None = None
    ) -> float:
        """Return the largest size from `size` down to `least` at which a text fits into `room` points."""
        wide = self.width(text, size, bold=bold, family=family)
        return size if wide <= room else max(least, size * room / wide * 0.995)

    def run(
        self,
        x: float,
        y: float,
        parts: list[tuple[str, str]],
        size: float,
        *,
        family: list[str] | None = None,
        align: str = "left",
        bold: bool = False,
        room: float | None = None,
    ) -> float:
        """Write (text, colour) parts one after another as one line; returns its width.

        If `room` is given and they need more, the widest part is cut: the others keep what they say.
        """
        parts = [(self.spelt(text), colour) for text, colour in parts]
        widths = [self.width(t, size, family=family, bold=bold) for t, _ in parts]
        if room is not None and sum(widths) > room:
            i = widths.index(max(widths))
            free = max(0.0, room - sum(widths) + widths[i])
            parts[i] = (fonts.shorten(parts[i][0], size, family or self.family, free, bold=bold), parts[i][1])
            widths[i] = self.width(parts[i][0], size, family=family, bold=bold)
        total = sum(widths)
        x -= {"left": 0.0, "center": total / 2, "right": total}[align]
        for (text, colour), wide in zip(parts, widths, strict=True):
            if text.strip():
                lead = self.width(text[: len(text) - len(text.lstrip())], size, family=family, bold=bold)
                self.text(x + lead, y, text.strip(), size, colour, family=family, bold=bold)
            x += wide
        return total

    # --- shapes ------------------------------------------------------------------------------
    def card(
        self, x: float, y: float, w: float, h: float, fill: str, edge: str | None = None, radius: float = 6
    ) -> None:
        """Draw a box with round corners."""
        box = FancyBboxPatch(
            (x, y), w, h, boxstyle=f"round,pad=0,rounding_size={radius}", fc=fill, ec=edge or "none", lw=0.8
        )
        self._add(box)

    def bar(self, x: float, y: float, w: float, h: float, fill: str, edge: str | None = None) -> None:
        """Draw a rectangle."""
        self._add(Rectangle((x, y), w, h, fc=fill, ec=edge or "none", lw=0.5 if edge else 0))

    def outline(self, x: float, y: float, w: float, h: float, thick: float = 1.0) -> None:
        """Outline a cell so that it shows on any colours: dark around light."""
        for colour, line in (("#000000", thick * 2.2), ("#FFFFFF", thick)):
            self._add(Rectangle((x, y), w, h, fc="none", ec=colour, lw=line, joinstyle="miter"))

    def frame(
        self, x: float, y: float, w: float, h: float, colour: str, thick: float = 1.2, *, dashed: bool = False
    ) -> None:
        """Draw a frame in one colour."""
        style = _style(thick, dashed)
        self._add(Rectangle((x, y), w, h, fc="none", ec=colour, lw=thick, ls=style, joinstyle="miter", capstyle="butt"))

    def disc(
        self, x: float, y: float, radius: float, fill: str, edge: str, thick: float = 1.1, *, dashed: bool = False
    ) -> None:
        """Draw a disc with an edge."""
        self._add(Circle((x, y), radius, fc=fill, ec=edge, lw=thick, ls=_style(thick, dashed), capstyle="butt"))

    def line(self, points: list[tuple[float, float]], colour: str, thick: float) -> None:
        """Draw a line through points."""
        self._add(PathPatch(Path(points), fc="none", ec=colour, lw=thick, capstyle="butt"))

    def polygon(self, points: list[tuple[float, float]], fill: str, thick: float = 0.0) -> None:
        """Fill a polygon, `thick` points larger than its corners say."""
        self._add(PathPatch(Path([*points, points[0]], closed=True), fc=fill, ec=fill, lw=thick, joinstyle="miter"))

    def ring(self, x: float, y: float, radius: float) -> None:
        """Draw a ring that shows on any colours: light on dark."""
        for colour, line in (("#000000", 2.4), ("#FFFFFF", 1.1)):
            self._add(Circle((x, y), radius, fc="none", ec=colour, lw=line))

    def curve(self, points: list[tuple[float, float]], colour: str, thick: float) -> None:
        """Draw a quadratic curve from the first point to the third, bent towards the second."""
        path = Path(points, [Path.MOVETO, Path.CURVE3, Path.CURVE3])
        self._add(PathPatch(path, fc="none", ec=colour, lw=thick, capstyle="butt"))

    def _add(self, patch: Artist) -> None:
        patch.set_transform(self.to_dots)
        patch.set_zorder(self._next())
        self.figure.add_artist(patch)

    def _next(self) -> int:
        """What is drawn later lies on top, whatever kind of thing it is."""
        self._order += 1
        return self._order

    def pill(self, right: float, y: float, text: str, kind: str, room: float, size: float = 7.2) -> float:
        """Write a badge that ends at `right` on the baseline y; returns its width."""
        ink, ground = self.theme.badge(kind)
        text = fonts.shorten(self.spelt(text), size, self.family, room - 10)
        wide = self.width(text, size) + 10
        self.card(right - wide, y - size - 1.6, wide, size + 5.0, ground, radius=(size + 5) / 2)
        self.text(right - wide / 2, y, text, size, ink, align="center")
        return wide

    # --- maps --------------------------------------------------------------------------------
    def maps(self, tiles: list[Tile], boxes: list[tuple[float, float, float, float]], size: tuple[int, int]) -> None:
        """Paint maps into boxes (x, y, w, h); each fills its box with the whole picture of `size` (h, w) pixels."""
        maps = Maps(tiles, boxes, size)
        maps.set_zorder(self._next())
        self.figure.add_artist(maps)

    # --- formulas ----------------------------------------------------------------------------
    def formula(self, x: float, y: float, tex: str, size: float, room: float) -> float:
        """Set TeX on the baseline y with X, Y, Z in the colours of low, high, fused; smaller if it needs more room.

        The whole formula is set once, as mathtext does it, and then each sign is filled with its own colour; so
        no spacing is lost where the colour changes.

        Returns:
            its width in points.
        """
        prop = FontProperties(size=size)
        prop.set_math_fontfamily("stix")
        wide = text_to_path.get_text_width_height_descent(f"${tex}$", prop, "mathtext")[0]
        size *= min(1.0, room / max(wide, 1e-6))
        terms = {self._sign(letter, prop): role for letter, role in (("X", "low"), ("Y", "high"), ("Z", "fused"))}
        glyphs, outlines, rules = text_to_path.get_glyphs_mathtext(prop, f"${tex}$")
        shapes: dict[str, list[Path]] = {}
        for sign, left, up, scale in glyphs:
            vertices, codes = outlines[sign]
            if len(vertices):
                placed = Path(np.asarray(vertices) * scale + [left, up], codes)
                shapes.setdefault(self.theme.role(terms.get(sign, "")), []).append(placed)
        shapes.setdefault(self.theme.ink, []).extend(Path(vertices, codes) for vertices, codes in rules)
        zoom = size / text_to_path.FONT_SCALE
        place = Affine2D().scale(zoom, -zoom).translate(x, y) + self.to_dots
        for colour, paths in shapes.items():
            if paths:
                whole = PathPatch(Path.make_compound_path(*paths), fc=colour, ec="none", lw=0)
                whole.set_transform(place)
                whole.set_zorder(self._next())
                self.figure.add_artist(whole)
        return min(wide, room)

    @staticmethod
    def _sign(letter: str, prop: FontProperties) -> str:
        return text_to_path.get_glyphs_mathtext(prop, f"${letter}$")[0][0][0]


def grid_side(count: int) -> int:
    """Return the side of the smallest square grid that holds `count` maps."""
    return max(1, math.isqrt(max(count - 1, 0)) + 1)
