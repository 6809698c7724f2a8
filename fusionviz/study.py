"""The use-case: a selection and a picture in, everything that is shown out. App, CLI, tests, notebooks share it.

prepared = study.prepare(selection)      open the picture and the models, make the network's input
result = study.run(prepared)             one forward pass of backbone and method, timed
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fusionviz import backbones, device, fusion, models, pack, pictures, scenes, texts, trace, weights
from fusionviz import fits as own_fits
from fusionviz.backbones import Backbone, bundled
from fusionviz.errors import FusionvizError, LevelError
from fusionviz.fusion import Context, FusionModule
from fusionviz.pictures import Fitted, Picture
from fusionviz.records import (
    ANALYTIC,
    AttentionMap,
    ClassMap,
    Detections,
    FeatureMap,
    FeaturePyramid,
    FusionResult,
    GlimpsePath,
    LevelInfo,
    Logits,
    Output,
    Preprocessing,
    Provenance,
    RegionMaps,
    Site,
    Words,
)
from fusionviz.registry import METHODS
from fusionviz.selection import Selection, Value, pair
from fusionviz.systems import System
from fusionviz.training import picture_fit
from fusionviz.training.heads import Head
from fusionviz.training.metrics import Score


@dataclass(frozen=True)
class Guess:
    """One of the backbone's own classes with its probability."""

    label: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """What one linear reading of each map says, place by place: what its features know.

    Attributes:
        classes: keys of the classes, the background first.
        maps: class of every pixel of the input, uint8 [h w], by reader: "low_only", "high_only", "fused".
        truth: the true classes, where the picture is a scene; else None.
        miou: mean IoU on this picture in percent by reader, over the classes that are there; {} without a truth.
    """

    classes: tuple[str, ...]
    maps: Mapping[str, Tensor]
    truth: Tensor | None
    miou: Mapping[str, float]


@dataclass(frozen=True)
class Frame:
    """A study at one position of its slider.

    Attributes:
        value: of the slider: 0 ... 1 of a "balance", the number of a training "step".
        result: what the method gave there.
        prediction: what readings of the maps say there, where heads read them; else None.
        facts: measured figures of this frame by name; "mean", "edges", "flat" of a balance, "loss", "miou" of a step.
    """

    value: float
    result: FusionResult
    prediction: Prediction | None = None
    facts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Sweep:
    """The same study at every position of one slider, computed at once so that the browser can go through them.

    Attributes:
        kind: "balance" (between detail, 0, and meaning, 1, of a fit to this picture) | "step" (of a training).
        frames: by rising value, at least two.
        start: the position that is shown where nobody has moved the slider.
    """

    kind: str
    frames: tuple[Frame, ...]
    start: int

    def nearest(self, value: float | None) -> int:
        """Return the position of the frame nearest to a value of the slider; None is where it starts."""
        if value is None:
            return self.start
        return min(range(len(self.frames)), key=lambda i: abs(self.frames[i].value - value))


@dataclass(frozen=True)
class Prepared:
    """Everything open and in place for a forward pass.

    Attributes:
        selection: with levels and knobs filled in.
        tensor: the network's input [1 3 h w], on the device.
        heads: what reads the maps as classes, by reader; {} where no trained head covers the selection.
        fits: the method is fitted to this picture before it runs, see `fits`.
        backbone: None where a system looks at the picture itself.
        method: or a whole system.
        card: of the trained head whose numbers the method has, or of the training of a system; or None.
        own: the fit of this machine that it comes from, if it does.
        truth: classes and instances [1 h w] of a scene.
        boxes: of a scene's things, [n 4], x0 y0 x1 y1 in pixels of the network's input; None for another picture.
        labels: what is in each box, as keys of the scenes' classes.
        notices: what had to be said, for example about damaged weights.
        open_ms: milliseconds of opening and fitting the picture.
    """

    selection: Selection
    picture: Picture
    seen: Fitted
    tensor: Tensor
    backbone: Backbone | None
    method: FusionModule | System
    device: torch.device
    heads: Mapping[str, Head] = field(default_factory=dict)
    truth: tuple[Tensor, Tensor] | None = None
    notices: tuple[FusionvizError, ...] = ()
    open_ms: float = 0.0
    fits: bool = False
    card: pack.HeadCard | pack.SystemCard | None = None
    own: own_fits.Fit | None = None
    boxes: Tensor | None = None
    labels: tuple[str, ...] = ()

    @property
    def context(self) -> Context:
        """What the method may look at besides the levels."""
        phrase, wants = self.selection.phrase, preprocessing(self.selection)
        known = {"boxes": self.boxes, "labels": self.labels, "preprocessing": wants}
        return Context(picture=self.tensor, phrase=phrase, **known)


@dataclass(frozen=True)
class StudyResult:
    """What one study gave.

    Attributes:
        seen: the picture exactly as the network saw it.
        pyramid: what the method was given it from; without levels where a system looks at the picture itself.
        guesses: the five likeliest classes, where the backbone has trained weights; else ().
        timings: milliseconds of "picture", "backbone", "fusion" or "system", with the records of its steps, as it ran;
            and of "fit", where the method was fitted to this picture.
        prediction: what linear readings of the maps say, where trained heads cover the selection; else None.
        sweep: the study at every position of its slider, if it has one; `result` is one of its frames.
        card: of a system's training, with what was measured; else None.
        truth: boxes [n 4] of a scene's things in pixels of the network's input, and what they are, as keys of the
            scenes' classes; None for another picture.
        learned: parameters of a system, each counted once; None of a method, whose steps have their own.
        again: runs a system once more under another trace, to count its costs.
        peak_bytes: the most that torch held on a CUDA device during the run, open models and all; else None.
    """

    selection: Selection
    picture: Picture
    seen: Fitted
    pyramid: FeaturePyramid
    result: FusionResult
    guesses: tuple[Guess, ...]
    timings: Mapping[str, float]
    device: str
    peak_bytes: int | None = None
    notices: tuple[FusionvizError, ...] = ()
    prediction: Prediction | None = None
    sweep: Sweep | None = None
    card: pack.SystemCard | None = None
    truth: tuple[Tensor, tuple[str, ...]] | None = None
    learned: int | None = None
    again: Callable[[trace.NullTrace], object] | None = field(default=None, repr=False, compare=False)

    def at(self, value: float | None) -> StudyResult:
        """Return the study at a position of its slider; without a slider, itself."""
        if self.sweep is None:
            return self
        frame = self.sweep.frames[self.sweep.nearest(value)]
        return replace(self, result=frame.result, prediction=frame.prediction)

    @property
    def low(self) -> FeatureMap:
        return self.pyramid[self.selection.low]

    @property
    def high(self) -> FeatureMap:
        return self.pyramid[self.selection.high]

    @property
    def provenance(self) -> Provenance:
        """Of the fused map: the weaker of backbone and method."""
        return self.pyramid.provenance | self.result.provenance

    @property
    def weight(self) -> AttentionMap | None:
        """The map of the weight panel: the weight that chooses, else the method's first, else the share of low."""
        spec = fusion.spec(self.selection.method)
        if spec.weighs:
            return self.result.attention[spec.weighs]
        return next(iter(self.result.attention.values()), None) or self.result.share_of_low()

    def costs(self) -> dict[str, int]:
        """Return parameters and multiply-accumulates of the method, whole: {"parameters", "macs"}.

        What it does once more inside boxes is not counted: it is not there in every picture.
        """
        steps = sum(s.parameters for s in self.result.trace)
        if self.again is not None:
            return {"parameters": self.learned, "macs": self._whole_macs}
        return {"parameters": steps, "macs": sum(self.step_macs().values())}

    def step_macs(self) -> dict[str, int]:
        """Return multiply-accumulates by step of the trace; of a system that repeats itself, of its first round."""
        if self.again is not None:
            return self._system_macs
        inputs = [s for s in self.result.trace if s.op == "input"]
        chosen = self.selection
        strides = tuple(self.pyramid[n].stride[0] for n in level_names(chosen, self.pyramid))
        align = "project" if self.sweep is not None and self.sweep.kind == "balance" else None
        return _macs(chosen.method, tuple(tuple(s.tensor.shape) for s in inputs), strides, chosen.params, align)

    @cached_property
    def _whole_macs(self) -> int:
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            self.again(trace.NullTrace())
        return counter.get_total_flops() // 2

    @cached_property
    def _system_macs(self) -> dict[str, int]:
        counting = trace.CostTrace()
        with torch.inference_mode():
            self.again(counting)
        return {step.key: step.macs or 0 for step in counting.steps}


@lru_cache(maxsize=256)
def _macs(method: str, shapes: tuple, strides: tuple, params: tuple, align: str | None) -> dict[str, int]:
    with torch.device("meta"):  # shapes only: a wide pyramid's weights would take a second to draw
        module = fusion.build(method, tuple(s[1] for s in shapes), strides, align=align, **dict(params))
    return trace.costs(module, shapes)


EXAMPLES = {
    "branches": ("googlenet", "inception_v3", "squeezenet1_1"),
    "dense": ("densenet121", "densenet169"),
}
"""Networks that have sites of a kind, for who asks for one where there is none; a test looks whether they do."""


def site(selection: Selection) -> Site | None:
    """Return the site whose maps are fused: the one that is chosen, else the first where the method can stand.

    None where levels are fused. The first of a dense block is its end, where all of its maps meet.

    Raises:
        LevelError: if the network has no such site, or none for the method, with what to choose instead.
    """
    spec, info = fusion.spec(selection.method), backbones.info(selection.backbone)
    chosen = info.site(selection.site) if selection.site else None
    if not spec.stands or (chosen is not None and chosen.kind == spec.stands):
        return chosen
    fitting = [s for s in info.sites if s.kind == spec.stands]
    title = texts.method_text(spec.key, "short")
    if not fitting:
        examples = ", ".join(backbones.title(key) for key in EXAMPLES[spec.stands])
        raise LevelError(f"site.{spec.stands}", method=title, backbone=info.title, examples=examples)
    if chosen is not None:
        raise LevelError("site.kind", method=title, kinds=f"{spec.stands}:", site=chosen.name, backbone=info.title)
    first = fitting[0]
    for more in fitting[1:]:
        if len(more.operands) <= len(first.operands):
            break
        first = more
    return first


def levels(selection: Selection) -> tuple[LevelInfo, ...]:
    """Return what low and high are chosen from: the backbone's levels, or the maps that meet at the site."""
    found = site(selection)
    return backbones.info(selection.backbone).levels if found is None else found.operands


def default_levels(selection: Selection) -> tuple[str, str]:
    """Return the names of low and high where nobody has chosen: the backbone's defaults, or the ends of a site."""
    found, info = site(selection), backbones.info(selection.backbone)
    return (info.default_low, info.default_high) if found is None else (found.operands[0].name, found.operands[-1].name)


def level_names(selection: Selection, levels: FeaturePyramid | tuple[LevelInfo, ...]) -> tuple[str, ...]:
    """Return the names of the levels that the method is given: two, all from low to high, or all maps of a site."""
    names = tuple(level.name for level in levels)
    first, last = names.index(selection.low), names.index(selection.high)
    takes = fusion.spec(selection.method).takes
    if takes == "branches":
        return names
    return names[first : last + 1] if takes == "pyramid" else (names[first], names[last])


def _context(p: Prepared, pyramid: FeaturePyramid) -> Context:
    names = level_names(p.selection, pyramid)
    return replace(p.context, ends=(names.index(p.selection.low), names.index(p.selection.high)))


def resolve(selection: Selection) -> Selection:
    """Return the selection with site and levels named and every knob of the method filled in.

    Raises:
        UnknownNameError, LevelError, ParameterError: with the choices there are.
    """
    spec = fusion.spec(selection.method)
    info = backbones.info(selection.backbone)
    if spec.is_system:
        return _resolve_system(selection)
    if not info.levels:
        raise LevelError("backbone.no_levels", backbone=info.title)
    found = site(selection)
    selection = selection.with_(site=found.name if found else None)
    names = tuple(level.name for level in levels(selection))
    for name in (selection.low, selection.high):
        if name is not None and name not in names:
            place = f"{info.key} {found.name}" if found else info.key
            raise LevelError("level.unknown", level=name, backbone=place, levels=", ".join(names))
    low, high = pair(names, default_levels(selection), selection.low, selection.high)
    if names.index(low) >= names.index(high):
        raise LevelError("level.order", low=low, high=high, levels=", ".join(names))
    selection = selection.with_(low=low, high=high)
    if fits(selection):
        plain = {"width": picture_fit.width(_channels(selection)), "norm": "none"}
        return selection.with_(params=tuple(spec.parse({**plain, **selection.knobs}).items()))
    card = covering(selection) or shipped(selection)
    trained = {}
    if card is not None:
        state = {k.removeprefix("fusion."): v for k, v in pack.head_state(card).items()}
        trained = {k: v for k, v in pack.trained_params(card).items() if k in _SHAPES}
        trained |= METHODS[selection.method].trained_knobs(state)
    return selection.with_(params=tuple(spec.parse({**trained, **selection.knobs}).items()))


def _resolve_system(selection: Selection) -> Selection:
    spec, info = fusion.spec(selection.method), backbones.info(selection.backbone)
    takes, there = METHODS[spec.key].takes_levels, [level.name for level in info.levels]
    if any(name not in there for name in takes):
        title = texts.method_text(spec.key, "short")
        raise LevelError("level.system", system=title, expected=", ".join(takes), received=", ".join(there) or "–")
    low, high = (takes[0], takes[-1]) if takes else (None, None)
    phrase = None
    if spec.takes == "image+text":
        phrase = " ".join((selection.phrase or "").lower().split()) or first_phrase(selection.picture)
    params = tuple(spec.parse(selection.knobs).items())
    return selection.with_(site=None, low=low, high=high, phrase=phrase, params=params)


def takes_levels(selection: Selection) -> tuple[str, ...]:
    """Return the levels that a system stands on; () for one that looks at the picture itself."""
    return METHODS[selection.method].takes_levels


def names_one_thing(selection: Selection) -> bool:
    """Say whether a system is trained on scenes with one thing."""
    return getattr(METHODS[selection.method], "one_thing", False)


def phrases(picture: str) -> tuple[str, ...]:
    """Return a phrase for each thing of a scene, from left to right; () for another picture."""
    if not picture.startswith("scene:"):
        return ()
    scene = scenes.open_scene(picture.partition(":")[2])
    order = sorted(range(len(scene.phrases)), key=lambda i: scene.looks[i].x)
    return tuple(scene.phrases[i] for i in order)


def picture_for(new: Selection, old: Selection) -> str:
    """Return the picture of a selection that follows another: a scene with one thing, where a system is trained so.

    Where one follows that is not, the scene has all its things again; another picture stays as it is.
    """
    one, was = names_one_thing(new), names_one_thing(old)
    kind, *scene = new.picture.split(":")
    if kind != "scene":
        return new.picture
    if one and len(scene) == 1:
        return f"{new.picture}:1"
    return f"scene:{scene[0]}" if was and not one and scene[1:] == ["1"] else new.picture


def first_phrase(picture: str) -> str:
    """Return what is asked for where nobody has said anything."""
    return next(iter(phrases(picture)), "the largest ball")


def defaults(selection: Selection) -> dict[str, Value]:
    """Return the knobs of the selection's method as they stand where nobody has turned them."""
    return resolve(selection.with_(params=())).knobs


_SHAPES = ("width",)
"""Knobs whose default is the trained head's, where one ships: a page opens on what was trained."""


def shipped(selection: Selection) -> pack.HeadCard | None:
    """Return the card of the head that ships for a selection with named levels, or None.

    Whether it covers the knobs too, `pack.covers` says.
    """
    if selection.weights != "auto" or selection.site:  # heads are trained between levels
        return None
    return pack.head(selection.backbone, selection.method, selection.low, selection.high)


def covering(selection: Selection) -> pack.HeadCard | None:
    """Return the card of the trained head whose numbers the method gets, or None; its levels are named.

    What ships comes before a fit of this machine, unless the selection asks for the fit.
    """
    card = shipped(selection)
    card = card if card is not None and pack.covers(card, selection.knobs) else None
    if card is not None and selection.head != "fit":
        return card
    own, _ = own_fits.find(own_fits.subject(selection))
    return own.card if own is not None else card


def fits(selection: Selection) -> bool:
    """Say whether the method is fitted to the picture without labels, for a selection with named levels.

    So it is where it chooses between two levels and no trained head covers it; unless a knob that sets the weight was
    turned by hand, or the levels are to meet in more channels than their projections have directions. Never at a site
    inside the network: an identity and its residual are no detail and meaning, the fitted weight was the balance
    itself at every place, and the projections of a fit would stand between the method and the very maps of the block.
    """
    spec = fusion.spec(selection.method)
    if not spec.weighs or spec.takes != "pair" or selection.site or covering(selection) is not None:
        return False
    plain = picture_fit.width(_channels(selection))
    knobs = spec.parse({"width": plain, **selection.knobs})
    by_hand = any(knobs[key] != spec.param(key).default for key in METHODS[spec.key].weight_knobs)
    return not by_hand and knobs["width"] <= max(plain, min(picture_fit.MOST_WIDTH, *_channels(selection)))


def _channels(selection: Selection) -> tuple[int, int]:
    found = {level.name: level.channels for level in levels(selection)}
    return found[selection.low], found[selection.high]


def prepare(selection: Selection, picture: Picture | None = None, *, on: torch.device | str | None = None) -> Prepared:
    """Open what a selection names: picture, backbone, method.

    Args:
        picture: an opened picture (an upload, say), or None to open `selection.picture`.
        on: a device, or None for the best one.

    Raises:
        FusionvizError: with what to do, if anything named is not there or does not fit.
    """
    where = on if isinstance(on, torch.device) else device.choose(on)
    selection = resolve(selection)
    clock = device.Clock(torch.device("cpu"))
    info = backbones.info(selection.backbone)
    truth, boxes, labels = None, None, ()
    with clock.part("picture"):
        picture = picture if picture is not None else pictures.open_picture(selection.picture)
        wants = preprocessing(selection)
        if picture.key.startswith("scene:"):
            # A scene has no pixels of its own: it is drawn at the size that the network sees, whole and sharp.
            side = selection.size or wants.crop_px
            picture, wants = pictures.open_scene(picture.key, side), replace(wants, resize_px=wants.crop_px)
            drawn = scenes.open_scene(picture.key.partition(":")[2], side)
            truth = tuple(torch.tensor(a, dtype=torch.int64)[None] for a in (drawn.classes, drawn.instances))
            boxes, labels = torch.tensor(drawn.boxes), tuple(scenes.CLASSES[k] for k in drawn.labels)
        seen = pictures.fit(picture, wants, size=selection.size, fit=selection.fit, crop=selection.crop)
        tensor, boxes = seen.tensor.to(where), None if boxes is None else boxes.to(where)
    if fusion.spec(selection.method).is_system:
        return _prepare_system(selection, picture, seen, tensor, where, clock.read()["picture"], boxes, labels)
    opened, notices = models.backbone(selection.backbone, selection.weights, seed=selection.seed, device=where)
    opened = opened.at(selection.site)
    taken = [next(v for v in opened.levels if v.name == n) for n in level_names(selection, opened.levels)]
    channels, strides = tuple(v.channels for v in taken), tuple(v.stride[0] for v in taken)
    card, fitted = covering(selection), fits(selection)
    build = {**selection.knobs, "align": "project"} if fitted else selection.knobs
    method = models.method(selection.method, channels, strides, seed=selection.seed, device=where, card=card, **build)
    heads = models.heads(card, info.levels, device=where) if card is not None else {}
    own, unusable = None, ()
    if card is None or card.origin == "fitted":
        own, unusable = own_fits.find(own_fits.subject(selection))
    notices = (*notices, *unusable)
    open_ms = clock.read()["picture"]
    known = (heads, truth, notices, open_ms, fitted, card, own, boxes, labels)
    return Prepared(selection, picture, seen, tensor, opened, method, where, *known)


def preprocessing(selection: Selection) -> Preprocessing:
    """Return how the picture is wanted: by the backbone, or by a system that looks at it itself."""
    spec, own = fusion.spec(selection.method), None
    if spec.is_system:
        own = METHODS[spec.key].wants(spec.parse(selection.knobs))
    return own or backbones.info(selection.backbone).preprocessing


def _prepare_system(
    selection: Selection,
    picture: Picture,
    seen: Fitted,
    tensor: Tensor,
    where: torch.device,
    open_ms: float,
    boxes: Tensor | None,
    labels: tuple[str, ...],
) -> Prepared:
    key, opened, notices, infos = selection.method, None, (), ()
    if METHODS[key].takes_levels:
        infos = backbones.info(selection.backbone).levels
        opened, notices = models.backbone(selection.backbone, selection.weights, seed=selection.seed, device=where)
    card = trained(selection)
    how = {"card": card, "published": published(selection) is not None}
    module, more = models.system(key, infos, seed=selection.seed, device=where, **how, **selection.knobs)
    notices = (*notices, *more)
    return Prepared(
        selection, picture, seen, tensor, opened, module, where,
        notices=notices, open_ms=open_ms, card=card, boxes=boxes, labels=labels,
    )  # fmt: skip


def published(selection: Selection) -> str | None:
    """Return the name of the network whose published weights a system asks for: torchvision's own, shown as it is."""
    wild = fusion.spec(selection.method).family == "wild"
    return str(selection.knobs["net"]) if wild and selection.weights == "auto" else None


def trained(selection: Selection) -> pack.SystemCard | None:
    """Return the card of the training whose numbers a system gets, or None."""
    if selection.weights != "auto":
        return None
    # Who looks at the picture himself stands on no backbone: his numbers lie with the first network's.
    takes = METHODS[selection.method].takes_levels
    return pack.system(selection.backbone if takes else bundled.names()[0], selection.method, selection.knobs)


def run(prepared: Prepared | Selection, picture: Picture | None = None, *, on: str | None = None) -> StudyResult:
    """Run backbone and method once on the device's own thread.

    Args:
        prepared: what `prepare` gave; a Selection is prepared first.
    """
    if isinstance(prepared, Selection):
        prepared = prepare(prepared, picture, on=on)
    return device.submit(prepared.device, lambda: _forward(prepared))


_warm: weakref.WeakKeyDictionary[FusionModule, set[tuple]] = weakref.WeakKeyDictionary()


def _warm_up(p: Prepared) -> None:
    """Run once, unmeasured, what a GPU has not run yet.

    The first run loads kernels and makes plans, which takes many times as long as the run; shown beside the board,
    it would be read as the speed of the network. On a CPU the first run is hardly slower, and none is spent on it.
    """
    runs, this = _warm.setdefault(p.method, set()), (p.backbone.key, tuple(p.tensor.shape))
    if p.device.type != "cpu" and this not in runs:
        runs.add(this)
        pyramid, _ = p.backbone(p.tensor)
        p.method(*(pyramid[name] for name in level_names(p.selection, pyramid)), context=_context(p, pyramid))


@torch.inference_mode()
def _forward(p: Prepared) -> StudyResult:
    if isinstance(p.method, System):
        return _forward_system(p)
    _warm_up(p)
    clock = device.Clock(p.device)
    device.reset_peak(p.device)
    with clock.part("backbone"):
        pyramid, logits = p.backbone(p.tensor)
    levels = [pyramid[name] for name in level_names(p.selection, pyramid)]
    method, sweep, at = p.method, None, p.selection.view.frame
    if p.fits and all(level.tensor.isfinite().all() for level in levels):  # to what is no number, nothing can be fitted
        with clock.part("fit"):
            methods, sweep = _fitted(p, pyramid)
        method = methods[sweep.nearest(at)]
    with clock.part("fusion"):
        result = method(*levels, context=_context(p, pyramid))
    guesses = _guesses(p, logits) if pyramid.provenance.kind in ("pretrained", "bundled") else ()
    prediction = _prediction(p, pyramid, result) if p.heads else None
    if p.own is not None and len(p.own.moments) > 1:
        sweep = _trained(p, pyramid, Frame(p.own.card.steps, result, prediction))
    return StudyResult(
        p.selection,
        p.picture,
        p.seen,
        pyramid,
        result,
        guesses,
        {"picture": p.open_ms, **clock.read()},
        str(p.device),
        device.peak_bytes(p.device),
        p.notices,
        prediction,
        sweep,
    ).at(at)


def levels_for(p: Prepared) -> FeaturePyramid:
    """Return what a system stands on: the backbone's levels, none where it looks at the picture itself."""
    return FeaturePyramid((), p.selection.method, ANALYTIC) if p.backbone is None else p.backbone(p.tensor)[0]


def _forward_system(p: Prepared) -> StudyResult:
    clock = device.Clock(p.device)
    device.reset_peak(p.device)
    with clock.part("backbone") if p.backbone is not None else nullcontext():
        pyramid = levels_for(p)
    with clock.part("system"):
        result = p.method(p.tensor, pyramid, context=p.context)
    return StudyResult(
        p.selection,
        p.picture,
        p.seen,
        pyramid,
        result,
        (),
        {"picture": p.open_ms, **clock.read()},
        str(p.device),
        device.peak_bytes(p.device),
        p.notices,
        card=p.card,
        truth=None if p.boxes is None else (p.boxes, p.labels),
        learned=sum(v.numel() for v in p.method.parameters()),
        again=_uncounted if fusion.spec(p.selection.method).family == "wild" else _once_more(p, pyramid),
    )


def _uncounted(under: trace.NullTrace) -> None:
    """A network in the wild is too large to run twice, or to be kept, for the sake of a count."""


def _once_more(p: Prepared, pyramid: FeaturePyramid) -> Callable[[trace.NullTrace], object]:
    return lambda under: p.method(p.tensor, pyramid, context=p.context, trace=under)


def _fitted(p: Prepared, pyramid: FeaturePyramid) -> tuple[tuple[FusionModule, ...], Sweep]:
    """Fit the method to the picture for every balance; the maps that meet are the same in all and are kept once."""
    low, high = pyramid[p.selection.low], pyramid[p.selection.high]
    values = picture_fit.balances(low)
    methods = picture_fit.fit(p.method, low, high, values)
    context, edges = _context(p, pyramid), picture_fit.edges(p.tensor, low)
    met: dict[str, Tensor] = {}
    frames = []
    for value, method in zip(values, methods, strict=True):
        result = method(low, high, context=context, trace=trace.Reusing(met))
        met = met or trace.before(result.trace, *(m.tensor for m in result.aligned))
        facts = picture_fit.measure(result.attention[method.spec.weighs], edges)
        frames.append(Frame(value, result, facts=facts))
    return methods, Sweep("balance", tuple(frames), values.index(0.5))


def _trained(p: Prepared, pyramid: FeaturePyramid, last: Frame) -> Sweep:
    """Return the study at every step of the fit at which its numbers were kept; `last` is where the fit stands."""
    levels = [pyramid[name] for name in level_names(p.selection, pyramid)]
    frames = []
    for moment in p.own.moments:
        facts = {"loss": moment.loss, "miou": moment.miou}
        if moment.step == last.value:
            frames.append(replace(last, facts=facts))
            continue
        method, head = at_moment(p, moment)
        result = method(*levels, context=_context(p, pyramid))
        frames.append(Frame(moment.step, result, _prediction(p, pyramid, result, head, last.prediction), facts))
    return Sweep("step", tuple(frames), len(frames) - 1)


def at_moment(p: Prepared, moment: own_fits.Moment) -> tuple[FusionModule, Head]:
    """Return copies of method and head with the numbers that this machine's fit had at a moment."""
    card = p.own.card_at(moment)
    final = {k.removeprefix("fusion."): v for k, v in pack.head_state(p.own.card).items()}
    plain = {**dict(p.own.card.params), **p.method.trained_knobs(final)}
    by_hand = {} if plain == p.selection.knobs else p.selection.knobs  # a knob that was turned holds at every step
    method, head = copy.deepcopy(p.method), copy.deepcopy(p.heads["fused"])
    method.trained = None
    pack.fill_method(method, card, by_hand)
    pack.fill_head(head, card)
    return method, head


def _prediction(
    p: Prepared,
    pyramid: FeaturePyramid,
    result: FusionResult,
    head: Head | None = None,
    beside: Prediction | None = None,
) -> Prediction:
    """Return what readings of the maps say.

    Args:
        head: that reads the fused map; None: the one that is open.
        beside: a prediction of the same picture, whose readings of one level alone are these too.
    """
    size = tuple(p.tensor.shape[-2:])
    pair = (pyramid[p.selection.low], pyramid[p.selection.high])
    alone = [name for name in ("low_only", "high_only") if name in p.heads]  # a fit that was stopped has none yet
    scores = {} if beside else {name: p.heads[name](pair, size) for name in alone}
    scores["fused"] = (head or p.heads["fused"]).read(result.fused.tensor, size)
    maps = {name: s.argmax(1).to(torch.uint8).cpu() for name, s in scores.items()}  # [1 h w]
    classes, miou = p.card.classes, {}
    if p.truth is not None:
        for name, said in maps.items():
            score = Score(len(classes))
            score.add(said, *p.truth)
            miou[name] = score.read()["miou"]
    truth = p.truth[0][0].to(torch.uint8) if p.truth is not None else None
    said = {name: m[0] for name, m in maps.items()}
    if beside:
        said, miou = {**beside.maps, **said}, {**beside.miou, **miou}
    return Prediction(classes, said, truth, miou)


def _guesses(p: Prepared, logits: Tensor) -> tuple[Guess, ...]:
    card = pack.backbone_card(p.selection.backbone) if p.selection.weights == "auto" else None
    names = card.classes if card else weights.categories(p.selection.backbone)
    if len(names) != logits.shape[1]:  # somebody's own file, with classes of its own
        names = tuple(f"#{i}" for i in range(logits.shape[1]))
    scores = logits[0].float()
    scores = scores.sigmoid() if p.backbone.info.multilabel else scores.softmax(0)
    best = scores.topk(min(5, len(scores)))
    return tuple(Guess(names[i], p) for p, i in zip(best.values.tolist(), best.indices.tolist(), strict=True))


def profile(prepared: Prepared, repeats: int = 5) -> dict[str, float]:
    """Return milliseconds of every step of the method: the fastest of a few separate runs, after one to warm up."""

    def measure() -> dict[str, float]:
        with torch.inference_mode():
            if isinstance(prepared.method, System):
                return _profile_system(prepared, repeats)
            pyramid, _ = prepared.backbone(prepared.tensor)
            levels = [pyramid[name] for name in level_names(prepared.selection, pyramid)]
            best: dict[str, float] = {}
            for i in range(repeats + 1):
                timed = trace.TimedTrace()
                prepared.method(*levels, context=_context(prepared, pyramid), trace=timed)
                if i:
                    best = {k: min(v, best.get(k, v)) for k, v in timed.milliseconds().items()}
            return best

    return device.submit(prepared.device, measure)


def _profile_system(p: Prepared, repeats: int) -> dict[str, float]:
    pyramid, best = levels_for(p), {}
    for i in range(repeats + 1):
        timed = trace.TimedTrace()
        p.method(p.tensor, pyramid, context=p.context, trace=timed)
        if i:
            best = {k: min(v, best.get(k, v)) for k, v in timed.milliseconds().items()}
    return best


def attention_statistics(attention: AttentionMap) -> dict[str, float | str]:
    """Return range, mean and standard deviation of a weight, with what it is."""
    value = attention.tensor.detach().float()
    return {
        "name": attention.name,
        "kind": attention.kind,
        "axes": attention.axes,
        "of": attention.of,
        "shape": tuple(value.shape),
        "minimum": value.min().item(),
        "maximum": value.max().item(),
        "mean": value.mean().item(),
        "std": value.std(correction=0).item(),
    }


def report(study: StudyResult) -> dict:
    """Return a study as plain values, for JSON: shapes, attention, provenance, timings, costs."""
    chosen = study.selection
    weight = study.weight
    maps = list(study.result.attention.values())
    if weight is not None and weight.kind == "share":
        maps.append(weight)
    return {
        "picture": {"key": study.picture.key, "digest": study.picture.digest, "seen": list(study.seen.shown.shape)},
        "backbone": {
            "key": chosen.backbone,
            "site": chosen.site,
            "provenance": _plain(study.pyramid.provenance),
            "levels": {
                m.name: {"shape": list(m.tensor.shape), "stride": list(m.stride), "offset": list(m.offset)}
                for m in study.pyramid
            },
        },
        "method": {
            "key": chosen.method,
            "params": chosen.knobs,
            "provenance": _plain(study.result.provenance),
            "low": chosen.low,
            "high": chosen.high,
            "phrase": chosen.phrase,
        },
        "outputs": {name: _output(out) for name, out in study.result.outputs.items()},
        "attention": [{**attention_statistics(a), "shape": list(a.tensor.shape)} for a in maps],
        "steps": [
            {
                "key": s.key,
                "op": s.op,
                "inputs": list(s.inputs),
                "shape": list(s.tensor.shape),
                "parameters": s.parameters,
            }
            for s in study.result.trace
        ],
        "provenance": study.provenance.kind,
        "measured": dict(study.card.metrics) if study.card else None,
        "classes": [{"label": g.label, "probability": g.probability} for g in study.guesses],
        "prediction": _said(study.prediction),
        "balance": _balance(study),
        "timings_ms": dict(study.timings),
        "costs": study.costs(),
        "device": study.device,
        "precision": device.PRECISION,
        "peak_bytes": study.peak_bytes,
        "notices": [str(n) for n in study.notices],
    }


def _output(out: Output) -> dict:
    if isinstance(out, Detections):
        found = zip(out.boxes.tolist(), out.scores.tolist(), out.labels.tolist(), out.level.tolist(), strict=True)
        told = [
            {"box": box, "score": score, "class": out.classes[label], "level": out.levels[level]}
            for box, score, label, level in found
        ]
        return {"shape": list(out.boxes.shape), "detections": told}
    if isinstance(out, GlimpsePath):
        best = [out.classes[i] for i in out.scores.argmax(1).tolist()]
        return {
            "shape": list(out.patches.shape),
            "places": out.places.tolist(),
            "sides": list(out.sides),
            "answers": best,
        }
    if isinstance(out, Words):
        places = None if out.places is None else out.places.tolist()
        return {
            "shape": [len(out.words)],
            "words": list(out.words),
            "probabilities": out.probabilities.tolist(),
            "places": places,
        }
    if isinstance(out, ClassMap):
        shares = out.tensor.flatten().bincount(minlength=len(out.classes)).float() / out.tensor.numel()
        there = {name: share for name, share in zip(out.classes, shares.tolist(), strict=True) if share}
        return {"shape": list(out.tensor.shape), "classes": there}
    if isinstance(out, Logits):
        return {"shape": list(out.values.shape), "logits": dict(zip(out.classes, out.values.tolist(), strict=True))}
    plain = {"shape": list(out.tensor.shape), "dtype": str(out.tensor.dtype).removeprefix("torch.")}
    if isinstance(out, RegionMaps):
        plain |= {"boxes": out.boxes.tolist(), "labels": list(out.labels)}
    return plain


def _said(prediction: Prediction | None) -> dict | None:
    return None if prediction is None else {"classes": list(prediction.classes), "miou": dict(prediction.miou)}


def _balance(study: StudyResult) -> dict | None:
    """The curve between detail and meaning of a fit to this picture, and where on it the study stands."""
    if study.sweep is None or study.sweep.kind != "balance":
        return None
    frames = study.sweep.frames
    at = frames[study.sweep.nearest(study.selection.view.frame)].value
    return {"at": at, "curve": [{"value": f.value, **f.facts} for f in frames]}


def _plain(provenance: Provenance) -> dict[str, str]:
    return {"kind": provenance.kind, "detail": provenance.detail}
