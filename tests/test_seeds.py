"""Random weights come from their seed alone: not from what ran before, nor from what runs beside."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from fusionviz.errors import ParameterError
from fusionviz.seeds import seeded


def draw(seed: int, count: int = 3) -> torch.Tensor:
    with seeded(seed):
        return torch.cat([nn.Linear(4, 4).weight.detach().flatten() for _ in range(count)])


def test_one_seed_gives_one_set_of_weights() -> None:
    assert torch.equal(draw(7), draw(7))
    assert not torch.equal(draw(7), draw(8))


def test_the_global_generator_stays_as_it_was() -> None:
    before = torch.random.get_rng_state()
    draw(7)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_global_generator_stays_as_it_was_after_a_mistake() -> None:
    before = torch.random.get_rng_state()
    with pytest.raises(RuntimeError), seeded(7):
        torch.rand(3) @ torch.rand(4)  # drawn, then refused
    assert torch.equal(torch.random.get_rng_state(), before)


def test_what_was_drawn_before_does_not_matter() -> None:
    first = draw(7)
    torch.rand(100)
    assert torch.equal(draw(7), first)


def test_blocks_may_stand_within_blocks() -> None:
    with seeded(1):
        torch.rand(1)
        inner = draw(7)
        after = torch.rand(3)
    assert torch.equal(inner, draw(7))
    with seeded(1):
        torch.rand(1)
        assert torch.equal(torch.rand(3), after)


def test_two_sessions_that_build_at_once_do_not_share_numbers() -> None:
    alone = [draw(seed, count=50) for seed in range(6)]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda seed: draw(seed, count=50), range(6)))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="reads a GPU's generator; this machine has no CUDA device")
def test_the_generator_of_a_gpu_stays_as_it_was() -> None:
    before = torch.cuda.get_rng_state()
    draw(7)
    assert torch.equal(torch.cuda.get_rng_state(), before)


@pytest.mark.parametrize("seed", [-1, 2**31, 1.5, "1", None])
def test_a_seed_that_no_link_can_carry_is_refused(seed: object) -> None:
    with pytest.raises(ParameterError, match="seed"):
        draw(seed)
