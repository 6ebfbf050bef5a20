"""Flakes: outlines, statistics of their quantities, and what a blurred map of them is made of."""

from __future__ import annotations

import numpy as np
import pytest

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.commands import AcquireTopograph, InspectLevels, MeasureLevel
from probegym.hardware_bridge.twins.flakes import FlakesTwin
from probegym.hardware_bridge.world import Refused
from probegym.physics import flakes
from probegym.physics.flakes import FLAKES

VIEW, ROWS = 40e-6, 48
PIXEL = VIEW / ROWS


def sample(lanes: int, radius: float = 2.5e-6, count: int = 20, first: int = 0) -> np.ndarray:
    keys = np.arange(first, first + lanes, dtype=np.uint64)
    return flakes.outlines(keys, np.full(lanes, count), np.full((lanes, FLAKES), radius), np.full(lanes, 0.5e-6), VIEW, ROWS)


def world(lanes: int = 1, **changes) -> FlakesTwin:
    """A small twin; two levels and a spot."""
    levels = [
        {"name": "wide", "side": VIEW, "psf": 3e-6, "noise": 0.5, "offset": 2.0, "points": 10, "dwell": 2.0, "overhead": 5, "move": 1, "load": 100, "unload": 10},
        {"name": "spot", "noise": 0.1, "scatter": 0.2, "points": 4, "dwell": 30.0, "overhead": 60, "move": 7, "load": 1000, "unload": 50, "dose": 3.0},
    ]
    return FlakesTwin({"view": VIEW, "rows": ROWS, "correlations": [0.8], "levels": levels} | changes, lanes)


def begun(lanes: int = 1, **changes) -> FlakesTwin:
    twin = world(lanes, **changes)
    twin.begin(np.arange(lanes, dtype=np.uint64), np.ones(lanes, bool))
    return twin


# ---- outlines ----


def test_flakes_are_numbered_apart_and_inside():
    from scipy import ndimage

    for labels in sample(20):
        count = labels.max()
        assert 15 <= count <= 20
        for number in range(1, count + 1):
            grown = ndimage.binary_dilation(labels == number)
            assert set(np.unique(labels[grown])) <= {0, number}
            assert ndimage.label(labels == number, np.ones((3, 3)))[1] == 1


def test_area_lies_between_a_triangle_and_a_hexagon_and_follows_the_radius():
    for radius in (4e-6, 6e-6):
        labels = sample(20, radius, 4)
        area = np.array([(lane == number).sum() for lane in labels for number in range(1, lane.max() + 1)]) * PIXEL**2
        triangle, hexagon = 3 * np.sqrt(3) / 4 * radius**2, 3 * np.sqrt(3) / 2 * radius**2
        assert triangle * 0.85 < area.min() and area.max() < hexagon * 1.1
        assert area.std() > 0.05 * area.mean()


def test_a_lane_is_the_same_alone_and_in_a_batch():
    assert np.array_equal(sample(5)[3], sample(1, first=3)[0])


def test_a_crowded_view_leaves_flakes_out():
    assert max(labels.max() for labels in sample(3, radius=9e-6, count=24)) < 10


def test_centroids_are_means_of_pixels():
    labels = sample(3)
    at, pixels = flakes.centroids(labels, PIXEL)
    for lane in range(3):
        for f in range(FLAKES):
            y, x = np.nonzero(labels[lane] == f + 1)
            assert pixels[lane, f] == len(x)
            if len(x):
                np.testing.assert_allclose(at[lane, f], PIXEL * np.array([x.mean() + 0.5, y.mean() + 0.5]), rtol=1e-12)


# ---- quantities ----


def test_quantities_have_the_statistics_that_were_asked_for():
    lanes, share, length = 4000, 0.4, 8e-6
    at = np.array([(0, 0), (8e-6, 0), (0, 40e-6)])
    covariance = flakes.growth(np.tile(at, (lanes, 1, 1)), np.full(lanes, share), np.full(lanes, length))
    assert covariance[0, 0, 1] == pytest.approx(share * np.exp(-0.5), abs=1e-12)
    q = flakes.quantities(np.arange(lanes, dtype=np.uint64), covariance, np.tile([0.8, -0.6], (lanes, 1)))
    for level in range(3):
        np.testing.assert_allclose(np.cov(q[:, level].T), covariance[0], atol=0.06)
    ties = np.corrcoef(q[:, :, 0].T)
    assert ties[0, 1] == pytest.approx(0.8, abs=0.03) and ties[1, 2] == pytest.approx(-0.6, abs=0.03) and ties[0, 2] == pytest.approx(-0.48, abs=0.05)


# ---- point-spread functions ----


@pytest.mark.parametrize("width", [0.7, 1.4, 3.6, 7.2])
def test_blur_is_a_convolution_with_a_gaussian(width):
    rng = np.random.default_rng(0)
    field = rng.normal(size=(20, 24))
    deviation = width / 2.354820045
    y, x = (np.arange(n) for n in field.shape)
    far = np.arange(-80, 81)
    norm = np.exp(-0.5 * (far / deviation) ** 2).sum()
    direct = np.zeros_like(field)
    for i in range(20):
        for j in range(24):
            kernel = np.exp(-0.5 * ((y - i)[:, None] ** 2 + (x - j) ** 2) / deviation**2) / norm**2
            direct[i, j] = (kernel * field).sum()
    np.testing.assert_allclose(flakes.seen(field, width), direct, atol=1e-9)


def test_full_width_at_half_maximum_and_conservation():
    point = np.zeros((41, 41))
    point[20, 20] = 1
    spread = flakes.seen(point, 6.0)
    assert spread[20, 23] == pytest.approx(0.5 * spread[20, 20], rel=1e-9) and spread.sum() == pytest.approx(1, abs=1e-6)
    assert np.array_equal(flakes.seen(point, 0.0), point)


@pytest.mark.parametrize("width, side", [(3.6, 48), (1.4, 12), (0.0, 1)])
def test_response_is_the_mean_over_pixels_exactly(width, side):
    labels = sample(1)[0]
    at, _ = flakes.centroids(labels[None], 1.0)
    most = FLAKES if side == 48 else 6
    weights, pixels, numbers = flakes.response(labels, width, side, at[0], 1.0, most)
    values = np.random.default_rng(1).normal(size=FLAKES)
    blurred = flakes.seen(np.concatenate([[0], values])[labels], width)
    for place in range(labels.max()):
        top, left = flakes.tile(at[0, place], side, ROWS, 1.0)
        part, own = blurred[top : top + side, left : left + side], labels[top : top + side, left : left + side]
        assert (own == place + 1).any()
        for row in np.flatnonzero(pixels[place]):
            mask = own == numbers[place, row] + 1
            assert mask.sum() == pixels[place, row]
            assert part[mask].mean() == pytest.approx(weights[place, row] @ values, abs=1e-12)
        assert (weights[place, pixels[place] == 0] == 0).all()


def test_neighbours_leak_in_and_substrate_dilutes():
    labels = sample(1)[0]
    weights = flakes.response(labels, 3.6, 48, np.zeros((1, 2)), PIXEL, FLAKES)[0][0]
    own = weights[:, :].max(1)[: labels.max()]
    assert (own < 0.95).all() and (own > 0.1).all() and (np.sort(weights[: labels.max()], 1)[:, -2] > 1e-4).any()


def test_tiles_lie_inside_the_view_around_their_place():
    places = np.random.default_rng(2).uniform(0, VIEW, (200, 2))
    top, left = flakes.tile(places, 12, ROWS, PIXEL)
    assert top.min() >= 0 and left.min() >= 0 and max(top.max(), left.max()) <= ROWS - 12
    inner = (np.abs(places / VIEW - 0.5) < 0.3).all(1)
    middle = (np.stack([left, top], 1) + 6) * PIXEL
    assert np.abs(middle - places)[inner].max() <= 0.5 * PIXEL + 1e-12


# ---- the twin ----


def test_maps_show_blurred_flakes_above_the_substrate_with_the_noise_of_the_data_sheet():
    twin = begun(60)
    signal = twin.execute(MeasureLevel("wide", np.zeros((60, 2))), np.ones(60, bool)).values["signal"]
    clean = []
    for lane in range(60):
        values = np.concatenate([[0], 2.0 + twin.state["quantities"][lane, 0]])
        clean.append(flakes.seen(values[twin.state["labels"][lane]], 3e-6 / PIXEL))
    noise = signal - np.array(clean)
    assert noise.std() == pytest.approx(0.5, rel=0.01) and abs(noise.mean()) < 0.005


def test_spots_scatter_about_the_flake():
    twin = begun(200, count=6.0)
    labels, true = twin.state["labels"], twin.state["quantities"][:, 1, 0]
    at = np.stack([flakes.centroids(labels, PIXEL)[0][lane, 0] for lane in range(200)])
    everyone = np.ones(200, bool)
    first, second = (twin.execute(MeasureLevel("spot", at), everyone).values["signal"][:, 0, 0] for _ in range(2))
    hit = np.array([labels[lane, int(y / PIXEL), int(x / PIXEL)] == 1 for lane, (x, y) in enumerate(at)])
    assert hit.mean() > 0.97
    assert (first - true)[hit].std() == pytest.approx(np.hypot(0.1, 0.2), rel=0.2)
    assert abs(np.corrcoef((first - true)[hit], (second - true)[hit])[0, 1]) < 0.25


def test_counting_noise_grows_with_the_signal():
    levels = [{"name": "a", "side": VIEW, "noise": 1.0, "shot": 0.3, "offset": 3.0}, {"name": "b", "noise": 1.0}]
    twin = begun(200, levels=levels)
    signal = twin.execute(MeasureLevel("a", np.zeros((200, 2))), np.ones(200, bool)).values["signal"]
    q = twin.state["quantities"][:, 0]
    labels = twin.state["labels"]
    high, low = [], []
    for lane in range(200):
        for f in range(labels[lane].max()):
            noise = signal[lane][labels[lane] == f + 1] - 3.0 - q[lane, f]
            (high if q[lane, f] > 1 else low if q[lane, f] < -1 else []).extend(noise)
    assert np.var(high) > 1.2 > 0.8 > np.var(low)


def test_prices_are_transfer_or_move_and_points_and_overhead():
    twin = begun(1)
    seconds = twin.execute(InspectLevels(), np.ones(1, bool)).values["seconds"][0]
    np.testing.assert_allclose(seconds, [[1 + 25, 10 + 1000 + 180], [50 + 100 + 25, 7 + 180]])
    spent = [twin.execute(MeasureLevel(name, np.full((1, 2), 1e-5)), np.ones(1, bool)).time[0] for name in ("wide", "spot", "spot", "wide")]
    assert spent == [26, 1190, 187, 175]
    assert twin.execute(MeasureLevel("spot", np.full((1, 2), 1e-5)), np.ones(1, bool)).dose[0] == 3.0


def test_the_drawn_factor_makes_transfers_dearer_and_nothing_else():
    plain, slow = (begun(1, transfer=factor).execute(InspectLevels(), np.ones(1, bool)).values["seconds"][0] for factor in (1.0, 2.5))
    np.testing.assert_allclose(slow - plain, [[0, 1.5 * (10 + 1000)], [1.5 * (50 + 100), 0]])
    drawn = begun(50, transfer={"uniform": [1.0, 3.0]}).execute(InspectLevels(), np.ones(50, bool)).values["seconds"]
    assert drawn[:, 0, 1].std() > 300 and np.ptp(drawn[:, 0, 0]) == 0


def test_correlations_are_told_only_where_the_scenario_says_so():
    asked = np.ones(1, bool)
    assert np.isnan(begun().execute(InspectLevels(), asked).values["correlations"]).all()
    assert begun(told=True).execute(InspectLevels(), asked).values["correlations"][0, 0] == 0.8


def test_errors_of_the_data_sheets_are_not_told():
    plain, wrong = begun(), begun(errors={"psf": 1.5, "noise": 2.0, "length": 3.0})
    asked = np.ones(1, bool)
    told, other = (twin.execute(InspectLevels(), asked).values for twin in (plain, wrong))
    assert all(np.array_equal(told[name], other[name], equal_nan=True) for name in told)


def sharp(twin: FlakesTwin, lane: int, width: float) -> np.ndarray:
    """The wide map of a lane, were there no noise; width: m of the point-spread function."""
    values = np.concatenate([[0], 2.0 + twin.state["quantities"][lane, 0]])
    return flakes.seen(values[twin.state["labels"][lane]], width / PIXEL)


def test_maps_are_blurred_and_noisy_by_as_much_as_the_data_sheets_are_wrong():
    twin = begun(20, errors={"psf": 1.5, "noise": 0.1})
    signal = twin.execute(MeasureLevel("wide", np.zeros((20, 2))), np.ones(20, bool)).values["signal"]
    noise = signal - np.array([sharp(twin, lane, 4.5e-6) for lane in range(20)])
    assert noise.std() == pytest.approx(0.05, rel=0.02)
    assert (signal - np.array([sharp(twin, lane, 3e-6) for lane in range(20)])).std() > 0.1


def test_the_true_length_of_the_gradient_is_the_told_one_times_its_error():
    length, factor = 4e-6, 3.0
    twin = begun(600, share=1.0, length=length, count=8.0, errors={"length": factor})
    assert twin.execute(InspectLevels(), np.ones(600, bool)).values["field"][0, 1] == length
    at, pixels = flakes.centroids(twin.state["labels"], PIXEL)
    apart = np.hypot(*np.moveaxis(at[:, :, None] - at[:, None], -1, 0))
    near = (apart > 6e-6) & (apart < 12e-6) & (pixels > 0)[:, :, None] & (pixels > 0)[:, None]
    q = twin.state["quantities"][:, 0]
    together = (q[:, :, None] * q[:, None])[near].mean()
    assert together == pytest.approx(np.exp(-(apart[near] ** 2) / (2 * (factor * length) ** 2)).mean(), abs=0.08)


def test_readings_tell_the_names_of_the_levels():
    codes = begun(2).execute(InspectLevels(), np.array([True, False])).values["names"]
    assert ["".join(map(chr, level[level > 0])) for level in codes[0]] == ["wide", "spot"] and not codes[1].any()


REFUSED = {
    "unknown level": (MeasureLevel("x", np.zeros((1, 2))), "there is no level"),
    "outside": (MeasureLevel("spot", np.full((1, 2), 41e-6)), "position"),
    "nan": (MeasureLevel("spot", np.full((1, 2), np.nan)), "position"),
    "one number": (MeasureLevel("spot", np.zeros(1)), "position"),
    "other instrument": (AcquireTopograph((8, 8), 1e-8, 1e-7, np.zeros((1, 2)), 1.0, 1e-11), "have no AcquireTopograph"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_the_twin_refuses_and_nothing_happens(kind):
    twin = begun()
    before = {name: value.copy() for name, value in twin.state.items()}
    command, words = REFUSED[kind]
    with pytest.raises(Refused, match=words):
        twin.execute(command, np.ones(1, bool))
    assert all(np.array_equal(before[name], twin.state[name]) for name in before)


WRONG = {
    "count": ({"count": 30.0}, "world.count"), "radius": ({"radius": 1e-7}, "world.radius"), "correlation": ({"correlations": [1.2]}, "world.correlation"),
    "pace": ({"pace": 0.0}, "world.pace"), "pairs": ({"correlations": [0.1, 0.2]}, "need 1 correlations"), "unknown": ({"colour": 1}, "colour"),
    "names": ({"levels": [{"name": "a", "side": 1e-4, "noise": 1}, {"name": "a", "noise": 1}]}, "names that differ"),
    "overview": ({"levels": [{"name": "a", "side": 1e-5, "noise": 1}, {"name": "b", "noise": 1}]}, "overview"),
    "noise": ({"levels": [{"name": "a", "side": 1e-4, "noise": 0}, {"name": "b", "noise": 1}]}, "noise"),
    "nan": ({"view": float("nan")}, "world.view"),
    "scatter": ({"levels": [{"name": "a", "side": 1e-4, "noise": 1}, {"name": "b", "noise": 1, "psf": 1e-6, "scatter": 0.1}]}, "psf or a scatter"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_world_is_named(kind):
    changes, words = WRONG[kind]
    with pytest.raises(ProbeGymError, match=words) as caught:
        begun(**changes)
    assert "\n" not in str(caught.value)


def test_an_impossible_draw_changes_no_lane():
    twin = begun(2)
    before = twin.state["labels"].copy()
    twin.config = twin.config.model_copy(update={"count": twin.config.count.model_copy(update={"choice": (40.0,)})})
    with pytest.raises(ProbeGymError, match="count"):
        twin.begin(np.array([5, 6], np.uint64), np.array([True, True]))
    assert np.array_equal(before, twin.state["labels"])
