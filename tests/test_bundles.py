"""Bundles are verified whole before anything of them runs: hostile and broken ones are refused, each with one line."""

from __future__ import annotations

import json
import os
import shutil
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from probegym.agents import bundle as agents_bundle
from probegym.agents.bundle import BundlePolicy, shipped
from probegym.errors import ProbeGymError
from probegym.hardware_bridge.deployment import bundle as reading
from probegym.hardware_bridge.deployment.bundle import read
from probegym.hardware_bridge.deployment.inference import Inference
from tests import bundles

# ---- hostile graphs ----


def node(op: str, inputs: list[str], output: str = "spare", domain: str = "", **attributes):
    """Add an operator whose result nobody needs."""
    return lambda m: m.graph.node.append(helper.make_node(op, inputs, [output], domain=domain, **attributes))


def constant(m: onnx.ModelProto, name: str, values, dtype=np.int64) -> None:
    m.graph.initializer.append(onnx.numpy_helper.from_array(np.array(values, dtype), name))


def grows(op: str, *values, dtype=np.int64):
    """Add an operator that is told by constants to make something huge; None stands for the observation."""

    def change(m):
        for place, told in enumerate(values):
            if told is not None:
                constant(m, f"c{place}", told, dtype)
        names = ["seen" if told is None else "" if told == [] else f"c{place}" for place, told in enumerate(values)]
        m.graph.node.append(helper.make_node(op, names, ["spare"]))

    return change


def branch(m: onnx.ModelProto) -> None:
    inner = helper.make_graph([helper.make_node("Identity", ["seen"], ["out"])], "inner", [], [bundles.value("out", "lanes", 3)])
    constant(m, "yes", True, np.bool_)
    m.graph.node.append(helper.make_node("If", ["yes"], ["spare"], then_branch=inner, else_branch=inner))


def loop(m: onnx.ModelProto) -> None:
    inner = helper.make_graph([helper.make_node("Identity", ["c"], ["d"])], "inner", [bundles.value("i", dtype=TensorProto.INT64),
                              bundles.value("c", dtype=TensorProto.BOOL)], [bundles.value("d", dtype=TensorProto.BOOL)])  # fmt: skip
    m.graph.node.append(helper.make_node("Loop", [], ["spare"], body=inner))


def external(m: onnx.ModelProto) -> None:
    tensor = m.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, "/etc/passwd")
    tensor.ClearField("raw_data")


def located(m: onnx.ModelProto) -> None:
    m.graph.initializer[0].data_location = TensorProto.EXTERNAL


def function(m: onnx.ModelProto) -> None:
    m.functions.append(helper.make_function("own", "f", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], [helper.make_opsetid("", 17)]))


def many(m: onnx.ModelProto) -> None:
    m.graph.node.extend(helper.make_node("Relu", ["seen"], [f"r{n}"]) for n in range(10_001))


def signature(kind: str, index: int, name: str | None = None, shape=None, dtype: int = TensorProto.FLOAT):
    """Give the graph another input or output."""

    def change(m):
        values = getattr(m.graph, kind)
        new = bundles.value(name or values[index].name, *(shape or ["lanes", 2]), dtype=dtype)
        values[index].CopyFrom(new)

    return change


GRAPHS = {
    "If": (branch, "a graph inside an operator"),
    "Loop": (loop, "a graph inside an operator"),
    "Scan without a graph": (node("Scan", ["seen"], num_scan_inputs=1), "operator Scan"),
    "random numbers": (node("RandomNormalLike", ["seen"]), "operator RandomNormalLike"),
    "operator of Microsoft": (node("Gelu", ["seen"], domain="com.microsoft"), "of the domain com.microsoft"),
    "operator with an odd name": (node("Re\nlu\x1b[2J", ["seen"]), r"operator 'Re\\nlu"),
    "set of operators elsewhere": (lambda m: m.opset_import.append(helper.make_opsetid("custom.ops", 1)), "domain custom.ops"),
    "old operators": (lambda m: setattr(m.opset_import[0], "version", 7), "operator set from 11 to 23"),
    "future file": (lambda m: setattr(m, "ir_version", 99), "IR version 99"),
    "external data": (external, "external data"),
    "external by location": (located, "external data"),
    "function": (function, "functions of its own"),
    "sparse weights": (lambda m: m.graph.sparse_initializer.append(onnx.SparseTensorProto(dims=[2])), "sparse weights"),
    "texts": (lambda m: m.graph.initializer.append(helper.make_tensor("t", TensorProto.STRING, [1], [b"x"])), "texts as values"),
    "sequence input": (lambda m: m.graph.input[0].CopyFrom(helper.make_tensor_sequence_value_info("seen", 1, None)), "sequences"),
    "10,001 operators": (many, "10004|10005"),
    "huge ConstantOfShape": (grows("ConstantOfShape", [1 << 20, 1 << 20]), "more than 16777216"),
    "huge Expand": (grows("Expand", None, [1 << 40, 3]), "more than 16777216"),
    "huge Tile": (grows("Tile", None, [1 << 30, 1]), "more than 16777216"),
    "huge Range": (grows("Range", 0, 1 << 40, 1), "more than 16777216"),
    "fine Range": (grows("Range", 0.0, 1.0, 1e-30, dtype=np.float32), "more than 16777216"),
    "Resize by NaN": (grows("Resize", None, [], [np.nan, 1.0], dtype=np.float32), "more than 16777216"),
    "huge Pad": (grows("Pad", None, [0, 1 << 40, 0, 0]), "more than 16777216"),
    "huge Resize": (grows("Resize", None, [], [1e9, 1e9], dtype=np.float32), "more than 16777216"),
    "huge padding": (node("MaxPool", ["seen"], kernel_shape=[2], pads=[1 << 30, 1]), "pads by more"),
    "weights cut short": (lambda m: setattr(m.graph.initializer[0], "raw_data", b"abc"), "not as many as their shape says"),
    "another input": (lambda m: m.graph.input.append(bundles.value("more", "lanes", 1)), "has the inputs kept, more, seen"),
    "another output": (lambda m: m.graph.output.append(bundles.value("sum", "lanes", 2)), "has the outputs action, kept_next, sum"),
    "input renamed": (signature("input", 1, "other"), "has the inputs other, seen"),
    "input of another shape": (signature("input", 1, shape=["lanes", 5]), r"shape \(any, 5\)"),
    "input without lanes": (signature("input", 1, shape=[1, 2]), r"shape \(1, 2\)"),
    "input of open shape": (signature("input", 1, shape=["lanes", "n"]), r"shape \(any, any\)"),
    "input of another rank": (signature("input", 1, shape=["lanes", 2, 1]), r"shape \(any, 2, 1\)"),
    "input of another type": (signature("input", 1, dtype=TensorProto.DOUBLE), "kept of the graph is float64"),
    "output of another shape": (signature("output", 0, shape=["lanes", 3]), "action of the graph has the shape"),
    "output of another type": (signature("output", 0, dtype=TensorProto.UINT8), "action of the graph is uint8"),
    "memory of another type": (signature("output", 1, dtype=TensorProto.INT64), "kept_next of the graph is int64"),
    "no graph": (lambda m: m.ClearField("graph"), "no graph"),
}


@pytest.fixture
def nothing_runs(monkeypatch):
    """No session may be opened."""

    def opened(*_, **__):
        raise AssertionError("a session was opened")

    monkeypatch.setattr(onnxruntime, "InferenceSession", opened)


def refused(folder, message: str) -> None:
    """Both ways of loading say the same line."""
    for load in (read, BundlePolicy):
        with pytest.raises(ProbeGymError, match=message) as caught:
            load(folder)
        assert str(caught.value).isprintable() and str(folder) in str(caught.value) and len(str(caught.value)) < 900


def test_an_honest_bundle_runs(tmp_path):
    policy = BundlePolicy(bundles.make(tmp_path / "policy"))
    seen = np.array([[0.3, -0.2, 0.9]], np.float32)
    policy.begin(1, 0)
    for step in range(3):  # its memory counts
        assert np.allclose(policy.decide({"seen": seen, "more": seen}), bundles.expected(seen, step), atol=1e-6)
    policy.begin(1, 0)
    assert np.allclose(policy.decide({"seen": seen}), bundles.expected(seen), atol=1e-6)


@pytest.mark.parametrize("kind", GRAPHS)
def test_a_hostile_graph_is_refused(kind, tmp_path, nothing_runs):
    change, message = GRAPHS[kind]
    refused(bundles.make(tmp_path / "policy", change), message)


# ---- hostile descriptions ----


def packed(spec: dict, name: str = "seen") -> dict:
    return spec["golden"][0]["inputs"][name]


DESCRIPTIONS = {
    "other schema": (lambda s: s.update(schema=99), "schema '99'"),
    "schema that is true": (lambda s: s.update(schema=True), "schema 'True'"),
    "other model": (lambda s: s.update(sha256="0" * 64), "policy.onnx does not match its checksum"),
    "no golden pairs": (lambda s: s.update(golden=[]), "golden"),
    "no commit": (lambda s: s.pop("training_commit"), "training_commit"),
    "unprintable scenario": (lambda s: s.update(scenario="train\x1b[2J\n"), "scenario"),
    "huge shape": (lambda s: s["observations"]["seen"].update(shape=[1 << 40]), "observations"),
    "huge shapes": (lambda s: s["observations"]["seen"].update(shape=[1 << 12, 1 << 12, 2]), "more than 16777216"),
    "fractional shape": (lambda s: s["observations"]["seen"].update(shape=[3.0]), "observations"),
    "objects": (lambda s: s["observations"]["seen"].update(dtype="object"), "observations"),
    "more of a shape": (lambda s: s["observations"]["seen"].update(unit="m"), "observations"),
    "odd name": (lambda s: s["observations"].update({"../x": {"shape": [3], "dtype": "float32"}}), "names an input '../x'"),
    "one name twice": (lambda s: s["observations"].update(kept={"shape": [2], "dtype": "float32"}), "one name to two"),
    "memory of texts": (lambda s: s["memory"].update(kept=["a", "b"]), "memory"),
    "memory beyond float32": (lambda s: s["memory"].update(kept=[1e300, 0.0]), "memory"),
    "memory beyond all": (lambda s: s["memory"].update(kept=[10**400, 0]), "memory"),
    "golden pair of others": (lambda s: s["golden"][0]["inputs"].pop("kept"), "golden pair has other inputs"),
    "golden pair too short": (lambda s: packed(s).update(base64="AAAA"), "not what its shape says"),
    "golden pair no base64": (lambda s: packed(s).update(base64="\u00e9\n"), "not what its shape says"),
    "golden pair of other shape": (lambda s: packed(s).update(shape=[3, 2]), "golden pair holds seen"),
    "golden pair of other type": (lambda s: packed(s).update(dtype="float64"), "golden pair holds seen"),
    "golden action ragged": (lambda s: s["golden"][0].update(action=[[1.0], [1.0, 2.0]]), "ragged"),
    "golden action of texts": (lambda s: s["golden"][0].update(action=["a", "b"]), "no array of numbers"),
    "golden action of one lane": (lambda s: s["golden"][0].update(action=[[0.0, 0.0]]), "no array of numbers"),
}


@pytest.mark.parametrize("kind", DESCRIPTIONS)
def test_a_hostile_description_is_refused(kind, tmp_path, nothing_runs):
    change, message = DESCRIPTIONS[kind]
    refused(bundles.make(tmp_path / "policy", told=change), message)


def text(change):
    """Change the bytes of policy.json."""
    return lambda folder: (folder / "policy.json").write_bytes(change((folder / "policy.json").read_bytes()))


def sparse(name: str, size: int = 2_000_000_000):
    """A file that takes no room on the disk."""

    def change(folder):
        with open(folder / name, "wb") as stream:
            stream.truncate(size)

    return change


def linked(name: str):
    def change(folder):
        shutil.move(folder / name, folder.parent / name)
        (folder / name).symlink_to(folder.parent / name)

    return change


def replaced(name: str, make):
    def change(folder):
        (folder / name).unlink()
        make(folder / name)

    return change


FILES = {
    "2 GB of model": (sparse("policy.onnx"), "at most 64000000"),
    "2 GB of description": (sparse("policy.json"), "at most 4000000"),
    "truncated model": (lambda f: os.truncate(f / "policy.onnx", 100), "policy.onnx does not match its checksum"),
    "empty description": (lambda f: os.truncate(f / "policy.json", 0), "cannot be read"),
    "truncated description": (lambda f: os.truncate(f / "policy.json", 100), "cannot be read"),
    "changed after signing": (text(lambda t: t.replace(b'"unit": "m"', b'"unit": "V"')), "policy.json does not match its checksum"),
    "NaN": (text(lambda t: t.replace(b'"schema": 1', b'"schema": NaN')), "NaN"),
    "infinity": (text(lambda t: t.replace(b'"schema": 1', b'"schema": 1e999')), "cannot be read .*1e999"),
    "an entry twice": (text(lambda t: t.replace(b'"schema": 1', b'"schema": 1, "schema": 1')), "twice"),
    "nested without end": (text(lambda t: b"[" * 200_000 + b"]" * 200_000), "cannot be read"),
    "nested 30 deep": (text(lambda t: t.replace(b'"schema": 1', b'"schema": 1, "x": ' + b"[" * 30 + b"]" * 30)), "nested more than 16 deep"),
    "a list": (text(lambda t: b"[]"), "schema"),
    "UTF-16": (text(lambda t: t.decode().encode("utf-16")), "cannot be read"),
    "another file": (lambda f: (f / "policy.pkl").write_bytes(b"x"), "holds 'policy.pkl' besides"),
    "another folder": (lambda f: (f / "__pycache__").mkdir(), "holds '__pycache__' besides"),
    "linked model": (linked("policy.onnx"), "policy.onnx is a symbolic link"),
    "linked description": (linked("policy.json"), "policy.json is a symbolic link"),
    "model is a pipe": (replaced("policy.onnx", os.mkfifo), "policy.onnx is no ordinary file"),
    "model is a folder": (replaced("policy.onnx", os.mkdir), "policy.onnx is no ordinary file"),
    "no model": (lambda f: (f / "policy.onnx").unlink(), "policy.onnx is missing"),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_broken_folder_is_refused(kind, tmp_path, nothing_runs):
    change, message = FILES[kind]
    change(folder := bundles.make(tmp_path / "policy"))
    refused(folder, message)


@pytest.mark.parametrize("name", reading.FILES)
def test_a_huge_file_is_not_even_opened(name, tmp_path, monkeypatch):
    sparse(name)(folder := bundles.make(tmp_path / "policy"))
    monkeypatch.setattr(os, "open", lambda *_, **__: pytest.fail("a file was opened"))
    refused(folder, "at most")


def test_a_file_that_grows_meanwhile_is_not_read_whole(tmp_path, monkeypatch):
    folder = bundles.make(tmp_path / "policy")
    honest = os.lstat(folder / "policy.onnx")
    sparse("policy.onnx")(folder)
    monkeypatch.setattr(os, "lstat", lambda _: honest)
    with pytest.raises(ProbeGymError, match="at most 64000000"):
        read(folder)


def test_no_folder(tmp_path):
    with pytest.raises(ProbeGymError, match="No such file"):
        read(tmp_path / "policy")


# ---- golden pairs ----


def lies(spec: dict) -> None:
    spec["golden"][0]["action"][0][0] += 0.01


def nan(m: onnx.ModelProto) -> None:
    m.graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(np.full(2, np.nan, np.float32), "one"))


def more_rows(m: onnx.ModelProto) -> None:
    """The action of an axis that the graph leaves open comes out longer than told."""
    m.graph.node[2].output[0] = "short"
    m.graph.node.append(helper.make_node("Concat", ["short", "short"], ["action"], axis=1))
    signature("output", 0, shape=["lanes", "n"])(m)


def one_lane_only(m: onnx.ModelProto) -> None:
    """An action that depends on how many lanes there are."""
    m.graph.node[2].output[0] = "own"
    m.graph.node.append(helper.make_node("ReduceMean", ["own"], ["mean"], axes=[0], keepdims=1))
    m.graph.node.append(helper.make_node("Sub", ["own", "mean"], ["action"]))


def centred(spec: dict) -> None:
    action = np.array(spec["golden"][0]["action"])
    spec["golden"][0]["action"] = (action - action.mean(0)).tolist()


def undefined(m: onnx.ModelProto) -> None:
    m.graph.node[0].input[0] = "nowhere"


GOLDEN = {
    "other actions": (lambda _: None, lies, "does not give its recorded actions"),
    "NaN as memory": (nan, lambda _: None, "kept_next that is not finite"),
    "longer actions": (more_rows, lambda _: None, r"gives action of shape \(2, 4\)"),
    "lanes that mix": (one_lane_only, centred, "does not give its recorded actions"),
    "graph that does not connect": (undefined, lambda _: None, "no usable policy"),
}


@pytest.mark.parametrize("kind", GOLDEN)
def test_golden_pairs_are_checked_at_load(kind, tmp_path):
    graph, told, message = GOLDEN[kind]
    bundle = read(bundles.make(tmp_path / "policy", graph, told))
    with pytest.raises(ProbeGymError, match=message) as caught:
        Inference(bundle)
    assert "\n" not in str(caught.value)


# ---- shipped policies ----


@pytest.mark.parametrize("name", shipped())
def test_shipped_policies_pass(name):
    policy = BundlePolicy(name)
    env = gym.make(policy.spec["environment"], scenario=policy.spec["scenario"], disable_env_checker=True).unwrapped
    policy.bundle.fits(env.episodes.task, policy.spec["environment"])
    with pytest.raises(ProbeGymError, match="is made for"):
        policy.bundle.fits(env.episodes.task, "probegym/Other-v0")


# ---- whether it fits ----


def task(**changes):
    box = gym.spaces.Box(-1, 1, (2,), np.float32)
    seen = gym.spaces.Dict({"seen": gym.spaces.Box(-1, 1, (3,), np.float32), "more": box})
    return SimpleNamespace(**({"action_units": {"names": ["x", "y"], "unit": "m"}, "action_space": box, "observation_space": seen} | changes))


UNFIT = {
    "other units": (task(action_units={"names": ["x", "y"], "unit": "V"}), "moves other controls"),
    "other actions": (task(action_space=gym.spaces.Box(-1, 1, (3,), np.float32)), "gives actions float32 of shape"),
    "numbered actions": (task(action_space=gym.spaces.MultiDiscrete([2, 2])), "gives actions float32 of shape"),
    "nothing to see": (task(observation_space=gym.spaces.Dict({"more": task().action_space})), "needs seen in the observation"),
    "other shape": (task(observation_space=gym.spaces.Dict({"seen": gym.spaces.Box(-1, 1, (4,), np.float32)})), r"of shape \(3,\), this environment gives"),
    "other type": (task(observation_space=gym.spaces.Dict({"seen": gym.spaces.Box(0, 255, (3,), np.uint8)})), "gives uint8"),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_a_policy_for_another_task_is_refused(kind, tmp_path):
    other, message = UNFIT[kind]
    bundle = read(bundles.make(tmp_path / "policy"))
    bundle.fits(task())
    with pytest.raises(ProbeGymError, match=message) as caught:
        bundle.fits(other)
    assert "train" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("seen", "message"), [
    (np.zeros((1, 3)), "got float64"),
    (np.zeros((2, 3), np.float32), r"got float32 of shape \(2, 3\)"),
    (np.zeros((1, 4), np.float32), "of shape"),
])  # fmt: skip
def test_an_observation_of_another_kind_is_refused(seen, message, tmp_path):
    bundle = read(bundles.make(tmp_path / "policy"))
    with pytest.raises(ProbeGymError, match=message):
        bundle.inputs({"seen": seen}, 1)
    with pytest.raises(ProbeGymError, match="needs seen"):
        bundle.inputs({"other": seen}, 1)


# ---- writing ----


def test_what_would_be_refused_is_not_written(tmp_path):
    spec = bundles.description(content := bundles.model().SerializeToString())
    spec["observations"]["seen"]["shape"] = [4]
    with pytest.raises(ProbeGymError, match="would be refused when it is read"):
        agents_bundle.write(tmp_path / "policy", content, spec)
    assert not (tmp_path / "policy").exists()


def test_a_folder_with_other_files_is_not_written_to(tmp_path):
    spec = bundles.description(content := bundles.model().SerializeToString())
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ProbeGymError, match=r"holds 'notes\.txt'"):
        agents_bundle.write(tmp_path, content, spec)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_written_bundles_can_be_read_and_written_again(tmp_path):
    spec = bundles.description(content := bundles.model().SerializeToString())
    for _ in range(2):
        read(agents_bundle.write(tmp_path / "policy", content, spec))
    assert json.loads((tmp_path / "policy" / "policy.json").read_text())["schema"] == 1
