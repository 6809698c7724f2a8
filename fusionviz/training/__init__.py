"""Training: the networks and heads that this project fits itself, on scenes with perfect labels.

    python -m fusionviz train         rebuild everything in `assets/weights`

One loop (`loop.fit`) fits any head on the frozen features of any backbone; `networks` trains the backbones; `series`
fits many heads side by side; `metrics` says how good a prediction is, `weighing` what weights say and are good for;
`rebuild` makes all that ships, `packing` writes it, and `pack`, outside this room, reads it.
"""

from fusionviz.training.data import Samples, class_weights, draw, features
from fusionviz.training.heads import BASELINES, Head, Only, build_head
from fusionviz.training.loop import Progress, fit, fitting, score
from fusionviz.training.metrics import Score

__all__ = (
    "BASELINES",
    "Head",
    "Only",
    "Progress",
    "Samples",
    "Score",
    "build_head",
    "class_weights",
    "draw",
    "features",
    "fit",
    "fitting",
    "score",
)
