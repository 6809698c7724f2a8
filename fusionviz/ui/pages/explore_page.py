"""Explore: picture, low, high, weight and fused side by side, live."""

import streamlit as st

from fusionviz.errors import FusionvizError
from fusionviz.ui import cache, notices, session
from fusionviz.ui.components import board_view, elsewhere, export, flow, heading, knows, live_fit, predictions, status
from fusionviz.ui.words import say

selection = session.selection()
heading.show(selection)
said = st.container(gap="small", key="said")  # always there, so that a remark does not move the board in the page
with said:
    notices.remarks()

try:
    with st.container(key="working"), st.spinner(say("frame.working")):
        opened = cache.picture(selection, session.upload())
        found = cache.result(selection, opened, st.session_state.device)
    st.session_state.last_good = found
except FusionvizError as mistake:
    with said:
        notices.mistake(mistake)
        elsewhere.show(mistake)
    found = st.session_state.get("last_good")
    if found is None:  # a link that cannot be shown: what it got right is kept, the rest is the default
        at = elsewhere.networks(mistake)[:1] or (selection.backbone,)
        session.change(backbone=at[0], site=None, low=None, high=None, size=None, weights="auto", params=())
        if session.selection() == selection:  # that was not it: the sidebar is at hand
            st.stop()
        session.notify(mistake)
        st.rerun()

found = found.at(selection.view.frame)  # all that stands under the board follows its slider
with said:
    for remark in found.notices:
        notices.mistake(remark)

export.show(found)
board_view.show(found, selection.view)
if found.prediction is not None:
    predictions.show(found)
else:
    knows.show(found)
live_fit.show(found)
flow.show(found, status.step_times(found), status.ask_step_times, key="flow")
status.show(found)
