"""The loop: it learns, it is the same on every run, it can be watched, stopped and resumed."""

import itertools

import pytest
import torch

from fusionviz import fusion
from fusionviz.training import BASELINES, Head, build_head, fit, fitting, loop, score
from fusionviz.training.heads import head_params, level_names, output_channels
from fusionviz.training.metrics import Truth

PAIRS = [m for m in fusion.names() if fusion.spec(m).takes in ("pair", "pyramid")]


def build(toy, method: str, **settings: object) -> Head:  # noqa: ANN001
    return build_head(method, toy.levels, 3, width=8, **settings)


def weights(head: Head) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in head.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# --- heads ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("prediction", ["linear", "conv"])
@pytest.mark.parametrize("method", [*BASELINES, *PAIRS])
def test_every_method_gets_a_head_that_scores_every_pixel(toy, method: str, prediction: str) -> None:  # noqa: ANN001
    head = build(toy, method, prediction=prediction).eval()
    scores = head([toy.maps[v.name][:2].float() for v in toy.levels], (32, 32))
    assert scores.shape == (2, 3, 32, 32)
    maps = [toy.maps[v.name][:2].float() for v in toy.levels]
    sum(v.square().mean() for v in head.scores(maps)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


def test_a_complex_map_is_read_as_its_two_parts(toy) -> None:  # noqa: ANN001
    head = build(toy, "complex")
    assert head.predict.in_channels == 2 * 8
    fused = torch.complex(torch.randn(1, 8, 4, 4), torch.randn(1, 8, 4, 4))
    stacked = torch.cat((fused.real, fused.imag), 1)
    torch.testing.assert_close(head.read(fused, (16, 16)), head.read(stacked, (16, 16)))


def test_a_baseline_cannot_see_the_other_level(toy) -> None:  # noqa: ANN001
    low, high = (toy.maps[v.name][:1].float() for v in toy.levels)
    for method, seen in (("low_only", 0), ("high_only", 1)):
        head = build(toy, method).eval()
        before = head([low, high], (32, 32))
        assert torch.equal(before, head([low, high + 1] if seen == 0 else [low + 1, high], (32, 32)))
        assert not torch.equal(before, head([low + 1, high] if seen == 0 else [low, high + 1], (32, 32)))


def test_a_prediction_reads_what_the_study_has_fused_already(toy) -> None:  # noqa: ANN001
    head = build(toy, "aff").eval()
    maps = [toy.maps[v.name][:1].float() for v in toy.levels]
    fused = head.fusion(*maps).fused.tensor
    torch.testing.assert_close(head.read(fused, (32, 32)), head(maps, (32, 32)))


def test_pyramid_methods_take_all_levels_between() -> None:
    names = ["s2", "s4", "s8", "s16", "s32"]
    assert level_names("fpn", names, "s4", "s16") == ("s4", "s8", "s16")
    assert level_names("aff", names, "s4", "s16") == ("s4", "s16")
    assert level_names("low_only", names, "s4", "s32") == ("s4", "s32")


def test_one_width_for_all_and_defaults_for_the_rest() -> None:
    assert head_params("fpn", 64)["width"] == 64
    assert head_params("aff", 64) == fusion.spec("aff").parse({})
    assert head_params("concat", 64) == fusion.spec("concat").parse({})
    assert head_params("low_only", 64) == {}


def test_a_heads_weights_are_those_of_its_seed(toy) -> None:  # noqa: ANN001
    assert same(weights(build(toy, "aff", seed=2)), weights(build(toy, "aff", seed=2)))
    assert not same(weights(build(toy, "aff", seed=2)), weights(build(toy, "aff", seed=3)))
    assert not same(weights(build(toy, "low_only", seed=2)), weights(build(toy, "low_only", seed=3)))


def test_channels_of_outputs_are_counted_on_maps_that_fit() -> None:
    channels = {m: output_channels(fusion.build(m, (6, 8), (4.0, 16.0)), (4.0, 16.0)) for m in ("concat", "hrnet")}
    assert channels == {"concat": (14,), "hrnet": (6, 6, 8)}
    assert output_channels(fusion.build("complex", (6, 6), (4.0, 16.0)), (4.0, 16.0)) == (12,)


def test_levels_that_keep_their_own_channels_have_readers_of_their_own(toy) -> None:  # noqa: ANN001
    maps = [toy.maps[v.name][:1].float() for v in toy.levels]
    head = build(toy, "hrnet", prediction="conv").eval()
    coarse = head.fusion(*maps).outputs[f"p{toy.levels[-1].stride[0]:g}"].tensor
    (reader,) = head.read_coarser.values()
    assert torch.equal(head.scores(maps)[-1], reader(coarse))
    assert not build(toy, "fpn").read_coarser  # one width, so one prediction reads all, as in the paper's detector


# --- the loop ------------------------------------------------------------------------------------
def test_both_levels_together_learn_what_neither_knows_alone(toy, fresh_toy) -> None:  # noqa: ANN001
    found = {}
    for method in ("low_only", "high_only", "add"):
        head = build(toy, method)
        losses = fit(head, toy.maps, toy.labels, steps=120, lr=2e-2, seed=0)
        assert losses[-1] < losses[0]
        found[method] = score(head, fresh_toy.maps, Truth.of(fresh_toy.labels, (fresh_toy.labels > 0).byte()))["miou"]
    assert found["add"] > 80
    assert found["add"] > max(found["low_only"], found["high_only"]) + 15


def test_the_same_seed_gives_the_same_weights(toy) -> None:  # noqa: ANN001
    fitted = []
    for seed in (0, 0, 1):
        head = build(toy, "aff")
        losses = fit(head, toy.maps, toy.labels, steps=6, seed=seed)
        fitted.append((losses, weights(head)))
    assert fitted[0][0] == fitted[1][0]
    assert same(fitted[0][1], fitted[1][1])
    assert not same(fitted[0][1], fitted[2][1])


def test_a_callback_sees_every_step_and_may_end_it(toy) -> None:  # noqa: ANN001
    seen = []
    head = build(toy, "add")
    losses = fit(head, toy.maps, toy.labels, steps=9, callback=lambda now: seen.append(now) or now.step == 4)
    assert [now.step for now in seen] == [1, 2, 3, 4]
    assert [now.loss for now in seen] == losses
    assert {now.steps for now in seen} == {9}
    assert not head.training


def test_stopped_and_resumed_is_as_never_stopped(toy, fresh_toy) -> None:  # noqa: ANN001
    straight, paused = build(toy, "aff"), build(toy, "aff")
    fit(straight, toy.maps, toy.labels, steps=8)
    steps = fitting(paused, toy.maps, toy.labels, steps=8)
    list(itertools.islice(steps, 5))
    score(
        paused, fresh_toy.maps, Truth.of(fresh_toy.labels, fresh_toy.labels)
    )  # whoever looks on puts the head in eval mode
    list(steps)
    assert same(weights(straight), weights(paused))


def test_the_maps_and_labels_are_left_as_they_were(toy) -> None:  # noqa: ANN001
    before = {k: v.clone() for k, v in toy.maps.items()}
    labels = toy.labels.clone()
    fit(build(toy, "add"), toy.maps, toy.labels, steps=3)
    assert all(torch.equal(before[k], toy.maps[k]) for k in before)
    assert torch.equal(labels, toy.labels)


@pytest.mark.parametrize("size", [(32, 32), (33, 50), (8, 8)])
def test_a_quarter_of_the_pixels_is_a_quarter_of_the_enlarged_scores(size: tuple[int, int]) -> None:
    scores = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    whole = torch.nn.functional.interpolate(scores, size=size, mode="bilinear", align_corners=False)
    for y, x in ((0, 0), (0, 1), (1, 0), (1, 1)):
        torch.testing.assert_close(loop.enlarged(scores, size, y, x), whole[..., y::2, x::2])


def test_every_scene_comes_once_before_any_comes_again() -> None:
    order = loop.shuffled(32, 8, torch.Generator().manual_seed(0))
    for _ in range(2):
        assert sorted(torch.cat([next(order) for _ in range(4)]).tolist()) == list(range(32))


def test_the_learning_rate_rises_and_falls_to_zero(toy) -> None:  # noqa: ANN001
    head = build(toy, "add")
    optimiser, schedule = loop.optimise(head, 1.0, steps=100, warm_up=10)
    rates = []
    for _ in range(100):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) <= 1
    assert rates.index(max(rates)) in range(8, 13)
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert rates[-1] < 0.01
