"""Steps, rates and read-backs, and what a command costs where: the guard's checks against measured values and budgets."""

from __future__ import annotations

import numpy as np
import pytest

from probegym.errors import ProbeGymError
from probegym.hardware_bridge import codec
from probegym.hardware_bridge.commands import Command
from probegym.hardware_bridge.guard import checks
from probegym.hardware_bridge.guard.gate import Gate, State
from probegym.hardware_bridge.guard.ledger import Budget, Ledger
from probegym.hardware_bridge.world import Refused
from tests.guard_helpers import (
    FLUX,
    LONGEST,
    REGION,
    REQUEST,
    Bench,
    broken,
    description,
    image,
    park,
    refused,
    shift,
    stage,
)

# ---- 5. steps, rates and read-backs ----

UNREAD = {
    "missing": ({"shift": None}, 0.0, "ShiftBeam.shift is not read back"),
    "stale": ({}, 2.1, "ShiftBeam.shift was read back 2.1 s ago, at most 2 s are allowed"),
    "from the future": ({}, -0.1, "ShiftBeam.shift was read back -0.1 s ago"),
    "of unknown age": ({}, float("nan"), "ShiftBeam.shift was read back nan s ago"),
    "NaN": ({"shift": np.array([np.nan, 0.0])}, 0.0, "ShiftBeam.shift is read back as what is no number"),
    "infinite": ({"shift": np.array([np.inf, 0.0])}, 0.0, "ShiftBeam.shift is read back as what is no number"),
    "text": ({"shift": np.array(["0", "0"])}, 0.0, "ShiftBeam.shift is read back as what is no number"),
    "of another shape": ({"shift": np.zeros(3)}, 0.0, "ShiftBeam.shift has 2 numbers, the instrument reads back 3"),
    "elsewhere": ({"shift": np.array([2e-6, 0.0])}, 0.0, "ShiftBeam.shift would move by 1.9e-06, at most 5e-07 at once: go there in steps"),
}


@pytest.mark.parametrize(("lies", "age", "why"), UNREAD.values(), ids=UNREAD)
def test_steps_are_counted_from_what_is_read_back(armed, lies, age, why):
    armed.instrument.lies, armed.instrument.ages["shift"] = lies, age
    with refused(why):
        armed.admit(shift())


def test_rates(armed):
    armed.do(shift(0.5e-6))
    with refused("ShiftBeam.shift would move by 1e-07, at most 0 at once"):
        armed.admit(shift(0.6e-6))
    armed.clock.now += 1.0
    with refused("ShiftBeam.shift would move by 3e-07, at most 2.5e-07 at once"):
        armed.admit(shift(0.5e-6, 0.3e-6))
    armed.do(shift(0.5e-6, 0.25e-6))
    armed.clock.now += 100.0
    with refused("at most 5e-07 at once"):
        armed.admit(shift(-0.5e-6))


def test_rates_count_for_a_control_whatever_verb_sets_it(tmp_path):
    told = description()
    told["capabilities"]["SetBias"] = {"effect": "sets", "ranges": {"bias": {"low": -9, "high": 9}}, "reads_back": {"bias": "shift"}}
    bench = Bench(tmp_path, told=told).armed()
    bench.gate.set_at["shift"] = bench.clock.now
    with refused("at most 0 at once"):
        bench.admit(shift())


def test_rates_begin_with_arming(armed):
    armed.do(shift())
    armed.gate.disarm("enough")
    armed.clock.now += 100.0
    armed.gate.ask(REQUEST)
    armed.gate.arm("123456")
    with refused("at most 0 at once"):
        armed.admit(shift(0.2e-6))


def test_a_step_needs_no_time(bench):
    bench.gate.ask(REQUEST)
    bench.gate.arm("123456")
    bench.do(stage(tilt=0.05))
    with refused("MoveStage.tilt would move by 0.1, at most 0.05 at once"):
        bench.admit(stage(tilt=-0.05))


def test_a_read_back_from_before_the_last_move_is_stale(armed):
    armed.do(shift(0.5e-6))
    armed.clock.now += 1.0
    armed.instrument.lies, armed.instrument.ages["shift"] = {"shift": np.zeros(2)}, 1.5
    with refused("ShiftBeam.shift was read back 1.5 s ago, at most 1 s are allowed"):
        armed.admit(shift(-0.2e-6))


@pytest.mark.parametrize("way", ["mute", "bug"])
def test_controls_that_cannot_be_read_are_a_fault(armed, way):
    setattr(armed.instrument, way, True)
    with refused("SAFE STATE NOT CONFIRMED"):
        armed.admit(park())
    assert armed.gate.state is State.fault and armed.instrument.is_blanked
    setattr(armed.instrument, way, False)
    armed.clock.now += 2.0
    armed.gate.tick()
    assert armed.gate.why.startswith("controls are not read back: ") and armed.gate.safe


# ---- 6. what it costs ----


def test_seconds_of_a_run_are_spent(bench):
    bench.armed(seconds=1.0)
    bench.do(park(seconds=0.6))
    with refused("0.6 of 1 s are spent, this takes up to 0.6 s more"):
        bench.admit(park(seconds=0.6))


def test_irreversible_commands_of_a_run_are_spent(bench):
    bench.armed(changes=1)
    bench.do(park())
    with refused("the 1 irreversible commands of this run are spent"):
        bench.admit(park(-0.5e-6, -0.5e-6))


@pytest.mark.parametrize("command", [image(width=0.0), image(shape=(16, 0))], ids=["no area", "no pixels"])
def test_a_dose_without_bound_is_refused(armed, command):
    with refused("AcquireImage: what it costs has no bound"):
        armed.admit(command)


@pytest.mark.parametrize("seconds", [np.nan, np.inf, -1.0])
def test_a_time_without_bound_is_refused(bench, monkeypatch, seconds):
    for name in ("takes", "exposure"):
        with monkeypatch.context() as patch, refused("what it costs has no bound"):
            patch.setattr(type(park()), name, lambda _: seconds)
            bench.instrument.descriptor.worst_case(park())


def test_worst_case_of_an_image(bench):
    charge = bench.instrument.descriptor.worst_case(image(1.6e-7, 1e-3, (16, 16)))
    pixel = (1.6e-7 / 16 / 1e-10) ** 2
    assert charge.seconds == pytest.approx(0.1 + 16 * 1e-3 + 256 * 1e-3) and charge.dose == pytest.approx(1e-15 * 1e-3 / 1.602176634e-19 / pixel)


def test_pixels_farther_apart_than_the_probe_have_its_dose_each(tmp_path):
    """Between them nothing is exposed, so all of the current goes through the probe's own spot; where they are close, neighbours add to it."""
    spot = 1e-18  # m^2
    bench = Bench(tmp_path, told=broken("AcquireImage", spot=spot))
    wide, close = (bench.instrument.descriptor.worst_case(image(width, 1e-3, (16, 16))).dose for width in (1.6e-7, 8e-9))
    electrons = 1e-15 * 1e-3 / 1.602176634e-19
    for told, side in ((wide, 1.6e-7 / 16), (close, 8e-9 / 16)):
        assert told == pytest.approx(electrons * 1e-20 * (1 / spot + 1 / side**2))


def places(bench: Bench, command: Command) -> set:
    admission = bench.admit(command)
    told = set(admission.places)
    bench.gate.complete(admission, bench.outcome(admission))
    return told


def test_regions(armed):
    assert places(armed, park()) == {(0, 0)} and places(armed, park(-0.5e-6, -1.5e-6)) == {(-1, -2)}
    assert places(armed, park(0.0, 0.5e-6)) == {(-1, 0), (0, 0)}, "a place on a border counts for both sides"
    assert places(armed, image(1e-6)) == {(x, y) for x in (-1, 0) for y in (-1, 0)}
    assert places(armed, image(0.9e-6, shape=(16, 4))) == {(x, y) for x in range(-2, 2) for y in range(-2, 2)}, "rows reach further than the width"
    assert places(armed, stage(5.5e-6, 0.5e-6)) == {(x, y) for x in range(-1, 6) for y in (-1, 0)}, "all that lies on the way"
    assert places(armed, stage(4.5e-6, 0.5e-6)) == {(4, 0), (5, 0)}
    assert places(armed, stage(5.5e-6, 0.5e-6)) == {(4, 0), (5, 0)}
    assert places(armed, park(1e-6, 0.0)) == {(6, 0)}
    assert places(armed, shift(0.4e-6, 0.4e-6)) == {(5, 0)}
    armed.clock.now += 10.0
    assert places(armed, shift(0.6e-6, 0.0)) == {(5, 0), (6, 0)}
    assert places(armed, park(0.4e-6, 0.0)) == {(5, 0), (6, 0)}, "with the shift and without it"


def test_regions_reach_as_far_as_the_command(tmp_path):
    bench = Bench(tmp_path, told=broken("PlaceProbe", reach=0.6e-6)).armed()
    assert places(bench, park()) == {(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1)}
    told = description()
    told["capabilities"]["MoveStage"]["ranges"]["position"]["tolerance"] = 0.6e-6
    (tmp_path / "other").mkdir()
    assert len(places(Bench(tmp_path / "other", told=told).armed(), park())) == 9, "as far as the stage may be off"


def test_rounding_does_not_double_the_budget_of_a_border(bench):
    for stands in (0.0, 0.7e-6, -0.3e-6):  # these sums are not alike to the last bit
        at = checks.Site(np.array([stands, 0.0]), np.zeros(2))
        assert set(checks.regions(park(3e-6 - stands, 0.5e-6), bench.instrument.descriptor, at)) == {(2, 0), (3, 0)}


def test_regions_are_bounded(bench):
    at = checks.Site(np.zeros(2), np.zeros(2))
    with refused("AcquireImage touches more than 10000 regions of 1e-06 m: make it smaller"):
        checks.regions(image(1e-4), bench.instrument.descriptor, at)
    with refused("AcquireImage touches more than 10000 regions"):
        checks.regions(image(1e9), bench.instrument.descriptor, at)  # more than 64 bits can count
    for width in (1e11, 1e308):
        with refused("AcquireImage touches places beyond the sample"):
            checks.regions(image(width, shape=(16, 1)), bench.instrument.descriptor, at)


@pytest.mark.parametrize(("lie", "why"), [(None, "not read back"), (np.full(3, np.nan), "no number"), (np.zeros(1), "as 1 numbers")])
@pytest.mark.parametrize("control", ["stage", "shift"])
def test_without_knowing_where_the_sample_is_nothing_is_exposed(armed, control, lie, why):
    armed.instrument.lies[control] = lie
    with pytest.raises(Refused, match=f"^where the {control} stands is .*{why}"):
        armed.admit(park())


def test_the_stage_counts_even_if_no_verb_moves_it(tmp_path):
    told = description()
    del told["capabilities"]["MoveStage"]
    bench = Bench(tmp_path, told=told).armed()
    bench.instrument.controls["stage"] = np.array([3e-6, 0.0, 0.0])
    assert places(bench, park()) == {(3, 0)}
    bench.instrument.lies["stage"] = None
    assert places(bench, park()) == {(0, 0)}


def test_dose_of_a_region_is_spent_wherever_it_is_asked_from(tmp_path):
    bench = Bench(tmp_path, dose=1.5 * FLUX * LONGEST).armed()
    bench.do(park(0.5e-6, 0.5e-6, LONGEST))
    bench.do(stage(1e-6))
    with refused("region (0, 0) of the sample has no dose left: 100 of 150 electrons per square Angstrom are spent, 100 were asked for"):
        bench.admit(park(-0.5e-6, 0.5e-6, LONGEST))
    bench.do(park(0.5e-6, 0.5e-6, LONGEST))


def test_irreversible_commands_of_a_region_are_spent(tmp_path):
    bench = Bench(tmp_path, changes=1).armed()
    bench.do(park(seconds=0.0))
    with refused("region (0, 0) of the sample has had its 1 irreversible commands"):
        bench.admit(park(seconds=0.0))


def test_nobody_is_asked_for_what_cannot_be_spent(tmp_path):
    bench = Bench(tmp_path, dose=0.38 * FLUX).armed(approvals=9, seconds=0.4)
    with refused("no dose left"):
        bench.admit(park(seconds=0.39))
    with refused("0 of 0.4 s are spent, this takes up to 0.5 s more"):
        bench.admit(park(seconds=0.5))
    assert bench.gate.waiting is None and bench.record.kinds()[-1] == "rejected"


@pytest.mark.parametrize(
    ("of", "told"),
    [
        ({"region": 2 * REGION, "instrument": "fake"}, "is of fake in regions of 2e-06 m, not of fake in those of 1e-06 m"),
        ({"region": REGION, "instrument": "another"}, "is of another in regions of 1e-06 m, not of fake"),
        ({"region": REGION}, "is of no instrument"),
    ],
)
def test_an_account_of_another_instrument_or_in_other_regions_is_refused(tmp_path, bench, of, told):
    ledger = Ledger.create(tmp_path / "other", Budget(dose=1, changes=1, **of))
    with pytest.raises(ProbeGymError, match=told):
        Gate(bench.instrument, ledger, bench.record, bench.clock)


def test_charged_and_written_down_before_it_is_sent(armed):
    admission = armed.admit(park())
    assert armed.gate.ledger.regions[0, 0].dose == pytest.approx(0.1 * FLUX) and armed.gate.account.spent.seconds == 0.1
    kind, payload, _ = armed.record.events[admission.intent]
    assert kind == "intent" and payload["command"] == codec.command_to_json(admission.command) and not armed.instrument.written
    with pytest.raises(Refused):
        armed.gate.complete(admission, Refused("no"))
    assert armed.gate.ledger.regions[0, 0].dose == pytest.approx(0.1 * FLUX), "never refunded"


@pytest.mark.parametrize("error", [ProbeGymError("full"), OSError(28, "full"), ValueError("odd")])
def test_what_cannot_be_written_down_is_not_sent(armed, error):
    armed.record.full, armed.record.error = True, error
    with refused("nothing can be written down"):
        armed.admit(park())
    assert armed.gate.state is State.fault and armed.instrument.is_blanked and armed.gate.running is None
