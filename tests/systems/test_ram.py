"""RAM: the foveated glimpse, what and where added, places that are drawn, and the walk from glimpse to glimpse."""

import pytest
import torch
from torch.nn import functional as F

from fusionviz import systems
from fusionviz.records import GlimpsePath, Logits
from fusionviz.scenes import KINDS
from fusionviz.systems._glimpses import CELLS, MOST, SIDES, retina
from fusionviz.trace import NullTrace


def picture(batch: int = 1, size: tuple[int, int] = (128, 128), seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(seed))


def ram(**params: object):
    return systems.build("ram", (), **params)


# --- the retina ----------------------------------------------------------------------------------
@pytest.mark.parametrize("scale", [0, 1, 2, 3])
def test_the_middle_place_is_the_middle_crop(scale: int) -> None:
    """A window of 12, 24, 48 or 96 pixels around the middle, each cell the mean of 1, 2 x 2, 4 x 4 or 8 x 8 pixels."""
    x, half = picture(), CELLS * 2**scale // 2
    crop = x[..., 64 - half : 64 + half, 64 - half : 64 + half]
    expected = crop.unflatten(-2, (CELLS, -1)).unflatten(-1, (CELLS, -1)).mean((-3, -1))
    torch.testing.assert_close(retina(x, torch.zeros(1, 2), scale), expected, atol=1e-5, rtol=1e-5)


def test_places_are_y_then_x_and_each_axis_has_its_own_length() -> None:
    x = picture(size=(48, 96))
    place = torch.tensor([[0.5, -0.25]])  # 36 pixels down, 36 across
    torch.testing.assert_close(retina(x, place, 0), x[..., 30:42, 30:42], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(128, 128), (61, 47)])
@pytest.mark.parametrize("place", [(0.0, 0.0), (-1.0, 1.0), (0.93, -0.4)])
def test_a_constant_picture_looks_the_same_at_every_scale_and_place(size: tuple, place: tuple) -> None:
    x = torch.full((1, 3, *size), 0.7)
    for scale in range(len(SIDES)):
        torch.testing.assert_close(retina(x, torch.tensor([place]), scale), torch.full((1, 3, CELLS, CELLS), 0.7))


def test_pixels_read_are_those_of_the_windows_whatever_the_picture() -> None:
    for size in ((128, 128), (256, 200)):
        walk = ram().walk(picture(size=size), count=2)
        read = walk.patches[0, 0, :, 0].numel()
        assert read == len(SIDES) * CELLS**2 == 576
        assert tuple(CELLS * 2.0**k for k in range(len(SIDES))) == SIDES


def test_what_lies_in_no_window_changes_nothing() -> None:
    module, x = ram(look="random", glimpses=3), picture(size=(256, 256))
    walk = module.walk(x)
    rows, columns = torch.meshgrid(torch.arange(256), torch.arange(256), indexing="ij")
    seen = torch.zeros(256, 256, dtype=torch.bool)
    for y, c in ((walk.places[0] + 1) * 128).tolist():
        seen |= ((rows - y).abs() < 48 + 8) & ((columns - c).abs() < 48 + 8)
    assert not bool(seen.all())
    other = torch.where(seen, x, torch.randn_like(x))
    torch.testing.assert_close(module.walk(other).scores, walk.scores)


# --- what and where ------------------------------------------------------------------------------
@pytest.mark.parametrize("key", ["ram", "dram"])
@pytest.mark.parametrize("join", ["add", "multiply"])
def test_a_glimpse_is_the_sum_or_the_product_of_what_and_where(key: str, join: str) -> None:
    module, x = systems.build(key, (), join=join), picture()
    steps = {s.key: s.tensor for s in module(x).trace}
    pair = steps["what"], steps["where"]
    torch.testing.assert_close(steps["glimpse"], F.relu(pair[0] + pair[1] if join == "add" else pair[0] * pair[1]))


@pytest.mark.parametrize("key", ["ram", "dram"])
def test_without_a_what_a_product_is_silent_and_a_sum_tells_the_place(key: str) -> None:
    for join in ("add", "multiply"):
        module = systems.build(key, (), join=join)
        with torch.no_grad():
            for parameter in module.glimpse.what.parameters():
                parameter.zero_()
        said, _ = module.glimpse(picture(), torch.tensor([[0.3, -0.6]]), NullTrace())
        assert bool(said.any()) is (join == "add")


# --- the walk ------------------------------------------------------------------------------------
def test_without_scatter_places_are_their_means_and_with_it_they_are_not() -> None:
    module, x = ram(), picture()
    still, scattered = module.walk(x, sigma=0.0), module.walk(x, sigma=0.1)
    assert torch.equal(still.places, still.means)
    apart = (scattered.places - scattered.means)[0]
    assert not bool(apart[0].any())  # the first is random anyway
    assert bool((apart[1:] != 0).any(1).all())
    near = module.walk(x, sigma=1e-6)
    torch.testing.assert_close(near.places, near.means, atol=1e-5, rtol=0)


def test_the_walk_is_the_equations_step_by_step() -> None:
    module, x = ram(), picture()
    walk = module.walk(x, count=3)
    h, place = torch.zeros(1, 80), walk.places[:, 0]
    for t in range(3):
        torch.testing.assert_close(walk.places[:, t], place)
        g, _ = module.glimpse(x, place, NullTrace())
        h = F.relu(g @ module.from_glimpse.weight.T + module.from_glimpse.bias + h @ module.from_state.weight.T)
        torch.testing.assert_close(walk.scores[:, t], module.answer(h))
        place = torch.tanh(module.next(h))


def test_more_glimpses_leave_the_first_ones_as_they_were() -> None:
    x = picture()
    short, long = (ram(glimpses=n).walk(x) for n in (2, MOST))
    assert long.scores.shape[1] == MOST
    torch.testing.assert_close(long.scores[:, :2], short.scores)


def test_random_places_depend_on_the_seed_and_on_no_picture() -> None:
    one, same = (ram(look="random").walk(picture(seed=s)).places for s in (0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, systems.build("ram", (), seed=1, look="random").walk(picture()).places)
    assert not any(ram(look="random").walk(picture()).decided)
    assert ram(glimpses=3).walk(picture()).decided == (False, True, True)


def test_a_batch_is_its_singles() -> None:
    for key in ("ram", "dram"):
        module, x = systems.build(key, (), sigma=0.1), picture(3)
        together = module.walk(x)
        for i in range(3):
            alone = module.walk(x[i : i + 1])
            torch.testing.assert_close(alone.scores[0], together.scores[i], atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(alone.places[0], together.places[i], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("key", ["ram", "dram"])
@pytest.mark.parametrize("size", [(128, 128), (75, 101), (32, 32)])
def test_a_result_is_a_path_and_an_answer(key: str, size: tuple[int, int]) -> None:
    result = systems.build(key, (), glimpses=5)(picture(size=size) * 0.2)
    path, kinds = result.outputs["path"], result.outputs["kinds"]
    assert isinstance(path, GlimpsePath)
    assert isinstance(kinds, Logits)
    assert (len(path), path.sides, path.classes, kinds.classes) == (5, SIDES, KINDS, KINDS)
    assert bool(((path.places >= 0) & (path.places <= torch.tensor(size))).all())
    assert bool(((path.patches >= 0) & (path.patches <= 1)).all())
    torch.testing.assert_close(path.scores[-1], kinds.values.softmax(0))
    torch.testing.assert_close(path.scores.sum(1), torch.ones(5))
    keys = [s.key for s in result.trace]
    assert all(i in keys[:n] for n, s in enumerate(result.trace) for i in s.inputs)
    assert result.provenance.kind == "random"


@pytest.mark.parametrize("key", ["ram", "dram"])
def test_every_parameter_gets_a_finite_gradient(key: str) -> None:
    module = systems.build(key, ())
    walk = module.walk(picture(2), count=3)
    (walk.scores.square().sum() + walk.means.square().sum()).backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in module.parameters())


def test_a_place_stops_the_gradient() -> None:
    walk = ram().walk(picture(), count=3, sigma=0.1)
    assert walk.means.requires_grad
    assert not walk.places.requires_grad
