"""Programs as strings of tokens in which every string is a valid program, so that programs can be searched, mutated and crossed.

The idea is that of SELFIES for molecules (Krenn et al. 2020, 10.1088/2632-2153/aba947): the string is read by rules that know what is
allowed so far. A token is a verb, a block (repeat, if, while, let) or a digit. Digits behind a verb choose levels of its arguments,
behind a block its condition, its count and how many of the blocks that follow belong to it. A digit that is missing stands for a
default, one too many for nothing. A block that the string does not fill ends with it. What would break an order, nest too deeply or
cost too much is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.capabilities import Descriptor
from probegym.hardware_bridge.programs.blocks import Block, Do, Let, Program, Repeat, While
from probegym.hardware_bridge.programs.check import Bill, Costs, costs
from probegym.hardware_bridge.programs.decode import Decoder
from probegym.hardware_bridge.programs.expressions import Compare, Expression, Number, Spent, Statistic, Value
from probegym.hardware_bridge.programs.grid import BLOCKS, DIGITS, KINDS, SIGNS, Grid, Slot, Template, between
from probegym.hardware_bridge.programs.interchange import MOST_DEPTH
from probegym.hardware_bridge.programs.quantities import COSTS, reading_unit
from probegym.hardware_bridge.world import Refused

UNBOUNDED = 1e6  # limits of a reading that are wider say nothing about where to compare

Tokens = tuple[str, ...]


class Alphabet:
    """The tokens of one instrument.

    most: the worst case that no decoded program exceeds. verbs: some of the descriptor's, all by default. blocks: some of repeat, if,
    while and let. levels: of every quantity, but for those in ``grid``. variables: names for ``let``. asked: costs that conditions may ask for. depth: of blocks in blocks.
    longest: body, in blocks. loops: most passes.
    """

    def __init__(
        self,
        descriptor: Descriptor,
        most: Bill,
        *,
        verbs: Sequence[str] | None = None,
        blocks: Sequence[str] = BLOCKS,
        levels: int = 9,
        grid: Grid | None = None,
        variables: Sequence[str] = ("a", "b", "c"),
        asked: Sequence[str] = ("time", "measurements"),
        depth: int = 3,
        longest: int = 9,
        loops: int = 9,
    ):
        self.descriptor, self.most, self.levels, self.grid = descriptor, most, levels, grid or {}
        self.variables, self.depth, self.longest, self.loops = tuple(map(Value, variables)), depth, longest, loops
        chosen = tuple(descriptor.capabilities) if verbs is None else tuple(verbs)
        if missing := [verb for verb in chosen if verb not in descriptor.capabilities]:
            raise ProbeGymError(f"{descriptor.name} has no {missing[0]}: use some of {', '.join(descriptor.capabilities)}")
        if not (1 <= levels <= 1000 and 0 <= depth < MOST_DEPTH and 1 <= longest <= 99 and 1 <= loops <= 1000):
            raise ProbeGymError(f"an alphabet has 1 to 1000 levels and loops, a depth below {MOST_DEPTH} and bodies of 1 to 99 blocks")
        self.templates = {verb: Template(verb, descriptor, levels, self.grid) for verb in chosen}
        self.tokens: Tokens = (*chosen, *(block for block in BLOCKS if block in blocks), *DIGITS)
        self.made = lru_cache(10_000)(self._made)  # a search decodes the same commands again and again
        readings = [Statistic(verb, name, KINDS[0]) for verb, template in self.templates.items() for name in template.readings()]
        self.sources: list[Expression] = [*readings, *self.variables, *map(Spent, asked)]
        self._known_grid(readings, asked)

    def _known_grid(self, readings: list[Statistic], asked: Sequence[str]) -> None:
        slots = [slot.name for t in self.templates.values() for slot in t.slots if not isinstance(slot.levels[0], str | bool)]
        slots += [name.rpartition(".")[0] for name in slots if name.count(".") > 1]
        known = {*slots} | {f"{s.verb}.{s.reading}" for s in readings} | {f"spent.{cost}" for cost in asked}
        if unknown := sorted(set(self.grid) - known):
            raise ProbeGymError(f"grid has {unknown[0]}, which this alphabet does not: it has {', '.join(sorted(known))}")

    def _made(self, verb: str, picks: tuple[int, ...]) -> tuple[Do, Costs | None]:
        """A command of these levels and its worst case; None where that has no bound."""
        block = Do(self.templates[verb].command(picks))
        try:
            return block, costs(block, "", self.descriptor, None)
        except Refused:
            return block, None

    def thresholds(self, left: Expression) -> tuple[Number, ...]:
        """Numbers that a quantity may be compared with: from ``grid``, or the levels between limits that are known."""
        if isinstance(left, Spent):
            limit = {"time": self.most.seconds, "dose": self.most.dose}.get(left.cost, self.levels - 1.0)
            levels = self.grid.get(f"spent.{left.cost}", between(0.0, limit, self.levels) if np.isfinite(limit) else ())
            return tuple(Number(float(level), COSTS[left.cost]) for level in levels)
        if not isinstance(left, Statistic):
            return ()
        unit = reading_unit(left.verb, left.reading, left.statistic)
        if left.statistic == "count":
            return tuple(Number(float(count), unit) for count in range(self.levels))
        levels = self.grid.get(f"{left.verb}.{left.reading}", ())
        limits = self.descriptor.capabilities[left.verb].readings.get(left.reading)
        if not levels and limits and limits[1] - limits[0] < UNBOUNDED:
            low, high = limits if left.statistic in ("mean", "max", "min") else (0.0, limits[1] - limits[0])
            levels = between(low, high, self.levels)
        return tuple(Number(float(level), unit) for level in levels)

    def compared(self, left: Expression) -> list[Expression]:
        """What a quantity may be compared with: names first."""
        return [*(value for value in self.variables if value != left), *self.thresholds(left)]

    # ---- strings to programs and back ----

    def split(self, tokens: str | Sequence[str]) -> Tokens:
        """The tokens of a string; raises ProbeGymError for one that is not in the alphabet."""
        given = tuple(tokens.split()) if isinstance(tokens, str) else tuple(tokens)
        if unknown := next((token for token in given if token not in self.tokens), None):
            raise ProbeGymError(f"{str(unknown)[:60]!r} is no token here: use {' '.join(self.tokens)}")
        return given

    def decode(self, tokens: str | Sequence[str]) -> Program:
        """The program that a string stands for; it passes ``check`` against the descriptor and costs at most ``most``."""
        return Decoder(self, self.split(tokens)).program()

    def encode(self, program: Program) -> Tokens:
        """A string for a program, quantities at their nearest levels; raises ProbeGymError for what the alphabet has no tokens for.

        What was decoded comes back the same: decode(encode(decode(tokens))) == decode(tokens).
        """
        return tuple(token for block in program.body for token in self._block(block))

    def _block(self, block: Block) -> Tokens:
        if isinstance(block, Do):
            template = self.templates.get(block.command.verb)
            if template is None:
                raise ProbeGymError(f"{block.command.verb} is not in this alphabet")
            numbers = zip(template.picks(block.command), template.slots, strict=True)
            return block.command.verb, *(digit for pick, slot in numbers for digit in digits(pick, len(slot.levels)))
        if isinstance(block, Let):
            name = Value(block.name)
            if name not in self.variables:
                raise ProbeGymError(f"{name} is not in this alphabet: its names are {', '.join(map(str, self.variables))}")
            return "let", *digits(self.variables.index(name), len(self.variables)), *self._operand(block.be)
        if isinstance(block, Repeat):
            return "repeat", *self._passes(block.times), *self._bodies(block.body)
        if isinstance(block, While):
            return "while", *self._condition(block.condition), *self._passes(block.most), *self._bodies(block.body)
        return "if", *self._condition(block.condition), *self._bodies(block.then, block.otherwise)

    def _passes(self, times: int) -> Tokens:
        if times > self.loops:
            raise ProbeGymError(f"a loop of this alphabet runs at most {self.loops} times, got {times}")
        return digits(times - 1, self.loops)

    def _bodies(self, *several: tuple[Block, ...]) -> Tokens:
        if (most := max(map(len, several))) > self.longest:
            raise ProbeGymError(f"a body of this alphabet has at most {self.longest} blocks, got {most}")
        lengths = [digit for body in several for digit in digits(len(body), self.longest + 1)]
        return *lengths, *(token for body in several for block in body for token in self._block(block))

    def _operand(self, told: Expression) -> Tokens:
        plain = Statistic(told.verb, told.reading, KINDS[0]) if isinstance(told, Statistic) else told
        if plain not in self.sources:
            raise ProbeGymError(f"{told} is not in this alphabet")
        source = digits(self.sources.index(plain), len(self.sources))
        return (*source, *digits(KINDS.index(told.statistic), len(KINDS))) if isinstance(told, Statistic) else source

    def _condition(self, condition: Compare) -> Tokens:
        choices, right = self.compared(condition.left), condition.right
        if isinstance(right, Number) and (numbers := self.thresholds(condition.left)) and numbers[0].unit == right.unit:
            right = numbers[Slot(str(condition.left), tuple(n.value for n in numbers)).nearest(right.value)]
        if right not in choices or condition.sign not in SIGNS:
            raise ProbeGymError(f"the condition {condition} is not in this alphabet")
        return *self._operand(condition.left), *digits(SIGNS.index(condition.sign), 2), *digits(choices.index(right), len(choices))

    # ---- search ----

    def random(self, length: int, rng: np.random.Generator) -> Tokens:
        """A string of so many tokens, each drawn alike."""
        return tuple(self.tokens[i] for i in rng.integers(len(self.tokens), size=length))

    def mutate(self, tokens: str | Sequence[str], rng: np.random.Generator) -> Tokens:
        """One token replaced, put in, left out, or, of a digit, moved by one."""
        given = self.split(tokens)
        at, kind = int(rng.integers(len(given) + 1)), rng.integers(4)
        if kind == 0 or at == len(given):
            return *given[:at], *self.random(1, rng), *given[at:]
        if kind == 1:
            return *given[:at], *given[at + 1 :]
        if kind == 2 and given[at] in DIGITS:
            moved = DIGITS[(int(given[at]) + int(rng.choice((-1, 1)))) % 10]
            return *given[:at], moved, *given[at + 1 :]
        return *given[:at], *self.random(1, rng), *given[at + 1 :]

    def crossover(self, one: str | Sequence[str], other: str | Sequence[str], rng: np.random.Generator) -> Tokens:
        """The head of one string and the tail of another; no longer than the longer of both."""
        head, tail = self.split(one), self.split(other)
        child = head[: rng.integers(len(head) + 1)] + tail[rng.integers(len(tail) + 1) :]
        return child[: max(len(head), len(tail))]


def digits(value: int, choices: int) -> Tokens:
    """A choice as digits, as many as the largest needs; none where there is one choice only."""
    return tuple(f"{value:0{len(str(choices - 1))}d}") if choices > 1 else ()
