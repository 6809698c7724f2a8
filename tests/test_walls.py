"""The walls of the house: which room must never know what. Each check is shown to be able to fail."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
UI = ("streamlit",)
DRAWING = ("streamlit", "plotly", "matplotlib")

WALLS = {
    "fusionviz": ("torch", "streamlit", "matplotlib", "plotly", "numpy"),
    "fusionviz.errors": ("torch", *DRAWING),
    "fusionviz.texts": ("torch", *DRAWING),
    "fusionviz.selection": ("torch", *DRAWING),
    "fusionviz.registry": ("torch", *DRAWING),
    "fusionviz.state": ("torch", *DRAWING),
    "fusionviz.board": ("torch", *DRAWING),
    "fusionviz.scales": ("torch", *UI),
    "fusionviz.figures": ("torch", *UI, "matplotlib.pyplot"),
    "fusionviz.figures.slide": ("torch", *UI, "matplotlib.pyplot"),
    "fusionviz.figures.flow_layout": ("torch", *UI, "matplotlib.pyplot"),
    "fusionviz.records": DRAWING,
    "fusionviz.trace": DRAWING,
    "fusionviz.fusion": (*DRAWING, "fusionviz.backbones"),
    "fusionviz.systems": (*DRAWING, "fusionviz.figures", "fusionviz.training"),
    "fusionviz.measured": ("torch", *DRAWING),
    "fusionviz.system_panels": (*UI, "fusionviz.figures"),
    "fusionviz.backbones": (*DRAWING, "fusionviz.fusion"),
    "fusionviz.weights": DRAWING,
    "fusionviz.leaderboard": ("torch", "numpy", *DRAWING),
    "fusionviz.pack": (*DRAWING, "fusionviz.training", "fusionviz.backbones"),
    "fusionviz.training": (*DRAWING, "fusionviz.figures"),
    "fusionviz.pictures": (*DRAWING, "fusionviz.fusion"),
    "fusionviz.scenes": (*DRAWING, "fusionviz.fusion", "fusionviz.backbones"),
    "fusionviz.study": (*UI, "fusionviz.figures"),
    "fusionviz.exchange": (*UI, "fusionviz.figures"),
    "fusionviz.panels": (*UI, "fusionviz.figures"),
    "fusionviz.api": UI,
    "fusionviz.cli": UI,
}


def loaded_by(room: str, forbidden: tuple[str, ...]) -> list[str]:
    """Import a room in a process of its own; return those of `forbidden` that came with it."""
    code = f"import sys, {room}; print([m for m in {forbidden!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return ast.literal_eval(done.stdout.strip().splitlines()[-1])


@pytest.mark.parametrize("room", WALLS)
def test_room_keeps_its_walls(room: str) -> None:
    assert loaded_by(room, WALLS[room]) == []


def test_the_check_can_fail() -> None:
    assert loaded_by("fusionviz.fusion", ("torch", "streamlit")) == ["torch"]


def imports(path: Path) -> set[str]:
    """Return every module that a file imports by name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def breaches(path: Path, forbidden: tuple[str, ...]) -> list[str]:
    return sorted(m for m in imports(path) for f in forbidden if m == f or m.startswith(f + "."))


PAGES = sorted((ROOT / "fusionviz/ui/pages").glob("*_page.py"))


def test_there_are_pages() -> None:
    assert len(PAGES) >= 2


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_pages_stay_thin(page: Path) -> None:
    assert breaches(page, ("torch", "plotly", "matplotlib", "fusionviz.ui.pages")) == []
    assert len(page.read_text("utf-8").splitlines()) <= 50


def test_app_stays_thin() -> None:
    assert breaches(ROOT / "app.py", ("torch", "numpy", "plotly", "matplotlib")) == []
    assert len((ROOT / "app.py").read_text("utf-8").splitlines()) <= 50


def test_only_ui_knows_streamlit() -> None:
    rooms = [p for p in (ROOT / "fusionviz").rglob("*.py") if "ui" not in p.relative_to(ROOT / "fusionviz").parts[:1]]
    assert {str(p): breaches(p, UI) for p in rooms if breaches(p, UI)} == {}


def test_nobody_uses_pyplot() -> None:
    files = [*(ROOT / "fusionviz").rglob("*.py"), ROOT / "app.py"]
    assert [str(p) for p in files if breaches(p, ("matplotlib.pyplot",))] == []


def test_the_scan_can_fail(tmp_path: Path) -> None:
    page = tmp_path / "bad_page.py"
    page.write_text("import torch.nn as nn\nfrom fusionviz.ui.pages import explore_page\n")
    assert breaches(page, ("torch", "fusionviz.ui.pages")) == [
        "fusionviz.ui.pages",
        "fusionviz.ui.pages.explore_page",
        "torch.nn",
    ]


def test_the_environment_is_set_before_torch() -> None:
    code = "import os; os.environ.pop('OMP_WAIT_POLICY', None); import fusionviz; print(os.environ['OMP_WAIT_POLICY'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "PASSIVE"
    body = [
        n for n in ast.parse((ROOT / "app.py").read_text("utf-8")).body if isinstance(n, (ast.Import, ast.ImportFrom))
    ]
    assert body[0].names[0].name == "fusionviz"
