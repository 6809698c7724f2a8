"""Where the levels' cells lie in the picture, found without the graph arithmetic that says so.

Strides and channels come from sizes at other inputs. Centres come from running the real operations on ramps: every
convolution is made an average (so that it answers with the mean coordinate of what it sees), what mixes distant
places (attention, gates) is switched off, and the value of a cell *is* then the coordinate of its centre.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from fusionviz import backbones

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
REST = tuple(key for key in backbones.names() if key not in SAMPLE)

# Channels as the papers and the field's feature extractors have them.
CHANNELS = {
    "resnet18": (64, 64, 128, 256, 512),
    "resnet50": (64, 256, 512, 1024, 2048),
    "densenet121": (64, 256, 512, 1024, 1024),
    "googlenet": (64, 192, 480, 832, 1024),
    "inception_v3": (64, 192, 288, 768, 2048),
    "vgg16_bn": (64, 128, 256, 512, 512, 512),
    "alexnet": (64, 192, 256, 256),
    "squeezenet1_0": (96, 256, 512, 512),
    "efficientnet_b0": (16, 24, 40, 112, 1280),
    "mobilenet_v3_large": (16, 24, 40, 112, 960),
    "convnext_tiny": (96, 192, 384, 768),
    "swin_t": (96, 192, 384, 768),
    "swin_v2_t": (96, 192, 384, 768),
    "maxvit_t": (64, 64, 128, 256, 512),
    "shufflenet_v2_x0_5": (24, 24, 48, 96, 1024),
    "mnasnet0_5": (8, 16, 24, 48, 1280),
    "regnet_y_400mf": (32, 48, 104, 208, 440),
    "vit_b_16": (768,) * 12,
    "vit_h_14": (1280,) * 32,
}


@pytest.mark.parametrize("key", CHANNELS)
def test_channels_are_the_known_ones(key: str) -> None:
    assert tuple(level.channels for level in backbones.info(key).levels) == CHANNELS[key]


@pytest.mark.parametrize("key", backbones.names())
def test_channels_strides_and_reach_agree_with_real_sizes(key: str) -> None:
    info = backbones.info(key)
    px = info.preprocessing.crop_px
    # A picture that is 64 pixels higher than wide gives maps that are 64 / stride cells higher than wide.
    height, width = (px, px) if info.preprocessing.fixed else (px + 96, px + 32)
    with torch.inference_mode():
        pyramid, logits = backbones.load(key, device="meta")(torch.empty(1, 3, height, width, device="meta"))
    assert logits.shape == (1, info.classes)
    assert len(pyramid) == len(info.levels) >= 2
    for level, found in zip(info.levels, pyramid, strict=True):
        (h, w), (stride, across) = found.size, level.stride
        assert stride == across
        assert found.channels == level.channels
        assert h - w == (height - width) / stride
        # Unpadded networks leave a margin of less than what a cell and the unpadded borders take.
        assert px / stride - 6 < h - (height - px) / stride <= math.ceil(px / stride)
        assert (found.stride, found.offset, found.stage) == (level.stride, level.offset, level.stage)
        assert 0 < level.offset[0] < max(2.5 * stride, 6)
        last = level.offset[0] + (h - 1) * stride
        assert height - 2.5 * stride - 6 < last < height + stride
    assert [level.stage for level in info.levels] == list(range(1, len(info.levels) + 1))
    strides = [level.stride[0] for level in info.levels]
    assert strides == sorted(strides)


class Geometry(TorchFunctionMode):
    """Run a network's real operations so that a cell's value is the mean coordinate of what it sees."""

    IDENTITY = (
        F.batch_norm,
        F.layer_norm,
        F.relu,
        F.hardtanh,
        F.hardswish,
        F.silu,
        F.gelu,
        F.dropout,
    )
    OPEN = (torch.sigmoid, F.hardsigmoid)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        x = args[0] if args else None
        if func in self.IDENTITY:
            return x
        if func in self.OPEN:
            return torch.ones_like(x)
        if func is F.softmax:
            return torch.zeros_like(x)  # attention answers nothing: its branch adds nothing
        if func is F.multi_head_attention_forward:
            return torch.zeros_like(x), None
        if func is F.linear:
            return x.mean(-1, keepdim=True).repeat_interleave(args[1].shape[0], -1)
        if func is F.conv2d:
            return self.average(*args, **kwargs)
        return func(*args, **kwargs)

    @staticmethod
    def average(x: Tensor, weight: Tensor, bias=None, stride=1, padding=0, dilation=1, groups=1) -> Tensor:
        out, _, *kernel = weight.shape
        window = torch.zeros(1, 1, *kernel, dtype=x.dtype)
        if max(torch.nn.modules.utils._pair(stride)) == 1 and all(n % 2 for n in kernel):
            # The middle alone has the same mean, and keeps zero padding from creeping in through a hundred layers.
            window[..., kernel[0] // 2, kernel[1] // 2] = 1
        else:
            window[:] = 1 / math.prod(kernel)
        return F.conv2d(x.mean(1, keepdim=True), window, None, stride, padding, dilation).repeat(1, out, 1, 1)


def centres(key: str, px: int) -> list[tuple[Tensor, Tensor]]:
    """Return the y of every row's and the x of every column's centre, in the middle of each level."""
    module = backbones.load(key, device="meta").module.to_empty(device="cpu")
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.zero_()
    at = torch.arange(px, dtype=torch.float64) + 0.5
    rows, columns = at[:, None].expand(px, px), at[None].expand(px, px)
    base = 4.0 * px
    # Max pooling answers with the largest: up on one ramp is down on the other, and half the difference is the middle.
    flat = torch.full((px, px), base)
    ramps = torch.stack([base + rows, base - rows, base + columns, base - columns, flat, 2 * flat])
    with torch.inference_mode(), Geometry():
        levels, _ = module.forward(ramps[:, None].repeat(1, 3, 1, 1).double())
    found = []
    for level in levels:
        level = level.double().mean(1)
        gain = (level[5] - level[4]) / base  # residual sums double, and double again; inputs may be rescaled
        y, x = ((level[0] - level[1]) / 2 / gain), ((level[2] - level[3]) / 2 / gain)
        found.append((y[:, y.shape[1] // 2], x[x.shape[0] // 2]))
    return found


def check_centres(key: str) -> None:
    info = backbones.info(key)
    # Inception averages with zero padding in every block: its borders creep in further than others'.
    least = 448 if info.family == "inception" else 320
    px = info.preprocessing.crop_px if info.preprocessing.fixed else max(least, info.preprocessing.crop_px)
    for level, (y, x) in zip(info.levels, centres(key, px), strict=True):
        for side, line in enumerate((y, x)):
            middle = range(len(line) // 2 - 1, len(line) // 2 + 1)
            for i in middle:
                expected = level.offset[side] + i * level.stride[side]
                assert float(line[i]) == pytest.approx(expected, abs=1e-3), f"{key} {level.name}, cell {i}"


@pytest.mark.parametrize("key", SAMPLE)
def test_centres_are_where_the_ramps_say(key: str) -> None:
    check_centres(key)


@pytest.mark.slow
@pytest.mark.parametrize("key", REST)
def test_centres_are_where_the_ramps_say_everywhere(key: str) -> None:
    check_centres(key)


def test_the_ramps_see_a_wrong_centre() -> None:
    y, _ = centres("alexnet", 448)[0]
    assert float(y[50]) == pytest.approx(3.5 + 50 * 4)
    assert float(y[50]) != pytest.approx(0.5 + 50 * 4)  # what padding 5 would give
