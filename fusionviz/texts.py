"""Every text a person reads, by key and language: `assets/locale` (short) and `assets/lessons` (long).

A lesson file starts with TOML between two `+++` lines (title, short name, idea, the labels of that
subject's own knobs and steps), so a new method needs no edit of the shared locale files.
"""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ASSETS = Path(__file__).resolve().parent.parent / "assets"
LANGUAGES = ("en", "zh")


@dataclass(frozen=True)
class Lesson:
    """One page of prose: `front` holds its short texts, `body` is Markdown with KaTeX."""

    key: str
    language: str
    front: dict
    body: str


@cache
def locale(language: str) -> dict:
    """Return all short texts of a language as nested tables."""
    return tomllib.loads((ASSETS / "locale" / f"{language}.toml").read_text("utf-8"))


def _walk(table: dict, key: str) -> str | None:
    value: object = table
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            return None
        value = value[part]
    return value if isinstance(value, str) else None


def text(key: str, language: str = "en", /, **values: object) -> str:
    """Return the text `key` (dotted) in `language`, with `{name}` filled from `values`.

    Raises:
        LookupError: if no such text exists; tests keep both languages complete.
    """
    found = _walk(locale(language), key)
    if found is None:
        raise LookupError(f"no text '{key}' in assets/locale/{language}.toml")
    return found.format(**values) if values else found


def has(key: str, language: str = "en") -> bool:
    """Say whether the locale has a text `key`."""
    return _walk(locale(language), key) is not None


@cache
def lesson(key: str, language: str = "en") -> Lesson:
    """Return the lesson `key`, for example a method's, in `language`.

    Raises:
        LookupError: if the file is missing or does not start with its `+++` table.
    """
    path = ASSETS / "lessons" / language / f"{key}.md"
    if not path.is_file():
        raise LookupError(f"no lesson assets/lessons/{language}/{key}.md")
    before, *parts = path.read_text("utf-8").split("+++\n", 2)
    if before or len(parts) != 2:
        raise LookupError(f"lesson assets/lessons/{language}/{key}.md does not start with a table between +++ lines")
    front, body = parts
    return Lesson(key, language, tomllib.loads(front), body.strip())


def method_text(method: str, key: str, language: str = "en") -> str:
    """Return a text of one method: its lesson's own if it has it, else the shared one of the locale.

    `key` is for example `title`, `idea`, `params.r.label`, `params.r.choices.4` or `steps.mscam`.
    """
    own = _walk(lesson(method, language).front, key)
    return own if own is not None else text(key, language)
