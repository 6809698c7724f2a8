"""The kinds of things in a scene, as parts with signed distance fields.

Names need the whole: a house is a square under a triangle, a tree, a sign and a pine are a disc, a square
and a triangle on a pole, a ring is a disc with a hole. A patch of a few pixels cannot tell them apart. One kind is
the other way round: a beachball is a ball with fine stripes, so that only its fine texture tells.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

KINDS = ("ball", "tree", "box", "sign", "tent", "pine", "house", "ring", "beachball")
CLASSES = ("background", *KINDS)
PARTS_PER_KIND = 2  # at most


@dataclass(frozen=True, eq=False)
class Disc:
    """A disc, or with `hole` a ring; lengths in scene units, from the centre of its object."""

    x: float
    y: float
    radius: float
    hole: float = 0.0

    def field(self, x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the signed distance [y x] to the edge, negative inside."""
        dx, dy = x - np.float32(self.x), y - np.float32(self.y)
        distance = np.sqrt((dx * dx)[None, :] + (dy * dy)[:, None])
        if not self.hole:
            distance -= np.float32(self.radius)
            return distance
        distance -= np.float32((self.radius + self.hole) / 2)
        np.abs(distance, out=distance)
        distance -= np.float32((self.radius - self.hole) / 2)
        return distance

    def extent(self) -> tuple[float, float, float, float]:
        """Return left, top, right and bottom."""
        return self.x - self.radius, self.y - self.radius, self.x + self.radius, self.y + self.radius

    def reach(self) -> float:
        """Return how far the part reaches from the origin."""
        return math.hypot(self.x, self.y) + self.radius

    def turned(self, angle: float) -> "Disc":
        """Return the part turned about the origin."""
        return replace(self, **dict(zip("xy", _turn(self.x, self.y, angle), strict=True)))

    def placed(self, scale: float, x: float, y: float) -> "Disc":
        """Return the part scaled, with (x, y) of the old frame as the new origin."""
        return Disc((self.x - x) * scale, (self.y - y) * scale, self.radius * scale, self.hole * scale)


@dataclass(frozen=True, eq=False)
class Polygon:
    """A convex polygon; its corners run clockwise on the screen (y points down)."""

    corners: tuple[tuple[float, float], ...]

    def field(self, x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the signed distance [y x] to the edge, negative inside.

        It is the greatest of the distances to the edges' lines: exact inside and along the edges, and never
        more than the distance near a corner.
        """
        field = None
        for (x0, y0), (x1, y1) in zip(self.corners, (*self.corners[1:], self.corners[0]), strict=True):
            length = math.hypot(x1 - x0, y1 - y0)
            nx, ny = (y1 - y0) / length, (x0 - x1) / length
            line = (x * np.float32(nx))[None, :] + (y * np.float32(ny) - np.float32(nx * x0 + ny * y0))[:, None]
            field = line if field is None else np.maximum(field, line, out=field)
        return field

    def extent(self) -> tuple[float, float, float, float]:
        """Return left, top, right and bottom."""
        xs, ys = zip(*self.corners, strict=True)
        return min(xs), min(ys), max(xs), max(ys)

    def reach(self) -> float:
        """Return how far the part reaches from the origin."""
        return max(math.hypot(x, y) for x, y in self.corners)

    def turned(self, angle: float) -> "Polygon":
        """Return the part turned about the origin."""
        return Polygon(tuple(_turn(x, y, angle) for x, y in self.corners))

    def placed(self, scale: float, x: float, y: float) -> "Polygon":
        """Return the part scaled, with (x, y) of the old frame as the new origin."""
        return Polygon(tuple(((cx - x) * scale, (cy - y) * scale) for cx, cy in self.corners))


Part = Disc | Polygon


def _turn(x: float, y: float, angle: float) -> tuple[float, float]:
    c, s = math.cos(angle), math.sin(angle)
    return c * x - s * y, s * x + c * y


def rectangle(width: float, height: float, x: float = 0.0, y: float = 0.0) -> Polygon:
    """Return an upright rectangle about (x, y)."""
    a, b = width / 2, height / 2
    return Polygon(((x - a, y - b), (x + a, y - b), (x + a, y + b), (x - a, y + b)))


def triangle(width: float, height: float, lean: float = 0.0, y: float = 0.0) -> Polygon:
    """Return a triangle on its base, with its middle height at `y` and its tip moved sideways by `lean`."""
    return Polygon(((lean, y - height / 2), (width / 2, y + height / 2), (-width / 2, y + height / 2)))


def _pole(top: float, u: NDArray[np.float64]) -> Polygon:
    length = 0.62 + 0.36 * u[2]
    return rectangle(0.17 + 0.11 * u[3], length + 0.1, y=top + (length - 0.1) / 2)


def parts(kind: str, u: NDArray[np.float64]) -> tuple[Part, ...]:
    """Return the parts of one thing about one unit wide, upright; the first is the main one, drawn last.

    Args:
        kind: one of `KINDS`.
        u: four numbers in [0, 1), its proportions.
    """
    if kind in ("ball", "beachball"):
        return (Disc(0, 0, 0.5),)
    if kind == "ring":
        return (Disc(0, 0, 0.5, hole=0.24 + 0.1 * u[0]),)
    if kind == "box":
        return (rectangle(1, 0.72 + 0.55 * u[0]),)
    if kind == "tent":
        return (triangle(1, 0.75 + 0.4 * u[0], lean=0.3 * (u[1] - 0.5)),)
    if kind == "tree":
        return Disc(0, 0, 0.5), _pole(0.47, u)
    if kind == "sign":
        height = 0.62 + 0.3 * u[0]
        return rectangle(1, height), _pole(height / 2, u)
    if kind == "pine":
        height = 0.9 + 0.35 * u[0]
        return triangle(1, height, lean=0.12 * (u[1] - 0.5)), _pole(height / 2, u)
    wall, roof = 0.62 + 0.3 * u[0], 0.42 + 0.25 * u[1]  # house
    return rectangle(1, wall), triangle(1.1 + 0.2 * u[2], roof, lean=0.12 * (u[3] - 0.5), y=-(wall + roof) / 2)


def stand(kind: str, u: NDArray[np.float64], tilt: float, height: float, widest: float) -> tuple[Part, ...]:
    """Return the parts of one thing as it stands: tilted, `height` tall, with the origin in the middle of its box.

    Args:
        kind: one of `KINDS`.
        u: four numbers in [0, 1), its proportions.
        tilt: angle in radians.
        height: height of its upright box after tilting, scene units.
        widest: a wider thing is made smaller as a whole until it is this wide.
    """
    shapes = [part.turned(tilt) for part in parts(kind, u)]
    left, top, right, bottom = extent(shapes)
    scale = min(height / (bottom - top), widest / (right - left))
    return tuple(shape.placed(scale, (left + right) / 2, (top + bottom) / 2) for shape in shapes)


def extent(shapes: tuple[Part, ...] | list[Part]) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of parts together."""
    lefts, tops, rights, bottoms = zip(*(shape.extent() for shape in shapes), strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)
