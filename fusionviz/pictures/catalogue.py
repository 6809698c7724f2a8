"""The pictures that are at hand: photographs inside scikit-image's wheel, and a folder of one's own."""

import os
import re
import stat
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path, PurePosixPath

from fusionviz import texts
from fusionviz.errors import PictureError
from fusionviz.pictures.decoding import check_bytes
from fusionviz.pictures.record import MAX_BYTES, clean
from fusionviz.registry import nearest

FOLDER_VARIABLE = "FUSIONVIZ_PICTURES"
SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff")


@dataclass(frozen=True)
class Sample:
    """A photograph of the gallery.

    Attributes:
        key: "sample:NAME".
        title: key of its title in the locale.
        credit: who made it, or gave it.
        licence: on what terms.
        look_for: key of the sentence that says what to look at.
        source: address of the original.
        file: its name in the folder `data` of scikit-image's wheel.
    """

    key: str
    title: str
    credit: str
    licence: str
    look_for: str
    source: str
    file: str

    @property
    def name(self) -> str:
        """The key without its prefix."""
        return self.key.removeprefix("sample:")


@cache
def samples() -> tuple[Sample, ...]:
    """Return the photographs of the gallery, in its order."""
    table = tomllib.loads((texts.ASSETS / "samples" / "samples.toml").read_text("utf-8"))
    return tuple(
        Sample(
            f"sample:{s['name']}",
            f"pictures.samples.{s['name']}.title",
            s["credit"],
            s["licence"],
            f"pictures.samples.{s['name']}.look",
            s["source"],
            s["file"],
        )
        for s in table["sample"]
    )


SCENES = ("scene:21", "scene:7", "scene:16", "scene:36", "scene:1")
"""Scenes that stand in the gallery; every other number is a scene too."""


_SCENE = re.compile(r"scene:[0-9]{1,9}(:[1-9])?")


def known(key: str) -> bool:
    """Say whether a link may name this picture: one of `keys()`, or any scene."""
    return key in keys() or _SCENE.fullmatch(key) is not None


def keys() -> tuple[str, ...]:
    """Return the keys of all pictures at hand: some scenes, the samples, then the folder's.

    A folder that is not there (any more) takes nothing away from the samples; `folder` says what is wrong with it.
    """
    try:
        own = folder()
    except PictureError:
        own = ()
    return (*SCENES, *(s.key for s in samples()), *own)


def folder() -> tuple[str, ...]:
    """Return the keys of the pictures in the folder that FUSIONVIZ_PICTURES names, or () if it names none.

    A key is the file's path inside the folder, so that a link works on every machine with the same folder.

    Raises:
        PictureError: if the variable names something that is not a folder.
    """
    if not os.environ.get(FOLDER_VARIABLE):
        return ()
    root = _root()
    found = []
    for place, inner, files in os.walk(root):
        inner[:] = [d for d in inner if not d.startswith(".")]
        for file in files:
            path = Path(place, file)
            if file.startswith(".") or path.suffix.lower() not in SUFFIXES or not _inside(path, root):
                continue
            relative = path.relative_to(root).as_posix()
            if clean(relative) == relative:  # a name that cannot be written in a link is left out
                found.append(relative)
    return tuple(f"folder:{name}" for name in sorted(found, key=lambda n: (n.casefold(), n)))


def title(key: str, language: str = "en") -> str:
    """Return what people call the picture `key`, without opening it."""
    kind, _, name = key.partition(":")
    if kind == "sample":
        return texts.text(sample(name).title, language)
    if kind == "scene":
        seed, _, count = clean(name).partition(":")
        which = {"": "scene", "1": "scene_one"}.get(count, "scene_of")
        return texts.text(f"pictures.{which}", language, seed=seed, count=count)
    return clean(PurePosixPath(name.replace("\\", "/")).name) if kind in ("folder", "file") else clean(name)


def sample(name: str) -> Sample:
    """Return the sample `name`.

    Raises:
        PictureError: with near matches and the list, if there is none.
    """
    for known in samples():
        if known.name == name:
            return known
    names = [s.name for s in samples()]
    raise PictureError(
        "picture.unknown_sample", name=clean(name), near=nearest(name.lower(), names), known=", ".join(names)
    )


def sample_bytes(known: Sample) -> bytes:
    """Return a sample's file, straight from the installed wheel: nothing is ever downloaded.

    Raises:
        PictureError: if scikit-image is not installed, or its wheel has lost the file.
    """
    try:
        # By path: the functions of skimage.data fetch what they miss from the network.
        return resources.files("skimage").joinpath("data", known.file).read_bytes()
    except (ImportError, OSError):
        raise PictureError("picture.sample_missing", name=known.name, file=known.file) from None


def folder_file(name: str) -> Path:
    """Return the path of the picture `name` of the folder.

    Raises:
        PictureError: if there is no folder, no such picture in it, or `name` leads out of it.
    """
    if not os.environ.get(FOLDER_VARIABLE):
        raise PictureError("picture.folder_unset", name=clean(name), variable=FOLDER_VARIABLE)
    root = _root()
    path = root / name
    if not _inside(path, root):
        raise PictureError("picture.folder_outside", name=clean(name), variable=FOLDER_VARIABLE)
    try:
        found = path.is_file()
    except (OSError, ValueError):
        found = False
    if not found:
        names = [k.removeprefix("folder:") for k in folder()]
        near = nearest(name, names)
        raise PictureError("picture.folder_unknown", name=clean(name), near=near)
    return path


def read_file(path: Path) -> bytes:
    """Return a file's bytes, no more than a picture may have.

    Raises:
        PictureError: if it is not there, a folder, no ordinary file, too large, or cannot be read.
    """
    shown = clean(path)
    try:
        about = path.stat()
        if stat.S_ISDIR(about.st_mode):
            raise PictureError("picture.directory", path=shown)
        if not stat.S_ISREG(about.st_mode):  # reading a pipe or a device may never end
            raise PictureError("picture.not_a_file", path=shown)
        check_bytes(about.st_size, shown)
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a name no file can have
        raise PictureError("picture.missing", path=shown) from None
    except OSError as refused:
        raise PictureError("picture.unreadable", path=shown, reason=refused.strerror or str(refused)) from None


def _root() -> Path:
    given = os.environ[FOLDER_VARIABLE]
    root = expanded(given)
    try:
        if root.is_dir():
            return root.resolve()
    except OSError:
        pass
    raise PictureError("picture.folder_missing", variable=FOLDER_VARIABLE, folder=clean(given))


def _inside(path: Path, root: Path) -> bool:
    try:
        return path.resolve().is_relative_to(root)
    except (OSError, RuntimeError, ValueError):  # circles of links, names no file can have
        return False


def expanded(path: str | Path) -> Path:
    """Return a path with its `~` filled in, where there is a home."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)
