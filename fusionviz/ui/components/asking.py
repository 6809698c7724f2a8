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


def _one_thing(on: object) -> None:
    scene = ":".join(session.selection().picture.split(":")[:2])
    session.change(picture=f"{scene}:1" if on else scene, pin=None, as_it_is=True)


def show(selection: Selection) -> None:
    """Let a person say what is looked for, where a system takes a phrase."""
    kind, *scene = selection.picture.split(":")
    if study.names_one_thing(selection) and kind == "scene":
        st.toggle(
            say("systems.one_thing"),
            help=say("systems.one_thing_help"),
            **session.mirror("one_thing", scene[1:] == ["1"], _one_thing),
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
                    empties=True,
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
