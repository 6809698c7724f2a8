"""Catalogues that things enter by being defined: unique keys, typed knobs, errors that list the choices."""

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from fusionviz.errors import ParameterError, UnknownNameError
from fusionviz.selection import Value

T = TypeVar("T")

FAMILIES = ("basic", "early", "pyramid", "attention", "select", "transformer", "late", "place_time", "language", "wild")
SYSTEM_TAKES = ("image", "image+text")
"""What a whole network takes, where a block between maps takes maps."""


@dataclass(frozen=True)
class Param:
    """One knob of a method. Its label and help are `params.<key>` of the lesson or the locale.

    Attributes:
        default: the paper's value; its type is the knob's type.
        choices: the values it may have, or () for a number in [low, high].
        refit: True if a change alters shapes, so that trained weights no longer fit; False if it is live.
    """

    key: str
    default: Value
    choices: tuple[Value, ...] = ()
    low: float | None = None
    high: float | None = None
    step: float | None = None
    refit: bool = False

    @property
    def kind(self) -> str:
        """ "choice" | "bool" | "int" | "float"."""
        if self.choices:
            return "choice"
        return type(self.default).__name__

    def parse(self, value: object, method: str) -> Value:
        """Return `value` (also as text, from a link or a command line) as this knob's type, checked.

        Raises:
            ParameterError: with the bounds or choices.
        """
        try:
            parsed = _read(value, type(self.default))
        except (KeyError, OverflowError, TypeError, ValueError):
            parsed = None
        if self.choices:
            ok, allowed = parsed in self.choices, ", ".join(write(c) for c in self.choices)
        elif isinstance(self.default, bool):
            ok, allowed = isinstance(parsed, bool), "on, off"
        else:
            ok = parsed is not None and self.low <= parsed <= self.high
            allowed = f"{write(self.low)} … {write(self.high)}"
        if not ok:
            raise ParameterError("param.value", method=method, param=self.key, received=value, allowed=allowed)
        return parsed


def _read(value: object, kind: type) -> Value:
    if kind is bool:
        if isinstance(value, bool):
            return value
        return {"on": True, "true": True, "1": True, "off": False, "false": False, "0": False}[str(value).lower()]
    if kind is int:
        number = float(value)
        if number != int(number):
            raise ValueError(value)
        return int(number)
    return kind(value)


def write(value: Value) -> str:
    """Write a knob's value as links and command lines have it; `Param.parse` reads it back."""
    if isinstance(value, bool):
        return "on" if value else "off"
    short = f"{value:g}" if isinstance(value, float) else str(value)
    return short if not isinstance(value, float) or float(short) == value else repr(value)


@dataclass(frozen=True)
class FusionSpec:
    """What is known of a method before it is built. Title and idea are in its lesson, in every language.

    Attributes:
        key: file name, URL value and lesson name.
        family: one of FAMILIES.
        equation: TeX that KaTeX and matplotlib's mathtext both render; X is low, Y high, Z fused.
        year: of the paper; 0 for methods without one, which come last in their family.
        paper: authors, title, venue; "" for methods without one.
        link: address of the paper.
        takes: "one" | "pair" | "pyramid" | "branches" (the maps that meet at a site inside a network) | "image" |
            "image+text".
        stands: kind of the sites that it takes the maps of, where it takes "branches"; see `records.SITES`.
        align: "none" | "size" | "size+channels": what is done before two levels meet.
        params: its knobs.
        weighs: name of the attention that chooses between low and high, or "" (then the share of low is shown).
        arithmetic: the equation for one element, with {x} {y} {z} and attention names as {w}, {m2} ...; ""
            where one element needs more than its own numbers.
        cite: short citation, for the title line: "Dai et al., WACV 2021 · arXiv 2009.14082".
    """

    key: str
    family: str
    equation: str
    year: int
    takes: str = "pair"
    align: str = "size+channels"
    params: tuple[Param, ...] = ()
    paper: str = ""
    link: str = ""
    cite: str = ""
    weighs: str = ""
    arithmetic: str = ""
    stands: str = ""

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ValueError(f"{self.key}: family is one of {', '.join(FAMILIES)}, not {self.family!r}")
        if self.align not in ("none", "size", "size+channels"):
            raise ValueError(f"{self.key}: align is none, size or size+channels, not {self.align!r}")
        if bool(self.stands) is not (self.takes == "branches"):
            raise ValueError(
                f"{self.key}: takes {self.takes} and stands at {self.stands!r}; branches need a kind of site"
            )

    @property
    def is_system(self) -> bool:
        """Whether it is a whole network, not a block between maps."""
        return self.takes in SYSTEM_TAKES

    def param(self, key: str) -> Param:
        """Return the knob `key`; raises ParameterError with the knobs there are."""
        for param in self.params:
            if param.key == key:
                return param
        raise ParameterError(
            "param.unknown",
            method=self.key,
            param=key,
            near=nearest(key, [p.key for p in self.params]),
            known=", ".join(p.key for p in self.params) or "–",
        )

    def parse(self, params: dict[str, object]) -> dict[str, Value]:
        """Return every knob's value: `params` checked, defaults for the rest."""
        given = {key: self.param(key).parse(value, self.key) for key, value in params.items()}
        return {p.key: given.get(p.key, p.default) for p in self.params}


def nearest(name: object, names: list[str]) -> str:
    """Return up to three names that look like `name`, or the dash that says none does."""
    return ", ".join(difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)) or "–"


class Catalogue(Generic[T]):
    """An ordered set of entries by key. `kind` names it in errors: `errors.unknown.<kind>`."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def add(self, key: str, entry: T) -> None:
        """Add an entry; raises on a key that is taken, which is a mistake of the programmer."""
        if key in self._entries:
            raise ValueError(f"{self.kind} '{key}' is registered twice; keys are unique")
        self._entries[key] = entry

    def __getitem__(self, key: str) -> T:
        if key not in self._entries:
            raise UnknownNameError(
                f"unknown.{self.kind}", name=key, near=nearest(key, list(self._entries)), known=", ".join(self)
            )
        return self._entries[key]

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


METHODS: Catalogue[type] = Catalogue("method")


def register(spec: FusionSpec) -> Callable[[type], type]:
    """Enter a method's class in the catalogue under its spec: `@register(SPEC)`."""
    if not isinstance(spec, FusionSpec):
        raise TypeError(f"@register takes the method's FusionSpec, not {spec!r}; write @register(SPEC)")

    def enter(cls: type) -> type:
        stem = cls.__module__.rsplit(".", 1)[-1]
        if stem != spec.key:
            raise ValueError(f"method '{spec.key}' stands in {stem}.py; its file must be {spec.key}.py")
        cls.spec = spec
        METHODS.add(spec.key, cls)
        return cls

    return enter
