"""The app as a class uses it: every control, an upload, hover, zoom, pin, links, back and forward, a slide."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.browser
ROOT = Path(__file__).resolve().parents[2]
SMALL = "?size=96&img=sample:coffee&net=resnet18&m=aff"


class App:
    """One browser with the app open."""

    def __init__(self, page, frames, settled, url: str) -> None:
        self.page, self.frames, self._settled, self.url = page, frames, settled, url

    def go(self, query: str = SMALL) -> "App":
        self.page.goto(self.url + query)
        self.page.locator("[data-panel=fused] canvas").first.wait_for(timeout=120_000)
        return self.settle()

    def settle(self) -> "App":
        self._settled(self.page)
        return self

    def title(self) -> str:
        return self.page.locator("h3").first.inner_text()

    def query(self) -> dict[str, str]:
        from fusionviz import state

        return state.parse_text(self.page.url)

    def pick(self, key: str, label: str) -> None:
        box = self.page.locator(f".st-key-{key} input")
        box.click()
        box.fill(label)
        self.page.get_by_role("option", name=re.compile("^" + re.escape(label))).first.click()
        self.settle()

    def segment(self, key: str, label: str) -> None:
        self.page.locator(f".st-key-{key} button", has_text=re.compile(f"^{re.escape(label)}$")).click()
        self.settle()

    def point(self, panel: str, x: float = 0.5, y: float = 0.5) -> tuple[float, float]:
        box = self.page.locator(f"[data-panel={panel}] .over").bounding_box()
        return box["x"] + x * box["width"], box["y"] + y * box["height"]

    def shape(self, panel: str) -> str:
        return self.page.locator(f"[data-panel={panel}] .shape").inner_text()

    def warnings(self) -> str:
        return "\n".join(self.page.locator("[data-testid=stAlert]").all_inner_texts())


@pytest.fixture(scope="session")
def app_url(serve, tmp_path_factory) -> str:
    home = tmp_path_factory.mktemp("home")
    return serve(ROOT / "app.py", {"TORCH_HOME": str(home / "torch"), "FUSIONVIZ_CACHE": str(home / "cache")})


@pytest.fixture
def app(page, frames, settled, app_url: str) -> App:
    return App(page, frames(page), settled, app_url).go()


def test_the_first_page_is_a_finished_board(app: App) -> None:
    assert app.title() == "Attentional Feature Fusion"
    for panel in ("picture", "low", "high", "weight", "fused"):
        assert app.page.locator(f"[data-panel={panel}]").is_visible()
    assert "64×24×24 → 24×24×24" in app.shape("low")  # a fit to the picture: the maps as they meet
    assert "256×6×6 → 24×24×24" in app.shape("high")
    badges = {
        panel: app.page.locator(f"[data-panel={panel}] .badge").inner_text() for panel in ("low", "high", "fused")
    }
    assert set(badges.values()) == {"random weights"}
    assert app.page.locator("[data-panel=weight] .badge").inner_text() == "fitted to this picture"
    assert app.page.locator(".flow .node").count() >= 8
    assert app.page.locator(".status").inner_text().count("ms") >= 3
    # Everything is on the first screen, nothing scrolled.
    assert app.page.locator(".flow .graph").bounding_box()["y"] < 900
    assert app.page.evaluate("document.documentElement.scrollWidth") <= 1440


def test_every_control_changes_the_board_and_the_link(app: App) -> None:
    app.pick("method", "SE")
    assert "Squeeze" in app.title()
    assert app.query()["m"] == "se"
    app.pick("backbone", "SqueezeNet 1.1")
    assert app.query()["net"] == "squeezenet1_1"
    app.pick("picture", "Chelsea")
    assert app.query()["img"] == "sample:chelsea"
    app.segment("low_level", "s2")
    assert app.query()["lo"] == "s2"
    app.segment("high_level", "s16")
    assert app.query()["hi"] == "s16"
    app.segment("knob_se_on", "Low")
    assert app.query()["k.on"] == "low"
    app.pick("show", "PCA")
    assert app.query()["show"] == "pca"
    app.page.locator(".st-key-gallery button").nth(2).click()
    app.settle()
    assert app.query()["img"] not in ("sample:chelsea", "sample:coffee")
    app.segment("language_switch", "中文")
    assert app.page.locator("h3").first.inner_text() != ""
    assert app.query()["lang"] == "zh"
    assert "融合方法" in app.page.locator("section[data-testid=stSidebar]").inner_text()


def test_framing_moves_the_crop_and_changes_the_size(app: App) -> None:
    app.page.get_by_role("button", name="Framing").click()
    app.settle()
    app.segment("fit", "Whole, padded")
    assert app.query()["fit"] == "pad"
    app.pick("size", "128")
    assert "64×32×32" in app.shape("low")


def test_hover_zoom_and_drag_send_nothing(app: App) -> None:
    before = app.frames.count
    values = set()
    for i in range(12):
        app.page.mouse.move(*app.point("low", 0.1 + 0.06 * i, 0.4))
        app.page.wait_for_timeout(20)
        values.add(app.page.locator(".maths").inner_text())
    app.page.mouse.move(*app.point("fused"))
    app.page.mouse.wheel(0, -300)
    app.page.mouse.down()
    app.page.mouse.move(*app.point("fused", 0.6, 0.6), steps=4)
    app.page.mouse.up()
    app.page.wait_for_timeout(400)
    assert len(values) > 3, "the arithmetic follows the pointer"
    assert app.frames.count == before


def test_a_pin_is_kept_in_the_link_and_comes_back_elsewhere(app: App, pages, frames, settled) -> None:
    app.page.mouse.click(*app.point("picture", 0.25, 0.75))
    app.page.wait_for_url(re.compile("[?&]pin="))
    app.settle()
    pin = app.query()["pin"]
    x, y = map(int, pin.split(","))
    assert abs(x - 24) <= 1
    assert abs(y - 72) <= 1
    place = app.page.locator(".place").inner_text()
    assert "pinned" in place
    other = pages()
    elsewhere = App(other, frames(other), settled, app.url).go("?" + app.page.url.split("?", 1)[1])
    assert elsewhere.page.locator(".place").inner_text() == place
    assert elsewhere.page.locator(".maths").inner_text() == app.page.locator(".maths").inner_text()


def test_colours_chosen_on_the_board_are_kept_in_the_link(app: App) -> None:
    app.page.locator("[data-tool=colormap] select").select_option("magma")
    app.page.wait_for_url(re.compile("map=magma"))
    app.settle()
    assert app.query()["map"] == "magma"
    app.page.locator("[data-tool=range] select").select_option("all")
    app.page.wait_for_url(re.compile("range=all"))
    assert app.query()["range"] == "all"


def test_the_slider_of_a_fit_goes_into_the_link_and_comes_back(app: App, pages, frames, settled) -> None:
    value, slider = app.page.locator(".slidervalue"), app.page.locator(".sweep input")
    assert value.inner_text() == "0.50"
    assert "at" not in app.query()
    before, row = app.frames.count, app.page.locator("[data-panel=weight]").bounding_box()
    slider.focus()
    app.page.keyboard.press("End")
    app.page.wait_for_url(re.compile("[?&]at=1"))
    app.settle()
    assert app.frames.count == before + 1, "one message to the server, after the last key"
    assert app.page.locator("[data-panel=weight]").bounding_box() == row
    facts = app.page.locator(".facts").inner_text()
    other = pages()
    elsewhere = App(other, frames(other), settled, app.url).go("?" + app.page.url.split("?", 1)[1])
    assert (elsewhere.page.locator(".slidervalue").inner_text(), value.inner_text()) == ("1.00", "1.00")
    assert elsewhere.page.locator(".facts").inner_text() == facts
    app.page.go_back()
    app.page.wait_for_function("!location.search.includes('at=')")
    app.settle()
    assert value.inner_text() == "0.50"
    app.page.go_forward()
    app.page.wait_for_url(re.compile("at=1"))
    app.settle()
    assert value.inner_text() == "1.00"
    app.pick("method", "iAFF")
    assert "at" not in app.query(), "another method's slider stands at its own start"
    assert value.inner_text() == "0.50"
    app.pick("method", "Add")
    assert not app.page.locator(".sweep").is_visible()


def test_back_and_forward_walk_through_the_choices(app: App) -> None:
    app.pick("method", "CBAM")
    app.pick("method", "FPN")
    assert app.query()["m"] == "fpn"
    app.page.go_back()
    app.page.wait_for_url(re.compile("m=cbam"))
    app.settle()
    assert "Block Attention" in app.title()
    app.page.go_forward()
    app.page.wait_for_url(re.compile("m=fpn"))
    app.settle()
    assert "Pyramid" in app.title()


def test_a_nonsense_link_is_answered_and_the_rest_kept(app: App) -> None:
    app.go("?size=96&m=nonsense&net=resnet18&img=sample:chelsea&grid=7")
    assert "nonsense" in app.warnings()
    assert "4, 9, 16, 25" in app.warnings()
    assert app.page.locator("[data-panel=fused]").is_visible()


def picture(side: tuple[int, int] = (80, 60)) -> bytes:
    ramp = np.linspace(0, 255, side[0] * side[1] * 3).reshape(side[1], side[0], 3).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(ramp).save(file, "PNG")
    return file.getvalue()


def upload(app: App, name: str, data: bytes) -> None:
    if not app.page.locator("[data-testid=stFileUploaderDropzone]").is_visible():
        app.page.get_by_role("button", name="Upload").first.click()
    app.page.locator("[data-testid=stFileUploaderDropzone]").wait_for()
    app.page.locator("[data-testid=stFileUploaderDropzoneInput]").set_input_files(
        {"name": name, "mimeType": "application/octet-stream", "buffer": data}
    )
    app.page.wait_for_timeout(600)
    app.settle()


def test_an_upload_is_shown_and_said_not_to_travel(app: App) -> None:
    upload(app, "my photo.png", picture())
    assert (
        "my photo.png" in app.page.locator(".st-key-picture").inner_text()
        or "my photo" in app.page.locator(".st-key-picture input").input_value()
    )
    assert "img" not in app.query()
    app.page.keyboard.press("Escape")
    app.page.get_by_role("button", name="Link").first.click()
    app.settle()
    assert "cannot travel" in app.warnings()


@pytest.mark.parametrize(
    ("name", "data"), [("notes.txt", b"no picture at all"), ("cut.png", picture()[:200]), ("empty.png", b"")]
)
def test_a_bad_upload_is_a_sentence_and_costs_nothing(app: App, name: str, data: bytes) -> None:
    before = app.page.url
    upload(app, name, data)
    assert name in app.warnings()
    assert app.page.url == before
    assert app.page.locator("[data-panel=fused]").is_visible()
    assert app.page.locator("[data-testid=stException]").count() == 0


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_the_slide_can_be_downloaded(app: App, kind: str) -> None:
    app.page.get_by_role("button", name="Export").first.click()
    app.settle()
    app.segment("export_format", kind.upper())
    with app.page.expect_download(timeout=60_000) as waiting:
        app.page.get_by_role("button", name="Download slide").click()
    data = Path(waiting.value.path()).read_bytes()
    assert waiting.value.suggested_filename == f"fusionviz_resnet18_aff.{kind}"
    assert {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[kind] in data[:200]


def test_milliseconds_come_on_demand(app: App) -> None:
    assert " ms" not in app.page.locator(".flow .graph").inner_text()
    app.page.locator(".flow .ask").click()
    app.page.wait_for_timeout(300)
    app.settle()
    assert " ms" in app.page.locator(".flow .graph").text_content()


def test_methods_and_lessons_are_one_click_away(app: App) -> None:
    app.page.get_by_role("link", name="Methods").first.click()
    app.settle()
    app.page.get_by_role("button", name="Open on the board").nth(1).wait_for()
    app.page.get_by_role("link", name="Lessons").first.click()
    app.settle()
    app.page.get_by_text("What to look at").first.wait_for()
    assert app.page.locator(".katex-error").count() == 0
    app.page.get_by_role("link", name="Explore").first.click()
    app.settle()
    app.page.locator("[data-panel=fused] canvas").first.wait_for()
    assert app.title() == "Attentional Feature Fusion"  # the choice survived the walk
    assert app.query()["size"] == "96"


def test_the_dark_theme_has_its_own_level_colours(pages, frames, settled, app_url: str) -> None:
    page = pages(dark=True)
    app = App(page, frames(page), settled, app_url).go()
    colour = app.page.locator("[data-panel=low] .title").evaluate("e => getComputedStyle(e).color")
    assert colour == "rgb(86, 180, 233)"  # #56B4E9
