"""The policy's own process: the same actions as in-process, within its deadline or not at all, and within its limits."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import onnx
import pytest
from onnx import helper

from probegym.agents.bundle import BundlePolicy, shipped
from probegym.errors import ProbeGymError
from probegym.hardware_bridge import codec
from probegym.hardware_bridge.deployment import bundle as reading
from probegym.hardware_bridge.deployment import pipes, policy_process
from probegym.hardware_bridge.deployment import policy as outside
from probegym.hardware_bridge.deployment.policy import PolicyFault, PolicyProcess
from tests import bundles
from tests.helpers import ROOT, python

SEEN = {"seen": np.array([[0.3, -0.2, 0.9]], np.float32)}
PATIENT = 20.0  # s: for what is not about time, on a loaded machine
needs_linux = pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="reads /proc")


def faults(policy: PolicyProcess, message: str) -> None:
    with pytest.raises(PolicyFault, match=message) as caught:
        policy.decide(SEEN)
    assert str(caught.value).isprintable()


@pytest.fixture
def folder(tmp_path):
    return bundles.make(tmp_path / "policy")


@pytest.fixture
def running(folder):
    with PolicyProcess(folder, deadline_s=PATIENT) as policy:
        policy.begin()
        yield policy


# ---- honest ----


@pytest.mark.parametrize("name", ["stem-tuning-ronchigram", "tip-conditioning"])
def test_the_same_actions_as_in_process(name):
    inside, lanes = BundlePolicy(name), 3
    envs = gym.make_vec(inside.spec["environment"], num_envs=lanes, scenario=inside.spec["scenario"], autoreset_mode="Disabled")
    with PolicyProcess(shipped()[name], PATIENT) as policy:
        policy.bundle.fits(envs.episodes.task, inside.spec["environment"])
        for _ in range(2):  # the second starts with a fresh memory
            observation, _ = envs.reset(seed=5)
            inside.begin(lanes, 0), policy.begin(lanes)
            for _ in range(3):
                action = policy.decide(observation)
                assert np.abs(inside.act(observation, envs.episodes) - action).max() < 1e-5 and action.dtype == inside.bundle.outputs["action"][1]
                observation = envs.step(action)[0]
        assert policy.latency()["steps"] == 6


def test_memory_moves_on_and_begins_anew(running):
    for lanes in (1, 4, 1):
        running.begin(lanes)
        for step in range(3):
            seen = np.tile(SEEN["seen"], (lanes, 1))
            assert np.allclose(running.decide({"seen": seen}), bundles.expected(seen, step), atol=1e-6)


def test_latency_of_every_step_is_kept(running):
    assert running.latency()["steps"] == 0
    for _ in range(50):
        running.decide(SEEN)
    told = running.latency()
    assert told["steps"] == 50 and 0 < told["p50_s"] <= told["p99_s"] <= told["worst_s"] == max(running.latencies)


def test_what_is_wrongly_asked_is_not_asked(running, folder):
    for wrong, message in (({}, "needs seen"), ({"seen": SEEN["seen"][0]}, "of shape"), ({"seen": SEEN["seen"] * np.float32(np.nan)}, "nothing was asked")):
        with pytest.raises(ProbeGymError, match=message):
            running.decide(wrong)
    for lanes in (0, 10_000):
        with pytest.raises(ProbeGymError, match="lanes must be"):
            running.begin(lanes)
    with pytest.raises(ProbeGymError, match="deadline must be"):
        PolicyProcess(folder, deadline_s=0)
    with pytest.raises(ProbeGymError, match="was started before"), running:
        pass
    assert np.allclose(running.decide(SEEN), bundles.expected(SEEN["seen"]), atol=1e-6)  # nothing had moved


def test_asked_out_of_order(folder):
    policy = PolicyProcess(folder)
    with pytest.raises(PolicyFault, match="not started"):
        policy.begin()
    with policy:
        with pytest.raises(ProbeGymError, match=r"call begin\(\)"):
            policy.decide(SEEN)
        policy.begin()
    faults(policy, "was closed")
    policy.close()


# ---- death and delay ----


def gone(pid: int) -> bool:
    """Whether the process has ended and was waited for."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_killed_process_is_noticed(running):
    running.decide(SEEN)
    os.kill(running.pid, signal.SIGKILL)
    faults(running, "was ended by signal 9")
    assert running.fault == "was ended by signal 9"
    faults(running, "signal 9")
    with pytest.raises(PolicyFault, match="signal 9"):
        running.begin()
    running.close()
    assert gone(running.pid)


def test_a_process_that_dies_between_steps_is_noticed_without_asking(running):
    os.kill(running.pid, signal.SIGKILL)
    end = time.monotonic() + PATIENT
    while running.fault is None and time.monotonic() < end:
        time.sleep(0.01)
    assert running.fault == "was ended by signal 9"


def test_a_stopped_process_is_late_and_its_late_answer_is_dropped(running):
    assert np.allclose(running.decide(SEEN), bundles.expected(SEEN["seen"], 0), atol=1e-6)
    running.deadline_s = 0.1
    os.kill(running.pid, signal.SIGSTOP)
    begun = time.monotonic()
    for _ in range(3):  # the later ones wait for the answer to the first
        faults(running, "gave no action within 100 ms")
    assert 0.3 <= time.monotonic() - begun < 5 and len(running.latencies) == 4 and running.latency()["worst_s"] >= 0.1
    running.deadline_s = PATIENT
    os.kill(running.pid, signal.SIGCONT)
    other = {"seen": np.array([[-1.0, 0.5, 0.0]], np.float32)}
    for step in (1, 2):  # the answers are those to this question, and to the memory of the last accepted action
        assert np.allclose(running.decide(other), bundles.expected(other["seen"], step), atol=1e-6)


def test_a_stopped_process_that_takes_nothing_in_does_not_hold_us_up(monkeypatch):
    monkeypatch.setattr(outside, "STOP_SECONDS", 3 * PATIENT)  # it is not asked to end by itself
    with PolicyProcess(shipped()["spectrum-exploration"], PATIENT) as policy:  # an observation is more than a pipe holds
        policy.begin(16)
        shown = {name: np.zeros((16, *wanted.shape), wanted.dtypes[0]) for name, wanted in policy.bundle.observations.items()}
        policy.decide(shown)
        os.kill(policy.pid, signal.SIGSTOP)
        policy.deadline_s = 0.1
        begun = time.monotonic()
        with pytest.raises(PolicyFault, match="within 100 ms"):
            policy.decide(shown)
        assert time.monotonic() - begun < 3
        policy.close()
        assert time.monotonic() - begun < PATIENT and gone(policy.pid)


def test_the_block_ends_the_process_whatever_happens(folder):
    with pytest.raises(KeyError), PolicyProcess(folder) as policy:
        policy.begin()
        raise KeyError
    assert gone(policy.pid)


@needs_linux
def test_the_process_ends_when_its_starter_is_killed(folder):
    code = "import sys, time; from probegym.hardware_bridge.deployment.policy import PolicyProcess\n" \
           "with PolicyProcess(sys.argv[1]) as policy:\n    print(policy.pid, flush=True)\n    time.sleep(60)"  # fmt: skip
    starter = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    pid = int(starter.stdout.readline())
    starter.kill(), starter.wait()
    end = time.monotonic() + PATIENT
    while Path(f"/proc/{pid}").exists() and "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text() and time.monotonic() < end:
        time.sleep(0.02)
    assert time.monotonic() < end


# ---- lies ----

LIES = {
    "shape": r"gave action as float32 of shape \(1, 3\)",
    "lanes": r"gave action as float32 of shape \(2, 2\)",
    "dtype": "gave action as float64",
    "names": "answered action instead of action, kept_next",
    "more": "answered action, kept_next, more instead of",
    "long": "nonsense .*longer than",
    "garbage": "nonsense .*do not begin a message",
    "damaged": "nonsense .*checksum",
    "past": "answered what was not asked",
    "future": "answered what was not asked",
    "half": "ended with code 0",
    "exit": "ended with code 7",
}


@pytest.fixture
def impostor(tmp_path, monkeypatch):
    """A policy process that lies."""
    monkeypatch.setattr(outside, "PROCESS", "tests.impostor")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return lambda mode: PolicyProcess(bundles.make(tmp_path / "policy", told=lambda spec: spec.update(command=mode)), PATIENT)


@pytest.mark.parametrize("mode", LIES)
def test_a_process_that_lies_is_ended(mode, impostor):
    with impostor(mode) as policy:
        policy.begin()
        faults(policy, LIES[mode])
        faults(policy, "start it anew")
        policy._process.wait(PATIENT)


@pytest.mark.parametrize(("mode", "message"), [("numbers", "gave action that is not finite"), ("memory", "gave kept_next that is not finite"), ("excuse", "cannot decide: not to")])
def test_an_answer_without_use_is_a_fault_and_no_end(mode, message, impostor):
    with impostor(mode) as policy:
        policy.begin()
        for _ in range(2):
            faults(policy, message)
        assert policy.fault is None


def test_a_second_answer_to_one_question_is_not_taken_for_the_next(impostor):
    with impostor("twice") as policy:
        policy.begin()
        policy.decide(SEEN)
        faults(policy, "answered what was not asked")


def test_a_process_that_is_another_or_says_nothing_does_not_start(impostor, monkeypatch):
    with pytest.raises(PolicyFault, match="something else than that it is ready"), impostor("other"):
        pass
    monkeypatch.setattr(outside, "START_SECONDS", 0.5)
    with pytest.raises(PolicyFault, match=r"not ready within 0\.5 s"), impostor("mute"):
        pass


# ---- limits ----


def test_what_does_not_load_says_why(folder, tmp_path, monkeypatch):
    lies = bundles.make(tmp_path / "lies", told=lambda spec: spec["golden"][0]["action"][0].__setitem__(0, 0.9))
    with pytest.raises(PolicyFault, match=r"does not start: .*recorded actions"), PolicyProcess(lies):
        pass
    policy = PolicyProcess(folder)
    bundles.make(folder, told=lambda spec: spec.update(scenario="other"))
    with pytest.raises(PolicyFault, match="was exchanged while it was loaded"), policy:
        pass
    assert gone(policy.pid)
    monkeypatch.setattr(outside, "PROCESS", "probegym.nothing")
    with pytest.raises(PolicyFault, match="ended with code 1"), PolicyProcess(folder):
        pass


def bomb(m: onnx.ModelProto) -> None:
    """Adds the mean of 4e10 ones, less one, to the action; how many is computed, so that no constant gives it away."""
    for name, values in (("root", np.array([10**5], np.int64)), ("unit", np.ones(1, np.float32))):
        m.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    m.graph.node[2].output[0] = "small"
    m.graph.node.extend([
        helper.make_node("Shape", ["kept"], ["lanes"]), helper.make_node("Slice", ["lanes", "first", "second"], ["columns"]),
        helper.make_node("Mul", ["root", "columns"], ["side"]), helper.make_node("Mul", ["side", "side"], ["count"]),
        helper.make_node("Expand", ["unit", "count"], ["wide"]), helper.make_node("ReduceMean", ["wide"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["small", "mean"], ["action"]),
    ])  # fmt: skip
    for name, place in (("first", 1), ("second", 2)):
        m.graph.initializer.append(onnx.numpy_helper.from_array(np.array([place], np.int64), name))


@needs_linux
def test_a_computed_bomb_meets_the_limit_of_memory(tmp_path):
    with pytest.raises(PolicyFault, match=r"(?i)does not start: .*(alloc|memory|bfc)"), PolicyProcess(bundles.make(tmp_path / "policy", bomb)) as policy:
        pytest.fail(f"process {policy.pid} took what it wanted")


def limits(pid: int) -> dict[str, str]:
    """Soft limits of a process by name."""
    return {line[:25].strip(): line[26:47].strip() for line in Path(f"/proc/{pid}/limits").read_text().splitlines()}


@needs_linux
def test_limits_of_the_process(running):
    told = limits(running.pid)
    assert told["Max address space"] == str(policy_process.MAXIMUM_MEMORY) and told["Max open files"] == str(policy_process.OPEN_FILES)
    assert told["Max core file size"] == told["Max file size"] == "0"
    assert policy_process.START_SECONDS <= int(told["Max cpu time"]) <= policy_process.START_SECONDS + 20
    running.decide(SEEN)
    assert int(limits(running.pid)["Max cpu time"]) <= policy_process.ANSWER_SECONDS + 20
    assert os.getpriority(os.PRIO_PROCESS, running.pid) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + policy_process.NICENESS)


@needs_linux
def test_the_process_holds_pipes_and_no_connections_files_or_secrets(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("PROBEGYM_TEST_SECRET", "hunter2")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "json.py").write_text("raise SystemExit('imported from the current folder')")
    kept = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(kept, True)
    try:
        with PolicyProcess(folder, PATIENT) as policy:
            policy.begin()
            policy.decide(SEEN)
            opened = [os.readlink(f"/proc/{policy.pid}/fd/{number}") for number in os.listdir(f"/proc/{policy.pid}/fd")]
            environment = Path(f"/proc/{policy.pid}/environ").read_bytes()
            threads = os.listdir(f"/proc/{policy.pid}/task")
            libraries = Path(f"/proc/{policy.pid}/maps").read_text()
    finally:
        os.close(kept)
    assert not [name for name in opened if name.startswith("socket:") or str(tmp_path) in name]
    assert b"hunter2" not in environment and {entry.split(b"=")[0].decode() for entry in environment.split(b"\0") if entry} <= {
        *outside.FOUND_BY, *outside.ONE_THREAD, "LC_CTYPE"}  # fmt: skip
    assert "onnxruntime" in libraries and "torch" not in libraries and "h5py" not in libraries
    assert len(threads) <= 2  # ONNX Runtime works on one; a second waits


@needs_linux
def test_no_memory_of_the_process_is_left_on_the_disk():
    code = """
import resource
from probegym.hardware_bridge.deployment import policy_process as p
hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
p.limit()
print(resource.getrlimit(resource.RLIMIT_CORE))
"""
    assert python(code) == "(0, 0)"


@needs_linux
def test_an_answer_that_takes_too_long_ends_the_process():
    code = "import sys\nfrom probegym.hardware_bridge.deployment import policy_process as p\np.limit()\np.allow(0)\nwhile True: pass"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60)
    assert done.returncode == -signal.SIGXCPU


def test_a_library_that_prints_does_not_disturb(folder):
    """Descriptor 1 of the process is not the pipe that messages go through."""
    code = f"""
import os, sys
from probegym.hardware_bridge.deployment import policy_process as p
honest = p.read
p.read = lambda folder: (os.write(1, b"chatter"), print("chatter"), honest(folder))[-1]
sys.argv = ["p", {str(folder)!r}, {reading.read(folder).digest!r}]
sys.exit(p.main())
"""
    done = subprocess.run([sys.executable, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, cwd=ROOT, timeout=60)
    assert done.returncode == 0 and b"chatter" in done.stderr
    head, _, checksum = codec.lengths(done.stdout[: codec.PREFIX.size])
    assert codec.unpack(done.stdout[codec.PREFIX.size :][:head], b"", checksum)[0]["kind"] == "ready"


# ---- its loop, where coverage sees it: the process itself may not write files ----


def test_the_loop_answers_each_request_and_goes_on_after_one_that_it_cannot(folder, monkeypatch):
    allowed: list[int] = []
    monkeypatch.setattr(policy_process, "tighten", lambda: allowed.append(0))
    monkeypatch.setattr(policy_process, "allow", allowed.append)
    bundle = reading.read(folder)
    good = bundle.inputs(SEEN, 1) | bundle.start(1)
    asked = [good, good | {"seen": np.zeros((1, 2), np.float32)}, good]
    requests, answers = io.BytesIO(b"".join(codec.pack({"sequence": k}, arrays) for k, arrays in enumerate(asked))), io.BytesIO()
    with pytest.raises(pipes.Ended):
        policy_process.serve(folder, bundle.digest, requests, answers)
    answers.seek(0)
    ready, first, bad, last = (pipes.receive(answers) for _ in range(4))
    assert ready[0] == {"kind": "ready", "digest": bundle.digest} and allowed == [0, *[policy_process.ANSWER_SECONDS] * 3]
    assert [(told["kind"], told["sequence"]) for told, _ in (first, bad, last)] == [("action", 0), ("fault", 1), ("action", 2)]
    assert np.array_equal(first[1]["action"], last[1]["action"]) and first[1]["action"].shape == (1, 2) and not bad[1] and bad[0]["reason"].isprintable()


def test_a_policy_that_was_exchanged_is_not_served(folder):
    answers = io.BytesIO()
    with pytest.raises(ProbeGymError, match="was exchanged while it was loaded"):
        policy_process.serve(folder, "0" * 64, io.BytesIO(), answers)
    assert not answers.getvalue()
