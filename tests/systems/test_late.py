"""Detectors: torchvision's own numbers for boxes, codes, matches and loss; what merging and switching levels does."""

from types import SimpleNamespace

import pytest
import torch
from matplotlib.mathtext import MathTextParser
from torch.nn import functional as F
from torchvision.models.detection import ssd300_vgg16
from torchvision.models.detection._utils import BoxCoder, SSDMatcher
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou, nms
from torchvision.ops.poolers import LevelMapper

from fusionviz import systems, texts
from fusionviz.records import FeatureMap, FeaturePyramid, LevelInfo, Provenance
from fusionviz.systems import _boxes
from fusionviz.systems._detector import LEVELS, Reading
from fusionviz.trace import NullTrace
from fusionviz.training.detecting import maps_of

INFOS = tuple(
    LevelInfo(f"s{s}", c, (s, s), (0.5, 0.5), i) for i, (s, c) in enumerate(((4, 6), (8, 8), (16, 10), (32, 12)))
)
KEYS = ("ssd", "mscnn", "fpn_detector")
each_detector = pytest.mark.parametrize("key", KEYS)


def levels(height: int = 64, width: int = 96, batch: int = 1) -> tuple[FeatureMap, ...]:
    generator = torch.Generator().manual_seed(0)
    sizes = [(-(-height // s), -(-width // s)) for s in (4, 8, 16, 32)]
    maps = [torch.randn(batch, i.channels, *s, generator=generator) for i, s in zip(INFOS, sizes, strict=True)]
    return maps_of(INFOS, maps)


def shaken(key: str, **knobs: object) -> systems.System:
    """A detector that is sure of something everywhere, each box of something else."""
    module = systems.build(key, INFOS, **{"score": 0.2, **knobs})
    generator = torch.Generator().manual_seed(1)
    for reader in module.readers.values():
        for conv in (reader.classes, reader.codes):
            torch.nn.init.normal_(conv.weight, std=0.5, generator=generator)
    return module


def seen(module: systems.System, height: int = 64, width: int = 96):
    pyramid = FeaturePyramid(levels(height, width), "toy", Provenance("random"))
    with torch.no_grad():
        return module(torch.zeros(1, 3, height, width), pyramid)


def claims(module: systems.System) -> torch.Tensor:
    with torch.no_grad():
        return module.claims(module.read(levels(), NullTrace()), (64, 96))[0]


def sorted_rows(rows: torch.Tensor) -> list[tuple[float, ...]]:
    return sorted(tuple(round(v, 3) for v in row) for row in rows.tolist())


# --- torchvision's numbers ------------------------------------------------------------------------
def test_the_8732_default_boxes_of_ssd300() -> None:
    reference = ssd300_vgg16(weights=None, weights_backbone=None)
    generator = reference.anchor_generator
    cells = (38, 19, 10, 5, 3, 1)
    image = ImageList(torch.zeros(1, 3, 300, 300), [(300, 300)])
    expected = generator(image, [torch.zeros(1, 1, n, n) for n in cells])[0]
    sides = [300 * s for s in generator.scales]
    ours = []
    for n, step, side, above, ratios in zip(
        cells, generator.steps, sides, sides[1:], generator.aspect_ratios, strict=False
    ):
        level = FeatureMap("level", torch.zeros(1, 1, n, n), (step, step), (step / 2, step / 2))
        ours.append(_boxes.default_boxes(level, _boxes.box_shapes(side, above, ratios), (300, 300)))
    assert [len(boxes) // n**2 for boxes, n in zip(ours, cells, strict=True)] == [4, 6, 6, 6, 4, 4]
    assert sum(map(len, ours)) == len(expected) == 8732
    torch.testing.assert_close(torch.cat(ours), expected, atol=2e-3, rtol=0)
    assert torch.equal(reference.backbone.scale_weight, torch.full((512,), 20.0))


def test_the_levels_of_boxes_are_those_of_fpn() -> None:
    sides = torch.tensor([32.0, 56, 112, 224, 448, 900])
    boxes = torch.stack((torch.zeros(6), torch.zeros(6), sides, sides), 1)
    assert _boxes.owner(boxes, 224, 4, at=2).tolist() == [0, 0, 1, 2, 3, 3]
    assert LevelMapper(2, 5, 224, 4)([boxes]).tolist() == [0, 0, 1, 2, 3, 3]


def test_codes_and_matches_are_torchvisions() -> None:
    things = torch.tensor([[10.0, 10, 30, 26], [40, 8, 60, 50]])
    defaults = torch.tensor([[8.0, 8, 28, 28], [0, 0, 8, 8], [36, 10, 60, 44]])
    coder = BoxCoder(weights=(10.0, 10.0, 5.0, 5.0))
    codes = coder.encode_single(things, defaults[[0, 2]])
    # by hand, the first: middles (20, 18) and (18, 18), sides (20, 16) and (20, 20)
    torch.testing.assert_close(codes[0], torch.tensor([10 * 2 / 20, 0.0, 0.0, 5 * torch.log(torch.tensor(0.8))]))
    torch.testing.assert_close(_boxes.decoded(codes[None], defaults[[0, 2]], (100, 100))[0], things)
    torch.testing.assert_close(_boxes.CODER.encode_single(things, defaults[[0, 2]]), codes)
    overlap = box_iou(things, defaults)
    assert _boxes.MATCHER(overlap).tolist() == SSDMatcher(0.5)(overlap).tolist() == [0, -1, 1]


def test_rows_are_in_torchvisions_order() -> None:
    head = ssd300_vgg16(weights=None, weights_backbone=None).head.classification_head
    maps = [torch.randn(2, m.in_channels, 3, 2) for m in head.module_list]
    with torch.no_grad():
        expected = head(maps)
        ours = torch.cat([_boxes.as_rows(m(x), 91) for m, x in zip(head.module_list, maps, strict=True)], 1)
    assert torch.equal(ours, expected)


def test_suppression_is_torchvisions_within_a_class_and_none_between_classes() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [0, 0, 10, 10], [30, 30, 40, 40]])
    rows = torch.cat((boxes, torch.tensor([[0.9, 1, 0], [0.8, 1, 1], [0.7, 2, 2], [0.6, 1, 3]])), 1)
    assert _boxes.suppressed(rows, 0.45)[:, 4].tolist() == pytest.approx([0.9, 0.7, 0.6])
    assert nms(boxes, rows[:, 4], 0.45).tolist() == [0, 3]  # without classes the third falls too
    assert len(_boxes.suppressed(rows, 0.95)) == 4


def test_claims_are_every_class_above_the_score_but_the_background() -> None:
    boxes = torch.tensor([[0.0, 0, 4, 4], [4, 4, 8, 8]])
    sure = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.25, 0.65]])
    found = _boxes.candidates(boxes, sure, torch.tensor([0, 3]), 0.22)
    assert found[:, 4].tolist() == pytest.approx([0.65, 0.3, 0.25])
    assert found[:, 5].tolist() == [2, 1, 1]
    assert found[:, 6].tolist() == [3, 0, 3]


def test_objectness_is_the_surest_box_of_a_place() -> None:
    scores = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 1.0]]).view(1, 6, 1, 1)  # two boxes, three classes
    expected = 1 - F.softmax(torch.tensor([[2.0, 0, 0], [0, 1, 1]]), 1)[:, 0].min()
    torch.testing.assert_close(_boxes.objectness(scores, 3).squeeze(), expected)


def test_boxes_stand_around_the_cells_own_places() -> None:
    level = FeatureMap("s8", torch.zeros(1, 1, 2, 3), (8, 8), (0.5, 0.5))
    boxes = _boxes.default_boxes(level, ((16.0, 16.0), (40.0, 10.0)), (20, 30))
    assert boxes.shape == (12, 4)
    assert boxes[4].tolist() == [8.5, -7.5, 24.5, 8.5]  # row 0, column 2, the square
    assert boxes[7].tolist() == [-14.5, 3.5, 15.5, 13.5]  # row 1, column 0, no wider than the picture


# --- every detector -------------------------------------------------------------------------------
@each_detector
def test_says_what_is_where_and_whose_prediction_it_is(key: str) -> None:
    result = seen(shaken(key))
    found = result.outputs["detections"]
    assert 0 < len(found) <= _boxes.KEPT
    assert found.levels == LEVELS
    assert bool((found.scores.diff() <= 0).all())
    assert bool((found.scores > 0.2).all())
    assert bool(((found.labels >= 1) & (found.labels < len(found.classes))).all())
    assert bool((found.boxes >= 0).all())
    assert bool((found.boxes <= torch.tensor([96, 64, 96, 64])).all())
    for name, level in zip(("o4", "o8", "o16", "o32"), levels(), strict=True):
        out, times = result.outputs[name], 2 if key == "mscnn" and name == "o4" else 1
        assert out.tensor.shape == (1, 1, times * level.size[0], times * level.size[1])
        assert out.stride[0] * times == level.stride[0]
        assert bool(((out.tensor >= 0) & (out.tensor <= 1)).all())
    assert result.provenance.kind == "random"


@each_detector
def test_a_level_that_is_off_takes_exactly_its_boxes_away(key: str) -> None:
    every = claims(shaken(key))
    for i, name in enumerate(LEVELS):
        left = claims(shaken(key, **{name: False}))
        assert bool((every[:, 6] == i).any())
        assert sorted_rows(left) == sorted_rows(every[every[:, 6] != i])
    none = seen(shaken(key, **dict.fromkeys(LEVELS, False)))
    assert len(none.outputs["detections"]) == 0


@each_detector
def test_the_order_of_levels_is_only_the_order_of_rows(key: str) -> None:
    module = shaken(key)
    with torch.no_grad():
        readings = module.read(levels(), NullTrace())
        order = (2, 0, 3, 1)
        mixed = [readings[i] for i in order]
        a, b = (module.claims(r, (64, 96))[0] for r in (readings, mixed))
        counts = [r.rows()[0].shape[1] for r in readings]
        blocks = torch.cat([r.rows()[0] for r in readings], 1).split(counts, 1)
        assert torch.equal(torch.cat([r.rows()[0] for r in mixed], 1), torch.cat([blocks[i] for i in order], 1))
    assert sorted_rows(a) == sorted_rows(b)


@each_detector
def test_what_is_seen_is_what_is_claimed_after_suppression(key: str) -> None:
    module = shaken(key, nms=0.3)
    kept = _boxes.suppressed(claims(module), 0.3)
    found = seen(module).outputs["detections"]
    torch.testing.assert_close(found.boxes, kept[:, :4])
    assert found.level.tolist() == kept[:, 6].tolist()


@each_detector
def test_a_batch_is_its_pictures_one_by_one(key: str) -> None:
    module, many = shaken(key), levels(batch=2)
    with torch.no_grad():
        both = module.read(many, NullTrace())
        for i in range(2):
            one = module.read(maps_of(INFOS, [m.tensor[i : i + 1] for m in many]), NullTrace())
            for a, b in zip(both, one, strict=True):
                for mine, alone in zip(a.rows(), b.rows(), strict=True):
                    torch.testing.assert_close(mine[i], alone[0], atol=1e-4, rtol=1e-4)
        claimed = module.claims(both, (64, 96))
    assert len(claimed) == 2
    assert not torch.equal(claimed[0][:5], claimed[1][:5])


@each_detector
def test_odd_sizes_and_every_parameter_learns(key: str) -> None:
    module = shaken(key)
    assert len(seen(module, 70, 51).outputs["detections"]) > 0
    module.train()
    readings = module.read(levels(), NullTrace())
    sum(part.square().mean() for r in readings for part in r.rows()).backward()
    for name, parameter in module.named_parameters():
        assert bool(parameter.grad.isfinite().all()), name
        assert bool(parameter.grad.any()), name


@each_detector
def test_the_trace_is_closed_and_counts_every_parameter(key: str) -> None:
    module = shaken(key)
    steps = seen(module).trace
    known = set()
    for step in steps:
        assert set(step.inputs) <= known
        known.add(step.key)
    shared = 3 if key == "fpn_detector" else 0  # one reader, used by four levels
    reader = sum(p.numel() for p in next(iter(module.readers.values())).parameters())
    assert sum(s.parameters for s in steps) == sum(p.numel() for p in module.parameters()) + shared * reader


# --- where they differ ----------------------------------------------------------------------------
@pytest.mark.parametrize(("key", "hears"), [("ssd", False), ("mscnn", False), ("fpn_detector", True)])
def test_only_fpn_lets_a_coarse_level_into_a_fine_ones_prediction(key: str, hears: bool) -> None:
    module, maps = shaken(key), list(levels())
    other = [*maps[:3], maps_of(INFOS, [m.tensor + 1 for m in maps])[3]]
    with torch.no_grad():
        before, after = (module.read(tuple(m), NullTrace())[0].classes for m in (maps, other))
    assert (not torch.equal(before, after)) is hears


def test_without_its_top_down_path_fpn_is_late_too_with_as_many_numbers() -> None:
    alone, whole = (shaken("fpn_detector", top_down=on) for on in (False, True))
    assert sum(p.numel() for p in alone.parameters()) == sum(p.numel() for p in whole.parameters())
    maps = list(levels())
    other = [*maps[:3], maps_of(INFOS, [m.tensor + 1 for m in maps])[3]]
    with torch.no_grad():
        before, after = (alone.read(tuple(m), NullTrace())[0].classes for m in (maps, other))
    assert torch.equal(before, after)


def test_fpns_pyramid_is_the_method_and_its_finest_level_is_fused() -> None:
    module = shaken("fpn_detector")
    result = seen(module)
    with torch.no_grad():
        pyramid = module.fpn(*levels())
    assert torch.equal(result.fused.tensor, pyramid.fused.tensor)
    (last,) = [step for step in result.trace if step.role == "fused"]
    assert last.tensor is result.fused.tensor


def test_ssds_finest_level_has_length_20_everywhere_at_the_start() -> None:
    module, maps = systems.build("ssd", INFOS), levels()
    scaled, *others = module.features(maps, NullTrace())
    torch.testing.assert_close(scaled.tensor.norm(dim=1), torch.full((1, 16, 24), 20.0))
    torch.testing.assert_close(scaled.tensor, 20 * F.normalize(maps[0].tensor))
    assert all(torch.equal(a.tensor, b.tensor) for a, b in zip(others, maps[1:], strict=True))


def test_mscnns_finest_branch_is_enlarged_with_its_surroundings() -> None:
    module, maps = systems.build("mscnn", INFOS), levels()
    with torch.no_grad():
        torch.nn.init.ones_(module.enlarge.weight)
        finest, *others = module.features(maps, NullTrace())
    assert finest.size == (32, 48)
    assert (finest.stride, finest.offset) == ((2, 2), (-0.5, -0.5))  # two cells around each of stride 4 at 0.5
    u = maps[0].tensor.sum(1, keepdim=True).repeat_interleave(2, 2).repeat_interleave(2, 3) + module.enlarge.bias[0]
    torch.testing.assert_close(finest.tensor[:, :1], u)
    torch.testing.assert_close(finest.tensor[0, 16, 10, 20], u[0, 0, 6:15, 16:25].mean())
    torch.testing.assert_close(finest.tensor[0, 16, 0, 0], u[0, 0, :5, :5].mean())  # nothing outside is counted
    assert all(a.tensor is b.tensor or torch.equal(a.tensor, b.tensor) for a, b in zip(others, maps[1:], strict=True))


def test_a_reading_is_rows_cell_by_cell() -> None:
    level = levels()[3]
    classes = torch.arange(4 * 10 * 6.0).view(1, 40, 2, 3)
    rows, _ = Reading(level, classes, torch.zeros(1, 16, 2, 3)).rows()
    assert torch.equal(rows[0, 5], classes[0, 10:20, 0, 1])  # cell 1, its second default box


def test_torchvisions_loss_of_ssd_is_ours_for_one_picture() -> None:
    from fusionviz.training.detecting import Things, assign, loss

    module = shaken("ssd")
    with torch.no_grad():
        readings = module.read(levels(), NullTrace())
    defaults = torch.cat(module.defaults(readings, (64, 96)))
    classes, codes = (torch.cat(p, 1) for p in zip(*(r.rows() for r in readings), strict=True))
    boxes, labels = torch.tensor([[5.0, 6, 15, 20], [40, 10, 80, 50]]), torch.tensor([3, 7])
    match = assign(boxes, module.defaults(readings, (64, 96)))
    assert torch.equal(match, SSDMatcher(0.5)(box_iou(boxes, defaults)))
    reference = ssd300_vgg16(weights=None, weights_backbone=None)
    theirs = type(reference).compute_loss(
        SimpleNamespace(box_coder=reference.box_coder, neg_to_pos_ratio=reference.neg_to_pos_ratio),
        [{"boxes": boxes, "labels": labels}],
        {"bbox_regression": codes, "cls_logits": classes},
        [defaults],
        [match],
    )
    ours = loss(classes, codes, defaults, match[None], Things(boxes[None], labels[None], 96))
    torch.testing.assert_close(ours, sum(theirs.values()))


# --- what people read -----------------------------------------------------------------------------
@each_detector
@pytest.mark.parametrize("language", texts.LANGUAGES)
def test_knobs_and_steps_have_their_words(key: str, language: str) -> None:
    for param in systems.spec(key).params:
        label, sentence = (texts.method_text(key, f"params.{param.key}.{part}", language) for part in ("label", "help"))
        assert 1 <= len(label) <= 20
        assert sentence.endswith((".", "。"))
    used = {step.op for step in seen(shaken(key)).trace}
    for op in used:
        assert len(texts.method_text(key, f"steps.{op}", language)) <= 24
    front = texts.lesson(key, language).front
    assert set(front["steps"]) <= used
    assert set(front["params"]) == {param.key for param in systems.spec(key).params}


@each_detector
def test_its_formulas_are_whole(key: str) -> None:
    parser = MathTextParser("path")
    for formula in (systems.spec(key).equation, *(step.formula for step in seen(shaken(key)).trace)):
        parser.parse(f"${formula}$")  # raises where a command is unknown or misused
