"""The adatom twin: what it reads back and costs, tips that change, drift, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.commands import DipTip, DragTip, LocateAdatoms, PulseBias, SetBias
from probegym.hardware_bridge.twins.adatoms import FARTHEST, LIMITS, AdatomTwin
from probegym.hardware_bridge.world import Refused
from probegym.physics import adatoms
from tests.helpers import differences
from tests.stm_reference import point_width

VIEW, PIXELS, SPEED = 7e-9, 128, 200e-9
EXACT = {"position_noise": 0.0}


def twin(lanes: int = 1, seed: int = 100, **world) -> AdatomTwin:
    """A twin of the standard world with some entries replaced, after the start of an episode."""
    out = AdatomTwin(world, lanes)
    out.begin(np.arange(seed, seed + lanes, dtype=np.uint64), np.ones(lanes, bool))
    return out


def locate(lanes: int = 1, **changes) -> LocateAdatoms:
    asked = {"shape": (PIXELS, PIXELS), "field_of_view": VIEW, "speed": SPEED, "centre": np.zeros((lanes, 2)), "bias": 0.5, "current": 50e-12}
    return LocateAdatoms(**asked | {"count": 1, "image": False} | changes)


def drag(start, end, lanes: int = 1, conductance: float = 6e-6, bias: float = 0.01, **changes) -> DragTip:
    start, end = (np.broadcast_to(np.asarray(v, float), (lanes, 2)).copy() for v in (start, end))
    volts = np.full(lanes, bias)
    return DragTip(**{"start": start, "end": end, "bias": volts, "current": conductance * np.abs(volts), "speed": 5e-9, "samples": 64} | changes)


def do(world: AdatomTwin, command):
    return world.execute(command, np.ones(world.lanes, bool))


def towards(lanes: int, length: float) -> np.ndarray:
    angle = 2 * np.pi * (np.arange(lanes) + 0.37) / lanes
    return length * np.stack([np.cos(angle), np.sin(angle)], 1)


# ---- readings and costs ----


def test_drag_moves_the_adatom_and_costs_time_and_one_measurement():
    world = twin(32, **EXACT)
    before = world.truth()["position"][:, 0]
    read = do(world, drag(before, before + towards(32, 1.5e-9), 32, samples=2048))
    assert read.values["trace"].shape == (32, 2048) and read.values["trace"].dtype == np.float32
    assert read.time == pytest.approx([2.0 + 1.5e-9 / 5e-9] * 32, rel=1e-9, abs=0) and read.measurements.tolist() == [1] * 32 and not read.damage.any() and not read.dose.any()
    after = world.truth()["position"][:, 0]
    assert np.mean(np.hypot(*(after - before - towards(32, 1.5e-9)).T) < 0.25e-9) > 0.9
    found = do(world, locate(32))
    assert np.array_equal(found.values["position"][:, 0], after) and found.values["found"].all()


def test_finding_costs_the_time_of_the_image_and_no_measurement():
    read = do(twin(), locate())
    assert read.time[0] == pytest.approx(PIXELS * 2 * VIEW / SPEED + 2.0, rel=1e-9, abs=0) and read.measurements[0] == 0 and set(read.values) == {"position", "found"}
    assert do(twin(), locate(shape=(32, 64))).time[0] == pytest.approx(32 * 2 * VIEW / SPEED + 2.0, rel=1e-9, abs=0)


def test_finder_errs_as_told():
    world = twin(3000, position_noise=20e-12, miss_rate=0.1)
    read, true = do(world, locate(3000)).values, world.truth()["position"]
    error = (read["position"] - true)[read["found"]]
    assert error.std(0) == pytest.approx([20e-12] * 2, rel=0.06, abs=0) and abs(error.mean()) < 2e-12
    assert read["found"].mean() == pytest.approx(0.9, abs=4 * np.sqrt(0.09 / 3000)) and not read["position"][~read["found"]].any()


def test_adatoms_outside_the_view_are_not_found():
    world = twin(adatoms={"count": 2, "sites": [(0.0, 0.0), (5e-9, 0.0)]})
    assert do(world, locate(count=2)).values["found"].tolist() == [[True, False]]
    assert do(world, locate(count=2, field_of_view=12e-9)).values["found"].tolist() == [[True, True]]
    assert do(world, locate(count=2, centre=np.array([[5e-9, 0.0]]))).values["found"].tolist() == [[False, True]]
    assert do(world, locate(count=2, shape=(32, 128), centre=np.array([[2.5e-9, 1.5e-9]]))).values["found"].tolist() == [[False, False]]


def test_images_show_the_adatoms_where_they_are():
    """A Gaussian of Tersoff & Hamann's width, as high as the world says."""
    still = {"height_noise": 0.0, "line_noise": 0.0, "current_noise": 0.0, "feedback_bandwidth": 1e5}
    world = twin(adatoms={"count": 2, "sites": [(-1.2e-9, 0.5e-9), (1.1e-9, -0.9e-9)]}, apparent_height=0.1e-9, **still)
    image = do(world, locate(count=2, image=True, speed=10e-9)).values["height"][0]
    pitch = VIEW / PIXELS
    line = (np.arange(PIXELS) - (PIXELS - 1) / 2) * pitch
    x, y = np.meshgrid(line, line)
    width = point_width(0.5, 50e-12)
    known = sum(0.1e-9 * np.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * width**2)) for a, b in world.truth()["position"][0])
    assert np.abs(image - known).max() < 1e-12 and image.dtype == np.float32


def test_finder_and_image_agree_under_drift():
    still = {"height_noise": 0.0, "line_noise": 0.0, "current_noise": 0.0, "feedback_bandwidth": 1e5, "position_noise": 0.0}
    for seed in range(3):
        world = twin(seed=seed, drift=40e-12, adatoms={"sites": [(0.3e-9, 1.5e-9)]}, **still)
        before = world.truth()["position"][0, 0]
        read = do(world, locate(image=True)).values
        line = (np.arange(PIXELS) - (PIXELS - 1) / 2) * VIEW / PIXELS
        seen = [(read["height"][0].sum(axis) * line).sum() / read["height"][0].sum() for axis in (0, 1)]
        assert np.hypot(*(read["position"][0, 0] - before)) > 0.1e-9
        assert seen == pytest.approx(read["position"][0, 0], abs=15e-12)


def test_a_picked_up_adatom_is_gone_from_finder_and_image():
    world = twin(pickup_conductance=2e-6)
    at = world.truth()["position"][:, 0]
    assert do(world, drag(at, at + 1e-10, conductance=10e-6)).damage[0] == 1 and world.truth()["gone"].all()
    read = do(world, locate(image=True)).values
    assert not read["found"].any() and np.ptp(read["height"]) < 0.03e-9


def test_merged_adatoms_stick_and_count_as_damage():
    world = twin(**EXACT, orientation=0.0, adatoms={"count": 2, "sites": [(0.0, 0.0), (1.5e-9, 0.0)]})
    one, two = world.truth()["position"][0]
    assert do(world, drag(one, two)).damage[0] == 1 and world.truth()["stuck"].all()
    there = world.truth()["position"].copy()
    assert do(world, drag(there[:, 0], there[:, 0] - 1e-9)).damage[0] == 0 and np.array_equal(world.truth()["position"], there)


def test_contact_is_damage_and_changes_the_tip():
    world = twin(tip={"depth": {"uniform": [2.6, 3.8]}})
    at, tip = world.truth()["position"][:, 0], world.truth()["tip"]
    assert do(world, drag(at + [[0.8e-9, 0]], at - [[0.8e-9, 0]], conductance=39e-6, bias=1e-3)).damage[0] >= 1
    assert world.truth()["tip_changes"][0] == 1 and not np.array_equal(world.truth()["tip"], tip)


# ---- the tip, drift ----


def test_tips_are_drawn_for_every_episode():
    world = twin(2000, tip={"offset": 0.1e-9, "depth": {"uniform": [2.6, 3.8]}, "asymmetry": 0.2})
    tip = world.truth()["tip"]
    assert np.hypot(*tip[:, :2].T) == pytest.approx([0.1e-9] * 2000, rel=1e-9, abs=0) and abs(tip[:, :2].mean()) < 0.1e-10
    assert 2.6 < tip[:, 2].min() and tip[:, 2].max() < 3.8 and tip[:, 5].tolist() == [0.2] * 2000 and np.unique(tip[:, 6]).size == 2000


def test_an_offset_that_is_allowed_for_does_no_harm():
    """Nominal places shifted by minus the offset put the adatom where a tip without one does."""
    plain, world = twin(64), twin(64, tip={"offset": 0.15e-9})
    assert np.array_equal(plain.truth()["position"], world.truth()["position"])
    at, offset, way = plain.truth()["position"][:, 0], world.truth()["tip"][:, :2], towards(64, 1.2e-9)
    do(plain, drag(at, at + way, 64))
    do(world, drag(at - offset, at + way - offset, 64))
    blind = twin(64, tip={"offset": 0.15e-9})
    do(blind, drag(at, at + way, 64))
    ends = [w.truth()["position"][:, 0] for w in (plain, world, blind)]
    assert np.array_equal(ends[0], ends[1]) and np.mean((ends[2] != ends[0]).any(1)) > 0.3


def test_an_unannounced_change_comes_after_so_many_drags():
    world = twin(16, tip={"offset": 0.0}, tip_change={"after": 2, "tip": {"offset": 0.2e-9, "depth": 2.5}})
    at, counts = world.truth()["position"][:, 0], []
    for _ in range(4):
        do(world, drag(at, at + 1e-10, 16))
        counts.append((world.truth()["tip_changes"][0], world.truth()["tip"][0, 2]))
    assert counts == [(0, 3.0), (0, 3.0), (1, 2.5), (1, 2.5)]
    assert world.portrait(0)["threshold"] > twin().portrait(0)["threshold"]  # of a shallower well


def test_tips_change_with_time_and_with_current():
    idle = twin(3000, tip_change={"rate": 0.01})
    do(idle, locate(3000))
    known = 1 - np.exp(-0.01 * PIXELS * 2 * VIEW / SPEED)
    assert idle.truth()["tip_changes"].mean() == pytest.approx(known, abs=4 * np.sqrt(known / 3000))
    for bias, share in ((0.05, 1 - np.exp(-1)), (0.01, 1 - np.exp(-(0.2**4)))):
        world = twin(3000, tip_change={"current": 250e-9}, onset=1.0)
        at = world.truth()["position"][:, 0]
        do(world, drag(at, at, 3000, conductance=5e-6, bias=bias))
        assert world.truth()["tip_changes"].mean() == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / 3000))


def test_drift_carries_surface_and_adatoms():
    world = twin(drift=1e-12, **EXACT)
    before = world.truth()
    spent = do(world, locate()).time[0] + do(world, locate(field_of_view=10e-9)).time[0]
    after = world.truth()
    moved = after["position"][0, 0] - before["position"][0, 0]
    assert np.hypot(*moved) == pytest.approx(spent * 1e-12, rel=1e-9, abs=0) and moved == pytest.approx(after["drift"][0] * spent, rel=1e-9, abs=0)
    assert moved == pytest.approx(after["origin"][0] - before["origin"][0], rel=1e-6, abs=0) and after["time"][0] == pytest.approx(spent, rel=1e-9, abs=0)


def test_the_finder_sees_an_adatom_when_its_line_is_scanned():
    world = twin(drift=1e-12, **EXACT)
    at, velocity = world.truth()["position"][0, 0], world.truth()["drift"][0]
    line = (at[1] + VIEW / 2) / VIEW
    seen = do(world, locate()).values["position"][0, 0]
    assert seen == pytest.approx(at + velocity * line * PIXELS * 2 * VIEW / SPEED, abs=1e-15)


def test_approaches_miss_as_told():
    """Pulled by the same commands, adatoms end in different places when the approach misses."""
    exact, loose = twin(64), twin(64, misplacement=0.1e-9)
    for world in (exact, loose):
        at = world.truth()["position"][:, 0]
        do(world, drag(at, at + towards(64, 1e-9), 64))
    still = twin(misplacement=0.1e-9, current_noise=0.0, preamplifier=0.0)  # start and end miss alike
    assert np.ptp(do(still, drag(*[still.truth()["position"][:, 0] + 0.2e-9] * 2)).values["trace"]) == 0
    assert 0.3 < (exact.truth()["position"] != loose.truth()["position"]).any((1, 2)).mean() < 1


def test_adatoms_start_apart_on_hollows():
    world = twin(200, adatoms={"count": 6, "radius": 5e-9, "separation": 1.5e-9})
    t = world.truth()
    apart = np.hypot(*np.moveaxis(t["position"][:, :, None] - t["position"][:, None], -1, 0)) + np.eye(6)
    assert apart.min() >= 1.5e-9 and np.hypot(*np.moveaxis(t["position"], -1, 0)).max() < 5e-9 + 0.2e-9
    on = adatoms.nearest_site(t["position"], t["origin"], t["spacing"], t["orientation"])
    assert np.allclose(on, t["position"], atol=1e-16) and len(np.unique(np.round(1e12 * t["position"][:, 0]), axis=0)) > 150


def test_copper_needs_less():
    copper = {"spacing": 0.2556e-9, "barrier": 0.04}
    assert twin(**copper).portrait(0)["threshold"] < 0.5 * twin().portrait(0)["threshold"]


# ---- the world protocol ----


def test_a_restored_lane_goes_on_as_before():
    world = twin(3, drift=1e-13, miss_rate=0.2, misplacement=0.05e-9, tip_change={"rate": 0.01})
    at = world.truth()["position"][:, 0]
    commands = [locate(3), drag(at, at + 1e-9, 3), locate(3, image=True)]
    do(world, commands[1])
    kept = world.snapshot(1)
    first = [do(world, c) for c in commands]
    world.restore(kept, 1)
    second = [do(world, c) for c in commands]
    for one, other in zip(first, second, strict=True):
        assert all(np.array_equal(one.values[name][1], other.values[name][1]) for name in one.values)
    world.restore(kept, 1)
    world.rekey(5, 1)
    assert not np.array_equal(do(world, commands[0]).values["position"][1], first[0].values["position"][1])


def test_a_lane_is_the_same_alone_and_in_a_batch():
    options = {"drift": 1e-13, "miss_rate": 0.1, "misplacement": 0.05e-9, "tip": {"depth": {"uniform": [2, 4]}, "offset": {"uniform": [0, 2e-10]}}}
    options |= {"adatoms": {"count": 3, "radius": 3e-9}, "spacing": {"uniform": [0.25e-9, 0.3e-9]}}
    whole, alone = twin(20, **options), twin(1, seed=113, **options)
    for world, lanes in ((whole, 20), (alone, 1)):
        at = world.truth()["position"][:, 0]
        world.read = [do(world, c) for c in (drag(at, at + [[1e-9, 3e-10]], lanes), locate(lanes, count=3, image=True))]
    for one, many in zip(alone.read, whole.read, strict=True):
        assert not differences({k: v[0] for k, v in one.values.items()}, {k: v[13] for k, v in many.values.items()})
        assert one.time[0] == many.time[13]
    assert not differences({k: v[0] for k, v in alone.truth().items()}, {k: v[13] for k, v in whole.truth().items()})


def test_lanes_that_are_not_asked_hold_zeros_and_stay():
    world, where = twin(3), np.array([True, False, True])
    before = world.snapshot(1)
    at = world.truth()["position"][:, 0]
    at[1] = np.nan
    for command in (drag(at, at + 1e-9, 3), locate(3, centre=np.where(where[:, None], np.zeros(2), np.nan), image=True)):
        read = world.execute(command, where)
        assert not any(values[1].any() for values in read.values.values()) and read.time[1] == 0 and read.time[0] > 0
    assert not differences(before.arrays, world.snapshot(1).arrays)


# ---- treatments of the tip ----


@pytest.mark.parametrize(("treatment", "chance"), [(lambda n, at: PulseBias(at, np.full(n, -8.0), 0.1), 0.88), (lambda n, at: DipTip(at, np.full(n, 0.8e-9), 0.1, 0.1), 0.35)])
def test_a_treatment_re_forms_the_apex_by_chance_and_takes_what_is_under_it(treatment, chance):
    n = 600
    for place, taken in ((0.3e-9, True), (5e-9, False)):
        world = twin(n, seed=4)
        before = world.truth()
        read = world.execute(treatment(n, before["position"][:, 0] + np.array([place, 0.0])), np.ones(n, bool))
        after = world.truth()
        changed = after["tip_changes"] > 0
        assert changed.mean() == pytest.approx(chance, abs=4 * np.sqrt(chance * (1 - chance) / n))
        assert not np.array_equal(after["tip"][changed], before["tip"][changed]) and np.array_equal(after["tip"][~changed], before["tip"][~changed])
        assert np.array_equal(after["gone"][:, 0], changed & taken) and np.array_equal(read.damage, after["gone"].sum(1))


def test_a_dip_onto_an_adatom_takes_it_whatever_becomes_of_the_apex():
    for treatment, taken in ((lambda at: DipTip(at, np.full(50, 0.2e-9), 0.1, 0.1), 1.0), (lambda at: PulseBias(at, np.full(50, 0.1), 0.1), 0.0)):
        world = twin(50, seed=4)
        world.execute(treatment(world.truth()["position"][:, 0] + np.array([0.1e-9, 0.0])), np.ones(50, bool))
        assert world.truth()["gone"][:, 0].mean() == taken


def test_a_pulse_of_a_volt_hardly_matters():
    world = twin(300, seed=4)
    world.execute(PulseBias(np.zeros((300, 2)), np.full(300, 0.5), 0.1), np.ones(300, bool))
    assert world.truth()["tip_changes"].mean() < 0.05


# ---- what is refused ----


@pytest.mark.parametrize(
    ("command", "mend"),
    [
        (drag((0, 0), (1e-9, 0), bias=0.0), "not zero"), (drag((0, 0), (1e-9, 0), bias=1.5), "up to 1 V"),
        (drag((0, 0), (1e-9, 0), current=np.zeros(1)), "above zero"), (drag((0, 0), (1e-9, 0), current=np.full(1, -1e-9)), "above zero"),
        (drag((0, 0), (1e-9, 0), conductance=60e-6), "at most 40 uS"), (drag((0, 0), (1.1 * FARTHEST, 0)), "end lies outside"),
        (drag((-FARTHEST * 1.1, 0), (0, 0)), "start or end"), (drag((0, 0), (30e-9, 0)), "20 nm long"), (drag((0, 0), (np.nan, 0)), "not finite"),
        (drag((0, 0), (1e-9, 0), speed=0.0), "drags at"), (drag((0, 0), (1e-9, 0), samples=0), "1 to 8192 samples"),
        (locate(shape=(0, 5)), "1 to 256 pixels"), (locate(field_of_view=0.0), "positive field_of_view"), (locate(bias=0.0), "not zero"),
        (locate(field_of_view=1e-6), "up to 100 nm"), (locate(centre=np.full((1, 2), 1e-7)), "within 50 nm"), (locate(count=2), "1 adatoms, asked were 2"),
        (locate(current=1e-4), "would drag"), (locate(current=-1e-12), "positive"), (DipTip(np.zeros((1, 2)), np.ones(1), 0.1, 0.1), "up to 5 nm"),
        (PulseBias(np.zeros((1, 2)), np.zeros(1), 0.1), "not zero"), (PulseBias(np.full((1, 2), 1e-7), np.ones(1), 0.1), "tip reaches"),
        (SetBias(np.ones(1)), "no SetBias"),
    ],
)  # fmt: skip
def test_commands_outside_the_limits_are_refused_and_nothing_happens(command, mend):
    world = twin()
    before = world.snapshot(0)
    with pytest.raises(Refused, match=mend):
        do(world, command)
    assert not differences(before.arrays, world.snapshot(0).arrays)


@pytest.mark.parametrize(
    ("world", "mend"),
    [
        ({"adatoms": {"count": 2, "sites": [(0, 0), (0.2e-9, 0)]}}, "sites overlap"), ({"adatoms": {"count": 12, "radius": 1e-9}}, "do not fit"),
        ({"adatoms": {"count": 2, "sites": [(0, 0)]}}, "1 places for 2"), ({"adatoms": {"sites": [(1e-6, 0)]}}, "within 50 nm"),
        ({"temperature": 0.0}, "temperature: must be"), ({"temperature": -4.0}, "temperature: must be"), ({"barrier": 0.02, "temperature": 11.0}, "by themselves"),
        ({"tip": {"depth": 20.0}}, "tip.depth"), ({"tip": {"offset": -1e-10}}, "tip.offset"), ({"unknown": 1}, "no such entry"), ({"attempt_rate": 0}, "attempt_rate"),
        ({"drift": 1.0}, "drift: must be"), ({"tip_change": {"current": 0.0}}, "tip_change.current"),
    ],
)  # fmt: skip
def test_worlds_that_cannot_be_are_refused(world, mend):
    with pytest.raises(ProbeGymError, match=mend):
        twin(**world)


@pytest.mark.parametrize("name", [n for n in LIMITS if "." not in n])
def test_every_limit_is_asked(name):
    high = LIMITS[name][1] * 1.01 + 1e-12
    world = {"tip": {name: high}} if name in ("depth", "range", "equilibrium", "offset", "asymmetry", "work_function") else {name: high}
    with pytest.raises(ProbeGymError, match=f"{name}: must be from"):
        twin(**world)
