"""Mistakes and remarks as sentences in the session's language, never as a traceback."""

import re

import streamlit as st

from fusionviz.errors import FusionvizError
from fusionviz.ui import words


def mistake(error: FusionvizError) -> None:
    """Show a mistake where it was made."""
    st.error(_literal(error.text(words.language())), icon=":material/error:")


def remarks() -> None:
    """Show what has to be said about the link or the last choice."""
    said = [_literal(notice.text(words.language())) for notice in st.session_state.notices]
    if said:
        st.warning("\n\n".join(said), icon=":material/info:")


def _literal(text: str) -> str:
    """Return text that Markdown shows as it is: a bad value from a link is quoted, not rendered."""
    return re.sub(r"([\\`*_{}\[\]<>#$|~:!])", r"\\\1", text)
