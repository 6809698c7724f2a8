"""The controls: picture, backbone, levels, method and its knobs, view, device. Each shows the selection and sets it."""

import os
import unicodedata
from collections.abc import Callable, Iterable

import streamlit as st

from fusionviz import backbones, device, fusion, panels, pictures, study
from fusionviz.backbones import bundled
from fusionviz.errors import FusionvizError
from fusionviz.registry import Param, write
from fusionviz.selection import FITS, GRIDS, SHOWS, Selection
from fusionviz.state import PARTS
from fusionviz.ui import notices, session, words
from fusionviz.ui.components import gallery
from fusionviz.ui.words import of_method, say

_HERE = (None, "127.0.0.1", "::1")
ALIGNMENT = ("width", "resize", "norm")
SIZES = (96, 128, 160, 192, 224, 256, 288, 320, 384, 448, 512)


def brand(version: str) -> None:
    """Draw the name."""
    st.html(f'<div class="brand" title="{version}"><span class="low">fusion</span><span class="high">viz</span></div>')


def show(*, systems: bool = False) -> None:
    """Draw every control; a whole system has its own levels, and is chosen on its page."""
    _picture()
    if systems:
        _system()
    else:
        _backbone()
        _place()
        _levels()
        _method()
    _view()
    _device()


# --- picture -------------------------------------------------------------------------------------
def _picture() -> None:
    chosen = session.selection()
    keys = list(pictures.keys())
    uploads = st.session_state.uploads
    keys = [*reversed(uploads), *keys]
    if chosen.picture not in keys:
        keys.append(chosen.picture)
    gallery.show(keys[:10], chosen.picture, lambda key: session.change(picture=key), key="gallery")
    st.selectbox(
        say("control.picture"),
        keys,
        format_func=_labels(keys, _picture_title),
        label_visibility="collapsed",
        **session.mirror("picture", chosen.picture, lambda key: session.change(picture=key, pin=None)),
    )
    for note in uploads[chosen.picture].notes if chosen.picture in uploads else ():
        st.caption(say(f"pictures.notes.{note}"))
    left, right = st.columns(2, gap="xsmall")
    with left, st.popover(say("control.own_picture"), width="stretch", on_change="rerun", key="own_picture") as own:
        if own.open:
            _own_picture()
        else:
            st.session_state.upload_mistake = None
    with right, st.popover(say("control.framing"), width="stretch", on_change="rerun", key="framing") as framing:
        if framing.open:
            _framing()


def _labels(values: Iterable, name: Callable[[object], str]) -> Callable[[object], str]:
    """Return labels made once and for all of this run, in its language: widgets ask for them at any time."""
    made = {value: name(value) for value in values}
    return lambda value: made.get(value, str(value))


def _picture_title(key: str) -> str:
    if key in st.session_state.uploads:
        return st.session_state.uploads[key].title
    return pictures.title(key, words.language())


def _own_picture() -> None:
    received = {"on_change": _received}
    st.file_uploader(say("control.upload"), key="upload", help=say("control.upload_help"), args=("upload",), **received)
    if st.toggle(say("control.camera"), key="camera_on"):
        label = {"label": say("control.camera"), "label_visibility": "collapsed"}
        st.camera_input(key="camera", args=("camera",), **label, **received)
    mistake = st.session_state.get("upload_mistake")
    if mistake is not None:
        notices.mistake(mistake)


def _received(key: str) -> None:
    """Choose the picture that was sent; a file that is none is answered where it was chosen, and changes nothing."""
    sent = st.session_state[key]
    st.session_state.upload_mistake = None
    if sent is None:
        return
    try:
        session.keep_upload(pictures.open_picture(sent.getvalue(), name=sent.name))
    except FusionvizError as bad:
        st.session_state.upload_mistake = bad


def _framing() -> None:
    chosen = session.selection()
    st.segmented_control(
        say("control.fit"),
        FITS,
        format_func=_labels(FITS, lambda v: say(f"fit.{v}")),
        required=True,
        **session.mirror("fit", chosen.fit, lambda v: session.change(fit=v)),
    )
    if chosen.fit == "crop":
        for i, axis in enumerate(("x", "y")):

            def moved(value: float, i: int = i) -> None:
                crop = list(session.selection().crop)
                crop[i] = value
                session.change(crop=tuple(crop))

            st.slider(
                say(f"control.crop_{axis}"),
                0.0,
                1.0,
                step=0.05,
                **session.mirror(f"crop_{axis}", chosen.crop[i], moved),
            )
    wants = study.preprocessing(chosen)
    sizes = sorted({*(s for s in SIZES if s >= wants.minimum_px and s % wants.multiple == 0), wants.crop_px})
    sizes = [wants.crop_px] if wants.fixed else sizes
    if chosen.size and chosen.size not in sizes:
        sizes = sorted({*sizes, chosen.size})
    st.selectbox(
        say("control.size"),
        sizes,
        format_func=_labels(sizes, lambda s: say("control.size_own", px=s) if s == wants.crop_px else f"{s} px"),
        disabled=len(sizes) == 1,
        help=say("control.size_help"),
        **session.mirror(
            "size",
            chosen.size or wants.crop_px,
            lambda s: session.change(size=None if s == wants.crop_px else s, pin=None),
        ),
    )


# --- backbone ------------------------------------------------------------------------------------
def _backbone() -> None:
    chosen = session.selection()
    keys = backbones.names()
    st.selectbox(
        say("control.backbone"),
        keys,
        format_func=_labels(keys, backbones.title),
        **session.mirror("backbone", chosen.backbone, lambda key: session.change(backbone=key, pin=None)),
    )
    with st.expander(say("control.weights")):
        _weights(chosen)


def _weights(chosen: Selection) -> None:
    # A path of this machine may be named only by who sits at it: others could find out which files there are.
    sources = ("auto", "random", "file") if st.context.ip_address in _HERE else ("auto", "random")
    source = chosen.weights.split(":", 1)[0]

    def changed(value: str) -> None:
        st.session_state.asks_file = value == "file"
        if value != "file":
            session.change(weights=value)

    asks = st.session_state.get("asks_file", False)
    st.segmented_control(
        say("control.weights"),
        sources,
        format_func=_labels(sources, lambda s: say(f"weights.{s}")),
        required=True,
        width="stretch",
        label_visibility="collapsed",
        help=say("control.weights_help"),
        **session.mirror("weights", "file" if asks else source, changed),
    )
    st.number_input(
        say("control.seed"),
        0,
        2**31 - 1,
        help=say("control.seed_help"),
        **session.mirror("seed", chosen.seed, lambda n: session.change(seed=int(n))),
    )
    if "file" in sources and (asks or source == "file"):
        path = chosen.weights.removeprefix("file:") if source == "file" else ""
        st.text_input(
            say("control.weights_file"),
            placeholder="/…/weights.pth",
            help=say("control.weights_file_help"),
            **session.mirror("weights_file", path, _weights_file),
        )


def _weights_file(path: object) -> None:
    written = str(path).strip()
    session.change(weights=f"file:{written}" if written else "auto")


def _place() -> None:
    """Let a person choose where in the network is fused: between levels, or at a site of the network's own."""
    chosen = session.selection()
    stands = fusion.spec(chosen.method).stands
    sites = {s.name: s for s in backbones.info(chosen.backbone).sites if not stands or s.kind == stands}
    if not sites:
        return
    options = [*sites] if stands else ["", *sites]
    kind = next(iter(sites.values())).kind
    named = _blocks(kind, [s.block for s in sites.values()])
    names = {"": say("sites.none")} | dict(zip(sites, named, strict=True))
    found = study.site(chosen)
    st.selectbox(
        say("control.place", kind=say(f"sites.{kind}")),
        options,
        format_func=_labels(options, names.__getitem__),
        help=say("control.place_help"),
        **session.mirror("place", found.name if found else "", lambda v: session.change(site=v or None)),
    )


def _blocks(kind: str, paths: list[str]) -> list[str]:
    """Return the paths of modules as short as they stay telling: without the folder that all of them share, and without
    the kind in front of every part, which the control's label says."""
    shared = os.path.commonprefix(paths).rpartition(".")[0]
    short = [path[len(shared) + 1 :] for path in paths] if shared else paths
    short = short if all(path[:1].isalpha() for path in short) else paths
    plain = [".".join(part.removeprefix(kind) for part in path.split(".")) for path in short]
    return plain if all(part[:1].isalpha() for path in plain for part in path.split(".")) else short


def _levels() -> None:
    chosen = session.selection()
    info = backbones.info(chosen.backbone)
    try:
        site, infos = study.site(chosen), study.levels(chosen)
        low, high = study.default_levels(chosen)
    except FusionvizError:  # the page says that this method finds no place here; the levels stay at hand
        site, infos, low, high = None, info.levels, info.default_low, info.default_high
    names = [level.name for level in infos]
    low, high = chosen.low or low, chosen.high or high

    def low_changed(name: str) -> None:
        up = names[max(names.index(high), names.index(name) + 1)]
        session.change(low=name, high=up)

    def high_changed(name: str) -> None:
        down = names[min(names.index(low), names.index(name) - 1)]
        session.change(low=down, high=name)

    measure = "map" if site else "depth" if names[0].startswith("d") else "level"
    titles = [panels.map_title(chosen, name, words.language()) for name in names] if site else []
    if site and len(names) == 2:  # no choice: only what is what
        st.caption(say("sites.pair", low=titles[0], high=titles[1]))
        return
    rows = (("low", names[:-1], low, low_changed), ("high", names[1:], high, high_changed))
    for role, offered, value, changed in rows:
        widget = st.segmented_control if len(names) <= 6 else st.select_slider
        more = {"required": True, "width": "stretch"} if len(names) <= 6 else {}
        label = say(f"control.{role}_{measure}")
        widget(label, offered, **more, **session.mirror(f"{role}_level", value, changed))
    if titles and titles != names:
        st.caption("\\\n".join(titles))


# --- a whole system ------------------------------------------------------------------------------
def _system() -> None:
    chosen = session.selection()
    spec = fusion.spec(chosen.method)
    if not spec.is_system:
        return
    if study.takes_levels(chosen):
        keys = [*bundled.names(), *([chosen.backbone] if chosen.backbone not in bundled.names() else [])]
        st.selectbox(
            say("control.backbone"),
            keys,
            format_func=_labels(keys, backbones.title),
            help=say("systems.backbone_help"),
            **session.mirror("backbone", chosen.backbone, lambda key: session.change(backbone=key, pin=None)),
        )
    with st.expander(say("control.weights")):
        _weights(chosen)
    values = spec.parse(chosen.knobs)
    levels = [p.key for p in spec.params if p.key in study.takes_levels(chosen)]
    if levels:
        _used(levels, values)
    for param in spec.params:
        if param.key not in levels:
            _knob(param, values[param.key])


def _used(levels: list[str], values: dict) -> None:
    """Which levels are heard: one row of buttons for their knobs."""

    def changed(on: object) -> None:
        for key in levels:
            session.set_knob(key, key in (on or ()))

    st.segmented_control(
        say("systems.levels"),
        levels,
        selection_mode="multi",
        width="stretch",
        help=say("systems.levels_help"),
        **session.mirror("used_levels", [key for key in levels if values[key]], changed),
    )


# --- method --------------------------------------------------------------------------------------
def _method() -> None:
    chosen = session.selection()
    st.selectbox(
        say("control.method"),
        fusion.names(),
        format_func=_labels(fusion.names(), _method_name),
        **session.mirror("method", chosen.method, lambda key: session.change(method=key)),
    )
    spec = fusion.spec(chosen.method)
    try:
        values = study.resolve(chosen).knobs
    except FusionvizError:  # the page says what is wrong with the levels; the knobs stay at hand
        values = spec.parse(chosen.knobs)
    own = [p for p in spec.params if p.key not in ALIGNMENT]
    for param in own:
        _knob(param, values[param.key])
    shared = [p for p in spec.params if p.key in ALIGNMENT]
    if shared:
        with st.expander(say("control.alignment")):
            for param in shared:
                _knob(param, values[param.key])


def _method_name(key: str) -> str:
    """A method with its family, where both have room."""
    short = of_method(key, "short")
    whole = f"{short} · {say('families.' + fusion.spec(key).family)}"
    return whole if _width(whole) <= 26 else short


def _knob(param: Param, value: object) -> None:
    method = session.selection().method
    label = of_method(method, f"params.{param.key}.label")
    more = {
        "help": of_method(method, f"params.{param.key}.help"),
        **session.mirror(f"knob_{method}_{param.key}", value, lambda v: session.set_knob(param.key, v)),
    }
    if param.kind == "bool":
        st.toggle(label, **more)
    elif param.kind == "choice":
        name = _labels(param.choices, lambda v: _choice(method, param.key, v))
        # Each button has its own margins, so many short words need more room than few long ones.
        short = len(param.choices) <= 5 and sum(_width(name(c)) + 3 for c in param.choices) <= 29
        if short:
            st.segmented_control(label, param.choices, format_func=name, required=True, width="stretch", **more)
        else:
            st.selectbox(label, param.choices, format_func=name, **more)
    else:
        kind = type(param.default)
        step = kind(param.step or (1 if kind is int else 0.01))
        st.slider(label, kind(param.low), kind(param.high), step=step, **more)


def _width(words: str) -> int:
    """How wide words are, in Latin letters: a Chinese one takes two."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in words)


def _choice(method: str, key: str, value: object) -> str:
    try:
        return of_method(method, f"params.{key}.choices.{write(value)}")
    except LookupError:  # a bare number needs no name
        return write(value)


# --- what is shown -------------------------------------------------------------------------------
def _view() -> None:
    view = session.selection().view
    options = [f"grid-{n}" for n in GRIDS] + ["chosen"] + [s for s in SHOWS if s != "grid"]
    value = view.show if view.show != "grid" else "chosen" if view.channels else f"grid-{view.grid}"

    def changed(option: str) -> None:
        if option == "chosen":
            board = st.session_state.get("shown_channels", (0,))
            session.change(show="grid", channels=tuple(board))
        elif option.startswith("grid-"):
            session.change(show="grid", grid=int(option.removeprefix("grid-")), channels=())
        else:
            session.change(show=option, channels=())

    st.selectbox(
        say("control.show"),
        options,
        format_func=_labels(
            options, lambda o: say("show.grid", n=o.split("-")[1]) if o.startswith("grid-") else say(f"show.{o}")
        ),
        **session.mirror("show", value, changed),
    )
    if value == "chosen":
        written = ", ".join(map(str, view.channels))
        st.text_input(say("control.channels"), **session.mirror("channels", written, _channels))
    takes_complex = session.selection().method == "complex"
    if takes_complex:
        st.segmented_control(
            say("control.part"),
            PARTS,
            format_func=_labels(PARTS, lambda p: say(f"part.{p}")),
            required=True,
            **session.mirror("part", view.part, lambda p: session.change(part=p)),
        )


def _channels(written: object) -> None:
    numbers = [n for n in str(written).replace(",", " ").split() if n.isdigit()]
    session.change(channels=tuple(dict.fromkeys(int(n) for n in numbers))[:25])


# --- device --------------------------------------------------------------------------------------
def _device() -> None:
    there = device.available()
    st.selectbox(
        say("control.device"),
        there,
        format_func=_labels(there, lambda name: f"{name} · {device.title(name)}"),
        disabled=len(there) == 1,
        **session.mirror("device_name", st.session_state.device or there[0], _device_changed),
    )


def _device_changed(name: object) -> None:
    st.session_state.device = name
