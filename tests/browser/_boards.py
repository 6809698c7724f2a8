"""Synthetic boards for the tests of the board: plausible maps of photographs that come with scikit-image."""

from dataclasses import replace
from functools import cache

import numpy as np
import skimage.data
from skimage.transform import resize

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

SIDE = 128
CHANNELS = (27, 3, 40, 12, 8, 31, 5, 44, 19)
LOW = {"stride": (4.0, 4.0), "offset": (2.0, 2.0)}
HIGH = {"stride": (16.0, 16.0), "offset": (8.0, 8.0)}


@cache
def photograph(name: str = "astronaut") -> np.ndarray:
    """Return a photograph as the network would see it, uint8 [side side 3]."""
    whole = getattr(skimage.data, name)()
    side = min(whole.shape[:2])
    square = resize(whole[:side, :side], (SIDE, SIDE), anti_aliasing=True)
    return np.round(square * 255).astype(np.uint8)


def features(picture: np.ndarray, side: int, seed: int) -> np.ndarray:
    """Return plausible features [9 side side]: mixtures of colour and edges after a ReLU."""
    rng = np.random.default_rng(seed)
    small = resize(picture / 255, (side, side), anti_aliasing=True)
    grey = small.mean(-1)
    dy, dx = np.gradient(grey)
    planes = np.stack([*small.transpose(2, 0, 1), 4 * np.abs(dx), 4 * np.abs(dy), 4 * np.hypot(dx, dy), 1 - grey])
    planes -= planes.mean((1, 2), keepdims=True)
    mixed = np.tensordot(rng.normal(size=(len(CHANNELS), len(planes))), planes, 1)
    return np.maximum(6 * mixed + 0.4, 0).astype(np.float32)


def grid(values: np.ndarray, channels=CHANNELS) -> tuple[Map, ...]:
    """Return one Map for each channel."""
    return tuple(Map(v, str(c), c) for v, c in zip(values, channels, strict=True))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def attentional(words: dict, *, random: bool = True, towards_low: float = 0.0) -> Board:
    """Return a board as of AFF: a weight per element, its mean over channels, and its bars."""
    picture = photograph()
    low, high = features(picture, 32, 1), features(picture, 8, 2)
    near = high.repeat(4, 1).repeat(4, 2)  # high brought to low's size
    weight = sigmoid(1.3 * (low - near) + towards_low).astype(np.float32)
    fused = weight * low + (1 - weight) * near
    own_low = PanelView("own", words["own"], "64 × 32 × 32 · stride 4", maps=grid(0.6 * low, range(9)), **LOW)
    low_met = PanelView("aligned", words["aligned"], "64 × 32 × 32 → 48 × 32 × 32 · stride 4", maps=grid(low), **LOW)
    own = PanelView("own", words["own"], "256 × 8 × 8 · stride 16", maps=grid(high, range(100, 109)), **HIGH)
    met = PanelView("aligned", words["aligned"], "256 × 8 × 8 → 48 × 32 × 32 · stride 4", maps=grid(near), **LOW)
    per_channel = weight.mean((1, 2))
    everywhere = np.random.default_rng(5).beta(4, 3, 64)
    everywhere[list(CHANNELS)] = per_channel
    order = np.argsort(-everywhere)
    ends = [int(c) for c in (*order[:5], *order[-4:], 27)]
    pictures = np.concatenate([features(picture, 32, 8), fused[:1]])
    bars = tuple(Bar(str(c), float(everywhere[c]), int(c)) for c in order)
    badge = Badge("random", words["random"]) if random else Badge("bundled", words["bundled"])
    plain = Badge("pretrained", words["pretrained"])
    note = words["note"]
    views = (
        PanelView("place", words["place"], "48 × 32 × 32", scale="weight", maps=(Map(weight.mean(0), words["mean"]),),
                  over_picture=True, note=note, **LOW),
        PanelView("channels", words["channels"], "48 × 32 × 32", scale="weight", maps=grid(weight), note=note, **LOW),
        PanelView("bars", words["bars"], "48 × 1 × 1", kind="bars", scale="weight", maps=grid(pictures, ends),
                  bars=bars, note=note, **LOW),
    )  # fmt: skip
    seen = PanelView("seen", words["seen"], "3 × 128 × 128", scale="rgb", maps=(Map(picture),))
    out = PanelView("fused", words["channels"], "48 × 32 × 32 · stride 4", maps=grid(fused), **LOW)
    return Board(
        (SIDE, SIDE),
        (
            Panel("picture", "picture", words["picture"], (seen,)),
            Panel("low", "low", words["low"], (own_low, low_met), 1, plain),
            Panel("high", "high", words["high"], (own, met), 1, plain),
            Panel("weight", "weight", words["weight"], views, 0, badge, "low"),
            Panel("fused", "fused", words["fused"], (out,), 0, badge),
        ),
        CHANNELS,
        Arithmetic(
            "{z} = {gain} · ({low} · {x} + (1 − {low}) · {y})",
            {"x": ("low", "aligned"), "y": ("high", "aligned"), "z": ("fused", "fused"), "low": ("weight", "channels")},
            {"gain": 1.0},
        ),
        words["caption"],
        "NASA",
    )


BALANCES = (0.0, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0)
START = 3


def swept(words: dict) -> Board:
    """Return a board with a slider: the weight of low falls from the first position to the last."""
    boards = [attentional(words, towards_low=6 * (0.5 - value)) for value in BALANCES]
    first = boards[START]["weight"].views[2].bars
    frames = []
    for value, board in zip(BALANCES, boards, strict=True):
        weight = board["weight"]
        mean = float(weight.views[0].maps[0].values.mean())
        known = {bar.channel: bar for bar in weight.views[2].bars}
        start = boards[START]["weight"].views[2]
        bars = replace(start, bars=tuple(replace(known[bar.channel], label=bar.label) for bar in first))
        panels = tuple(replace(p, views=(*p.views[:2], bars)) if p.id == "weight" else p for p in board.panels)
        dot = Mark((16 + 96 * value, 112, 16 + 96 * value, 112), f"{value:.1f}", (0, 2))
        panels = (replace(panels[0], views=(replace(panels[0].shown, marks=(dot,)),)), *panels[1:])
        facts = f"mean weight of low {mean:.2f}"
        frames.append(BoardFrame(value, value, f"{value:.2f}", facts, mean, panels, board.arithmetic))
    sweep = BoardSweep("balance", "Balance", ("detail", "meaning"), "Curve", tuple(frames), START, START)
    return replace(boards[START], panels=frames[START].panels, sweep=sweep)


def odd(words: dict) -> Board:
    """Return a board of what is rare: constant, zero, signed, phase, gate, numbers, holes, a grid that stops early."""
    base = attentional(words, random=False)
    picture = photograph("coffee")
    yy, xx = np.mgrid[0:32, 0:32].astype(np.float32)
    turn = np.angle(np.exp(1j * np.arctan2(yy - 15.5, xx - 15.5))).astype(np.float32)
    signed = features(picture, 32, 3) - 2
    holed = features(picture, 32, 4)
    holed[0, 4:9, 6:20] = np.nan
    holed[1, 20, 20] = np.inf
    flat = np.stack([np.full((8, 8), 0.25), np.zeros((8, 8)), *features(picture, 8, 6)[:3]]).astype(np.float32)
    gate = sigmoid(features(picture, 16, 7)[:1] - 1).astype(np.float32)
    between = {"stride": (8.0, 8.0), "offset": (3.5, 3.5)}  # as after an odd padding: not half a stride

    def one(name: str, role: str, title: str, key: str, shape: str, **rest) -> Panel:
        return Panel(name, role, title, (PanelView(key, words["channels"], shape, **rest),))

    branches = (Bar(words["low"], 0.63), Bar(words["high"], 0.37))
    levels = (Bar("s4", 0.21), Bar("s8", 0.48), Bar("s16", 0.31))
    several = (
        PanelView("branches", words["branches"], "2 × 1 × 1", kind="numbers", scale="weight", bars=branches),
        PanelView("three", "3", "3 × 1 × 1", kind="numbers", scale="gate", bars=levels),
        PanelView("place", words["place"], "16 × 16", scale="gate", maps=(Map(gate[0]),), over_picture=True, **between),
    )
    panels = (
        replace(base["picture"], views=(replace(base["picture"].shown, maps=(Map(picture),)),)),
        one("low", "low", words["low"], "own", "5 × 8 × 8", maps=grid(flat, CHANNELS[:5]), **HIGH),
        one("high", "high", words["high"], "own", "1 × 32 × 32", scale="phase", maps=(Map(turn),), **LOW),
        one("signed", "fused", "Signed", "own", "9 × 32 × 32", scale="signed", maps=grid(signed), **LOW),
        one("holes", "fused", "Holes", "own", "9 × 32 × 32", maps=grid(holed), **LOW),
        Panel("gate", "weight", "Gate", several, 0, Badge("fitted", words["fitted"]), "low"),
    )
    return replace(base, panels=panels, arithmetic=None, credit="Rachel Michetti")


def levels(words: dict) -> Board:
    """Return a board of several levels: their weights mixed, a graph, rows of attention, and a pyramid in Fused."""
    base = attentional(words)
    picture = photograph()
    scores = np.stack([features(picture, 32, seed)[0] for seed in (11, 12, 13)])
    shares = (np.exp(scores) / np.exp(scores).sum(0)).astype(np.float32)
    named = tuple(Map(v, f"s{4 * 2**i}", level=(i, 3)) for i, v in enumerate(shares))
    nodes = (Node("C4", 0.1, 0.9, (0, 2)), Node("C8", 0.1, 0.2, (1, 2)), Node("T4", 0.9, 0.9, (0, 2), fused=True))
    edges = (Edge(0, 2, 0.7, "0.70", (0.5, 0.9), (0.5, 0.9)), Edge(1, 2, 0.3, "0.30", (0.5, 0.55), (0.5, 0.55)))
    heads = tuple(Map(features(picture, 8, seed)[0] / 50, f"head {seed}") for seed in (1, 2, 3, 4))
    views = (
        PanelView("mix", "levels", "3 × 32 × 32", scale="rgb", shares=named, over_picture=True,
                  maps=(Map(scales.mixture(shares, scales.branch_colours(3))),), **LOW),
        PanelView("graph", "graph", "1 node", "graph", nodes=nodes, edges=edges, title="Weights of the edges",
                  labels=(Label(0.15, 0.04, "backbone", align="center"),)),
        PanelView("rows", "heads", "4 × 8 × 8", scale="amount", maps=heads, asks=(40.0, 72.0), **HIGH),
    )  # fmt: skip
    above, below = layouts.staircase([[32, 16, 8]] * 2)
    maps = []
    for row, (letter, boxes) in enumerate((("C", above), ("P", below))):
        for i, box in enumerate(boxes):
            side = 32 // 2**i
            stride = SIDE / side
            values = (1 + 9 * row) * features(picture, side, 20 + row)[0]
            place = ((stride, stride), (stride / 2, stride / 2))
            maps.append(Map(values, f"{letter}{stride:g}", None, (i, 3), *place, box, row))
    legend = layouts.legend(maps[:3], ["32 × 32", "16 × 16", "8 × 8"])
    pyramid = PanelView("pyramid", "pyramid", "C4–C16 → P4–P16", scale="amount", maps=tuple(maps), labels=legend)
    weight = replace(base["weight"], views=views, view=0, title="Weights of the levels", of="")
    fused = replace(base["fused"], views=(*base["fused"].views, pyramid), view=1)
    return replace(base, panels=(*base.panels[:3], weight, fused), arithmetic=None)


def marked(words: dict) -> Board:
    """Return a board with boxes on the picture, dots and their way on a weight, and both on a grid of maps."""
    base = attentional(words)
    weight = base["weight"].views
    seen = replace(base["picture"].shown, marks=BOXES)
    place = replace(weight[0], marks=WAY)
    heads = tuple(Map(features(photograph(), 8, seed)[0] / 50, f"head {seed}") for seed in (1, 2, 3, 4))
    four = PanelView("rows", "heads", "4 × 8 × 8", scale="amount", maps=heads, marks=ON_SECOND, **HIGH)
    nine = replace(weight[1], marks=(*BOXES[:2], *WAY[:3]))
    low = base["low"].views
    aligned = replace(low[1], maps=low[1].maps[:1], scale="signed", marks=BOXES)
    panels = {
        "picture": replace(base["picture"], views=(seen,)),
        "low": replace(base["low"], views=(low[0], aligned)),
        "weight": replace(base["weight"], views=(place, nine, four)),
    }
    return replace(base, panels=tuple(panels.get(p.id, p) for p in base.panels), arithmetic=None)


BOXES = (
    Mark((30, 12, 74, 70), "ring 0.93", (0, 3)),
    Mark((80, 20, 120, 60), "圆盘 0.71", (1, 3)),
    Mark((-8, 84, 40, 140), "a label that is far too long for its box 0.55", (2, 3)),
    Mark((84, 26, 118, 66), "square 0.40", (2, 3)),
    Mark((36, 30, 66, 60), level=(0, 3), faint=True),
    Mark((70, 90, 110, 120)),
)
"""Boxes of three levels, one that leaves the picture, one for comparison, one of no level and without words."""

WAY = (
    Mark((64, 64, 64, 64), "1", (0, 3)),
    Mark((48, 48, 80, 80), level=(0, 3), faint=True),
    Mark((100, 30, 100, 30), "2", (1, 3), follows=True),
    Mark((24, 60, 24, 60), "3", (2, 3), follows=True),
    Mark((0, 127, 0, 127), "4", follows=True),
    Mark((110, 110, 110, 110), faint=True),
)
"""Where somebody looked, one after the other."""

ON_SECOND = (Mark((32, 32, 96, 96), "here", (0, 2), on=1), Mark((16, 112, 16, 112), "1", (1, 2)))


WORDS = {
    "en": {
        "own": "own", "aligned": "aligned", "place": "place", "channels": "channels", "bars": "bars", "mean": "mean",
        "branches": "branches", "seen": "as the network saw it", "picture": "Picture", "low": "Low X", "high": "High Y",
        "weight": "Weight of low", "fused": "Fused Z", "random": "random weights", "bundled": "trained here",
        "pretrained": "pretrained", "fitted": "fitted now", "note": "0.02 … 0.99, mean 0.55; low + high = 1",
        "caption": "resnet18 · s4 + s16 · AFF · random weights",
    },
    "zh": {
        "own": "自身", "aligned": "对齐", "place": "位置", "channels": "通道", "bars": "条形", "mean": "均值",
        "branches": "分支", "seen": "网络所见", "picture": "图片", "low": "低层 X", "high": "高层 Y",
        "weight": "低层的权重", "fused": "融合 Z", "random": "随机权重",
        "bundled": "本项目训练", "pretrained": "预训练", "fitted": "刚刚拟合",
        "note": "0.02 … 0.99，均值 0.55；低层 + 高层 = 1", "caption": "resnet18 · s4 + s16 · AFF · 随机权重",
    },
}  # fmt: skip
