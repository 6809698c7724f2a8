"""The board on the page: packs what the study shows, and takes back what a person changed in the browser."""

import streamlit as st

from fusionviz.selection import View
from fusionviz.study import StudyResult
from fusionviz.ui import cache, session, words
from fusionviz.ui.components import board as canvas

KEY = "board"


def show(found: StudyResult, view: View) -> None:
    """Draw the board; pin, colours and range chosen there go into the selection, and so into link and export."""
    drawn, digest = cache.board(found, view, words.language())
    st.session_state.shown_channels = drawn.channels
    canvas.board(canvas.pack(drawn, view, words.language(), digest=digest), key=KEY, on_change=_changed)


def _changed() -> None:
    session.change(**canvas.changes(st.session_state[KEY]))
