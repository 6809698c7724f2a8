"""Blocks that refine one map (SE, CBAM, MS-CAM, ...) standing between two: which map they are given."""

from collections.abc import Callable

import torch
from torch import Tensor

from fusionviz.registry import Param
from fusionviz.trace import NullTrace

ON = Param("on", "sum", choices=("sum", "concat", "low", "high"), refit=True)


class Picked:
    """The one map made of two: their sum, their concatenation, or one of them.

    Attributes:
        channels: of that map.
        letter: how formulas call it inside brackets, `L(X+Y)`.
        factor: how formulas call it in a product, `(X+Y)`.
    """

    def __init__(self, on: str, channels: tuple[int, int]) -> None:
        self.on = on
        self.channels = sum(channels) if on == "concat" else channels[0]
        self.letter = {"sum": "X+Y", "concat": "[X;Y]", "low": "X", "high": "Y"}[on]
        self.factor = f"({self.letter})" if on == "sum" else self.letter

    def __call__(self, x: Tensor, y: Tensor, trace: NullTrace) -> Tensor:
        if self.on == "sum":
            return trace.step("picked", "add", torch.add, x, y, formula="X+Y")  # [b c h w]
        if self.on == "concat":
            return trace.step(
                "picked", "concat", lambda a, b: torch.cat((a, b), 1), x, y, formula="[X;Y]"
            )  # [b 2c h w]
        return x if self.on == "low" else y

    def terms(self, x: Tensor, y: Tensor, weight: Tensor) -> Callable[[], tuple[Tensor, Tensor]]:
        """Return a function that gives what low and high contribute once `weight` has multiplied the map."""

        def split() -> tuple[Tensor, Tensor]:
            full = weight.expand(-1, self.channels, *x.shape[-2:])
            if self.on == "concat":
                return x * full[:, : x.shape[1]], y * full[:, x.shape[1] :]
            return (
                x * full if self.on != "high" else torch.zeros_like(x),
                y * full if self.on != "low" else torch.zeros_like(y),
            )

        return split
