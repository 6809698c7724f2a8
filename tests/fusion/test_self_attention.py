"""Self-attention over both levels: one sequence, whose rows are shared out between own level and other level."""

import pytest
import torch
from torch import Tensor, nn

from fusionviz import fusion
from fusionviz.errors import ParameterError
from fusionviz.fusion._tokens import sines
from fusionviz.records import FeatureMap, FusionResult, Tokens
from fusionviz.trace import Replacing, costs

SIZES = ((8, 6), (4, 3))
LOW, ALL = 48, 60


def maps(channels: tuple[int, int] = (6, 10), sizes: tuple = SIZES, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(2, c, *size, generator=generator) for c, size in zip(channels, sizes, strict=True))


def attention(channels: tuple[int, int] = (6, 10), strides: tuple = (4, 8), **params: object) -> fusion.FusionModule:
    return fusion.build("self_attention", channels, strides, **{"width": 16, **params})


def steps(result: FusionResult) -> dict[str, Tensor]:
    return {s.key: s.tensor for s in result.trace}


# --- the equation --------------------------------------------------------------------------------
@pytest.mark.parametrize("positions", ["sine", "none"])
@pytest.mark.parametrize("heads", [1, 4])
def test_equals_torchs_multi_head_attention_on_the_sequence(heads: int, positions: str, stir) -> None:
    module = stir(attention(heads=heads, positions=positions))
    nn.init.xavier_uniform_(module.heads.matrices[1], generator=torch.Generator().manual_seed(9))  # start as queries
    result = module(*maps())
    found = steps(result)
    tokens = torch.cat([found[f"{n}_norm"].flatten(2).transpose(1, 2) for n in ("low", "high")], 1)
    code = module.level[[0] * LOW + [1] * 12]
    if positions == "sine":
        blocks = Tokens("low", (8, 6), (4.0, 4.0), (2.0, 2.0)), Tokens("high", (4, 3), (8.0, 8.0), (4.0, 4.0))
        code = code + torch.cat([sines(b, (4.0, 4.0), 16, tokens) for b in blocks])
    coded = tokens + code
    own = nn.MultiheadAttention.forward
    answer, weights = own(module.heads, coded, coded, tokens, average_attn_weights=False)
    torch.testing.assert_close(result.attention["pairs"].tensor, weights)
    torch.testing.assert_close(found["mixed"], answer)
    out = nn.functional.layer_norm(tokens + answer, (16,)).transpose(1, 2)
    torch.testing.assert_close(result.fused.tensor, out[..., :LOW].unflatten(2, (8, 6)))
    torch.testing.assert_close(result.outputs["p8"].tensor, out[..., LOW:].unflatten(2, (4, 3)))


def test_both_levels_come_out_and_fused_is_the_finer_one() -> None:
    result = attention()(*maps())
    assert list(result.outputs) == ["fused", "p4", "p8"]
    assert result.outputs["p4"].tensor is result.fused.tensor
    assert (result.outputs["p8"].stride, result.outputs["p8"].size) == ((8, 8), (4, 3))


# --- rows ----------------------------------------------------------------------------------------
def test_every_token_has_a_row_over_both_levels() -> None:
    pairs = attention(heads=2)(*maps()).attention["pairs"]
    assert pairs.tensor.shape == (2, 2, ALL, ALL)
    assert (pairs.grain, pairs.kind, pairs.role, pairs.of, pairs.sums) == ("pairs", "softmax", "rows", "both", "row")
    assert pairs.queries == pairs.keys
    assert [(b.level, b.size, b.stride) for b in pairs.keys] == [("low", (8, 6), (4, 4)), ("high", (4, 3), (8, 8))]
    pairs.check()


def test_a_row_is_shared_out_between_its_own_level_and_the_other() -> None:
    module = attention()
    rows = module(*maps()).attention["pairs"].tensor
    own, other = rows[..., :LOW].sum(-1), rows[..., LOW:].sum(-1)
    torch.testing.assert_close(own + other, torch.ones_like(own))
    nn.init.zeros_(module.heads.matrices[0])  # with nothing to ask, the levels share by their numbers of tokens
    rows = module(*maps()).attention["pairs"].tensor
    torch.testing.assert_close(rows[..., LOW:].sum(-1), torch.full((2, 4, ALL), 12 / ALL))


def test_the_level_code_tells_levels_apart() -> None:
    """Two equal maps: without positions and codes the levels get the same weights, with codes they do not."""
    x = maps((6, 6), ((4, 3), (4, 3)))[0]
    module = attention((6, 6), (8, 8), positions="none")
    module.project.high_project.load_state_dict(module.project.low_project.state_dict())
    with torch.no_grad():
        module.level.zero_()
        rows = module(x, x).attention["pairs"].tensor
        torch.testing.assert_close(rows[..., :12], rows[..., 12:])
        module.level[0] = 1.0
        rows = module(x, x).attention["pairs"].tensor
    assert not torch.allclose(rows[..., :12], rows[..., 12:], atol=1e-3)


def test_without_positions_shuffled_places_are_shuffled_answers() -> None:
    x, y = maps()
    orders = [torch.randperm(n, generator=torch.Generator().manual_seed(n)) for n in (LOW, 12)]
    shuffle = lambda t: t.flatten(2)[..., orders[t.shape[-2:] == (4, 3)]].view_as(t)  # noqa: E731
    for positions, same in (("none", True), ("sine", False)):
        module = attention(positions=positions)
        plain, shuffled = module(x, y), module(shuffle(x), shuffle(y))
        for name in ("fused", "p8"):
            found, expected = shuffled.outputs[name].tensor, shuffle(plain.outputs[name].tensor)
            assert torch.allclose(found, expected, atol=1e-5) is same


def test_without_values_both_levels_stay_as_they_are() -> None:
    module = attention()
    nn.init.zeros_(module.heads.matrices[2])
    result = module(*maps())
    for name, own in (("fused", "low_norm"), ("p8", "high_norm")):
        torch.testing.assert_close(result.outputs[name].tensor, module.at_places(steps(result)[own]))


def test_the_temperature_runs_from_one_token_to_the_mean() -> None:
    plain = attention()(*maps()).attention["pairs"].tensor
    hot, cold = attention(), attention()
    hot.heads.temperature, cold.heads.temperature = 1e5, 1e-6
    rows = hot(*maps()).attention["pairs"].tensor
    torch.testing.assert_close(rows, torch.full_like(rows, 1 / ALL), atol=1e-4, rtol=0)
    best = nn.functional.one_hot(plain.argmax(-1), ALL).float()
    torch.testing.assert_close(cold(*maps()).attention["pairs"].tensor, best, atol=1e-3, rtol=0)


def test_with_rows_on_its_own_level_alone_no_level_hears_the_other() -> None:
    """Other weights put in place of its own, as the causal check does."""
    x, y = maps()
    module = attention()
    rows = torch.zeros(2, 4, ALL, ALL)
    rows[..., :LOW, :LOW], rows[..., LOW:, LOW:] = 1 / LOW, 1 / 12
    trace = Replacing({"weight": rows})
    before, after = module(x, y, trace=trace), module(x, y + 1, trace=trace)
    assert torch.equal(before.fused.tensor, after.fused.tensor)
    assert not torch.allclose(before.outputs["p8"].tensor, after.outputs["p8"].tensor, atol=1e-3)
    assert not torch.allclose(before.fused.tensor, module(x, y).fused.tensor, atol=1e-3)
    own = module(x, y)
    again = module(x, y, trace=Replacing({"weight": own.attention["pairs"].tensor}))
    assert torch.equal(again.fused.tensor, own.fused.tensor)


# --- pooling -------------------------------------------------------------------------------------
def test_a_large_level_is_pooled_and_its_answers_are_enlarged() -> None:
    x, y = maps(sizes=((32, 32), (8, 8)))
    result = attention(strides=(4, 16))(x, y)
    found = steps(result)
    assert found["low_pool"].shape[-2:] == (16, 16)
    assert "high_pool" not in found
    pairs = result.attention["pairs"]
    assert pairs.tensor.shape[-2:] == (256 + 64, 256 + 64)
    assert pairs.keys[0] == Tokens("low", (16, 16), (8.0, 8.0), (4.0, 4.0))
    up = nn.functional.interpolate(found["low_answer"], size=(32, 32), mode="bilinear", align_corners=False)
    torch.testing.assert_close(found["fused_sum"], found["low_norm"] + up)
    torch.testing.assert_close(found["high_out_sum"], found["high_norm"] + found["high_answer"])


@pytest.mark.parametrize(("tokens", "count"), [(64, 64 + 64), (256, 256 + 64), (1024, 1024 + 64)])
def test_tokens_bounds_the_sequence(tokens: int, count: int) -> None:
    with torch.no_grad():
        result = attention(strides=(4, 16), tokens=tokens, heads=1)(*maps(sizes=((32, 32), (8, 8))))
    assert result.attention["pairs"].tensor.shape[-1] == count
    assert ("low_pool" in steps(result)) is (tokens < 1024)


def test_levels_of_one_stride_stand_side_by_side() -> None:
    """As a vision transformer has them: 14 x 14 patches at two depths."""
    x, y = maps((8, 8), ((14, 14), (14, 14)))
    levels = [FeatureMap(n, t, (16.0, 16.0), (8.0, 8.0), s) for n, t, s in (("d3", x, 3), ("d9", y, 9))]
    result = attention((8, 8), (16, 16))(*levels)
    assert list(result.outputs) == ["fused", "p3", "p9"]
    pairs = result.attention["pairs"]
    assert [b.count for b in pairs.queries] == [196, 196]
    assert not [s for s in result.trace if s.op in ("mean_pool", "resize_bilinear")]


# --- the sum -------------------------------------------------------------------------------------
@pytest.mark.parametrize("sizes", [SIZES, ((15, 13), (4, 4)), ((32, 32), (8, 8))])
@pytest.mark.parametrize("layer_norm", ["after", "before"])
def test_the_terms_are_exact_parts_of_the_sum(sizes: tuple, layer_norm: str, stir) -> None:
    result = stir(attention(layer_norm=layer_norm, tokens=64))(*maps(sizes=sizes))
    whole = result.fused.tensor if layer_norm == "before" else steps(result)["fused_sum"]
    torch.testing.assert_close(sum(result.terms()), whole, atol=1e-5, rtol=1e-4)


def test_normalised_before_the_tokens_have_one_scale_and_the_sum_stays() -> None:
    module = attention(layer_norm="before")
    result = module(*maps())
    found = steps(result)
    torch.testing.assert_close(found["norm_first"].mean(2), torch.zeros(2, ALL), atol=1e-5, rtol=0)
    torch.testing.assert_close(result.fused.tensor, found["low_norm"] + found["low_answer"])


def test_counts_of_the_equation() -> None:
    p, q, width, n = 16, 96, 64, 256 + 64
    module = attention((p, q), (4, 16), width=width)
    projected = (p + q) * width + 2 * 2 * width
    assert sum(t.numel() for t in module.parameters()) == projected + 4 * width**2 + 2 * width + 2 * width
    macs = costs(module, ((1, p, 32, 32), (1, q, 8, 8)))
    assert macs["weight"] == macs["heads"] == n * n * width
    assert {macs[k] for k in ("queries", "keys", "values", "mixed")} == {n * width**2}


def test_a_width_that_heads_cannot_share_is_refused() -> None:
    with pytest.raises(ParameterError, match="self_attention: 'width' cannot be 12. Allowed: 8, 16, 24"):
        attention(width=12)
