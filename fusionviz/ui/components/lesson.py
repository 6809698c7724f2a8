"""One lesson: the list of all in the sidebar, the prose beside it, with its equations in colours."""

import streamlit as st

from fusionviz import fusion, leaderboard, systems, texts
from fusionviz.errors import FusionvizError
from fusionviz.ui import session, words
from fusionviz.ui.components.equation import in_markdown
from fusionviz.ui.words import say

SUBJECTS = ("levels", "fusion", "alignment", "provenance", "leaderboard", "help")


def show() -> None:
    """Show the chosen lesson: the one asked for, else the method's on the board."""
    s = st.session_state
    keys = (*SUBJECTS, *fusion.names(), *systems.names())
    asked = st.query_params.get("lesson")
    if asked in keys and asked != s.get("lesson_asked"):
        s.lesson = asked
    s.lesson_asked = asked
    if s.get("lesson") not in keys:
        s.lesson = session.selection().method
    language = words.language()

    def chosen(key: object) -> None:
        s.lesson = key

    with st.sidebar:
        st.radio(
            say("lessons.list"),
            keys,
            format_func=lambda k: texts.lesson(k, language).front["title"],
            label_visibility="collapsed",
            **session.mirror("lesson_choice", s.lesson, chosen),
        )
    with st.container(width=820):
        found = texts.lesson(s.lesson, language)
        st.title(found.front["title"], anchor=False)
        with st.container(key="idea"):
            st.markdown(found.front["idea"])
        st.markdown(in_markdown(leaderboard.quoted(found.body, _measured(), language), dark=words.is_dark()))
        if s.lesson not in SUBJECTS and st.button(say("methods.open"), type="primary"):
            session.open_method(s.lesson)


def _measured() -> leaderboard.Leaderboard | None:
    """Return the leaderboard; a damaged one is no reason to withhold a lesson, and its own page says so."""
    try:
        return leaderboard.read()
    except FusionvizError:
        return None
