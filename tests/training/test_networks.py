"""Training the networks themselves, in a few steps."""

import pytest
import torch

from fusionviz.backbones import bundled
from fusionviz.training import data, networks


@pytest.fixture(scope="module")
def samples() -> data.Samples:
    return data.draw(data.TRAIN, 16, 64)


@pytest.mark.parametrize("key", bundled.names())
def test_the_loss_falls(key: str, samples: data.Samples) -> None:
    losses = [now.progress.loss for now in networks.training(key, samples, steps=24)]
    assert sum(losses[-4:]) < 0.9 * sum(losses[:4])


def test_the_same_seed_gives_the_same_network(samples: data.Samples) -> None:
    a, b, c = (networks.train("scene_resnet", samples, steps=2, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not all(torch.equal(a[k], c[k]) for k in a)


def test_every_level_is_asked_for_the_mask(samples: data.Samples) -> None:
    readout = networks.Readout(bundled.build("scene_resnet"), 10)
    scores, kinds = readout(data.normalise(samples.pictures[:2], bundled.PREPROCESSING))
    assert scores.shape == (2, 10, 64, 64)
    assert kinds.shape == (2, 9)
    scores.square().mean().backward()
    assert all(layer.weight.grad.abs().sum() > 0 for layer in readout.scores)
    assert len(readout.scores) == 4


def test_presence_says_which_kinds_are_there() -> None:
    classes = torch.tensor([[[0, 0], [0, 2]], [[1, 3], [3, 3]]])
    assert networks.presence(classes, 3).tolist() == [[0, 1, 0], [1, 0, 1]]


def test_the_figures_of_a_network_count_pixels_and_kinds(samples: data.Samples) -> None:
    readout = networks.Readout(bundled.build("scene_resnet"), 10)
    figures = networks.score(readout, samples)
    assert 0 <= figures["miou"] < 30  # it has learned nothing
    assert 0 <= figures["presence_accuracy"] <= 100
