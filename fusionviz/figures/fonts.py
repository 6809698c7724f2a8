"""Which fonts a slide is set in, how wide its words are, and one lock around everything that touches fonts.

matplotlib's font and mathtext caches are not made for threads, and in a server every visitor has one.
"""

import threading
from functools import lru_cache
from pathlib import Path

from matplotlib import font_manager
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

LOCK = threading.RLock()
"""Held while a figure is laid out or written."""

CJK = (
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "Source Han Sans SC",
    "Source Han Sans CN",
    "PingFang SC",
    "Hiragino Sans GB",
    "Microsoft YaHei",
    "SimHei",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
    "Noto Sans CJK JP",  # older matplotlib sees only the first face of a collection: right signs, Japanese forms
    "Arial Unicode MS",
)
"""Families that hold Simplified Chinese, best first."""

LATIN = "DejaVu Sans"
SERIF = "STIXGeneral"


@lru_cache(maxsize=1)
def cjk_family() -> str | None:
    """Return the family that Chinese is set in, or None if this system has none."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return next((family for family in CJK if family in installed), None)


def language_for(language: str) -> tuple[str, str | None]:
    """Return the language that a slide can be written in, and the key of a notice if it is not the one asked for."""
    if language == "zh" and cjk_family() is None:
        return "en", "figure.no_cjk_font"
    return language, None


def families(language: str) -> list[str]:
    """Return the families that words of a language are set in; signs that the first lacks come from the next."""
    cjk = cjk_family()
    # In Chinese its own font leads, so that quotes and dashes have its width; a credit may need it in English, too.
    ordered = [cjk, LATIN] if language == "zh" else [LATIN, cjk]
    return [family for family in ordered if family]


@lru_cache(maxsize=4096)
def _width(text: str, size: float, bold: bool, family: tuple[str, ...]) -> float:
    prop = FontProperties(family=list(family), size=size, weight="bold" if bold else "normal")
    return text_to_path.get_text_width_height_descent(text, prop, False)[0]


def width(text: str, size: float, family: list[str], *, bold: bool = False) -> float:
    """Return how far a text advances, in points; blanks count."""
    # Between two bars, so that blanks at the ends, which have no ink, keep their room in a run of words.
    return _width(f"|{text}|", size, bold, tuple(family)) - _width("||", size, bold, tuple(family))


def shorten(text: str, size: float, family: list[str], room: float, *, bold: bool = False) -> str:
    """Return the text, or as much of it as fits into `room` points, with an ellipsis."""
    if width(text, size, family, bold=bold) <= room:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if width(text[:middle].rstrip() + "…", size, family, bold=bold) <= room:
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip() + "…"


_STICKS = "，。；：、）”’》】！？…%,.;:)"
_HOLDS = "（“‘《【("


def wrap(text: str, size: float, family: list[str], room: float, lines: int) -> list[str]:
    """Break a text into at most `lines` lines of `room` points; what is left over ends in an ellipsis.

    Latin breaks at blanks, Chinese between any two signs, but not before closing punctuation.
    """
    found: list[str] = []
    rest = _pieces(text)
    while rest and len(found) < lines:
        line = rest.pop(0)
        while rest and width((line + rest[0]).rstrip(), size, family) <= room:
            line += rest.pop(0)
        if len(found) + 1 == lines and rest:
            line += "".join(rest)
            rest = []
        found.append(shorten(line.strip(), size, family, room))
    return found


def _pieces(text: str) -> list[str]:
    pieces: list[str] = []
    for sign in text:
        cjk = ord(sign) > 0x2E7F
        before = pieces[-1][-1] if pieces else ""
        starts = not pieces or (before == " " and sign != " ") or ((cjk or ord(before) > 0x2E7F) and sign != " ")
        if starts and pieces and (sign in _STICKS or before in _HOLDS):
            starts = False
        if starts:
            pieces.append(sign)
        else:
            pieces[-1] += sign
    return pieces


@lru_cache(maxsize=8)
def has_cff(family: str) -> bool:
    """Say whether a family's letters are CFF outlines.

    matplotlib puts such a font into a PDF under the label of TrueType, which strict readers refuse; as Type 3
    its letters are drawn by every reader, and can still be searched and copied.
    """
    path = font_manager.findfont(FontProperties(family=family))
    with Path(str(path)).open("rb") as file:
        head = file.read(16)
        if head[:4] == b"ttcf":
            file.seek(int.from_bytes(head[12:16], "big"))
            head = file.read(4)
    return head[:4] == b"OTTO"


def needs_cff(texts: list[tuple[str, str]]) -> bool:
    """Say whether any of (text, leading family) is drawn with the Chinese font, and that font has CFF outlines."""
    cjk = cjk_family()
    used = any(family == cjk or any(ord(sign) > 0x2E7F for sign in text) for text, family in texts)
    return cjk is not None and used and has_cff(cjk)
