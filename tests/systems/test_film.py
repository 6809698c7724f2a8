"""FiLM: the identities of a scale and a shift for every channel, by hand and inside the system."""

import torch
from _asking import ask, build, seen_and_said, steps
from torch import nn

from fusionviz.systems._phrases import WIDTH
from fusionviz.systems.film import modulate
from fusionviz.trace import NullTrace


def maps(seed: int = 0) -> torch.Tensor:
    return torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(seed))


def each_channel(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(1, -1, 1, 1)


def test_numbers_worked_by_hand() -> None:
    x = torch.tensor([[[[1.0, -2.0]], [[3.0, 0.5]]]])
    z = modulate(x, each_channel(2.0, -1.0), each_channel(0.5, 1.0))
    assert z.tolist() == [[[[2.5, -3.5]], [[-2.0, 0.5]]]]


def test_a_scale_of_one_without_shift_leaves_the_map() -> None:
    x = maps()
    assert torch.equal(modulate(x, each_channel(1, 1, 1), each_channel(0, 0, 0)), x)


def test_a_scale_of_zero_leaves_the_shift_alone() -> None:
    beta = each_channel(0.5, -1.0, 2.0)
    assert torch.equal(modulate(maps(), torch.zeros(1, 3, 1, 1), beta), beta.expand(2, 3, 4, 5))


def test_it_is_affine_in_the_map() -> None:
    a, b, gamma, beta = maps(1), maps(2), each_channel(2.0, -1.0, 0.3), each_channel(0.5, -1.0, 2.0)
    mixed = modulate(0.3 * a + 0.7 * b, gamma, beta)
    torch.testing.assert_close(mixed, 0.3 * modulate(a, gamma, beta) + 0.7 * modulate(b, gamma, beta))


def test_the_shown_map_is_made_of_the_shown_scale_and_shift() -> None:
    result = ask(build("film"), count=2)
    gamma, beta = (result.attention[name] for name in ("gamma", "beta"))
    for weight in (gamma, beta):
        assert (weight.axes, weight.kind, weight.grain) == ("b c 1 1", "affine", "channel")
        assert weight.tensor.shape == (2, WIDTH, 1, 1)
    x = steps(result)["seen"]
    for c in (0, 7, WIDTH - 1):
        expected = float(gamma.tensor[1, c]) * x[1, c] + float(beta.tensor[1, c])
        torch.testing.assert_close(result.fused.tensor[1, c], expected)


def test_a_phrase_that_says_nothing_changes_nothing() -> None:
    """The scale is 1 plus what the phrase says, so a layer of zeros lets the map through, as the paper starts it."""
    module = build("film")
    nn.init.zeros_(module.condition.weight)
    nn.init.zeros_(module.condition.bias)
    result = ask(module)
    assert torch.equal(result.attention["gamma"].tensor, torch.ones(1, WIDTH, 1, 1))
    assert torch.equal(result.attention["beta"].tensor, torch.zeros(1, WIDTH, 1, 1))
    assert torch.equal(result.fused.tensor, steps(result)["seen"])


def test_one_scale_serves_all_places() -> None:
    """Shuffle the places of what is seen, and the fused map is shuffled alike: the phrase has no places."""
    module, (x, y) = build("film"), seen_and_said()
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    shuffled = x.flatten(2)[..., order].view_as(x)
    with torch.no_grad():
        straight, moved = (module.meet(v, y, NullTrace()).fused for v in (x, shuffled))
    torch.testing.assert_close(moved, straight.flatten(2)[..., order].view_as(x))


def test_strength_turns_the_phrase_down_and_up() -> None:
    deaf, plain, loud = (ask(build("film", strength=s)) for s in (0.0, 1.0, 2.0))
    assert torch.equal(deaf.fused.tensor, steps(deaf)["seen"])
    assert torch.equal(
        deaf.outputs["answer"].tensor, ask(build("film", strength=0.0), "the tree").outputs["answer"].tensor
    )
    said, twice = ((r.attention["gamma"].tensor - 1, r.attention["beta"].tensor) for r in (plain, loud))
    for one, two in zip(said, twice, strict=True):
        assert bool(one.any())
        torch.testing.assert_close(two, 2 * one)


def test_scale_or_shift_alone() -> None:
    both, scale, shift = (ask(build("film", by=by)).attention for by in ("both", "scale", "shift"))
    assert torch.equal(scale["gamma"].tensor, both["gamma"].tensor)
    assert not scale["beta"].tensor.any()
    assert torch.equal(shift["beta"].tensor, both["beta"].tensor)
    assert bool((shift["gamma"].tensor == 1).all())
