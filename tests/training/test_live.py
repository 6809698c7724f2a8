"""A fit that people watch: it learns, it can be stopped at any step and gone on with, and the board shows it."""

import threading
from pathlib import Path

import pytest
import torch

from fusionviz import backbones, fits, models, study
from fusionviz.errors import WeightsError
from fusionviz.selection import Selection
from fusionviz.training import live

CPU = torch.device("cpu")
SMALL = {"backbone": "scene_resnet", "low": "s4", "high": "s16", "size": 64, "picture": "scene:3"}
STEPS, SCENES = 24, 24


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSIONVIZ_CACHE", str(tmp_path))


def selected(method: str = "aff", **changes: object) -> Selection:
    return Selection(method=method, head="fit", **{**SMALL, **changes})


def fitted(selection: Selection, room: live.Room | None = None) -> live.Now:
    room = room or live.Room(STEPS, SCENES)
    now = room.start(fits.subject(selection), CPU).wait(120)
    assert now.mistake is None
    return now


def stopping(monkeypatch: pytest.MonkeyPatch, reader: str, step: int) -> None:
    """Let every fit be told to stop right after this step."""
    monkeypatch.setattr(live, "_PORTION_S", 0)
    after = live.LiveFit._checkpoint

    def checkpoint(self: live.LiveFit, under_way) -> None:  # noqa: ANN001
        after(self, under_way)
        if self._done[reader] == step:
            self.stop()

    monkeypatch.setattr(live.LiveFit, "_checkpoint", checkpoint)


# --- the fit -------------------------------------------------------------------------------------
def test_a_fit_learns_what_it_did_not_see() -> None:
    now = fitted(selected(), live.Room(60, 48))
    assert now.phase == "done"
    assert [m.step for m in now.moments] == [0, 5, 10, 20, 35, 50, 60]
    assert now.moments[-1].miou > now.moments[0].miou + 15
    assert now.moments[-1].loss < now.moments[0].loss / 2
    assert now.seconds_left is None
    assert (now.ready, now.scenes) == (48, 48)


@pytest.mark.parametrize(("reader", "step"), [("fused", 7), ("fused", 20), ("low_only", 5)])
def test_stopped_and_gone_on_in_another_process_it_ends_as_if_never_stopped(
    reader: str, step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = fits.subject(selected())
    straight = fitted(selected())
    expected = fits.find(subject)[0].kept()
    monkeypatch.setenv("FUSIONVIZ_CACHE", str(tmp_path / "other"))
    with monkeypatch.context() as stops:
        stopping(stops, reader, step)
        paused = fitted(selected())
    assert paused.phase == "stopped"
    kept, _ = fits.find(subject)
    assert not kept.complete
    assert kept.done[reader] == step
    resumed = fitted(selected())  # a room of its own remembers nothing
    assert (resumed.phase, resumed.moments) == ("done", straight.moments)
    received = fits.find(subject)[0].kept()
    assert received.keys() == expected.keys()
    assert all(torch.equal(received[name], expected[name]) for name in expected)


def test_another_seed_is_another_fit() -> None:
    one, two = fits.subject(selected()), fits.subject(selected(seed=1))
    assert one.digest != two.digest
    fitted(selected())
    fitted(selected(seed=1))
    a, b = fits.find(one)[0].kept(), fits.find(two)[0].kept()
    name = f"fused/{STEPS}/predict.weight"
    assert not torch.equal(a[name], b[name])


def test_live_knobs_turned_meanwhile_do_not_change_the_fit_that_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as stops:
        stopping(stops, "fused", 6)
        fitted(selected())
    turned = selected(params=(("gain", 2),))
    fitted(turned)
    kept, _ = fits.find(fits.subject(turned))
    assert kept.complete
    assert dict(kept.card.params)["gain"] == 1


def test_two_sessions_share_a_fit_and_a_third_waits() -> None:
    room, gate = live.Room(STEPS, SCENES, at_once=1), threading.Event()
    made = room.data

    def later(fit: live.LiveFit) -> live.Data | None:
        gate.wait(60)
        return made(fit)

    room.data = later
    one = room.start(fits.subject(selected()), CPU)
    assert room.start(fits.subject(selected()), CPU) is one
    other = room.start(fits.subject(selected("add")), CPU)
    assert other.now().phase == "waiting"
    other.stop()
    assert other.wait(60).phase == "stopped"
    one.stop()
    gate.set()
    assert one.wait(60).phase == "stopped"
    assert fits.files() == ()  # nothing was fitted, nothing was written


def test_methods_of_a_backbone_share_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    room = live.Room(STEPS, SCENES)
    fitted(selected("add"), room)
    monkeypatch.setattr(live, "draw", lambda *_: pytest.fail("drawn again"))
    assert fitted(selected("concat"), room).phase == "done"


def test_a_heavy_backbone_sees_fewer_scenes_and_none_too_few() -> None:
    light, _ = models.backbone("scene_resnet")
    assert live.counts(light, 128, ("s4", "s16"), CPU, 384) == (320, 64)
    heavy = backbones.load("resnet18")
    assert live.counts(heavy, 224, ("s4", "s16"), CPU, 384) == (123, 24)
    assert live.counts(heavy, 512, ("s4", "s16"), CPU, 384) == (80, 16)


def test_what_goes_wrong_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def burst(*_: object) -> dict:
        raise RuntimeError("out of memory\nand a long trace")

    monkeypatch.setattr(live, "features", burst)
    room = live.Room(STEPS, SCENES)
    now = room.start(fits.subject(selected()), CPU).wait(60)
    assert now.phase == "failed"
    assert (now.mistake.code, now.mistake.values["reason"]) == ("live.failed", "out of memory")
    monkeypatch.undo()
    monkeypatch.setattr(models, "backbone", lambda *_, **__: (None, (WeightsError("weights.unnamed", path="x"),)))
    assert room.start(fits.subject(selected()), CPU).wait(60).mistake.code == "weights.unnamed"


def test_maps_too_large_for_half_precision_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    real = live.features
    monkeypatch.setattr(live, "features", lambda *a: {k: v.float() * 1e6 for k, v in real(*a).items()})
    monkeypatch.setattr(torch, "cat", lambda parts, d=torch.cat: d(parts).half())
    now = live.Room(STEPS, SCENES).start(fits.subject(selected()), CPU).wait(60)
    assert now.mistake.code == "live.overflow"


@pytest.mark.parametrize(
    ("method", "weight", "share"), [("aff", True, False), ("add", True, True), ("se", False, False)]
)
def test_a_picture_shows_what_the_head_makes_of_it(method: str, weight: bool, share: bool) -> None:
    room = live.Room(STEPS, SCENES)
    fitted(selected(method), room)
    fit = room.of(fits.subject(selected(method)))
    found = study.run(selected(method))
    first, last = (live.look(fit, step, found.pyramid, (64, 64)) for step in (0, STEPS))
    assert last.classes.shape == (64, 64)
    assert not torch.equal(first.classes, last.classes)
    assert torch.equal(last.classes, found.prediction.maps["fused"])
    assert (last.weight is not None, last.share) == (weight, share)
    if weight:
        assert last.weight.shape == (16, 16)
        assert ((last.weight >= 0) & (last.weight <= 1)).all()


# --- the board -----------------------------------------------------------------------------------
def test_what_ships_rules_until_the_fit_is_asked_for() -> None:
    fitted(selected())
    assert study.run(selected().with_(head="auto")).result.provenance.kind == "bundled"
    assert study.run(selected()).result.provenance.kind == "fitted_scenes"


@pytest.mark.parametrize("method", ["aff", "wsum", "fpn", "highway"])
def test_the_board_goes_through_the_steps_of_a_fit(method: str) -> None:
    fitted(selected(method))
    found = study.run(selected(method))
    assert found.result.provenance.detail == f"scenes, {STEPS} steps"
    assert found.sweep.kind == "step"
    assert [frame.value for frame in found.sweep.frames] == [0, 5, 10, 20, STEPS]
    assert found.sweep.start == len(found.sweep.frames) - 1
    assert set(found.prediction.maps) == {"low_only", "high_only", "fused"}
    first, last = found.at(0), found.at(STEPS)
    assert first.result.provenance.kind == "random"  # nothing was learned yet
    assert not torch.equal(first.result.fused.tensor, last.result.fused.tensor)
    assert torch.equal(first.prediction.maps["low_only"], last.prediction.maps["low_only"])
    assert set(found.sweep.frames[0].facts) == {"loss", "miou"}
    if method == "wsum":
        weights = {float(frame.result.attention["low"].tensor[0, 0]) for frame in found.sweep.frames}
        assert len(weights) == len(found.sweep.frames)


def test_where_a_method_learns_nothing_only_the_reading_changes() -> None:
    fitted(selected("complex"))
    found = study.run(selected("complex"))
    first, last = found.at(0), found.at(STEPS)
    assert found.result.provenance.kind == "analytic"
    assert torch.equal(first.result.fused.tensor, last.result.fused.tensor)
    assert not torch.equal(first.prediction.maps["fused"], last.prediction.maps["fused"])


def test_a_stopped_fit_is_shown_as_far_as_it_came(monkeypatch: pytest.MonkeyPatch) -> None:
    stopping(monkeypatch, "fused", 7)
    fitted(selected())
    found = study.run(selected())
    assert found.result.provenance.detail == "scenes, 7 steps"
    assert [frame.value for frame in found.sweep.frames] == [0, 5, 7]
    assert set(found.prediction.maps) == {"fused"}


def test_other_knobs_have_no_trained_head_until_they_are_fitted() -> None:
    narrow = selected(params=(("r", 8), ("width", 32)), weights="random").with_(head="auto")
    assert study.run(narrow).prediction is None
    fitted(narrow)
    found = study.run(narrow)
    assert found.result.provenance.kind == "fitted_scenes"
    assert found.provenance.kind == "random"  # the network below still is
    assert found.result.fused.channels == 32
    live.Room().forget(fits.subject(narrow))
    assert study.run(narrow).prediction is None
