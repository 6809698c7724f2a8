"""HyperNet: three branches meet at the middle level's size, and LRN by an independent loop."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fusionviz import fusion

CHANNELS, SIZES = (3, 4, 5), ((12, 8), (6, 4), (3, 2))


def levels(sizes: tuple = SIZES, channels: tuple = CHANNELS) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, c, *size, generator=generator) for c, size in zip(channels, sizes, strict=True)]


def hypernet(**params: object) -> fusion.FusionModule:
    return fusion.build("hypernet", CHANNELS, **{"width": 8, **params})


def lrn_by_loop(block: Tensor, alpha: float) -> Tensor:
    """a_c / (1 + alpha / 5 * sum of a^2 over c - 2 ... c + 2)^0.75, for every element by itself."""
    out = torch.empty_like(block)
    channels = block.shape[1]
    for c in range(channels):
        near = [block[:, d] ** 2 for d in range(max(0, c - 2), min(channels, c + 3))]
        out[:, c] = block[:, c] / (1 + alpha / 5 * sum(near)) ** 0.75
    return out


def test_three_branches_at_the_middle_size() -> None:
    result = hypernet()(*levels())
    steps = {s.key: s for s in result.trace}
    assert {steps[f"lrn_{i}"].tensor.shape for i in (1, 2, 3)} == {(2, 8, 6, 4)}
    assert result.fused.tensor.shape == (2, 24, 6, 4)
    assert (result.fused.stride, result.fused.offset) == ((8, 8), (4, 4))
    assert {m.size for m in result.aligned} == {(6, 4)}
    assert [steps[k].op for k in ("down_1", "up_3")] == ["max_pool", "resize_transposed"]
    assert not {"down_2", "up_2"} & set(steps)


def test_equals_its_equation() -> None:
    maps, module = levels(), hypernet(alpha=0.01)
    coarse = F.interpolate(maps[2], size=(6, 4), mode="bilinear")  # what the deconvolution starts as
    same = (F.max_pool2d(maps[0], 2), maps[1], coarse)
    blocks = [lrn_by_loop(conv(m), 0.01) for conv, m in zip(module.conv, same, strict=True)]
    torch.testing.assert_close(module(*maps).fused.tensor, torch.cat(blocks, 1))


@pytest.mark.parametrize("alpha", [0.0001, 0.01, 1.0])
def test_lrn_is_its_loop(alpha: float) -> None:
    block = 3 * torch.randn(2, 8, 3, 3, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(hypernet(alpha=alpha).normalise(block), lrn_by_loop(block, alpha))


def test_lrn_worked_by_hand() -> None:
    """One channel of 2 among zeros: 2 / (1 + 4/5)^0.75; and nothing stays nothing."""
    block = torch.zeros(1, 8, 1, 1)
    assert torch.equal(hypernet().normalise(block), block)
    block[0, 3] = 2
    out = hypernet().normalise(block).flatten()
    assert out[3].item() == pytest.approx(2 / 1.8**0.75)
    assert not bool(out[[0, 1, 2, 4, 5, 6, 7]].any())


def test_a_hundred_times_the_input_is_far_less_than_a_hundred_times_the_output() -> None:
    maps, growth = levels(), {}
    for name, knobs in {"1": {}, "0.0001": {"alpha": 0.0001}, "off": {"lrn": False}}.items():
        module = hypernet(**knobs)
        quiet, loud = (module(*(g * m for m in maps)).fused.tensor.norm() for g in (1, 100))
        growth[name] = (loud / quiet).item()
    assert growth["off"] == pytest.approx(100, rel=1e-4)  # convolutions alone are linear
    assert growth["1"] < growth["0.0001"] < 100
    assert growth["1"] < 1  # beta above a half: what is very loud comes out quieter than what is not


def test_one_louder_level_is_held_back() -> None:
    maps = levels()
    loud = (100 * maps[0], *maps[1:])
    with_lrn, without = (hypernet(lrn=on)(*loud).share_of_low().tensor.mean() for on in (True, False))
    assert without > 0.95
    assert with_lrn < 0.5


def test_more_levels_pool_the_fine_and_deconvolve_the_coarse() -> None:
    channels, sizes = (3, 4, 5, 6, 7), ((32, 32), (16, 16), (8, 8), (4, 4), (2, 2))
    module = fusion.build("hypernet", channels, width=8)
    result = module(*levels(sizes, channels))
    assert result.fused.tensor.shape == (2, 40, 8, 8)
    ops = {s.key: s.op for s in result.trace if s.key.startswith(("down", "up"))}
    assert ops == {
        "down_1": "max_pool",
        "down_2": "max_pool",
        "up_4": "resize_transposed",
        "up_5": "resize_transposed",
    }
    assert {k: d.factor for k, d in module.deconv.items()} == {"4": 2, "5": 4}
    two = fusion.build("hypernet", (3, 4), width=8)
    assert two(*levels()[:2]).fused.size == (12, 8)  # of two the finer one is the middle


def test_levels_of_one_size_pass_as_they_are() -> None:
    maps = levels(((4, 4),) * 3)
    module = fusion.build("hypernet", CHANNELS, (16.0,) * 3, width=8)
    assert not module.deconv
    assert [s.op for s in module(*maps).trace] == ["input"] * 3 + ["conv", "lrn"] * 3 + ["concat"]


def test_one_stride_and_two_sizes_still_meet() -> None:
    """Levels cut by hand need not keep what their strides promise."""
    module = fusion.build("hypernet", CHANNELS, (16.0,) * 3, width=8)
    result = module(*levels(((6, 6), (5, 5), (4, 4))))
    assert result.fused.size == (5, 5)
    assert [s.op for s in result.trace if s.key == "up_3"] == ["resize_bilinear"]
