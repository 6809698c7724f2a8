"""A Streamlit server of our own and a real Chromium for what only a browser shows."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
START_S, SETTLE_S = 120.0, 60.0


def _missing(why: str) -> None:
    if os.environ.get("FUSIONVIZ_REQUIRE_BROWSER") == "1":
        pytest.fail(f"FUSIONVIZ_REQUIRE_BROWSER=1, but {why}", pytrace=False)
    pytest.skip(why)


@pytest.fixture(scope="session")
def chromium() -> Iterator:
    """Return a running Chromium: $FUSIONVIZ_CHROMIUM, or `chromium` on the path."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _missing("playwright is not installed (requirements-dev.txt)")
    path = os.environ.get("FUSIONVIZ_CHROMIUM") or shutil.which("chromium")
    if not path or not Path(path).exists():
        _missing("there is no Chromium: install it, or name it in FUSIONVIZ_CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class _Server:
    def __init__(self, script: Path, env: dict[str, str], log: Path) -> None:
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}/"
        self.log = log
        command = [sys.executable, "-m", "streamlit", "run", str(script), f"--server.port={port}"]
        command += ["--server.address=127.0.0.1", "--server.headless=true", "--browser.gatherUsageStats=false"]
        variables = os.environ | {"PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE"} | env
        with log.open("wb") as out:
            self.process = subprocess.Popen(command, cwd=ROOT, env=variables, stdout=out, stderr=subprocess.STDOUT)

    def wait(self) -> None:
        """Return when the server answers; raises with its log if it ends or stays silent."""
        end = time.monotonic() + START_S
        while time.monotonic() < end and self.process.poll() is None:
            try:
                with urllib.request.urlopen(self.url + "_stcore/health", timeout=2) as answer:
                    if answer.status == 200:
                        return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError(f"the server did not start:\n{self.log.read_text(errors='replace')[-3000:]}")

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory, chromium) -> Iterator[Callable[..., str]]:
    """Return `serve(script, env) -> url`: starts one Streamlit server for each script and environment, and ends it.

    It depends on the browser so that nothing is started where there is none.
    """
    running: dict[tuple, _Server] = {}

    def start(script: str | Path, env: dict[str, str] | None = None) -> str:
        script, env = Path(script), dict(env or {})
        key = (script, tuple(sorted(env.items())))
        if key not in running:
            running[key] = _Server(script, env, tmp_path_factory.mktemp("server") / "log.txt")
            running[key].wait()
        return running[key].url

    yield start
    for server in running.values():
        server.stop()


class Pages:
    """Opens pages, and remembers what went wrong on them."""

    def __init__(self, browser) -> None:
        self.browser, self.contexts, self.problems = browser, [], []

    def __call__(self, *, width: int = 1440, height: int = 900, dark: bool = False, **options):
        """Return a new page; `options` are Playwright's, for example locale or device_scale_factor."""
        options.setdefault("locale", "en-US")
        context = self.browser.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light", **options
        )
        self.contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("console", lambda m: m.type == "error" and self.problems.append(f"console: {m.text}"))
        page.on("pageerror", lambda e: self.problems.append(f"page: {e}"))
        page.on("requestfailed", lambda r: self._failed(r))
        return page

    def _failed(self, request) -> None:
        # Leaving a page cuts its requests off: that is no failure of the page.
        if request.failure and "ERR_ABORTED" not in request.failure:
            self.problems.append(f"request: {request.url} {request.failure}")


@pytest.fixture
def pages(chromium) -> Iterator[Pages]:
    """Return a factory of pages (size, theme, language, ...); the test fails if the console had an error."""
    made = Pages(chromium)
    yield made
    for context in made.contexts:
        context.close()
    assert not made.problems, made.problems


@pytest.fixture
def page(pages: Pages):
    """Return a page of 1440 x 900 in the light theme; the test fails if its console had an error."""
    return pages()


IDLE = "[data-testid=stApp][data-test-connection-state=CONNECTED][data-test-script-state=notRunning]"


def wait_settled(page, quiet_ms: int = 350) -> None:
    """Wait until Streamlit has not run anything for a while, and nothing waits for a skeleton."""
    page.wait_for_selector("[data-testid=stAppViewContainer]", timeout=SETTLE_S * 1000)
    end, since = time.monotonic() + SETTLE_S, None
    while time.monotonic() < end:
        idle = page.locator(IDLE).count() and not page.locator("[data-testid=stAppSkeleton]").count()
        since = (since or time.monotonic()) if idle else None
        if since and (time.monotonic() - since) * 1000 >= quiet_ms:
            return
        page.wait_for_timeout(50)
    raise TimeoutError(f"the page is still busy after {SETTLE_S:.0f} s")


@pytest.fixture
def settled() -> Callable:
    """Return `settled(page)`, which waits until Streamlit is idle."""
    return wait_settled


class Frames:
    """Counts what a page sends to its server over websockets; make it before `goto`."""

    def __init__(self, page) -> None:
        self.sent: list[bytes | str] = []
        page.on("websocket", lambda ws: ws.on("framesent", lambda data: self.sent.append(data)))

    @property
    def count(self) -> int:
        return len(self.sent)


@pytest.fixture
def frames() -> Callable[..., Frames]:
    """Return `frames(page) -> Frames`, whose `count` is the number of websocket frames sent so far."""
    return Frames
