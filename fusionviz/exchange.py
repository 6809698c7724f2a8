"""The causal check: does a head use its attention, or is it decoration?

    found = exchange.exchange(study.prepare(selection))
    found.own.miou, found.other.miou, found.flat.miou

The maps of one picture are fused three times: with the attention that they have, with the attention computed on another
picture, and with every weight replaced by its own mean over the places. What the head reads from the three tells what
the attention is good for: a weight may draw the outlines of every thing and still change no answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fusionviz import device, study
from fusionviz.errors import ParameterError, ShapeError
from fusionviz.fusion import FusionModule
from fusionviz.pictures import Fitted, Picture
from fusionviz.pictures.catalogue import SCENES
from fusionviz.records import AttentionMap, FeatureMap, FusionResult
from fusionviz.selection import Selection
from fusionviz.study import Prepared, StudyResult
from fusionviz.trace import Replacing
from fusionviz.training.heads import Head
from fusionviz.training.metrics import Score

_PLACES = ("h", "w", "q")
"""Axes along which a weight may differ from place to place; "q" are the places that ask, in attention of tokens."""


@dataclass(frozen=True)
class Reading:
    """What the head reads from the picture's maps once they are fused with some attention.

    Attributes:
        attention: the weights that were used, by name, the one that chooses first.
        fused: the fused map [1 c h w].
        classes: of every pixel of the input, uint8 [h w].
        miou: mean IoU on this picture in percent.
    """

    attention: Mapping[str, AttentionMap]
    fused: Tensor
    classes: Tensor
    miou: float

    @property
    def weight(self) -> AttentionMap:
        """The one that chooses, else the method's first."""
        return next(iter(self.attention.values()))


@dataclass(frozen=True)
class Exchanged:
    """The same maps with three kinds of attention.

    Attributes:
        picture, seen: the other picture, and as the network saw it.
        own: with the picture's own attention.
        other: with the attention computed on the other picture.
        flat: with each weight's own mean over the places; None where no weight differs from place to place.
    """

    picture: Picture
    seen: Fitted
    own: Reading
    other: Reading
    flat: Reading | None

    @property
    def same(self) -> bool:
        """Whether both pictures get the same attention, as from a weight that looks at no map."""
        return all(torch.equal(a.tensor, self.other.attention[name].tensor) for name, a in self.own.attention.items())


def possible(found: StudyResult) -> bool:
    """Say whether attention can be exchanged: there is some, a head reads the fused map, and the truth is known."""
    return found.prediction is not None and found.prediction.truth is not None and bool(found.result.attention)


def neighbour(key: str) -> str:
    """Return the scene of the gallery that follows a picture; the first one, for a picture that is not in it."""
    return SCENES[(SCENES.index(key) + 1) % len(SCENES)] if key in SCENES else SCENES[0]


def exchange(prepared: Prepared | Selection, other: str | None = None) -> Exchanged:
    """Fuse a scene's maps with another picture's attention, and with flat attention.

    A method that chooses between levels has its chosen weight exchanged (of iAFF, the second gate's); one that only
    gates has all its gates exchanged. A fit of this machine is taken as it stood at the selection's step.

    Args:
        prepared: a scene, and a method whose fused map a trained head reads.
        other: key of the other picture, seen at the same size; None: the gallery's next scene.

    Raises:
        ParameterError: if the method has no attention, no head reads its map, or the picture is no scene.
        ShapeError: if the network sees the other picture at another size.
        PictureError: if there is no such picture.
    """
    p = study.prepare(prepared) if isinstance(prepared, Selection) else prepared
    if "fused" not in p.heads:
        raise ParameterError("exchange.no_head", method=p.selection.method, backbone=p.selection.backbone)
    if p.truth is None:
        raise ParameterError("exchange.no_truth", picture=p.picture.title, example=SCENES[0])
    q = study.prepare(p.selection.with_(picture=other or neighbour(p.picture.key)), on=p.device)
    if q.tensor.shape != p.tensor.shape:
        sizes = {name: " × ".join(map(str, t.shape[-2:])) for name, t in (("size", p.tensor), ("received", q.tensor))}
        raise ShapeError("exchange.size", other=q.picture.title, **sizes)
    return device.submit(p.device, lambda: _forward(p, q))


@torch.inference_mode()
def _forward(p: Prepared, q: Prepared) -> Exchanged:
    method, head = _numbers(p)
    levels, context = _levels(p), p.context
    mine = method(*levels, context=context)
    steps = _steps(method, mine)
    if not steps:
        raise ParameterError("exchange.no_attention", method=p.selection.method)
    theirs = method(*_levels(q), context=q.context)

    def fused_with(attention: Mapping[str, AttentionMap]) -> Reading:
        given = {steps[name]: a.tensor for name, a in attention.items()}
        result = method(*levels, context=context, trace=Replacing(given))
        return _read(p, head, result.fused.tensor, attention)

    own = {name: mine.attention[name] for name in steps}
    uneven = any(set(_PLACES) & set(a.axes.split()) for a in own.values())
    return Exchanged(
        q.picture,
        q.seen,
        _read(p, head, mine.fused.tensor, own),
        fused_with({name: theirs.attention[name] for name in steps}),
        fused_with({name: flat(a) for name, a in own.items()}) if uneven else None,
    )


def flat(weight: AttentionMap) -> AttentionMap:
    """Return a weight with its mean over the places at every place; it still sums to what it did."""
    places = [i for i, axis in enumerate(weight.axes.split()) if axis in _PLACES]
    tensor = weight.tensor
    return replace(weight, tensor=tensor.mean(places, keepdim=True).expand_as(tensor)) if places else weight


def _levels(p: Prepared) -> list[FeatureMap]:
    pyramid, _ = p.backbone(p.tensor)
    return [pyramid[name] for name in study.level_names(p.selection, pyramid)]


def _numbers(p: Prepared) -> tuple[FusionModule, Head]:
    """Return method and head as they stand where the selection's slider does."""
    at, moments = p.selection.view.frame, p.own.moments if p.own is not None else ()
    if at is None or len(moments) < 2:
        return p.method, p.heads["fused"]
    moment = min(moments, key=lambda m: abs(m.step - at))
    return study.at_moment(p, moment) if moment.step != p.own.card.steps else (p.method, p.heads["fused"])


def _steps(method: FusionModule, result: FusionResult) -> dict[str, str]:
    """Return which step of the trace makes each weight that is exchanged, by the weight's name."""
    names = [method.spec.weighs] if method.spec.weighs else list(result.attention)
    return {name: next(s.key for s in result.trace if s.tensor is result.attention[name].tensor) for name in names}


def _read(p: Prepared, head: Head, fused: Tensor, attention: Mapping[str, AttentionMap]) -> Reading:
    classes = head.read(fused, tuple(p.tensor.shape[-2:])).argmax(1).to(torch.uint8).cpu()  # [1 h w]
    score = Score(len(p.card.classes))
    score.add(classes, *p.truth)
    return Reading(attention, fused, classes[0], score.read()["miou"])
