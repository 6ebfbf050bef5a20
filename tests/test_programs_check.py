"""What is wrong with a program is found before anything runs, with its place; its bill is the worst case."""

from __future__ import annotations

import math

import numpy as np
import pytest

from probegym.hardware_bridge import codec
from probegym.hardware_bridge.capabilities import Descriptor
from probegym.hardware_bridge.commands import (
    AcquireImage,
    AcquireTopograph,
    Approach,
    AutoTune,
    BlankBeam,
    Command,
    SetAberrations,
    Withdraw,
)
from probegym.hardware_bridge.guard.checks import Site, regions
from probegym.hardware_bridge.instruments.descriptions import describe
from probegym.hardware_bridge.programs import (
    Alphabet,
    Bill,
    Combined,
    Compare,
    Do,
    If,
    Let,
    Number,
    Program,
    Repeat,
    Spent,
    Statistic,
    Value,
    While,
    check,
)
from probegym.hardware_bridge.programs.order import Order
from probegym.hardware_bridge.twins.afm import AfmTwin
from probegym.hardware_bridge.world import Refused
from probegym.scenarios import load
from tests.test_programs import BEAM, EVERYTHING, STD, STM, above, focus, image, lens, park, program, pulse, scan, span, stage, stem_twin

WORLDWIDE = Bill(1e9, 1e9, 10**9, 10**9)


def refused(what: Program, descriptor: Descriptor, *told: str, **options) -> None:
    with pytest.raises(Refused) as caught:
        check(what, descriptor, **options)
    assert all(part in str(caught.value) for part in told), str(caught.value)


@pytest.fixture(scope="module")
def stem() -> Descriptor:
    return describe(stem_twin()).descriptor


def test_a_good_program_passes(stem):
    bill = check(EVERYTHING, stem)
    assert 0 < bill.seconds < 10 and bill.dose > 0 and bill.changes == 0 and bill.commands == 2 + 4 + 1 + 3


def test_arguments_are_checked_with_their_place(stem):
    refused(
        program(image(), If(above(STD, 1.0), (focus(5e-8),))),
        stem,
        "program, 2.then.1: ",
        "SetAberrations.values must be from",
        "m, asked was 5e-08",
    )
    refused(program(image(), Repeat(2, (image(), image(9.0)))), stem, "program, 2.2: AcquireImage.dwell_time")
    refused(program(image(detector="bf2")), stem, "program, 1: AcquireImage.detector")
    refused(program(pulse()), stem, "program, 1: STEM twin has no PulseBias")
    refused(program(image(defocus=np.zeros(2))), stem, "program, 1: ", "one lane")
    refused(program(image(defocus=np.array([math.nan]))), stem, "program, 1: ")
    refused(program(Do(SetAberrations(("C10",), np.zeros((1, 1))))), stem, "program, 1: ")
    refused(program(Do(AcquireImage("haadf", 3, "wide", None, 0))), stem, "program, 1: ")


class Unknown(Command):
    """No verb of the language."""


def test_a_command_of_no_language_is_refused(stem):
    refused(program(Do(Unknown())), stem, "program, 1: Unknown is no command")


def test_a_reading_is_used_only_where_every_path_has_returned_it(stem):
    late = If(above(STD, 1.0), (focus(0.0),))
    refused(program(focus(0.0), late, image()), stem, "program, 2: haadf of AcquireImage")
    refused(program(If(above(Spent("time"), 1.0, "s"), (image(),)), late), stem, "program, 2: haadf of AcquireImage")
    refused(program(While(above(Spent("time"), 1.0, "s"), 5, (image(),)), late), stem, "program, 2: ")
    refused(program(image(), If(above(Statistic("AcquireImage", "bf", "std"), 1.0), (image(),))), stem, "program, 2: bf of AcquireImage")
    check(program(If(above(Spent("time"), 1.0, "s"), (image(),), (image(2e-5),)), late), stem)
    check(program(Repeat(1, (image(),)), late), stem)


def test_a_name_is_used_only_where_every_path_gives_it_and_keeps_its_unit(stem):
    use = If(Compare(Value("a"), ">", Number(1.0, "s")), (image(),))
    refused(program(use), stem, "program, 1: a is used")
    refused(program(If(above(Spent("time"), 1.0, "s"), (Let("a", Spent("time")),)), use), stem, "program, 2: a is used")
    refused(program(Let("a", Spent("time")), Let("a", Spent("damage"))), stem, "program, 2: a is in s and would get 1")
    check(program(Let("a", Spent("time")), use), stem)


def test_units_of_conditions_and_expressions_must_fit(stem):
    refused(program(image(), If(above(STD, 1.0, "m"), (image(),))), stem, "program, 2: ", "compares 1 with m")
    nine = Number(9.0, "m")
    for wrong in (Combined(Spent("time"), "+", Spent("damage")), Combined(nine, "*", nine), Combined(Spent("damage"), "/", nine)):
        refused(program(Let("a", wrong)), stem, "program, 1: ", "would combine")
    check(program(Let("a", Combined(nine, "/", nine)), If(above(Combined(Value("a"), "*", nine), 1.0, "m"), (image(),))), stem)
    height = Statistic("AcquireTopograph", "height", "range")
    check(
        program(
            scan(), If(above(height, 1e-9, "m"), (pulse(),)), If(above(Statistic("AcquireTopograph", "height", "count"), 9.0), (pulse(),))
        ),
        STM,
    )


def test_units_of_readings_are_those_of_readings_that_there_are():
    plain = {bool: True, int: 3, str: "haadf", float: 1.0, tuple[int, int]: (1, 1), tuple[str, ...]: (), np.ndarray: np.ones((1, 2))}
    for verb, units in {verb: kind.units for verb, kind in codec.VERBS.items() if kind.units}.items():
        command = codec.VERBS[verb](**{name: plain[kind] for name, (kind, _) in codec.ARGUMENTS[verb].items()})
        assert set(units) <= set(command.returns()), verb


# ---- order ----


def test_the_tip_is_withdrawn_before_it_approaches_or_the_stage_moves():
    refused(program(Do(Approach())), STM, "program, 1: Approach needs the tip withdrawn, here it is at the surface: Withdraw first")
    refused(program(scan(), stage()), STM, "program, 2: MoveStage needs the tip withdrawn")
    refused(program(Do(Withdraw()), stage(), pulse()), STM, "program, 3: PulseBias needs the tip at the surface", "Approach first")
    check(program(scan(), Do(Withdraw()), stage(), Do(Approach()), pulse()), STM)


def test_order_holds_on_every_path_and_in_every_pass():
    good = above(Statistic("AcquireTopograph", "verdict", "mean"), 0.5)
    refused(program(scan(), If(good, (Do(Withdraw()),)), pulse()), STM, "program, 3: PulseBias", "at the surface or withdrawn")
    refused(program(Repeat(2, (scan(), Do(Withdraw())))), STM, "program, 1.1: AcquireTopograph")
    refused(program(scan(), While(good, 2, (pulse(), Do(Withdraw())))), STM, "program, 2.1: PulseBias")
    check(program(Repeat(1, (scan(), Do(Withdraw())))), STM)
    check(program(Repeat(3, (scan(), Do(Withdraw()), Do(Approach())))), STM)


def test_nothing_is_exposed_with_the_beam_blanked():
    refused(program(Do(BlankBeam(True)), park(0.0)), BEAM, "program, 2: PlaceProbe needs the beam on the sample, here it is blanked")
    check(program(Do(BlankBeam(True)), stage(), Do(BlankBeam(False)), park(0.0)), BEAM)


def test_the_feedback_is_set_before_a_line_is_scanned():
    afm = describe(AfmTwin(load("afm_tuning", "train").world, 1)).descriptor
    alphabet = Alphabet(afm, WORLDWIDE)
    feedback, line, test = alphabet.decode("SetFeedback ScanLine TestFeedback").body
    refused(program(line), afm, "program, 1: ScanLine needs SetFeedback before it")
    refused(program(feedback, test, line), afm, "program, 2: TestFeedback needs ScanLine before it")
    refused(program(If(above(Spent("time"), 1.0, "s"), (feedback,)), line), afm, "program, 2: ScanLine needs SetFeedback")
    check(program(feedback, line, test), afm)


def test_a_control_moves_in_steps_on_every_path():
    refused(program(lens(-2e-8), lens(2e-8)), BEAM, "program, 2: SetAberrations.values would move by 40 nm, at most 30 nm at once")
    maybe = If(above(Spent("time"), 1.0, "s"), (lens(0.0),))
    refused(program(lens(-2e-8), maybe, lens(2e-8)), BEAM, "program, 3: ")
    refused(program(Repeat(2, (lens(-2e-8), lens(0.0), lens(2e-8)))), BEAM, "program, 1.1: ")
    check(program(lens(-2e-8), lens(0.0), lens(2e-8)), BEAM)
    check(program(lens(-2e-8), Do(AutoTune("focus")), lens(2e-8)), BEAM)  # where it leaves the lens, only the instrument knows


# ---- cost ----


def test_the_bill_is_the_worst_case_over_all_paths():
    always = above(Statistic("AcquireTopograph", "verdict", "mean"), 0.5)
    seconds = scan().command.takes()
    body = program(scan(), If(always, (pulse(), pulse()), (scan(),)), While(always, 4, (pulse(), scan())), Repeat(3, (pulse(),)))
    bill = check(body, STM)
    assert bill.seconds == pytest.approx(2 * seconds + 4 * (0.01 + seconds) + 3 * 0.01)
    assert (bill.changes, bill.commands, bill.dose) == (2 + 4 + 3, 1 + 2 + 8 + 3, 0.0)


def test_dose_is_counted_where_it_falls():
    apart, together = program(park(0.0), park(5e-6)), program(park(0.0), park(0.0))
    assert check(apart, BEAM).dose == 100.0 and check(together, BEAM).dose == 200.0
    branches = program(If(above(Spent("time"), 1.0, "s"), (park(0.0), park(0.0)), (park(5e-6),)), park(5e-6))
    assert check(branches, BEAM).dose == 200.0  # either way
    assert check(program(Repeat(3, (park(0.0),))), BEAM).dose == 300.0
    assert check(program(If(above(Spent("time"), 1.0, "s"), (park(5e-6),), (park(0.0), park(0.0)))), BEAM).dose == 200.0
    assert check(program(park(0.0), stage(5e-6), park(-5e-6)), BEAM).dose == 200.0  # a moved stage: all counts as one place


def test_dose_is_counted_in_the_regions_of_the_guard():
    places, at = (0.0, 0.4e-9, 0.7e-9), Site(np.array([0.35e-9, 0.0]), np.zeros(2))
    held: dict = {}
    for x in places:
        for region in regions(park(x).command, BEAM, at):
            held[region] = held.get(region, 0.0) + 100.0
    what = program(*map(park, places))
    assert check(what, BEAM, at=at).dose == max(held.values()) != check(what, BEAM).dose


def test_more_than_may_be_spent_is_refused_where_it_is_exceeded():
    most = Bill(1e3, 250.0, 10, 10)
    what = program(park(0.0), Repeat(2, (park(0.0),)))
    refused(what, BEAM, "program, 2: ", "300 dose, 250 are allowed", most=most)
    refused(what, BEAM, "program, 1: ", "seconds", most=Bill(0.5, 1e9, 10, 10))
    refused(what, BEAM, "program, 2: ", "3 changes, 2 are allowed", most=Bill(1e3, 1e9, 2, 10))
    refused(what, BEAM, "program, 2: ", "3 commands, 2 are allowed", most=Bill(1e3, 1e9, 9, 2))
    assert check(what, BEAM, most=Bill(3.0, 300.0, 3, 3)) == Bill(3.0, 300.0, 3, 3)


def test_what_would_never_end_is_refused():
    capability = STM.capabilities["AcquireTopograph"]
    still = capability.model_copy(update={"ranges": capability.ranges | {"speed": span(0.0, 1.0)}})
    slow = Do(AcquireTopograph((16, 16), 1e-8, 0.0, np.zeros((1, 2)), 1.0, 1e-10))
    refused(
        program(slow),
        STM.model_copy(update={"capabilities": {"AcquireTopograph": still}}),
        "program, 1: AcquireTopograph: what it costs has no bound",
    )


def test_loops_in_loops_are_each_followed_a_few_times(stem, monkeypatch):
    followed, body = [], Order.body
    monkeypatch.setattr(Order, "body", lambda self, *arguments: followed.append(1) or body(self, *arguments))
    block = Repeat(1000, (image(), While(above(STD, 1.0), 1000, (image(),))))
    for _ in range(13):
        block = Repeat(1000, (block,))
    assert check(program(block), stem).commands == 1000**14 * 1001
    assert len(followed) < 100


def test_size_has_a_limit(stem):
    block = image()
    for _ in range(16):
        block = Repeat(1, (block,))
    refused(program(block), stem, "nested at most 16 deep")
    refused(program(*[image()] * 1001), stem, "at most 1000 blocks")
    refused(program(Repeat(2, ())), stem, "no body")
    deep = Spent("time")
    for _ in range(5000):
        deep = Combined(deep, "+", Spent("time"))
    refused(program(Let("a", deep)), stem, "nested at most 16 deep")
