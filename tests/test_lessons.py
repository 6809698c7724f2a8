"""Every text exists in every language, says the same there, and belongs to something.

Lessons against lessons, locale against locale, and both against the code: knobs, choices, steps and weights
of every registered method, and every text that the code names.
"""

import ast
import itertools
import re
import string
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from _readme import promised
from matplotlib.mathtext import MathTextParser

from fusionviz import fusion, systems, texts
from fusionviz.records import _RANK
from fusionviz.registry import FAMILIES, Param, write
from fusionviz.trace import Trace

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "fusionviz"
SUBJECTS = ("levels", "fusion", "alignment", "provenance", "leaderboard", "help")
LESSONS = (*SUBJECTS, *fusion.names(), *systems.names())
HAN = "\u4e00-\u9fff"
SENTENCES = ("idea", "help")

each_lesson = pytest.mark.parametrize("key", LESSONS)
each_method = pytest.mark.parametrize("method", fusion.names())
each_of_all = pytest.mark.parametrize("method", [*fusion.names(), *systems.names()])
each_language = pytest.mark.parametrize("language", texts.LANGUAGES)


# --- reading texts apart -------------------------------------------------------------------------
def leaves(table: dict, before: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """Every text of nested tables with its dotted key."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from leaves(value, (*before, key))
        else:
            yield ".".join((*before, key)), value


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def without_code(body: str) -> str:
    return re.sub(r"`[^`]*`", "", body)


def formulas(body: str) -> list[str]:
    """Every formula, display or inline, of a body in which the dollar signs pair up."""
    return [m[2] for m in re.finditer(r"(\$\$?)(.+?)\1", without_code(body), flags=re.S)]


def prose(body: str) -> str:
    """What is read as words: no code, no formula, no address, no number of the leaderboard."""
    body = re.sub(r"(\$\$?).+?\1|\{\{.+?\}\}", "", without_code(body), flags=re.S)
    return re.sub(r"\]\([^)]*\)", "]", body)


def half_width(text: str) -> list[str]:
    """Half-width punctuation that touches Chinese characters on both sides, or ends a clause of them."""
    return re.findall(rf"[{HAN}][,.;:?!](?=[{HAN}]|\s|$)", text)


def han_share(text: str) -> float:
    letters = [c for c in text if c.isalpha()]
    return sum(re.match(f"[{HAN}]", c) is not None for c in letters) / len(letters)


def bad_subscripts(formula: str) -> list[str]:
    """X, Y, Z bare behind _ or ^: the colours around them would break the formula in KaTeX."""
    return re.findall(r"[_^]\s*[XYZ]", formula)


def glued_bold(body: str) -> list[str]:
    """Bold that Markdown does not recognise: punctuation ends it and a Chinese character stands right behind."""
    pairs = re.finditer(r"\*\*([^*\n]+)\*\*(?=(.?))", body)
    return [m[1] for m in pairs if m[1][-1] in "，。：；、）？！”" and re.match(f"[{HAN}]", m[2])]


# --- lessons -------------------------------------------------------------------------------------
@each_language
def test_the_lessons_are_those_of_the_methods_and_subjects(language):
    there = {path.stem for path in (texts.ASSETS / "lessons" / language).glob("*.md")}
    assert there == set(LESSONS)


def test_the_page_of_lessons_lists_these_subjects():
    tree = ast.parse((PACKAGE / "ui" / "components" / "lesson.py").read_text("utf-8"))
    listed = next(n for n in tree.body if isinstance(n, ast.Assign) and n.targets[0].id == "SUBJECTS")
    assert set(ast.literal_eval(listed.value)) == set(SUBJECTS)


@each_lesson
def test_a_lesson_has_the_same_front_in_every_language(key):
    fronts = [dict(leaves(texts.lesson(key, language).front)) for language in texts.LANGUAGES]
    assert set(fronts[0]) == set(fronts[1])
    assert {"title", "short", "idea"} <= set(fronts[0])
    for front in fronts:
        assert all(value.strip() == value and value and "\n" not in value for value in front.values())
        assert not set("*$_`") & set(front["idea"]), "the idea is set in italics, and in tooltips without mathematics"


@each_lesson
def test_a_lesson_has_the_same_sections_formulas_tables_and_numbers_in_every_language(key):
    en, zh = (texts.lesson(key, language).body for language in texts.LANGUAGES)
    for what, of in (
        ("sections", lambda body: len(re.findall(r"^## ", body, flags=re.M))),
        ("points", lambda body: len(re.findall(r"^(?:-|\d\.) ", body, flags=re.M))),
        ("table cells", lambda body: [line.count("|") for line in body.splitlines() if line.startswith("|")]),
        ("displayed formulas", lambda body: re.findall(r"\$\$(.+?)\$\$", body, flags=re.S)),
        ("formulas", lambda body: Counter(formulas(body))),
        ("numbers", lambda body: Counter(re.findall(r"\d+\.\d+", prose(body)))),
        ("addresses", lambda body: Counter(re.findall(r"https://[^)\s]+", body))),
        ("code", lambda body: Counter(re.findall(r"`[^`]+`", body))),
    ):
        assert of(en) == of(zh), what


@each_of_all
@each_language
def test_a_method_lesson_has_its_six_sections_in_order_and_its_source(method, language):
    body = texts.lesson(method, language).body
    wanted = {
        "en": ["Idea", "Equation", "Knobs", "What to look at", "In the literature", "Source"],
        "zh": ["思路", "公式", "旋钮", "看什么", "文献中的结果", "来源"],
    }
    assert re.findall(r"^## (.+)$", body, flags=re.M) == wanted[language]
    spec = fusion.spec(method)
    assert spec.link in body.split("## ")[-1]
    read = re.sub(r"^\|.*$", "", prose(body.rpartition("## ")[0]), flags=re.M)
    words, longest = (read.split(), 500) if language == "en" else (re.findall(f"[{HAN}]", read), 1000)
    assert (250 if method in promised() else 20) <= len(words) <= longest


@each_lesson
@each_language
def test_formulas_are_whole(key, language):
    body = texts.lesson(key, language).body
    assert without_code(body).count("$") % 2 == 0
    parser = MathTextParser("path")
    for formula in formulas(body):
        assert formula.count("{") == formula.count("}"), formula
        assert not bad_subscripts(formula), formula
        parser.parse(f"${formula.strip()}$")  # raises where a command is unknown or misused
    assert "$" not in prose(body)


@each_lesson
@each_language
def test_nothing_unconfirmed_and_no_mark_of_evidence_is_printed(key, language):
    body = texts.lesson(key, language).body
    assert not re.findall(r"\[[MTCR]\]|TODO|XXX", body)


@each_lesson
def test_english_is_english_and_chinese_is_chinese(key):
    en, zh = (texts.lesson(key, language) for language in texts.LANGUAGES)
    assert not re.findall(f"[{HAN}]", en.body + str(en.front))
    assert han_share(re.sub(r"^## (?:来源|文献).*", "", prose(zh.body), flags=re.M | re.S)) > 0.6
    assert half_width(prose(zh.body)) == []
    assert glued_bold(zh.body) == []
    for name, value in leaves(zh.front):
        assert half_width(value) == [], name
        if name.split(".")[-1] in SENTENCES:
            assert re.search(f"[{HAN}]", value), name
            assert value.endswith(("。", "）", "？")), name


# --- the locale ----------------------------------------------------------------------------------
def test_both_locales_have_the_same_keys_and_placeholders():
    en, zh = (dict(leaves(texts.locale(language))) for language in texts.LANGUAGES)
    assert set(en) == set(zh)
    assert {k: placeholders(v) for k, v in en.items()} == {k: placeholders(v) for k, v in zh.items()}


def test_the_chinese_locale_has_chinese_punctuation():
    found = {key: half_width(value) for key, value in leaves(texts.locale("zh"))}
    assert {key: marks for key, marks in found.items() if marks} == {}


@each_language
def test_families_and_provenances_have_their_words(language):
    for family in FAMILIES:
        assert texts.text(f"families.{family}", language)
    for kind in _RANK:
        assert texts.text(f"provenance.{kind}", language)
        assert texts.text(f"provenance.help.{kind}", language)


# --- what methods need ---------------------------------------------------------------------------
def values_of(param: Param) -> tuple:
    if param.choices:
        return param.choices
    if isinstance(param.default, bool):
        return (True, False)
    if param.key == "width":
        return (8,)  # its bounds differ in size alone
    return (param.default, param.low, min(param.high, 8))


@cache
def results(method: str) -> tuple:
    """The method run with every value of every knob, on levels that differ in everything."""
    spec = fusion.spec(method)
    levels = {"pyramid": 3, "branches": 4}.get(spec.takes, 2)
    channels = tuple(4 * 2**i for i in range(levels))
    sizes = [16 if spec.takes == "branches" else 16 // 2**i for i in range(levels)]
    maps = tuple(torch.ones(1, c, s, s) for c, s in zip(channels, sizes, strict=True))
    small = {"width": 8} if any(p.key == "width" for p in spec.params) else {}
    knobs = [small | {p.key: value} for p in spec.params for value in values_of(p)]
    with torch.no_grad():
        context = fusion.Context(boxes=torch.tensor([[0.0, 0.0, 32.0, 32.0]]))  # what it does with them has words too
        modules = [fusion.build(method, channels, **knob) for knob in [small, *knobs]]
        return tuple(module(*maps, context=context, trace=Trace()) for module in modules)


@each_of_all
@each_language
def test_every_knob_has_its_words(method, language):
    for param in fusion.spec(method).params:
        key = f"params.{param.key}"
        label, sentence = (texts.method_text(method, f"{key}.{part}", language) for part in ("label", "help"))
        assert 1 <= len(label) <= 20, f"{label} does not fit above its control"
        assert sentence.endswith((".", "。", ")", "）"))
        for choice in param.choices:
            if isinstance(choice, str):
                assert texts.method_text(method, f"{key}.choices.{write(choice)}", language)


@each_method
def test_a_lesson_has_no_words_for_knobs_choices_or_steps_that_do_not_exist(method):
    front, spec = texts.lesson(method).front, fusion.spec(method)
    for key, own in front.get("params", {}).items():
        choices = {write(c) for c in spec.param(key).choices}
        assert set(own.get("choices", {})) <= choices, key
    used = {step.op for result in results(method) for step in result.trace}
    assert set(front.get("steps", {})) <= used


def test_the_locale_has_no_words_for_knobs_that_do_not_exist():
    params = [p for method in (*fusion.names(), *systems.names()) for p in fusion.spec(method).params]
    for key, own in texts.locale("en")["params"].items():
        choices = {write(c) for p in params if p.key == key for c in p.choices}
        assert key in {p.key for p in params}
        assert set(own.get("choices", {})) <= choices, key


@each_method
@each_language
def test_every_step_has_a_title(method, language):
    for op in {step.op for result in results(method) for step in result.trace}:
        title = texts.method_text(method, f"steps.{op}", language)
        assert len(title) <= 24, f"{title} does not fit into a box of the flow"


@each_method
@each_language
def test_every_weight_has_title_note_and_law(method, language):
    for result in results(method):
        weights = [*result.attention.values()]
        share = result.share_of_low()
        for weight in [*weights, share] if share else weights:
            of = texts.text(f"attention.of.{weight.of}", language)
            assert of in texts.text(f"attention.{weight.role}", language, of=of, output="P8")
            assert texts.text(f"attention.note.{weight.role}", language)
            assert texts.text(f"attention.sums.{weight.sums}", language)


# --- texts that the code names -------------------------------------------------------------------
SAYS = {"text", "say", "has"}


def name_of(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def error_names(trees: list[ast.Module]) -> set[str]:
    """The package's classes of mistakes: those that inherit from FusionvizError, however far."""
    known = {"FusionvizError"}
    classes = [n for tree in trees for n in ast.walk(tree) if isinstance(n, ast.ClassDef)]
    while True:
        more = {c.name for c in classes if {getattr(b, "id", getattr(b, "attr", "")) for b in c.bases} & known} - known
        if not more:
            return known
        known |= more


def named_texts(trees: list[ast.Module]) -> Iterator[tuple[str, bool, set[str] | None]]:
    """(key, whether it is only the beginning of one, the values given or None if they cannot be read)."""
    errors = error_names(trees)
    for call in (n for tree in trees for n in ast.walk(tree) if isinstance(n, ast.Call) and n.args):
        is_error = name_of(call) in errors
        if not is_error and name_of(call) not in SAYS:
            continue
        prefix = "errors." if is_error else ""
        first = call.args[0]
        given = None if any(k.arg is None for k in call.keywords) else {k.arg for k in call.keywords}
        for branch in (first.body, first.orelse) if isinstance(first, ast.IfExp) else (first,):
            if isinstance(branch, ast.Constant) and isinstance(branch.value, str) and "." in branch.value:
                yield prefix + branch.value, False, given
            elif isinstance(branch, ast.JoinedStr) and isinstance(branch.values[0], ast.Constant):
                yield prefix + branch.values[0].value, True, given


def missing_texts(trees: list[ast.Module], language: str) -> list[str]:
    there = dict(leaves(texts.locale(language)))
    missing = []
    for key, is_beginning, given in named_texts(trees):
        if is_beginning:
            missing += [] if any(k.startswith(key) for k in there) else [f"{key}…"]
        elif key not in there:
            missing.append(key)
        elif given is not None and not placeholders(there[key]) <= given:
            missing.append(f"{key}: no value for {', '.join(sorted(placeholders(there[key]) - given))}")
    return missing


@each_language
def test_every_text_the_code_names_exists_and_is_filled(language):
    trees = [ast.parse(path.read_text("utf-8")) for path in sorted(PACKAGE.rglob("*.py"))]
    assert len(list(named_texts(trees))) > 60
    assert missing_texts(trees, language) == []


# --- the checks themselves can fail --------------------------------------------------------------
def test_the_search_for_texts_finds_what_is_missing():
    source = """
class OddError(LevelError): pass
class LevelError(FusionvizError): pass
raise OddError("no.such", a=1)
raise LevelError("level.order", low=1)
raise ValueError("not.a.text")
say(f"nowhere.{x}")
texts.text("roles.low")
self.say("roles.none" if x else "roles.high")
"""
    assert missing_texts([ast.parse(source)], "en") == [
        "errors.no.such",
        "errors.level.order: no value for high, levels",
        "nowhere.…",
        "roles.none",
    ]


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (half_width, "低层，高层。s4, s16", "低层,高层"),
        (half_width, "均值为 0.5。", "均值为零."),
        (bad_subscripts, "W_{X} X", "W_X X"),
        (glued_bold, "然后。**对齐**之后。**对齐。** 然后", "**对齐。**然后"),
    ],
)
def test_the_checks_of_writing_tell_good_from_bad(check, good, bad):
    assert check(good) == []
    assert len(check(bad)) == 1


def test_formulas_are_told_from_code_and_words():
    body = "`$HOME` and $a$\n$$b\nc$$ end"
    assert formulas(body) == ["a", "b\nc"]
    assert prose(body).split() == ["and", "end"]
    assert han_share("一二三 abc") == pytest.approx(0.5)
    assert list(itertools.islice(leaves({"a": {"b": "1"}, "c": "2"}), 2)) == [("a.b", "1"), ("c", "2")]
    assert placeholders("{a} {{b}} {c:.2f}") == {"a", "c"}
