"""The networks that this project trains itself, on the scenes that it draws: small, offline, trained from the start.

`scene_resnet` is a residual network of a million parameters; `scene_mobilenet` the same task with depthwise separable
convolutions, inverted residuals and squeeze-excitation. Both have the five levels s2 to s32. Their logits say which
kinds of thing are in the picture, each by itself: a sigmoid, not a softmax, because a scene holds several.

`levels` hands out what `forward` passes through, for training; the app takes the same maps from the traced graph.
"""

from collections.abc import Collection
from functools import cache, partial

import torch
from torch import Tensor, nn

from fusionviz.backbones._base import Recipe
from fusionviz.records import Preprocessing

KINDS = 9
"""How many kinds of thing a scene may hold, the background not counted; a test compares it with the scenes."""

PREPROCESSING = Preprocessing(resize_px=128, crop_px=128, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
"""Scenes are drawn at 128 pixels; every other size is taken too."""

TITLES = {"scene_resnet": "Scene ResNet", "scene_mobilenet": "Scene MobileNet"}
WEIGHTS = "SCENES_V1"


def names() -> tuple[str, ...]:
    """Return the keys of the networks that ship; the app's default is the first."""
    return tuple(TITLES)


def title(key: str) -> str:
    """Return a network's name as the app writes it."""
    return TITLES[key]


def family(key: str) -> str:
    """Return the family of all networks trained here."""
    return "scene"


@cache
def recipe(key: str) -> Recipe:
    """Return how to build one of `names()`."""
    return Recipe(key, family(key), title(key), WEIGHTS, KINDS, PREPROCESSING, partial(_build, key), multilabel=True)


def build(key: str, kinds: int = KINDS) -> nn.Module:
    """Build one of `names()` with random weights, for training."""
    return {"scene_resnet": SceneResNet, "scene_mobilenet": SceneMobileNet}[key](kinds)


def _build(key: str, classes: int, given: Collection[str]) -> nn.Module:
    return build(key, classes)


class _SceneNet(nn.Module):
    """A stem, four stages that halve the map, and what is in the picture, read off the last."""

    channels: tuple[int, ...]
    """Of the levels s2, s4, s8, s16, s32."""

    def levels(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the levels s2 to s32 of a batch [b 3 h w], each [b c h w]."""
        s2 = self.stem(x)
        s4 = self.stage1(s2)
        s8 = self.stage2(s4)
        s16 = self.stage3(s8)
        return s2, s4, s8, s16, self.stage4(s16)

    def forward(self, x: Tensor) -> Tensor:
        # The maximum, not the mean: a small thing in one corner is in the picture as much as a large one.
        return self.head(self.levels(x)[-1].amax((2, 3)))  # [b kinds]


# --- residual ------------------------------------------------------------------------------------
def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut (He et al., 2016, arXiv 1512.03385)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = _conv(inputs, outputs, 3, stride), _conv(outputs, outputs)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else _conv(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv2(torch.relu(self.conv1(x))) + self.shortcut(x))


class SceneResNet(_SceneNet):
    """A stem and 1, 2, 2, 2 residual blocks.

    One block at stride 4 keeps its receptive field at 15 pixels, so that the low level knows edges and texture only.
    """

    channels = (16, 32, 64, 96, 128)

    def __init__(self, kinds: int = KINDS) -> None:
        super().__init__()
        c = self.channels
        self.stem = nn.Sequential(_conv(3, c[0], 3, 2), nn.ReLU())
        self.stage1 = nn.Sequential(Residual(c[0], c[1], 2))
        self.stage2 = nn.Sequential(Residual(c[1], c[2], 2), Residual(c[2], c[2], 1))
        self.stage3 = nn.Sequential(Residual(c[2], c[3], 2), Residual(c[3], c[3], 1))
        self.stage4 = nn.Sequential(Residual(c[3], c[4], 2), Residual(c[4], c[4], 1))
        self.head = nn.Linear(c[4], kinds)
        _start(self)


# --- depthwise separable -------------------------------------------------------------------------
class SqueezeExcite(nn.Module):
    """Weigh each channel by a number between 0 and 1 read off the whole map (Hu et al., 2018, arXiv 1709.01507)."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3), keepdim=True)  # [b c 1 1]
        return x * torch.sigmoid(self.excite(torch.relu(self.squeeze(mean))))


class InvertedResidual(nn.Module):
    """Widen by 1x1, look around depthwise, weigh the channels, narrow by 1x1 without a nonlinearity.

    The shortcut joins the narrow ends (Sandler et al., 2018, arXiv 1801.04381; with SE as in arXiv 1905.02244).
    """

    def __init__(self, inputs: int, outputs: int, stride: int, widen: int = 4) -> None:
        super().__init__()
        wide = inputs * widen
        self.expand = nn.Sequential(_conv(inputs, wide, 1), nn.ReLU()) if widen > 1 else nn.Identity()
        self.depthwise = nn.Sequential(_conv(wide, wide, 3, stride, groups=wide), nn.ReLU())
        self.weigh = SqueezeExcite(wide, max(wide // 8, 4))
        self.project = _conv(wide, outputs, 1)
        self.joins = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        out = self.project(self.weigh(self.depthwise(self.expand(x))))
        return x + out if self.joins else out


class SceneMobileNet(_SceneNet):
    """A stem with one depthwise separable convolution, then 1, 2, 3, 2 inverted residuals with squeeze-excitation."""

    channels = (16, 24, 40, 80, 112)

    def __init__(self, kinds: int = KINDS) -> None:
        super().__init__()
        c = self.channels
        self.stem = nn.Sequential(_conv(3, c[0], 3, 2), nn.ReLU(), InvertedResidual(c[0], c[0], 1, widen=1))
        # Widened by 2 only: at 64 x 64 cells this block alone would cost as much as all that follows.
        self.stage1 = nn.Sequential(InvertedResidual(c[0], c[1], 2, widen=2))
        self.stage2 = nn.Sequential(InvertedResidual(c[1], c[2], 2), InvertedResidual(c[2], c[2], 1))
        self.stage3 = nn.Sequential(
            InvertedResidual(c[2], c[3], 2), InvertedResidual(c[3], c[3], 1), InvertedResidual(c[3], c[3], 1)
        )
        self.stage4 = nn.Sequential(InvertedResidual(c[3], c[4], 2), InvertedResidual(c[4], c[4], 1))
        self.head = nn.Linear(c[4], kinds)
        _start(self)


def _start(network: nn.Module) -> None:
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            # A depthwise convolution hears one channel, however many there are.
            mode = "fan_out" if layer.groups == 1 else "fan_in"
            nn.init.kaiming_normal_(layer.weight, mode=mode, nonlinearity="relu")
