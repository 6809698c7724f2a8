"""The board on the page: packs what the study shows, and takes back what a person changed in the browser."""

from dataclasses import replace

import streamlit as st

from fusionviz.selection import View
from fusionviz.study import StudyResult
from fusionviz.ui import cache, session, words
from fusionviz.ui.components import board as canvas

KEY = "board"


def show(found: StudyResult, view: View) -> None:
    """Draw the board; pin, colours and range chosen there go into the selection, and so into link and export."""
    drawn, encoded = cache.board(found, view, words.language())
    st.session_state.shown_channels = drawn.channels
    height, width = drawn.size
    if view.pin is not None and not (view.pin[0] < width and view.pin[1] < height):
        view = replace(view, pin=None)  # pinned on a larger input: not a place of this one
    canvas.board(encoded.packed(drawn.with_views(view.views), view), key=KEY, on_change=_changed)


def _changed() -> None:
    told = st.session_state[KEY]
    found = canvas.changes(told)
    views = canvas.views(told)
    if views is not None:
        found["views"] = views
    session.change(**found)
