"""HRNet's exchange: the same as timm's with the same weights, n times n transforms, and what is left without them."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fusionviz import fusion

CHANNELS, SIZES = (6, 10, 14, 18), ((16, 24), (8, 12), (4, 6), (2, 3))
NAMES = ("p4", "p8", "p16", "p32")


def levels(sizes: tuple = SIZES, channels: tuple = CHANNELS) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, c, *size, generator=generator) for c, size in zip(channels, sizes, strict=True)]


def hrnet(channels: tuple = CHANNELS, strides: tuple | None = None, **params: object) -> fusion.FusionModule:
    return fusion.build("hrnet", channels, strides, **params)


def leaves(module: nn.Module) -> list[nn.Module]:
    return [m for m in module.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]


@pytest.mark.parametrize("merged", ["off", "concat"])
def test_equals_timm_with_the_same_weights(stir, merged: str) -> None:
    """timm's module is built with one residual block on every branch, which is taken out."""
    timm = pytest.importorskip("timm.models.hrnet")
    module = stir(hrnet(merged=merged))
    theirs = timm.HighResolutionModule(4, timm.BasicBlock, (1,) * 4, list(CHANNELS), CHANNELS, "SUM").eval()
    theirs.branches = nn.ModuleList(nn.Identity() for _ in CHANNELS)
    for i, row in enumerate(theirs.fuse_layers, start=1):
        for j, f in enumerate(row, start=1):
            for ours, there in zip(leaves(module.transforms[f"1_{j}_{i}"]) if j != i else [], leaves(f), strict=True):
                there.load_state_dict(ours.state_dict())
    maps = levels()
    expected, found = theirs(list(maps)), module(*maps).outputs
    for name, tensor in zip(NAMES, expected, strict=True):
        torch.testing.assert_close(found[name].tensor, tensor)
    if merged == "off":
        assert found["fused"].tensor is found["p4"].tensor
    else:  # HRNetV2's representation
        large = [F.interpolate(t, SIZES[0], mode="bilinear", align_corners=False) for t in expected]
        torch.testing.assert_close(found["fused"].tensor, torch.cat(large, 1))


def test_four_levels_have_sixteen_transforms_of_which_four_are_identities() -> None:
    module = hrnet()
    assert set(module.transforms) == {f"1_{j}_{i}" for i in range(1, 5) for j in range(1, 5) if i != j}
    strided = {name: sum(c.stride == (2, 2) for c in leaves(f)[::2]) for name, f in module.transforms.items()}
    assert strided == {name: max(0, int(name[4]) - int(name[2])) for name in strided}  # one for each octave
    assert len(hrnet(exchanges=3).transforms) == 36
    sums = {s.key: s.inputs for s in module(*levels()).trace if s.op == "add_relu"}
    assert sums["r1_2"] == ("f1_1_2", "c2", "up1_3_2", "up1_4_2")  # on the diagonal the level itself


def test_outputs_are_as_large_and_as_wide_as_the_levels() -> None:
    result = hrnet(exchanges=2)(*levels())
    assert [tuple(result.outputs[n].tensor.shape) for n in NAMES] == [tuple(m.shape) for m in levels()]
    assert result.fused.tensor.shape[1] == CHANNELS[0]


@pytest.mark.parametrize("exchanges", [1, 3])
def test_without_what_others_bring_every_level_keeps_its_own_relu(exchanges: int) -> None:
    module, maps = hrnet(exchanges=exchanges), levels()
    for conv in leaves(module)[::2]:
        nn.init.zeros_(conv.weight)
    outputs = module(*maps).outputs
    for name, level in zip(NAMES, maps, strict=True):
        assert torch.equal(outputs[name].tensor, level.relu())


def test_one_exchange_worked_by_hand() -> None:
    module = hrnet((1, 1))
    with torch.no_grad():
        module.transforms["1_2_1"][0].weight.fill_(2)
        module.transforms["1_1_2"][0].weight.fill_(1)
        for norm in leaves(module)[1::2]:
            norm.running_var.fill_(1 - norm.eps)  # the identity, exactly
    low, high = torch.tensor([[[[1.0, -9.0], [3.0, 4.0]]]]), torch.tensor([[[[3.0]]]])
    outputs = module(low, high).outputs
    assert outputs["p4"].tensor[0, 0].tolist() == [[7, 0], [9, 10]]  # 1 + 2·3, relu(-9 + 6), ...
    assert outputs["p8"].tensor.item() == 2  # 3 + (1 - 9 + 3 + 4)


def test_a_second_exchange_carries_news_of_news() -> None:
    """The coarsest level is changed at one place; the finest's next exchange hears what the middle level made of it."""
    maps = levels()
    for exchanges in (1, 2):
        module = hrnet(exchanges=exchanges)
        for name in ("1_4_1", "2_4_1", "1_4_2", "2_4_2"):  # no direct way to the two finest levels
            if name in module.transforms:
                nn.init.zeros_(module.transforms[name][0].weight)
        changed = module(*maps[:-1], maps[-1] + 5).outputs
        assert torch.equal(changed["p4"].tensor, module(*maps).outputs["p4"].tensor) is (exchanges == 1)
        assert not torch.equal(changed["p16"].tensor, module(*maps).outputs["p16"].tensor)


def test_the_share_of_low_is_the_identity_against_all_others(stir) -> None:
    module, maps = stir(hrnet()), levels()
    own, others = module(*maps).terms()
    assert torch.equal(own, maps[0])
    torch.testing.assert_close(module(*maps).fused.tensor, (own + others).relu())
    with torch.no_grad():
        found = [module.transforms[f"1_{j}_1"](maps[j - 1]) for j in (2, 3, 4)]
    torch.testing.assert_close(others, sum(F.interpolate(t, SIZES[0], mode="nearest") for t in found))


def test_levels_whose_sizes_no_stride_gives_still_meet() -> None:
    sizes = ((55, 55), (27, 27), (13, 13))  # floor, where a strided convolution rounds up
    outputs = hrnet(CHANNELS[:3], exchanges=2)(*levels(sizes, CHANNELS[:3])).outputs
    assert [outputs[n].size for n in NAMES[:3]] == list(sizes)


def test_levels_of_one_stride_exchange_by_1x1_and_levels_far_apart_by_as_many_strides_as_octaves() -> None:
    flat = hrnet((6, 6), (16.0, 16.0))
    assert {m.kernel_size for m in leaves(flat)[::2]} == {(1, 1)}
    assert not [s for s in flat(*levels(((4, 4), (4, 4)), (6, 6))).trace if s.op.startswith("resize")]
    far = hrnet((6, 10), (4.0, 16.0))
    assert [m.stride for m in leaves(far.transforms["1_1_2"])[::2]] == [(2, 2), (2, 2)]
    assert [o.size for o in far(*levels(((16, 16), (4, 4)), (6, 10))).outputs.values()] == [(16, 16), (16, 16), (4, 4)]
