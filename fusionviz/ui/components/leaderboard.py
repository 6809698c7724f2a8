"""The leaderboard: one table whose rows are its chart, the controls as pairs, the weights, and the papers beside them.

Charts are drawn in the rows of their table, so that a mark and its numbers stand on one line at every width.
"""

import html
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import streamlit as st

from fusionviz import fusion, leaderboard, texts
from fusionviz.errors import FusionvizError
from fusionviz.leaderboard import Figure, Leaderboard, Published, Row, Weighing
from fusionviz.leaderboard.ablation import OURS, PRINTED, verdicts
from fusionviz.leaderboard.readme import rank
from fusionviz.leaderboard.sentences import SETTINGS, TEXTURE, count, row_name
from fusionviz.ui import notices, session, words
from fusionviz.ui.components.equation import in_markdown
from fusionviz.ui.words import say

STYLE = (Path(__file__).parent / "leaderboard.css").read_text("utf-8")
_ROLE = {"low_only": "low", "high_only": "high"}
_SIZES = ("small", "medium", "large")
_LANE = 6
_TICK = 32
"""Px from tick to tick, at least about."""


def show() -> None:
    """Show the page; without a leaderboard, how one is made, and what the papers say."""
    ground = "#0f1318" if words.is_dark() else "#ffffff"
    st.html(f"<style>:root {{ --lb-ground: {ground}; }}\n{STYLE}</style>")
    st.html(f'<h3 class="lb-title" id="lb-standing">{html.escape(say("leaderboard.title"))}</h3>')
    try:
        board = leaderboard.read()
        if board is None:
            raise FusionvizError("leaderboard.missing")
    except FusionvizError as mistake:
        notices.mistake(mistake)
    else:
        _contents()
        _standing(board)
        _why(board)
        _weights(board)
        st.html('<span id="lb-papers"></span>')
        with st.container(width=860):
            body = leaderboard.quoted(texts.lesson("leaderboard", words.language()).body, board, words.language())
            st.markdown(in_markdown(body, dark=words.is_dark()))
    _published()


def _told(key: str, board: Leaderboard) -> str:
    """Return a text of the locale with the leaderboard's numbers in it."""
    return html.escape(leaderboard.fill(say(key), board, words.language()))


def _contents() -> None:
    """Put the page's parts into the sidebar, each a way there."""
    parts = {
        "standing": "leaderboard.title",
        "why": "leaderboard.why.title",
        "weights": "leaderboard.weights.title",
        "papers": "leaderboard.papers",
        "published": "published.title",
    }
    links = (f'<a href="#lb-{key}" target="_self">{html.escape(say(text))}</a>' for key, text in parts.items())
    with st.sidebar:
        st.html(f'<nav class="lb-contents">{"".join(links)}</nav>')


def _section(title: str, about: str) -> str:
    part = title.split(".")[-2]
    return f'<h3 class="lb-part" id="lb-{part}">{html.escape(say(title))}</h3><p class="lb-about">{about}</p>'


# --- marks ---------------------------------------------------------------------------------------
class Axis:
    """A line of numbers across the cells of a column; what stands on it is placed in percent of their width.

    Args:
        values: that have to fit.
        wide: of a cell, px.
    """

    def __init__(self, values: Iterable[float], wide: int) -> None:
        found = list(values)
        self.wide = wide
        step = _step(max(found) - min(found), wide // _TICK)
        self.low, self.up = step * math.floor(min(found) / step), step * math.ceil(max(found) / step)
        if self.low == self.up:
            self.up += step
        self.ticks = [self.low + step * i for i in range(round((self.up - self.low) / step) + 1)]

    def at(self, value: float) -> str:
        """Return where a number stands, as a style."""
        return f"left:{100 * (value - self.low) / (self.up - self.low):.2f}%"

    def cell(self, marks: str) -> str:
        """Return what a cell holds: the grid, and marks on it."""
        return self._box("".join(self.upright(t, "grid") for t in self.ticks) + marks)

    def head(self) -> str:
        """Return the numbers over the column."""
        digits = 0 if self.ticks[1] - self.ticks[0] >= 1 else 1
        return self._box("".join(f'<span class="tick" style="{self.at(t)}">{t:.{digits}f}</span>' for t in self.ticks))

    def upright(self, value: float, kind: str) -> str:
        """Return a line from the row above to the row below, if it falls on the axis."""
        if not self.low <= value <= self.up:
            return ""
        return f'<span class="upright {kind}" style="{self.at(value)}"></span>'

    def mark(self, figure: Figure, kind: str) -> str:
        """Return a dot with its spread on both sides, or where it points off the axis; `kind` is its role and shape."""
        role = kind.split()[0]
        if not self.low <= figure.mean <= self.up:
            side = "under" if figure.mean < self.low else "over"
            return f'<span class="off {side} {role}">{"‹" if side == "under" else "›"}</span>'
        spread = self.between(figure.mean - figure.sd, figure.mean + figure.sd, f"{role} spread") if figure.sd else ""
        return f'{spread}<span class="dot {kind}" style="{self.at(figure.mean)}"></span>'

    def between(self, a: float, b: float, kind: str) -> str:
        """Return a level line from one number to another."""
        low, wide = min(a, b), 100 * abs(a - b) / (self.up - self.low)
        return f'<span class="way {kind}" style="{self.at(low)};width:{wide:.2f}%"></span>'

    def _box(self, marks: str) -> str:
        # Numbers stand beside every mark, so a screen reader loses nothing without it.
        return f'<div class="ax" style="width:{self.wide}px" aria-hidden="true">{marks}</div>'


def _step(span: float, most: int) -> float:
    """Return the least round distance between ticks with which at most `most` steps span the numbers."""
    if span <= 0:
        return 1.0
    power = 10 ** math.floor(math.log10(span / most))
    return next(power * n for n in (1, 2, 5, 10) if power * n >= span / most)


def _figure(figure: Figure, digits: int = 1) -> str:
    """Return a figure with its spread in smaller type."""
    number, _, spread = figure.text(digits).partition(" ")
    return f"{number} <i>{spread}</i>" if spread else number


def _change(a: Figure, b: Figure, board: Leaderboard) -> str:
    """Return how far `b` is ahead of `a` in mIoU, of the numbers as they are printed, or that they tie."""
    if not leaderboard.order(b, a, board.noise_miou):
        return html.escape(say("leaderboard.tie"))
    return f"{round(b.mean, 1) - round(a.mean, 1):+.1f}".replace("-", "−")


# --- the table -----------------------------------------------------------------------------------
def _standing(board: Leaderboard) -> None:
    rows = board.standing()
    methods = [row for row in rows if row.method not in leaderboard.BASELINES]
    bases = [row for row in rows if row.method in leaderboard.BASELINES]
    places = leaderboard.ranks(methods, board.noise_miou)
    bars = _lanes(leaderboard.groups(methods, board.noise_miou))
    # The methods' own range: what separates them is far less than what separates them from one level by itself.
    miou = Axis((f.mean + side * (f.sd or 0) for f in (row.miou for row in methods) for side in (-1, 1)), 190)
    sizes = Axis((0, 100), 120)
    under = "".join(miou.upright(base.miou.mean, f"base {_ROLE[base.method]}") for base in bases)
    lines = []
    for i, row in enumerate([*methods, *bases]):
        role = _ROLE.get(row.method, "fused")
        kind = f"base {'first-base' if row is bases[0] else ''}" if row in bases else ""
        place = rank(*places[row.method]) if row.method in places else ""
        small, large = row.figures["small"], row.figures["large"]
        by_size = sizes.between(small.mean, large.mean, f"{role} faint")
        by_size += sizes.mark(small, f"{role} hollow") + sizes.mark(large, role)
        figures = "".join(f"<td>{_figure(row.figures[k])}</td>" for k in (*_SIZES, "boundary_f1"))
        lines.append(
            f'<tr class="{kind}" style="--role: var(--{role})"><td class="ties">{_bars(bars, i)}</td>'
            f'<td class="rank">{place}</td><td class="name">{html.escape(row_name(row, words.language()))}'
            f"{_levels(row, board)}</td>"
            f'<td class="plot">{miou.cell(under + miou.mark(row.miou, role))}</td><td>{_figure(row.miou)}</td>'
            f'<td class="plot">{sizes.cell(by_size)}</td>{figures}'
            f'<td class="cost">{count(row.parameters)}</td><td class="cost">{count(row.macs)}</td>'
            f'<td class="cost">{row.ms:.1f}</td></tr>'
        )
    title = {
        k: html.escape(say(f"leaderboard.column.{k}"))
        for k in ("rank", "method", "miou", *_SIZES, "boundary_f1", "parameters", "macs", "ms")
    }
    plain = "".join(f"<th>{title[k]}</th>" for k in (*_SIZES, "boundary_f1", "parameters", "macs", "ms"))
    keys = "".join(f"<span>{html.escape(say(f'leaderboard.key_{k}'))}</span>" for k in ("ties", "baselines", "sizes"))
    st.html(
        f'<p class="lb-lead">{_told("leaderboard.headline", board)}</p>'
        f'<div class="lb lb-main"><table aria-label="{html.escape(say("leaderboard.table"))}"><thead><tr>'
        f'<th class="ties"></th><th class="rank">{title["rank"]}</th><th class="name">{title["method"]}</th>'
        f'<th class="plot">{miou.head()}</th><th>{title["miou"]}</th>'
        f'<th class="plot">{sizes.head()}</th>{plain}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
        f'<div class="lb-keys">{keys}</div><p class="lb-keys">'
        f"{_told('leaderboard.made', board)}</p>"
    )


def _levels(row: Row, board: Leaderboard) -> str:
    """Say where a method is given more than the two levels of the title."""
    if len(row.levels) == 2:
        return ""
    return f" <i>{html.escape(say('leaderboard.levels', count=len(row.levels)))}</i>"


def _lanes(groups: Sequence[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Return (first, last, lane) so that no two bars of one lane touch."""
    ends: list[int] = []
    placed = []
    for first, last in groups:
        lane = next((i for i, end in enumerate(ends) if end < first), len(ends))
        ends[lane : lane + 1] = [last]
        placed.append((first, last, lane))
    return placed


def _bars(bars: Sequence[tuple[int, int, int]], at: int) -> str:
    lanes = 1 + max((lane for _, _, lane in bars), default=-1)
    drawn = "".join(
        f'<span class="tie{" begins" * (at == first)}{" ends" * (at == last)}" style="left:{_LANE * lane}px"></span>'
        for first, last, lane in bars
        if first <= at <= last
    )
    return f'<div class="ax" style="width:{_LANE * lanes}px" aria-hidden="true">{drawn}</div>'


# --- why -----------------------------------------------------------------------------------------
Pair = tuple[str, Figure, Figure]


def _why(board: Leaderboard) -> None:
    found = _pairs(board)
    cards = "".join(_card(key, found[key], board) for key in ("depth", "occluded", "linear", "levels") if found[key])
    cards += _ablation(board)
    if cards:
        st.html(
            _section("leaderboard.why.title", html.escape(say("leaderboard.why.about")))
            + f'<div class="lb-cards">{cards}</div>'
        )


def _pairs(board: Leaderboard) -> dict[str, list[Pair]]:
    """Return what differs in one thing: a name, and two figures of mIoU."""
    language = words.language()

    def called(method: str, control: str = "") -> str:
        return leaderboard.name(method, control, language)

    found: dict[str, list[Pair]] = {key: [] for key in ("depth", "linear", "levels", "occluded")}
    for row in board.rows:
        plain = board.row(row.method)
        if row.control in found and plain:
            found[row.control].append((called(row.method), plain.miou, row.miou))
    steps = (("add", ""), ("fpn", "")), (("concat", ""), ("concat4", "levels4")), (("concat4", "levels4"), ("fpn", ""))
    for first, second in steps:
        a, b = board.row(*first), board.row(*second)
        if a and b:
            found["levels"].append((f"{called(*first)} → {called(*second)}", a.miou, b.miou))
    for row in board.standing():
        if row.method in board.occluded and row.method not in leaderboard.BASELINES:
            found["occluded"].append((called(row.method), row.miou, board.occluded[row.method]["miou"]))
    return found


def _card(key: str, pairs: Sequence[Pair], board: Leaderboard) -> str:
    axis = Axis((f.mean for _, a, b in pairs for f in (a, b)), 112)
    lines = []
    for called, a, b in pairs:
        marks = axis.between(a.mean, b.mean, "ink faint") + axis.mark(a, "ink hollow") + axis.mark(b, "fused")
        lines.append(
            f'<tr><td class="name">{html.escape(called)}</td><td class="plot">{axis.cell(marks)}</td>'
            f"<td>{_figure(a)}</td><td>{_figure(b)}</td><td>{_change(a, b, board)}</td></tr>"
        )
    first, second = (html.escape(say(f"leaderboard.why.{key}.{which}")) for which in ("first", "second"))
    return (
        f'<div class="lb-card {key}"><h4>{html.escape(say(f"leaderboard.why.{key}.title"))}</h4>'
        f"<p>{_told(f'leaderboard.why.{key}.about', board)}</p>"
        f'<div class="lb"><table><thead><tr><th class="name"></th><th class="plot">{axis.head()}</th><th>○ {first}</th>'
        f"<th>● {second}</th><th>{html.escape(say('leaderboard.column.difference'))}</th></tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div></div>"
    )


def _ablation(board: Leaderboard) -> str:
    """Return FPN's own ablation beside the paper's two tables, or "" as long as it was not measured."""
    rows, language = leaderboard.ablation(board), words.language()
    if not rows:
        return ""
    printed = [(table, columns) for key, columns in PRINTED for table in leaderboard.published() if table.key == key]
    wide = f'<th colspan="{len(OURS)}">{html.escape(say("leaderboard.why.ablation.here"))}</th>'
    wide += "".join(f'<th colspan="{len(columns)}">{_cited(table)}</th>' for table, columns in printed)
    titles = [f'<th class="part">{html.escape(say("leaderboard.column.miou"))}</th>']
    titles += [f"<th>{html.escape(say(f'leaderboard.column.{key}'))}</th>" for key in OURS[1:]]
    for table, columns in printed:
        titles += [f"<th{_part(c is columns[0])}>{html.escape(table.column(c, language))}</th>" for c in columns]
    begins = {sum(len(columns) for _, columns in printed[:i]) for i in range(len(printed))}
    lines = []
    for taken in rows:
        ours = [_figure(taken.row.figures[key]) if taken.row else "–" for key in OURS]
        cells = "".join(f"<td{_part(i == 0)}>{cell}</td>" for i, cell in enumerate(ours))
        cells += "".join(f"<td{_part(i in begins)}>{html.escape(v)}</td>" for i, v in enumerate(taken.printed))
        name = printed[0][0].row(taken.key, language)
        lines.append(f'<tr><td class="name">{html.escape(name)}</td>{cells}</tr>')
    said = "".join(f"<p>{html.escape(leaderboard.fill(v, board, language))}</p>" for v in verdicts(board))
    return (
        f'<div class="lb-card ablation"><h4>{html.escape(say("leaderboard.why.ablation.title"))}</h4>'
        f"<p>{_told('leaderboard.why.ablation.about', board)}</p>"
        f'<div class="beside"><div class="lb"><table><thead><tr class="wide"><th class="name"></th>{wide}</tr>'
        f'<tr><th class="name"></th>{"".join(titles)}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
        f'<div class="said">{said}</div></div></div>'
    )


def _part(begins: bool) -> str:
    return ' class="part"' if begins else ""


def _cited(table: Published) -> str:
    measured = html.escape(say(f"published.{table.key}.measured"))
    return f'<a href="{html.escape(table.link)}" title="{measured}">{html.escape(table.cite)}</a>'


# --- weights -------------------------------------------------------------------------------------
def _weights(board: Leaderboard) -> None:
    st.html(_section("leaderboard.weights.title", _told("leaderboard.weights.about", board)))
    first = {setting: [w for w in board.weighings if w.setting == setting] for setting in SETTINGS}
    there = [setting for setting in SETTINGS if first[setting]]
    if not there:
        st.caption(say("leaderboard.weights.none"))
        return
    kept = st.session_state.get("leaderboard_setting")
    chosen = kept if kept in there else there[0]

    def title(setting: str) -> str:
        one = first[setting][0]
        return say(f"leaderboard.weights.{setting}", low=one.low, high=one.high)

    def choose(setting: object) -> None:
        st.session_state.leaderboard_setting = setting

    st.segmented_control(
        say("leaderboard.weights.choose"),
        there,
        format_func=title,
        label_visibility="collapsed",
        required=True,
        **session.mirror("leaderboard_setting_switch", chosen, choose),
    )
    known = {key: i for i, key in enumerate(fusion.names())}
    st.html(_weighed(sorted(first[chosen], key=lambda w: known.get(w.method, len(known))), board))


def _weighed(found: Sequence[Weighing], board: Leaderboard) -> str:
    """Draw what weights say: a column for each method, a row for each region."""
    axis = Axis((0.0, 1.0), 84)
    language = words.language()
    heads = "".join(f'<th colspan="2">{html.escape(leaderboard.name(w.method, language=language))}</th>' for w in found)
    ends = "".join(f'<th class="plot">{_ends(axis)}</th><th class="value"></th>' for _ in found)
    lines = []
    for key in ("background", "edge", "interior", "small", "large", TEXTURE, "others"):
        cells = []
        for w in found:
            kinds = w.kinds
            own = kinds.pop(TEXTURE)
            others = list(kinds.values())
            if key == "others":
                marks = "".join(axis.mark(Figure(f.mean), "ink hollow") for f in others)
                value = f"{min(f.mean for f in others):.2f}–{max(f.mean for f in others):.2f}"
            else:
                figure = own if key == TEXTURE else w.regions[key]
                marks, value = axis.mark(figure, "low" if figure.mean >= 0.5 else "high"), _figure(figure, 2)
            cells.append(f'<td class="plot">{axis.cell(marks)}</td><td class="value">{value}</td>')
        part = ' class="part"' if key in ("background", "small", TEXTURE) else ""
        lines.append(f'<tr{part}><td class="name">{html.escape(_region(key))}</td>{"".join(cells)}</tr>')
    for key in ("own", "other", "flat"):
        cells = "".join(
            f'<td class="plot">{"" if key == "own" else _change(w.causal["own"], w.causal[key], board)}</td>'
            f'<td class="value">{_figure(w.causal[key])}</td>'
            for w in found
        )
        part = ' class="part"' if key == "own" else ""
        lines.append(f'<tr{part}><td class="name">{html.escape(say(f"leaderboard.weights.{key}"))}</td>{cells}</tr>')
    return (
        f'<div class="lb lb-weights"><table><thead><tr><th class="name" style="border:0"></th>{heads}</tr>'
        f'<tr><th class="name">{html.escape(say("leaderboard.weights.region"))}</th>{ends}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _region(key: str) -> str:
    if key == TEXTURE:
        return say("leaderboard.region.kind", kind=say(f"scenes.classes.{key}"))
    return say(f"leaderboard.region.{key}")


def _ends(axis: Axis) -> str:
    """Return the two ends of a weight's axis: high at the left, low at the right."""
    high, low = (html.escape(say(f"leaderboard.weights.{end}")) for end in ("high", "low"))
    return f'<div class="ends" style="width:{axis.wide}px"><span>0 {high}</span><span>{low} 1</span></div>'


# --- papers --------------------------------------------------------------------------------------
def _published() -> None:
    cards = "".join(_paper(table) for table in leaderboard.published())
    st.html(_section("published.title", html.escape(say("published.about"))) + f'<div class="lb-cards">{cards}</div>')


def _paper(table: Published) -> str:
    language = words.language()
    heads = "".join(f"<th>{html.escape(table.column(key, language))}</th>" for key in table.columns)
    lines = "".join(
        f'<tr><td class="name">{html.escape(table.row(key, language))}</td>'
        f"{''.join(f'<td>{html.escape(value)}</td>' for value in values)}</tr>"
        for key, values in table.rows.items()
    )
    excerpt = f" · {html.escape(say('published.excerpt'))}" if table.excerpt else ""
    return (
        f'<div class="lb-card"><h4>{html.escape(say(f"published.{table.key}.title"))}</h4>'
        f"<p>{html.escape(say(f'published.{table.key}.measured'))}</p>"
        f'<div class="lb"><table><thead><tr><th class="name"></th>{heads}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
        f'<div class="source"><a href="{html.escape(table.link)}">{html.escape(table.cite)}</a><span>{excerpt}</span>'
        "</div></div>"
    )
