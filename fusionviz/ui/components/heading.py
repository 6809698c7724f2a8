"""The line above the board: method, equation, source and the way to its lesson."""

import streamlit as st

from fusionviz import fusion
from fusionviz.registry import FusionSpec
from fusionviz.selection import Selection
from fusionviz.ui import words
from fusionviz.ui.components.equation import coloured, plain
from fusionviz.ui.words import of_method, say


def show(selection: Selection) -> None:
    """Show the method's name, its equation in the colours of the levels, and its paper."""
    spec = fusion.spec(selection.method)
    equation = f"${coloured(spec.equation, dark=words.is_dark())}$"
    title = of_method(spec.key, "title")
    # A long equation gets a line of its own, so that the first line never breaks on a lecture screen.
    wide = sum(11 if ord(letter) < 0x2E80 else 20 for letter in title)
    apart = wide + 8 * len(plain(spec.equation)) + 7 * len(spec.cite) > 920
    # One block, whatever is in it: the board below keeps its place in the page, and is not made anew.
    with st.container(gap=None, key="heading_block"):
        _draw(spec, title, equation, apart=apart)


def _draw(spec: FusionSpec, title: str, equation: str, *, apart: bool) -> None:
    row = {"horizontal": True, "vertical_alignment": "center"}
    with st.container(**row, horizontal_alignment="distribute", key="heading"):
        with st.container(**row, width="content", gap="medium"):
            st.markdown(f"### {title}", width="content")
            if not apart:
                st.markdown(equation, width="content")
        with st.container(**row, width="content", gap="small"):
            if spec.link:
                st.caption(f"[{spec.cite}]({spec.link})", width="content")
            lesson = "fusionviz/ui/pages/lessons_page.py"
            st.page_link(lesson, label=say("frame.lesson"), query_params={"lesson": spec.key})
    if apart:
        with st.container(key="heading_equation"):
            st.markdown(equation)
