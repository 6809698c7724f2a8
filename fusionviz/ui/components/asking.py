"""What is asked of a system, and what it says: a phrase above the board, and the sentence that came back."""

import html

import streamlit as st

from fusionviz import fusion, study, system_panels
from fusionviz.records import Words
from fusionviz.scenes import VOCABULARY, phrase_text
from fusionviz.selection import Selection
from fusionviz.study import StudyResult
from fusionviz.ui import session, words
from fusionviz.ui.words import say

ONE_THING = ("ram", "dram")
"""They were trained on scenes with one thing, and name one."""


def picture_for(method: str, picture: str) -> str:
    """Return a scene as a system was trained on it: with one thing, or with all of them; another picture as it is."""
    if not picture.startswith("scene:"):
        return picture
    whole = ":".join(picture.split(":")[:2])
    return f"{whole}:1" if method in ONE_THING else whole if picture.endswith(":1") else picture


def _one_thing(on: object) -> None:
    picture = ":".join(session.selection().picture.split(":")[:2])
    session.change(picture=f"{picture}:1" if on else picture, pin=None)


def show(selection: Selection) -> None:
    """Let a person say what is looked for, where a system takes a phrase."""
    if selection.method in ONE_THING and selection.picture.startswith("scene:"):
        st.toggle(
            say("systems.one_thing"),
            help=say("systems.one_thing_help"),
            **session.mirror("one_thing", selection.picture.endswith(":1"), _one_thing),
        )
    if fusion.spec(selection.method).takes != "image+text":
        return
    said = selection.phrase or study.first_phrase(selection.picture)
    known = study.phrases(selection.picture)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="asking"):
        st.text_input(
            say("systems.phrase"),
            width=360,
            help=say("systems.phrase_help"),
            **session.mirror("phrase", said, lambda v: session.change(phrase=str(v).strip() or None)),
        )
        if known:
            offered = list(dict.fromkeys(known))
            titles = {phrase: phrase_text(phrase, words.language()) for phrase in offered}
            st.selectbox(
                say("systems.phrases"),
                offered,
                index=None,
                width=300,
                format_func=lambda phrase: titles.get(phrase, phrase),
                placeholder=say("systems.phrases_none"),
                **session.mirror(
                    "phrase_of_scene",
                    said if said in offered else None,
                    lambda phrase: session.change(phrase=phrase or None),
                ),
            )
        with st.popover(say("systems.words")):
            st.markdown(" · ".join(f"`{word}` {phrase_text(word, words.language())}".strip() for word in VOCABULARY))


def answer(found: StudyResult) -> None:
    """Show the sentence that a system said, beside what stands in the scene."""
    told = next((o for o in found.result.outputs.values() if isinstance(o, Words)), None)
    if told is None:
        return
    language = words.language()
    said = system_panels.sentence(told.words, language) or say("systems.nothing")
    st.html(f'<div class="said"><span>{html.escape(say("systems.says"))}</span> <b>{html.escape(said)}</b></div>')
