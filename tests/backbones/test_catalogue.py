"""What is listed of every network before it is built, and how that is kept between runs."""

import json
import math
from pathlib import Path

import pytest
from torchvision import models

from fusionviz import backbones, texts
from fusionviz.backbones import _base, _cache
from fusionviz.errors import UnknownNameError
from fusionviz.records import LevelInfo


def test_every_classification_network_of_torchvision_is_there_once() -> None:
    own = backbones.bundled.names()
    assert backbones.names()[: len(own)] == own  # what is trained here comes first
    assert sorted(backbones.names()[len(own) :]) == sorted(models.list_models(module=models))


def test_the_list_runs_by_family_and_from_small_to_large() -> None:
    names = backbones.torchvision.names()
    families = [backbones.family(key) for key in names]
    assert families == sorted(families)
    for row in (
        "resnet18 resnet34 resnet50 resnet101 resnet152",
        "regnet_x_400mf regnet_x_800mf regnet_x_1_6gf regnet_x_3_2gf regnet_x_8gf regnet_x_16gf regnet_x_32gf",
        "swin_t swin_s swin_b swin_v2_t swin_v2_s swin_v2_b",
        "convnext_tiny convnext_small convnext_base convnext_large",
        "efficientnet_b7 efficientnet_v2_s efficientnet_v2_m efficientnet_v2_l",
        "mobilenet_v2 mobilenet_v3_small mobilenet_v3_large",
        "vit_b_16 vit_b_32 vit_l_16 vit_l_32 vit_h_14",
        "mnasnet0_5 mnasnet0_75 mnasnet1_0 mnasnet1_3",
        "vgg11 vgg11_bn vgg13",
    ):
        at = names.index(row.split()[0])
        assert names[at : at + len(row.split())] == tuple(row.split())


@pytest.mark.parametrize(
    ("key", "title", "family"),
    [
        ("resnet18", "ResNet-18", "resnet"),
        ("resnext101_32x8d", "ResNeXt-101 32×8d", "resnext"),
        ("wide_resnet50_2", "Wide ResNet-50-2", "wide_resnet"),
        ("regnet_y_1_6gf", "RegNetY-1.6GF", "regnet"),
        ("regnet_x_400mf", "RegNetX-400MF", "regnet"),
        ("regnet_y_128gf", "RegNetY-128GF", "regnet"),
        ("vit_b_16", "ViT-B/16", "vit"),
        ("swin_t", "Swin-T", "swin"),
        ("swin_v2_t", "SwinV2-T", "swin"),
        ("mnasnet0_75", "MNASNet 0.75", "mnasnet"),
        ("efficientnet_v2_s", "EfficientNetV2-S", "efficientnet"),
        ("vgg16_bn", "VGG-16-BN", "vgg"),
        ("inception_v3", "Inception v3", "inception"),
    ],
)
def test_titles_are_the_papers(key: str, title: str, family: str) -> None:
    assert (backbones.title(key), backbones.family(key)) == (title, family)
    assert (backbones.info(key).title, backbones.info(key).family) == (title, family)


def test_every_network_has_a_title_of_its_own() -> None:
    titles = [backbones.title(key) for key in backbones.names()]
    assert len(set(titles)) == len(titles)
    assert not set(titles) & set(backbones.names())


def test_preprocessing_is_that_of_the_published_weights() -> None:
    for key in ("resnet50", "efficientnet_b1", "efficientnet_v2_l", "swin_v2_t", "vit_h_14", "inception_v3"):
        weights = models.get_model_weights(key).DEFAULT
        wants, published = backbones.info(key).preprocessing, weights.transforms()
        assert backbones.info(key).weights == weights.name
        assert (wants.resize_px, wants.crop_px) == (published.resize_size[0], published.crop_size[0])
        assert (list(wants.mean), list(wants.std)) == (published.mean, published.std)
        assert wants.interpolation == published.interpolation.value


@pytest.mark.parametrize(
    ("key", "fixed", "minimum"),
    [
        ("resnet18", False, 32),
        ("swin_t", False, 32),
        ("alexnet", False, 63),
        ("inception_v3", False, 75),
        ("vit_b_16", True, 224),
        ("vit_h_14", True, 518),
        ("maxvit_t", True, 224),
    ],
)
def test_sizes_that_a_network_takes(key: str, fixed: bool, minimum: int) -> None:
    wants = backbones.info(key).preprocessing
    assert (wants.fixed, wants.minimum_px, wants.multiple) == (fixed, minimum, 1)


def test_sizes_in_multiples_are_found() -> None:
    class Halves(_base.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down, self.more = _base.nn.Conv2d(3, 4, 2, 2), _base.nn.Conv2d(4, 8, 2, 2)
            self.head = _base.nn.Linear(8, 5)

        def forward(self, x):
            x = self.more(self.down(x) + self.down(x.flip(-1)))
            b, c, h, w = x.shape
            return self.head(x.reshape(b, c, h // 2, 2, w // 2, 2).mean((2, 3, 4, 5)))

    known = backbones.torchvision.recipe("resnet18")
    recipe = _base.Recipe("new", "new", "New", "", 5, known.preprocessing, lambda _classes, _names: Halves())
    wants = _base.describe(recipe).preprocessing
    # 226 x 222 gives 56 x 55 cells, and 55 is odd; steps of 4 pixels give odd cells too; 8 pixels are two cells.
    assert (wants.fixed, wants.multiple, wants.minimum_px) == (False, 8, 32)


@pytest.mark.parametrize("key", ["resnet50", "googlenet", "densenet121", "swin_t", "vit_b_16"])
def test_parameters_are_the_published_count(key: str) -> None:
    assert backbones.info(key).parameters == models.get_model_weights(key).DEFAULT.meta["num_params"]


def test_heads_used_in_training_only_are_not_counted() -> None:
    assert backbones.info("inception_v3").parameters < models.Inception_V3_Weights.DEFAULT.meta["num_params"]


@pytest.mark.parametrize(
    ("key", "low", "high"),
    [
        ("resnet18", "s4", "s16"),
        ("vgg16", "s4", "s16"),
        ("alexnet", "s4", "s16"),
        ("swin_t", "s4", "s16"),
        ("vit_b_16", "d3", "d9"),
        ("vit_h_14", "d8", "d24"),
    ],
)
def test_defaults_are_an_early_and_a_late_level(key: str, low: str, high: str) -> None:
    assert (backbones.info(key).default_low, backbones.info(key).default_high) == (low, high)


@pytest.mark.parametrize("strides", [(4, 8), (16, 32), (1, 2), (8, 16, 32), (2, 64), (16, 16), (14, 14, 14)])
def test_low_stands_before_high_whatever_the_strides(strides: tuple[int, ...]) -> None:
    levels = tuple(LevelInfo(f"l{i}", 8, (s, s), (s / 2, s / 2), i + 1) for i, s in enumerate(strides))
    known = backbones.info("resnet18")
    info = _base.BackboneInfo("new", "new", "New", levels, known.preprocessing, "", 1, 5)
    names = [level.name for level in levels]
    assert names.index(info.default_low) < names.index(info.default_high)


def test_what_is_special_is_said_in_every_language() -> None:
    special = {backbones.info(key).exception for key in ("resnet18", "vit_b_16", "maxvit_t")}
    assert special == {"", "backbones.exception.depths"}
    for reason in ("depths", "untraceable", "one_level"):
        key = f"backbones.exception.{reason}"
        assert texts.text(key, "en") != texts.text(key, "zh")


def test_vit_has_its_grid_at_every_depth() -> None:
    levels = backbones.info("vit_b_32").levels
    assert [level.name for level in levels] == [f"d{i}" for i in range(1, 13)]
    assert {(level.stride, level.offset) for level in levels} == {((32.0, 32.0), (16.0, 16.0))}


def test_levels_are_called_by_their_stride() -> None:
    for key in ("vgg11", "densenet161", "regnet_x_400mf", "inception_v3"):
        for level in backbones.info(key).levels:
            assert level.name == f"s{level.stride[0]:g}"
            assert math.log2(level.stride[0]).is_integer()


@pytest.mark.parametrize("ask", [backbones.info, backbones.load, backbones.title, backbones.family])
def test_an_unknown_name_is_answered_with_near_ones(ask) -> None:
    with pytest.raises(UnknownNameError, match="resnet18") as caught:
        ask("resnet81")
    assert "vit_b_16" in str(caught.value)  # and with the list


# --- kept between runs ---------------------------------------------------------------------------
@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """An empty memory and an empty cache; the list fills with the networks that are looked at."""
    looked: list[str] = []

    def describe(recipe):
        looked.append(recipe.key)
        return _base.describe(recipe)

    monkeypatch.setenv("FUSIONVIZ_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(backbones, "_known", {})
    monkeypatch.setattr(backbones, "describe", describe)
    return looked


def forget() -> None:
    backbones._known.clear()


def test_a_network_is_looked_at_once(looks: list[str], tmp_path: Path) -> None:
    first = backbones.info("vit_b_16")
    assert backbones.info("vit_b_16") is first
    forget()
    assert backbones.info("vit_b_16") == first
    assert looks == ["vit_b_16"]
    files = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert [path.name for path in files] == ["vit_b_16.json"]  # and no half-written one


@pytest.mark.parametrize("damage", ["", "{", "[]", "null", '{"levels": 3}', "\ud800"])
def test_a_damaged_file_is_found_out_again(damage: str, looks: list[str], tmp_path: Path) -> None:
    first = backbones.info("squeezenet1_1")
    (file,) = (tmp_path / "cache").rglob("*.json")
    file.write_bytes(damage.encode("utf-8", "surrogatepass"))
    forget()
    assert backbones.info("squeezenet1_1") == first
    assert looks == ["squeezenet1_1"] * 2
    forget()
    assert backbones.info("squeezenet1_1") == first
    assert len(looks) == 2  # the file was mended


def test_a_file_under_a_wrong_name_is_not_believed(looks: list[str], tmp_path: Path) -> None:
    backbones.info("squeezenet1_1")
    (file,) = (tmp_path / "cache").rglob("*.json")
    file.rename(file.with_name("squeezenet1_0.json"))
    forget()
    assert backbones.info("squeezenet1_0").key == "squeezenet1_0"


def test_a_place_that_cannot_be_written_is_no_mistake(
    looks: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    blocked = tmp_path / "a file"
    blocked.write_text("in the way")
    monkeypatch.setenv("FUSIONVIZ_CACHE", str(blocked))
    assert backbones.info("squeezenet1_1").levels
    assert blocked.read_text() == "in the way"


def test_other_versions_have_files_of_their_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FUSIONVIZ_CACHE", str(tmp_path))
    assert _cache.folder("0.29") != _cache.folder("0.30")
    assert _cache.folder("0.29").is_relative_to(tmp_path)
    monkeypatch.delenv("FUSIONVIZ_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert _cache.folder("0.29").is_relative_to(tmp_path / "xdg" / "fusionviz")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert _cache.folder("0.29").is_relative_to(tmp_path / "home" / ".cache" / "fusionviz")


def test_the_file_holds_plain_values(looks: list[str], tmp_path: Path) -> None:
    info = backbones.info("squeezenet1_1")
    (file,) = (tmp_path / "cache").rglob("*.json")
    kept = json.loads(file.read_text("utf-8"))
    assert kept["levels"][0]["channels"] == info.levels[0].channels
    assert _cache.read(file) == info
