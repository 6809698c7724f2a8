"""What was found out about a network, kept between runs: a small JSON file each, in the user's cache directory.

Looking at every network takes half a minute on a laptop. The files belong to exact versions of torch, torchvision and
this code; whatever cannot be read or written is left alone and found out again.
"""

import hashlib
import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path

import torch

import fusionviz
from fusionviz.backbones._base import BackboneInfo
from fusionviz.records import LevelInfo, Preprocessing, Site


def cache_home() -> Path:
    """Return the folder of all that fusionviz keeps between runs: $FUSIONVIZ_CACHE, or one in the user's cache."""
    home = os.environ.get("FUSIONVIZ_CACHE")
    return Path(home or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fusionviz")


def folder(*versions: str) -> Path:
    """Return where descriptions made by this code and these versions lie."""
    stamp = hashlib.sha256("\n".join((fusionviz.__version__, torch.__version__, *versions)).encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        stamp.update(source.read_bytes())
    return cache_home() / "backbones" / stamp.hexdigest()[:16]


def read(path: Path) -> BackboneInfo | None:
    """Return the description in a file, or None if there is none that can be read."""
    try:
        found = json.loads(path.read_text("utf-8"))
        levels = _levels(found.pop("levels"))
        sites = tuple(Site(**{**site, "operands": _levels(site["operands"])}) for site in found.pop("sites"))
        preprocessing = Preprocessing(**_tuples(found.pop("preprocessing")))
        info = BackboneInfo(levels=levels, preprocessing=preprocessing, sites=sites, **found)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return info if info.key == path.stem else None


def write(path: Path, info: BackboneInfo) -> None:
    """Write a description, whole or not at all; a directory that cannot be written is no mistake."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=path.parent, suffix=".partial")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(asdict(info), file)
            Path(partial).replace(path)
        except BaseException:
            Path(partial).unlink(missing_ok=True)
            raise
    except OSError:
        return


def _levels(tables: list[dict]) -> tuple[LevelInfo, ...]:
    return tuple(LevelInfo(**_tuples(table)) for table in tables)


def _tuples(table: dict) -> dict:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}
