"""Catalogues and knobs: unique keys, values that survive text, errors that list the choices."""

import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusionviz.errors import ParameterError, UnknownNameError
from fusionviz.registry import METHODS, Catalogue, FusionSpec, Param, nearest, register, write

WIDTH = Param("width", 64, low=4, high=1024, step=4)
GAIN = Param("gain", 1.0, low=0.0, high=4.0, step=0.1)
NORM = Param("norm", "bn", choices=("bn", "none"))
RATIO = Param("r", 4, choices=(1, 2, 4))
BIAS = Param("bias", False)


# --- knobs ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("param", "kind"), [(WIDTH, "int"), (GAIN, "float"), (NORM, "choice"), (RATIO, "choice"), (BIAS, "bool")]
)
def test_a_knob_has_the_kind_of_its_default(param: Param, kind: str) -> None:
    assert param.kind == kind


@pytest.mark.parametrize(
    ("param", "given", "value"),
    [
        (WIDTH, "128", 128),
        (WIDTH, 128.0, 128),
        (WIDTH, "1e2", 100),
        (WIDTH, 4, 4),
        (WIDTH, 1024, 1024),
        (GAIN, "0.5", 0.5),
        (GAIN, 2, 2.0),
        (NORM, "none", "none"),
        (RATIO, "2", 2),
        (RATIO, 2.0, 2),
        (BIAS, "on", True),
        (BIAS, "OFF", False),
        (BIAS, "true", True),
        (BIAS, 0, False),
        (BIAS, True, True),
    ],
)
def test_values_are_read_as_the_type_of_the_knob(param: Param, given: object, value: object) -> None:
    parsed = param.parse(given, "toy")
    assert parsed == value
    assert type(parsed) is type(param.default)


@pytest.mark.parametrize(
    ("param", "bad", "allowed"),
    [
        (WIDTH, 3, "4 … 1024"),
        (WIDTH, 1025, "4 … 1024"),
        (WIDTH, 64.5, "4 … 1024"),
        (WIDTH, "wide", "4 … 1024"),
        (WIDTH, None, "4 … 1024"),
        (WIDTH, float("inf"), "4 … 1024"),
        (WIDTH, "nan", "4 … 1024"),
        (GAIN, -0.1, "0 … 4"),
        (GAIN, "nan", "0 … 4"),
        (GAIN, "inf", "0 … 4"),
        (GAIN, [1], "0 … 4"),
        (NORM, "gn", "bn, none"),
        (NORM, 3, "bn, none"),
        (RATIO, 3, "1, 2, 4"),
        (RATIO, "", "1, 2, 4"),
        (BIAS, "maybe", "on, off"),
        (BIAS, 2, "on, off"),
        (BIAS, None, "on, off"),
    ],
)
def test_what_is_not_allowed_is_refused_with_what_is(param: Param, bad: object, allowed: str) -> None:
    with pytest.raises(ParameterError) as refusal:
        param.parse(bad, "toy")
    for language in ("en", "zh"):
        said = refusal.value.text(language)
        assert all(part in said for part in ("toy", param.key, str(bad), allowed)), said


@given(st.floats(0, 4))
def test_a_number_survives_a_link(value: float) -> None:
    assert GAIN.parse(write(value), "toy") == value


@given(st.integers(4, 1024))
def test_a_whole_number_survives_a_link(value: int) -> None:
    assert WIDTH.parse(write(value), "toy") == value


@given(st.text())
def test_any_text_is_read_or_refused_but_never_breaks(text: str) -> None:
    for param in (WIDTH, GAIN, NORM, RATIO, BIAS):
        try:
            parsed = param.parse(text, "toy")
        except ParameterError:
            continue
        assert param.parse(write(parsed), "toy") == parsed


def test_values_are_written_as_people_write_them() -> None:
    assert [write(v) for v in (True, False, 1.0, 0.5, 64, "bn")] == ["on", "off", "1", "0.5", "64", "bn"]
    assert write(0.1234567) == "0.1234567"


# --- specs ---------------------------------------------------------------------------------------
SPEC = FusionSpec("toy", "basic", "Z = X", 2020, params=(WIDTH, NORM))


def test_knobs_left_out_have_their_defaults() -> None:
    assert SPEC.parse({}) == {"width": 64, "norm": "bn"}
    assert SPEC.parse({"norm": "none"}) == {"width": 64, "norm": "none"}
    assert list(SPEC.parse({"norm": "none", "width": "8"}).items()) == [("width", 8), ("norm", "none")]


def test_an_unknown_knob_is_refused_with_its_neighbours_and_all_there_are() -> None:
    with pytest.raises(ParameterError) as refusal:
        SPEC.parse({"widht": 8})
    for language in ("en", "zh"):
        said = refusal.value.text(language)
        assert all(part in said for part in ("toy", "widht", "width", "width, norm"))
    with pytest.raises(ParameterError, match="–"):
        FusionSpec("bare", "basic", "Z = X", 2020).parse({"width": 8})


def test_family_and_alignment_are_known_ones() -> None:
    with pytest.raises(ValueError, match="family is one of basic"):
        FusionSpec("toy", "modern", "Z = X", 2020)
    with pytest.raises(ValueError, match="align is none, size or"):
        FusionSpec("toy", "basic", "Z = X", 2020, align="stretch")


# --- catalogues ----------------------------------------------------------------------------------
def catalogue() -> Catalogue[int]:
    made: Catalogue[int] = Catalogue("method")
    for i, key in enumerate(("add", "concat", "aff")):
        made.add(key, i)
    return made


def test_entries_keep_their_order() -> None:
    made = catalogue()
    assert list(made) == ["add", "concat", "aff"]
    assert (len(made), made["concat"], "aff" in made, "iaff" in made) == (3, 1, True, False)


def test_a_key_is_taken_once() -> None:
    with pytest.raises(ValueError, match="'add' is registered twice"):
        catalogue().add("add", 9)


def test_an_unknown_key_is_refused_with_near_ones_and_the_list() -> None:
    with pytest.raises(UnknownNameError) as refusal:
        catalogue()["afff"]
    for language in ("en", "zh"):
        said = refusal.value.text(language)
        assert all(part in said for part in ("afff", "aff", "add, concat, aff"))


def test_nearest_says_when_nothing_is_near() -> None:
    assert nearest("conact", ["add", "concat"]) == "concat"
    assert nearest("zzz", ["add", "concat"]) == "–"
    assert nearest(7, ["add"]) == "–"
    assert nearest("a", []) == "–"


# --- entering a method ---------------------------------------------------------------------------
def a_class(module: str) -> type:
    return types.new_class("Toy", exec_body=lambda body: body.update(__module__=module))


def test_a_method_enters_under_its_spec() -> None:
    cls = a_class("fusionviz.fusion.toy_for_test")
    spec = FusionSpec("toy_for_test", "basic", "Z = X", 2020)
    try:
        assert register(spec)(cls) is cls
        assert METHODS["toy_for_test"] is cls
        assert cls.spec is spec
        with pytest.raises(ValueError, match="registered twice"):
            register(spec)(cls)
    finally:
        METHODS._entries.pop("toy_for_test", None)


def test_a_method_stands_in_the_file_of_its_name() -> None:
    with pytest.raises(ValueError, match=r"'toy' stands in other\.py; its file must be toy\.py"):
        register(SPEC)(a_class("fusionviz.fusion.other"))
    assert "toy" not in METHODS


def test_register_takes_a_spec() -> None:
    with pytest.raises(TypeError, match=r"write @register\(SPEC\)"):
        register(a_class("fusionviz.fusion.toy"))
