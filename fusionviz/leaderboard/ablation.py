"""FPN taken apart: the rows of its paper's own ablation, as measured here and as printed there."""

from dataclasses import dataclass

from fusionviz.leaderboard.published import Published, published
from fusionviz.leaderboard.records import Leaderboard, Row

METHOD = "fpn"
WHOLE = "all_levels"
"""The control with every path and every level, which the others are compared with."""

TAKEN = ("no_top_down", "no_lateral")
"""Controls without one of the paths; the paper's rows have the same keys."""

_ROWS = (
    ("c5", "high_only", ""),
    ("fpn", METHOD, WHOLE),
    *((control, METHOD, control) for control in TAKEN),
    ("p2", METHOD, ""),
)
"""The paper's rows, in its order, by key; with the method and control that are the same here."""

OURS = ("miou", "small", "large")
PRINTED = (("fpn_recall", ("AR1k", "small", "large")), ("fpn_detection", ("AP", "small", "large")))
"""Tables of the paper and the columns of them that stand beside ours."""


@dataclass(frozen=True)
class Ablated:
    """One row, here and in the paper.

    Attributes:
        key: of the paper's row, see `Published.row`.
        row: what was measured here, or None.
        printed: what the paper says, a text for each column of PRINTED.
    """

    key: str
    row: Row | None
    printed: tuple[str, ...]


def ablation(board: Leaderboard) -> tuple[Ablated, ...]:
    """Return the ablation's rows, or () as long as nothing but FPN itself was measured."""
    if not any(board.row(METHOD, control) for control in (WHOLE, *TAKEN)):
        return ()
    tables = [(table, columns) for key, columns in PRINTED for table in published() if table.key == key]
    return tuple(
        Ablated(key, board.row(method, control), tuple(v for t, columns in tables for v in _of(t, key, columns)))
        for key, method, control in _ROWS
    )


def verdicts(board: Leaderboard) -> tuple[str, ...]:
    """Return a placeholder for each path that was cut off: what FPN with all its levels and paths gains from it."""
    there = [c for c in TAKEN if board.row(METHOD, WHOLE) and board.row(METHOD, c)]
    return tuple(f"{{{{compare {METHOD}.{WHOLE}.miou {METHOD}.{c}.miou}}}}" for c in there)


def _of(table: Published, row: str, columns: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(table.rows[row][table.columns.index(c)] for c in columns)
