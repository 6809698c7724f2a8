"""Attention of torchvision's ViT and Swin: its own, block by block, and where every token lies."""

import pytest
import torch
from _torchvisions import build, check_trace, look, picture, steps
from torch import nn
from torchvision import models
from torchvision.models import list_models
from torchvision.models.swin_transformer import SwinTransformerBlock

from fusionviz import systems, weights
from fusionviz.systems.wild_attention import _Windows

KEY = "wild_attention"
NETS = systems.spec(KEY).param("net").choices
QUICK = ("vit_b_32", "swin_t", "swin_v2_t")
SLOW = tuple(net for net in NETS if net not in QUICK and net != "vit_h_14")  # that one alone takes 2.5 GB


def speaking(net: str, **knobs: object) -> systems.System:
    """A network whose last layer says something: torchvision begins ViT's with zeros."""
    module = build(KEY, net, **knobs)
    head = module.network.heads.head if net.startswith("vit") else module.network.head
    nn.init.normal_(head.weight, generator=torch.Generator().manual_seed(0))
    return module


def test_every_vit_and_swin_of_torchvision_is_there():
    listed = list_models(module=models)
    assert set(NETS) == {n for n in listed if n.startswith(("vit", "swin"))}


@pytest.mark.parametrize("depth", [0.0, 0.1, 0.4, 1.0])
@pytest.mark.parametrize("net", [*QUICK, *(pytest.param(net, marks=pytest.mark.slow) for net in SLOW)])
def test_it_is_torchvisions_forward_pass(net, depth):
    module = speaking(net, depth=depth)
    result = look(module, picture())
    with torch.no_grad():
        expected = module.network(steps(result)["fitted"])[0]
    torch.testing.assert_close(result.outputs["classes"].values, expected, atol=1e-4, rtol=1e-4)
    assert expected.std() > 0.1
    assert result.outputs["classes"].classes == weights.categories(net)
    assert result.fused.tensor.shape == result.outputs["before"].tensor.shape
    check_trace(KEY, result)


def test_vits_weights_are_those_of_torchs_own_attention():
    module = speaking("vit_b_32", depth=0.3)
    result = look(module, picture(64, 96))
    made, block = steps(result), module.network.encoder.layers[3]
    with torch.no_grad():
        x = made["norm"]
        answer, pairs = block.self_attention(x, x, x, need_weights=True, average_attn_weights=False)
    torch.testing.assert_close(result.attention["pairs"].tensor, pairs)
    torch.testing.assert_close(made["mixed"], answer)
    pairs = result.attention["pairs"]
    assert pairs.tensor.shape == (1, 12, 50, 50)
    first, patches = pairs.keys
    assert (first.level, first.count, patches.size) == ("class_token", 1, (7, 7))
    assert first.offset == pytest.approx((32, 48))  # the middle of the picture: it lies nowhere
    assert patches.stride == pytest.approx((64 / 7, 96 / 7))
    assert patches.offset == pytest.approx((32 / 7, 48 / 7))
    assert result.fused.stride == pytest.approx(patches.stride)
    torch.testing.assert_close(result.fused.tensor[0, :, 2, 3], made["fused"][0, 1 + 2 * 7 + 3])


@pytest.mark.parametrize("net", ["swin_t", "swin_v2_t"])
@pytest.mark.parametrize(("depth", "shifted"), [(0.0, False), (0.1, True)])
def test_swins_windows_lie_where_their_tokens_come_from(net, depth, shifted):
    module = speaking(net, depth=depth)
    result = look(module, picture(64, 64))
    side, window = (56, 7) if net == "swin_t" else (64, 8)
    assert len(result.attention) == 64
    assert next(iter(result.attention)) == "window_5_5"
    seen = torch.zeros(side, side, dtype=torch.int64)
    parts = {}
    for name, pairs in result.attention.items():
        assert pairs.tensor.shape == (1, 3, window**2, window**2)
        parts[name] = len(pairs.keys)
        begin = 0
        for block in pairs.keys:
            (y, x), (h, w) = (round(o / s - 0.5) for o, s in zip(block.offset, block.stride, strict=True)), block.size
            seen[y : y + h, x : x + w] += 1
            other = pairs.tensor[0].clone()
            other[:, :, begin : begin + block.count] = 0
            far = other[:, begin : begin + block.count]
            assert float(far.max()) < 1e-6  # parts from opposite sides do not see each other
            begin += block.count
    assert bool((seen == 1).all())
    assert parts["window_1_1"] == 1
    assert parts["window_8_8"] == (4 if shifted else 1)
    assert parts["window_3_8"] == (2 if shifted else 1)


def test_what_changes_in_one_window_changes_only_its_attention():
    module, at = speaking("swin_t", depth=0.0), picture(224, 224)
    changed = at.clone()
    changed[..., 28:56, 56:84] *= -1  # the second row of windows, the third column: 7 patches of 4 pixels
    before, after = (look(module, a).attention for a in (at, changed))
    moved = [n for n in before if not torch.allclose(before[n].tensor, after[n].tensor, atol=1e-6)]
    assert moved == ["window_2_3"]


def test_windows_are_cut_masked_and_joined_again():
    x = torch.randn(1, 8, 12, 6, generator=torch.Generator().manual_seed(0))
    windows = _Windows((8, 12), (4, 4), (2, 2))
    torch.testing.assert_close(windows.join(windows.cut(x)), x)
    rolled = x.roll((-2, -2), (1, 2))
    torch.testing.assert_close(windows.cut(x)[4], rolled[0, 4:8, 4:8].flatten(0, 1))
    masked = windows.masked(x)
    assert masked.shape == (6, 1, 16, 16)
    assert masked.unique().tolist() == [-100, 0]
    assert [int((masked[i] == 0).all()) for i in range(6)] == [1, 1, 0, 0, 0, 0]
    pieces, order = windows.pieces(1, 2)
    assert pieces == [((6, 10), (2, 2)), ((6, 0), (2, 2)), ((0, 10), (2, 2)), ((0, 0), (2, 2))]
    assert order[:6].tolist() == [0, 1, 4, 5, 2, 3]
    whole = _Windows((4, 4), (4, 4), (2, 2))
    assert whole.shift == (0, 0)  # nothing to shift where one window is the whole map


def test_depth_opens_the_blocks_in_order():
    blocks = [m for m in speaking("swin_t").network.modules() if isinstance(m, SwinTransformerBlock)]
    assert len(blocks) == 12
    for depth, stride, count in ((0.25, 8, 16), (1.0, 32, 1)):
        result = look(build(KEY, "swin_t", depth=depth), picture(224, 224))
        assert result.fused.stride == (stride, stride)
        assert result.fused.offset == (stride / 2, stride / 2)
        assert len(result.attention) == count
