"""What is ahead of what: a difference counts if it is larger than noise and than twice the spread over seeds."""

import math
from collections.abc import Sequence

from fusionviz.leaderboard.records import Figure, Row


def order(a: Figure, b: Figure, noise: float) -> int:
    """Return 1 where `a` is ahead of `b`, -1 where it is behind, 0 for a tie.

    A tie is a difference of at most the larger of `noise` and twice the pooled standard deviation; one seed alone has
    no spread, so that noise decides.
    """
    pooled = math.sqrt(((a.sd or 0.0) ** 2 + (b.sd or 0.0) ** 2) / 2)
    difference = a.mean - b.mean
    # Figures have two digits: a difference of exactly the noise is still one of it, whatever binary fractions say.
    if abs(difference) <= max(noise, 2 * pooled) + 1e-9:
        return 0
    return 1 if difference > 0 else -1


def ties(rows: Sequence[Row], noise: float) -> dict[str, set[str]]:
    """Return by method which others it ties with in mIoU."""
    return {a.method: {b.method for b in rows if b is not a and not order(a.miou, b.miou, noise)} for a in rows}


def ranks(rows: Sequence[Row], noise: float) -> dict[str, tuple[int, int]]:
    """Return by method the best and the worst rank that the noise allows: (1, 3) may be first and may be third."""
    found = {}
    for a in rows:
        ahead = sum(order(b.miou, a.miou, noise) > 0 for b in rows)
        behind = sum(order(b.miou, a.miou, noise) < 0 for b in rows)
        found[a.method] = (1 + ahead, len(rows) - behind)
    return found


def groups(rows: Sequence[Row], noise: float) -> list[tuple[int, int]]:
    """Return the first and last place of every run of rows that all tie with each other, none inside another.

    A tie does not pass on: a may tie with b and b with c while a is ahead of c. So runs overlap, and are drawn as
    bars side by side, as in a critical difference diagram.
    """
    found: list[tuple[int, int]] = []
    for first in range(len(rows)):
        last = first
        while last + 1 < len(rows) and all(
            not order(rows[i].miou, rows[last + 1].miou, noise) for i in range(first, last + 1)
        ):
            last += 1
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found
