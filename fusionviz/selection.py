"""What a person chose. Hashable and torch-free: it is cache key, permalink and test case at once.

The device is not part of it: it changes no result.
"""

from dataclasses import dataclass, field, replace

Value = str | int | float | bool

COLORMAPS = ("viridis", "cividis", "magma", "gray")
SHOWS = ("grid", "mean", "max", "norm", "pca")
RANGES = ("map", "row", "all")
GRIDS = (4, 9, 16, 25)
FITS = ("crop", "pad")


@dataclass(frozen=True)
class View:
    """How the board draws a result; nothing here changes a computed number.

    Attributes:
        show: one of SHOWS; "grid" is a square grid of channels, the others one reduced picture.
        grid: how many channels a grid has, one of GRIDS.
        channels: channels chosen by hand, or () for the strongest of the fused map.
        aligned: Low and High as the method sees them; None: only where the alignment is trained or fitted.
        part: part of complex maps: "abs" | "arg" | "re" | "im".
        colormap: one of COLORMAPS, for maps without sign.
        gamma: exponent applied to colours, 1 is linear.
        range: colour range per "map", per "row" (all maps of a panel) or "all" panels.
        pin: (x, y) in pixels of the network's input, or None.
        pin_channel: the pinned channel of the fused map, or None.
    """

    show: str = "grid"
    grid: int = 9
    channels: tuple[int, ...] = ()
    aligned: bool | None = None
    part: str = "abs"
    colormap: str = "viridis"
    gamma: float = 1.0
    range: str = "row"
    pin: tuple[int, int] | None = None
    pin_channel: int | None = None


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
        seed: seed of every random weight.
        phrase, region, site: for methods that take text, boxes, or an inner site of the network.
        view: how it is drawn.
    """

    picture: str = "sample:coffee"
    backbone: str = "resnet18"
    weights: str = "auto"
    low: str | None = None
    high: str | None = None
    method: str = "aff"
    params: tuple[tuple[str, Value], ...] = ()
    size: int | None = None
    fit: str = "crop"
    crop: tuple[float, float] = (0.5, 0.5)
    seed: int = 0
    phrase: str | None = None
    region: tuple[int, int, int, int] | None = None
    site: str | None = None
    view: View = field(default_factory=View)

    def __post_init__(self) -> None:
        object.__setattr__(self, "params", tuple(sorted(self.params)))

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
