"""The flow's drawing: what must hold for every graph, and what a lecturer expects of the known ones."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusionviz import fusion
from fusionviz.figures.flow_layout import FlowLayout, Node, compact, gather, layout


@st.composite
def graphs(draw) -> tuple[list[Node], dict]:
    count = draw(st.integers(1, 16))
    nodes, sizes = [], {}
    for i in range(count):
        keys = [n.key for n in nodes]
        inputs = tuple(draw(st.lists(st.sampled_from(keys), max_size=3))) if keys else ()
        role = draw(st.sampled_from(["", "", "low", "high", "weight", "fused"]))
        nodes.append(Node(f"n{i}", inputs, role, f"step {i}"))
        sizes[f"n{i}"] = (draw(st.floats(20, 160)), draw(st.floats(16, 60)))
    return nodes, sizes


def points(path: str) -> list[tuple[float, float]]:
    """Return places along an SVG path of cubic curves."""
    numbers = [float(v) for v in re.findall(r"-?\d+(?:\.\d+)?", path)]
    assert re.fullmatch(r"M[-\d. ]+(?: C[-\d. ]+)+", path), path
    at, found = (numbers[0], numbers[1]), []
    for i in range(2, len(numbers), 6):
        p = [at, *((numbers[i + k], numbers[i + k + 1]) for k in (0, 2, 4))]
        for step in range(21):
            t = step / 20
            w = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
            found.append(tuple(sum(a * q[axis] for a, q in zip(w, p, strict=True)) for axis in (0, 1)))
        at = p[-1]
    return found


def cuts(drawn: FlowLayout) -> list[tuple]:
    """Return (edge, box) wherever a line runs through the inside of a box."""
    return [
        (a, b, key)
        for a, b, path in drawn.edges
        for key, (x, y, w, h) in drawn.boxes.items()
        if any(x + 0.1 < px < x + w - 0.1 and y + 0.1 < py < y + h - 0.1 for px, py in points(path))
    ]


def overlaps(drawn: FlowLayout, apart: float) -> list[tuple]:
    boxes = list(drawn.boxes.items())
    return [
        (a, b)
        for i, (a, (ax, ay, aw, ah)) in enumerate(boxes)
        for b, (bx, by, bw, bh) in boxes[i + 1 :]
        if ax < bx + bw + apart and bx < ax + aw + apart and ay < by + bh + apart and by < ay + ah + apart
    ]


@settings(max_examples=120, deadline=None)
@given(graphs())
def test_every_graph(graph: tuple[list[Node], dict]) -> None:
    nodes, sizes = graph
    drawn = layout(nodes, sizes)
    assert drawn == layout(nodes, sizes)
    assert set(drawn.boxes) == {n.key for n in nodes}
    assert overlaps(drawn, 13.9) == []
    assert cuts(drawn) == []
    assert {(a, b) for a, b, _ in drawn.edges} == {(k, n.key) for n in nodes for k in n.inputs}
    for key, (x, y, w, h) in drawn.boxes.items():
        assert (w, h) == pytest.approx(sizes[key], abs=0.01)
        assert -0.01 <= x <= x + w <= drawn.width + 0.01
        assert -0.01 <= y <= y + h <= drawn.height + 0.01
    for a, b, path in drawn.edges:
        (ax, ay, aw, ah), (bx, by, _, bh) = drawn.boxes[a], drawn.boxes[b]
        assert ax + aw < bx
        at = points(path)
        assert at[0][0] == pytest.approx(ax + aw, abs=0.02)
        assert at[-1][0] == pytest.approx(bx, abs=0.02)
        assert ay <= at[0][1] <= ay + ah
        assert by <= at[-1][1] <= by + bh
        assert all(-0.01 <= x <= drawn.width and -0.01 <= y <= drawn.height for x, y in at)
    read = {k for n in nodes for k in n.inputs}
    right = max(x + w for x, _, w, _ in drawn.boxes.values())
    for n in nodes:
        if n.role == "fused" and n.key not in read:
            middle = drawn.boxes[n.key][0] + drawn.boxes[n.key][2] / 2
            # In the last column: nobody else's middle lies farther right.
            assert middle >= max(x + w / 2 for x, _, w, _ in drawn.boxes.values()) - 0.02 <= right


def test_the_checks_can_fail() -> None:
    boxes = {"a": (0, 0, 10, 10), "b": (20, 0, 10, 10), "c": (40, 0, 10, 10), "d": (8, 8, 10, 10)}
    drawn = FlowLayout(50, 20, boxes, [("a", "c", "M10 5 C20 5 30 5 40 5")])
    assert cuts(drawn) == [("a", "c", "b")] or ("a", "c", "b") in cuts(drawn)
    assert ("a", "d") in overlaps(drawn, 0)


def traced(method: str) -> list[Node]:
    import torch

    with torch.no_grad():
        result = fusion.build(method, (8, 16), (4.0, 16.0)).eval()(torch.rand(1, 8, 8, 8), torch.rand(1, 16, 2, 2))
    return [Node(s.key, s.inputs, s.role, s.op) for s in result.trace]


def boxed(nodes: list[Node], size: tuple[float, float] = (100.0, 46.0)) -> FlowLayout:
    return layout(nodes, {n.key: size for n in nodes})


PAIRS = [m for m in fusion.names() if fusion.spec(m).takes == "pair"]


@pytest.mark.parametrize("method", PAIRS)
def test_methods(method: str) -> None:
    nodes = compact(traced(method))
    drawn = boxed(nodes)
    assert overlaps(drawn, 13.9) == []
    assert cuts(drawn) == []
    assert drawn.boxes["low"][1] < drawn.boxes["high"][1]
    last = next(n.key for n in reversed(nodes) if n.role == "fused")  # a fold is called after its first step
    assert drawn.boxes[last][0] == max(x for x, *_ in drawn.boxes.values())


def test_aff_fits_its_place_on_the_page() -> None:
    drawn = boxed(compact(traced("aff")), (104.0, 46.0))
    assert drawn.width <= 1150
    assert drawn.height <= 260


def test_aff_skips_run_outside() -> None:
    drawn = boxed(compact(traced("aff")))
    skip = {a: points(path) for a, b, path in drawn.edges if b == "fused"}
    inside = [
        y for key, (_, y, _, _) in drawn.boxes.items() if key in ("sum", "local", "pool", "global", "scales", "weight")
    ]
    low, high = skip["low_norm"], skip["high_resize"]
    middle = drawn.width / 2
    assert min(y for x, y in low if abs(x - middle) < 200) < min(inside)
    assert max(y for x, y in high if abs(x - middle) < 200) > max(inside) + 46


def test_a_pyramid_keeps_the_order_of_its_levels() -> None:
    nodes = [Node(f"c{i}", (), role) for i, role in zip(range(2, 6), ("low", "", "", "high"), strict=True)]
    nodes += [Node(f"l{i}", (f"c{i}",)) for i in range(2, 6)]
    before = "l5"
    for i in (4, 3, 2):
        nodes += [Node(f"u{i}", (before,)), Node(f"m{i}", (f"l{i}", f"u{i}"))]
        before = f"m{i}"
    nodes += [Node(f"p{i}", (f"m{i}" if i < 5 else "l5",), "fused" if i == 2 else "") for i in range(2, 6)]
    drawn = boxed(nodes)
    for stage in ("c", "l"):
        ys = [drawn.boxes[f"{stage}{i}"][1] for i in range(2, 6)]
        assert ys == sorted(ys)
    assert cuts(drawn) == []
    assert drawn.width <= 1250


def test_compact_merges_chains_of_alignment() -> None:
    nodes = [
        Node("low", (), "low"),
        Node("high", (), "high"),
        Node("low_project", ("low",), "low", "1×1"),
        Node("low_norm", ("low_project",), "low", "BN"),
        Node("high_project", ("high",), "high", "1×1"),
        Node("high_norm", ("high_project",), "high", "BN"),
        Node("high_resize", ("high_norm",), "high", "resize"),
        Node("sum", ("low_norm", "high_resize"), "", "add"),
    ]
    merged = {n.key: n for n in compact(nodes)}
    assert list(merged) == ["low", "high", "low_norm", "high_resize", "sum"]
    assert merged["high_resize"].title == "1×1, BN, resize"
    assert merged["high_resize"].members == ("high_project", "high_norm", "high_resize")
    assert merged["high_resize"].inputs == ("high",)
    assert merged["sum"].inputs == ("low_norm", "high_resize")
    assert merged["low"].members == ("low",)


def test_gather_puts_many_inputs_of_one_reader_into_one_box() -> None:
    many = [Node(f"x{i}", role={0: "low", 9: "high"}.get(i, ""), title="input") for i in range(10)]
    stack = Node("fused", tuple(n.key for n in many), "fused")
    merged = {n.key: n for n in gather([*many, stack])}
    assert list(merged) == ["x0", "x8", "x9", "fused"]
    assert merged["x8"].members == tuple(f"x{i}" for i in range(1, 9))
    assert merged["fused"].inputs == ("x0", "x8", "x9")
    few = [Node("a"), Node("b"), Node("c"), Node("z", ("a", "b", "c"))]
    assert gather(few) == few


def test_gather_leaves_an_input_that_somebody_else_reads() -> None:
    many = [Node(f"x{i}") for i in range(8)]
    nodes = [*many, Node("off", ("x3",)), Node("z", ("x0", "x1", "x2", "off", "x4", "x5", "x6", "x7"))]
    merged = {n.key: n for n in gather(nodes)}
    assert set(merged) == {"x3", "off", "x7", "z"}
    assert merged["z"].inputs == ("x7", "off")
    assert len(layout(merged.values(), dict.fromkeys(merged, (80.0, 30.0))).boxes) == 4


def test_compact_leaves_what_others_read() -> None:
    nodes = [
        Node("low", (), "low"),
        Node("a", ("low",), "low", "A"),
        Node("b", ("a",), "low", "B"),
        Node("c", ("a", "b"), "low", "C"),
        Node("w", ("c",), "weight", "W"),
        Node("v", ("w",), "weight", "V"),
    ]
    assert [n.key for n in compact(nodes)] == ["low", "a", "b", "c", "w", "v"]


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_compact_keeps_every_step_once(graph: tuple[list[Node], dict]) -> None:
    nodes, _ = graph
    merged = compact(nodes)
    assert sorted(m for n in merged for m in n.members) == sorted(n.key for n in nodes)
    known: set[str] = set()
    for n in merged:
        assert set(n.inputs) <= known
        known.add(n.key)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="reads \\['x'\\]"):
        layout([Node("a", ("x",))], {"a": (10, 10)})
    with pytest.raises(ValueError, match="comes twice"):
        layout([Node("a"), Node("a")], {"a": (10, 10)})
    assert layout([], {}).boxes == {}
