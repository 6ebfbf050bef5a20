"""What every driver must hold to, as checks that anybody can run on theirs: ``kept(Subject(...))``.

A guard relies on each of them. They move what the commands given in a ``Subject`` move, and take the instrument to its safe state many times.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np

from probegym.errors import ProbeGymError
from probegym.hardware_bridge import capabilities, codec
from probegym.hardware_bridge.capabilities import Capability, Effect, per_component
from probegym.hardware_bridge.commands import Command, Readings
from probegym.hardware_bridge.instruments import FRAME, LARGEST_READING, OLDEST_READ, Instrument, InstrumentFault, Measured
from probegym.hardware_bridge.instruments.wrong import malformed, outside
from probegym.hardware_bridge.world import Refused

SLACK_SECONDS = 2.0  # beyond a deadline, on a machine that does other things as well
FREED_SECONDS = 10.0  # until an instrument that was given up can be had again
BEGUN_SECONDS = 0.3  # after which a long command is under way
SHORT_SECONDS = 0.2  # a deadline that a long command cannot keep
READY_SHARES, READY_TRIES = (0.0, 0.25, 0.5, 0.75), 3  # when safe() comes, in the time that ready() takes; how often it must have been undone


class ContractBroken(ProbeGymError):
    """What a driver does not hold to, in one line."""


@dataclass(frozen=True)
class Subject:
    """A driver to be checked.

    opened: gives a new writer to the instrument, by the name of who asks. commands: at least one of each verb that reads or sets, carried out in
    this order; give irreversible ones only where they do no harm. long: one of them, or another, that takes more than three seconds; None leaves out
    what needs it; prepared: what must be done before it. seconds: that each may take. blanked: of an instrument with ``BlankBeam``, whether its beam
    is off the sample now, told by something that the driver does not decide, such as the blanker's own control; None leaves out what needs it.
    """

    opened: Callable[[str], Instrument]
    commands: tuple[Command, ...]
    long: Command | None = None
    prepared: tuple[Command, ...] = ()
    seconds: float = 60.0
    blanked: Callable[[Instrument], bool] | None = None


def _needed(so: object, why: str) -> None:
    if not so:
        raise ContractBroken(why)


def _opened(subject: Subject) -> Instrument:
    end = time.monotonic() + FREED_SECONDS
    while True:
        try:
            return subject.opened("contract")
        except Refused:  # the one before may not be noticed yet to have gone
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


@contextmanager
def _held(subject: Subject, ready: bool = True, prepare: bool = False, leave: bool = False) -> Iterator[Instrument]:
    """The instrument from a safe state on, and back to it unless it is left as it is."""
    instrument = _opened(subject)
    try:
        instrument.safe(instrument.descriptor.safe_seconds)
        if ready:
            instrument.ready(instrument.descriptor.safe_seconds)
        for command in subject.prepared if prepare else ():
            instrument.execute(command, subject.seconds)
        yield instrument
        if not leave:
            instrument.safe(instrument.descriptor.safe_seconds)
            _needed(instrument.is_safe() is True, "the safe state is not read back after safe()")
    finally:
        instrument.close()


def _refuses(instrument: Instrument, command: Command, why: str, wanted: type[ProbeGymError] = Refused) -> None:
    """Raise ContractBroken where a command does not end in the error that is wanted, or anything that is read back has moved."""
    before = instrument.measured()
    try:
        instrument.execute(command, SLACK_SECONDS)
    except wanted:
        pass
    except ProbeGymError as error:
        raise ContractBroken(f"{command.verb} {why} ended in {type(error).__name__} instead of {wanted.__name__}: {error}") from error
    except Exception as error:
        raise ContractBroken(f"{command.verb} {why} ended in {type(error).__name__}, which is no ProbeGymError: {error}") from error
    else:
        raise ContractBroken(f"{command.verb} {why} was carried out")
    moved = [name for name, was in before.items() if not _alike(was, instrument.measured().get(name))]
    _needed(not moved, f"{command.verb} {why} was refused, and yet moved {', '.join(moved)}")


def _alike(was: Measured, now: Measured | None) -> bool:
    return now is not None and bool(np.allclose(was.values, now.values, rtol=1e-3, atol=1e-15, equal_nan=True))  # what is read back has noise


# ---- what it says of itself ----


def describes_itself(subject: Subject) -> None:
    """The descriptor survives JSON, allows the given commands, bounds their costs; every verb that reads or sets is among them."""
    with _held(subject, ready=False) as instrument:
        told = instrument.descriptor
    back = capabilities.descriptor(codec.loads(codec.dumps(told.model_dump(mode="json"))))
    _needed(back == told, "the descriptor does not come back from JSON as it was")
    for command in subject.commands:
        told.check(command)
        worst = told.worst_case(command)
        _needed(all(map(math.isfinite, dataclasses.astuple(worst))), f"{command.verb}: its worst case is not finite")
    lacking = {verb for verb, one in told.capabilities.items() if one.effect is not Effect.changes} - {command.verb for command in subject.commands}
    _needed(not lacking, f"no command was given to try {', '.join(sorted(lacking))}")


def reads_its_controls_back(subject: Subject) -> None:
    """Every control of ``reads_back`` is measured, finite, and no older than it may be."""
    with _held(subject) as instrument:
        told = instrument.measured()
        for verb, capability in instrument.descriptor.capabilities.items():
            for argument, control in capability.reads_back.items():
                _needed(control in told, f"{verb}.{argument}: {control} is not read back")
        for name, one in told.items():
            _needed(np.asarray(one.values).dtype.kind in "iuf" and np.isfinite(one.values).all(), f"{name} is read back as what is no number")
            _needed(0 <= one.age <= OLDEST_READ, f"{name} was read back {one.age:g} s ago")


# ---- the safe state ----


def goes_safe(subject: Subject) -> None:
    """safe() is confirmed, within its deadline, and may be called again."""
    with _held(subject) as instrument:
        for _ in range(3):
            began = time.monotonic()
            instrument.safe(instrument.descriptor.safe_seconds)
            _needed(time.monotonic() - began <= instrument.descriptor.safe_seconds + SLACK_SECONDS, "safe() took longer than it was given")
            _needed(instrument.is_safe() is True, "the safe state is not read back after safe()")


def passes_nothing_when_safe(subject: Subject) -> None:
    """In the safe state every command is refused, nothing moves, and it stays safe; after ``ready`` the first one passes."""
    with _held(subject, ready=False) as instrument:
        for command in subject.commands:
            _refuses(instrument, command, "in the safe state")
        _needed(instrument.is_safe() is True, "refused commands have ended the safe state")
        instrument.ready(instrument.descriptor.safe_seconds)
        instrument.execute(subject.commands[0], subject.seconds)
        instrument.safe(instrument.descriptor.safe_seconds)
        _refuses(instrument, subject.commands[0], "in the safe state")


def stays_safe_while_getting_ready(subject: Subject) -> None:
    """A safe() that comes while ``ready`` is under way wins: afterwards the instrument is safe and refuses commands, whatever ``ready`` was about to do."""
    with _held(subject, ready=False) as instrument:
        began = time.monotonic()
        instrument.ready(instrument.descriptor.safe_seconds)
        takes = time.monotonic() - began
        for share in READY_SHARES:
            # The thread may begin so late that it rightly leaves a safe state, though hardly each time.
            undone = all(not _safe_during_ready(instrument, share * takes) for _ in range(READY_TRIES))
            _needed(not undone, "safe() during ready() was undone by it: the instrument is not safe afterwards")
            _refuses(instrument, subject.commands[0], "after safe() during ready()")


def _safe_during_ready(instrument: Instrument, seconds: float) -> bool:
    """Whether the safe state stands after ``ready``, sent there ``seconds`` after its begin."""
    instrument.safe(instrument.descriptor.safe_seconds)
    begun, outcome = threading.Event(), list[object]()

    def getting_ready() -> None:
        begun.set()
        _tried(partial(instrument.ready, instrument.descriptor.safe_seconds), outcome)

    worker, interval = threading.Thread(target=getting_ready, daemon=True), sys.getswitchinterval()
    sys.setswitchinterval(SLACK_SECONDS)  # the interpreter stays with ready() until that waits for something, however busy the machine
    try:
        worker.start()
        begun.wait()
    finally:
        sys.setswitchinterval(interval)
    time.sleep(seconds)
    instrument.safe(instrument.descriptor.safe_seconds)
    worker.join(instrument.descriptor.safe_seconds + SLACK_SECONDS)
    _needed(not worker.is_alive(), "ready() went on after safe(), and beyond its deadline")
    lost = isinstance(outcome[0], ProbeGymError)  # and says so
    _needed(lost or not isinstance(outcome[0], Exception), f"ready() during safe() ended in {_shown(outcome)}, which is no ProbeGymError")
    return instrument.is_safe() is True


# ---- commands ----


def stands_blanked(subject: Subject) -> None:
    """The beam is off the sample after ``ready`` and between commands, whatever ``BlankBeam`` said last: an exposure is what lets it through."""
    assert subject.blanked is not None
    with _held(subject) as instrument:
        _needed(subject.blanked(instrument), "the beam is on the sample after ready()")
        for command in subject.commands:
            instrument.execute(command, subject.seconds)
            _needed(subject.blanked(instrument), f"the beam is on the sample after {command.verb}, where nobody is charged for it")
    if subject.long is not None:
        _needed(_dark_after_failure(subject, subject.long, subject.blanked), f"the beam is on the sample after {subject.long.verb} that was not done in time")


def _dark_after_failure(subject: Subject, long: Command, blanked: Callable[[Instrument], bool]) -> bool:
    """Whether the beam is off the sample after a command that failed, though nobody made the instrument safe."""
    with _held(subject, prepare=True, leave=True) as instrument:
        _tried(partial(instrument.execute, long, SHORT_SECONDS), [])  # given up then: a line may be of no more use after an answer that was late
    end = time.monotonic() + SLACK_SECONDS
    instrument = _opened(subject)
    try:
        while not (dark := blanked(instrument)) and time.monotonic() < end:
            time.sleep(0.05)
        instrument.safe(instrument.descriptor.safe_seconds)
    finally:
        instrument.close()
    return bool(dark)


def reads_what_it_promised(subject: Subject) -> None:
    """Readings have the names and shapes of the command, are finite and in range, cost no more than the worst case, and are new each time."""
    with _held(subject) as instrument:
        for command in subject.commands:
            capability = instrument.descriptor.capabilities[command.verb]
            first = instrument.execute(command, subject.seconds)
            _plausible(instrument, command, capability, first)
            if capability.effect is Effect.reads:
                again = instrument.execute(command, subject.seconds)
                _plausible(instrument, command, capability, again)
                same = [name for name, values in first.values.items() if name not in capability.may_repeat and _old(values, again.values[name])]
                _needed(not same, f"{command.verb}: {', '.join(same)} came twice, the same to the last bit")


def _plausible(instrument: Instrument, command: Command, capability: Capability, readings: Readings) -> None:
    wanted, worst = command.returns(), instrument.descriptor.worst_case(command)
    _needed(set(readings.values) == set(wanted), f"{command.verb}: promised are {', '.join(wanted) or 'no readings'}, sent were {', '.join(readings.values) or 'none'}")
    for name, values in readings.values.items():
        label, shape = f"{command.verb}: reading {name}", wanted[name]
        _needed(values.dtype.kind in "biuf" and values.shape[:1] == (1,), f"{label} is no array of numbers of one lane")
        _needed(shape is None or values.shape[1:] == tuple(shape), f"{label} has the shape {values.shape[1:]}, not {shape}")
        lacks = name in capability.may_lack and values.dtype.kind == "f"
        known = values[~np.isnan(values)] if lacks else values
        low, high = capability.readings.get(name, (-LARGEST_READING, LARGEST_READING))
        _needed(((known >= low) & (known <= high)).all(), f"{label} is not finite, or not within {low:g} and {high:g}")
    for name in Readings.COSTS:
        cost = np.asarray(getattr(readings, name))
        _needed(cost.shape == (1,) and 0 <= cost[0] < math.inf, f"{command.verb}: what it cost in {name} is no number of one lane")
    _needed(readings.time[0] <= worst.seconds * (1 + 1e-9), f"{command.verb} took {readings.time[0]:g} s, at worst it was to take {worst.seconds:g} s")
    _needed(readings.dose[0] <= worst.dose * (1 + 1e-9), f"{command.verb} cost a dose of {readings.dose[0]:g}, at worst it was to be {worst.dose:g}")


def _old(one: np.ndarray, other: np.ndarray) -> bool:
    return one.dtype.kind in "iuf" and one.size >= FRAME and bool(np.ptp(one[np.isfinite(one)]) > 0) and one.tobytes() == other.tobytes()


def sets_what_it_was_told(subject: Subject) -> None:
    """What was set is read back within its tolerance."""
    with _held(subject) as instrument:
        for command in subject.commands:
            capability = instrument.descriptor.capabilities[command.verb]
            if not capability.reads_back:
                continue
            instrument.execute(command, subject.seconds)
            told = instrument.measured()
            for argument, control in capability.reads_back.items():
                asked, tolerance = np.asarray(getattr(command, argument), float), capability.ranges[argument].tolerance
                here = np.asarray(told[control].values, float)
                _needed(here.size == asked.size, f"{command.verb}.{argument} has {asked.size} numbers, {control} {here.size}")
                off = np.abs(asked - here.reshape(asked.shape))
                within = tolerance is None or (off <= per_component(tolerance, asked, argument)).all()
                _needed(within, f"{command.verb}.{argument} was set, and {control} stands {off.max():g} away")


def refuses_what_is_outside(subject: Subject) -> None:
    """Whatever lies outside of the descriptor, is no number, or is of several lanes is not carried out; all but the last two are Refused."""
    with _held(subject) as instrument:
        for command in subject.commands:
            for changed, why in outside(command, instrument.descriptor.capabilities[command.verb]):
                _refuses(instrument, changed, why)
            for changed, why in malformed(command):
                _refuses(instrument, changed, why, ProbeGymError)
        absent = next((kind for verb, kind in codec.VERBS.items() if verb not in instrument.descriptor.capabilities and not dataclasses.fields(kind)), None)
        if absent is not None:
            _refuses(instrument, absent(), "which is not in the descriptor")


# ---- time ----


def stops_at_once(subject: Subject) -> None:
    """safe() during a long command ends it, within its own deadline, and is confirmed; the command says that it was ended."""
    assert subject.long is not None
    with _held(subject, prepare=True) as instrument:
        outcome: list[object] = []
        worker = threading.Thread(target=_tried, args=(partial(instrument.execute, subject.long, subject.seconds), outcome), daemon=True)
        worker.start()
        time.sleep(BEGUN_SECONDS)
        _needed(worker.is_alive(), f"{subject.long.verb} was over at once: give a longer command to try ({_shown(outcome)})")
        began = time.monotonic()
        instrument.safe(instrument.descriptor.safe_seconds)
        _needed(time.monotonic() - began <= instrument.descriptor.safe_seconds + SLACK_SECONDS, "safe() took longer than it was given, during a command")
        worker.join(SLACK_SECONDS)
        _needed(not worker.is_alive(), f"{subject.long.verb} went on after safe()")
        _needed(isinstance(outcome[0], InstrumentFault | Refused), f"{subject.long.verb} was stopped and yet ended in {_shown(outcome)}")
        _needed(instrument.is_safe() is True, "the safe state is not read back after a command was stopped")


def keeps_deadlines(subject: Subject) -> None:
    """A command that takes longer than it was given ends in a fault, in time; the safe state works after it."""
    assert subject.long is not None
    with _held(subject, prepare=True) as instrument:
        outcome: list[object] = []
        began = time.monotonic()
        _tried(partial(instrument.execute, subject.long, SHORT_SECONDS), outcome)
        _needed(time.monotonic() - began <= SHORT_SECONDS + SLACK_SECONDS, f"{subject.long.verb} took {time.monotonic() - began:.3g} s of {SHORT_SECONDS:g} s")
        _needed(isinstance(outcome[0], InstrumentFault), f"{subject.long.verb} did not keep its deadline and ended in {_shown(outcome)}")


def _tried(ask: Callable[[], object], outcome: list[object]) -> None:
    try:
        outcome.append(ask())
    except Exception as error:  # whatever it is, the caller judges it
        outcome.append(error)


def _shown(outcome: list[object]) -> str:
    return ", ".join(type(one).__name__ + (f": {one}" if isinstance(one, Exception) else "") for one in outcome) or "nothing yet"


# ---- who may write ----


def has_one_writer(subject: Subject) -> None:
    """A second writer is refused and told who holds the instrument; once that is given up, it can be had again."""
    with _held(subject):
        try:
            subject.opened("another").close()
        except Refused as error:
            _needed("contract" in str(error) or "hold" in str(error), f"who is refused is not told who holds the instrument: {error}")
        except ProbeGymError as error:
            raise ContractBroken(f"a second writer ended in {type(error).__name__} instead of Refused: {error}") from error
        else:
            raise ContractBroken("two can write to the instrument at once")
    with _held(subject):
        pass


def fails_when_closed(subject: Subject) -> None:
    """An instrument that was given up says so, as one error, whatever is asked; raises ContractBroken where it does not."""
    with _held(subject, ready=False) as instrument:
        instrument.safe(instrument.descriptor.safe_seconds)
    asked: dict[str, Callable[[], object]] = {
        "execute": lambda: instrument.execute(subject.commands[0], 1.0), "measured": instrument.measured, "ready": lambda: instrument.ready(1.0),
    }  # fmt: skip
    for name, ask in asked.items():
        try:
            ask()
        except ProbeGymError:
            continue
        except Exception as error:
            raise ContractBroken(f"{name} of an instrument that was closed ended in {type(error).__name__}, which is no ProbeGymError: {error}") from error
        raise ContractBroken(f"{name} of an instrument that was closed still answers")


CHECKS: tuple[Callable[[Subject], None], ...] = (
    describes_itself, reads_its_controls_back, goes_safe, passes_nothing_when_safe, stays_safe_while_getting_ready, reads_what_it_promised,
    sets_what_it_was_told, refuses_what_is_outside, has_one_writer, fails_when_closed, stands_blanked, stops_at_once, keeps_deadlines,
)  # fmt: skip
LONG, BEAM = (stops_at_once, keeps_deadlines), (stands_blanked,)
"""Checks that need a long command, and those that must be told whether the beam is off the sample."""


def kept(subject: Subject) -> list[str]:
    """Names of the checks that a driver passed, all that can be made; raises ContractBroken with the first that it does not."""
    passed = []
    for check in CHECKS:
        if (check in LONG and subject.long is None) or (check in BEAM and subject.blanked is None):
            continue
        try:
            check(subject)
        except ContractBroken as error:
            raise ContractBroken(f"{check.__name__}: {error}") from error
        except ProbeGymError as error:
            raise ContractBroken(f"{check.__name__}: {type(error).__name__}: {error}") from error
        passed.append(check.__name__)
    return passed
