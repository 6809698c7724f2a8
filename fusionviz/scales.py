"""Numbers -> colours: the ranges, colour maps and number texts that browser, slide and tests share.

numpy only. Every colour map has 256 entries and is kept as bytes, so the browser can be handed the very same ones.
"""

import base64
import colorsys
import math

import numpy as np

from fusionviz.board import Board, PanelView

# --- colours that carry meaning ------------------------------------------------------------------
ROLE_COLOURS = {
    "light": {"low": "#0072B2", "high": "#D55E00", "fused": "#6A3D9A"},
    "dark": {"low": "#56B4E9", "high": "#F0A35E", "fused": "#B79AE0"},
}
"""Low is blue, high is orange, fused is violet, wherever they stand; from Okabe and Ito's palette."""

_BETWEEN = {"light": ("#009E73", "#CC79A7", "#8A8D00", "#7F7F7F"), "dark": ("#3FC79A", "#E8A9CB", "#F0E442", "#B5B5B5")}


CLASS_COLOURS = (
    (39, 42, 51),
    (230, 184, 0),
    (46, 139, 87),
    (160, 110, 80),
    (154, 205, 50),
    (0, 179, 179),
    (15, 110, 70),
    (194, 24, 91),
    (179, 157, 219),
    (255, 111, 174),
)
"""Colours of the scenes' classes, the background first: away from the blue and orange that mean low and high."""


def class_colours(count: int) -> np.ndarray:
    """Return a colour for each of any number of classes, the background first, uint8 [count 3].

    The first are the scenes' own; further ones go round the circle of hues in steps that never come back.
    """
    known, turns = np.array(CLASS_COLOURS, np.uint8), range(len(CLASS_COLOURS), count)
    more = [colorsys.hsv_to_rgb((0.11 + 0.382 * i) % 1, 0.55 + 0.3 * (i % 2), 0.85 - 0.2 * (i % 3)) for i in turns]
    return np.concatenate((known, (np.array(more).reshape(-1, 3) * 255).astype(np.uint8)))[:count]


def branch_colours(count: int, *, dark: bool = False) -> tuple[str, ...]:
    """Return a colour per branch or level, fine to coarse: the finest is low's, the coarsest high's."""
    theme = "dark" if dark else "light"
    ends, between = ROLE_COLOURS[theme], _BETWEEN[theme]
    if count < 2:
        return (ends["low"],) * count
    return (ends["low"], *(between[i % len(between)] for i in range(count - 2)), ends["high"])


PIN_COLOUR = "#FFFFFF"
"""What belongs to no level, on a map: like the pin, white with a dark edge."""


def mark_colour(level: tuple[int, int] | None, *, dark: bool = False) -> str:
    """Return the colour of a mark of a level, given as (position, how many), or of none."""
    return branch_colours(level[1], dark=dark)[level[0]] if level else PIN_COLOUR


def ink_on(colour: str) -> str:
    """Return white or near-black, whichever stands out more from a colour (contrast as WCAG 2 has it)."""
    rgb = _rgb(colour)
    luminance = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]
    return "#FFFFFF" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.056 else "#111111"


# --- colour maps ---------------------------------------------------------------------------------
# viridis, magma (S. van der Walt, N. Smith), cividis (J. Nunez, C. Anderton, R. Renslow) and twilight (B. Bechtold)
# as their authors released them, CC0: 256 times red, green, blue, base64.
_VIRIDIS = (
    "RAFURAJWRQRXRQVZRgdaRghcRgpdRgteRw1gRw5hRxBjRxFkRxNlSBRnSBZoSBdpSBhqSBpsSBttSBxuSB1vSB9wSCBxSCFzSCN0SCR1SCV2"
    "SCZ3SCh4SCl5Ryp6Ryx6Ry17Ry58Ry99RjB+RjJ+RjN/RjSARTWBRTeBRTiCRDmDRDqDRDuEQz2EQz6FQj+FQkCGQkGGQUKHQUSHQEWIQEaI"
    "P0eIP0iJPkmJPkqJPkyKPU2KPU6KPE+KPFCLO1GLO1KLOlOLOlSMOVWMOVaMOFiMOFmMN1qMN1uNNlyNNl2NNV6NNV+NNGCNNGGNM2KNM2ON"
    "MmSOMmWOMWaOMWeOMWiOMGmOMGqOL2uOL2yOLm2OLm6OLm+OLXCOLXGOLHGOLHKOLHOOK3SOK3WOKnaOKneOKniOKXmOKXqOKXuOKHyOKH2O"
    "J36OJ3+OJ4COJoGOJoKOJoKOJYOOJYSOJYWOJIaOJIeOI4iOI4mOI4qNIouNIoyNIo2NIY6NIY+NIZCNIZGMIJKMIJKMIJOMH5SMH5WLH5aL"
    "H5eLH5iLH5mKH5qKHpuKHpyJHp2JH56JH5+IH6CIH6GIH6GHH6KHIKOGIKSGIaWFIaaFIqeFIqiEI6mDJKqDJauCJayCJq2BJ62BKK6AKa9/"
    "KrB/LLF+LbJ9LrN8L7R8MbV7MrZ6NLZ5Nbd5N7h4OLl3Orp2O7t1Pbx0P7xzQL1yQr5xRL9wRsBvSMFuSsFtTMJsTsNrUMRqUsVpVMVoVsZn"
    "WMdlWshkXMhjXsliYMpgY8tfZcteZ8xcac1bbM1abs5YcM9Xc9BWddBUd9FTetFRfNJQf9NOgdNNhNRLhtVJidVIi9ZGjtZFkNdDk9dBldhA"
    "mNg+m9k8ndk7oNo5oto3pds2qNs0qtwyrdwwsN0vst0ttd4ruN4put4ovd8mwN8lwt8jxeAhyOAgyuEfzeEd0OEc0uIb1eIa2OIZ2uMZ3eMY"
    "3+MY4uQY5eQZ5+QZ6uUa7OUb7+Uc8eUd9OYe9uYg+OYh++cj/ecl"
)
_CIVIDIS = (
    "ACJOACNPACRRACVTACVUACZWACdYAChZAChbACldACpfACphACtiACxkACxmAC1oAC5qAC5sAC9tADBvADBwADFwADFxATJxBTNxCDNwDDRw"
    "DzVwEjVwFDZwFjdwGDdvGjhvHDlvHjpvIDpvITtuIzxuJDxuJj1uJz5uKT9uKj9tK0BtLUFtLkFtL0JtMUNtMkNtM0RtNEVsNUVsNkZsOEds"
    "OUhsOkhsO0lsPEpsPUpsPktsP0xsQExsQU1sQk5sQ05sRE9sRVBsRlFsR1FsSFJsSVNsSlNsS1RsTFVsTVVsTlZsT1dsUFdsUVhtUlltU1pt"
    "VFptVVttVVxtVlxtV11tWF5tWV5uWl9uW2BuXGFuXWFuXmJuXmNvX2NvYGRvYWVvYmVvY2ZwZGdwZWhwZWhwZmlwZ2pxaGpxaWtxamxxa21y"
    "bG1ybG5ybW9ybm9zb3BzcHFzcXJ0cnJ0cnN0c3R1dHR1dXV1dnZ2d3d2d3d3eHh3eXl3enp4e3p4fHt4fXx4fnx4fn14f354gH94gX94goB5"
    "g4F5hIJ5hYJ5hoN5h4R4iIV4iYV4ioZ4i4d4jIh4jYh4jol4j4p4kIt4kYt4kox4ko14k454lI53lY93lpB3l5F3mJJ3mZJ3mpN2m5R2nJV2"
    "nZV2npZ2n5d1oJh1oZl1opl1o5p0pJt0pZx0ppx0p51zqJ5zqZ9zqqBzq6ByrKFyraJyrqNxr6RxsKVxsaVws6ZwtKdvtahvtqlvt6luuKpu"
    "uattuqxtu61tvK5sva5svq9rv7BrwLFqwbJqwrNpw7NpxLRoxbVoxrZnx7dnyLhmyblly7llzLpkzbtjzrxjz71i0L5i0b9h0sBg08Bf1MFf"
    "1cJe1sNd18Rc2cVc2sZb28da3MhZ3chY3slY38pX4MtW4cxV4s1U5M5T5c9S5tBR59FQ6NJP6dNO6tNM69RL7dVK7tZJ79dI8NhG8dlF8tpE"
    "89tC9dxB9t0/994++N88+eA6++E4/OI2/eM0/uQ0/uU1/uY2/ug4"
)
_MAGMA = (
    "AAAEAQAFAQEGAQEIAgEJAgILAgINAwMPAwMSBAQUBQQWBgUYBgUaBwYcCAceCQcgCggiCwkkDAkmDQopDgsrEAstEQwvEg0xEw00FA42FQ44"
    "Fg87GA89GRA/GhBCHBBEHRFHHhFJIBFLIRFOIhFQJBJTJRJVJxJYKRFaKhFcLBFfLRFhLxFjMRFlMxBnNBBpNhBrOBBsOQ9uOw9wPQ9xPw9y"
    "QA90Qg91RA92RRB3RxB4SRB4ShB5TBF6ThF7TxJ7URJ8UhN8VBN9VhR9VxV+WRV+WhZ+XBZ/XRd/Xxh/YBiAYhmAZBqAZRqAZxuAaByBahyB"
    "ax2BbR2Bbh6BcB+Bch+BcyCBdSGBdiGBeCKBeSKCeyOCfCOCfiSCgCWCgSWBgyaBhCaBhieBiCeBiSiBiymBjCmBjiqBkCqBkSuBkyuAlCyA"
    "liyAmC2AmS2Amy5/nC5/ni9/oC9/oTB+ozB+pTF+pjF9qDJ9qjN9qzN8rTR8rjR7sDV7sjV7szZ6tTZ6tzd5uDd5ujh4vDl4vTl3vzp3wDp2"
    "wjt1xDx1xTx0xz1zyD5zyj5yzD9xzUBxz0Bw0EFv0kJv00Nu1URt1kVs2EVs2UZr20dq3Ehp3klo30po4Exn4k1m405l5E9k5VBk51Jj6FNi"
    "6VRi6lZh61dg7Fhg7Vpf7lte711e8F9e8WBd8mJd8mRc82Vc9Gdc9Glc9Wtc9mxc9m5c93Bc93Jc+HRc+HZc+Xhd+Xld+Xtd+n1e+n9e+oFf"
    "+4Nf+4Vg+4dh/Ilh/Ipi/Ixj/I5k/JBl/ZJm/ZRn/ZZo/Zhp/Zpq/Ztr/p1s/p9t/qFu/qNv/qVx/qdy/qlz/qp0/qx2/q53/rB4/rJ6/rR7"
    "/rZ8/rd+/rl//ruB/r2C/r+E/sGF/sKH/sSI/saK/siM/sqN/syP/s2Q/s+S/tGU/tOV/tWX/teZ/tia/dqc/dye/d6g/eCh/eKj/eOl/eWn"
    "/eep/emq/eus/Oyu/O6w/PCy/PK0/PS2/Pa4/Pe5/Pm7/Pu9/P2/"
)
_TWILIGHT = (
    "4tni4dni4Nni3tnh3dng3Nnf2tjf2Nje1tfd1Nbc0tXb0NTZzdPYy9LXyNDWxc/Vws7Uv8zTvMvRucnQtsjPs8bOsMXNrcPNqsLMp8DLpL7K"
    "ob3JnrvJnLnImbjIlrbHk7TGkrPGjrHFjK/Fia3FiKzEhanEgqfDgKXDf6XDfKLCeqDCeJ7Cd53CdZrBc5jBcZbBcZXAbpLAbZDAbI6/a42/"
    "aYq/aIi+Z4a+Z4W+ZoK9ZX+9ZH28ZHy8Y3m7Yne7YnW6YXK6YXG5YG64YGy4YGm3YGe2X2W1X2K0X2C0X1+zX1uyX1mxX1ewXlSuXlKtXk+s"
    "Xk2rXkyqXkioXkamXkOlXUGjXT6hXTygXTqeXDidXDWaWzKYWzCVWi6TWiuQWSmOWCeLWCaKVyOFViGCVR9/Ux58Uhx5URp1TxlyTxlwTBdr"
    "SxZoSRVkRxRhRhReRBNaQhJXQRJWPxJRPRFOPBFLOhFJORFGNxFENhFCNhFBNBE+MxE8MhI6MRM5MBQ3MBQ3MRM3MxI3NBI4NBI4NhE5OBE5"
    "OhE6OxE7PRE8PxI9QRI9QxI+RhJASBNBShNCTRRDTxREUhVFVBVGVhVGWRZIXBdJXxdKYRhLZBlLZxlMaRpNbBtObxxOcR1PdB5Pdh9PeSBQ"
    "eyFQfiJQfyNQgyVQhSZQhydQiilQjCpQjixQkC5Qki9QlDFQljNQmDVQmjdQnDlQnjtQoD1QoD5Qo0FQpUNQpkVQqEdQqUlQq0tQrE1RrlBR"
    "r1JRsVRSslZSs1lTtVtTtl1Ut19VuGFVuWRWumZXu2lYvGtZvW5avnBbv3JdwHVewXdfwnphwnxjw39kxIFmxYRoxYZqxodrxotux45xyJBz"
    "yJJ1yZV4yZd7ypp9ypyAy5+DzKGGzKOJzaaMzaiPzquSz62Wz66X0LKc0bSg0baj0rin07qq1L2t1b+x1sG018O42MW72Me+2cnC2svF28zI"
    "3M7L3M/N3dHR3tPT39TW39XY4Nba4Nfb4djd4djf4tng4tnh4tni"
)


def _unpack(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(256, 3)


def _rgb(colour: str) -> np.ndarray:
    return np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])


# Oklab (B. Ottosson, 2020): equal steps look equal, so a ramp mixed in it has no false edges.
_TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def oklab(rgb: np.ndarray) -> np.ndarray:
    """Return Oklab [... 3] of sRGB [... 3] in [0, 1]; the first number is lightness."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return np.cbrt(linear @ _TO_LMS.T) @ _TO_LAB.T


def _from_oklab(lab: np.ndarray) -> np.ndarray:
    linear = np.clip((lab @ np.linalg.inv(_TO_LAB).T) ** 3 @ np.linalg.inv(_TO_LMS).T, 0, 1)
    rgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(rgb * 255).astype(np.uint8)


def _ramp(*stops: tuple[float, float, str | None]) -> np.ndarray:
    """Mix a colour map in Oklab from stops (place in [0, 1], lightness, whose hue and chroma; None is grey)."""
    places = [place for place, _, _ in stops]
    labs = [(light, *(oklab(_rgb(colour))[1:] if colour else (0.0, 0.0))) for _, light, colour in stops]
    t = np.linspace(0, 1, 256)
    return _from_oklab(np.stack([np.interp(t, places, [lab[i] for lab in labs]) for i in range(3)], -1))


# Both arms of a diverging map have the same lightness at the same distance from the middle: neither side shouts.
_WEIGHT = _ramp(
    (0.0, 0.40, "#7A3600"), (0.2, 0.62, "#D55E00"), (0.5, 0.97, None), (0.8, 0.62, "#1E8BCB"), (1.0, 0.40, "#00487A")
)
# Magenta and green: neither is the hue of a level, so a negative number is not read as "high".
_SIGNED = _ramp(
    (0.0, 0.36, "#7A1257"), (0.22, 0.60, "#C63F93"), (0.5, 0.97, None), (0.78, 0.60, "#4E9233"), (1.0, 0.36, "#24511A")
)
_GATE = _ramp((0.0, 0.975, None), (0.55, 0.66, "#2A9D8F"), (1.0, 0.33, "#0B4F4A"))

LUTS: dict[str, np.ndarray] = {
    "viridis": _unpack(_VIRIDIS),
    "cividis": _unpack(_CIVIDIS),
    "magma": _unpack(_MAGMA),
    "gray": np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, 1),
    "signed": _SIGNED,
    "weight": _WEIGHT,
    "gate": _GATE,
    "phase": _unpack(_TWILIGHT),
}
"""Colour maps by name, uint8 [256 3]: the four of `selection.COLORMAPS` for "sequential", then one per other scale."""

_NO_NUMBER = {False: (233, 236, 240), True: (43, 49, 58)}
_FIXED = {"weight": (0.0, 1.0), "gate": (0.0, 1.0), "phase": (-math.pi, math.pi), "rgb": (0.0, 255.0)}
_SHARED = ("low", "high", "fused")


# --- ranges --------------------------------------------------------------------------------------
def map_scale(view: PanelView) -> str:
    """Return the scale of a view's maps: its own, but beside bars stand features, whose scale is read off them."""
    if view.kind != "bars":
        return view.scale
    return "signed" if any(_extent([m.values])[0] < 0 for m in view.maps) else "sequential"


def _extent(arrays: list[np.ndarray]) -> tuple[float, float]:
    finite = [v[np.isfinite(v)] for v in arrays]
    finite = [v for v in finite if v.size]
    if not finite:
        return 0.0, 0.0
    return float(min(v.min() for v in finite)), float(max(v.max() for v in finite))


def _range(arrays: list[np.ndarray], scale: str) -> tuple[float, float]:
    if scale in _FIXED:
        return _FIXED[scale]
    low, high = _extent(arrays)
    if scale == "amount":
        return 0.0, max(high, 0.0)
    if scale == "signed":
        far = max(abs(low), abs(high))
        return -far, far
    return low, high


def limits(view: PanelView, mode: str = "row") -> list[tuple[float, float]]:
    """Return (lo, hi) of the colours of each of a view's maps.

    "sequential" runs from the minimum to the maximum, "amount" from zero; "signed" is symmetric around zero, "weight"
    and "gate" run from 0 to 1, "phase" from -pi to pi. A constant map keeps lo == hi and is drawn flat.

    Args:
        mode: "map" (each map its own) | "row" (one for all maps of the view).
    """
    scale = map_scale(view)
    if mode == "map":
        return [_range([m.values], scale) for m in view.maps]
    return [_range([m.values for m in view.maps], scale)] * len(view.maps)


def ranges(board: Board, mode: str = "row") -> dict[tuple[str, str], list[tuple[float, float]]]:
    """Return (lo, hi) of each map of every view, by (panel id, view key).

    Args:
        mode: "map" | "row" as in `limits`, but that rows of maps of several levels have a range each; "all" has one
            range for Low, High and Fused, as far as what they show has the same scale. A view that is not shown gets
            the range it would have if it were.

    Under a slider a range spans all its positions: a colour means the same number everywhere on it.
    """
    found = {}
    for panel in board.panels:
        for view in panel.views:
            scale = map_scale(view)
            versions = board.versions(panel.id, view.key)
            if mode == "map":
                each = zip(*([m.values for m in v.maps] for v in versions), strict=True)
                found[panel.id, view.key] = [_range(list(arrays), scale) for arrays in each]
                continue
            if mode == "row" and len({m.row for m in view.maps}) > 1:
                rows = {
                    r: [m.values for v in versions for m in v.maps if m.row == r] for r in {m.row for m in view.maps}
                }
                found[panel.id, view.key] = [_range(rows[m.row], scale) for m in view.maps]
                continue
            arrays = [m.values for v in versions for m in v.maps]
            if mode == "all" and panel.role in _SHARED:
                others = [(p.id, p.shown) for p in board.panels if p.role in _SHARED and p.id != panel.id]
                same = [(p, v.key) for p, v in others if v.kind == "maps" and map_scale(v) == scale]
                arrays += [m.values for key in same for v in board.versions(*key) for m in v.maps]
            found[panel.id, view.key] = [_range(arrays, scale)] * len(view.maps)
    return found


# --- colouring -----------------------------------------------------------------------------------
def colour(
    values: np.ndarray,
    lo: float,
    hi: float,
    scale: str,
    colormap: str = "viridis",
    gamma: float = 1.0,
    dark: bool = False,
) -> np.ndarray:
    """Return the colours uint8 [h w 3] of a map [h w] (or of rgb [h w 3], as it is).

    `gamma` is an exponent on the place within the colour map; on a signed scale on both arms alike, so that zero
    keeps its colour. Weights, gates and phases are not bent: their colours are to be compared between pictures.
    What is not a number is drawn in the panel's grey.
    """
    if scale == "rgb":
        return values
    numbers = np.asarray(values, np.float64)
    known = np.isfinite(numbers)
    numbers = np.where(known, numbers, lo)
    if hi > lo:
        t = np.clip((numbers - lo) / (hi - lo), 0, 1)
    else:
        t = np.full(numbers.shape, 0.5 if scale == "signed" else 0.0)
    plain = scale in ("sequential", "amount")
    if plain:
        t = t**gamma
    elif scale == "signed":
        t = 0.5 + 0.5 * np.sign(t - 0.5) * np.abs(2 * t - 1) ** gamma
    table = LUTS[colormap if plain else scale].astype(np.float64)
    place = t * 255
    below = np.minimum(np.floor(place).astype(np.intp), 254)
    share = (place - below)[..., None]
    rgb = np.round(table[below] * (1 - share) + table[below + 1] * share).astype(np.uint8)
    rgb[~known] = _NO_NUMBER[dark]
    return rgb


_PALE = 0.97
"""The lightness of the undecided, as in the middle of the diverging map of a weight."""
_VIVID = 0.75


def mixture(shares: np.ndarray, colours: tuple[str, ...]) -> np.ndarray:
    """Return the colours uint8 [h w 3] of shares [n h w] that sum to 1 over n levels, a colour each.

    Of three levels the colours are mixed in Oklab: the hue is that of their convex combination in these shares, and the
    nearer the shares are to equal, the paler, so that what is undecided is near-white, as on the scale of a weight
    between two. A mixture of four colours could be read in more than one way: there the level with the largest share
    gives the hue, and its share how pale it is.
    """
    count = len(shares)
    pure = oklab(np.stack([_rgb(c) for c in colours]))  # [n 3]
    parts = np.nan_to_num(shares.astype(np.float64)).clip(0, 1)
    if count > 3:
        mixed = pure[parts.argmax(0)]  # [h w 3]
        sure = ((parts.max(0) - 1 / count) / (1 - 1 / count)).clip(0, 1)[..., None]
        vivid = full = sure
    else:
        mixed = np.tensordot(parts, pure, (0, 0))
        sure = np.sqrt(((parts - 1 / count) ** 2).sum(0) * count / (count - 1)).clip(0, 1)[..., None]
        mixed = mixed - (1 - sure) * pure.mean(0) * [0, 1, 1]  # equal shares have no hue
        vivid = sure**_VIVID  # small differences are the rule, and are to be seen
        full = vivid / np.maximum(sure, 1e-6)
    light = _PALE - (_PALE - mixed[..., :1]) * vivid
    chroma = mixed[..., 1:] * full
    return _from_oklab(np.concatenate([light, chroma], -1))


# --- numbers as text -----------------------------------------------------------------------------
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float, digits: int = 3, *, trim: bool = False) -> str:
    """Write a number with `digits` significant digits and a real minus: `−0.500`, `1.23×10⁻⁵`.

    Args:
        trim: leave out zeros at the end, as at the ends of a colour bar.
    """
    if not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    power = int(exponent)
    if -4 < power < digits + 2:
        text = f"{value:.{max(0, digits - 1 - power)}f}"
        raised = ""
    else:
        text, raised = mantissa, "×10" + str(power).translate(_RAISED)
    if trim and "." in text:
        text = text.rstrip("0").rstrip(".")
    return (text + raised).replace("-", "−")
