"""What a system reached on scenes that nobody had seen, beside the others of its kind."""

import streamlit as st

from fusionviz.study import StudyResult


def show(found: StudyResult) -> None:
    """Show the figures of the card."""
    if found.card is not None:
        st.json(dict(found.card.metrics))
