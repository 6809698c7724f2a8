"""The networks that are trained here: the contract of every backbone, and what makes them what they are."""

import pytest
import torch

from fusionviz import backbones, scenes
from fusionviz.backbones import bundled
from fusionviz.errors import ShapeError, WeightsError
from fusionviz.training.packing import halved

KEYS = bundled.names()


def test_they_come_first_and_the_residual_one_is_the_default() -> None:
    assert backbones.names()[:2] == KEYS == ("scene_resnet", "scene_mobilenet")
    assert {backbones.family(key) for key in KEYS} == {"scene"}
    assert backbones.title("scene_resnet") == "Scene ResNet"


@pytest.mark.parametrize("key", KEYS)
def test_levels_run_from_2_to_32(key: str) -> None:
    info = backbones.info(key)
    assert [level.name for level in info.levels] == ["s2", "s4", "s8", "s16", "s32"]
    assert tuple(level.channels for level in info.levels) == bundled.build(key).channels
    # Padded 3x3 convolutions of stride 2: every level's first cell is centred on the picture's first pixel.
    assert {level.offset for level in info.levels} == {(0.5, 0.5)}
    assert (info.default_low, info.default_high) == ("s4", "s16")
    assert info.exception == ""


@pytest.mark.parametrize("key", KEYS)
def test_the_traced_levels_are_those_that_are_trained(key: str) -> None:
    torch.manual_seed(3)
    network = bundled.build(key).eval()
    opened = backbones.load(key, state=network.state_dict())
    x = torch.randn(2, 3, 96, 64)
    with torch.inference_mode():
        pyramid, logits = opened(x)
        expected = network.levels(x)
        torch.testing.assert_close(logits, network(x))
    assert logits.std() > 0
    for level, tensor in zip(pyramid, expected, strict=True):
        torch.testing.assert_close(level.tensor, tensor)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("size", [(32, 32), (65, 97), (128, 128), (130, 33)])
def test_any_size_from_32_pixels_is_taken(key: str, size: tuple[int, int]) -> None:
    wants = backbones.info(key).preprocessing
    assert (wants.fixed, wants.multiple, wants.minimum_px, wants.crop_px) == (False, 1, 32, 128)
    with torch.inference_mode():
        pyramid, logits = backbones.load(key)(torch.zeros(1, 3, *size))
    assert [m.size for m in pyramid] == [tuple(-(-n // s) for n in size) for s in (2, 4, 8, 16, 32)]
    assert logits.shape == (1, len(scenes.KINDS))


def test_a_smaller_picture_is_refused_with_the_size_it_needs() -> None:
    with pytest.raises(ShapeError, match="at least 32"):
        backbones.load("scene_resnet")(torch.zeros(1, 3, 31, 64))


@pytest.mark.parametrize("key", KEYS)
def test_the_logits_are_the_kinds_of_the_scenes_each_by_itself(key: str) -> None:
    assert bundled.KINDS == len(scenes.KINDS) == backbones.info(key).classes
    assert backbones.info(key).multilabel
    assert not backbones.info("resnet18").multilabel


@pytest.mark.parametrize(("key", "most"), [("scene_resnet", 1_100_000), ("scene_mobilenet", 600_000)])
def test_they_are_small_and_what_is_listed_is_what_is_there(key: str, most: int) -> None:
    assert backbones.info(key).parameters == sum(p.numel() for p in bundled.build(key).parameters()) < most


@pytest.mark.parametrize("key", KEYS)
def test_random_weights_are_those_of_the_seed(key: str) -> None:
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        a, b, c = (backbones.load(key, seed=seed)(x)[1] for seed in (4, 4, 5))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert backbones.load(key, seed=4).provenance.kind == "random"


@pytest.mark.parametrize("key", KEYS)
def test_weights_at_half_precision_fit(key: str) -> None:
    network = bundled.build(key)
    opened = backbones.load(key, state={k: v.float() for k, v in halved(network.state_dict()).items()})
    assert opened.provenance.kind == "pretrained"
    with pytest.raises(WeightsError, match="Missing"):
        backbones.load(key, state={"stem.0.0.weight": network.stem[0][0].weight})


def test_the_low_level_sees_15_pixels_only() -> None:
    network = bundled.build("scene_resnet").eval()
    x = torch.zeros(1, 3, 64, 64, requires_grad=True)
    torch.manual_seed(0)
    level = network.levels(x + torch.randn(1, 3, 64, 64))[1]
    level[0, :, 8, 8].sum().backward()
    seen = (x.grad.abs().sum((0, 1)) > 0).nonzero()
    assert (seen.amax(0) - seen.amin(0) + 1).max() <= 15


def test_a_small_thing_in_a_corner_counts_as_much_as_anywhere() -> None:
    """The logits read the maximum over the picture, so more of the same background changes nothing but borders."""
    network = bundled.build("scene_resnet").eval()
    last = torch.zeros(1, 128, 4, 4)
    last[0, :, 3, 0] = 1
    network.levels = lambda _x: (last,)
    corner = network(torch.zeros(1))
    last = torch.ones(1, 128, 4, 4)
    torch.testing.assert_close(network(torch.zeros(1)), corner)


def test_squeeze_excitation_weighs_channels_between_0_and_1() -> None:
    block = bundled.SqueezeExcite(8, 4)
    x = torch.rand(2, 8, 5, 5) + 0.1
    ratio = block(x) / x
    assert ((ratio > 0) & (ratio < 1)).all()
    torch.testing.assert_close(ratio, ratio[..., :1, :1].expand_as(ratio))  # one weight a channel


def test_an_inverted_residual_joins_only_where_it_can() -> None:
    assert bundled.InvertedResidual(8, 8, 1).joins
    assert not bundled.InvertedResidual(8, 8, 2).joins
    assert not bundled.InvertedResidual(8, 12, 1).joins
