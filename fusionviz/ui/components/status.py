"""The last line of the page: device, precision, milliseconds, memory; and milliseconds per step on demand."""

import streamlit as st

from fusionviz import device, study
from fusionviz.study import StudyResult
from fusionviz.ui import cache
from fusionviz.ui.words import say


def show(found: StudyResult) -> None:
    """Show what the picture on the board took, measured when it was computed."""
    parts = [f"{say(f'status.{name}')} <b>{ms:.1f} ms</b>" for name, ms in found.timings.items()]
    parts.append(f"<b>{device.title(found.device)}</b> {device.PRECISION}")
    if found.peak_bytes is not None:
        parts.append(f"{say('status.peak')} <b>{found.peak_bytes / 2**20:.0f} MiB</b>")
    parts.append(f'<span class="hint">{say("status.hint")}</span>')
    st.html('<div class="status">' + "".join(f"<span>{p}</span>" for p in parts) + "</div>")


def ask_step_times() -> None:
    """Remember that milliseconds per step are wanted for what is on the board."""
    st.session_state.profile_asked = True


def step_times(found: StudyResult) -> dict[str, float] | None:
    """Return milliseconds by step from a separate run, if somebody asked for them; they go with the board."""
    s = st.session_state
    about = (found.selection, found.picture.digest, found.device)
    if s.pop("profile_asked", False):
        s.profile = (about, study.profile(cache.prepared(found)))
    kept = s.get("profile")
    return kept[1] if kept is not None and kept[0] == about else None
