"""A live fit as a class watches it: steps rise, it stops, the board gets a slider over its steps, and it goes on.

It has more steps than anybody waits for, so that it is still under way whenever a slow machine looks.
"""

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.browser
ROOT = Path(__file__).resolve().parents[2]
QUERY = "?size=64&img=scene:3&net=scene_resnet&m=aff&lo=s4&hi=s16&k.r=8"


@pytest.fixture(scope="module")
def url(serve, tmp_path_factory) -> str:
    home = tmp_path_factory.mktemp("live")
    env = {"TORCH_HOME": f"{home}/torch", "FUSIONVIZ_CACHE": f"{home}/cache"}
    return serve(ROOT / "app.py", env | {"FUSIONVIZ_FIT_STEPS": "20000", "FUSIONVIZ_FIT_SCENES": "96"})


def step(page) -> int:
    return int(page.locator(".fit-now").get_attribute("data-step"))


def step_of_line(page) -> int:
    return int(re.search(r"at step (\d+) of 20000", page.locator(".fit-line").inner_text())[1])


def test_a_fit_is_watched_stopped_gone_on_with_and_gone_through(page, settled, url: str) -> None:
    page.goto(url + QUERY)
    page.locator(".st-key-fit_start button").wait_for(timeout=120_000)
    page.locator(".st-key-fit_start button").click()
    page.locator('.fit-now[data-phase="fitting"]').wait_for(timeout=90_000)
    flow = page.locator(".flow").first
    top = flow.bounding_box()["y"]
    seen = step(page)
    page.wait_for_function(
        f"+document.querySelector('.fit-now')?.dataset.step > {seen}", timeout=60_000
    )  # it rises by itself
    page.locator(".fit-figures figure img").first.wait_for(timeout=60_000)
    assert page.locator(".fit-figures img.chart").count() == 1
    assert flow.bounding_box()["y"] == top  # nothing moved
    page.locator(".st-key-fit_stop button").click()
    page.locator(".st-key-fit_resume button").wait_for(timeout=60_000)
    settled(page)
    stopped = step_of_line(page)
    assert 0 < stopped < 20000
    assert page.locator("[data-panel=fused] .badge").inner_text() == "fitted here"
    slider = page.locator(".board input[type=range][aria-label='Training step']")
    slider.focus()
    page.keyboard.press("Home")
    page.wait_for_function("location.search.includes('at=0')", timeout=60_000)  # told once the key has rested
    settled(page)
    assert page.locator("[data-panel=fused] .badge").inner_text() == "random weights"
    page.locator(".st-key-fit_resume button").click()
    page.wait_for_function(f"+document.querySelector('.fit-now')?.dataset.step > {stopped}", timeout=120_000)
    page.locator(".st-key-fit_stop button").click()
    page.locator(".st-key-fit_resume button").wait_for(timeout=60_000)
    settled(page)
    assert step_of_line(page) > stopped
