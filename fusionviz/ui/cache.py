"""What sessions share: opened models, the last studies, their boards. Bounded, keyed by content, never by file name."""

import gc
from dataclasses import replace

import streamlit as st

from fusionviz import exchange, fits, models, panels, pictures, study, weights
from fusionviz.board import Board
from fusionviz.errors import FusionvizError
from fusionviz.exchange import Exchanged
from fusionviz.pictures import Picture
from fusionviz.selection import Selection, View
from fusionviz.study import Prepared, StudyResult
from fusionviz.ui.components import board as canvas


@st.cache_resource(show_spinner=False)
def boot() -> bool:
    """Prepare the process for a class, once: nothing alive now needs to be looked at by the garbage collector."""
    models.serve()
    gc.collect()
    gc.freeze()
    return True


def picture(selection: Selection, upload: Picture | None) -> Picture:
    """Return the chosen picture; raises PictureError."""
    return upload if upload is not None else pictures.open_picture(selection.picture)


@st.cache_resource(show_spinner=False, max_entries=10)  # one with a slider holds up to 90 MB at 224 px
def _result(key: tuple, _selection: Selection, _picture: Picture, _device: str | None) -> StudyResult:
    return study.run(study.prepare(_selection, _picture, on=_device))


def result(selection: Selection, opened: Picture, device: str | None) -> StudyResult:
    """Return a study, from the last ones if it is there."""
    plain = study.resolve(selection).with_(view=View())
    network = study.published(plain) or selection.backbone
    stamp = weights.cached(network) is not None if selection.weights == "auto" else None
    key = (plain, opened.digest, device, stamp, fits.stamp(fits.subject(plain)))
    return _result(key, plain, opened, device)


@st.cache_resource(show_spinner=False, max_entries=24)
def _board(key: tuple, _result: StudyResult, _view: View, _language: str) -> tuple[Board, canvas.Encoded]:
    drawn = panels.build(_result, _view, _language)
    return drawn, canvas.encode(drawn, _language, digest=f"{hash(key) & 0xFFFFFFFFFFFFFFFF:016x}")


def board(found: StudyResult, view: View, language: str) -> tuple[Board, canvas.Encoded]:
    """Return the board of a study, and what of it travels whatever is set in the browser."""
    # Colours, range, pin and the slider's position are drawn in the browser: they need no new board.
    found = found.at(None)
    drawn = View(show=view.show, grid=view.grid, channels=view.channels, aligned=view.aligned, part=view.part)
    if panels.asks(found):  # unless the board shows the row of attention of the pinned place
        drawn = replace(drawn, pin=view.pin)
    if view.pin_channel is not None:
        base, _ = board(found, drawn, language)
        if view.pin_channel not in base.channels:
            drawn = replace(drawn, pin_channel=view.pin_channel)
    stops = tuple(frame.value for frame in found.sweep.frames) if found.sweep else ()
    key = (found.selection, found.picture.digest, found.device, found.provenance, stops, drawn, language)
    return _board(key, found, drawn, language)


@st.cache_resource(show_spinner=False, max_entries=24)
def _exchanged(key: tuple, _found: StudyResult, _frame: float | None) -> Exchanged:
    at = _found.selection.with_(frame=_frame)
    return exchange.exchange(study.prepare(at, _found.picture, on=_found.device))


def exchanged(found: StudyResult, frame: float | None) -> Exchanged:
    """Return a study with another picture's attention, at a position of its slider; raises FusionvizError."""
    stop = found.sweep.frames[found.sweep.nearest(frame)].value if found.sweep else None
    stamp = fits.stamp(fits.subject(found.selection))
    return _exchanged((found.selection, found.picture.digest, found.device, stop, stamp), found, stop)


def prepared(found: StudyResult) -> Prepared:
    """Return what a study ran on, for a profile of its steps."""
    return study.prepare(found.selection, found.picture, on=found.device)


def fetch(backbone: str, progress: object) -> FusionvizError | None:
    """Download published weights; returns the mistake, if it failed, to be shown beside the button."""
    try:
        weights.fetch(backbone, progress=progress)
    except FusionvizError as mistake:
        return mistake
    return None
