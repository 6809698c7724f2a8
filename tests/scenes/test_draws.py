"""Numbers by counter, shapes by signed distance, colours by name: what scenes are made of."""

import numpy as np
import pytest

from fusionviz.scenes import KINDS, paint, plan
from fusionviz.scenes.colours import COLOURS, SHADES, rgb, shades
from fusionviz.scenes.draws import sensor_noise, uniform
from fusionviz.scenes.kinds import Disc, extent, parts, rectangle, stand, triangle

U = np.array([0.3, 0.7, 0.2, 0.9])
AT = np.linspace(-3, 3, 121, dtype=np.float32)


# --- numbers --------------------------------------------------------------------------------------
def test_numbers_are_splitmix64_by_an_independent_loop() -> None:
    def mixed(z: int) -> int:
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
        return z ^ (z >> 31)

    golden = 0x9E3779B97F4A7C15
    key = mixed((mixed((0 + 42 + golden) % 2**64) + 3 + golden) % 2**64)
    expected = [(mixed((key + k * golden) % 2**64) >> 11) / 2**53 for k in range(1, 6)]
    np.testing.assert_array_equal(uniform(42, 3, 5), expected)


def test_numbers_do_not_depend_on_how_many_are_drawn() -> None:
    np.testing.assert_array_equal(uniform(1, 2, 100)[:7], uniform(1, 2, 7))


def test_numbers_are_uniform_and_streams_independent() -> None:
    one, other, neighbour = uniform(1, 2, 20_000), uniform(1, 3, 20_000), uniform(2, 2, 20_000)
    for numbers in (one, other, neighbour):
        assert numbers.min() >= 0
        assert numbers.max() < 1
        assert abs(np.histogram(numbers, 10, (0, 1))[0] - 2000).max() < 200
    assert abs(np.corrcoef([one, other, neighbour]) - np.eye(3)).max() < 0.03


def test_neighbouring_seeds_start_anywhere() -> None:
    firsts = np.array([uniform(seed, 0, 1)[0] for seed in range(2000)])
    assert abs(np.histogram(firsts, 10, (0, 1))[0] - 200).max() < 65
    assert abs(np.corrcoef(firsts[1:], firsts[:-1])[0, 1]) < 0.08


def test_sensor_noise_is_white_and_of_unit_size() -> None:
    one, other = sensor_noise(1, 128), sensor_noise(2, 128)
    assert abs(one.mean()) < 0.02
    assert abs(one.std() - 1) < 0.02
    shifts = (one[:, 1:], one[:, :-1]), (one[:, :, 1:], one[:, :, :-1]), (one[:1], one[1:2]), (one, other)
    for a, b in shifts:
        assert abs((a * b).mean()) < 0.03


# --- shapes ---------------------------------------------------------------------------------------
def test_a_disc_and_a_ring_are_exact() -> None:
    r = np.hypot(AT[None, :] - 0.5, AT[:, None] + 0.25)
    np.testing.assert_allclose(Disc(0.5, -0.25, 1.0).field(AT, AT), r - 1, atol=1e-5)
    ring = Disc(0.5, -0.25, 1.0, hole=0.6).field(AT, AT)
    np.testing.assert_allclose(ring, np.maximum(r - 1, 0.6 - r), atol=1e-5)


def test_a_rectangle_is_exact_inside_and_along_its_edges() -> None:
    field = rectangle(2, 1).field(AT, AT)
    dx, dy = np.abs(AT)[None, :] - 1, np.abs(AT)[:, None] - 0.5
    np.testing.assert_allclose(field, np.maximum(dx, dy), atol=1e-5)


def test_a_turned_polygon_is_the_polygon_turned() -> None:
    shape = triangle(2, 1.5, lean=0.2)
    c, s = np.cos(0.4), np.sin(0.4)
    for x, y in ((0.1, 0.2), (1.4, -0.3), (-0.6, 0.9)):
        point = [np.array([v], np.float32) for v in (x, y)]
        turned = [np.array([v], np.float32) for v in (c * x - s * y, s * x + c * y)]
        np.testing.assert_allclose(shape.field(*point), shape.turned(0.4).field(*turned), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tilt", [-0.3, 0.0, 0.25])
def test_a_thing_stands_as_tall_as_asked_about_the_middle_of_its_box(kind: str, tilt: float) -> None:
    shapes = stand(kind, U, tilt, 40.0, 88.0)
    left, top, right, bottom = extent(shapes)
    assert (left, top) == pytest.approx((-right, -bottom))
    assert bottom - top == pytest.approx(40)
    at = (np.arange(-60, 60) + 0.5).astype(np.float32)
    inside = np.minimum.reduce([shape.field(at, at) for shape in shapes]) < 0
    rows = np.flatnonzero(inside.any(1))
    assert abs(rows[-1] + 1 - rows[0] - 40) <= 2.5


def test_a_wide_thing_is_made_smaller_as_a_whole() -> None:
    left, top, right, bottom = extent(stand("sign", U, 0.0, 200.0, 50.0))
    assert right - left == pytest.approx(50)
    assert bottom - top < 200


def test_the_same_parts_make_other_kinds() -> None:
    """No part of its own names a kind: only how parts are put together, or a fine texture."""
    ball, ring = parts("ball", U)[0], parts("ring", U)[0]
    assert parts("tree", U)[0] == ball or vars(parts("tree", U)[0]) == vars(ball)
    assert vars(parts("beachball", U)[0]) == vars(ball)
    assert ring.radius == ball.radius
    assert 0 < ring.hole < ring.radius
    corners = {kind: [len(getattr(p, "corners", ())) for p in parts(kind, U)] for kind in KINDS}
    assert corners == {
        "ball": [0],
        "tree": [0, 4],
        "box": [4],
        "sign": [4, 4],
        "tent": [3],
        "pine": [3, 4],
        "house": [4, 3],
        "ring": [0],
        "beachball": [0],
    }


@pytest.mark.parametrize("kind", ["tree", "sign", "pine", "house"])
@pytest.mark.parametrize("proportions", [0.0, 0.5, 0.999])
def test_parts_hang_together(kind: str, proportions: float) -> None:
    main, other = parts(kind, np.full(4, proportions))
    at = np.linspace(-2, 2, 401, dtype=np.float32)
    assert ((main.field(at, at) <= 0.02) & (other.field(at, at) <= 0.02)).any()


# --- pixels ---------------------------------------------------------------------------------------
def test_edges_are_smooth_and_a_middle_decides() -> None:
    cover = paint._coverage(np.array([-2.0, -0.25, 0.0, 0.25, 2.0], np.float32), 1.0)
    np.testing.assert_allclose(cover, [1, 0.75, 0.5, 0.25, 0])


@pytest.mark.parametrize("blur", [0.05, 0.4, 1.0, 1.7])
def test_stripes_are_the_mean_over_a_pixel(blur: float) -> None:
    at = np.linspace(-2, 2, 41, dtype=np.float32)
    fine = np.linspace(-0.5, 0.5, 4001)[None, :] * blur + at[:, None]
    expected = ((fine % 1) < 0.5).mean(1)
    np.testing.assert_allclose(paint._bands(at, blur), expected, atol=2e-3)


def test_stripes_too_fine_for_the_pixels_turn_even() -> None:
    coat = plan.Coat("red", "striped", np.zeros(3), np.ones(3), 0.3, 2.6, 0.1)
    at = (np.arange(40) * 4.0).astype(np.float32)
    assert np.ptp(paint._texture(coat, at, at, 4.0)) < 0.5
    assert np.ptp(paint._texture(coat, at / 8, at / 8, 0.5)) > 0.95


@pytest.mark.parametrize("texture", [*plan.TEXTURES, plan.FINE_TEXTURE])
def test_a_texture_uses_both_its_shades(texture: str) -> None:
    coat = plan.Coat("red", texture, np.zeros(3), np.ones(3), 0.3, 8.0, 0.1)
    at = np.arange(64, dtype=np.float32)
    mix = paint._texture(coat, at, at, 1.0)
    if texture == "plain":
        assert mix is None
        return
    assert mix.shape == (64, 64)
    assert mix.min() >= -1e-5
    assert mix.max() <= 1 + 1e-5
    assert 0.2 < mix.mean() < 0.8
    assert (mix < 0.05).any()
    assert (mix > 0.95).any()


# --- colours --------------------------------------------------------------------------------------
def test_oklch_gives_the_known_corners() -> None:
    known = {(1.0, 0.0, 0.0): (255, 255, 255), (0.0, 0.0, 0.0): (0, 0, 0), (0.627955, 0.257683, 29.2339): (255, 0, 0)}
    for oklch, expected in known.items():
        assert tuple(np.round(255 * rgb(*map(np.array, oklch))).astype(int)) == expected


def test_shades_of_a_colour_stay_together_and_partners_apart() -> None:
    own, partner = shades()
    assert own.shape == partner.shape == (len(COLOURS), SHADES, 3)
    assert np.sqrt(((own - partner) ** 2).sum(-1)).min() > 0.2
    middles = own.mean(1)
    nearest = ((own[:, :, None] - middles[None, None]) ** 2).sum(-1).argmin(-1)
    assert (nearest == np.arange(len(COLOURS))[:, None]).mean() > 0.97
