"""A page with nothing but the board, fed a synthetic study; the tests of the component drive it.

The query chooses: `lang`, `case` (aff | odd | swept | levels | marked), `at` (where the slider stands), `echo=0` to
answer changes with nothing, `tools=0` for the board alone.
"""

import json
from dataclasses import replace

import streamlit as st
from _boards import WORDS, attentional, levels, marked, odd, swept

from fusionviz.selection import View
from fusionviz.ui.components import board as component

st.set_page_config(layout="wide", page_title="board")
query = st.query_params
language = query.get("lang", "en")
view = st.session_state.setdefault("view", View(frame=float(query["at"]) if "at" in query else None))
cases = {"odd": odd, "swept": swept, "levels": levels, "marked": marked}
drawn = cases.get(query.get("case"), attentional)(WORDS[language])
if st.session_state.get("other"):
    drawn = replace(drawn, caption="another board")


def changed() -> None:
    """Keep what a person changed, as the app does."""
    told = component.changes(st.session_state["board"])
    st.session_state.told = [*st.session_state.get("told", []), told]
    if query.get("echo") != "0":
        st.session_state.view = replace(st.session_state.view, **told)


digest = f"{query.get('case')}{language}{bool(st.session_state.get('other'))}"
told = component.board(
    component.pack(drawn, st.session_state.view, language, digest=digest), key="board", on_change=changed
)
if query.get("tools") != "0":
    if st.button("Rerun"):
        pass
    st.button(
        "Unpin",
        on_click=lambda: st.session_state.update(view=replace(st.session_state.view, pin=None, pin_channel=None)),
    )
    st.toggle("Another", key="other")
    st.html(f"<pre id='told'>{json.dumps(st.session_state.get('told', []))}</pre>")
    st.html(f"<pre id='returned'>{json.dumps(told)}</pre>")
