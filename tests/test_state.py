"""Selection <-> link: what goes in comes out, and what is wrong is named, never raised."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusionviz import state
from fusionviz.errors import UnknownNameError
from fusionviz.registry import FusionSpec, Param
from fusionviz.selection import COLORMAPS, FITS, GRIDS, RANGES, SHOWS, Selection, View

SPECS = {
    "aff": FusionSpec(
        "aff", "select", "Z", 2021, params=(Param("r", 4, choices=(1, 4)), Param("gain", 1.0, low=0.0, high=2.0))
    ),
    "add": FusionSpec("add", "basic", "Z", 2016),
    "dense": FusionSpec("dense", "basic", "Z", 2017, takes="branches", stands="dense"),
}
LEVELS = ("s2", "s4", "s8", "s16")
SITES = {"skip:layer1.0": ("identity", "residual"), "dense:block1": ("x0", "x1", "x2")}


def levels_of(at: Selection) -> tuple[str, ...]:
    return SITES[at.site or "dense:block1"] if at.site or SPECS[at.method].stands else LEVELS


KNOWN = state.Catalogue(
    tuple(SPECS),
    ("scene_resnet", "resnet18", "vgg16"),
    lambda key: key in ("sample:coffee", "sample:cat"),
    SPECS.__getitem__,
    lambda _: tuple(SITES),
    levels_of,
    lambda at: (levels_of(at)[0], levels_of(at)[-1]) if levels_of(at) != LEVELS else ("s4", "s16"),
)


def read(text: str) -> tuple[Selection, tuple]:
    return state.read(state.parse_text(text), KNOWN)


views = st.builds(
    View,
    show=st.sampled_from(SHOWS),
    grid=st.sampled_from(GRIDS),
    channels=st.lists(st.integers(0, 2000), max_size=9).map(tuple),
    aligned=st.sampled_from((None, True, False)),
    part=st.sampled_from(state.PARTS),
    colormap=st.sampled_from(COLORMAPS),
    gamma=st.sampled_from((0.5, 1.0, 2.2)),
    range=st.sampled_from(RANGES),
    pin=st.none() | st.tuples(st.integers(0, 511), st.integers(0, 511)),
    pin_channel=st.none() | st.integers(0, 2047),
    frame=st.none() | st.floats(0, 1e6, allow_nan=False),
)
levels = st.sampled_from(
    [
        (None, None, None),
        (None, "s2", "s4"),
        (None, "s4", "s16"),
        ("skip:layer1.0", None, None),
        ("dense:block1", "x0", "x1"),
    ]
)
selections = st.builds(
    lambda at, **more: Selection(site=at[0], low=at[1], high=at[2], **more),
    at=levels,
    picture=st.sampled_from(("sample:coffee", "sample:cat")),
    backbone=st.sampled_from(("scene_resnet", "resnet18", "vgg16")),
    weights=st.sampled_from(("auto", "random")),
    method=st.just("aff"),
    params=st.sampled_from([(), (("r", 1),), (("gain", 0.5), ("r", 1))]),
    size=st.none() | st.integers(16, 2048),
    fit=st.sampled_from(FITS),
    crop=st.sampled_from([(0.5, 0.5), (0.0, 1.0), (0.25, 0.1), (1 / 3, 0.123456789)]),
    seed=st.integers(0, 2**31 - 1),
    view=views,
)


@given(selections)
def test_a_link_gives_back_what_it_was_made_of(selection: Selection) -> None:
    again, notices = read(state.text(selection))
    assert notices == ()
    assert again == selection


@given(
    st.dictionaries(
        st.sampled_from(
            ["img", "net", "m", "lo", "hi", "k.r", "k.x", "size", "crop", "pin", "ch", "gamma", "al", "show", "w"]
        ),
        st.text(max_size=80),
    )
)
def test_no_link_ever_raises(query: dict[str, str]) -> None:
    selection, notices = state.read(query, KNOWN)
    assert selection.method in SPECS
    assert all(n.text("en") and n.text("zh") for n in notices)


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("m=afff", ("afff", "aff")),
        ("net=resnet81", ("resnet81", "resnet18")),
        ("lo=s3", ("s3", "s2, s4, s8, s16")),
        ("k.r=3", ("r", "3", "1, 4")),
        ("k.z=3", ("z", "r, gain")),
        ("k.gain=nan", ("gain", "0 … 2")),
        ("grid=5", ("grid", "4, 9, 16, 25")),
        ("pin=1", ("pin", "0 … 4096")),
        ("size=7", ("size", "16 … 2048")),
        ("img=sample:nothing", ("sample:nothing",)),
        ("gamma=inf", ("gamma",)),
        ("metod=aff", ("metod", "m")),
        ("m=", ("add, aff",)),
        ("ch=" + ",".join(["1"] * 65), ("0 … 65535", "…")),
        ("lang=fr", ("fr", "en, zh")),
        ("lo=s16", ("s16",)),
        ("hi=s2", ("s2",)),
    ],
)
def test_a_bad_value_is_named_with_the_choices(query: str, named: tuple[str, ...]) -> None:
    selection, notices = read("img=sample:cat&seed=7&" + query if "img" not in query else query + "&seed=7")
    assert len(notices) == 1
    for part in named:
        assert part in str(notices[0])
    assert selection.seed == 7  # the rest is kept


def test_levels_in_the_wrong_order_are_answered() -> None:
    selection, notices = read("lo=s8&hi=s4")
    assert (selection.low, selection.high) == (None, None)
    assert "s8" in str(notices[0])


@pytest.mark.parametrize(
    ("query", "pair"), [("lo=s8", ("s8", "s16")), ("hi=s8", ("s4", "s8")), ("hi=s4", ("s2", "s4"))]
)
def test_one_level_alone_is_completed(query: str, pair: tuple[str, str]) -> None:
    selection, notices = read(query)
    assert notices == ()
    assert (selection.low, selection.high) == pair


@given(selections)
def test_every_key_that_is_written_is_known(selection: Selection) -> None:
    assert {k for k in state.write_query(selection) if not k.startswith(state.KNOB)} <= set(state.KEYS)


def test_the_pages_own_words_are_no_mistake() -> None:
    assert read("lang=zh&embed=true&embed_options=dark_theme&m=add#top")[1] == ()


def test_a_long_mistake_is_named_in_short() -> None:
    for query in ("net=" + "x" * 5000, "img=" + "x" * 5000, "grid=" + "9" * 5000, "x" * 5000 + "=1"):
        assert len(str(read(query)[1][0])) < 600


def test_an_unknown_method_is_an_unknown_name() -> None:
    assert isinstance(read("m=afff")[1][0], UnknownNameError)


def test_what_cannot_travel_is_said_and_the_rest_kept() -> None:
    mine = Selection(picture="upload:0123", weights="file:/home/me/w.pth", method="add", seed=3)
    assert {e.code for e in state.stays(mine)} == {"link.upload", "link.weights"}
    query = state.write_query(mine)
    assert "img" not in query
    assert "home" not in state.text(mine)
    again, notices = state.read(query, KNOWN)
    assert notices == ()
    assert (again.method, again.seed) == ("add", 3)


def test_a_link_to_an_upload_is_answered() -> None:
    _, notices = read("img=upload:0123")
    assert notices[0].code == "link.upload"


def test_a_knob_that_was_turned_to_the_papers_value_stays_turned() -> None:
    # Where a trained head ships, a knob nobody turned stands at the head's value, which may be another one.
    assert read("m=aff&k.r=4")[0].knobs == {"r": 4}
    assert read("m=aff")[0].knobs == {}


def test_whole_links_are_read() -> None:
    assert read("http://localhost:8501/explore?m=add&seed=5")[0].seed == 5


def test_views_of_panels_travel() -> None:
    mine = Selection(view=View(views=(("fused", "p8"), ("weight", "bars"))))
    assert read(state.text(mine))[0].view.views == mine.view.views
    for bad in ("weight", "cellar:bars", "weight:<b>", "weight:bars,,"):
        selection, notices = read(f"views={bad}")
        assert [n.values["key"] for n in notices] == ["views"]
        assert set(selection.view.views) <= {("weight", "bars")}


# --- sites ---------------------------------------------------------------------------------------
def test_a_site_travels_with_its_maps() -> None:
    chosen, notices = read("net=resnet18&m=aff&site=dense:block1&lo=x1&hi=x2")
    assert (chosen.site, chosen.low, chosen.high) == ("dense:block1", "x1", "x2")
    assert not notices
    assert "site=dense:block1" in state.text(chosen)


def test_a_site_that_the_network_does_not_have_is_dropped_with_one_notice_and_so_are_its_maps() -> None:
    chosen, notices = read("net=resnet18&m=aff&site=skip:layer1.1&lo=identity&hi=residual&grid=16")
    assert (chosen.site, chosen.low, chosen.high, chosen.view.grid) == (None, None, None, 16)
    assert [str(n) for n in notices] == [
        "The link names the place 'skip:layer1.1', where aff cannot stand in resnet18. Near: skip:layer1.0. "
        "The rest of the link was kept."
    ]


def test_a_site_where_the_method_cannot_stand_is_dropped() -> None:
    chosen, notices = read("net=resnet18&m=dense&site=skip:layer1.0")
    assert chosen.site is None
    assert [n.code for n in notices] == ["link.site"]


def test_maps_of_the_site_that_a_method_takes_by_itself_are_known() -> None:
    chosen, notices = read("net=resnet18&m=dense&lo=x1&hi=x2")
    assert (chosen.site, chosen.low, chosen.high) == (None, "x1", "x2")
    assert not notices


def test_a_map_that_the_site_does_not_have_is_named() -> None:
    chosen, notices = read("net=resnet18&m=aff&site=skip:layer1.0&lo=s4")
    assert (chosen.site, chosen.low) == ("skip:layer1.0", None)
    assert [n.values["choices"] for n in notices] == ["identity, residual"]
