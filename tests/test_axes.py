"""The axis vocabulary: what fits, and what the refusal says."""

import pytest
import torch

from fusionviz.axes import expect, shape_text
from fusionviz.errors import ShapeError


def test_shape_text_uses_multiplication_signs() -> None:
    assert shape_text((64, 56, 56)) == "64 × 56 × 56"
    assert shape_text((7,)) == "7"
    assert shape_text(()) == ""


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((2, 3, 4, 5), "b c h w"),
        ((2, 1, 4, 5), "b 1 h w"),
        ((2, 8, 9, 9), "b head q q"),
        ((2, 2, 1, 1, 1), "b n 1 1 1"),
    ],
)
def test_a_tensor_that_fits_comes_back_itself(shape: tuple[int, ...], axes: str) -> None:
    tensor = torch.zeros(shape)
    assert expect(tensor, axes) is tensor


@pytest.mark.parametrize(
    ("shape", "axes", "sizes"),
    [
        ((2, 3, 4), "b c h w", {}),
        ((2, 3, 4, 5, 6), "b c h w", {}),
        ((2, 3, 4, 5), "b 1 h w", {}),
        ((2, 3, 4, 5), "b head q q", {}),
        ((2, 3, 4, 5), "b c h w", {"c": 4}),
        ((), "b", {}),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused(shape: tuple[int, ...], axes: str, sizes: dict) -> None:
    with pytest.raises(ShapeError):
        expect(torch.zeros(shape), axes, **sizes)


def test_the_refusal_names_axes_sizes_and_what_came() -> None:
    with pytest.raises(ShapeError) as refusal:
        expect(torch.zeros(2, 3, 4, 5), "b c h w", of="map 's4'", c=64)
    for language in ("en", "zh"):
        said = refusal.value.text(language)
        assert all(part in said for part in ("map 's4'", "b c h w", "c = 64", "2 × 3 × 4 × 5")), said
