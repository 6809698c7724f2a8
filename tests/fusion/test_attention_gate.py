"""Attention gate: additive scores of both levels, one number per place, on the coarse grid or on the fine one."""

import math

import pytest
import torch
from torch.nn import functional as F

from fusionviz import fusion

SIZES = ((8, 6), (4, 3))


def maps(channels: tuple[int, int] = (4, 6), sizes: tuple = SIZES) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(2, c, *size, generator=generator) for c, size in zip(channels, sizes, strict=True))


def gate(channels: tuple[int, int] = (4, 6), strides: tuple[float, float] = (4, 8), **params: object):
    return fusion.build("attention_gate", channels, strides, **{"width": 8, **params})


def alpha(module: fusion.FusionModule, *levels: torch.Tensor) -> torch.Tensor:
    return module(*levels).attention["place"].tensor


def scored_as_loops(module: fusion.FusionModule, x: list, y: list) -> list[list[float]]:
    """The paper's equation 1, place by place, for lists [c][h][w] of one size."""
    a, b = module.low_score.weight[:, :, 0, 0].tolist(), module.high_score.weight[:, :, 0, 0].tolist()
    bias, psi, last = module.high_score.bias.tolist(), module.psi.weight.flatten().tolist(), float(module.psi.bias)

    def at(i: int, j: int) -> float:
        q = last
        for n, weight in enumerate(psi):
            s = bias[n] + sum(w * x[c][i][j] for c, w in enumerate(a[n]))
            s += sum(w * y[c][i][j] for c, w in enumerate(b[n]))
            q += weight * max(0.0, s)
        return 1 / (1 + math.exp(-q))

    return [[at(i, j) for j in range(len(y[0][0]))] for i in range(len(y[0]))]


def test_equals_the_equation_written_as_loops() -> None:
    """Coarse grid: the skip by means of two by two cells, the answer enlarged."""
    x, y = maps()
    module = gate()
    result = module(x, y)
    means = [
        [[sum(x[0, c, 2 * i + di, 2 * j + dj].item() for di in (0, 1) for dj in (0, 1)) / 4 for j in range(3)]
         for i in range(4)] for c in range(4)
    ]  # fmt: skip
    coarse = torch.tensor(scored_as_loops(module, means, y[0].tolist()))
    steps = {s.key: s.tensor for s in result.trace}
    torch.testing.assert_close(steps["coarse"][0, 0], coarse)
    enlarged = F.interpolate(coarse[None, None], size=(8, 6), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(result.attention["place"].tensor[0], enlarged)
    torch.testing.assert_close(steps["gated"][0], x[0] * enlarged)


def test_the_fine_grid_scores_every_place_of_the_enlarged_high_level() -> None:
    x, y = maps()
    module = gate(grid="fine", resize="nearest")
    up = y.repeat_interleave(2, 2).repeat_interleave(2, 3)
    expected = torch.tensor(scored_as_loops(module, x[1].tolist(), up[1].tolist()))
    torch.testing.assert_close(alpha(module, x, y)[1, 0], expected)


def test_both_grids_agree_where_the_levels_have_one_size() -> None:
    x, y = maps(sizes=((5, 5), (5, 5)))
    coarse, fine = (gate(strides=(16, 16), grid=grid) for grid in ("coarse", "fine"))
    result = coarse(x, y)
    assert torch.equal(result.attention["place"].tensor, alpha(fine, x, y))
    assert not [s for s in result.trace if s.op.startswith("resize")]


def test_a_coarse_gate_is_smooth_and_a_fine_one_follows_the_skip() -> None:
    """A skip that alternates from cell to cell: its means know nothing of that."""
    x, y = torch.ones(1, 4, 8, 8), torch.zeros(1, 6, 4, 4)
    x[..., ::2, ::2] = x[..., 1::2, 1::2] = -1
    coarse, fine = (alpha(gate(grid=grid), x, y) for grid in ("coarse", "fine"))
    assert torch.allclose(coarse, coarse.mean())
    assert float(fine.std()) > 0.01


def test_either_level_can_move_a_score() -> None:
    x, y = maps()
    module = gate()
    before = alpha(module, x, y)
    for levels in ((x + 1, y), (x, y + 1)):
        assert not torch.allclose(alpha(module, *levels), before, atol=1e-3)


def test_the_gated_skip_is_concatenated_with_the_enlarged_high_level_and_mixed() -> None:
    x, y = maps()
    module = gate(resize="nearest")
    result = module(x, y)
    skip = x * result.attention["place"].tensor
    up = y.repeat_interleave(2, 2).repeat_interleave(2, 3)
    mixed = torch.einsum("oc,bchw->bohw", module.mix.weight[:, :, 0, 0], torch.cat((skip, up), 1))
    torch.testing.assert_close(result.fused.tensor, mixed)
    torch.testing.assert_close(sum(result.terms()), mixed)
    assert torch.equal(result.aligned[0].tensor, skip)
    assert torch.equal(result.aligned[1].tensor, up)


def test_output_gated_stops_at_the_skip_and_asks_the_high_level_only_where() -> None:
    x, y = maps()
    module = gate(output="gated")
    result = module(x, y)
    assert torch.equal(result.fused.tensor, x * result.attention["place"].tensor)
    assert bool((result.share_of_low().tensor == 1).all())
    y.requires_grad_()
    module(x, y).fused.tensor.sum().backward()
    assert bool(y.grad.any())
    ratio = result.fused.tensor / x
    assert bool(((ratio > 0) & (ratio < 1)).all())


@pytest.mark.parametrize("score", [-100.0, 100.0])
def test_a_shut_gate_leaves_the_high_level_and_an_open_one_concatenates(score: float) -> None:
    x, y = maps()
    module = gate()
    with torch.no_grad():
        module.psi.weight.zero_()
        module.psi.bias.fill_(score)
    result = module(x, y)
    skip = torch.zeros_like(x) if score < 0 else x
    up = result.aligned[1].tensor
    torch.testing.assert_close(result.fused.tensor, module.mix(torch.cat((skip, up), 1)))


def test_zero_weights_halve_the_skip() -> None:
    x, y = maps()
    module = gate(output="gated")
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    assert torch.equal(module(x, y).fused.tensor, x / 2)


def test_the_weight_lies_on_the_fine_grid_and_is_one_for_each_place() -> None:
    x, y = maps(sizes=((7, 5), (4, 3)))
    weight = gate()(x, y).attention["place"]
    assert (weight.axes, weight.of, weight.role, weight.kind) == ("b 1 h w", "low", "place_gate", "gate")
    assert weight.tensor.shape == (2, 1, 7, 5)
    assert (weight.stride, weight.offset) == ((4, 4), (2, 2))
    weight.check()


def test_counts_of_the_equation() -> None:
    p, q, inner, width = 16, 96, 8, 64
    scores = p * inner + q * inner + inner + inner + 1
    count = {o: sum(t.numel() for t in gate((p, q), width=width, output=o).parameters()) for o in ("concat", "gated")}
    assert count == {"concat": scores + (p + q) * width, "gated": scores}
    assert sum(t.numel() for t in gate((p, q), output="gated", resize="transposed").parameters()) == scores
