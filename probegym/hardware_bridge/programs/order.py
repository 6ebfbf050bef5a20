"""What must have happened before a block may run: readings, names, and the state of beam and tip, on every path to it.

An instrument that was armed stands blanked, its tip withdrawn; a program may take it that the beam can expose and the tip can land, until
commands change that as LEAVES says.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from probegym.hardware_bridge import codec
from probegym.hardware_bridge.capabilities import Descriptor, per_component
from probegym.hardware_bridge.commands import BlankBeam, Command
from probegym.hardware_bridge.programs.blocks import Block, Do, If, Let, Repeat, While, placed
from probegym.hardware_bridge.programs.expressions import Combined, Compare, Expression, Number, Spent, Statistic
from probegym.hardware_bridge.programs.quantities import COSTS, quantity, reading_unit
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

AFTER = {"ScanLine": "SetFeedback", "TestFeedback": "ScanLine"}
"""Verb -> verb that must have come before it: no line at a setpoint that nobody chose, no relay before the tip is at the surface."""

LEAVES = {"Withdraw": ("tip", "withdrawn"), "Approach": ("tip", "at the surface")}
"""Verb -> how it leaves what; BlankBeam by its argument."""


@dataclass(frozen=True)
class Known:
    """What holds on every path to a place. done: verbs that were carried out. readings: (verb, name) that were returned.

    values: names that were given. states: every (control, state) that some path leaves. last: (control, identity) of every command that may have set a control last.
    """

    done: frozenset[str] = frozenset()
    readings: frozenset[tuple[str, str]] = frozenset()
    values: frozenset[str] = frozenset()
    states: frozenset[tuple[str, str]] = frozenset({("tip", "at the surface"), ("beam", "on the sample")})
    last: frozenset[tuple[str, int]] = frozenset()

    def joined(self, other: Known) -> Known:
        """Where two paths meet."""
        done, readings, values = self.done & other.done, self.readings & other.readings, self.values & other.values
        return Known(done, readings, values, self.states | other.states, self.last | other.last)


class Order:
    """Follows every path through blocks. ``units`` grows: unit of every name that was given."""

    def __init__(self, descriptor: Descriptor):
        self.descriptor = descriptor
        self.needs = NEEDS | (NEEDS_OF_TIPS if descriptor.kind in ("afm", "stm") else {})
        self.units: dict[str, str] = {}
        self._set: dict[tuple[str, int], tuple[Command, np.ndarray]] = {}  # what a command sets a control to
        self._seen: dict[tuple[int, Known], tuple[Block, Known]] = {}  # the block too, so that its identity stays its own

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
            self._seen[key] = block, self._branches(block, place, known)
        return self._seen[key][1]

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
        if verb in AFTER and AFTER[verb] not in known.done:
            raise Refused(f"program, {place}: {verb} needs {AFTER[verb]} before it, on every path to here")
        known = replace(self._moved_controls(command, place, known), done=known.done | {verb})
        if isinstance(command, BlankBeam):
            known = _moved(known, "beam", "blanked" if command.blanked else "on the sample")
        elif verb in LEAVES:
            known = _moved(known, *LEAVES[verb])
        if returned := command.returns():
            known = replace(known, readings=known.readings | {(verb, name) for name in returned})
        return known

    def _moved_controls(self, command: Command, place: str, known: Known) -> Known:
        """Steps are checked against what may have been set last; where a control stood at first, only the instrument knows."""
        if command.verb == "AutoTune":
            return replace(known, last=frozenset())  # it leaves controls where it likes
        capability = self.descriptor.capabilities[command.verb]
        for name, control in capability.reads_back.items():
            if name not in capability.ranges:
                continue
            asked, step = np.asarray(getattr(command, name), float), capability.ranges[name].step
            before = frozenset(of for of in known.last if of[0] == control)
            if step is not None:
                most = per_component(step, asked, f"{command.verb}.{name}")
                for far in (np.abs(asked - self._set[of][1]) for of in before):
                    if (beyond := ~(far <= most * (1 + 1e-9))).any():
                        told, allowed = (quantity(n[beyond].flat[0], codec.ARGUMENTS[command.verb][name][1] or "1") for n in (far, most))
                        raise Refused(
                            f"program, {place}: {command.verb}.{name} would move by {told}, at most {allowed} at once: go there in steps"
                        )
            self._set[control, id(command)] = command, asked
            known = replace(known, last=known.last - before | {(control, id(command))})
        return known

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
        """Unit of an expression. Raises Refused for a value or reading that not every path has given."""
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
