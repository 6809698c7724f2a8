"""What a system reached on scenes that nobody had seen, beside the others of its kind, on the same picture.

Everything here stands under the board and is computed after it: the other systems' studies are cached like its own.
"""

import base64
import html
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import streamlit as st
from PIL import Image

from fusionviz import fusion, measured, reduce, scenes, study, system_panels
from fusionviz.board import Mark
from fusionviz.errors import FusionvizError
from fusionviz.leaderboard import Figure
from fusionviz.leaderboard.sentences import count
from fusionviz.pack import SystemCard
from fusionviz.records import Detections, FeatureMap, Words
from fusionviz.scales import ROLE_COLOURS, branch_colours, ink_on
from fusionviz.scenes import phrase_text
from fusionviz.scenes.colours import COLOURS
from fusionviz.selection import Selection, View
from fusionviz.study import StudyResult
from fusionviz.ui import cache, notices, words
from fusionviz.ui.components import leaderboard
from fusionviz.ui.components.leaderboard import Axis
from fusionviz.ui.words import of_method, say

STYLE = (Path(__file__).parent / "measured.css").read_text("utf-8")
DETECTORS = ("ssd", "mscnn", "fpn_detector")
GLIMPSES = ("ram", "dram")
ASKED = ("phrase_concat", "film", "gmu", "phrase_product")
"""From early to late."""
SIZES = ("small", "medium", "large")
_DIM = 0.22
"""How much of a picture is left where nothing is lit up."""
_LETTER, _WIDE_LETTER, _WORD_HIGH = 2.1, 3.7, 5.0
"""Sizes of words on boxes, in percent of a picture as wide as a column usually is."""


def show(found: StudyResult) -> None:
    """Show what was measured for the kind of system that is on the board; nothing where that is told elsewhere."""
    tell = _KINDS.get(fusion.spec(found.selection.method).family)
    if tell is None:
        return
    ground = "#0f1318" if words.is_dark() else "#ffffff"
    st.html(f"<style>:root {{ --lb-ground: {ground}; }}\n{leaderboard.STYLE}\n{STYLE}</style>")
    with st.container(key="measured", gap="small"):
        tell(found)


# --- the others of its kind ------------------------------------------------------------------------
def _as(found: StudyResult, key: str, **knobs: object) -> Selection:
    """Return the selection of another system on the same picture, with the knobs that all of `found`'s row have."""
    chosen = found.selection
    return chosen.with_(method=key, params=tuple(sorted(knobs.items())), view=View())


def _row(found: StudyResult, keys: Iterable[str]) -> Iterator[tuple[str, StudyResult | FusionvizError]]:
    """Yield each system's study of the picture on the board, or what keeps it from running."""
    keys = tuple(keys)
    shared = set.intersection(*({p.key for p in fusion.spec(key).params} for key in keys))
    knobs = {k: v for k, v in found.selection.params if k in shared}
    for key in keys:
        if key == found.selection.method:
            yield key, found
            continue
        try:
            yield key, cache.result(_as(found, key, **knobs), found.picture, st.session_state.device)
        except FusionvizError as mistake:
            yield key, mistake


def _card(found: StudyResult, key: str, **knobs: object) -> SystemCard | None:
    """Return another system's card; a damaged one is answered on the page, and is as good as none."""
    try:
        return study.trained(study.resolve(_as(found, key, **knobs)))
    except FusionvizError as mistake:
        notices.mistake(mistake)
        return None


# --- pieces ----------------------------------------------------------------------------------------
def _safe(key: str, **values: object) -> str:
    return html.escape(say(key, **values))


def _title(key: str, **values: object) -> str:
    return f'<h3 class="ms-title">{_safe(f"{key}.title")}</h3><p class="ms-about">{_safe(f"{key}.about", **values)}</p>'


def _missing(names: Sequence[str]) -> None:
    if names:
        st.markdown(say("measured.missing", systems=say("systems.between_things").join(names)))


def _made(cards: Sequence[SystemCard], *, compared: bool = True) -> str:
    """Say on how many scenes cards were measured, how often they were trained, and, if `compared`, what noise is."""
    seeds = sorted({card.seeds for card in cards})
    several = [n for n in seeds if n > 1] or [1]
    many = "–".join(map(str, dict.fromkeys((several[0], several[-1]))))
    kind = "seeds_one" if seeds[-1] < 2 else "seeds_mixed" if seeds[0] < 2 else "seeds"
    tests = sorted({int(n) for card in cards if isinstance(n := card.made.get("test_scenes"), int)})
    shown = "–".join(f"{n:,}" for n in dict.fromkeys((tests[0], tests[-1]))) if tests else "?"
    made = say("measured.made", scenes=shown, seeds=say(f"measured.{kind}", seeds=many))
    return _prose(made, say("measured.noise")) if compared and kind != "seeds_one" else made


def _number(figure: Figure | None) -> str:
    if figure is None:
        return "–"
    number, _, spread = figure.text().partition(" ")
    return f"{number} <i>{spread}</i>" if spread else number


def _png(pixels: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _figure(name: str, how: str, inside: str, told: str, found: StudyResult, *, chosen: bool) -> str:
    """Return a picture with what stands over and under it; numbers drawn at random are said to be."""
    kind = found.provenance.kind
    random = f'<em title="{_safe(f"provenance.help.{kind}")}">{_safe(f"provenance.{kind}")}</em>'
    random = random if kind == "random" else ""
    return (
        f'<figure class="ms-figure{" chosen" * chosen}"><figcaption><b>{html.escape(name)}</b>'
        f"<span>{html.escape(how)}</span>{random}</figcaption>"
        f'<div class="ms-picture">{inside}</div><p>{html.escape(told)}</p></figure>'
    )


@dataclass(frozen=True)
class _Line:
    """A row of a table: what it is called, what stands behind the name, its card."""

    name: str
    how: str
    card: SystemCard
    chosen: bool


def _table(
    lines: Sequence[_Line], groups: Sequence[tuple[str, Sequence[tuple[str, str]]]], plot: str, plotted: str
) -> str:
    """Return a table of cards, one figure of which is drawn as well, with its spread.

    Args:
        groups: titles over several columns, and under each the (title, name of the figure) of its columns.
        plot, plotted: name and title of the figure that is drawn.
    """
    drawn = [measured.figure(line.card, plot) for line in lines]
    ends = [f.mean + side * (f.sd or 0) for f in drawn if f is not None for side in (-1, 1)]
    axis = Axis(ends, 130) if ends else None
    over = '<th class="name"></th>' + (f'<th class="plotted">{html.escape(plotted)}</th>' if axis else "")
    heads = f'<th class="name">{_safe("measured.system")}</th>'
    heads += f'<th class="plot">{axis.head()}</th>' if axis else ""
    for title, columns in groups:
        over += f'<th class="over" colspan="{len(columns)}">{html.escape(title)}</th>'
        heads += "".join(f"<th{' class=begins' * (i == 0)}>{html.escape(t)}</th>" for i, (t, _) in enumerate(columns))
    rows = []
    for line, mark in zip(lines, drawn, strict=True):
        role = "fused" if line.chosen else "ink"
        cells = f'<td class="plot">{axis.cell(axis.mark(mark, role) if mark else "")}</td>' if axis else ""
        for _, columns in groups:
            figures = (_number(measured.figure(line.card, name)) for _, name in columns)
            cells += "".join(f"<td{' class=begins' * (i == 0)}>{f}</td>" for i, f in enumerate(figures))
        name = f"{html.escape(line.name)} <i>{html.escape(line.how)}</i>"
        rows.append(
            f'<tr class="{"chosen" * line.chosen}"><td class="name">{name}</td>{cells}'
            f'<td class="cost">{count(line.card.parameters)}</td></tr>'
        )
    label = _safe("measured.table")
    return (
        f'<div class="lb ms-table"><table aria-label="{label}"><thead><tr>{over}<th></th></tr>'
        f"<tr>{heads}<th>{_safe('measured.parameters')}</th></tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _prose(*sentences: str) -> str:
    return " ".join(sentences).replace("。 ", "。")


def _whole(sentence: str) -> str:
    """Return a sentence in which no line ends between a number and its spread or unit."""
    return re.sub(r" (±) | (%)", lambda m: "\u00a0±\u00a0" if m[1] else "\u00a0%", html.escape(sentence))


def _said(sentences: Iterable[str]) -> str:
    return "".join(f"<p>{_whole(sentence)}</p>" for sentence in sentences)


# --- detectors -------------------------------------------------------------------------------------
def _late(found: StudyResult) -> None:
    cards = {key: _card(found, key) for key in DETECTORS}
    pathless = _card(found, "fpn_detector", top_down=False)
    levels = next(o for o in found.result.outputs.values() if isinstance(o, Detections)).levels
    pictures, shares = [], []
    for key, result in _row(found, DETECTORS):
        if isinstance(result, FusionvizError):
            notices.mistake(result)
            continue
        pictures.append(_detected(key, result, chosen=result is found))
        shares.append(_shares(result.card, levels) if result.card is not None else "<div></div>")
    said = f'<div class="ms-said">{_legend(levels)}{_said(_against(cards, pathless))}</div>'
    found_by = (
        f'<p class="ms-across">{_safe("measured.late.shares")}</p>{"".join(shares)}' if any(cards.values()) else ""
    )
    st.html(
        f'{_title("measured.late")}<div class="ms-beside"><div class="ms-row">{"".join(pictures)}{found_by}</div>'
        f"{said}</div>"
    )
    _missing([of_method(key, "short") for key, card in cards.items() if card is None])
    lines = [
        _Line(of_method(key, "short"), "", card, found.card == card) for key, card in cards.items() if card is not None
    ]
    if pathless is not None:
        lines.append(_Line(_pathless(), "", pathless, found.card == pathless))
    if not lines:
        return
    bands = [("", say("measured.late.all")), *((f"_{size}", say(f"measured.late.{size}")) for size in SIZES)]
    groups = [
        (say(f"measured.late.{what}"), [(title, f"{what}{end}") for end, title in bands]) for what in ("ap", "recall")
    ]
    score = "–".join(dict.fromkeys(f"{dict(line.card.params).get('score', 0.5):g}" for line in lines))
    notes = _prose(say("measured.late.score", score=score), _made([line.card for line in lines]))
    table = _table(lines, groups, "ap_small", say("measured.late.ap_small"))
    st.html(f'{table}<p class="lb-keys">{html.escape(notes)}</p>')


def _pathless() -> str:
    return say("measured.late.no_top_down", method=of_method("fpn_detector", "short"))


def _against(cards: Mapping[str, SystemCard | None], pathless: SystemCard | None) -> Iterator[str]:
    """Yield a sentence on small things for the pyramid and each detector whose levels know nothing of each other."""
    known = [(of_method(key, "short"), card) for key, card in cards.items()] + [(_pathless(), pathless)]
    figures = {name: measured.figure(card, "ap_small") for name, card in known if card is not None}
    ours = of_method("fpn_detector", "short")
    if figures.get(ours) is None:
        return
    for name, other in figures.items():
        if name != ours and other is not None:
            metric = say("measured.late.ap_small")
            yield measured.compare(metric, (ours, figures[ours]), (name, other), words.language())


def _legend(levels: Sequence[str]) -> str:
    colours = branch_colours(len(levels), dark=words.is_dark())
    chips = (f'<span><i style="background:{c}"></i>{name}</span>' for name, c in zip(levels, colours, strict=True))
    return f'<div class="ms-legend"><b>{_safe("measured.late.level")}</b>{"".join(chips)}</div>'


def _detected(key: str, result: StudyResult, *, chosen: bool) -> str:
    """Return the picture with a detector's boxes, and what its levels find in general."""
    told = next(o for o in result.result.outputs.values() if isinstance(o, Detections))
    height, width = result.seen.shown.shape[:2]
    marks = [*system_panels.detection_marks(told, words.language())]
    if result.truth is None:
        line = say("measured.late.boxes", count=len(told)) if len(told) else say("measured.late.nothing")
    else:
        boxes, labels = result.truth
        right, taken = measured.matched(
            told.boxes.cpu().numpy(), [told.classes[i] for i in told.labels.tolist()], boxes.cpu().numpy(), labels
        )
        missed = [b for b, t in zip(boxes.tolist(), taken, strict=True) if not t]
        marks += [Mark(tuple(b), faint=True) for b in missed]
        counts = {"found": sum(taken), "things": len(taken), "wrong": len(right) - sum(right)}
        line = say("measured.late.found", **counts)
    drawn = _boxes(marks, width, height)
    alone = key == "fpn_detector" and not result.selection.knobs["top_down"]
    name = _pathless() if alone else of_method(key, "short")
    how = say(f"measured.late.when.{'no_top_down' if alone else key}")
    image = f'<img alt="" src="{_png(result.seen.shown)}">'
    return _figure(name, how, image + drawn, line, result, chosen=chosen)


def _boxes(marks: Sequence[Mark], width: int, height: int) -> str:
    """Draw marks as boxes, the first on top; words keep clear of each other as far as there is room."""
    taken: list[_Room] = []
    drawn = [_box(mark, width, height, taken) for mark in marks]
    return "".join(reversed(drawn))


_Room = tuple[float, float, float, float]


def _box(mark: Mark, width: int, height: int, taken: list[_Room]) -> str:
    x0, y0, x1, y1 = (100 * v / (height if i % 2 else width) for i, v in enumerate(mark.box))
    place = f"left:{x0:.2f}%;top:{y0:.2f}%;width:{x1 - x0:.2f}%;height:{y1 - y0:.2f}%"
    if mark.faint:
        return f'<span class="ms-box missed" style="{place}"></span>'
    at, of = mark.level
    colour = branch_colours(of, dark=words.is_dark())[at]
    side = _side(mark.label, (x0, y0, x1, y1), taken)
    name = f'<b class="{side}" style="color:{ink_on(colour)}">{html.escape(mark.label)}</b>'
    return f'<span class="ms-box" style="{place};--c:{colour}">{name}</span>'


def _side(label: str, box: _Room, taken: list[_Room]) -> str:
    """Return where a box's words go, in percent of a picture, and keep the room for them."""
    x0, y0, x1, y1 = box
    wide, high = sum(_WIDE_LETTER if ord(c) > 0x2E80 else _LETTER for c in label) + 2, _WORD_HIGH
    places = {
        f"{up} {along}": (x, y, x + wide, y + high)
        for up, y in (("above", y0 - high), ("below", y1), ("inside", y0), ("lowest", y1 - high))
        for along, x in (("start", x0), ("end", x1 - wide))
    }
    inside = {k: r for k, r in places.items() if min(r) >= 0 and max(r) <= 100} or places
    free = (k for k, r in inside.items() if not any(_touch(r, other) for other in taken))
    side = next(free, next(iter(inside)))
    taken.append(places[side])
    return side


def _touch(a: _Room, b: _Room) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _shares(card: SystemCard, levels: Sequence[str]) -> str:
    """Return a bar for each size of things: how many of them each level found, and how many nobody did."""
    colours, rows = branch_colours(len(levels), dark=words.is_dark()), []
    for size in SIZES:
        parts = [card.figures.get(f"{size}_{level}") for level in levels]
        if not all(isinstance(p, int | float) for p in parts):
            return "<div></div>"
        told = " · ".join(f"{level} {p:.1f}" for level, p in zip(levels, parts, strict=True))
        bar = "".join(f'<i style="width:{p:.2f}%;background:{c}"></i>' for p, c in zip(parts, colours, strict=True))
        rows.append(
            f'<span>{_safe(f"measured.late.{size}")}</span><div class="bar" title="{told}">{bar}</div>'
            f"<b>{sum(parts):.1f}</b>"
        )
    return f'<div class="ms-shares">{"".join(rows)}</div>'


# --- place and time --------------------------------------------------------------------------------
_WIDE, _HIGH, _LEFT, _RIGHT, _TOP, _FOOT = 460, 210, 34, 64, 10, 34


def _place_time(found: StudyResult) -> None:
    if found.selection.method not in GLIMPSES:
        _told(found)
        return
    cards = {key: found.card if key == found.selection.method else _card(found, key) for key in GLIMPSES}
    known = {key: card for key, card in cards.items() if card is not None}
    if known:
        charts = "".join(_errors(key, card, found) for key, card in known.items())
        notes = _made(list(known.values()))
        st.html(
            f'{_title("measured.place_time")}<div class="ms-charts">{charts}</div>'
            f'<p class="lb-keys">{html.escape(notes)}</p>'
        )
    _missing([of_method(key, "short") for key, card in cards.items() if card is None])


def _errors(key: str, card: SystemCard, found: StudyResult) -> str:
    """Return a chart of errors over the number of glimpses, and a sentence at the number that the paper's knob has."""
    name, chosen = of_method(key, "short"), key == found.selection.method
    curves = {look: measured.curve(card, look) for look in ("random", "learned")}
    means = {look: measured.points(card, look) for look in curves}
    curves = {look: c or {n: f.mean for n, f in means[look].items()} for look, c in curves.items()}
    if not all(curves.values()):
        return ""
    both = sorted(means["learned"].keys() & means["random"].keys())
    sentence = ""
    if both:
        usual = fusion.spec(key).param("glimpses").default
        at = usual if usual in both else both[-1]
        figures = means["learned"][at], means["random"][at]
        sentence = measured.errors(name, at, *figures, words.language())
    now = found.selection.knobs.get("glimpses") if chosen else None
    note = say("measured.place_time.line", seeds=card.seeds) if card.seeds > 1 else ""
    return (
        f'<div class="ms-chart{" chosen" * chosen}"><h4>{html.escape(name)}</h4>'
        f"{_chart(name, curves, means, now)}<p>{_whole(sentence)}</p>"
        f"<p><small>{html.escape(note)}</small></p></div>"
    )


def _chart(
    name: str, curves: Mapping[str, Mapping[int, float]], means: Mapping[str, Mapping[int, Figure]], now: object
) -> str:
    """Draw both curves; a thin line stands at the number of glimpses on the board."""
    dark = words.is_dark()
    ink = "#e6e9ef" if dark else "#1b1f24"
    strokes = {"learned": ROLE_COLOURS["dark" if dark else "light"]["fused"], "random": ink}
    counts = sorted({n for c in curves.values() for n in c})
    highest = max([v for c in curves.values() for v in c.values()])
    step = next(s for s in (1, 2, 5, 10, 20, 25) if highest / s <= 5)
    top, right, foot = step * -(-highest // step), _WIDE - _RIGHT, _HIGH - _FOOT

    def x(n: int) -> float:
        return _LEFT + (right - _LEFT) * (n - counts[0]) / max(counts[-1] - counts[0], 1)

    def y(error: float) -> float:
        return foot - (foot - _TOP) * error / (top or 1)

    parts = [
        f'<line x1="{_LEFT}" x2="{right}" y1="{y(t):.1f}" y2="{y(t):.1f}" stroke="{ink}" opacity="0.16"/>'
        f'<text x="{_LEFT - 6}" y="{y(t) + 4:.1f}" text-anchor="end">{t:g}</text>'
        for t in (step * i for i in range(int(top / step) + 1))
    ]
    parts += [f'<text x="{x(n):.1f}" y="{foot + 15}" text-anchor="middle">{n}</text>' for n in counts]
    middle, below = (_LEFT + right) / 2, _safe("measured.place_time.axis")
    parts.append(f'<text x="{middle}" y="{_HIGH - 4}" text-anchor="middle">{below}</text>')
    if now in counts:
        parts.append(
            f'<line x1="{x(now):.1f}" x2="{x(now):.1f}" y1="{_TOP}" y2="{foot}" stroke="{ink}" opacity="0.45"/>'
        )
    for look, dash in (("random", "4 3"), ("learned", "none")):
        line, stroke = curves[look], strokes[look]
        path = " ".join(f"{x(n):.1f},{y(v):.1f}" for n, v in line.items())
        last = list(line.items())[-1]
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{stroke}" stroke-width="2" stroke-dasharray="{dash}"/>'
            f'<text x="{x(last[0]) + 9:.1f}" y="{y(last[1]) + 4:.1f}" fill="{stroke}" font-weight="600" font-size="13">'
            f"{_safe(f'measured.place_time.{look}')}</text>"
        )
        for n, figure in means[look].items():
            sd = figure.sd or 0.0
            parts.append(
                f'<line x1="{x(n):.1f}" x2="{x(n):.1f}" y1="{y(figure.mean - sd):.1f}" y2="{y(figure.mean + sd):.1f}" '
                f'stroke="{stroke}" stroke-width="2"/>'
                f'<circle cx="{x(n):.1f}" cy="{y(figure.mean):.1f}" r="3.5" fill="{stroke}"/>'
            )
    drawn = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDE} {_HIGH}" font-family="sans-serif" '
        f'font-size="12" fill="{ink}">{"".join(parts)}</svg>'
    )
    source = base64.b64encode(drawn.encode()).decode()
    title = _safe("measured.place_time.chart", name=name)
    upright = f'<p class="ms-axis">{_safe("measured.place_time.error")}</p>'
    return f'{upright}<img alt="{title}" src="data:image/svg+xml;base64,{source}">'


def _told(found: StudyResult) -> None:
    """Show what was said of this scene beside what is there, and how often that is right in general."""
    told = next((o for o in found.result.outputs.values() if isinstance(o, Words)), None)
    here = _sentences(told, found.picture.key) if told is not None else ""
    figures, notes = "", ""
    if found.card is not None:
        axis, rows = Axis((0, 100), 200), []
        for name in ("described", "colours", "kinds", "right"):
            figure = measured.figure(found.card, name)
            if figure is not None:
                rows.append(
                    f'<tr><td class="name">{_safe(f"measured.told.{name}")}</td>'
                    f'<td class="plot">{axis.cell(axis.mark(figure, "fused"))}</td><td>{_number(figure)}</td>'
                    f'<td class="means">{_safe(f"measured.told.{name}_help")}</td></tr>'
                )
        heads = f'<th class="name">{_safe("measured.told.figure")}</th><th class="plot">{axis.head()}</th>'
        figures = (
            f'<div class="lb ms-table"><table><thead><tr>{heads}<th>%</th><th></th></tr></thead>'
            f"<tbody>{''.join(rows)}</tbody></table></div>"
        )
        notes = f'<p class="lb-keys">{html.escape(_made([found.card], compared=False))}</p>'
    if here or figures:
        st.html(f'<h3 class="ms-title">{_safe("measured.told.title")}</h3>{here}{figures}{notes}')
    if found.card is None:
        _missing([of_method(found.selection.method, "short")])


def _sentences(told: Words, picture: str) -> str:
    """Return what was said and, of a scene, what is there, name by name; "" where nobody knows what is there."""
    if not picture.startswith("scene:"):
        return ""
    looks = sorted(scenes.open_scene(picture.partition(":")[2]).looks, key=lambda look: look.x)
    there = [(look.colour, look.kind) for look in looks]
    said, right = measured.named(measured.pairs(told.words, COLOURS), there)
    taken, _ = measured.named(there, [name for name, ok in said if ok])
    rows = (("says", said, "×"), ("scene", taken, "–"))
    lines = "".join(
        f"<span>{_safe(f'measured.told.{which}')}</span><div>{''.join(_name(*one, no) for one in names)}</div>"
        for which, names, no in rows
    )
    counts = {"right": right, "things": len(there), "wrong": len(said) - right}
    return (
        f'<div class="ms-names">{lines}<span>{_safe("measured.told.here")}</span>'
        f"<div>{_safe('measured.told.count', **counts)}</div></div>"
    )


def _name(name: tuple[str, str], right: bool, no: str) -> str:
    shown = html.escape(phrase_text(" ".join(name), words.language()))
    return f'<span class="{"right" if right else "not"}">{shown} {"✓" if right else no}</span>'


# --- phrases ---------------------------------------------------------------------------------------
def _language(found: StudyResult) -> None:
    pictures, cards = [], {}
    for key, result in _row(found, ASKED):
        if isinstance(result, FusionvizError):
            notices.mistake(result)
            continue
        cards[key] = result.card
        pictures.append(_lit(key, result, chosen=result is found))
    phrase = phrase_text(found.selection.phrase or "", words.language())
    st.html(f'{_title("measured.language", phrase=phrase)}<div class="ms-row four">{"".join(pictures)}</div>')
    _missing([of_method(key, "short") for key, card in cards.items() if card is None])
    known = {key: card for key, card in cards.items() if card is not None}
    if not known:
        return
    lines = [
        _Line(of_method(key, "short"), say(f"measured.language.how.{key}"), card, key == found.selection.method)
        for key, card in known.items()
    ]
    column = "measured.language"
    groups = [
        ("", [(say(f"{column}.iou"), "iou"), (say(f"{column}.found"), "found")]),
        (
            say(f"{column}.by_word"),
            [(say(f"{column}.{k}"), k) for k in ("size", "extreme", "colour", "texture", "kind")],
        ),
        ("", [(say(f"{column}.silent_share"), "silent")]),
    ]
    notes = _prose(say(f"{column}.score"), _made(list(known.values())))
    st.html(
        f'<div class="ms-said">{_said(_ways(known))}</div>'
        f'{_table(lines, groups, "iou", say(f"{column}.iou"))}<p class="lb-keys">{html.escape(notes)}</p>'
    )


def _ways(cards: Mapping[str, SystemCard]) -> Iterator[str]:
    """Yield a sentence for early against late, and for each of the two between them against early."""
    for a, b in (("phrase_concat", "phrase_product"), ("gmu", "phrase_concat"), ("film", "phrase_concat")):
        figures = [measured.figure(cards[key], "iou") if key in cards else None for key in (a, b)]
        if None not in figures:
            hows = {key: say(f"measured.language.how.{key}") for key in (a, b)}
            names = [say("measured.language.named", name=of_method(key, "short"), how=how) for key, how in hows.items()]
            first, second = zip(names, figures, strict=True)
            yield measured.compare(say("measured.language.iou"), first, second, words.language())


def _lit(key: str, result: StudyResult, *, chosen: bool) -> str:
    """Return the picture, bright where the phrase is found."""
    answer, shown = result.result.outputs["answer"], result.seen.shown
    size = tuple(shown.shape[:2])
    sure = measured.enlarged(_probability(answer), size)
    bright = (shown * (_DIM + (1 - _DIM) * sure[..., None])).round().astype(np.uint8)
    told = _agrees(result, sure > 0.5)
    how = say(f"measured.language.how.{key}")
    return _figure(of_method(key, "short"), how, f'<img alt="" src="{_png(bright)}">', told, result, chosen=chosen)


def _probability(answer: FeatureMap) -> np.ndarray:
    return reduce.array(answer.tensor[0, 0])


def _agrees(result: StudyResult, lit: np.ndarray) -> str:
    """Say how well a mask covers what the phrase means in a scene; "" where nobody knows."""
    if result.truth is None:
        return ""
    drawn = scenes.open_scene(result.picture.key.partition(":")[2], lit.shape[0])
    things = scenes.meant(result.selection.phrase, drawn.looks)
    meant = np.isin(drawn.instances, [k + 1 for k in things])
    covered = measured.covers(lit, meant)
    if covered is None:
        return say("measured.language.silent")
    return say("measured.language.here", iou=f"{100 * covered:.0f} %") if meant.any() else say("measured.language.lit")


_KINDS = {"late": _late, "place_time": _place_time, "language": _language}
"""What is told of each family; networks in the wild have no scenes that they were measured on."""
