"""What the backbone recognises in the picture, or how to get its published weights."""

import html

import streamlit as st

from fusionviz import study, weights
from fusionviz.errors import FusionvizError
from fusionviz.study import StudyResult
from fusionviz.ui import cache, session, words
from fusionviz.ui.words import say


def show(found: StudyResult) -> None:
    """Show the five likeliest classes of a trained backbone on one line; else say that its weights are random."""
    with st.container(
        border=True, key="knows", horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"
    ):
        if found.guesses:
            _classes(found)
        else:
            _random(found.selection.backbone)


def _classes(found: StudyResult) -> None:
    ours = found.pyramid.provenance.kind == "bundled"

    def name(label: str) -> str:
        return say(f"scenes.classes.{label}") if ours else label

    cells = "".join(
        f'<div class="guess" title="{html.escape(name(g.label))}"><span>{html.escape(name(g.label))}</span>'
        f'<b>{100 * g.probability:.1f} %</b><i style="--p:{g.probability:.4f}"></i></div>'
        for g in found.guesses
    )
    st.html(f'<div class="guesses"><strong>{html.escape(say("knows.title"))}</strong>{cells}</div>')


def of_system(found: StudyResult) -> None:
    """Offer the published weights of a network in the wild that runs with random ones."""
    key = study.published(found.selection.with_(weights="auto"))
    if key is None or found.result.provenance.kind != "random":
        return
    with st.container(
        border=True, key="knows", horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"
    ):
        _random(key)


def _random(backbone: str) -> None:
    st.markdown(say("knows.random"), width="content")
    try:
        known = weights.published(backbone)
    except FusionvizError as none:
        st.caption(none.text(words.language()), width="content")
        return
    if weights.cached(backbone) is not None:
        st.button(say("knows.use"), on_click=lambda: session.change(weights="auto"))
        return
    if st.button(say("knows.fetch", name=known.name, mb=f"{known.size_bytes / 1e6:.0f}")):
        bar = st.progress(0.0, width=260)
        failed = cache.fetch(backbone, lambda done, total: bar.progress(min(1.0, done / max(total, 1))))
        bar.empty()
        if failed is not None:
            session.notify(failed)
        else:
            session.change(weights="auto")
        st.rerun()
