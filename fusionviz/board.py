"""What the board shows, as plain arrays: the same record is drawn by the browser, by matplotlib and tested.

No torch, no drawing. `panels` makes a Board of a study; `ui/components/board` packs it for the browser;
`figures` draws it for slides.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

ROLES = ("picture", "low", "high", "weight", "fused")
KINDS = ("maps", "bars", "numbers", "graph")
SCALES = ("sequential", "amount", "signed", "weight", "gate", "phase", "rgb")


@dataclass(frozen=True)
class Map:
    """One map to draw.

    Attributes:
        values: float32 [h w], or uint8 [h w 3] where the view's scale is "rgb".
        label: what stands on it, for example a channel's number.
        channel: the channel it shows, or None for a reduced picture.
        level: (position, how many) of the level that it belongs to, fine to coarse, whose colour its label has.
        stride, offset: of its cells, where they are not the view's: maps of several levels side by side.
        box: (x, y, side) as parts of the panel, where maps stand in no grid.
        row: maps of one row share a range of colours.
    """

    values: np.ndarray
    label: str = ""
    channel: int | None = None
    level: tuple[int, int] | None = None
    stride: tuple[float, float] | None = None
    offset: tuple[float, float] | None = None
    box: tuple[float, float, float] | None = None
    row: int = 0


@dataclass(frozen=True)
class Bar:
    """One number to draw as a bar or a figure, for example a channel's weight; `level` as of a Map."""

    label: str
    value: float
    channel: int | None = None
    level: tuple[int, int] | None = None


@dataclass(frozen=True)
class Mark:
    """Something drawn over a view's maps, at its place in the picture.

    Attributes:
        box: (x0, y0, x1, y1) in pixels of the network's input; a dot has x0 = x1 and y0 = y1.
        label: what stands on its edge ("ring 0.93") or in its dot ("1"), or "".
        level: (position, how many) of the level whose colour it has; None: the pin's colour.
        on: position of the view's map that it is drawn on; None: on all of them.
        follows: a line leads here from the mark before.
        faint: it is there for comparison, or a further window of the same place: thin, without words.
    """

    box: tuple[float, float, float, float]
    label: str = ""
    level: tuple[int, int] | None = None
    on: int | None = None
    follows: bool = False
    faint: bool = False


@dataclass(frozen=True)
class Label:
    """Words at a place of a panel: (x, y) as parts of it, y of the middle of the line.

    Attributes:
        name: what stands first, in the colour of its level, if it has one.
        text: what follows.
        room: the width that it may have, as a part of the panel; labels of one view are all of one size.
        align: "left" | "center", where x is.
    """

    x: float
    y: float
    text: str
    name: str = ""
    room: float = 1.0
    align: str = "left"
    level: tuple[int, int] | None = None


@dataclass(frozen=True)
class Node:
    """A map of a graph, drawn as a disc at (x, y), parts of the panel; `fused`: it makes the fused map.

    `radius` is a part of the panel's shorter side.
    """

    label: str
    x: float
    y: float
    level: tuple[int, int]
    fused: bool = False
    radius: float = 0.058


@dataclass(frozen=True)
class Edge:
    """One term of a node of a graph.

    Attributes:
        start, end: positions of its nodes.
        share: its part of all terms of that node, 0 ... 1: how thick it is.
        text: its number, or "".
        through: the point that bends it, as of a quadratic curve, parts of the panel.
        mark: where its number stands.
    """

    start: int
    end: int
    share: float
    text: str
    through: tuple[float, float]
    mark: tuple[float, float]


@dataclass(frozen=True)
class PanelView:
    """One way to show a panel; the browser switches between a panel's views without the server.

    Attributes:
        key: "channels" | "mean" | "max" | "norm" | "pca" | "aligned" | "aligned-mean" | "place" | "bars" | ...
        label: its name for people.
        shape: `64 × 56 × 56 · stride 4`.
        kind: "maps" (a square grid of maps; one map fills it; maps with boxes stand there) | "bars" (sorted bars
            beside `maps`, their channels' pictures) | "numbers" (a few bars, one per branch) | "graph" (nodes, edges).
        scale: one of SCALES. "sequential" starts at its minimum, "amount" at zero; "signed" is symmetric around zero;
            "weight" runs from 0 (high wins, orange) over 0.5 to 1 (low wins, blue); "gate" runs from 0 to 1 in one
            hue; "phase" is cyclic over -pi ... pi; "rgb" needs no scale.
        stride, offset: (y, x) of the maps' cells in pixels of the network's input; offset is the centre of cell (0, 0).
        maps, bars: the data.
        over_picture: draw the map over the grey picture (weights per place).
        note: one sentence under the panel, or "".
        shares: of an "rgb" map that mixes the colours of levels, the numbers behind it: one map [h w] for each level.
        nodes, edges: of a graph.
        labels: words that stand in the panel.
        marks: boxes and dots drawn over its maps, in this order.
        asks: (x, y) in pixels of the network's input of the place whose row of attention this is, drawn as a ring.
        placed: whether its maps lie over the picture; pieces cut out of it do not, and no place is marked on them.
        title, of: instead of the panel's, while this view is shown; "" keeps it.
    """

    key: str
    label: str
    shape: str
    kind: str = "maps"
    scale: str = "sequential"
    stride: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.5, 0.5)
    maps: tuple[Map, ...] = ()
    bars: tuple[Bar, ...] = ()
    over_picture: bool = False
    note: str = ""
    shares: tuple[Map, ...] = ()
    nodes: tuple[Node, ...] = ()
    edges: tuple[Edge, ...] = ()
    labels: tuple[Label, ...] = ()
    marks: tuple[Mark, ...] = ()
    asks: tuple[float, float] | None = None
    placed: bool = True
    title: str = ""
    of: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"view '{self.key}': kind is one of {', '.join(KINDS)}, not {self.kind!r}")
        if self.scale not in SCALES:
            raise ValueError(f"view '{self.key}': scale is one of {', '.join(SCALES)}, not {self.scale!r}")
        for m in self.maps:
            want = 3 if self.scale == "rgb" else 2
            if m.values.ndim != want:
                raise ValueError(f"view '{self.key}': a map of scale {self.scale} has {want} axes, not {m.values.ndim}")

    @property
    def apart(self) -> bool:
        """Whether its maps are no channels of one map: levels side by side, or heads of attention."""
        return self.kind == "maps" and len(self.maps) > 1 and all(m.channel is None for m in self.maps)

    def cells(self, m: Map) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return (stride, offset) of the cells of one of its maps."""
        return m.stride or self.stride, m.offset or self.offset


@dataclass(frozen=True)
class Badge:
    """Where a panel's learned numbers come from: `kind` as in Provenance, `text` for people, `help` on pointing."""

    kind: str
    text: str
    help: str = ""


@dataclass(frozen=True)
class Panel:
    """One panel: title, badge, and one or more views of which `view` is shown first.

    Attributes:
        of: whose weight the weight panel shows, coloured like it: "low" | "high" | "".
    """

    id: str
    role: str
    title: str
    views: tuple[PanelView, ...]
    view: int = 0
    badge: Badge | None = None
    of: str = ""

    @property
    def shown(self) -> PanelView:
        return self.views[self.view]

    @property
    def heading(self) -> tuple[str, str]:
        """The title while its view is shown, and the level that it speaks of."""
        shown = self.shown
        return (shown.title, shown.of) if shown.title else (self.title, self.of)


@dataclass(frozen=True)
class Arithmetic:
    """The equation for one element, to be filled with the numbers under the crosshair.

    Attributes:
        template: for example "{z} = {low} · {x} + (1 − {low}) · {y}".
        sources: for each name in it, the (panel id, view key) whose map of the pinned channel holds the number.
        constants: for the names that are no map.
    """

    template: str
    sources: dict[str, tuple[str, str]]
    constants: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class BoardFrame:
    """The board at one position of its slider.

    Attributes:
        value: of the slider, as `View.frame` and links have it.
        place: where on the slider it stands, 0 ... 1.
        text: the value for people: "0.46", "120".
        facts: one sentence of what was measured there, or "".
        height: of the curve over the slider, 0 ... 1, or None where nothing was measured.
        panels: as the board's own: the same ids, views, scales and channels in the same order, so that nothing jumps;
            labels of maps may differ, as they may say numbers.
        arithmetic: the board's, with the constants of this position.
    """

    value: float
    place: float
    text: str
    facts: str
    height: float | None
    panels: tuple[Panel, ...]
    arithmetic: Arithmetic | None = None


@dataclass(frozen=True)
class BoardSweep:
    """A slider and all its positions, so that going through them needs no server.

    Attributes:
        kind: "balance" | "step"; a balance runs from the colour of low to the colour of high.
        label: what is slid: "Balance"; `ends` stand at its two ends, `curve` says what the curve shows.
        frames: by rising place, at least two.
        start: the position where nobody has moved it.
        at: the position that the board's own panels show.
    """

    kind: str
    label: str
    ends: tuple[str, str]
    curve: str
    frames: tuple[BoardFrame, ...]
    start: int
    at: int

    def __post_init__(self) -> None:
        alike = {tuple((p.id, *map(_form, p.views)) for p in frame.panels) for frame in self.frames}
        if len(alike) != 1:
            raise ValueError("frames of one sweep have the same panels, views, scales and channels")


def _form(view: PanelView) -> tuple:
    """What of a view must not change from frame to frame."""
    maps = tuple((m.channel, m.level, m.box, m.values.shape) for m in (*view.maps, *view.shares))
    edges = tuple((e.start, e.end) for e in view.edges)
    return view.key, view.label, view.kind, view.scale, maps, tuple((b.label, b.channel) for b in view.bars), edges


@dataclass(frozen=True)
class Board:
    """The whole board.

    Attributes:
        size: (h, w) of the network's input in pixels.
        channels: the fused channels shown.
        sweep: its slider, if it has one; `panels` and `arithmetic` are then those of `sweep.frames[sweep.at]`.
    """

    size: tuple[int, int]
    panels: tuple[Panel, ...]
    channels: tuple[int, ...] = ()
    arithmetic: Arithmetic | None = None
    caption: str = ""
    credit: str = ""
    sweep: BoardSweep | None = None

    def __getitem__(self, panel: str) -> Panel:
        return next(p for p in self.panels if p.id == panel)

    def at(self, position: int) -> "Board":
        """Return the board at a position of its slider."""
        frame = self.sweep.frames[position]
        shown = {p.id: p.view for p in self.panels}
        panels = tuple(replace(p, view=shown[p.id]) for p in frame.panels)
        return replace(self, panels=panels, arithmetic=frame.arithmetic, sweep=replace(self.sweep, at=position))

    def versions(self, panel: str, view: str) -> tuple[PanelView, ...]:
        """Return a view at every position of the slider: their maps share one range of colours."""
        panels = [frame.panels for frame in self.sweep.frames] if self.sweep else [self.panels]
        return tuple(v for found in panels for p in found if p.id == panel for v in p.views if v.key == view)

    def with_views(self, chosen: Iterable[tuple[str, str]]) -> "Board":
        """Return the board with these (panel, view) first; a view that a panel does not have changes nothing."""
        wanted = dict(chosen)
        panels = []
        for panel in self.panels:
            keys = [view.key for view in panel.views]
            key = wanted.get(panel.id)
            panels.append(replace(panel, view=keys.index(key)) if key in keys else panel)
        return replace(self, panels=tuple(panels))
