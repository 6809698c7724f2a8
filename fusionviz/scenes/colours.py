"""The colours of scenes, by name: chosen in OKLCH, where equal steps look equal, and never by kind.

Every colour comes in several shades. A textured part has two: its own, which gives the colour's name, and
a second of the same hue that is clearly lighter or darker, so that a red and white disc is still "red".
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

# name: (lightness, chroma, hue in degrees), each with its bounds
_RANGES = {
    "red": ((0.50, 0.60), (0.17, 0.21), (22, 30)),
    "orange": ((0.68, 0.76), (0.14, 0.17), (50, 64)),
    "yellow": ((0.84, 0.91), (0.13, 0.17), (90, 102)),
    "green": ((0.54, 0.72), (0.13, 0.18), (136, 152)),
    "teal": ((0.58, 0.76), (0.08, 0.11), (182, 205)),
    "blue": ((0.45, 0.60), (0.13, 0.18), (250, 264)),
    "purple": ((0.43, 0.57), (0.14, 0.19), (294, 310)),
    "pink": ((0.72, 0.82), (0.11, 0.16), (348, 364)),
    "brown": ((0.37, 0.46), (0.05, 0.08), (48, 66)),
    "white": ((0.93, 0.97), (0.00, 0.012), (0, 360)),
    "grey": ((0.58, 0.68), (0.00, 0.012), (0, 360)),
    "black": ((0.20, 0.28), (0.00, 0.015), (0, 360)),
}
COLOURS = tuple(_RANGES)
SHADES = 16


def rgb(lightness: NDArray, chroma: NDArray, hue: NDArray) -> NDArray[np.float32]:
    """Turn OKLCH (hue in degrees) into sRGB in [0, 1], [... 3]; what lies outside is clipped.

    Source: Björn Ottosson, A perceptual color space for image processing, 2020.
    """
    angle = np.deg2rad(hue)
    a, b = chroma * np.cos(angle), chroma * np.sin(angle)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    middle = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = np.stack(
        (
            4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short,
            -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short,
            -0.0041960863 * long - 0.7034186147 * middle + 1.7076147010 * short,
        ),
        axis=-1,
    ).clip(0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return encoded.astype(np.float32)


@cache
def shades() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the shades of every colour and their partners: two arrays [colour shade 3] of sRGB.

    The partner of a shade keeps its hue and stands at least 0.26 of lightness away: it is its tint where
    the colour is dark, and its shadow where it is light; middle shades have one or the other.
    """
    steps = np.arange(SHADES)
    # Three sequences without common period fill each colour's box evenly.
    spread = [((steps + 0.5) * f) % 1 for f in (0.6180339887, 0.7548776662, 0.5698402910)]
    own, partner = [], []
    for bounds in _RANGES.values():
        lightness, chroma, hue = (low + s * (high - low) for s, (low, high) in zip(spread, bounds, strict=True))
        lighter = np.where((lightness > 0.5) & (lightness < 0.7), steps % 2 == 0, lightness <= 0.5)
        away = 0.26 + 0.1 * spread[0]
        second = np.where(lighter, lightness + away, lightness - away)
        own.append(rgb(lightness, chroma, hue))
        partner.append(rgb(second, np.where(lighter, 0.55, 0.8) * chroma, hue))
    return np.stack(own), np.stack(partner)
