"""Where levels meet: nodes and edges of a pyramid method, read off its trace."""

import pytest
import torch

from fusionviz import fusion, layouts, meetings


def result(method: str, count: int = 4, **params: object):
    module = fusion.build(method, (8,) * count, width=8, **params).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        return module(
            *(torch.randn(1, 8, max(1, 32 // 2**i), max(1, 32 // 2**i), generator=generator) for i in range(count))
        )


def edges(nodes: tuple[meetings.Node, ...]) -> dict[str, list[str]]:
    """The graph in words: {"T3": ["C3", "C4"], ...} of the nodes that hear something."""
    name = [f"{n.letter}{n.level}" for n in nodes]
    return {name[i]: [name[e.start] for e in n.edges] for i, n in enumerate(nodes) if n.edges}


def test_bifpn_is_the_graph_of_its_paper() -> None:
    nodes = meetings.graph(result("bifpn").trace)
    assert edges(nodes) == {
        "T3": ["C3", "C4"], "T2": ["C2", "T3"], "T1": ["C1", "T2"],
        "O2": ["T1", "C2", "T2"], "O3": ["O2", "C3", "T3"], "O4": ["O3", "C4"],
    }  # fmt: skip
    assert meetings.columns(nodes) == {0: "", 1: "down", 2: "up"}
    assert [f"{n.letter}{n.level}" for n in nodes if n.fused] == ["T1"]


def test_panet_goes_down_and_up_again() -> None:
    nodes = meetings.graph(result("panet").trace)
    assert edges(nodes) == {
        "P3": ["C3", "C4"], "P2": ["C2", "P3"], "P1": ["C1", "P2"],
        "N2": ["P1", "P2"], "N3": ["N2", "P3"], "N4": ["N3", "C4"],
    }  # fmt: skip
    assert meetings.columns(nodes) == {0: "", 1: "down", 2: "up"}


@pytest.mark.parametrize(("method", "letter"), [("fpn", "P"), ("unet", "D")])
def test_one_way_down(method: str, letter: str) -> None:
    nodes = meetings.graph(result(method).trace)
    assert [(n.letter, n.level) for n in nodes if n.edges] == [(letter, 3), (letter, 2), (letter, 1)]
    assert meetings.columns(nodes)[1] == "down"


def test_layers_have_columns_of_their_own() -> None:
    nodes = meetings.graph(result("bifpn", repeats=2).trace)
    assert list(meetings.columns(nodes).values()) == ["", "down", "up", "down", "up"]
    assert [(n.column, n.layer) for n in nodes if (n.letter, n.level) == ("T", 2)] == [(1, 1), (3, 2)]
    second = next(n for n in nodes if (n.letter, n.level, n.layer) == ("T", 1, 2))
    assert [(nodes[e.start].letter, nodes[e.start].layer) for e in second.edges] == [("T", 1), ("T", 2)]


def test_an_edge_of_learned_weights_has_its_weight() -> None:
    module = fusion.build("bifpn", (8, 8, 8), width=8).eval()
    with torch.no_grad():
        module.edges["1_out_2"].copy_(torch.tensor([3.0, 0.0, 1.0]))
        found = module(*(torch.randn(1, 8, 32 // 2**i, 32 // 2**i) for i in range(3)))
    nodes = meetings.graph(found.trace)
    node = meetings.made_by(nodes, found.attention["1_out_2"].tensor)
    assert (node.letter, node.level) == ("O", 2)
    assert [e.weight for e in node.edges] == pytest.approx([0.75, 0, 0.25], abs=1e-4)
    assert sum(e.share for e in node.edges) == pytest.approx(1)


def test_without_weights_an_edge_has_its_share_of_the_norms() -> None:
    found = result("panet", 3)
    steps = {s.key: s.tensor for s in found.trace}
    low, high = (float(steps[k].norm()) for k in ("lateral_1", "up_1"))
    node = next(n for n in meetings.graph(found.trace) if (n.letter, n.level) == ("P", 1))
    assert [e.weight for e in node.edges] == pytest.approx([low / (low + high), high / (low + high)], rel=1e-5)
    assert node.weight is None


def test_weights_of_every_place_are_averaged() -> None:
    found = result("asff", 3)
    nodes = meetings.graph(found.trace)
    node = meetings.made_by(nodes, found.attention["at_2"].tensor)
    assert (node.letter, node.level, node.way) == ("y", 2, "")
    assert [e.weight for e in node.edges] == pytest.approx(found.attention["at_2"].tensor.mean((0, 2, 3)).tolist())


@pytest.mark.parametrize("method", ["gff", "ion", "hypernet", "multilevel"])
def test_what_is_no_such_graph_has_none(method: str) -> None:
    assert meetings.graph(result(method, 3).trace) == ()


# --- where things stand ----------------------------------------------------------------------------
def apart(a: tuple, b: tuple) -> bool:
    return a[0] + a[2] <= b[0] + 1e-9 or b[0] + b[2] <= a[0] + 1e-9 or a[1] + a[2] <= b[1] or b[1] + b[2] <= a[1]


@pytest.mark.parametrize(
    "rows",
    [[[32, 16, 8, 4]] * 2, [[32, 16]] * 2, [[64, 32, 16, 8, 4], [64]], [[14] * 7] * 2, [[14] * 3, [14]], [[9, 5]]],
)
def test_maps_of_a_pyramid_stand_side_by_side_in_proportion(rows: list[list[int]]) -> None:
    boxes = layouts.staircase(rows)
    every = [box for row in boxes for box in row]
    for x, y, side in every:
        assert min(x, y) >= -1e-9
        assert max(x, y) + side <= 1 + 1e-9
    assert all(apart(a, b) for i, a in enumerate(every) for b in every[:i])
    cells = [n for row in rows for n in row]
    assert [side / every[0][2] for _, _, side in every] == pytest.approx([n / cells[0] for n in cells])


def test_an_octave_pyramid_is_a_staircase_that_fills_its_panel() -> None:
    above, below = layouts.staircase([[32, 16, 8, 4]] * 2)
    assert [x for x, _, _ in above] == sorted(x for x, _, _ in above)
    assert len({round(y + side, 6) for _, y, side in above}) == 1, "a row stands on one line"
    assert below[0][1] + below[0][2] == pytest.approx(1, abs=0.01)
    assert above[0][2] > 0.45


@pytest.mark.parametrize(
    ("method", "levels", "repeats"),
    [
        ("bifpn", 4, 1),
        ("bifpn", 4, 3),
        ("bifpn", 6, 1),
        ("fpn", 7, None),
        ("panet", 4, None),
        ("fpn", 2, None),
        ("asff", 3, None),
    ],
)
def test_a_graph_keeps_to_its_panel(method: str, levels: int, repeats: int | None) -> None:
    found = meetings.graph(result(method, levels, **({"repeats": repeats} if repeats else {})).trace)
    nodes, edges, labels = layouts.graph(
        found, [f"{n.letter}{n.level}" for n in found], levels, meetings.columns(found)
    )
    assert len({(n.x, n.y) for n in nodes}) == len(nodes), "no node covers another"
    for x, y in [(n.x, n.y) for n in nodes] + [e.mark for e in edges] + [(t.x, t.y) for t in labels]:
        assert 0.03 < x < 0.97
        assert 0.03 < y < 0.97
    fine, coarse = nodes[0], nodes[levels - 1]
    assert (fine.x, fine.y > coarse.y) == (coarse.x, True), "the fine level at the bottom, as pyramids stand"
    numbers = [e.mark for e in edges if e.text]
    assert len(numbers) == (0 if repeats == 3 else len(edges))
    for i, a in enumerate(numbers):
        for b in numbers[:i]:
            assert abs(a[0] - b[0]) > 0.1 or abs(a[1] - b[1]) > 0.04, "no number covers another"
