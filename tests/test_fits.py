"""Files of fits: whole or not there, and what is not a fit is left alone with a sentence."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fusionviz import fits, pack, study
from fusionviz.cli import main
from fusionviz.errors import WeightsError
from fusionviz.fits import Moment, Subject
from fusionviz.fusion.aff import AFF
from fusionviz.selection import Selection

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSIONVIZ_CACHE", str(tmp_path))


def subject(**changes: object) -> Subject:
    return fits.subject(Selection(low="s4", high="s16", size=64, **changes))


def save(of: Subject, step: int = 8, steps: int = 8) -> Path:
    """Write a fit whose numbers are the seed's."""
    kept = {f"fused/{n}/{k}": v for n in (0, step) for k, v in fits.halved(of.build().state_dict()).items()}
    for reader in fits.READERS[1:]:
        kept |= {f"{reader}/{k}": v for k, v in fits.halved(of.build(reader).state_dict()).items()}
    done = {"fused": step, "low_only": steps, "high_only": steps}
    moments = (Moment(0, 2.3, 3.0), Moment(step, 0.4, 70.0))
    fits.save(of, kept, {}, steps=steps, done=done, moments=moments, drawn=24)
    return of.path


def notice(of: Subject) -> str:
    found, notices = fits.find(of)
    assert found is None
    (mistake,) = notices
    assert str(of.path) in str(mistake)
    return mistake.code


def test_a_fit_comes_back() -> None:
    of = subject()
    assert fits.find(of) == (None, ())
    save(of)
    found, notices = fits.find(of)
    assert notices == ()
    assert found.complete
    assert (found.drawn, found.steps, [m.miou for m in found.moments]) == (24, 8, [3.0, 70.0])
    state = pack.head_state(found.card)
    expected = of.build().state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[k], v.half().float() if v.is_floating_point() else v) for k, v in expected.items())
    assert pack.beside(found.card, "low_only").group == "low_only"
    assert fits.files() == (of.path,)


def test_the_name_can_be_read_and_tells_subjects_apart() -> None:
    of = subject()
    assert of.path.name.startswith("scene_resnet.s4-s16.aff.")
    others = [
        subject(method="iaff"), subject(seed=1), subject(weights="random"), replace(of, size=96),
        subject(params=(("r", 8),)), subject(backbone="scene_mobilenet"), replace(of, weights="bundled 0"),
    ]  # fmt: skip
    assert len({of.digest, *(o.digest for o in others)}) == 1 + len(others)
    assert subject(params=(("gain", 2),)).digest == of.digest  # live: the same numbers serve it
    assert replace(of, source="file:elsewhere").digest == of.digest


def test_methods_without_two_levels_have_no_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AFF, "spec", replace(AFF.spec, takes="one"))
    assert subject() is None


# --- what is not a fit ---------------------------------------------------------------------------
@pytest.mark.parametrize("part", [0, 1, 7, 8, 100, 0.5, -1])
def test_a_truncated_file_is_left_alone(part: float) -> None:
    of = subject()
    path = save(of)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole)) if isinstance(part, float) else part])
    assert notice(of) == "live.damaged"
    assert path.exists()


def test_garbage_and_changed_bytes_are_noticed() -> None:
    of = subject()
    path = save(of)
    whole = bytearray(path.read_bytes())
    whole[-1000] ^= 0xFF
    path.write_bytes(whole)
    assert notice(of) == "live.damaged"
    path.write_bytes(os.urandom(4096))
    assert notice(of) == "live.damaged"
    save(of)
    assert fits.find(of)[0].complete  # a new one takes its place


def test_a_file_of_somebody_else_is_not_believed() -> None:
    import safetensors.torch

    of, other = subject(), subject(seed=1)
    save(other).rename(of.path)
    assert notice(of) == "live.stale"
    of.path.write_bytes(safetensors.torch.save({"x": torch.zeros(3)}))
    assert notice(of) == "live.damaged"


def test_a_fit_of_a_method_that_changed_is_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    of = subject()
    save(of)
    assert fits.find(of)[0] is not None
    fits._find.cache_clear()
    with monkeypatch.context() as changed:  # the equation
        changed.setattr(AFF, "_select", lambda self, m, x, y: torch.lerp(x, y, m))
        assert notice(of) == "live.stale"
    fits._find.cache_clear()
    monkeypatch.setattr(AFF, "spec", replace(AFF.spec, align="size"))
    assert notice(of) in ("live.stale", "live.damaged")


def test_the_study_goes_on_without_a_damaged_fit_and_says_so() -> None:
    chosen = Selection(low="s4", high="s16", size=64, method="se", weights="random")
    of = fits.subject(chosen)
    save(of).write_bytes(b"no")
    found = study.run(chosen)
    assert [n.code for n in found.notices] == ["live.damaged"]
    assert found.prediction is None


# --- killed, full, many --------------------------------------------------------------------------
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    of = subject()
    before = save(of).read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WeightsError, match="No space left"):
        save(of, step=4)
    assert of.path.read_bytes() == before
    assert [p.name for p in of.path.parent.iterdir()] == [of.path.name]


def test_a_process_killed_while_it_writes_leaves_a_whole_file(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, 'tests'); import test_fits as t; of = t.subject(); print(1, flush=True)\n"
        "while True: t.save(of)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
    of, end = subject(), time.monotonic() + 120
    while not of.path.exists() and child.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.15)
    child.send_signal(signal.SIGKILL)
    child.wait()
    found, notices = fits.find(of)
    assert notices == ()
    assert found.complete


def test_the_partial_file_of_a_killed_process_is_tidied_up_later() -> None:
    of = subject()
    path = save(of)
    old, young = path.with_name("a.partial"), path.with_name("b.partial")
    for partial in (old, young):
        partial.write_bytes(path.read_bytes()[:1000])
    os.utime(old, (0, 0))
    assert fits.find(of)[0] is not None
    assert fits.files() == (path,)
    save(of)
    assert not old.exists()
    assert young.exists()  # another process may be writing it


def test_the_folder_stays_small_and_the_oldest_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    subjects = [subject(seed=i) for i in range(4)]
    for i, of in enumerate(subjects[:3]):
        os.utime(save(of), (1000 + i, 1000 + i))
    monkeypatch.setattr(fits, "MOST_BYTES", 3 * subjects[0].path.stat().st_size)
    save(subjects[3])
    assert [of.path.exists() for of in subjects] == [False, True, True, True]
    monkeypatch.setattr(fits, "MOST_BYTES", 10)
    save(subjects[0])
    assert fits.files() == (subjects[0].path,)  # the newest stays in any case


def test_forgetting() -> None:
    of = subject()
    fits.forget(of)
    save(of)
    fits.forget(of)
    assert fits.find(of) == (None, ())


def test_doctor_counts_fits(capsys: pytest.CaptureFixture[str]) -> None:
    save(subject())
    main(["doctor"])
    assert f"fits      1 in {fits.folder()}" in capsys.readouterr().out
