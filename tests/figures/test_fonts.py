"""Fonts: Chinese where the system can, an honest notice where it cannot; words that break where they may."""

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusionviz import texts
from fusionviz.figures import fonts, slide


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator:
    """Pretend that the system has certain families."""

    def pretend(*families: str) -> None:
        listed = [SimpleNamespace(name=f) for f in families]
        monkeypatch.setattr(fonts.font_manager, "fontManager", SimpleNamespace(ttflist=listed))
        fonts.cjk_family.cache_clear()

    yield pretend
    monkeypatch.undo()
    fonts.cjk_family.cache_clear()


def test_without_a_chinese_font_the_slide_is_english(installed) -> None:
    installed("DejaVu Sans", "Noto Sans")
    assert fonts.language_for("en") == ("en", None)
    language, notice = slide.language_for("zh")
    assert language == "en"
    assert "Noto Sans CJK SC" in texts.text(notice, "en")
    assert "字体" in texts.text(notice, "zh")
    assert fonts.families("zh") == ["DejaVu Sans"]


@pytest.mark.parametrize(
    ("families", "expected"),
    [
        (("DejaVu Sans", "SimHei"), "SimHei"),
        (("SimHei", "Microsoft YaHei", "PingFang SC"), "PingFang SC"),
        (("Noto Sans CJK JP", "WenQuanYi Zen Hei"), "WenQuanYi Zen Hei"),
        (("Noto Sans CJK JP", "Noto Sans CJK SC"), "Noto Sans CJK SC"),
        (("Noto Sans CJK JP",), "Noto Sans CJK JP"),
    ],
)
def test_the_best_chinese_font_is_taken(installed, families: tuple, expected: str) -> None:
    installed(*families)
    assert fonts.cjk_family() == expected
    assert fonts.language_for("zh") == ("zh", None)
    assert fonts.families("zh") == [expected, "DejaVu Sans"]
    assert fonts.families("en") == ["DejaVu Sans", expected]


@pytest.mark.skipif(not fonts.cjk_family(), reason="no Chinese font here")
def test_chinese_words_have_glyphs() -> None:
    from matplotlib import font_manager

    family = fonts.cjk_family()
    for weight in ("normal", "bold"):
        path = font_manager.findfont(font_manager.FontProperties(family=family, weight=weight))
        known = font_manager.get_font(path).get_charmap()
        assert all(ord(sign) in known for sign in "注意力特征融合随机权重：，。（）“”")


WORDS = ["DejaVu Sans"]


def test_width_counts_blanks_and_adds_up() -> None:
    whole = fonts.width("Weight of low", 12, WORDS)
    parts = fonts.width("Weight of ", 12, WORDS) + fonts.width("low", 12, WORDS)
    assert parts == pytest.approx(whole, abs=0.5)
    assert fonts.width("", 12, WORDS) == pytest.approx(0, abs=0.02)
    assert fonts.width("ab", 24, WORDS) == pytest.approx(2 * fonts.width("ab", 12, WORDS), rel=0.02)


@given(st.text("abc defgh, 注意力，。（融合）", min_size=1, max_size=60), st.integers(20, 200), st.integers(1, 4))
def test_wrapped_lines_fit(text: str, room: int, lines: int) -> None:
    family = fonts.families("zh")
    found = fonts.wrap(text, 8, family, room, lines)
    assert len(found) <= lines
    assert all(fonts.width(line, 8, family) <= room + 0.01 for line in found)
    kept = "".join(found).replace(" ", "")
    if not any(line.endswith("…") for line in found):
        assert kept == text.replace(" ", "")


def test_chinese_breaks_between_signs_but_not_before_a_comma() -> None:
    text = "通道注意力，空间注意力。"
    for room in range(40, 110, 3):
        for line in fonts.wrap(text, 8, fonts.families("zh"), room, 9)[1:]:
            assert line[0] not in "，。"


def test_shorten_says_that_something_is_missing() -> None:
    assert fonts.shorten("short", 8, WORDS, 100) == "short"
    cut = fonts.shorten("a sentence that is far too long", 8, WORDS, 60)
    assert cut.endswith("…")
    assert fonts.width(cut, 8, WORDS) <= 60
