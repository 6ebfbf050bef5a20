"""YAML files as people write them, read strictly: what is ambiguous is refused, and every entry knows its line.

Scalars are those of YAML 1.2's core schema: ``10e-9`` is a number, ``010`` is ten, ``1:30`` and ``no`` are text. A key that stands twice is
refused, and so are a file that its aliases would blow up, what contains itself, NUL characters, and what is no ordinary file.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any, ClassVar

import yaml
from pydantic import ValidationError

from probegym.errors import ProbeGymError

PLAIN = "give a plain number in SI units"
MOST_ENTRIES = 100_000  # aliases written out
LONGEST_NUMBER = 400  # digits
DEEPEST = 50  # entries inside of entries

Lines = dict[tuple[str, ...], int]
"""Path of an entry -> its line, from 1."""


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML comes without types
    """Safe YAML with the scalars of version 1.2."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > DEEPEST:
            raise yaml.YAMLError(f"line {self.peek_event().start_mark.line + 1}: nested deeper than {DEEPEST}")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^[-+]?[0-9]+$", "-+0123456789"),
    ("float", r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$", "-+.0123456789"),
    ("null", r"^(?:~|null|Null|NULL|)$", "~nN\0"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), [*_first.replace("\0", ""), *([""] if "\0" in _first else [])])
_Loader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile(r"^<<$"), ["<"])


def _whole(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = str(node.value)
    if len(text) > LONGEST_NUMBER:
        raise yaml.YAMLError(f"line {_line(node)}: a number of {len(text)} digits")
    return int(text)


_Loader.add_constructor("tag:yaml.org,2002:int", _whole)


def read(path: Path, what: str, most: int) -> tuple[Any, Lines]:
    """The content of a YAML or JSON file, and the line of every entry. what: kind of file, for messages; most: bytes.

    Raises ProbeGymError, with the line where there is one.
    """
    content = _content(path, what, most)
    try:
        loader = _Loader(content.decode("utf-8"))
        node = loader.get_single_node()
        if node is None:
            raise ProbeGymError(f"{what} {path} is empty: write its entries into it")
        lines: Lines = {}
        _look_at(node, (), lines, [0])
        return loader.construct_document(node), lines
    except yaml.reader.ReaderError as error:
        told = f"line {content.decode('utf-8')[: error.position].count(chr(10)) + 1}: the character U+{error.character:04X}, save it as plain text"
    except UnicodeDecodeError as error:
        told = f"line {content[: error.start].count(10) + 1}: no UTF-8, save it as such"
    except yaml.YAMLError as error:
        told = " ".join(str(error).split())[:300]
    raise ProbeGymError(f"{what} {path} is not valid YAML ({told})")


def read_mapping(path: Path, what: str, most: int) -> tuple[dict[str, Any], Lines]:
    """The same of a file whose entries have names; raises ProbeGymError where they have none."""
    table, lines = read(path, what, most)
    if not isinstance(table, dict):
        raise ProbeGymError(f"{what} {path}, line {lines[()]}: its entries have no names, write 'name: value'")
    return table, lines


def _content(path: Path, what: str, most: int) -> bytes:
    try:
        with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb") as file:  # a FIFO would wait for a writer
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ProbeGymError(f"{what} {path} is no ordinary file: give one")
            content = file.read(most + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise ProbeGymError(f"cannot read {what} {str(path)!r} ({getattr(error, 'strerror', error)}): check the path") from error
    if len(content) > most:
        raise ProbeGymError(f"{what} {path} is larger than {most} bytes: split it")
    return content


def complaint(error: ValidationError) -> tuple[str, str]:
    """One of pydantic's complaints, an unknown entry before others: path of the entry, and what is wrong with it."""
    every = error.errors(include_url=False)
    first = next((one for one in every if one["type"] == "extra_forbidden"), every[0])
    entry, told = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        told = "there is no such entry: leave it out, or check its spelling"
    elif first["type"] in ("float_parsing", "float_type"):
        told = f"{PLAIN}, got {str(first['input'])[:40]!r}"
    elif first["type"] in ("tuple_type", "list_type"):
        told = f"write a list, [{str(first['input'])[:40]}]"
    return entry, told


def nearest(lines: Lines, entry: tuple[str, ...]) -> int:
    """The line of an entry, or of the nearest above it that is written."""
    return next((lines[entry[:n]] for n in range(len(entry), -1, -1) if entry[:n] in lines), 1)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _look_at(node: yaml.Node, path: tuple[str, ...], lines: Lines, seen: list[int]) -> None:
    """Note the lines of a node and of all below it. Raises YAMLError."""
    lines.setdefault(path, _line(node))
    seen[0] += 1
    if seen[0] > MOST_ENTRIES:
        raise yaml.YAMLError(f"line {_line(node)}: more than {MOST_ENTRIES} entries once its aliases are written out")
    if len(path) > DEEPEST:
        raise yaml.YAMLError(f"line {_line(node)}: contains itself, or is nested deeper than {DEEPEST} once its aliases are written out")
    if isinstance(node, yaml.ScalarNode) and "\0" in node.value:
        raise yaml.YAMLError(f"line {_line(node)}: the text {node.value[:40]!r} holds a NUL character")
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _look_at(item, (*path, str(index)), lines, seen)
    elif isinstance(node, yaml.MappingNode):
        known = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or "\0" in key.value:
                raise yaml.YAMLError(f"line {_line(key)}: a key must be plain text")
            name = str(key.value)
            if name in known:
                raise yaml.YAMLError(f"line {_line(key)}: the key {name!r} stands twice")
            known.add(name)
            lines[*path, name] = _line(key)
            _look_at(value, (*path, name), lines, seen)
