"""A tip reads the grey dilation of what it scans; it blunts, doubles, changes and picks things up."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import grey_dilation

from probegym.errors import ProbeGymError
from probegym.physics import tips
from tests.helpers import differences

NM = 1e-9


def read(height, pixel: float, tip=None, rows=None, dx: float = 0.0, dy: float = 0.0, **shape):
    """Heights and contacts of lines through pixel centres, moved by (dy, dx) m."""
    height = np.ascontiguousarray(height, np.float32)
    rows = np.arange(len(height)) if rows is None else np.asarray(rows)
    tip = tips.sharp(len(rows), **shape) if tip is None else tip
    extent = height.shape[0] * pixel, height.shape[1] * pixel
    start = (rows + 0.5) * pixel + dy, 0.5 * pixel + dx
    return tips.dilate_lines(height[None], extent, tip, *start, pixel, height.shape[1], maps=np.zeros(len(rows), int))


def bumpy(seed: int = 0, shape=(40, 52), top: float = 8 * NM) -> np.ndarray:
    return (np.random.default_rng(seed).random(shape) * top).astype(np.float32)


def sphere(size: int, pixel: float, radius: float) -> np.ndarray:
    at = (np.arange(size) - size // 2) * pixel
    depth = radius**2 - at[:, None] ** 2 - at**2
    return np.where(depth > 0, radius + np.sqrt(np.maximum(depth, 0)), 0)


def structure(radius: float, half_angle: float, pixel: float, half: int = 30) -> np.ndarray:
    at = np.arange(-half, half + 1) * pixel
    return -tips.profile(radius, half_angle, np.hypot(at[:, None], at)).astype(np.float32)


def test_profile_is_a_sphere_that_goes_over_into_a_cone():
    r = np.linspace(0, 5e-8, 2001)
    z = tips.profile(1e-8, 0.35, r)
    edge = 1e-8 * np.cos(0.35)
    assert z[r < edge] == pytest.approx(1e-8 - np.sqrt(1e-16 - r[r < edge] ** 2), abs=1e-20)
    slope = np.gradient(z, r)
    assert slope[r > 1.01 * edge] == pytest.approx(1 / np.tan(0.35))
    assert abs(np.diff(slope)).max() < 0.06  # tangential: no kink
    assert tips.reach(1e-8, 0.35, z) == pytest.approx(r, abs=1e-15)


@pytest.mark.parametrize(("radius", "half_angle"), [(1e-8, 0.35), (2e-9, 0.2), (4e-8, 0.6), (5e-9, 1.2)])
def test_on_pixels_it_is_grey_dilation_exactly(radius, half_angle):
    height = bumpy()
    expected = grey_dilation(height, structure=structure(radius, half_angle, 2 * NM), size=(61, 61), mode="reflect")
    image, _ = read(height, 2 * NM, radius=radius, half_angle=half_angle)
    assert image.tobytes() == expected.astype(np.float32).tobytes()


def test_contact_is_the_pixel_that_is_touched():
    height = bumpy(1)
    image, contact = read(height, 2 * NM)
    y, x = np.indices(height.shape)
    ty, tx = np.divmod(contact, height.shape[1])
    inside = (y > 12) & (y < 28) & (x > 12) & (x < 40)  # no mirror image reaches in here
    far = np.hypot(ty - y, tx - x)[inside] * 2 * NM
    assert (height[ty, tx][inside] - tips.profile(8e-9, 0.35, far).astype(np.float32) == image[inside]).all()
    material = (np.random.default_rng(2).random((1, *height.shape)) * 3).astype(np.uint8)
    assert (tips.touched(material, contact, np.zeros(40, int)) == material[0, ty, tx]).all()


def test_beyond_the_edge_lies_the_mirror_image():
    height = bumpy(2)
    padded = np.pad(height, 52, mode="symmetric")
    image, _ = read(height, 2 * NM, dx=-20 * NM, dy=-14 * NM)
    wide, _ = read(padded, 2 * NM, rows=np.arange(45, 85))
    assert image == pytest.approx(wide[:, 42:94], abs=1e-15)
    far, _ = read(height, 2 * NM, dx=2 * 52 * 2 * NM * 3, dy=-2 * 40 * 2 * NM)  # whole periods away
    assert far == pytest.approx(read(height, 2 * NM)[0], abs=1e-14)


def test_a_sphere_reads_as_a_cap_of_the_summed_radii():
    r, big, pixel = 10 * NM, 15 * NM, 0.25 * NM
    image, _ = read(sphere(321, pixel, r), pixel, rows=[160], radius=big, half_angle=0.2)
    at = (np.arange(321) - 160) * pixel
    cap = r + np.sqrt(np.maximum((r + big) ** 2 - at**2, 0)) - big
    seen = np.clip(cap, 0, None)
    steep = abs(at) < 0.9 * (r + big)
    assert image[0][steep] == pytest.approx(seen[steep], abs=0.03 * NM)
    assert image[0].max() == pytest.approx(2 * r, rel=1e-6)


@pytest.mark.parametrize("step", [0.5, 1.0, 3.0])
def test_a_step_reads_broader_by_the_root_of_two_r_h(step):
    height, pixel, radius = np.zeros((3, 400)), 0.1 * NM, 20 * NM
    height[:, 200:] = step * NM
    image, _ = read(height, pixel, rows=[1], radius=radius, half_angle=0.3)
    width = (image[0] > 0)[:200].sum() * pixel
    assert width == pytest.approx(np.sqrt(2 * radius * step * NM - (step * NM) ** 2), abs=2 * pixel)
    assert width == pytest.approx(np.sqrt(2 * radius * step * NM), rel=0.05)


def test_flat_ground_stays_flat_wherever_the_line_lies():
    image, _ = read(np.full((32, 32), 3 * NM), 4 * NM, dx=1.7 * NM, dy=0.9 * NM)
    assert (image == np.float32(3 * NM)).all()


def test_a_double_tip_doubles_a_particle():
    pixel, r = NM, 5 * NM
    height = sphere(121, pixel, r)
    tip = tips.sharp(121, radius=6 * NM)
    tip["second"][:] = [30 * NM, -20 * NM, 2 * NM, 4 * NM]
    image, contact = read(height, pixel, tip)
    alone, _ = read(height, pixel, radius=6 * NM)
    small, _ = read(height, pixel, radius=4 * NM)
    ghost = np.roll(small, (20, -30), (0, 1)) - 2 * NM  # the second apex meets the particle when the first is its offset away
    assert image[20:, :91] == pytest.approx(np.maximum(alone, ghost)[20:, :91], abs=1e-15)
    assert image[60 + 20, 60 - 30] == pytest.approx(2 * r - 2 * NM, rel=1e-5) and image[60, 60] == pytest.approx(2 * r, rel=1e-5)
    assert contact[80, 30] == contact[60, 60] == 60 * 121 + 60


def test_a_double_tip_between_pixels_keeps_flat_ground_flat():
    tip = tips.sharp(20)
    tip["second"][:] = [5.3 * NM, 2.2 * NM, 0.0, 4 * NM]
    assert (read(np.ones((20, 20)) * NM, 4 * NM, tip)[0] == np.float32(NM)).all()


def test_sub_pixel_moves_are_continuous():
    height, pixel = bumpy(3), 4 * NM
    for move in ("dx", "dy"):
        images = np.array([read(height, pixel, **{move: f * pixel / 64})[0] for f in range(65)]).astype(float)
        steps = abs(np.diff(images, axis=0))
        assert steps.max() <= 1.001 * abs(images[-1] - images[0]).max() / 64 + 1e-14  # linear from pixel to pixel
        shifted = np.roll(images[0], -1, axis=1 if move == "dx" else 0)
        inner = (slice(0, -1), slice(0, -1))
        assert images[-1][inner] == pytest.approx(shifted[inner], abs=1e-14)


def test_a_retrace_is_the_trace_backwards():
    height, tip = bumpy(4)[None], tips.sharp(1)
    extent = (80 * NM, 104 * NM)
    trace, there = tips.dilate_lines(height, extent, tip, [33.3 * NM], [1.6 * NM], 0.83 * NM, 120)
    retrace, back = tips.dilate_lines(height, extent, tip, [33.3 * NM], [1.6 * NM + 119 * 0.83 * NM], -0.83 * NM, 120)
    assert retrace[0, ::-1] == pytest.approx(trace[0], abs=1e-15) and (back[0, ::-1] == there[0]).mean() > 0.98


def test_a_lane_is_the_same_in_every_batch():
    heights = np.stack([bumpy(s) for s in range(5)])
    tip = tips.sharp(5, radius=np.linspace(4, 20, 5) * NM)
    tip["second"][2] = [9 * NM, 4 * NM, NM, 3 * NM]
    y, x = np.linspace(10, 60, 5) * NM, np.linspace(-5, 5, 5) * NM
    many = tips.dilate_lines(heights, (80 * NM, 104 * NM), tip, y, x, NM, 99)
    for lane in range(5):
        one = {name: value[lane : lane + 1] for name, value in tip.items()}
        alone = tips.dilate_lines(heights, (80 * NM, 104 * NM), one, y[lane : lane + 1], x[lane : lane + 1], NM, 99, maps=[lane])
        assert many[0][lane].tobytes() == alone[0].tobytes() and many[1][lane].tobytes() == alone[1].tobytes()


def test_shift_and_length_are_in_the_reading():
    height, tip = bumpy(5), tips.sharp(40)
    tip["shift"][:], tip["length"][:] = [4 * NM, -2 * NM], 3 * NM
    assert read(height, 2 * NM, tip)[0] == pytest.approx(read(height, 2 * NM, dx=4 * NM, dy=-2 * NM)[0] + 3 * NM, abs=1e-14)


def test_blunting_only_above_the_threshold_and_more_with_more_force():
    force = np.linspace(0, 1e-7, 50)
    radius = tips.blunted_radius(1e-8, force, 2e-8, 0.01)
    assert (radius[force <= 2e-8] == 1e-8).all() and (np.diff(radius) >= 0).all()
    assert radius[-1] == pytest.approx(1e-8 + 0.01 * 8e-8)


def test_a_blunted_tip_is_shorter_and_brings_its_second_apex_down():
    tip = tips.sharp(2, radius=1e-8, half_angle=0.3)
    tip["second"][1] = [1e-8, 0, 2e-9, 5e-9]
    worn = tips.blunt(tip, np.array([0, 1e-7]), 5e-8, 0.1)
    lost = 5e-9 * (1 / np.sin(0.3) - 1)
    assert worn["length"] == pytest.approx([0, -lost]) and worn["radius"] == pytest.approx([1e-8, 1.5e-8])
    assert worn["second"][1, 2] == pytest.approx(2e-9 - lost) and not worn["second"][0].any()
    flank = 1e-7  # far out the cone has not moved
    fresh = tips.profile(1e-8, 0.3, flank)
    assert tips.profile(1.5e-8, 0.3, flank) + lost == pytest.approx(fresh)
    assert tip["radius"].tolist() == [1e-8, 1e-8]


def test_tip_changes_come_at_their_rate():
    keys = np.arange(200_000, dtype=np.uint64)
    rate = tips.tip_change_rate(np.array([0.0, 3e-8]), base=0.02, slope=1e7, threshold=1e-8)
    assert rate == pytest.approx([0.02, 0.22])
    waits = tips.waiting_time(keys, 4, rate[1])
    assert waits.mean() == pytest.approx(1 / 0.22, rel=0.01)
    assert (waits < 2.0).mean() == pytest.approx(1 - np.exp(-0.44), rel=0.01)
    assert (tips.waiting_time(keys, 5, rate[1]) != waits).all() and np.isinf(tips.waiting_time(keys[:2], 4, 0.0)).all()


def test_a_change_touches_only_the_lanes_it_is_asked_for():
    keys, tip = np.arange(6, dtype=np.uint64), tips.sharp(6)
    where = np.array([True, False] * 3)
    changed = tips.change(tip, where, keys, 3, tips.TipChange())
    assert all((changed[name][~where] == tip[name][~where]).all() for name in tip)
    assert (changed["length"][where] != 0).all() and (changed["radius"][where] != tip["radius"][where]).all()
    assert not differences(changed, tips.change(tip, where, keys, 3, tips.TipChange()))
    assert differences(changed, tips.change(tip, where, keys, 4, tips.TipChange()))


def test_changes_have_the_statistics_of_their_law():
    n = 100_000
    law = tips.TipChange(length=4e-10, shift=2e-9, spread=0.3, smallest=3e-9, largest=2e-8, double=0.3, cure=0.2)
    changed = tips.change(tips.sharp(n), np.ones(n, bool), np.arange(n, dtype=np.uint64), 0, law)
    second = changed["second"]
    assert (second[:, 3] > 0).mean() == pytest.approx(0.3, rel=0.02)
    assert changed["length"].std() == pytest.approx(4e-10, rel=0.02) and changed["shift"].std(axis=0) == pytest.approx([2e-9] * 2, rel=0.02)
    assert np.log(changed["radius"] / 8e-9).std() == pytest.approx(0.3, rel=0.05)
    assert changed["radius"].min() >= 3e-9 and changed["radius"].max() <= 2e-8
    far = np.hypot(*second[second[:, 3] > 0, :2].T)
    assert far.min() >= law.distance[0] and far.max() <= law.distance[1] and 0 <= second[:, 2].min() <= second[:, 2].max() <= law.depth
    again = tips.change(changed, np.ones(n, bool), np.arange(n, dtype=np.uint64), 1, law)
    assert (again["second"][:, 3] > 0).mean() == pytest.approx(0.3 * 0.5 + 0.3, rel=0.02)  # kept by neither-nor, or new


def test_a_cure_takes_the_second_apex_and_the_load_away():
    tip = tips.pick_up(tips.sharp(50, radius=4e-8), np.ones(50, bool), 2e-8, 6e-9)
    tip["second"][:] = [2e-8, 1e-8, 2e-9, 5e-9]
    law = tips.TipChange(double=0.0, cure=1.0, length=0.0, spread=0.1, fresh=6e-9)
    cured = tips.change(tip, np.ones(50, bool), np.arange(50, dtype=np.uint64), 0, law)
    assert not cured["second"].any() and not cured["load"].any() and not cured["length"].any()
    assert cured["radius"] == pytest.approx(np.full(50, 6e-9), rel=0.4)


def test_a_surviving_second_apex_stays_where_it_is():
    tip = tips.sharp(1)
    tip["second"][:] = [2e-8, 1e-8, 2e-9, 5e-9]
    law = tips.TipChange(double=0.0, cure=0.0)
    changed = tips.change(tip, np.array([True]), np.array([5], np.uint64), 0, law)
    assert changed["second"][0, :2] + changed["shift"][0] == pytest.approx([2e-8, 1e-8])
    assert changed["second"][0, 2] - changed["length"][0] == pytest.approx(2e-9)


def test_a_particle_is_picked_up_and_lost_again():
    tip, where = tips.sharp(3), np.array([True, True, False])
    loaded = tips.pick_up(tip, where, 3e-9, 5e-9)
    assert loaded["length"].tolist() == [5e-9, 5e-9, 0] and loaded["radius"].tolist() == [3e-9, 3e-9, 8e-9]
    assert not differences(tips.pick_up(loaded, where, 9e-9, 9e-9), loaded)  # one particle at a time
    bare = tips.let_go(loaded, np.array([True, False, True]))
    assert bare["length"].tolist() == [0, 5e-9, 0] and bare["radius"].tolist() == [8e-9, 3e-9, 8e-9] and bare["load"].tolist() == [0, 5e-9, 0]
    assert not differences(tips.let_go(bare, np.ones(3, bool)), tip)


def scan(**changes):
    arguments = {"heights": bumpy()[None], "extent": (8e-8, 1e-7), "tip": tips.sharp(1), "y": [1e-8], "x": [0.0], "spacing": 1e-9, "points": 20}
    return tips.dilate_lines(**{**arguments, **changes})


BAD = {
    "float64": lambda: scan(heights=bumpy()[None].astype(float)),
    "one map without its axis": lambda: scan(heights=bumpy()),
    "NaN in a map": lambda: scan(heights=np.full((1, 8, 8), np.nan, np.float32)),
    "more lanes than maps": lambda: scan(tip=tips.sharp(2), y=[0, 0], x=[0, 0]),
    "no such map": lambda: scan(maps=[1]),
    "no points": lambda: scan(points=0),
    "extent": lambda: scan(extent=(0.0, 1e-7)),
    "far away": lambda: scan(y=[1.0]),
    "NaN": lambda: scan(x=[np.nan]),
    "too long a line": lambda: scan(spacing=1e-3),
    "tops": lambda: scan(tops=[1e-8, 1e-8]),
    "radius": lambda: tips.sharp(1, radius=0.0),
    "half angle": lambda: tips.sharp(1, half_angle=1.7),
    "blunting rate": lambda: tips.blunted_radius(1e-8, 1e-8, 1e-8, -1.0),
    "rate": lambda: tips.waiting_time(np.zeros(1, np.uint64), 0, -1.0),
    "force": lambda: tips.tip_change_rate(np.nan, 1.0, 1.0),
    "shares": lambda: tips.TipChange(double=0.7, cure=0.6),
    "radii": lambda: tips.TipChange(smallest=2e-8),
    "distances": lambda: tips.TipChange(distance=(3e-8, 1e-8)),
    "negative": lambda: tips.TipChange(length=-1e-9),
    "nothing picked up": lambda: tips.pick_up(tips.sharp(1), np.array([True]), 1e-9, 0.0),
}


@pytest.mark.parametrize("mistake", BAD)
def test_mistakes_are_named(mistake):
    with pytest.raises(ProbeGymError) as caught:
        BAD[mistake]()
    assert "\n" not in str(caught.value)
