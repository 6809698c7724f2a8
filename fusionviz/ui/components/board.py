"""The board in the browser: one canvas component, fed raw bytes; hover, zoom and colours never come back here.

What travels: four bytes (length of the header, little endian), the header as JSON, then the maps, one after the
other. A map is 16 bits for each cell between its own smallest and largest number, so that the sum under the
crosshair adds up to the digits shown. Numbers that are none (NaN, infinities) never reach JSON: in a map that has
some, 65535 says "no number here" and the range ends at 65534; a bar without a number is null.
"""

import base64
import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import streamlit as st

from fusionviz import scales, texts
from fusionviz.board import Arithmetic, Board, Panel, PanelView
from fusionviz.selection import COLORMAPS, RANGES, View

NO_NUMBER = 65535
SETTINGS = ("pin", "pin_channel", "colormap", "gamma", "range", "aligned")
MOST_BRANCHES = 8


def pack(board: Board, view: View, language: str, *, digest: str) -> bytes:
    """Return the bytes that the component draws.

    Args:
        board: what to show.
        view: pin, colour map, gamma, range and alignment, which the browser applies.
        language: of the component's own words.
        digest: of everything that `board` depends on; the browser decodes the maps anew only if it changes.
    """
    payload = _Payload()
    header = {
        "digest": digest,
        "language": language,
        "size": list(board.size),
        "channels": list(board.channels),
        "caption": board.caption,
        "credit": board.credit,
        "view": {name: getattr(view, name) for name in SETTINGS},
        "arithmetic": _arithmetic(board.arithmetic),
        "panels": [_panel(panel, payload) for panel in board.panels],
        "maps": payload.maps,
        "text": _words(language),
    }
    written = json.dumps(header, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    return b"".join([len(written).to_bytes(4, "little"), written, *payload.parts])


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
    """The maps, each distinct one once: a panel's views often show the same numbers."""

    def __init__(self) -> None:
        self.maps: list[dict] = []
        self.parts: list[bytes] = []
        self.size = 0
        self.seen: dict[tuple, int] = {}

    def add(self, values: np.ndarray, *, rgb: bool) -> int:
        """Return the number under which a map travels."""
        values = np.ascontiguousarray(values, np.uint8 if rgb else np.float32)
        identity = (rgb, values.shape, values.tobytes())
        if identity not in self.seen:
            self.seen[identity] = len(self.maps)
            entry, data = ({}, values.tobytes()) if rgb else quantise(values)
            data += bytes(-len(data) % 4)  # typed arrays begin at even addresses
            self.maps.append({"at": self.size, "h": values.shape[0], "w": values.shape[1], "rgb": rgb, **entry})
            self.parts.append(data)
            self.size += len(data)
        return self.seen[identity]


def quantise(values: np.ndarray) -> tuple[dict, bytes]:
    """Return a map's range and its cells in 16 bits: value = lo + q / top * (hi - lo), top 65535, or 65534 with holes.

    Args:
        values: float32 [h w].

    Returns:
        ({"lo", "hi", "holes"}, bytes); a constant map has lo == hi.
    """
    known = np.isfinite(values)
    holes = not known.all()
    exact = values.astype(np.float64)
    lo, hi = (float(exact[known].min()), float(exact[known].max())) if known.any() else (0.0, 0.0)
    top = NO_NUMBER - 1 if holes else NO_NUMBER
    steps = np.zeros(values.shape)
    if hi > lo:
        steps = (np.where(known, exact, lo) - lo) / (hi - lo) * top
    cells = np.round(steps).astype("<u2")
    cells[~known] = NO_NUMBER
    return {"lo": lo, "hi": hi, "holes": holes}, cells.tobytes()


def _panel(panel: Panel, payload: _Payload) -> dict:
    return {
        "id": panel.id,
        "role": panel.role,
        "title": panel.title,
        "of": panel.of,
        "badge": dataclasses.asdict(panel.badge) if panel.badge else None,
        "view": panel.shown.key,
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
        "stride": list(map(float, view.stride)),
        "offset": list(map(float, view.offset)),
        "over": view.over_picture,
        "note": view.note,
        "maps": [{"map": payload.add(m.values, rgb=rgb), "label": m.label, "channel": m.channel} for m in view.maps],
        "bars": [{"label": b.label, "value": _number(b.value), "channel": b.channel} for b in view.bars],
    }


def _arithmetic(arithmetic: Arithmetic | None) -> dict | None:
    if arithmetic is None:
        return None
    constants = {name: _number(value) for name, value in arithmetic.constants.items()}
    return {"template": arithmetic.template, "sources": arithmetic.sources, "constants": constants}


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
}
_READ: dict[str, Callable[[object], object]] = {"pin": lambda v: None if v is None else tuple(v), "gamma": float}


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
        "none": {
            theme: [int(c) for c in scales.colour(np.array([[np.nan]]), 0, 1, "gate", dark=theme == "dark")[0, 0]]
            for theme in ("light", "dark")
        },
    }
    return f"const SHARED = {json.dumps(known)};\n"


_HERE = Path(__file__).parent
_BOARD = st.components.v2.component(
    "fusionviz_board",
    html='<div class="board">\n</div>',
    css=(_HERE / "board.css").read_text("utf-8"),
    js=_shared() + (_HERE / "board.js").read_text("utf-8"),
)
