"""Open whatever may be a picture."""

from functools import lru_cache
from os import PathLike, fspath

import numpy as np
from PIL import Image

from fusionviz import texts
from fusionviz.errors import PictureError
from fusionviz.pictures import catalogue, decoding
from fusionviz.pictures.record import Picture, clean, digest_of, read_only

SCENE_PX = 256
Source = Picture | str | PathLike | bytes | bytearray | memoryview | Image.Image | np.ndarray


def open_picture(source: Source, *, name: str | None = None) -> Picture:
    """Open a picture, turn it upright, and bound its size.

    Args:
        source: "sample:NAME" | "scene:SEED" | "folder:NAME" | "file:PATH" | a path | a file's bytes | a PIL image |
            an array [h w], [h w 3] or [h w 4] | a Picture, which comes back as it is.
        name: the title of bytes, images and arrays; errors call them so.

    Returns:
        Picture; its `notes` say what had to be done to it.

    Raises:
        PictureError: with what is wrong and what is accepted.
    """
    if isinstance(source, Picture):
        return source
    if isinstance(source, bytes | bytearray | memoryview):
        called = _name(name, "bytes")
        return _upload(decoding.from_bytes(bytes(source), called), called)
    if isinstance(source, Image.Image):
        called = _name(name, "PIL.Image")
        return _upload(decoding.from_image(source, called), called)
    if isinstance(source, np.ndarray):
        called = _name(name, "numpy.ndarray")
        return _upload(decoding.from_array(source, called), called)
    if isinstance(source, PathLike):
        return _open_file(fspath(source))
    if isinstance(source, str):
        return _open_text(source)
    raise PictureError("picture.kind", received=type(source).__name__)


def _open_text(source: str) -> Picture:
    kind, _, rest = source.partition(":")
    if kind == "sample":
        return _sample(rest)
    if kind == "folder":
        path = catalogue.folder_file(rest)
        pixels, notes = decoding.from_bytes(catalogue.read_file(path), clean(rest))
        return Picture(source, catalogue.title(source), pixels, digest_of(pixels), "", notes)
    if kind == "scene":
        return open_scene(source)
    if kind == "upload":
        raise PictureError("picture.upload_gone")
    return _open_file(rest if kind == "file" else source)


def open_scene(key: str, side: int = SCENE_PX) -> Picture:
    """Open "scene:SEED" or "scene:SEED:THINGS" drawn at `side` pixels: at any size, never resampled.

    Raises:
        ParameterError: if the key names no scene, or the side is out of bounds; it says which are allowed.
    """
    from fusionviz import scenes  # only who asks for a scene waits for the room that draws them

    name = key.partition(":")[2]
    drawn = scenes.open_scene(name, side)
    key = ":".join(("scene", str(drawn.seed), *name.split(":")[1:]))
    pixels = read_only(drawn.picture)
    return Picture(key, catalogue.title(key), pixels, digest_of(pixels), texts.text("pictures.scene_credit"), ())


def _open_file(path: str | bytes) -> Picture:
    path = path.decode("utf-8", "surrogateescape") if isinstance(path, bytes) else path
    place = catalogue.expanded(path)
    key, called = f"file:{place}", clean(place.name) or clean(place)
    pixels, notes = decoding.from_bytes(catalogue.read_file(place), called)
    return Picture(key, called, pixels, digest_of(pixels), "", notes)


@lru_cache(maxsize=32)
def _sample(name: str) -> Picture:
    known = catalogue.sample(name)
    pixels, notes = decoding.from_bytes(catalogue.sample_bytes(known), known.file)
    credit = f"{known.credit} · {known.licence}"
    return Picture(known.key, texts.text(known.title), pixels, digest_of(pixels), credit, notes)


def _upload(decoded: decoding.Decoded, called: str) -> Picture:
    pixels, notes = decoded
    digest = digest_of(pixels)
    return Picture(f"upload:{digest}", called, pixels, digest, "", notes)


def _name(name: str | None, otherwise: str) -> str:
    # Browsers of old, and scripts, send whole paths.
    return clean(str(name or "").replace("\\", "/").rsplit("/", 1)[-1]) or otherwise
