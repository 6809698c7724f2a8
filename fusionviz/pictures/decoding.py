"""Bytes, PIL images and arrays -> upright RGB pixels, within bounds that are checked before anything is decoded."""

import io
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image

from fusionviz.errors import PictureError
from fusionviz.pictures.record import MAX_ASPECT, MAX_BYTES, MAX_PIXELS, MAX_SIDE_PX, MIN_SIDE_PX, NOTES

# Only these decoders ever see a stranger's bytes; others start programs (EPS) or are rarely looked after.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
ACCEPTED = "PNG, JPEG, WebP, GIF, BMP, TIFF"

_BEGINNINGS = (
    (rb"\x89PNG\r\n\x1a\n", "PNG"),
    (rb"\xff\xd8\xff", "JPEG"),
    (rb"RIFF....WEBP", "WebP"),
    (rb"GIF8[79]a", "GIF"),
    (rb"BM", "BMP"),
    (rb"II\x2a\x00|MM\x00\x2a|II\x2b\x00|MM\x00\x2b", "TIFF"),
)
_OTHERS = (
    (rb"....ftyp(heic|heix|hevc|heim|heis|mif1|msf1)", "HEIC"),
    (rb"....ftyp(avif|avis)", "AVIF"),
    (rb"....ftyp", "MP4"),
    (rb"%PDF", "PDF"),
    (rb"(\xef\xbb\xbf)?\s*(<\?xml.*)?<svg", "SVG"),
    (rb"8BPS", "PSD"),
    (rb"\x00\x00\x00\x0cjP|\xff\x4f\xff\x51", "JPEG 2000"),
    (rb"\x00\x00\x01\x00", "ICO"),
    (rb"P[1-7]\s", "PNM"),
    (rb"PK\x03\x04", "ZIP"),
    (rb"\x93NUMPY", "NPY"),
)

_TURNS = {
    2: (Image.Transpose.FLIP_LEFT_RIGHT,),
    3: (Image.Transpose.ROTATE_180,),
    4: (Image.Transpose.FLIP_TOP_BOTTOM,),
    5: (Image.Transpose.TRANSPOSE,),
    6: (Image.Transpose.ROTATE_270,),
    7: (Image.Transpose.TRANSVERSE,),
    8: (Image.Transpose.ROTATE_90,),
}
_ORIENTATION, _PHOTOMETRIC, _TILE_WIDTH, _TILE_LENGTH = 0x0112, 262, 322, 323

Decoded = tuple[np.ndarray, tuple[str, ...]]

# One picture is decoded at a time: a class that uploads at once needs the memory of one large file, not of
# thirty. Pillow's warnings are silenced meanwhile, and `catch_warnings` swaps a list of the whole process.
_one_at_a_time = threading.Lock()


@contextmanager
def _quietly() -> Iterator[None]:
    with _one_at_a_time, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def from_bytes(data: bytes, name: str) -> Decoded:
    """Decode a picture file.

    Args:
        data: the whole file.
        name: what errors call it.

    Returns:
        Pixels uint8 RGB [h w 3], and the notes of what was done.

    Raises:
        PictureError: if it is empty, too large, not a picture of an accepted format, damaged, or out of bounds.
    """
    if not data:
        raise PictureError("picture.empty", name=name, accepted=ACCEPTED)
    check_bytes(len(data), name)
    width, height = _webp_size(data)
    if width * height > MAX_PIXELS:
        raise _huge(name, _megapixels(width, height))
    with _quietly():
        try:
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        except Image.DecompressionBombError:
            raise _huge(name, f"> {2 * (Image.MAX_IMAGE_PIXELS or MAX_PIXELS) // 1_000_000}") from None
        except Exception:  # decoders that meet hostile bytes raise nearly anything
            raise _unidentified(data, name) from None
        return _from_image(image, name, ours=True)


def from_image(image: Image.Image, name: str) -> Decoded:
    """Convert a PIL image, which is left as it was; see `from_bytes`."""
    with _quietly():
        return _from_image(image, name, ours=False)


def from_array(array: np.ndarray, name: str) -> Decoded:
    """Convert an array [h w], [h w 1], [h w 2] (grey and alpha), [h w 3] or [h w 4].

    uint8 is taken as it is, uint16 by its bit depth, booleans as black and white; other numbers in [0, 1] (floats
    only) or [0, 255] by that range, and any others are stretched from their minimum to their maximum.
    """
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 2, 3, 4) or array.dtype.kind not in "buif":
        shape = " × ".join(map(str, array.shape)) or "–"
        raise PictureError("picture.array", name=name, shape=shape, kind=str(array.dtype))
    _check_size((array.shape[1], array.shape[0]), name)
    levels, notes = _levels(array.reshape(*array.shape[:2], channels), 16)
    if array.dtype == np.uint16:
        notes = ["sixteen_bit", *notes]
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
    image = Image.fromarray(levels[:, :, 0] if channels == 1 else levels)
    if channels == 2:
        image = Image.merge("LA", [Image.fromarray(np.ascontiguousarray(levels[:, :, i])) for i in (0, 1)])
    with _quietly():
        return _finish(image.convert("RGBA") if mode in ("LA", "RGBA") else image, 1, notes)


def check_bytes(size: int, name: str) -> None:
    """Raise PictureError if a file of `size` bytes is larger than is accepted."""
    if size > MAX_BYTES:
        received, limit = f"{size / 1024**2:.1f}", f"{MAX_BYTES // 1024**2}"
        raise PictureError("picture.bytes", name=name, received=received, limit=limit)


# --- bounds --------------------------------------------------------------------------------------
def _check_size(size: tuple[int, int], name: str) -> None:
    width, height = size
    received = f"{width} × {height}"
    if min(size) < MIN_SIDE_PX:
        raise PictureError("picture.small", name=name, received=received, limit=MIN_SIDE_PX)
    if max(size) > MAX_ASPECT * min(size):
        raise PictureError("picture.narrow", name=name, received=received, limit=MAX_ASPECT)
    if width * height > MAX_PIXELS:
        raise _huge(name, _megapixels(width, height))


def _megapixels(width: int, height: int) -> str:
    return f"{width} × {height} = {width * height / 1e6:.0f}"


def _huge(name: str, received: str) -> PictureError:
    return PictureError("picture.huge", name=name, received=received, limit=MAX_PIXELS // 1_000_000)


def _webp_size(data: bytes) -> tuple[int, int]:
    """Return (width, height) from a WebP's header, else (0, 0): its decoder makes room for the canvas on opening."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return 0, 0
    number = lambda start, end: int.from_bytes(data[start:end], "little")  # noqa: E731 - three layouts, one reading
    if data[12:16] == b"VP8X":
        return number(24, 27) + 1, number(27, 30) + 1
    if data[12:16] == b"VP8L":
        return (number(21, 25) & 0x3FFF) + 1, (number(21, 25) >> 14 & 0x3FFF) + 1
    return number(26, 28) & 0x3FFF, number(28, 30) & 0x3FFF


def _unidentified(data: bytes, name: str) -> PictureError:
    for beginning, kind in _BEGINNINGS:
        if re.match(beginning, data, re.DOTALL):
            return PictureError("picture.damaged", name=name, format=kind)
    for beginning, kind in _OTHERS:
        if re.match(beginning, data[:512], re.DOTALL):
            return PictureError("picture.format", name=name, format=kind, accepted=ACCEPTED)
    return PictureError("picture.not_a_picture", name=name, accepted=ACCEPTED)


# --- PIL images ----------------------------------------------------------------------------------
def _from_image(image: Image.Image, name: str, *, ours: bool) -> Decoded:
    _check_size(image.size, name)
    kind = _format(image)
    try:
        return _decoded(image, name, ours)
    except PictureError:
        raise
    except Image.DecompressionBombError:
        raise _huge(name, _megapixels(*image.size)) from None
    except Exception:  # as above: truncated data, broken palettes, impossible offsets
        raise PictureError("picture.damaged", name=name, format=kind) from None


def _decoded(image: Image.Image, name: str, ours: bool) -> Decoded:
    notes = []
    tags = getattr(image, "tag_v2", {})
    tile_px = _number(tags.get(_TILE_WIDTH)) * _number(tags.get(_TILE_LENGTH))
    if tile_px > MAX_PIXELS:  # libtiff makes room for a whole tile, however small the picture is
        raise _huge(name, f"{tile_px / 1e6:.0f}")
    depth, inverted = _depth(image), tags.get(_PHOTOMETRIC) == 0
    if _is_animated(image):
        notes.append("animated")
    turned = _orientation(image)
    if ours and image.format in ("JPEG", "MPO") and max(image.size) > MAX_SIDE_PX:
        full = image.size
        image.draft(None, _bounded(full))  # the decoder itself skips what would be averaged away
        if image.size != full:
            notes.append("shrunk")
    image.load()
    if turned in _TURNS:
        notes.append("turned")
        turned = _orientation(image)  # TIFF has been turned by now, and says so
    if depth > 8 and (image.mode not in ("I", "F") or _is_wide_png(image)):  # these have no full range to speak of
        notes.append("sixteen_bit")
    if image.mode == "CMYK":
        notes.append("cmyk")
    plain, more = _plain(image, depth, inverted, name)
    return _finish(plain, turned, [*notes, *more])


def _plain(image: Image.Image, depth: int, inverted: bool, name: str) -> tuple[Image.Image, list[str]]:
    """Return an image of mode L, RGB or RGBA, and notes."""
    clear = image.info.get("transparency")
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        values = np.asarray(image, np.uint16 if _is_wide_png(image) else None)
        levels, notes = _levels(values, depth)
        # Pillow turns "white is zero" over for 8 bits, not for these.
        grey = Image.fromarray(255 - levels if inverted else levels)
        return (_keyed(grey, values != clear) if isinstance(clear, int) else grey), notes
    if image.mode in ("1", "L"):
        grey = image.convert("L")
        if isinstance(clear, int):
            # Pillow keeps the transparent grey of a 2- or 4-bit PNG in the file's own units.
            clear = clear * 255 // (2**depth - 1) if image.mode == "L" and depth < 8 else clear
            grey = _keyed(grey, np.asarray(grey) != clear)
        return grey, []
    if image.mode == "RGB" and isinstance(clear, tuple):
        colour = np.array([c >> 8 for c in clear] if depth > 8 else clear)
        return _keyed(image, (np.asarray(image) != colour).any(2)), []
    if image.mode == "La":
        image = image.convert("LA")
    try:
        return image.convert("RGBA" if image.has_transparency_data else "RGB"), []
    except (ValueError, ImportError):  # LAB needs a colour library that a build of Pillow may lack
        raise PictureError("picture.mode", name=name, mode=image.mode) from None


def _keyed(image: Image.Image, opaque: np.ndarray) -> Image.Image:
    """Return the image with alpha 255 where `opaque` [h w] is true, 0 elsewhere."""
    image = image.convert("RGB")
    image.putalpha(Image.fromarray(opaque.astype(np.uint8) * np.uint8(255)))
    return image


def _finish(image: Image.Image, orientation: int, notes: list[str]) -> Decoded:
    """Bound the size, lay on white, turn upright; `image` is L, RGB or RGBA."""
    if max(image.size) > MAX_SIDE_PX:
        image = image.resize(_bounded(image.size), Image.Resampling.LANCZOS)
        notes.append("shrunk")
    if image.mode == "RGBA":
        if image.getextrema()[3][0] < 255:
            notes.append("alpha")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image.getchannel("A"))
        image = white
    for turn in _TURNS.get(orientation, ()):
        image = image.transpose(turn)
    pixels = np.array(image.convert("RGB"))
    pixels.flags.writeable = False
    return pixels, tuple(note for note in NOTES if note in notes)


def _bounded(size: tuple[int, int]) -> tuple[int, int]:
    scale = min(1.0, MAX_SIDE_PX / max(size))
    return tuple(max(1, round(n * scale)) for n in size)


# --- numbers -> levels ---------------------------------------------------------------------------
def _levels(values: np.ndarray, depth: int) -> tuple[np.ndarray, list[str]]:
    """Return `values` as uint8 levels, and notes; `depth` is the bits that unsigned 16-bit values make use of."""
    if values.dtype == np.uint8:
        return values, []
    if values.dtype == bool:
        return values.astype(np.uint8) * np.uint8(255), []
    if values.dtype.newbyteorder("=") == np.uint16:
        top = 2 ** (depth if 8 < depth < 16 else 16) - 1
        scale = np.minimum(np.arange(65536, dtype=np.uint32), top)
        return ((scale * 255 + top // 2) // top).astype(np.uint8)[values], []
    return _real_levels(values)


def _real_levels(values: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Return signed, wide or floating-point numbers as levels; NaN and -inf become the lowest, inf the highest."""
    floating = values.dtype.kind == "f"
    if values.dtype.itemsize > 8:  # long doubles; what a double cannot hold is infinite
        with np.errstate(over="ignore"):
            values = values.astype(np.float64)
    finite = values[np.isfinite(values)] if floating else values
    if finite.size == 0:
        return np.zeros(values.shape, np.uint8), ["stretched"]
    low, high = finite.min(), finite.max()
    if floating and finite.size < values.size:
        values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    if low >= 0 and high <= 1 and floating:
        return np.rint(values * values.dtype.type(255)).astype(np.uint8), []
    if low >= 0 and high <= 255:
        return np.rint(values).astype(np.uint8), []
    # Halves, because the distance of two large numbers may be too large for a float.
    start, span = float(low) / 2, float(high) / 2 - float(low) / 2
    if not span > 0:
        return np.zeros(values.shape, np.uint8), ["stretched"]
    part = (values.astype(np.float64) / 2 - start) / span
    return np.rint(255 * part.clip(0, 1)).astype(np.uint8), ["stretched"]


# --- what a file says of itself ------------------------------------------------------------------
def _format(image: Image.Image) -> str:
    return {"WEBP": "WebP", "MPO": "JPEG", None: image.mode}.get(image.format, image.format)


def _depth(image: Image.Image) -> int:
    """Return bits per channel: of the file's raw pixels where they have not been loaded, else of the image."""
    for tile in getattr(image, "tile", ())[:1]:
        args = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        raw = re.search(r";(\d+)", args[0]) if args and isinstance(args[0], str) else None
        if raw:
            return int(raw.group(1))
    return 16 if image.mode.startswith("I;16") else 8


def _is_wide_png(image: Image.Image) -> bool:
    """Say whether this is a 16-bit grey PNG as Pillow 10 opens it: in 32-bit numbers."""
    return image.format == "PNG" and image.mode == "I"


def _is_animated(image: Image.Image) -> bool:
    try:
        # A telephone's MPO is a JPEG with previews behind it, not an animation.
        return image.format != "MPO" and bool(getattr(image, "is_animated", False))
    except Exception:  # only the second frame is broken
        return False


def _orientation(image: Image.Image) -> int:
    try:
        return _number(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # broken EXIF is no reason to refuse a picture
        return 1


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
