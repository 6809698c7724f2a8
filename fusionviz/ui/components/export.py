"""Export: what is on the board as a slide (PNG, SVG, PDF), and the link that opens it elsewhere."""

import io

import streamlit as st

from fusionviz import api, state
from fusionviz.figures import slide
from fusionviz.selection import Selection
from fusionviz.study import StudyResult
from fusionviz.ui import frame, session, words
from fusionviz.ui.words import say

FORMATS = ("png", "svg", "pdf")


def show(found: StudyResult) -> None:
    """Show the popovers for slide and link; their bodies run only while they are open."""
    with frame.actions():
        with st.popover(say("export.button"), on_change="rerun", key="export") as opened:
            if opened.open:
                _slide(found)
        with st.popover(say("export.link"), on_change="rerun", key="link") as opened:
            if opened.open:
                _link()


def _slide(found: StudyResult) -> None:
    language, notice = slide.language_for(words.language())
    if notice:
        st.info(say(notice))
    kind = st.segmented_control(
        say("export.format"), FORMATS, default="png", format_func=str.upper, required=True, key="export_format"
    )
    dark = st.toggle(say("export.dark"), value=words.is_dark(), key="export_dark")
    chosen = session.selection()
    st.download_button(
        say("export.download"),
        data=lambda: _bytes(found, chosen, kind, language, dark),
        file_name=f"fusionviz_{chosen.backbone}_{chosen.method}.{kind}",
        mime={"png": "image/png", "svg": "image/svg+xml", "pdf": "application/pdf"}[kind],
        on_click="ignore",
        type="primary",
        width="stretch",
    )


def _bytes(found: StudyResult, chosen: Selection, kind: str, language: str, dark: bool) -> bytes:
    file = io.BytesIO()
    slide.save(api.draw(found, view=chosen.view, language=language, dark=dark), file, kind)
    return file.getvalue()


def _link() -> None:
    chosen = session.selection()
    for left in state.stays(chosen):
        st.info(left.text(words.language()))
    url = (st.context.url or "").split("?", 1)[0]
    st.code(f"{url}?{state.encode(session.link())}", language=None, wrap_lines=True)
    st.caption(say("export.link_help"))
