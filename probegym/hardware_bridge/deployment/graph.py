"""Whether an ONNX graph is a policy: known operators on tensors, from the inputs that were told to the outputs that were told."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from probegym.hardware_bridge.deployment.onnx_file import Message, Unfit, parse

OPSETS = (11, 23)  # 23 is the last that onnxruntime 1.22 reads
IR_VERSIONS = (6, 13)
MAXIMUM_NODES = 10_000
LARGEST_LITERAL = 2**24  # elements that a constant may ask for; what is computed meets the process's limit of memory
LARGEST_PADDING, LARGEST_SCALE = 1024, 64

OPERATORS = frozenset(
    """
    Abs Acos Add And ArgMax ArgMin Asin Atan AveragePool BatchNormalization Cast Ceil Celu Clip Concat Constant ConstantOfShape Conv Cos
    CumSum Div Einsum Elu Equal Erf Exp Expand Flatten Floor GRU Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool
    Greater GreaterOrEqual GroupNormalization HardSigmoid HardSwish Identity InstanceNormalization IsInf IsNaN LSTM LayerNormalization
    LeakyRelu Less LessOrEqual Log LogSoftmax MatMul Max MaxPool Mean Min Mish Mod Mul Neg Not Or PRelu Pad Pow RNN Range Reciprocal
    ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize
    Round ScatterElements ScatterND Selu Shape Sigmoid Sign Sin Size Slice Softmax Softplus Softsign Split Sqrt Squeeze Sub Sum Tan Tanh
    Tile TopK Transpose Trilu Unsqueeze Where Xor
    """.split()
)
"""What trained networks are made of. Nothing that loops, branches, draws random numbers, or holds texts, sequences or graphs."""

GROWING = {"ConstantOfShape": (0,), "Expand": (1,), "Tile": (1,), "Pad": (1,), "Range": (0, 1, 2), "Resize": (2, 3)}
"""Operator -> inputs that say how large its result is."""

TYPES = {1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool", 10: "float16", 11: "float64", 12: "uint32", 13: "uint64"}
"""Element types of ONNX that may occur, as NumPy calls them."""

EXTERNAL = 1  # value of data_location


@dataclass(frozen=True)
class Signature:
    """One input or output. shape: without the axis of lanes. dtypes: those that are accepted."""

    shape: tuple[int, ...]
    dtypes: tuple[str, ...]


def check(model: bytes, inputs: Mapping[str, Signature], outputs: Mapping[str, Signature]) -> dict[str, str]:
    """Verify a whole file; returns the dtype of every output. Raises Unfit. An output's axis without a number is left to a trial run."""
    content = parse(model)
    graph = content.get("graph")
    if graph is None:
        raise Unfit("the ONNX file holds no graph")
    _versions(content)
    nodes, weights = graph.get("node", []), graph.get("initializer", [])
    if len(nodes) > MAXIMUM_NODES:
        raise Unfit(f"the graph has {len(nodes)} operators, at most {MAXIMUM_NODES} are run")
    for tensor in weights:
        _tensor(tensor)
    literals = {tensor.get("name", ""): tensor for tensor in weights}
    for node in nodes:
        _node(node, literals)
    _signatures("input", graph.get("input", []), inputs)
    return _signatures("output", graph.get("output", []), outputs)


def _versions(content: Message) -> None:
    if not IR_VERSIONS[0] <= content.get("ir_version", 0) <= IR_VERSIONS[1]:
        raise Unfit(f"the ONNX file has IR version {content.get('ir_version', 0)}, from {IR_VERSIONS[0]} to {IR_VERSIONS[1]} are read")
    sets = content.get("opset_import", [])
    if foreign := sorted(_shown(s.get("domain", "")) for s in sets if s.get("domain", "") not in ("", "ai.onnx")):
        raise Unfit(f"the graph uses operators of the domain {foreign[0]}, only ONNX's own are run")
    if len(sets) != 1 or not OPSETS[0] <= sets[0].get("version", 0) <= OPSETS[1]:
        told = " and ".join(str(s.get("version", 0)) for s in sets) or "none"
        raise Unfit(f"the graph needs one operator set from {OPSETS[0]} to {OPSETS[1]}, it has {told[:40]}")


def _node(node: Message, literals: dict[str, Message]) -> None:
    """Check one operator; a constant is added to ``literals``."""
    name, domain = node.get("op_type", ""), node.get("domain", "")
    if domain not in ("", "ai.onnx"):
        raise Unfit(f"the graph uses operator {_shown(name)} of the domain {_shown(domain)}, only ONNX's own are run")
    if name not in OPERATORS:
        raise Unfit(f"the graph uses operator {_shown(name)}, which is not run here")
    for attribute in node.get("attribute", []):
        if "t" in attribute:
            _tensor(attribute["t"])
            if name == "Constant":
                literals |= {output: attribute["t"] for output in node.get("output", [])}
        if max(map(abs, attribute.get("ints", [])), default=0) > LARGEST_PADDING and attribute.get("name") in ("pads", "output_shape"):
            raise Unfit(f"operator {name} pads by more than {LARGEST_PADDING}")
    for place in GROWING.get(name, ()):
        names = node.get("input", [])
        if place < len(names) and names[place] in literals:
            _bounded(name, _values(literals[names[place]]))


def _tensor(tensor: Message) -> None:
    """Check that its values are here and as many as it says."""
    name, dims = _shown(tensor.get("name", "")), tensor.get("dims", [])
    if tensor.get("data_location", 0) == EXTERNAL:
        raise Unfit(f"the weights {name} lie in another file (external data)")
    if tensor.get("data_type", 0) not in TYPES:
        raise Unfit(f"the weights {name} have element type {tensor.get('data_type', 0)}, which is not run here")
    if min(dims, default=0) < 0 or ("raw_data" in tensor and math.prod(dims) * _dtype(tensor).itemsize != len(tensor["raw_data"])):
        raise Unfit(f"the weights {name} are not as many as their shape says")


def _dtype(tensor: Message) -> np.dtype:
    return np.dtype(TYPES[tensor["data_type"]]).newbyteorder("<")


def _values(tensor: Message) -> np.ndarray:
    """The numbers of a tensor, flat."""
    if "raw_data" in tensor:
        return np.frombuffer(tensor["raw_data"], _dtype(tensor))
    for name, dtype in (("float_data", "<f4"), ("double_data", "<f8")):
        if name in tensor:
            packed = tensor[name]
            return np.frombuffer(packed[: len(packed) - len(packed) % np.dtype(dtype).itemsize], dtype)
    return np.array(tensor.get("int64_data", []) + tensor.get("int32_data", []))


def _bounded(operator: str, values: np.ndarray) -> None:
    """Refuse a constant that asks for a huge result."""
    sizes = [abs(float(value)) for value in values.tolist()]
    if operator == "Resize" and values.dtype.kind == "f":
        huge = not all(size <= LARGEST_SCALE for size in sizes)
    elif operator in ("Pad", "Range"):  # of a range, the step too
        huge = not all(size == 0 or 1 / LARGEST_LITERAL <= size <= LARGEST_LITERAL for size in sizes)
    else:
        huge = not math.prod(max(1.0, size) for size in sizes) <= LARGEST_LITERAL
    if huge:
        raise Unfit(f"operator {operator} asks for a result of more than {LARGEST_LITERAL} numbers")


def _signatures(what: str, told: list[Message], wanted: Mapping[str, Signature]) -> dict[str, str]:
    """Compare the graph's inputs or outputs with those of the description; returns their dtypes."""
    names = [_shown(value.get("name", "")) for value in told]
    if sorted(names) != sorted(wanted):
        raise Unfit(f"the graph has the {what}s {', '.join(sorted(names))[:200] or 'none'}; the description says {', '.join(sorted(wanted))[:200] or 'none'}")
    found = {}
    for name, value in zip(names, told, strict=True):
        tensor = value.get("type", {}).get("tensor_type", {})
        dtype, expected = TYPES.get(tensor.get("elem_type", 0), "unknown"), wanted[name]
        if dtype not in expected.dtypes:
            raise Unfit(f"{what} {name} of the graph is {dtype}, the description says {' or '.join(expected.dtypes)}")
        dims = tensor.get("shape", {}).get("dim", [])
        sizes = [dim.get("dim_value") for dim in dims]
        fits = len(sizes) == 1 + len(expected.shape) and sizes[0] is None
        open_axes = what == "output"  # exporters do not always know the axes of a result
        if not fits or any(size != given and not (open_axes and given is None) for size, given in zip(expected.shape, sizes[1:], strict=True)):
            shown = ", ".join("any" if size is None else str(size) for size in sizes)
            raise Unfit(f"{what} {name} of the graph has the shape ({shown[:100]}), the description says {('any', *expected.shape)}".replace("'", ""))
        found[name] = dtype
    return found


def _shown(name: str) -> str:
    """A name from a file, fit for one line."""
    return name if name.isprintable() and len(name) <= 80 else ascii(name[:80])
