"""What stands around every page: the style that Streamlit's theme cannot say, the sidebar, mistakes as sentences."""

from pathlib import Path

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from fusionviz.errors import FusionvizError
from fusionviz.scales import ROLE_COLOURS
from fusionviz.ui import cache, notices, session, sidebar, words

STYLE = (Path(__file__).parent / "frame.css").read_text("utf-8")


def around(page, *, version: str) -> None:  # noqa: ANN001 - Streamlit's page type has no public name
    """Draw the frame and run the page in it."""
    cache.boot()
    colours = ROLE_COLOURS["dark" if words.is_dark() else "light"]
    colours = {
        **colours,
        "on-role": "#0f1318" if words.is_dark() else "#ffffff",
        "chosen": "#e6e9ef" if words.is_dark() else "#1b1f24",
    }
    variables = "".join(f"--{role}: {colour};" for role, colour in colours.items())
    st.html(f"<style>:root {{ {variables} }}\n{STYLE}</style>")
    with st.sidebar:
        sidebar.brand(version)
        if page.url_path not in ("lessons", "leaderboard"):  # these put a list of their own there
            sidebar.show(systems=page.url_path == "systems")
    with st.container(horizontal=True, gap="small", width="content", key="actions"):
        actions = st.container(horizontal=True, gap="small", width="content")
        _language_switch()
    st.session_state.actions = actions
    try:
        page.run()
    except FusionvizError as caught:
        # A page shows its own mistakes where they belong; this is the net under all of them.
        notices.mistake(caught)


def actions() -> DeltaGenerator:
    """Return the place at the right of the bar of pages where a page puts its own buttons."""
    return st.session_state.actions


def _language_switch() -> None:
    """Let a person choose the language; the choice travels in the link."""

    def chosen(value: object) -> None:
        if value:
            st.session_state[words.KEY] = value
            st.session_state.language_chosen = True

    st.segmented_control(
        words.say("frame.language"),
        ("en", "zh"),
        format_func={"en": "EN", "zh": "中文"}.get,
        label_visibility="collapsed",
        required=True,
        **session.mirror("language_switch", words.language(), chosen),
    )
