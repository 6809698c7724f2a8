"""ASFF: weights that sum to 1 at every place, values between the levels', resizing as released, and a hard choice."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fusionviz import fusion

CHANNELS, SIZES = (6, 10, 14), ((16, 12), (8, 6), (4, 3))


def levels(channels: tuple[int, ...] = CHANNELS, sizes: tuple = SIZES) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, c, *size, generator=generator) for c, size in zip(channels, sizes, strict=False)]


def asff(channels: tuple[int, ...] = CHANNELS, strides: tuple | None = None, **params: object) -> fusion.FusionModule:
    return fusion.build("asff", channels, strides, **{"width": 8, **params})


def brought(module: fusion.FusionModule, maps: list[torch.Tensor], to: int) -> list[torch.Tensor]:
    """The maps that met in output `to`, read from the trace."""
    steps = {s.key: s for s in module(*maps).trace}
    return [steps[key].tensor for key in steps[f"scores_{to}"].inputs]


@pytest.mark.parametrize("count", [2, 3])
def test_weights_sum_to_one_at_every_place_and_are_shared_by_channels(count: int) -> None:
    maps = levels()[:count]
    attention = asff(CHANNELS[:count])(*maps).attention
    assert list(attention) == ["low", "at_2", "at_3"][:count]
    for (name, weight), size in zip(attention.items(), SIZES, strict=False):
        assert weight.tensor.shape == (2, count, *size), name
        torch.testing.assert_close(weight.tensor.sum(1), torch.ones(2, *size))
        assert weight.tensor.std() > 0


def test_two_levels_choose_between_low_and_high_and_three_share() -> None:
    two, three = asff(CHANNELS[:2])(*levels()[:2]), asff()(*levels())
    assert two.attention["low"].sums == "with_high"
    assert three.attention["low"].sums == "branches"
    module = asff(CHANNELS[:2], expand=False)
    result = module(*levels()[:2])
    x, y = (m.tensor for m in result.aligned)
    w = result.attention["low"].tensor[:, :1]
    torch.testing.assert_close(result.fused.tensor, w * x + (1 - w) * y)


def test_before_the_last_convolution_every_value_lies_between_the_levels() -> None:
    module, maps = asff(expand=False), levels()
    outputs = module(*maps).outputs
    for to, name in enumerate(("p4", "p8", "p16"), start=1):
        met = torch.stack(brought(module, maps, to))
        out = outputs[name].tensor
        assert bool((out >= met.amin(0) - 1e-5).all())
        assert bool((out <= met.amax(0) + 1e-5).all())


def test_equal_scores_are_the_mean_of_the_levels() -> None:
    module, maps = asff(expand=False), levels()
    for scores in module.scores.values():
        nn.init.zeros_(scores.compare.weight)
        nn.init.zeros_(scores.compare.bias)
    result = module(*maps)
    assert torch.equal(result.attention["low"].tensor, torch.full((2, 3, 16, 12), 1 / 3))
    torch.testing.assert_close(result.fused.tensor, torch.stack(brought(module, maps, 1)).mean(0))


def test_finer_levels_come_by_a_stride_coarser_ones_by_repeated_cells() -> None:
    module, maps = asff(), levels()
    low, mid, top = maps
    first, second, third = (brought(module, maps, to) for to in (1, 2, 3))
    torch.testing.assert_close(first[2], module.bring["3_1"](top).repeat_interleave(4, 2).repeat_interleave(4, 3))
    torch.testing.assert_close(second[0], module.bring["1_2"](low))
    torch.testing.assert_close(third[0], module.bring["1_3"](F.max_pool2d(low, 3, 2, 1)))  # first the maximum
    torch.testing.assert_close(third[1], module.bring["2_3"](mid))
    for key in ("1_2", "1_3", "2_3"):
        conv, _, active = module.bring[key]
        assert (conv.kernel_size, conv.stride, active.negative_slope) == ((3, 3), (2, 2), 0.1)
    assert module.bring["3_1"][0].kernel_size == (1, 1)


def test_scores_written_out() -> None:
    module, maps = asff(), levels()
    met, scores = brought(module, maps, 1), module.scores["1"]
    look = torch.cat([look(m) for look, m in zip(scores.look, met, strict=True)], 1)
    assert look.shape[1] == 3 * 16
    logits = torch.einsum("bchw,nc->bnhw", look, scores.compare.weight[:, :, 0, 0]) + scores.compare.bias[:, None, None]
    expected = logits.exp() / logits.exp().sum(1, keepdim=True)
    result = module(*maps)
    torch.testing.assert_close(result.attention["low"].tensor, expected)
    y = sum(expected[:, k : k + 1] * m for k, m in enumerate(met))
    torch.testing.assert_close(result.fused.tensor, module.expand["1"](y))


def test_temperature_hardens_and_flattens_and_keeps_the_winner() -> None:
    maps = levels()
    hard, own, flat = (asff(temperature=t)(*maps).attention["low"].tensor for t in (0.1, 1.0, 10.0))
    assert torch.equal(hard.argmax(1), own.argmax(1))
    assert float(hard.amax(1).mean()) > float(own.amax(1).mean()) > float(flat.amax(1).mean()) > 1 / 3
    torch.testing.assert_close(hard, torch.softmax(10 * own.log(), 1))


def test_a_level_as_wide_as_asked_for_passes_as_it_is() -> None:
    module = asff((8, 8), (16.0, 16.0))
    maps = levels((8, 8), ((4, 4), (4, 4)))
    met = brought(module, maps, 1)
    assert torch.equal(met[0], maps[0])
    assert "1_1" not in module.bring


def test_levels_whose_sizes_no_stride_gives_still_meet() -> None:
    outputs = asff()(*levels(sizes=((55, 55), (27, 27), (13, 13)))).outputs
    assert [outputs[n].size for n in ("p4", "p8", "p16")] == [(55, 55), (27, 27), (13, 13)]
