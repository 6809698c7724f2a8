"""Small boards, made of numbers that a test can know."""

from dataclasses import replace

import numpy as np

from fusionviz import layouts, scales
from fusionviz.board import (
    Arithmetic,
    Badge,
    Bar,
    Board,
    BoardFrame,
    BoardSweep,
    Edge,
    Label,
    Map,
    Mark,
    Node,
    Panel,
    PanelView,
)
from fusionviz.texts import text

SIZE = (64, 64)
STRIDE_4 = {"stride": (4.0, 4.0), "offset": (0.5, 0.5)}
STRIDE_16 = {"stride": (16.0, 16.0), "offset": (0.5, 0.5)}


BOXES = (
    Mark((15, 6, 37, 35), "ring 0.93", (0, 3)),
    Mark((40, 10, 60, 30), "圆盘 0.71", (1, 3)),
    Mark((-4, 42, 20, 70), "a label that is far too long for its box 0.55", (2, 3)),
    Mark((42, 13, 59, 33), "square 0.40", (2, 3)),
    Mark((18, 15, 33, 30), level=(0, 3), faint=True),
    Mark((35, 45, 55, 60)),
    Mark((float("nan"), 0, 8, 8), "nowhere", (0, 3)),
)
"""Boxes of three levels, one that leaves the picture, one for comparison, one without words, and one nowhere."""

WAY = (
    Mark((32, 32, 32, 32), "1", (0, 3)),
    Mark((24, 24, 40, 40), level=(0, 3), faint=True),
    Mark((50, 15, 50, 15), "2", (1, 3), follows=True),
    Mark((12, 20, 12, 20), "3", (2, 3), follows=True),
    Mark((0, 64, 0, 64), "4", follows=True),
    Mark((55, 55, 55, 55), faint=True),
)
"""Where somebody looked, one after the other."""

ON_SECOND = (Mark((16, 16, 48, 48), "here", (0, 2), on=1), Mark((8, 56, 8, 56), "1", (1, 2)))


def picture() -> np.ndarray:
    y, x = np.mgrid[:64, :64]
    return np.stack([4 * x, 4 * y, 255 - 2 * x - 2 * y], -1).astype(np.uint8)


def channels(count: int, side: int, *, signed: bool = False, seed: int = 0) -> tuple[Map, ...]:
    values = np.random.default_rng(seed).normal(size=(count, side, side)).astype(np.float32)
    return tuple(Map(v if signed else np.abs(v), str(3 * c), 3 * c) for c, v in enumerate(values))


def weight_views(kind: str, language: str) -> tuple[PanelView, ...]:
    def say(key: str, **values: object) -> str:
        return text(key, language, **values)

    note = {"en": "0.05 … 0.95, mean 0.50; low + high = 1", "zh": "0.05 … 0.95，均值 0.50；低层 + 高层 = 1"}[language]
    place = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    if kind == "element":
        maps = tuple(Map(place, m.label, m.channel) for m in channels(9, 16))
        return (
            PanelView("place", say("view.mean_place"), "9 × 16 × 16", "maps", "weight", maps=(Map(place),), note=note),
            PanelView("channels", say("view.channels"), "9 × 16 × 16", "maps", "weight", maps=maps, **STRIDE_4),
        )
    if kind == "place":
        return (
            PanelView(
                "place", say("view.place"), "1 × 16 × 16", "maps", "weight",
                maps=(Map(place),), over_picture=True, note=note, **STRIDE_4,
            ),
        )  # fmt: skip
    if kind == "bars":
        bars = tuple(Bar(str(3 * i), 1 - i / 64, 3 * i) for i in range(64))
        ends = (*range(5), 60, 61, 62, 63)
        maps = tuple(Map(m.values, str(3 * i), 3 * i) for i, m in zip(ends, channels(9, 16), strict=True))
        return (PanelView("bars", say("view.bars"), "64 × 1 × 1", "bars", "gate", maps=maps, bars=bars, **STRIDE_4),)
    if kind in ("mix", "each"):
        low, middle = place / 2, (1 - place) / 3
        values = {"s4": low, "s8": middle, "s16": 1 - low - middle}
        maps = tuple(Map(v, name, level=(i, 3)) for i, (name, v) in enumerate(values.items()))
        rgb = Map(scales.mixture(np.stack(list(values.values())), scales.branch_colours(3)))
        mix = PanelView("mix", say("view.mix"), "3 × 16 × 16", scale="rgb", maps=(rgb,), shares=maps, note=note,
                        over_picture=True, title=say("attention.level_weights"), **STRIDE_4)  # fmt: skip
        each = PanelView("each", say("view.each"), "3 × 16 × 16", scale="gate", maps=maps, note=note, **STRIDE_4)
        return (mix, each) if kind == "mix" else (each, mix)
    if kind == "graph":
        nodes = (
            Node("C4", 0.1, 0.9, (0, 2)), Node("C16", 0.1, 0.2, (1, 2)), Node("T4", 0.9, 0.9, (0, 2), fused=True),
        )  # fmt: skip
        edges = (Edge(0, 2, 0.7, "0.70", (0.5, 0.9), (0.5, 0.9)), Edge(1, 2, 0.3, "0.30", (0.5, 0.55), (0.5, 0.55)))
        heads = (
            Label(0.15, 0.04, say("ways.backbone"), align="center"),
            Label(0.85, 0.04, say("ways.down"), align="center"),
        )
        title = say("attention.edges")
        return (
            PanelView(
                "graph", say("view.graph"), "", "graph", note=note, nodes=nodes, edges=edges, labels=heads, title=title
            ),
        )
    if kind == "rows":
        maps = tuple(Map(place * (i + 1) / 4, say("view.head", n=i + 1)) for i in range(4))
        return (PanelView("rows", say("view.head_rows"), "4 × 16 × 16", scale="amount", maps=maps, note=note,
                          over_picture=True, asks=(10.5, 50.5), **STRIDE_4),)  # fmt: skip
    if kind == "marks":
        maps = tuple(Map(place * (i + 1) / 4, say("view.head", n=i + 1)) for i in range(4))
        heads = PanelView("rows", say("view.head_rows"), "4 × 16 × 16", scale="amount", maps=maps, note=note,
                          marks=ON_SECOND, **STRIDE_4)  # fmt: skip
        way = PanelView("place", say("view.place"), "1 × 16 × 16", "maps", "weight", maps=(Map(place),), note=note,
                        over_picture=True, marks=WAY, **STRIDE_4)  # fmt: skip
        return way, heads
    bars = (Bar(say("roles.low"), 0.37), Bar(say("roles.high"), 0.63))
    return (PanelView("branches", say("view.branches"), "2 × 1 × 1 × 1", "numbers", "weight", bars=bars, note=note),)


def pyramid(language: str) -> PanelView:
    """Levels of 16, 8 and 4 cells above one map of 16: each cell of level i has the number i + its row / 100."""
    cells = (16, 8, 4)
    above, below = layouts.staircase([cells, cells[:1]])
    maps = [
        Map(np.broadcast_to((i + 1 + np.arange(n) / 100)[:, None], (n, n)).astype(np.float32), f"C{64 // n}", None,
            (i, 3), (64 / n, 64 / n), (32 / n, 32 / n), box)
        for i, (n, box) in enumerate(zip(cells, above, strict=True))
    ]  # fmt: skip
    out = Map(10 * maps[0].values, "Z", None, (0, 3), (4.0, 4.0), (2.0, 2.0), below[0], 1)
    sizes = [text("panel.shape", language, shape=f"{n} × {n}", stride=str(64 // n)) for n in cells]
    labels = layouts.legend(maps, sizes)
    return PanelView(
        "pyramid", text("view.pyramid", language), "C4–C16 → Z", scale="amount", maps=(*maps, out), labels=labels
    )


def board(kind: str = "place", language: str = "en", *, random: bool = True, signed: bool = False) -> Board:
    """Return a board of five panels; the fused map is exactly what its arithmetic says."""

    def say(key: str, **values: object) -> str:
        return text(key, language, **values)

    low, high = channels(9, 16, seed=1), channels(9, 4, signed=signed, seed=2)
    aligned = tuple(Map(np.kron(m.values, np.ones((4, 4), np.float32)), m.label, m.channel) for m in high)
    weight = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    fused = tuple(
        Map(weight * a.values + (1 - weight) * b.values, a.label, a.channel) for a, b in zip(low, aligned, strict=True)
    )
    scale = "signed" if signed else "sequential"
    kinds = {"random": Badge("random", say("provenance.random")), "known": Badge("bundled", say("provenance.bundled"))}
    badge = kinds["random" if random else "known"]
    shape = say("panel.shape", shape="64 × 16 × 16", stride="4")
    level = {
        r: say("panel.level", role=say(f"roles.{r}"), letter=x)
        for r, x in zip(("low", "high", "fused"), "XYZ", strict=True)
    }
    shapes = {
        "own": say("panel.shape", shape="256 × 4 × 4", stride="16"),
        "aligned": say("panel.shape", shape="256 × 4 × 4 → 64 × 16 × 16", stride="4"),
    }
    views = {
        "low": (PanelView("own", say("view.own"), shape, maps=low, **STRIDE_4),),
        "high": (
            PanelView("own", say("view.own"), shapes["own"], "maps", scale, maps=high, **STRIDE_16),
            PanelView("aligned", say("view.aligned"), shapes["aligned"], "maps", scale, maps=aligned, **STRIDE_4),
        ),
        "fused": (PanelView("fused", say("view.channels"), shape, maps=fused, **STRIDE_4), pyramid(language)),
    }
    chooses = kind in ("element", "place")
    title = "attention.channel_gate" if kind == "bars" else "attention.weight"
    of = "low" if title == "attention.weight" else "sum"
    equation = "{z} = {gain} · ({low} · {x} + (1 − {low}) · {y})"
    sources = {"z": ("fused", "fused"), "x": ("low", "own"), "y": ("high", "aligned"), "low": ("weight", "place")}
    return Board(
        SIZE,
        (
            Panel(
                "picture", "picture", say("roles.picture"),
                (PanelView("seen", say("panel.seen"), "3 × 64 × 64", scale="rgb", maps=(Map(picture()),),
                           marks=BOXES if kind == "marks" else ()),),
            ),
            Panel("low", "low", level["low"], views["low"], 0, kinds["known"]),
            Panel("high", "high", level["high"], views["high"], 0, kinds["known"]),
            Panel(
                "weight", "weight", say(title, of=say(f"attention.of.{of}")), weight_views(kind, language), 0, badge,
                of if of == "low" else "",
            ),
            Panel("fused", "fused", level["fused"], views["fused"], 0, badge),
        ),
        tuple(m.channel for m in low),
        Arithmetic(equation, sources, {"gain": 1.0}) if chooses else None,
        say("panel.caption", backbone="resnet18", low="s4", high="s16", method="AFF", provenance=badge.text),
        "A picture by its author, CC0, from a collection",
    )  # fmt: skip


def swept(kind: str = "place", language: str = "en") -> Board:
    """Return the board with a slider of three positions: the fused map grows from each to the next."""
    base = board(kind, language)
    frames = []
    for i, value in enumerate((0.0, 0.5, 1.0)):
        shown, pyramid_view = base["fused"].views
        maps = tuple(replace(m, values=m.values * np.float32(1 + i)) for m in shown.maps)
        panels = (*base.panels[:-1], replace(base.panels[-1], views=(replace(shown, maps=maps), pyramid_view)))
        facts = "，".join(("低层权重均值 0.53", "边缘处 0.58")) if language == "zh" else f"mean weight of low 0.5{i}"
        frames.append(BoardFrame(value, value, f"{value:.2f}", facts, 0.5, panels, base.arithmetic))
    sweep = BoardSweep("balance", "Balance", ("detail", "meaning"), "curve", tuple(frames), 1, 1)
    return replace(base, sweep=sweep).at(1)
