"""Fit it live: train the head of what is on the board on drawn scenes, and watch it learn on this picture."""

import base64
import html
import io
import math
from dataclasses import dataclass

import numpy as np
import streamlit as st
from PIL import Image

from fusionviz import device, fits, study
from fusionviz.errors import FusionvizError
from fusionviz.fits import Moment, Subject
from fusionviz.scales import CLASS_COLOURS, ROLE_COLOURS, colour
from fusionviz.study import StudyResult
from fusionviz.training import live
from fusionviz.training.live import LiveFit, Look, Now
from fusionviz.ui import notices, session, words
from fusionviz.ui.words import of_method, say

EVERY_S = 0.4
_WIDE, _HIGH, _LEFT, _TOP, _FOOT = 300, 112, 30, 8, 18


@dataclass(frozen=True)
class _Row:
    """What the row is about.

    Attributes:
        ships: trained numbers ship for this selection, so that a fit has to be asked for.
    """

    subject: Subject
    found: StudyResult
    ships: bool


def show(found: StudyResult) -> None:
    """Show a button, or the fit as it runs, or what came of it; nothing for methods that take no two levels."""
    chosen = session.selection().with_(**{k: getattr(found.selection, k) for k in ("site", "low", "high")})
    if (chosen.method, chosen.backbone) != (found.selection.method, found.selection.backbone):
        return  # the board shows what was there before a mistake
    subject = fits.subject(chosen)
    if subject is None:
        return
    card = study.covering(chosen.with_(head="auto"))
    row = _Row(subject, found, card is not None and card.origin == "bundled")
    fit = live.FITS.of(subject)
    with st.container(border=True, key="live_fit"):
        if fit is not None and fit.now().running:
            st.fragment(_running, run_every=EVERY_S)(row, fit)
            return
        if fit is not None and (mistake := fit.now().mistake):
            notices.mistake(mistake)
        _still(row)


# --- while nothing runs --------------------------------------------------------------------------
def _still(row: _Row) -> None:
    kept, _ = fits.find(row.subject)
    method = of_method(row.subject.method, "short")
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        if kept is None:
            about = say("live.again" if row.ships else "live.about", method=method)
            st.html(_line(say("live.title"), about))
            where = device.choose(st.session_state.device)
            seconds = _coarse(live.estimate_s(row.found.costs()["macs"], row.subject.size, where))
            st.button(say("live.start", method=method, seconds=seconds), key="fit_start", on_click=_start, args=(row,))
            return
        last = kept.moments[-1]
        code = "live.complete" if kept.complete else "live.stopped"
        fitted_to = kept.drawn - fits.held(kept.drawn)
        values = {"step": last.step, "steps": kept.steps, "scenes": fitted_to, "miou": f"{last.miou:.1f}"}
        facts = say(code, method=method, **values)
        st.html(_line(say("live.title"), facts))
        with st.container(horizontal=True, width="content", gap="small"):
            if not kept.complete:
                st.button(say("live.resume"), key="fit_resume", on_click=_start, args=(row,), type="primary")
            if row.ships:
                mine = session.selection().head == "fit"
                label, head = ("live.shipped", "auto") if mine else ("live.mine", "fit")
                st.button(say(label), key="fit_which", on_click=session.change, kwargs={"head": head, "frame": None})
            st.button(say("live.forget"), key="fit_forget", on_click=_forget, args=(row,), help=say("live.forget_help"))


def _start(row: _Row) -> None:
    live.FITS.start(row.subject, device.choose(st.session_state.device))


def _stop(fit: LiveFit) -> None:
    fit.stop()


def _forget(row: _Row) -> None:
    try:
        live.FITS.forget(row.subject)
    except FusionvizError as mistake:
        session.notify(mistake)
    session.change(head="auto", frame=None)


def _coarse(seconds: float) -> int:
    """Return about how long, no finer than it is known."""
    return next((n for n in (10, 20, 30, 45, 60, 90, 120, 180, 300) if seconds <= n), 600)


def _line(title: str, facts: str) -> str:
    return f'<div class="fit-line"><strong>{html.escape(title)}</strong><span>{html.escape(facts)}</span></div>'


# --- while it runs -------------------------------------------------------------------------------
def _running(row: _Row, fit: LiveFit) -> None:
    now = fit.now()
    if not now.running:
        if now.phase != "failed" and now.step:  # it was asked for: the board shows it
            session.change(frame=None, **({"head": "fit"} if row.ships else {}))
        st.rerun()
    with st.container(horizontal=True, vertical_alignment="center", gap="medium", key="fit_live"):
        st.html(_progress(row, now), width=330)
        st.button(say("live.stop"), key="fit_stop", on_click=_stop, args=(fit,), width="content")
        st.html(f'<div class="fit-figures">{_chart(now)}{_pictures(row, fit, now)}</div>')


def _progress(row: _Row, now: Now) -> str:
    method = of_method(row.subject.method, "short")
    done = now.ready / now.scenes if now.phase == "preparing" and now.scenes else now.step / now.steps
    values = {"ready": now.ready, "scenes": now.scenes or "…", "step": now.step, "steps": now.steps, "method": method}
    left = "" if now.seconds_left is None else say("live.left", seconds=math.ceil(now.seconds_left))
    figures = [
        (say("live.loss"), "–" if now.loss is None else f"{now.loss:.2f}"),
        (say("live.miou"), f"{now.moments[-1].miou:.1f}" if now.moments else "–"),
    ]
    cells = "".join(f"<span>{html.escape(name)} <b>{value}</b></span>" for name, value in figures)
    return (
        f'<div class="fit-now" data-phase="{now.phase}" data-step="{now.step}"><strong>{html.escape(say("live.title"))}'
        f"</strong><p>{html.escape(say(f'live.{now.phase}', **values))}</p>"
        f'<i style="--p:{done:.3f}"></i><p class="numbers">{cells}<span>{html.escape(left)}&nbsp;</span></p></div>'
    )


def _chart(now: Now) -> str:
    """Draw loss and mIoU over the steps, early steps wider: there most is learned."""
    dark = words.is_dark()
    fused, ink = ROLE_COLOURS["dark" if dark else "light"]["fused"], "#e6e9ef" if dark else "#1b1f24"
    right, foot = _WIDE - 46, _HIGH - _FOOT
    worst = max((m.loss for m in now.moments), default=1.0) or 1.0

    def x(step: float) -> float:
        return _LEFT + (right - _LEFT) * math.sqrt(step / now.steps)

    def y(part: float) -> float:
        return foot - (foot - _TOP) * part

    def line(name: str, stroke: str, dash: str, points: list[tuple[float, float]]) -> str:
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
        px, py = points[-1]
        return (
            f'<polyline points="{path}" fill="none" stroke="{stroke}" stroke-width="1.8" stroke-dasharray="{dash}"/>'
            f'<text x="{px + 5:.1f}" y="{py + 4:.1f}" fill="{stroke}" font-weight="600">{html.escape(name)}</text>'
        )

    ticks = "".join(
        f'<text x="{x(s):.1f}" y="{_HIGH - 4}" text-anchor="middle">{s}</text>'
        for s in dict.fromkeys((0, now.steps // 16, now.steps // 4, now.steps))
    )
    grid = "".join(
        f'<line x1="{_LEFT}" x2="{right}" y1="{y(p):.1f}" y2="{y(p):.1f}" stroke="{ink}" opacity="0.16"/>'
        f'<text x="{_LEFT - 5}" y="{y(p) + 4:.1f}" text-anchor="end">{round(100 * p)}</text>'
        for p in (0, 0.5, 1)
    )
    lines = ""
    if now.moments:
        moments: tuple[Moment, ...] = now.moments
        lines = line(say("live.loss"), ink, "4 3", [(x(m.step), y(m.loss / worst)) for m in moments])
        lines += line(say("live.miou"), fused, "none", [(x(m.step), y(m.miou / 100)) for m in moments])
    drawn = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDE} {_HIGH}" font-family="sans-serif" '
        f'font-size="11.5" fill="{ink}">{grid}<g opacity="0.75" font-size="10.5">{ticks}</g>{lines}</svg>'
    )
    source = base64.b64encode(drawn.encode()).decode()
    return f'<img class="chart" alt="{html.escape(say("live.chart"))}" src="data:image/svg+xml;base64,{source}">'


def _pictures(row: _Row, fit: LiveFit, now: Now) -> str:
    """Return what the last kept head makes of the picture on the board: its weight, where it has one, and classes."""
    looked = _look(row, fit, now)
    dark = words.is_dark()
    roles = ROLE_COLOURS["dark" if dark else "light"]
    step = now.moments[-1].step if now.moments else 0
    names = [("live.prediction", roles["fused"])]
    images = [None if looked is None else np.array(CLASS_COLOURS, np.uint8)[looked.classes.numpy()]]
    if looked is None or looked.weight is not None:
        names.insert(0, ("live.share" if looked is not None and looked.share else "live.weight", roles["low"]))
        images.insert(0, None if looked is None else colour(looked.weight.numpy(), 0, 1, "weight", dark=dark))
    at = say("live.at", step=step)
    at_last = [""] * (len(names) - 1) + [at]
    return "".join(_figure(say(n), tint, i, a) for (n, tint), i, a in zip(names, images, at_last, strict=True))


def _look(row: _Row, fit: LiveFit, now: Now) -> Look | None:
    """Return the last look; a new one only where the head was kept again, or the picture is another."""
    if not now.moments:
        return None
    s, found = st.session_state, row.found
    about = (row.subject.digest, now.moments[-1].step, found.picture.digest, found.selection.size)
    if s.get("fit_look", (None,))[0] != about:
        size = tuple(found.seen.shown.shape[:2])
        s.fit_look = (about, live.look(fit, now.moments[-1].step, found.pyramid, size))
    return s.fit_look[1]


def _figure(name: str, tint: str, image: np.ndarray | None, at: str) -> str:
    drawn = '<div class="empty"></div>'
    if image is not None:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        drawn = (
            f'<img alt="{html.escape(name)}" src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'
        )
    return (
        f"<figure>{drawn}<figcaption><span style='color:{tint}'>{html.escape(name)}</span>"
        f"<b>{html.escape(at)}</b></figcaption></figure>"
    )
