"""The slide: crisp cells at their true places, nothing that overlaps or leaves the paper, files that repeat."""

import dataclasses
import io
import threading
import zlib
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from _slide_boards import board, swept
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import Circle, PathPatch
from PIL import Image

from fusionviz import fusion, scales
from fusionviz.board import Board, Map, Panel, PanelView
from fusionviz.errors import ExportError
from fusionviz.figures import canvas, fonts, slide
from fusionviz.selection import View

KINDS = ("element", "place", "bars", "numbers", "mix", "each", "graph", "rows", "marks")
LANGUAGES = ["en", pytest.param("zh", marks=pytest.mark.skipif(not fonts.cjk_family(), reason="no Chinese font here"))]
EQUATION = r"Z = M(X+Y) \otimes X + (1 - M(X+Y)) \otimes Y"
LONG = {
    "en": "Channel and spatial attention, one after the other, between two levels of one and the same deep network",
    "zh": "先通道后空间的注意力机制，作用于同一个深度网络的两个不同层级之间，并与直接相加的做法逐一比较其优劣得失",
}


def drawn(kind: str = "place", language: str = "en", view: View | None = None, *, dark: bool = False, **more: object):
    about = {"title": "Attentional Feature Fusion", "equation": EQUATION, "cite": "Dai et al., WACV 2021"} | more
    view = View(pin=(40, 20), pin_channel=6) if view is None else view
    return slide.slide(board(kind, language), view, language=language, dark=dark, **about)


def pixels(figure, dpi: int = 144) -> np.ndarray:
    file = io.BytesIO()
    slide.save(figure, file, "png", dpi=dpi)
    return np.asarray(Image.open(file).convert("RGB"))


def words(figure) -> list[str]:
    return [t.get_text() for t in figure.texts]


def placed(figure, window: tuple) -> list[tuple]:
    """The boxes of the maps that lie in a window, as parts of it."""
    x, y, w, h = window
    artists = [a for a in figure.artists if isinstance(a, canvas.Maps)]
    boxes = [b for a in artists for b in a.boxes if x <= b[0] and b[0] + b[2] <= x + w + 1e-6 and b[3] > 6]
    return [((bx - x) / w, (by - y) / h, bw / w) for bx, by, bw, _ in boxes if y <= by <= y + h]


# --- several levels ----------------------------------------------------------------------------------
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_pyramid_stands_on_the_slide_as_on_the_page(language: str) -> None:
    whole = board("place", language).with_views((("fused", "pyramid"),))
    figure = slide.slide(whole, View(pin=(40, 20), pin_channel=6), language=language, title="T")
    assert collisions(figure) == []
    wide = next(a.boxes[0] for a in figure.artists if isinstance(a, canvas.Maps))
    left = max(b[0] for a in figure.artists if isinstance(a, canvas.Maps) and len(a.boxes) == 4 for b in a.boxes[:1])
    found = placed(figure, (left, wide[1], wide[2], wide[3]))
    wanted = [m.box for m in whole["fused"].shown.maps]
    assert np.allclose(sorted(found), sorted(wanted), atol=1e-6)
    assert {"C4", "C8", "C16"} <= set(words(figure))


def test_shares_stand_under_a_mixture_in_the_colours_of_their_levels() -> None:
    figure = drawn("mix", view=View(pin=(40, 20)))
    shares = board("mix")["weight"].shown.shares
    written = {t.get_text(): t.get_color() for t in figure.texts}
    for m, colour in zip(shares, scales.branch_colours(3), strict=True):
        assert written[f"{m.label} {m.values[5, 10]:.2f}"] == colour
    unpinned = {t.get_text() for t in drawn("mix", view=View()).texts}
    assert {"s4", "s8", "s16"} <= unpinned
    assert "Weights of the levels" in unpinned, "a view may have a title of its own"


def test_a_graph_has_its_nodes_numbers_and_thick_edges() -> None:
    figure = drawn("graph", view=View())
    assert {"C4", "C16", "T4", "0.70", "0.30", "backbone", "top-down"} <= set(words(figure))
    thick = [a.get_linewidth() for a in figure.artists if isinstance(a, PathPatch) and a.get_facecolor()[3] == 0]
    assert thick[0] / thick[1] == pytest.approx(0.7 / 0.3)


def test_a_ring_says_who_asks() -> None:
    rings = [a for a in drawn("rows", view=View()).artists if isinstance(a, Circle)]
    assert len(rings) == 2 * 4, "dark and light, on every head"


# --- the paper ---------------------------------------------------------------------------------------
def collisions(figure) -> list[tuple[str, str]]:
    """Return pairs of texts that overlap, and (text, "edge") for those that leave the paper."""
    figure.set_dpi(144)
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [(t.get_text(), t.get_window_extent(renderer)) for t in figure.texts if t.get_text().strip()]
    wide, high = figure.get_size_inches() * figure.dpi
    found = [(a, "edge") for a, box in boxes if box.x0 < 8 or box.y0 < 8 or box.x1 > wide - 8 or box.y1 > high - 8]
    for i, (a, one) in enumerate(boxes):
        for b, two in boxes[i + 1 :]:
            across = min(one.x1, two.x1) - max(one.x0, two.x0)
            along = min(one.y1, two.y1) - max(one.y0, two.y0)
            if across > 1.5 and along > 1.5:
                found.append((a, b))
    return found


@pytest.mark.parametrize("pinned", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_nothing_overlaps(kind: str, language: str, pinned: bool) -> None:
    view = View(pin=(3, 60), pin_channel=24, range="map") if pinned else View(range="map")
    assert collisions(drawn(kind, language, view)) == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_nothing_overlaps_when_everything_is_long(language: str) -> None:
    whole = board("place", language)
    panels = []
    for p in whole.panels:
        views = tuple(
            dataclasses.replace(v, shape=v.shape + " → 1024 × 16 × 16", note=LONG[language] * 2) for v in p.views
        )
        panels.append(dataclasses.replace(p, title=p.title + " " + LONG[language], views=views))
    long = dataclasses.replace(whole, panels=tuple(panels), caption=LONG[language] * 2, credit=LONG[language] * 3)
    figure = slide.slide(
        long,
        View(pin=(40, 20), pin_channel=6),
        language=language,
        title=LONG[language] * 2,
        equation=EQUATION + " + " + EQUATION + " + " + EQUATION,
        cite=LONG[language] * 2,
        caption_lines=(LONG[language] * 3, "s4: 64 × 16 × 16"),
    )
    assert collisions(figure) == []


def test_the_check_can_fail() -> None:
    figure = drawn()
    figure.text(0.5, 0.5, "one")
    figure.text(0.5, 0.5, "one more")
    figure.text(0.99, 0.5, "over the edge")
    assert {("one", "one more"), ("over the edge", "edge")} <= set(collisions(figure))


@pytest.mark.parametrize("count", [1, 2, 4, 6])
@pytest.mark.parametrize("size", [(64, 64), (64, 128), (128, 64)])
def test_any_number_of_panels_of_any_shape(count: int, size: tuple[int, int]) -> None:
    whole = board("place")
    few = tuple(dataclasses.replace(whole.panels[i % 5], id=f"p{i}") for i in range(count))
    figure = slide.slide(dataclasses.replace(whole, size=size, panels=few), View(pin=(1, 1)), title="T", equation="X+Y")
    assert collisions(figure) == []
    for artist in figure.artists:
        if isinstance(artist, canvas.Maps):
            for x, y, w, h in artist.boxes:
                assert 0 < x < x + w < canvas.WIDTH
                assert 100 < y < y + h < canvas.HEIGHT - 30


# --- cells -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("side", "stride", "offset"), [(16, 4, 0.5), (16, 4, 2.0), (4, 16, 0.5), (4, 16, 8.0), (7, 9, 1.5), (5, 16, -2.0)]
)
def test_every_pixel_shows_the_cell_of_the_nearest_centre(side: int, stride: float, offset: float) -> None:
    values = np.random.default_rng(3).random((side, side)).astype(np.float32)
    shown = PanelView("v", "", "", "maps", "gate", (stride, stride), (offset, offset), (Map(values),))
    figure = slide.slide(Board((64, 64), (Panel("fused", "fused", "Z", (shown,)),)), View(), title="T")
    x, y, w, h = next(a for a in figure.artists if isinstance(a, canvas.Maps)).boxes[0]
    seen = pixels(figure)
    left, top = round(x * 2), round(y * 2)
    right, bottom = round((x + w) * 2), round((y + h) * 2)
    window = seen[top:bottom, left:right]
    centres = offset + stride * np.arange(side)
    index = []
    for dots in window.shape[:2]:
        places = (np.arange(dots) + 0.5) / dots * 64
        away = np.abs(places[:, None] - centres)
        # A dot between two centres may belong to either.
        index.append(np.where(np.sort(away, 1)[:, 1] - away.min(1) > 1e-6, away.argmin(1), -1))
    expected = scales.colour(values, 0, 1, "gate")[index[0]][:, index[1]]
    sure = (index[0] >= 0)[:, None] & (index[1] >= 0)[None]
    assert np.array_equal(window[sure], expected[sure])


def test_colours_follow_range_colormap_and_gamma() -> None:
    low = np.array([[0.0, 2.0]], np.float32)
    fused = np.array([[0.0, 8.0]], np.float32)
    panels = tuple(
        Panel(role, role, role, (PanelView("v", "", "", stride=(64, 32), offset=(32, 16), maps=(Map(v),)),))
        for role, v in (("low", low), ("fused", fused))
    )
    for mode, top in (("row", 2.0), ("map", 2.0), ("all", 8.0)):
        view = View(range=mode, colormap="magma", gamma=0.5)
        figure = slide.slide(Board((64, 64), panels), view, title="T")
        tile = next(a for a in figure.artists if isinstance(a, canvas.Maps)).tiles[0]
        assert np.array_equal(tile.rgb, scales.colour(low, 0, top, "sequential", "magma", 0.5))
        assert f"{top:g}" in words(figure)


def test_a_weight_per_place_lies_over_the_grey_picture() -> None:
    figure = drawn("place")
    tile = next(a for a in figure.artists if isinstance(a, canvas.Maps) and a.tiles[0].rgb.shape == (64, 64, 3)
                and not np.array_equal(a.tiles[0].rgb, board().panels[0].shown.maps[0].values)).tiles[0]  # fmt: skip
    weight = board("place")["weight"].shown
    heat = scales.colour(weight.maps[0].values, 0, 1, "weight")
    picture = board()["picture"].shown.maps[0].values
    grey = picture[40, 40] @ np.array([0.299, 0.587, 0.114])
    assert np.abs(tile.rgb[40, 40] - (0.7 * heat[10, 10] + 0.3 * grey)).max() <= 1


# --- what it says ------------------------------------------------------------------------------------
def test_the_pinned_place_and_its_sum() -> None:
    found = words(drawn("place"))
    assert "Place (40, 20), channel 6" in found
    assert "x 40  y 20" in found
    whole = board("place")
    weight = whole["weight"].shown.maps[0].values[5, 10]
    low, high = whole["low"].shown.maps[2].values[5, 10], whole["high"].shown.maps[2].values[1, 2]
    for value in (weight, low, high, weight * low + (1 - weight) * high):
        assert scales.number(value) in found, value
    assert any(t in ("=", "≈") for t in found)


def test_without_a_pin_there_is_no_sum() -> None:
    found = words(drawn("place", view=View()))
    assert not any(t.startswith("Place") or t in ("=", "≈") for t in found)


def test_without_an_equation_the_values_stand_alone() -> None:
    found = words(drawn("bars"))
    assert "Low X" in found
    assert "Place (40, 20), channel 6" in found
    assert found.count(scales.number(board("bars")["low"].shown.maps[2].values[5, 10])) == 1


@pytest.mark.parametrize(("dark", "theme"), [(False, canvas.LIGHT), (True, canvas.DARK)])
def test_random_weights_warn(dark: bool, theme: canvas.Theme) -> None:
    figure = slide.slide(board("place", random=True), View(), dark=dark, title="T")
    colours = [t.get_color() for t in figure.texts if t.get_text() == "random weights"]
    assert colours == [theme.warning[0]] * 3  # two badges and the caption
    calm = slide.slide(board("place", random=False), View(), dark=dark, title="T")
    assert theme.warning[0] not in [t.get_color() for t in calm.texts]


def test_titles_carry_the_colours_of_their_levels() -> None:
    for dark, theme in ((False, "light"), (True, "dark")):
        figure = drawn("element", dark=dark, view=View())
        by_text = {t.get_text(): t.get_color() for t in figure.texts}
        roles = scales.ROLE_COLOURS[theme]
        assert [by_text[t] for t in ("Low X", "High Y", "Fused Z")] == [roles[r] for r in ("low", "high", "fused")]
        assert (by_text["low"], by_text["s4"], by_text["s16"]) == (roles["low"], roles["low"], roles["high"])


def test_the_terms_of_the_equation_are_coloured() -> None:
    plain = slide.slide(Board((4, 4), ()), View(), equation=r"\mathrm{XYZ}(a)")
    coloured = slide.slide(Board((4, 4), ()), View(), equation=r"Z = \bar{X} + \frac{Y}{2}")
    fills = [{p.get_facecolor() for p in f.artists} for f in (plain, coloured)]
    assert [len(f) for f in fills] == [1, 4]


@pytest.mark.parametrize("method", fusion.names())
def test_every_method_s_equation_can_be_set(method: str) -> None:
    made = canvas.Canvas("en", canvas.LIGHT)
    wide = made.formula(20, 60, fusion.spec(method).equation, 22, 900)
    assert 20 < wide <= 900
    assert made.figure.artists


@pytest.mark.parametrize("signed", [True, False])
def test_odd_numbers_do_not_stop_a_slide(signed: bool) -> None:
    whole = board("place", signed=signed)
    odd = np.full((16, 16), np.nan, np.float32)
    views = (dataclasses.replace(whole["low"].shown, maps=(Map(odd, "0", 0), Map(odd * 0 + 2, "3", 3))),)
    panels = tuple(dataclasses.replace(p, views=views) if p.id == "low" else p for p in whole.panels)
    for view in (View(pin=(1, 1), pin_channel=0, range="map"), View(range="all"), View(pin=(1, 1), pin_channel=999)):
        assert collisions(slide.slide(dataclasses.replace(whole, panels=panels), view, title="T")) == []


def test_empty_boards_make_a_slide() -> None:
    bare = PanelView("v", "", "")
    for panels in ((), (Panel("low", "low", "", (bare,)),)):
        assert pixels(slide.slide(Board((8, 8), panels), View(pin=(1, 1))), 72).shape == (540, 960, 3)


# --- files -------------------------------------------------------------------------------------------
def test_png_is_sixteen_to_nine() -> None:
    assert pixels(drawn()).shape == (1080, 1920, 3)


@pytest.mark.parametrize("language", LANGUAGES)
def test_svg_holds_no_letters_and_no_outer_things(language: str) -> None:
    file = io.BytesIO()
    slide.save(drawn(language=language), file, "svg")
    root = ElementTree.fromstring(file.getvalue())
    names = {e.tag.rsplit("}", 1)[-1] for e in root.iter()}
    assert "path" in names
    assert "text" not in names
    images = [e for e in root.iter() if e.tag.endswith("}image")]
    assert images
    for e in images:
        assert e.get("{http://www.w3.org/1999/xlink}href").startswith("data:image/png")
        assert "pixelated" in e.get("style")
        assert float(e.get("transform").split("(")[1].split()[0]) * float(e.get("width")) > 1  # it has an extent


@pytest.mark.parametrize("language", LANGUAGES)
def test_pdf_embeds_fonts_that_readers_accept(language: str) -> None:
    file = io.BytesIO()
    slide.save(drawn(language=language), file, "pdf")
    data = file.getvalue()
    cff = language == "zh" and fonts.has_cff(fonts.cjk_family())
    assert (b"/Type3" in data) == cff
    assert (b"/FontFile2" in data) != cff
    for start in _streams(data):
        assert not start.startswith(b"OTTO")  # CFF under the label of TrueType


def _streams(data: bytes) -> list[bytes]:
    found = []
    for part in data.split(b"stream\n")[1:]:
        try:
            found.append(zlib.decompressobj().decompress(part, 4))
        except zlib.error:
            continue
    return found


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_slide_says_where_the_slider_stands(language: str) -> None:
    at = swept(language=language).at(2)
    figure = slide.slide(at, View(pin=(40, 20), pin_channel=6), language=language, title="AFF", equation=EQUATION)
    said = words(figure)
    assert {"en": "balance 1.00", "zh": "权衡 1.00"}[language] in said
    assert at.sweep.frames[2].facts in said
    assert collisions(figure) == []


def test_a_slide_shows_that_position_in_the_colours_of_all() -> None:
    def fused(at: int) -> np.ndarray:
        return pixels(slide.slide(swept().at(at), View()))

    assert not np.array_equal(fused(0), fused(2))
    still = swept()
    lowest, highest = scales.ranges(still)["fused", still["fused"].shown.key][0]
    for at in range(3):
        assert scales.ranges(still.at(at))["fused", still["fused"].shown.key][0] == (lowest, highest)
    largest = max(m.values.max() for m in still.at(2)["fused"].shown.maps)
    assert max(abs(lowest), highest) == pytest.approx(largest)


@pytest.mark.parametrize("kind", slide.FORMATS)
def test_files_repeat_and_tell_nothing_of_this_machine(kind: str) -> None:
    files = []
    for _ in range(2):
        file = io.BytesIO()
        slide.save(drawn(), file, kind)
        files.append(file.getvalue())
    assert files[0] == files[1]
    assert b"Attentional Feature Fusion" in files[0]
    for secret in (str(Path.cwd()), str(Path.home()) + "/", "CreationDate", "dc:date"):
        assert secret.encode() not in files[0]


def test_paths_choose_the_format(tmp_path: Path) -> None:
    figure = drawn()
    for kind, start in (("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")):
        target = tmp_path / f"slide.{kind.upper()}"
        slide.save(figure, target)
        assert target.read_bytes().startswith(start)
        assert slide.kind_of(target) == kind


@pytest.mark.parametrize("name", ["slide.jpg", "slide", "slide.", "a/b.tar.gz"])
def test_unknown_formats_are_named(name: str) -> None:
    with pytest.raises(ExportError) as mistake:
        slide.kind_of(name)
    assert "png, svg, pdf" in mistake.value.text("en")
    assert "png, svg, pdf" in mistake.value.text("zh")
    with pytest.raises(ExportError):
        slide.save(drawn(), io.BytesIO(), "gif")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    target = tmp_path / "missing" / "slide.png"
    with pytest.raises(ExportError) as mistake:
        slide.save(drawn(), target)
    assert "missing" in mistake.value.text("en")
    assert "无法" in mistake.value.text("zh")
    assert not target.exists()


def test_threads_draw_what_one_alone_draws() -> None:
    jobs = [("place", False), ("bars", True), ("numbers", False), ("element", True)]

    def made(kind: str, dark: bool) -> bytes:
        file = io.BytesIO()
        slide.save(drawn(kind, dark=dark), file, "png", dpi=72)
        return file.getvalue()

    alone = [made(*job) for job in jobs]
    together: dict[int, bytes] = {}
    threads = [threading.Thread(target=lambda i=i: together.update({i: made(*jobs[i])})) for i in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[i] for i in range(len(jobs))] == alone
