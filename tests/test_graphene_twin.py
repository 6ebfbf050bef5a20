"""The graphene twin: what its commands cost and tell, drift and misplacement, refusals, and that lanes keep to themselves."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from probegym import scenarios
from probegym.errors import ProbeGymError
from probegym.hardware_bridge.commands import LocateAtoms, PlaceProbe, SetAberrations
from probegym.hardware_bridge.twins.graphene import GrapheneTwin
from probegym.hardware_bridge.world import Refused
from probegym.physics import beam_rates, graphene, knock_on
from probegym.physics.beam_rates import BOND
from tests.graphene_reference import inversion_rates

PROCESS = {"threshold": 14.6, "velocity": 5e5}
PHYSICAL = {"rates": {"kind": "physical"}, "cross_sections": {"inversion": PROCESS}}
ABERRATED = {"probe": {"aberrations": {"C10": {"normal": [0.0, 1e-9]}, "C12a": {"normal": [0.0, 1e-9]}}, "states": 4}}


def twin(lanes: int = 1, first: int = 100, **config) -> GrapheneTwin:
    world = GrapheneTwin(config, lanes)
    world.begin(np.arange(first, first + lanes, dtype=np.uint64), np.ones(lanes, bool))
    return world


def locate(lanes: int = 1, **changes) -> LocateAtoms:
    told = {"detector": "haadf", "shape": (64, 64), "field_of_view": 3e-9, "centre": np.zeros((lanes, 2)), "dwell_time": 2 / 64**2,
            "species": "Si", "count": 1, "image": False}  # fmt: skip
    return LocateAtoms(**told | changes)


def park(lanes: int = 1, place=(0.0, 0.0), seconds: float = 1.5) -> PlaceProbe:
    return PlaceProbe(np.broadcast_to(np.asarray(place, float), (lanes, 2)).copy(), np.full(lanes, seconds))


def on(lanes: int = 1) -> np.ndarray:
    return np.ones(lanes, bool)


def look(world: GrapheneTwin, **changes) -> dict:
    return world.execute(locate(world.lanes, **changes), on(world.lanes)).values


# ---- costs ----


def test_time_dose_damage_and_measurements():
    world = twin(image_overhead=0.5, dwell_overhead=0.25)
    seen = world.execute(locate(), on())
    electrons = 50e-12 / 1.602176634e-19
    assert seen.time[0] == pytest.approx(2.5) and seen.dose[0] == pytest.approx(electrons * 2.0 / 30**2)
    assert (seen.measurements[0], seen.damage[0]) == (1.0, 0.0)
    parked = world.execute(park(seconds=1.5), on())
    assert parked.time[0] == pytest.approx(1.75) and parked.dose[0] == pytest.approx(electrons * 1.5 / 5.24, rel=1e-3)
    assert (parked.measurements[0], parked.damage[0]) == (0.0, 0.0) and world.truth()["clock"][0] == pytest.approx(4.25)


def test_a_blanked_beam_does_and_costs_nothing():
    world = twin(64, dwell_overhead=0.25)
    before = world.truth()["site"]
    spent = world.execute(park(64, seconds=0.0), on(64))
    assert not spent.time.any() and not spent.dose.any() and np.array_equal(world.truth()["site"], before)


def test_vacancies_losses_and_contamination_are_damage():
    events = {"ejection": PROCESS | {"factor": 1e4}, "conversion": PROCESS | {"factor": 30.0}, "loss": {"threshold": 4.0, "velocity": 3e5}}
    world = twin(300, cross_sections=events, contamination={"dwell": 0.1})
    damage = world.execute(park(300, seconds=3.0), on(300)).damage
    happened = dict(zip(graphene.EVENTS, world.truth()["events"].T, strict=True))
    assert all(happened[name].any() for name in ("ejections", "losses", "contaminations"))
    assert np.array_equal(damage, sum(happened[name] for name in ("ejections", "conversions", "losses", "contaminations")))


# ---- what is seen ----


def test_the_finder_sees_what_is_there():
    world = twin(200, silicon=3, spread=1.4e-9)
    seen, true = look(world, count=3, field_of_view=4e-9), world.truth()
    assert seen["found"].all() and (seen["folds"] == 3).all()
    assert seen["position"] == pytest.approx(true["position"], abs=1e-15) and seen["neighbours"] == pytest.approx(true["neighbours"], abs=1e-15)
    assert np.hypot(*np.moveaxis(seen["neighbours"], -1, 0)) == pytest.approx(np.full((200, 3, 3), BOND))
    turns = np.arctan2(seen["neighbours"][..., 1], seen["neighbours"][..., 0])
    assert (np.diff(np.unwrap(turns, axis=-1), axis=-1) > 0).all()  # counter-clockwise


def test_errors_of_the_finder_are_as_large_as_configured():
    n = 4000
    world = twin(n, finder_error=0.2e-10, miss=0.1, orientation_error=0.01)
    seen, true = look(world), world.truth()
    found = seen["found"][:, 0]
    assert found.mean() == pytest.approx(0.9, abs=0.02)
    error = (seen["position"] - true["position"])[found, 0]
    assert error.std(0) == pytest.approx([0.2e-10] * 2, rel=0.06) and abs(error.mean(0)).max() < 2e-12
    assert not seen["position"][~found].any() and not seen["folds"][~found].any()
    turned = [np.arctan2(told["neighbours"][found, 0, 1, 1], told["neighbours"][found, 0, 1, 0]) for told in (seen, true)]
    assert np.angle(np.exp(1j * (turned[0] - turned[1]))).std() == pytest.approx(0.01, rel=0.06)
    again = (look(world)["position"] - true["position"])[:, 0]
    both = found & (np.abs(again).max(1) < 1e-9)
    assert abs(np.corrcoef(error[both[found], 0], again[both, 0])[0, 1]) < 0.06


def test_an_atom_outside_the_frame_is_not_found():
    world = twin(1, spread=0.0)
    assert look(world)["found"].all()
    assert not look(world, centre=np.array([[2e-9, 0.0]]))["found"].any()
    assert look(world, centre=np.array([[2e-9, 0.0]]), field_of_view=5e-9)["found"].all()
    assert not look(world, centre=np.array([[0.0, 1e-9]]), shape=(32, 64))["found"].any()  # half as high as wide


def test_covered_atoms_are_not_found():
    world = twin(400, contamination={"start": 8, "radius": 1e-9})
    seen, true = look(world), world.truth()
    assert true["covered"].any() and not true["covered"].all()
    assert np.array_equal(seen["found"], ~true["covered"])


def test_fewer_or_more_places_than_atoms():
    world = twin(5, silicon=2, spread=1e-9)
    assert look(world, count=1)["position"].shape == (5, 1, 2)
    more = look(world, count=4)
    assert more["neighbours"].shape == (5, 4, 3, 2) and not more["found"][:, 2:].any()


def test_four_fold_silicon_is_told_and_does_not_swap():
    world = twin(100, four_fold=1.0)
    seen = look(world)
    assert (seen["folds"] == 4).all() and not world.truth()["open"].any()
    world.execute(park(100, seconds=50.0), on(100))
    assert not world.truth()["events"].any()


def test_the_image_shows_silicon_where_it_is_found():
    world = twin(20, finder_error=0.0)
    seen = look(world, image=True)
    assert seen["image"].shape == (20, 64, 64) and seen["image"].dtype == np.float32
    pixel = 3e-9 / 64
    for frame, place in zip(seen["image"], seen["position"][:, 0], strict=True):
        row, column = np.unravel_index(frame.argmax(), frame.shape)
        assert np.hypot((column - 31.5) * pixel - place[0], (row - 31.5) * pixel - place[1]) < 1.5 * pixel


def test_an_image_of_a_drifting_sample_is_sheared():
    """The row that passes over the atom meets it where it then is; the finder tells its place at the middle of the frame."""
    world = twin(40, drift=1.5e-10, spread=0.9e-9)
    seen, speed = look(world, image=True), world.truth()["velocity"]
    pixel = 3e-9 / 64
    for frame, place, drift in zip(seen["image"], seen["position"][:, 0], speed, strict=True):
        row, column = np.unravel_index(frame.argmax(), frame.shape)
        there = place + drift * ((row + 0.5) / 64 * 2.0 - 1.0)
        assert np.hypot((column - 31.5) * pixel - there[0], (row - 31.5) * pixel - there[1]) < 1.7 * pixel


def test_an_aberrated_probe_blurs_the_image():
    sharp, blurred = (look(twin(1, probe={"aberrations": {"C10": c}}, beam_current=5e-9), image=True)["image"][0] for c in (0.0, 8e-9))
    assert blurred.mean() == pytest.approx(sharp.mean(), rel=0.03) and blurred.std() < 0.6 * sharp.std()


def test_jitter_displaces_rows():
    steps = []
    for jitter in (0.0, 1e-10):
        images = look(twin(10, jitter=jitter, beam_current=1e-9), image=True)["image"]
        steps.append(np.abs(np.diff(images, axis=1)).mean() / images.mean())
    assert steps[1] > 1.3 * steps[0]


def test_counts_are_poisson_and_follow_current_and_time():
    world, frames = twin(1, efficiency=0.5), []
    for dwell in (1e-4, 2e-4):
        frames.append(np.mean([look(world, image=True, dwell_time=dwell)["image"][0] for _ in range(30)], 0))
    assert frames[1].mean() / frames[0].mean() == pytest.approx(2.0, rel=0.01)
    repeated = np.array([look(world, image=True, dwell_time=1e-4)["image"][0] for _ in range(60)])
    assert repeated.var(0, ddof=1).sum() / repeated.mean(0).sum() == pytest.approx(1.0, abs=0.05)


# ---- the beam ----


def test_silicon_follows_the_beam_onto_a_neighbour():
    n = 3000
    world = twin(n)
    seen = look(world)
    start, toward = seen["position"][:, 0], seen["neighbours"][:, 0, 0]
    world.execute(PlaceProbe(start + 0.85 * toward, np.full(n, 1.5)), on(n))
    moved = world.truth()["position"][:, 0] - start
    jumped = np.hypot(*moved.T) > 1e-12
    rates = beam_rates.mixture_rates(np.array([[beam_rates.HUMAN_PRIOR]]), np.array([[0.85, -0.425]]), np.array([[0.0, 0.85 * np.sqrt(0.75)]]))[0]
    assert jumped.mean() == pytest.approx(1 - np.exp(-1.5 * (rates[0] + 2 * rates[1])), abs=0.04)
    single = jumped & (world.truth()["events"][:, 0] == 1)
    right = np.hypot(*(moved - toward)[single].T) < 1e-12
    assert right.mean() == pytest.approx(rates[0] / (rates[0] + 2 * rates[1]), abs=0.03)


def test_rates_in_the_truth_are_those_of_the_world():
    ideal = PHYSICAL | {"probe": {"semiangle_cutoff": 0.03}}
    for config in ({}, {"rates": {"kind": "simple"}}, {"rates": {"kind": "mixture"}}, PHYSICAL, ideal, PHYSICAL | ABERRATED):
        world = twin(6, **config)
        true, axis = world.truth(), beam_rates.LOBE_AXIS
        unit = true["neighbours"][:, 0, 1] / BOND
        left = np.stack([-unit[:, 1], unit[:, 0]], 1)
        for a, c in ((24, 16), (20, 18), (23, 12)):
            beam = true["position"][:, 0] + BOND * (axis[a] * unit + axis[c] * left)
            found = inversion_rates(world.sheets, world.probes, beam)[:, 0, 1]
            known = true["lobe"][:, a, c]
            assert found == pytest.approx(known, rel=0.6 if "aberrations" in config.get("probe", {}) else 0.02)  # that one is not round


def test_physical_rates_are_cross_sections_times_current_density():
    world = twin(1, **PHYSICAL, beam_current=100e-12)
    sigma = knock_on.vibrating_cross_section(60e3, 6, knock_on.MASSES["12C"], 14.6, 5e5)
    on_neighbour = world.truth()["lobe"][0, 24, 16]
    assert on_neighbour == pytest.approx(sigma * 100e-12 / 1.602176634e-19 * 0.8825 / (0.84e-10) ** 2, rel=1e-3)


def test_unknown_rates_differ_between_episodes_and_stay_within_one():
    world = twin(50, rates={"kind": "mixture"})
    lobes = world.truth()["lobe"].copy()
    assert len({float(lobe.max()) for lobe in lobes}) == 50 and lobes.max() <= 1.03
    world.execute(park(50), on(50))
    assert np.array_equal(world.truth()["lobe"], lobes)


def test_a_misplaced_beam_hits_elsewhere():
    """A narrow lobe: the beam that is off by a bond on average moves silicon much more rarely."""
    n, config = 3000, {"probe": {"fwhm": 0.5e-10}, "rates": {"kind": "physical"}, "cross_sections": {"inversion": PROCESS | {"factor": 10.0}}}
    moved = []
    for error in ({}, {"misplacement": 1e-10}, {"offset": 1.4e-10}):
        world = twin(n, **config, **error)
        seen = look(world)
        world.execute(PlaceProbe(seen["position"][:, 0] + seen["neighbours"][:, 0, 0], np.full(n, 1.0)), on(n))
        moved.append((world.truth()["events"][:, 0] > 0).mean())
    assert moved[1] < 0.5 * moved[0] and moved[2] < 0.5 * moved[0]
    assert np.hypot(*world.truth()["offset"].T) == pytest.approx(np.full(n, 1.4e-10))


def test_a_known_offset_can_be_taken_back():
    world = twin(2000, offset=1.0e-10)
    seen, offset = look(world), world.truth()["offset"]
    aim = seen["position"][:, 0] + 0.85 * seen["neighbours"][:, 0, 0]
    world.execute(PlaceProbe(aim - offset, np.full(2000, 3.0)), on(2000))
    assert (world.truth()["events"][:, 0] == 0).mean() == pytest.approx(0.479, abs=0.05)  # exp(-3 x 0.2454)


def test_drift_carries_the_sample():
    world = twin(40, drift=2e-11)
    speed = world.truth()["velocity"]
    assert np.hypot(*speed.T) == pytest.approx(np.full(40, 2e-11))
    first, second = look(world)["position"], look(world)["position"]
    assert second - first == pytest.approx(2.0 * speed[:, None], abs=1e-14)
    true = world.truth()
    assert true["shift"] == pytest.approx(4.0 * speed) and true["position"][:, 0] - second[:, 0] == pytest.approx(1.0 * speed, abs=1e-14)


def test_the_beam_hits_what_has_drifted_away_beneath_it():
    """Twenty images later the sample is 0.8 nm away: a beam that aims where it was misses."""
    n, moved = 1500, []
    for follow in (0.0, 1.0):
        world = twin(n, drift=2e-11)
        seen = look(world)
        aim = seen["position"][:, 0] + 0.85 * seen["neighbours"][:, 0, 0]
        for _ in range(20):
            look(world)
        later = world.truth()["shift"] + world.truth()["velocity"] * (0.5 * 4.0 - 1.0) if follow else 0.0
        world.execute(PlaceProbe(aim + later, np.full(n, 4.0)), on(n))
        moved.append((world.truth()["events"][:, 0] > 0).mean())
    assert moved[0] == 0.0 and moved[1] == pytest.approx(1 - np.exp(-4 * 0.2454), abs=0.06)


def test_imaging_moves_atoms_only_where_the_scenario_says_so():
    quiet, lively = twin(2000, rates={"kind": "simple"}), twin(2000, rates={"kind": "simple"}, scan_events=True)
    for world in (quiet, lively):
        for _ in range(3):
            look(world, field_of_view=1.5e-9, centre=world.truth()["position"][:, 0])
    assert not quiet.truth()["events"].any()
    integral = np.pi / 16 * np.log(1 + 16 * 25) * BOND**2
    assert lively.truth()["events"][:, 0].mean() == pytest.approx(3 * 2 * 3 * integral / 1.5e-9**2, rel=0.1)


def test_vacancies_heal_while_images_are_taken():
    world = twin(300, vacancies=6, healing=0.2)
    before = world.state["vacancy"][..., 3].sum(1).mean()
    look(world)
    assert world.state["vacancy"][..., 3].sum(1).mean() / before == pytest.approx(np.exp(-0.4), abs=0.05)


# ---- the scenarios ----

EJECTING = [name for name in scenarios.names("beam_manipulation") if "ejection" in scenarios.load("beam_manipulation", name).world.get("cross_sections", {})]


@pytest.mark.parametrize("name", EJECTING)
def test_pristine_graphene_is_safe_at_60_kilovolts_and_not_at_100(name):
    """0.345 barn at 100 kV, none at 60 kV: threshold and mean square velocity of carbon in graphene."""
    world, flux, n, seconds = scenarios.load("beam_manipulation", name).world, 50e-12 / 1.602176634e-19, 6000, 0.2
    still = {"probe": {"fwhm": 0.84e-10, "aberrations": {}, "source_size": 0.0}, "beam_current": 50e-12, "contamination": {}, "healing": 0.0}
    made = {}
    for energy in (60e3, 100e3):
        sheet = GrapheneTwin(world | still | {"energy": energy}, n)
        sheet.begin(np.arange(n, dtype=np.uint64), on(n))
        sheet.execute(park(n, (3e-9, 0.0), seconds), on(n))
        made[energy] = (sheet.truth()["events"][:, graphene.EVENTS.index("ejections")] > 0).sum()
    assert made[60e3] == 0
    assert made[100e3] / n == pytest.approx(0.345e-28 * flux / graphene.SITE_AREA * seconds, rel=0.2)  # a beam anywhere: the mean density at a site


@pytest.mark.parametrize("name", ["train", "id", "mixture"])
def test_unknown_rates_are_those_of_the_published_randomisation(name):
    n = 400
    world = GrapheneTwin(scenarios.load("beam_manipulation", name).world, n)
    world.begin(np.arange(n, dtype=np.uint64), on(n))
    mixture, axis = world.truth()["mixture"], np.linspace(-3, 4, 71)
    most = beam_rates.mixture_rates(mixture, *(g.reshape(1, -1) for g in np.meshgrid(axis, axis, indexing="ij"))).max(1)
    assert 0.0095 < most.min() and most.max() <= 1.0 and stats.kstest(most, stats.uniform(0.01, 0.99).cdf).pvalue > 1e-3
    used = mixture[..., 0] > 0
    assert used.sum(1).mean() == pytest.approx(3, abs=0.3)
    for column, (low, high) in ((1, (-2, 3)), (2, (-2, 3)), (3, (0.1, 5))):
        assert stats.kstest(mixture[..., column][used], stats.uniform(low, high - low).cdf).pvalue > 1e-3


# ---- refusals and lanes ----


@pytest.mark.parametrize(
    ("command", "mend"),
    [
        (park(place=(60e-9, 0.0)), "within 50 nm"), (park(seconds=-0.1), "from 0 to 100 s"), (park(seconds=1e3), "from 0 to 100 s"),
        (park(seconds=np.nan), "not finite"), (park(place=(np.inf, 0.0)), "not finite"), (locate(centre=np.array([[0.0, -51e-9]])), "within 50 nm"),
        (locate(shape=(4, 64)), "8 to 256"), (locate(field_of_view=-1e-9), "field_of_view"), (locate(dwell_time=0.0), "dwell time"),
        (locate(detector="abf"), "haadf"), (locate(species="N"), "Si atoms"), (locate(count=9), "1 to 8"), (locate(field_of_view=20e-9, image=True), "12 nm"),
        (SetAberrations(("C10",), np.zeros((1, 1))), "no SetAberrations"),
    ],
)  # fmt: skip
def test_commands_outside_the_limits_are_refused_and_nothing_happens(command, mend):
    world = twin()
    before = world.snapshot(0)
    with pytest.raises(Refused, match=mend):
        world.execute(command, on())
    assert all(np.array_equal(world.snapshot(0).arrays[name], array) for name, array in before.arrays.items())


@pytest.mark.parametrize(
    ("config", "mend"),
    [
        ({"silicon": 0}, "silicon"), ({"silicon": 8, "spread": 3e-10}, "make it larger"), ({"rates": {"kind": "physical"}}, "cross_sections.inversion"),
        ({"cross_sections": {"inversion": PROCESS}}, "kind physical"), (PHYSICAL | {"rates": {"kind": "physical", "max_rate": 1.0}}, "leave max_rate out"), ({"probe": {"fwhm": 1e-10, "aberrations": {"C10": 1e-9}}}, "either fwhm"),
        ({"probe": {"aberrations": {"C99": 1e-9}}}, "unknown aberration"), ({"miss": 1.5}, "world.miss"), ({"rates": {"kind": "mixture", "variance": 0.0}}, "variance"),
        ({"spread": 60e-9, "field": 100e-9}, "spread"), ({"nonsense": 1}, "nonsense"), ({"energy": float("nan")}, "energy"),
        ({"cross_sections": {"ejection": PROCESS | {"assisted": [[0.5, 20.0]]}}}, "leaves nothing"),
    ],
)  # fmt: skip
def test_worlds_that_cannot_be_are_refused(config, mend):
    with pytest.raises(ProbeGymError, match=mend):
        twin(4, **config)


LIVELY = {
    "silicon": 3, "spread": 1.2e-9, "rates": {"kind": "mixture"}, "cross_sections": {"ejection": PROCESS | {"factor": 1e3}, "loss": {"threshold": 5.0, "velocity": 3e5}},
    "healing": 0.02, "contamination": {"dwell": 0.05, "image": 0.02, "cleaning": 0.3, "start": 2}, "drift": {"uniform": [0.0, 1e-11]}, "jitter": 5e-12,
    "misplacement": 2e-11, "offset": 3e-11, "finder_error": 1e-11, "orientation_error": 1e-3, "miss": 0.05, "scan_events": True, "four_fold": 0.2, "vacancies": 2,
}  # fmt: skip


def journey(world: GrapheneTwin, where: np.ndarray, steps: int = 4) -> list[np.ndarray]:
    told = []
    for step in range(steps):
        seen = world.execute(locate(world.lanes, count=3, image=True, shape=(16, 16)), where)
        spent = world.execute(park(world.lanes, (1e-10 * step, 0.0), 2.0), where)
        told += [*seen.values.values(), seen.time, spent.dose, spent.damage]
    return told


def test_a_lane_is_the_same_alone_and_in_a_batch():
    n, lane = 40, 27
    told, alone = journey(twin(n, **LIVELY), on(n)), journey(twin(1, first=100 + lane, **LIVELY), on())
    assert all(np.array_equal(a[lane], b[0]) for a, b in zip(told, alone, strict=True))
    assert any(len(np.unique(array)) > 3 for array in told)


def test_lanes_that_are_not_asked_stay():
    world, where = twin(3, **LIVELY), np.array([False, True, False])
    before = [world.snapshot(lane) for lane in range(3)]
    told = journey(world, where, 2)
    assert all(not array[[0, 2]].any() for array in told) and any(array[1].any() for array in told)
    for lane in (0, 2):
        assert all(np.array_equal(world.snapshot(lane).arrays[name], array) for name, array in before[lane].arrays.items())


def test_a_snapshot_decides_the_future():
    world = twin(2, **LIVELY)
    journey(world, on(2), 2)
    kept = world.snapshot(1)
    first = journey(world, on(2), 2)
    other = twin(3, first=500, **LIVELY)
    other.restore(kept, 2)
    second = journey(other, on(3), 2)
    assert all(np.array_equal(a[1], b[2]) for a, b in zip(first, second, strict=True))
    other.restore(kept, 2)
    other.rekey(12345, 2)
    assert not all(np.array_equal(a[1], b[2]) for a, b in zip(first, journey(other, on(3), 2), strict=True))


def test_the_portrait_holds_every_atom():
    world = twin(1, silicon=2, spread=1e-9, vacancies=3, contamination={"start": 2}, drift=1e-11)
    look(world)
    drawn, true = world.portrait(0), world.truth()
    assert set(drawn["species"]) == {6, 14} and (drawn["species"] == 14).sum() == 2 and len(drawn["atoms"]) == len(drawn["species"])
    assert drawn["atoms"][drawn["species"] == 14] == pytest.approx(true["position"][0], abs=1e-15)
    assert drawn["vacancies"].shape == (world.state["vacancy"][0, :, 3].sum(), 2) and drawn["clusters"].shape == (2, 3)
    assert drawn["vacancies"] == pytest.approx(graphene.places(world.state["frame"][0], world.state["vacancy"][0][world.state["vacancy"][0, :, 3] > 0]) + true["shift"][0])


def test_the_place_is_clean_until_the_beam_was_parked():
    dirty = twin(200, contamination={"image": 1.0})
    clean = [look(dirty)["found"].all() for _ in range(3)]
    dirty.execute(park(200, (1e-9, 1e-9), 0.1), on(200))
    assert all(clean) and not all(look(dirty)["found"].all() for _ in range(3))
