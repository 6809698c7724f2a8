"""The board in a real Chromium: what it draws, what it answers to pointer and keys, and what it tells the server."""

import base64
import io
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from _boards import BALANCES, BOXES, CHANNELS, LOW, ON_SECOND, SIDE, START, WAY, WORDS, attentional, levels, odd, swept
from PIL import Image

from fusionviz import scales
from fusionviz.board import Board, PanelView
from fusionviz.scales import ROLE_COLOURS

pytestmark = pytest.mark.browser
APP = Path(__file__).with_name("_board_app.py")
PANELS = ("picture", "low", "high", "weight", "fused")

# Streamlit mounts the component in an open shadow root, which CSS selectors pierce but scripts do not.
ROOT = "document.querySelector('[data-testid=stBidiComponentIsolated]').shadowRoot.querySelector('.board')"


class Driver:
    """The board on one page, as a person uses it."""

    def __init__(self, page, frames) -> None:
        self.page, self.frames = page, frames

    def box(self, panel: str, part: str = ".over") -> dict:
        return self.page.locator(f"[data-panel={panel}] {part}").bounding_box()

    def point(self, panel: str, x: float, y: float, tile: tuple[int, int, int] = (0, 0, 1)) -> tuple[float, float]:
        """Return the page's coordinates of a place of the picture on a panel; `tile` is (column, row, side)."""
        box, (column, row, side) = self.box(panel), tile
        gap = 2 if side > 1 else 0
        width = (box["width"] + gap) / side
        place = [(v + 0.5) / SIDE * (width - gap) + i * width for v, i in ((x, column), (y, row))]
        return box["x"] + place[0], box["y"] + place[1]

    def hover(self, panel: str, x: float, y: float, tile: tuple[int, int, int] = (0, 0, 1)) -> None:
        self.page.mouse.move(*self.point(panel, x, y, tile))
        self.painted()

    def click(self, panel: str, x: float, y: float, tile: tuple[int, int, int] = (0, 0, 1)) -> None:
        self.page.mouse.click(*self.point(panel, x, y, tile))

    def painted(self) -> None:
        self.page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def foot(self, panel: str) -> str:
        """Return what the foot says of the place: `channel 27 = 7.78`."""
        return self.page.locator(f"[data-panel={panel}] .value").get_attribute("title")

    def ends(self, panel: str) -> tuple[str, str]:
        return tuple(self.page.locator(f"[data-panel={panel}] .end").all_inner_texts())

    def sum(self) -> str:
        return self.page.locator(".maths").inner_text()

    def view(self, panel: str, key: str) -> None:
        """Choose a view by its button, or in the list that takes the buttons' place where they do not fit."""
        button = self.page.locator(f"[data-panel={panel}] button[data-key={key}]")
        if button.is_visible():
            button.click()
        else:
            self.page.locator(f"[data-panel={panel}] .pick").select_option(key)
        self.painted()

    def read(self, expression: str) -> object:
        """Evaluate JavaScript with `root`, the board's element."""
        return self.page.evaluate(f"() => {{ const root = {ROOT}; return {expression}; }}")

    def pixels(self, panel: str, layer: str = "base") -> np.ndarray:
        """Return a canvas as uint8 [h w 4]."""
        url = self.read(f"root.querySelector('[data-panel={panel}] .{layer}').toDataURL()")
        return np.array(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGBA"))

    def told(self) -> list[dict]:
        return json.loads(self.page.locator("#told").inner_text())

    def wait_told(self, count: int) -> list[dict]:
        """Wait until the server heard of `count` changes."""
        self.page.wait_for_function(
            "count => JSON.parse(document.querySelector('#told')?.innerText ?? '[]').length >= count", arg=count
        )
        return self.told()

    def quiet(self, ms: int = 700) -> None:
        """Wait longer than the board waits before it reports."""
        self.page.wait_for_timeout(ms)


@pytest.fixture
def open_board(serve, pages, frames, settled):
    """Return `open_board(query, **page options) -> Driver`."""
    url = serve(APP)

    def start(query: str = "", **options) -> Driver:
        page = pages(**options)
        counted = frames(page)
        page.goto(f"{url}?{query}")
        page.wait_for_selector(".board .panel .base")
        settled(page)
        driver = Driver(page, counted)
        driver.painted()
        return driver

    return start


def aff() -> Board:
    return attentional(WORDS["en"])


def cell(view: PanelView, values: np.ndarray, x: int, y: int) -> float:
    """Return the number of the cell whose centre is nearest to a place."""
    centres = [view.offset[i] + np.arange(values.shape[i]) * view.stride[i] for i in (0, 1)]
    row, column = (int(np.argmin(np.abs(c - (p + 0.5)))) for c, p in zip(centres, (y, x), strict=True))
    return float(values[row, column])


NUMBER = r"−?[\d.]+(?:×10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)?"


def value_of(text: str) -> float:
    """Read the number at the end of `channel 27 = −7.78` or of `1.83×10⁻⁴`."""
    found = re.search(f"{NUMBER}$", text)[0]
    return float(found.replace("×10", "e").translate(str.maketrans("−⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "--0123456789")))


def last_digit(text: str) -> float:
    """Return what one step of the last digit of a number is worth."""
    mantissa, _, power = text.partition("×10")
    scale = value_of("1×10" + power) if power else 1.0
    return scale * (10.0 ** -len(mantissa.partition(".")[2]) if text != "0" else 0.01)


def shown(panel: str, channel: int | None = None):
    view = aff()[panel].shown
    entry = next(m for m in view.maps if channel is None or m.channel == channel)
    return view, entry.values


# --- what it looks like ------------------------------------------------------------------------------
@pytest.mark.parametrize(("width", "height"), [(1440, 900), (1920, 1080)])
def test_panels_stand_on_the_same_lines_and_nothing_overlaps(open_board, width: int, height: int) -> None:
    board = open_board(width=width, height=height)
    for part in ("", ".head", ".sub", ".stage", ".scale", ".foot"):
        boxes = [board.page.locator(f"[data-panel={p}] {part}".strip()).bounding_box() for p in PANELS]
        assert len({round(b["y"]) for b in boxes}) == 1, part
        assert len({round(b["y"] + b["height"]) for b in boxes}) == 1, part
    stages = [board.box(p, ".stage") for p in PANELS]
    assert all(abs(s["width"] - s["height"]) < 1 for s in stages)
    assert all(a["x"] + a["width"] < b["x"] for a, b in zip(stages, stages[1:], strict=False))
    overlaps = board.read(
        """[...root.querySelectorAll('.head, .sub, .foot')].flatMap(line => {
             const rects = [...line.children].map(c => c.getBoundingClientRect()).filter(r => r.width && r.height);
             rects.sort((a, b) => a.left - b.left);
             return rects.slice(1).filter((r, i) => rects[i].right > r.left + 0.5).map(() => line.className);
           })"""
    )
    assert overlaps == []
    bottom = board.page.locator(".sum").bounding_box()
    assert bottom["y"] + bottom["height"] < 0.6 * height


def test_titles_are_whole_and_long_shapes_keep_their_text(open_board) -> None:
    board = open_board(width=1290)  # as wide as beside the app's sidebar at 1440
    cut = board.read(
        "[...root.querySelectorAll('.title, .badge')].filter(n => n.scrollWidth > n.clientWidth + 1).length"
    )
    assert cut == 0
    shape = board.page.locator("[data-panel=high] .shape")
    assert shape.get_attribute("title") == "256 × 8 × 8 → 48 × 32 × 32 · stride 4"
    assert shape.inner_text().replace(" ", "").startswith("256×8×8→48×32×32")
    views = board.page.locator("[data-panel=weight] .views button")
    assert views.all_inner_texts() == ["place", "channels", "bars"]
    assert all(v.is_visible() for v in views.all())


def test_a_head_without_room_becomes_a_list_and_never_cuts_the_badge(open_board) -> None:
    board = open_board("case=odd", width=1100)  # six panels: 145 pixels each
    for panel in ("low", "high", "signed", "holes", "gate"):
        assert board.page.locator(f"[data-panel={panel}] .title").is_visible()
    gate = board.page.locator("[data-panel=gate]")
    assert gate.locator(".pick").is_visible()
    assert not gate.locator(".views").is_visible()
    assert gate.locator(".badge").evaluate("n => n.scrollWidth <= n.clientWidth")
    board.view("gate", "place")
    assert gate.get_attribute("data-view") == "place"


@pytest.mark.parametrize("dark", [False, True])
def test_roles_have_their_colours_in_both_themes(open_board, dark: bool) -> None:
    board = open_board(dark=dark)
    theme = "dark" if dark else "light"
    for role, colour in ROLE_COLOURS[theme].items():
        rgb = "rgb({}, {}, {})".format(*(int(colour[i : i + 2], 16) for i in (1, 3, 5)))
        assert board.read(f"getComputedStyle(root.querySelector('[data-panel={role}] .title')).color") == rgb
        spans = board.read(
            f"[...root.querySelectorAll('.maths [data-role={role}]')].map(s => getComputedStyle(s).color)"
        )
        assert spans
        assert set(spans) == {rgb}
    low = board.page.locator("[data-panel=weight] .title .term")
    assert low.inner_text() == "low"
    assert board.read("root.dataset.theme") == theme


def test_the_theme_is_followed_without_decoding_again(open_board) -> None:
    board = open_board()
    board.page.emulate_media(color_scheme="dark")
    board.page.wait_for_function(f"() => {ROOT}.dataset.theme === 'dark'")
    assert board.read("root.dataset.decoded") == "1"


def test_random_weights_are_a_warning_and_others_are_not(open_board) -> None:
    board = open_board()
    back = {
        p: board.read(f"getComputedStyle(root.querySelector('[data-panel={p}] .badge')).backgroundColor")
        for p in ("weight", "fused", "low")
    }
    assert board.page.locator("[data-panel=weight] .badge").inner_text() == "random weights"
    assert back["weight"] == back["fused"] != back["low"]
    assert not board.page.locator("[data-panel=picture] .badge").is_visible()


@pytest.mark.parametrize(("width", "columns"), [(1440, 5), (768, 2), (390, 1)])
def test_panels_wrap_on_tablets_and_phones(open_board, width: int, columns: int) -> None:
    board = open_board(width=width, height=1000)
    lefts = {round(board.box(p, ".stage")["x"]) for p in PANELS}
    assert len(lefts) == columns
    assert board.read("document.documentElement.scrollWidth <= innerWidth")


def test_it_speaks_chinese(open_board) -> None:
    board = open_board("lang=zh")
    board.hover("low", 40, 40, (0, 0, 3))
    assert board.foot("low").startswith("通道 27 =")
    assert board.ends("weight") == ("高层占优", "低层占优")
    board.page.keyboard.press("Tab")
    assert "低层" in board.page.locator("[data-panel=weight] .title .term").inner_text()
    board.page.locator(".round").click()
    assert "方向键" in board.page.locator(".help").inner_text()


# --- what it draws -----------------------------------------------------------------------------------
def centres(view: PanelView, side: int, pixels: int) -> np.ndarray:
    """Return the screen pixels in the middle of a map's cells along one axis, where they lie in the picture."""
    middle = (view.offset[0] + np.arange(side) * view.stride[0]) / SIDE * pixels
    return np.clip(np.round(middle - 0.5), 0, pixels - 1).astype(int)


def test_cells_have_the_colours_of_the_slide(open_board) -> None:
    board = open_board("case=odd")
    for panel, key, scale in (("high", "own", "phase"), ("gate", "place", "gate")):
        if panel == "gate":
            board.view("gate", "place")
            board.page.locator("[data-tool=overlay] input").fill("100")
        view = next(v for v in odd(WORDS["en"])[panel].views if v.key == key)
        values = view.maps[0].values
        drawn = board.pixels(panel)[..., :3].astype(int)
        at = centres(view, len(values), len(drawn))
        lo, hi = scales.limits(view)[0]
        expected = scales.colour(values, lo, hi, scale).astype(int)
        assert np.abs(drawn[np.ix_(at, at)] - expected).max() <= 3


def test_cells_are_crisp_and_lie_where_their_stride_says(open_board) -> None:
    board = open_board("case=odd")
    # Stride 8 and a first centre at 3.5: the borders are at 7.5, 15.5, ... and not at 8, 16, ...
    board.view("gate", "place")
    board.page.locator("[data-tool=overlay] input").fill("100")
    drawn = board.pixels("gate")[..., :3].astype(int)
    values = odd(WORDS["en"])["gate"].views[2].maps[0].values
    across = drawn[len(drawn) // 2]
    changes = np.flatnonzero(np.abs(np.diff(across, axis=0)).sum(1)) + 1
    borders = (3.5 + (np.arange(15) + 0.5) * 8) / SIDE * len(drawn)
    different = np.abs(np.diff(values[8 if values.shape[0] > 8 else 0])) > 0.02
    assert len(changes) >= different.sum() > 5
    for change in changes:  # every colour change is one step, at a border
        assert np.abs(borders - change).min() <= 0.51


def test_own_high_cells_cover_sixteen_pixels(open_board) -> None:
    board = open_board()
    board.view("high", "own")
    board.page.locator("[data-tool=range] select").select_option("map")
    board.page.mouse.dblclick(*board.point("high", 20, 20, (0, 0, 3)))
    board.page.mouse.move(5, 5)
    board.painted()
    drawn = board.pixels("high")[..., :3].astype(int)
    view = aff()["high"].views[0]
    values = view.maps[0].values
    at = centres(view, 8, len(drawn))[1:]  # the label lies on the first cell
    expected = scales.colour(values, float(values.min()), float(values.max()), "sequential").astype(int)[1:, 1:]
    assert np.abs(drawn[np.ix_(at, at)] - expected).max() <= 3


def test_a_weight_lies_over_the_grey_picture(open_board) -> None:
    board = open_board()
    slider = board.page.locator("[data-tool=overlay] input")
    slider.fill("0")
    grey = board.pixels("weight")[..., :3].astype(int)
    assert (np.ptp(grey, axis=2) == 0).all()
    assert np.ptp(grey) > 150
    slider.fill("50")
    half = board.pixels("weight")[..., :3].astype(int)
    slider.fill("100")
    full = board.pixels("weight")[..., :3].astype(int)
    assert np.abs(half - (grey + full) / 2).max() <= 2
    board.quiet()
    assert board.told() == []  # the overlay is no part of the view


def test_colour_map_gamma_and_range_are_applied(open_board) -> None:
    board = open_board("echo=0")
    view = aff()["fused"].shown
    peak = max(float(m.values.max()) for m in view.maps)
    side = (len(board.pixels("fused")) + 2) / 3

    def tile_colour(index: int) -> tuple[np.ndarray, float]:
        """Return the colour drawn for one cell in the lower right of a tile, and the cell's number."""
        row, column = divmod(index, 3)
        drawn = board.pixels("fused")[..., :3].astype(int)
        values = view.maps[index].values
        inner = side - 2
        r, c = 24, 21
        y, x = (round(i * side + (j + 0.5) / 32 * inner - 0.5) for i, j in ((row, r), (column, c)))
        return drawn[y, x], float(values[r, c])

    def expect(index: int, colormap: str, gamma: float, lo: float, hi: float) -> None:
        colour, value = tile_colour(index)
        wanted = scales.colour(np.array([[value]]), lo, hi, "sequential", colormap, gamma)[0, 0].astype(int)
        assert np.abs(colour - wanted).max() <= 4

    low_peak = min(float(m.values.min()) for m in view.maps)
    expect(4, "viridis", 1, low_peak, peak)
    board.page.locator("[data-tool=colormap] select").select_option("magma")
    expect(4, "magma", 1, low_peak, peak)
    board.page.locator("[data-tool=range] select").select_option("map")
    values = view.maps[4].values
    expect(4, "magma", 1, float(values.min()), float(values.max()))
    board.page.locator("[data-tool=gamma] input").fill("-0.6")
    expect(4, "magma", round(10**-0.3, 3), float(values.min()), float(values.max()))
    board.page.locator("[data-tool=range] select").select_option("all")
    every = [m.values for p in ("low", "high", "fused") for m in aff()[p].shown.maps]
    lo, hi = min(float(v.min()) for v in every), max(float(v.max()) for v in every)
    expect(4, "magma", round(10**-0.3, 3), lo, hi)
    assert {board.ends(p) for p in ("low", "high", "fused")} == {board.ends("low")}
    assert value_of(board.ends("low")[1]) == pytest.approx(hi, rel=5e-3)


def test_rare_maps_say_what_they_are(open_board) -> None:
    board = open_board("case=odd")
    board.hover("low", 60, 60, (0, 0, 3))
    assert board.foot("low") == "channel 27 = constant 0.250"
    board.hover("low", 60, 60, (1, 0, 3))
    assert board.foot("low") == "channel 3 = constant 0"
    side = board.pixels("low").shape[0] // 3
    assert np.ptp(board.pixels("low")[side // 2 : side - 4, 4 : side - 4].reshape(-1, 4), axis=0).max() == 0
    assert board.ends("high") == ("−π", "π")
    low, high = board.ends("signed")
    assert low == "−" + high
    board.hover("holes", 40, 24, (0, 0, 3))
    assert board.foot("holes") == "channel 27 = not a number"
    assert "not a number" in board.sum()
    board.hover("holes", 40, 60, (0, 0, 3))
    assert value_of(board.foot("holes")) >= 0


def test_branch_weights_are_large_numbers_in_their_levels_colours(open_board) -> None:
    board = open_board("case=odd")
    drawn = board.pixels("gate")[..., :3].reshape(-1, 3).tolist()
    for colour in (ROLE_COLOURS["light"]["low"], ROLE_COLOURS["light"]["high"]):
        assert drawn.count([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) > 200
    board.view("gate", "three")
    drawn = board.pixels("gate")[..., :3].reshape(-1, 3).tolist()
    for colour in scales.branch_colours(3):
        assert drawn.count([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) > 100


def test_device_pixels_are_used(open_board) -> None:
    board = open_board(device_scale_factor=2)
    width = board.read("[...root.querySelectorAll('.base')].map(c => c.width / c.clientWidth)")
    assert all(abs(w - 2) < 0.01 for w in width)


# --- the same place everywhere -----------------------------------------------------------------------
@pytest.mark.parametrize(("x", "y"), [(0, 0), (43, 87), (100, 20), (127, 127)])
def test_every_foot_tells_the_number_at_the_place(open_board, x: int, y: int) -> None:
    board = open_board()
    board.hover("fused", 64, 64, (1, 1, 3))  # channel 8
    board.hover("picture", x, y)
    picture = board.page.locator("[data-panel=picture] .hi").inner_text()
    assert picture.split() == ["x", str(x), "y", str(y)]
    for panel, channel in (("low", 8), ("high", 8), ("fused", 8), ("weight", None)):
        expected = cell(*shown(panel, channel), x, y)
        text = board.foot(panel)
        assert text.startswith("channel 8 = " if channel else "mean = ")
        assert value_of(text) == pytest.approx(expected, rel=6e-3, abs=6e-4)


def test_own_maps_are_read_at_their_own_stride_and_channels(open_board) -> None:
    board = open_board()
    board.view("high", "own")
    board.hover("high", 70, 33, (2, 0, 3))
    view = aff()["high"].views[0]
    assert board.foot("high").startswith("channel 102 = ")
    assert value_of(board.foot("high")) == pytest.approx(cell(view, view.maps[2].values, 70, 33), rel=6e-3, abs=1e-3)
    assert board.foot("low").startswith("channel 27 = ")  # high's own channel 102 is no channel of low


def outlined(board: Driver, panel: str) -> tuple[float, float, float, float]:
    """Return what the overlay marks on a panel with one map, in pixels of the picture: x0, x1, y0, y1."""
    marks = board.pixels(panel, "over")[..., 3] > 0
    rows, columns = np.flatnonzero(marks.any(1)), np.flatnonzero(marks.any(0))
    k = SIDE / len(marks)
    return columns[0] * k, (columns[-1] + 1) * k, rows[0] * k, (rows[-1] + 1) * k


@pytest.mark.parametrize(("panel", "tile", "x", "y"), [("picture", (0, 0, 1), 50, 90), ("low", (2, 1, 3), 81, 30)])
def test_the_crosshair_outlines_the_true_cell(open_board, panel: str, tile: tuple, x: int, y: int) -> None:
    board = open_board()
    board.hover(panel, x, y, tile)
    found = outlined(board, "weight")
    expected = (x // 4 * 4, x // 4 * 4 + 4, y // 4 * 4, y // 4 * 4 + 4)
    # The line is drawn around the cell: two screen pixels, a little more than one of the picture.
    assert np.allclose(found, expected, atol=2.2)
    assert found[0] < expected[0]
    assert found[1] > expected[1]


def test_the_crosshair_is_clipped_to_the_panel(open_board) -> None:
    board = open_board("case=odd")
    board.view("gate", "place")
    board.hover("picture", 127, 0)
    x0, x1, y0, y1 = outlined(board, "gate")
    assert (round(x1), round(y0)) == (SIDE, 0)
    assert x0 == pytest.approx(3.5 + 14.5 * 8, abs=2.2)
    assert y1 == pytest.approx(7.5, abs=2.2)


def test_pointing_zooming_and_dragging_send_nothing(open_board) -> None:
    board = open_board()
    board.quiet()
    before = board.frames.count
    for i in range(20):
        board.hover(PANELS[i % 5], 6 * i, 120 - 5 * i, (0, 0, 1))
    board.page.mouse.wheel(0, -400)
    board.painted()
    assert float(board.read("root.dataset.zoom")) > 2
    x, y = board.point("picture", 64, 64)
    board.page.mouse.move(x, y)
    board.page.mouse.down()
    board.page.mouse.move(x + 30, y + 20, steps=4)
    board.page.mouse.up()
    board.page.mouse.dblclick(*board.point("low", 30, 30, (1, 1, 3)))
    board.page.keyboard.press("Escape")
    board.page.keyboard.press("?")
    board.page.keyboard.press("Escape")
    board.quiet(1200)
    assert board.frames.count == before
    assert board.told() == []


def test_nothing_shifts_on_hover(open_board) -> None:
    board = open_board()
    measure = "[...root.querySelectorAll('.panel, .panel > *, .sum, .toolbar > *, .maths')].map(n => " \
        "(r => [r.x, r.y, n.className === 'maths' ? 0 : r.width, r.height])(n.getBoundingClientRect()))"  # fmt: skip
    board.hover("low", 3, 3, (0, 0, 3))
    before = board.read(measure)
    for x, y, tile in ((120, 8, (2, 0, 3)), (64, 64, (1, 1, 3)), (111, 127, (0, 2, 3))):
        board.hover("low", x, y, tile)
        assert board.read(measure) == before
    board.click("low", 111, 127, (0, 2, 3))
    assert board.read(measure) == before


# --- the arithmetic ----------------------------------------------------------------------------------
def test_the_arithmetic_says_equal_only_where_the_shown_digits_add_up(open_board) -> None:
    board = open_board()
    rng = np.random.default_rng(0)
    signs = set()
    for _ in range(30):
        x, y = rng.integers(0, SIDE, 2)
        index = rng.integers(0, 9)
        board.hover("fused", int(x), int(y), (index % 3, index // 3, 3))
        text = board.sum()
        found = re.fullmatch(r"N ([=≈]) N · N \+ \(1 − N\) · N".replace("N", f"({NUMBER})"), text)
        assert found, text
        sign = found[2]
        z, m, low, again, high = (value_of(found[i]) for i in (1, 3, 4, 5, 6))
        assert m == again
        value = m * low + (1 - m) * high
        adds_up = abs(value - z) < 0.5 * last_digit(found[1]) + 1e-9
        assert (sign == "=") == adds_up, text
        for shown_number, panel in ((z, "fused"), (low, "low"), (high, "high")):
            expected = cell(*shown(panel, CHANNELS[index]), int(x), int(y))
            assert shown_number == pytest.approx(expected, rel=6e-3, abs=6e-4)
        signs.add(sign)
    assert signs == {"=", "≈"}


def test_three_digits_and_a_factor_of_one_is_not_spoken(open_board) -> None:
    board = open_board()
    board.hover("fused", 60, 20, (0, 1, 3))
    assert "1 · (" not in board.sum()
    for number in re.findall(r"\d[\d.]*\d", board.sum()):
        assert len(number.replace(".", "").lstrip("0")) <= 3, board.sum()
    place = board.page.locator(".place").inner_text()
    assert place == "Place (60, 20), channel 12"


def test_the_place_says_where_the_arithmetic_speaks_of_maps_that_are_not_shown(open_board) -> None:
    board = open_board()
    assert board.page.locator(".place").inner_text() == "Place (64, 64), channel 27"
    before = board.sum()
    board.view("high", "own")
    assert board.page.locator(".place").inner_text() == "Place (64, 64), channel 27, aligned"
    assert board.sum() == before
    assert board.page.locator(".maths [data-role=high]").get_attribute("title") == "High Y, aligned"


def test_without_an_equation_the_numbers_stand_beside_their_names(open_board) -> None:
    board = open_board("case=odd")
    board.hover("signed", 60, 60, (2, 0, 3))
    assert re.match(r"Low X\s+\S+\s+High Y\s+−?\d", board.sum())


# --- pin, settings, keys -----------------------------------------------------------------------------
def test_a_click_pins_and_tells_the_server_once(open_board) -> None:
    board = open_board()
    board.hover("low", 50, 70, (1, 1, 3))
    before = board.frames.count
    board.click("low", 50, 70, (1, 1, 3))
    assert board.wait_told(1) == [{"pin": [50, 70], "pin_channel": 8}]
    board.quiet()
    assert board.frames.count == before + 1
    assert board.page.locator("#returned").inner_text() in ("{}", '{"pin": [50, 70], "pin_channel": 8}')
    board.page.mouse.move(2, 2)
    board.painted()
    assert board.page.locator(".place").inner_text() == "Place (50, 70), channel 8 · pinned"
    assert board.foot("high").startswith("channel 8 = ")
    board.click("low", 51, 71, (1, 1, 3))  # the same cell of stride 4
    assert board.wait_told(2)[1] == {"pin": None, "pin_channel": None}
    assert "pinned" not in board.page.locator(".place").inner_text()


def test_the_hovered_channel_comes_before_the_pinned_one(open_board) -> None:
    board = open_board()
    assert board.foot("fused").startswith("channel 27 = ")  # at first the first
    board.click("low", 50, 70, (1, 0, 3))
    board.wait_told(1)
    board.hover("fused", 20, 20, (0, 2, 3))
    assert board.foot("low").startswith("channel 5 = ")
    board.page.mouse.move(2, 2)
    board.painted()
    assert board.foot("low").startswith("channel 3 = ")


def test_escape_and_the_server_can_unpin(open_board, settled) -> None:
    board = open_board()
    board.click("fused", 30, 30, (0, 0, 3))
    board.wait_told(1)
    board.page.keyboard.press("Escape")
    assert board.wait_told(2)[1] == {"pin": None, "pin_channel": None}
    board.click("fused", 90, 30, (0, 0, 3))
    board.wait_told(3)
    settled(board.page)
    board.page.get_by_role("button", name="Unpin").click()
    settled(board.page)
    board.painted()
    assert "pinned" not in board.page.locator(".place").inner_text()
    board.quiet()
    assert len(board.told()) == 3  # what the server did is no change of this side's


def test_quick_changes_are_not_undone_by_the_echo_of_the_first(open_board, settled) -> None:
    board = open_board()
    for x in (20, 60, 100):
        board.click("picture", x, 40)
        board.page.wait_for_timeout(420)
    board.page.mouse.move(2, 2)
    board.quiet()
    settled(board.page)
    assert board.page.locator(".place").inner_text().startswith("Place (100, 40)")
    assert board.told()[-1]["pin"] == [100, 40]


def test_a_double_click_enlarges_the_channel_everywhere_and_pins_nothing(open_board) -> None:
    board = open_board()
    at = board.point("low", 64, 64, (1, 1, 3))
    board.page.mouse.dblclick(*at)
    board.painted()
    assert board.read("root.dataset.enlarged") == "yes"
    for panel in ("low", "high", "fused"):  # the whole canvas is now channel 8
        board.hover(panel, 10, 110)
        assert value_of(board.foot(panel)) == pytest.approx(cell(*shown(panel, 8), 10, 110), rel=6e-3, abs=6e-4)
        assert board.foot(panel).startswith("channel 8 = ")
    board.page.mouse.dblclick(*at)
    assert board.read("root.dataset.enlarged") == "no"
    board.quiet()
    assert board.told() == []


def test_settings_are_told_when_they_change(open_board, settled) -> None:
    board = open_board()
    before = board.frames.count
    board.page.locator("[data-tool=colormap] select").select_option("cividis")
    assert board.wait_told(1) == [{"colormap": "cividis"}]
    settled(board.page)
    board.page.locator("[data-tool=range] select").select_option("all")
    assert board.wait_told(2)[1] == {"range": "all"}
    settled(board.page)
    gamma = board.page.locator("[data-tool=gamma] input")
    gamma.focus()
    gamma.press("ArrowLeft")
    found = board.wait_told(3)[2]
    assert found.keys() == {"gamma"}
    assert found["gamma"] == pytest.approx(10**-0.025, rel=1e-2)
    settled(board.page)
    board.page.locator("[data-tool=aligned] input").click()
    assert board.wait_told(4)[3] == {"aligned": False}
    assert board.frames.count == before + 4
    assert board.read("[...root.querySelectorAll('.panel')].map(p => p.dataset.view)") == [
        "seen", "own", "own", "place", "fused",
    ]  # fmt: skip


def test_an_unanswered_change_is_told_again_with_the_next(open_board) -> None:
    board = open_board("echo=0")
    board.page.locator("[data-tool=colormap] select").select_option("gray")
    board.wait_told(1)
    board.page.locator("[data-tool=range] select").select_option("map")
    assert board.wait_told(2)[1] == {"colormap": "gray", "range": "map"}


def test_a_rerun_keeps_zoom_and_view_and_decodes_nothing(open_board, settled) -> None:
    board = open_board()
    board.view("weight", "channels")
    settled(board.page)
    board.hover("picture", 30, 30)
    board.page.mouse.wheel(0, -300)
    board.painted()
    zoom = board.read("root.dataset.zoom")
    board.page.get_by_role("button", name="Rerun").click()
    settled(board.page)
    assert board.read("[root.dataset.zoom, root.dataset.decoded]") == [zoom, "1"]
    board.page.get_by_text("Another", exact=True).click()
    board.page.wait_for_function(f"() => {ROOT}.dataset.decoded === '2'")
    assert board.read("[root.dataset.zoom, root.querySelector('.caption').textContent]") == [zoom, "another board"]
    assert board.read("root.querySelector('[data-panel=weight]').dataset.view") == "channels"


def test_zoom_moves_all_panels_about_the_pointer(open_board) -> None:
    board = open_board()
    board.hover("picture", 96, 32)
    before = board.page.locator("[data-panel=picture] .hi").inner_text()
    unzoomed = board.pixels("weight").copy()
    board.page.mouse.wheel(0, -240)
    board.painted()
    assert board.read("root.dataset.zoom") == "2.00"
    assert not np.array_equal(board.pixels("weight"), unzoomed)
    x, y = board.point("picture", 96, 32)
    board.page.mouse.move(x + 0.3, y)
    board.painted()
    assert board.page.locator("[data-panel=picture] .hi").inner_text() == before
    x0, x1, *_ = outlined(board, "weight")
    assert x1 - x0 == pytest.approx(2 * 4, abs=3.5)
    board.page.mouse.dblclick(x, y)
    board.painted()
    assert board.read("root.dataset.zoom") == "1.00"
    assert np.array_equal(board.pixels("weight"), unzoomed)


def test_the_page_scrolls_where_there_is_nothing_to_zoom_out_of(open_board) -> None:
    board = open_board(width=768, height=500)
    board.hover("picture", 60, 60)
    before = board.box("picture")["y"]
    board.page.mouse.wheel(0, 200)
    board.page.wait_for_timeout(300)
    assert board.box("picture")["y"] < before
    assert board.read("root.dataset.zoom") == "1.00"


def test_keys_move_the_pin_change_channels_zoom_and_help(open_board) -> None:
    board = open_board()
    board.page.locator("[data-panel=low] .over").focus()
    board.page.keyboard.press("ArrowRight")
    board.page.keyboard.press("ArrowUp")
    # From the middle (64, 64), in the cell whose centre is at 66: one cell right and one up.
    found = board.wait_told(1)
    assert found == [{"pin": [70, 62], "pin_channel": 27}]
    board.page.keyboard.press("]")
    assert board.wait_told(2)[1] == {"pin_channel": 3}
    board.page.keyboard.press("[")
    board.page.keyboard.press("[")
    assert board.wait_told(3)[2] == {"pin_channel": 19}
    board.page.keyboard.press("+")
    board.painted()
    assert float(board.read("root.dataset.zoom")) == pytest.approx(1.5)
    board.page.keyboard.press("0")
    board.painted()
    assert board.read("root.dataset.zoom") == "1.00"
    board.page.keyboard.press("Enter")
    assert board.read("root.dataset.enlarged") == "yes"
    board.page.keyboard.press("Escape")
    assert board.read("root.dataset.enlarged") == "no"
    board.page.keyboard.press("?")
    assert board.page.locator(".help").is_visible()
    board.page.keyboard.press("Escape")
    assert not board.page.locator(".help").is_visible()


def test_canvases_are_named_and_reached_by_keyboard(open_board) -> None:
    board = open_board()
    labels = board.read("[...root.querySelectorAll('.over')].map(c => [c.tabIndex, c.getAttribute('aria-label')])")
    assert [tab for tab, _ in labels] == [0] * 5
    assert labels[1][1].startswith("Low X: aligned, 64 × 32 × 32 → 48 × 32 × 32 · stride 4.")
    board.page.locator("[data-panel=picture] .over").focus()
    board.page.keyboard.press("Tab")
    shadow = board.read("getComputedStyle(root.getRootNode().activeElement).outlineStyle + "
                        "getComputedStyle(root.getRootNode().activeElement).boxShadow")  # fmt: skip
    assert shadow != "nonenone"
    nameless = "!(n.getAttribute('aria-label') || n.textContent.trim() || n.closest('label'))"
    controls = "[...root.querySelectorAll('select, input, button')].filter(n => n.offsetParent)"
    assert board.read(f"{controls}.length") > 8
    assert board.read(f"{controls}.filter(n => {nameless}).length") == 0


def test_bars_are_sorted_and_name_the_channel_under_the_pointer(open_board) -> None:
    board = open_board()
    board.view("weight", "bars")
    heaviest = max(aff()["weight"].views[2].bars, key=lambda b: b.value)
    box = board.box("weight")
    board.page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 8)
    board.painted()
    assert board.foot("weight") == f"channel {heaviest.label} = {heaviest.value:.3f}"
    assert "–" in board.sum()  # a channel whose maps are not on the board has no numbers there
    board.hover("fused", 40, 40, (1, 1, 3))
    eight = next(b for b in aff()["weight"].views[2].bars if b.channel == 8)
    assert board.foot("weight") == f"channel 8 = {eight.value:.3f}"
    # The profile at the right starts with the heaviest channel and ends with the lightest.
    board.page.mouse.move(box["x"] + box["width"] - 4, box["y"] + box["height"] - 2)
    board.painted()
    lightest = min(aff()["weight"].views[2].bars, key=lambda b: b.value)
    assert board.foot("weight").startswith(f"channel {lightest.label} = ")


def test_reduced_motion_is_respected(open_board) -> None:
    durations = "[...root.querySelectorAll('button')].map(b => getComputedStyle(b).transitionDuration)"
    assert set(open_board(reduced_motion="reduce").read(durations)) == {"0s"}
    assert set(open_board().read(durations)) != {"0s"}


def test_the_helper_reads_the_nearest_centre() -> None:
    view = PanelView("own", "own", "", **LOW)
    values = np.arange(32 * 32, dtype=float).reshape(32, 32)
    assert cell(view, values, 0, 0) == 0
    assert cell(view, values, 4, 0) == 1
    assert cell(view, values, 127, 127) == 1023
    assert math.isclose(value_of("channel 3 = −0.25"), -0.25)


# --- the slider --------------------------------------------------------------------------------------
def slider(board: Driver):
    return board.page.locator(".sweep input")


def thumb(board: Driver, place: float) -> tuple[float, float]:
    """Return the page's coordinates of a place of the slider, 0 ... 1; the thumb's middle stays inside by its half."""
    box, half = slider(board).bounding_box(), 7
    return box["x"] + half + place * (box["width"] - 2 * half), box["y"] + 0.75 * box["height"]


def words_of(board: Driver) -> tuple[str, str]:
    return board.page.locator(".slidervalue").inner_text(), board.page.locator(".facts").inner_text()


def test_dragging_the_slider_redraws_without_the_server_and_tells_it_once_at_the_end(open_board) -> None:
    board = open_board("case=swept")
    sent, row = board.frames.count, board.box("weight")
    track = slider(board).bounding_box()
    seen, drawn = [], [board.pixels("weight")]
    board.page.mouse.move(*thumb(board, BALANCES[START]))
    board.page.mouse.down()
    for place in (0.58, 0.62, 0.7, 0.81, 0.9, 1.0):
        board.page.mouse.move(*thumb(board, place))
        board.painted()
        seen.append(words_of(board)[0])
        drawn.append(board.pixels("weight"))
        assert slider(board).bounding_box() == track
    board.quiet(400)
    assert board.frames.count == sent
    assert seen == ["0.60", "0.60", "0.60", "0.80", "0.80", "1.00"]
    changed = [not np.array_equal(a, b) for a, b in zip(drawn, drawn[1:], strict=False)]
    assert changed == [True, False, False, True, False, True]
    assert board.box("weight") == row
    board.page.mouse.up()
    assert board.wait_told(1) == [{"frame": 1.0}]
    board.quiet()
    assert board.frames.count == sent + 1
    assert board.told() == [{"frame": 1.0}]
    assert board.read("root.dataset.decoded") == "1", "the same maps are not decoded again"
    assert words_of(board)[0] == "1.00"


def test_the_start_of_the_slider_is_nothing_to_tell(open_board) -> None:
    board = open_board("case=swept&at=0.8")
    assert words_of(board)[0] == "0.80"
    slider(board).focus()
    board.page.keyboard.press("ArrowLeft")
    board.page.keyboard.press("ArrowLeft")
    assert words_of(board)[0] == "0.50"
    assert board.wait_told(1) == [{"frame": None}]
    board.quiet()
    assert len(board.told()) == 1


def test_numbers_facts_and_sum_are_those_of_every_position(open_board) -> None:
    board = open_board("case=swept")
    board.click("picture", 40, 70)
    board.wait_told(1)
    slider(board).focus()
    board.page.keyboard.press("Home")
    for position, frame in enumerate(swept(WORDS["en"]).sweep.frames):
        board.painted()
        assert words_of(board) == (frame.text, frame.facts)
        assert slider(board).get_attribute("aria-valuetext") == f"{frame.text}: {frame.facts}"
        view = next(p for p in frame.panels if p.id == "fused").shown
        z = cell(view, next(m.values for m in view.maps if m.channel == CHANNELS[0]), 40, 70)
        numbers = re.findall(NUMBER, board.sum())
        assert value_of(numbers[0]) == pytest.approx(z, abs=1.01 * last_digit(numbers[0]))
        a, x, _, again, y = (value_of(n) for n in numbers[1:])
        assert a == again
        rounding = sum(last_digit(n) for n in numbers) * max(1, abs(x - y))
        assert a * x + (1 - a) * y == pytest.approx(z, abs=rounding)
        assert " = " in board.sum() or " ≈ " in board.sum()
        board.page.keyboard.press("ArrowRight" if position % 2 else "ArrowUp")
    board.page.keyboard.press("PageDown")
    assert words_of(board)[0] == "0.50"


def test_a_colour_means_the_same_number_all_along_the_slider(open_board) -> None:
    board = open_board("case=swept")
    frames = swept(WORDS["en"]).sweep.frames
    views = [p.shown for f in frames for p in f.panels if p.id == "fused"]
    slider(board).focus()
    board.page.keyboard.press("Home")
    ends = set()
    for _ in frames:
        board.painted()
        ends.add(board.ends("fused"))
        board.page.keyboard.press("ArrowRight")
    values = [m.values for v in views for m in v.maps]
    assert len(ends) == 1
    low, high = map(value_of, ends.pop())
    lowest, highest = min(v.min() for v in values), max(v.max() for v in values)
    assert (low, high) == pytest.approx((lowest, highest), rel=0.01, abs=1e-6)
    board.page.locator("[data-tool=range] select").select_option("map")
    board.hover("fused", 40, 40, (1, 0, 3))
    one = [m.values for v in views for m in v.maps if m.channel == CHANNELS[1]]
    assert value_of(board.ends("fused")[1]) == pytest.approx(max(v.max() for v in one), rel=0.01)


def test_views_pin_zoom_and_enlarged_channel_outlast_the_slider(open_board) -> None:
    board = open_board("case=swept")
    board.view("weight", "channels")
    board.click("picture", 30, 90)
    board.wait_told(2)
    board.page.mouse.dblclick(*board.point("fused", 64, 64, (1, 0, 3)))
    board.hover("picture", 64, 64)
    board.page.mouse.wheel(0, -240)
    board.painted()
    place = board.page.locator(".place").inner_text()
    before = board.pixels("weight")
    slider(board).focus()
    board.page.keyboard.press("End")
    board.painted()
    assert not np.array_equal(board.pixels("weight"), before)
    assert board.page.locator(".place").inner_text() == place
    assert board.read("root.querySelector('[data-panel=weight]').dataset.view") == "channels"
    assert (board.read("root.dataset.enlarged"), board.read("root.dataset.zoom")) == ("yes", "2.00")
    told = board.wait_told(3)
    assert told[-1] == {"frame": 1.0}


def test_bars_keep_their_rows_while_their_numbers_change(open_board) -> None:
    board = open_board("case=swept")
    board.view("weight", "bars")
    board.hover("fused", 40, 40, (1, 1, 3))
    values = []
    slider(board).focus()
    for key in ("Home", "End"):
        board.page.keyboard.press(key)
        board.painted()
        values.append(board.foot("weight"))
    bars = [next(p for p in f.panels if p.id == "weight").views[2].bars for f in swept(WORDS["en"]).sweep.frames]
    expected = [next(b.value for b in frame if b.channel == 8) for frame in (bars[0], bars[-1])]
    assert [value_of(v) for v in values] == pytest.approx(expected, abs=6e-4)


def test_a_board_without_a_slider_has_no_row_for_one(open_board) -> None:
    plain, with_slider = open_board(), open_board("case=swept")
    assert not plain.page.locator(".sweep").is_visible()
    assert with_slider.page.locator(".sweep").is_visible()
    tall = with_slider.page.locator(".sweep").bounding_box()["height"]
    assert 30 < with_slider.box("low", ".head")["y"] - plain.box("low", ".head")["y"] < tall + 12 < 60


@pytest.mark.parametrize("width", [1440, 768, 390])
def test_the_slider_fits_every_width(open_board, width: int) -> None:
    board = open_board("case=swept", width=width, height=1000)
    assert board.read("document.documentElement.scrollWidth <= innerWidth")
    assert slider(board).bounding_box()["width"] > 120
    cut = "[...root.querySelectorAll('.sweep span, .sweep output')].filter(n => n.scrollWidth > n.clientWidth + 1)"
    assert board.read(f"{cut}.filter(n => getComputedStyle(n).display !== 'inline').length") == 0


# --- several levels ------------------------------------------------------------------------------------
def several() -> Board:
    return levels(WORDS["en"])


def on_box(board: Driver, panel: str, m, x: float, y: float) -> None:
    """Point at a place of the picture on a map that has a box."""
    box, (left, top, side) = board.box(panel), m.box
    across, down = ((v + 0.5) / SIDE * side for v in (x, y))
    board.page.mouse.move(box["x"] + (left + across) * box["width"], box["y"] + (top + down) * box["height"])
    board.painted()


def test_every_level_of_a_pyramid_reads_its_own_cell_and_has_the_crosshair(open_board) -> None:
    board, view = open_board("case=levels"), several()["fused"].shown
    ends = []
    for m in view.maps:
        on_box(board, "fused", m, 71, 40)
        at = PanelView("", "", "", stride=m.stride, offset=m.offset)
        # A small map has fewer pixels than the picture: the board says which place was pointed at.
        x, y = map(int, re.search(r"\((\d+), (\d+)\)", board.page.locator(".place").inner_text()).groups())
        assert (x, y) == (pytest.approx(71, abs=5), pytest.approx(40, abs=5))
        wanted, foot = cell(at, m.values, x, y), board.foot("fused")
        assert foot.startswith(f"{m.label} = ")
        assert abs(value_of(foot) - wanted) <= 0.51 * last_digit(foot)
        ends.append(board.ends("fused"))
        over = board.pixels("fused", "over")[..., 3] > 0
        size = len(over)
        for other in view.maps:
            left, top, side = (round(v * size) for v in other.box)
            rows, columns = np.nonzero(over[top : top + side, left : left + side])
            inner = (rows > 4) & (rows < side - 5) & (columns > 4) & (columns < side - 5)  # but for the frame
            if side < 30:
                continue
            stride = SIDE / other.values.shape[0]
            middle = [(v // stride + 0.5) * stride / SIDE * side for v in (y, x)]
            assert rows[inner].mean() == pytest.approx(middle[0], abs=2.5)
            assert columns[inner].mean() == pytest.approx(middle[1], abs=2.5)
    assert len(set(ends[:3])) == len(set(ends[3:])) == 1
    assert ends[0] != ends[3], "what came in and what came out have a range each"


def test_a_level_of_a_pyramid_fills_the_panel_when_enlarged(open_board) -> None:
    board, m = open_board("case=levels"), several()["fused"].shown.maps[1]
    box, (left, top, side) = board.box("fused"), m.box
    x, y = (box["x"] + (left + side / 2) * box["width"], box["y"] + (top + side / 2) * box["height"])
    board.page.mouse.dblclick(x, y)
    board.painted()
    board.hover("fused", 100, 20)
    at = PanelView("", "", "", stride=m.stride, offset=m.offset)
    foot = board.foot("fused")
    assert abs(value_of(foot) - cell(at, m.values, 100, 20)) <= 0.51 * last_digit(foot)
    assert board.told() == []


def test_a_mixture_reads_every_share_at_the_place(open_board) -> None:
    board, view = open_board("case=levels"), several()["weight"].shown
    board.hover("weight", 90, 33)
    parts = board.page.locator("[data-panel=weight] .share")
    texts = [re.fullmatch(r"(s\d+)\s*([\d.]+)", t.strip()) for t in parts.all_inner_texts()]
    assert [t[1] for t in texts] == ["s4", "s8", "s16"]
    at = PanelView("", "", "", **LOW)
    for t, m in zip(texts, view.shares, strict=True):
        assert float(t[2]) == pytest.approx(cell(at, m.values, 90, 33), abs=0.0051)
    colours = parts.evaluate_all("nodes => nodes.map(n => getComputedStyle(n).color)")
    assert len(set(colours)) == 3
    board.page.locator(".slider").first.fill("100")  # the overlay, whole: no grey picture below
    board.painted()
    pixels, rgb = board.pixels("weight"), view.maps[0].values
    assert np.array_equal(pixels[4, 4, :3], rgb[0, 0])
    assert np.array_equal(pixels[-5, 4, :3], rgb[-1, 0])


def test_a_graph_is_drawn_under_a_title_of_its_own(open_board) -> None:
    board = open_board("case=levels")
    title = board.page.locator("[data-panel=weight] .title")
    assert title.inner_text() == "Weights of the levels"
    board.view("weight", "graph")
    assert title.inner_text() == "Weights of the edges"
    pixels = board.pixels("weight")
    assert board.page.locator("[data-panel=weight] .scale").evaluate("n => getComputedStyle(n).visibility") == "hidden"
    size = len(pixels)
    thick = []
    for x, (top, bottom) in ((0.3, (0.8, 0.99)), (0.3, (0.2, 0.6))):
        column = pixels[round(top * size) : round(bottom * size), round(x * size), 3]
        thick.append(int((column > 0).sum()))
    assert thick[0] > 1.2 * thick[1] > 0, "0.70 is thicker than 0.30, though that one is cut at a slant"


def test_the_ring_stays_where_the_row_was_asked(open_board) -> None:
    board = open_board("case=levels")
    board.view("weight", "rows")
    for x, y in ((10, 10), (120, 90)):
        board.hover("picture", x, y)
        over = board.pixels("weight", "over")[..., 3] > 0
        half = len(over) // 2
        centre = round(40 / SIDE * half), round(72 / SIDE * half)
        ring = over[half + centre[1] - 9 : half + centre[1] + 9, half + centre[0] - 9 : half + centre[0] + 9]
        assert ring.any()
    board.hover("weight", 30, 90, (1, 0, 2))
    assert board.foot("weight").startswith("head 2 = ")
    lo, hi = board.ends("weight")
    most = max(float(m.values.max()) for m in several()["weight"].views[2].maps)
    assert (lo, value_of(hi)) == ("0", pytest.approx(most, rel=0.01))


def test_pointing_at_levels_graphs_and_rows_sends_nothing(open_board) -> None:
    board = open_board("case=levels")
    for key in ("graph", "rows", "mix"):
        board.view("weight", key)
        board.quiet(1500)
        before = board.frames.count
        for i in range(12):
            board.hover("weight", 10 * i, 120 - 9 * i)
            board.hover("fused", 10 * i, 120 - 9 * i)
        board.page.mouse.wheel(0, -300)
        board.quiet(1200)
        assert board.frames.count == before
        board.page.keyboard.press("0")


# --- marks -----------------------------------------------------------------------------------------------
def rgb(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def colour_of(mark, *, dark: bool = False) -> list[int]:
    return rgb(scales.mark_colour(mark.level, dark=dark))


def away(board: Driver, panel: str) -> np.ndarray:
    """Return what is drawn on a panel, int [h w 3], while nothing is pointed at."""
    board.page.mouse.move(5, 5)
    board.painted()
    return board.pixels(panel)[..., :3].astype(int)


def near(drawn: np.ndarray, colour: list[int], x: float, y: float, reach: int = 2) -> bool:
    """Whether exactly this colour is drawn at a pixel or `reach` pixels beside it."""
    row, column = (max(0, round(v) - reach) for v in (y, x))
    window = drawn[row : row + 2 * reach + 1, column : column + 2 * reach + 1]
    return bool((window == colour).all(-1).any())


@pytest.mark.parametrize("dark", [False, True])
def test_boxes_have_the_colours_of_their_levels_and_a_halo(open_board, dark: bool) -> None:
    board, plain = open_board("case=marked", dark=dark), open_board("case=aff", dark=dark)
    drawn, bare = away(board, "picture"), away(plain, "picture")
    k = len(drawn) / SIDE
    for mark in (m for m in BOXES if not m.faint):
        x0, y0, x1, y1 = np.clip(mark.box, 0, SIDE)
        colour = colour_of(mark, dark=dark)
        at = (max(x0 * k, 2), (y0 + 0.8 * (y1 - y0)) * k)
        assert near(drawn, colour, *at), mark.label
        assert near(drawn, rgb(scales.ink_on("#{:02x}{:02x}{:02x}".format(*colour))), *at, reach=3)
    inside = [round(v * k) for v in (52, 68)]  # between ring's box and the one for comparison
    assert np.array_equal(drawn[inside[1] - 4, inside[0]], bare[inside[1] - 4, inside[0]]), "a box is not filled"
    faint = next(m for m in BOXES if m.faint)
    across = drawn[round(faint.box[3] * k) - 2 : round(faint.box[3] * k) + 3, round(36 * k) : round(66 * k)]
    share = (across == colour_of(faint, dark=dark)).all(-1).any(0).mean()
    assert 0.3 < share < 0.8, "dashes"


def test_tags_stand_on_the_edges_of_their_boxes_and_do_not_overlap(open_board) -> None:
    board = open_board("case=marked")
    drawn = away(board, "picture")
    k = len(drawn) / SIDE
    ring, disc, cut, square = BOXES[:4]
    for mark, below in ((ring, False), (disc, False), (cut, False), (square, True)):  # the disc's box is above square's
        x, y = max(mark.box[0], 0) * k, (mark.box[3] + 1 if below else mark.box[1]) * k
        rows = slice(round(y) + 2, round(y) + 12) if below else slice(round(y) - 12, round(y) - 1)
        assert (drawn[rows, round(x) + 2] == colour_of(mark)).all(), mark.label
    wide = (drawn[round(cut.box[1] * k) - 3] == colour_of(cut)).all(-1)
    assert np.flatnonzero(wide)[-1] < 0.66 * len(drawn), "a long label is shortened"


def test_dots_are_filled_and_lines_lead_from_one_to_the_next(open_board) -> None:
    board = open_board("case=marked")
    drawn = away(board, "weight")
    k = len(drawn) / SIDE
    for mark in WAY:
        x, y = (np.clip(v * k, 10, len(drawn) - 10) for v in mark.box[:2])
        if mark.box[0] != mark.box[2]:
            continue
        beside = drawn[round(y) - 1 : round(y) + 2, round(x) - 7]
        assert (beside == colour_of(mark)).all() != mark.faint, mark
    for before, mark in ((WAY[1], WAY[2]), (WAY[2], WAY[3])):
        middles = [((m.box[0] + m.box[2]) / 2 * k, (m.box[1] + m.box[3]) / 2 * k) for m in (before, mark)]
        for part in (0.3, 0.5, 0.7):
            assert near(drawn, colour_of(mark), *((1 - part) * a + part * b for a, b in zip(*middles, strict=True)))


def test_marks_move_with_zoom_and_stay_where_their_map_is(open_board) -> None:
    board = open_board("case=marked")
    before, k = away(board, "picture"), board.pixels("picture").shape[0] / SIDE
    disc = BOXES[1]
    board.hover("picture", 96, 32)
    board.page.mouse.wheel(0, -240)
    drawn = away(board, "picture")
    assert board.read("root.dataset.zoom") == "2.00"
    x, y = ((v - at / 2) * 2 * k for v, at in ((disc.box[0], 96.5), (56, 32.5)))
    assert near(drawn, colour_of(disc), x, y)
    assert not near(drawn, colour_of(disc), disc.box[0] * k, 56 * k)
    board.page.keyboard.press("Tab")
    board.page.locator(".zoom").click()
    assert np.array_equal(away(board, "picture"), before)


def test_a_mark_is_on_its_own_map_and_small_maps_have_no_words(open_board) -> None:
    board = open_board("case=marked")
    board.view("weight", "rows")
    drawn = away(board, "weight")
    half = (len(drawn) - 2) / 2
    here, dot = ON_SECOND
    found = []
    for row in (0, 1):
        for column in (0, 1):
            x, y = ((half + 2) * i for i in (column, row))
            edge = x + here.box[0] / SIDE * half, y + 60 / SIDE * half
            found.append(near(drawn, colour_of(here), *edge))
            assert near(drawn, colour_of(dot), x + 16 / SIDE * half - 6, y + 112 / SIDE * half)
    assert found == [False, True, False, False]
    board.view("weight", "channels")
    small = away(board, "weight")
    ring, side = BOXES[0], len(small) / 3
    top = small[: round(ring.box[1] / SIDE * side) - 2, round(side / 4) : round(side * 0.6)]
    assert not (top == colour_of(ring)).all(-1).any(), "no tag above the box"


def test_the_smallest_box_under_the_pointer_says_its_whole_label(open_board) -> None:
    board = open_board("case=marked")
    board.quiet(1200)
    frames, credit = board.frames.count, board.page.locator("[data-panel=picture] .lo")
    for place, label in (
        ((100, 45), "square 0.40"),
        ((50, 66), "ring 0.93"),
        ((10, 100), BOXES[2].label),
        ((4, 4), "NASA"),
    ):
        board.hover("picture", *place)
        assert credit.inner_text() == label or credit.get_attribute("title") == label
        title = board.page.locator("[data-panel=picture] .over").get_attribute("title")
        assert title == ("" if label == "NASA" else label)
    board.page.mouse.move(5, 5)
    board.painted()
    assert credit.inner_text() == "NASA", "at rest it names who made the picture"
    board.hover("low", 50, 66)
    assert board.foot("low").startswith("channel 27 ="), "a number keeps its name"
    assert board.page.locator("[data-panel=low] .over").get_attribute("title") == "ring 0.93"
    board.quiet(1200)
    assert board.frames.count == frames


def test_marks_change_with_the_slider(open_board) -> None:
    board = open_board("case=swept")
    slider(board).focus()
    blue = rgb(scales.branch_colours(2)[0])
    for key, value in (("Home", 0.0), ("End", 1.0)):
        board.page.keyboard.press(key)
        board.painted()
        drawn = away(board, "picture")
        k = len(drawn) / SIDE
        for other in (0.0, 1.0):
            x = (16 + 96 * other) * k - 7
            assert near(drawn, blue, x, 112 * k) == (other == value)
