"""Systems trained as a whole: what came out is kept, goes on where it stood, ships, and is opened again."""

import math
import shutil
from pathlib import Path

import pytest
import torch

from fusionviz import models, pack, systems
from fusionviz.training import rebuild, wholes
from fusionviz.training.wholes import LESSONS, Lesson


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for end in ("json", "safetensors"):
        shutil.copy(pack.folder() / f"scene_resnet.{end}", tmp_path)
    return tmp_path


def test_a_quick_rebuild_writes_cards_whose_numbers_open(folder: Path) -> None:
    said = []
    with pack.reading(folder):
        some = ["ssd", "fpn_detector", "ram", "show_attend_tell"]
        say = lambda *told: said.append(told)  # noqa: E731
        rebuild.rebuild_systems(folder, "scene_resnet", rebuild.QUICK, which=some, say=say)
        card = pack.system("scene_resnet", "ssd", {"score": 0.5})
        assert card.seeds == 2
        assert card.metrics.keys() == card.spread.keys()
        assert card.made["test_scenes"] == wholes.QUICK.detecting.test_scenes
        levels = rebuild.open_shipped("scene_resnet").info.levels
        module, _ = models.system("ssd", levels, card=card)
        assert module.provenance.kind == "bundled"
        assert sum(p.numel() for p in module.parameters()) == card.parameters
        other = systems.build("ssd", levels)
        same = zip(module.parameters(), other.parameters(), strict=True)
        assert not all(torch.equal(a, b) for a, b in same)
        cards = {on: pack.system("scene_resnet", "fpn_detector", {"top_down": on}) for on in (True, False)}
        assert cards[True].file != cards[False].file
        assert cards[False].seeds == 1
    lessons = [lesson for of in LESSONS.values() for lesson in of if lesson.system in some]
    assert [key for key, _ in said] == ["system"] * sum(min(lesson.seeds or 2, 2) for lesson in lessons)
    assert not list(folder.glob(".*"))  # what was kept is of no more use


def test_what_is_kept_is_not_trained_again(folder: Path) -> None:
    lesson, backbone = Lesson("ssd"), rebuild.open_shipped("scene_resnet")
    trainer, budget = wholes._TRAINERS["detecting"], wholes.QUICK.detecting
    outcome = wholes.train(lesson, trainer, backbone, trainer.prepare(backbone, budget), budget, 0)
    wholes.keep(folder / "kept", lesson.name(0), outcome)
    back = wholes.keep(folder / "kept", lesson.name(0), None)
    assert back.figures == outcome.figures
    assert back.state.keys() == outcome.state.keys()
    assert all(torch.equal(back.state[k], v) for k, v in outcome.state.items())
    assert wholes.keep(folder / "kept", lesson.name(1), None) is None


def test_every_training_has_a_system_and_a_name_of_its_own() -> None:
    lessons = [lesson for of in LESSONS.values() for lesson in of]
    assert {lesson.system for lesson in lessons} <= set(systems.names())
    assert len({lesson.name(0) for lesson in lessons}) == len(lessons)
    for lesson in lessons:
        spec = systems.spec(lesson.system)
        assert all(spec.param(key).refit for key, _ in lesson.params)
        assert set(lesson.apart) <= {p.key for p in spec.params if p.refit}


def test_shipped_systems_are_those_of_the_catalogue() -> None:
    """Every card in the pack is of a system as it is now, and its figures are numbers."""
    for path in sorted(pack.folder().glob("scene_resnet.system.*.json")):
        key = path.name.split(".")[2].split("-")[0]
        card = next(
            c
            for lesson in (v for of in LESSONS.values() for v in of)
            if lesson.system == key
            and (c := pack.system("scene_resnet", key, systems.spec(key).parse(dict(lesson.params)))) is not None
        )
        module, _ = models.system(key, rebuild.open_shipped("scene_resnet").info.levels, card=card, **dict(card.params))
        assert module.provenance.kind == "bundled"
        assert all(math.isfinite(v) for v in card.metrics.values())
