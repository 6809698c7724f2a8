"""The leaderboard: what every method was measured to reach, how far that can be trusted, and what may be said of it.

No torch here: numbers are read from `assets/weights/leaderboard.json`, which `python -m fusionviz train` writes.
"""

from fusionviz.leaderboard.ablation import ablation
from fusionviz.leaderboard.published import Published, published
from fusionviz.leaderboard.readme import in_readme, readme_table
from fusionviz.leaderboard.records import BASELINES, METRICS, Figure, Leaderboard, Row, Weighing, read
from fusionviz.leaderboard.sentences import Unmeasured, fill, name, quoted
from fusionviz.leaderboard.ties import groups, order, ranks, ties

__all__ = [
    "BASELINES",
    "METRICS",
    "Figure",
    "Leaderboard",
    "Published",
    "Row",
    "Unmeasured",
    "Weighing",
    "ablation",
    "fill",
    "groups",
    "in_readme",
    "name",
    "order",
    "published",
    "quoted",
    "ranks",
    "read",
    "readme_table",
    "ties",
]
