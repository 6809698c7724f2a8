"""Pixels of a planned scene: every edge is drawn from a signed distance, so it is smooth at every size."""

import math

import numpy as np
from numpy.typing import NDArray

from fusionviz.scenes.draws import sensor_noise, uniform
from fusionviz.scenes.kinds import CLASSES
from fusionviz.scenes.plan import FINE_TEXTURE, SIDE, Coat, Ground, Plan, Thing

_LATTICE = 100  # first stream of the background's noise
_RIM = 1.1  # width of the darker rim of every part
_AROUND = 5.0  # units around a thing that its shadow may reach

Array = NDArray[np.float32]


def _coverage(field: Array, pixel: float) -> Array:
    """Turn a signed distance into the share of each pixel that lies inside."""
    field = field * np.float32(-1 / pixel)
    field += np.float32(0.5)
    return _unit(field)


def _unit(values: Array) -> Array:
    """Cut `values` to [0, 1] in place; np.clip spends more on checking its bounds than on a small window."""
    np.maximum(values, np.float32(0), out=values)
    return np.minimum(values, np.float32(1), out=values)


def _coordinates(size: int) -> Array:
    return ((np.arange(size) + 0.5) * (SIDE / size)).astype(np.float32)


# --- the background -------------------------------------------------------------------------------
def _octave(seed: int, stream: int, size: int, cell: tuple[float, float]) -> Array:
    """Draw smooth noise [y x] in [-1, 1]: random numbers on a lattice of `cell` units, and a smooth step between."""
    shape = [math.ceil(SIDE / c) + 1 for c in (cell[1], cell[0])]
    lattice = (2 * uniform(seed, stream, shape[0] * shape[1]) - 1).astype(np.float32).reshape(shape)
    at = _coordinates(size)
    noise = lattice
    for axis, length in ((0, cell[1]), (1, cell[0])):
        place = at / np.float32(length)
        first = place.astype(np.intp)
        step = place - first
        step *= step * (3 - 2 * step)
        if axis == 0:
            step = step[:, None]
        rise = noise.take(first + 1, axis) - (start := noise.take(first, axis))
        rise *= step
        rise += start
        noise = rise
    return noise


def _noise(
    seed: int, stream: int, size: int, octaves: tuple[tuple[float, float, float], ...], contrast: float
) -> Array:
    """Draw several octaves of noise [y x] in [0, 1] about 0.5; a high contrast makes patches of them."""
    total, power = None, 0.0
    for k, (wide, high, weight) in enumerate(octaves):
        octave = _octave(seed, stream + k, size, (wide, high))
        octave *= np.float32(weight)
        total = octave if total is None else np.add(total, octave, out=total)
        power += weight**2
    total *= np.float32(0.58 * contrast / math.sqrt(power))
    total += np.float32(0.5)
    return _unit(total)


def _background(seed: int, size: int, ground: Ground) -> Array:
    mix = _noise(seed, _LATTICE, size, ground.octaves, ground.contrast)
    hue = _noise(seed, _LATTICE + 50, size, ground.hue_octaves, ground.hue_contrast)
    first, second, third = ground.colours
    picture = np.empty((3, size, size), np.float32)
    for c in range(3):
        np.multiply(mix, second[c] - first[c], out=picture[c])
        picture[c] += first[c]
        picture[c] += hue * (third[c] - first[c])
    return picture


# --- things ---------------------------------------------------------------------------------------
def _bands(place: Array, blur: float) -> Array:
    """Return stripes of period 1 as a share of each pixel [0, 1]: the exact mean over `blur` periods."""
    half = np.float32(max(blur, 1e-3) / 2)

    def area(s: Array) -> Array:
        whole = np.floor(s)
        s = s - whole
        np.minimum(s, 0.5, out=s)
        whole *= np.float32(0.5)
        s += whole
        return s

    band = area(place + half)
    band -= area(place - half)
    band *= np.float32(0.5) / half
    return band


def _texture(coat: Coat, x: Array, y: Array, pixel: float) -> Array | None:
    """Return how much of the second colour each pixel has [y x]; None where there is none."""
    if coat.texture == "plain":
        return None
    c, s = math.cos(coat.angle), math.sin(coat.angle)
    scale, phase = 1 / coat.period, coat.phase
    blur = pixel * scale * (abs(c) + abs(s))
    along = (x * np.float32(c * scale))[None, :] + (y * np.float32(s * scale) + np.float32(phase))[:, None]
    if coat.texture in ("striped", FINE_TEXTURE):
        return _bands(along, blur)
    if coat.texture == "patchy":
        # Three waves that do not fit together: patches like a cow's, about a period wide.
        wave = np.sin(np.float32(4.1) * along)
        for turn, speed in ((1.15, 4.9), (2.35, 5.7)):
            ct, st = math.cos(coat.angle + turn) * scale * speed, math.sin(coat.angle + turn) * scale * speed
            wave += np.sin((x * np.float32(ct))[None, :] + (y * np.float32(st) + np.float32(9 * phase))[:, None])
        wave *= np.float32(0.3 / (pixel * scale))
        wave += np.float32(0.5)
        return _unit(wave)
    across = (x * np.float32(-s * scale))[None, :] + (y * np.float32(c * scale) + np.float32(phase))[:, None]
    if coat.texture == "checked":
        one, other = _bands(along * np.float32(0.8), blur * 0.8), _bands(across * np.float32(0.8), blur * 0.8)
        return one + other - 2 * one * other
    along -= np.floor(along)  # dotted
    across -= np.floor(across)
    along -= np.float32(0.5)
    across -= np.float32(0.5)
    along *= along
    across *= across
    along += across
    np.sqrt(along, out=along)
    along -= np.float32(0.31)
    return _coverage(along, pixel * scale)


def _window(thing: Thing, size: int, around: float) -> tuple[slice, slice]:
    scale = size / SIDE
    left, top, right, bottom = thing.box
    low = [max(int((v - around) * scale), 0) for v in (top, left)]
    high = [min(math.ceil((v + around) * scale) + 1, size) for v in (bottom, right)]
    return slice(low[0], high[0]), slice(low[1], high[1])


def _fields(thing: Thing, at: Array, window: tuple[slice, slice]) -> tuple[Array, Array, list[Array]]:
    x, y = at[window[1]] - np.float32(thing.x), at[window[0]] - np.float32(thing.y)
    return x, y, [shape.field(x, y) for shape in thing.shapes]


def _shadow(picture: Array, field: Array, thing: Thing, light: tuple[float, float], pixel: float) -> None:
    """Darken the ground beside a thing, away from the light."""
    length = 0.8 + 0.03 * thing.height
    dx, dy = round(light[0] * length / pixel), round(light[1] * length / pixel)
    h, w = field.shape
    soft = 1.2 + 0.03 * thing.height
    if abs(dx) >= w or dy >= h:
        return
    there = picture[:, dy:, dx:] if dx >= 0 else picture[:, dy:, :dx]
    cast = field[: h - dy, : w - dx] if dx >= 0 else field[: h - dy, -dx:]
    shade = _coverage(cast, 2 * soft)
    shade *= shade
    shade *= np.float32(-0.55)
    shade += np.float32(1)
    there *= shade


def _paint(picture: Array, thing: Thing, at: Array, window: tuple[slice, slice], light: tuple[float, float]) -> Array:
    """Paint one thing with its shadow; return the field of its whole."""
    pixel = SIDE / len(at)
    x, y, fields = _fields(thing, at, window)
    whole = fields[0] if len(fields) == 1 else np.minimum(*fields)
    view = picture[(slice(None), *window)]
    _shadow(view, whole, thing, light, pixel)
    reach = 0.5 * max(thing.box[2] - thing.box[0], thing.box[3] - thing.box[1])
    # The lamp makes one side of everything lighter, whatever its kind.
    lamp = (x * np.float32(-0.13 * light[0] / reach))[None, :] + (y * np.float32(-0.13 * light[1] / reach) + 1)[:, None]
    for coat, field in reversed(list(zip(thing.coats, fields, strict=True))):
        cover = _coverage(field, pixel)
        rim = field + np.float32(_RIM)
        rim *= np.float32(1 / _RIM)
        _unit(rim)
        rim *= np.float32(-0.26)
        rim += lamp
        mix = _texture(coat, x, y, pixel)
        colour = coat.first[:, None, None]
        paint = colour * rim if mix is None else (colour + mix * (coat.second - coat.first)[:, None, None]) * rim
        paint -= view
        paint *= cover
        view += paint
    return whole


# --- the whole ------------------------------------------------------------------------------------
def _whole(thing: Thing, at: Array, window: tuple[slice, slice]) -> Array:
    return np.minimum.reduce(_fields(thing, at, window)[2])


def masks(plan: Plan, size: int, wholes: list[Array] | None = None) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the class and the instance at every pixel, [y x] each; an instance is a thing's number from 1.

    A pixel belongs to the foremost thing that its middle lies in. A thing too thin or too hidden for any middle takes
    one pixel close by, so that every thing shows at every size.
    """
    at = _coordinates(size)
    instances = np.zeros((size, size), np.uint8)
    for k, thing in enumerate(plan.things):
        window = _window(thing, size, _AROUND)
        whole = wholes[k] if wholes else _whole(thing, at, window)
        instances[window][whole < 0] = k + 1
    count = np.bincount(instances.ravel(), minlength=len(plan.things) + 1)
    for k in np.flatnonzero(count[1:] == 0):
        window = _window(plan.things[k], size, _AROUND)
        shows = instances[window]
        closest = np.argsort(_whole(plan.things[k], at, window), axis=None, kind="stable")
        place = next(p for p in closest if shows.flat[p] == 0 or count[shows.flat[p]] > 1)
        count[shows.flat[place]] -= 1
        count[k + 1] = 1
        shows.flat[place] = k + 1
    names = np.array([0, *(CLASSES.index(thing.kind) for thing in plan.things)], np.uint8)
    return names[instances], instances


def nearest(plan: Plan, size: int, within: float) -> NDArray[np.uint8]:
    """Return the nearest instance of every pixel [y x], 0 where none is `within` that many scene units."""
    at = _coordinates(size)
    distance, instances = np.full((size, size), within, np.float32), np.zeros((size, size), np.uint8)
    for k, thing in enumerate(plan.things):
        window = _window(thing, size, within)
        whole = np.maximum(_whole(thing, at, window), 0)  # where one thing hides another, the front one wins
        nearer = (whole < distance[window]) | (whole == 0)
        distance[window][nearer] = whole[nearer]
        instances[window][nearer] = k + 1
    return instances


def paint(plan: Plan, size: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw a scene.

    Args:
        plan: what stands where.
        size: side of the picture, px.

    Returns:
        The picture [3 y x], the class and the instance at every pixel [y x].
    """
    ground, at = plan.ground, _coordinates(size)
    picture = _background(plan.seed, size, ground)
    for stick in plan.sticks:
        _paint(picture, stick, at, _window(stick, size, _AROUND), ground.light)
    wholes = [_paint(picture, thing, at, _window(thing, size, _AROUND), ground.light) for thing in plan.things]
    middle = at / np.float32(SIDE) - np.float32(0.5)
    light = (middle * np.float32(-ground.light[0] * ground.bright * 2))[None, :] + (
        middle * np.float32(-ground.light[1] * ground.bright * 2) + np.float32(1)
    )[:, None]
    grain = _octave(plan.seed, _LATTICE + 80, size, (1.9, 1.9))
    grain *= np.float32(ground.grain)
    light += grain
    picture *= light
    noise = sensor_noise(plan.seed, size)
    noise *= np.float32(ground.noise)
    picture += noise
    _unit(picture)
    picture *= np.float32(255)
    picture += np.float32(0.5)
    return (picture.astype(np.uint8), *masks(plan, size, wholes))
