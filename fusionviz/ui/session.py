"""What a session holds: one Selection, mirrored in the address bar; widgets show it and change it, nothing else does.

The query is read when the session starts and whenever the browser goes back or forward, and written after
every run that changed the selection. Streamlit's own binding of widgets to the query is not used: it writes
labels, which differ by language, and drops bad values without a word.
"""

from collections.abc import Callable

import streamlit as st

from fusionviz import api, backbones, fusion, state, study
from fusionviz.errors import FusionvizError
from fusionviz.pictures import Picture
from fusionviz.selection import Selection
from fusionviz.ui import words

MOST_UPLOADS = 4
OWN = ("lesson",)
"""What of the query belongs to a page, and is nothing of the selection."""


def start(page: str) -> None:
    """Take over what the address bar says, where it says something new.

    Args:
        page: its address; the first page's is "".
    """
    s = st.session_state
    query = {key: value for key, value in st.query_params.to_dict().items() if key not in OWN}
    fresh = "selection" not in s
    if fresh:
        s.uploads, s.notices, s.device, s.kept = {}, (), None, {}
        s[words.KEY] = words.language()
    # Changing the page empties the query: the selection stays, and is written back.
    turned = not fresh and page != s.page and not query
    if fresh or (query != s.seen_query and not turned):
        mine = s.selection if not fresh else None
        s.selection, s.notices = state.read(query, api.catalogue())
        if mine is not None and "img" not in query and mine.picture in s.uploads:
            s.selection = s.selection.with_(picture=mine.picture)
        if query.get("lang") in words.texts.LANGUAGES:
            s[words.KEY] = query["lang"]
            s.language_chosen = True
        s.seen_query = query
    if turned:
        s.seen_query = query  # a page that ends early, to run again, must not read it as news
    if turned or (page == "systems" and not is_system()):
        _turn(page)
    s.page = page


def _turn(page: str) -> None:
    """Bring back what was chosen when this page was left: blocks and whole systems have a selection each."""
    s, wanted = st.session_state, page == "systems"
    if page not in ("", "systems") or is_system() is wanted:
        return
    old, plain = s.selection, Selection(method="fpn_detector") if wanted else Selection()
    s.kept[is_system()] = old
    new, same = s.kept.get(wanted, plain), ("picture", "fit", "crop", "seed")
    new = new.with_(**{name: getattr(old, name) for name in same}, pin=None)
    s.selection, s.notices = new.with_(picture=study.picture_for(new, old)), ()


def finish() -> None:
    """Write the selection to the address bar, if what stands there means something else."""
    s = st.session_state
    s.kept[is_system()] = s.selection
    query = link()
    there = st.query_params.to_dict()
    if query != there:
        means, _ = state.read(there, api.catalogue())
        if means != s.selection or there.get("lang") != query.get("lang"):
            st.query_params.from_dict(query)
            there = query
    s.seen_query = there


def link() -> dict[str, str]:
    """Return the query of what is on the board, with the language if one was chosen."""
    s = st.session_state
    language = {"lang": s[words.KEY]} if s.get("language_chosen") else {}
    return state.write_query(s.selection) | language


def selection() -> Selection:
    """Return what is chosen."""
    return st.session_state.selection


def open_method(key: str) -> None:
    """Show a method, or a whole system, on its page."""
    whole = fusion.spec(key).is_system
    if whole is not is_system():
        _turn("systems" if whole else "")
    change(method=key)
    st.switch_page(f"fusionviz/ui/pages/{'systems' if whole else 'explore'}_page.py")


def is_system() -> bool:
    """Say whether a whole system is chosen, which has a page of its own."""
    return fusion.spec(selection().method).is_system


def change(*, as_it_is: bool = False, **changes: object) -> None:
    """Change the selection; what no longer fits is let go: levels of another place, knobs of another method.

    Args:
        as_it_is: a scene stays with the things that it has; else a system gets it as it was trained on.
    """
    s = st.session_state
    old: Selection = s.selection
    new = old.with_(**changes)
    if not as_it_is and (new.picture, new.method) != (old.picture, old.method):
        new = new.with_(picture=study.picture_for(new, old))
    if new.backbone != old.backbone:
        new = new.with_(size=None)
        new = new.with_(weights="auto") if new.weights.startswith("file:") else new
    if new.picture != old.picture and new.phrase in study.phrases(old.picture):
        new = new.with_(phrase=None)  # it was said of a thing that is not there any more
    if (new.backbone, new.site, new.method) != (old.backbone, old.site, old.method):
        new = _placed(new)
    if new.method != old.method:
        spec, kept = fusion.spec(new.method), []
        for key, value in new.params:
            try:
                kept.append((key, spec.param(key).parse(value, spec.key)))
            except FusionvizError:  # a knob that the new method does not have
                continue
        new = new.with_(params=tuple(kept), pin_channel=None, channels=(), views=())
    if _place(new) != _place(old):
        # A step of one training is none of another's.
        new = new.with_(channels=(), pin_channel=None, frame=None, head="auto")
    s.selection, s.notices = new, ()


def _place(chosen: Selection) -> tuple:
    return chosen.backbone, chosen.site, chosen.low, chosen.high, chosen.method


def _placed(chosen: Selection) -> Selection:
    """Return a selection without a site and levels that its backbone and its method do not have."""
    stands = fusion.spec(chosen.method).stands
    there = [s.name for s in backbones.info(chosen.backbone).sites if not stands or s.kind == stands]
    chosen = chosen.with_(site=chosen.site if chosen.site in there else None)
    names = api.catalogue().levels(chosen)
    return chosen.with_(**{k: getattr(chosen, k) if getattr(chosen, k) in names else None for k in ("low", "high")})


def set_knob(key: str, value: object) -> None:
    """Turn one knob of the method; the paper's value needs no place in the link."""
    chosen = selection()
    others = tuple((k, v) for k, v in chosen.params if k != key)
    plain = study.resolve(chosen.with_(params=others)).knobs[key]
    change(params=others if value == plain else (*others, (key, value)))


def notify(*notices: FusionvizError) -> None:
    """Say something above the board until the next change."""
    st.session_state.notices = (*st.session_state.notices, *notices)


def keep_upload(picture: Picture) -> None:
    """Hold an uploaded picture for this session, and choose it."""
    uploads: dict[str, Picture] = st.session_state.uploads
    uploads[picture.key] = picture
    while len(uploads) > MOST_UPLOADS:
        uploads.pop(next(iter(uploads)))
    change(picture=picture.key)


def upload() -> Picture | None:
    """Return the chosen picture, if it is an upload of this session."""
    return st.session_state.uploads.get(selection().picture)


def mirror(key: str, value: object, changed: Callable[[object], None], *, empties: bool = False) -> dict:
    """Return what makes a widget show `value` and report a change: `st.slider(..., **mirror(...))`.

    Args:
        empties: whether a person can empty it, so that None is an answer.
    """
    # The browser answers with a widget's label, which differs by language: each language has widgets of its own.
    language = words.language()
    key = key if language == "en" else f"{key}_{language}"
    if st.session_state.get(key) != value:
        st.session_state[key] = value

    def report() -> None:
        told = st.session_state.get(key)
        if (
            told is None and value is not None and not empties
        ):  # a widget that a turned page has taken away says nothing
            return
        try:
            changed(told)
        except FusionvizError as mistake:  # callbacks run outside the page, where nobody else would catch it
            notify(mistake)

    return {"key": key, "on_change": report}
