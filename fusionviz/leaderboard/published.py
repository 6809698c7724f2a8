"""Tables of the papers, as far as their numbers were confirmed in the papers themselves: `assets/published.toml`."""

import tomllib
from dataclasses import dataclass
from functools import cache

from fusionviz import texts


@dataclass(frozen=True)
class Published:
    """One table of a paper.

    Attributes:
        key: of its title, of what it measures and of its rows in the locale, under `published`.
        cite, table, link: where it stands.
        excerpt: whether the paper's table has more than is printed here.
        columns: keys of the locale, under `published.columns`, or the paper's own words.
        rows: by key, as many texts as there are columns; "–" where the paper has none.
    """

    key: str
    cite: str
    link: str
    excerpt: bool
    columns: tuple[str, ...]
    rows: dict[str, tuple[str, ...]]

    def __post_init__(self) -> None:
        if any(len(values) != len(self.columns) for values in self.rows.values()):
            raise ValueError(f"a row of {self.key} has not {len(self.columns)} values")

    def column(self, key: str, language: str = "en") -> str:
        """Return what stands over a column."""
        own = f"published.columns.{key}"
        return texts.text(own, language) if texts.has(own, language) else key

    def row(self, key: str, language: str = "en") -> str:
        """Return what stands before a row."""
        return texts.text(f"published.{self.key}.rows.{key}", language)


@cache
def published() -> tuple[Published, ...]:
    """Return the tables, in the order in which they are shown."""
    told = tomllib.loads((texts.ASSETS / "published.toml").read_text("utf-8"))
    return tuple(
        Published(
            key,
            table["cite"],
            table["link"],
            table["excerpt"],
            tuple(table["columns"]),
            {row: tuple(values) for row, values in table["rows"].items()},
        )
        for key, table in told.items()
    )
