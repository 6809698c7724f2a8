"""The causal check: the same maps, fused with attention that is theirs, another picture's, or flat."""

from pathlib import Path

import pytest
import torch

from fusionviz import exchange, fits, pictures, study
from fusionviz.errors import FusionvizError, ParameterError, ShapeError
from fusionviz.records import AttentionMap
from fusionviz.selection import Selection
from fusionviz.training import live

BOARD = Selection(picture="scene:21", backbone="scene_resnet", method="aff")
UNSEEN = tuple(f"scene:{seed}" for seed in range(101, 109))


def test_own_attention_changes_nothing() -> None:
    found, plain = exchange.exchange(BOARD, "scene:21"), study.run(BOARD)
    assert found.same
    assert torch.equal(found.other.fused, plain.result.fused.tensor)
    assert torch.equal(found.other.classes, plain.prediction.maps["fused"])
    assert found.own.miou == found.other.miou == plain.prediction.miou["fused"]


@pytest.mark.parametrize("method", ["aff", "iaff", "highway", "softmax2"])
def test_the_fused_map_is_the_equation_with_the_others_weight(method: str) -> None:
    mine, theirs = study.run(BOARD.with_(method=method)), study.run(BOARD.with_(method=method, picture="scene:7"))
    found = exchange.exchange(BOARD.with_(method=method), "scene:7")
    x, y = (m.tensor for m in mine.result.aligned)
    weight = theirs.result.attention["low"].tensor
    assert torch.equal(found.other.weight.tensor, weight)
    weight = weight[:, 0] if weight.ndim == 5 else weight
    torch.testing.assert_close(found.other.fused, weight * x + (1 - weight) * y)
    assert not torch.equal(found.other.fused, found.own.fused)


def test_every_gate_is_exchanged_where_none_chooses() -> None:
    cbam = BOARD.with_(method="cbam")
    mine, theirs = study.run(cbam), study.run(cbam.with_(picture="scene:7"))
    found = exchange.exchange(cbam, "scene:7")
    channel, place = (theirs.result.attention[name].tensor for name in ("channel", "place"))
    picked = next(s.tensor for s in mine.result.trace if s.key == "picked")
    torch.testing.assert_close(found.other.fused, picked * channel * place)


def test_a_head_with_aff_needs_its_attention() -> None:
    found = [exchange.exchange(BOARD.with_(picture=key)) for key in UNSEEN]
    own, other, flat = (sum(getattr(f, name).miou for f in found) / len(found) for name in ("own", "other", "flat"))
    assert own - other >= 4
    assert own - flat >= 4


def test_flat_weights_are_their_mean_over_the_places() -> None:
    found = exchange.exchange(BOARD)
    own, flat = found.own.weight.tensor, found.flat.weight.tensor
    torch.testing.assert_close(flat[0, :, 3, 5], own[0].mean((1, 2)))
    assert flat.shape == own.shape
    assert float(flat.std((2, 3)).max()) == 0


def test_flat_attention_of_tokens_still_sums_to_one() -> None:
    pairs = AttentionMap("pairs", torch.rand(1, 2, 4, 6).softmax(-1), "b head q k", "softmax")
    flat = exchange.flat(pairs)
    flat.check()
    assert torch.equal(flat.tensor[:, :, 0], flat.tensor[:, :, 3])


def test_what_has_no_places_has_no_flat_control() -> None:
    assert exchange.exchange(BOARD.with_(method="se")).flat is None


def test_a_weight_that_looks_at_no_map_is_the_same_for_every_picture() -> None:
    found = exchange.exchange(BOARD.with_(method="wsum"))
    assert found.same
    assert found.own.miou == found.other.miou


def test_the_other_picture_is_the_next_of_the_gallery() -> None:
    scenes = pictures.catalogue.SCENES
    assert exchange.neighbour(scenes[0]) == scenes[1]
    assert exchange.neighbour(scenes[-1]) == scenes[0]
    assert exchange.neighbour("scene:12345") == scenes[0]
    assert exchange.exchange(BOARD).picture.key == scenes[1]


def test_it_works_at_other_sizes_and_with_a_photographs_attention() -> None:
    found = exchange.exchange(BOARD.with_(size=96), "sample:coffee")
    assert found.own.classes.shape == found.other.classes.shape == (96, 96)
    assert found.seen.shown.shape == (96, 96, 3)


def test_it_is_possible_where_there_is_a_head_a_truth_and_attention() -> None:
    assert exchange.possible(study.run(BOARD))
    for changes in ({"method": "add"}, {"picture": "sample:coffee"}, {"weights": "random"}):
        assert not exchange.possible(study.run(BOARD.with_(**changes)))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"method": "add"}, "exchange.no_attention"),
        ({"picture": "sample:coffee"}, "exchange.no_truth"),
        ({"weights": "random"}, "exchange.no_head"),
    ],
)
def test_what_cannot_be_exchanged_says_what_to_do(changes: dict[str, str], code: str) -> None:
    with pytest.raises(ParameterError) as caught:
        exchange.exchange(BOARD.with_(**changes))
    assert caught.value.code == code


def test_a_picture_of_another_size_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare = study.prepare
    monkeypatch.setattr(study, "prepare", lambda chosen, **more: prepare(chosen.with_(size=96), **more))
    with pytest.raises(ShapeError, match="128 × 128") as caught:
        exchange.exchange(prepare(BOARD))
    assert caught.value.code == "exchange.size"


def test_an_unknown_picture_is_a_sentence() -> None:
    with pytest.raises(FusionvizError):
        exchange.exchange(BOARD, "sample:nobody")


def test_nothing_stays_behind() -> None:
    before = study.run(BOARD).result.fused.tensor
    exchange.exchange(BOARD)
    assert torch.equal(study.run(BOARD).result.fused.tensor, before)


def test_a_fit_is_taken_as_it_stood_at_the_sliders_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSIONVIZ_CACHE", str(tmp_path))
    fitted = BOARD.with_(head="fit", size=64, low="s4", high="s16")
    done = live.Room(12, 12).start(fits.subject(fitted), torch.device("cpu")).wait(120)
    assert done.mistake is None
    shown = study.run(fitted)
    steps = [frame.value for frame in shown.sweep.frames]
    assert len(steps) > 2
    for step in steps:
        own = exchange.exchange(fitted.with_(frame=step)).own
        assert torch.equal(own.classes, shown.at(step).prediction.maps["fused"])
        assert own.miou == shown.at(step).prediction.miou["fused"]
