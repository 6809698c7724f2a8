"""Early fusion: a stack and one matrix, so that the phrase moves every place by the same amount."""

import torch
from _asking import ask, build, seen_and_said

from fusionviz.systems._phrases import WIDTH
from fusionviz.trace import NullTrace


def test_a_matrix_on_the_stack_is_a_sum_of_two() -> None:
    module, (x, y) = build("phrase_concat"), seen_and_said()
    weight, bias = module.stack.weight[:, :, 0, 0], module.stack.bias
    with torch.no_grad():
        z = module.meet(x, y, NullTrace()).fused
        seen = torch.einsum("oc,bchw->bohw", weight[:, :WIDTH], x)
        said = y @ weight[:, WIDTH:].T + bias
    torch.testing.assert_close(z, seen + said[..., None, None], atol=1e-5, rtol=1e-4)


def test_another_phrase_moves_every_place_by_the_same() -> None:
    module = build("phrase_concat")
    moved = ask(module).fused.tensor - ask(module, "the leftmost tree").fused.tensor
    assert bool(moved.any())
    torch.testing.assert_close(moved, moved.mean((2, 3), keepdim=True).expand_as(moved), atol=1e-5, rtol=1e-3)


def test_nothing_is_weighed() -> None:
    assert not ask(build("phrase_concat")).attention
