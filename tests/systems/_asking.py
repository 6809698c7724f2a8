"""Small pictures with levels, and phrases about them, for the systems that take a phrase."""

import torch
from torch import Tensor

from fusionviz import systems
from fusionviz.fusion import Context
from fusionviz.records import ANALYTIC, FeatureMap, FeaturePyramid, FusionResult, LevelInfo
from fusionviz.systems import System
from fusionviz.systems._phrases import TEXT, WIDTH

KEYS = ("film", "gmu", "phrase_concat", "phrase_product")
CHANNELS = {4: 5, 8: 6, 16: 7, 32: 8}
LEVELS = tuple(LevelInfo(f"s{s}", c, (s, s), (0.5, 0.5), i) for i, (s, c) in enumerate(CHANNELS.items(), start=1))
PHRASE = "the small blue ring"


def build(key: str, **params: object) -> System:
    return systems.build(key, LEVELS, **params)


def view(count: int = 1, size: tuple[int, int] = (64, 64), seed: int = 0) -> tuple[Tensor, FeaturePyramid]:
    """Pictures and what a network might have made of them, sizes rounded up as its convolutions do."""
    generator = torch.Generator().manual_seed(seed)
    picture = torch.randn(count, 3, *size, generator=generator)
    maps = [
        FeatureMap(
            v.name,
            torch.randn(count, v.channels, *(-(-n // int(v.stride[0])) for n in size), generator=generator),
            v.stride,
            v.offset,
            v.stage,
        )
        for v in LEVELS
    ]
    return picture, FeaturePyramid(tuple(maps), "test", ANALYTIC)


def ask(module: System, phrase: str | None = PHRASE, **view_of: object) -> FusionResult:
    with torch.no_grad():
        return module(*view(**view_of), context=Context(phrase=phrase))


def steps(result: FusionResult) -> dict[str, Tensor]:
    return {step.key: step.tensor for step in result.trace}


def seen_and_said(seed: int = 0) -> tuple[Tensor, Tensor]:
    """A map and a phrase's vector, as they meet."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, WIDTH, 6, 5, generator=generator), torch.randn(2, TEXT, generator=generator)
