"""Leaderboard: what every method was measured to reach, why, and what the papers say."""

from fusionviz.ui.components import leaderboard

leaderboard.show()
