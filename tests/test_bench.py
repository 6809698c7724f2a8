"""The bench compares like with like; how fast this machine is, no test asks."""

import pytest
import torch

from fusionviz import bench, device, study
from fusionviz.errors import ParameterError


def test_both_sides_do_the_same_work(monkeypatch) -> None:
    ran = []
    prepare, work = study.prepare, study.run
    monkeypatch.setattr(study, "prepare", lambda s, *p, on: prepare(s.with_(size=64), *p, on=on))
    monkeypatch.setattr(study, "run", lambda p: ran.append("study") or work(p))
    queue = device.submit

    def submit(where: torch.device, work: object) -> object:
        ran.append("queued")
        return queue(where, work)

    monkeypatch.setattr(device, "submit", submit)
    found = bench.run("squeezenet1_0", "add", rounds=4, on="cpu")
    assert ran.count("study") == 4 + bench.WARM_UP
    assert ran.count("queued") == 2 * ran.count("study")  # the bare networks wait in the same queue
    # What runs second finds warm caches, so every other pair goes the other way round.
    assert ran[-12:] == ["study", "queued", "queued", "queued", "study", "queued"] * 2
    assert set(found["ms"]) == {"bare", "study", "prepare"}
    low, high = found["study_over_bare_spread"]
    assert 0 < low <= found["study_over_bare"] <= high


def test_a_fit_to_the_picture_is_no_part_of_the_ratio(monkeypatch) -> None:
    fitted = []
    prepare, work = study.prepare, study.run
    monkeypatch.setattr(study, "prepare", lambda s, *p, on: prepare(s.with_(size=64), *p, on=on))
    monkeypatch.setattr(study, "run", lambda p: fitted.append(p.fits) or work(p))
    found = bench.run("squeezenet1_0", "wsum", rounds=1, on="cpu")
    assert fitted == [True] + [False] * (1 + bench.WARM_UP)
    assert found["ms"]["fit"] > 0


@pytest.mark.parametrize("rounds", [0, -3])
def test_no_rounds_give_no_ratio(rounds: int) -> None:
    with pytest.raises(ParameterError, match="rounds"):
        bench.run("squeezenet1_0", rounds=rounds)
