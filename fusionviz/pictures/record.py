"""What a picture is here, and the bounds that every one keeps."""

import hashlib
from dataclasses import dataclass, field

import numpy as np

MIN_SIDE_PX = 8
MAX_ASPECT = 20
MAX_SIDE_PX = 2048  # of an opened picture: no network here sees more, and memory stays bounded
MAX_PIXELS = 64_000_000  # of a file, before it is decoded: telephones reach 50 megapixels
MAX_BYTES = 25 * 1024 * 1024

NOTES = ("animated", "alpha", "turned", "sixteen_bit", "cmyk", "stretched", "shrunk")


@dataclass(frozen=True)
class Picture:
    """An opened picture, upright and in colour.

    Attributes:
        key: "sample:NAME" | "folder:NAME" | "upload:DIGEST" | "file:PATH"; opening it again gives the same picture.
        title: a file's or sample's name, for people.
        pixels: uint8 RGB [h w 3], read-only.
        digest: of shape and pixels: two files with one content have one digest.
        credit: whose picture it is, and its licence; "" for a person's own.
        notes: what was done to it, in this order: codes of `pictures.notes` in the locale.
    """

    key: str
    title: str
    pixels: np.ndarray = field(repr=False, compare=False)
    digest: str
    credit: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 3 or self.pixels.shape[2] != 3:
            raise TypeError(f"a picture's pixels are uint8 [h w 3], not {self.pixels.dtype} {self.pixels.shape}")
        object.__setattr__(self, "pixels", read_only(self.pixels))

    @property
    def size(self) -> tuple[int, int]:
        """(h, w)."""
        return self.pixels.shape[:2]


def read_only(pixels: np.ndarray) -> np.ndarray:
    """Return the array itself if nobody can write to it, else a contiguous copy that nobody can write to."""
    if pixels.flags.writeable or pixels.base is not None or not pixels.flags.c_contiguous:
        pixels = np.array(pixels, order="C")
        pixels.flags.writeable = False
    return pixels


def digest_of(pixels: np.ndarray) -> str:
    """Return the fingerprint of a picture's content: 32 hexadecimal digits of shape and pixels."""
    height, width = pixels.shape[:2]
    content = hashlib.sha256(f"{height}x{width}:".encode())
    content.update(np.ascontiguousarray(pixels).data)
    return content.hexdigest()[:32]


def clean(name: object) -> str:
    """Return a name as it can be shown anywhere: no control characters, no broken Unicode, no endless line."""
    readable = str(name).encode("utf-8", "replace").decode("utf-8")
    readable = "".join(c for c in readable if c.isprintable()).strip()
    return readable if len(readable) <= 120 else f"{readable[:70]}…{readable[-48:]}"
