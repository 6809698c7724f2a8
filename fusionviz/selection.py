"""What a person chose. Hashable and torch-free: it is cache key, permalink and test case at once.

The device is not part of it: it changes no result.
"""

import math
import operator
from dataclasses import dataclass, field, replace

from fusionviz.errors import ParameterError

Value = str | int | float | bool

COLORMAPS = ("viridis", "cividis", "magma", "gray")
SHOWS = ("grid", "mean", "max", "norm", "pca")
RANGES = ("map", "row", "all")
GRIDS = (4, 9, 16, 25)
FITS = ("crop", "pad")
HEADS = ("auto", "fit")
PARTS = ("abs", "arg", "re", "im", "domain")
SEEDS = (0, 2**31 - 1)
GAMMAS = (0.2, 5.0)


def check_seed(seed: int) -> int:
    """Return a seed as an int.

    Raises:
        ParameterError: if it is no whole number that every link, device and release of torch can carry.
    """
    try:
        whole = operator.index(seed)
    except TypeError:
        whole = -1
    if not SEEDS[0] <= whole <= SEEDS[1]:
        raise ParameterError("selection.value", name="seed", received=seed, allowed=f"{SEEDS[0]} … {SEEDS[1]}")
    return whole


def pair(names: tuple[str, ...], defaults: tuple[str, str], low: str | None, high: str | None) -> tuple[str, str]:
    """Complete a pair of levels: one that is not named is the default, or its neighbour's nearest in the right order.

    Args:
        names: all levels, fine to coarse; what is named has to be one of them.
        defaults: (low, high) where neither is named.
    """
    given = low is not None, high is not None
    low, high = (names.index(n if n is not None else d) for n, d in zip((low, high), defaults, strict=True))
    if given == (True, False):
        high = max(high, min(low + 1, len(names) - 1))
    elif given == (False, True):
        low = min(low, max(high - 1, 0))
    return names[low], names[high]


def _check(name: str, value: object, good: bool, allowed: object) -> None:
    if not good:
        allowed = ", ".join(map(str, allowed)) if isinstance(allowed, tuple) else allowed
        raise ParameterError("selection.value", name=name, received=value, allowed=allowed)


@dataclass(frozen=True)
class View:
    """How the board draws a result; nothing here changes a computed number.

    Attributes:
        show: one of SHOWS; "grid" is a square grid of channels, the others one reduced picture.
        grid: how many channels a grid has, one of GRIDS.
        channels: channels chosen by hand, or () for the strongest of the fused map.
        aligned: Low and High as the method sees them; None: only where the alignment is trained or fitted.
        part: part of complex maps: "abs" | "arg" | "re" | "im" | "domain" (both at once, as colour).
        colormap: one of COLORMAPS, for maps without sign.
        gamma: exponent applied to colours, 1 is linear; in GAMMAS.
        range: colour range per "map", per "row" (all maps of a panel) or "all" panels.
        views: (panel, view) pairs where another view of a panel is shown than its first; sorted.
        pin: (x, y) in pixels of the network's input, or None.
        pin_channel: the pinned channel of the fused map, or None.
        frame: where the board's slider stands, if the study has one: a balance in 0 ... 1, or a training step; the
            nearest position there is. None: where it starts.
    """

    show: str = "grid"
    grid: int = 9
    channels: tuple[int, ...] = ()
    aligned: bool | None = None
    part: str = "abs"
    colormap: str = "viridis"
    gamma: float = 1.0
    range: str = "row"
    views: tuple[tuple[str, str], ...] = ()
    pin: tuple[int, int] | None = None
    pin_channel: int | None = None
    frame: float | None = None

    def __post_init__(self) -> None:
        for name, choices in (
            ("show", SHOWS),
            ("grid", GRIDS),
            ("part", PARTS),
            ("colormap", COLORMAPS),
            ("range", RANGES),
        ):
            value = getattr(self, name)
            _check(name, value, value in choices, choices)
        _check("gamma", self.gamma, GAMMAS[0] <= self.gamma <= GAMMAS[1], f"{GAMMAS[0]:g} … {GAMMAS[1]:g}")
        _check("channels", self.channels, min(self.channels, default=0) >= 0, "≥ 0")
        _check("pin_channel", self.pin_channel, (self.pin_channel or 0) >= 0, "≥ 0")
        _check("frame", self.frame, 0 <= (self.frame or 0) < math.inf, "≥ 0")


@dataclass(frozen=True)
class Selection:
    """One study, whole.

    Attributes:
        picture: "sample:NAME" | "folder:NAME" | "upload:DIGEST" | "file:PATH" | "scene:SEED".
        backbone: a key of the backbone catalogue.
        weights: "auto" (the published ones when they are on this machine, else random) | "random" | "file:PATH".
        low, high: levels by name ("s4", "d3"); None: the nearest to s4 and s16.
        method: a key of the method catalogue.
        params: the method's knobs that differ from their defaults, as sorted pairs.
        size: side of the network's input in pixels; None: the one its weights were trained for.
        fit: "crop" (resize, then a square crop) | "pad" (the whole picture, padded).
        crop: centre of the crop as fractions (x, y) of its free travel, (0.5, 0.5) is the middle.
        seed: seed of every random weight, in SEEDS.
        head: whose numbers a method gets: "auto" (those that ship, else those of a fit of this machine), or "fit" (the
            other way round).
        phrase, region, site: for methods that take text, boxes, or an inner site of the network.
        view: how it is drawn.
    """

    picture: str = "scene:21"
    backbone: str = "scene_resnet"
    weights: str = "auto"
    low: str | None = None
    high: str | None = None
    method: str = "aff"
    params: tuple[tuple[str, Value], ...] = ()
    size: int | None = None
    fit: str = "crop"
    crop: tuple[float, float] = (0.5, 0.5)
    seed: int = 0
    head: str = "auto"
    phrase: str | None = None
    region: tuple[int, int, int, int] | None = None
    site: str | None = None
    view: View = field(default_factory=View)

    def __post_init__(self) -> None:
        object.__setattr__(self, "params", tuple(sorted(self.params)))
        object.__setattr__(self, "seed", check_seed(self.seed))
        source = self.weights
        known = source in ("auto", "random") or (isinstance(source, str) and len(source) > 5 and source[:5] == "file:")
        _check("weights", source, known, "auto, random, file:PATH")
        _check("head", self.head, self.head in HEADS, HEADS)

    def with_(self, **changes: object) -> "Selection":
        """Return a copy with `changes`; names of `View` fields go to the view."""
        mine = {k: v for k, v in changes.items() if k in Selection.__dataclass_fields__}
        view = {k: v for k, v in changes.items() if k not in mine}
        if view:
            mine["view"] = replace(self.view, **view)
        return replace(self, **mine)

    @property
    def knobs(self) -> dict[str, Value]:
        """The method's knobs as a dict."""
        return dict(self.params)
