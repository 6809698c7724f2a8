"""DenseNet: the stack is the network's own, and its width grows by k with every layer."""

import pytest
import torch
from torch.nn import functional as F
from torchvision import models

from fusionviz import backbones, fusion
from fusionviz.records import ANALYTIC

CHANNELS = (8, 4, 4)


def maps(batch: int = 2) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(batch, c, 5, 6, generator=generator) for c in CHANNELS)


def test_every_map_comes_back_exactly() -> None:
    given = maps()
    result = fusion.build("densenet", CHANNELS)(*given)
    assert result.provenance == ANALYTIC
    for part, m in zip(result.fused.tensor.split(CHANNELS, 1), given, strict=True):
        assert torch.equal(part, m)
    assert [s.key for s in result.trace] == ["x0", "x1", "x2", "fused"]


@pytest.mark.parametrize(("block", "layer"), [(1, 2), (1, 6), (3, 24)])
def test_the_stack_is_what_the_networks_own_layer_is_given(block: int, layer: int) -> None:
    torch.manual_seed(0)
    own = models.densenet121(weights=None).eval()
    network = backbones.load("densenet121", state=own.state_dict())
    path, given = f"features.denseblock{block}.denselayer{layer}", []
    handle = own.get_submodule(f"{path}.norm1").register_forward_pre_hook(lambda _, args: given.append(args[0].clone()))
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        own(x)
        handle.remove()
        found, _ = network.at(f"dense:{path}")(x)
        fused = fusion.build("densenet", tuple(m.channels for m in found))(*found).fused
    assert torch.equal(fused.tensor, given[0])
    k0 = {1: 64, 2: 128, 3: 256, 4: 512}[block]
    assert fused.channels == k0 + 32 * (layer - 1)


def test_with_growth_it_is_the_layer_of_torchvision() -> None:
    torch.manual_seed(0)
    own = models.densenet._DenseLayer(sum(CHANNELS), growth_rate=12, bn_size=4, drop_rate=0.0).eval()
    module = fusion.build("densenet", CHANNELS, growth=12)
    renamed = {"norm1": "norm1", "norm2": "norm2", "narrow": "conv1", "conv": "conv2"}
    for norm in (own.norm1, own.norm2):
        torch.nn.init.normal_(norm.bias)
        torch.nn.init.uniform_(norm.weight, 0.5, 2.0)
    for mine, theirs in renamed.items():
        module.get_submodule(mine).load_state_dict(own.get_submodule(theirs).state_dict())
    given = maps()
    with torch.no_grad():
        result = module(*given)
        torch.testing.assert_close(result.fused.tensor, own(list(given)))
    assert result.fused.channels == 12
    assert result.provenance.kind == "random"


def test_the_share_with_growth_is_of_what_the_narrow_convolution_hears() -> None:
    given = maps()
    module = fusion.build("densenet", CHANNELS, growth=4)
    low, rest = module(*given).terms()
    heard = F.relu(module.norm1(torch.cat(given, 1)))
    torch.testing.assert_close(low + rest, module.narrow(heard))
    torch.testing.assert_close(low, F.conv2d(heard[:, :8], module.narrow.weight[:, :8]))


def test_width_grows_by_k_in_every_block_of_densenet121() -> None:
    info = backbones.info("densenet121")
    found = []
    for block, k0 in ((1, 64), (2, 128), (3, 256), (4, 512)):
        whole = info.site(f"dense:features.denseblock{block}")
        assert whole.operands[0].channels == k0
        found += [k0, sum(v.channels for v in whole.operands)]
    assert found == [64, 256, 128, 512, 256, 1024, 512, 1024]
