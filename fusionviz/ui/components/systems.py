"""The choice of a whole system: its kind, then which."""

import itertools

import streamlit as st

from fusionviz import fusion
from fusionviz import systems as catalogue
from fusionviz.ui import session
from fusionviz.ui.words import of_method, say


def choose() -> None:
    """Let a person choose a kind of system, and one of that kind."""
    chosen = session.selection()
    family = fusion.spec(chosen.method).family
    by_family = {
        name: list(keys) for name, keys in itertools.groupby(catalogue.names(), key=lambda k: catalogue.spec(k).family)
    }
    families = {name: say(f"families.{name}") for name in by_family}
    titles = {key: of_method(key, "short") for key in by_family[family]}
    one = {"required": True, "label_visibility": "collapsed"}
    with st.container(horizontal=True, vertical_alignment="center", gap="medium", key="which_system"):
        st.segmented_control(
            say("systems.kind"),
            list(families),
            format_func=families.__getitem__,
            **one,
            **session.mirror("system_family", family, lambda name: session.change(method=by_family[name][0])),
        )
        st.segmented_control(
            say("systems.which"),
            list(titles),
            format_func=lambda key: titles.get(key, key),
            **one,
            **session.mirror(f"system_{family}", chosen.method, lambda key: session.change(method=key)),
        )
