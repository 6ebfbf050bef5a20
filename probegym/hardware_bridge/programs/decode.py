"""Reads a string of tokens as a program; whatever the string, the program is valid."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from probegym.hardware_bridge.programs.blocks import Block, If, Let, Program, Repeat, While
from probegym.hardware_bridge.programs.check import Bill, Costs
from probegym.hardware_bridge.programs.expressions import Compare, Expression, Statistic
from probegym.hardware_bridge.programs.grid import DIGITS, KINDS, SIGNS
from probegym.hardware_bridge.programs.interchange import MOST_BLOCKS
from probegym.hardware_bridge.programs.order import Known, Order
from probegym.hardware_bridge.world import Refused

if TYPE_CHECKING:
    from probegym.hardware_bridge.programs.alphabet import Alphabet


class Decoder:
    """Reads one string from left to right and knows at every place what is allowed there."""

    def __init__(self, alphabet: Alphabet, tokens: tuple[str, ...]):
        self.alphabet, self.tokens, self.at = alphabet, tokens, 0
        self.order, self.known, self.blocks = Order(alphabet.descriptor), Known(), 0

    def program(self) -> Program:
        """The whole string."""
        return Program(self._body(len(self.tokens), 0, self.alphabet.most)[0])

    # ---- blocks: None where there would be nothing, or nothing that is allowed ----

    def _body(self, count: int, depth: int, room: Bill) -> tuple[tuple[Block, ...], Costs]:
        """The next ``count`` blocks, as far as they fit into the room that is left."""
        blocks: list[Block] = []
        total = Costs()
        while count and self._next_block():
            count -= 1
            block, cost = self._block(depth, _less(room, total))
            if block is not None:
                blocks.append(block)
                total = total.then(cost)
        return tuple(blocks), total

    def _next_block(self) -> bool:
        """Go on to the next token that begins a block; digits in between stand for nothing."""
        while self.at < len(self.tokens) and self.tokens[self.at] in DIGITS:
            self.at += 1
        return self.at < len(self.tokens) and self.blocks < MOST_BLOCKS

    def _block(self, depth: int, room: Bill) -> tuple[Block | None, Costs]:
        token, before = self.tokens[self.at], (self.known, dict(self.order.units), self.blocks)
        self.at += 1
        self.blocks += 1
        block, cost = self._read(token, depth, room)
        if block is not None and cost is not None and _fits(cost, room):
            try:
                self.known = self.order.block(block, "", before[0])
                return block, cost
            except Refused:
                pass  # what it needs does not hold here
        self.known, self.order.units, self.blocks = before
        return None, Costs()

    def _read(self, token: str, depth: int, room: Bill) -> tuple[Block | None, Costs | None]:
        if token in self.alphabet.templates:
            slots = self.alphabet.templates[token].slots
            return self.alphabet.made(token, tuple(self._choice(len(slot.levels), slot.default) for slot in slots))
        if token == "let":
            return self._let(), Costs()
        if depth == self.alphabet.depth:
            return None, None
        return self._if(depth, room) if token == "if" else self._loop(token, depth, room)

    def _let(self) -> Let | None:
        name = self.alphabet.variables[self._choice(len(self.alphabet.variables))].name if self.alphabet.variables else ""
        told = self._operand()
        return Let(name, told) if name and told is not None else None

    def _if(self, depth: int, room: Bill) -> tuple[If | None, Costs]:
        condition = self._condition()
        if condition is None:
            return None, Costs()
        lengths = [self._choice(self.alphabet.longest + 1, default) for default in (1, 0)]
        known = self.known
        then, one = self._body(lengths[0], depth + 1, room)
        self.known = known
        otherwise, other = self._body(lengths[1], depth + 1, room)
        return If(condition, then, otherwise) if then or otherwise else None, one.either(other)

    def _loop(self, token: str, depth: int, room: Bill) -> tuple[Repeat | While | None, Costs]:
        condition = self._condition() if token == "while" else None
        if token == "while" and condition is None:
            return None, Costs()
        times = 1 + self._choice(self.alphabet.loops, min(1, self.alphabet.loops - 1))
        share = Bill(room.seconds / times, room.dose / times, room.changes // times, room.commands // times)
        body, cost = self._body(self._choice(self.alphabet.longest + 1, 1), depth + 1, share)
        if not body:
            return None, Costs()
        return Repeat(times, body) if condition is None else While(condition, times, body), cost.times(times)

    # ---- numbers ----

    def _condition(self) -> Compare | None:
        left = self._operand()
        if left is None:
            return None
        sign, choices = SIGNS[self._choice(len(SIGNS))], self.alphabet.compared(left)
        unit = self.order.unit(left, "", self.known)
        right = self._available(choices, unit)
        return None if right is None else Compare(left, sign, right)

    def _operand(self) -> Expression | None:
        source = self._available(self.alphabet.sources)
        return replace(source, statistic=KINDS[self._choice(len(KINDS))]) if isinstance(source, Statistic) else source

    def _available(self, choices: list[Expression], unit: str | None = None) -> Expression | None:
        """The choice of the next digits, or the next one after it that has a value here, in this unit."""
        if not choices:
            return None
        first = self._choice(len(choices))
        for choice in choices[first:] + choices[:first]:
            try:
                if unit in (None, self.order.unit(choice, "", self.known)):
                    return choice
            except Refused:
                pass  # no value on every path to here
        return None

    def _choice(self, choices: int, default: int = 0) -> int:
        """The next digits as a number below ``choices``; what they exceed it by begins again at 0."""
        if choices <= 1:
            return 0
        width, found = len(str(choices - 1)), ""
        while len(found) < width and self.at < len(self.tokens) and self.tokens[self.at] in DIGITS:
            found += self.tokens[self.at]
            self.at += 1
        return int(found) % choices if found else default


def _less(room: Bill, cost: Costs) -> Bill:
    spent = cost.bill()
    return Bill(room.seconds - spent.seconds, room.dose - spent.dose, room.changes - spent.changes, room.commands - spent.commands)


def _fits(cost: Costs, room: Bill) -> bool:
    needs = cost.bill()
    return needs.seconds <= room.seconds and needs.dose <= room.dose and needs.changes <= room.changes and needs.commands <= room.commands
