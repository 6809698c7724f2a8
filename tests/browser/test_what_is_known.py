"""The row of predictions in a browser: changing the view asks nobody, the exchange asks once, and nothing jumps."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.browser
ROOT = Path(__file__).resolve().parents[2]
SCENE = "?img=scene:21&net=scene_resnet&m=aff"


@pytest.fixture(scope="session")
def scene_url(serve, tmp_path_factory) -> str:
    home = tmp_path_factory.mktemp("home")
    return serve(ROOT / "app.py", {"TORCH_HOME": str(home / "torch"), "FUSIONVIZ_CACHE": str(home / "cache")}) + SCENE


def places(page) -> dict[str, float]:
    """Return where the row's pictures and the flow below it are."""
    found = page.locator(".knows > figure").evaluate_all("all => all.map((n) => n.getBoundingClientRect().x)")
    return {"figures": found, "flow": page.locator(".flow").bounding_box()["y"]}


def test_where_each_is_wrong_is_shown_at_once(page, frames, settled, scene_url: str) -> None:
    sent = frames(page)
    page.goto(scene_url)
    page.locator(".knows figure").first.wait_for(timeout=120_000)
    settled(page)
    before, count = places(page), sent.count
    caption = page.locator(".knows > figure figcaption").first
    assert "%" not in caption.inner_text()
    page.get_by_role("button", name="where wrong").click()
    assert caption.inner_text().endswith("%")
    assert page.locator(".knows > figure img[data-in=wrong]:visible").count() == 3
    assert page.locator(".knows > figure img[data-in=classes]:visible").count() == 0
    assert places(page) == before
    assert sent.count == count


@pytest.mark.parametrize(("language", "start", "back"), [("en", "Use another", "Back"), ("zh", "换用另一张", "换回")])
def test_another_pictures_attention_and_back(page, settled, scene_url: str, language, start, back) -> None:  # noqa: ANN001
    page.goto(f"{scene_url}&lang={language}")
    page.locator(".knows figure").first.wait_for(timeout=120_000)
    settled(page)
    before = places(page)
    page.locator(".knows .views button").nth(1).click()
    page.get_by_role("button", name=start).click()
    page.locator(".exchange .change").wait_for()
    assert page.locator(".exchange .change").inner_text().startswith("−")
    assert page.locator(".knows > figure img[data-in=wrong]:visible").count() == 3  # the view stays
    settled(page)
    assert places(page) == before
    page.get_by_role("button", name=back, exact=True).click()
    page.get_by_role("button", name=start).wait_for()
    assert places(page) == before
