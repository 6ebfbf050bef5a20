"""ONNX files read field by field, without the ``onnx`` package: anything that a plain graph of tensors does not need is refused by name.

Numbers and kinds of the fields are those of onnx.proto (github.com/onnx/onnx, IR version 13); the bytes are protobuf's wire format
(protobuf.dev/programming-guides/encoding). A message becomes a dict; fields that are absent are absent there. Two readers of one
file must not see two different graphs, so a field that comes twice where one is meant is refused instead of merged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]

MAXIMUM_FIELDS = 300_000
"""Of a whole file. The largest policy that ships has about 15,000."""

VARINT, BYTES, FIXED32 = 0, 2, 5  # wire types; no field that is read is of another


class Unfit(ValueError):
    """Why a file is no policy, in some words, and how to mend it."""

    def __init__(self, reason: str, mend: str = "export or reinstall it"):
        super().__init__(reason)
        self.mend = mend


@dataclass(frozen=True)
class Field:
    """One field: its name, its kind ("int", "real", "bytes", "text", "packed", or a message), and whether it may come many times."""

    name: str
    kind: str
    many: bool = False


FIELDS: dict[str, dict[int, Field]] = {
    "ModelProto": {
        1: Field("ir_version", "int"), 2: Field("producer_name", "text"), 3: Field("producer_version", "text"), 4: Field("domain", "text"),
        5: Field("model_version", "int"), 6: Field("doc_string", "text"), 7: Field("graph", "GraphProto"),
        8: Field("opset_import", "OperatorSetIdProto", True), 14: Field("metadata_props", "StringStringEntryProto", True),
    },
    "OperatorSetIdProto": {1: Field("domain", "text"), 2: Field("version", "int")},
    "StringStringEntryProto": {1: Field("key", "text"), 2: Field("value", "text")},
    "GraphProto": {
        1: Field("node", "NodeProto", True), 2: Field("name", "text"), 5: Field("initializer", "TensorProto", True), 10: Field("doc_string", "text"),
        11: Field("input", "ValueInfoProto", True), 12: Field("output", "ValueInfoProto", True), 13: Field("value_info", "ValueInfoProto", True),
        16: Field("metadata_props", "StringStringEntryProto", True),
    },
    "NodeProto": {
        1: Field("input", "text", True), 2: Field("output", "text", True), 3: Field("name", "text"), 4: Field("op_type", "text"),
        5: Field("attribute", "AttributeProto", True), 6: Field("doc_string", "text"), 7: Field("domain", "text"),
        9: Field("metadata_props", "StringStringEntryProto", True),
    },
    "AttributeProto": {
        1: Field("name", "text"), 2: Field("f", "real"), 3: Field("i", "int"), 4: Field("s", "bytes"), 5: Field("t", "TensorProto"),
        7: Field("floats", "reals", True), 8: Field("ints", "int", True), 9: Field("strings", "bytes", True), 13: Field("doc_string", "text"),
        20: Field("type", "int"),
    },
    "TensorProto": {
        1: Field("dims", "int", True), 2: Field("data_type", "int"), 4: Field("float_data", "packed"), 5: Field("int32_data", "int", True),
        7: Field("int64_data", "int", True), 8: Field("name", "text"), 9: Field("raw_data", "bytes"), 10: Field("double_data", "packed"),
        12: Field("doc_string", "text"), 14: Field("data_location", "int"), 16: Field("metadata_props", "StringStringEntryProto", True),
    },
    "ValueInfoProto": {
        1: Field("name", "text"), 2: Field("type", "TypeProto"), 3: Field("doc_string", "text"), 4: Field("metadata_props", "StringStringEntryProto", True),
    },
    "TypeProto": {1: Field("tensor_type", "Tensor"), 6: Field("denotation", "text")},
    "Tensor": {1: Field("elem_type", "int"), 2: Field("shape", "TensorShapeProto")},
    "TensorShapeProto": {1: Field("dim", "Dimension", True)},
    "Dimension": {1: Field("dim_value", "int"), 2: Field("dim_param", "text"), 3: Field("denotation", "text")},
}  # fmt: skip
"""Everything that is understood."""

REFUSED: dict[tuple[str, int], str] = {
    ("ModelProto", 20): "training steps", ("ModelProto", 25): "functions of its own", ("GraphProto", 14): "quantisation notes",
    ("GraphProto", 15): "sparse weights", ("AttributeProto", 6): "a graph inside an operator", ("AttributeProto", 11): "graphs inside an operator",
    ("AttributeProto", 21): "references to functions", ("AttributeProto", 22): "sparse weights", ("TensorProto", 3): "weights in segments",
    ("TensorProto", 6): "texts as values", ("TensorProto", 13): "weights in another file (external data)", ("TypeProto", 4): "sequences",
    ("TypeProto", 5): "maps", ("TypeProto", 8): "sparse values", ("TypeProto", 9): "optional values",
}  # fmt: skip
"""Known fields that no policy needs, for a clear answer; others are named by their number."""


def parse(content: bytes) -> Message:
    """The file as nested dicts; bytes of tensors as memoryviews of ``content``. Raises Unfit."""
    try:
        return _Reader().message(memoryview(content), "ModelProto")
    except IndexError:
        raise Unfit("the ONNX file ends in the middle") from None
    except UnicodeDecodeError:
        raise Unfit("the ONNX file holds a name that is no text") from None


class _Reader:
    """Counts what it reads, so that a small file cannot keep it busy."""

    def __init__(self) -> None:
        self.left = MAXIMUM_FIELDS

    def message(self, view: memoryview, kind: str) -> Message:
        known, at = FIELDS[kind], 0
        found: Message = {}
        while at < len(view):
            tag, at = self._varint(view, at)
            field, wire = known.get(tag >> 3), tag & 7
            if field is None:
                what = REFUSED.get((kind, tag >> 3), f"field {tag >> 3} of {kind}")
                raise Unfit(f"the ONNX file holds {what}, which no policy needs")
            value, at = self._value(view, at, wire, field)
            if field.many:
                held = found.setdefault(field.name, [])
                held.extend(value) if isinstance(value, list) else held.append(value)
            elif field.name in found:
                raise Unfit(f"the ONNX file gives {field.name} of {kind} twice")
            else:
                found[field.name] = value
        return found

    def _value(self, view: memoryview, at: int, wire: int, field: Field) -> tuple[Any, int]:
        if field.kind == "int" and wire == VARINT:
            number, at = self._varint(view, at)
            return _signed(number), at
        if field.kind in ("real", "reals") and wire == FIXED32:
            return _piece(view, at, 4)
        if wire != BYTES or field.kind == "real" or (field.kind == "int" and not field.many):
            raise Unfit(f"the ONNX file gives {field.name} as something else than it is")
        size, at = self._varint(view, at)
        inner, at = _piece(view, at, size)
        if field.kind == "int":
            return self._integers(inner), at
        if field.kind == "text":
            return str(inner, "utf-8"), at
        return (inner if field.kind in ("bytes", "packed", "reals") else self.message(inner, field.kind)), at

    def _integers(self, view: memoryview) -> list[int]:
        numbers, at = [], 0
        while at < len(view):
            number, at = self._varint(view, at)
            numbers.append(_signed(number))
        return numbers

    def _varint(self, view: memoryview, at: int) -> tuple[int, int]:
        self.left -= 1
        if self.left < 0:
            raise Unfit(f"the ONNX file has more than {MAXIMUM_FIELDS} fields")
        number = 0
        for shift in range(0, 70, 7):
            byte = view[at]
            at += 1
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                if number >= 2**64:
                    break
                return number, at
        raise Unfit("the ONNX file holds a number that is too long")


def _piece(view: memoryview, at: int, size: int) -> tuple[memoryview, int]:
    if size > len(view) - at:
        raise IndexError
    return view[at : at + size], at + size


def _signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number
