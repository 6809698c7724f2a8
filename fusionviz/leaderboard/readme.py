"""The leaderboard as a Markdown table between two marks of the README."""

import re

from fusionviz import texts
from fusionviz.errors import FusionvizError
from fusionviz.leaderboard.ablation import OURS, PRINTED, ablation
from fusionviz.leaderboard.published import published
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
    lines += ["", fill(texts.text("leaderboard.under", language), board, language)]
    taken = _ablation(board, language)
    return "\n".join([*lines, "", *taken] if taken else lines)


def _ablation(board: Leaderboard, language: str) -> list[str]:
    """FPN's own ablation beside the paper's: a sentence and a table; [] as long as it was not measured."""
    rows = ablation(board)
    if not rows:
        return []
    by_key = {table.key: table for table in published()}
    titles = ["", *(texts.text(f"leaderboard.column.{key}", language) for key in OURS)]
    titles += [f"{by_key[key].cite}: {by_key[key].column(c, language)}" for key, columns in PRINTED for c in columns]
    lines = [fill(texts.text("leaderboard.why.ablation.about", language), board, language), ""]
    lines += ["| " + " | ".join(titles) + " |", "|---|" + "--:|" * (len(titles) - 1)]
    for taken in rows:
        ours = [taken.row.figures[key].text() if taken.row else "–" for key in OURS]
        cells = [by_key["fpn_recall"].row(taken.key, language), *ours, *taken.printed]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def in_readme(text: str, table: str) -> str:
    """Return a README with `table` between its marks.

    Raises:
        FusionvizError: if it has not exactly one pair of them.
    """
    pattern = re.compile(f"({re.escape(BEGIN)}\n).*?({re.escape(END)})", flags=re.S)
    if len(pattern.findall(text)) != 1:
        raise FusionvizError("leaderboard.marks", begin=BEGIN, end=END)
    return pattern.sub(lambda found: f"{found[1]}{table}\n{found[2]}", text)
