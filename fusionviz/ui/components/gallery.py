"""A strip of thumbnails; a click chooses a picture."""

import base64
import io
from collections.abc import Callable
from functools import lru_cache

import streamlit as st
from PIL import Image

from fusionviz import pictures
from fusionviz.errors import PictureError

_STRIP = st.components.v2.component(
    "fusionviz_gallery",
    html="<div class='strip' role='radiogroup'></div>",
    css="""
.strip { display: grid; grid-template-columns: repeat(5, 1fr); gap: 5px; padding: 2px; }
.strip button { padding: 0; border: 0; border-radius: 6px; aspect-ratio: 1; cursor: pointer; background: none;
  outline: 2px solid transparent; outline-offset: 1px; overflow: hidden; }
.strip button img { width: 100%; height: 100%; object-fit: cover; display: block; border-radius: 6px; }
.strip button[aria-checked='true'] { outline-color: var(--st-text-color); }
.strip button:focus-visible { outline-color: var(--st-link-color); }
""",
    js="""
export default function ({ data, parentElement, setTriggerValue }) {
  const strip = parentElement.querySelector('.strip');
  const have = [...strip.children].map((b) => b.dataset.key).join('|');
  if (have !== data.items.map((i) => i.key).join('|')) {
    strip.replaceChildren(...data.items.map((item) => {
      const button = document.createElement('button');
      const img = document.createElement('img');
      button.dataset.key = item.key;
      button.title = item.title;
      button.setAttribute('role', 'radio');
      button.setAttribute('aria-label', item.title);
      img.src = item.src;
      img.alt = '';
      button.append(img);
      return button;
    }));
  }
  for (const button of strip.children) {
    button.setAttribute('aria-checked', String(button.dataset.key === data.chosen));
    button.onclick = () => {
      // At once, before the server answers: a click has to feel like one.
      for (const other of strip.children) other.setAttribute('aria-checked', String(other === button));
      setTriggerValue('picked', button.dataset.key);
    };
  }
}
""",
)


@lru_cache(maxsize=64)
def _source(picture: str) -> str:
    pixels = pictures.thumbnail(pictures.open_picture(picture), 72)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _thumbnail(picture: str) -> str:
    held = st.session_state.uploads.get(picture)
    if held is None:
        return _source(picture)
    file = io.BytesIO()
    Image.fromarray(pictures.thumbnail(held, 72)).save(file, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def show(keys: list[str], chosen: str, picked: Callable[[str], None], *, key: str) -> None:
    """Show thumbnails of the pictures `keys`; call `picked` with the key of the one that is clicked."""
    from fusionviz.ui.words import language

    items = []
    for picture in keys:
        try:
            items.append({"key": picture, "title": _title(picture, language()), "src": _thumbnail(picture)})
        except PictureError:  # a file of the lecturer's folder that is none: choosing it by name says what is wrong
            continue
    _STRIP(
        data={"items": items, "chosen": chosen},
        key=key,
        on_picked_change=lambda: picked(st.session_state[key].picked),
    )


def _title(picture: str, language: str) -> str:
    held = st.session_state.uploads.get(picture)
    return held.title if held is not None else pictures.title(picture, language)
