"""What to call a thing: "the small striped ball", and which things of a scene a phrase means.

A phrase is made of English words from one short vocabulary, which a phrase network reads word by word.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from fusionviz import texts
from fusionviz.errors import ParameterError
from fusionviz.scenes.colours import COLOURS
from fusionviz.scenes.kinds import KINDS
from fusionviz.scenes.plan import FINE_TEXTURE, TEXTURES

SMALL_BELOW, LARGE_FROM = 16.0, 40.0  # heights in scene units; the bands of every score by size
SIZES = ("small", "medium", "large")
EXTREMES = ("smallest", "largest", "leftmost", "rightmost", "highest", "lowest")
VOCABULARY = ("the", *SIZES, *EXTREMES, *COLOURS, *TEXTURES, FINE_TEXTURE, *KINDS)

_RATIO = 1.15  # between sizes that an eye tells apart
_APART = 5.0  # scene units between places that an eye tells apart


@dataclass(frozen=True)
class Look:
    """What a phrase can say about one thing; `height` and its middle (x, y) in scene units."""

    kind: str
    colour: str
    texture: str
    height: float
    x: float
    y: float

    @property
    def size(self) -> str:
        """Return its size in one word."""
        return SIZES[(self.height >= SMALL_BELOW) + (self.height >= LARGE_FROM)]


def words_of(phrase: str) -> tuple[str, ...]:
    """Return the words of a phrase.

    Raises:
        ParameterError: for a word outside `VOCABULARY`; it says which there are.
    """
    words = tuple(phrase.split())
    for word in words:
        if word not in VOCABULARY:
            raise ParameterError("scene.word", word=word, known=", ".join(VOCABULARY))
    return words


def meant(phrase: str, looks: Sequence[Look]) -> tuple[int, ...]:
    """Return the positions of all things that a phrase can mean.

    A superlative chooses among the things that all other words fit; where two are too close to tell, it means both.

    Raises:
        ParameterError: for a word outside `VOCABULARY`.
    """
    words = words_of(phrase)
    plain = {word for word in words if word != "the" and word not in EXTREMES}
    left = [k for k, look in enumerate(looks) if plain <= {look.size, look.colour, look.texture, look.kind}]
    for word in words:
        if word in EXTREMES and left:
            left = _extreme(word, left, looks)
    return tuple(left)


def _extreme(word: str, left: list[int], looks: Sequence[Look]) -> list[int]:
    if word in ("smallest", "largest"):
        heights = {k: looks[k].height for k in left}
        if word == "smallest":
            return [k for k in left if heights[k] < _RATIO * min(heights.values())]
        return [k for k in left if heights[k] * _RATIO > max(heights.values())]
    sign = -1 if word in ("leftmost", "highest") else 1
    places = {k: sign * (looks[k].x if word in ("leftmost", "rightmost") else looks[k].y) for k in left}
    return [k for k in left if places[k] > max(places.values()) - _APART]


def describe(looks: Sequence[Look], draws: Sequence[float]) -> tuple[str, ...]:
    """Return a phrase for each thing, one that fits no other thing of the scene wherever there is one.

    Args:
        looks: the things.
        draws: one number in [0, 1) for each; whether its colour or its texture comes first to mind.
    """
    return tuple(_describe(k, looks, draw) for k, (_, draw) in enumerate(zip(looks, draws, strict=True)))


def _describe(position: int, looks: Sequence[Look], draw: float) -> str:
    look = looks[position]
    telling = look.texture not in ("plain", FINE_TEXTURE)  # "plain" says little, and every beachball is pinstriped
    first, second = (look.texture, look.colour) if telling and draw < 0.5 else (look.colour, look.texture)
    both = f"{look.colour} {look.texture}"
    sized = (f"{look.size} {first}", f"{look.size} {second}" if telling else "", f"{look.size} {both}")
    superlative = (f"{word} {more}" for word in EXTREMES for more in ("", first, second, both))
    for words in chain(sized, superlative, (f"{word} {more}" for word in EXTREMES for more in sized)):
        phrase = " ".join(f"the {words} {look.kind}".split())
        if words and meant(phrase, looks) == (position,):
            return phrase
    return f"the {look.size} {both} {look.kind}"


def phrase_text(phrase: str, language: str = "en") -> str:
    """Return a phrase as people write it in `language`."""
    words = (texts.text(f"scenes.words.{word}", language) for word in phrase.split())
    return texts.text("scenes.between_words", language).join(word for word in words if word)
