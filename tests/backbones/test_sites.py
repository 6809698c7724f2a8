"""The sites inside networks: which are found, and that their maps are what the network itself fuses."""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from fusionviz import backbones
from fusionviz.backbones import _cache, bundled
from fusionviz.errors import LevelError

COUNTS = {
    "scene_resnet": {"skip": 7},
    "scene_mobilenet": {"skip": 5},
    "resnet18": {"skip": 8},
    "resnet50": {"skip": 16},
    "mobilenet_v2": {"skip": 10},
    "mobilenet_v3_large": {"skip": 10},
    "efficientnet_b0": {"skip": 9},
    "regnet_y_400mf": {"skip": 16},
    "convnext_tiny": {"skip": 18},
    "vit_b_16": {"skip": 24},
    "swin_t": {"skip": 24},
    "googlenet": {"branches": 9},
    "inception_v3": {"branches": 11},
    "squeezenet1_0": {"branches": 8},
    "shufflenet_v2_x0_5": {"branches": 16},
    "densenet121": {"dense": 58},
    "vgg16": {},
    "alexnet": {},
}
"""Counted in the papers' tables: blocks with a sum, Inception modules and Fire modules, layers of dense blocks."""


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def picture(key: str, seed: int = 0) -> Tensor:
    wants = backbones.info(key).preprocessing
    px = wants.crop_px if wants.fixed else max(96, wants.minimum_px)
    return torch.randn(1, 3, px, px, generator=torch.Generator().manual_seed(seed))


def torchvisions(key: str, seed: int = 0) -> tuple[nn.Module, backbones.Backbone]:
    """Return torchvision's own network and ours, with the same weights."""
    torch.manual_seed(seed)
    more = (
        {"aux_logits": False, "init_weights": False, "transform_input": True}
        if key in ("googlenet", "inception_v3")
        else {}
    )
    own = bundled.build(key) if key in bundled.names() else models.get_model(key, weights=None, **more)
    for norm in own.modules():
        if isinstance(norm, nn.BatchNorm2d):  # else the last one of a residual could not be told from the identity
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.running_mean, std=0.1)
    return own.eval(), backbones.load(key, state=own.state_dict())


def passing(network: nn.Module, path: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return what a module of a network is given and what it gives, while the network looks at x."""
    seen: list[Tensor] = []

    def listen(module: nn.Module, given: tuple, gives: Tensor) -> None:
        first = given[0]
        first = torch.cat(first, 1) if isinstance(first, list | tuple) else first
        seen.extend((first.clone(), gives.clone()))

    handle = network.get_submodule(path).register_forward_hook(listen)
    with torch.no_grad():
        network(x)
    handle.remove()
    return seen[0], seen[1]


# --- which there are -----------------------------------------------------------------------------
@pytest.mark.parametrize("key", COUNTS)
def test_the_sites_of(key: str) -> None:
    sites = backbones.info(key).sites
    assert Counter(s.kind for s in sites) == COUNTS[key]
    assert len({s.name for s in sites}) == len(sites)
    for site in sites:
        assert len(site.operands) >= 2
        assert len({v.stride for v in site.operands}) == 1
        assert [v.stage for v in site.operands] == list(range(1, len(site.operands) + 1))
        names = [v.name for v in site.operands]
        wanted = {
            "skip": ["identity", "residual"],
            "branches": [f"b{i + 1}" for i in range(len(names))],
            "dense": [f"x{i}" for i in range(len(names))],
        }
        assert names == wanted[site.kind]


def test_names_are_the_paths_of_the_modules() -> None:
    names = {
        key: [s.name for s in backbones.info(key).sites] for key in ("resnet18", "googlenet", "densenet121", "swin_t")
    }
    assert names["resnet18"][:3] == ["skip:layer1.0", "skip:layer1.1", "skip:layer2.0"]
    assert names["googlenet"][0] == "branches:inception3a"
    assert "dense:features.denseblock2.denselayer6" in names["densenet121"]
    assert "dense:features.denseblock2" in names["densenet121"]  # the whole block, as it is handed on
    assert names["swin_t"][:2] == ["skip:features.1.0:1", "skip:features.1.0:2"]  # attention, then the MLP


def test_branches_tell_what_their_cells_hear() -> None:
    ways = {
        (key, name): [v.way for v in backbones.info(key).site(name).operands]
        for key, name in (
            ("googlenet", "branches:inception3a"),
            ("inception_v3", "branches:Mixed_5b"),
            ("inception_v3", "branches:Mixed_6b"),
            ("inception_v3", "branches:Mixed_7b"),
            ("squeezenet1_0", "branches:features.3"),
            ("shufflenet_v2_x0_5", "branches:stage2.1"),
        )
    }
    # torchvision's GoogLeNet has a 3x3 convolution where the paper has the 5x5 one.
    assert ways["googlenet", "branches:inception3a"] == ["1x1", "3x3", "3x3", "pool"]
    assert ways["inception_v3", "branches:Mixed_5b"] == ["1x1", "5x5", "5x5", "pool"]  # the third: 3x3 twice
    assert ways["inception_v3", "branches:Mixed_6b"] == ["1x1", "7x7", "13x13", "pool"]  # 1x7 and 7x1
    assert ways["inception_v3", "branches:Mixed_7b"] == ["1x1", "3x3", "5x5", "pool"]  # forks of 1x3 and 3x1
    assert ways["squeezenet1_0", "branches:features.3"] == ["1x1", "3x3"]
    assert ways["shufflenet_v2_x0_5", "branches:stage2.1"] == ["same", "3x3"]


def test_channels_are_those_of_the_papers() -> None:
    three_a = backbones.info("googlenet").site("branches:inception3a")
    assert [v.channels for v in three_a.operands] == [64, 128, 32, 32]
    dense = backbones.info("densenet121")
    for layer in (2, 6):
        given = dense.site(f"dense:features.denseblock1.denselayer{layer}").operands
        assert [v.channels for v in given] == [64] + [32] * (layer - 1)  # k0 + k (l - 1)
    whole = [sum(v.channels for v in dense.site(f"dense:features.denseblock{i}").operands) for i in (1, 2, 3, 4)]
    assert whole == [256, 512, 1024, 1024]


def test_an_unknown_site_is_answered_with_near_ones() -> None:
    with pytest.raises(LevelError, match=r"ResNet-18 has no place 'skip:layer3\.2'.*skip:layer3\.1"):
        backbones.load("resnet18").at("skip:layer3.2")


def test_sites_are_kept_between_runs(tmp_path) -> None:
    found, path = backbones.info("inception_v3"), tmp_path / "inception_v3.json"
    _cache.write(path, found)
    assert _cache.read(path) == found
    old = json.loads(path.read_text("utf-8"))
    del old["sites"]
    path.write_text(json.dumps(old), "utf-8")
    assert _cache.read(path) is None  # of a version without sites: looked at again


# --- what they hold ------------------------------------------------------------------------------
@pytest.mark.parametrize("key", [key for key in COUNTS if COUNTS[key]])
def test_maps_of_a_site_are_as_announced_and_nothing_else_changes(key: str) -> None:
    network, x = backbones.load(key), picture(key)
    with torch.inference_mode():
        levels, logits = network(x)
        for site in (network.info.sites[0], network.info.sites[-1]):
            maps, same = network.at(site.name)(x)
            assert maps.names == tuple(v.name for v in site.operands)
            for m, v in zip(maps, site.operands, strict=True):
                assert (m.channels, m.stride, m.offset, m.stage) == (v.channels, v.stride, v.offset, v.stage)
            assert len({m.size for m in maps}) == 1
            assert torch.equal(same, logits)
            assert network.at(site.name).provenance == network.provenance
        again, _ = network(x)
    assert all(torch.equal(a.tensor, b.tensor) for a, b in zip(levels, again, strict=True))


@pytest.mark.parametrize(
    ("key", "block"),
    [("resnet18", "layer1.0"), ("resnet18", "layer3.1"), ("resnet50", "layer2.0"), ("scene_resnet", "stage3.1")],
)
def test_identity_and_residual_make_the_block(key: str, block: str) -> None:
    own, network = torchvisions(key)
    x = picture(key)
    entered, left = passing(own, block, x)
    with torch.no_grad():
        maps, _ = network.at(f"skip:{block}")(x)
    identity, residual = maps["identity"].tensor, maps["residual"].tensor
    assert torch.equal(torch.relu(residual + identity), left)  # though the network writes the sum over the residual
    if block.endswith(".1"):
        assert torch.equal(identity, entered)
    else:
        assert identity.shape == left.shape  # through the projection, as shapes differ


@pytest.mark.parametrize(
    ("key", "block"),
    [("mobilenet_v2", "features.3"), ("efficientnet_b0", "features.2.1"), ("scene_mobilenet", "stage2.1")],
)
def test_a_linear_block_is_their_sum(key: str, block: str) -> None:
    own, network = torchvisions(key)
    entered, left = passing(own, block, picture(key))
    with torch.no_grad():
        maps, _ = network.at(f"skip:{block}")(picture(key))
    assert torch.equal(maps["identity"].tensor, entered)
    assert torch.equal(maps["identity"].tensor + maps["residual"].tensor, left)


def test_tokens_of_a_transformer_are_laid_on_their_grid() -> None:
    own, network = torchvisions("vit_b_32")
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    entered, left = passing(own, "encoder.layers.encoder_layer_2", x)
    with torch.no_grad():
        first, _ = network.at("skip:encoder.layers.encoder_layer_2:1")(x)
        second, _ = network.at("skip:encoder.layers.encoder_layer_2:2")(x)

    def tokens(m: Tensor) -> Tensor:
        return m.flatten(2).transpose(1, 2)

    assert torch.equal(tokens(first["identity"].tensor), entered[:, 1:])
    total = second["identity"].tensor + second["residual"].tensor
    torch.testing.assert_close(tokens(total), left[:, 1:], atol=0, rtol=0)


@pytest.mark.parametrize(
    ("key", "layer"),
    [
        ("googlenet", "inception3a"),
        ("googlenet", "inception5b"),
        ("inception_v3", "Mixed_6a"),
        ("inception_v3", "Mixed_7c"),
        ("squeezenet1_1", "features.3"),
    ],
)
def test_branches_stacked_are_the_layers_own_result(key: str, layer: str) -> None:
    own, network = torchvisions(key)
    _, left = passing(own, layer, picture(key))
    with torch.no_grad():
        maps, _ = network.at(f"branches:{layer}")(picture(key))
    assert torch.equal(torch.cat([m.tensor for m in maps], 1), left)


@pytest.mark.parametrize("layer", ["denseblock1.denselayer2", "denseblock3.denselayer7"])
def test_a_dense_layer_is_given_all_that_was_made_before_it(layer: str) -> None:
    own, network = torchvisions("densenet121")
    entered, _ = passing(own, f"features.{layer}", picture("densenet121"))
    with torch.no_grad():
        maps, _ = network.at(f"dense:features.{layer}")(picture("densenet121"))
    assert torch.equal(torch.cat([m.tensor for m in maps], 1), entered)


# --- sharing -------------------------------------------------------------------------------------
def test_numbers_are_shared_and_few_graphs_are_kept() -> None:
    network = backbones.load("resnet50")
    mine = {id(p) for p in network.module.parameters()}
    for site in network.info.sites:
        assert {id(p) for p in network.at(site.name).module.parameters()} == mine
    assert len(network._cuts) < len(network.info.sites)
    last = network.info.sites[-1].name
    assert network.at(last).module is network.at(last).module
    assert network.at(None) is network


def test_threads_share_a_network_at_two_sites() -> None:
    network = backbones.load("googlenet")
    names = [s.name for s in network.info.sites][:2]
    inputs = [(names[i % 2], picture("googlenet", i)) for i in range(6)]

    def maps(job: tuple[str, Tensor]) -> list[Tensor]:
        with torch.inference_mode():
            return [m.tensor for m in network.at(job[0])(job[1])[0]]

    alone = [maps(job) for job in inputs]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(maps, inputs))
    for a, b in zip(alone, together, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
