"""What the features know: the classes that one linear reading finds in low only, in high only, and in the fused map,
where each of them is wrong, and whether the attention has anything to do with it.

Classes and errors both travel to the browser, which changes between them by itself; the server is asked only for an
exchange of attention.
"""

import base64
import io
from pathlib import Path

import numpy as np
import streamlit as st
from PIL import Image

from fusionviz import reduce
from fusionviz.errors import FusionvizError
from fusionviz.exchange import Exchanged, possible
from fusionviz.records import AttentionMap
from fusionviz.scales import CLASS_COLOURS, ROLE_COLOURS, colour
from fusionviz.study import StudyResult
from fusionviz.ui import cache, notices, session, words
from fusionviz.ui.words import of_method, say

_HERE = Path(__file__).parent
_ROW = st.components.v2.component(
    "fusionviz_predictions",
    html='<div class="knows" data-view="classes"></div>',
    css=(_HERE / "predictions.css").read_text("utf-8"),
    js=(_HERE / "predictions.js").read_text("utf-8"),
)

ERRORS = ("missed", "invented", "confused")
_ERROR_COLOURS = {
    "light": ((27, 31, 36), (230, 184, 0), (214, 39, 104)),
    "dark": ((244, 246, 248), (240, 205, 40), (255, 92, 150)),
}
"""Dark to light or light to dark, so that they differ where hues do not; none is the colour of a level."""
_GREY = {"light": (168, 0.28), "dark": (30, 0.28)}
"""Darkest grey and contrast of what is right: the picture stays recognisable, and behind every error."""


@st.fragment
def show(found: StudyResult) -> None:
    """Show one picture for each reader, the truth where there is one, and the exchange where there is attention."""
    if found.prediction is None:
        return
    exchanged = None
    if possible(found) and st.session_state.get("exchange"):
        try:
            exchanged = cache.exchanged(found, session.selection().view.frame)
        except FusionvizError as mistake:
            notices.mistake(mistake)
    _ROW(data=packed(found, exchanged), key="predictions", on_exchange_change=_turn)


def _turn() -> None:
    st.session_state.exchange = not st.session_state.get("exchange")


def packed(found: StudyResult, exchanged: Exchanged | None) -> dict:
    """Return what the browser draws, texts and all.

    Args:
        exchanged: what the button gave, or None before it was pressed.
    """
    said, roles = found.prediction, ROLE_COLOURS[_theme()]
    names = {
        "low_only": (say("prediction.low_only"), roles["low"]),
        "high_only": (say("prediction.high_only"), roles["high"]),
        "fused": (of_method(found.selection.method, "short"), roles["fused"]),
    }
    names = {reader: told for reader, told in names.items() if reader in said.maps}  # a stopped fit lacks baselines
    maps = {reader: said.maps[reader].numpy() for reader in names}
    shown = found.seen.shown
    truth = None if said.truth is None else said.truth.numpy()
    figures = [_figure(*told, maps[reader], said.miou.get(reader), truth, shown) for reader, told in names.items()]
    if truth is not None:
        figures.append({"name": say("prediction.truth"), "colour": "inherit", "classes": _classes(truth)})
    views = ("classes", "wrong") if truth is not None else ("classes",)
    notes = {"classes": say("prediction.scene" if truth is not None else "prediction.photograph")}
    legends = {"classes": _legend([*maps.values(), *([] if truth is None else [truth])], said.classes)}
    if truth is not None:
        notes["wrong"] = say("prediction.wrong_note")
        chips = zip(ERRORS, _ERROR_COLOURS[_theme()], strict=True)
        legends["wrong"] = [_chip(say(f"prediction.{e}"), rgb, say(f"prediction.{e}_help")) for e, rgb in chips]
    return {
        "title": say("prediction.title"),
        "views": [{"key": view, "label": say(f"prediction.{view}")} for view in views],
        "notes": notes,
        "legends": legends,
        "figures": figures,
        "exchange": _exchange(found, exchanged, truth, shown) if possible(found) else None,
    }


def errors(classes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return what is wrong at every pixel [h w]: 0 nothing, else one more than the position in ERRORS."""
    thing, told = truth > 0, classes > 0
    return np.select([classes == truth, thing & ~told, ~thing & told], [0, 1, 2], 3)


# --- one picture ---------------------------------------------------------------------------------
def _figure(
    name: str, tint: str, classes: np.ndarray, miou: float | None, truth: np.ndarray | None, shown: np.ndarray
) -> dict:
    drawn = {"name": name, "colour": tint, "classes": _classes(classes)}
    if truth is None:
        return drawn
    wrong = errors(classes, truth)
    shares = [100 * float((wrong == i).mean()) for i in range(4)]
    parts = (f"{say(f'prediction.{e}')} {share:.1f} %" for e, share in zip(ERRORS, shares[1:], strict=True))
    figures = {"classes": f"{miou:.1f}", "wrong": f"{100 - shares[0]:.1f} %"}
    return drawn | {"wrong": _wrong(wrong, shown), "figures": figures, "tip": "\n".join(parts)}


def _classes(classes: np.ndarray) -> str:
    return _png(np.array(CLASS_COLOURS, np.uint8)[classes])


def _wrong(wrong: np.ndarray, shown: np.ndarray) -> str:
    darkest, contrast = _GREY[_theme()]
    grey = (darkest + contrast * shown.mean(-1)).astype(np.uint8)
    palette = np.array(((0, 0, 0), *_ERROR_COLOURS[_theme()]), np.uint8)
    return _png(np.where(wrong[..., None] == 0, grey[..., None], palette[wrong]))


def _png(pixels: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _legend(maps: list[np.ndarray], classes: tuple[str, ...]) -> list[dict]:
    there = sorted({int(c) for m in maps for c in np.unique(m)} - {0})
    return [_chip(say(f"scenes.classes.{classes[c]}"), CLASS_COLOURS[c]) for c in there]


def _chip(name: str, rgb: tuple[int, int, int], tip: str = "") -> dict:
    return {"name": name, "colour": "rgb({}, {}, {})".format(*rgb), "tip": tip}


def _theme() -> str:
    return "dark" if words.is_dark() else "light"


# --- the exchange --------------------------------------------------------------------------------
def _exchange(found: StudyResult, done: Exchanged | None, truth: np.ndarray, shown: np.ndarray) -> dict:
    if done is None:
        return {"title": say("exchange.title"), "about": say("exchange.about"), "ask": say("exchange.start")}
    tint = ROLE_COLOURS[_theme()]["fused"]
    own, other = done.own.miou, done.other.miou
    title = say("pictures.scene", seed=done.picture.key.partition(":")[2])
    weight = done.other.weight
    flat = None
    if done.flat is not None:
        flat = {"text": say("exchange.flat", change=_signed(done.flat.miou - own))}
        flat["tip"] = say("exchange.flat_help", miou=f"{done.flat.miou:.1f}")
    return {
        "ask": say("exchange.stop"),
        "figure": _figure(say("exchange.name"), tint, done.other.classes.numpy(), other, truth, shown),
        "other": {"name": title, "picture": _png(done.seen.shown), "weight": _weight(weight), "tip": _title(weight)},
        "figures": {
            "unit": say("exchange.unit"),
            "from_to": f"{own:.1f} → {other:.1f}",
            "change": _signed(other - own),
        },
        "same": say("exchange.same") if done.same else "",
        "flat": flat,
    }


def _weight(weight: AttentionMap) -> str:
    """Return a picture of a weight: its mean over channels by place, or its channels as a square."""
    values = weight.tensor[:, 0] if weight.tensor.ndim == 5 or weight.axes == "b n h w" else weight.tensor
    values = values[0]  # [c h w], [c 1 1] or [h w]
    if values.shape[-2:] == (1, 1):
        side = int(np.ceil(np.sqrt(len(values))))
        drawn = np.full(side * side, np.nan, np.float32)
        drawn[: len(values)] = reduce.array(values.flatten())
        drawn = drawn.reshape(side, side)
    else:
        drawn = reduce.array(values.reshape(-1, *values.shape[-2:]).mean(0))
    scale = "weight" if weight.sums in ("with_high", "branches") else "gate"
    return _png(colour(drawn, 0, 1, scale, dark=words.is_dark()))


def _title(weight: AttentionMap) -> str:
    of = f"attention.of.{weight.of}"
    return say(f"attention.{weight.role}", of=say(of) if words.texts.has(of, words.language()) else weight.of)


def _signed(change: float) -> str:
    return f"{change:+.1f}".replace("-", "−") if abs(change) >= 0.05 else "±0"
