"""The places of tensors, by numbers worked out by hand."""

import pytest
import torch

from fusionviz.backbones import _grid
from fusionviz.backbones._grid import Run, View

PICTURE = _grid.of_picture((2, 3, 56, 42))


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation", "centre"),
    [
        (3, 2, 1, 1, 0.5),  # ResNet's 3x3: around pixel 0
        (7, 2, 3, 1, 0.5),
        (3, 2, 0, 1, 1.5),  # Inception, unpadded: pixels 0 1 2
        (16, 16, 0, 1, 8.0),  # ViT's patch: pixels 0 ... 15
        (2, 2, 0, 1, 1.0),
        (11, 4, 2, 1, 3.5),  # AlexNet: pixels -2 ... 8
        (3, 1, 2, 2, 0.5),  # dilated: pixels -2 0 2
    ],
)
def test_first_centre_of_a_window(kernel: int, stride: int, padding: int, dilation: int, centre: float) -> None:
    pairs = [(n, n) for n in (kernel, stride, padding, dilation)]
    place = _grid.window(PICTURE, *pairs, (28, 21))
    assert place.offset == (centre, centre)
    assert place.stride == (stride, stride)


def test_windows_add_up() -> None:
    place = PICTURE
    for size in ((28, 21), (14, 10), (7, 5)):
        place = _grid.window(place, (2, 2), (2, 2), (0, 0), (1, 1), size)
    assert place.offset == (4.0, 4.0)  # cell 0 of the last grid has seen pixels 0 ... 7
    assert place.stride == (8.0, 8.0)


def test_windows_cut_and_put_back_are_the_map_again() -> None:
    cut = _grid.reshape(PICTURE, (2, 3, 8, 7, 6, 7))
    cut = _grid.reshape(_grid.permute(cut, (0, 2, 4, 3, 5, 1)), (2, 48, 49, 3))
    assert _grid.as_map(cut, (2, 48, 49, 3)) is None  # 48 windows of 49 cells: square, and no map
    back = _grid.permute(_grid.reshape(cut, (2, 8, 6, 7, 7, 3)), (0, 5, 1, 3, 2, 4))
    back = _grid.reshape(back, (2, 3, 56, 42))
    assert back == PICTURE


def test_windows_put_back_in_the_wrong_order_are_no_map() -> None:
    cut = _grid.permute(_grid.reshape(PICTURE, (2, 3, 8, 7, 6, 7)), (0, 1, 3, 2, 4, 5))
    mixed = _grid.reshape(cut, (2, 3, 56, 42))
    assert _grid.as_map(mixed, (2, 3, 56, 42)) is None


def test_tokens_behind_a_class_token_are_laid_back() -> None:
    tokens = _grid.permute(_grid.reshape(PICTURE, (2, 3, 56 * 42)), (0, 2, 1))
    with_class = _grid.concatenate([(None, 1), (tokens, 56 * 42)], 1)
    assert _grid.as_map(with_class, (2, 1 + 56 * 42, 3)) == View(3, lead=1, grid=(56, 42))
    without = _grid.take(with_class, (slice(None), slice(1, None)), (2, 56 * 42, 3))
    assert _grid.as_map(without, (2, 56 * 42, 3)) == View(3, lead=0, grid=(56, 42))
    assert _grid.take(with_class, (slice(None), 0), (2, 3)) is None  # the class token stands nowhere


def test_channels_last_is_shown_channels_first() -> None:
    place = _grid.permute(PICTURE, (0, 2, 3, 1))
    view = _grid.as_map(place, (2, 56, 42, 3))
    assert view == View(3, order=(0, 3, 1, 2))
    assert torch.empty(2, 56, 42, 3).permute(view.order).shape == (2, 3, 56, 42)


def test_every_second_row_starts_where_it_is_taken() -> None:
    taken = _grid.take(PICTURE, (Ellipsis, slice(1, None, 2), slice(None)), (2, 3, 28, 42))
    assert taken.stride == (2.0, 1.0)
    assert taken.offset == (1.5, 0.5)


def test_neighbours_merged_stand_between_them() -> None:
    place = _grid.merge_neighbours(_grid.permute(PICTURE, (0, 2, 3, 1)), (2, 28, 21, 12))
    assert place.stride == (2.0, 2.0)
    assert place.offset == (1.0, 1.0)  # between pixels 0 and 1


def test_concatenated_channels_stand_at_their_mean() -> None:
    a = _grid.window(PICTURE, (2, 2), (2, 2), (0, 0), (1, 1), (28, 21))  # centre 1.0
    b = _grid.window(PICTURE, (3, 3), (2, 2), (1, 1), (1, 1), (28, 21))  # centre 0.5
    assert _grid.concatenate([(a, 3), (b, 1)], 1).offset == (0.875, 0.875)


def test_maps_of_different_strides_do_not_meet() -> None:
    other = _grid.window(PICTURE, (2, 2), (2, 2), (0, 0), (1, 1), (28, 21))
    assert _grid.combine([PICTURE, other], 4) is None
    assert _grid.concatenate([(PICTURE, 3), (other, 3)], 1) is None


def test_attention_is_placed_by_its_query() -> None:
    q = _grid.reshape(PICTURE, (2, 3, 56 * 42))
    q = _grid.permute(q, (0, 2, 1))
    scores = _grid.einsum("b q c, b k c -> b q k", [q, q])
    answer = _grid.einsum("b q k, b k c -> b q c", [scores, q])
    assert answer.axes[1] == (Run("h", 56), Run("w", 42))
    assert _grid.as_map(answer, (2, 56 * 42, 3)) is not None
