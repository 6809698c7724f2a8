"""The command line: exit codes, JSON, one sentence for a mistake."""

import json
from pathlib import Path

import pytest

from fusionviz.cli import main

SMALL = ["--image", "sample:coffee", "--backbone", "resnet18", "--size", "96"]


def run(capsys, *argv: str) -> tuple[int, str, str]:
    try:
        code = main(list(argv))
    except SystemExit as stopped:  # argparse's own way out
        code = stopped.code
    said = capsys.readouterr()
    return code, said.out, said.err


def test_run_prints_json(capsys) -> None:
    code, out, err = run(capsys, "run", *SMALL, "--method", "aff", "--set", "r=8", "--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert report["method"]["params"]["r"] == 8
    assert {"outputs", "attention", "timings_ms", "costs", "provenance"} <= set(report)


def test_run_prints_lines_for_people(capsys) -> None:
    code, out, _ = run(capsys, "run", *SMALL, "--method", "se")
    assert code == 0
    assert "random" in out


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["run", *SMALL, "--method", "af"], "aff"),
        (["run", *SMALL, "--method", "aff", "--set", "r=3"], "1, 2, 4, 8, 16"),
        (["run", *SMALL, "--method", "aff", "--set", "r"], "KNOB=VALUE"),
        (["run", *SMALL, "--low", "s5"], "s4"),
        (["run", *SMALL, "--device", "abacus"], "cpu"),
        (["run", "--image", "no_such_file.png"], "no_such_file.png"),
        (["render", *SMALL, "--out", "slide.bmp"], "png"),
        (["fetch", "resnet19"], "resnet18"),
        (["list", "nonsense"], "methods"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_2(capsys, argv: list[str], words: str) -> None:
    code, out, err = run(capsys, *argv)
    assert code == 2
    assert words in err
    assert "Traceback" not in err
    assert out == ""


def test_lists_are_json_with_keys(capsys) -> None:
    for what, known in (("methods", "aff"), ("backbones", "resnet18"), ("images", "sample:coffee")):
        code, out, _ = run(capsys, "list", what, "--json")
        rows = json.loads(out)
        assert code == 0
        assert known in [row["key"] for row in rows]


def test_every_classification_network_is_listed_with_its_levels(capsys) -> None:
    import torchvision

    _, out, _ = run(capsys, "list", "backbones", "--json")
    rows = {row["key"]: row for row in json.loads(out)}
    assert set(rows) >= set(torchvision.models.list_models(module=torchvision.models))
    for row in rows.values():
        assert row["reason"] or len(row["levels"]) >= 2, row["key"]
        assert len(row["strides"]) == len(row["channels"]) == len(row["levels"])


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_render_writes_a_slide(capsys, tmp_path: Path, kind: str) -> None:
    target = tmp_path / f"slide.{kind}"
    code, _, _ = run(capsys, "render", *SMALL, "--method", "add", "--out", str(target))
    assert code == 0
    head = target.read_bytes()[:200]
    assert {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[kind] in head


def test_render_follows_a_link(capsys, tmp_path: Path) -> None:
    link = "http://localhost:8501/?img=sample:coffee&net=resnet18&m=se&size=96&k.r=8&grid=5"
    code, _, err = run(capsys, "render", "--link", link, "--out", str(tmp_path / "slide.png"))
    assert code == 0
    assert "grid" in err  # the bad value is named, the rest is drawn


def test_doctor_says_what_works(capsys) -> None:
    code, out, _ = run(capsys, "doctor", "--json")
    report = json.loads(out)
    assert code == 0
    assert report["device"] in report["devices"]
    assert report["problems"] == []


def test_doctor_says_the_fix_where_weights_cannot_be_written(capsys, monkeypatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "file"))
    code, _, err = run(capsys, "doctor")
    assert code == 1
    assert "TORCH_HOME" in err
