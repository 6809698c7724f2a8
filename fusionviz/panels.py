"""A study -> the Board that browser, slide and tests share: which maps, under which title, on which scale."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from fusionviz import fusion, reduce
from fusionviz.axes import shape_text
from fusionviz.board import Arithmetic, Badge, Bar, Board, BoardFrame, BoardSweep, Map, Panel, PanelView
from fusionviz.records import ANALYTIC, AttentionMap, FeatureMap, Provenance
from fusionviz.registry import METHODS
from fusionviz.selection import Selection, View
from fusionviz.study import Frame, StudyResult, Sweep, defaults, fits, levels
from fusionviz.texts import method_text, text


def build(study: StudyResult, view: View, language: str = "en") -> Board:
    """Return what the board shows of a study; of one with a slider, at `view.frame`, and every other position too."""
    board = _Builder(study.at(None), view, language).board()
    if study.sweep is not None:
        board = _swept(study, board, view, language)
    return board.with_views(view.views)


def aligned_by_default(study: StudyResult) -> bool:
    """Say whether Low and High first appear as the method sees them: only where the alignment is not random."""
    return study.result.aligned is not None and study.result.provenance.kind not in ("analytic", "random")


# --- the slider ------------------------------------------------------------------------------------
_FACTS = {
    "balance": {"mean": "{:.2f}", "edges": "{:.2f}", "flat": "{:.2f}"},
    "step": {"loss": "{:.2f}", "miou": "{:.1f}"},
}
_CURVE = {"balance": ("mean", 1.0), "step": ("miou", 100.0)}
"""The fact that the curve over a slider shows, and its largest value: the curve's height is never stretched."""


def _swept(study: StudyResult, start: Board, view: View, language: str) -> Board:
    """Return the board at `view.frame` with all positions of its slider, laid out as at `start`.

    The strongest channels, the order of the bars and which view comes first are those of the start: they would
    differ from position to position, and the board would jump instead of change.
    """
    sweep, kind = study.sweep, study.sweep.kind
    like_start = replace(view, channels=start.channels)
    boards = []
    for frame in sweep.frames:
        at = replace(study, result=frame.result, prediction=frame.prediction, sweep=None)
        boards.append(_Builder(at, like_start, language).board())
    signed = {(p.id, v.key) for b in boards for p in b.panels for v in p.views if v.scale == "signed"}
    frames = tuple(
        BoardFrame(
            frame.value,
            place,
            _value(kind, frame),
            _facts(kind, frame, language),
            _height(kind, frame),
            tuple(_like(p, first, signed) for p, first in zip(board.panels, start.panels, strict=True)),
            board.arithmetic,
        )
        for frame, place, board in zip(sweep.frames, _places(sweep), boards, strict=True)
    )
    ends = [text(f"sweep.{kind}.{end}", language, value=frames[i].text) for end, i in (("left", 0), ("right", -1))]
    label, curve = (text(f"sweep.{kind}.{key}", language) for key in ("label", "curve"))
    slider = BoardSweep(kind, label, tuple(ends), curve, frames, sweep.start, sweep.start)
    return replace(start, sweep=slider).at(sweep.nearest(view.frame))


def _like(panel: Panel, start: Panel, signed: set[tuple[str, str]]) -> Panel:
    """Lay a panel out as at the start: its numbers, the start's order, and the scale that serves every position."""
    views = []
    for view, first in zip(panel.views, start.views, strict=True):
        changes = {"scale": "signed"} if (panel.id, view.key) in signed else {}
        if view.kind == "bars":
            order = {b.channel: rank for rank, b in enumerate(first.bars)}
            # The pictures beside the bars say which channels these are: they stay.
            changes |= {"bars": tuple(sorted(view.bars, key=lambda b: order[b.channel])), "maps": first.maps}
        views.append(replace(view, **changes))
    return replace(panel, views=tuple(views), view=start.view)


def _places(sweep: Sweep) -> list[float]:
    """Where frames stand on the slider, 0 ... 1: a balance at its value; steps evenly, as the first change most."""
    values = [f.value for f in sweep.frames]
    if sweep.kind == "step":
        values = list(range(len(values)))
    return [(v - values[0]) / (values[-1] - values[0]) for v in values]


def _value(kind: str, frame: Frame) -> str:
    return f"{frame.value:.0f}" if kind == "step" else f"{frame.value:.2f}"


def _facts(kind: str, frame: Frame, language: str) -> str:
    known = {name: written for name, written in _FACTS[kind].items() if name in frame.facts}
    parts = [text(f"sweep.{kind}.{n}", language, value=w.format(frame.facts[n])) for n, w in known.items()]
    return text("sweep.and", language).join(parts)


def _height(kind: str, frame: Frame) -> float | None:
    name, top = _CURVE[kind]
    return min(max(frame.facts[name] / top, 0.0), 1.0) if name in frame.facts else None


def map_title(selection: Selection, name: str, language: str) -> str:
    """Return what a map of a site is called: "identity", "b2 · 3×3", "x0"; a level has its name."""
    way = next((v.way for v in levels(selection) if v.name == name), "")
    if name in ("identity", "residual"):
        return text(f"sites.{name}", language)
    how = text(f"sites.{way}", language) if way in ("pool", "same") else way.replace("x", "×")
    return " · ".join(filter(None, (name, how)))


class _Builder:
    def __init__(self, study: StudyResult, view: View, language: str) -> None:
        self.study, self.view, self.language = study, view, language
        self.spec = fusion.spec(study.selection.method)
        fused = study.result.fused
        count = min(view.grid, fused.channels)
        chosen = tuple(c for c in dict.fromkeys(view.channels) if c < fused.channels)
        self.channels = chosen or reduce.strongest(fused.tensor, count)
        pinned = view.pin_channel
        if pinned is not None and pinned < fused.channels and pinned not in self.channels:
            # A pinned channel that would not be shown takes the place of the weakest.
            self.channels = (*self.channels[:-1], pinned)
        self.aligned = view.aligned if view.aligned is not None else aligned_by_default(study)

    def say(self, key: str, **values: object) -> str:
        return text(key, self.language, **values)

    def board(self) -> Board:
        panels = [self.picture(), self.level("low"), self.level("high"), self.weight(), self.fused()]
        chosen = self.study.selection
        caption = self.say(
            "panel.caption",
            backbone=" · ".join(filter(None, (chosen.backbone, chosen.site))),
            low=chosen.low,
            high=chosen.high,
            method=method_text(chosen.method, "short", self.language),
            provenance=self.badge(self.study.provenance).text,
        )
        size = tuple(self.study.seen.shown.shape[:2])
        return Board(
            size,
            tuple(p for p in panels if p is not None),
            self.channels,
            self.arithmetic(),
            caption,
            self.study.picture.credit,
        )

    # --- panels ------------------------------------------------------------------------------
    def picture(self) -> Panel:
        shown = self.study.seen.shown
        shape = shape_text((shown.shape[2], *shown.shape[:2]))
        seen = PanelView("seen", self.say("panel.seen"), shape, scale="rgb", maps=(Map(shown),))
        return Panel("picture", "picture", self.say("roles.picture"), (seen,))

    def level(self, role: str) -> Panel:
        own = self.study.low if role == "low" else self.study.high
        views = self.views_of(own, "own", self.own_channels(own, role))
        met = self.study.result.aligned
        meets = met[0 if role == "low" else 1] if met else None
        badge = self.study.pyramid.provenance
        shown = 0
        if meets is not None and meets.tensor is not own.tensor:
            learned = self.learned_on_the_way(meets.tensor)
            met_views = self.views_of(meets, "aligned", self.met_channels(meets, role), was=own)
            if self.aligned:
                shown, badge = len(views), learned
            if learned != badge:  # the browser shows these under the badge of the backbone's own map
                note = self.say("panel.aligned_note", provenance=self.badge(learned).text)
                met_views = [replace(v, note=note) for v in met_views]
            views += met_views
        title = self.say("panel.level", role=self.say(f"roles.{role}"), letter="X" if role == "low" else "Y")
        if self.study.selection.site:
            title += " · " + map_title(self.study.selection, own.name, self.language)
        return Panel(role, role, title, tuple(views), shown, self.badge(badge))

    def learned_on_the_way(self, tensor: Tensor) -> Provenance:
        """Where the numbers of a map of the trace come from: the method's own count if it passed any of them."""
        steps = {s.key: s for s in self.study.result.trace}
        waiting, parameters = [s.key for s in steps.values() if s.tensor is tensor], 0
        while waiting:
            step = steps[waiting.pop()]
            parameters += step.parameters
            waiting += step.inputs
        backbone = self.study.pyramid.provenance
        return backbone | self.study.result.provenance if parameters else backbone

    def fused(self) -> Panel:
        fused = self.study.result.fused
        views = self.views_of(fused, "fused", self.channels)
        for name, out in self.study.result.outputs.items():
            if out.tensor is not fused.tensor:
                views += self.views_of(out, name, tuple(c for c in self.channels if c < out.channels))
        title = self.say("panel.level", role=self.say("roles.fused"), letter="Z")
        return Panel("fused", "fused", title, tuple(views), 0, self.badge(self.study.provenance))

    def weight(self) -> Panel | None:
        study = self.study
        weight = study.weight
        if weight is None:
            return None
        rest = [a for a in study.result.attention.values() if a is not weight]
        views = [v for a in (weight, *rest) for v in self.attention_views(a, first=a is weight)]
        of = weight.of if weight.of in ("low", "high") else ""
        # Where the mean over channels is flat, the channels still differ: they come first.
        flat = views[0].key == "place" and len(views) > 1 and float(np.ptp(views[0].maps[0].values)) < 0.05
        badge = self.badge(ANALYTIC if self.by_hand(weight) else self.of_weight())
        return Panel("weight", "weight", self.title(weight), tuple(views), int(flat), badge, of)

    def of_weight(self) -> Provenance:
        """Where a weight comes from: what was fitted on these very maps means something, though they be random."""
        own = self.study.result.provenance
        return own if own.kind in ("fitted", "fitted_scenes") else self.study.provenance

    def by_hand(self, weight: AttentionMap) -> bool:
        """Say whether a weight depends on no map and no learned number: a knob alone has set it."""
        step = next((s for s in self.study.result.trace if s.tensor is weight.tensor), None)
        by_hand = step is not None and not step.inputs and bool(METHODS[self.study.selection.method].by_hand)
        chosen = self.study.selection
        trained = self.study.result.provenance.kind == "bundled" and chosen.knobs == defaults(chosen)
        return by_hand and not trained and not fits(chosen)

    def title(self, weight: AttentionMap) -> str:
        return self.say(f"attention.{weight.role}", of=self.say(f"attention.of.{weight.of}"))

    # --- views -------------------------------------------------------------------------------
    def own_channels(self, level: FeatureMap, role: str) -> tuple[int, ...]:
        met = self.study.result.aligned
        if met is not None and met[0 if role == "low" else 1].tensor is level.tensor:
            return self.met_channels(level, role)
        return reduce.strongest(level.tensor, min(self.view.grid, level.channels))

    def met_channels(self, level: FeatureMap, role: str) -> tuple[int, ...]:
        """The channels of a map that became the fused channels shown: the same, but where maps were stacked."""
        x, y = self.study.result.aligned
        fused = self.study.result.fused
        mixed = any(s.op == "project" and s.tensor is fused.tensor for s in self.study.result.trace)
        stacked = fused.channels == x.channels + y.channels
        start = x.channels if stacked and role == "high" else 0
        # Behind a 1x1 convolution no fused channel is one of theirs.
        found = () if mixed else tuple(c - start for c in self.channels if 0 <= c - start < level.channels)
        return found or reduce.strongest(level.tensor, min(self.view.grid, level.channels))

    def views_of(
        self, level: FeatureMap, key: str, channels: tuple[int, ...], was: FeatureMap | None = None
    ) -> list[PanelView]:
        """The channel grid under `key`, and before it the reduced picture if one is asked for."""
        shape = level.shape_text if was is None else f"{was.shape_text} → {level.shape_text}"
        shape = self.say("panel.shape", shape=shape, stride=_stride(level.stride))
        place = {"shape": shape, "stride": level.stride, "offset": level.offset}
        grid = self.grid(level.tensor, key, channels, place)
        if self.view.show == "grid":
            return [grid]
        return [self.reduced(level.tensor, key, place), grid]

    def grid(self, tensor: Tensor, key: str, channels: tuple[int, ...], place: dict) -> PanelView:
        label = _pyramid_level(key) or self.say(f"view.{key}" if key in ("own", "aligned") else "view.channels")
        if tensor.is_complex() and self.view.part == "domain":
            maps = tuple(Map(reduce.domain_rgb(tensor[0, c]), str(c), c) for c in channels)
            return PanelView(key, label, scale="rgb", maps=maps, note=self.say("view.domain_note"), **place)
        values = reduce.channels(reduce.part(tensor, self.view.part), channels)
        maps = tuple(Map(v, str(c), c) for v, c in zip(values, channels, strict=True))
        scale = "phase" if tensor.is_complex() and self.view.part == "arg" else self.scale(values)
        return PanelView(key, label, scale=scale, maps=maps, **place)

    def reduced(self, tensor: Tensor, key: str, place: dict) -> PanelView:
        how = self.view.show
        phase = tensor.is_complex() and self.view.part == "arg" and how in ("mean", "max")
        # Neither colours nor angles have a length or components of their own: those of |z| stand there.
        part = "abs" if self.view.part in ("domain", "arg") else self.view.part
        real = reduce.part(tensor, part)
        label = self.say(f"show.{how}")
        of = self.say("view.aligned") if key == "aligned" else _pyramid_level(key)
        label = f"{of} · {label}" if of else label  # else two views of one panel would have one name
        if how == "pca":
            return PanelView(f"{key}-pca", label, scale="rgb", maps=(Map(reduce.pca_rgb(real), label),), **place)
        values = reduce.reduced_phase(tensor, how) if phase else reduce.reduced(real, how)
        scale = "phase" if phase else self.scale(values)
        return PanelView(f"{key}-{how}", label, scale=scale, maps=(Map(values, label),), **place)

    @staticmethod
    def scale(values) -> str:  # noqa: ANN001 - numpy, which this room need not import
        return "signed" if values.size and values.min() < 0 else "sequential"

    def attention_views(self, a: AttentionMap, *, first: bool) -> list[PanelView]:
        chooses = a.of in ("low", "high") and a.sums == "with_high"
        scale = "weight" if chooses else "gate"
        value = a.tensor
        note = self.note(a)
        prefix = "" if first else f"{a.name}-"
        name = "" if first else self.title(a) + " · "
        place = {"stride": a.stride or (1.0, 1.0), "offset": a.offset or (0.5, 0.5)}
        shape = shape_text(tuple(value.shape[1:]))
        if a.grain == "branch":
            names = ("low", "high") if value.shape[1] == 2 else tuple(str(i) for i in range(value.shape[1]))
            bars = tuple(Bar(self.branch(n), float(v)) for n, v in zip(names, value[0].flatten().tolist(), strict=True))
            return [
                PanelView(
                    prefix + "branches", name + self.say("view.branches"), shape, "numbers", scale, bars=bars, note=note
                )
            ]
        if a.grain == "place":
            maps = (Map(reduce.array(value[0, 0])),)
            return [
                PanelView(
                    prefix + "place", name + self.say("view.place"), shape, "maps", scale, maps=maps,
                    over_picture=True, note=note, **place,
                )
            ]  # fmt: skip
        if a.grain == "channel":
            return [self.bars(prefix, name, shape, scale, value[0].flatten(), note)]
        return [
            PanelView(
                prefix + "place", name + self.say("view.mean_place"), shape, "maps", scale,
                maps=(Map(reduce.array(value[0].mean(0)), self.say("show.mean")),), note=note, **place,
            ),
            PanelView(
                prefix + "channels", name + self.say("view.channels"), shape, "maps", scale,
                maps=tuple(
                    Map(v, str(c), c)
                    for v, c in zip(reduce.channels(value, self.channels), self.channels, strict=True)
                ),
                note=note, **place,
            ),
            self.bars(prefix, name, shape, scale, value[0].mean((1, 2)), note, "view.mean_bars"),
        ]  # fmt: skip

    def bars(
        self,
        prefix: str,
        name: str,
        shape: str,
        scale: str,
        per_channel: Tensor,
        note: str,
        label: str = "view.bars",
    ) -> PanelView:
        """All channels, heaviest first; pictures of the heaviest and the lightest stand beside them."""
        order = torch.argsort(per_channel, descending=True, stable=True).tolist()
        bars = tuple(Bar(str(c), float(per_channel[c]), c) for c in order)
        shown = min(len(order), max(self.view.grid, 16))  # as many rows as a tall panel has
        ends = order if len(order) <= shown else order[: (shown + 1) // 2] + order[len(order) - shown // 2 :]
        weighed = self.weighed()
        ends = [c for c in dict.fromkeys((*ends, *self.channels)) if c < weighed.shape[1]]
        maps = tuple(
            Map(v, str(c), c)
            for v, c in zip(reduce.channels(reduce.part(weighed, "abs"), tuple(ends)), ends, strict=True)
        )
        fused = self.study.result.fused
        return PanelView(
            prefix + "bars", name + self.say(label), shape, "bars", scale, fused.stride, fused.offset,
            maps, bars, note=note,
        )  # fmt: skip

    def weighed(self) -> Tensor:
        """The map whose channels a gate weighs: what was picked or added before it, else the fused map."""
        steps = {s.key: s.tensor for s in self.study.result.trace}
        for key in ("picked", "sum"):
            if key in steps:
                return steps[key]
        met = self.study.result.aligned
        on = dict(self.study.selection.params).get("on")
        if met and on in ("low", "high"):
            return met[0 if on == "low" else 1].tensor
        return self.study.result.fused.tensor

    def note(self, a: AttentionMap) -> str:
        value = a.tensor
        ends = {n: _number(float(getattr(value, f)())) for n, f in (("low", "min"), ("high", "max"), ("mean", "mean"))}
        if a.kind == "share":
            return self.say("panel.share_note", note=self.say("attention.note.share"), **ends)
        return self.say("panel.weight_note", sums=self.say(f"attention.sums.{a.sums}"), **ends)

    def branch(self, name: str) -> str:
        return self.say(f"roles.{name}") if name in ("low", "high") else name

    def badge(self, provenance: Provenance) -> Badge:
        kind = provenance.kind
        return Badge(kind, self.say(f"provenance.{kind}"), self.say(f"provenance.help.{kind}"))

    # --- the equation at one place -------------------------------------------------------------
    def arithmetic(self) -> Arithmetic | None:
        met = self.study.result.aligned
        if not self.spec.arithmetic or met is None or self.study.result.fused.tensor.is_complex():
            return None
        own = {r: met[i].tensor is getattr(self.study, r).tensor for i, r in enumerate(("low", "high"))}
        sources = {
            "x": ("low", "own" if own["low"] else "aligned"),
            "y": ("high", "own" if own["high"] else "aligned"),
            "z": ("fused", "fused"),
        }
        constants = {k: float(v) for k, v in self.study.selection.params if isinstance(v, (int, float))}
        weight = self.study.weight
        for name, a in self.study.result.attention.items():
            prefix = "" if a is weight else f"{name}-"
            if a.grain == "branch":
                constants[name] = float(a.tensor.flatten()[0])
            else:
                sources[name] = (
                    "weight",
                    prefix + {"element": "channels", "place": "place", "channel": "bars"}[a.grain],
                )
        used = {k: v for k, v in sources.items() if f"{{{k}}}" in self.spec.arithmetic}
        return Arithmetic(
            self.spec.arithmetic, used, {k: v for k, v in constants.items() if f"{{{k}}}" in self.spec.arithmetic}
        )


def _pyramid_level(key: str) -> str:
    """Return "P8" for the output "p8", else ""."""
    return key.upper() if key.startswith("p") and key[1:].isdigit() else ""


def _stride(stride: tuple[float, float]) -> str:
    y, x = (f"{s:g}" for s in stride)
    return y if y == x else f"{y} × {x}"


def _number(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")
