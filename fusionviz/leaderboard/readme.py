"""The leaderboard as a Markdown table between two marks of the README."""

import re

from fusionviz import texts
from fusionviz.errors import FusionvizError
from fusionviz.leaderboard.records import BASELINES, Leaderboard
from fusionviz.leaderboard.sentences import count, fill, row_name
from fusionviz.leaderboard.ties import ranks

BEGIN, END = "<!-- leaderboard:begin -->", "<!-- leaderboard:end -->"
COLUMNS = ("miou", "small", "medium", "large", "boundary_f1")


def rank(first: int, last: int) -> str:
    """Return `2` or, where the noise leaves it open, `1–3`."""
    return str(first) if first == last else f"{first}–{last}"


def readme_table(board: Leaderboard, language: str = "en") -> str:
    """Return a Markdown table of methods and baselines, the best first, and under it how it was measured."""
    rows = board.standing()
    places = ranks([row for row in rows if row.method not in BASELINES], board.noise_miou)
    titles = [texts.text(f"leaderboard.column.{key}", language) for key in ("rank", "method", *COLUMNS)]
    titles += [texts.text(f"leaderboard.column.{key}", language) for key in ("parameters", "macs", "ms")]
    lines = ["| " + " | ".join(titles) + " |", "|--:|---|" + "--:|" * (len(titles) - 2)]
    for row in rows:
        place = rank(*places[row.method]) if row.method in places else ""
        figures = [row.figures[key].text() for key in COLUMNS]
        cells = [place, row_name(row, language), *figures, count(row.parameters), count(row.macs), f"{row.ms:.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", fill(texts.text("leaderboard.under", language), board, language)])


def in_readme(text: str, table: str) -> str:
    """Return a README with `table` between its marks.

    Raises:
        FusionvizError: if it has not exactly one pair of them.
    """
    pattern = re.compile(f"({re.escape(BEGIN)}\n).*?({re.escape(END)})", flags=re.S)
    if len(pattern.findall(text)) != 1:
        raise FusionvizError("leaderboard.marks", begin=BEGIN, end=END)
    return pattern.sub(lambda found: f"{found[1]}{table}\n{found[2]}", text)
