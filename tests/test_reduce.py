"""Reductions on maps small enough to do by hand."""

import numpy as np
import pytest
import torch

from fusionviz import reduce


def test_strongest_is_by_energy_and_ties_go_by_number() -> None:
    maps = torch.tensor([1.0, -3.0, 2.0, 3.0]).view(1, 4, 1, 1).expand(1, 4, 2, 2)
    assert reduce.strongest(maps, 3) == (1, 3, 2)
    assert reduce.strongest(maps, 99) == (1, 3, 2, 0)


def test_energy_is_the_mean_square() -> None:
    peak, plateau = (
        torch.tensor([4.0, 0, 0, 0]),
        torch.full((4,), 1.5),
    )  # mean 1 against 1.5, mean square 4 against 2.25
    assert reduce.strongest(torch.stack((plateau, peak)).view(1, 2, 2, 2), 2) == (1, 0)
    assert reduce.strongest(torch.ones(1, 64, 2, 2), 64) == tuple(range(64))


def test_mean_max_norm_by_hand() -> None:
    maps = torch.tensor([[[[3.0]], [[-4.0]]]])  # two channels, one place
    assert reduce.reduced(maps, "mean").tolist() == [[-0.5]]
    assert reduce.reduced(maps, "max").tolist() == [[3.0]]
    assert reduce.reduced(maps, "norm").tolist() == [[5.0]]


def test_parts_of_a_complex_map() -> None:
    z = torch.tensor([[[[3 + 4j]]]])
    assert reduce.part(z, "abs").item() == 5
    assert reduce.part(z, "re").item() == 3
    assert reduce.part(z, "im").item() == 4
    assert reduce.part(z, "arg").item() == pytest.approx(np.arctan2(4, 3))
    real = torch.ones(1, 1, 1, 1)
    assert reduce.part(real, "abs") is real


def test_pca_of_a_constant_map_is_constant() -> None:
    rgb = reduce.pca_rgb(torch.full((1, 8, 5, 4), 3.7))
    assert rgb.shape == (5, 4, 3)
    assert len(np.unique(rgb)) == 1


def test_pca_finds_the_directions_that_vary() -> None:
    generator = torch.Generator().manual_seed(0)
    ramp = torch.linspace(0, 1, 16).repeat(16, 1)
    maps = torch.zeros(1, 6, 16, 16)
    maps[0, 2] = 10 * ramp
    maps += 1e-3 * torch.randn(maps.shape, generator=generator)
    red = reduce.pca_rgb(maps)[..., 0].astype(float)
    assert np.corrcoef(red.ravel(), ramp.numpy().ravel())[0, 1] > 0.99  # turned so that it grows with the loading


def test_pca_has_a_fixed_sign() -> None:
    maps = torch.randn(1, 5, 8, 8, generator=torch.Generator().manual_seed(1))
    assert np.array_equal(reduce.pca_rgb(maps), reduce.pca_rgb(maps.clone()))


def test_fewer_than_three_channels_still_make_a_picture() -> None:
    assert reduce.pca_rgb(torch.rand(1, 2, 4, 4)).shape == (4, 4, 3)


def test_domain_colours_say_who_dominates() -> None:
    z = torch.tensor([[1 + 0j, 0 + 1j, 0j]])
    blue, orange, black = reduce.domain_rgb(z)[0].astype(int)
    assert blue[2] > blue[0]
    assert orange[0] > orange[2]
    assert black.tolist() == [0, 0, 0]


def test_arrays_are_free_of_torchs_memory() -> None:
    source = torch.zeros(2, 2)
    copy = reduce.array(source)
    source += 1
    assert copy.sum() == 0


@pytest.mark.parametrize(("count", "side"), [(1, 1), (4, 2), (5, 3), (9, 3), (16, 4), (25, 5)])
def test_grid_side(count: int, side: int) -> None:
    assert reduce.grid_side(count) == side


def test_pca_is_the_same_from_either_square() -> None:
    maps = torch.randn(1, 40, 5, 6, generator=torch.Generator().manual_seed(2))  # more channels than places
    flat = maps[0].double().flatten(1)
    flat = flat - flat.mean(1, keepdim=True)
    loadings, lengths, scores = torch.linalg.svd(flat, full_matrices=False)
    rgb = reduce.pca_rgb(maps).reshape(-1, 3)
    for i in range(3):
        axis = loadings[:, i]
        score = (scores[i] * lengths[i] * axis[axis.abs().argmax()].sign()).numpy()
        low, high = np.percentile(score, (1, 99))
        want = np.clip((score - low) / (high - low), 0, 1) * 255
        assert np.abs(want - rgb[:, i]).max() <= 1


@pytest.mark.parametrize("shape", [(1, 80, 5, 4), (1, 8, 1, 1), (1, 80, 2, 1)])
def test_pca_of_any_constant_map_is_constant(shape: tuple[int, ...]) -> None:
    for value in (0.0, -3.7, float("nan"), float("inf")):
        assert len(np.unique(reduce.pca_rgb(torch.full(shape, value)))) == 1


def test_angles_are_reduced_as_numbers_not_as_angles() -> None:
    nearly_pi = torch.polar(torch.ones(2), torch.tensor([3.0, -3.0])).view(1, 2, 1, 1)
    # The mean of 3 and -3 would be 0, the far side of the circle.
    assert abs(reduce.reduced_phase(nearly_pi, "mean").item()) == pytest.approx(np.pi)
    z = torch.tensor([1 + 0j, 3j, -2 + 0j]).view(1, 3, 1, 1)
    assert reduce.reduced_phase(z, "max").item() == pytest.approx(np.pi / 2)


def test_domain_colours_of_no_number_are_black() -> None:
    z = torch.tensor([[complex("nan"), 1 + 0j]])
    assert reduce.domain_rgb(z)[0, 0].tolist() == [0, 0, 0]


def test_regions_are_drawn_where_their_boxes_are() -> None:
    maps = np.array([[[1, 2], [3, 4]], [[5, 6], [7, 8]]], np.float32)
    boxes = np.array([[0, 0, 4, 2], [3, 3, 5, 6]], np.float32)
    first, second = reduce.in_place(maps, boxes, (6, 5), 1.0)
    assert first.tolist() == [[1, 1, 2, 2, 0], [3, 3, 4, 4, 0], *[[0] * 5] * 4]
    assert second.tolist() == [*[[0] * 5] * 3, [0, 0, 0, 5, 6], [0, 0, 0, 7, 8], [0, 0, 0, 7, 8]]
    coarse, _ = reduce.in_place(maps, boxes, (3, 3), 2.0)  # centres at 1, 3 and 5
    assert coarse.tolist() == [[3, 4, 0], [0, 0, 0], [0, 0, 0]]
