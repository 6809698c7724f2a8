"""The fit to one picture: the slider does what it says, on photographs, for every method that chooses."""

from dataclasses import replace

import pytest
import torch

from fusionviz import fusion, study
from fusionviz.records import AttentionMap, FeatureMap
from fusionviz.selection import Selection
from fusionviz.trace import NullTrace
from fusionviz.training import picture_fit

WEIGHING = tuple(key for key in fusion.names() if fusion.spec(key).weighs and fusion.spec(key).takes == "pair")
SMALL = Selection(picture="sample:coffee", backbone="resnet18", size=96)
TOLERANCE = 5e-3
"""How much a mean weight may rise along the balance: two neighbours are two fits, each of which ends somewhere near."""


def levels(size: int = 16, channels: tuple[int, int] = (12, 20), seed: int = 0) -> tuple[FeatureMap, FeatureMap]:
    """A low level with fine texture in its left half, and a smooth high level."""
    generator = torch.Generator().manual_seed(seed)
    low = torch.randn(1, channels[0], size, size, generator=generator).abs()  # as behind a ReLU
    low[..., size // 2 :] = 0.02 * low[..., size // 2 :]
    high = torch.randn(1, channels[1], size // 4, size // 4, generator=generator)
    return FeatureMap("s4", low, (4, 4), (2, 2), 1), FeatureMap("s16", high, (16, 16), (8, 8), 2)


def build(method: str, low: FeatureMap, high: FeatureMap, **params: object) -> fusion.FusionModule:
    channels = (low.channels, high.channels)
    params = {"width": picture_fit.width(channels), "norm": "none", **params}
    return fusion.build(method, channels, (low.stride[0], high.stride[0]), align="project", **params)


def mean_of_low(module: fusion.FusionModule, low: FeatureMap, high: FeatureMap) -> float:
    with torch.no_grad():
        weight = module(low, high, trace=NullTrace()).attention["low"]
    return picture_fit.measure(weight, torch.zeros(low.size))["mean"]


@pytest.mark.parametrize("method", WEIGHING)
@pytest.mark.parametrize("picture", ["sample:coffee", "sample:chelsea", "sample:coins", "sample:astronaut"])
def test_the_mean_weight_of_low_falls_from_detail_to_meaning(method: str, picture: str) -> None:
    sweep = study.run(SMALL.with_(picture=picture, method=method)).sweep
    means = [frame.facts["mean"] for frame in sweep.frames]
    assert all(b <= a + TOLERANCE for a, b in zip(means, means[1:], strict=False)), means
    assert means[0] > 0.75
    assert means[-1] < 0.25
    assert 0.2 < means[sweep.start] < 0.8


@pytest.mark.parametrize("method", ["aff", "highway"])
def test_it_falls_on_a_trained_network_too(method: str) -> None:
    knob = ("r", 8) if method == "aff" else ("width", 16)
    chosen = Selection(picture="sample:coffee", backbone="scene_resnet", method=method, params=(knob,))
    means = [frame.facts["mean"] for frame in study.run(chosen).sweep.frames]
    assert all(b <= a + TOLERANCE for a, b in zip(means, means[1:], strict=False)), means
    assert means[0] - means[-1] > 0.5


@pytest.mark.parametrize("method", ["aff", "iaff", "highway"])
def test_a_gate_takes_the_low_level_where_it_changes(method: str) -> None:
    low, high = levels()
    values = (0.4, 0.5, 0.6)
    middle = picture_fit.fit(build(method, low, high), low, high, values)[1]
    with torch.no_grad():
        gate = middle(low, high).attention["low"].tensor.mean((0, 1))
    assert gate[:, :7].mean() > gate[:, 9:].mean() + 0.1


def test_the_projections_are_fixed_and_of_one_scale() -> None:
    low, high = levels(size=32)
    fits = picture_fit.fit(build("aff", low, high), low, high, (0.0, 0.5, 1.0))
    with torch.no_grad():
        x, y = (m.tensor for m in fits[0](low, high).aligned)
    assert x.shape == y.shape == (1, 12, 32, 32)
    assert x.square().mean().item() == pytest.approx(1, rel=1e-3)
    assert y.square().mean().item() == pytest.approx(1, rel=1e-3)
    assert x.mean((2, 3)).abs().max() < 1e-4
    assert torch.allclose(torch.cov(x[0].flatten(1)), torch.diag(x[0].flatten(1).var(1)), atol=2e-3)  # components
    for name, first in fits[0].alignment.named_parameters():
        assert torch.equal(first, dict(fits[2].alignment.named_parameters())[name])


def test_a_batch_norm_takes_the_mean_away_instead_of_a_bias() -> None:
    low, high = levels()
    low = replace(low, tensor=low.tensor + 3)
    plain, normed = (picture_fit.fit(build("wsum", low, high, norm=n), low, high, (0.5,))[0] for n in ("none", "bn"))
    with torch.no_grad():
        a, b = (m(low, high).aligned[0].tensor for m in (plain, normed))
    assert torch.allclose(a, b, atol=1e-3)


def test_the_same_fit_twice_is_the_same_and_draws_nothing() -> None:
    low, high = levels()
    before = torch.get_rng_state()
    template = build("iaff", low, high)
    untouched = {k: v.clone() for k, v in template.state_dict().items()}
    a, b = (picture_fit.fit(template, low, high, (0.0, 0.5, 1.0)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    for one, other in zip(a, b, strict=True):
        assert all(torch.equal(v, other.state_dict()[k]) for k, v in one.state_dict().items())
    assert all(torch.equal(v, template.state_dict()[k]) for k, v in untouched.items())
    assert template.provenance.kind == "random"
    assert a[1].provenance == replace(a[1].provenance, kind="fitted", detail="this picture, balance 0.5")


def test_a_live_knob_works_on_what_was_fitted() -> None:
    low, high = levels()
    warm, hot = (
        picture_fit.fit(build("softmax2", low, high, temperature=t), low, high, (0.2, 0.5, 0.8)) for t in (1.0, 10.0)
    )
    assert all(torch.equal(v, hot[0].state_dict()[k]) for k, v in warm[0].state_dict().items())
    assert mean_of_low(warm[0], low, high) > mean_of_low(hot[0], low, high) > 0.5  # more even, not fitted away
    gained = picture_fit.fit(build("aff", low, high, gain=2), low, high, (0.5,))[0]
    plain = picture_fit.fit(build("aff", low, high), low, high, (0.5,))[0]
    with torch.no_grad():
        assert torch.equal(gained(low, high).fused.tensor, 2 * plain(low, high).fused.tensor)


def test_features_of_inference_mode_can_be_fitted() -> None:
    low, high = levels()
    with torch.inference_mode():
        low, high = (replace(m, tensor=m.tensor * 1) for m in (low, high))
        found = picture_fit.fit(build("aff", low, high), low, high, (0.0, 0.5, 1.0))
        assert torch.is_inference(low.tensor)
        assert mean_of_low(found[0], low, high) > mean_of_low(found[2], low, high)


def test_levels_of_equal_channels_are_projected_too() -> None:
    low, high = levels(channels=(32, 32))
    high = replace(high, tensor=torch.randn(1, 32, 16, 16, generator=torch.Generator().manual_seed(3)), stride=(4, 4))
    found = picture_fit.fit(build("wsum", low, high), low, high, (0.0, 0.5, 1.0))
    assert found[0](low, high).fused.channels == 24
    assert mean_of_low(found[0], low, high) > 0.9
    assert mean_of_low(found[2], low, high) < 0.1


@pytest.mark.parametrize("high", [torch.zeros(1, 20, 4, 4), torch.ones(1, 20, 1, 1), torch.ones(1, 20, 2, 2)])
@pytest.mark.parametrize("method", WEIGHING)
def test_a_level_that_says_nothing_stops_nothing(method: str, high: torch.Tensor) -> None:
    low, _ = levels()
    coarse = FeatureMap("s16", high, (16, 16), (8, 8), 2)
    for module in picture_fit.fit(build(method, low, coarse), low, coarse, (0.2, 0.5, 0.8)):
        assert all(p.isfinite().all() for p in module.parameters())
        with torch.no_grad():
            module(low, coarse).attention["low"].check()


def test_a_blank_low_level_stops_nothing() -> None:
    low, high = levels()
    low = replace(low, tensor=torch.zeros_like(low.tensor))
    found = picture_fit.fit(build("aff", low, high), low, high, (0.2, 0.5, 0.8))
    assert all(p.isfinite().all() for module in found for p in module.parameters())


def test_the_middle_weight_is_the_mean_on_edges_and_on_flat_places_by_hand() -> None:
    edges = torch.arange(20.0).view(4, 5)
    gate = torch.cat((torch.full((8,), 0.1), torch.full((9,), 0.5), torch.full((3,), 0.9))).view(1, 1, 4, 5)
    said = picture_fit.measure(AttentionMap("low", gate, "b 1 h w", "gate"), edges)
    assert said == pytest.approx({"mean": (0.8 + 4.5 + 2.7) / 20, "edges": 0.9, "flat": 0.1})
    shares = torch.tensor([0.3, 0.7]).view(1, 2, 1, 1, 1)
    said = picture_fit.measure(AttentionMap("low", shares, "b n 1 1 1", "softmax"), edges)
    assert said == pytest.approx({"mean": 0.3})


def test_edges_lie_where_the_picture_has_them() -> None:
    picture = torch.zeros(1, 3, 32, 32)
    picture[..., 17:] = 1  # between columns 16 and 17
    level = FeatureMap("s8", torch.zeros(1, 2, 4, 4), (8, 8), (0.5, 0.5), 1)
    found = picture_fit.edges(picture, level)
    assert found.shape == (4, 4)
    assert found.argmax(1).tolist() == [2, 2, 2, 2]  # the cell at 16.5, not the one at 20 that its size suggests
    assert picture_fit.edges(torch.full((1, 3, 32, 32), 0.5), level).max() == 0


def test_large_maps_get_fewer_frames_with_the_middle_among_them() -> None:
    counts = []
    for side in (56, 200, 300):
        level = FeatureMap("s4", torch.zeros(1, 1, side, side), (4, 4), (2, 2), 1)
        values = picture_fit.balances(level)
        assert {0.0, 0.5, 1.0} <= set(values)
        counts.append(len(values))
    assert counts == [13, 7, 5]
