"""The article's comparison and the fair pair: trained alike, learning for real, and told as it came out."""

import json
import re

import numpy as np
import pytest
import torch

from fusionviz import pack, scenes, texts
from fusionviz.training import comparison


def test_a_thing_fills_the_picture_and_is_named() -> None:
    shown, kinds = comparison.pictures(3, 5, 48)
    assert shown.shape == (5, 3, 48, 48)
    big = (scenes.scene(seed, objects=1) for seed in range(3, 60))
    big = [s for s in big if np.ptp(s.boxes[0].reshape(2, 2), axis=0).max() >= comparison.SMALLEST_PX]
    assert kinds.tolist() == [s.labels[0] - 1 for s in big[:5]]


@pytest.mark.parametrize("name", comparison.NETWORKS)
def test_a_network_learns_four_scenes_by_heart(name: str) -> None:
    shown, _ = comparison.pictures(3, 4, 32)
    kinds = torch.arange(4)
    network = comparison.build(name, 4, 32)
    assert comparison.accuracy(network.eval(), shown, kinds) <= 50
    comparison.fit(network, shown, kinds, steps=60, seed=0)
    assert comparison.accuracy(network, shown, kinds) == 100


def test_the_same_seed_gives_the_same_row() -> None:
    trial = comparison.Trial(32, 16, 8, 2, 2)
    told = []
    rows = comparison.run(trial, lambda *values: told.append(values))
    assert rows == comparison.run(trial, lambda *_: None)
    assert [row["network"] for row in rows] == list(comparison.NETWORKS)
    assert [(name, seed) for name, seed, _ in told] == [(n, s) for n in comparison.NETWORKS for s in range(2)]
    alone, fused = rows[1:]
    assert fused["parameters"] - alone["parameters"] == (64 + 128) * 256


@pytest.mark.parametrize("language", texts.LANGUAGES)
def test_the_lesson_says_what_was_measured(language: str) -> None:
    table = json.loads((pack.folder() / "comparison.json").read_text("utf-8"))
    body = texts.lesson("multilevel", language).body
    for row in table["rows"]:
        mean, sd = row["accuracy"]["mean"], row["accuracy"]["sd"]
        assert re.search(rf"\| {row['parameters']:,} \| {row['macs'] / 1e9:.3f} \| {mean:.1f} ± {sd:.1f} \|", body), row
    assert f"{table['test_scenes']:,}" in body
