"""BAM: a channel branch and a place branch, added before one sigmoid; the map itself stays in the sum."""

import math

import pytest
import torch
from torch import nn

from fusionviz import fusion


def maps(channels: int = 8, size: tuple[int, int] = (5, 4)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(2, channels, *size, generator=generator) for _ in range(2))


def bam(channels: int = 8, **params: object) -> fusion.FusionModule:
    return fusion.build("bam", (channels, channels), (4, 4), **{"r": 2, **params})


def normed(norm: nn.BatchNorm2d, c: int, value: float) -> float:
    mean, var, weight, bias = (t[c].item() for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias))
    return (value - mean) / math.sqrt(var + norm.eps) * weight + bias


@pytest.mark.parametrize("combine", ["add", "mul"])
def test_equals_the_equations_written_as_loops(combine: str, stir) -> None:
    """Plain Python over every channel, place and tap: no convolution, no broadcasting, padding by hand."""
    height, width, c, d = 5, 4, 4, 2
    x, y = maps(c, (height, width))
    module = stir(bam(c, d=d, combine=combine))
    result = module(x, y)
    u = (x + y)[1].tolist()
    places = [(i, j) for i in range(height) for j in range(width)]

    def layers(branch: nn.Sequential) -> list[tuple[nn.Conv2d, nn.BatchNorm2d | None, bool]]:
        parts, found = list(branch), []
        for n, part in enumerate(parts):
            if isinstance(part, nn.Conv2d):
                behind = parts[n + 1 : n + 3]
                norm = next((p for p in behind[:1] if isinstance(p, nn.BatchNorm2d)), None)
                found.append((part, norm, any(isinstance(p, nn.ReLU) for p in behind)))
        return found

    def run(branch: nn.Sequential, planes: list, where: list) -> list:
        for conv, norm, relu in layers(branch):
            kernel, step, out = conv.weight.tolist(), conv.dilation[0], []
            side = conv.kernel_size[0]
            taps = [(a, b) for a in range(side) for b in range(side)]
            for o in range(conv.out_channels):
                plane = {}
                for i, j in where:
                    total = conv.bias[o].item()
                    for k in range(conv.in_channels):
                        for a, b in taps:
                            at = (i + step * (a - side // 2), j + step * (b - side // 2))
                            total += kernel[o][k][a][b] * planes[k].get(at, 0.0)
                    total = total if norm is None else normed(norm, o, total)
                    plane[i, j] = max(0.0, total) if relu else total
                out.append(plane)
            planes = out
        return planes

    means = [{(0, 0): sum(u[k][i][j] for i, j in places) / len(places)} for k in range(c)]
    channel = run(module.channel, means, [(0, 0)])
    place = run(module.place, [{(i, j): u[k][i][j] for i, j in places} for k in range(c)], places)[0]
    assert [len(layers(b)) for b in (module.channel, module.place)] == [2, 4]
    for k in range(c):
        for i, j in places:
            a, b = channel[k][0, 0], place[i, j]
            m = 1 / (1 + math.exp(-(a + b if combine == "add" else a * b)))
            gate, fused = result.attention["gate"].tensor[1, k, i, j], result.fused.tensor[1, k, i, j]
            torch.testing.assert_close(gate, torch.tensor(m), atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(fused, torch.tensor(u[k][i][j] * (1 + m)), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("combine", ["add", "mul"])
def test_zero_weights_give_one_and_a_half(combine: str) -> None:
    x, y = maps()
    module = bam(combine=combine)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    assert torch.equal(module(x, y).fused.tensor, 1.5 * (x + y))


@pytest.mark.parametrize("combine", ["add", "mul"])
def test_every_element_grows_by_less_than_itself(combine: str, stir) -> None:
    x, y = maps()
    with torch.no_grad():
        ratio = stir(bam(combine=combine))(x, y).fused.tensor / (x + y)
    assert bool((ratio > 1).all())
    assert bool((ratio < 2).all())
    assert ratio.max() - ratio.min() > 0.05


def test_batch_norm_stands_behind_a_branch_or_inside_it_with_a_relu() -> None:
    kinds = {nn.Conv2d: "c", nn.BatchNorm2d: "n", nn.ReLU: "r"}

    def spell(branch: nn.Sequential) -> str:
        return "".join(kinds[type(part)] for part in branch)

    paper, released = bam(), bam(combine="mul")
    assert (spell(paper.channel), spell(paper.place)) == ("crcn", "ccccn")
    assert (spell(released.channel), spell(released.place)) == ("cnrc", "cnrcnrcnrc")


def test_two_scores_below_zero_open_the_released_gate_and_close_the_papers() -> None:
    x, y = maps()
    gates = {}
    for combine in ("add", "mul"):
        module = bam(combine=combine)
        with torch.no_grad():
            for branch in (module.channel, module.place):
                for parameter in branch.parameters():
                    parameter.zero_()
                branch[-1].bias.fill_(-2)  # of the batch norm or of the convolution: what comes last
        gates[combine] = module(x, y).attention["gate"].tensor
    torch.testing.assert_close(gates["add"], torch.full_like(x, 1 / (1 + math.exp(4))))
    torch.testing.assert_close(gates["mul"], torch.full_like(x, 1 / (1 + math.exp(-4))))


@pytest.mark.parametrize("d", [1, 2, 4, 6])
def test_the_place_branch_reaches_as_far_as_its_dilation(d: int) -> None:
    """Two 3x3 kernels with holes reach 2d cells; everything else in the branch is 1x1."""
    module = bam(d=d)
    still = torch.zeros(1, 8, 29, 29)
    moved = still.clone()
    moved[..., 14, 14] = 5
    with torch.no_grad():
        scores = [module.place(m) for m in (still, moved)]
    changed = (scores[0] != scores[1])[0, 0].nonzero()
    assert changed.min() == 14 - 2 * d
    assert changed.max() == 14 + 2 * d


def test_the_dilation_keeps_the_weights() -> None:
    narrow, wide = bam(d=1), bam(d=4)
    narrow.load_state_dict(wide.state_dict())
    x, y = maps(size=(9, 9))
    assert not torch.equal(narrow(x, y).fused.tensor, wide(x, y).fused.tensor)


def test_the_scores_are_one_for_each_channel_and_one_for_each_place() -> None:
    x, y = maps()
    steps = {s.key: s.tensor for s in bam()(x, y).trace}
    assert steps["channel"].shape == (2, 8, 1, 1)
    assert steps["place"].shape == (2, 1, 5, 4)
    torch.testing.assert_close(steps["scores"], steps["channel"] + steps["place"])


def test_counts_of_the_equations() -> None:
    """c c/r twice for the channels; c c/r, twice 9 (c/r)^2 and c/r for the places; biases, and two numbers a norm."""
    c, e = 64, 4
    channel = 2 * c * e + e + c + 2 * c
    place = c * e + e + 2 * (9 * e * e + e) + e + 1 + 2
    assert sum(p.numel() for p in bam(c, r=16).parameters()) == channel + place


def test_on_and_terms() -> None:
    x, y = maps()
    for on, u in {"sum": x + y, "low": x, "high": y, "concat": torch.cat((x, y), 1)}.items():
        result = bam(on=on)(x, y)
        weight = result.attention["gate"]
        assert (weight.of, weight.axes, weight.role) == (on, "b c h w", "element_gate")
        torch.testing.assert_close(result.fused.tensor, u + u * weight.tensor)
        low, high = result.terms()
        torch.testing.assert_close(torch.cat((low, high), 1) if on == "concat" else low + high, result.fused.tensor)
