"""What the cards of systems say: figures with their spread, differences held against it, what is right in one picture.

No torch, no drawing. A sentence about two systems is chosen by their numbers; nothing here knows who is ahead.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from fusionviz.leaderboard import Figure, order
from fusionviz.leaderboard.sentences import BETWEEN_HAN
from fusionviz.texts import method_text, text

if TYPE_CHECKING:
    from fusionviz.pack import SystemCard

RIGHT = 0.5
"""IoU from which a box is right, as where the cards are made."""


def figure(card: SystemCard, name: str) -> Figure | None:
    """Return a figure of a card with its spread over trainings; None where there is no such number."""
    mean, spread = card.metrics.get(name), card.spread.get(name)
    if mean is None or not math.isfinite(mean):
        return None
    return Figure(float(mean), float(spread) if spread is not None and math.isfinite(spread) else None)


# --- two figures ---------------------------------------------------------------------------------
@dataclass(frozen=True)
class Gap:
    """How far one figure is ahead of another, held against noise.

    Attributes:
        word: "more" | "less" | "tied" | "single"; the last where a spread is not known, so that nothing can be said.
        apart: of the numbers as they are printed, so that a reader's own subtraction agrees.
        noise: twice the pooled standard deviation, as on the leaderboard; None where a spread is not known.
    """

    word: str
    apart: float
    noise: float | None


def gap(a: Figure, b: Figure) -> Gap:
    """Return how far `a` is ahead of `b`, where more is better."""
    apart = round(round(a.mean, 1) - round(b.mean, 1), 1)
    if a.sd is None or b.sd is None:
        return Gap("single", apart, None)
    word = {1: "more", 0: "tied", -1: "less"}[order(a, b, 0.0)]
    return Gap(word, apart, 2 * math.sqrt((a.sd**2 + b.sd**2) / 2))


def compare(metric: str, a: tuple[str, Figure], b: tuple[str, Figure], language: str = "en") -> str:
    """Return a sentence that says whether one system is ahead of another, where more is better.

    Args:
        metric: what the figures are called.
        a, b: name and figure.
    """
    found = gap(a[1], b[1])
    told = {"metric": metric, "a": a[0], "x": a[1].text(), "b": b[0], "y": b[1].text()}
    return _sentence("compare", found, told, language)


def errors(name: str, glimpses: int, chosen: Figure, scattered: Figure, language: str = "en") -> str:
    """Return a sentence on errors with chosen places beside those with random ones, in percent; fewer is better."""
    found = gap(scattered, chosen)
    shown = Figure(chosen.mean / max(scattered.mean, 0.01))
    told = {"name": name, "count": glimpses, "x": chosen.text(), "y": scattered.text(), "ratio": shown.text(2)}
    return _sentence("errors", found, told, language)


def _sentence(about: str, found: Gap, told: Mapping[str, object], language: str) -> str:
    noise = {} if found.noise is None else {"noise": f"{found.noise:.1f}"}
    said = text(f"measured.{about}.{found.word}", language, **told, apart=f"{abs(found.apart):.1f}", **noise)
    return BETWEEN_HAN.sub("", said)


# --- curves --------------------------------------------------------------------------------------
def curve(card: SystemCard, name: str) -> dict[int, float]:
    """Return the errors of a card's first training after each number of glimpses; {} if they were not kept.

    Args:
        name: "learned" or "random" places.
    """
    kept = card.figures.get(name)
    return _counted(kept) if isinstance(kept, Mapping) else {}


def points(card: SystemCard, name: str) -> dict[int, Figure]:
    """Return the errors that a card has the mean and spread of, by number of glimpses."""
    counts = sorted(_counted({k: v for k, v in card.metrics.items() if re.fullmatch(rf"{name}_\d+", k)}))
    found = {count: figure(card, f"{name}_{count}") for count in counts}
    return {count: one for count, one in found.items() if one is not None}


def _counted(figures: Mapping[str, object]) -> dict[int, float]:
    ends = ((re.search(r"(\d+)$", str(key)), value) for key, value in figures.items())
    return dict(sorted((int(end[1]), float(value)) for end, value in ends if end and isinstance(value, int | float)))


# --- one picture ---------------------------------------------------------------------------------
def matched(
    boxes: np.ndarray, labels: Sequence[str], true_boxes: np.ndarray, true_labels: Sequence[str]
) -> tuple[list[bool], list[bool]]:
    """Hold detections against what is there: (each detection found a thing, each thing was found).

    As where the cards are made: the surest first, each takes the thing of its kind that it covers best and no surer
    one has taken, if the IoU is at least RIGHT.

    Args:
        boxes: the surest first [n 4].
        true_boxes: [m 4].
    """
    right, taken = [False] * len(labels), [False] * len(true_labels)
    overlap = iou(boxes, true_boxes)
    for i, label in enumerate(labels):
        free = [j for j, kind in enumerate(true_labels) if kind == label and not taken[j]]
        best = max(free, key=lambda j: overlap[i, j], default=None)
        if best is not None and overlap[i, best] >= RIGHT:
            right[i] = taken[best] = True
    return right, taken


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return how far boxes [n 4] and [m 4] cover each other, [n m]."""
    a, b = np.asarray(a, np.float64).reshape(-1, 1, 4), np.asarray(b, np.float64).reshape(1, -1, 4)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    both = sides.clip(0).prod(-1)
    either = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - both
    return both / np.maximum(either, 1e-9)


def enlarged(chance: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return probabilities [h w] at the size of a picture; between cells their logits are interpolated."""
    exact = np.asarray(chance, np.float64).clip(1e-7, 1 - 1e-7)
    logits = Image.fromarray(np.log(exact / (1 - exact)).astype(np.float32))
    drawn = np.asarray(logits.resize((size[1], size[0]), Image.Resampling.BILINEAR))
    return 1 / (1 + np.exp(-drawn))


def covers(lit: np.ndarray, meant: np.ndarray) -> float | None:
    """Return the IoU of two masks [h w]; None where nothing is lit up and nothing is meant."""
    either = (lit | meant).sum()
    return float((lit & meant).sum() / either) if either else None


def named(
    said: Sequence[tuple[str, str]], there: Iterable[tuple[str, str]]
) -> tuple[list[tuple[tuple[str, str], bool]], int]:
    """Return every name that was said with whether it belongs to a thing that no earlier name had, and how many do."""
    left, told = Counter(there), []
    for name in said:
        told.append((name, left[name] > 0))
        left[name] -= left[name] > 0
    return told, sum(right for _, right in told)


def pairs(words: Sequence[str], colours: Iterable[str]) -> list[tuple[str, str]]:
    """Return every colour that a kind follows at once, with that kind."""
    colours = set(colours)
    return [(a, b) for a, b in zip(words, words[1:], strict=False) if a in colours and b not in colours]


# --- README --------------------------------------------------------------------------------------
TABLES: Mapping[tuple[str, ...], tuple[str, ...]] = {
    ("ssd", "mscnn", "fpn_detector"): ("ap", "ap_small", "ap_medium", "ap_large", "recall_small"),
    ("phrase_concat", "film", "gmu", "phrase_product"): ("iou", "found", "colour", "texture", "size", "extreme"),
    ("show_attend_tell",): ("described", "colours", "kinds", "right"),
    ("ram", "dram"): ("learned_2", "learned_4", "learned_6", "random_2", "random_4", "random_6"),
}
"""What README shows of which systems, by the names on their cards."""
_MARKS = "<!-- systems:begin -->", "<!-- systems:end -->"


def readme_tables(cards: Mapping[str, SystemCard]) -> str:
    """Return README's tables of what systems were measured to reach, in percent, as Markdown.

    Args:
        cards: by system; one without a card has no row.
    """
    parts = []
    for keys, names in TABLES.items():
        rows = [(key, cards[key]) for key in keys if key in cards]
        if not rows:
            continue
        heads = [text(f"measured.readme.{name}") for name in names]
        lines = [
            "| | " + " | ".join((*heads, text("measured.readme.parameters"))) + " |",
            "|---" * (len(names) + 2) + "|",
        ]
        for key, card in rows:
            shown = [found.text() if (found := figure(card, name)) else "–" for name in names]
            size = f"{card.parameters / 1000:.0f} k"
            lines.append(f"| {method_text(key, 'short')} | " + " | ".join((*shown, size)) + " |")
        tested = rows[0][1].made["test_scenes"]
        said = text(f"measured.readme.about_{keys[0]}", scenes=f"{tested:,}")
        said += " " + text(f"measured.readme.{'spread' if any(c.seeds > 1 for _, c in rows) else 'once'}")
        parts.append("\n".join((*lines, "", said)))
    return "\n\n".join(parts)


def in_readme(readme: str, tables: str) -> str:
    """Return README with these tables between its marks."""
    begin, end = (readme.index(mark) for mark in _MARKS)
    return f"{readme[: begin + len(_MARKS[0])]}\n{tables}\n{readme[end:]}"


def main() -> None:
    """Write the tables into README: `python -m fusionviz.measured`."""
    path = Path(__file__).resolve().parents[1] / "README.md"
    path.write_text(in_readme(path.read_text("utf-8"), readme_tables(shipped())), "utf-8")


def shipped() -> dict[str, SystemCard]:
    """Return the cards of all systems that ship, with their knobs as the paper has them."""
    from fusionviz import pack, systems  # torch loads here, not with this module

    known = {key: pack.system("scene_resnet", key, systems.spec(key).parse({})) for key in systems.names()}
    return {key: card for key, card in known.items() if card is not None}


if __name__ == "__main__":
    main()
