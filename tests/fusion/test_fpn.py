"""FPN: the same as torchvision's with the same weights, and its two paths, each alone, as the paper's ablations."""

from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import FeaturePyramidNetwork

from fusionviz import fusion, trace
from fusionviz.errors import ParameterError, ShapeError
from fusionviz.records import FeatureMap

CHANNELS, SIZES = (6, 10, 14), ((13, 9), (7, 5), (4, 3))  # odd on purpose: 13 -> 7 -> 4


def levels(channels: tuple[int, ...] = CHANNELS, sizes: tuple = SIZES) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, c, *size, generator=generator) for c, size in zip(channels, sizes, strict=True)]


def fpn(channels: tuple[int, ...] = CHANNELS, strides: tuple | None = None, **params: object) -> fusion.FusionModule:
    return fusion.build("fpn", channels, strides, **{"width": 8, **params})


def copy_of(module: fusion.FusionModule) -> FeaturePyramidNetwork:
    reference = FeaturePyramidNetwork(list(module.channels), 8)
    for i in range(len(module.channels)):
        reference.inner_blocks[i][0].load_state_dict(module.lateral[str(i + 1)].state_dict())
        reference.layer_blocks[i][0].load_state_dict(module.smooth[str(i + 1)].state_dict())
    return reference.eval()


def stir_biases(module: fusion.FusionModule) -> fusion.FusionModule:
    """Biases start at zero, where a test could not tell whether they are added."""
    for i, conv in enumerate((*module.lateral.values(), *module.smooth.values())):
        nn.init.normal_(conv.bias, generator=torch.Generator().manual_seed(i))
    return module


def identity(module: fusion.FusionModule) -> fusion.FusionModule:
    for conv in module.lateral.values():
        nn.init.dirac_(conv.weight)
    return module


def test_equals_torchvision_with_the_same_weights() -> None:
    maps, module = levels(), stir_biases(fpn())
    expected = copy_of(module)(OrderedDict((f"p{4 * 2**i}", m) for i, m in enumerate(maps)))
    outputs = dict(module(*maps).outputs)
    fused = outputs.pop("fused")
    assert list(outputs) == list(expected) == ["p4", "p8", "p16"]
    for name, tensor in expected.items():
        torch.testing.assert_close(outputs[name].tensor, tensor)
    assert fused.tensor is outputs["p4"].tensor


def test_starts_like_torchvision() -> None:
    """Kaiming uniform with a = 1: weights within sqrt(3 / fan in), spread to its edge; biases zero."""
    module = fpn((64, 96), width=64)
    for conv in (*module.lateral.values(), *module.smooth.values()):
        bound = (3 / (conv.in_channels * conv.kernel_size[0] ** 2)) ** 0.5
        assert 0.98 * bound < conv.weight.abs().max() <= bound
        assert not bool(conv.bias.any())


def test_counts_of_the_reference() -> None:
    module = fusion.build("fpn", (64, 128, 256, 512))
    assert sum(p.numel() for p in module.parameters()) == 2_607_104
    sizes = ((8, 8), (4, 4), (2, 2), (1, 1))
    macs = trace.costs(module, tuple((1, c, *s) for c, s in zip((64, 128, 256, 512), sizes, strict=True)))
    for i, (c, (h, w)) in enumerate(zip((64, 128, 256, 512), sizes, strict=True), start=1):
        assert macs[f"lateral_{i}"] == c * 256 * h * w
        assert macs[f"smooth_{i}"] == 9 * 256 * 256 * h * w
        assert macs.get(f"merge_{i}", 0) == macs.get(f"up_{i}", 0) == 0


def test_identity_laterals_and_an_empty_rest_repeat_the_top() -> None:
    _, _, top = levels((8, 8, 8), ((8, 8), (4, 4), (2, 2)))
    empty = [torch.zeros(2, 8, 8, 8), torch.zeros(2, 8, 4, 4)]
    outputs = identity(fpn((8, 8, 8), smooth=False))(*empty, top).outputs
    assert torch.equal(outputs["p16"].tensor, top)
    assert torch.equal(outputs["p8"].tensor, top.repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert torch.equal(outputs["fused"].tensor, top.repeat_interleave(4, 2).repeat_interleave(4, 3))


def test_an_empty_top_leaves_the_laterals() -> None:
    low, mid, top = levels()
    module = fpn(smooth=False)
    outputs = module(low, torch.zeros_like(mid), torch.zeros_like(top)).outputs
    torch.testing.assert_close(outputs["fused"].tensor, module.lateral["1"](low))


def test_two_levels_worked_by_hand() -> None:
    low = torch.tensor([[[[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]]])
    high = torch.tensor([[[[10.0, -20.0]]]])
    module = identity(fpn((1, 1), width=4))
    with torch.no_grad():
        module.smooth["1"].weight.zero_()
        module.smooth["1"].weight[0, 0] = 1.0  # each 3x3 sum of P_1's channel 0
    fused = module(low, high).fused.tensor[0, 0]
    # P_1 = [[11, 12, -17, -16], [15, 16, -13, -12]]; its 3x3 sums, empty outside:
    assert fused.tolist() == [[54, 24, -30, -58], [54, 24, -30, -58]]


def test_without_top_down_every_level_is_alone() -> None:
    """Row d of the paper's table: 1x1 and 3x3 on the bottom-up levels, nothing comes down."""
    maps, module = levels(), stir_biases(fpn(top_down=False))
    outputs = module(*maps).outputs
    for i, name in enumerate(("p4", "p8", "p16"), start=1):
        torch.testing.assert_close(outputs[name].tensor, module.smooth[str(i)](module.lateral[str(i)](maps[i - 1])))
    assert sum(p.numel() for p in module.parameters()) == sum(p.numel() for p in fpn().parameters())


def test_without_laterals_only_the_top_is_heard() -> None:
    """Row e: only the top keeps its 1x1; the finer levels are enlargements of it."""
    maps, module = levels(), stir_biases(fpn(lateral=False))
    result = module(*maps)
    changed = module(torch.randn_like(maps[0]), torch.randn_like(maps[1]), maps[2])
    p3 = module.lateral["3"](maps[2])
    p2 = F.interpolate(p3, size=(7, 5), mode="nearest")
    p1 = F.interpolate(p2, size=(13, 9), mode="nearest")
    for i, (name, p) in enumerate((("p4", p1), ("p8", p2), ("p16", p3)), start=1):
        torch.testing.assert_close(result.outputs[name].tensor, module.smooth[str(i)](p))
        assert torch.equal(result.outputs[name].tensor, changed.outputs[name].tensor)
    assert list(module.lateral) == ["3"]


def test_with_both_paths_off_it_says_what_to_do() -> None:
    with pytest.raises(ParameterError, match="Switch one of them on") as raised:
        fpn(lateral=False, top_down=False)
    assert raised.value.text("zh") != raised.value.text("en")


@pytest.mark.parametrize("lateral", [True, False])
@pytest.mark.parametrize("top_down", [True, False])
@pytest.mark.parametrize("smooth", [True, False])
def test_every_ablation_ends_in_one_fused_step(lateral: bool, top_down: bool, smooth: bool) -> None:
    if not (lateral or top_down):
        with pytest.raises(ParameterError):
            fpn(lateral=lateral, top_down=top_down, smooth=smooth)
        return
    result = fpn(lateral=lateral, top_down=top_down, smooth=smooth)(*levels())
    (last,) = [step for step in result.trace if step.role == "fused"]
    assert last.tensor is result.fused.tensor
    assert last is result.trace[-1]
    assert (result.aligned is not None) == (lateral and top_down)


def test_the_pair_that_meets_is_the_finest_and_its_sum_is_smoothed() -> None:
    maps, module = levels(), stir_biases(fpn())
    result = module(*maps)
    low, high = result.aligned
    assert (low.name, high.name) == ("low", "high")
    assert low.stride == high.stride == result.fused.stride
    torch.testing.assert_close(low.tensor, module.lateral["1"](maps[0]))
    torch.testing.assert_close(module.smooth["1"](low.tensor + high.tensor), result.fused.tensor)
    assert result.terms()[0] is low.tensor
    assert result.terms()[1] is high.tensor


@pytest.mark.parametrize(("knob", "share"), [({"top_down": False}, 1.0), ({"lateral": False}, 0.0)])
def test_the_share_of_low_knows_which_path_is_off(knob: dict, share: float) -> None:
    result = fpn(**knob)(*levels())
    assert torch.equal(result.share_of_low().tensor, torch.full((2, 1, 13, 9), share))


def test_the_share_of_low_is_the_norm_of_the_lateral_in_both_norms() -> None:
    result = fpn()(*levels())
    low, high = (m.tensor[1, :, 4, 6].norm() for m in result.aligned)
    torch.testing.assert_close(result.share_of_low().tensor[1, 0, 4, 6], low / (low + high))


@pytest.mark.parametrize("upsample", ["bilinear", "transposed"])
def test_other_upsampling_changes_only_how_levels_come_down(upsample: str) -> None:
    sizes = ((8, 8), (4, 4))
    maps, module = levels((6, 10), sizes), fpn((6, 10), upsample=upsample, smooth=False)
    up = F.interpolate(module.lateral["2"](maps[1]), size=(8, 8), mode="bilinear", align_corners=False)
    torch.testing.assert_close(module(*maps).fused.tensor, module.lateral["1"](maps[0]) + up)  # transposed starts so
    learned = sum(p.numel() for p in module.up.parameters())
    assert learned == (8 * 4 * 4 if upsample == "transposed" else 0)


@pytest.mark.parametrize("params", [{}, {"upsample": "transposed"}, {"top_down": False}, {"lateral": False}])
def test_every_parameter_learns_from_all_levels_together(params: dict) -> None:
    module = fpn(**params).train()
    outputs = module(*levels()).outputs
    sum(m.tensor.square().sum() for m in outputs.values()).backward()
    for name, parameter in module.named_parameters():
        assert bool(parameter.grad.isfinite().all()), name
        assert bool(parameter.grad.any()), name


def test_is_linear_in_the_levels() -> None:
    """No nonlinearity anywhere: doubling every level doubles every output, as the biases start at zero."""
    maps, module = levels(), fpn()
    once, twice = module(*maps).outputs, module(*(2 * m for m in maps)).outputs
    for name in once:
        torch.testing.assert_close(twice[name].tensor, 2 * once[name].tensor)


def test_levels_of_one_stride_meet_as_they_are() -> None:
    """A transformer's levels differ in depth alone: nothing is resized, outputs are called by depth."""
    strides = (16.0, 16.0, 16.0)
    tensors = levels((6, 6, 6), ((4, 4),) * 3)
    maps = [
        FeatureMap(f"d{d}", t, (16, 16), (8, 8), i) for i, (d, t) in enumerate(zip((3, 6, 9), tensors, strict=True))
    ]
    for upsample in ("nearest", "transposed"):
        module = fpn((6, 6, 6), strides, upsample=upsample)
        result = module(*maps)
        assert list(result.outputs) == ["fused", "p3", "p6", "p9"]
        assert not [step for step in result.trace if step.op.startswith("resize")]
        p2 = module.lateral["2"](tensors[1]) + module.lateral["3"](tensors[2])
        torch.testing.assert_close(result.fused.tensor, module.smooth["1"](module.lateral["1"](tensors[0]) + p2))
        assert list(module(*tensors).outputs) == ["fused", "p1", "p2", "p3"]
    alone = fpn((6, 6, 6), strides, lateral=False, smooth=False)(*maps)
    assert [step.tensor is alone.fused.tensor for step in alone.trace if step.role == "fused"] == [True]


def test_transposed_without_a_factor_is_bilinear_and_says_so() -> None:
    maps = levels((6, 6), ((5, 5), (4, 4)))
    module = fpn((6, 6), (16.0, 16.0), upsample="transposed")
    up = next(step for step in module(*maps).trace if step.key == "up_1")
    assert (up.op, up.parameters) == ("resize_bilinear", 0)
    expected = F.interpolate(module.lateral["2"](maps[1]), size=(5, 5), mode="bilinear", align_corners=False)
    torch.testing.assert_close(up.tensor, expected)


def test_one_tensor_given_twice_is_two_levels_in_the_trace() -> None:
    (tensor,) = levels((6,), ((4, 4),))
    steps = {step.key: step for step in fpn((6, 6), (16, 16))(tensor, tensor).trace}
    assert steps["lateral_1"].inputs == ("c1",)
    assert steps["lateral_2"].inputs == ("c2",)


def test_outputs_keep_the_places_of_their_levels() -> None:
    tensors = levels()
    maps = [
        FeatureMap(f"s{s}", t, (s, s), (0.5, 0.5), i) for i, (s, t) in enumerate(zip((4, 8, 16), tensors, strict=True))
    ]
    outputs = fpn()(*maps).outputs
    for level, name in zip(maps, ("p4", "p8", "p16"), strict=True):
        out = outputs[name]
        assert (out.stride, out.offset, out.stage, out.size) == (level.stride, level.offset, level.stage, level.size)


def test_takes_two_levels_or_more_and_exactly_its_own() -> None:
    with pytest.raises(ShapeError, match="at least 2"):
        fpn((6,))
    low, mid, top = levels()
    assert fpn((6, 10))(low, mid).fused.size == (13, 9)
    for wrong in ((low, mid), (low, mid, top, top)):
        with pytest.raises(ShapeError, match="6, 10, 14"):
            fpn()(*wrong)


# --- learned kernels, and all levels as one map ---------------------------------------------------
def striped(kernel: str, size: tuple[int, int] = (12, 12)) -> torch.Tensor:
    """What a constant map of ones becomes, enlarged by an untrained kernel, nothing else in the way."""
    module = identity(fpn((4, 4), width=4, upsample=kernel, smooth=False))
    high = torch.ones(1, 4, size[0] // 2, size[1] // 2)
    return module(torch.zeros(1, 4, *size), high).fused.tensor[0, 0]


def test_a_2x2_kernel_of_ones_is_nearest_bit_for_bit() -> None:
    maps, sizes = levels((6, 10), ((14, 10), (7, 5))), (14, 10)
    module = stir_biases(fpn((6, 10), upsample="transposed2", smooth=False))
    assert torch.equal(module.up["1"].weight, torch.ones(8, 1, 2, 2))
    up = next(step.tensor for step in module(*maps).trace if step.key == "up_1")
    assert torch.equal(up, F.interpolate(module.lateral["2"](maps[1]), size=sizes, mode="nearest"))


@pytest.mark.parametrize(("kernel", "overlaps"), [("2", {1}), ("3", {1, 2, 4}), ("4", {4})])
def test_windows_overlap_evenly_only_where_the_stride_divides_the_kernel(kernel: str, overlaps: set[int]) -> None:
    out = striped(f"transposed{kernel}")
    counts = out * int(kernel) ** 2 / 4  # each weight is 4 / kernel squared
    assert {round(float(c), 4) for c in counts.flatten()} == overlaps
    torch.testing.assert_close(out.mean(), torch.ones(()))  # the mean is kept, whatever the pattern
    steady = torch.ones(1, 1, 6, 6)
    free = F.conv_transpose2d(steady, torch.ones(1, 1, int(kernel), int(kernel)), stride=2)[0, 0, 3:-3, 3:-3]
    assert {int(c) for c in free.flatten()} == overlaps  # as torch's own transposed convolution has it


@pytest.mark.parametrize("kernel", ["transposed2", "transposed3", "transposed4"])
def test_learned_kernels_meet_odd_sizes_and_factors_of_four(kernel: str) -> None:
    assert torch.isfinite(fpn(upsample=kernel)(*levels()).fused.tensor).all()
    wide = fpn((6, 10), (4.0, 16.0), upsample=kernel)(*levels((6, 10), ((13, 9), (4, 3))))
    assert wide.fused.size == (13, 9)
    same = fpn((6, 6), (16.0, 16.0), upsample=kernel)
    assert not list(same.up)
    assert same(*levels((6, 6), ((5, 5), (4, 4)))).fused.size == (5, 5)


@pytest.mark.parametrize("how", ["sum", "concat"])
def test_merging_brings_all_levels_to_the_finest_size(how: str) -> None:
    maps, alone = levels(), fpn()
    module = fpn(merged=how)
    module.load_state_dict(alone.state_dict())  # there is nothing more to learn
    result, plain = module(*maps), alone(*maps).outputs
    large = [F.interpolate(plain[p].tensor, size=(13, 9), mode="nearest") for p in ("p4", "p8", "p16")]
    expected = sum(large) if how == "sum" else torch.cat(large, 1)
    torch.testing.assert_close(result.fused.tensor, expected)
    for name in ("p4", "p8", "p16"):
        assert torch.equal(result.outputs[name].tensor, plain[name].tensor)
    assert [s.tensor is result.fused.tensor for s in result.trace if s.role == "fused"] == [True]


def test_the_maps_of_the_printed_version_cannot_be_stacked_as_they_are_but_merged_they_can() -> None:
    maps = levels((16, 16, 16), ((32, 32), (16, 16), (8, 8)))
    with pytest.raises(RuntimeError, match="Sizes of tensors must match"):
        torch.cat(maps, 1)
    fused = fpn((16, 16, 16), (2, 4, 8), width=16, upsample="transposed2", merged="concat")(*maps).fused
    assert fused.tensor.shape == (2, 48, 32, 32)
    odd = levels((16, 16, 16), ((33, 33), (17, 17), (9, 9)))  # where printed versions stop
    assert fpn((16, 16, 16), (2, 4, 8), width=16, upsample="transposed2", merged="concat")(*odd).fused.size == (33, 33)


def test_the_default_has_the_parameters_it_always_had() -> None:
    names = [f"{part}.{i}.{kind}" for part in ("lateral", "smooth") for i in (1, 2, 3) for kind in ("weight", "bias")]
    assert sorted(fpn().state_dict()) == sorted(names)
