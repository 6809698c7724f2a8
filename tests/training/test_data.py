"""What is trained on: scenes as bytes, maps at half precision, and labels that survive every distortion."""

import pytest
import torch

from fusionviz import backbones, scenes
from fusionviz.backbones import bundled
from fusionviz.training import class_weights, data, draw, features


def test_scenes_are_those_of_their_seeds() -> None:
    samples = draw(data.VALIDATION, 3, 64)
    alone = scenes.scene(data.VALIDATION + 2, 64)
    assert samples.pictures.dtype == samples.classes.dtype == torch.uint8
    assert torch.equal(samples.pictures[2].permute(1, 2, 0), torch.from_numpy(alone.picture.copy()))
    assert torch.equal(samples.classes[2], torch.from_numpy(alone.classes.copy()))
    assert torch.equal(samples.instances[2], torch.from_numpy(alone.instances.copy()))


def test_drawing_in_parts_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = draw(5, 7, 32)
    monkeypatch.setattr(data, "_CHUNK", 3)
    seen = []
    parts = draw(5, 7, 32, progress=lambda now, count: seen.append((now, count)))
    assert torch.equal(whole.pictures, parts.pictures)
    assert torch.equal(whole.instances, parts.instances)
    assert seen == [(3, 7), (6, 7), (7, 7)]
    assert len(parts[:2]) == 2


def test_no_split_reaches_another_nor_the_scenes_that_people_open() -> None:
    from fusionviz.training import rebuild

    budget, starts = rebuild.FULL, (data.TRAIN, data.FROZEN_FROM, data.VALIDATION, data.TEST)
    assert min(starts) >= 1_000_000
    most = max(budget.scenes, budget.head_scenes, budget.test_scenes)
    assert all(b - a > most for a, b in zip(starts, starts[1:], strict=False))


def test_maps_are_the_backbones_own() -> None:
    backbone = backbones.load("scene_resnet", seed=1)
    samples = draw(0, 3, 64)
    maps = features(backbone, samples, ("s4", "s32"))
    assert list(maps) == ["s4", "s32"]
    assert maps["s4"].dtype == torch.float16
    assert tuple(maps["s4"].shape) == (3, 32, 16, 16)
    x = (samples.pictures[1:2].float() / 255 - 0.5) / 0.25
    torch.testing.assert_close(data.normalise(samples.pictures[1:2], bundled.PREPROCESSING), x)
    with torch.inference_mode():
        pyramid, _ = backbone(x)
    torch.testing.assert_close(maps["s4"][1:2].float(), pyramid["s4"].tensor, rtol=2e-3, atol=2e-3)
    assert not maps["s4"].is_inference()  # a training loop could not use it


def test_rare_classes_weigh_more_and_the_mean_is_one() -> None:
    labels = torch.tensor([0] * 81 + [1] * 16 + [2] * 3)
    weights = class_weights(labels, 4)
    assert weights.mean() == pytest.approx(1)
    assert weights[1] / weights[0] == pytest.approx((81 / 16) ** 0.4)
    assert weights[3] == weights[2] == weights.max()  # never seen: as the rarest


def test_labels_are_mirrored_with_their_picture() -> None:
    samples = draw(11, 16, 64)
    # Paint the classes into the picture, so that both can be compared however colours and brightness change.
    painted = samples.classes.float().unsqueeze(1).expand(-1, 3, -1, -1) / 20 + 0.1
    pictures, classes = data.augment(painted, samples.classes, torch.Generator().manual_seed(0))
    mirrored = 0
    for before, picture, label in zip(samples.classes, pictures, classes, strict=True):
        for kind in label.unique():
            values = picture[:, label == kind]
            assert torch.equal(values, values[:, :1].expand_as(values))  # one colour for one kind
        mirrored += int(torch.equal(label, before.flip(-1)) and not torch.equal(label, before))
    assert 3 <= mirrored <= 13


def test_colours_change_and_brightness_stays_in_bounds() -> None:
    pictures = torch.rand(64, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    out, _ = data.augment(pictures, torch.zeros(64, 8, 8, dtype=torch.uint8), torch.Generator().manual_seed(0))
    assert ((out >= 0) & (out <= 1)).all()
    centred = [t.flatten(1) - t.flatten(1).mean(1, keepdim=True) for t in (pictures.mean(1), out.mean(1))]
    along = (centred[0] * centred[1]).sum(1)
    assert 8 <= (along < 0).sum() <= 32  # about 3 in 10 are negatives, some of them mirrored
    again, _ = data.augment(pictures, torch.zeros(64, 8, 8, dtype=torch.uint8), torch.Generator().manual_seed(0))
    assert torch.equal(out, again)
