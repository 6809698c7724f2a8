"""Heads in series: the same numbers alone and side by side, kept as they come, told as a table."""

import json
from pathlib import Path

import pytest
import torch

from fusionviz import backbones, pack, scenes
from fusionviz.training import data, rebuild, series, weighing
from fusionviz.training.heads import STACKED
from fusionviz.training.metrics import Truth
from fusionviz.training.series import Data, Split, Unit
from fusionviz.training.standings import Rows

KEY = "scene_resnet"
LEVELS = ("s4", "s8", "s16", "s32")


@pytest.fixture(scope="module")
def small() -> Data:
    """A few real scenes, seen by the network that ships."""
    backbone = backbones.load(KEY, state=pack.backbone_state(KEY))
    parts = [data.draw(first, count) for first, count in ((data.TRAIN, 24), (data.TEST, 12))]
    train, test = (Split.of(backbone, part, LEVELS) for part in parts)
    return Data(backbone.info.levels, train, test, test.first(6), weighed=8)


def _unit(method: str, **changes: object) -> Unit:
    return Unit(**{"method": method, "low": "s4", "high": "s32", "steps": 4, "width": 8, **changes})


def _same(a: series.Outcome, b: series.Outcome) -> bool:
    return (a.figures, a.occluded, a.weights, a.causal) == (b.figures, b.occluded, b.weights, b.causal) and all(
        torch.equal(a.state[name], b.state[name]) for name in a.state
    )


def test_two_at_once_give_the_numbers_of_one_after_the_other(small: Data, tmp_path: Path) -> None:
    units = [_unit("aff", weights=True), _unit("add"), _unit(STACKED, prediction="conv"), _unit("add", seed=1)]
    alone = dict(series.run_all(units, small, tmp_path / "a"))
    together = dict(series.run_all(units, small, tmp_path / "b", jobs=2))
    assert set(alone) == set(together) == set(units)
    assert all(_same(alone[unit], together[unit]) for unit in units)
    assert not _same(alone[units[1]], alone[units[3]])  # another seed


def test_a_series_goes_on_where_it_stood(small: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    units = [_unit("add"), _unit("concat")]
    first = dict(series.run_all(units[:1], small, tmp_path))
    fitted = []
    monkeypatch.setattr(series, "run", lambda unit, _data, run=series.run: fitted.append(unit) or run(unit, _data))
    (tmp_path / "half.part").write_bytes(b"what a kill leaves behind")
    both = dict(series.run_all(units, small, tmp_path))
    assert fitted == units[1:]
    assert _same(both[units[0]], first[units[0]])


def test_units_differ_in_name_wherever_they_differ() -> None:
    units = [_unit("add"), _unit("add", seed=1), _unit("add", deeper=True), _unit("add", prediction="conv")]
    units += [_unit("add", weights=True), _unit("add", steps=5), _unit("add", high="s16"), _unit("aff")]
    units += [_unit("fpn"), _unit("fpn", params=(("lateral", False),)), _unit("fpn", params=(("top_down", False),))]
    assert len({unit.name for unit in units}) == len(units)


def test_a_unit_without_knobs_of_its_own_keeps_the_name_it_had() -> None:
    assert _unit("fpn", deeper=True, seed=2).name == "fpn-s4-s32-linear-deeper-8-4-2"  # outcomes lie under it


def test_a_path_that_is_cut_off_carries_nothing(small: Data) -> None:
    """Behind the whole of FPN every output hears every coarser level; without the top-down path only its own."""
    maps = [small.test.maps[name][:1].float() for name in LEVELS]
    other = [*maps[:-1], maps[-1] + 1]
    for control, knobs in rebuild.ABLATION.items():
        head = _unit("fpn", params=tuple(knobs.items())).build(small.levels).eval()
        before, after = (head.fusion(*given).outputs for given in (maps, other))
        moved = {name for name in before if not torch.equal(before[name].tensor, after[name].tensor)}
        assert moved == ({"fused", "p32"} if control == "no_top_down" else {"fused", "p4", "p8", "p16", "p32"})
        louder = head.fusion(maps[0] + 1, *maps[1:]).outputs["fused"].tensor
        assert torch.equal(before["fused"].tensor, louder) is (control == "no_lateral")


def test_four_levels_are_stacked_and_a_deeper_head_has_one_layer_more(small: Data) -> None:
    assert [level.name for level in _unit(STACKED).levels(small.levels)] == list(LEVELS)
    plain, deeper = (sum(p.numel() for p in _unit("add", deeper=d).build(small.levels).parameters()) for d in (0, 1))
    assert deeper == plain + 8 * 8 + 2 * 8  # a 1x1 convolution without bias, and its normalisation


# --- the table -----------------------------------------------------------------------------------
def test_the_leaderboard_has_every_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuild, "methods", lambda: ("low_only", "add", "aff", "fpn"))
    for file in pack.folder().glob(f"{KEY}.*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    said: list[str] = []
    budget = rebuild.changed(rebuild.QUICK, 3, 2)
    rebuild.rebuild(
        tmp_path, budget, backbones=(KEY,), parts=("leaderboard",), say=lambda key, values: said.append(key)
    )
    table = json.loads((tmp_path / "leaderboard.json").read_text("utf-8"))
    rows = {(row["method"], row["control"]): row for row in table["rows"]}
    controls = {("add", "depth"), ("aff", "depth"), ("add", "linear"), ("aff", "linear"), ("fpn", "linear")}
    controls |= {("fpn", control) for control in rebuild.ABLATION}
    assert set(rows) == {("low_only", ""), ("add", ""), ("aff", ""), ("fpn", ""), (STACKED, "levels4")} | controls
    low, fpn = rows["low_only", ""], rows["fpn", ""]
    assert (low["seeds"], fpn["levels"]) == (2, list(LEVELS))
    assert fpn["macs"] > low["macs"] > 0
    assert fpn["parameters"] > low["parameters"]
    assert all(row["ms"] > 0 for row in table["rows"])
    assert {row["method"] for row in table["occluded"]} == {"low_only", "add", "aff", "fpn"}
    assert {(row["method"], row["setting"]) for row in table["attention"]} == {("aff", "board"), ("aff", "leaderboard")}
    assert set(pack_heads(tmp_path)) == {"low_only", "add", "aff", "fpn"}
    assert said.count("head") == 2 * (len(rows) + 1)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]  # what was kept on the way is gone


def pack_heads(folder: Path) -> dict[str, pack.HeadCard]:
    with pack.reading(folder):
        return pack.heads(KEY, "leaderboard")


def test_one_value_has_no_spread(small: Data, tmp_path: Path) -> None:
    rows, unit = Rows(), _unit("low_only")
    rows.add("", *next(series.run_all([unit], small, tmp_path)))
    assert rows.told(small)["rows"][0]["sd"]["miou"] is None


def test_a_method_measured_later_takes_its_own_place() -> None:
    def table(*methods: str, seeds: int) -> dict:
        rows = [{"method": m, "control": "", "seeds": seeds} for m in methods]
        return {"rows": rows, "occluded": [], "attention": []}

    told = rebuild.merged(table("add", "aff", seeds=3), table("aff", "eca", seeds=1))
    assert [(row["method"], row["seeds"]) for row in told["rows"]] == [("add", 3), ("aff", 1), ("eca", 1)]


# --- weights -------------------------------------------------------------------------------------
def _truth() -> Truth:
    """One scene of 32 pixels: a box of 20 pixels, of the first kind."""
    classes = torch.zeros(2, 32, 32, dtype=torch.uint8)
    classes[:, 6:26, 6:26] = 1
    return Truth.of(classes, classes)


def test_regions_divide_the_picture() -> None:
    where = weighing._regions(_truth())
    whole = sum(where[name].int() for name in ("background", "edge", "interior"))
    assert torch.equal(whole, torch.ones_like(whole))
    assert where["edge"][0, 5:7, 15].all()
    assert not where["edge"][0, 15, 15]
    assert torch.equal(where["interior"], where[scenes.KINDS[0]])
    assert int(where["large"].sum()) == 2 * 20 * 20  # 20 of 32 pixels are 80 of 128


def test_one_weight_for_a_picture_is_the_same_everywhere(small: Data) -> None:
    head = _unit("wsum").build(small.levels)
    head.fusion.a.data.fill_(-0.8473)  # sigmoid of it is 0.3
    maps = {name: small.test.maps[name] for name in ("s4", "s32")}
    found = weighing.weights_of_low(head, maps, small.test.truth)
    assert found == pytest.approx(dict.fromkeys(found, 0.3), abs=1e-3)
    told = weighing.used(head, maps, small.test.truth)
    assert told["own"] == told["other"] == told["flat"]


@pytest.mark.parametrize("method", ["aff", "iaff", "highway", "softmax2"])
def test_exchanged_weights_change_the_answer_and_own_ones_do_not(small: Data, method: str) -> None:
    head = _unit(method).build(small.levels)
    for parameter in head.fusion.parameters():
        parameter.data.mul_(3)  # weights far from one half
    maps = {name: small.test.maps[name] for name in ("s4", "s32")}
    told = weighing.used(head, maps, small.test.truth)
    alike = {name: v[:1].expand(6, -1, -1, -1) for name, v in maps.items()}
    one = small.test.truth[:1]
    six = Truth(*(getattr(one, name).expand(6, -1, -1) for name in ("classes", "sizes", "outline", "near")))
    same = weighing.used(head, alike, six)
    assert same["own"] == same["other"]  # six times one picture: another one's weights are its own
    assert told["own"] != told["other"]
