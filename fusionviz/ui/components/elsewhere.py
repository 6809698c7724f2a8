"""The way out where a method stands inside networks and the chosen one has no such place: networks that have."""

import streamlit as st

from fusionviz import backbones, study
from fusionviz.errors import FusionvizError
from fusionviz.ui import session
from fusionviz.ui.words import say


def networks(mistake: FusionvizError) -> tuple[str, ...]:
    """Return networks that have the place which a mistake misses; () for any other mistake."""
    room, _, kind = mistake.code.partition(".")
    return study.EXAMPLES.get(kind, ()) if room == "site" else ()


def show(mistake: FusionvizError) -> None:
    """Show a button for each of them; nothing for any other mistake."""
    there = networks(mistake)
    if not there:
        return
    with st.container(horizontal=True, gap="small", key="elsewhere"):
        for key in there:
            label = say("sites.switch", backbone=backbones.title(key))
            st.button(label, key=f"switch_{key}", on_click=session.change, kwargs={"backbone": key})
