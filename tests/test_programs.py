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
    Command,
    MoveStage,
    PlaceProbe,
    PulseBias,
    Readings,
    SetAberrations,
    Withdraw,
)
from probegym.hardware_bridge.instruments.descriptions import describe
from probegym.hardware_bridge.programs import (
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
from probegym.hardware_bridge.programs.quantities import quantity
from probegym.hardware_bridge.twins.stem import StemTwin
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
    [(5e-9, "m", "5 nm"), (-1e-10, "m", "-100 pm"), (1e-9, "m", "1 nm"), (1000.0, "V", "1 kV"), (0.0, "s", "0 s"), (-0.0, "s", "0 s"), (2.0, "1", "2"), (3.0, "m/m/s", "3 m/m/s"), (1e-30, "m", "1e-30 m")],
)  # fmt: skip
def test_quantities_are_printed_for_people(value, unit, text):
    assert quantity(value, unit) == text


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
