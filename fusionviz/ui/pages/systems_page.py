"""Systems: whole networks, live: detectors, glimpses, words, phrases."""

import streamlit as st

from fusionviz.backbones import bundled
from fusionviz.errors import FusionvizError
from fusionviz.ui import cache, notices, session
from fusionviz.ui.components import asking, board_view, export, flow, heading, knows, measured, status, systems
from fusionviz.ui.words import say

systems.choose()
selection = session.selection()
heading.show(selection)
asking.show(selection)
said = st.container(gap="small", key="said")  # always there, so that a remark does not move the board in the page
with said:
    notices.remarks()

try:
    with st.container(key="working"), st.spinner(say("frame.working")):
        opened = cache.picture(selection, session.upload())
        found = cache.result(selection, opened, st.session_state.device)
    st.session_state.last_good_system = found
except FusionvizError as mistake:
    with said:
        notices.mistake(mistake)
    found = st.session_state.get("last_good_system")
    if found is None:  # a link that cannot be shown: what it got right is kept, the rest is the default
        session.change(backbone=bundled.names()[0], phrase=None, size=None, weights="auto", params=())
        if session.selection() == selection:  # that was not it: the sidebar is at hand
            st.stop()
        session.notify(mistake)
        st.rerun()

with said:
    for remark in found.notices:
        notices.mistake(remark)
asking.answer(found)

export.show(found)
board_view.show(found, selection.view)
knows.of_system(found)
measured.show(found)
flow.show(found, status.step_times(found), status.ask_step_times, key="flow")
status.show(found)
