"""What every system shares: which levels of its backbone it takes, and where its numbers come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from fusionviz.errors import FusionvizError, LevelError
from fusionviz.fusion import Context
from fusionviz.records import (
    ANALYTIC,
    FeatureMap,
    FeaturePyramid,
    FusionResult,
    LevelInfo,
    Preprocessing,
    Provenance,
)
from fusionviz.registry import FusionSpec
from fusionviz.selection import Value
from fusionviz.trace import NullTrace, Trace


class System(nn.Module):
    """A whole network behind a frozen backbone. Subclasses write `setup` and `see`.

    Nothing a forward pass computes is kept on the module: one copy serves every session at once.
    """

    spec: ClassVar[FusionSpec]
    takes_levels: ClassVar[tuple[str, ...]] = ("s4", "s8", "s16", "s32")
    """Levels of the backbone that it is given; () for a network that looks at the picture itself."""

    one_thing: ClassVar[bool] = False
    """Whether it is trained on scenes with one thing, and names one."""

    @classmethod
    def wants(cls, params: Mapping[str, Value]) -> Preprocessing | None:
        """How it wants its picture, with these knobs; None: as the backbone wants it."""
        return None

    def __init__(self, levels: tuple[LevelInfo, ...], *, seed: int = 0, **params: object) -> None:
        super().__init__()
        found = {level.name: level for level in levels}
        missing = [name for name in self.takes_levels if name not in found]
        if missing:
            raise LevelError(
                "level.system", system=self.spec.key, expected=", ".join(self.takes_levels), received=", ".join(found)
            )
        self.infos = tuple(found[name] for name in self.takes_levels)
        self.seed, self.params = seed, params
        self.trained: Provenance | None = None
        self.notices: tuple[FusionvizError, ...] = ()
        self.setup(**params)

    def setup(self, **params: object) -> None:
        """Build what it learns; `self.infos` are the levels it will be given."""

    def see(
        self, picture: Tensor, levels: tuple[FeatureMap, ...], *, context: Context, trace: NullTrace
    ) -> FusionResult:
        """Return what it makes of one picture [1 3 h w] as the backbone wants it, and of the backbone's levels."""
        raise NotImplementedError(type(self).__name__)

    @property
    def provenance(self) -> Provenance:
        """Where its numbers come from: trained if so loaded, analytic without any, else random."""
        if self.trained is not None:
            return self.trained
        return Provenance("random", f"seed {self.seed}") if any(True for _ in self.parameters()) else ANALYTIC

    def forward(
        self,
        picture: Tensor,
        pyramid: FeaturePyramid | None = None,
        *,
        context: Context | None = None,
        trace: NullTrace | None = None,
    ) -> FusionResult:
        levels = tuple(pyramid[name] for name in self.takes_levels)
        return self.see(picture, levels, context=context or Context(), trace=Trace() if trace is None else trace)


def pixels(picture: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Return a normalised picture [b 3 h w] as numbers in [0, 1] again."""
    mean, std = (torch.tensor(v, device=picture.device, dtype=picture.dtype).view(3, 1, 1) for v in (mean, std))
    return (picture * std + mean).clamp(0, 1)
