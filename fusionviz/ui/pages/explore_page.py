"""Explore: picture, low, high, weight and fused side by side, live."""

import streamlit as st

from fusionviz.errors import FusionvizError
from fusionviz.ui import cache, frame, session
from fusionviz.ui.components import board_view, export, flow, heading, knows, status

selection = session.selection()
heading.show(selection)
frame.notices()

try:
    opened = cache.picture(selection, session.upload())
    found = cache.result(selection, opened, st.session_state.device)
    st.session_state.last_good = found
except FusionvizError as mistake:
    frame.mistake(mistake)
    found = st.session_state.get("last_good")
    if found is None:
        st.stop()

for notice in found.notices:
    frame.mistake(notice)

export.show(found)
board_view.show(found, selection.view)
knows.show(found)
flow.show(found, status.step_times(found), status.ask_step_times, key="flow")
status.show(found)
