"""Selection <-> query text, pure: a link says what is on the board, and nothing else does.

Links are plain text with stable keys that do not depend on the language. Every value is checked as strictly
as a widget's; a bad one is dropped, named in a notice, and the rest is kept.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from fusionviz.board import ROLES
from fusionviz.errors import FusionvizError, UnknownNameError
from fusionviz.registry import FusionSpec, nearest, write
from fusionviz.selection import (
    COLORMAPS,
    FITS,
    GAMMAS,
    GRIDS,
    HEADS,
    PARTS,
    RANGES,
    SEEDS,
    SHOWS,
    Selection,
    View,
    pair,
)
from fusionviz.texts import LANGUAGES


class LinkError(FusionvizError):
    """A value in a link that cannot be used."""


@dataclass(frozen=True)
class Catalogue:
    """What links may name. The functions are asked only for names that exist.

    Attributes:
        sites: of a backbone, by name.
        levels, defaults: the names that low and high are chosen from, and those where nobody has chosen, of a selection
            with backbone, site and method.
    """

    methods: Collection[str]
    backbones: Collection[str]
    pictures: Callable[[str], bool]
    spec: Callable[[str], FusionSpec]
    sites: Callable[[str], tuple[str, ...]]
    levels: Callable[[Selection], tuple[str, ...]]
    defaults: Callable[[Selection], tuple[str, str]]


KNOB = "k."
MOST_LETTERS = 200
"""Of a phrase."""
_VIEW = re.compile(r"[a-z0-9-]{1,40}")
KEYS = (
    *("img", "net", "w", "site", "lo", "hi", "m", "q", "size", "fit", "crop", "seed", "head"),
    *("show", "grid", "part", "map", "gamma", "range", "ch", "al", "views", "pin", "pc", "at", "lang"),
)
"""Everything that a link may say, but for the knobs; `lang` belongs to the page, not to the selection."""


def read(query: Mapping[str, str], catalogue: Catalogue) -> tuple[Selection, tuple[FusionvizError, ...]]:
    """Return the selection that a query describes, and a notice for each value that could not be used."""
    return _Reader(query, catalogue).selection()


def write_query(selection: Selection) -> dict[str, str]:
    """Return the query of a selection; `read` gives it back, but for what cannot travel (see `stays`)."""
    s, v, plain = selection, selection.view, View()
    query: dict[str, str] = {}
    if not s.picture.startswith(("upload:", "file:")):
        query["img"] = s.picture
    query["net"] = s.backbone
    if s.weights == "random":
        query["w"] = "random"
    for key, value in (("site", s.site), ("lo", s.low), ("hi", s.high)):
        if value is not None:
            query[key] = value
    query["m"] = s.method
    query |= {KNOB + key: write(value) for key, value in s.params}
    if s.phrase:
        query["q"] = s.phrase
    if s.size is not None:
        query["size"] = str(s.size)
    if s.fit != "crop":
        query["fit"] = s.fit
    if s.crop != (0.5, 0.5):
        query["crop"] = ",".join(write(float(part)) for part in s.crop)
    if s.seed:
        query["seed"] = str(s.seed)
    if s.head != "auto":
        query["head"] = s.head
    for key, value, default in (
        ("show", v.show, plain.show),
        ("grid", v.grid, plain.grid),
        ("part", v.part, plain.part),
        ("map", v.colormap, plain.colormap),
        ("gamma", v.gamma, plain.gamma),
        ("range", v.range, plain.range),
    ):
        if value != default:
            query[key] = write(value)
    if v.channels:
        query["ch"] = ",".join(map(str, v.channels))
    if v.aligned is not None:
        query["al"] = write(v.aligned)
    if v.views:
        query["views"] = ",".join(f"{panel}:{key}" for panel, key in v.views)
    if v.pin is not None:
        query["pin"] = ",".join(map(str, v.pin))
    if v.pin_channel is not None:
        query["pc"] = str(v.pin_channel)
    if v.frame is not None:
        query["at"] = write(float(v.frame))
    return query


def text(selection: Selection) -> str:
    """Return the query as it stands behind the `?` of a link."""
    return encode(write_query(selection))


def encode(query: Mapping[str, str]) -> str:
    """Return a query as text, with the signs left legible that may stand in a link."""
    return urlencode(query, safe=":,")


def parse_text(link: str) -> dict[str, str]:
    """Return the query of a link, or of the part behind its `?`."""
    return dict(parse_qsl(link.split("#", 1)[0].split("?", 1)[-1], keep_blank_values=True))


def stays(selection: Selection) -> tuple[LinkError, ...]:
    """Say what of a selection cannot travel in a link: uploads, pictures and weights from this machine's files."""
    here = []
    if selection.picture.startswith(("upload:", "file:")):
        here.append(LinkError("link.upload"))
    if selection.weights.startswith("file:"):
        here.append(LinkError("link.weights"))
    return tuple(here)


class _Reader:
    def __init__(self, query: Mapping[str, str], catalogue: Catalogue) -> None:
        self.query, self.known = dict(query), catalogue
        self.notices: list[FusionvizError] = []

    def selection(self) -> tuple[Selection, tuple[FusionvizError, ...]]:
        plain = Selection()
        self.keys()
        picture = self.picture(plain.picture)
        backbone = self.name("net", self.known.backbones, "backbone", plain.backbone)
        method = self.name("m", self.known.methods, "method", plain.method)
        site = self.site(backbone, method)
        lost = site is None and "site" in self.query
        low, high = (None, None) if lost else self.levels(Selection(backbone=backbone, site=site, method=method))
        selection = Selection(
            picture=picture,
            backbone=backbone,
            weights=self.choice("w", ("auto", "random"), plain.weights),
            low=low,
            high=high,
            method=method,
            params=self.params(method),
            phrase=self.phrase(method),
            site=site,
            size=self.number("size", int, 16, 2048, plain.size),
            fit=self.choice("fit", FITS, plain.fit),
            crop=self.numbers("crop", float, 2, 0, 1) or plain.crop,
            seed=self.number("seed", int, *SEEDS, plain.seed),
            head=self.choice("head", HEADS, plain.head),
            view=self.view(),
        )
        return selection, tuple(self.notices)

    def phrase(self, method: str) -> str | None:
        """Words; what they mean is asked when they are read, where the vocabulary is known."""
        value = " ".join(self.query.get("q", "").split())
        if not value or self.known.spec(method).takes != "image+text":
            return None
        if len(value) > MOST_LETTERS:
            self.bad("q", value, f"≤ {MOST_LETTERS}")
            return None
        return value

    def keys(self) -> None:
        for key in self.query:
            # Streamlit's own (embed, embed_options) are none of ours.
            if key not in KEYS and not key.startswith((KNOB, "embed")):
                near = nearest(key, [*KEYS])
                self.notices.append(LinkError("link.key", key=_short(key), near=near, known=", ".join(KEYS)))
        self.choice("lang", LANGUAGES, None)

    def view(self) -> View:
        plain = View()
        return View(
            show=self.choice("show", SHOWS, plain.show),
            grid=self.choice("grid", GRIDS, plain.grid),
            channels=self.numbers("ch", int, None, 0, 65535) or (),
            aligned=self.choice("al", (True, False), None),
            part=self.choice("part", PARTS, plain.part),
            colormap=self.choice("map", COLORMAPS, plain.colormap),
            gamma=self.number("gamma", float, *GAMMAS, plain.gamma),
            range=self.choice("range", RANGES, plain.range),
            views=self.views(),
            pin=self.numbers("pin", int, 2, 0, 4096),
            pin_channel=self.number("pc", int, 0, 65535, None),
            frame=self.number("at", float, 0.0, 1e6, None),
        )

    def picture(self, default: str) -> str:
        value = self.query.get("img")
        if value is None or self.known.pictures(value):
            return default if value is None else value
        code = "link.upload" if value.startswith(("upload:", "file:")) else "link.picture"
        self.notices.append(LinkError(code, value=_short(value)) if code == "link.picture" else LinkError(code))
        return default

    def name(self, key: str, known: Collection[str], kind: str, default: str) -> str:
        value = self.query.get(key, default)
        if value in known:
            return value
        names = sorted(known)
        self.notices.append(
            UnknownNameError(f"unknown.{kind}", name=_short(value), near=nearest(value, names), known=", ".join(names))
        )
        return default

    def site(self, backbone: str, method: str) -> str | None:
        value = self.query.get("site")
        if value is None:
            return None
        stands, there = self.known.spec(method).stands, self.known.sites(backbone)
        if value in there and (not stands or value.partition(":")[0] == stands):
            return value
        fitting = [name for name in there if not stands or name.partition(":")[0] == stands]
        near = nearest(value, fitting)
        self.notices.append(LinkError("link.site", value=_short(value), method=method, backbone=backbone, near=near))
        return None

    def levels(self, at: Selection) -> tuple[str | None, str | None]:
        if "lo" not in self.query and "hi" not in self.query:
            return None, None
        there = self.known.levels(at)
        low, high = (self.choice(key, there, None) for key in ("lo", "hi"))
        if low is None and high is None:
            return None, None
        low, high = pair(there, self.known.defaults(at), low, high)
        if there.index(low) >= there.index(high):
            self.notices.append(LinkError("link.order", low=low, high=high, known=", ".join(there)))
            return None, None
        return low, high

    def params(self, method: str) -> tuple[tuple[str, object], ...]:
        spec, found = self.known.spec(method), []
        for key, value in self.query.items():
            if not key.startswith(KNOB):
                continue
            try:
                name = key.removeprefix(KNOB)
                # Also the paper's value: where a trained head ships, nobody's knob may stand at another one.
                found.append((name, spec.param(name).parse(value, method)))
            except FusionvizError as bad:
                self.notices.append(bad)
        return tuple(sorted(found))

    def views(self) -> tuple[tuple[str, str], ...]:
        """Which view of which panel; a view that this method's panel does not have is passed over when drawn."""
        value = self.query.get("views")
        if value is None:
            return ()
        found = dict(pair.split(":", 1) for pair in value.split(",") if pair.count(":") == 1)
        known = {panel: key for panel, key in found.items() if panel in ROLES and _VIEW.fullmatch(key)}
        if len(known) != len(value.split(",")):
            self.bad("views", value, "weight:bars, fused:p8")
        return tuple(sorted(known.items()))

    def choice(self, key: str, choices: Collection, default: object) -> object:
        value = self.query.get(key)
        if value is None:
            return default
        by_text = {write(c): c for c in choices}
        if value in by_text:
            return by_text[value]
        self.bad(key, value, ", ".join(by_text))
        return default

    def number(self, key: str, kind: type, low: float, high: float, default: object) -> object:
        if key not in self.query:
            return default
        found = self.numbers(key, kind, 1, low, high)
        return found[0] if found else default

    def numbers(self, key: str, kind: type, count: int | None, low: float, high: float) -> tuple | None:
        value = self.query.get(key)
        if value is None:
            return None
        try:
            found = tuple(kind(v) for v in value.split(","))
        except ValueError:
            found = ()
        if found and (count in (None, len(found))) and len(found) <= 64 and all(low <= n <= high for n in found):
            return found
        allowed = f"{write(low)} … {write(high)}"
        self.bad(key, value, f"{count} × {allowed}" if count and count > 1 else allowed)
        return None

    def bad(self, key: str, value: str, choices: str) -> None:
        self.notices.append(LinkError("link.value", key=key, value=_short(value), choices=choices or "–"))


def _short(value: str) -> str:
    return value if len(value) <= 60 else value[:57] + "…"
