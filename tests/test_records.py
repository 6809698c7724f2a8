"""The records rooms hand to each other: what they refuse, where cells lie, what weights must keep to."""

import dataclasses

import pytest
import torch

from fusionviz.errors import LevelError, ShapeError
from fusionviz.records import (
    ANALYTIC,
    AttentionMap,
    ClassMap,
    FeatureMap,
    FeaturePyramid,
    FusionResult,
    Provenance,
    RegionMaps,
)


def level(name: str = "s4", stride: float = 4.0, stage: int = 1, channels: int = 2, size: int = 8) -> FeatureMap:
    return FeatureMap(name, torch.zeros(1, channels, size, size), (stride, stride), (1.5, 1.5), stage)


# --- provenance ----------------------------------------------------------------------------------
def test_the_weaker_provenance_wins() -> None:
    trained, fitted = Provenance("pretrained", "V1"), Provenance("fitted", "120 steps")
    drawn = Provenance("random", "seed 3")
    assert ANALYTIC | trained == trained
    assert trained | ANALYTIC == trained
    assert trained | drawn == drawn
    assert drawn | fitted == drawn
    assert fitted | trained == fitted
    assert ANALYTIC | ANALYTIC == ANALYTIC


def test_provenance_has_known_kinds() -> None:
    with pytest.raises(ValueError, match="analytic, bundled, pretrained, fitted_scenes, fitted, random"):
        Provenance("guessed")


# --- maps ----------------------------------------------------------------------------------------
def test_a_map_says_its_channels_size_and_shape() -> None:
    m = FeatureMap("s4", torch.zeros(1, 64, 7, 5), (4, 4), (0.5, 0.5))
    assert (m.channels, m.size, m.shape_text) == (64, (7, 5), "64 × 7 × 5")


def test_maps_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        level().name = "s8"


@pytest.mark.parametrize(
    ("tensor", "stride", "error"),
    [
        (torch.zeros(2, 3, 4), (4, 4), ShapeError),
        (torch.zeros(1, 2, 3, 3, dtype=torch.int64), (4, 4), TypeError),
        (torch.zeros(1, 2, 3, 3), (0, 4), ValueError),
        (torch.zeros(1, 2, 3, 3), (4, -4), ValueError),
    ],
)
def test_maps_that_make_no_sense_are_refused(tensor: torch.Tensor, stride: tuple, error: type) -> None:
    with pytest.raises(error):
        FeatureMap("s4", tensor, stride, (0.5, 0.5))


def test_complex_and_half_maps_are_maps() -> None:
    for dtype in (torch.complex64, torch.float16, torch.bfloat16):
        assert FeatureMap("s4", torch.zeros(1, 1, 2, 2, dtype=dtype), (4, 4), (0, 0)).tensor.dtype == dtype


@pytest.mark.parametrize(
    ("place", "cell"),
    [
        ((1.5, 1.5), (0, 0)),  # on the centre of the first cell
        ((3.4, 3.6), (0, 1)),  # 3.5 is half-way between the centres 1.5 and 5.5
        ((0.0, 31.9), (0, 7)),
        ((-100.0, 1000.0), (0, 7)),  # outside belongs to the cell at the border
        ((29.5, 13.5), (7, 3)),
    ],
)
def test_a_place_belongs_to_the_cell_whose_centre_is_nearest(place: tuple, cell: tuple) -> None:
    assert level().cell_at(*place) == cell


def test_cells_follow_stride_and_offset_not_sizes() -> None:
    wide = FeatureMap("s8", torch.zeros(1, 1, 4, 9), (8, 2), (0.5, 1.0))
    assert wide.cell_at(16.5, 17.0) == (2, 8)


# --- pyramids ------------------------------------------------------------------------------------
def pyramid() -> FeaturePyramid:
    return FeaturePyramid((level("s4", 4, 1), level("s8", 8, 2), level("s16", 16, 3)), "toy", ANALYTIC)


def test_levels_are_called_by_name_or_position() -> None:
    p = pyramid()
    assert p["s8"] is p[1] is p.levels[1]
    assert p[-1].name == "s16"
    assert [m.name for m in p] == list(p.names) == ["s4", "s8", "s16"]
    assert len(p) == 3


@pytest.mark.parametrize("missing", ["s2", 3, -4])
def test_a_missing_level_is_refused_with_the_levels_there_are(missing: str | int) -> None:
    with pytest.raises(LevelError) as refusal:
        pyramid()[missing]
    for language in ("en", "zh"):
        said = refusal.value.text(language)
        assert all(part in said for part in ("toy", str(missing), "s4, s8, s16"))


def test_levels_run_from_fine_to_coarse() -> None:
    with pytest.raises(ValueError, match="from fine to coarse"):
        FeaturePyramid((level("s8", 8, 1), level("s4", 4, 2)), "toy", ANALYTIC)
    with pytest.raises(ValueError, match="from fine to coarse"):
        FeaturePyramid((level("s4", 4, 2), level("s8", 8, 2)), "toy", ANALYTIC)


def test_no_axis_of_the_stride_may_decrease() -> None:
    tall = FeatureMap("a", torch.zeros(1, 1, 4, 4), (4, 8), (0, 0), 1)
    wide = FeatureMap("b", torch.zeros(1, 1, 4, 4), (8, 4), (0, 0), 2)
    with pytest.raises(ValueError, match="from fine to coarse"):
        FeaturePyramid((tall, wide), "toy", ANALYTIC)


def test_levels_of_one_stride_differ_in_depth() -> None:
    assert FeaturePyramid((level("d1", 16, 1), level("d2", 16, 2)), "vit", ANALYTIC).names == ("d1", "d2")


# --- attention -----------------------------------------------------------------------------------
def attention(tensor: torch.Tensor, axes: str = "b c h w", kind: str = "gate", **more: object) -> AttentionMap:
    return AttentionMap("low", tensor, axes, kind, **more)


@pytest.mark.parametrize(
    ("axes", "shape", "grain"),
    [
        ("b c 1 1", (2, 3, 1, 1), "channel"),
        ("b 1 h w", (2, 1, 4, 4), "place"),
        ("b c h w", (2, 3, 4, 4), "element"),
        ("b n 1 1 1", (2, 2, 1, 1, 1), "branch"),
        ("b n c 1 1", (2, 2, 3, 1, 1), "channel"),
        ("b n h w", (2, 2, 4, 4), "place"),
        ("b head q k", (2, 8, 5, 6), "pairs"),
        ("b t h w", (2, 7, 4, 4), "time"),
    ],
)
def test_axes_say_what_one_weight_belongs_to(axes: str, shape: tuple, grain: str) -> None:
    assert attention(torch.zeros(shape), axes).grain == grain


def test_a_weight_must_have_its_axes_and_a_known_kind() -> None:
    with pytest.raises(ShapeError, match="attention 'low'"):
        attention(torch.zeros(2, 3, 4, 4), "b 1 h w")
    with pytest.raises(ValueError, match="gate, softmax"):
        attention(torch.zeros(1, 1, 1, 1), kind="feeling")


@pytest.mark.parametrize("bad", [-0.01, 1.01, float("nan"), float("inf")])
def test_gates_stay_between_zero_and_one(bad: float) -> None:
    attention(torch.tensor([[[[0.0, 1.0]]]])).check()
    with pytest.raises(ShapeError, match=r"must stay in \[0.0, 1.0\]"):
        attention(torch.tensor([[[[0.5, bad]]]])).check()


def test_a_gate_may_have_bounds_of_its_own() -> None:
    attention(torch.tensor([[[[1.2, 1.9]]]]), minimum=1, maximum=2).check()
    with pytest.raises(ShapeError):
        attention(torch.tensor([[[[0.9]]]]), minimum=1, maximum=2).check()


def test_softmax_sums_to_one_over_its_branches_or_keys() -> None:
    attention(torch.tensor([0.25, 0.75]).view(1, 2, 1, 1, 1), "b n 1 1 1", "softmax").check()
    with pytest.raises(ShapeError, match="must sum to 1"):
        attention(torch.tensor([0.25, 0.7]).view(1, 2, 1, 1, 1), "b n 1 1 1", "softmax").check()
    rows = torch.softmax(torch.randn(1, 2, 3, 4), -1)
    attention(rows, "b head q k", "softmax").check()
    with pytest.raises(ShapeError, match="must sum to 1"):
        attention(rows.transpose(2, 3), "b head q k", "softmax").check()


def test_an_affine_weight_knows_no_bounds() -> None:
    attention(torch.tensor([[[[-3.0, 7.0]]]]), kind="affine").check()


def test_regions_have_one_box_and_one_label_for_each_map() -> None:
    tensor, boxes = torch.zeros(2, 3, 7, 7), torch.zeros(2, 4)
    assert RegionMaps("regions", tensor, boxes, ("ball", "ring")).shape_text == "2 × 3 × 7 × 7"
    with pytest.raises(ShapeError, match="boxes of 'regions' should have axes n 4"):
        RegionMaps("regions", tensor, boxes[:1])
    with pytest.raises(ValueError, match="1 labels for 2 boxes"):
        RegionMaps("regions", tensor, boxes, ("ball",))


# --- results -------------------------------------------------------------------------------------
def result(terms: tuple[torch.Tensor, torch.Tensor] | None) -> FusionResult:
    fused = FeatureMap("fused", torch.zeros(1, 2, 1, 2), (4, 4), (1.5, 1.5))
    return FusionResult({"fused": fused}, terms=None if terms is None else lambda: terms)


def test_share_of_low_by_hand() -> None:
    low = torch.tensor([[[[3.0, 0.0]], [[4.0, 0.0]]]])
    high = torch.tensor([[[[0.0, 0.0]], [[-15.0, 0.0]]]])
    share = result((low, high)).share_of_low()
    assert share.tensor.flatten().tolist() == [0.25, 0.5]  # 5 / (5 + 15); nothing of nothing is even
    assert (share.kind, share.of, share.sums, share.grain) == ("share", "low", "with_high", "place")
    assert (share.stride, share.offset) == ((4, 4), (1.5, 1.5))
    share.check()


def test_share_of_complex_terms_is_that_of_their_lengths() -> None:
    low, high = torch.full((1, 1, 1, 1), 3 + 4j), torch.full((1, 1, 1, 1), -15j)
    assert result((low, high)).share_of_low().tensor.item() == 0.25


def test_share_of_very_small_and_very_large_terms_stays_a_share() -> None:
    for size in (1e-30, 1e18):
        term = torch.full((1, 2, 1, 2), size)
        assert result((term, term)).share_of_low().tensor.flatten().tolist() == pytest.approx([0.5, 0.5])


def test_without_terms_there_is_no_share() -> None:
    assert result(None).share_of_low() is None
    assert result(None).fused.name == "fused"


def test_attention_over_time_sums_to_one_over_the_places_of_each_step():
    even = torch.full((1, 3, 2, 2), 0.25)
    AttentionMap("words", even, "b t h w", "softmax").check()
    with pytest.raises(ShapeError):
        AttentionMap("words", even * torch.tensor([1.0, 1.0, 0.5]).view(1, 3, 1, 1), "b t h w", "softmax").check()


def test_a_class_map_has_one_class_for_every_place() -> None:
    said = ClassMap("classes", torch.zeros(3, 4, dtype=torch.long), ("nothing", "cat"), (2, 2), (1, 1))
    assert said.tensor.shape == (3, 4)
    with pytest.raises(ShapeError):
        ClassMap("classes", torch.zeros(1, 3, 4), ("nothing",), (2, 2), (1, 1))
