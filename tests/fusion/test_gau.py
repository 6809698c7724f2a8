"""GAU: the low level's channels are weighed by the high level's means, then the high level is added as it is."""

import math

import pytest
import torch
from torch import nn

from fusionviz import fusion

SIZES = ((8, 6), (4, 3))


def maps(channels: tuple[int, int] = (6, 8), sizes: tuple = SIZES) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(
        torch.randn(2, c, *size, generator=generator) + 2 * torch.randn(2, c, 1, 1, generator=generator)
        for c, size in zip(channels, sizes, strict=True)
    )


def gau(channels: tuple[int, int] = (6, 8), **params: object) -> fusion.FusionModule:
    return fusion.build("gau", channels, (4, 8), **{"width": 8, **params})


@pytest.mark.parametrize("sizes", [SIZES, ((5, 7), (3, 3)), ((4, 4), (4, 4))])
@pytest.mark.parametrize("channels", [(6, 8), (8, 8)])
def test_equals_segmentation_models_pytorch_with_the_same_weights(channels: tuple, sizes: tuple, stir) -> None:
    """Nearest, because its bilinear lays corner on corner, which no backbone's grid does."""
    decoder = pytest.importorskip(
        "segmentation_models_pytorch.decoders.pan.decoder",
        reason="segmentation_models_pytorch is not installed; the numbers by hand are compared",
    )
    x, y = maps(channels, sizes)
    module = stir(gau(channels, variant="library", resize="nearest"))
    assert module.project is None
    reference = decoder.GAUBlock(*channels, interpolation_mode="nearest").eval()
    for mine, theirs in ((module.gate, reference.conv1[1]), (module.conv, reference.conv2)):
        theirs.conv.load_state_dict(mine[0].state_dict())
        theirs.bn.load_state_dict(mine[1].state_dict())
    torch.testing.assert_close(module(x, y).fused.tensor, reference(x, y))


def test_numbers_worked_by_hand() -> None:
    """One channel: a 3x3 kernel that takes the left neighbour, a gate that reads the mean of Y."""
    module = gau((1, 1), resize="nearest")
    with torch.no_grad():
        module.conv[0].weight.zero_()[0, 0, 1, 0] = 1
        module.gate[0].weight.fill_(2)
        module.gate[1].eps = 0.0
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    y = torch.tensor([[[[0.5]]]])
    m = 1 / (1 + math.exp(-2 * 0.5))
    expected = torch.tensor([[[[0.5, 0.5 + 1 * m], [0.5, 0.5 + 3 * m]]]])
    torch.testing.assert_close(module(x, y).fused.tensor, expected)


def test_a_closed_gate_leaves_the_high_level() -> None:
    x, y = maps()
    module = gau(resize="nearest")
    with torch.no_grad():
        module.gate[1].weight.zero_()
        module.gate[1].bias.fill_(-200)
    assert torch.equal(module(x, y).fused.tensor, y.repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_zero_weights_of_the_gate_halve_the_low_level() -> None:
    x, y = maps()
    module = gau()
    nn.init.zeros_(module.gate[0].weight)
    result = module(x, y)
    low, high = result.aligned
    torch.testing.assert_close(result.fused.tensor, high.tensor + low.tensor / 2)


def test_the_gate_is_read_from_the_high_level_alone_and_before_it_is_enlarged() -> None:
    x, y = maps(sizes=((7, 5), (3, 3)))
    module = gau()
    result = module(x, y)
    weight = result.attention["gate"]
    assert (weight.of, weight.axes, weight.role, weight.sums) == ("low", "b c 1 1", "channel_gate", "none")
    assert torch.equal(module(x.flip(0), y).attention["gate"].tensor, weight.tensor)
    shuffled = y.flatten(2)[..., torch.randperm(9, generator=torch.Generator().manual_seed(1))].view_as(y)
    torch.testing.assert_close(module(x, shuffled).attention["gate"].tensor, weight.tensor)
    assert not torch.allclose(module(x, 2 * y).attention["gate"].tensor, weight.tensor, atol=1e-3)
    steps = {s.key: s for s in result.trace}
    torch.testing.assert_close(steps["squeeze"].tensor, y.mean((2, 3), keepdim=True))
    assert not torch.allclose(steps["high_resize"].tensor.mean((2, 3), keepdim=True), steps["squeeze"].tensor)


def test_channels_meet_at_the_width_only_where_they_differ() -> None:
    for channels, out in (((6, 10), 8), ((6, 8), 8), ((10, 10), 10)):
        module = gau(channels)
        assert module(*maps(channels)).fused.channels == out
        assert (module.project is None) is (channels[1] == out)


def test_the_library_reads_the_kernel_as_a_whole_layer(stir) -> None:
    x, y = maps()
    plain, library = stir(gau()), stir(gau(variant="library"))
    assert bool((plain(x, y).aligned[0].tensor < 0).any())
    assert bool((library(x, y).aligned[0].tensor >= 0).all())
    assert plain.conv[0].bias is None
    assert library.conv[0].bias is not None


def test_the_terms_are_the_gated_low_and_the_high_level() -> None:
    x, y = maps()
    result = gau()(x, y)
    low, high = result.terms()
    met = result.aligned
    torch.testing.assert_close(low + high, result.fused.tensor)
    torch.testing.assert_close(low, met[0].tensor * result.attention["gate"].tensor)
    assert torch.equal(high, met[1].tensor)


def test_counts_of_the_equation() -> None:
    counts = {variant: sum(p.numel() for p in gau((16, 96), width=64, variant=variant).parameters()) for variant in
              ("paper", "library")}  # fmt: skip
    paper = 96 * 64 + 9 * 16 * 64 + 64 * 64 + 2 * 64
    assert counts == {"paper": paper, "library": paper + 64 + 64 + 2 * 64}


def test_a_transposed_enlargement_starts_as_bilinear() -> None:
    x, y = maps()
    learned, fixed = gau(resize="transposed"), gau()
    learned.load_state_dict(fixed.state_dict(), strict=False)
    torch.testing.assert_close(learned(x, y).fused.tensor, fixed(x, y).fused.tensor)
    assert sum(p.numel() for p in learned.parameters()) > sum(p.numel() for p in fixed.parameters())
