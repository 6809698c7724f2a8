"""A study -> the Board that browser, slide and tests share: which maps, under which title, on which scale."""

import math
import re
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from fusionviz import fusion, layouts, meetings, reduce, scales
from fusionviz.axes import shape_text
from fusionviz.board import Arithmetic, Badge, Bar, Board, BoardFrame, BoardSweep, Map, Panel, PanelView
from fusionviz.records import ANALYTIC, AttentionMap, FeatureMap, Provenance, RegionMaps, Tokens
from fusionviz.registry import METHODS
from fusionviz.selection import Selection, View
from fusionviz.study import Frame, StudyResult, Sweep, defaults, fits, level_names, levels
from fusionviz.texts import method_text, text

_MOST_EDGES = 3
"""Where more meet in one node, a graph is a thicket: maps and numbers say more."""


def build(study: StudyResult, view: View, language: str = "en") -> Board:
    """Return what the board shows of a study; of one with a slider, at `view.frame`, and every other position too."""
    if fusion.spec(study.selection.method).is_system:
        from fusionviz import system_panels  # it builds on this module

        return system_panels.build(study, view, language)
    board = Builder(study.at(None), view, language).board()
    if study.sweep is not None:
        board = _swept(study, board, view, language)
    return board.with_views(view.views)


def aligned_by_default(study: StudyResult) -> bool:
    """Say whether Low and High first appear as the method sees them: only where the alignment is not random."""
    return study.result.aligned is not None and study.result.provenance.kind not in ("analytic", "random")


def asks(study: StudyResult) -> bool:
    """Say whether a board depends on the pinned place: it shows the row of attention that the token there gets."""
    return any(a.grain == "pairs" for a in study.result.attention.values())


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
        boards.append(Builder(at, like_start, language).board())
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


_REGION_CELLS = 128
"""Cells a side at which regions are drawn into the picture: enough for 7 of them in a small box."""


def map_title(selection: Selection, name: str, language: str) -> str:
    """Return what a map of a site is called: "identity", "b2 · 3×3", "x0"; a level has its name."""
    way = next((v.way for v in levels(selection) if v.name == name), "")
    if name in ("identity", "residual"):
        return text(f"sites.{name}", language)
    how = text(f"sites.{way}", language) if way in ("pool", "same") else way.replace("x", "×")
    return " · ".join(filter(None, (name, how)))


def shown_channels(fused: FeatureMap, view: View) -> tuple[int, ...]:
    """Return the channels of the fused map that are shown: those chosen by hand, or the strongest."""
    count = min(view.grid, fused.channels)
    chosen = tuple(c for c in dict.fromkeys(view.channels) if c < fused.channels)
    shown = chosen or reduce.strongest(fused.tensor, count)
    pinned = view.pin_channel
    if pinned is not None and pinned < fused.channels and pinned not in shown:
        return (*shown[:-1], pinned)  # a pinned channel that would not be shown takes the place of the weakest
    return shown


class Builder:
    """Makes the board of a method, panel by panel."""

    def __init__(self, study: StudyResult, view: View, language: str) -> None:
        self.study, self.view, self.language = study, view, language
        self.spec = fusion.spec(study.selection.method)
        self.channels = shown_channels(study.result.fused, view)
        self.aligned = view.aligned if view.aligned is not None else aligned_by_default(study)
        chosen = study.selection
        names = level_names(chosen, study.pyramid) if self.spec.takes == "pyramid" else (chosen.low, chosen.high)
        self.levels = tuple(study.pyramid[name] for name in names)

    @cached_property
    def nodes(self) -> tuple[meetings.Node, ...]:
        """Where levels meet on their way through the method."""
        return meetings.graph(self.study.result.trace) if self.spec.takes == "pyramid" else ()

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
        for name, out in self.study.result.maps.items():
            if out.tensor is not fused.tensor:
                views += self.views_of(out, name, tuple(c for c in self.channels if c < out.channels))
        if self.spec.takes == "pyramid" or any(_pyramid_level(name) for name in self.study.result.outputs):
            views.append(self.pyramid())
        regions = [out for out in self.study.result.outputs.values() if isinstance(out, RegionMaps)]
        views += [self.regions(out) for out in regions if len(out.boxes)]
        title = self.say("panel.level", role=self.say("roles.fused"), letter="Z")
        return Panel("fused", "fused", title, tuple(views), 0, self.badge(self.study.provenance))

    def regions(self, out: RegionMaps) -> PanelView:
        """One map for each box, the mean over its channels, drawn where the box is."""
        sides = self.study.seen.shown.shape[:2]
        step = max(1.0, max(sides) / _REGION_CELLS)
        size = tuple(math.ceil(side / step) for side in sides)
        placed = reduce.in_place(reduce.array(out.tensor.mean(1)), reduce.array(out.boxes), size, step)
        names = [self.class_name(key) for key in out.labels] or [str(i + 1) for i in range(len(placed))]
        maps = tuple(Map(values, name) for values, name in zip(placed, names, strict=True))
        note = self.say("view.regions_note", cells=" × ".join(map(str, out.tensor.shape[-2:])))
        place = {"stride": (step, step), "offset": (step / 2, step / 2)}
        return PanelView(
            out.name, self.say("view.regions"), out.shape_text, scale="signed", maps=maps, note=note, **place
        )

    def class_name(self, key: str) -> str:
        return self.say(f"scenes.classes.{key}")

    def weight(self) -> Panel | None:
        study = self.study
        weight = study.weight
        if weight is None:
            return None
        rest = [a for a in study.result.attention.values() if a is not weight]
        views = self.attention_views(weight, first=True)
        for a in rest:
            own = {"title": self.title(a), "of": self.speaks_of(a)}
            views += [replace(v, **own) for v in self.attention_views(a, first=False)]
        if self.nodes and max(len(n.edges) for n in self.nodes) <= _MOST_EDGES:
            edges = weight.role.startswith("edges")  # the graph says it all at once: it comes first
            views = [self.graph(), *views] if edges else [*views, self.graph()]
        # Where the mean over channels is flat, the channels still differ: they come first.
        flat = views[0].key == "place" and len(views) > 1 and float(np.ptp(views[0].maps[0].values)) < 0.05
        badge = self.badge(ANALYTIC if self.by_hand(weight) else self.of_weight())
        return Panel("weight", "weight", self.title(weight), tuple(views), int(flat), badge, self.speaks_of(weight))

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

    def titled(self, weight: AttentionMap) -> str:
        """The words of a weight's title, in which {of} says whose it is and {output} where it goes."""
        several = weight.axes == "b n h w" and weight.tensor.shape[1] > 2  # of all levels, not of the first
        role = {"weight": "level_weights", "coarser_weight": "coarser_weights"}.get(weight.role) if several else None
        return text(f"attention.{role or weight.role}", self.language, of="{of}", output="{output}")

    def speaks_of(self, weight: AttentionMap) -> str:
        """The level that is named in a weight's title."""
        level = meetings.made_by(self.nodes, weight.tensor) is None and "{of}" in self.titled(weight)
        return weight.of if level and weight.of in ("low", "high") else ""

    def title(self, weight: AttentionMap) -> str:
        node = meetings.made_by(self.nodes, weight.tensor) if weight.grain == "branch" else None
        level = self.level_of(weight)
        if node is not None:
            of = self.node_title(node)
        elif weight.of in ("low", "high", "sum", "concat") or level is None:
            of = self.say(f"attention.of.{weight.of}")
        else:
            of = level.name
        return self.titled(weight).format(of=of, output=level and _named("P", level))

    def level_of(self, weight: AttentionMap) -> FeatureMap | None:
        """The level at whose places a weight of a pyramid lies: the number at the end of its name counts from 1."""
        number = re.search(r"(?:^|_)(\d+)$", weight.name)
        if self.spec.takes != "pyramid" or number is None or not 1 <= int(number[1]) <= len(self.levels):
            return None
        return self.levels[int(number[1]) - 1]

    def node_title(self, node: meetings.Node) -> str:
        key = "node_of_layer" if max(n.layer for n in self.nodes) > 1 else "node"
        way = self.say(f"ways.{node.way or 'across'}")
        return self.say(f"attention.of.{key}", node=self.node_name(node), way=way, layer=node.layer)

    def node_name(self, node: meetings.Node) -> str:
        return _named(node.letter, self.levels[node.level - 1])

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
        scale = "weight" if chooses else "signed" if a.kind == "affine" else "gate"
        value = a.tensor
        note = self.note(a)
        prefix = "" if first else _prefix(a)
        name = "" if first else self.title(a) + " · "
        place = {"stride": a.stride or (1.0, 1.0), "offset": a.offset or (0.5, 0.5)}
        shape = shape_text(tuple(value.shape[1:]))
        if a.grain == "branch":
            node = meetings.made_by(self.nodes, value)
            label = name + self.say("view.branches") if node is None else self.node_title(node)
            bars = self.branch_bars(a)
            return [PanelView(prefix + "branches", label, shape, "numbers", scale, bars=bars, note=note)]
        if a.grain == "pairs":
            return self.token_views(a, prefix, name)
        if a.axes == "b n h w" and value.shape[1] > 2:
            return self.level_views(a, prefix, name, place)
        if a.grain == "place":
            maps = (Map(reduce.array(value[0, 0])),)
            return [
                PanelView(
                    prefix + "place", name + self.say("view.place"), shape, "maps", scale, maps=maps,
                    over_picture=True, note=note, **place,
                )
            ]  # fmt: skip
        if a.axes == "b n c 1 1" and value.shape[1] > 2:
            return [
                self.bars(f"{prefix}{branch}-", f"{name}{branch} · ", shape, "gate", value[0, i].flatten(), note)
                for i, (branch, _) in enumerate(self.branches(value.shape[1]))
            ]
        if a.grain == "channel":
            first = value[0, 0] if a.axes == "b n c 1 1" else value[0]
            return [self.bars(prefix, name, shape, scale, first.flatten(), note)]
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
        law = "unbounded" if a.kind == "affine" else a.sums
        return self.say("panel.weight_note", sums=self.say(f"attention.sums.{law}"), **ends)

    def branches(self, count: int) -> tuple[tuple[str, tuple[int, int]], ...]:
        """What the branches of a weight are called, and their levels, fine to coarse."""
        if count == 2:
            names = (self.say("roles.low"), self.say("roles.high"))
        else:
            names = tuple(level.name for level in self.levels)
        if count != len(names):
            names = tuple(str(i + 1) for i in range(count))
        return tuple((name, (i, count)) for i, name in enumerate(names))

    def branch_bars(self, a: AttentionMap) -> tuple[Bar, ...]:
        """A number for each branch; those of a node have the names of the maps that it hears."""
        node, values = meetings.made_by(self.nodes, a.tensor), a.tensor[0].flatten().tolist()
        if node is None:
            named = self.branches(len(values))
        else:
            heard = [self.nodes[edge.start] for edge in node.edges]
            named = [(self.node_name(n), (n.level - 1, len(self.levels))) for n in heard]
        return tuple(Bar(label, value, level=level) for (label, level), value in zip(named, values, strict=True))

    # --- several levels ------------------------------------------------------------------------
    def level_views(self, a: AttentionMap, prefix: str, name: str, place: dict) -> list[PanelView]:
        """Who of three or more levels is believed where: their colours mixed, then each level's share."""
        values = reduce.array(a.tensor[0])  # [n h w]
        count = len(values)
        named = self.branches(count)
        maps = tuple(Map(v, label, level=level) for v, (label, level) in zip(values, named, strict=True))
        shape = shape_text(tuple(a.tensor.shape[1:]))
        mixed = Map(scales.mixture(values, scales.branch_colours(count)))
        notes = {"mix": self.say("view.mix_note" if count == 3 else "view.most_note"), "each": self.note(a)}
        return [
            PanelView(
                prefix + "mix", name + self.say("view.mix"), shape, "maps", "rgb", maps=(mixed,), shares=maps,
                over_picture=True, note=notes["mix"], **place,
            ),
            PanelView(
                prefix + "each", name + self.say("view.each"), shape, "maps", "gate", maps=maps,
                over_picture=True, note=notes["each"], **place,
            ),
        ]  # fmt: skip

    def pyramid(self) -> PanelView:
        """All levels of the backbone above all that come out, each as large as its cells are many."""
        outputs = self.study.result.outputs
        levels = [(_named("P", level), outputs.get(f"p{level.name[1:]}")) for level in self.levels]
        out = [(name, m, i) for i, (name, m) in enumerate(levels) if m is not None]
        if not out:
            fused = self.study.result.fused
            out = [("Z", fused, min(range(len(self.levels)), key=lambda i: self.levels[i].stride != fused.stride))]
        rows = [[(_named("C", level), level, i) for i, level in enumerate(self.levels)], out]
        sizes = [
            [self.say("panel.shape", shape=shape_text(m.size), stride=_stride(m.stride)) for _, m, _ in row]
            for row in rows
        ]
        return self.staircase("pyramid", self.say("view.pyramid"), rows, sizes, self.say("view.pyramid_note"))

    def staircase(
        self, key: str, label: str, rows: list[list[tuple[str, FeatureMap, int]]], sizes: list[list[str]], note: str
    ) -> PanelView:
        """Maps of several levels side by side, each as large as its cells are many: one row below the other.

        Args:
            rows: name, map, and position of its level.
            sizes: what the legend says of each map.
        """
        count = max(len(self.levels), *(len(row) for row in rows))
        boxes = layouts.staircase([[max(m.size) for _, m, _ in row] for row in rows])
        maps, labels = [], []
        for number, (row, told, found) in enumerate(zip(rows, sizes, boxes, strict=True)):
            drawn = [
                Map(reduce.rms(m.tensor), name, None, (i, count), m.stride, m.offset, box, number)
                for (name, m, i), box in zip(row, found, strict=True)
            ]
            maps += drawn
            labels += layouts.legend(drawn, told)
        shape = " → ".join("–".join(dict.fromkeys((row[0][0], row[-1][0]))) for row in rows)
        return PanelView(key, label, shape, scale="amount", maps=tuple(maps), note=note, labels=tuple(labels))

    def graph(self) -> PanelView:
        """Who hears whom, and how much it counts."""
        ways = meetings.columns(self.nodes)
        heads = {c: self.say("ways.backbone" if c == 0 else f"ways.{way or 'across'}") for c, way in ways.items()}
        names = [self.node_name(n) for n in self.nodes]
        nodes, edges, labels = layouts.graph(self.nodes, names, len(self.levels), heads)
        learned = all(n.weight is not None for n in self.nodes if n.edges)
        shape = self.say("view.graph_shape", nodes=len(nodes) - len(self.levels), edges=len(edges))
        note = self.say("view.graph_weights" if learned else "view.graph_shares")
        title = self.say("attention.edges" if learned else "attention.edge_shares")
        return PanelView(
            "graph", self.say("view.graph"), shape, "graph",
            note=note, nodes=nodes, edges=edges, labels=labels, title=title,
        )  # fmt: skip

    # --- attention between tokens --------------------------------------------------------------
    def token_views(self, a: AttentionMap, prefix: str, name: str) -> list[PanelView]:
        """The row of one query, that of the pinned place, over the picture: each head's, then their mean."""
        height, width = self.study.seen.shown.shape[:2]
        x, y = self.view.pin or (width // 2, height // 2)
        there = [i for i, block in enumerate(a.queries) if block.count > 1]  # a class token lies nowhere
        at = next((i for i in there if covers(a.queries[i], x, y)), there[0])
        asking, before = a.queries[at], sum(block.count for block in a.queries[:at])
        row, column = _cell(asking, x, y)
        rows = a.tensor[0, :, before + row * asking.size[1] + column].detach().float().cpu()  # [head k]
        asks = tuple(asking.offset[i] + asking.stride[i] * cell for i, cell in ((1, column), (0, row)))
        note = self.say(
            "view.rows_note" if self.view.pin else "view.rows_middle", x=x, y=y,
            of=self.say(f"attention.of.{asking.level}"), cell=f"({column}, {row})",
        )  # fmt: skip
        return self.row_views(a, rows, prefix, name, note, asks)

    def row_views(
        self,
        a: AttentionMap,
        rows: Tensor,
        prefix: str,
        name: str,
        note: str,
        asks: tuple[float, float] | None,
    ) -> list[PanelView]:
        """One row of attention [head k] over the blocks of tokens that are asked: each head's, then their mean."""
        blocks, start = [], 0
        for block in a.keys:
            if block.count > 1:
                blocks.append((block, rows[:, start : start + block.count].unflatten(1, block.size)))
            start += block.count
        several = len(a.keys) > 1
        views = {"rows": [], "mean": []}
        for i, (block, heads) in enumerate(blocks):
            parts = heads.sum((1, 2)).tolist()  # of the whole that a row shares out
            of = self.say(f"attention.of.{block.level}") + " · " if several else ""
            maps = tuple(
                Map(reduce.array(m), self.say("view.head_part", n=h + 1, part=f"{p:.2f}") if several
                    else self.say("view.head", n=h + 1))
                for h, (m, p) in enumerate(zip(heads, parts, strict=True))
            )  # fmt: skip
            mean = self.say("view.mean_part", part=f"{sum(parts) / len(parts):.2f}") if several else ""
            both = {"rows": maps, "mean": (Map(reduce.array(heads.mean(0)), mean),)}
            shape = self.say(
                "panel.shape", shape=f"{len(parts)} × {shape_text(block.size)}", stride=_stride(block.stride)
            )
            for kind, found in both.items():
                key = f"{prefix}{kind}" + (f"-{block.level}" if i else "")
                views[kind].append(
                    PanelView(
                        key, f"{name}{of}{self.say(f'view.head_{kind}')}", shape, "maps", "amount", block.stride,
                        block.offset, found, over_picture=True, note=note, asks=asks,
                    )
                )  # fmt: skip
        return views["rows"] + views["mean"]

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
            prefix = "" if a is weight else _prefix(a)
            if a.grain == "branch":
                constants[name] = float(a.tensor.flatten()[0])
            elif a.grain in ("element", "place", "channel"):
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


def _prefix(a: AttentionMap) -> str:
    """What keys of its views begin with; links take no underscores."""
    return a.name.replace("_", "-") + "-"


def _named(letter: str, level: FeatureMap) -> str:
    """Return "C8" for the level "s8", "T3" for a node at the level "d3"."""
    return letter + level.name[1:]


def covers(block: Tokens, x: int, y: int) -> bool:
    """Say whether a pixel lies in a block of tokens."""
    found = zip((y, x), block.offset, block.stride, block.size, strict=True)
    return all(o - s / 2 <= p + 0.5 < o + s * (n - 0.5) for p, o, s, n in found)


def _cell(block: Tokens, x: int, y: int) -> tuple[int, int]:
    """Return (row, column) of the token whose centre is nearest to that of a pixel."""
    found = zip((y, x), block.offset, block.stride, block.size, strict=True)
    return tuple(min(max(math.floor((p + 0.5 - o) / s + 0.5), 0), n - 1) for p, o, s, n in found)


def _stride(stride: tuple[float, float]) -> str:
    y, x = (f"{s:g}" for s in stride)
    return y if y == x else f"{y} × {x}"


def _number(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")
