"""A picture -> a network's input, exactly as the network's weights were trained to see it."""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from fusionviz.errors import PictureError
from fusionviz.pictures.record import Picture, read_only
from fusionviz.records import Preprocessing
from fusionviz.selection import FITS

MAX_INPUT_PX = 1024

_INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a network sees of a picture.

    Attributes:
        tensor: float32 [1 3 side side], normalised by the network's own mean and deviation.
        shown: uint8 [side side 3], read-only: the very pixels that `tensor` was made of.
        box: (x0, y0, x1, y1) of that square in pixels of the picture; it reaches beyond it where it is padded.
        side: in pixels.
    """

    tensor: Tensor
    shown: np.ndarray
    box: tuple[float, float, float, float]
    side: int


def fit(
    picture: Picture,
    preprocessing: Preprocessing,
    *,
    size: int | None = None,
    fit: str = "crop",
    crop: tuple[float, float] = (0.5, 0.5),
) -> Fitted:
    """Fit a picture to a network's square input.

    "crop" resizes the short side and cuts a square out, as torchvision's weights do it: resized as 8-bit
    pixels, smoothed against aliasing, then scaled to [0, 1] and normalised. What lies outside is never seen.
    "pad" shows the whole picture, on a ground of the training pictures' mean colour, which normalises to nearly 0.

    Args:
        picture: an opened picture.
        preprocessing: how the network wants its input.
        size: side of the input in pixels; None: the one its weights were trained for. The short side is resized
            in proportion, so the square always shows the same part of the picture.
        fit: "crop" | "pad".
        crop: (x, y) of the square as fractions of its free travel: (0, 0) is the top left, (0.5, 0.5) the middle.

    Returns:
        Fitted.

    Raises:
        PictureError: if the network does not take this size, or `fit` or `crop` is out of its range.
    """
    side = _side(preprocessing, size)
    if fit not in FITS:
        raise PictureError("picture.fit", received=fit, allowed=", ".join(FITS))
    place = _place(crop)
    image = Image.fromarray(picture.pixels)
    how = _INTERPOLATIONS[preprocessing.interpolation]
    if fit == "crop":
        short = max(side, round(preprocessing.resize_px * side / preprocessing.crop_px))
        resized = image.resize(_by_short_side(image.size, short), how)
        left, top = (round((n - side) * part) for n, part in zip(resized.size, place, strict=True))
        square = resized.crop((left, top, left + side, top + side))
    else:
        resized = image.resize(_by_long_side(image.size, side), how)
        left, top = (-((side - n) // 2) for n in resized.size)
        square = Image.new("RGB", (side, side), tuple(round(255 * m) for m in preprocessing.mean))
        square.paste(resized, (-left, -top))
    shown = np.array(square)
    scale_x, scale_y = (n / m for n, m in zip(image.size, resized.size, strict=True))
    box = (left * scale_x, top * scale_y, (left + side) * scale_x, (top + side) * scale_y)
    return Fitted(_normalised(shown, preprocessing), read_only(shown), box, side)


def thumbnail(picture: Picture, side: int = 96) -> np.ndarray:
    """Return the middle square of a picture, uint8 [side side 3]."""
    if side < 1:
        raise ValueError(f"a thumbnail's side is at least 1 px, not {side}")
    return np.array(ImageOps.fit(Image.fromarray(picture.pixels), (side, side), Image.Resampling.LANCZOS))


def _side(preprocessing: Preprocessing, size: int | None) -> int:
    if size is None:
        return preprocessing.crop_px
    whole = isinstance(size, int | np.integer) and not isinstance(size, bool)
    if preprocessing.fixed and (not whole or size != preprocessing.crop_px):
        raise PictureError("picture.size_fixed", received=size, allowed=preprocessing.crop_px)
    low, step = preprocessing.minimum_px, preprocessing.multiple
    if not whole or not min(low, preprocessing.crop_px) <= size <= MAX_INPUT_PX or size % step:
        raise PictureError("picture.size", received=size, low=low, high=MAX_INPUT_PX, multiple=step)
    return int(size)


def _place(crop: tuple[float, float]) -> tuple[float, float]:
    try:
        x, y = (float(part) for part in crop)
        good = 0 <= x <= 1 and 0 <= y <= 1
    except (TypeError, ValueError):
        good = False
    if not good:
        raise PictureError("picture.crop", received=crop)
    return x, y


def _by_short_side(size: tuple[int, int], short: int) -> tuple[int, int]:
    # The long side is cut, not rounded: torchvision's rule, and one row of pixels is enough to differ.
    width, height = size
    return (short, int(short * height / width)) if width <= height else (int(short * width / height), short)


def _by_long_side(size: tuple[int, int], long: int) -> tuple[int, int]:
    return tuple(max(1, round(long * n / max(size))) for n in size)


def _normalised(shown: np.ndarray, preprocessing: Preprocessing) -> Tensor:
    x = torch.from_numpy(shown.transpose(2, 0, 1).copy()).float().div(255)  # [3 side side] in [0, 1]
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (preprocessing.mean, preprocessing.std))
    return x.sub(mean).div(std)[None]  # [1 3 side side]
