"""Whole systems in the browser: each kind opens, its knob changes what is shown, and nothing goes wrong on the way."""

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.browser
ROOT = Path(__file__).resolve().parents[2]


class SystemsPage:
    """The Systems page, opened by a link to the app's first page, as anybody would send one."""

    def __init__(self, page, settled, url: str) -> None:
        self.page, self._settled, self.url = page, settled, url

    def go(self, query: str) -> "SystemsPage":
        self.page.goto(self.url + query)
        self.page.locator("[data-panel=fused] canvas").first.wait_for(timeout=120_000)
        return self.settle()

    def settle(self) -> "SystemsPage":
        self._settled(self.page)
        return self

    def press(self, key: str, label: str) -> "SystemsPage":
        self.page.locator(f".st-key-{key} button", has_text=re.compile(f"^{re.escape(label)}$")).click()
        return self.settle()

    def notes(self) -> str:
        return self.page.locator(".board .sum").inner_text()

    def query(self) -> dict[str, str]:
        from fusionviz import state

        return state.parse_text(self.page.url)

    def titles(self) -> list[str]:
        return self.page.locator(".board [data-panel] .title").all_inner_texts()


@pytest.fixture(scope="session")
def app_url(serve, tmp_path_factory) -> str:
    home = tmp_path_factory.mktemp("home")
    return serve(ROOT / "app.py", {"TORCH_HOME": str(home / "torch"), "FUSIONVIZ_CACHE": str(home / "cache")})


@pytest.fixture
def systems_page(page, settled, app_url: str) -> SystemsPage:
    return SystemsPage(page, settled, app_url)


def test_a_link_to_a_system_opens_its_page_and_levels_are_switched_off(systems_page: SystemsPage) -> None:
    opened = systems_page.go("?m=fpn_detector&img=scene:21")
    assert "/systems" in opened.page.url
    assert "Detections" in " ".join(opened.titles())
    assert opened.page.locator("[data-panel]").count() >= 4
    opened.press("used_levels", "s8")
    assert opened.query()["k.s8"] == "off"
    assert "s8: 0" in opened.notes()
    opened.press("used_levels", "s8")
    assert "k.s8" not in opened.query()


def test_kinds_of_systems_follow_each_other(systems_page: SystemsPage) -> None:
    opened = systems_page.go("?m=ssd&img=scene:7")
    opened.press("system_family", "Place and time")
    assert opened.query()["img"] == "scene:7:1"  # one thing, as it was trained
    assert "Where it looks" in " ".join(opened.titles())
    opened.press("system_place_time", "Show, Attend, Tell")
    assert opened.query()["img"] == "scene:7"
    assert opened.page.get_by_text("It says:").is_visible()
    opened.press("knob_show_attend_tell_attention", "Hard (draw)")
    assert opened.query()["k.attention"] == "hard"


def test_a_phrase_is_asked_and_an_unknown_word_costs_nothing(systems_page: SystemsPage) -> None:
    opened = systems_page.go("?m=film&img=scene:21")
    field = opened.page.locator(".st-key-phrase input")
    field.fill("the largest house")
    field.press("Enter")
    opened.page.wait_for_url(re.compile("largest"))
    opened.settle()
    assert "the largest house" in opened.notes()
    field.fill("the blue unicorn")
    field.press("Enter")
    opened.page.get_by_text("unicorn").first.wait_for()
    opened.settle()
    assert opened.page.locator("[data-panel=fused] canvas").first.is_visible()
    alert = opened.page.locator("[data-testid=stAlert]").first.inner_text()
    assert "unicorn" in alert
    assert "ring" in alert


def test_random_places_are_another_path(systems_page: SystemsPage) -> None:
    opened = systems_page.go("?m=ram&img=scene:5:1")
    path = opened.page.locator("[data-panel=weight] canvas").first
    before = path.screenshot()
    opened.press("knob_ram_look", "Random")
    assert opened.query()["k.look"] == "random"
    assert path.screenshot() != before


def test_a_network_in_the_wild_says_that_it_is_random_and_offers_its_weights(systems_page: SystemsPage) -> None:
    opened = systems_page.go("?m=wild_gates&k.net=mobilenet_v3_small&img=sample:coffee&size=96")
    assert opened.page.locator("[data-panel=weight] .badge").inner_text() == "random weights"
    assert opened.page.get_by_role("button", name=re.compile("Download")).is_visible()
    opened.press("knob_wild_gates_scale", "As it comes")
    assert opened.query()["k.scale"] == "given"
    shape = opened.page.locator("[data-panel=fused] .shape").inner_text()
    opened.press("system_wild", "Segmentation")
    assert "Classes" in " ".join(opened.titles())
    assert opened.page.locator("[data-panel=fused] .shape").inner_text() != shape


def test_explore_and_systems_keep_their_own_choice(systems_page: SystemsPage) -> None:
    opened = systems_page.go("?m=gmu&img=scene:16")
    opened.page.get_by_role("link", name="Explore").click()
    opened.page.get_by_text("Attentional Feature Fusion").first.wait_for()
    opened.settle()
    assert opened.query()["m"] == "aff"
    assert opened.query()["img"] == "scene:16"
    opened.page.get_by_role("link", name="Systems").click()
    opened.page.get_by_text("Gated multimodal unit").first.wait_for()
    opened.settle()
    assert opened.query()["m"] == "gmu"


def test_a_system_in_chinese_and_dark(pages, settled, app_url: str) -> None:
    page = pages(dark=True)
    opened = SystemsPage(page, settled, app_url).go("?m=dram&img=scene:21:1&lang=zh")
    assert "注视的位置" in " ".join(opened.titles())
    assert page.evaluate("document.documentElement.scrollWidth") <= 1440
