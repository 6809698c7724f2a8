"""Softmax of two branches: one share for each picture, from both maps, at any size."""

import pytest
import torch

from fusionviz import fusion
from fusionviz.records import ANALYTIC


def maps(batch: int = 2, channels: int = 3, size: tuple[int, int] = (4, 4)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(batch, channels, *size, generator=generator) for _ in range(2))


def softmax2(channels: int = 3, **params: object) -> fusion.FusionModule:
    return fusion.build("softmax2", (channels, channels), (4, 4), **params)


def test_equals_the_equation_picture_by_picture() -> None:
    x, y = maps()
    module = softmax2()
    result = module(x, y)
    for n in range(2):
        means = [m[n, c].sum().item() / 16 for m in (x, y) for c in range(3)]
        s = [sum(w * m for w, m in zip(row.tolist(), means, strict=True)) for row in module.score.weight]
        s = torch.tensor(s) + module.score.bias
        p = torch.exp(s) / torch.exp(s).sum()
        torch.testing.assert_close(result.attention["low"].tensor[n].flatten(), p)
        torch.testing.assert_close(result.fused.tensor[n], p[0] * x[n] + p[1] * y[n])


def test_weights_are_two_for_each_picture_and_sum_to_one() -> None:
    x, y = maps(batch=3)
    weight = softmax2()(x, y).attention["low"]
    weight.check()
    assert weight.tensor.shape == (3, 2, 1, 1, 1)
    torch.testing.assert_close(weight.tensor.sum(1), torch.ones(3, 1, 1, 1))
    assert weight.tensor[:, 0].flatten().unique().numel() == 3


def test_a_batch_as_large_as_the_channels_does_not_mix_pictures() -> None:
    x, y = maps(batch=3, channels=3)
    module = softmax2()
    alone = torch.cat([module(x[n : n + 1], y[n : n + 1]).fused.tensor for n in range(3)])
    torch.testing.assert_close(module(x, y).fused.tensor, alone)


def test_zero_weights_give_the_mean() -> None:
    x, y = maps()
    module = softmax2()
    torch.nn.init.zeros_(module.score.weight)
    torch.nn.init.zeros_(module.score.bias)
    torch.testing.assert_close(module(x, y).fused.tensor, (x + y) / 2)


def test_counts_its_numbers_and_takes_any_size() -> None:
    module = softmax2(64)
    assert sum(p.numel() for p in module.parameters()) == 2 * 2 * 64 + 2
    for size in ((1, 1), (5, 3), (16, 16)):
        x, y = maps(1, 64, size)
        assert module(x, y).fused.tensor.shape == (1, 64, *size)


def test_lies_between_the_maps_and_leaves_equal_maps_alone() -> None:
    x, y = maps()
    z = softmax2()(x, y).fused.tensor
    assert bool((z >= torch.minimum(x, y) - 1e-6).all())
    assert bool((z <= torch.maximum(x, y) + 1e-6).all())
    assert torch.equal(softmax2()(x, x).fused.tensor, x)


def test_does_not_see_where_things_are() -> None:
    x, y = maps()
    module = softmax2()
    weight = module(x, y).attention["low"].tensor
    shuffled = module(x.flip(2, 3), y.transpose(2, 3)).attention["low"].tensor
    torch.testing.assert_close(shuffled, weight)


@pytest.mark.parametrize(("temperature", "spread"), [(0.1, "harder"), (10.0, "evener")])
def test_temperature_hardens_or_evens_the_choice(temperature: float, spread: str) -> None:
    x, y = maps()
    plain = softmax2()(x, y).attention["low"].tensor
    other = softmax2(temperature=temperature)(x, y).attention["low"].tensor
    assert torch.equal(plain.argmax(1), other.argmax(1))
    farther = (other - 0.5).abs() > (plain - 0.5).abs()
    assert bool(farther.all()) is (spread == "harder")
    log_odds = [torch.log(w[:, 0] / w[:, 1]) for w in (plain, other)]
    torch.testing.assert_close(log_odds[1] * temperature, log_odds[0], atol=1e-4, rtol=1e-3)


def test_its_weights_are_random_until_trained() -> None:
    x, y = maps()
    assert softmax2()(x, y).provenance != ANALYTIC
    other = fusion.build("softmax2", (3, 3), (4, 4), seed=1)
    assert not torch.equal(other(x, y).fused.tensor, softmax2()(x, y).fused.tensor)
