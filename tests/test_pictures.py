"""Pictures: every format against an independent reading, every mistake answered, every network's own preprocessing."""

import io
import os
import re
import struct
import threading
import tomllib
import warnings
import zlib

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageCms
from torchvision import models

from fusionviz import pictures, texts
from fusionviz.errors import PictureError
from fusionviz.pictures import MAX_BYTES, MAX_SIDE_PX, Picture, decoding, fit, open_picture
from fusionviz.pictures.catalogue import SCENES
from fusionviz.pictures.record import NOTES
from fusionviz.records import Preprocessing

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (24, 32, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (24, 32), dtype=np.uint8)
ALPHA = RNG.integers(0, 256, (24, 32), dtype=np.uint8)
BLOCKS = np.kron(RNG.integers(0, 256, (4, 5, 3)), np.ones((16, 16, 1))).astype(np.uint8)  # JPEG keeps whole blocks


def three(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[:, :, None], 3, 2)


def on_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    part = alpha[:, :, None] / 255
    return np.rint(colour * part + 255 * (1 - part))


def saved(image: Image.Image, form: str, **how: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **how)
    return file.getvalue()


def png(width: int, height: int, depth: int, kind: int, rows: list[bytes], *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG written by hand, for what Pillow cannot write."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    middle = b"".join(chunk(*c) for c in chunks)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + middle + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def tiff(
    width: int, height: int, bits: tuple[int, ...], data: bytes, *, photometric: int, order: str = "<", more: tuple = ()
) -> bytes:
    """An uncompressed TIFF written by hand, one strip; `more` are (tag, number) pairs."""
    entries = [
        (256, 4, (width,)),
        (257, 4, (height,)),
        (258, 3, bits),
        (259, 3, (1,)),
        (262, 3, (photometric,)),
        (273, 4, (0,)),
        (277, 3, (len(bits),)),
        (278, 4, (height,)),
        (279, 4, (len(data),)),
        *((tag, 3, (number,)) for tag, number in more),
    ]
    entries.sort()
    outside = 8 + 2 + 12 * len(entries) + 4
    extra, table = b"", b""
    for tag, kind, values in entries:
        packed = struct.pack(f"{order}{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(packed) > 4:
            table += struct.pack(f"{order}HHII", tag, kind, len(values), outside + len(extra))
            extra += packed
        else:
            table += struct.pack(f"{order}HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    strip = struct.pack(f"{order}HHII", 273, 4, 1, 0)
    table = table.replace(strip, struct.pack(f"{order}HHII", 273, 4, 1, outside + len(extra)))
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, 8, len(entries))
    return head + table + b"\0\0\0\0" + extra + data


def refused(code: str, source: object, **how: object) -> PictureError:
    """The error that `source` is answered with, whose sentence is whole in both languages."""
    with pytest.raises(PictureError) as caught:
        open_picture(source, **how)
    assert caught.value.code == f"picture.{code}"
    for language in texts.LANGUAGES:
        sentence = caught.value.text(language)
        assert not re.search(r"\{[a-z_]+\}", sentence)
        assert sentence.endswith((".", "。"))
    return caught.value


# --- formats -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("form", "how"),
    [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("WEBP", {"lossless": True})],
)
def test_formats_without_loss_come_back_as_they_were(form: str, how: dict) -> None:
    picture = open_picture(saved(Image.fromarray(COLOUR), form, **how))
    assert np.array_equal(picture.pixels, COLOUR)
    assert picture.notes == ()
    grey = open_picture(saved(Image.fromarray(GREY), form, **how))
    assert np.array_equal(grey.pixels, three(GREY))


@pytest.mark.parametrize(("form", "how"), [("JPEG", {"quality": 100, "subsampling": 0}), ("WEBP", {"quality": 100})])
def test_formats_with_loss_come_back_nearly(form: str, how: dict) -> None:
    shown = open_picture(saved(Image.fromarray(BLOCKS), form, **how)).pixels.astype(int)
    assert np.abs(shown - BLOCKS).mean() < (1.5 if form == "JPEG" else 6)


def test_only_the_first_frame_of_an_animation_is_shown() -> None:
    frames = [Image.fromarray(np.full((16, 16, 3), value, np.uint8)) for value in (200, 90, 10)]
    for form, how in (("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {})):
        picture = open_picture(saved(frames[0], form, save_all=True, append_images=frames[1:], **how))
        assert (picture.pixels == 200).all(), form
        assert picture.notes == ("animated",), form
    assert open_picture(saved(frames[0], "GIF")).notes == ()


def test_a_telephones_mpo_is_no_animation() -> None:
    left, right = Image.fromarray(BLOCKS), Image.fromarray(255 - BLOCKS)
    picture = open_picture(saved(left, "MPO", save_all=True, append_images=[right], quality=100, subsampling=0))
    assert picture.notes == ()
    assert np.abs(picture.pixels.astype(int) - BLOCKS).mean() < 1.5


def test_a_16_bit_gradient_is_the_8_bit_gradient() -> None:
    ramp = np.tile(np.arange(256, dtype=np.uint16), (16, 1))
    expected = three(ramp.astype(np.uint8))
    wide = ramp * np.uint16(257)
    for form in ("PNG", "TIFF"):
        picture = open_picture(saved(Image.fromarray(wide), form))
        assert np.array_equal(picture.pixels, expected), form
        assert picture.notes == ("sixteen_bit",), form
    big = tiff(256, 16, (16,), wide.astype(">u2").tobytes(), photometric=1, order=">")
    assert Image.open(io.BytesIO(big)).mode == "I;16B"
    assert np.array_equal(open_picture(big).pixels, expected)
    assert np.array_equal(open_picture(wide).pixels, expected)
    assert np.array_equal(open_picture(wide.astype(">u2")).pixels, expected)


def test_a_16_bit_png_as_older_pillow_opens_it() -> None:
    image = Image.fromarray(GREY.astype(np.int32) * 257)
    assert image.mode == "I"
    image.format = "PNG"
    image.tile = [("zip", (0, 0, 32, 24), 0, "I;16B")]
    image.load = lambda: None
    picture = open_picture(image)
    assert np.array_equal(picture.pixels, three(GREY))
    assert picture.notes == ("sixteen_bit",)


def test_16_bits_are_rounded_not_cut() -> None:
    values = RNG.integers(0, 65536, (20, 30), dtype=np.uint16)
    assert np.array_equal(open_picture(values).pixels, three(np.rint(values / 257).astype(np.uint8)))
    assert np.array_equal(open_picture(saved(Image.fromarray(values), "PNG")).pixels, open_picture(values).pixels)


def test_12_bits_are_scaled_by_12_bits() -> None:
    ramp = np.linspace(0, 4095, 64).round().astype(int)
    row = b"".join(bytes((a >> 4, (a & 15) << 4 | b >> 8, b & 255)) for a, b in ramp.reshape(-1, 2).tolist())
    picture = open_picture(tiff(64, 10, (12,), row * 10, photometric=1))
    assert np.array_equal(picture.pixels, three(np.tile(np.rint(ramp / 4095 * 255), (10, 1))))
    assert picture.notes == ("sixteen_bit",)


@pytest.mark.parametrize("bits", [8, 16])
def test_where_white_is_zero_the_picture_is_not_a_negative(bits: int) -> None:
    levels = np.tile(np.arange(0, 256, 8), (10, 1))
    stored = (255 - levels) * (257 if bits == 16 else 1)
    picture = open_picture(tiff(32, 10, (bits,), stored.astype(f"<u{bits // 8}").tobytes(), photometric=0))
    assert np.array_equal(picture.pixels, three(levels))


@pytest.mark.parametrize("alpha", [False, True])
def test_16_bit_colour(alpha: bool) -> None:
    wide = np.concatenate([COLOUR, ALPHA[:, :, None]], 2) if alpha else COLOUR
    wide = wide.astype(np.uint16) * 257
    rows = [row.astype(">u2").tobytes() for row in wide]
    expected = on_white(COLOUR, ALPHA) if alpha else COLOUR
    picture = open_picture(png(32, 24, 16, 6 if alpha else 2, rows))
    assert np.array_equal(picture.pixels, expected)
    assert picture.notes == (("alpha", "sixteen_bit") if alpha else ("sixteen_bit",))
    if not alpha:
        data = wide.astype("<u2").tobytes()
        assert np.array_equal(open_picture(tiff(32, 24, (16, 16, 16), data, photometric=2)).pixels, expected)


def test_16_bit_grey_with_alpha() -> None:
    wide = np.stack([GREY, ALPHA], 2).astype(np.uint16) * 257
    picture = open_picture(png(32, 24, 16, 4, [row.astype(">u2").tobytes() for row in wide]))
    assert np.array_equal(picture.pixels, on_white(three(GREY), ALPHA))


def test_float_tiff_and_float_arrays() -> None:
    unit = GREY.astype(np.float32) / 255
    for values in (unit, unit * 255):
        picture = open_picture(saved(Image.fromarray(values), "TIFF"))
        assert np.array_equal(picture.pixels, three(GREY))
        assert picture.notes == ()
    metres = np.linspace(-3, 5, 9 * 10, dtype=np.float32).reshape(9, 10)
    picture = open_picture(saved(Image.fromarray(metres), "TIFF"))
    assert np.array_equal(picture.pixels, three(np.rint((metres.astype(float) + 3) / 8 * 255)))
    assert picture.notes == ("stretched",)
    assert np.array_equal(open_picture(COLOUR / 255).pixels, COLOUR)


def test_numbers_that_are_none_become_black_and_infinities_the_ends() -> None:
    values = np.full((8, 8), 0.5)
    values[0, :3] = np.nan, np.inf, -np.inf
    values[1, :2] = 0.0, 1.0
    levels = open_picture(values).pixels[:, :, 0]
    assert levels[0, :3].tolist() == [0, 255, 0]
    assert levels[2, 2] == 128
    assert not open_picture(np.full((8, 8), np.nan)).pixels.any()


def test_32_bit_integers_are_stretched_and_said_so() -> None:
    depth_mm = np.linspace(-1000, 100_000, 80).reshape(8, 10).astype(np.int32)
    picture = open_picture(saved(Image.fromarray(depth_mm), "TIFF"))
    assert picture.pixels[0, 0, 0] == 0
    assert picture.pixels[-1, -1, 0] == 255
    assert "stretched" in picture.notes
    assert np.array_equal(open_picture(GREY.astype(np.int64)).pixels, three(GREY))


def test_cmyk() -> None:
    ink = RNG.integers(0, 256, (24, 32, 4), dtype=np.uint8)
    c, m, y, k = (ink[:, :, i].astype(float) for i in range(4))
    expected = np.stack([(255 - n) * (255 - k) / 255 for n in (c, m, y)], 2)
    image = Image.frombytes("CMYK", (32, 24), ink.tobytes())
    picture = open_picture(saved(image, "TIFF"))
    assert np.abs(picture.pixels - expected).max() <= 1
    assert picture.notes == ("cmyk",)
    # A JPEG of four inks is stored inverted, as Adobe began it; red ink must not come out cyan.
    red = Image.new("CMYK", (32, 32), (0, 255, 255, 0))
    data = saved(red, "JPEG", quality=100)
    assert b"Adobe" in data
    assert np.abs(open_picture(data).pixels.astype(int) - (255, 0, 0)).max() <= 3


def test_lab() -> None:
    soft = np.clip(BLOCKS, 40, 200)
    lab = ImageCms.profileToProfile(
        Image.fromarray(soft), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert np.abs(open_picture(saved(lab, "TIFF")).pixels.astype(int) - soft).mean() < 3


def test_palettes_with_and_without_transparency() -> None:
    index = RNG.integers(0, 4, (16, 16), dtype=np.uint8)
    colours = np.array([(255, 0, 0), (0, 200, 10), (5, 5, 90), (250, 250, 0)], np.uint8)
    image = Image.frombytes("P", (16, 16), index.tobytes())
    image.putpalette(colours.tobytes())
    for form in ("PNG", "GIF", "BMP", "TIFF"):
        assert np.array_equal(open_picture(saved(image, form)).pixels, colours[index]), form
    alphas = np.array([255, 0, 128, 255], np.uint8)
    picture = open_picture(saved(image, "PNG", transparency=alphas.tobytes()))
    assert np.array_equal(picture.pixels, on_white(colours[index], alphas[index]))
    assert picture.notes == ("alpha",)
    one = open_picture(saved(image, "GIF", transparency=2))
    assert np.array_equal(one.pixels, on_white(colours[index], np.where(index == 2, 0, 255)))
    assert one.notes == ("alpha",)


def test_alpha_is_laid_on_white() -> None:
    rgba = np.concatenate([COLOUR, ALPHA[:, :, None]], 2)
    expected = on_white(COLOUR, ALPHA)
    for source in (rgba, Image.fromarray(rgba), saved(Image.fromarray(rgba), "PNG")):
        picture = open_picture(source)
        assert np.abs(picture.pixels - expected).max() == 0
        assert picture.notes == ("alpha",)
    grey = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)])
    for source in (grey, saved(grey, "PNG"), np.stack([GREY, ALPHA], 2)):
        assert np.array_equal(open_picture(source).pixels, on_white(three(GREY), ALPHA))
    opaque = np.concatenate([COLOUR, np.full((24, 32, 1), 255, np.uint8)], 2)
    assert open_picture(opaque).notes == ()
    assert np.array_equal(open_picture(opaque).pixels, COLOUR)


def test_a_transparent_colour_is_laid_on_white_at_every_depth() -> None:
    grey = GREY.copy()
    grey[3:6] = 77
    expected = on_white(three(grey), np.where(grey == 77, 0, 255))
    rows = [row.tobytes() for row in grey]
    assert np.array_equal(open_picture(png(32, 24, 8, 0, rows, (b"tRNS", struct.pack(">H", 77)))).pixels, expected)
    wide = [(row.astype(np.uint16) * 257).astype(">u2").tobytes() for row in grey]
    clear = (b"tRNS", struct.pack(">H", 77 * 257))
    assert np.array_equal(open_picture(png(32, 24, 16, 0, wide, clear)).pixels, expected)
    # Two bits: levels 0, 85, 170, 255; the transparent level is given as 2.
    row = bytes([0b00011011] * 4)
    levels = np.tile([0, 85, 170, 255], (12, 4))
    clear = (b"tRNS", struct.pack(">H", 2))
    shown = open_picture(png(16, 12, 2, 0, [row] * 12, clear)).pixels
    assert np.array_equal(shown, on_white(three(levels), np.where(levels == 170, 0, 255)))
    colour = COLOUR.copy()
    colour[2:4] = 10, 20, 30
    seen = on_white(colour, np.where((colour == (10, 20, 30)).all(2), 0, 255))
    for depth, scale in ((8, 1), (16, 257)):
        rows = [(r.astype(np.uint16) * scale).astype(f">u{depth // 8}").tobytes() for r in colour]
        clear = (b"tRNS", struct.pack(">HHH", 10 * scale, 20 * scale, 30 * scale))
        assert np.array_equal(open_picture(png(32, 24, depth, 2, rows, clear)).pixels, seen), depth


def test_one_bit() -> None:
    bits = GREY > 120
    for form in ("PNG", "TIFF", "BMP"):
        assert np.array_equal(open_picture(saved(Image.fromarray(bits), form)).pixels, three(bits * 255)), form
    assert np.array_equal(open_picture(bits).pixels, three(bits * 255))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_every_exif_orientation_is_turned_upright(orientation: int, form: str) -> None:
    upright = BLOCKS  # what the eye saw; stored as each camera position would
    stored = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation](upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    how = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(form, {})
    image = Image.fromarray(np.ascontiguousarray(stored))
    picture = open_picture(saved(image, form, exif=exif, **how))
    assert picture.pixels.shape == upright.shape
    assert np.abs(picture.pixels.astype(int) - upright).mean() < 1.5
    assert picture.notes == (("turned",) if orientation > 1 else ())
    opened = Image.open(io.BytesIO(saved(image, form, exif=exif, **how)))
    assert np.array_equal(open_picture(opened).pixels, picture.pixels)


def test_broken_exif_is_no_reason_to_refuse() -> None:
    data = saved(Image.fromarray(BLOCKS), "JPEG", exif=b"Exif\0\0" + b"II*\0" + b"\xff" * 40)
    assert open_picture(data).pixels.shape == BLOCKS.shape


def test_large_pictures_are_made_smaller_and_the_detail_is_averaged() -> None:
    wide = np.tile(np.array([[0, 255], [255, 0]], np.uint8), (200, 1500))  # a checkerboard averages to grey
    picture = open_picture(saved(Image.fromarray(wide), "PNG"))
    assert picture.size == (273, MAX_SIDE_PX)
    assert "shrunk" in picture.notes
    assert abs(picture.pixels[50:-50, 50:-50].mean() - 127.5) < 2
    ramp = np.tile(np.linspace(0, 255, 4600)[None], (1150, 1)).astype(np.uint8)
    photo = open_picture(saved(Image.fromarray(ramp), "JPEG", quality=95))
    assert photo.size == (512, 2048)
    assert photo.notes == ("shrunk",)
    assert np.abs(photo.pixels[256, :, 0] - np.linspace(0, 255, 2048)).max() < 3
    turned = Image.Exif()
    turned[0x0112] = 6
    stood = open_picture(saved(Image.fromarray(ramp), "JPEG", exif=turned))
    assert stood.size == (2048, 512)
    assert stood.notes == ("turned", "shrunk")


def test_what_is_transparent_does_not_bleed_when_made_smaller() -> None:
    rgba = np.zeros((300, 3000, 4), np.uint8)
    rgba[:, ::2] = 255, 0, 0, 255  # opaque red and fully transparent black, side by side
    shown = open_picture(Image.fromarray(rgba)).pixels[100:150, 200:-200].astype(int)
    assert np.abs(shown[..., 0] - 255).max() <= 2  # black would darken the red to 128


def test_a_pil_image_is_left_as_it_was() -> None:
    for form in ("PNG", "JPEG"):
        image = Image.open(io.BytesIO(saved(Image.fromarray(np.full((2600, 2600), 128, np.uint8)), form)))
        assert open_picture(image).size == (MAX_SIDE_PX, MAX_SIDE_PX)
        assert image.size == (2600, 2600)
        assert np.asarray(image).shape == (2600, 2600)


def test_a_broken_second_frame_leaves_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [Image.fromarray(np.full((16, 16, 3), value, np.uint8)) for value in (200, 90)]
    data = bytearray(saved(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    data[data.rindex(b"\x21\xf9") :] = b"\x2c" + b"\0" * 6
    assert (open_picture(bytes(data)).pixels == 200).all()


# --- mistakes ------------------------------------------------------------------------------------
def test_bytes_that_are_no_picture(tmp_path: os.PathLike) -> None:
    refused("empty", b"", name="holiday.jpg")
    assert "holiday.jpg" in str(refused("not_a_picture", b"hello, this is text", name="C:\\Users\\a\\holiday.jpg"))
    for data, kind in (
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        (b"%PDF-1.7", "PDF"),
        (b"<svg xmlns=''></svg>", "SVG"),
        (b"8BPS\0\1", "PSD"),
        (saved(Image.fromarray(COLOUR), "PPM"), "PNM"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", None),
    ):
        error = refused("format" if kind else "not_a_picture", data)
        assert (kind or "PNG") in str(error)
    refused("damaged", b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_file_that_is_cut_off(form: str) -> None:
    data = saved(Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)), form)
    error = refused("damaged", data[: len(data) // 2])
    assert form in str(error).upper()


def test_pictures_out_of_bounds() -> None:
    assert "1 × 1" in str(refused("small", np.zeros((1, 1, 3), np.uint8)))
    refused("small", saved(Image.new("RGB", (300, 7)), "PNG"))
    refused("small", np.zeros((0, 12, 3), np.uint8))
    refused("small", Image.new("RGB", (0, 0)))
    assert open_picture(np.zeros((8, 8))).size == (8, 8)
    refused("narrow", saved(Image.new("L", (8 * 20 + 1, 8)), "PNG"))
    assert open_picture(np.zeros((160, 8))).size == (160, 8)
    refused("bytes", b"\x89PNG\r\n\x1a\n" + bytes(MAX_BYTES))
    refused("array", np.zeros((3, 224, 224)))
    refused("array", np.zeros((1, 224, 224, 3)))
    refused("array", np.zeros((20, 20), complex))
    refused("array", np.array([["a", "b"], ["c", "d"]]))
    refused("array", np.zeros(()))
    refused("kind", 7)
    refused("kind", None)


@pytest.mark.parametrize("side", [9_000, 12_000, 40_000])
@pytest.mark.parametrize("form", ["PNG", "GIF", "BMP", "WEBP", "TIFF", "JPEG"])
def test_a_decompression_bomb_is_refused_by_its_header(form: str, side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """81 megapixels are below Pillow's own warning, 144 warn, 1600 stop it; nothing may be decoded of any."""
    heads = {
        "PNG": png(side, side, 8, 0, [b""]),
        "GIF": b"GIF89a" + struct.pack("<HHBBB", side, side, 0x80, 0, 0) + bytes(6)
        + b"," + struct.pack("<HHHHB", 0, 0, side, side, 0) + b"\x08\x02\x4c\x01\x00;",
        "BMP": struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 99, 0, 0, 54, 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0),
        "WEBP": b"RIFF\x30\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0"
        + (min(side, 16384) - 1).to_bytes(3, "little") * 2 + bytes(30),
        "TIFF": tiff(side, side, (8,), b"\0", photometric=1),
        "JPEG": b"\xff\xd8\xff\xc0\0\x0b\x08" + struct.pack(">HH", side, side) + b"\1\1\x11\0"
        + b"\xff\xda\0\x08\1\1\0\0\x3f\0\0\xff\xd9",
    }  # fmt: skip

    def loaded(*_: object) -> None:
        raise AssertionError("decoded a bomb")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", loaded)
    monkeypatch.setattr("PIL.WebPImagePlugin.WebPImageFile.load", loaded)
    monkeypatch.setattr("PIL.TiffImagePlugin.TiffImageFile.load", loaded)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refused("huge", heads[form])


def test_a_webp_of_any_layout_is_measured_before_its_decoder_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    monkeypatch.setattr(decoding.Image, "open", lambda *_, **__: opened.append(1))
    lossless, lossy = bytearray(FORMS[2]), bytearray(saved(Image.fromarray(COLOUR), "WEBP", lossless=True))
    lossless, lossy = (lossy, lossless) if lossy[12:16] == b"VP8L" else (lossless, lossy)
    assert decoding._webp_size(bytes(lossless)) == decoding._webp_size(bytes(lossy)) == (32, 24)
    lossless[21:25] = (int.from_bytes(lossless[21:25], "little") | 0xFFFFFFF).to_bytes(4, "little")
    lossy[26:30] = b"\xff\x3f\xff\x3f"
    refused("huge", bytes(lossless))
    refused("huge", bytes(lossy))
    assert opened == []


def test_a_tiff_whose_tile_is_the_bomb() -> None:
    refused("huge", tiff(64, 64, (8,), bytes(4096), photometric=1, more=((322, 60_000), (323, 60_000))))


def test_colours_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(*_: object, **__: object) -> None:
        raise ValueError("conversion not supported")

    lab = saved(Image.fromarray(GREY).convert("RGB").convert("LAB"), "TIFF")
    monkeypatch.setattr(Image.Image, "convert", cannot)
    assert "LAB" in str(refused("mode", lab))


def test_paths(tmp_path: os.PathLike) -> None:
    file = tmp_path / "räder {0} 轮.png"
    file.write_bytes(saved(Image.fromarray(COLOUR), "PNG"))
    for source in (file, str(file), f"file:{file}"):
        picture = open_picture(source)
        assert picture.key == f"file:{file}"
        assert picture.title == file.name
        assert np.array_equal(open_picture(picture.key).pixels, COLOUR)
    refused("missing", tmp_path / "nothing.png")
    refused("missing", file / "inside.png")
    refused("missing", "a\0b.png")
    refused("directory", tmp_path)
    refused("directory", "")
    refused("unreadable", "x" * 5000)
    os.mkfifo(tmp_path / "pipe.png")
    refused("not_a_file", tmp_path / "pipe.png")
    file.write_bytes(b"")
    refused("empty", file)
    with (tmp_path / "large.png").open("wb") as large:
        large.truncate(MAX_BYTES + 1)
    refused("bytes", tmp_path / "large.png")
    refused("upload_gone", "upload:1234")


def test_a_file_that_may_not_be_read(tmp_path: os.PathLike, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "secret.png"
    file.write_bytes(b"x")

    def closed(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", closed)
    assert "Permission denied" in str(refused("unreadable", file))


FORMS = [
    saved(Image.fromarray(COLOUR), "PNG"),
    saved(Image.fromarray(COLOUR), "JPEG"),
    saved(Image.fromarray(COLOUR), "WEBP"),
    saved(Image.fromarray(COLOUR), "GIF"),
    saved(Image.fromarray(COLOUR), "BMP"),
    saved(Image.fromarray(COLOUR), "TIFF"),
    saved(Image.fromarray(COLOUR), "TIFF", compression="tiff_lzw"),
    saved(Image.fromarray(GREY.astype(np.uint16) * np.uint16(257)), "PNG"),
    saved(Image.fromarray(GREY.astype(np.float32)), "TIFF"),
    saved(Image.fromarray(BLOCKS).convert("CMYK"), "JPEG"),
]
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def answered(source: object) -> None:
    """Either a whole picture or a PictureError; no other exception, and no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            picture = open_picture(source)
        except PictureError as error:
            sentence = error.text("zh")
            picture = None
    if picture is None:
        assert "。" in sentence
        return
    assert picture.pixels.ndim == 3
    assert min(picture.size) >= 1
    assert max(picture.size) <= MAX_SIDE_PX
    assert picture.digest


@FUZZ
@given(st.binary(max_size=400))
def test_fuzz_bytes(data: bytes) -> None:
    answered(data)
    for beginning in (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"BM", b"II*\0", b"MM\0*", b"RIFF\0\0\0\0WEBP"):
        answered(beginning + data)


@FUZZ
@given(st.sampled_from(FORMS), st.floats(0, 1))
def test_fuzz_files_that_are_cut_off(data: bytes, part: float) -> None:
    answered(data[: int(part * len(data))])


@FUZZ
@given(
    st.sampled_from(FORMS),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=12),
    st.booleans(),
)
def test_fuzz_files_with_wrong_bytes(data: bytes, wrong: list, head: bool) -> None:
    broken = bytearray(data)
    for place, value in wrong:
        broken[int(place * (min(len(data), 200) if head else len(data)))] = value
    answered(bytes(broken))


@FUZZ
@given(
    hnp.arrays(
        st.one_of(hnp.floating_dtypes(), hnp.integer_dtypes(), hnp.unsigned_integer_dtypes(), hnp.boolean_dtypes()),
        st.tuples(st.integers(7, 12), st.integers(8, 12), st.integers(1, 5)),
    )
)
@example(np.array([[-1.7e308, 1.7e308] * 4] * 8))
@example(np.array([[0, 5e-324] * 4] * 8) * -1)
@example(np.array([[-1e4000, 1e4000] * 4] * 8, np.longdouble))
@example(np.array([[-(2**63), 2**63 - 1] * 4] * 8))
def test_fuzz_arrays(array: np.ndarray) -> None:
    answered(array)


@FUZZ
@given(st.text(max_size=60))
@example("sample:")
@example("folder:")
@example("file:")
@example("~nobody-of-this-name/x.png")
@example("\udcff.png")
def test_fuzz_names(name: str) -> None:
    answered(f"sample:{name}")
    answered(f"folder:{name}")
    answered(f"file:{name}")
    answered(name)


def test_thirty_students_upload_at_once_and_no_warning_filter_is_left_behind() -> None:
    filters, found = list(warnings.filters), []
    data = FORMS[0]
    threads = [threading.Thread(target=lambda: found.append(open_picture(data).digest)) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 30
    assert len(set(found)) == 1
    assert list(warnings.filters) == filters


# --- pictures ------------------------------------------------------------------------------------
def test_the_digest_is_of_the_pixels_not_of_the_file() -> None:
    one = open_picture(FORMS[0], name="a.png")
    other = open_picture(saved(Image.fromarray(COLOUR), "BMP"), name="b.bmp")
    assert one.digest == other.digest
    assert one.key == f"upload:{one.digest}"
    assert (one.title, other.title) == ("a.png", "b.bmp")
    assert open_picture(COLOUR.reshape(32, 24, 3)).digest != one.digest  # the same bytes in another shape
    assert open_picture(255 - COLOUR).digest != one.digest


def test_a_picture_cannot_be_changed_by_anyone() -> None:
    mine = COLOUR.copy()
    picture = open_picture(mine)
    mine[:] = 0
    assert np.array_equal(picture.pixels, COLOUR)
    with pytest.raises(ValueError, match="read-only"):
        picture.pixels[0] = 0
    assert open_picture(picture) is picture
    assert hash(picture) == hash(open_picture(COLOUR))
    own = Picture("upload:x", "x", mine, "x")
    mine[:] = 9
    assert not own.pixels.any()
    with pytest.raises(TypeError, match="uint8"):
        Picture("upload:x", "x", GREY, "x")


def test_titles_can_be_shown_anywhere() -> None:
    title = open_picture(FORMS[0], name="../../a/b\\c\n\x07\udcff" + "n" * 500 + ".png").title
    assert title.isprintable()
    assert len(title) <= 120
    assert title.startswith("c")
    assert title.endswith(".png")
    title.encode()


# --- catalogue -----------------------------------------------------------------------------------
NAMED = ("astronaut", "chelsea", "coffee", "rocket", "coins", "camera", "hubble", "retina")


def test_every_sample_opens_with_credit_and_texts() -> None:
    samples = pictures.samples()
    names = [s.name for s in samples]
    assert len(set(names)) == len(names)
    assert {*NAMED, "motorcycle_left", "motorcycle_right"} <= set(names)
    for sample in samples:
        picture = open_picture(sample.key)
        assert picture.key == sample.key
        assert min(picture.size) >= 224
        assert sample.credit in picture.credit
        assert sample.licence in picture.credit
        assert sample.source.startswith("http")
        for language in texts.LANGUAGES:
            assert pictures.title(sample.key, language) == texts.text(sample.title, language)
            assert len(texts.text(sample.look_for, language)) > 40
    assert len({open_picture(k).digest for k in pictures.keys()}) == len(samples) + len(SCENES)


def test_samples_are_the_pictures_of_scikit_image(monkeypatch: pytest.MonkeyPatch) -> None:
    from skimage import data

    monkeypatch.setattr("socket.socket", None)  # no network, whatever happens
    assert np.array_equal(open_picture("sample:coffee").pixels, data.coffee())
    assert np.array_equal(open_picture("sample:coins").pixels, three(data.coins()))
    left, right, _ = data.stereo_motorcycle()
    assert np.array_equal(open_picture("sample:motorcycle_left").pixels, left)
    assert np.array_equal(open_picture("sample:motorcycle_right").pixels, right)


def test_an_unknown_sample_is_answered_with_near_ones() -> None:
    error = refused("unknown_sample", "sample:cofee")
    assert error.values["near"].startswith("coffee")
    assert "astronaut" in str(error)


def test_without_scikit_image(monkeypatch: pytest.MonkeyPatch) -> None:
    from fusionviz.pictures import catalogue, opening

    def gone(_: str) -> None:
        raise ModuleNotFoundError("skimage")

    opening._sample.cache_clear()
    monkeypatch.setattr(catalogue.resources, "files", gone)
    assert "pip install scikit-image" in str(refused("sample_missing", "sample:coffee"))


def test_every_text_of_pictures_is_there_in_every_language() -> None:
    tables = [texts.locale(language) for language in texts.LANGUAGES]
    for part in (
        lambda t: t["errors"]["picture"],
        lambda t: t["pictures"]["notes"],
        lambda t: t["pictures"]["samples"],
    ):
        first, second = (part(t) for t in tables)
        assert first.keys() == second.keys()
    assert set(tables[0]["pictures"]["notes"]) == set(NOTES)
    assert set(tables[0]["pictures"]["samples"]) == {s.name for s in pictures.samples()}
    listed = tomllib.loads((texts.ASSETS / "samples" / "samples.toml").read_text("utf-8"))["sample"]
    assert [s["name"] for s in listed] == [s.name for s in pictures.samples()]


@pytest.fixture
def own(tmp_path: os.PathLike, monkeypatch: pytest.MonkeyPatch) -> os.PathLike:
    (tmp_path / "secret.png").write_bytes(FORMS[0])
    root = tmp_path / "my pictures"
    (root / "Week 2").mkdir(parents=True)
    (root / ".hidden").mkdir()
    for name in ("b.PNG", "A.jpg", "Week 2/轮.png", ".dot.png", ".hidden/x.png"):
        (root / name).write_bytes(FORMS[0])
    (root / "notes.txt").write_text("no picture")
    (root / "out.png").symlink_to(tmp_path / "secret.png")
    monkeypatch.setenv(pictures.FOLDER_VARIABLE, str(root))
    return root


def test_the_folder_of_ones_own(own: os.PathLike) -> None:
    assert pictures.folder() == ("folder:A.jpg", "folder:b.PNG", "folder:Week 2/轮.png")
    assert pictures.keys() == (*SCENES, *(s.key for s in pictures.samples()), *pictures.folder())
    picture = open_picture("folder:Week 2/轮.png")
    assert (picture.key, picture.title) == ("folder:Week 2/轮.png", "轮.png")
    assert np.array_equal(picture.pixels, COLOUR)
    assert pictures.title("folder:Week 2/轮.png", "zh") == "轮.png"


@pytest.mark.parametrize("name", ["../secret.png", "Week 2/../../secret.png", "{root}/../secret.png", "out.png", ".."])
def test_nothing_outside_the_folder_is_opened(own: os.PathLike, name: str) -> None:
    error = refused("folder_outside", "folder:" + name.format(root=own))
    assert pictures.FOLDER_VARIABLE in str(error)


def test_a_folder_that_is_not_there(own: os.PathLike, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "A.jpg" in str(refused("folder_unknown", "folder:A.jpeg"))
    monkeypatch.setenv(pictures.FOLDER_VARIABLE, str(own / "nowhere"))
    with pytest.raises(PictureError) as caught:
        pictures.folder()
    assert caught.value.code == "picture.folder_missing"
    for language in texts.LANGUAGES:
        assert pictures.FOLDER_VARIABLE in caught.value.text(language)
    refused("folder_missing", "folder:A.jpg")
    assert pictures.keys() == (*SCENES, *(s.key for s in pictures.samples()))  # a lost folder takes no sample away
    monkeypatch.delenv(pictures.FOLDER_VARIABLE)
    assert pictures.folder() == ()
    assert pictures.FOLDER_VARIABLE in str(refused("folder_unset", "folder:A.jpg"))


# --- fitting -------------------------------------------------------------------------------------
WEIGHTS = (
    models.ResNet18_Weights.IMAGENET1K_V1,
    models.MobileNet_V3_Large_Weights.IMAGENET1K_V2,
    models.EfficientNet_B0_Weights.IMAGENET1K_V1,
    models.Inception_V3_Weights.IMAGENET1K_V1,
    models.ViT_B_16_Weights.IMAGENET1K_V1,
    models.Swin_T_Weights.IMAGENET1K_V1,
)
TALL = open_picture(RNG.integers(0, 256, (401, 173, 3), dtype=np.uint8))


def preprocessing_of(weights: object) -> Preprocessing:
    t = weights.transforms()
    return Preprocessing(
        t.resize_size[0], t.crop_size[0], tuple(t.mean), tuple(t.std), interpolation=t.interpolation.value
    )


@pytest.mark.parametrize("weights", WEIGHTS, ids=lambda w: type(w).__name__)
@pytest.mark.parametrize("name", ["coffee", "astronaut", "hubble", "tall"])
def test_a_crop_is_the_weights_own_preprocessing(weights: object, name: str) -> None:
    picture = TALL if name == "tall" else open_picture(f"sample:{name}")
    expected = weights.transforms()(Image.fromarray(picture.pixels))[None]
    seen = fit(picture, preprocessing_of(weights))
    assert seen.tensor.shape == expected.shape
    assert seen.tensor.dtype == torch.float32
    assert (seen.tensor - expected).abs().max() <= 1e-6


PLAIN = Preprocessing(256, 224)


def denormalised(seen: pictures.Fitted, p: Preprocessing) -> np.ndarray:
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (p.mean, p.std))
    return ((seen.tensor * std + mean) * 255).round()[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("how", ["crop", "pad"])
@pytest.mark.parametrize("size", [None, 96, 320])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
def test_what_is_shown_is_what_the_network_saw(how: str, size: int | None, interpolation: str) -> None:
    p = Preprocessing(236, 224, interpolation=interpolation)
    seen = fit(open_picture("sample:chelsea"), p, size=size, fit=how, crop=(0.2, 0.9))
    assert seen.side == (size or 224)
    assert seen.shown.shape == (seen.side, seen.side, 3)
    assert np.array_equal(denormalised(seen, p), seen.shown)
    assert not seen.shown.flags.writeable


def test_another_size_shows_the_same_part() -> None:
    picture = open_picture("sample:coffee")
    usual, large = fit(picture, PLAIN), fit(picture, PLAIN, size=448)
    assert large.tensor.shape == (1, 3, 448, 448)
    assert np.allclose(usual.box, large.box, atol=1.5)
    half = large.shown.reshape(224, 2, 224, 2, 3).mean((1, 3))
    assert np.abs(half - usual.shown).mean() < 4


@pytest.mark.parametrize("crop", [(0, 0), (1, 0), (0, 1), (1, 1), (0.5, 0.5), (0.25, 0.75)])
def test_the_box_says_where_the_square_is(crop: tuple[float, float]) -> None:
    """On a picture whose colours are its coordinates, the corners of what is shown must be the box's."""
    y, x = np.mgrid[0:256, 0:256].astype(np.uint8)
    picture = open_picture(np.stack([x, y, x * 0], 2)[:200])
    p = Preprocessing(100, 80)
    seen = fit(picture, p, crop=crop)
    x0, y0, x1, y1 = seen.box
    shown = seen.shown.astype(float)
    half = (x1 - x0) / 80 / 2
    # Where smoothing reaches over the picture's border it leans inwards, by less than 2 pixels.
    for value, place in (
        (shown[40, 0, 0], x0 + half),
        (shown[40, -1, 0], x1 - half),
        (shown[0, 40, 1], y0 + half),
        (shown[-1, 40, 1], y1 - half),
    ):
        assert abs(value + 0.5 - place) < 2
    travel_x, travel_y = 256 - (x1 - x0), 200 - (y1 - y0)
    assert abs(x0 - crop[0] * travel_x) < 2
    assert abs(y0 - crop[1] * travel_y) < 2


def test_pad_shows_the_whole_picture_on_the_mean_colour() -> None:
    picture = open_picture("sample:coffee")  # 600 x 400
    seen = fit(picture, PLAIN, fit="pad")
    mean = np.array([round(255 * m) for m in PLAIN.mean])
    above, below = seen.shown[:37], seen.shown[-38:]
    assert (above == mean).all()
    assert (below == mean).all()
    inner = Image.fromarray(picture.pixels).resize((224, 149), Image.Resampling.BILINEAR)
    assert np.array_equal(seen.shown[37:186], np.asarray(inner))
    x0, y0, x1, y1 = seen.box
    assert (x0, x1) == (0, 600)
    assert y0 == pytest.approx(-37 * 400 / 149)
    assert y1 == pytest.approx(400 + 38 * 400 / 149)
    assert seen.tensor[0, :, 0, 0].abs().max() < 0.01
    tall = fit(TALL, PLAIN, fit="pad")
    assert tall.box[1] == 0
    assert tall.box[0] < 0
    assert (tall.shown[:, 0] == mean).all()


@pytest.mark.parametrize(
    ("preprocessing", "how", "code"),
    [
        (Preprocessing(256, 224, fixed=True), {"size": 256}, "size_fixed"),
        (Preprocessing(256, 224, multiple=32), {"size": 250}, "size"),
        (PLAIN, {"size": 16}, "size"),
        (PLAIN, {"size": 4096}, "size"),
        (PLAIN, {"size": "large"}, "size"),
        (PLAIN, {"size": 99.5}, "size"),
        (PLAIN, {"fit": "stretch"}, "fit"),
        (PLAIN, {"crop": (0.5, 1.2)}, "crop"),
        (PLAIN, {"crop": (float("nan"), 0)}, "crop"),
        (PLAIN, {"crop": "middle"}, "crop"),
        (PLAIN, {"crop": (0.5,)}, "crop"),
    ],
)
def test_what_a_network_does_not_take(preprocessing: Preprocessing, how: dict, code: str) -> None:
    with pytest.raises(PictureError) as caught:
        fit(open_picture(COLOUR), preprocessing, **how)
    assert caught.value.code == f"picture.{code}"
    assert all("{" not in caught.value.text(language) for language in texts.LANGUAGES)


def test_sizes_that_a_network_takes() -> None:
    picture = open_picture(COLOUR)
    assert fit(picture, Preprocessing(256, 224, fixed=True), size=224).side == 224
    assert fit(picture, Preprocessing(256, 224, multiple=32), size=96).side == 96
    assert fit(picture, PLAIN, size=np.int64(64)).side == 64


def test_thumbnails_are_the_middle_square() -> None:
    picture = open_picture(np.concatenate([np.zeros((40, 40)), np.full((40, 40), 255), np.zeros((40, 40))], 1))
    small = pictures.thumbnail(picture, 20)
    assert small.shape == (20, 20, 3)
    assert small.dtype == np.uint8
    assert small[:, 2:-2].min() > 245  # not the black at both sides
    assert pictures.thumbnail(open_picture("sample:coffee")).shape == (96, 96, 3)
    with pytest.raises(ValueError, match="1 px"):
        pictures.thumbnail(picture, 0)


def test_the_accepted_formats_are_named_as_they_are() -> None:
    assert decoding.ACCEPTED.upper().split(", ") == list(decoding.FORMATS)
