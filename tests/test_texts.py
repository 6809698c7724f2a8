"""Texts by key and language, lessons by file; errors speak every language."""

import re
import tomllib

import pytest

from fusionviz import errors, texts
from fusionviz.errors import FusionvizError, LevelError


@pytest.fixture
def assets(tmp_path, monkeypatch):  # noqa: ANN001, ANN201 - pytest's own
    """A folder of texts of this test's own, seen by `texts` for as long as it runs."""
    for language, hello in (("en", "Hello {name}"), ("zh", "你好,{name}")):
        (tmp_path / "locale").mkdir(exist_ok=True)
        (tmp_path / "lessons" / language).mkdir(parents=True)
        (tmp_path / "locale" / f"{language}.toml").write_text(
            f'[greeting]\nhello = "{hello}"\nraw = "{{not filled}}"\n[params.width]\nlabel = "Width"\n', "utf-8"
        )
    monkeypatch.setattr(texts, "ASSETS", tmp_path)
    texts.locale.cache_clear()
    texts.lesson.cache_clear()
    yield tmp_path
    texts.locale.cache_clear()
    texts.lesson.cache_clear()


def write_lesson(assets, key: str, body: str, language: str = "en") -> None:  # noqa: ANN001
    (assets / "lessons" / language / f"{key}.md").write_text(body, "utf-8")


LESSON = """+++
title = "Addition"
[params.gain]
label = "Gain"
[params.r.choices]
4 = "four"
+++

## Idea

One $X + Y$, and +++ within a line.
"""


def test_a_text_is_found_by_its_dotted_key_and_filled(assets) -> None:  # noqa: ANN001
    assert texts.text("greeting.hello", name="Ada") == "Hello Ada"
    assert texts.text("greeting.hello", "zh", name="艾达") == "你好,艾达"
    assert texts.text("greeting.raw") == "{not filled}"


@pytest.mark.parametrize("key", ["greeting", "greeting.bye", "greeting.hello.more", "nothing", ""])
def test_a_missing_text_is_an_error_of_the_programmer(assets, key: str) -> None:  # noqa: ANN001
    assert not texts.has(key)
    with pytest.raises(LookupError, match=r"assets/locale/zh\.toml"):
        texts.text(key, "zh")


def test_has_says_whether_a_text_is_there(assets) -> None:  # noqa: ANN001
    assert texts.has("greeting.hello")
    assert texts.has("params.width.label", "zh")


def test_a_lesson_is_its_table_and_its_prose(assets) -> None:  # noqa: ANN001
    write_lesson(assets, "add", LESSON)
    lesson = texts.lesson("add")
    assert (lesson.key, lesson.language, lesson.front["title"]) == ("add", "en", "Addition")
    assert lesson.body.startswith("## Idea")
    assert lesson.body.endswith("+++ within a line.")


def test_a_missing_lesson_names_its_file(assets) -> None:  # noqa: ANN001
    with pytest.raises(LookupError, match=r"assets/lessons/zh/add\.md"):
        texts.lesson("add", "zh")


@pytest.mark.parametrize("body", ["", "## Idea\n", "+++\ntitle = 'x'\n", "words\n+++\ntitle = 'x'\n+++\nmore\n"])
def test_a_lesson_without_its_table_names_its_file(assets, body: str) -> None:  # noqa: ANN001
    write_lesson(assets, "broken", body)
    with pytest.raises(LookupError, match=r"broken\.md does not start with"):
        texts.lesson("broken")


def test_a_method_has_its_own_words_or_the_shared_ones(assets) -> None:  # noqa: ANN001
    write_lesson(assets, "add", LESSON)
    assert texts.method_text("add", "params.gain.label") == "Gain"
    assert texts.method_text("add", "params.r.choices.4") == "four"
    assert texts.method_text("add", "params.width.label") == "Width"
    with pytest.raises(LookupError):
        texts.method_text("add", "params.colour.label")


# --- the texts that ship -------------------------------------------------------------------------
@pytest.mark.parametrize("language", texts.LANGUAGES)
def test_every_error_sentence_is_whole(language: str) -> None:
    def leaves(table: dict, path: str = "") -> dict[str, str]:
        found = {}
        for key, value in table.items():
            found |= leaves(value, f"{path}{key}.") if isinstance(value, dict) else {path + key: value}
        return found

    sentences = leaves(texts.locale(language)["errors"])
    assert sentences
    for key, sentence in sentences.items():
        assert sentence.strip() == sentence, key
        assert sentence[-1] in {"en": ".:", "zh": "。:"}[language], f"{key}: {sentence}"
        names = re.findall(r"\{(\w+)\}", sentence)
        assert sentence.format(**dict.fromkeys(names, "?")), key


def test_locale_files_are_read_as_they_lie() -> None:
    for language in texts.LANGUAGES:
        lies = (texts.ASSETS / "locale" / f"{language}.toml").read_text("utf-8")
        assert texts.locale(language) == tomllib.loads(lies)


# --- errors --------------------------------------------------------------------------------------
def test_an_error_speaks_every_language() -> None:
    error = LevelError("level.unknown", level="s3", backbone="toy", levels="s4, s8")
    assert str(error) == error.text("en")
    assert error.text("zh") != error.text("en")
    assert all("s3" in error.text(language) and "s4, s8" in error.text(language) for language in texts.LANGUAGES)
    assert (error.code, error.values["level"]) == ("level.unknown", "s3")


def test_every_kind_of_mistake_is_a_fusionviz_error() -> None:
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, Exception)]
    assert len(kinds) > 5
    assert all(issubclass(k, FusionvizError) and k.__doc__ for k in kinds)


def test_an_error_without_a_sentence_is_found_at_once() -> None:
    with pytest.raises(LookupError, match=r"errors\.level\.imaginary"):
        LevelError("level.imaginary")
