"""Programs as strict JSON of one version. Nothing in it is executed when it is read.

Form: {"format": "probegym program", "version": 1, "body": [blocks]}; a block is one of

- {"do": {"verb": "AcquireImage", "arguments": {...}}}, the command as codec.py writes it
- {"let": "before", "be": {"statistic": "std", "reading": "haadf", "of": "AcquireImage"}}
- {"if": {"left": {"value": "before"}, "sign": ">", "right": {"number": 20.0, "unit": "1"}}, "then": [...], "otherwise": [...]}
- {"while": {"left": {"spent": "time"}, ...}, "most": 5, "body": [...]}, {"repeat": 3, "body": [...]}
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from probegym.errors import ProbeGymError
from probegym.hardware_bridge import codec
from probegym.hardware_bridge.codec import Json, Malformed
from probegym.hardware_bridge.programs.blocks import Block, Do, If, Let, Program, Repeat, While
from probegym.hardware_bridge.programs.expressions import Combined, Compare, Expression, Number, Spent, Statistic, Value

FORMAT, VERSION = "probegym program", 1
MOST_BLOCKS = 1000
MOST_DEPTH = 16  # of blocks in blocks, and of expressions in expressions


def dumps(program: Program) -> str:
    """The program as JSON; floats come back bit by bit."""
    return codec.dumps(to_json(program))


def loads(text: str | bytes) -> Program:
    """The program; raises Malformed, with the place in it, for what this version does not know or what is no number."""
    return from_json(codec.loads(text))


def to_json(program: Program) -> Json:
    """The program as plain dictionaries and lists."""
    return {"format": FORMAT, "version": VERSION, "body": _body_to_json(program.body)}


def from_json(content: Any) -> Program:
    """The program; raises Malformed, with the place in it."""
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise Malformed(f"this is no program: its format must be {FORMAT!r}")
    if type(content.get("version")) is not int or content["version"] != VERSION:
        raise Malformed(f"the program has version {str(content.get('version'))[:20]}, this package reads {VERSION}")
    if set(content) != {"format", "version", "body"}:
        raise Malformed("a program has format, version and body, and nothing else")
    return Program(_Reader().body(content["body"], "", 1))


# ---- writing ----


def _body_to_json(body: tuple[Block, ...]) -> list[Json]:
    return [_block_to_json(block) for block in body]


def _block_to_json(block: Block) -> Json:
    if isinstance(block, Do):
        return {"do": codec.command_to_json(block.command)}
    if isinstance(block, Repeat):
        return {"repeat": block.times, "body": _body_to_json(block.body)}
    if isinstance(block, If):
        return {"if": _condition_to_json(block.condition), "then": _body_to_json(block.then), "otherwise": _body_to_json(block.otherwise)}
    if isinstance(block, While):
        return {"while": _condition_to_json(block.condition), "most": block.most, "body": _body_to_json(block.body)}
    return {"let": block.name, "be": _expression_to_json(block.be)}


def _condition_to_json(condition: Compare) -> Json:
    return {"left": _expression_to_json(condition.left), "sign": condition.sign, "right": _expression_to_json(condition.right)}


def _expression_to_json(told: Expression) -> Json:
    if isinstance(told, Number):
        return {"number": float(told.value), "unit": told.unit}
    if isinstance(told, Statistic):
        return {"statistic": told.statistic, "reading": told.reading, "of": told.verb}
    if isinstance(told, Spent):
        return {"spent": told.cost}
    if isinstance(told, Value):
        return {"value": told.name}
    return {"operator": told.operator, "left": _expression_to_json(told.left), "right": _expression_to_json(told.right)}


# ---- reading ----


class _Reader:
    """Reads one program; counts its blocks."""

    def __init__(self) -> None:
        self.blocks = 0

    def body(self, content: Any, place: str, depth: int) -> tuple[Block, ...]:
        if not isinstance(content, list):
            raise Malformed(f"program, {place or 'body'}: a body is a list of blocks")
        if depth > MOST_DEPTH:
            raise Malformed(f"program, {place[:60]}: blocks are nested more than {MOST_DEPTH} deep")
        self.blocks += len(content)
        if self.blocks > MOST_BLOCKS:
            raise Malformed(f"a program has at most {MOST_BLOCKS} blocks")
        return tuple(self.block(entry, f"{place}.{number}" if place else str(number), depth) for number, entry in enumerate(content, 1))

    def block(self, content: Any, place: str, depth: int) -> Block:
        keys = frozenset(content) if isinstance(content, dict) else frozenset()
        readers: dict[frozenset[str], Callable[[], Block]] = {
            frozenset({"do"}): lambda: Do(codec.command_from_json(content["do"])),
            frozenset({"repeat", "body"}): lambda: Repeat(content["repeat"], self.body(content["body"], place, depth + 1)),
            frozenset({"if", "then", "otherwise"}): lambda: If(
                _condition(content["if"]),
                self.body(content["then"], f"{place}.then", depth + 1),
                self.body(content["otherwise"], f"{place}.otherwise", depth + 1),
            ),
            frozenset({"while", "most", "body"}): lambda: While(
                _condition(content["while"]), content["most"], self.body(content["body"], place, depth + 1)
            ),
            frozenset({"let", "be"}): lambda: Let(content["let"], _expression(content["be"])),
        }
        if keys not in readers:
            raise Malformed(f"program, {place}: a block is one of {'; '.join(' '.join(sorted(k)) for k in readers)}")
        try:
            return readers[keys]()
        except ProbeGymError as error:
            told = str(error)
            raise Malformed(told if told.startswith(("program, ", "a program ")) else f"program, {place}: {told}") from error


def _condition(content: Any) -> Compare:
    if not isinstance(content, dict) or set(content) != {"left", "sign", "right"}:
        raise Malformed("a condition has left, sign and right")
    return Compare(_expression(content["left"]), _text(content["sign"]), _expression(content["right"]))


def _expression(content: Any, depth: int = 1) -> Expression:
    if depth > MOST_DEPTH:
        raise Malformed(f"an expression is nested more than {MOST_DEPTH} deep")
    keys = set(content) if isinstance(content, dict) else set()
    if keys == {"number", "unit"}:
        return Number(content["number"], _text(content["unit"]))
    if keys == {"statistic", "reading", "of"}:
        return Statistic(_text(content["of"]), _text(content["reading"]), _text(content["statistic"]))
    if keys == {"spent"}:
        return Spent(_text(content["spent"]))
    if keys == {"value"}:
        return Value(_text(content["value"]))
    if keys == {"operator", "left", "right"}:
        return Combined(_expression(content["left"], depth + 1), _text(content["operator"]), _expression(content["right"], depth + 1))
    raise Malformed(
        "an expression is a number with unit, a statistic of a reading of a verb, a cost spent, a value, or two combined by an operator"
    )


def _text(content: Any) -> Any:
    if not isinstance(content, str) or len(content) > 200:
        raise Malformed(f"a name was expected, got {str(content)[:40]}")
    return content
