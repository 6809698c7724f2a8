"""What README promises: the methods of its table. A method that is not there yet is an experiment, without a head."""

import re
from functools import cache
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


@cache
def promised() -> frozenset[str]:
    """The keys in README's table of methods."""
    text = README.read_text("utf-8")
    table = text[text.index("\n## Methods\n") : text.index("\n## Leaderboard\n")]
    return frozenset(re.findall(r"`(\w+)`", "\n".join(line for line in table.splitlines() if line.startswith("|"))))
