"""What the features know: the classes that one linear reading finds in low only, in high only, and in the fused map."""

import base64
import html
import io

import numpy as np
import streamlit as st
from PIL import Image

from fusionviz.scales import CLASS_COLOURS, ROLE_COLOURS
from fusionviz.study import Prediction, StudyResult
from fusionviz.ui import words
from fusionviz.ui.words import of_method, say


def show(found: StudyResult) -> None:
    """Show one picture of classes for each reader, and the truth where there is one."""
    said = found.prediction
    if said is None:
        return
    roles = ROLE_COLOURS["dark" if words.is_dark() else "light"]
    names = {
        "low_only": (say("prediction.low_only"), roles["low"]),
        "high_only": (say("prediction.high_only"), roles["high"]),
        "fused": (of_method(found.selection.method, "short"), roles["fused"]),
    }
    figures = [_figure(said.maps[r].numpy(), name, colour, said.miou.get(r)) for r, (name, colour) in names.items()]
    if said.truth is not None:
        figures.append(_figure(said.truth.numpy(), say("prediction.truth"), "inherit", None))
    note = say("prediction.scene" if said.truth is not None else "prediction.photograph")
    st.html(
        f'<div class="knows"><div class="tell"><strong>{html.escape(say("prediction.title"))}</strong>'
        f"<p>{html.escape(note)}</p><div class='legend'>{_legend(said)}</div></div>{''.join(figures)}</div>"
    )


def _figure(classes: np.ndarray, name: str, colour: str, miou: float | None) -> str:
    palette = np.array(CLASS_COLOURS, np.uint8)
    file = io.BytesIO()
    Image.fromarray(palette[classes]).save(file, "PNG")
    source = base64.b64encode(file.getvalue()).decode()
    score = f"<b>{miou:.1f}</b>" if miou is not None else ""
    return (
        f'<figure><img alt="{html.escape(name)}" src="data:image/png;base64,{source}">'
        f'<figcaption><span style="color:{colour}">{html.escape(name)}</span>{score}</figcaption></figure>'
    )


def _legend(said: Prediction) -> str:
    maps = [*said.maps.values(), *([said.truth] if said.truth is not None else [])]
    there = sorted({int(c) for m in maps for c in np.unique(m.numpy())} - {0})
    chips = []
    for c in there:
        r, g, b = CLASS_COLOURS[c]
        name = html.escape(say(f"scenes.classes.{said.classes[c]}"))
        chips.append(f'<span><i style="background:rgb({r},{g},{b})"></i>{name}</span>')
    return "".join(chips)
