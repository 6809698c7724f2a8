"""What the backbone recognises in the picture, or how to get its published weights."""

import html

import streamlit as st

from fusionviz import weights
from fusionviz.errors import FusionvizError
from fusionviz.study import StudyResult
from fusionviz.ui import cache, session, words
from fusionviz.ui.words import say


def show(found: StudyResult) -> None:
    """Show the five likeliest classes of a trained backbone; else say that its weights are random."""
    with st.container(border=True, height="stretch", gap="small", key="knows"):
        st.markdown(f"**{say('knows.title')}**")
        if found.guesses:
            _classes(found)
        else:
            _random(found)


def _classes(found: StudyResult) -> None:
    rows = "".join(
        f'<div class="guess"><span>{html.escape(g.label)}</span><i style="--p:{g.probability:.4f}"></i>'
        f"<b>{100 * g.probability:.1f} %</b></div>"
        for g in found.guesses
    )
    st.html(rows)


def _random(found: StudyResult) -> None:
    backbone = found.selection.backbone
    st.markdown(say("knows.random"))
    try:
        known = weights.published(backbone)
    except FusionvizError as none:
        st.caption(none.text(words.language()))
        return
    if weights.cached(backbone) is not None:
        st.button(say("knows.use"), on_click=lambda: session.change(weights="auto"))
        return
    if st.button(say("knows.fetch", name=known.name, mb=f"{known.size_bytes / 1e6:.0f}")):
        bar = st.progress(0.0)
        failed = cache.fetch(backbone, lambda done, total: bar.progress(min(1.0, done / max(total, 1))))
        bar.empty()
        if failed is not None:
            st.error(failed.text(words.language()))
        else:
            session.change(weights="auto")
            st.rerun()
