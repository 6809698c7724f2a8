"""A study of a whole system -> its Board: boxes by level, the path of glimpses, a look for each word, an answer.

A system has no pair of maps that become one, so each kind says for itself what stands in the five places: the picture,
what it is given (low, high), what it weighs, and what comes out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch

from fusionviz import fusion, reduce, scales
from fusionviz.axes import shape_text
from fusionviz.board import Badge, Bar, Board, Map, Mark, Panel, PanelView
from fusionviz.panels import Builder, covers, shown_channels
from fusionviz.records import (
    ANALYTIC,
    AttentionMap,
    ClassMap,
    Detections,
    FeatureMap,
    GlimpsePath,
    Logits,
    RegionMaps,
    Words,
)
from fusionviz.scenes import phrase_text
from fusionviz.selection import View
from fusionviz.study import StudyResult, takes_levels
from fusionviz.texts import method_text, text

_MOST_KINDS = 5
_DIGITS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def build(study: StudyResult, view: View, language: str = "en") -> Board:
    """Return what the board shows of a study of a system."""
    outputs = study.result.outputs.values()
    kinds = {Detections: _Found, GlimpsePath: _Looked, Words: _Told, ClassMap: _Segmented}
    plain = _Asked if fusion.spec(study.selection.method).takes == "image+text" else _Classified
    builder = next((kinds[type(out)] for out in outputs if type(out) in kinds), plain)
    return builder(study, view, language).board().with_views(view.views)


def class_name(key: str, language: str = "en") -> str:
    """Return what a class is called: a kind of thing in scenes in the language, what others name as they name it."""
    try:
        return text(f"scenes.classes.{key}", language)
    except LookupError:
        return key


def sentence(words: Iterable[str], language: str = "en") -> str:
    """Return what was said of a scene, colour and kind by turns, as people write it: "red ring, blue tree"."""
    words = list(words)
    pairs = [phrase_text(" ".join(words[i : i + 2]), language) for i in range(0, len(words), 2)]
    return text("systems.between_things", language).join(pairs)


class _System(Builder):
    def __init__(self, study: StudyResult, view: View, language: str) -> None:
        self.study, self.view, self.language = study, view, language
        self.spec = fusion.spec(study.selection.method)
        self.aligned = bool(view.aligned)
        self.levels = tuple(study.pyramid[name] for name in takes_levels(study.selection))
        fused = study.result.outputs.get("fused")
        self.channels = shown_channels(fused, view) if isinstance(fused, FeatureMap) else ()

    def class_name(self, key: str) -> str:
        return class_name(key, self.language)

    def board(self) -> Board:
        panels = [self.picture(), *self.given(), self.weight(), self.out()]
        chosen, study = self.study.selection, self.study
        from_levels = f"{chosen.backbone} · {chosen.low}–{chosen.high}" if len(study.pyramid) else ""
        said = self.badge(study.provenance).text
        caption = " · ".join(filter(None, (from_levels, method_text(self.spec.key, "short", self.language), said)))
        size = tuple(study.seen.shown.shape[:2])
        shown = tuple(p for p in panels if p is not None)
        return Board(size, shown, self.channels, None, caption, study.picture.credit)

    def given(self) -> list[Panel]:
        """The levels that it takes, in one panel: all at once, then the channels of each."""
        if not self.levels:
            return self.own_levels()
        names = [f"C{i}".translate(_DIGITS) for i in range(1, len(self.levels) + 1)]
        views = [self.side_by_side(list(zip(names, self.levels, strict=True)), "view.levels_note")]
        for name, level in zip(names, self.levels, strict=True):
            channels = reduce.strongest(level.tensor, min(self.view.grid, level.channels))
            found = self.views_of(level, level.name, channels)
            views += [replace(v, label=name if v is found[-1] else f"{name} · {v.label}") for v in found]
        return [Panel("low", "low", self.say("systems.levels_given"), tuple(views), 0, self.backbone_badge())]

    def own_levels(self) -> list[Panel]:
        """The maps that meet in a network in the wild: its low and its high one, or the one that a block is given."""
        badge, panels = self.badge(self.study.provenance), []
        for role, names in (("low", ("low", "before")), ("high", ("high",))):
            name = next((n for n in names if n in self.study.result.outputs), None)
            if name is not None:
                views = self.output_views(name)
                title = self.say(f"systems.given_{name}")
                panels.append(Panel(role, role, title, tuple(views), 0, badge))
        return panels

    def output_views(self, name: str) -> list[PanelView]:
        out = self.study.result.outputs[name]
        return self.views_of(out, "own", reduce.strongest(out.tensor, min(self.view.grid, out.channels)))

    def backbone_badge(self) -> Badge:
        return self.badge(self.study.pyramid.provenance)

    def side_by_side(self, named: list[tuple[str, FeatureMap]], note: str) -> PanelView:
        """All levels at once, each as large as its cells are many."""
        row = [(name, m, i) for i, (name, m) in enumerate(named)]
        sizes = [m.shape_text for _, m in named]  # short, so that it stays legible
        return self.staircase("levels", self.say("view.levels"), [row], [sizes], self.say(note))

    def weight(self) -> Panel | None:
        weight = self.study.weight
        if weight is None:
            return None
        views = self.attention_views(weight, first=True)
        for more in [a for a in self.study.result.attention.values() if a is not weight]:
            views += self.attention_views(more, first=False)
        return Panel("weight", "weight", self.title(weight), tuple(views), 0, self.badge(self.study.provenance))

    def out(self) -> Panel:
        raise NotImplementedError

    def over_seen(self, key: str, label: str, marks: Iterable[Mark], note: str = "") -> PanelView:
        """The picture with something drawn over it."""
        shown = self.study.seen.shown
        shape = shape_text((shown.shape[2], *shown.shape[:2]))
        return PanelView(key, label, shape, scale="rgb", maps=(Map(shown),), marks=tuple(marks), note=note)

    def fused_views(self) -> list[PanelView]:
        fused = self.study.result.outputs.get("fused")
        if not isinstance(fused, FeatureMap):
            return []
        return self.views_of(fused, "fused", self.channels)


# --- detectors -------------------------------------------------------------------------------------
class _Found(_System):
    """Boxes, each in the colour of the level that claimed it."""

    @property
    def found(self) -> Detections:
        return next(o for o in self.study.result.outputs.values() if isinstance(o, Detections))

    def picture(self) -> Panel:
        panel = super().picture()
        if self.study.truth is None:
            return panel
        boxes, labels = self.study.truth
        marks = [Mark(_box(b), class_name(k, self.language)) for b, k in zip(boxes.tolist(), labels, strict=True)]
        truth = self.over_seen("truth", self.say("view.truth"), marks, self.say("view.truth_note", count=len(marks)))
        return Panel(panel.id, panel.role, panel.title, (*panel.views, truth))

    def weight(self) -> Panel | None:
        """How sure each level is that anything is at each of its places."""
        found = self.found
        maps = []
        for i, name in enumerate(found.levels):
            sure = self.study.result.outputs.get(f"o{name[1:]}")
            if sure is not None:
                level = (i, len(found.levels))
                maps.append(
                    Map(reduce.array(sure.tensor[0, 0]), name, level=level, stride=sure.stride, offset=sure.offset)
                )
        if not maps:
            return None
        shape = " · ".join(shape_text(m.values.shape) for m in maps)
        note = self.say("view.objectness_note")
        view = PanelView(
            "levels", self.say("view.each"), shape, scale="gate", maps=tuple(maps), over_picture=True, note=note
        )
        badge = self.badge(self.study.provenance)
        return Panel("weight", "weight", self.say("systems.objectness"), (view,), 0, badge)

    def own_levels(self) -> list[Panel]:
        """The levels on which a network in the wild predicts, above the two ends of its body."""
        there = [(n.upper(), o) for n in self.found.levels if (o := self.study.result.outputs.get(n)) is not None]
        views = [self.side_by_side(there, "view.predicts_note")]
        for name in ("low", "high"):
            if name in self.study.result.outputs:
                views.append(replace(self.output_views(name)[-1], key=name, label=self.say(f"systems.given_{name}")))
        badge = self.badge(self.study.provenance)
        return [Panel("low", "low", self.say("systems.levels_predicting"), tuple(views), 0, badge)]

    def out(self) -> Panel:
        found = self.found
        marks = list(detection_marks(found, self.language))
        count = {name: int((found.level == i).sum()) for i, name in enumerate(found.levels)}
        parts = " · ".join(f"{name}: {n}" for name, n in count.items())
        note = self.say("view.detections_note", count=len(found), levels=parts)
        views = [self.over_seen("boxes", self.say("view.detections"), marks, note), *self.fused_views()]
        masks = self.study.result.outputs.get("masks")
        if isinstance(masks, RegionMaps) and len(masks.boxes):
            views.append(replace(self.regions(masks), key="masks", label=self.say("view.masks"), note=""))
        title = self.say("systems.detections")
        return Panel("fused", "fused", title, tuple(views), 0, self.badge(self.study.provenance))


def _box(values: Iterable[float]) -> tuple[float, float, float, float]:
    return tuple(round(float(v), 2) for v in values)


def detection_marks(found: Detections, language: str = "en") -> Iterable[Mark]:
    """Yield a mark for each detection, in the colour of its level; the surest first, as the first lies on top."""
    rows = zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), found.level.tolist(), strict=True)
    for box, score, label, level in rows:
        name = class_name(found.classes[label], language)
        yield Mark(_box(box), f"{name} {score:.2f}", (level, len(found.levels)))


# --- classes ---------------------------------------------------------------------------------------
_MOST_CLASSES = 5


class _Segmented(_System):
    """The class of every place, in colours; the channels of the fused map are one score for each class."""

    def weight(self) -> Panel | None:
        panel, share = super().weight(), self.study.result.share_of_low()
        if panel is None or share is None:
            return panel
        more = [replace(v, title=self.title(share), of="low") for v in self.attention_views(share, first=False)]
        return replace(panel, views=(*panel.views, *more))

    def out(self) -> Panel:
        told = next(o for o in self.study.result.outputs.values() if isinstance(o, ClassMap))
        said = told.tensor.cpu().numpy()
        counts = np.bincount(said.flatten(), minlength=len(told.classes))
        order = [i for i in counts.argsort(kind="stable")[::-1].tolist() if counts[i]]
        colours = scales.class_colours(len(told.classes))
        names = ", ".join(
            f"{class_name(told.classes[i], self.language)} {counts[i] / said.size:.0%}" for i in order[:_MOST_CLASSES]
        )
        view = PanelView(
            "classes", self.say("view.classes"), shape_text(said.shape), scale="rgb", maps=(Map(colours[said]),),
            stride=told.stride, offset=told.offset, note=self.say("view.classes_note", classes=names),
        )  # fmt: skip
        branches = [n for n in self.study.result.outputs if n.startswith("branch_")]
        more = []
        for n in branches:
            label = self.say("view.branch", n=n.rpartition("_")[2])
            more += [replace(v, key=n.replace("_", "-"), label=label) for v in self.output_views(n)[-1:]]
        title = self.say("systems.classes")
        views = (view, *self.fused_views(), *more)
        return Panel("fused", "fused", title, views, 0, self.badge(self.study.provenance))


class _Classified(_System):
    """What a block in the wild makes of a map, and what the whole network says in the end."""

    def weight(self) -> Panel | None:
        if self.study.weight is not None and self.study.weight.grain == "pairs":
            asked = self.asked()
            badge = self.badge(self.study.provenance)
            return Panel(
                "weight", "weight", self.title(asked), tuple(self.attention_views(asked, first=True)), 0, badge
            )
        panel = super().weight()
        if panel is None or self.study.weight.grain != "channel":
            return panel
        # One gate for each block: the chosen one's bars, then those of all others under their numbers.
        views = tuple(replace(v, label=_block(v.key, v.label)) for v in panel.views)
        return replace(panel, views=views)

    def asked(self) -> AttentionMap:
        """The attention in which the pinned place asks: of windows, the one that it lies in."""
        maps = tuple(self.study.result.attention.values())
        if self.view.pin is None:
            return maps[0]
        inside = (a for a in maps if any(b.count > 1 and covers(b, *self.view.pin) for b in a.queries))
        return next(inside, maps[0])

    def token_views(self, a: AttentionMap, prefix: str, name: str) -> list[PanelView]:
        """The row of the place that is asked, and that of a class token, if there is one."""
        views = super().token_views(a, prefix, name)
        if a.queries[0].count == 1:
            row, note = a.tensor[0, :, 0].detach().float().cpu(), self.say("view.class_token_note")
            label = self.say("view.class_token") + " · "
            views += self.row_views(a, row, f"{prefix}class-", label, note, None)
        return views

    def out(self) -> Panel:
        views = self.fused_views()
        logits = next((o for o in self.study.result.outputs.values() if isinstance(o, Logits)), None)
        if logits is not None:
            chances = logits.values.float().softmax(0)
            best = torch.argsort(chances, descending=True, stable=True)[:_MOST_KINDS].tolist()
            names = [class_name(logits.classes[i], self.language) for i in best]
            bars = tuple(Bar(n, float(chances[i]), level=(0, 1)) for n, i in zip(names, best, strict=True))
            shape = shape_text(tuple(logits.values.shape))
            views.append(PanelView("answer", self.say("view.answer"), shape, "numbers", "gate", bars=bars))
        title = self.say("panel.level", role=self.say("roles.fused"), letter="Z")
        return Panel("fused", "fused", title, tuple(views), 0, self.badge(self.study.provenance))


def _block(key: str, label: str) -> str:
    number = key.removeprefix("gate-").partition("-")[0]
    return number if number.isdigit() else label


# --- glimpses --------------------------------------------------------------------------------------
class _Looked(_System):
    """Where a network looked, what it saw there, and what it thought."""

    @property
    def path(self) -> GlimpsePath:
        return next(o for o in self.study.result.outputs.values() if isinstance(o, GlimpsePath))

    def given(self) -> list[Panel]:
        """The windows of every glimpse, one column each."""
        path = self.path
        patches = reduce.array(path.patches)  # [t k c g g]
        count, windows = patches.shape[:2]
        side = 1 / max(count, windows, 3)
        left, top = (1 - side * count) / 2, (1 - side * windows) / 2
        maps = tuple(
            Map(
                (np.moveaxis(patches[t, k], 0, -1).clip(0, 1) * 255).round().astype(np.uint8),
                str(t + 1) if k == 0 else "",
                box=(left + side * t, top + side * k, side * 0.96),
            )
            for t in range(count)
            for k in range(windows)
        )
        cells = tuple(side / patches.shape[-1] for side in self.study.seen.shown.shape[:2])  # each fills its square
        sides = " · ".join(f"{s:g} px" for s in path.sides)
        view = PanelView(
            "windows", self.say("view.windows"), shape_text(patches.shape), scale="rgb", maps=maps,
            note=self.say("view.windows_note", sides=sides), placed=False, stride=cells,
            offset=tuple(c / 2 for c in cells),
        )  # fmt: skip
        return [Panel("low", "weight", self.say("systems.glimpses"), (view,), 0)]

    def weight(self) -> Panel:
        path, half = self.path, self.path.sides[0] / 2
        places = path.places.tolist()
        windows = [Mark(_box((x - half, y - half, x + half, y + half)), faint=True) for y, x in places]
        dots = [Mark(_box((x, y, x, y)), str(t), follows=t > 1) for t, (y, x) in enumerate(places, start=1)]
        note = self.say("view.path_note", side=f"{path.sides[0]:g}")
        view = self.over_seen("path", self.say("view.path"), windows + dots, note)
        badge = self.badge(self.study.provenance)
        return Panel("weight", "weight", self.say("systems.path"), (view,), 0, badge)

    def out(self) -> Panel:
        path = self.path
        last = path.scores[-1]
        best = torch.argsort(last, descending=True, stable=True)[:_MOST_KINDS].tolist()
        names = [class_name(key, self.language) for key in path.classes]
        kinds = tuple(Bar(names[i], float(last[i]), level=(0, 1)) for i in best)
        thought = zip(path.scores.argmax(1).tolist(), path.scores[:, best[0]].tolist(), strict=True)
        steps = tuple(Bar(f"{t} · {names[i]}", p, level=(0, 1)) for t, (i, p) in enumerate(thought, start=1))
        note = self.say("view.answer_note", count=len(path), kind=names[best[0]])
        if self.study.truth is not None and len(self.study.truth[1]) > 1:
            note = self.say("view.one_thing_note")
        shape = shape_text(tuple(path.scores.shape))
        views = (
            PanelView("answer", self.say("view.answer"), shape, "numbers", "gate", bars=kinds, note=note),
            PanelView("steps", self.say("view.steps"), shape, "numbers", "gate", bars=steps,
                      note=self.say("view.steps_note", kind=names[best[0]])),
        )  # fmt: skip
        badge = self.badge(self.study.provenance)
        return Panel("fused", "fused", self.say("systems.answer"), views, 0, badge)


# --- words -----------------------------------------------------------------------------------------
class _Told(_System):
    """A look at the picture for every word."""

    @property
    def told(self) -> Words:
        return next(o for o in self.study.result.outputs.values() if isinstance(o, Words))

    def weight(self) -> Panel | None:
        told, weight = self.told, self.study.weight
        if weight is None or not told.words:
            return None
        maps = tuple(
            Map(reduce.array(m), f"{phrase_text(word, self.language)} {p:.2f}")
            for m, word, p in zip(weight.tensor[0], told.words, told.probabilities.tolist(), strict=True)
        )
        marks = ()
        if told.places is not None:
            places = enumerate(told.places.tolist())
            marks = tuple(Mark(_box((x, y, x, y)), on=i) for i, (y, x) in places)
        note = self.note(weight)
        shape = shape_text(tuple(weight.tensor.shape[1:]))
        place = {"stride": weight.stride, "offset": weight.offset}
        label = self.say("view.words")
        each = PanelView(
            "words", label, shape, scale="amount", maps=maps, over_picture=True, note=note, marks=marks, **place
        )
        mean = Map(reduce.array(weight.tensor[0].mean(0)), self.say("show.mean"))
        seen = PanelView(
            "all-words", self.say("view.all_words"), shape, scale="amount", maps=(mean,), over_picture=True,
            note=self.say("view.all_words_note"), **place,
        )  # fmt: skip
        badge = self.badge(self.study.provenance)
        return Panel("weight", "weight", self.say("systems.looks"), (each, seen), 0, badge)

    def out(self) -> Panel:
        title = self.say("systems.annotations")
        return Panel("fused", "fused", title, tuple(self.fused_views()), 0, self.badge(self.study.provenance))


# --- a phrase, and whatever else there is ------------------------------------------------------------
class _Asked(_System):
    """The places that a phrase means."""

    def given(self) -> list[Panel]:
        panels = super().given()
        met = self.study.result.aligned
        if met is not None:
            title = self.say("systems.phrase_map")
            views = self.views_of(met[1], "own", tuple(c for c in self.channels if c < met[1].channels))
            panels.append(Panel("high", "high", title, tuple(views), 0, self.badge(self.study.provenance)))
        return panels

    def attention_views(self, a: AttentionMap, *, first: bool) -> list[PanelView]:
        own = {"title": self.title(a)}
        return [replace(v, **own) for v in super().attention_views(a, first=first)]

    def out(self) -> Panel:
        views, answer = [], self.study.result.outputs.get("answer")
        if isinstance(answer, FeatureMap):
            values = reduce.array(answer.tensor[0, 0])
            phrase = self.study.selection.phrase or ""
            note = self.say("view.lit_note", phrase=phrase_text(phrase, self.language))
            shape = self.say("panel.shape", shape=answer.shape_text, stride=f"{answer.stride[0]:g}")
            views.append(
                PanelView(
                    "answer",
                    self.say("view.lit"),
                    shape,
                    scale="gate",
                    maps=(Map(values),),
                    over_picture=True,
                    stride=answer.stride,
                    offset=answer.offset,
                    note=note,
                )  # fmt: skip
            )
        views += self.fused_views()
        badge = self.badge(self.study.provenance | ANALYTIC)
        return Panel("fused", "fused", self.say("systems.answer"), tuple(views), 0, badge)
