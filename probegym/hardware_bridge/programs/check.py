"""Programs are checked before anything runs: arguments, order, and what they cost at worst over all paths."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from probegym.errors import ProbeGymError
from probegym.hardware_bridge import codec
from probegym.hardware_bridge.capabilities import Descriptor
from probegym.hardware_bridge.commands import Command
from probegym.hardware_bridge.guard.checks import Site, regions, well_formed
from probegym.hardware_bridge.guard.ledger import Region
from probegym.hardware_bridge.programs.blocks import Block, Do, If, Let, Program, Repeat, While, bodies, placed
from probegym.hardware_bridge.programs.expressions import Combined, Compare, Expression
from probegym.hardware_bridge.programs.interchange import MOST_BLOCKS, MOST_DEPTH
from probegym.hardware_bridge.programs.order import Known, Order
from probegym.hardware_bridge.world import Refused

ORIGIN = Site(np.zeros(2), np.zeros(2))
ELSEWHERE = ("MoveStage", "ShiftBeam")  # after these, a place is not the place it was


@dataclass(frozen=True)
class Bill:
    """What a program costs at worst. seconds; dose in electrons per square Angstrom at the place that gets most; changes:
    irreversible commands; commands: how many are sent.
    """

    seconds: float
    dose: float
    changes: int
    commands: int

    def within(self, most: Bill) -> str | None:
        """What is more than ``most`` allows, in words; None where nothing is."""
        for name in ("seconds", "dose", "changes", "commands"):
            needs, allowed = getattr(self, name), getattr(most, name)
            if not needs <= allowed * (1 + 1e-9):
                return f"costs up to {needs:.6g} {name}, {allowed:.6g} are allowed"
        return None


def check(program: Program, descriptor: Descriptor, most: Bill | None = None, at: Site = ORIGIN) -> Bill:
    """What a program costs at worst; raises Refused, with the place in the program, for what an instrument cannot do or may not.

    Checked are arguments (type, unit, range), order (order.py), and ``most``, what it may cost. at: where stage and beam stand.
    A program that moves stage or beam is billed as if all its exposures were at one place.
    """
    _small(program)
    order, still = Order(descriptor), not any(isinstance(b, Do) and b.command.verb in ELSEWHERE for b in every(program.body))
    known, total = Known(), Costs()
    for place, block in placed(program.body, ""):
        cost = costs(block, place, descriptor, at if still else None)
        known = order.block(block, place, known)
        total = total.then(cost)
        if most is not None and (beyond := total.bill().within(most)):
            raise Refused(f"program, {place}: up to here it {beyond}")
    return total.bill()


# ---- cost ----


@dataclass(frozen=True)
class Costs:
    """Worst case of some blocks, with the dose of every region."""

    seconds: float = 0.0
    doses: dict[Region, float] = field(default_factory=dict)
    changes: int = 0
    commands: int = 0

    def then(self, other: Costs) -> Costs:
        """Both, one after the other."""
        doses = self.doses | {r: self.doses.get(r, 0.0) + dose for r, dose in other.doses.items()}
        return Costs(self.seconds + other.seconds, doses, self.changes + other.changes, self.commands + other.commands)

    def either(self, other: Costs) -> Costs:
        """One of both, whichever is worse in each respect."""
        doses = {r: max(self.doses.get(r, 0.0), other.doses.get(r, 0.0)) for r in chain(self.doses, other.doses)}
        return Costs(max(self.seconds, other.seconds), doses, max(self.changes, other.changes), max(self.commands, other.commands))

    def times(self, count: int) -> Costs:
        """So many in a row."""
        return Costs(self.seconds * count, {r: dose * count for r, dose in self.doses.items()}, self.changes * count, self.commands * count)

    def bill(self) -> Bill:
        """Without the map of regions."""
        return Bill(self.seconds, max(self.doses.values(), default=0.0), self.changes, self.commands)


def costs(block: Block, place: str, descriptor: Descriptor, at: Site | None) -> Costs:
    """Worst case of a block; raises Refused where an argument is wrong. at: None bills all dose to one place."""
    if isinstance(block, Do):
        return _cost_of(block.command, place, descriptor, at)
    if isinstance(block, Let):
        return Costs()
    parts = []
    for suffix, body in bodies(block):
        total = Costs()
        for inner, each in placed(body, place + suffix):
            total = total.then(costs(each, inner, descriptor, at))
        parts.append(total)
    if isinstance(block, If):
        return parts[0].either(parts[1])
    return parts[0].times(block.times if isinstance(block, Repeat) else block.most)


def _cost_of(command: Command, place: str, descriptor: Descriptor, at: Site | None) -> Costs:
    try:
        _shaped(command)
        descriptor.check(command)
        charge = descriptor.worst_case(command)
        where = regions(command, descriptor, ORIGIN if at is None else at) if charge.dose else []
    except ProbeGymError as error:
        raise Refused(f"program, {place}: {error}") from error
    if at is None and where:
        where = [(0, 0)]
    return Costs(charge.seconds, dict.fromkeys(where, charge.dose), charge.changes, 1)


def _shaped(command: Command) -> None:
    """Raise Refused for a command whose arguments are not of the language's types, or not of one lane."""
    try:
        well_formed(codec.command_to_json(command))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Refused(f"{command.verb} is no command of the language ({type(error).__name__})") from error


# ---- size ----


def every(body: tuple[Block, ...]) -> list[Block]:
    """All blocks, those in blocks too; raises Refused where there are too many or they are nested too deeply."""
    found, level = [], list(body)
    for _ in range(MOST_DEPTH):
        found += level
        level = [inner for block in level for _, each in bodies(block) for inner in each]
        if len(found) > MOST_BLOCKS:
            raise Refused(f"a program has at most {MOST_BLOCKS} blocks")
    if level:
        raise Refused(f"blocks of a program are nested at most {MOST_DEPTH} deep")
    return found


def _small(program: Program) -> None:
    for block in every(program.body):
        if isinstance(block, Repeat | While) and not block.body:
            raise Refused("a loop of the program has no body")
        if isinstance(block, If | While):
            _shallow(block.condition)
        elif isinstance(block, Let):
            _shallow(block.be)


def _shallow(told: Expression | Compare) -> None:
    level: list[Expression | Compare] = [told]
    for _ in range(MOST_DEPTH + isinstance(told, Compare)):
        level = [side for each in level if isinstance(each, Combined | Compare) for side in (each.left, each.right)]
        if len(level) > MOST_BLOCKS:
            break
    if level:
        raise Refused(f"expressions of a program are nested at most {MOST_DEPTH} deep")
