"""Learning where to look: REINFORCE with a baseline, errors by number of glimpses, learned against random places."""

import pytest
import torch

from fusionviz import scenes, systems
from fusionviz.training import glimpsing
from fusionviz.training.data import TEST
from fusionviz.training.glimpsing import Budget, Ones
from fusionviz.training.rebuild import open_shipped


def striped(count: int, seed: int) -> Ones:
    """Two kinds of thing: a square of thin stripes, upright or lying, somewhere on an even ground."""
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.randint(0, 2, (count,), generator=generator)
    pictures = torch.full((count, 3, 64, 64), 120, dtype=torch.uint8)
    stripes = (torch.arange(24) // 2 % 2 * 255).to(torch.uint8).expand(24, 24)
    corners = torch.randint(0, 41, (count, 2), generator=generator)
    for i, (kind, (y, x)) in enumerate(zip(kinds, corners.tolist(), strict=True)):
        pictures[i, :, y : y + 24, x : x + 24] = stripes if kind else stripes.T
    return Ones(pictures, kinds, (corners + 12) / 32 - 1)


def build(key: str = "ram", **params: object):  # noqa: ANN201
    return systems.build(key, (), **params)


# --- REINFORCE -----------------------------------------------------------------------------------
def test_the_gradient_is_zero_where_the_reward_is_the_baseline() -> None:
    means = torch.zeros(4, 3, 2, requires_grad=True)
    places = torch.randn(4, 3, 2)
    glimpsing.reinforce(torch.zeros(4, 3), places, means, 0.1).sum().backward()
    assert not bool(means.grad.any())


def test_a_reward_that_is_the_same_everywhere_moves_nothing_in_the_mean() -> None:
    """Without a baseline the single gradients are far from zero; their mean over many draws is not."""
    sigma, count = 0.2, 200_000
    means = torch.full((count, 1, 2), 0.3, requires_grad=True)
    places = means.detach() + sigma * torch.randn(count, 1, 2, generator=torch.Generator().manual_seed(0))
    glimpsing.reinforce(torch.ones(count, 1), places, means, sigma).sum().backward()
    noise = 1 / sigma / count**0.5
    assert float(means.grad.std()) == pytest.approx(1 / sigma, rel=0.02)
    assert bool((means.grad.mean((0, 1)).abs() < 4 * noise).all())


def test_the_gradient_is_that_of_the_expected_reward() -> None:
    """For R = -|l - a|^2 the expected reward falls by 2 (mu - a) as mu moves, whatever sigma is."""
    sigma, count, aim = 0.3, 400_000, torch.tensor([0.5, -0.2])
    means = torch.zeros(count, 1, 2, requires_grad=True)
    places = sigma * torch.randn(count, 1, 2, generator=torch.Generator().manual_seed(1))
    reward = -(places - aim).square().sum(-1)
    glimpsing.reinforce(reward - reward.mean(), places, means, sigma).mean().backward()
    torch.testing.assert_close(means.grad.sum((0, 1)), 2 * (0 - aim), atol=0.03, rtol=0)


def test_a_place_is_praised_for_what_came_after_it_alone() -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.5]])
    torch.testing.assert_close(glimpsing.to_come(rewards), torch.tensor([[0.5, 0.25, 0.5]]))
    torch.testing.assert_close(glimpsing.to_come(rewards, 0.0), rewards)
    half = torch.tensor([[(1 + 0.125) / 1.75, 0.25 / 1.5, 0.5]])
    torch.testing.assert_close(glimpsing.to_come(rewards, 0.5), half)


def test_the_reward_is_the_chance_of_the_right_answer() -> None:
    scores = torch.log(torch.tensor([[[0.2, 0.8], [0.6, 0.4]]]))
    torch.testing.assert_close(glimpsing.right(scores, torch.tensor([1])), torch.tensor([[0.8, 0.4]]))


# --- figures -------------------------------------------------------------------------------------
def test_errors_are_counted_after_each_glimpse() -> None:
    scores = torch.tensor([[[2.0, 1.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]])  # says 0, 1 and 1, 1
    assert glimpsing.errors(scores, torch.tensor([0, 1])).tolist() == [0, 1]
    assert glimpsing.errors(scores, torch.tensor([1, 0])).tolist() == [2, 1]


def test_scenes_for_glimpses_hold_one_thing_of_middle_size_its_kind_and_its_place() -> None:
    ones = glimpsing.draw(TEST, 3, 64)
    assert ones.pictures.shape == (3, 3, 64, 64)
    looks = (scenes.scene(TEST + i, 64, objects=1).looks[0] for i in range(64))
    fits = [look for look in looks if 12 <= look.height < 48][:3]
    assert [scenes.KINDS[k] for k in ones.kinds.tolist()] == [look.kind for look in fits]
    places = torch.tensor([(look.y, look.x) for look in fits]) / 64 - 1
    torch.testing.assert_close(ones.middles, places)


def test_a_picture_and_the_middle_of_its_thing_are_mirrored_together() -> None:
    pictures = torch.zeros(64, 3, 8, 8, dtype=torch.uint8)
    pictures[:, :, 1, 6] = 200
    middles = torch.tensor([[1.5, 6.5]]).expand(64, 2) / 4 - 1
    seen, places = glimpsing.varied(pictures, middles, torch.Generator().manual_seed(0))
    cells = ((places + 1) * 4).long()
    assert set(cells[:, 1].tolist()) == {1, 6}
    assert set(cells[:, 0].tolist()) == {1}
    here = seen[torch.arange(64), :, cells[:, 0], cells[:, 1]]
    assert set(here.flatten().tolist()) == {200, 55}  # as it was, or as a negative


# --- learning ------------------------------------------------------------------------------------
def cornered(count: int, seed: int) -> Ones:
    """Two kinds of stripes in a small square near the lower right corner: few windows at random places show it."""
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.randint(0, 2, (count,), generator=generator)
    pictures = torch.full((count, 3, 128, 128), 120, dtype=torch.uint8)
    stripes = (torch.arange(12) // 2 % 2 * 255).to(torch.uint8).expand(12, 12)
    for i, kind in enumerate(kinds.tolist()):
        pictures[i, :, 106:118, 106:118] = stripes if kind else stripes.T
    return Ones(pictures, kinds, torch.full((count, 2), 112 / 64 - 1))


def looking_at(y: float, x: float):  # noqa: ANN202
    """A DRAM whose places all are (y, x), whatever it sees."""
    module = build("dram")
    with torch.no_grad():
        module.next.weight.zero_()
        module.next.bias.copy_(torch.atanh(torch.tensor([y, x])))
    return module


def test_who_looks_at_the_thing_errs_at_most_half_as_often_as_who_looks_elsewhere() -> None:
    """What is learned is the answer; where to look is set by hand, so that no luck of a draw is in the figures."""
    train, test = cornered(128, 0), cornered(64, 1)
    short = Budget(lessons=40, steps=40, batch=32, lr=4e-3, glimpses=2, policy=0.0, sigma=0.02, still=0.02)
    at, away = looking_at(0.75, 0.75), looking_at(-0.75, -0.75)
    for module in (at, away):
        glimpsing.fit(module, train, short)
    errors = [glimpsing.score(module, test, look="learned")["error_2"] for module in (at, away)]
    assert errors[0] <= 0.5 * errors[1]


def test_the_eye_learns_to_tell_and_is_left_alone_while_it_walks() -> None:
    train, module = striped(64, 0), build()
    losses = glimpsing.teach(module, train, Budget(lessons=60, batch=32))
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    eye = {k: v.clone() for k, v in module.state_dict().items() if "glimpse.see" in k or "glimpse.settle" in k}
    before = module.answer.weight.clone()
    glimpsing.fit(module, train, Budget(lessons=0, steps=3, batch=16, glimpses=2))
    assert all(torch.equal(module.state_dict()[k], v) for k, v in eye.items())
    assert not torch.equal(module.answer.weight, before)
    assert all(p.requires_grad for p in module.parameters())


def test_the_eye_opens_as_the_first_layers_of_the_shipped_network() -> None:
    module, net = build(), open_shipped("scene_resnet")
    glimpsing.open_eye(module)
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = module.glimpse.see[:2](x)
        theirs = net(x)[0]["s4"].tensor
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3)


def test_the_same_seed_learns_the_same() -> None:
    train, short = striped(32, 0), Budget(lessons=2, steps=3, batch=8, glimpses=2)
    one, same, other = (glimpsing.fit(build(), train, short, seed=s) for s in (0, 0, 1))
    assert one == same
    assert one != other


def test_places_learn_to_go_where_the_reward_is() -> None:
    """The reward stands alone: it is the nearness to a corner, so that means must move there."""
    module, generator = build("dram"), torch.Generator().manual_seed(0)
    picture = striped(16, 0).pictures.float() / 255
    optimiser = torch.optim.Adam(module.parameters(), 1e-2)
    corner = torch.tensor([0.7, 0.7])

    def away() -> float:
        return float((module.walk(picture, count=3).places - corner).norm(dim=-1).mean())

    before = away()
    for _ in range(60):
        draws = torch.zeros(16, 3, 2), torch.randn(16, 3, 2, generator=generator)
        walk = module.walk(picture, count=3, sigma=0.2, draws=draws)
        reward = -(walk.places - corner).norm(dim=-1)
        loss = glimpsing.reinforce(reward - reward.mean(), walk.places, walk.means, 0.2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert away() < 0.4 * before


def test_dram_learns_too_and_a_network_of_random_places_is_compared() -> None:
    train, test = striped(64, 0), striped(32, 1)
    short = Budget(lessons=2, steps=8, batch=16, glimpses=3)
    chose, scattered = build("dram"), build("dram")
    losses = glimpsing.fit(chose, train, short)
    aim = {k: v.clone() for k, v in scattered.next.state_dict().items()}
    glimpsing.fit(scattered, train, short, look="random")
    # Only decay moves what makes places, where no place is chosen.
    assert torch.allclose(scattered.next.weight, aim["weight"], atol=1e-3)
    assert len(losses) == 8
    told = glimpsing.compare(chose, scattered, test, (2, 6))
    assert set(told) == {f"{name}_{t}" for name in ("learned", "random", "ratio") for t in (2, 6)}
    mine, theirs = (glimpsing.score(m, test, look=k) for m, k in ((chose, "learned"), (scattered, "random")))
    assert (told["learned_6"], told["random_6"]) == (mine["error_6"], theirs["error_6"])
    assert told["ratio_6"] == pytest.approx(mine["error_6"] / max(theirs["error_6"], 0.01), abs=1e-3)


def test_a_callback_ends_a_fit() -> None:
    seen = []
    module = build()
    glimpsing.fit(
        module,
        striped(16, 0),
        Budget(lessons=0, steps=9, batch=8, glimpses=2),
        callback=lambda now: seen.append(now) or now.step == 2,
    )
    assert [now.step for now in seen] == [1, 2]
    assert not module.training


@pytest.mark.parametrize("key", ["ram", "dram"])
def test_a_run_gives_what_ships_its_figures_and_both_curves(key: str) -> None:
    train, test = striped(16, 0), striped(16, 1)
    module = systems.build(key, (), seed=1)
    told, curves = glimpsing.run(module, None, (train, test), budget=glimpsing.QUICK, seed=1)
    assert not module.training
    assert all(bool((p == p.half().float()).all()) for p in module.parameters())
    assert set(told) == {f"{name}_{t}" for name in ("learned", "random") for t in (2, 4, 6, 8)}
    assert curves["learned"] == glimpsing.score(module, test, look="learned", seed=1)
    assert told["random_6"] == curves["random"]["error_6"]
