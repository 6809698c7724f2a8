"""The facade behind `fv.*`: open pictures, run studies, hand out figures and links.

import fusionviz as fv
study = fv.explore("sample:coffee", backbone="resnet18", method="aff", low="s4", high="s16", r=4)
study.pyramid["s4"].tensor, study.result.attention["low"].tensor, study.figure(), study.link()
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from numbers import Integral
from typing import TYPE_CHECKING

from fusionviz import backbones as _backbones
from fusionviz import fusion, panels, pictures, state, systems, texts
from fusionviz import study as _study
from fusionviz.errors import LevelError, ParameterError
from fusionviz.fusion import FusionModule
from fusionviz.pictures import Picture
from fusionviz.selection import Selection, Value, View
from fusionviz.study import StudyResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Study(StudyResult):
    """A StudyResult that can draw and link itself."""

    def figure(self, *, language: str = "en", dark: bool = False) -> Figure:
        """Return the slide that the app exports, as a matplotlib Figure."""
        return draw(self, language=language, dark=dark)

    def link(self) -> str:
        """Return the query text that opens this study in the app: `?` and what follows."""
        return "?" + state.text(without_defaults(self.selection))


def methods() -> tuple[str, ...]:
    """Return the keys of all fusion methods: blocks between maps, then whole systems."""
    return (*fusion.names(), *systems.names())


def images() -> tuple[str, ...]:
    """Return the keys of all pictures that need no file: the samples, and those of FUSIONVIZ_PICTURES."""
    return pictures.keys()


def open(source: object) -> Picture:  # noqa: A001 - fv.open reads as what it is
    """Open a picture: "sample:NAME", "folder:NAME", a path, bytes, a PIL image or an array [h w 3].

    Raises:
        PictureError: with what is wrong and what is accepted.
    """
    return pictures.open_picture(source)


def explore(
    picture: object = "scene:21",
    backbone: str = "scene_resnet",
    method: str = "aff",
    low: str | int | None = None,
    high: str | int | None = None,
    *,
    site: str | None = None,
    phrase: str | None = None,
    device: str | None = None,
    weights: str = "auto",
    size: int | None = None,
    fit: str = "crop",
    crop: tuple[float, float] = (0.5, 0.5),
    seed: int = 0,
    at: float | None = None,
    **params: object,
) -> Study:
    """Run one study: picture -> levels -> fused map, with attention, trace, timings.

    Models stay open between calls; results are always computed anew.

    Args:
        picture: anything `open` takes.
        low, high: levels by name ("s4", "d3") or position; None takes the nearest to s4 and s16. At a site: its maps
            ("identity", "b1", "x0"); None takes the first and the last.
        phrase: what a system of vision and language is asked for, "the small blue ring"; None asks for a scene's first
            thing.
        site: a place inside the network where it fuses by itself, "skip:layer3.1", see `fv.backbones.info(key).sites`;
            None fuses levels, or takes the first place of its kind for methods that stand at one.
        device: "cuda:0" | "mps" | "cpu"; None takes the best there is.
        weights: "auto" (published ones if they are on this machine, else random) | "random" | "file:PATH".
        at: where the study's slider stands, if it has one: between detail, 0, and meaning, 1, where the method is
            fitted to the picture; the nearest position there is. None: where it starts.
        params: the method's knobs.

    Raises:
        FusionvizError: with what to do, for any name or value that does not fit.
    """
    opened = open(picture)
    placed = Selection(backbone=backbone, site=site, method=method)
    levels = [level.name for level in _study.levels(placed)]
    low, high = (
        levels[n] if isinstance(n, Integral) and -len(levels) <= n < len(levels) else None if n is None else str(n)
        for n in (low, high)
    )
    spec = fusion.spec(method)
    selection = Selection(
        picture=opened.key,
        backbone=backbone,
        weights=weights,
        low=low,
        high=high,
        method=method,
        params=tuple((key, spec.param(key).parse(value, method)) for key, value in params.items()),
        phrase=phrase,
        site=site,
        size=size,
        fit=fit,
        crop=crop,
        seed=seed,
        view=View(frame=at),
    )
    return as_study(_study.run(_study.prepare(selection, opened, on=device)))


def build(
    method: str,
    channels: tuple[int, ...],
    strides: tuple[float, ...] | None = None,
    width: int = 256,
    align: str | None = None,
    seed: int = 0,
    **params: object,
) -> FusionModule:
    """Return any method alone, a torch module: `result = module(*levels)`.

    Args:
        channels: of each level it will be given, fine to coarse.
        strides: of each level; None means octaves.
        width: channels after alignment, where the method aligns channels.
        align: "none" | "size" | "size+channels"; None takes the method's own.
    """
    if any(p.key == "width" for p in fusion.spec(method).params):
        params = {"width": width, **params}
    return fusion.build(method, channels, strides, align=align, seed=seed, **params)


def as_study(result: StudyResult) -> Study:
    """Return a StudyResult as a Study."""
    return Study(**{f.name: getattr(result, f.name) for f in fields(StudyResult)})


def without_defaults(selection: Selection) -> Selection:
    """Return the selection with only those knobs that somebody has turned: what a link carries."""
    turned: dict[str, Value] = {}
    if fusion.spec(selection.method).is_system:  # its levels are its own
        selection = selection.with_(low=None, high=None)
    while True:  # one knob that was turned may move where others stand: a fit to the picture has knobs of its own
        plain = _study.resolve(selection.with_(params=tuple(turned.items()))).knobs
        more = {k: v for k, v in selection.params if v != plain[k]}
        if not more:
            return selection.with_(params=tuple(turned.items()))
        turned |= more


def catalogue() -> state.Catalogue:
    """Return what links may name on this machine."""
    return state.Catalogue(
        (*fusion.names(), *systems.names()),
        _backbones.names(),
        pictures.known,
        fusion.spec,
        lambda key: tuple(site.name for site in _backbones.info(key).sites),
        lambda at: tuple(level.name for level in _study.levels(_placed(at))),
        lambda at: _study.default_levels(_placed(at)),
    )


def _placed(selection: Selection) -> Selection:
    """Return a selection that has levels: the method's, or where it finds no place in the network, the network's."""
    try:
        _study.site(selection)
    except LevelError:
        return Selection(backbone=selection.backbone)
    return selection


def draw(study: StudyResult, *, view: View | None = None, language: str = "en", dark: bool = False) -> Figure:
    """Return the slide of a study: what the board shows, with caption, shapes, provenance and credit.

    Args:
        view: how it is drawn; None takes the study's own.

    Where the system has no font for the language, the slide is in English; `slides.language_for` says so.
    """
    from fusionviz.figures import slide  # matplotlib loads here, not with the package

    if language not in texts.LANGUAGES:
        allowed = ", ".join(texts.LANGUAGES)
        raise ParameterError("selection.value", name="language", received=language, allowed=allowed)
    language, _ = slide.language_for(language)
    chosen = study.selection
    spec = fusion.spec(chosen.method)
    view = chosen.view if view is None else view
    board = panels.build(study, view, language)
    return slide.slide(
        board,
        view,
        language=language,
        dark=dark,
        title=texts.method_text(chosen.method, "title", language),
        equation=spec.equation,
        cite=spec.cite,
    )
