"""What the Nanonis driver has beside its wire: the finder of adatoms against the twin that knows where they are, and its settings."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest

from probegym import scenarios
from probegym.errors import ProbeGymError
from probegym.hardware_bridge.commands import LocateAdatoms
from probegym.hardware_bridge.instruments import InstrumentFault
from probegym.hardware_bridge.instruments.nanonis import finder, settings
from probegym.hardware_bridge.instruments.nanonis.images import Frame
from probegym.hardware_bridge.twins.adatoms import AdatomTwin
from tests.helpers import ROOT

_frames = importlib.util.spec_from_file_location("nanonis_frames", ROOT / "benchmarks" / "nanonis_frames.py")
nanonis_frames = importlib.util.module_from_spec(_frames)
_frames.loader.exec_module(nanonis_frames)


def frames(scenario: str, lanes: int):
    """Images of the adatom twin with what is really there: (Frame, (n, 2) m inside) each."""
    told = scenarios.load("adatom_manipulation", scenario)
    limits, how = told.task["limits"], told.task["image"]
    world, on = AdatomTwin(told.world, lanes), np.ones(lanes, bool)
    world.begin(np.arange(7000, 7000 + lanes, dtype=np.uint64), on)
    truth = world.truth()
    command = LocateAdatoms((how["pixels"],) * 2, 2 * limits, how["speed"], np.zeros((lanes, 2)), how["bias"], how["current"], world.config.adatoms.count, True)
    height = world.execute(command, on).values["height"]
    along = 2 * limits * ((np.arange(how["pixels"]) + 0.5) / how["pixels"] - 0.5)
    late = (truth["position"][..., 1:] + limits) * 2 * how["pixels"] / how["speed"]  # s until an adatom's line
    return [(Frame(h.astype(float), along, along), p) for h, p in zip(height, truth["position"] + truth["drift"][:, None] * late, strict=True)]


@pytest.mark.parametrize(("scenario", "lanes", "most"), [("train", 60, 5e-12), ("far-noise", 60, 15e-12), ("assembly-5", 20, 6e-12)])
def test_the_finder_finds_what_is_there_to_a_few_picometres(scenario, lanes, most):
    off = []
    for frame, atoms in frames(scenario, lanes):
        found = finder.places(frame, 40e-12, 0.25e-9)
        far = np.hypot(*np.moveaxis(atoms[:, None] - found[None], -1, 0))
        assert len(found) == len(atoms) and (far.min(1) < 0.1e-9).all(), "missed, or found what is not there"
        off += [found[far.argmin(1)] - atoms]
    off = np.concatenate(off)
    assert np.sqrt((off**2).mean(0)).max() < most and np.abs(off.mean(0)).max() < 3e-12


def test_the_finder_minds_no_tilt_and_no_jumps_and_finds_nothing_on_a_terrace():
    rng = np.random.default_rng(0)
    for frame, atoms in frames("train", 10):
        plane = 0.02 * frame.x + 0.05 * frame.y[:, None] + 20e-12 * rng.standard_normal((len(frame.y), 1)) - 1e-7
        found = finder.places(Frame(frame.height + plane, frame.x, frame.y), 40e-12, 0.25e-9)
        assert len(found) == 1 and np.hypot(*(found - atoms).T).max() < 20e-12
        assert not len(finder.places(Frame(plane + 5e-12 * rng.standard_normal(frame.height.shape), frame.x, frame.y), 40e-12, 0.25e-9))


BOUNDS = {"clean": (0.0, 0.0), "pair": (0.0, 0.0), "debris": (0.25, 0.2), "steps": (0.35, 0.0), "moire": (0.08, 0.0), "herringbone": (0.05, 0.0)}
"""Kind of image -> the share of adatoms that may be missed, and how many may be found an image that are none."""


@pytest.mark.parametrize("kind", BOUNDS)
def test_what_is_no_adatom_is_left_out_rather_than_taken_for_one(kind):
    missed = false = total = 0
    off = []
    for seed in range(30):
        image, lone, close = nanonis_frames.frame(kind, seed)
        one = nanonis_frames.judged(finder.places(image, nanonis_frames.LEAST, nanonis_frames.WIDTH), lone, close)
        missed, false, total = missed + one[0], false + one[1], total + len(lone)
        off += list(one[2])
    most = BOUNDS[kind]
    assert missed <= most[0] * total and false <= most[1] * 30 and np.median(off) < 12e-12, (missed, false, total)


def test_a_double_tip_is_seen_where_it_shows_more_than_there_can_be():
    told = []
    for seed in range(30):
        image, lone, _ = nanonis_frames.frame("double", seed)
        found = finder.places(image, nanonis_frames.LEAST, nanonis_frames.WIDTH)
        try:
            finder.Names(3e-9).named(found, len(lone))
        except InstrumentFault as error:
            told.append(str(error))
    assert len(told) >= 24 and all("the tip is double" in text and " nm apart" in text for text in told)


def test_the_vector_of_a_double_tip_is_that_of_all_pairs():
    rng, way = np.random.default_rng(1), np.array([0.7e-9, -0.3e-9])
    atoms = nanonis_frames.spread(rng, 4, 1.6e-9, 4e-9)
    both = np.concatenate([atoms, atoms + way])
    for found in (both, both[:7]):  # also where one is beyond the edge
        ghost = finder.doubled(found + 5e-12 * rng.standard_normal(found.shape))
        assert min(np.hypot(*(ghost - way)), np.hypot(*(ghost + way))) < 0.1e-9
    for found in (atoms, both[:6], np.concatenate([atoms, atoms[:1] + way]), both[[0, 4]], atoms[:0]):
        assert finder.doubled(found) is None


def test_more_adatoms_than_expected_are_refused_and_not_the_highest_taken():
    names, atoms = finder.Names(3e-9), np.array([[0.0, 0.0], [2e-9, 0.3e-9], [-1e-9, 3e-9]])
    with pytest.raises(InstrumentFault, match="the image shows 3 adatoms where 2 are expected: clear the view"):
        names.named(atoms, 2)
    assert names.named(atoms, 3)[1].all()


def test_only_who_was_near_a_drag_can_have_moved():
    a, b, far = np.array([0.0, 0.0]), np.array([2e-9, 0.0]), np.array([1.2e-9, 1.5e-9])
    names = finder.Names(jump=3e-9)
    names.named(np.array([a, b]), 2)
    names.dragged(a + [0.0, 0.4e-9], far)  # the first is near its beginning, the second 1.3 nm away
    position, seen = names.named(np.array([far, b + 0.1e-9]), 2)
    assert seen.all() and np.array_equal(position[0], far)
    position, seen = names.named(np.array([far + 0.1e-9, b + [0.0, 1e-9]]), 2)  # nothing was dragged, yet the second is elsewhere: it is another one
    assert seen.tolist() == [True, False] and np.array_equal(position[0], far + 0.1e-9)
    names.dragged(b, b + [0.0, 2e-9])
    assert names.named(np.array([far]), 2)[1].tolist() == [True, False]
    position, seen = names.named(np.array([b + [0.0, 2e-9], far]), 2)  # it was missed: the drag before the last image still counts
    assert seen.all() and np.array_equal(position[1], b + [0.0, 2e-9])
    assert names.named(np.array([far + [0.0, 0.9e-9], b + [0.0, 2e-9]]), 2)[1].tolist() == [False, True]  # what it was dragged by before it was seen is over
    names.named(np.array([far, b + [0.0, 2e-9]]), 2)
    names.dragged(far - [3e-9, 0.9e-9], far + [3e-9, -0.9e-9])  # passes by
    position, seen = names.named(np.array([far + [1e-9, 0.0], b + [0.0, 2e-9]]), 2)
    assert seen.all() and np.array_equal(position[0], far + [1e-9, 0.0])
    names.named(np.array([far + [1e-9, 0.0], b + [0.0, 2e-9]]), 2)
    names.dragged(far + [1e-9, 0.0], far + [1e-9, 0.0])  # a pulse in one place
    far = far + [1e-9, 0.0]
    assert names.named(np.array([far + [0.0, 0.9e-9], b + [0.0, 2e-9]]), 2)[1].all()


def test_an_adatom_keeps_its_number():
    names = finder.Names(jump=3e-9)
    a, b, c = np.array([0.0, 0.0]), np.array([2e-9, 0.0]), np.array([0.0, 3e-9])
    position, seen = names.named(np.array([b, a]), 3)
    assert seen.tolist() == [True, True, False] and np.array_equal(position[0], b) and not position[2].any()
    position, seen = names.named(np.array([a + 1e-11, b + np.array([1.5e-9, 0.0])]), 3)  # the first was dragged
    assert np.array_equal(position[:2], [b + np.array([1.5e-9, 0.0]), a + 1e-11])
    assert names.named(np.array([a]), 3)[1].tolist() == [False, True, False]  # missed
    position, seen = names.named(np.array([c, a, b + np.array([1.5e-9, 0.0])]), 3)
    assert seen.all() and np.array_equal(position[2], c) and np.array_equal(position[1], a)
    elsewhere = np.array([[50e-9, 50e-9]])
    seen = [names.named(elsewhere, 3)[1].tolist() for _ in range(4)]  # too far for any of them, until they are forgotten
    assert seen == 3 * [[False, False, False]] + [[True, False, False]]


# ---- settings ----

LEAST = {"rest": {"bias": "0.5 V", "current": "50 pA"}, "safe_tip": {"threshold": "1 uA"}}
LEAST["scan"] = {"field_of_view": ["1 nm", "50 nm"], "speed": ["1 nm/s", 1e-6], "current": ["1 pA", "1 nA"], "bias": "2 V"}


def test_settings_read_units_and_numbers(tmp_path):
    told = settings.settings(LEAST)
    assert np.allclose(told.scan.field_of_view, (1e-9, 50e-9)) and told.scan.speed[1] == 1e-6 and told.drag is None
    file = tmp_path / "stm.yaml"
    file.write_text("rest: {bias: 500 mV, current: 5e-11}\nsafe_tip: {threshold: 1 µA}\nscan: {field_of_view: [1 nm, 50e-9], speed: [1e-9, 1 um/s], current: [1 pA, 1 nA], bias: 2}\n")
    assert settings.settings_file(file) == told


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"rest": {"bias": "0.5 A", "current": "50 pA"}}, "rest.bias.*no number of V"),
        ({"rest": {"bias": 0.0, "current": "50 pA"}}, "its bias is 0"),
        ({"safe_tip": {"threshold": "1 nA"}}, "at least 2 times the highest setpoint"),
        ({"safe_tip": {}}, "safe_tip.threshold: Field required"),
        ({"scan": LEAST["scan"] | {"field_of_view": [1, 50]}}, "scan.field_of_view.0.*SI units"),
        ({"scan": LEAST["scan"] | {"speed": ["9 nm/s", "1 nm/s"]}}, "scan.*speed"),
        ({"scan": LEAST["scan"] | {"pixel": 3}}, "scan.pixel"),
        ({"drag": {"bias": "50 mV", "conductance": "1 S", "speed": [1e-9, 1e-8]}}, "drag.conductance"),
        ({"land": True}, "land"),
    ],
)
def test_wrong_settings_are_refused_with_file_and_key(tmp_path, change, why):
    file = tmp_path / "stm.json"
    file.write_text(json.dumps(LEAST | change))
    with pytest.raises(ProbeGymError, match=f"stm.json.*{why}"):
        settings.settings_file(file)


@pytest.mark.parametrize("text", ["a: [", "!!python/object/apply:os.getcwd []", "- 1", ""])
def test_files_that_are_no_settings_are_refused(tmp_path, text):
    file = tmp_path / "stm.yaml"
    file.write_text(text)
    with pytest.raises(ProbeGymError, match=r"stm.yaml"):
        settings.settings_file(file)
    with pytest.raises(ProbeGymError, match="cannot read settings"):
        settings.settings_file(tmp_path / "none")
