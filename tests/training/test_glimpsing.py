"""Learning where to look: REINFORCE with a baseline, errors by number of glimpses, learned against random places."""

import pytest
import torch

from fusionviz import scenes, systems
from fusionviz.training import glimpsing
from fusionviz.training.data import TEST
from fusionviz.training.glimpsing import Budget, Ones

TINY = Budget(steps=300, batch=32, lr=4e-3, glimpses=4)


def striped(count: int, seed: int) -> Ones:
    """Two kinds of thing: a square of thin stripes, upright or lying, somewhere on an even ground."""
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.randint(0, 2, (count,), generator=generator)
    pictures = torch.full((count, 3, 64, 64), 120, dtype=torch.uint8)
    stripes = (torch.arange(24) // 2 % 2 * 255).to(torch.uint8).expand(24, 24)
    for i, kind in enumerate(kinds):
        y, x = torch.randint(0, 41, (2,), generator=generator).tolist()
        pictures[i, :, y : y + 24, x : x + 24] = stripes if kind else stripes.T
    return Ones(pictures, kinds)


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


def test_the_reward_is_the_chance_of_the_right_answer() -> None:
    scores = torch.log(torch.tensor([[[0.2, 0.8], [0.6, 0.4]]]))
    torch.testing.assert_close(glimpsing.right(scores, torch.tensor([1])), torch.tensor([[0.8, 0.4]]))


# --- figures -------------------------------------------------------------------------------------
def test_errors_are_counted_after_each_glimpse() -> None:
    scores = torch.tensor([[[2.0, 1.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]])  # says 0, 1 and 1, 1
    assert glimpsing.errors(scores, torch.tensor([0, 1])).tolist() == [0, 1]
    assert glimpsing.errors(scores, torch.tensor([1, 0])).tolist() == [2, 1]


def test_scenes_for_glimpses_hold_one_thing_and_its_kind() -> None:
    ones = glimpsing.draw(TEST, 3, 64)
    assert ones.pictures.shape == (3, 3, 64, 64)
    for i, kind in enumerate(ones.kinds.tolist()):
        (label,) = scenes.scene(TEST + i, objects=1).labels
        assert scenes.CLASSES[label] == scenes.KINDS[kind]


# --- learning ------------------------------------------------------------------------------------
def cornered(count: int, seed: int) -> Ones:
    """Four kinds of stripes in a small square near the lower right corner: few windows at random places show it."""
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.randint(0, 4, (count,), generator=generator)
    pictures = torch.full((count, 3, 64, 64), 120, dtype=torch.uint8)
    for i, kind in enumerate(kinds.tolist()):
        stripes = (torch.arange(12) // (2 + 2 * (kind > 1)) % 2 * 255).to(torch.uint8).expand(12, 12)
        pictures[i, :, 50:62, 50:62] = stripes if kind % 2 else stripes.T
    return Ones(pictures, kinds)


def test_chosen_places_err_at_most_half_as_often_as_random_ones() -> None:
    train, test, found = cornered(256, 0), cornered(128, 1), {}
    for look in ("learned", "random"):
        found[look] = build()
        losses = glimpsing.fit(found[look], train, TINY, look=look)
        assert losses[-1] < 0.8 * losses[0]
    told = glimpsing.compare(found["learned"], found["random"], test, (4,))
    assert told["ratio_4"] <= 0.5
    assert told["learned_4"] < 30  # of four kinds, 75 is chance


def test_the_same_seed_learns_the_same() -> None:
    train, short = striped(32, 0), Budget(steps=3, batch=8, glimpses=2)
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
    short = Budget(steps=8, batch=16, glimpses=3)
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
        Budget(steps=9, batch=8, glimpses=2),
        callback=lambda now: seen.append(now) or now.step == 2,
    )
    assert [now.step for now in seen] == [1, 2]
    assert not module.training
