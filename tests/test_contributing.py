"""CONTRIBUTING's example, followed to the letter in a copy: four new files, and everything else finds the method."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def told() -> dict[str, str]:
    """The files of the example, by path."""
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    return dict(re.findall(r"^`([\w/]+maximum\.\w+)`\n\n```\w+\n(.*?)^```$", text, flags=re.S | re.M))


def run(copy: Path, *words: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *words]
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_four_files_make_a_method(tmp_path: Path) -> None:
    files = told()
    assert len(files) == 4
    copy = tmp_path / "copy"
    for name in ("fusionviz", "assets", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "browser"))
    for name in ("pyproject.toml", "README.md", "app.py"):
        shutil.copy(ROOT / name, copy / name)
    for path, content in files.items():
        assert not (copy / path).exists()
        (copy / path).write_text(content, "utf-8")
    suites = ("tests/fusion", "tests/test_lessons.py")
    said = run(copy, "pytest", "-p", "no:cacheprovider", "-o", "addopts=", "-k", "maximum and not slow", *suites)
    assert int(re.search(r"(\d+) passed", said)[1]) > 30
    report = json.loads(run(copy, "fusionviz", "run", "--image", "scene:7", "--method", "maximum", "--json"))
    assert report["outputs"]["fused"]["shape"] == [1, 64, 32, 32]
    assert report["provenance"] == "random"
