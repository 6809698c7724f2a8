"""The methods as a table by family."""

import itertools

import streamlit as st

from fusionviz import fusion, systems
from fusionviz.ui import session, words
from fusionviz.ui.components.equation import coloured
from fusionviz.ui.words import of_method, say


def show() -> None:
    """Show every method with equation, idea and source, and the way to its lesson and to the board."""
    with st.container(gap="xsmall"):
        st.subheader(say("methods.title"), anchor=False)
        st.caption(say("methods.about"))
    for family, keys in itertools.groupby((*fusion.names(), *systems.names()), key=lambda k: fusion.spec(k).family):
        st.markdown(f"#### {say(f'families.{family}')}")
        for key in keys:
            _row(key)


def _row(key: str) -> None:
    spec = fusion.spec(key)
    with st.container(border=True):
        name, equation, idea, go = st.columns([0.19, 0.33, 0.33, 0.15], vertical_alignment="center")
        name.markdown(f"**{of_method(key, 'title')}**")
        if spec.cite:
            name.caption(f"[{spec.cite}]({spec.link})" if spec.link else spec.cite)
        equation.markdown(f"${coloured(spec.equation, dark=words.is_dark())}$")
        idea.markdown(of_method(key, "idea"))
        with go:
            if st.button(say("methods.open"), key=f"open_{key}", width="stretch"):
                session.open_method(key)
            if st.button(say("frame.lesson"), key=f"lesson_{key}", width="stretch", type="tertiary"):
                st.session_state.lesson = key
                st.switch_page("fusionviz/ui/pages/lessons_page.py")
