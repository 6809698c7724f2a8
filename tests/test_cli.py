"""The command line: exit codes, JSON, one sentence for a mistake."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from fusionviz.cli import main

ROOT = Path(__file__).parent.parent

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


def test_run_stands_where_the_slider_is_told_to(capsys) -> None:
    code, out, err = run(capsys, "run", *SMALL, "--method", "wsum", "--at", "0.9", "--json")
    assert (code, err) == (0, "")
    balance = json.loads(out)["balance"]
    assert balance["at"] == 0.9
    means = [point["mean"] for point in balance["curve"]]
    assert means == sorted(means, reverse=True)
    _, out, _ = run(capsys, "run", *SMALL, "--method", "wsum", "--at", "0.9")
    assert "balance 0.9" in out


def test_a_slider_that_is_not_there_is_said_and_stops_nothing(capsys) -> None:
    code, out, err = run(capsys, "run", *SMALL, "--method", "add", "--at", "0.9")
    assert code == 0
    assert "add" in out
    assert "--at" in err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["run", *SMALL, "--at", "-1"], "frame"),
        (["run", *SMALL, "--at", "middle"], "--at"),
        (["run", *SMALL, "--method", "af"], "aff"),
        (["run", *SMALL, "--method", "aff", "--set", "r=3"], "1, 2, 4, 8, 16"),
        (["run", *SMALL, "--method", "aff", "--set", "r"], "KNOB=VALUE"),
        (["run", *SMALL, "--low", "s5"], "s4"),
        (["run", *SMALL, "--device", "abacus"], "cpu"),
        (["run", *SMALL, "--site", "skip:layer9.0"], "skip:layer4.0"),
        (["run", *SMALL, "--site", "skip:layer1.0", "--low", "s4"], "identity, residual"),
        (["run", *SMALL, "--method", "inception"], "GoogLeNet, Inception v3, SqueezeNet 1.1"),
        (["run", *SMALL, "--method", "densenet"], "DenseNet-121"),
        (["run", "--image", "no_such_file.png"], "no_such_file.png"),
        (["render", *SMALL, "--out", "slide.bmp"], "png"),
        (["fetch", "resnet19"], "resnet18"),
        (["list", "nonsense"], "methods"),
        ([], "COMMAND"),
        (["lst"], "doctor"),
        (["list", "methods", "--jsn"], "--jsn"),
        (["run", "--size", "big"], "--size"),
        (["run", *SMALL, "--seed", "99999999999999999999"], "2147483647"),
        (["run", *SMALL, "--seed", "-1"], "2147483647"),
        (["run", *SMALL, "--size", "0"], "1024"),
        (["run", *SMALL, "--low", "s32"], "before"),
        (["run", *SMALL, "--weights", "no_such_file.pth"], "no_such_file.pth"),
        (["run", *SMALL, "--weights", "."], "Check the path"),
        (["run", "--image", "."], "folder"),
        (["run", "--image", ""], "folder"),
        (["run", *SMALL, "--method", "wsum", "--set", "alpha=nan"], "0 … 1"),
        (["run", *SMALL, "--method", "fpn", "--set", "lateral=off", "--set", "top_down=0"], "top_down"),
        (["render", *SMALL, "--out", "no_such_folder/slide.png"], "folder"),
        (["render", *SMALL, "--out", "."], "slide.png"),
        (["render", *SMALL], "--out"),
        (["render", *SMALL, "--lang", "fr", "--out", "slide.png"], "zh"),
        (["bench", "--rounds", "0"], "rounds"),
        (["bench", "--backbone", "resnet19"], "resnet18"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_2(capsys, argv: list[str], words: str) -> None:
    code, out, err = run(capsys, *argv)
    assert code == 2
    assert words in err
    assert err.startswith("fusionviz: ")
    assert err.count("\n") == 1
    assert out == ""


def test_a_site_is_named_by_kind_and_block(capsys) -> None:
    code, out, _ = run(capsys, "run", *SMALL, "--method", "aff", "--site", "skip:layer3.1", "--json")
    report = json.loads(out)
    assert code == 0
    assert report["backbone"]["site"] == "skip:layer3.1"
    assert list(report["backbone"]["levels"]) == ["identity", "residual"]
    assert report["outputs"]["fused"]["shape"][1] == 256  # the block's own channels: nothing is projected
    code, out, _ = run(capsys, "run", *SMALL, "--method", "add", "--site", "skip:layer3.1")
    assert (code, "skip:layer3.1" in out) == (0, True)


def test_a_site_of_a_link_gives_way_to_another(capsys, tmp_path) -> None:
    link = ["--link", "img=sample:coffee&net=resnet18&m=add&site=skip:layer1.0&size=64"]
    for i, more in enumerate((["--site", ""], ["--site", "skip:layer2.1"], ["--backbone", "vgg11", "--low", "s4"])):
        code, _, err = run(capsys, "render", *link, *more, "--out", str(tmp_path / f"{i}.png"))
        assert (code, err) == (0, "")


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


def test_the_slide_is_drawn_as_asked(capsys, tmp_path: Path, monkeypatch) -> None:
    from fusionviz import api
    from fusionviz.figures import slide

    asked, draw = [], api.draw
    monkeypatch.setattr(api, "draw", lambda found, **how: asked.append(how) or draw(found, **how))
    monkeypatch.setattr(slide, "language_for", lambda wanted: (wanted, None))  # as if every font were here
    out = ("--out", str(tmp_path / "slide.png"))
    run(capsys, "render", *SMALL, "--method", "add", "--lang", "zh", "--dark", *out)
    run(capsys, "render", *SMALL, "--method", "add", *out)
    assert asked == [{"language": "zh", "dark": True}, {"language": "en", "dark": False}]


def test_a_damaged_download_is_fetched_again(capsys, monkeypatch, tmp_path: Path) -> None:
    from fusionviz import weights

    damaged, fetched = tmp_path / "resnet18-f37072fd.pth", []
    damaged.write_bytes(b"half of it")
    monkeypatch.setattr(weights, "cached", lambda key: damaged)
    monkeypatch.setattr(weights, "fetch", lambda key, progress: fetched.append(key) or damaged)
    code, _, err = run(capsys, "fetch", "resnet18")
    assert (code, fetched) == (0, ["resnet18"])
    assert "f37072fd" in err
    monkeypatch.setattr(weights, "verify", lambda path: None)
    _, out, _ = run(capsys, "fetch", "resnet18")
    assert fetched == ["resnet18"]  # whole: nothing to do
    assert str(damaged) in out


def test_an_unknown_name_stops_a_fetch_before_it_starts(capsys, monkeypatch) -> None:
    from fusionviz import weights

    monkeypatch.setattr(weights, "fetch", lambda key, progress: pytest.fail("nothing may be downloaded"))
    code, out, err = run(capsys, "fetch", "resnet18", "resnet19")
    assert (code, out) == (2, "")
    assert "resnet19" in err


def test_one_bad_picture_of_a_folder_hides_no_other(capsys, monkeypatch, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    Image.new("RGB", (40, 30)).save(tmp_path / "whole.png")
    monkeypatch.setenv("FUSIONVIZ_PICTURES", str(tmp_path))
    code, out, _ = run(capsys, "list", "images", "--json")
    rows = {row["key"]: row for row in json.loads(out)}
    assert code == 0
    assert rows["folder:broken.png"]["size"] is None
    assert "broken.png" in rows["folder:broken.png"]["about"]
    assert rows["folder:whole.png"]["size"] == [40, 30]


def test_doctor_misses_a_lost_folder_of_pictures(capsys, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FUSIONVIZ_PICTURES", str(tmp_path / "lost"))
    code, _, err = run(capsys, "doctor")
    assert code == 1
    assert "FUSIONVIZ_PICTURES" in err


def test_what_ships_need_not_be_fetched(capsys) -> None:
    code, out, err = run(capsys, "fetch", "scene_resnet")
    assert (code, err) == (0, "")
    assert "scene_resnet" in out
    rows = {row["key"]: row for row in json.loads(run(capsys, "list", "backbones", "--json")[1])}
    assert rows["scene_resnet"]["cached"]
    assert not rows["resnet18"]["cached"]


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


def test_what_is_given_stands_above_the_link(capsys, tmp_path: Path, monkeypatch) -> None:
    drawn = []
    monkeypatch.setattr("fusionviz.study.run", lambda chosen, on: drawn.append(chosen) or sys.exit(0))
    link = "net=resnet18&lo=s2&hi=s8&m=se&k.r=8&size=96&seed=3&ch=5&pc=5&show=mean"
    for more in ([], ["--backbone", "vit_b_16", "--method", "aff"], ["--backbone", "resnet18", "--set", "r=4"]):
        run(capsys, "render", "--link", link, *more, "--out", str(tmp_path / "slide.png"))
    plain, other, same = drawn
    assert (plain.low, plain.high, plain.size, plain.knobs, plain.view.channels) == ("s2", "s8", 96, {"r": 8}, (5,))
    # Levels, size, knobs and channels of the link belong to its own network and method; the rest is kept.
    assert (other.low, other.high, other.size, other.knobs, other.view.channels) == (None, None, None, {}, ())
    assert (other.seed, other.view.show, other.view.pin_channel) == (3, "mean", None)
    assert (same.low, same.size, same.knobs) == ("s2", 96, {"r": 4})


def test_json_has_no_number_that_json_does_not_know(capsys, tmp_path: Path) -> None:
    from torchvision.models import squeezenet1_0

    state = squeezenet1_0().state_dict()
    state["features.0.weight"].fill_(float("nan"))
    torch.save(state, tmp_path / "lost.pth")
    argv = ["--image", "sample:coffee", "--backbone", "squeezenet1_0", "--size", "64"]
    code, out, _ = run(capsys, "run", *argv, "--weights", str(tmp_path / "lost.pth"), "--json")
    assert code == 0
    report = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert report["attention"][0]["mean"] is None


def in_its_own_process(*argv: str, **more: object) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", "fusionviz", *argv], cwd=ROOT, stderr=subprocess.PIPE, **more)


@pytest.mark.parametrize("unbuffered", ["1", ""])
def test_a_reader_that_goes_away_is_no_mistake(unbuffered: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        environ = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
        done = in_its_own_process("list", "methods", stdout=writer, env=environ)
        _, said = done.communicate(timeout=120)
    finally:
        os.close(writer)
    assert (done.returncode, said) == (0, b"")


def test_a_terminal_that_knows_few_letters_is_enough() -> None:
    environ = {**os.environ, "PYTHONIOENCODING": "ascii"}
    for more in ((), ("--json",)):
        done = in_its_own_process("list", "methods", *more, stdout=subprocess.PIPE, env=environ)
        out, said = done.communicate(timeout=120)
        assert (done.returncode, said) == (0, b"")
    assert "Dollár" in json.dumps(json.loads(out), ensure_ascii=False)


def test_stopping_it_says_nothing() -> None:
    code = "import os, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)"  # CI may ignore it
    code += "; from fusionviz import cli; cli._list = lambda o: os.kill(os.getpid(), signal.SIGINT)"
    code += "; sys.exit(cli.main(['list', 'methods']))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


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
