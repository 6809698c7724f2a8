"""Every method on networks of every kind: one front door, no failure.

    python tests/test_matrix.py > tests/matrix.md       every method on every network, minutes

The table says for each pair that it runs, or by which of the locale's errors it is answered.
"""

import json
from functools import cache
from pathlib import Path

import pytest
import torch

from fusionviz import backbones, fusion, models, study
from fusionviz.errors import FusionvizError, LevelError
from fusionviz.records import FeaturePyramid, FusionResult
from fusionviz.selection import Selection

BACKBONES = (
    "resnet18 mobilenet_v3_large efficientnet_b0 convnext_tiny swin_t vit_b_16 maxvit_t densenet121 googlenet "
    "inception_v3 vgg16_bn alexnet"
)
TABLE = Path(__file__).with_name("matrix.md")
SIZE_PX = 128
"""Side of the input, where a network takes it: the structure is tested, not the size."""

WORKS = "✓"


def small(backbone: str, method: str) -> Selection:
    wants = backbones.info(backbone).preprocessing
    fits = not wants.fixed and wants.minimum_px <= SIZE_PX and SIZE_PX % wants.multiple == 0
    return Selection("sample:coffee", backbone, "random", method=method, size=SIZE_PX if fits else None)


def check(method: str, result: FusionResult, pyramid: FeaturePyramid) -> None:
    """The fused map has the places of a level, of a pair its finer one; all is finite, and weights keep their law."""
    sizes = [level.size for level in pyramid]
    assert result.fused.size in sizes
    if fusion.spec(method).takes == "pair":
        assert result.fused.size == result.aligned[0].size if result.aligned else True
    assert result.fused.tensor.isfinite().all()
    for attention in result.attention.values():
        attention.check()


@pytest.mark.parametrize("backbone", BACKBONES.split())
def test_every_method_runs_on(backbone: str) -> None:
    kinds = {site.kind for site in backbones.info(backbone).sites}
    for method, said in zip(fusion.names(), outcomes(backbone, fusion.names()), strict=True):
        if (stands := fusion.spec(method).stands) and stands not in kinds:
            with pytest.raises(LevelError, match="Choose a network that has"):
                study.resolve(Selection(backbone=backbone, method=method))
        else:
            assert said == WORKS, method


@pytest.mark.parametrize("backbone", ["resnet18", "vit_b_16", "googlenet"])
@pytest.mark.parametrize("method", ["aff", "fpn", "asff", "cross_attention", "inception"])
def test_the_front_door_gives_the_same(backbone: str, method: str) -> None:
    chosen = small(backbone, method)
    if fusion.spec(method).stands and backbone != "googlenet":
        pytest.skip("has no such place")
    found = study.run(chosen)
    report = json.loads(json.dumps(study.report(found)))
    assert report["backbone"]["key"] == backbone
    check(method, found.result, found.pyramid)
    if fusion.spec(method).stands:
        assert found.pyramid.names == tuple(v.name for v in study.site(found.selection).operands)


# --- all of them -----------------------------------------------------------------------------------
@torch.inference_mode()
def outcomes(backbone: str, methods: tuple[str, ...]) -> list[str]:
    """What comes of every method on one network, which itself runs once for each place where methods stand."""
    found, maps = [], {}
    for method in methods:
        try:
            p = study.prepare(small(backbone, method))
        except FusionvizError as error:
            found.append(error.code)
            continue
        if p.selection.site not in maps:
            maps[p.selection.site] = p.backbone(p.tensor)[0]
        pyramid = maps[p.selection.site]
        result = p.method(*(pyramid[name] for name in study.level_names(p.selection, pyramid)), context=p.context)
        check(method, result, pyramid)
        found.append(WORKS)
    models.BACKBONES.clear()
    models.METHODS.clear()
    return found


@cache
def committed() -> tuple[tuple[str, ...], dict[str, list[str]]]:
    """The table's methods, and its rows by network."""
    lines = [line for line in TABLE.read_text("utf-8").splitlines() if line.startswith("| ")]
    (_, *methods), *rows = ([cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines)
    return tuple(methods), {backbone: cells for backbone, *cells in rows}


def test_the_table_knows_no_failure_but_missing_branches() -> None:
    methods, rows = committed()
    for backbone, cells in rows.items():
        for method, cell in zip(methods, cells, strict=True):
            assert cell == WORKS or fusion.spec(method).takes == "branches", (backbone, method, cell)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", backbones.names())
def test_the_table_is_what_comes_out(backbone: str) -> None:
    methods, rows = committed()
    assert set(fusion.names()) == set(methods), "run: python tests/test_matrix.py > tests/matrix.md"
    assert outcomes(backbone, methods) == rows[backbone]


def main() -> None:
    torch.manual_seed(0)
    methods = fusion.names()
    print("# Every method on every network\n")
    print(f"`python tests/test_matrix.py > tests/matrix.md`, torch {torch.__version__}, input of {SIZE_PX} px where a")
    print(f"network takes it, random weights, one photograph. {WORKS}: it runs, everything is finite, and every weight")
    print("keeps its law; else the error by which it is answered.\n")
    print("| network |", " | ".join(f"`{method}`" for method in methods), "|")
    print("|---" * (1 + len(methods)) + "|")
    for backbone in backbones.names():
        print(f"| `{backbone}` |", " | ".join(outcomes(backbone, methods)), "|", flush=True)


if __name__ == "__main__":
    main()
