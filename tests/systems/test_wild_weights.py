"""The real way of published weights into networks in the wild: fetched, verified, read, filled in, and said."""

import hashlib
import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from _server import file_server
from _torchvisions import build, look, picture, pixels, steps
from torchvision.models import get_model, get_model_weights

from fusionviz import study, systems, weights
from fusionviz.errors import WeightsError
from fusionviz.records import Provenance
from fusionviz.selection import Selection

LRASPP = "lraspp_mobilenet_v3_large"
SYSTEMS = ("wild_segment", "wild_detect", "wild_gates", "wild_attention")
ALL = [(key, net) for key in SYSTEMS for net in systems.spec(key).param("net").choices]


def as_published(net: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state as torchvision's file has it: older names, and no counts of batches where the body was frozen."""
    if net == "fasterrcnn_resnet50_fpn":
        state = {re.sub(r"((?:inner|layer)_blocks\.\d)\.0\.", r"\1.", name): t for name, t in state.items()}
        state = {name.replace("rpn.head.conv.0.0.", "rpn.head.conv."): t for name, t in state.items()}
        assert not any("num_batches_tracked" in name for name in state)
    if net.startswith("vit"):
        for today, older in ((0, 1), (3, 2)):
            state = {name.replace(f"mlp.{today}.", f"mlp.linear_{older}."): t for name, t in state.items()}
    return state


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Publish a state as torchvision's weights of a network, on a server of this machine, with an empty cache here."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with file_server() as server:
        monkeypatch.setenv(weights.MIRROR, server.url)

        def publish(net: str, state: dict[str, torch.Tensor]) -> bytes:
            buffer = io.BytesIO()
            torch.save(state, buffer)
            body, real = buffer.getvalue(), weights.published
            known = real(net)
            digest = hashlib.sha256(body).hexdigest()[:8]
            name = known.filename.replace(known.checksum, digest)
            mine = replace(known, filename=name, checksum=digest, size_bytes=len(body))
            monkeypatch.setattr(weights, "published", lambda key: mine if key == net else real(key))
            server.files[name] = body
            return body

        yield publish


def shaken(key: str, net: str, **knobs: object) -> dict[str, torch.Tensor]:
    """Numbers as a training leaves them: no mean is 0 and no variance is 1."""
    module = systems.build(key, (), net=net, seed=5, **knobs)
    generator = torch.Generator().manual_seed(2)
    state = module.network.state_dict()
    for name, tensor in state.items():
        if name.endswith("running_var"):
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
        elif name.endswith("running_mean"):
            tensor.copy_(0.1 * torch.randn(tensor.shape, generator=generator))
    return state


@pytest.mark.parametrize(("key", "net"), ALL)
def test_torchvision_publishes_weights_for_every_network_that_can_be_chosen(key, net):
    known, entry = weights.published(net), get_model_weights(net).DEFAULT
    assert known.url == entry.url
    assert known.checksum in known.filename
    assert known.categories == tuple(entry.meta["categories"])
    assert known.size_bytes > 5_000_000


SERVED = (
    LRASPP,
    "deeplabv3_mobilenet_v3_large",
    "fasterrcnn_resnet50_fpn",  # frozen, nothing added to variances, older names
    "fasterrcnn_mobilenet_v3_large_320_fpn",  # frozen
    "ssdlite320_mobilenet_v3_large",
    "mobilenet_v3_small",
)
"""Small ones, and the one that differs most from how it is built without weights."""
LARGE = [(key, net) for key, net in ALL if net not in SERVED and (key in SYSTEMS[:2] or net in ("swin_t", "vit_b_32"))]


@pytest.mark.parametrize(
    ("key", "net"),
    [
        *((key, net) for key, net in ALL if net in SERVED),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in LARGE),
    ],
)
def test_served_in_torchvisions_format_and_used_as_torchvision_uses_them(key, net, published):
    state = shaken(key, net)
    body = published(net, as_published(net, state))
    small = {"scale": "given"} if key != "wild_attention" else {}
    module = build(key, net, **small)
    assert module.recall() == ()
    assert module.provenance.kind == "random"
    path = weights.fetch(net)
    assert module.recall() == ()
    entry = get_model_weights(net).DEFAULT
    assert module.provenance == Provenance("pretrained", entry.name)
    (path.parent / weights.urlsplit(entry.url).path.rpartition("/")[2]).write_bytes(body)  # for torchvision to find
    theirs = get_model(net, weights=entry).eval()
    at = picture(96, 96)
    result = look(module, at)
    seen = steps(result)["fitted"] if key != "wild_detect" else None
    with torch.no_grad():
        if key == "wild_detect":
            found: dict = {}
            theirs.transform.min_size, theirs.transform.max_size = (96,), 96
            hook = theirs.backbone.register_forward_hook(lambda m, i, o: found.update(o))
            theirs([pixels(at)[0]])
            hook.remove()
            for name, expected in zip(result.outputs["detections"].levels, found.values(), strict=True):
                torch.testing.assert_close(result.outputs[name].tensor, expected)
                assert expected.std() > 0
        elif key == "wild_segment":
            torch.testing.assert_close(steps(result)["enlarged"], theirs(seen)["out"])
        else:
            torch.testing.assert_close(result.outputs["classes"].values, theirs(seen)[0])
    assert result.provenance == module.provenance


def test_a_damaged_file_is_said_and_random_weights_stay(published, tmp_path):
    published(LRASPP, shaken("wild_segment", LRASPP))
    path = weights.fetch(LRASPP)
    path.write_bytes(path.read_bytes()[:-1] + b"x")  # of the right size
    module = build("wild_segment", LRASPP)
    (broken,) = module.recall()
    assert broken.code == "weights.corrupt"
    assert module.provenance.kind == "random"


def test_another_networks_numbers_are_refused_and_change_nothing():
    module = build("wild_segment", LRASPP)
    before = {name: t.clone() for name, t in module.network.state_dict().items()}
    others = [
        {**before, "classifier.low_classifier.weight": torch.zeros(3, 40, 1, 1)},
        {name: t + 1 for name, t in before.items() if not name.startswith("classifier.scale")},
        {**{name: t + 1 for name, t in before.items()}, "more": torch.zeros(1)},
    ]
    for other, named in zip(
        others, ("3 × 40 × 1 × 1 ≠ 21 × 40 × 1 × 1", "classifier.scale.1.weight", "more"), strict=True
    ):
        with pytest.raises(WeightsError) as caught:
            module.fill(other, Provenance("pretrained", "other"))
        assert named in str(caught.value)
        assert module.provenance.kind == "random"
        assert all(torch.equal(before[name], t) for name, t in module.network.state_dict().items())


def test_an_unknown_name_is_answered_with_near_ones_of_every_kind():
    with pytest.raises(WeightsError) as caught:
        weights.published("retinanet_resnet50")
    assert "retinanet_resnet50_fpn" in str(caught.value)


def test_a_study_takes_fetched_weights_and_says_so_and_a_damaged_file_costs_nothing(published) -> None:
    net = "mobilenet_v3_small"
    chosen = Selection(picture="sample:coffee", method="wild_gates", params=(("net", net), ("scale", "given")), size=64)
    before = study.run(chosen)
    assert before.result.provenance.kind == "random"
    published(net, as_published(net, shaken("wild_gates", net)))
    path = weights.fetch(net)
    after = study.run(chosen)
    assert after.result.provenance.kind == "pretrained"
    assert after.provenance.kind == "pretrained"
    assert not torch.equal(after.result.fused.tensor, before.result.fused.tensor)
    assert study.run(chosen.with_(weights="random")).result.provenance.kind == "random"
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(body)
    damaged = study.run(chosen)
    assert damaged.result.provenance.kind == "random"
    assert len(damaged.notices) == 1
    assert torch.equal(damaged.result.fused.tensor, before.result.fused.tensor)
