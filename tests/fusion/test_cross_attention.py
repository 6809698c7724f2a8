"""Cross-attention: queries of the low level, keys and values of the high level; and the tokens both methods share."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from fusionviz import fusion
from fusionviz.errors import ParameterError
from fusionviz.fusion._tokens import Heads, block, sines, token_size
from fusionviz.records import FeatureMap, FusionResult, Tokens
from fusionviz.trace import NullTrace, Replacing, costs

SIZES = ((8, 6), (4, 3))


def maps(channels: tuple[int, int] = (6, 10), sizes: tuple = SIZES, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(2, c, *size, generator=generator) for c, size in zip(channels, sizes, strict=True))


def cross(channels: tuple[int, int] = (6, 10), strides: tuple = (4, 8), **params: object) -> fusion.FusionModule:
    return fusion.build("cross_attention", channels, strides, **{"width": 16, **params})


def apart(module: fusion.FusionModule) -> fusion.FusionModule:
    """Keys of their own, as after training; at the start a test could not tell them from the queries."""
    nn.init.xavier_uniform_(module.heads.matrices[1], generator=torch.Generator().manual_seed(9))
    return module


def steps(result: FusionResult) -> dict[str, Tensor]:
    return {s.key: s.tensor for s in result.trace}


def torchs(heads: Heads, temperature: float, *tokens: Tensor) -> tuple[Tensor, Tensor]:
    """What the module that lies inside answers by itself; it knows no temperature, so its queries are made smaller."""
    plain = copy.deepcopy(heads)
    with torch.no_grad():
        plain.matrices[0].div_(temperature)
    return nn.MultiheadAttention.forward(plain, *tokens, average_attn_weights=False)


# --- the equation --------------------------------------------------------------------------------
@pytest.mark.parametrize("positions", ["sine", "none"])
@pytest.mark.parametrize("heads", [1, 2, 4, 8])
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_equals_torchs_multi_head_attention_with_the_same_weights(
    heads: int, temperature: float, positions: str, stir
) -> None:
    module = apart(stir(cross(heads=heads, temperature=temperature, positions=positions)))
    result = module(*maps())
    found = steps(result)
    content = found["high_tokens"]
    asking, asked = (found.get(f"{n}_placed", found[f"{n}_tokens"]) for n in ("low", "high"))
    answer, weights = torchs(module.heads, temperature, asking, asked, content)
    torch.testing.assert_close(result.attention["pairs"].tensor, weights)
    torch.testing.assert_close(found["mixed"], answer)
    low = found["low_norm"].flatten(2).transpose(1, 2)
    expected = nn.functional.layer_norm(low + answer, (16,)).transpose(1, 2).unflatten(2, SIZES[0])
    torch.testing.assert_close(result.fused.tensor, expected)


def test_its_gradients_are_torchs() -> None:
    module = apart(cross()).train().heads
    generator = torch.Generator().manual_seed(3)
    tokens = [torch.randn(2, n, 16, generator=generator) for n in (5, 7)]
    found = []
    for run in (
        lambda a, b: module(a, b, b, NullTrace(), letters=("X", "Y", "Y"))[0],
        lambda a, b: nn.MultiheadAttention.forward(module, a, b, b)[0],
    ):
        given = [t.clone().requires_grad_() for t in tokens]
        module.zero_grad()
        run(*given).square().sum().backward()
        found.append([t.grad for t in (*given, *module.parameters())])
    for mine, torchs_own in zip(*found, strict=True):
        torch.testing.assert_close(mine, torchs_own)


def test_a_bias_of_the_keys_would_change_nothing() -> None:
    module = apart(cross()).heads
    generator = torch.Generator().manual_seed(3)
    asking, asked = (torch.randn(2, n, 16, generator=generator) for n in (5, 7))
    q, k = (nn.functional.linear(t, w) for t, w in zip((asking, asked), module.matrices[:2], strict=True))
    torch.testing.assert_close(module.weigh(q, k + torch.randn(16, generator=generator)), module.weigh(q, k))


def test_one_weight_worked_by_hand() -> None:
    """Width 8, one head: query (1, 0, ...), keys (a, 0, ...); so the scores are a / sqrt(8)."""
    heads = Heads(8, 1, 0.5)
    with torch.no_grad():
        for matrix in (*heads.matrices, heads.out_proj.weight):
            matrix.copy_(torch.eye(8))
    asking, asked = torch.zeros(1, 1, 8), torch.zeros(1, 2, 8)
    asking[..., 0], asked[0, 0, 0], asked[0, 1, 0] = 1.0, 3.0, -1.0
    answer, weights, _ = heads(asking, asked, asked, NullTrace(), letters=("X", "Y", "Y"))
    first = 1 / (1 + math.exp(-4 / (0.5 * math.sqrt(8))))
    torch.testing.assert_close(weights.flatten(), torch.tensor([first, 1 - first]))
    assert float(answer[0, 0, 0].detach()) == pytest.approx(3 * first - (1 - first))


# --- rows ----------------------------------------------------------------------------------------
def test_every_row_sums_to_one_and_stands_for_a_place_of_low() -> None:
    pairs = cross(heads=2)(*maps()).attention["pairs"]
    assert pairs.tensor.shape == (2, 2, 8 * 6, 4 * 3)
    assert (pairs.grain, pairs.kind, pairs.role, pairs.of, pairs.sums) == ("pairs", "softmax", "rows", "high", "row")
    pairs.check()
    assert pairs.queries == (Tokens("low", (8, 6), (4, 4), (2, 2)),)
    assert pairs.keys == (Tokens("high", (4, 3), (8, 8), (4, 4)),)


def test_without_positions_shuffled_places_of_the_high_level_change_nothing() -> None:
    x, y = maps()
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    shuffled = y.flatten(2)[..., order].view_as(y)
    for positions, same in (("none", True), ("sine", False)):
        module = cross(positions=positions)
        before, after = module(x, y), module(x, shuffled)
        assert torch.allclose(before.fused.tensor, after.fused.tensor, atol=1e-5) is same
        if same:
            rows = before.attention["pairs"].tensor[..., order]
            torch.testing.assert_close(after.attention["pairs"].tensor, rows)


def test_without_positions_shuffled_places_of_the_low_level_are_shuffled_answers() -> None:
    x, y = maps()
    order = torch.randperm(48, generator=torch.Generator().manual_seed(1))
    module = cross(positions="none")
    shuffle = lambda t: t.flatten(2)[..., order].view_as(t)  # noqa: E731
    torch.testing.assert_close(module(shuffle(x), y).fused.tensor, shuffle(module(x, y).fused.tensor))


def test_where_the_high_level_is_the_same_everywhere_every_row_is_even() -> None:
    x, y = maps()
    y = y.mean((2, 3), keepdim=True).expand(-1, -1, 4, 3)
    module = cross(positions="none")
    result = module(x, y)
    rows = result.attention["pairs"].tensor
    torch.testing.assert_close(rows, torch.full_like(rows, 1 / 12))
    mean = module.heads.out_proj(steps(result)["values"].mean(1))  # [b width]
    torch.testing.assert_close(result.aligned[1].tensor, mean[..., None, None].expand(-1, -1, 8, 6))


def test_without_values_the_low_level_is_left() -> None:
    x, y = maps()
    module = cross()
    nn.init.zeros_(module.heads.matrices[2])
    result = module(x, y)
    low = result.aligned[0].tensor
    assert not result.aligned[1].tensor.any()
    torch.testing.assert_close(result.fused.tensor, module.at_places(low))
    assert bool((result.share_of_low().tensor == 1).all())


def test_a_heads_answer_lies_between_the_values() -> None:
    found = steps(cross()(*maps()))
    values, answers = found["values"], found["heads"]
    assert bool((answers <= values.amax(1, keepdim=True) + 1e-6).all())
    assert bool((answers >= values.amin(1, keepdim=True) - 1e-6).all())
    alone = steps(cross()(*maps(sizes=((8, 6), (1, 1)))))
    torch.testing.assert_close(alone["heads"], alone["values"].expand(-1, 48, -1))


def test_the_temperature_runs_from_one_token_to_the_mean() -> None:
    x, y = maps()
    plain = cross()(x, y).attention["pairs"].tensor
    for temperature in (1e-5, 1e5):
        module = cross()
        module.heads.temperature = temperature
        rows = module(x, y).attention["pairs"].tensor
        if temperature > 1:
            torch.testing.assert_close(rows, torch.full_like(rows, 1 / 12), atol=1e-4, rtol=0)
        else:
            best = nn.functional.one_hot(plain.argmax(-1), 12).float()
            torch.testing.assert_close(rows, best, atol=1e-3, rtol=0)


def test_at_the_start_rows_lean_to_what_lies_near() -> None:
    """Maps without content: a place of the low level gives more weight to the high cell above it than to the others."""
    module = cross(strides=(4, 16), width=64)
    rows = module(torch.zeros(1, 6, 16, 16), torch.zeros(1, 10, 4, 4)).attention["pairs"].tensor[0].mean(0)  # [q k]
    above = nn.functional.interpolate(torch.arange(16.0).view(1, 1, 4, 4), size=(16, 16)).flatten().long()
    assert float(rows.detach()[torch.arange(256), above].mean()) > 1.5 / 16


def test_other_weights_make_another_answer() -> None:
    """What the causal check does: the rows of another picture, or one row for all."""
    module, (x, y) = cross(heads=2), maps()
    own, other = module(x, y), module(*maps(seed=1))
    rows = other.attention["pairs"].tensor
    found = module(x, y, trace=Replacing({"weight": rows})).fused.tensor
    values = steps(own)["values"].unflatten(-1, (2, 8))  # [b k head d]
    answer = module.heads.out_proj(torch.einsum("bhqk,bkhd->bqhd", rows, values).flatten(2))
    low = own.aligned[0].tensor.flatten(2).transpose(1, 2)
    expected = nn.functional.layer_norm(low + answer, (16,)).transpose(1, 2).unflatten(2, SIZES[0])
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, own.fused.tensor, atol=1e-3)
    again = module(x, y, trace=Replacing({"weight": own.attention["pairs"].tensor})).fused.tensor
    assert torch.equal(again, own.fused.tensor)


# --- tokens and their places ---------------------------------------------------------------------
@pytest.mark.parametrize(
    ("size", "most", "expected"),
    [
        ((32, 32), 1024, (32, 32)),
        ((56, 56), 1024, (28, 28)),
        ((32, 32), 256, (16, 16)),
        ((33, 31), 1024, (33, 31)),
        ((33, 32), 1024, (17, 16)),
        ((14, 14), 64, (7, 7)),
        ((1, 2000), 1024, (1, 1000)),
    ],
)
def test_a_level_with_too_many_places_is_pooled_by_whole_cells(size: tuple, most: int, expected: tuple) -> None:
    assert token_size(size, most) == expected


def test_pooling_is_a_step_only_where_it_is_needed() -> None:
    pooled = lambda r: {s.key: tuple(s.tensor.shape[-2:]) for s in r.trace if s.op in ("mean_pool", "resize_bilinear")}  # noqa: E731
    with torch.no_grad():
        assert pooled(cross()(*maps(sizes=((32, 32), (8, 8))))) == {}
        resnet = cross()(*maps(sizes=((56, 56), (14, 14))))
        assert pooled(resnet) == {"low_pool": (28, 28), "answer_resize": (56, 56)}
        assert resnet.attention["pairs"].tensor.shape[-2:] == (28 * 28, 14 * 14)
        both = cross(tokens=64)(*maps(sizes=((20, 20), (10, 10))))
        assert pooled(both) == {"low_pool": (7, 7), "high_pool": (5, 5), "answer_resize": (20, 20)}
    found = steps(both)
    low = found["low_norm"]
    expected = nn.functional.interpolate(found["answer"], size=(20, 20), mode="bilinear", align_corners=False)
    torch.testing.assert_close(found["sum"], low + expected)
    torch.testing.assert_close(found["high_pool"][0, 0, 1, 2], found["high_norm"][0, 0, 2:4, 4:6].mean())


@pytest.mark.parametrize(
    ("size", "most", "slack"), [((56, 48), 1024, 0.0), ((12, 9), 16, 0.0), ((15, 13), 64, 0.5), ((33, 47), 256, 0.5)]
)
def test_a_token_stands_in_the_middle_of_the_cells_pooled_into_it(size: tuple, most: int, slack: float) -> None:
    """Where cells cannot be shared out evenly, within half a cell of it."""
    level = FeatureMap("s4", torch.zeros(1, 1, *size), (4.0, 2.0), (0.5, 7.0))
    found = block("low", level, token_size(size, most))
    assert found.count <= most
    rows = (level.offset[0] + level.stride[0] * torch.arange(size[0]))[:, None].expand(size)
    columns = (level.offset[1] + level.stride[1] * torch.arange(size[1])).expand(size)
    for axis, centres in enumerate((rows, columns)):
        n = torch.arange(found.size[axis])
        mine = found.offset[axis] + found.stride[axis] * n
        mean = nn.functional.adaptive_avg_pool2d(centres[None, None], found.size)[0, 0]
        mean = mean[:, 0] if axis == 0 else mean[0]
        torch.testing.assert_close(mine, mean, atol=slack * level.stride[axis] + 1e-4, rtol=0)


def test_tokens_have_the_places_of_the_level_that_came() -> None:
    x, y = maps(sizes=((40, 40), (10, 10)))
    low = FeatureMap("s4", x, (4.0, 4.0), (1.5, 1.5), 1)
    high = FeatureMap("s16", y, (16.0, 16.0), (0.5, 0.5), 3)
    pairs = cross()(low, high).attention["pairs"]
    assert pairs.queries == (Tokens("low", (20, 20), (8.0, 8.0), (3.5, 3.5)),)
    assert pairs.keys == (Tokens("high", (10, 10), (16.0, 16.0), (0.5, 0.5)),)


def test_positions_are_the_papers_sines_of_row_and_column() -> None:
    code = sines(Tokens("low", (3, 4), (4.0, 4.0), (2.0, 2.0)), (4.0, 4.0), 8, torch.zeros(1))
    assert code.shape == (12, 8)
    row, column = 2 + 0.5, 1 + 0.5
    expected = [f(p * rate) for p in (row, column) for f in (math.sin, math.cos) for rate in (1.0, 32**-0.5)]
    torch.testing.assert_close(code[2 * 4 + 1], torch.tensor(expected))


def test_one_place_has_one_code_on_both_levels() -> None:
    low, high = Tokens("low", (8, 8), (4.0, 4.0), (2.0, 2.0)), Tokens("high", (2, 2), (16.0, 16.0), (6.0, 2.0))
    fine, coarse = (sines(t, (4.0, 4.0), 16, torch.zeros(1)) for t in (low, high))
    torch.testing.assert_close(coarse[3], fine[5 * 8 + 4])  # (22, 18) pixels on both
    near, far = (float(coarse[3] @ fine[r * 8 + 4]) for r in (6, 7))
    assert float(coarse[3] @ coarse[3]) > near > far


# --- the sum -------------------------------------------------------------------------------------
def test_the_terms_are_the_low_level_and_the_answer() -> None:
    result = cross()(*maps())
    low, answer = result.terms()
    assert torch.equal(low, result.aligned[0].tensor)
    assert torch.equal(answer, result.aligned[1].tensor)
    torch.testing.assert_close(low + answer, steps(result)["sum"])


def test_normalised_after_each_place_has_mean_zero_and_variance_one() -> None:
    fused = cross()(*maps()).fused.tensor
    torch.testing.assert_close(fused.mean(1), torch.zeros(2, 8, 6), atol=1e-5, rtol=0)
    torch.testing.assert_close(fused.var(1, correction=0), torch.ones(2, 8, 6), atol=1e-3, rtol=0)


def test_normalised_before_the_sum_stays_and_queries_have_one_scale() -> None:
    x, y = maps()
    module = cross(layer_norm="before", positions="none")
    result = module(x, y)
    torch.testing.assert_close(result.fused.tensor, sum(m.tensor for m in result.aligned))
    torch.testing.assert_close(steps(result)["low_norm_first"].mean(2), torch.zeros(2, 48), atol=1e-5, rtol=0)
    rows = lambda m, t: m(t, y).attention["pairs"].tensor  # noqa: E731
    torch.testing.assert_close(rows(module, 5 * x), rows(module, x), atol=1e-3, rtol=1e-3)
    after = cross(positions="none")
    assert not torch.allclose(rows(after, 5 * x), rows(after, x), atol=1e-2)


@pytest.mark.parametrize("sizes", [((15, 13), (4, 4)), ((1, 1), (1, 1)), ((5, 7), (5, 7))])
def test_any_two_sizes_meet(sizes: tuple) -> None:
    result = cross(strides=(16, 16), tokens=64)(*maps(sizes=sizes))
    assert result.fused.size == sizes[0]
    assert torch.isfinite(result.fused.tensor).all()
    result.attention["pairs"].check()


def test_counts_of_the_equation() -> None:
    p, q, width, k, n = 16, 96, 64, 64, 1024
    module = cross((p, q), (4, 16), width=width)
    projected = (p + q) * width + 2 * 2 * width
    assert sum(t.numel() for t in module.parameters()) == projected + 4 * width**2 + 2 * width
    macs = costs(module, ((1, p, 32, 32), (1, q, 8, 8)))
    assert macs["weight"] == macs["heads"] == n * k * width
    assert macs["queries"] == macs["mixed"] == n * width**2
    assert macs["keys"] == macs["values"] == k * width**2


def test_a_width_that_heads_cannot_share_is_refused() -> None:
    with pytest.raises(ParameterError, match="cross_attention: 'width' cannot be 20. Allowed: 8, 16, 24"):
        cross(width=20)
