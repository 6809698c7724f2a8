"""The words of the systems of place and time: titles of their steps, of their weights, and none too many."""

import pytest
import torch

from fusionviz import systems, texts
from fusionviz.records import ANALYTIC, FeatureMap, FeaturePyramid, FusionResult, LevelInfo

KEYS = ("ram", "dram", "show_attend_tell")
LEVELS = tuple(
    LevelInfo(name, 4, (stride, stride), (0.5, 0.5), stage)
    for stage, (name, stride) in enumerate((("s8", 8.0), ("s16", 16.0)), 1)
)

each_key = pytest.mark.parametrize("key", KEYS)
each_language = pytest.mark.parametrize("language", texts.LANGUAGES)


def results(key: str) -> list[FusionResult]:
    """The system run with every choice of every knob."""
    sides = {v.name: int(64 / v.stride[0]) for v in LEVELS}
    maps = (
        FeatureMap(v.name, torch.ones(1, 4, sides[v.name], sides[v.name]), v.stride, v.offset, v.stage) for v in LEVELS
    )
    pyramid, picture = FeaturePyramid(tuple(maps), "toy", ANALYTIC), torch.zeros(1, 3, 64, 64)
    knobs = [{}]
    for param in systems.spec(key).params:
        choices = (False, True) if param.kind == "bool" else param.choices or (param.low, param.high)
        knobs += [{param.key: value} for value in choices]
    with torch.no_grad():
        return [systems.build(key, LEVELS, **knob)(picture, pyramid) for knob in knobs]


@each_key
def test_every_value_of_every_knob_runs_and_every_step_has_a_title(key: str) -> None:
    found = results(key)
    ops = {step.op for result in found for step in result.trace}
    for language in texts.LANGUAGES:
        for op in ops:
            title = texts.method_text(key, f"steps.{op}", language)
            assert len(title) <= 24, f"{title} does not fit into a box of the flow"
        assert set(texts.lesson(key, language).front["steps"]) <= ops
    for result in found:
        for weight in result.attention.values():
            weight.check()


@each_language
def test_attention_over_time_has_its_words(language: str) -> None:
    for weight in results("show_attend_tell")[0].attention.values():
        assert texts.text(f"attention.{weight.role}", language)
        assert texts.text(f"attention.note.{weight.role}", language)
        assert texts.text(f"attention.sums.{weight.sums}", language)
        assert texts.text(f"attention.of.{weight.of}", language)


@each_key
@each_language
def test_a_lesson_has_no_words_for_knobs_that_do_not_exist(key: str, language: str) -> None:
    params = texts.lesson(key, language).front["params"]
    for name, own in params.items():
        assert set(own.get("choices", {})) <= set(systems.spec(key).param(name).choices)
