"""The traced networks compute what torchvision's own compute, and the levels hold what they say."""

import copy
import operator
import threading
import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, fx, nn
from torchvision import models

from fusionviz import backbones
from fusionviz.backbones import _levels
from fusionviz.errors import LevelError, ShapeError, WeightsError

SAMPLE = (
    "resnet18",
    "mobilenet_v3_large",
    "efficientnet_b0",
    "convnext_tiny",
    "swin_t",
    "swin_v2_t",
    "vit_b_16",
    "maxvit_t",
    "densenet121",
    "googlenet",
    "inception_v3",
    "vgg16_bn",
    "alexnet",
    "squeezenet1_0",
    "shufflenet_v2_x0_5",
    "mnasnet0_5",
    "regnet_y_400mf",
)
SMALL = (
    "resnet18",
    "mobilenet_v3_large",
    "densenet121",
    "googlenet",
    "swin_v2_t",
    "shufflenet_v2_x0_5",
    "squeezenet1_0",
)

# Where the field's papers cut: the level is the output of this module of torchvision's network.
ENDS = {
    "resnet18": {"s4": "layer1", "s8": "layer2", "s16": "layer3", "s32": "layer4"},
    "densenet121": {"s4": "features.denseblock1", "s8": "features.denseblock2", "s16": "features.denseblock3"},
    "vgg16_bn": {
        "s1": "features.5",
        "s2": "features.12",
        "s4": "features.22",
        "s8": "features.32",
        "s16": "features.42",
    },
    "googlenet": {"s2": "conv1", "s4": "conv3", "s8": "inception3b", "s16": "inception4e", "s32": "inception5b"},
    "inception_v3": {"s4": "Conv2d_4a_3x3", "s8": "Mixed_5d", "s16": "Mixed_6e", "s32": "Mixed_7c"},
    "efficientnet_b0": {"s2": "features.1", "s4": "features.2", "s8": "features.3", "s16": "features.5"},
    "mobilenet_v3_large": {"s2": "features.1", "s4": "features.3", "s8": "features.6", "s16": "features.12"},
    "convnext_tiny": {"s4": "features.1", "s8": "features.3", "s16": "features.5", "s32": "features.7"},
    "swin_t": {"s4": "features.1", "s8": "features.3", "s16": "features.5", "s32": "norm"},
    "maxvit_t": {"s2": "stem", "s4": "blocks.0", "s8": "blocks.1", "s16": "blocks.2", "s32": "blocks.3"},
    "vit_b_16": {f"d{i + 1}": f"encoder.layers.encoder_layer_{i}" for i in range(12)},
    "squeezenet1_0": {"s2": "features.1", "s16": "features.12"},
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pictures(key: str, batch: int = 1, least: int = 96) -> Tensor:
    wants = backbones.info(key).preprocessing
    px = wants.crop_px if wants.fixed else max(least, wants.minimum_px)
    return torch.randn(batch, 3, px, px, generator=torch.Generator().manual_seed(7))


def plain(key: str, seed: int = 0) -> nn.Module:
    """Return torchvision's network of the published weights, with random ones and lively batch norms."""
    settings = {}
    if key in ("googlenet", "inception_v3"):
        settings = {"init_weights": True}
    torch.manual_seed(seed)
    network = models.get_model(key, weights=None, **settings)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0.0, 0.1)
            nn.init.uniform_(module.running_var, 0.8, 1.2)
        if hasattr(module, "layer_scale"):
            nn.init.constant_(module.layer_scale, 0.3)
    for parameter in list(network.parameters())[-2:]:
        nn.init.normal_(parameter, 0.0, 0.1)  # ViT starts with a head of zeros, which would hide every difference
    return network.eval()


def published(key: str, network: nn.Module, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """Return what torchvision builds when it is asked for its published weights, with these in their place."""
    entry = models.get_model_weights(key)
    monkeypatch.setattr(entry, "get_state_dict", lambda self, *_, **__: copy.deepcopy(network.state_dict()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return models.get_model(key, weights=entry.DEFAULT).eval()


@pytest.mark.parametrize("key", SAMPLE)
def test_logits_and_levels_are_torchvisions_own(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = published(key, plain(key), monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened = backbones.load(key, state=plain(key).state_dict())
    kept: dict[str, Tensor] = {}
    for name, path in ENDS.get(key, {}).items():
        network.get_submodule(path).register_forward_hook(
            lambda _m, _i, out, name=name: kept.__setitem__(name, out.clone())
        )
    x = pictures(key)
    with torch.inference_mode():
        expected = network(x)
        pyramid, logits = opened(x)
    assert expected.std() > 0
    torch.testing.assert_close(logits, expected)
    for name, tensor in kept.items():
        torch.testing.assert_close(pyramid[name].tensor, as_map(key, tensor))
    assert opened.provenance.kind == pyramid.provenance.kind == "pretrained"
    assert opened.provenance.detail == models.get_model_weights(key).DEFAULT.name


@pytest.mark.slow
@pytest.mark.parametrize("key", [key for key in backbones.torchvision.names() if key not in SAMPLE])
def test_logits_are_those_of_the_untraced_network_everywhere(key: str) -> None:
    torch.manual_seed(0)
    network = backbones.torchvision.recipe(key).build(1000, ()).eval()
    for parameter in list(network.parameters())[-2:]:
        nn.init.normal_(parameter, 0.0, 0.1)
    opened = backbones.load(key, state=network.state_dict())
    x = pictures(key)
    with torch.inference_mode():
        pyramid, logits = opened(x)
        torch.testing.assert_close(logits, network(x))
    for level in pyramid:
        assert torch.isfinite(level.tensor).all()


def as_map(key: str, tensor: Tensor) -> Tensor:
    if key.startswith("swin") and tensor.shape[1] == tensor.shape[2]:  # channels last
        return tensor.permute(0, 3, 1, 2)
    if key.startswith("vit"):
        b, q, c = tensor.shape
        side = int((q - 1) ** 0.5)
        return torch.stack([tensor[:, 1 + i * side : 1 + (i + 1) * side] for i in range(side)], 1).permute(0, 3, 1, 2)
    return tensor


class AtTheNode(fx.Interpreter):
    """Runs a graph without any in-place operation and keeps every value as it was at its node."""

    PLAIN = {operator.iadd: operator.add, operator.imul: operator.mul, operator.isub: operator.sub}

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.kept: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> object:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.kept[n.name] = value.clone()
        return value

    def call_function(self, target, args, kwargs):
        kwargs = {**kwargs, "inplace": False} if kwargs.get("inplace") else kwargs
        return super().call_function(self.PLAIN.get(target, target), args, kwargs)


@pytest.mark.parametrize("key", SAMPLE)
def test_nothing_writes_into_a_level_or_the_picture(key: str) -> None:
    opened = backbones.load(key)
    x = pictures(key)
    before = x.clone()
    calm = copy.deepcopy(opened.module)
    for module in calm.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    reference = AtTheNode(calm)
    with torch.inference_mode():
        pyramid, _ = opened(x)
        reference.run(x)
    assert torch.equal(x, before)
    for level, info in zip(pyramid, opened.info.levels, strict=True):
        torch.testing.assert_close(level.tensor, as_map(key, reference.kept[info.node]))


class Trap(nn.Module):
    """The map that enters the halving block is overwritten by that block's own activation; so is the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 2, 1)
        self.down = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(4, 8, 3, 2, 1))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x.mul_(2.0)
        x = self.down(self.stem(x))
        x += 1
        return self.head(x.mean((2, 3)))


def test_a_map_that_is_overwritten_later_is_copied_in_time() -> None:
    with torch.device("meta"):
        cut = _levels.cut(Trap().eval(), 32)
    torch.manual_seed(0)
    network = Trap().eval()
    x = torch.randn(2, 3, 32, 32)
    before = x.clone()
    with torch.inference_mode():
        (fine, coarse), logits = fx.GraphModule(network, cut.graph)(x)
        assert torch.equal(x, before)
        torch.testing.assert_close(fine, network.stem(2 * x))
        assert fine.min() < 0  # as it entered, not as the activation left it
        torch.testing.assert_close(logits, network(x.clone()))
    assert [level.name for level in cut.levels] == ["s2", "s4"]
    assert coarse.shape == (2, 8, 8, 8)


@pytest.mark.parametrize("key", SMALL)
def test_a_batch_is_its_pictures_one_by_one(key: str) -> None:
    opened = backbones.load(key)
    x = pictures(key, batch=3, least=64)
    with torch.inference_mode():
        together, logits = opened(x)
        for i in range(3):
            alone, own = opened(x[i : i + 1])
            torch.testing.assert_close(logits[i : i + 1], own, rtol=1e-4, atol=1e-5)
            for a, b in zip(together, alone, strict=True):
                torch.testing.assert_close(a.tensor[i : i + 1], b.tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("key", SMALL)
def test_odd_sizes_work(key: str) -> None:
    opened = backbones.load(key)
    with torch.inference_mode():
        pyramid, logits = opened(torch.randn(1, 3, 97, 131))
    assert torch.isfinite(logits).all()
    for level in pyramid:
        assert torch.isfinite(level.tensor).all()
        assert level.size[1] > level.size[0] or level.stride[0] == 32


# --- weights -------------------------------------------------------------------------------------
@pytest.mark.parametrize("key", ["resnet18", "swin_v2_t", "googlenet"])
def test_random_weights_belong_to_their_seed(key: str) -> None:
    state = torch.random.get_rng_state()
    a, again, other = (backbones.load(key, seed=seed).module.state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(a[name], again[name]) for name in a)
    assert any(not torch.equal(a[name], other[name]) for name in a)
    assert backbones.load(key, seed=3).provenance.kind == "random"


def test_random_weights_are_torchvisions_own_start() -> None:
    torch.manual_seed(5)
    expected = models.resnet18(weights=None).state_dict()
    found = backbones.load("resnet18", seed=5).module.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_nothing_is_trained_and_nothing_is_in_training_mode() -> None:
    module = backbones.load("googlenet").module
    assert not any(p.requires_grad for p in module.parameters())
    assert not any(m.training for m in module.modules())
    assert not any(name.startswith("aux") for name in module.state_dict())


def test_the_state_is_copied() -> None:
    state = plain("squeezenet1_0").state_dict()
    opened = backbones.load("squeezenet1_0", state=state)
    x = pictures("squeezenet1_0")
    with torch.inference_mode():
        _, before = opened(x)
        for tensor in state.values():
            tensor.zero_()
        _, after = opened(x)
    assert torch.equal(before, after)


def test_half_precision_files_are_widened() -> None:
    state = {name: t.half() if t.is_floating_point() else t for name, t in plain("squeezenet1_0").state_dict().items()}
    opened = backbones.load("squeezenet1_0", state=state)
    assert {p.dtype for p in opened.module.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("layer1.0.conv1.weight"), "Missing: layer1.0.conv1.weight"),
        (lambda s: s.update(extra=torch.zeros(1)), "Unknown: extra"),
        (lambda s: s.update({"bn1.bias": torch.zeros(32)}), "bn1.bias 32 ≠ 64"),
        (lambda s: s.update({"bn1.bias": "a text"}), "Unknown: bn1.bias"),
    ],
)
def test_weights_that_do_not_fit_are_named(change, words: str) -> None:
    state = dict(models.resnet18(weights=None).state_dict())
    change(state)
    with pytest.raises(WeightsError, match=words) as caught:
        backbones.load("resnet18", state=state)
    assert "ResNet-18" in str(caught.value)
    assert caught.value.text("zh") != str(caught.value)


def test_another_networks_weights_are_answered_in_one_sentence_each() -> None:
    with pytest.raises(WeightsError, match=r"… \(\d+\)") as caught:
        backbones.load("resnet18", state=models.squeezenet1_1(weights=None).state_dict())
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("key", ["resnet18", "squeezenet1_0", "googlenet", "vit_b_16"])
def test_files_with_classes_of_their_own_load(key: str) -> None:
    more = {"init_weights": False} if key == "googlenet" else {}
    state = models.get_model(key, weights=None, num_classes=7, **more).state_dict()
    opened = backbones.load(key, state=state)
    assert opened.info.classes == 7
    assert backbones.info(key).classes == 1000
    with torch.inference_mode():
        assert opened(pictures(key))[1].shape == (1, 7)


@pytest.mark.parametrize("key", ["googlenet", "inception_v3"])
def test_files_without_training_heads_load(key: str) -> None:
    state = models.get_model(key, weights=None, aux_logits=False, init_weights=False).state_dict()
    assert backbones.load(key, state=state).provenance.kind == "pretrained"


@pytest.mark.parametrize(
    ("key", "old"),
    [
        ("densenet121", lambda n: n.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2.")),
        ("vit_b_16", lambda n: n.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2.")),
    ],
)
def test_old_names_are_understood(key: str, old) -> None:
    state = models.get_model(key, weights=None).state_dict()
    renamed = {old(name): tensor for name, tensor in state.items()}
    assert renamed.keys() != state.keys()
    found = backbones.load(key, state=renamed).module.state_dict()
    assert all(torch.equal(found[name], state[name]) for name in found)


def test_a_file_without_versions_or_batch_counts_loads() -> None:
    state = models.mnasnet0_5(weights=None).state_dict()
    bare = {name: t for name, t in state.items() if not name.endswith("num_batches_tracked")}
    assert len(bare) < len(state)
    assert backbones.load("mnasnet0_5", state=bare).provenance.kind == "pretrained"


# --- sizes ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("key", "shape", "words"),
    [
        ("vit_b_16", (1, 3, 224, 240), "224 × 224"),
        ("maxvit_t", (1, 3, 256, 256), "224 × 224"),
        ("inception_v3", (1, 3, 74, 299), "75"),
        ("alexnet", (1, 3, 62, 224), "63"),
        ("resnet18", (1, 3, 31, 64), "32"),
        ("resnet18", (3, 64, 64), "b 3 h w"),
        ("resnet18", (1, 1, 64, 64), "b 3 h w"),
    ],
)
def test_sizes_it_does_not_take_are_answered_with_those_it_takes(key: str, shape: tuple, words: str) -> None:
    opened = backbones.load(key, device="meta")
    with pytest.raises(ShapeError, match=words) as caught:
        opened(torch.empty(shape, device="meta"))
    assert caught.value.text("zh")


@pytest.mark.parametrize("key", ["alexnet", "inception_v3", "resnet18", "swin_t"])
def test_the_smallest_size_is_taken(key: str) -> None:
    wants = backbones.info(key).preprocessing
    opened = backbones.load(key)
    with torch.inference_mode():
        _, logits = opened(torch.randn(1, 3, wants.minimum_px, wants.minimum_px))
    assert torch.isfinite(logits).all()


# --- threads -------------------------------------------------------------------------------------
def test_two_threads_share_one_backbone() -> None:
    opened = backbones.load("resnet18")
    xs = [torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    with torch.inference_mode():
        expected = [[level.tensor for level in opened(x)[0]] for x in xs]
    wrong: list[object] = []

    def look(i: int) -> None:
        try:
            with torch.inference_mode():
                for _ in range(10):
                    found = opened(xs[i])[0]
                    wrong.extend(
                        a.name for a, b in zip(found, expected[i], strict=True) if not torch.equal(a.tensor, b)
                    )
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=look, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_others_run_while_a_network_is_being_cut() -> None:
    """torch.fx replaces every module's call in the process while it traces; a run at that moment must not notice."""
    bystander = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(6, 2)).eval()
    x = torch.randn(1, 3, 8, 8)
    expected = bystander(x)
    call = nn.Module.__call__
    entered, go = threading.Event(), threading.Event()

    class Slow(Trap):
        def forward(self, x: Tensor) -> Tensor:
            entered.set()
            assert go.wait(30)
            return super().forward(x)

    with torch.device("meta"):
        slow, other = Slow().eval(), Trap().eval()
    cuts: list[object] = []

    def cut(network: nn.Module) -> None:
        try:
            cuts.append(_levels.cut(network, 32))
        except Exception as error:
            cuts.append(error)

    threads = [threading.Thread(target=cut, args=(network,)) for network in (slow, other)]
    threads[0].start()
    assert entered.wait(30)
    threads[1].start()  # a second trace waits for the first
    assert nn.Module.__call__ is not call  # the first is tracing right now
    try:
        assert torch.equal(bystander(x), expected)
    finally:
        go.set()
        for thread in threads:
            thread.join()
    assert nn.Module.__call__ is call
    assert [type(found) for found in cuts] == [_levels.Cut, _levels.Cut]


def test_it_can_be_opened_inside_inference_mode() -> None:
    backbones._base._cut.cache_clear()
    with torch.inference_mode():
        opened = backbones.load("squeezenet1_1")
    assert not any(p.is_inference() for p in opened.module.parameters())
    assert opened.info.levels


# --- networks that cannot be cut -----------------------------------------------------------------
class Undecided(nn.Module):
    """Its forward pass looks at the numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))


class OneMap(nn.Module):
    """One level and an answer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3, 2, 1), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).mean((2, 3)))


@pytest.mark.parametrize(
    ("network", "count", "reason"), [(Undecided, 0, "backbones.exception.untraceable"), (OneMap, 1, "one_level")]
)
def test_networks_without_a_pyramid_are_listed_with_the_reason(network: type, count: int, reason: str) -> None:
    base = backbones._base
    known = backbones.torchvision.recipe("resnet18")
    recipe = base.Recipe("new", "new", "New", "", 5, known.preprocessing, lambda _classes, _names: network())
    info = base.describe(recipe)
    assert len(info.levels) == count
    assert info.exception.endswith(reason)
    assert info.parameters > 0
    if not count:
        assert (info.default_low, info.default_high) == ("", "")
        with pytest.raises(LevelError, match="New"):
            base.open_backbone(recipe, info, state=None, seed=0, device="cpu")
