"""Every string of tokens is a program that its instrument can run within what may be spent."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probegym.errors import ProbeGymError
from probegym.hardware_bridge import codec
from probegym.hardware_bridge.capabilities import Capability, Descriptor, Effect, Range
from probegym.hardware_bridge.commands import Command, Readings
from probegym.hardware_bridge.guard.checks import well_formed
from probegym.hardware_bridge.instruments.descriptions import DESCRIBED, describe
from probegym.hardware_bridge.programs import (
    Alphabet,
    Bill,
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
    check,
    dumps,
    hill_climb,
    loads,
    run,
)
from probegym.hardware_bridge.programs.blocks import bodies
from probegym.hardware_bridge.programs.grid import between
from probegym.hardware_bridge.twins.adatoms import AdatomTwin
from probegym.hardware_bridge.twins.afm import AfmTwin
from probegym.hardware_bridge.twins.flakes import FlakesTwin
from probegym.hardware_bridge.twins.graphene import GrapheneTwin
from probegym.hardware_bridge.twins.ising import IsingTwin
from probegym.hardware_bridge.twins.spectra import SpectraTwin
from probegym.hardware_bridge.twins.stem import StemTwin
from probegym.hardware_bridge.twins.stm import StmTwin
from probegym.scenarios import load
from tests.helpers import ROOT
from tests.test_programs import BEAM, STM, focus

MOST = Bill(60.0, 1e5, 6, 80)


def world(name: str = "haadf-train", lanes: int = 1) -> StemTwin:
    return StemTwin(load("stem_tuning", name).world, lanes)


def every_verb() -> Descriptor:
    capabilities = {}
    for verb, arguments in codec.ARGUMENTS.items():
        ranges = {name: Range(low=0.5, high=1.5) for name, (_, unit) in arguments.items() if unit}
        plain = {name: kind for name, (kind, unit) in arguments.items() if not unit}
        names = {name: ("C10", "C12a") if kind == tuple[str, ...] else ("one", "two") for name, kind in plain.items() if "str" in str(kind)}
        counts = {name: (1, 3) for name, kind in plain.items() if "int" in str(kind)}
        effect = Effect.changes if verb in ("PulseBias", "PlaceProbe", "Approach") else Effect.reads
        capabilities[verb] = Capability(
            effect=effect, ranges=ranges, names=names, counts=counts, overhead=0.1, dose=3.0 if verb == "PlaceProbe" else 0.0
        )
    return Descriptor(name="all", kind="stm", safe=("stop",), region=10.0, capabilities=capabilities)


BOTH = describe(world("both")).descriptor
INSTRUMENTS = {"stem": BOTH, "stm": STM, "beam": BEAM, "all": every_verb()}
ALPHABETS = {name: Alphabet(descriptor, MOST, asked=("time", "dose", "damage", "measurements")) for name, descriptor in INSTRUMENTS.items()}
C10 = "SetAberrations.values.C10"
GRID = {
    "SetAberrations.values": (0.0,),
    C10: (-20e-9, -15e-9, -10e-9, -5e-9, 0.0, 5e-9, 10e-9, 15e-9, 20e-9),
    "AcquireImage.shape": (32,),
    "AcquireImage.field_of_view": (2.56e-9,),
    "AcquireImage.dwell_time": (40e-6,),
    "AcquireImage.defocus": (0.0,),
}  # fmt: skip
FOCUS = Alphabet(
    describe(world()).descriptor, Bill(20.0, np.inf, 0, 20), blocks=("if", "let"), grid=GRID, variables=("a", "b"), asked=(), depth=2
)


class Anything:
    """A world that answers with anything."""

    lanes = 1

    def __init__(self) -> None:
        self.rng, self.sent = np.random.default_rng(0), 0

    def execute(self, command: Command, where: np.ndarray) -> Readings:
        self.sent += 1
        shapes = {name: (2,) if shape is None else np.minimum(shape, 4) for name, shape in command.returns().items()}
        return Readings(
            {name: self.rng.normal(size=(1, *shape)) for name, shape in shapes.items()}, *(self.rng.uniform(size=1) for _ in Readings.COSTS)
        )


def strings(alphabet: Alphabet) -> st.SearchStrategy[list[str]]:
    """Strings of any tokens, and of verbs and blocks with just about as many digits as they take."""
    words = [token for token in alphabet.tokens if not token.isdigit()]
    digits = st.lists(st.sampled_from("0123456789"), max_size=8)
    phrases = st.lists(st.tuples(st.sampled_from(words), digits).map(lambda p: [p[0], *p[1]]), max_size=30).map(
        lambda ps: [token for p in ps for token in p]
    )
    return st.lists(st.sampled_from(alphabet.tokens), max_size=80) | phrases


def depth(program: Program) -> int:
    deepest, level = 0, list(program.body)
    while level:
        deepest, level = deepest + 1, [inner for block in level for _, body in bodies(block) for inner in body]
    return deepest


@pytest.mark.parametrize("name", INSTRUMENTS)
@settings(derandomize=True, max_examples=120, deadline=None, database=None)
@given(data=st.data())
def test_every_string_is_a_valid_program(name, data):
    alphabet, descriptor = ALPHABETS[name], INSTRUMENTS[name]
    program = alphabet.decode(data.draw(strings(alphabet)))
    bill = check(program, descriptor, most=MOST)  # arguments, units, order on every path, cost
    assert depth(program) <= alphabet.depth + 1
    assert loads(dumps(program)) == program
    assert alphabet.decode(alphabet.encode(program)) == program
    assert alphabet.encode(alphabet.decode(alphabet.encode(program))) == alphabet.encode(program)
    anything = Anything()
    assert len(run(program, anything).steps) == anything.sent <= bill.commands <= MOST.commands


TWINS = {
    "adatom_manipulation": AdatomTwin,
    "afm_tuning": AfmTwin,
    "beam_manipulation": GrapheneTwin,
    "ising_inference": IsingTwin,
    "level_selection": FlakesTwin,
    "spectrum_exploration": SpectraTwin,
    "stem_tuning": StemTwin,
    "tip_conditioning": StmTwin,
}  # fmt: skip


def test_no_described_twin_is_left_out_here():
    assert {twin.__name__ for twin in TWINS.values()} == set(DESCRIBED)


@pytest.mark.parametrize("family", TWINS)
def test_on_a_twin_no_program_costs_more_than_its_bill(family):
    twin, rng, sent = TWINS[family](load(family, "train").world, 1), np.random.default_rng(3), 0
    descriptor = describe(twin).descriptor
    alphabet = Alphabet(
        descriptor, Bill(20.0 if family == "afm_tuning" else 3600.0, 1e9, 20, 25), levels=8
    )  # an even number: no bias of zero, which a twin refuses
    for key in range(8):
        program = alphabet.decode(alphabet.random(60, rng))
        bill = check(program, descriptor, most=alphabet.most)
        twin.begin(np.array([key], np.uint64), np.ones(1, bool))
        try:
            trace = run(program, twin)
        except Stopped as stopped:
            trace = stopped.trace
        sent += len(trace.steps)
        assert trace.spent("time") <= bill.seconds * (1 + 1e-9) and len(trace.steps) <= bill.commands
        for step in trace.steps:
            assert step.readings.dose[0] <= descriptor.worst_case(step.command).dose * (1 + 1e-9)
    assert sent > 10


@pytest.mark.parametrize("name", INSTRUMENTS)
def test_strings_reach_every_verb_and_block_in_full(name):
    """Otherwise the property above would hold for an alphabet that drops everything."""
    alphabet, rng = ALPHABETS[name], np.random.default_rng(1)
    text = "\n".join(str(alphabet.decode(alphabet.random(150, rng))) for _ in range(150))
    missing = [verb for verb in alphabet.templates if verb not in text]
    assert missing == []
    for word in ("repeat", "if", "while", "let", "otherwise"):
        assert re.search(rf"\b{word}\b", text), word


@pytest.mark.parametrize("verb", codec.VERBS)
def test_levels_make_well_formed_commands_within_their_ranges(verb):
    alphabet, rng = ALPHABETS["all"], np.random.default_rng(2)
    template = alphabet.templates[verb]
    for _ in range(20):
        picks = [int(rng.integers(len(slot.levels))) for slot in template.slots]
        command = template.command(picks)
        well_formed(codec.command_to_json(command))
        alphabet.descriptor.check(command)
        assert template.picks(command) == picks or any(len(set(s.levels)) < len(s.levels) for s in template.slots)


def test_levels_lie_within_limits_ends_and_middle_among_them():
    assert between(-4e-8, 4e-8, 9) == tuple(4e-8 * n / 4 for n in range(-4, 5))
    assert between(1e-6, 1e-2, 5) == pytest.approx((1e-6, 1e-5, 1e-4, 1e-3, 1e-2))
    assert between(0.1, 0.7, 4)[0] == 0.1 and between(0.1, 0.7, 4)[-1] == 0.7 and between(3.0, 3.0, 5) == (3.0,)
    assert FOCUS.templates["SetAberrations"].slots[-7].levels[0] == -20e-9


# ---- how strings are read ----


def decoded(text: str, alphabet: Alphabet = FOCUS) -> str:
    return re.sub(r", C12a.*|  detector.*", "", str(alphabet.decode(text)))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", ""),
        ("SetAberrations 0 SetAberrations 8 SetAberrations", "1  SetAberrations  C10 -20 nm\n2  SetAberrations  C10 20 nm\n3  SetAberrations  C10 0 m"),
        ("SetAberrations 9", "1  SetAberrations  C10 -20 nm"),  # 9 levels: 9 begins again
        ("3 1 4 AcquireImage 1 5 9", "1  AcquireImage"),  # digits that stand for nothing
        ("let 1 0 4 AcquireImage let 1 0 4", "1  AcquireImage\n2  let b = range of haadf (AcquireImage)"),  # nothing was read before
        ("if 0 0 0 0 1 0 AcquireImage", "1  AcquireImage"),  # nothing to compare: no decision
        ("AcquireImage let if AcquireImage", "1  AcquireImage\n2  let a = std of haadf (AcquireImage)\n3  if std of haadf (AcquireImage) < a\n    3.then.1  AcquireImage"),
        ("AcquireImage let if 0 1 1 0 0 2 AcquireImage", "1  AcquireImage\n2  let a = std of haadf (AcquireImage)\n3  if mean of haadf (AcquireImage) > a\notherwise\n    3.otherwise.1  AcquireImage"),
        ("AcquireImage let 1 AcquireImage let 0 0 5 if 0 0 0 0 1 0 let 1 0 5", "1  AcquireImage\n2  let b = std of haadf (AcquireImage)\n3  AcquireImage\n4  let a = count of haadf (AcquireImage)\n5  if std of haadf (AcquireImage) < a\n    5.then.1  let b = count of haadf (AcquireImage)"),
    ],
)  # fmt: skip
def test_strings_are_read_like_this(text, told):
    assert decoded(text) == told


def test_what_breaks_an_order_is_left_out():
    alphabet = ALPHABETS["stm"]
    verbs = [block.command.verb for block in alphabet.decode("Approach MoveStage Withdraw PulseBias MoveStage Approach PulseBias").body]
    assert verbs == ["Withdraw", "MoveStage", "Approach", "PulseBias"]
    branches = alphabet.decode("AcquireTopograph if 1 0 0 0 3 1 1 Withdraw PulseBias").body[1]
    assert [body[0].command.verb for body in (branches.then, branches.otherwise)] == ["Withdraw", "PulseBias"]
    dropped = alphabet.decode(
        "AcquireTopograph repeat 1 3 let 0 0 0 PulseBias Withdraw let 0 1 0"
    ).body  # a height in the loop, no name of it stays
    assert dropped[1:] == (Let("a", Statistic("AcquireTopograph", "verdict", "std")),)
    assert [b.command.verb for b in alphabet.decode("repeat 2 2 PulseBias Withdraw PulseBias").body] == [
        "PulseBias"
    ]  # no second pass could begin


def test_what_moves_too_far_at_once_is_left_out():
    assert [
        b.command.values.item()
        for b in ALPHABETS["beam"].decode("SetAberrations 0 SetAberrations 8 SetAberrations 4 SetAberrations 8").body
    ] == [-4e-8]
    assert len(ALPHABETS["beam"].decode("SetAberrations 0 SetAberrations 3 SetAberrations 5 SetAberrations 8").body) == 4


def test_what_costs_too_much_is_left_out():
    def alphabet(**changed) -> Alphabet:
        return Alphabet(STM, Bill(**{"seconds": 60.0, "dose": 1.0, "changes": 6, "commands": 80} | changed))

    assert len(alphabet(changes=2).decode("PulseBias " * 5).body) == 2
    assert len(alphabet(commands=3).decode("PulseBias " * 5).body) == 3
    assert len(alphabet(seconds=11.0).decode("Withdraw " * 5).body) == 2
    assert check(alphabet(commands=8, changes=99).decode("repeat 3 9 " + "PulseBias " * 9), STM).commands == 8
    assert check(alphabet(changes=8).decode("repeat 3 9 " + "PulseBias " * 9), STM).changes == 8
    assert check(alphabet(seconds=60.0).decode("repeat 3 9 " + "Withdraw " * 9), STM).seconds == 60.0
    looped = Alphabet(BEAM, Bill(60.0, 400.0, 9, 9), grid={"PlaceProbe.dwell_time": (1.0,)}).decode("repeat 1 9 " + "PlaceProbe " * 9)
    assert check(looped, BEAM).dose == 400.0
    assert len(Alphabet(BEAM, Bill(60.0, 250.0, 9, 9), grid={"PlaceProbe.dwell_time": (1.0,)}).decode("PlaceProbe " * 5).body) == 2


def test_blocks_nest_no_deeper_than_allowed():
    text = "AcquireTopograph " + "repeat 0 9 " * 5 + "AcquireTopograph"
    for most in (0, 1, 4):
        assert depth(Alphabet(STM, MOST, depth=most).decode(text)) == 1 + most


def test_a_short_string_never_stands_for_a_huge_program():
    program = Alphabet(STM, Bill(1e12, 1.0, 10**9, 10**12)).decode("Withdraw " * 3000)
    assert len(program.body) == 1000
    check(program, STM)


# ---- encoding ----


def test_quantities_are_encoded_at_their_nearest_levels():
    near = Program((focus(-13.2e-9), focus(7.4e-9)))
    assert FOCUS.decode(FOCUS.encode(near)) == Program((focus(-15e-9), focus(5e-9)))
    own = Alphabet(BOTH, Bill(60.0, np.inf, 0, 9), grid={"AcquireRonchigram.ronchigram": (10.0, 20.0, 40.0)})
    seen, std = own.decode("AcquireRonchigram").body, Statistic("AcquireRonchigram", "ronchigram", "std")
    for asked, level in ((31.0, 40.0), (-5.0, 10.0), (20.0, 20.0)):
        program = own.decode(own.encode(Program((*seen, If(Compare(std, "<", Number(asked, "1")), seen)))))
        assert program.body[1].condition == Compare(std, "<", Number(level, "1"))


@pytest.mark.parametrize(
    ("block", "told"),
    [
        (Let("speed", Spent("time")), "speed is not in this alphabet"),
        (Let("a", Spent("time")), "time spent is not in this alphabet"),
        (Repeat(99, (focus(0.0),)), "at most 9 times"),
        (Repeat(2, (focus(0.0),) * 10), "at most 9 blocks"),
        (Do(STM_COMMAND := ALPHABETS["stm"].decode("PulseBias").body[0].command), "PulseBias is not in this alphabet"),
        (If(Compare(Statistic("AcquireImage", "haadf", "std"), "<=", Value("a")), (focus(0.0),)), "is not in this alphabet"),
    ],
)
def test_what_has_no_token_is_refused(block, told):
    with pytest.raises(ProbeGymError, match=told):
        FOCUS.encode(Program((block,)))


@pytest.mark.parametrize("text", ["SetAberrations 10", "Explode", "repeat", ["AcquireImage", 3]])
def test_what_is_no_token_is_refused(text):
    with pytest.raises(ProbeGymError, match="is no token here"):
        FOCUS.decode(text)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"verbs": ["PulseBias", "Explode"]}, "an STM has no Explode"),
        ({"depth": 16}, "a depth below 16"),
        ({"longest": 0}, "bodies of 1 to 99"),
        ({"levels": 0}, "1 to 1000 levels"),
        ({"grid": {"PulseBias.bias": (0.0, 11.0)}}, "PulseBias.bias: give levels from -10 to 10"),
        ({"grid": {"PulseBias.bias": (1.0, 1.0)}}, "each once"),
        ({"grid": {"PulseBias.biass": (1.0,)}}, "grid has PulseBias.biass"),
        ({"grid": {"PulseBias": (1.0,)}}, "grid has PulseBias,"),
        ({"variables": ["A B"]}, "a name is made of"),
    ],
)
def test_an_alphabet_that_cannot_be_is_refused(options, told):
    with pytest.raises(ProbeGymError, match=re.escape(told)):
        Alphabet(STM, MOST, **options)


# ---- search ----


def test_changed_strings_are_strings_of_the_alphabet_and_follow_from_the_generator():
    alphabet = ALPHABETS["all"]

    def changed(seed: int) -> list:
        rng = np.random.default_rng(seed)
        one, other = alphabet.random(20, rng), alphabet.random(30, rng)
        return (
            [alphabet.mutate(one, rng) for _ in range(300)]
            + [alphabet.crossover(one, other, rng) for _ in range(300)]
            + [alphabet.mutate("", rng)]
        )

    found = changed(5)
    assert found == changed(5) != changed(6)
    assert all(alphabet.split(tokens) == tokens for tokens in found)
    assert {len(tokens) for tokens in found[:300]} == {19, 20, 21} and max(map(len, found[300:600])) == 30 and len(found[600]) == 1
    rng = np.random.default_rng(5)
    one, other = alphabet.random(20, rng), alphabet.random(30, rng)
    for child in found[300:600]:
        cut = next(n for n in range(len(child) + 1) if " ".join(child[n:]) in " ".join(other) or n == len(child))
        assert child[:cut] == one[:cut]


def routine(reach: float) -> Program:
    """Look on both sides of the focus and stay where the image has more contrast."""
    std, image = Statistic("AcquireImage", "haadf", "std"), FOCUS.decode("AcquireImage").body[0]
    return Program((focus(-reach), image, Let("a", std), focus(reach), image, If(Compare(std, "<", Value("a")), (focus(-reach),))))


def test_a_search_finds_a_better_focus_routine():
    config = load("stem_tuning", "haadf-train").world
    left = {name: drawn for name, drawn in config["aberrations"].items() if not name.startswith(("C1", "C2"))}
    config = config | {"aberrations": left | {"C10": {"uniform": [-20e-9, 20e-9]}}}  # all that is tuned but the focus
    keys = np.arange(200, dtype=np.uint64)
    many, twin = StemTwin(config, len(keys)), StemTwin(config, 1)
    many.begin(keys, np.ones(len(keys), bool))
    drawn = many.truth()["aberrations"][:, many.names.index("C10")]
    shown = [int(np.argmin(np.abs(drawn - c10))) for c10 in 20e-9 * (np.arange(12) - 5.5) / 6]  # spread evenly

    def score(program: Program, keys=shown) -> float:
        lost = []
        for key in keys:
            twin.begin(np.array([key], np.uint64), np.ones(1, bool))
            trace = run(program, twin)
            lost.append(float(twin.truth()["phase_variance"][0]) + 0.02 * trace.spent("measurements"))
        return -float(np.mean(lost))

    start = FOCUS.encode(routine(15e-9))
    assert FOCUS.decode(start) == routine(15e-9)
    best, found = hill_climb(FOCUS, score, start, 200, np.random.default_rng(0))
    others = [key for key in range(len(keys)) if key not in shown][:60]
    program = FOCUS.decode(best)
    assert found == score(program) > 0.75 * score(routine(15e-9))  # scores are below zero
    assert score(program, others) > 0.75 * score(routine(15e-9), others)
    assert score(program, others) > 0.75 * score(Program((focus(0.0),)), others)  # better than not to look
    check(program, FOCUS.descriptor, most=FOCUS.most)


def test_the_page_runs():
    page = (ROOT / "docs" / "programs.md").read_text(encoding="utf-8")
    held: dict = {}
    for code, printed in re.findall(r"```python\n(.*?)```(?:\n+```text\n(.*?)```)?", page, re.S):
        lines: list[str] = []
        held["print"] = lambda *told, lines=lines: lines.append(" ".join(map(str, told)))
        exec(compile(code, "docs/programs.md", "exec"), held)
        assert not printed or "\n".join(lines).strip() == printed.strip()
    assert "trace" in held
