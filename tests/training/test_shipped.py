"""The pack that ships: whole, belonging to today's code, small, and really trained."""

import pytest
import torch
from _readme import promised

from fusionviz import backbones, pack, scenes
from fusionviz.backbones import bundled
from fusionviz.training import BASELINES, build_head, draw, features, packing, rebuild, score
from fusionviz.training.data import TEST
from fusionviz.training.metrics import Truth

FRESH = TEST + 500_000
"""Scenes that neither training nor the figures on the cards have seen."""

NOISE = 8.0
"""mIoU of 32 scenes stands that many points around that of a thousand: about three standard deviations."""

SHIPPED = [(key, setting) for key in bundled.names() for setting in pack.SETTINGS if pack.heads(key, setting)]
CARDS = [card for key, setting in SHIPPED for card in pack.heads(key, setting).values()]


def build(card: pack.HeadCard):  # noqa: ANN201
    infos = {level.name: level for level in backbones.info(card.backbone).levels}
    levels = [infos[name] for name in card.levels]
    return build_head(card.method, levels, len(card.classes), width=card.width, prediction=card.prediction), levels


def name(card: pack.HeadCard) -> str:
    return f"{card.backbone}-{card.setting}-{card.method}"


def test_the_default_network_ships_with_a_head_for_every_method() -> None:
    assert pack.backbone_state(bundled.names()[0]) is not None
    missing = set(rebuild.methods()) & {*BASELINES, *promised()} - set(pack.heads(bundled.names()[0]))
    assert not missing, f"no trained head for {', '.join(sorted(missing))}: run {packing.REBUILD} --part heads"


@pytest.mark.parametrize("key", [key for key in bundled.names() if pack.backbone_card(key)])
def test_a_shipped_network_opens(key: str) -> None:
    opened = backbones.load(key, state=pack.backbone_state(key))
    assert pack.backbone_card(key).classes == scenes.KINDS
    assert all(v.isfinite().all() for v in opened.module.state_dict().values())


@pytest.mark.parametrize("card", CARDS, ids=name)
def test_no_head_is_stale(card: pack.HeadCard) -> None:
    head, levels = build(card)
    assert packing.fingerprint(card.method, head) == card.fingerprint, (
        f"{card.method} has changed its knobs or shapes since it was trained: run {packing.REBUILD}"
    )
    pack.fill_head(head, card)
    assert packing.same_probe(packing.probe(head, levels), card.probe), (
        f"{card.method} computes something else than when it was trained: run {packing.REBUILD}"
    )
    assert card.classes == scenes.CLASSES
    assert (card.low, card.high) == rebuild.LEVELS[card.setting]


def test_the_pack_is_small() -> None:
    assert sum(file.stat().st_size for file in pack.folder().iterdir()) <= 20_000_000


@pytest.fixture(scope="module")
def fresh() -> dict:
    """32 scenes that nothing was fitted to, and the maps of the default network."""
    samples = draw(FRESH, 32)
    key = bundled.names()[0]
    backbone = backbones.load(key, state=pack.backbone_state(key))
    with torch.inference_mode():
        return {"samples": samples, "maps": features(backbone, samples, ("s4", "s16"))}


@pytest.mark.parametrize("method", ["low_only", "high_only", "add", "aff"])
def test_a_head_is_as_good_on_fresh_scenes_as_its_card_says(fresh: dict, method: str) -> None:
    card = pack.head(bundled.names()[0], method, "s4", "s16")
    head, _ = build(card)
    pack.fill_head(head, card)
    samples = fresh["samples"]
    figures = score(head, fresh["maps"], Truth.of(samples.classes, samples.instances))
    assert figures["miou"] > card.metrics["miou"] - NOISE


def test_two_levels_beat_either_one() -> None:
    found = {method: card.metrics["miou"] for method, card in pack.heads(bundled.names()[0]).items()}
    for method in ("add", "aff"):
        assert found[method] > found["high_only"] + 2
        assert found[method] > found["low_only"] + 20


def test_the_network_names_most_kinds_in_a_fresh_picture(fresh: dict) -> None:
    key = bundled.names()[0]
    card = pack.backbone_card(key)
    assert card.metrics["presence_accuracy"] > 85
    assert card.metrics["miou"] > 80
