"""ONNX files are read as the ``onnx`` package reads them, or refused; what reading them needs, and what it lets through."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from probegym.agents.bundle import shipped
from probegym.hardware_bridge.deployment import onnx_file
from probegym.hardware_bridge.deployment.bundle import read
from probegym.hardware_bridge.deployment.graph import OPERATORS, Signature, check
from probegym.hardware_bridge.deployment.inference import Inference
from probegym.hardware_bridge.deployment.onnx_file import FIELDS, REFUSED, Unfit, parse
from tests import bundles
from tests.helpers import python


def test_reading_needs_neither_torch_nor_onnx():
    code = "import sys; from probegym.hardware_bridge.deployment.bundle import read; read(sys.argv[1]); print(*sorted(sys.modules))"
    loaded = set(python(code, shipped()["stem-tuning-ronchigram"]).split())
    assert not {"torch", "onnx", "onnxruntime", "stable_baselines3", "abtem", "google.protobuf", "probegym.agents"} & loaded


def test_field_numbers_are_those_of_onnx():
    messages = {kind: getattr(onnx, kind) for kind in FIELDS if hasattr(onnx, kind)}
    messages |= {"Tensor": onnx.TypeProto.Tensor, "Dimension": onnx.TensorShapeProto.Dimension}
    assert set(messages) == set(FIELDS)
    for kind, message in messages.items():
        theirs = {number: field.name for number, field in message.DESCRIPTOR.fields_by_number.items()}
        for number, field in FIELDS[kind].items():
            of = message.DESCRIPTOR.fields_by_number[number]
            assert theirs[number] == field.name
            if of.message_type is not None:
                assert of.message_type.name == field.kind
        assert all(number in theirs for of, number in REFUSED if of == kind)


def names(graph) -> list:
    return [[n.op_type, n.domain, list(n.input), list(n.output), [(a.name, list(a.ints)) for a in n.attribute]] for n in graph.node]


def own_names(content: dict) -> list:
    nodes = content.get("graph", {}).get("node", [])
    return [[n.get("op_type", ""), n.get("domain", ""), n.get("input", []), n.get("output", []),
             [(a.get("name", ""), a.get("ints", [])) for a in n.get("attribute", [])]] for n in nodes]  # fmt: skip


@pytest.mark.parametrize("name", shipped())
def test_files_are_read_as_onnx_reads_them(name):
    content = (shipped()[name] / "policy.onnx").read_bytes()
    theirs, ours = onnx.load_model_from_string(content), parse(content)
    assert names(theirs.graph) == own_names(ours)
    for tensor, own in zip(theirs.graph.initializer, ours["graph"]["initializer"], strict=True):
        assert (tensor.name, list(tensor.dims), tensor.raw_data) == (own["name"], own.get("dims", []), bytes(own["raw_data"]))


def test_spoiled_files_are_refused_or_read_as_onnx_reads_them():
    honest, rng = bundles.model().SerializeToString(), np.random.default_rng(0)
    accepted = 0
    for trial in range(4000):
        content = bytearray(honest)
        for place in rng.integers(0, len(content), 1 + trial % 3):
            content[place] = rng.integers(256)
        content = bytes(content[: rng.integers(1, len(content))] if trial % 4 == 0 else content)
        try:
            ours = parse(content)
        except Unfit:
            continue
        assert names(onnx.load_model_from_string(content).graph) == own_names(ours)
        accepted += 1
    assert accepted > 200


def test_a_field_that_comes_twice_is_refused():
    honest = bundles.model().SerializeToString()
    other = onnx.ModelProto(graph=onnx.GraphProto(node=[helper.make_node("Loop", [], [])])).SerializeToString()
    with pytest.raises(Unfit, match="graph of ModelProto twice"):  # onnx would read both as one graph
        parse(honest + other)


@pytest.mark.parametrize("number", [b"\xff" * 9 + b"\x02", b"\xff" * 10 + b"\x01"])
def test_a_number_beyond_64_bits_is_refused(number):
    """Readers differ in what they make of it."""
    with pytest.raises(Unfit, match="too long"):
        parse(b"\x08" + number + bundles.model().SerializeToString())


def test_a_file_of_very_many_fields_is_refused(monkeypatch):
    monkeypatch.setattr(onnx_file, "MAXIMUM_FIELDS", 50)
    with pytest.raises(Unfit, match="more than 50 fields"):
        parse(bundles.model().SerializeToString())


def test_operators_exist():
    known = {schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain}
    assert known >= OPERATORS
    with_graphs = {s.name for s in onnx.defs.get_all_schemas_with_history() if any(str(a.type) in ("AttrType.GRAPH", "AttrType.GRAPHS") for a in s.attributes.values())}
    assert not with_graphs & OPERATORS and not {name for name in OPERATORS if "Random" in name or "Sequence" in name or "String" in name}


@pytest.mark.parametrize("opset", [11, 13, 20, 23])
def test_operator_sets_that_are_read_do_run(opset, tmp_path):
    content = bundles.model(opset).SerializeToString()
    Inference(read(bundles.write(tmp_path / "policy", content, bundles.description(content))))


def test_an_open_axis_of_a_result_is_allowed():
    m = bundles.model()
    m.graph.output[0].CopyFrom(bundles.value("action", "lanes", "n"))
    inputs = {"seen": Signature((3,), ("float32",)), "kept": Signature((2,), ("float32",))}
    assert check(m.SerializeToString(), inputs, {"action": Signature((2,), ("float32",)), "kept_next": inputs["kept"]})["action"] == "float32"
