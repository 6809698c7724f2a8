"""U-Net's decoder: the paper's sizes, smp's block with the same weights, and what a skip does."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionviz import fusion
from fusionviz.errors import ShapeError
from fusionviz.fusion.unet import ledger
from fusionviz.records import FeatureMap

CHANNELS, SIZES = (3, 4, 5), ((16, 12), (8, 6), (4, 3))


def levels(sizes: tuple = SIZES, channels: tuple = CHANNELS) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, c, *size, generator=generator) for c, size in zip(channels, sizes, strict=True)]


def unet(channels: tuple = CHANNELS, strides: tuple | None = None, **params: object) -> fusion.FusionModule:
    return fusion.build("unet", channels, strides, **{"width": 8, **params})


def stir_biases(module: fusion.FusionModule) -> fusion.FusionModule:
    for i, (name, p) in enumerate(module.named_parameters()):
        if name.endswith("bias"):
            nn.init.normal_(p, generator=torch.Generator().manual_seed(i))
    return module


# --- the paper's sizes ---------------------------------------------------------------------------
def test_the_ledger_of_the_paper() -> None:
    sides = ledger(572)
    assert sides.encoder == (568, 280, 136, 64)
    assert sides.bottom == (32, 28)
    assert sides.decoder == ((56, 64, 4), (104, 136, 16), (200, 280, 40), (392, 568, 88))
    assert sides.out == 388


@pytest.mark.parametrize("side", [188, 204, 572])
def test_the_ledger_is_what_real_layers_give(side: int) -> None:
    conv, up = nn.Conv2d(1, 1, 3, device="meta"), nn.ConvTranspose2d(1, 1, 2, 2, device="meta")
    x, skips, sides = torch.empty(1, 1, side, side, device="meta"), [], ledger(side)
    for _ in range(4):
        skips.append(conv(conv(x)))
        x = F.max_pool2d(skips[-1], 2)
    assert tuple(s.shape[-1] for s in skips) == sides.encoder
    x = conv(conv(x))
    for skip, (enlarged, whole, cut) in zip(reversed(skips), sides.decoder, strict=True):
        x = up(x)
        assert (x.shape[-1], skip.shape[-1], skip.shape[-1] - 2 * cut) == (enlarged, whole, enlarged)
        x = conv(conv(x))
    assert x.shape[-1] == sides.out


@pytest.mark.parametrize(("side", "then"), [(571, 572), (573, 588), (172, 188), (-3, 188), (512, 524)])
def test_a_side_that_does_not_work_is_answered_with_the_next_that_does(side: int, then: int) -> None:
    with pytest.raises(ShapeError, match=rf"its side is {side}\. The next one that works is {then}\.") as raised:
        ledger(side)
    assert str(then) in raised.value.text("zh")
    assert ledger(then).out > 0


# --- without padding -----------------------------------------------------------------------------
def test_valid_crops_the_middle_and_keeps_its_places() -> None:
    """8 coarse cells: 16 -> 12, enlarged to 24 of 32 -> 20. Cropped as in the paper, (skip - enlarged) / 2 = 4."""
    maps = [
        FeatureMap(f"s{s}", t, (s, s), (0.5, 0.5), i)
        for i, (s, t) in enumerate(zip((4, 8, 16), levels(((32, 32), (16, 16), (8, 8))), strict=True), start=1)
    ]
    result = unet(padding="valid")(*maps)
    steps = {s.key: s.tensor for s in result.trace}
    assert [steps[k].shape[-1] for k in ("up_2", "conv_2a", "conv_2b", "up_1", "crop_1", "conv_1b")] == [
        16,
        14,
        12,
        24,
        24,
        20,
    ]
    assert "crop_2" not in steps  # the coarsest has lost nothing yet
    assert torch.equal(steps["crop_1"], maps[0].tensor[..., 4:28, 4:28])
    assert result.fused.size == (20, 20)
    assert result.fused.stride == (4, 4)
    assert result.fused.offset == (0.5 + 6 * 4, 0.5 + 6 * 4)  # 4 cropped and 2 convolved away
    share = result.share_of_low()
    assert (tuple(share.tensor.shape[-2:]), share.offset) == ((20, 20), result.fused.offset)


def test_valid_is_the_inside_of_same_where_no_edge_is_seen() -> None:
    maps = levels(((64, 64), (32, 32), (16, 16)))
    same, valid = (stir_biases(unet(padding=p))(*maps).fused for p in ("same", "valid"))
    inset = (64 - valid.size[0]) // 2
    assert valid.size == (52, 52)
    torch.testing.assert_close(same.tensor[..., inset:-inset, inset:-inset], valid.tensor)


@pytest.mark.parametrize(
    ("sizes", "need"),
    [(((4, 4), (2, 2)), 3), (((12, 12), (6, 6), (3, 3)), 4), (((32, 16), (16, 8), (8, 4), (4, 2)), 5)],
)
def test_a_level_too_small_for_valid_is_told_how_large_it_must_be(sizes: tuple, need: int) -> None:
    channels = (3, 4, 5, 6)[: len(sizes)]
    received = f"{sizes[-1][0]} × {sizes[-1][1]}"
    with pytest.raises(ShapeError, match=f"at least {need} × {need} cells, but it has {received}") as raised:
        unet(channels, padding="valid")(*levels(sizes, channels))
    assert received in raised.value.text("zh")
    for odd in (0, 1):  # the least that was named is enough, also where a level has one cell less than twice the next
        chain = [(need, need)]
        for _ in sizes[1:]:
            chain.insert(0, (2 * chain[0][0] - odd,) * 2)
        assert min(unet(channels, padding="valid")(*levels(tuple(chain), channels)).fused.size) >= 1


def test_odd_sizes_keep_their_places() -> None:
    """A picture moved by one coarse cell moves the result by as many fine ones, also without padding."""
    maps = levels(((65, 33), (33, 17), (17, 9)))
    for padding in ("same", "valid"):
        module = unet(padding=padding)
        moved = [torch.roll(m, (4, 2, 1)[i], 2) for i, m in enumerate(maps)]
        first, second = (module(*given).fused.tensor for given in (maps, moved))
        torch.testing.assert_close(second[:, :, 20:44, 8:-8], first[:, :, 16:40, 8:-8])


# --- the decoder ---------------------------------------------------------------------------------
def test_equals_the_equation_with_plain_layers() -> None:
    maps, module = levels(), stir_biases(unet())
    d = maps[2]
    for i in (2, 1):
        up = F.conv_transpose2d(d, module.up[str(i)].weight, module.up[str(i)].bias, stride=2)
        d = torch.cat((up, maps[i - 1]), 1)
        for which in "ab":
            conv = module.convs[f"{i}{which}"][0]
            d = F.relu(F.conv2d(d, conv.weight, conv.bias, padding=1))
    torch.testing.assert_close(module(*maps).fused.tensor, d)


def test_an_up_convolution_halves_the_channels_and_a_level_doubles_them() -> None:
    module = fusion.build("unet", (64, 128, 256, 512, 1024), (1, 2, 4, 8, 16))
    assert {k: (c.in_channels, c.out_channels) for k, c in module.up.items()} == {
        "4": (1024, 512),
        "3": (512, 256),
        "2": (256, 128),
        "1": (128, 64),
    }
    for i, c in ((4, 512), (3, 256), (2, 128), (1, 64)):
        assert module.convs[f"{i}a"][0].weight.shape == (c, 2 * c, 3, 3)
        assert module.convs[f"{i}b"][0].weight.shape == (c, c, 3, 3)


@pytest.mark.parametrize("norm", ["none", "bn"])
def test_equals_the_decoder_block_of_smp_with_the_same_weights(norm: str, stir) -> None:  # noqa: ANN001
    """Where smp enlarges by nearest and we do too; its block has no up-convolution to copy."""
    decoder = pytest.importorskip("segmentation_models_pytorch.decoders.unet.decoder")
    maps = levels(((13, 9), (7, 5), (4, 3)))
    module = stir(stir_biases(unet(upsample="nearest", norm=norm)))
    d = maps[2]
    for i, out in ((2, 16), (1, 8)):
        use = "batchnorm" if norm == "bn" else False
        block = decoder.UnetDecoderBlock(d.shape[1], CHANNELS[i - 1], out, use_norm=use).eval()
        for which, theirs in (("a", block.conv1), ("b", block.conv2)):
            ours = module.convs[f"{i}{which}"]
            theirs[0].load_state_dict(ours[0].state_dict())
            if norm == "bn":
                theirs[1].load_state_dict(ours[1].state_dict())
        d = block(d, *maps[i - 1].shape[-2:], skip_connection=maps[i - 1])
    torch.testing.assert_close(module(*maps).fused.tensor, d)
    assert not module.up


def test_a_skip_speaks_through_its_own_block_of_the_kernel() -> None:
    """An empty skip is as good as no block for it: the kernel's channels behind those that came up."""
    low, mid, top = levels()
    module = stir_biases(unet())
    empty = module(torch.zeros_like(low), mid, top)
    with torch.no_grad():
        module.convs["1a"][0].weight[:, 8:] = 0
    assert torch.equal(module(low, mid, top).fused.tensor, empty.fused.tensor)


def test_without_skips_only_the_coarsest_level_is_heard() -> None:
    low, mid, top = levels()
    module = unet(skip=False)
    result = module(low, mid, top)
    other = module(torch.randn_like(low), torch.randn_like(mid), top)
    assert torch.equal(result.fused.tensor, other.fused.tensor)
    assert not bool(result.share_of_low().tensor.any())
    assert result.aligned is None
    assert not [s for s in result.trace if s.op == "concat"]


def test_terms_and_bias_make_the_first_convolution_of_the_finest_level() -> None:
    maps, module = levels(), stir_biases(unet())
    result = module(*maps)
    first = next(s.tensor for s in result.trace if s.key == "conv_1a")
    low, high = result.terms()
    torch.testing.assert_close(F.relu(low + high + module.convs["1a"][0].bias[:, None, None]), first)


def test_levels_of_one_stride_keep_their_width_and_size() -> None:
    """A transformer's levels: the up-convolution has nothing to enlarge and is a 1x1."""
    maps = levels(((5, 5),) * 3, (6, 6, 6))
    module = unet((6, 6, 6), (16.0,) * 3)
    assert {c.kernel_size for c in module.up.values()} == {(1, 1)}
    assert module(*maps).fused.tensor.shape == (2, 8, 5, 5)
    bare = unet((6, 6, 6), (16.0,) * 3, upsample="nearest")(*maps)
    assert not [s for s in bare.trace if s.op == "resize_nearest"]


def test_a_level_twice_as_large_and_one_more_repeats_the_last_cells() -> None:
    maps = levels(((9, 9), (4, 4)), (3, 4))
    up = next(s.tensor for s in unet((3, 4))(*maps).trace if s.key == "up_1")
    assert up.shape[-2:] == (9, 9)
    assert torch.equal(up[..., 8], up[..., 7])
