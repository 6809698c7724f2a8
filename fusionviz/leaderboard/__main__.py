"""`python -m fusionviz.leaderboard`: print the table; with --readme, write it into the README."""

import argparse
import sys
from pathlib import Path

from fusionviz import texts
from fusionviz.errors import FusionvizError
from fusionviz.leaderboard import in_readme, read, readme_table

README = Path(__file__).resolve().parents[2] / "README.md"


def main(argv: list[str] | None = None) -> int:
    """Run; returns 0, or 2 with one sentence if there is no leaderboard or no place for it."""
    parser = argparse.ArgumentParser(prog="python -m fusionviz.leaderboard", description=texts.text("leaderboard.cli"))
    parser.add_argument("--readme", action="store_true", help=texts.text("leaderboard.cli_readme"))
    parser.add_argument("--lang", choices=texts.LANGUAGES, default="en", help=texts.text("frame.language"))
    asked = parser.parse_args(argv)
    try:
        board = read()
        if board is None:
            raise FusionvizError("leaderboard.missing")
        if asked.readme:
            README.write_text(in_readme(README.read_text("utf-8"), readme_table(board)), "utf-8")
        else:
            print(readme_table(board, asked.lang))
    except FusionvizError as mistake:
        print(mistake, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
