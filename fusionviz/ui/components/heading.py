"""The line above the board: method, equation, source; language, export and link at its end."""

import streamlit as st

from fusionviz import fusion
from fusionviz.selection import Selection
from fusionviz.ui import words
from fusionviz.ui.components.equation import coloured
from fusionviz.ui.words import of_method, say


def show(selection: Selection) -> None:
    """Show the method's name, its equation in the colours of the levels, and its paper."""
    spec = fusion.spec(selection.method)
    tex = coloured(spec.equation, dark=words.is_dark())
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center", key="heading"):
        with st.container(horizontal=True, vertical_alignment="center", width="content", gap="medium"):
            st.markdown(f"### {of_method(spec.key, 'title')}", width="content")
            st.markdown(f"${tex}$", width="content")
        with st.container(horizontal=True, vertical_alignment="center", width="content", gap="small"):
            if spec.link:
                st.caption(f"[{spec.cite}]({spec.link})", width="content")
            st.page_link(
                "fusionviz/ui/pages/lessons_page.py", label=say("frame.lesson"), query_params={"lesson": spec.key}
            )
