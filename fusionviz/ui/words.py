"""Texts in the session's language: chosen from the browser, switchable."""

import streamlit as st

from fusionviz import texts

KEY = "language"


def language() -> str:
    """Return the session's language: the one chosen, else the browser's, else English."""
    chosen = st.session_state.get(KEY) or st.query_params.get("lang")
    if chosen in texts.LANGUAGES:
        return chosen
    return "zh" if (st.context.locale or "").lower().startswith("zh") else "en"


def say(key: str, /, **values: object) -> str:
    """Return a short text in the session's language."""
    return texts.text(key, language(), **values)


def of_method(method: str, key: str) -> str:
    """Return a method's own text in the session's language."""
    return texts.method_text(method, key, language())


def is_dark() -> bool:
    """Say whether the browser shows the dark theme."""
    return st.context.theme.type == "dark"
