"""Programs are checked before anything runs, with the place of what is wrong, and run the same again on the same key."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from probegym.errors import ProbeGymError
from probegym.hardware_bridge import codec
from probegym.hardware_bridge.capabilities import Capability, Descriptor, Effect, Range
from probegym.hardware_bridge.commands import (
    AcquireImage,
    AcquireTopograph,
    Approach,
    AutoTune,
    BlankBeam,
    Command,
    MoveStage,
    PlaceProbe,
    PulseBias,
    Readings,
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
    Stopped,
    Value,
    While,
    check,
    dumps,
    from_json,
    loads,
    run,
    to_json,
)
from probegym.hardware_bridge.programs.order import Order
from probegym.hardware_bridge.programs.quantities import _READINGS, quantity
from probegym.hardware_bridge.twins.afm import AfmTwin
from probegym.hardware_bridge.twins.stem import StemTwin
from probegym.hardware_bridge.world import Refused
from probegym.scenarios import load
from tests.helpers import differences

ON = np.ones(1, bool)
STD = Statistic("AcquireImage", "haadf", "std")


def stem_twin(key: int = 7) -> StemTwin:
    world = StemTwin(load("stem_tuning", "haadf-train").world, 1)
    world.begin(np.array([key], np.uint64), ON)
    return world


@pytest.fixture(scope="module")
def stem() -> Descriptor:
    return describe(stem_twin()).descriptor


def span(low: float, high: float, **more) -> Range:
    return Range(low=low, high=high, **more)


NEAR = span(-1e-5, 1e-5)
BIAS = span(-10.0, 10.0)
STM = Descriptor(
    name="an STM",
    kind="stm",
    safe=("withdraw",),
    capabilities={
        "Approach": Capability(effect=Effect.changes, overhead=20.0),
        "Withdraw": Capability(effect=Effect.sets, overhead=5.0),
        "MoveStage": Capability(effect=Effect.sets, ranges={"position": span(-1e-3, 1e-3), "tilt": span(0.0, 0.0)}, overhead=10.0),
        "PulseBias": Capability(effect=Effect.changes, ranges={"position": NEAR, "bias": BIAS, "duration": span(1e-3, 1.0)}),
        "AcquireTopograph": Capability(
            effect=Effect.reads,
            ranges={
                "field_of_view": span(1e-9, 1e-7),
                "speed": span(1e-8, 1e-6),
                "centre": NEAR,
                "bias": BIAS,
                "current": span(1e-12, 1e-9),
            },
            counts={"shape": (16, 256)},
            readings={"verdict": (0.0, 1.0)},
        ),
    },
)
BEAM = Descriptor(
    name="a beam",
    kind="stem",
    safe=("blank",),
    region=1e-9,
    capabilities={
        "BlankBeam": Capability(effect=Effect.sets),
        "AutoTune": Capability(effect=Effect.sets, names={"routine": ("focus",)}, overhead=3.0),
        "SetAberrations": Capability(
            effect=Effect.sets, ranges={"values": span(-4e-8, 4e-8, step=3e-8)}, names={"names": ("C10",)}, reads_back={"values": "lenses"}
        ),
        "PlaceProbe": Capability(effect=Effect.changes, ranges={"position": NEAR, "dwell_time": span(0.0, 10.0)}, dose_rate=100.0),
        "MoveStage": Capability(effect=Effect.sets, ranges={"position": span(-1e-3, 1e-3), "tilt": span(0.0, 0.0)}),
    },
)


def focus(c10: float, **others: float) -> Do:
    names = tuple(load("stem_tuning", "haadf-train").world["controls"])
    return Do(SetAberrations(names, np.array([[{"C10": c10, **others}.get(name, 0.0) for name in names]])))


def lens(c10: float) -> Do:
    return Do(SetAberrations(("C10",), np.array([[c10]])))


def image(dwell_time: float = 1e-5, **changed) -> Do:
    return Do(
        AcquireImage(
            **{"detector": "haadf", "shape": (16, 16), "field_of_view": 2e-9, "dwell_time": dwell_time, "defocus": np.zeros(1)} | changed
        )
    )


def scan() -> Do:
    return Do(AcquireTopograph((16, 16), 1e-8, 1e-7, np.zeros((1, 2)), 1.0, 1e-10))


def pulse(bias: float = 3.0) -> Do:
    return Do(PulseBias(np.zeros((1, 2)), np.array([bias]), 0.01))


def park(x: float, seconds: float = 1.0) -> Do:
    return Do(PlaceProbe(np.array([[x, 0.0]]), np.array([seconds])))


def stage(x: float = 0.0) -> Do:
    return Do(MoveStage(np.array([[x, 0.0, 0.0]]), np.zeros((1, 2))))


def program(*body) -> Program:
    return Program(tuple(body))


def above(left, value: float, unit: str = "1") -> Compare:
    return Compare(left, ">", Number(value, unit))


EVERYTHING = program(
    focus(-1e-8),
    image(),
    Let("before", STD),
    Repeat(2, (focus(1e-8), image())),
    If(
        Compare(Combined(STD, "/", Value("before")), "<=", Number(1.05, "1")),
        (focus(-1e-8), Let("lost", Combined(STD, "-", Value("before")))),
        (image(2e-5),),
    ),
    While(Compare(Spent("time"), "<", Number(0.9, "s")), 3, (image(),)),
)
WORLDWIDE = Bill(1e9, 1e9, 10**9, 10**9)


def refused(what: Program, descriptor: Descriptor, *told: str, **options) -> None:
    with pytest.raises(Refused) as caught:
        check(what, descriptor, **options)
    assert all(part in str(caught.value) for part in told), str(caught.value)


# ---- JSON and print ----


def test_a_program_comes_back_from_json_bit_by_bit():
    awkward = program(focus(0.1e-8 + 1e-25), Let("x", Number(1 / 3, "m")), EVERYTHING.body[4])
    for each in (EVERYTHING, awkward, program()):
        assert loads(dumps(each)) == each and loads(dumps(each)) is not each
    assert loads(dumps(awkward)).body[0].command.values[0, 0] == 0.1e-8 + 1e-25
    assert program(focus(1e-9)) != program(focus(2e-9)) and program(pulse()) != program(scan())


def edited(change) -> dict:
    content = json.loads(dumps(EVERYTHING))
    change(content)
    return content


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c: c.update(version=2), "version 2"),
        (lambda c: c.update(version=True), "version"),
        (lambda c: c.update(format="other"), "no program"),
        (lambda c: c.update(extra=1), "nothing else"),
        (lambda c: c.update(body={}), "list of blocks"),
        (lambda c: c["body"][3].update(repeat=0), "program, 4: a loop"),
        (lambda c: c["body"][3].update(repeat=True), "program, 4: a loop"),
        (lambda c: c["body"][3].update(more=1), "program, 4: a block is one of"),
        (lambda c: c["body"][3]["body"][1]["do"].update(verb="Explode"), "program, 4.2: there is no verb"),
        (
            lambda c: c["body"][4]["then"][0]["do"]["arguments"]["values"].update(unit="nm"),
            "program, 5.then.1: SetAberrations.values is in m",
        ),
        (lambda c: c["body"][4]["if"].update(sign="=="), "program, 5: there is no comparison"),
        (lambda c: c["body"][4]["if"]["right"].update(number=True), "program, 5: a number must be finite"),
        (lambda c: c["body"][4]["if"]["right"].update(number=10**400), "program, 5: a number must be finite"),
        (lambda c: c["body"][4]["if"]["right"].update(unit="furlong"), "no unit of the language"),
        (lambda c: c["body"][4]["if"]["left"].update(operator="**"), "program, 5: there is no operator"),
        (lambda c: c["body"][2]["be"].update(statistic="__class__"), "program, 3: there is no statistic"),
        (lambda c: c["body"][2]["be"].update(of="os.system"), "program, 3: there is no verb"),
        (lambda c: c["body"][2].update(let="__import__"), "program, 3: a name is made of"),
        (lambda c: c["body"][2].update(be="before"), "program, 3: an expression is"),
        (lambda c: c["body"][5]["while"]["left"].update(spent="money"), "program, 6: there is no cost"),
        (lambda c: c["body"].append(None), "program, 7: a block is one of"),
        (lambda c: c["body"].extend([c["body"][0]] * 1000), "at most 1000 blocks"),
    ],
)
def test_json_that_is_no_program_is_refused_with_its_place(change, told):
    with pytest.raises(codec.Malformed) as caught:
        from_json(edited(change))
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_deep_json_is_refused():
    body: list = []
    expression: dict = {"spent": "time"}
    for _ in range(5000):
        body = [{"repeat": 2, "body": body}]
        expression = {"operator": "+", "left": expression, "right": {"spent": "time"}}
    for content in (body, [{"let": "a", "be": expression}]):
        with pytest.raises(codec.Malformed, match="deep"):
            from_json({"format": "probegym program", "version": 1, "body": content})
    with pytest.raises(codec.Malformed, match="NaN"):
        loads(dumps(EVERYTHING).replace("1.05", "NaN"))


def test_a_program_prints_with_places_and_units():
    text = str(
        program(
            *EVERYTHING.body[2:3],
            If(above(STD, 20.0), (lens(-1e-8),), (Do(Withdraw()),)),
            While(above(Spent("time"), 0.5, "s"), 3, (pulse(),)),
        )
    )
    assert text.splitlines() == [
        "1  let before = std of haadf (AcquireImage)",
        "2  if std of haadf (AcquireImage) > 20",
        "    2.then.1  SetAberrations  C10 -10 nm",
        "otherwise",
        "    2.otherwise.1  Withdraw",
        "3  while time spent > 500 ms, at most 3 times",
        "    3.1  PulseBias  position (0 m, 0 m), bias 3 V, duration 10 ms",
    ]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(5e-9, "m", "5 nm"), (-1e-10, "m", "-100 pm"), (1e-9, "m", "1 nm"), (1000.0, "V", "1 kV"), (0.0, "s", "0 s"), (2.0, "1", "2"), (3.0, "m/m/s", "3 m/m/s"), (1e-30, "m", "1e-30 m")],
)  # fmt: skip
def test_quantities_are_printed_for_people(value, unit, text):
    assert quantity(value, unit) == text


# ---- what is checked before anything runs ----


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
    for verb, units in _READINGS.items():
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
    assert check(program(park(0.0), stage(5e-6), park(0.0)), BEAM).dose == 200.0  # a moved stage: all counts as one place


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


# ---- running ----


def test_a_run_decides_by_what_it_reads_and_says_so():
    trace = run(EVERYTHING, stem_twin())
    assert [step.place for step in trace.steps][:6] == ["1", "2", "4.1", "4.2", "4.1", "4.2"]
    stds = [step.readings.values["haadf"][0].std() for step in trace.steps if step.command.verb == "AcquireImage"]
    assert trace.values["before"] == pytest.approx(stds[0])
    decision = trace.decisions[0]
    assert decision.place == "5" and decision.holds == (stds[2] / stds[0] <= 1.05)
    assert trace.steps[6].place == ("5.then.1" if decision.holds else "5.otherwise.1")
    assert trace.decisions[-1].place == "6" and not trace.decisions[-1].holds and trace.spent("time") >= 0.9
    assert [d.holds for d in trace.decisions[1:]] == [True] * (len(trace.decisions) - 2) + [False]


@pytest.mark.parametrize("key", range(4))
def test_no_run_costs_more_than_its_bill(stem, key):
    trace, bill = run(EVERYTHING, stem_twin(key)), check(EVERYTHING, stem)
    assert trace.spent("time") <= bill.seconds and len(trace.steps) <= bill.commands and trace.spent("dose") <= bill.dose * (1 + 1e-9)


def test_the_commands_of_a_trace_give_the_same_readings_again():
    trace = run(EVERYTHING, stem_twin(3))
    again = run(loads(dumps(trace.straight())), stem_twin(3))
    assert len(again.steps) == len(trace.steps) > 6 and again.decisions == []
    for one, other in zip(trace.steps, again.steps, strict=True):
        assert differences(one.readings, other.readings) == []
    assert differences(trace.steps[1].readings, run(EVERYTHING, stem_twin(4)).steps[1].readings)


class Told:
    """A world that answers with the verdicts that it was given."""

    lanes = 1

    def __init__(self, *verdicts: float):
        self.verdicts, self.sent = list(verdicts), []

    def execute(self, command: Command, where: np.ndarray) -> Readings:
        self.sent.append(command.verb)
        values = {"verdict": np.array([self.verdicts.pop(0)]), "height": np.zeros((1, 16, 16))} if command.returns() else {}
        return Readings(values, *(np.ones(1) for _ in Readings.COSTS))


CONDITION = program(scan(), While(Compare(Statistic("AcquireTopograph", "verdict", "mean"), "<", Number(0.5, "1")), 3, (pulse(), scan())))


def test_a_loop_ends_when_its_condition_does_and_at_its_bound():
    check(CONDITION, STM)
    for verdicts, pulses in (((0.9,), 0), ((0.1, 0.2, 0.7), 2), ((0.1,) * 9, 3)):
        world = Told(*verdicts)
        run(CONDITION, world)
        assert world.sent.count("PulseBias") == pulses


def test_a_reading_without_a_number_stops_the_program():
    world = Told(0.1, math.nan)
    with pytest.raises(Stopped, match=r"program, 2: mean of verdict \(AcquireTopograph\) is no number here") as caught:
        run(CONDITION, world)
    assert world.sent == ["AcquireTopograph", "PulseBias", "AcquireTopograph"] and len(caught.value.trace.steps) == 3


def test_no_number_comes_of_a_division_by_zero():
    ratio = Combined(Spent("time"), "/", Combined(Spent("time"), "-", Spent("time")))
    with pytest.raises(Stopped, match="no number"):
        run(program(Let("a", ratio)), Told())


def test_counts_leave_zeros_and_what_is_lacking_out():
    class Found(Told):
        def execute(self, command, where):
            return Readings({"haadf": np.array([[0.0, 3.0, math.nan, -1.0]])}, *(np.ones(1) for _ in Readings.COSTS))

    names = {kind: Let(kind, Statistic("AcquireImage", "haadf", kind)) for kind in ("count", "mean", "max", "min", "range", "std")}
    found = run(program(image(), *names.values()), Found()).values
    assert found["count"] == 2 and found["mean"] == pytest.approx(2 / 3) and (found["max"], found["min"], found["range"]) == (3, -1, 4)
    assert found["std"] == pytest.approx(np.std([0.0, 3.0, -1.0]))


def test_a_refusal_of_the_world_stops_with_its_place_and_the_trace():
    with pytest.raises(Stopped, match=r"program, 2\.1: .*range") as caught:
        run(program(image(), Repeat(2, (focus(1.0),))), stem_twin())
    assert [step.place for step in caught.value.trace.steps] == ["1"]


def test_a_program_runs_on_one_lane():
    with pytest.raises(ProbeGymError, match="one lane"):
        run(EVERYTHING, StemTwin(load("stem_tuning", "haadf-train").world, 2))


def test_json_is_what_the_page_says():
    assert to_json(program(Let("a", Spent("time")))) == {
        "format": "probegym program",
        "version": 1,
        "body": [{"let": "a", "be": {"spent": "time"}}],
    }
