"""torchvision's segmentation networks: its own scores, what was fused for them, and where everything lies."""

import pytest
import torch
from _torchvisions import build, check_trace, look, picture, pixels, steps
from torch.nn import functional as F
from torchvision.models import get_model_weights, list_models, segmentation
from torchvision.transforms import functional as images

from fusionviz import systems, weights
from fusionviz.errors import ShapeError
from fusionviz.records import Preprocessing

KEY = "wild_segment"
NETS = systems.spec(KEY).param("net").choices
LRASPP = "lraspp_mobilenet_v3_large"


def own_input(net: str, at: torch.Tensor) -> torch.Tensor:
    wants = get_model_weights(net).DEFAULT.transforms()
    return images.normalize(pixels(at), wants.mean, wants.std)


def test_every_segmentation_network_of_torchvision_is_there():
    assert set(NETS) == set(list_models(module=segmentation))


@pytest.mark.parametrize("net", NETS)
def test_it_is_torchvisions_forward_pass_and_shows_what_was_fused(net):
    module, at = build(KEY, net, scale="given"), picture(65, 97)
    inside = {}
    parts = {"high": module.network.backbone, "fused": module.network.classifier}
    hooks = [p.register_forward_hook(lambda m, i, o, n=n: inside.setdefault(n, o)) for n, p in parts.items()]
    with torch.no_grad():
        expected = module.network(own_input(net, at))["out"]
    for hook in hooks:
        hook.remove()
    result = look(module, at)
    made, out = steps(result), result.outputs
    torch.testing.assert_close(made["enlarged"], expected)
    assert expected.std() > 0
    assert torch.equal(out["classes"].tensor, expected[0].argmax(0))
    torch.testing.assert_close(result.fused.tensor, inside["fused"])
    taps = inside["high"]
    torch.testing.assert_close(out["high"].tensor, taps["high" if net == LRASPP else "out"])
    mobile = "mobilenet" in net
    assert out["high"].stride == ((16, 16) if mobile else (8, 8))
    assert out["high"].size == ((5, 7) if mobile else (9, 13))
    assert out["high"].offset == (0.5, 0.5)
    assert out["classes"].classes == weights.categories(net) == tuple(get_model_weights(net).DEFAULT.meta["categories"])
    assert out["classes"].classes[15] == "person"
    check_trace(KEY, result)
    branches = [name for name in out if name.startswith("branch")]
    if net == LRASPP:
        torch.testing.assert_close(out["low"].tensor, taps["low"])
        assert (out["low"].channels, out["low"].stride) == (40, (8, 8))
    else:
        assert branches == ([f"branch_{i}" for i in range(1, 6)] if net.startswith("deeplab") else [])
    assert list(result.attention) == (["gate"] if net == LRASPP else [])


def test_lraspp_gates_128_channels_and_adds_votes():
    module, at = build(KEY, LRASPP, scale="given"), picture()
    result = look(module, at)
    gate, head, made = result.attention["gate"], module.network.classifier, steps(result)
    with torch.no_grad():
        torch.testing.assert_close(gate.tensor, head.scale(result.outputs["high"].tensor))
    assert gate.tensor.shape == (1, 128, 1, 1)
    low, high = result.aligned
    torch.testing.assert_close(low.tensor + high.tensor, result.fused.tensor)
    torch.testing.assert_close(made["gated"], made["reduce"] * gate.tensor)
    terms = [
        t + c.bias.view(-1, 1, 1)
        for t, c in zip(result.terms(), (head.low_classifier, head.high_classifier), strict=True)
    ]
    torch.testing.assert_close(sum(terms), result.fused.tensor)
    share = result.share_of_low().tensor
    assert share.shape == (1, 1, 8, 12)


def test_deeplabs_branches_see_at_five_distances():
    module = build(KEY, "deeplabv3_mobilenet_v3_large", scale="given")
    result = look(module, picture())
    high, convs = result.outputs["high"].tensor, module.network.classifier[0].convs
    for i, conv in enumerate(convs, start=1):
        with torch.no_grad():
            torch.testing.assert_close(result.outputs[f"branch_{i}"].tensor, conv(high))
    mean = result.outputs["branch_5"].tensor
    torch.testing.assert_close(mean, mean[..., :1, :1].expand_as(mean))  # the mean of all places is one for all
    assert [conv[0].dilation for conv in convs[1:4]] == [(12, 12), (24, 24), (36, 36)]


def test_a_picture_is_enlarged_as_torchvision_does_and_places_stay_where_they_are():
    module, at = build(KEY, LRASPP), picture(60, 90)
    result, preset = look(module, at), get_model_weights(LRASPP).DEFAULT.transforms()
    torch.testing.assert_close(steps(result)["fitted"], preset(pixels(at)), atol=1e-5, rtol=1e-5)
    classes = result.outputs["classes"]
    assert classes.tensor.shape == (520, 780)
    assert classes.stride == pytest.approx((60 / 520, 90 / 780))
    low = result.outputs["low"]
    assert low.stride == pytest.approx((8 * 60 / 520, 8 * 90 / 780))
    assert low.offset == pytest.approx((0.5 * 60 / 520, 0.5 * 90 / 780))


def test_how_the_picture_came_is_undone():
    module, at = build(KEY, LRASPP, scale="given"), picture()
    other = Preprocessing(224, 224)
    came = images.normalize(pixels(at), other.mean, other.std)
    torch.testing.assert_close(look(module, at).fused.tensor, look(module, came, preprocessing=other).fused.tensor)


def test_same_seed_same_numbers_and_one_picture_at_a_time():
    first, second = (look(build(KEY, LRASPP, scale="given"), picture()).fused.tensor for _ in range(2))
    assert torch.equal(first, second)
    other = look(systems.build(KEY, (), net=LRASPP, scale="given", seed=1), picture()).fused.tensor
    assert not torch.equal(first, other)
    with pytest.raises(ShapeError):
        look(build(KEY, LRASPP, scale="given"), picture().expand(2, -1, -1, -1))


def test_a_place_of_the_class_map_is_the_best_class_there():
    result = look(build(KEY, LRASPP, scale="given"), picture())
    enlarged = F.interpolate(result.fused.tensor, (64, 96), mode="bilinear", align_corners=False)
    assert result.outputs["classes"].tensor[10, 20] == enlarged[0, :, 10, 20].argmax()
