"""The levels that torchvision's detectors predict on: merged by a feature pyramid, or as they come, as SSD has them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.ssd import SSDFeatureExtractorVGG
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from fusionviz.records import FeatureMap
from fusionviz.systems._wild import Frame, stages
from fusionviz.trace import NullTrace

OFFSET = 0.5


@dataclass(frozen=True)
class Grid:
    """Where a level's cells lie in the network's input.

    Attributes:
        name: as the stride that the network takes it for; two levels of one stride are told apart by a letter.
        stride, offset: in pixels.
    """

    name: str
    stride: int
    offset: float = OFFSET


def grids(net: str) -> tuple[Grid, ...]:
    """Return the levels on which a detector predicts, fine to coarse."""
    if net == "ssd300_vgg16":
        # VGG's poolings have no middle cell, so centres move. The last two convolutions have no padding: their cells
        # stand 64 pixels apart, while the default boxes are laid out 100 and 300 pixels apart.
        places = ((8, 8, 4), (16, 16, 8), (32, 32, 8), (64, 64, 8), (100, 64, 72), (300, 64, 136))
        return tuple(Grid(f"s{name}", stride, float(offset)) for name, stride, offset in places)
    if net.startswith("ssdlite"):
        return tuple(Grid(f"s{2**k}", 2**k) for k in range(4, 10))
    if "mobilenet" in net:  # its pyramid has two levels of one stride
        return (Grid("p32a", 32), Grid("p32b", 32), Grid("p64", 64))
    first = 3 if net.startswith(("retinanet", "fcos")) else 2
    return tuple(Grid(f"p{2**k}", 2**k) for k in range(first, first + 5))


def pyramid(backbone: nn.Module, places: tuple[Grid, ...], frame: Frame, trace: NullTrace) -> tuple[FeatureMap, ...]:
    """Return the backbone's maps C, finest first, then the levels P merged from them: torchvision's BackboneWithFPN."""
    body, fpn = backbone.body, backbone.fpn
    taps = tuple(body.return_layers.values())
    x, given = frame.tensor, []
    for i, (_, layers) in enumerate(stages(body, taps), start=1):
        role = {1: "low", len(taps): "high"}.get(i, "")
        x = trace.step(f"c{i}", "layers", layers, x, formula=f"C_{{{i}}}", role=role)  # [1 c h w]
        name = {"low": "low", "high": "high"}.get(role, f"c{i}")
        given.append(frame.map(name, x, places[i - 1].stride, OFFSET, i))
    merged = _merged(fpn, [g.tensor for g in given], trace)
    last = len(given) - 1
    for extra in places[len(merged) :]:
        key, finer = extra.name, merged[-1]
        if isinstance(fpn.extra_blocks, LastLevelMaxPool):
            every = lambda t: F.max_pool2d(t, 1, 2)  # noqa: E731 - every second place, nothing is compared
            p = trace.step(key, "subsample", every, finer, formula=rf"P_{{{len(merged) + 1}}}")
        elif len(merged) == len(given):
            source = finer if fpn.extra_blocks.use_P5 else given[last].tensor
            p = trace.step(key, "stride_conv", fpn.extra_blocks.p6, source, formula=rf"P_{{{len(merged) + 1}}}")
        else:
            p7 = fpn.extra_blocks.p7
            further = lambda t, p7=p7: p7(F.relu(t))  # noqa: E731
            formula = rf"P_{{{len(merged) + 1}}}"
            p = trace.step(key, "stride_conv", further, finer, formula=formula, module=p7)
        merged.append(p)
    levels = [
        frame.map(g.name, p, g.stride, g.offset, i)
        for i, (g, p) in enumerate(zip(places, merged, strict=True), start=1)
    ]
    return (*given, *levels)


def _merged(fpn: FeaturePyramidNetwork, given: list[Tensor], trace: NullTrace) -> list[Tensor]:
    """From coarse to fine: what a level says by itself, and what the coarser one passes down."""
    merged: list[Tensor] = []
    last = len(given)
    above = None
    for i in range(last, 0, -1):
        lateral = fpn.inner_blocks[i - 1]
        here = trace.step(f"lateral_{i}", "project", lateral, given[i - 1], formula=rf"W_{{{i}}}C_{{{i}}}")
        if above is not None:
            size = tuple(here.shape[-2:])
            up = lambda t, size=size: F.interpolate(t, size=size, mode="nearest")  # noqa: E731
            down = trace.step(f"up_{i}", "resize_nearest", up, above, formula=rf"{{\uparrow}}M_{{{i + 1}}}")
            formula = rf"M_{{{i}}}=W_{{{i}}}C_{{{i}}}+{{\uparrow}}M_{{{i + 1}}}"
            here = trace.step(f"sum_{i}", "add", torch.add, here, down, formula=formula)
        above = here
        role = "fused" if i == 1 else ""
        merged.insert(0, trace.step(f"p_{i}", "smooth", fpn.layer_blocks[i - 1], here, formula=f"P_{{{i}}}", role=role))
    return merged


def cascade(backbone: nn.Module, places: tuple[Grid, ...], frame: Frame, trace: NullTrace) -> tuple[FeatureMap, ...]:
    """Return SSD's levels as they come out of one chain of layers: no level hears of a coarser one."""
    vgg = isinstance(backbone, SSDFeatureExtractorVGG)
    first = [backbone.features] if vgg else list(backbone.features)
    x, maps = frame.tensor, []
    for i, layers in enumerate((*first, *backbone.extra), start=1):
        role = {1: "low", len(places): "high"}.get(i, "")
        formula = f"C_{{{i}}}"
        x = level = trace.step(f"c{i}", "layers", layers, x, formula=formula, role="" if vgg and i == 1 else role)
        if vgg and i == 1:
            length = lambda t: backbone.scale_weight.view(1, -1, 1, 1) * F.normalize(t)  # noqa: E731
            formula = r"g\,C_{1}/\|C_{1}\|"
            level = trace.step("length", "length", length, x, formula=formula, role=role, module=backbone.scale_weight)
        maps.append(frame.map(places[i - 1].name, level, places[i - 1].stride, places[i - 1].offset, i))
    return tuple(maps)
