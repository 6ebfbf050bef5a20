"""What must have happened before a block may run: readings, names, and the state of beam and tip, on every path to it.

An instrument that was armed stands with the beam on the sample and the tip at the surface; commands change that as LEAVES says.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from probegym.hardware_bridge import codec
from probegym.hardware_bridge.capabilities import Descriptor, per_component
from probegym.hardware_bridge.commands import BlankBeam, Command
from probegym.hardware_bridge.programs.blocks import Block, Combined, Compare, Do, Expression, If, Let, Number, Repeat, Spent, Statistic, While, placed
from probegym.hardware_bridge.programs.quantities import COSTS, reading_unit
from probegym.hardware_bridge.world import Refused

NEEDS = {
    "Approach": ("tip", "withdrawn", "Withdraw first"),
    **{
        verb: ("tip", "at the surface", "Approach first")
        for verb in ("AcquireTopograph", "DipTip", "DragTip", "LocateAdatoms", "MoveTip", "PulseBias", "ScanLine", "TestFeedback")
    },
    **{
        verb: ("beam", "on the sample", "BlankBeam with blanked false first")
        for verb in ("AcquireImage", "AcquireRonchigram", "AcquireSpectrum", "AutoTune", "ClassifyAtoms", "LocateAtoms", "PlaceProbe")
    },
}
"""Verb -> what must stand how before it, and how to bring it there."""

NEEDS_OF_TIPS = {"MoveStage": ("tip", "withdrawn", "Withdraw first")}
"""The same where the probe is a tip: no coarse motion with the tip at the surface."""

LEAVES = {"Withdraw": ("tip", "withdrawn"), "Approach": ("tip", "at the surface")}
"""Verb -> how it leaves what; BlankBeam by its argument."""


@dataclass(frozen=True)
class Known:
    """What holds on every path to a place. readings: (verb, name) that were returned. values: names that were given.

    states: every (control, state) that some path leaves. last: per verb every command that may have been its last, as (verb, identity).
    """

    readings: frozenset[tuple[str, str]] = frozenset()
    values: frozenset[str] = frozenset()
    states: frozenset[tuple[str, str]] = frozenset({("tip", "at the surface"), ("beam", "on the sample")})
    last: frozenset[tuple[str, int]] = frozenset()

    def joined(self, other: Known) -> Known:
        """Where two paths meet."""
        return Known(self.readings & other.readings, self.values & other.values, self.states | other.states, self.last | other.last)


class Order:
    """Follows every path through blocks. ``units`` grows: unit of every name that was given."""

    def __init__(self, descriptor: Descriptor):
        self.descriptor = descriptor
        self.needs = NEEDS | (NEEDS_OF_TIPS if descriptor.kind in ("afm", "stm") else {})
        self.units: dict[str, str] = {}
        self._commands: dict[int, Command] = {}
        self._steps = {
            verb: [name for name, allowed in capability.ranges.items() if allowed.step is not None]
            for verb, capability in descriptor.capabilities.items()
        }
        self._seen: dict[tuple[int, Known], Known] = {}

    def body(self, blocks: tuple[Block, ...], place: str, known: Known) -> Known:
        """What is known after a body; raises Refused with the place of the first block that came too early."""
        for where, block in placed(blocks, place):
            known = self.block(block, where, known)
        return known

    def block(self, block: Block, place: str, known: Known) -> Known:
        """What is known after a block."""
        if isinstance(block, Do):
            return self._do(block.command, place, known)
        if isinstance(block, Let):
            return self._let(block, place, known)
        key = (id(block), known)  # a loop in loops meets the same again and again
        if key not in self._seen:
            self._seen[key] = self._branches(block, place, known)
        return self._seen[key]

    def _branches(self, block: If | Repeat | While, place: str, known: Known) -> Known:
        if isinstance(block, Repeat):
            for _ in range(block.times):
                before, known = known, self.body(block.body, place, known)
                if known == before:
                    break
            return known
        self.condition(block.condition, place, known)
        if isinstance(block, If):
            return self.body(block.then, f"{place}.then", known).joined(self.body(block.otherwise, f"{place}.otherwise", known))
        for _ in range(block.most):
            before, known = known, known.joined(self.body(block.body, place, known))
            if known == before:
                break
        return known

    def _do(self, command: Command, place: str, known: Known) -> Known:
        verb = command.verb
        if verb in self.needs:
            control, needed, mend = self.needs[verb]
            if (control, needed) not in known.states or len(_states(known, control)) > 1:
                found = " or ".join(sorted(state for _, state in _states(known, control)))
                raise Refused(f"program, {place}: {verb} needs the {control} {needed}, here it is {found}: {mend}")
        if steps := self._steps.get(verb):
            self._in_steps(command, steps, place, known)
            self._commands[id(command)] = command
            known = replace(known, last=frozenset(of for of in known.last if of[0] != verb) | {(verb, id(command))})
        if isinstance(command, BlankBeam):
            known = _moved(known, "beam", "blanked" if command.blanked else "on the sample")
        elif verb in LEAVES:
            known = _moved(known, *LEAVES[verb])
        if returned := command.returns():
            known = replace(known, readings=known.readings | {(verb, name) for name in returned})
        return known

    def _in_steps(self, command: Command, names: Iterable[str], place: str, known: Known) -> None:
        """Against every command that may have been the last of its verb; where the control stood at first, only the instrument knows."""
        for verb, identity in known.last:
            if verb != command.verb:
                continue
            for name in names:
                unit = codec.ARGUMENTS[verb][name][1]
                asked, stood = (np.asarray(getattr(c, name), float) for c in (command, self._commands[identity]))
                step = self.descriptor.capabilities[verb].ranges[name].step
                assert step is not None
                beyond = ~(np.abs(asked - stood) <= per_component(step, asked, name) * (1 + 1e-9))
                if beyond.any():
                    far, most = np.abs(asked - stood)[beyond].flat[0], per_component(step, asked, name)[beyond].flat[0]
                    raise Refused(f"program, {place}: {verb}.{name} would move by {far:.4g} {unit}, at most {most:.4g} at once: go there in steps")

    def _let(self, block: Let, place: str, known: Known) -> Known:
        unit = self.unit(block.be, place, known)
        if (held := self.units.setdefault(block.name, unit)) != unit:
            raise Refused(f"program, {place}: {block.name} is in {held} and would get {unit}: use another name")
        return replace(known, values=known.values | {block.name})

    # ---- numbers ----

    def condition(self, condition: Compare, place: str, known: Known) -> None:
        """Raise Refused where the sides of a condition are of different units, or not known on every path."""
        left, right = (self.unit(side, place, known) for side in (condition.left, condition.right))
        if left != right:
            raise Refused(f"program, {place}: {condition} compares {left} with {right}")

    def unit(self, told: Expression, place: str, known: Known) -> str:
        """Unit of an expression."""
        if isinstance(told, Number):
            return told.unit
        if isinstance(told, Spent):
            return COSTS[told.cost]
        if isinstance(told, Statistic):
            if (told.verb, told.reading) not in known.readings:
                raise Refused(f"program, {place}: {told.reading} of {told.verb} is used, and not every path to here has returned it")
            return reading_unit(told.verb, told.reading, told.statistic)
        if isinstance(told, Combined):
            return self._combined(told, place, self.unit(told.left, place, known), self.unit(told.right, place, known))
        if told.name not in known.values:
            raise Refused(f"program, {place}: {told.name} is used, and not every path to here gives it a value")
        return self.units[told.name]

    @staticmethod
    def _combined(told: Combined, place: str, left: str, right: str) -> str:
        if told.operator == "*" and "1" in (left, right):
            return right if left == "1" else left
        if told.operator == "/" and right in (left, "1"):
            return left if right == "1" else "1"
        if told.operator in "+-" and left == right:
            return left
        raise Refused(f"program, {place}: {told} would combine {left} and {right}")


def _states(known: Known, control: str) -> frozenset[tuple[str, str]]:
    return frozenset(state for state in known.states if state[0] == control)


def _moved(known: Known, control: str, state: str) -> Known:
    return replace(known, states=known.states - _states(known, control) | {(control, state)})
