"""What is written comes back, what is damaged is noticed, and what no longer fits is not loaded."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch

from fusionviz import backbones, fusion, pack
from fusionviz.cli import main
from fusionviz.errors import WeightsError
from fusionviz.training import build_head, packing, rebuild

METHODS = ("low_only", "aff", "wsum", "highway", "concat", "fpn")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack of a network and six heads, each trained for a few steps."""
    folder = tmp_path_factory.mktemp("pack")
    options = ["--quick", "--backbone", "scene_resnet", "--part", "networks", "heads", "--out", str(folder)]
    assert main(["train", *options, "--jobs", "1", "--method", *METHODS]) == 0
    return folder


@pytest.fixture
def folder(built: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of it, which a test may damage, and which is read while the test runs."""
    for file in built.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    with pack.reading(tmp_path):
        yield tmp_path


def card_of(method: str) -> pack.HeadCard:
    card = pack.head("scene_resnet", method, "s4", "s16")
    assert card is not None
    return card


def build(card: pack.HeadCard):  # noqa: ANN201
    infos = {level.name: level for level in backbones.info(card.backbone).levels}
    levels = [infos[name] for name in card.levels]
    return build_head(
        card.method, levels, len(card.classes), width=card.width, prediction=card.prediction, seed=9
    ), levels


def rewrite(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changes}), "utf-8")


# --- round trip ----------------------------------------------------------------------------------
def test_a_network_comes_back_as_float32_and_runs(folder: Path) -> None:
    state = pack.backbone_state("scene_resnet")
    assert {v.dtype for v in state.values()} == {torch.float32, torch.int64}
    kept = safetensors.torch.load_file(folder / "scene_resnet.safetensors")
    assert {v.dtype for v in kept.values()} == {torch.float16, torch.int64}
    opened = backbones.load("scene_resnet", state=state)
    weight = dict(opened.module.named_parameters())["stem.0.0.weight"]
    assert torch.equal(weight, kept["stem.0.0.weight"].float())


def test_the_card_says_how_a_network_was_made(folder: Path) -> None:
    card = pack.backbone_card("scene_resnet")
    assert card.classes[0] == "ball"
    assert card.made["licence"] == "MIT"
    assert {"data_seed", "steps", "commit", "torch", "seed", "scenes"} <= set(card.made)
    assert {"miou", "boundary_f1", "presence_accuracy"} <= set(card.metrics)


@pytest.mark.parametrize("method", METHODS)
def test_a_head_comes_back_and_answers_as_it_did(folder: Path, method: str) -> None:
    card = card_of(method)
    head, levels = build(card)
    assert not packing.same_probe(packing.probe(head, levels), card.probe)
    pack.fill_head(head, card)
    assert packing.same_probe(packing.probe(head, levels), card.probe)
    assert packing.fingerprint(method, head) == card.fingerprint
    assert card.parameters == sum(p.numel() for p in head.parameters())
    assert not head.training


def test_all_heads_of_a_network_lie_in_one_file(folder: Path) -> None:
    cards = pack.heads("scene_resnet")
    assert set(cards) == set(METHODS)
    assert {card.file for card in cards.values()} == {"scene_resnet.board.safetensors"}
    assert cards["fpn"].levels == ("s4", "s8", "s16")
    assert cards["aff"].levels == ("s4", "s16")
    assert (cards["aff"].low, cards["aff"].high, cards["aff"].prediction) == ("s4", "s16", "linear")


def test_what_is_not_in_the_pack_is_none(folder: Path) -> None:
    assert pack.backbone_card("resnet18") is None
    assert pack.backbone_state("resnet18") is None
    assert pack.heads("resnet18") == {}
    assert pack.head("scene_resnet", "aff", "s4", "s32") is None
    assert pack.head("scene_resnet", "se", "s4", "s16") is None
    assert pack.head("scene_resnet", "aff", "s4", "s16", "leaderboard") is None


def test_the_same_file_is_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack.backbone_state("scene_resnet")
    monkeypatch.setattr(Path, "read_bytes", lambda _self: pytest.fail("read again"))
    pack.backbone_state("scene_resnet")["stem.0.0.weight"]


def test_one_reader_cannot_spoil_it_for_the_next(folder: Path) -> None:
    pack.backbone_state("scene_resnet").clear()
    assert pack.backbone_state("scene_resnet")


# --- coverage ------------------------------------------------------------------------------------
def test_live_knobs_may_differ_and_refit_ones_may_not(folder: Path) -> None:
    card = card_of("wsum")
    assert pack.trained_params(card)["alpha"] == 0.5
    assert pack.covers(card, {})
    assert pack.covers(card, fusion.spec("wsum").parse({"alpha": 0.9}))
    assert not pack.covers(card, fusion.spec("wsum").parse({"width": 32}))
    assert not pack.covers(card, fusion.spec("wsum").parse({"norm": "none"}))
    assert pack.covers(card_of("low_only"), {})


def test_fpns_width_is_the_heads(folder: Path) -> None:
    card = card_of("fpn")
    assert not pack.covers(card, fusion.spec("fpn").parse({}))  # the paper's 256
    assert pack.covers(card, pack.trained_params(card))
    assert pack.trained_params(card)["width"] == rebuild.WIDTH["board"]


@pytest.mark.parametrize(
    ("method", "knob", "name", "value"), [("wsum", "alpha", "a", 0.9), ("highway", "b_T", "gate.bias", -3.0)]
)
def test_what_a_knob_sets_by_hand_is_not_overwritten(
    folder: Path, method: str, knob: str, name: str, value: float
) -> None:
    card = card_of(method)
    trained = pack.head_state(card)[f"fusion.{name}"]
    default, moved = (fusion.build(method, (32, 96), (4.0, 16.0), **params) for params in ({}, {knob: value}))
    own = moved.state_dict()[name].clone()
    pack.fill_method(default, card, fusion.spec(method).parse({}))
    assert torch.equal(default.state_dict()[name], trained)
    pack.fill_method(moved, card, fusion.spec(method).parse({knob: value}))
    assert torch.equal(moved.state_dict()[name], own)
    assert not torch.equal(own, trained)
    other = "alignment.low_project.weight"
    assert torch.equal(moved.state_dict()[other], default.state_dict()[other])  # everything else is the trained


def test_a_filled_method_says_that_it_ships(folder: Path) -> None:
    module = fusion.build("aff", (32, 96), (4.0, 16.0))
    assert module.provenance.kind == "random"
    pack.fill_method(module, card_of("aff"))
    assert (module.provenance.kind, module.provenance.detail) == ("bundled", "scene_resnet.board/aff")
    bare = fusion.build("concat", (32, 96), (4.0, 16.0))
    pack.fill_method(bare, card_of("concat"))
    assert bare.provenance.kind == "analytic"  # it has no numbers to be filled


# --- damage --------------------------------------------------------------------------------------
@pytest.mark.parametrize("file", ["scene_resnet.safetensors", "scene_resnet.board.safetensors"])
def test_a_changed_byte_is_noticed(folder: Path, file: str) -> None:
    content = bytearray((folder / file).read_bytes())
    content[-1] ^= 1
    (folder / file).write_bytes(content)
    ask = (lambda: pack.head_state(card_of("aff"))) if "board" in file else lambda: pack.backbone_state("scene_resnet")
    with pytest.raises(WeightsError, match="SHA-256") as caught:
        ask()
    assert "python -m fusionviz train" in str(caught.value)
    assert file in caught.value.text("zh")


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "scene_resnet.board.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"scene_resnet\.board\.safetensors"):
        pack.head_state(card_of("aff"))


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff", b"{}", b'{"key": 1}'])
def test_a_card_that_cannot_be_read_is_named(folder: Path, damage: bytes) -> None:
    for name, ask in (("scene_resnet.board.json", pack.heads), ("scene_resnet.json", pack.backbone_state)):
        (folder / name).write_bytes(damage)
        with pytest.raises(WeightsError, match=name.replace(".", r"\.")):
            ask("scene_resnet")


def test_heads_of_another_network_are_not_used(folder: Path) -> None:
    rewrite(folder / "scene_resnet.board.json", backbone_sha256="0" * 64)
    with pytest.raises(WeightsError, match="another version of scene_resnet"):
        pack.heads("scene_resnet")


def test_a_method_that_has_changed_is_not_filled(folder: Path) -> None:
    with pytest.raises(WeightsError, match=r"aff.*has changed.*--part heads"):
        pack.fill_method(fusion.build("aff", (32, 96), (4.0, 16.0), width=32), card_of("aff"))


# --- writing -------------------------------------------------------------------------------------
def test_numbers_that_half_precision_cannot_hold_are_refused() -> None:
    with pytest.raises(ValueError, match="running_var"):
        packing.halved({"running_var": torch.tensor([1e6])})


def test_what_is_measured_is_what_ships() -> None:
    head, _ = _aff()
    packing.as_shipped(head)
    halves = packing.halved(head.state_dict())
    assert all(torch.equal(v, halves[k].to(v.dtype)) for k, v in head.state_dict().items())


def _aff():  # noqa: ANN202
    levels = [level for level in backbones.info("scene_resnet").levels if level.name in ("s4", "s16")]
    return build_head("aff", levels, 10), levels


def test_a_changed_equation_changes_the_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    head, levels = _aff()
    before = packing.probe(head, levels)
    assert packing.same_probe(before, packing.probe(head, levels))
    monkeypatch.setattr(type(head.fusion), "_select", lambda _self, m, x, y: x + m * (y - x))
    assert not packing.same_probe(before, packing.probe(head, levels))


def test_changed_shapes_or_knobs_change_the_fingerprint() -> None:
    head, levels = _aff()
    wider = build_head("aff", levels, 10, width=72)
    assert packing.fingerprint("aff", head) == packing.fingerprint("aff", _aff()[0])
    assert packing.fingerprint("aff", head) != packing.fingerprint("aff", wider)
    assert packing.fingerprint("aff", head) != packing.fingerprint("iaff", head)


def test_a_half_written_file_has_another_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (folder / "scene_resnet.json").read_bytes()

    def killed(self: Path, _content: bytes) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", killed)
    with pytest.raises(KeyboardInterrupt):
        packing.write_json(folder / "scene_resnet.json", {})
    assert (folder / "scene_resnet.json").read_bytes() == before


def test_a_method_trained_later_joins_the_others(folder: Path) -> None:
    before = {method: pack.head_state(card) for method, card in pack.heads("scene_resnet").items()}
    options = ["--quick", "--backbone", "scene_resnet", "--part", "heads", "--jobs", "1", "--out", str(folder)]
    assert main(["train", *options, "--steps", "3", "--method", "aff", "add"]) == 0
    after = pack.heads("scene_resnet")
    assert set(after) == {*before, "add"}
    assert (after["aff"].steps, after["add"].steps) == (3, 3)
    for method, state in before.items():
        same = all(torch.equal(tensor, pack.head_state(after[method])[name]) for name, tensor in state.items())
        assert same == (method != "aff")


@pytest.mark.parametrize(
    "wrong", [["--method", "afff"], ["--backbone", "resnet18"], ["--part", "head"], ["--steps", "0"]]
)
def test_a_mistake_is_answered_with_what_there_is(wrong: list[str], capsys: pytest.CaptureFixture) -> None:
    assert main(["train", "--quick", *wrong]) == 2
    said = capsys.readouterr().err
    assert "Expected" in said
    assert wrong[-1] in said
