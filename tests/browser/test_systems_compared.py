"""What stands under the board of a system, in a browser: the same picture for each system, and one phrase for all."""

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.browser
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def url(serve, tmp_path_factory) -> str:
    home = tmp_path_factory.mktemp("home")
    return serve(ROOT / "app.py", {"TORCH_HOME": str(home / "torch"), "FUSIONVIZ_CACHE": str(home / "cache")})


def opened(page, settled, url: str):  # noqa: ANN201
    page.goto(url)
    page.locator(".st-key-measured figure").first.wait_for(timeout=120_000)
    settled(page)
    return page.locator(".st-key-measured")


@pytest.mark.parametrize("dark", [False, True])
def test_three_detectors_see_the_same_picture_with_the_same_knobs(pages, settled, url: str, dark: bool) -> None:
    page = pages(dark=dark)
    below = opened(page, settled, f"{url}?img=scene:21&net=scene_resnet&m=ssd")
    figures = below.locator("figure")
    assert figures.count() == 3
    sources = below.locator("figure img").evaluate_all("all => all.map((n) => n.src)")
    assert len(set(sources)) == 1
    heights = [figures.nth(i).locator("img").bounding_box() for i in range(3)]
    assert len({(round(b["y"]), round(b["height"])) for b in heights}) == 1
    assert below.bounding_box()["y"] < page.locator(".flow").bounding_box()["y"]
    # Every word on a box is inside its picture.
    outside = "all => all.filter((n) => { const a = n.getBoundingClientRect(), b = n.closest('.ms-picture')"
    outside += ".getBoundingClientRect(); return a.left < b.left - 3 || a.right > b.right + 3; }).length"
    assert below.locator(".ms-box b").evaluate_all(outside) == 0
    for level in ("s4", "s8", "s16", "s32"):
        page.locator(".st-key-used_levels button", has_text=re.compile(f"^{level}$")).click()
        settled(page)
    assert below.locator(".ms-box b").count() == 0
    assert below.get_by_text("0 of 9 found, 0 wrong").count() == 3


def test_a_phrase_is_asked_of_all_four(page, settled, url: str) -> None:
    below = opened(page, settled, f"{url}?img=scene:21&net=scene_resnet&m=gmu")
    assert below.locator("figure").count() == 4
    box = page.get_by_role("textbox", name="What to look for")
    box.fill("the large house")
    box.press("Enter")
    below.get_by_text("“the large house”").wait_for()
    settled(page)
    assert below.get_by_text("IoU").first.is_visible()
    assert len(set(below.locator("figure img").evaluate_all("all => all.map((n) => n.src)"))) == 4
    box.fill("the large unicorn")
    box.press("Enter")
    page.get_by_text("unicorn").first.wait_for()
    settled(page)
    assert below.locator("figure").count() == 4
