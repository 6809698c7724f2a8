"""Every method on networks of every kind: one front door, no failure."""

import json

import pytest

from fusionviz import backbones, fusion, models, study
from fusionviz.errors import LevelError
from fusionviz.selection import Selection

BACKBONES = (
    "resnet18 mobilenet_v3_large efficientnet_b0 convnext_tiny swin_t vit_b_16 maxvit_t densenet121 googlenet "
    "inception_v3 vgg16_bn alexnet"
)


@pytest.mark.parametrize("backbone", BACKBONES.split())
def test_every_method_runs_on(backbone: str) -> None:
    prepared = {}
    kinds = {site.kind for site in backbones.info(backbone).sites}
    for method in fusion.names():
        if (stands := fusion.spec(method).stands) and stands not in kinds:
            with pytest.raises(LevelError, match="Choose a network that has"):
                study.resolve(Selection(backbone=backbone, method=method))
            continue
        found = study.run(Selection(picture="sample:coffee", backbone=backbone, method=method))
        report = json.loads(json.dumps(study.report(found)))
        assert report["backbone"]["key"] == backbone
        fused = found.result.fused
        pair = fusion.spec(method).takes == "pair"
        assert fused.size in {level.size for level in ((found.low,) if pair else found.pyramid)}
        assert fused.tensor.isfinite().all()
        for attention in found.result.attention.values():
            attention.check()
        if stands:
            assert found.pyramid.names == tuple(v.name for v in study.site(found.selection).operands)
        else:
            prepared[method] = found.pyramid.names
    assert len(set(prepared.values())) == 1
    models.BACKBONES.clear()
