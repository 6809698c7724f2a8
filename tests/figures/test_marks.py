"""Marks on slides: at their places, in their levels' colours, with words that keep to the map and off each other."""

import dataclasses
import io
import itertools

import numpy as np
import pytest
from _slide_boards import BOXES, WAY, board
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from fusionviz import scales
from fusionviz.board import Board, Map, Mark, Panel, PanelView
from fusionviz.figures import canvas, marks, slide
from fusionviz.selection import View

SIZE = (64, 64)


def drawn(view: PanelView, *, dark: bool = False):
    """Return a slide of one panel, and the box of each map on it."""
    figure = slide.slide(Board(SIZE, (Panel("picture", "picture", "Picture", (view,)),)), View(), title="T", dark=dark)
    return figure, next(a for a in figure.artists if isinstance(a, canvas.Maps)).boxes


def pixels(figure, dpi: int = 288) -> np.ndarray:
    file = io.BytesIO()
    slide.save(figure, file, "png", dpi=dpi)
    return np.asarray(Image.open(file).convert("RGB")).astype(int)


def grey(*found: Mark, maps: int = 1) -> PanelView:
    """Return a view of grey maps with marks."""
    map_ = Map(np.full((*SIZE, 3), 128, np.uint8))
    return PanelView("seen", "seen", "3 × 64 × 64", scale="rgb", maps=(map_,) * maps, marks=found)


def rgb(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def at(shown: np.ndarray, box: tuple, x: float, y: float, dpi: int = 288) -> list[int]:
    """Return the colour at a place of the picture."""
    left, top = (box[i] + v / SIZE[1 - i] * box[2 + i] for i, v in ((0, x), (1, y)))
    return shown[round(top * dpi / 72 - 0.5), round(left * dpi / 72 - 0.5)].tolist()


@pytest.mark.parametrize("dark", [False, True])
def test_boxes_and_dots_have_their_colours_at_their_places(dark: bool) -> None:
    found = (
        Mark((16, 16, 48, 40), level=(0, 3)),
        Mark((8, 52, 8, 52), level=(1, 3)),
        Mark((40, 52, 40, 52), level=(2, 3), follows=True),
        Mark((-9, -9, 5, 5)),
    )
    figure, boxes = drawn(grey(*found), dark=dark)
    shown = pixels(figure)
    low, middle, high = (rgb(c) for c in scales.branch_colours(3, dark=dark))
    for place in ((16, 30), (48, 30), (30, 16), (30, 40)):
        assert at(shown, boxes[0], *place) == low
    assert at(shown, boxes[0], 32, 28) == [128, 128, 128]
    assert at(shown, boxes[0], 8, 52) == middle
    assert at(shown, boxes[0], 40, 52) == high
    assert at(shown, boxes[0], 24, 52) == high, "the line"
    assert at(shown, boxes[0], 5, 3) == [255, 255, 255], "of no level: the pin's colour"
    around = {tuple(at(shown, boxes[0], 16 + d, 30)) for d in np.linspace(-1, 1, 41)}
    assert tuple(rgb(scales.ink_on(scales.branch_colours(3, dark=dark)[0]))) in around, "the halo"


def test_a_box_that_leaves_the_picture_ends_at_its_border_and_one_beside_it_is_not_drawn() -> None:
    figure, boxes = drawn(grey(Mark((-10, 20, 80, 90), level=(0, 2))))
    shown, low = pixels(figure), rgb(scales.branch_colours(2)[0])
    box = boxes[0]
    inset = 64 * 1.3 / box[2]  # a line's middle, from the border
    assert at(shown, box, inset, 40) == at(shown, box, 64 - inset, 40) == at(shown, box, 32, 64 - inset) == low
    assert at(shown, box, 32, 20) == low
    nothing, _ = drawn(grey(Mark((70, 10, 90, 20), "out", (0, 2)), Mark((0, 0, float("nan"), 9), "nan", (0, 2))))
    bare, _ = drawn(grey())
    assert np.array_equal(pixels(nothing, 72), pixels(bare, 72))


def test_faint_marks_are_dashed_and_have_no_words() -> None:
    figure, boxes = drawn(grey(Mark((8, 8, 56, 56), "unsaid", (0, 2), faint=True)))
    shown, low = pixels(figure), rgb(scales.branch_colours(2)[0])
    along = [at(shown, boxes[0], x, 8) == low for x in np.linspace(12, 52, 200)]
    assert 0.3 < np.mean(along) < 0.8
    assert "unsaid" not in [t.get_text() for t in figure.texts]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_words_keep_to_their_maps(language: str) -> None:
    whole = board("marks", language)
    figure = slide.slide(whole, View(), language=language, title="T")
    figure.set_dpi(144)
    renderer = FigureCanvasAgg(figure).get_renderer()
    high = figure.bbox.height
    boxes = [a.boxes[0] for a in figure.artists if isinstance(a, canvas.Maps)]
    wide = [b for b in boxes if b[3] > 100]

    def kept(text: str) -> bool:
        found = [t.get_window_extent(renderer) for t in figure.texts if t.get_text() == text]
        return any(
            2 * x <= e.x0 and e.x1 <= 2 * (x + w) and 2 * y <= high - e.y1 and high - e.y0 <= 2 * (y + h)
            for e in found
            for x, y, w, h in wide
        )

    texts = [t.get_text() for t in figure.texts]
    said = [m.label for m in BOXES[:4]]
    cut = next(t for t in texts if t.startswith("a label that"))
    assert cut.endswith("…")
    for text in (*said[:2], cut, said[3], "1", "2", "3", "4"):
        assert kept(text), text
    assert "nowhere" not in texts


def test_a_mark_stands_on_its_own_map_and_small_maps_have_no_words() -> None:
    four, boxes = drawn(grey(Mark((16, 24, 48, 48), "here", (0, 2), on=1), Mark((8, 56, 8, 56), "1", (1, 2)), maps=4))
    words = [t.get_text() for t in four.texts]
    assert (words.count("here"), words.count("1")) == (1, 4)
    shown, low = pixels(four), rgb(scales.branch_colours(2)[0])
    assert [at(shown, b, 16, 36) == low for b in boxes] == [False, True, False, False]
    whole = board("marks")
    many = dataclasses.replace(whole["low"].shown, marks=(*BOXES[:2], *WAY))
    panels = tuple(dataclasses.replace(p, views=(many,)) if p.id == "low" else p for p in whole.panels)
    plain = [t.get_text() for t in slide.slide(whole, View(), title="T").texts]
    marked = [t.get_text() for t in slide.slide(dataclasses.replace(whole, panels=panels), View(), title="T").texts]
    assert marked == plain


def placed(*boxes: tuple, room: tuple = (0, 0, 170, 170)) -> list[marks.Placed]:
    return [marks.Placed(Mark(b, "x"), b, room, "#FFFFFF", "#111111") for b in boxes]


def overlaps(tags: list[tuple]) -> int:
    """Return how many pairs of tags hide each other by more than a box's line."""
    return sum(
        min(a[2], b[2]) - max(a[0], b[0]) > 1.4 and min(a[3], b[3]) - max(a[1], b[1]) > 1.4
        for a, b in itertools.combinations(tags, 2)
    )


def test_tags_of_boxes_at_one_place_do_not_overlap() -> None:
    found, tags = placed(*[(40, 40, 120, 120)] * 5), []
    for m in found:
        tags.append(marks.best_spot(m, 35, 10, tags, [m.rect]))
    assert overlaps(tags) == 0
    assert tags[0][3] == pytest.approx(40, abs=1), "the first stands on the upper edge"


def test_a_tag_never_leaves_its_map() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        (x0, x1), (y0, y1) = np.sort(rng.uniform(1, 169, (2, 2)))
        tag = marks.best_spot(placed((x0, y0, x1, y1))[0], rng.uniform(10, 160), 10, [], [])
        assert min(tag[:2]) >= 0
        assert max(tag[2:]) <= 170


def test_words_on_marks_can_be_read() -> None:
    def luminance(colour: str) -> float:
        part = np.array(rgb(colour)) / 255
        return float(
            np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]
        )

    for dark in (False, True):
        for colour in (*scales.branch_colours(6, dark=dark), scales.PIN_COLOUR):
            one, two = sorted((luminance(colour), luminance(scales.ink_on(colour))))
            assert (two + 0.05) / (one + 0.05) >= 4.5, colour
