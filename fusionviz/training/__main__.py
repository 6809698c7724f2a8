"""python -m fusionviz.training --full: rebuild the pack from nothing."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from fusionviz import pack, texts
from fusionviz.backbones import bundled
from fusionviz.training import rebuild

PARTS = ("networks", "heads", "leaderboard")
QUICK_FOLDER = Path("out/weights")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m fusionviz.training", description=texts.text("training.about"))
    pace = parser.add_mutually_exclusive_group(required=True)
    pace.add_argument("--quick", action="store_true", help=texts.text("training.options.quick"))
    pace.add_argument("--full", action="store_true", help=texts.text("training.options.full"))
    parser.add_argument("--backbone", nargs="+", choices=bundled.names(), default=list(bundled.names()))
    parser.add_argument(
        "--part", nargs="+", choices=PARTS, default=list(PARTS), help=texts.text("training.options.part")
    )
    parser.add_argument("--method", nargs="+", choices=rebuild.methods(), help=texts.text("training.options.method"))
    parser.add_argument("--steps", type=int, help=texts.text("training.options.steps"))
    parser.add_argument("--out", type=Path, help=texts.text("training.options.out"))
    parser.add_argument("--lang", choices=texts.LANGUAGES, default="en")
    chosen = parser.parse_args(arguments)

    def say(key: str, values: Mapping[str, object]) -> None:
        print(texts.text(f"training.{key}", chosen.lang, **values), flush=True)

    budget = rebuild.QUICK if chosen.quick else rebuild.FULL
    if chosen.steps:
        budget = rebuild.shorter(budget, chosen.steps)
    folder = chosen.out or (QUICK_FOLDER if chosen.quick else pack.folder())
    with pack.reading(folder):
        for key in chosen.backbone:
            if "networks" in chosen.part:
                rebuild.rebuild_network(folder, key, budget, say=say)
            if "heads" in chosen.part:
                rebuild.rebuild_heads(folder, key, budget, which=chosen.method or (), say=say)
        if "leaderboard" in chosen.part and bundled.names()[0] in chosen.backbone:
            rebuild.rebuild_leaderboard(folder, bundled.names()[0], budget, say=say)
    say("done", {"folder": folder})
    return 0


if __name__ == "__main__":
    sys.exit(main())
