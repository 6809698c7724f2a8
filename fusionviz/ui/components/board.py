"""The board in the browser: one canvas component, fed raw bytes; hover, zoom and colours never come back here.

What travels: four bytes (length of the header, little endian), the header as JSON, then the maps, one after the
other. A map is 16 bits for each cell between its own smallest and largest number, so that the sum under the
crosshair adds up to the digits shown. Numbers that are none (NaN, infinities) never reach JSON: in a map that has
some, 65535 says "no number here" and the range ends at 65534; a bar without a number is null.

Of a board with a slider, every position travels: the panels as at the start, and for each position what differs.
Where that is too much (`MOST_BYTES`), the maps of the other positions have 8 bits: the colours are the same to the
eye, and the arithmetic shows as many digits as the maps have.
"""

import base64
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import streamlit as st

from fusionviz import scales, texts
from fusionviz.board import Arithmetic, Board, BoardFrame, BoardSweep, Map, Mark, Panel, PanelView
from fusionviz.selection import COLORMAPS, RANGES, View

SETTINGS = ("pin", "pin_channel", "colormap", "gamma", "range", "aligned", "frame")
MOST_BRANCHES = 12
MOST_BYTES = 4_000_000


@dataclass(frozen=True)
class Encoded:
    """What travels of a board whatever a person sets on it: worth keeping, as encoding takes longest."""

    header: dict
    maps: bytes

    def packed(self, board: Board, view: View) -> bytes:
        """Return the bytes that the component draws; see `pack`."""
        shown = [{**panel, "view": board[panel["id"]].shown.key} for panel in self.header["panels"]]
        settings = {name: getattr(view, name) for name in SETTINGS}
        header = {**self.header, "panels": shown, "view": settings}
        written = json.dumps(header, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        return b"".join([len(written).to_bytes(4, "little"), written, self.maps])


def encode(board: Board, language: str, *, digest: str) -> Encoded:
    """Return a board with its maps in bytes; arguments as of `pack`."""
    payload = _Payload()
    sweep = board.sweep
    start = board if sweep is None else board.at(sweep.start)
    header = {
        "digest": digest,
        "language": language,
        "size": list(board.size),
        "channels": list(board.channels),
        "caption": board.caption,
        "credit": board.credit,
        "arithmetic": _arithmetic(start.arithmetic),
        "panels": [_panel(panel, payload) for panel in start.panels],
        "sweep": None if sweep is None else _sweep(sweep, payload),
        "maps": payload.maps,
        "text": _words(language),
    }
    return Encoded(header, b"".join(payload.parts))


def pack(board: Board, view: View, language: str, *, digest: str) -> bytes:
    """Return the bytes that the component draws.

    Args:
        board: what to show.
        view: pin, colour map, gamma, range, alignment and position of the slider, which the browser applies.
        language: of the component's own words.
        digest: of everything that `board` depends on; the browser decodes the maps anew only if it changes.
    """
    return encode(board, language, digest=digest).packed(board, view)


def board(
    data: bytes, *, key: str, height: int | None = None, on_change: Callable[[], None] | None = None
) -> dict[str, object]:
    """Draw packed bytes, and return what a person just changed in the browser: empty when nothing was.

    Changes are events: they are reported in one run, so what is chosen elsewhere later is not overruled. The
    component remembers nothing here; keep what matters, and hand it back in the next `view`.

    Args:
        data: from `pack`.
        key: of the component; `st.session_state[key]` holds the changes while `on_change` runs.
        height: pixels, or None for as much as the panels need.
        on_change: called before the run that a change starts.

    Returns:
        Changed fields of `View` by name, see `changes`, and "views": the view a person chose, by panel id.
    """
    told = _BOARD(
        data=data,
        key=key,
        height="content" if height is None else height,
        on_changes_change=on_change or _nothing,
    )
    found = changes(told)
    chosen = views(told)
    return found | ({"views": dict(chosen)} if chosen else {})


def changes(state: Mapping | None) -> dict[str, object]:
    """Return the fields of `View` that a person just changed, ready for `Selection.with_`.

    A field that is not in it did not change; `pin` and `pin_channel` are None where the place was unpinned.

    Args:
        state: `st.session_state[key]` inside `on_change`, or the component's result.
    """
    told = (state or {}).get("changes") or {}
    found: dict[str, object] = {}
    for name in SETTINGS:
        if name in told and _CHECKS[name](told[name]):
            found[name] = _READ.get(name, _same)(told[name])
    return found


def views(state: Mapping | None) -> tuple[tuple[str, str], ...] | None:
    """Return which view of which panel a person chose, or None if that did not change.

    Whether Low and High are shown aligned is a field of its own, see `changes`.
    """
    told = ((state or {}).get("changes") or {}).get("views")
    if not isinstance(told, Mapping):
        return None
    return tuple(sorted((str(p), str(k)) for p, k in told.items() if not str(k).startswith(("own", "aligned"))))


# --- header --------------------------------------------------------------------------------------
class _Payload:
    """The maps, each distinct one once: a panel's views, and positions of the slider, often show the same numbers."""

    def __init__(self) -> None:
        self.maps: list[dict] = []
        self.parts: list[bytes] = []
        self.size = 0
        self.bits = 16
        self.seen: dict[tuple, int] = {}

    def add(self, values: np.ndarray, *, rgb: bool) -> int:
        """Return the number under which a map travels."""
        values, identity = self.known(values, rgb=rgb)
        if identity not in self.seen:
            self.seen[identity] = len(self.maps)
            entry, data = ({}, values.tobytes()) if rgb else quantise(values, self.bits)
            data += bytes(-len(data) % 4)  # typed arrays begin at even addresses
            self.maps.append({"at": self.size, "h": values.shape[0], "w": values.shape[1], "rgb": rgb, **entry})
            self.parts.append(data)
            self.size += len(data)
        return self.seen[identity]

    def known(self, values: np.ndarray, *, rgb: bool) -> tuple[np.ndarray, tuple]:
        """Return a map as it travels, and what tells it from others."""
        values = np.ascontiguousarray(values, np.uint8 if rgb else np.float32)
        return values, (rgb, values.shape, hashlib.blake2b(values, digest_size=16).digest())

    def fit(self, views: Iterable[PanelView]) -> None:
        """Give the maps to come 8 bits where 16 would be too much."""
        more = {}
        for view in views:
            for m in (*view.maps, *view.shares):
                values, identity = self.known(m.values, rgb=m.values.ndim == 3)
                more[identity] = values.nbytes if m.values.ndim == 3 else 2 * values.size
        if self.size + sum(n for identity, n in more.items() if identity not in self.seen) > MOST_BYTES:
            self.bits = 8


def quantise(values: np.ndarray, bits: int = 16) -> tuple[dict, bytes]:
    """Return a map's range and its cells in 16 or 8 bits: value = lo + q / top * (hi - lo), top 2^bits - 1.

    Args:
        values: float32 [h w].

    Returns:
        ({"lo", "hi", "bits", "holes"}, bytes); a constant map has lo == hi. A map with holes has them at 2^bits - 1,
        and its top is one less.
    """
    known = np.isfinite(values)
    holes = not known.all()
    exact = values.astype(np.float64)
    numbers = exact[known] if holes else exact
    lo, hi = (float(numbers.min()), float(numbers.max())) if numbers.size else (0.0, 0.0)
    none = 2**bits - 1
    top = none - 1 if holes else none
    steps = np.zeros(values.shape)
    if hi > lo:
        steps = ((np.where(known, exact, lo) if holes else exact) - lo) / (hi - lo) * top
    cells = np.round(steps).astype("<u2" if bits == 16 else "u1")
    cells[~known] = none
    return {"lo": lo, "hi": hi, "bits": bits, "holes": holes}, cells.tobytes()


def _panel(panel: Panel, payload: _Payload) -> dict:
    return {
        "id": panel.id,
        "role": panel.role,
        "title": panel.title,
        "of": panel.of,
        "badge": dataclasses.asdict(panel.badge) if panel.badge else None,
        "views": [_view(view, payload) for view in panel.views],
    }


def _view(view: PanelView, payload: _Payload) -> dict:
    rgb = view.scale == "rgb"
    return {
        "key": view.key,
        "label": view.label,
        "shape": view.shape,
        "kind": view.kind,
        "scale": view.scale,
        "over": view.over_picture,
        "note": view.note,
        "maps": [_map(m, view, payload, rgb=rgb) for m in view.maps],
        "shares": [_map(m, view, payload, rgb=False) for m in view.shares],
        "bars": [
            {"label": b.label, "value": _number(b.value), "channel": b.channel, "level": b.level} for b in view.bars
        ],
        "nodes": [dataclasses.asdict(node) for node in view.nodes],
        "edges": [dataclasses.asdict(edge) for edge in view.edges],
        "labels": [dataclasses.asdict(label) for label in view.labels],
        "marks": _marks(view.marks),
        "asks": view.asks,
        "placed": view.placed,
        "title": view.title,
        "of": view.of,
    }


def _map(m: Map, view: PanelView, payload: _Payload, *, rgb: bool) -> dict:
    stride, offset = view.cells(m)
    return {
        "map": payload.add(m.values, rgb=rgb),
        "label": m.label,
        "channel": m.channel,
        "level": m.level,
        "stride": list(map(float, stride)),
        "offset": list(map(float, offset)),
        "box": m.box,
        "row": m.row,
    }


def _marks(marks: Iterable[Mark]) -> list[dict]:
    """Marks that stand somewhere: a box that a network could not say has numbers that are none."""
    return [
        {**dataclasses.asdict(mark), "box": [float(v) for v in mark.box]}
        for mark in marks
        if np.isfinite(mark.box).all()
    ]


def _sweep(sweep: BoardSweep, payload: _Payload) -> dict:
    payload.fit(view for frame in sweep.frames for panel in frame.panels for view in panel.views)
    return {
        "kind": sweep.kind,
        "label": sweep.label,
        "ends": list(sweep.ends),
        "curve": sweep.curve,
        "start": sweep.start,
        "frames": [_frame(frame, payload) for frame in sweep.frames],
    }


def _frame(frame: BoardFrame, payload: _Payload) -> dict:
    """What differs from position to position: badges, maps, bars, marks, notes; in the order of panels and views."""
    return {
        "value": frame.value,
        "place": frame.place,
        "text": frame.text,
        "facts": frame.facts,
        "height": frame.height,
        "constants": _constants(frame.arithmetic),
        "badges": [dataclasses.asdict(p.badge) if p.badge else None for p in frame.panels],
        "panels": [[_version(view, payload) for view in panel.views] for panel in frame.panels],
    }


def _version(view: PanelView, payload: _Payload) -> dict:
    return {
        "maps": [payload.add(m.values, rgb=view.scale == "rgb") for m in view.maps],
        "names": [m.label for m in view.maps],
        "shares": [payload.add(m.values, rgb=False) for m in view.shares],
        "bars": [_number(b.value) for b in view.bars],
        "edges": [{"share": edge.share, "text": edge.text} for edge in view.edges],
        "marks": _marks(view.marks),
        "note": view.note,
    }


def _arithmetic(arithmetic: Arithmetic | None) -> dict | None:
    if arithmetic is None:
        return None
    return {"template": arithmetic.template, "sources": arithmetic.sources, "constants": _constants(arithmetic)}


def _constants(arithmetic: Arithmetic | None) -> dict[str, float | None]:
    return {name: _number(value) for name, value in arithmetic.constants.items()} if arithmetic else {}


def _number(value: float) -> float | None:
    value = float(value)
    return value if np.isfinite(value) else None


def _words(language: str) -> dict:
    words = dict(texts.locale(language)["board"])
    # The levels' names inside a weight's title take the levels' colours.
    words |= {level: texts.text(f"attention.of.{level}", language) for level in ("low", "high")}
    words["colormaps"] = {name: texts.text(f"board.colormaps.{name}", language) for name in COLORMAPS}
    words["ranges"] = {name: texts.text(f"board.ranges.{name}", language) for name in RANGES}
    return words


# --- what comes back -------------------------------------------------------------------------------
def _same(value: object) -> object:
    return value


def _nothing() -> None:
    """Streamlit names a component's events after its callbacks; this one only makes the name known."""


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 65535


# The browser is not trusted with what it may set: what does not fit a View is dropped.
_CHECKS: dict[str, Callable[[object], bool]] = {
    "pin": lambda v: v is None or (isinstance(v, list | tuple) and len(v) == 2 and all(map(_whole, v))),
    "pin_channel": lambda v: v is None or _whole(v),
    "colormap": lambda v: v in COLORMAPS,
    "gamma": lambda v: isinstance(v, int | float) and not isinstance(v, bool) and 0.2 <= v <= 5,
    "range": lambda v: v in RANGES,
    "aligned": lambda v: isinstance(v, bool),
    "frame": lambda v: v is None or (isinstance(v, int | float) and not isinstance(v, bool) and 0 <= v <= 1e6),
}
_READ: dict[str, Callable[[object], object]] = {
    "pin": lambda v: None if v is None else tuple(v),
    "gamma": float,
    "frame": lambda v: None if v is None else float(v),
}


# --- registration, once ------------------------------------------------------------------------------
def _shared() -> str:
    """Return the colours that slides and browser share, as a line of JavaScript."""
    known = {
        "luts": {name: base64.b64encode(table.tobytes()).decode() for name, table in scales.LUTS.items()},
        "roles": scales.ROLE_COLOURS,
        "branches": {
            theme: [scales.branch_colours(n, dark=theme == "dark") for n in range(MOST_BRANCHES + 1)]
            for theme in ("light", "dark")
        },
        "pin": scales.PIN_COLOUR,
        "inks": {colour: scales.ink_on(colour) for colour in _mark_colours()},
        "none": {
            theme: [int(c) for c in scales.colour(np.array([[np.nan]]), 0, 1, "gate", dark=theme == "dark")[0, 0]]
            for theme in ("light", "dark")
        },
    }
    return f"const SHARED = {json.dumps(known)};\n"


def _mark_colours() -> list[str]:
    """Every colour that a mark can have."""
    levels = {
        c for n in range(MOST_BRANCHES + 1) for dark in (False, True) for c in scales.branch_colours(n, dark=dark)
    }
    return [scales.PIN_COLOUR, *sorted(levels)]


_HERE = Path(__file__).parent
_BOARD = st.components.v2.component(
    "fusionviz_board",
    html='<div class="board">\n</div>',
    css=(_HERE / "board.css").read_text("utf-8"),
    js=_shared() + (_HERE / "board.js").read_text("utf-8"),
)
