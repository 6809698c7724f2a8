"""Every classification network of the installed torchvision, with the preprocessing of its published weights."""

import re
from collections.abc import Collection
from functools import cache, partial

import torchvision
from torch import nn
from torchvision import models

from fusionviz.backbones._base import Recipe
from fusionviz.records import Preprocessing

VERSION = torchvision.__version__

TITLES = (
    (r"alexnet", "AlexNet"),
    (r"convnext_(\w+)", "ConvNeXt-{}"),
    (r"densenet(\d+)", "DenseNet-{}"),
    (r"efficientnet_(b\d)", "EfficientNet-{}"),
    (r"efficientnet_v2_(\w)", "EfficientNetV2-{}"),
    (r"googlenet", "GoogLeNet"),
    (r"inception_v3", "Inception v3"),
    (r"maxvit_(\w)", "MaxViT-{}"),
    (r"mnasnet(\d)_(\d+)", "MNASNet {}.{}"),
    (r"mobilenet_v2", "MobileNetV2"),
    (r"mobilenet_v3_(\w+)", "MobileNetV3-{}"),
    (r"regnet_([xy])_(\d+)mf", "RegNet{}-{}MF"),
    (r"regnet_([xy])_(\d+)gf", "RegNet{}-{}GF"),
    (r"regnet_([xy])_(\d)_(\d)gf", "RegNet{}-{}.{}GF"),
    (r"resnet(\d+)", "ResNet-{}"),
    (r"resnext(\d+)_(\d+)x(\d+)d", "ResNeXt-{} {}×{}d"),
    (r"shufflenet_v2_x(\d)_(\d)", "ShuffleNetV2 {}.{}×"),
    (r"squeezenet1_(\d)", "SqueezeNet 1.{}"),
    (r"swin_(\w)", "Swin-{}"),
    (r"swin_v2_(\w)", "SwinV2-{}"),
    (r"vgg(\d+)", "VGG-{}"),
    (r"vgg(\d+)_bn", "VGG-{}-BN"),
    (r"vit_(\w)_(\d+)", "ViT-{}/{}"),
    (r"wide_resnet(\d+)_(\d)", "Wide ResNet-{}-{}"),
)
"""Names as the papers write them; a network that is not here goes by its key."""

SIZES = ("t", "tiny", "s", "small", "m", "medium", "b", "base", "l", "large", "h", "huge")
"""Words for sizes, small to large, so that lists run small to large where the alphabet would not."""

RENAMED = (
    # DenseNet's published weights are from before module names could not hold dots.
    (re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.\w+)$"), r"\1\2"),
    # ViT's published weights call the two layers of its MLP by name; today they are counted with what stands between.
    (re.compile(r"^(.*\.mlp)\.linear_1\.(\w+)$"), r"\1.0.\2"),
    (re.compile(r"^(.*\.mlp)\.linear_2\.(\w+)$"), r"\1.3.\2"),
)


@cache
def names() -> tuple[str, ...]:
    """Return the keys of all classification networks, by family, small to large."""
    return tuple(sorted(models.list_models(module=models), key=_order))


@cache
def recipe(key: str) -> Recipe:
    """Return how to build one of `names()`."""
    weights = models.get_model_weights(key).DEFAULT
    wants = weights.transforms()
    preprocessing = Preprocessing(
        resize_px=wants.resize_size[0],
        crop_px=wants.crop_size[0],
        mean=tuple(wants.mean),
        std=tuple(wants.std),
        interpolation=wants.interpolation.value,
    )
    return Recipe(
        key,
        family(key),
        title(key),
        weights.name,
        len(weights.meta["categories"]),
        preprocessing,
        partial(_build, key),
        _rename,
    )


def family(key: str) -> str:
    """Return the family of a key: `resnet`, `wide_resnet`, `vit`, ..."""
    return re.match(r"(wide_)?[a-z]+", key)[0]


def title(key: str) -> str:
    """Return a network's name as its paper writes it."""
    for pattern, name in TITLES:
        if found := re.fullmatch(pattern, key):
            return name.format(*(part.capitalize() for part in found.groups()))
    return key


def _build(key: str, classes: int, given: Collection[str]) -> nn.Module:
    """Build the network that the published weights belong to; torchvision's plain defaults differ in three families."""
    settings: dict[str, object] = {"num_classes": classes}
    if family(key) in ("googlenet", "inception"):
        # Published weights come with heads used in training only, and were trained on differently scaled pictures.
        auxiliary = not given or any(re.match(r"aux\d|AuxLogits", name) for name in given)
        settings |= {"transform_input": True, "aux_logits": auxiliary, "init_weights": True}
    if family(key) == "vit":
        # The table of positions has the size of the pictures that the published weights were trained on.
        settings["image_size"] = models.get_model_weights(key).DEFAULT.transforms().crop_size[0]
    return models.get_model(key, weights=None, **settings)


def _rename(name: str) -> str:
    for pattern, today in RENAMED:
        name = pattern.sub(today, name)
    return name


def _order(key: str) -> tuple:
    """Sort as people count: resnet18 before resnet101, 400 MF before 1.6 GF, tiny before small before base."""

    def mega(found: re.Match) -> str:
        whole, tenth = int(found["whole"]), int(found["tenth"] or 0)
        return str(whole if found["unit"] == "m" else 1000 * whole + 100 * tenth)

    counted = re.sub(r"(?P<whole>\d+)(_(?P<tenth>\d))?(?P<unit>[gm])f$", mega, key)
    parts = re.findall(r"\d+|[a-z]+", counted)
    ranked = [(0, int(p), "") if p.isdigit() else (1, SIZES.index(p) if p in SIZES else len(SIZES), p) for p in parts]
    return (family(key), ranked)
