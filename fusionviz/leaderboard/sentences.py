"""Numbers in prose: `{{...}}` in a lesson becomes a number of the leaderboard, or a sentence that its numbers choose.

A lesson never says which method is ahead; it asks, and the numbers answer, so that prose cannot contradict the table.

`{{test_scenes}}`                    a fact of the whole leaderboard
`{{aff.miou}}`                       a figure: method, then METRICS, `parameters`, `macs` or `ms`
`{{aff.linear.miou}}`                of a control, see `Row.control`; or `occluded`
`{{board.aff.edge}}`                 mean weight of low: setting, method, region or kind of thing
`{{board.aff.causal.other}}`         mIoU with another picture's weights; also own, flat
`{{compare aff.miou add.miou}}`      a sentence: ahead, behind, or a tie
`{{claim aff.miou add.miou}}`        the same, with whether a published lead of the first shows here
`{{weighs board.aff edge interior}}` a sentence: where the weight of low is higher
`{{texture board.aff}}`              a sentence: is the kind that only texture tells the one with the most low?
`{{causal board.aff}}`               a sentence: what another picture's weights cost
"""

import re
from collections.abc import Callable

from fusionviz import texts
from fusionviz.leaderboard.records import BASELINES, REGIONS, Figure, Leaderboard, Row, Weighing
from fusionviz.leaderboard.ties import order

TEXTURE = "beachball"
"""The kind of thing that nothing but fine texture tells from another."""

NOISE_WEIGHT = 0.02
"""Mean weights nearer than this are called equal, as are those within twice their spread over seeds."""

SETTINGS = ("board", "leaderboard")
_TOKEN = re.compile(r"\{\{([a-z0-9_. ]+)\}\}")
BETWEEN_HAN = re.compile(r"(?<=[\u4e00-\u9fff）]) (?=[\u4e00-\u9fff])")
_WORD = {1: "more", 0: "tied", -1: "less"}


class Unmeasured(LookupError):
    """A placeholder asks for what the leaderboard does not have."""


def fill(body: str, board: Leaderboard, language: str = "en") -> str:
    """Return a text with every placeholder replaced.

    Raises:
        Unmeasured: if the leaderboard has no such number.
    """
    return _TOKEN.sub(lambda token: _said(token[1].split(), board, language), body)


def quoted(body: str, board: Leaderboard | None, language: str = "en") -> str:
    """Return a text with its placeholders replaced; a line that quotes what was not measured is left out."""
    lines = []
    for line in body.split("\n"):
        try:
            lines.append(fill(line, board, language) if board else _without(line))
        except Unmeasured:
            continue
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines))


def _without(line: str) -> str:
    if _TOKEN.search(line):
        raise Unmeasured(line)
    return line


def name(method: str, control: str = "", language: str = "en") -> str:
    """Return what a row is called: a method's short title, a baseline's, with the control behind it."""
    if method in BASELINES:
        plain = texts.text(f"training.baselines.{method}", language)
    elif texts.has(f"leaderboard.stacked.{method}", language):
        return texts.text(f"leaderboard.stacked.{method}", language)
    else:
        plain = texts.method_text(method, "short", language)
    return texts.text(f"leaderboard.control.{control}", language, method=plain) if control else plain


# --- numbers -------------------------------------------------------------------------------------
def count(number: int) -> str:
    """Return parameters or multiply-accumulates as `34 k`, `35.0 M`."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.{1 if number < 100 * size else 0}f} {unit}"
    return str(number)


def _fact(key: str, board: Leaderboard) -> str:
    value = getattr(board, key, None) if key != "made" else None
    value = board.made.get(key) if value is None else value
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise Unmeasured(key)
    return f"{value:,}" if isinstance(value, int) else str(value)


def _figure(path: str, board: Leaderboard) -> tuple[str, str, str, Figure]:
    """Return method, control, metric and figure of `aff.miou`, `aff.linear.small`, `aff.occluded.miou`."""
    method, *between, metric = path.split(".")
    control = between[0] if between else ""
    row = board.row(method, control)
    figures = board.occluded.get(method) if control == "occluded" else row and row.figures
    if not figures or metric not in figures or len(between) > 1:
        raise Unmeasured(path)
    return method, control, metric, figures[metric]


def _weighing(path: str, board: Leaderboard) -> Weighing:
    setting, _, method = path.partition(".")
    found = board.weighing(setting, method)
    if found is None:
        raise Unmeasured(path)
    return found


def _number(path: str, board: Leaderboard) -> str:
    parts = path.split(".")
    if len(parts) == 1:
        return _fact(path, board)
    if parts[0] in SETTINGS:
        found, rest = _weighing(".".join(parts[:2]), board), parts[2:]
        figures, digits = (found.causal, 1) if rest[:1] == ["causal"] else (found.regions, 2)
        if rest[-1:] == [] or rest[-1] not in figures:
            raise Unmeasured(path)
        return figures[rest[-1]].text(digits)
    if parts[-1] in ("parameters", "macs", "ms"):
        row = board.row(parts[0], ".".join(parts[1:-1]))
        if row is None:
            raise Unmeasured(path)
        return f"{row.ms:.1f}" if parts[-1] == "ms" else count(getattr(row, parts[-1]))
    return _figure(path, board)[3].text()


# --- sentences -----------------------------------------------------------------------------------
def _said(words: list[str], board: Leaderboard, language: str) -> str:
    if len(words) == 1:
        return _number(words[0], board)
    tell = _SENTENCES.get(words[0])
    if tell is None:
        raise Unmeasured(" ".join(words))
    # A name stands between spaces; Chinese has none between its own characters.
    return BETWEEN_HAN.sub("", tell(board, language, *words[1:]))


def _apart(a: float, b: float, digits: int = 1) -> str:
    """Return how far two numbers are apart as they are printed, so that a reader's own subtraction agrees."""
    return f"{abs(round(a, digits) - round(b, digits)):.{digits}f}"


def _compare(board: Leaderboard, language: str, first: str, second: str) -> str:
    return _compared(board, language, first, second)[1]


def _claim(board: Leaderboard, language: str, first: str, second: str) -> str:
    word, sentence = _compared(board, language, first, second)
    return texts.text(f"leaderboard.claim.{word}", language) + sentence


def _compared(board: Leaderboard, language: str, first: str, second: str) -> tuple[str, str]:
    (a, a_control, metric, x), (b, b_control, other, y) = (_figure(path, board) for path in (first, second))
    if metric != other:
        raise Unmeasured(f"{first} beside {second}")
    word = _WORD[order(x, y, board.noise_miou)]
    values = {
        "metric": texts.text(f"leaderboard.metric.{metric}", language),
        "a": name(a, a_control, language),
        "b": name(b, b_control, language),
        "x": x.text(),
        "y": y.text(),
        "apart": _apart(x.mean, y.mean),
    }
    return word, texts.text(f"leaderboard.compare.{word}", language, **values)


def _kind(key: str, language: str) -> str:
    return texts.text(f"scenes.classes.{key}", language)


def _weighs(board: Leaderboard, language: str, path: str, first: str, second: str) -> str:
    found = _weighing(path, board)
    if not {first, second} <= set(REGIONS):
        raise Unmeasured(f"{path} {first} {second}")
    x, y = found.regions[first], found.regions[second]
    a, b = (texts.text(f"leaderboard.at.{key}", language) for key in (first, second))
    method = name(found.method, language=language)
    word = _WORD[order(x, y, NOISE_WEIGHT)]
    return texts.text(f"leaderboard.weighs.{word}", language, method=method, a=a, b=b, x=x.text(2), y=y.text(2))


def _texture(board: Leaderboard, language: str, path: str) -> str:
    found = _weighing(path, board)
    kinds = found.kinds
    if TEXTURE not in kinds or len(kinds) < 2:
        raise Unmeasured(path)
    own = kinds.pop(TEXTURE)
    highest = max(kinds, key=lambda kind: kinds[kind].mean)
    values = {
        "method": name(found.method, language=language),
        "kind": _kind(TEXTURE, language),
        "x": own.text(2),
        "other": _kind(highest, language),
        "y": kinds[highest].text(2),
        "least": f"{min(k.mean for k in kinds.values()):.2f}",
        "most": f"{kinds[highest].mean:.2f}",
    }
    return texts.text(f"leaderboard.texture.{_WORD[order(own, kinds[highest], NOISE_WEIGHT)]}", language, **values)


def _causal(board: Leaderboard, language: str, path: str) -> str:
    found = _weighing(path, board)
    own, other, flat = (found.causal[key] for key in ("own", "other", "flat"))
    values = {"own": own.text(), "other": other.text(), "flat": flat.text(), "apart": _apart(own.mean, other.mean)}
    method = name(found.method, language=language)
    word = _WORD[order(own, other, board.noise_miou)]
    return texts.text(f"leaderboard.causal.{word}", language, method=method, **values)


_SENTENCES: dict[str, Callable[..., str]] = {
    "compare": _compare,
    "claim": _claim,
    "weighs": _weighs,
    "texture": _texture,
    "causal": _causal,
}


def row_name(row: Row, language: str = "en") -> str:
    """Return what a row of the table is called."""
    return name(row.method, row.control, language)
