"""What stands where in a scene, in scene units: one unit is a 128th of the picture's side at every size.

Nothing here knows the size in pixels, so a scene drawn at another size is the same scene. Things keep clear of
each other by a coarse map of distances; where they may hide each other, every part of every thing stays at least
half visible, so that its name can still be told.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fusionviz.scenes.colours import COLOURS, SHADES, rgb, shades
from fusionviz.scenes.draws import uniform
from fusionviz.scenes.kinds import KINDS, Part, extent, rectangle, stand

SIDE = 128.0  # scene units in a picture's side
HEIGHTS = (6.0, 80.0)  # of things, log-uniform
WIDEST = 88.0
OBJECTS = (2, 9)
STICKS = 5  # at most
FINE = (2.6, 4.2)  # period of a beachball's stripes
FINE_TEXTURE = "pinstriped"
COARSE = 7.0  # least period of every other texture: a local look tells it from fine stripes
TEXTURES = ("plain", "striped", "dotted", "checked", "patchy")
_SHARES = (0.36, 0.52, 0.68, 0.84, 1.0)  # of textures, summed up
VISIBLE = 0.5  # of every part, where things may hide each other

_LAYOUT, _THINGS, _PLACES, _GROUND, _STICKS = range(5)  # streams of random numbers
_PER_THING = 32
_TRIALS = 48
_STANDS_OUT = 0.07  # squared distance of two colours in RGB
_CLEAR = 1.6  # between things
_CELLS = 64  # of the map of distances, across
_CELL = SIDE / _CELLS
_NEAR = _CELL * 0.71  # from a cell's middle to its corner


@dataclass(frozen=True, eq=False)
class Coat:
    """How one part is painted: a texture of two shades of a colour, turned by `angle`, `period` in scene units."""

    colour: str
    texture: str
    first: NDArray[np.float32]
    second: NDArray[np.float32]
    angle: float
    period: float
    phase: float


@dataclass(frozen=True, eq=False)
class Thing:
    """One thing or stray stick: its parts about (x, y), main part first, each with its coat."""

    kind: str
    x: float
    y: float
    height: float
    box: tuple[float, float, float, float]
    shapes: tuple[Part, ...]
    coats: tuple[Coat, ...]

    @property
    def colour(self) -> str:
        """Return the name of the main part's colour."""
        return self.coats[0].colour

    @property
    def texture(self) -> str:
        """Return the name of the main part's texture."""
        return self.coats[0].texture


@dataclass(frozen=True, eq=False)
class Ground:
    """The background and the light.

    `colours` [3 3]; an octave is the width and height of its cells and its weight; `light` is where shadows fall
    (x, y), `bright` how much brighter the picture is towards the lamp.
    """

    colours: NDArray[np.float32]
    octaves: tuple[tuple[float, float, float], ...]
    hue_octaves: tuple[tuple[float, float, float], ...]
    contrast: float
    hue_contrast: float
    grain: float
    light: tuple[float, float]
    bright: float
    noise: float


@dataclass(frozen=True, eq=False)
class Plan:
    """A scene before it is drawn. `things` in the order of painting, the farthest first."""

    seed: int
    things: tuple[Thing, ...]
    sticks: tuple[Thing, ...]
    ground: Ground


def plan(seed: int, *, occlusion: bool = False, objects: int | None = None) -> Plan:
    """Decide what stands where.

    Args:
        seed: which scene.
        occlusion: things may hide parts of each other.
        objects: how many things; by default the seed decides.
    """
    u = uniform(seed, _LAYOUT, 8)
    fewest, most = OBJECTS
    count = objects or fewest + int(u[0] * (most - fewest + 1))
    ground = _ground(seed)
    draws = uniform(seed, _THINGS, count * _PER_THING).reshape(count, _PER_THING)
    ratio = math.log(HEIGHTS[1] / HEIGHTS[0])
    heights = HEIGHTS[0] * np.exp(ratio * draws[:, 0])
    # The big ones first: the small ones find a place between them, and in front of them.
    rank = np.argsort(-heights * np.exp(0.7 * (draws[:, 1] - 0.5)) if occlusion else -heights)
    floor = _Crowd() if occlusion else _Floor()
    things = []
    for position, k in enumerate(rank):
        trials = uniform(seed, _PLACES + 16 * (1 + position), 4 * _TRIALS).reshape(4, _TRIALS)
        if thing := _settle(draws[k], float(heights[k]), floor, trials, ground):
            things.append(thing)
    return Plan(seed, tuple(things), _sticks(seed, floor, ground), ground)


# --- places ---------------------------------------------------------------------------------------
class _Floor:
    """Where there is room: for every cell of a coarse map, a lower bound of the distance to what stands there."""

    middles = ((np.arange(_CELLS) + 0.5) * _CELL).astype(np.float32)

    def __init__(self) -> None:
        self.free = np.full((_CELLS, _CELLS), SIDE, np.float32)

    def room(self, x: NDArray | float, y: NDArray | float) -> NDArray[np.float32]:
        """Return a lower bound of the distance from (x, y) to anything placed."""
        column, row = (np.asarray(v / _CELL, np.intp) for v in (x, y))
        return self.free[row.clip(0, _CELLS - 1), column.clip(0, _CELLS - 1)] - _NEAR

    def put(self, shapes: tuple[Part, ...], x: float, y: float) -> None:
        """Take the place of parts about (x, y); the hole of a ring is taken too."""
        columns, rows = self.middles - np.float32(x), self.middles - np.float32(y)
        reach = max(shape.reach() for shape in shapes)
        field = np.minimum.reduce([_solid(shape).field(columns, rows) for shape in shapes])
        # Near a sharp corner a polygon's field says too little; the circle around everything helps.
        around = np.sqrt((columns**2)[None, :] + (rows**2)[:, None]) - np.float32(reach)
        np.minimum(self.free, np.maximum(field, around), out=self.free)

    def seek(self, shapes: tuple[Part, ...], trials: NDArray[np.float64]) -> tuple[float, float] | None:
        """Return the first place of `trials` where the parts keep clear of everything."""
        x, y = _inside(shapes, trials[0], trials[1])
        fits = np.flatnonzero(self.room(x, y) >= max(shape.reach() for shape in shapes) + _CLEAR)
        return (float(x[fits[0]]), float(y[fits[0]])) if fits.size else None

    def freest(self) -> tuple[float, float, float]:
        """Return the place with the most room, and how much."""
        edge = np.minimum(self.middles, SIDE - self.middles)
        free = np.minimum(self.free - np.float32(_NEAR), np.minimum(edge[None, :], edge[:, None]))
        row, column = divmod(int(free.argmax()), _CELLS)
        return float(self.middles[column]), float(self.middles[row]), float(free[row, column]) - _CLEAR


class _Crowd(_Floor):
    """Where things may hide each other: which part shows in each cell of a map of one cell per unit."""

    cells = (np.arange(int(SIDE)) + 0.5).astype(np.float32)

    def __init__(self) -> None:
        super().__init__()
        self.shows = np.zeros((int(SIDE), int(SIDE)), np.int64)  # 0: no part
        # Of every part, how many cells show, and how many must: half of what showed at first. Cell 0 is no part.
        self.left, self.least = np.zeros(1, np.int64), np.zeros(1, np.int64)
        self.middle = []

    def _masks(self, shapes: tuple[Part, ...], x: float, y: float) -> tuple[tuple[slice, slice], list[NDArray]]:
        left, top, right, bottom = extent(shapes)
        box = [int(v) for v in (y + top, y + bottom + 1, x + left, x + right + 1)]
        window = slice(*box[:2]), slice(*box[2:])
        columns, rows = self.cells[window[1]] - np.float32(x), self.cells[window[0]] - np.float32(y)
        return window, [shape.field(columns, rows) < 0 for shape in shapes]

    def put(self, shapes: tuple[Part, ...], x: float, y: float) -> None:
        super().put(shapes, x, y)
        window, masks = self._masks(shapes, x, y)
        first, shows = len(self.left), self.shows[window]
        for number, mask in reversed(list(enumerate(masks, first))):  # the main part lies in front
            shows[mask] = number
        self.left = np.bincount(self.shows.ravel(), minlength=first + len(masks))
        new = self.left[first:]
        self.least = np.append(self.least, np.maximum(np.ceil(VISIBLE * new), np.minimum(4, new)).astype(np.int64))
        self.middle.append((x, y, max(shape.reach() for shape in shapes)))

    def hides(self, shapes: tuple[Part, ...], x: float, y: float) -> float | None:
        """Return the share of the new parts' cells that would hide something; None if some part would be lost."""
        window, masks = self._masks(shapes, x, y)
        mask = np.logical_or.reduce(masks)
        lost = np.bincount(self.shows[window][mask], minlength=len(self.left))
        left = self.left - lost
        if (left < self.least)[1:].any():
            return None
        return float(lost[1:].sum() / max(mask.sum(), 1))

    def seek(self, shapes: tuple[Part, ...], trials: NDArray[np.float64]) -> tuple[float, float] | None:
        """Return a place where the parts hide some of another thing; else one where they hide too little to matter."""
        if not self.middle or (len(self.middle) > 1 and trials[3, 0] < 0.5):
            return super().seek(shapes, trials)
        reach = max(shape.reach() for shape in shapes)
        x, y, about = np.array(self.middle)[(trials[2] * len(self.middle)).astype(int)].T
        angle, apart = 2 * math.pi * trials[0], (0.35 + 0.6 * trials[1]) * (about + reach)
        x, y = x + apart * np.cos(angle), y + apart * np.sin(angle)
        left, top, right, bottom = extent(shapes)
        inside = (x + left >= 1) & (x + right <= SIDE - 1) & (y + top >= 1) & (y + bottom <= SIDE - 1)
        spare = None
        for k in np.flatnonzero(inside)[:16]:
            share = self.hides(shapes, float(x[k]), float(y[k]))
            if share is not None and share >= 0.12:
                return float(x[k]), float(y[k])
            if share is not None and spare is None:
                spare = float(x[k]), float(y[k])
        return spare


def _solid(shape: Part) -> Part:
    return replace(shape, hole=0.0) if getattr(shape, "hole", 0) else shape


def _inside(shapes: tuple[Part, ...], u: NDArray, v: NDArray) -> tuple[NDArray, NDArray]:
    """Spread (u, v) over the places where the parts lie wholly in the picture."""
    left, top, right, bottom = extent(shapes)
    return 1 - left + u * (SIDE - 2 - right + left), 1 - top + v * (SIDE - 2 - bottom + top)


def _settle(u: NDArray[np.float64], height: float, floor: _Floor, trials: NDArray, ground: Ground) -> Thing | None:
    """Find a place for a thing; where there is none it is drawn smaller, at last in the freest place."""
    kind = KINDS[int(u[2] * len(KINDS))]
    tilt = 0.6 * (u[3] - 0.5)
    while height >= HEIGHTS[0]:
        shapes = stand(kind, u[4:8], tilt, height, WIDEST)
        if place := floor.seek(shapes, trials):
            break
        height *= 0.8
    else:
        x, y, room = floor.freest()
        shapes = stand(kind, u[4:8], tilt, HEIGHTS[0], WIDEST)
        grow = room / max(shape.reach() for shape in shapes)
        if grow < 1:
            return None  # the picture is full
        shapes = stand(kind, u[4:8], tilt, HEIGHTS[0] * min(grow, 1.5), WIDEST)
        place = x, y
    floor.put(shapes, *place)
    return _dress(kind, shapes, place, u[8:], ground)


# --- looks ----------------------------------------------------------------------------------------
def _dress(kind: str, shapes: tuple[Part, ...], place: tuple[float, float], u: NDArray, ground: Ground) -> Thing:
    """Give every part of a thing its coat. The kind has no say in it, but for the fine stripes of a beachball."""
    x, y = place
    left, top, right, bottom = map(float, extent(shapes))
    coats = []
    for part, shape in enumerate(shapes):
        v = u[10 * part : 10 * part + 10]
        pole = part == 1 and kind != "house"
        texture = "plain" if pole else TEXTURES[bisect_right(_SHARES, v[5])]
        x0, y0, x1, y1 = shape.extent()
        period = max(COARSE, (0.22 + 0.2 * v[6]) * min(x1 - x0, y1 - y0))
        if kind == "beachball":
            texture = FINE_TEXTURE
            period = FINE[0] + v[6] * (min(FINE[1], max(FINE[0], 0.4 * (bottom - top))) - FINE[0])
        colour, first, second = _colours(v[:5], ground)
        coats.append(Coat(colour, texture, first, second, math.pi * v[7], period, v[8]))
    return Thing(kind, x, y, bottom - top, (x + left, y + top, x + right, y + bottom), shapes, tuple(coats))


def _colours(u: NDArray, ground: Ground) -> tuple[str, NDArray, NDArray]:
    """Choose a colour that stands out from the ground, the first of three or else the best, and its partner."""
    own, partner = shades()
    names = (u[:3] * len(COLOURS)).astype(int)
    shade = int(u[3] * SHADES)
    apart = ((own[names, shade][:, None] - ground.colours[None]) ** 2).sum(-1).min(1)
    enough = np.flatnonzero(apart > _STANDS_OUT)
    name = int(names[enough[0] if enough.size else apart.argmax()])
    return COLOURS[name], own[name, shade], partner[name, shade]


def _ground(seed: int) -> Ground:
    u = uniform(seed, _GROUND, 40)
    # Three colours on a short walk through hue and lightness: harmonious, never flat.
    hue = 360 * u[0] + np.array([0, 1, -1]) * (20 + 60 * u[1:4])
    lightness = 0.42 + 0.4 * u[4] + np.array([0, -1, 1]) * (0.06 + 0.12 * u[5:8])
    chroma = (0.02 + 0.12 * u[8]) * (0.7 + 0.6 * u[9:12])
    stretch = 2.0 ** (3 * u[12] - 1.5) if u[13] < 0.4 else 1.0
    root = math.sqrt(stretch)
    slope = 0.5 + 0.55 * u[14]  # how fast the octaves fade: soft clouds or rough cloth
    cells = (56.0, 28.0, 14.0, 7.0, 3.5)
    octaves = tuple((cell * root, cell / root, slope**k) for k, cell in enumerate(cells))
    spotted = u[22] < 0.45  # patches with an edge, like moss or fallen leaves; else a slow change of colour
    spot = 9.0 + 14 * u[21] if spotted else 60.0
    side = 1 if u[15] < 0.5 else -1
    return Ground(
        colours=rgb(lightness, chroma, hue),
        octaves=octaves,
        hue_octaves=tuple((cell, cell, weight) for cell, weight in ((spot, 1.0), (spot / 2.6, 0.6))),
        contrast=1.0 + 3.0 * u[16] ** 2,
        hue_contrast=2.0 + 4.0 * u[23] if spotted else 1.0,
        grain=0.02 + 0.06 * u[17],
        light=(side * (0.3 + 0.5 * u[18]), 0.9),
        bright=0.06 + 0.16 * u[19],
        noise=(2.0 + 4.0 * u[20]) / 255,
    )


def _sticks(seed: int, floor: _Floor, ground: Ground) -> tuple[Thing, ...]:
    """Scatter stray sticks, which look like poles but belong to nothing; they keep clear of all things."""
    u = uniform(seed, _STICKS, 1 + 2 * STICKS * 20)
    found, wanted = [], int(u[0] * (STICKS + 1))
    for v in u[1:].reshape(-1, 20):
        if len(found) == wanted:
            break
        length, width, angle = 8 + 30 * v[0] ** 2, 1.0 + 2.6 * v[1], math.pi * v[2]
        x, y = SIDE * v[3], SIDE * v[4]
        along = np.linspace(-0.5, 0.5, 9) * length
        xs, ys = x - along * math.sin(angle), y + along * math.cos(angle)
        if floor.room(xs.clip(0, SIDE - 1), ys.clip(0, SIDE - 1)).min() < width / 2 + _CLEAR:
            continue
        shapes = (rectangle(width, length).turned(angle),)
        colour, first, second = _colours(v[5:10], ground)
        coat = Coat(colour, "plain", first, second, 0.0, COARSE, 0.0)
        left, top, right, bottom = extent(shapes)
        box = x + left, y + top, x + right, y + bottom
        found.append(Thing("stick", x, y, length, box, shapes, (coat,)))
    return tuple(found)
