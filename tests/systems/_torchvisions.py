"""Pictures for torchvision's networks, and what holds for the trace of every one of them."""

import re

import torch
from matplotlib.mathtext import MathTextParser
from torch import Tensor

from fusionviz import systems, texts
from fusionviz.fusion import Context
from fusionviz.records import FusionResult
from fusionviz.systems._wild import Wild

PARSER = MathTextParser("path")


def picture(height: int = 64, width: int = 96, seed: int = 0) -> Tensor:
    """A picture as the project's own backbones want it, colours in blocks and noise over them."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 5, 7, generator=generator)
    seen = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return ((seen + 0.1 * torch.randn(seen.shape, generator=generator)).clamp(0, 1) - 0.5) / 0.25


def pixels(of: Tensor) -> Tensor:
    return (of * 0.25 + 0.5).clamp(0, 1)


def look(module: Wild, at: Tensor, **context: object) -> FusionResult:
    with torch.no_grad():
        return module(at, context=Context(**context))


def steps(result: FusionResult) -> dict[str, Tensor]:
    return {step.key: step.tensor for step in result.trace}


def check_trace(key: str, result: FusionResult) -> None:
    """Steps come after what they are made of, have a title in every language, and a formula that can be set."""
    known: set[str] = set()
    for step in result.trace:
        assert set(step.inputs) <= known, step.key
        assert bool(step.inputs) is (step.op != "input")
        known.add(step.key)
        PARSER.parse(f"${step.formula}$")
        assert not re.search(r"[^\x20-\x7e]", step.formula)
        for language in texts.LANGUAGES:
            title = texts.method_text(key, f"steps.{step.op}", language)
            assert 0 < len(title) <= 24, f"{title} does not fit into a box of the flow"
    fused = [step for step in result.trace if step.role == "fused"]
    if "fused" in result.outputs and key != "wild_attention":  # tokens are shown as a map
        assert fused[-1].tensor is result.fused.tensor
    for attention in result.attention.values():
        attention.check()
        weight = next(step for step in result.trace if step.role == "weight")
        assert weight.tensor.isfinite().all()
        for language in texts.LANGUAGES:
            of = texts.text(f"attention.of.{attention.of}", language)
            assert of in texts.text(f"attention.{attention.role}", language, of=of)


def build(key: str, net: str, **knobs: object) -> Wild:
    module = systems.build(key, (), net=net, **knobs)
    assert not any(part.training for part in module.modules())
    assert (module.provenance.kind, module.provenance.detail) == ("random", "seed 0")
    return module
