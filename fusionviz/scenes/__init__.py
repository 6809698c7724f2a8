"""Procedural pictures with perfect labels: toy scenes by seed, with masks, boxes and phrases.

What the shipped backbones and heads are trained on. A scene needs both ends of a network: most kinds of things are
parts put together (a house is a square under a triangle), so their names need a wide view, while places, edges and a
beachball's fine stripes need a sharp one.
"""

from fusionviz.scenes.drawing import (
    SEED_BOUNDS,
    SIZE,
    SIZE_BOUNDS,
    Batch,
    Scene,
    batch,
    class_frequencies,
    nearest_instances,
    open_scene,
    scene,
)
from fusionviz.scenes.kinds import CLASSES, KINDS
from fusionviz.scenes.phrases import LARGE_FROM, SMALL_BELOW, VOCABULARY, Look, meant, phrase_text, words_of

__all__ = [
    "CLASSES",
    "KINDS",
    "LARGE_FROM",
    "SEED_BOUNDS",
    "SIZE",
    "SIZE_BOUNDS",
    "SMALL_BELOW",
    "VOCABULARY",
    "Batch",
    "Look",
    "Scene",
    "batch",
    "class_frequencies",
    "meant",
    "nearest_instances",
    "open_scene",
    "phrase_text",
    "scene",
    "words_of",
]
