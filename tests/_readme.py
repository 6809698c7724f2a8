"""What README promises: the methods of its table. A method that is not there yet is an experiment, without a head."""

import re
from functools import cache
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


@cache
def promised() -> frozenset[str]:
    """The keys in README's table of methods."""
    return _table("Methods", "Systems")


@cache
def systems() -> frozenset[str]:
    """The keys in README's table of systems."""
    return _table("Systems", "Leaderboard")


def _table(heading: str, following: str) -> frozenset[str]:
    text = README.read_text("utf-8")
    table = text[text.index(f"\n## {heading}\n") : text.index(f"\n## {following}\n")]
    rows = (line.split("|")[2] for line in table.splitlines() if line.startswith("|"))
    return frozenset(re.findall(r"`(\w+)`", "\n".join(rows)))
