"""The leaderboard: what is read, what ties, what prose may say; on invented numbers, and on those that ship."""

import copy
import json
import math
import re
from pathlib import Path

import pytest
from _leaderboard import ablation, figures, row, table, weighing
from _readme import promised

from fusionviz import fusion, leaderboard, texts
from fusionviz.errors import FusionvizError
from fusionviz.leaderboard import BASELINES, Figure, Unmeasured, __main__, fill, order, quoted, read, records
from fusionviz.leaderboard.ablation import verdicts

ROOT = Path(__file__).resolve().parent.parent
QUOTING = ("leaderboard", "aff", "iaff", "highway", "softmax2", "wsum", "fpn")
each_language = pytest.mark.parametrize("language", texts.LANGUAGES)


@pytest.fixture
def told() -> dict:
    return copy.deepcopy(table())


def board_of(told: dict, tmp_path: Path) -> leaderboard.Leaderboard:
    path = tmp_path / "leaderboard.json"
    path.write_text(json.dumps(told), "utf-8")
    return read(path)


@pytest.fixture
def board(told: dict, tmp_path: Path) -> leaderboard.Leaderboard:
    return board_of(told, tmp_path)


def with_miou(tmp_path: Path, sd: float = 0.1, **miou: float) -> leaderboard.Leaderboard:
    told = table()
    told["rows"] = [row(method, value, sd=sd) for method, value in miou.items()]
    return board_of(told, tmp_path)


# --- reading -------------------------------------------------------------------------------------
def test_what_is_read_is_what_was_written(board) -> None:
    assert (board.seeds, board.test_scenes, board.noise_miou) == ("3", 5000, 0.5)
    assert board.row("aff").figures["small"] == Figure(60.2, 0.2)
    assert board.row("aff", "linear").prediction == "linear"
    assert board.row("aff", "levels4") is None
    assert [r.method for r in board.standing()][:3] == ["fpn", "iaff", "aff"]
    assert all(not r.control for r in board.standing())
    assert set(board.weighing("board", "aff").kinds) == set(texts.locale("en")["scenes"]["classes"]) - {"background"}
    assert board.occluded["aff"]["miou"].mean < board.row("aff").miou.mean


def test_without_a_file_there_is_none(tmp_path: Path) -> None:
    assert read(tmp_path / "leaderboard.json") is None


def test_one_seed_has_no_spread(told, tmp_path: Path) -> None:
    told["rows"] = [row("aff", 80.0, sd=None)]
    board = board_of(told, tmp_path)
    assert board.row("aff").miou == Figure(80.0, None)
    assert board.row("aff").miou.text() == "80.0"


@pytest.mark.parametrize(
    ("damage", "names"),
    [
        (lambda t: t.pop("rows"), "rows"),
        (lambda t: t["rows"][0]["mean"].pop("small"), "small"),
        (lambda t: t["rows"][0]["mean"].update(miou=math.nan), "finite"),
        (lambda t: t["rows"][0]["sd"].update(miou=-1.0), "finite"),
        (lambda t: t["rows"].append(t["rows"][0]), "two rows"),
        (lambda t: t.update(rows=t["rows"][:2]), "no row of a method"),
        (lambda t: t.update(noise_miou="much"), "much"),
        (lambda t: t["attention"][0]["causal"].pop("other"), "other"),
    ],
)
def test_a_file_that_does_not_say_what_it_should_is_a_sentence(told, tmp_path: Path, damage, names: str) -> None:
    damage(told)
    with pytest.raises(FusionvizError, match=names) as caught:
        board_of(told, tmp_path)
    assert "python -m fusionviz train" in str(caught.value)


def test_a_file_that_is_no_json_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{", "utf-8")
    with pytest.raises(FusionvizError, match=r"x\.json"):
        read(tmp_path / "x.json")


def test_baselines_are_those_of_training() -> None:
    from fusionviz.training import heads, metrics, rebuild, weighing

    assert heads.BASELINES == BASELINES
    assert metrics.NAMES == leaderboard.METRICS
    assert weighing.CONTROLS == records.CONTROLS
    assert set(rebuild.LEVELS) == set(leaderboard.sentences.SETTINGS)


# --- ties ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("a", "b", "wanted"),
    [
        (Figure(80.5, 0.0), Figure(80.0, 0.0), 0),  # the noise itself is still noise
        (Figure(80.51, 0.0), Figure(80.0, 0.0), 1),
        (Figure(80.0, 0.0), Figure(80.51, 0.0), -1),
        (Figure(81.0, 0.5), Figure(80.0, 0.5), 0),  # twice a spread of 0.5
        (Figure(81.01, 0.5), Figure(80.0, 0.5), 1),
        (Figure(81.0, None), Figure(80.0, None), 1),  # one seed: the noise decides
        (Figure(80.71, 0.5), Figure(80.0, 0.0), 1),  # pooled: 2 * sqrt(0.25 / 2) = 0.707
        (Figure(80.70, 0.5), Figure(80.0, 0.0), 0),
    ],
)
def test_a_difference_counts_beyond_noise_and_twice_the_spread(a: Figure, b: Figure, wanted: int) -> None:
    assert order(a, b, 0.5) == wanted
    assert order(b, a, 0.5) == -wanted


def test_ranks_are_as_open_as_the_noise_leaves_them(tmp_path: Path) -> None:
    board = with_miou(tmp_path, fpn=84.0, aff=80.4, concat=80.1, add=79.8, se=70.0)
    rows = board.standing()
    assert leaderboard.ranks(rows, 0.5) == {"fpn": (1, 1), "aff": (2, 3), "concat": (2, 4), "add": (3, 4), "se": (5, 5)}
    assert leaderboard.ties(rows, 0.5)["concat"] == {"aff", "add"}
    assert leaderboard.ties(rows, 0.5)["fpn"] == set()
    # A tie does not pass on: aff ties with concat and concat with add, but aff is ahead of add.
    assert leaderboard.groups(rows, 0.5) == [(1, 2), (2, 3)]


def test_groups_are_whole_and_none_lies_in_another(board) -> None:
    rows = [r for r in board.standing() if r.method not in BASELINES]
    groups = leaderboard.groups(rows, 0.5)
    assert groups
    for first, last in groups:
        assert all(not order(a.miou, b.miou, 0.5) for a in rows[first : last + 1] for b in rows[first : last + 1])
    assert all(a < c and b < d for (a, b), (c, d) in zip(groups, groups[1:], strict=False))


# --- numbers and sentences -----------------------------------------------------------------------
@pytest.mark.parametrize(
    ("token", "wanted"),
    [
        ("test_scenes", "5,000"),
        ("seeds", "3"),
        ("noise_miou", "0.5"),
        ("scenes", "6,144"),
        ("backbone", "scene_resnet"),
        ("aff.miou", "80.2 ± 0.2"),
        ("aff.linear.small", "57.5 ± 0.2"),
        ("aff.occluded.miou", "70.6 ± 0.2"),
        ("concat4.levels4.miou", "83.9 ± 0.2"),
        ("aff.parameters", "37.0 k"),
        ("aff.macs", "38.0 M"),
        ("board.aff.beachball", "0.71 ± 0.01"),
        ("board.aff.causal.other", "70.0 ± 0.4"),
    ],
)
def test_a_placeholder_becomes_its_number(board, token: str, wanted: str) -> None:
    assert fill(f"a {{{{{token}}}}} b", board) == f"a {wanted} b"


@pytest.mark.parametrize(
    "token",
    [
        "nothing",
        "rows",
        "made",
        "aff.speed",
        "affe.miou",
        "aff.levels4.miou",
        "aff.a.b.miou",
        "board.fpn.edge",
        "board.aff",
        "board.aff.sky",
        "board.aff.causal",
        "fpn.speed.parameters",
        "compare aff.miou add.small",
        "weighs board.aff edge ball",
        "praise aff.miou",
    ],
)
def test_a_placeholder_that_means_nothing_is_found(board, token: str) -> None:
    with pytest.raises(Unmeasured):
        fill(f"{{{{{token}}}}}", board)


@pytest.mark.parametrize(
    ("aff", "word", "chinese", "claim"),
    [(82.0, "ahead", "高出", "too"), (80.3, "tie", "平手", "Not"), (78.0, "behind", "低", "opposite")],
)
def test_a_comparison_says_what_the_numbers_say(
    tmp_path: Path, aff: float, word: str, chinese: str, claim: str
) -> None:
    board = with_miou(tmp_path, aff=aff, add=80.0)
    said = fill("{{compare aff.miou add.miou}}", board)
    assert [w for w in ("ahead", "tie", "behind") if w in said] == [word]
    assert f"{abs(aff - 80):.1f}" in said
    assert fill("{{claim aff.miou add.miou}}", board).endswith(said)
    assert claim in fill("{{claim aff.miou add.miou}}", board).removesuffix(said)
    in_chinese = fill("{{compare aff.miou add.miou}}", board, "zh")
    assert [w for w in ("高出", "平手", "低") if w in in_chinese] == [chinese]


def test_a_difference_is_that_of_the_numbers_as_printed(tmp_path: Path) -> None:
    board = with_miou(tmp_path, aff=81.26, add=80.24)  # 81.3 and 80.2, but 1.02 apart
    assert "81.3 ± 0.1, Add 80.2 ± 0.1; AFF is 1.1 ahead" in fill("{{compare aff.miou add.miou}}", board)


@pytest.mark.parametrize(("texture", "said"), [(0.71, "can be read"), (0.545, "single"), (0.30, "yet")])
def test_whether_texture_can_be_read_in_the_weights_is_computed(
    told, tmp_path: Path, texture: float, said: str
) -> None:
    told["attention"] = [weighing("aff", "board", texture=texture)]
    board = board_of(told, tmp_path)
    assert said in fill("{{texture board.aff}}", board)
    assert "沙滩球" in fill("{{texture board.aff}}", board, "zh")


@pytest.mark.parametrize(("other", "said"), [(70.0, "are used"), (77.2, "decides little"), (80.0, "no use")])
def test_what_anothers_weights_cost_is_computed(told, tmp_path: Path, other: float, said: str) -> None:
    told["attention"] = [weighing("aff", "board", other=other)]
    assert said in fill("{{causal board.aff}}", board_of(told, tmp_path))


@pytest.mark.parametrize(
    ("tell", "said"), [("edge interior", "more near"), ("interior large", "no clear"), ("interior edge", "less inside")]
)
def test_where_low_weighs_more_is_computed(board, tell: str, said: str) -> None:
    assert said in fill(f"{{{{weighs board.aff {tell}}}}}", board)


def test_a_line_that_quotes_what_was_not_measured_is_left_out(board) -> None:
    body = "First.\n\nAFF has {{aff.miou}}.\n\nNobody has {{nobody.miou}}.\n\nLast."
    assert quoted(body, board) == "First.\n\nAFF has 80.2 ± 0.2.\n\nLast."
    assert quoted(body, None) == "First.\n\nLast."


def test_chinese_has_no_spaces_between_its_own_characters(board) -> None:
    said = fill("{{compare add.depth.miou concat4.levels4.miou}}{{compare add.miou concat.miou}}", board, "zh")
    assert "（加深一层）为" in said
    assert "相加为" in said


# --- lessons -------------------------------------------------------------------------------------
@pytest.mark.parametrize("key", QUOTING)
@each_language
def test_every_placeholder_of_a_lesson_is_filled(board, key: str, language: str) -> None:
    body = texts.lesson(key, language).body
    assert "{{" in body
    assert "{{" not in fill(body, board, language)
    assert "{{" not in quoted(body, None, language)


@each_language
def test_no_other_lesson_has_placeholders(language: str) -> None:
    quoting = {p.stem for p in (texts.ASSETS / "lessons" / language).glob("*.md") if "{{" in p.read_text("utf-8")}
    assert quoting == set(QUOTING)


@pytest.mark.parametrize("key", QUOTING)
def test_both_languages_quote_the_same_numbers(key: str) -> None:
    en, zh = (re.findall(r"\{\{(.+?)\}\}", texts.lesson(key, language).body) for language in texts.LANGUAGES)
    assert en == zh


# --- papers --------------------------------------------------------------------------------------
@each_language
def test_published_tables_have_their_words_and_sources(language: str) -> None:
    tables = leaderboard.published()
    assert {t.key.split("_")[0] for t in tables} == {"fpn", "aff", "se", "bifpn"}
    for t in tables:
        assert t.link.startswith("https://arxiv.org/abs/")
        assert re.search(r"\b20\d\d\b|TPAMI", t.cite)
        assert texts.text(f"published.{t.key}.title", language)
        assert texts.text(f"published.{t.key}.measured", language)
        assert all(t.row(key, language) for key in t.rows)
        assert all(re.fullmatch(r"\d+\.\d+|–", value) for values in t.rows.values() for value in values)


def test_published_tables_agree_with_the_lessons_that_print_them() -> None:
    by_key = {t.key: t for t in leaderboard.published()}
    for key, rows, method in (
        ("fpn_recall", by_key["fpn_recall"].rows, "fpn"),
        ("aff", by_key["aff_resnet"].rows, "aff"),
    ):
        body = texts.lesson(method).body.replace("*", "")
        printed = [values for name, values in rows.items() if f"| {' | '.join(values)} |" in body]
        assert len(printed) >= 5, key


def test_fpn_taken_apart_stands_beside_the_papers_own_rows(told, tmp_path: Path) -> None:
    assert leaderboard.ablation(board_of(told, tmp_path)) == ()
    told["rows"] += ablation()
    found = {a.key: a for a in leaderboard.ablation(board_of(told, tmp_path))}
    assert {key: a.row.miou.mean for key, a in found.items()} == {
        "c5": 61.4,
        "fpn": 84.0,
        "no_top_down": 81.2,
        "no_lateral": 63.4,
        "p2": 84.3,
    }
    assert found["no_top_down"].printed == ("49.5", "30.5", "68.0", "24.9", "10.9", "38.5")  # Tables 1 d and 2 d


@pytest.mark.parametrize("absent", ["all_levels", "no_lateral"])
def test_a_part_of_the_ablation_that_is_missing_leaves_a_gap(told, tmp_path: Path, absent: str) -> None:
    told["rows"] += ablation(without=absent)
    board = board_of(told, tmp_path)
    key = "fpn" if absent == "all_levels" else absent
    assert [a.key for a in leaderboard.ablation(board) if a.row is None] == [key]
    assert len(verdicts(board)) == (0 if absent == "all_levels" else 1)
    assert "{{" not in fill(" ".join(verdicts(board)), board)


def test_verdicts_are_what_the_numbers_say(told, tmp_path: Path) -> None:
    told["rows"] += ablation()
    board = board_of(told, tmp_path)
    said = [fill(v, board) for v in verdicts(board)]
    assert "FPN, all levels read is 2.8 ahead" in said[0]
    assert "no lateral paths 63.4 ± 0.2" in said[1]
    assert "低" not in fill(verdicts(board)[0], board, "zh")


def test_controls_of_the_ablation_are_those_of_training() -> None:
    from fusionviz.leaderboard.ablation import TAKEN, WHOLE
    from fusionviz.training import rebuild

    assert tuple(rebuild.ABLATION) == (WHOLE, *TAKEN)
    knobs = {control: fusion.spec("fpn").parse(dict(k)) for control, k in rebuild.ABLATION.items()}
    plain = knobs[WHOLE]
    cut = {c: {k for k, v in knobs[c].items() if v != plain[k]} for c in TAKEN}
    assert cut == {"no_top_down": {"top_down"}, "no_lateral": {"lateral"}}


# --- the README ----------------------------------------------------------------------------------
def test_the_readme_table_has_a_row_for_each_method_and_baseline(board) -> None:
    lines = [line for line in leaderboard.readme_table(board).splitlines() if line.startswith("|")][2:]
    assert len(lines) == len(board.standing())
    assert lines[0].startswith("| 1 | FPN | 84.3 ± 0.2 |")
    assert any(line.startswith("| 3–5 | AFF |") for line in lines)
    assert lines[-1].startswith("|  | Low only |")
    assert {line.count("|") for line in lines} == {11}
    assert "5,000" in leaderboard.readme_table(board)
    assert "拼接" in leaderboard.readme_table(board, "zh")


@each_language
def test_the_readme_has_the_ablation_once_it_is_measured(told, tmp_path: Path, language: str) -> None:
    plain = leaderboard.readme_table(board_of(told, tmp_path), language)
    told["rows"] += ablation()
    text = leaderboard.readme_table(board_of(told, tmp_path), language)
    assert text.startswith(plain)
    lines = [line for line in text.removeprefix(plain).splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {11}
    assert len(lines) == 2 + 5
    assert any("81.2 ± 0.2" in line and line.endswith("| 49.5 | 30.5 | 68.0 | 24.9 | 10.9 | 38.5 |") for line in lines)


def test_the_table_goes_between_its_marks_and_nowhere_else(board) -> None:
    text = "before\n<!-- leaderboard:begin -->\nold\n<!-- leaderboard:end -->\nafter\n"
    new = leaderboard.in_readme(text, "new")
    assert new == "before\n<!-- leaderboard:begin -->\nnew\n<!-- leaderboard:end -->\nafter\n"
    assert leaderboard.in_readme(new, "new") == new
    with pytest.raises(FusionvizError, match="leaderboard:begin"):
        leaderboard.in_readme("no marks", "new")


def test_the_command_writes_the_readme(told, tmp_path: Path, monkeypatch, capsys) -> None:
    readme, path = tmp_path / "README.md", tmp_path / "leaderboard.json"
    readme.write_text("<!-- leaderboard:begin -->\n<!-- leaderboard:end -->\n", "utf-8")
    monkeypatch.setattr(__main__, "README", readme)
    monkeypatch.setattr(records, "PATH", path)
    assert __main__.main(["--readme"]) == 2
    assert "python -m fusionviz train" in capsys.readouterr().err
    board = board_of(told, tmp_path)
    assert __main__.main(["--readme"]) == 0
    assert leaderboard.readme_table(board) in readme.read_text("utf-8")
    assert __main__.main(["--lang", "zh"]) == 0
    assert "名次" in capsys.readouterr().out


# --- what ships ----------------------------------------------------------------------------------
@pytest.fixture
def shipped() -> leaderboard.Leaderboard:
    board = read()
    if board is None:
        pytest.skip("assets/weights/leaderboard.json is not there yet: python -m fusionviz train --part leaderboard")
    return board


def test_the_readme_has_its_marks() -> None:
    assert leaderboard.in_readme((ROOT / "README.md").read_text("utf-8"), "x").count("\nx\n") == 1


def test_the_readme_has_the_table_that_ships(shipped) -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    stale = "README's table is not the one that ships; rewrite it with: python -m fusionviz.leaderboard --readme"
    assert leaderboard.in_readme(text, leaderboard.readme_table(shipped)) == text, stale


@each_language
def test_every_placeholder_resolves_with_what_ships(shipped, language: str) -> None:
    for key in QUOTING:
        fill(texts.lesson(key, language).body, shipped, language)


def test_what_ships_covers_every_promised_method_that_fuses_two_levels_or_a_pyramid(shipped) -> None:
    wanted = {m for m in promised() if fusion.spec(m).takes in ("pair", "pyramid")}
    assert {r.method for r in shipped.standing()} == wanted | set(BASELINES)
    assert {w.method for w in shipped.weighings if w.setting == "board"} == {m for m in wanted if fusion.spec(m).weighs}
    assert shipped.test_scenes == 5000


def test_invented_numbers_have_the_form_of_real_ones(shipped, board) -> None:
    assert set(board.made) <= set(shipped.made)
    assert figures(80.0)["mean"].keys() == shipped.rows[0].figures.keys()
