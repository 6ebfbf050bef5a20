"""Executors: nothing is lost when processes and nodes die, what is begun again goes on where it was, and mistakes are refused."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from probegym.agents import sweep, training
from probegym.agents.executors import Outcome, Work, executor
from probegym.agents.executors.cluster import Ray
from probegym.agents.executors.local import Local
from probegym.agents.executors.worker import perform
from probegym.errors import ProbeGymError
from probegym.terminal import train as train_command
from probegym.terminal.options import ExecutorName
from tests.helpers import ROOT
from tests.terminal import call

COUNT = "probegym.agents.executors.rehearsal:count"
WORKER = "probegym.agents.executors.worker"


def counting(folder: Path, name: str, to: int = 3, seconds: float = 0.01) -> Work:
    return Work(name, COUNT, {"file": str(folder / f"{name}.json"), "to": to, "seconds": seconds})


def state(folder: Path, name: str) -> dict:
    """What a count has written, with a count of 0 before."""
    path = folder / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {"count": 0, "attempts": []}


def until(true, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def alive(process: int) -> bool:
    """Whether it runs; one that has ended and that nobody has asked about does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def below(process: int, ancestor: int) -> bool:
    """Whether one process, while it runs, was started by another or by what that has started."""
    while process > 1 and process != ancestor:
        try:
            process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
        except FileNotFoundError:
            return False
    return process == ancestor


class Beside(threading.Thread):
    """Does something while the test goes on; what it raises is raised where the block ends."""

    def __init__(self, what):
        super().__init__(daemon=True)
        self.what, self.error = what, None

    def run(self) -> None:
        try:
            self.what()
        except BaseException as error:
            self.error = error

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.join(60)
        assert not self.is_alive()
        if self.error:
            raise self.error


def kill(folder: Path, name: str, attempts: int = 1, at: int = 3) -> None:
    """Kill attempts of a count, each when it has counted ``at`` further."""
    for number in range(attempts):
        until(lambda number=number: len(state(folder, name)["attempts"]) == number + 1)
        begun = state(folder, name)["attempts"][-1]
        until(lambda begun=begun: state(folder, name)["count"] >= begun["at"] + at)
        os.kill(begun["process"], signal.SIGKILL)


# ---- what a work may be ----


@pytest.mark.parametrize("call", ["os:system", "probegym:__version__", "probegymnasium.x:f", "probegym.agents.files:shutil.rmtree", "probegym.x", "probegym.agents.files:", "", "probegym..x:f", "probegym.x:f\n", 3])  # fmt: skip
def test_a_function_of_another_package_is_refused(call):
    with pytest.raises(ProbeGymError, match=r"probegym\.module:function"):
        Work("a", call, {})


@pytest.mark.parametrize("told", [{"x": float("nan")}, {"x": (1, 2)}, {1: 2}, {"x": {1, 2}}, {"x": Path("y")}, [1], None, {"x": b"y"}])
def test_what_is_no_plain_json_is_refused(told):
    with pytest.raises(ProbeGymError, match="plain JSON"):
        Work("a", COUNT, told)


def test_what_is_told_becomes_plain():
    told = {"name": ExecutorName.ray, "rate": np.float64(0.5), "more": [1]}
    plain = Work("a", COUNT, told).told
    assert plain == told and type(plain["name"]) is str and type(plain["rate"]) is float and plain["more"] is not told["more"]


@pytest.mark.parametrize(("call", "told"), [
    ("probegym.agents.files:contextmanager", "is no function of this package"),  # imported there from elsewhere
    ("probegym.agents.executors:Work", "is no function of this package"),
    ("probegym.agents.executors:CALL", "is no function of this package"),
    ("probegym.agents.files:nothing", "check the name"),
    ("probegym.nowhere:nothing", "check the name"),
])  # fmt: skip
def test_only_functions_of_this_package_are_called(call, told):
    with pytest.raises(ProbeGymError, match=told):
        perform(Work("a", call, {}))


@pytest.mark.parametrize("line", [b"", b"\n", b"garbage\n", b'{"name": "a"}\n', b'{"name": "a", "call": "os:system", "told": {}}\n', b'{"name": "a", "call": 1, "told": {}}\n', b"[1]\n", b"\xff\xfe\n", b'{"name": "a", "call": "x", "told": NaN}\n'])  # fmt: skip
def test_garbage_is_refused_in_one_line(line):
    done = subprocess.run([sys.executable, "-m", WORKER], input=line, capture_output=True, timeout=60, cwd=ROOT)
    assert done.returncode == 1 and done.stdout == b""
    assert done.stderr.count(b"\n") == 1 and b"Traceback" not in done.stderr


@pytest.mark.parametrize("made", [lambda: Local(0), lambda: Local(retries=-1), lambda: Ray(workers=0), lambda: executor("dask")])
def test_an_executor_that_cannot_be_is_refused(made):
    with pytest.raises(ProbeGymError, match="use"):
        made()


def test_two_works_of_one_name_are_refused_before_anything_starts(tmp_path):
    with pytest.raises(ProbeGymError, match="two works are named 'a'"):
        Local().run([counting(tmp_path, "a"), counting(tmp_path, "a")])
    assert not list(tmp_path.iterdir())


# ---- on this machine ----


def test_outcomes_come_in_the_order_of_the_works_and_are_told_once_each(tmp_path):
    told: list[Outcome] = []
    works = [counting(tmp_path, "slow", 1, 2.0), counting(tmp_path, "quick"), counting(tmp_path, "other")]
    outcomes = Local(workers=3).run(works, told.append)
    assert [(o.name, o.ok, o.attempts, o.error) for o in outcomes] == [(name, True, 1, "") for name in ("slow", "quick", "other")]
    assert sorted(told, key=outcomes.index) == outcomes and told[-1].name == "slow"
    assert all(state(tmp_path, o.name)["count"] == works[i].told["to"] for i, o in enumerate(outcomes)) and outcomes[0].seconds >= 2
    assert Local().run([]) == []


def test_no_more_run_at_once_than_there_are_workers(tmp_path):
    there: list[set[str]] = []
    Local(workers=1).run([counting(tmp_path, name) for name in "abc"], lambda outcome: there.append({path.stem for path in tmp_path.glob("*.json")}))
    assert there == [{"a"}, {"a", "b"}, {"a", "b", "c"}]


def test_a_killed_process_is_begun_again_where_it_was(tmp_path):
    environment = []

    def look() -> None:
        until(lambda: state(tmp_path, "a")["count"] > 0)
        environment.append(Path(f"/proc/{state(tmp_path, 'a')['attempts'][0]['process']}/environ").read_bytes().split(b"\0"))
        kill(tmp_path, "a")

    with Beside(look):
        killed, other = Local().run([counting(tmp_path, "a", 40, 0.05), counting(tmp_path, "b")])
    assert (killed.ok, killed.attempts, killed.error, other.attempts) == (True, 2, "", 1)
    kept = state(tmp_path, "a")
    assert kept["count"] == 40 and kept["attempts"][0]["at"] == 0 and kept["attempts"][1]["at"] >= 3
    assert {b"OMP_NUM_THREADS=1", b"PROBEGYM_THREADS=1"} <= set(environment[0])


def test_what_is_killed_again_and_again_is_reported(tmp_path):
    with Beside(lambda: kill(tmp_path, "a", attempts=3)):
        dead, other = Local(retries=2).run([counting(tmp_path, "a", 10_000, 0.05), counting(tmp_path, "b")])
    assert (dead.ok, dead.attempts, other.ok) == (False, 3, True) and "signal 9" in dead.error


def test_a_failing_work_is_reported_with_its_message(tmp_path):
    (tmp_path / "file").touch()
    works = [counting(tmp_path / "file", "mistake"), Work("bug", COUNT, {"file": str(tmp_path / "x.json"), "seconds": 0}), counting(tmp_path, "good")]
    mistake, bug, good = Local(retries=1).run(works)
    assert (mistake.ok, mistake.attempts) == (False, 2) and mistake.error.startswith("cannot write ") and "\n" not in mistake.error
    assert (bug.ok, bug.attempts) == (False, 2) and bug.error.splitlines()[-1] == "KeyError: 'to'"
    assert (good.ok, good.attempts) == (True, 1)


def test_a_count_in_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "a.json").write_text("mine")
    (outcome,) = Local(retries=0).run([counting(tmp_path, "a")])
    assert not outcome.ok and "is no file of a count" in outcome.error and (tmp_path / "a.json").read_text() == "mine"


RUN = """if True:
    import signal, sys
    from pathlib import Path
    from probegym.agents.executors import Work
    from probegym.agents.executors.local import Local
    signal.signal(signal.SIGINT, signal.default_int_handler)
    Local().run([Work(n, "probegym.agents.executors.rehearsal:count", {"file": f"{sys.argv[1]}/{n}.json", "to": 10**6, "seconds": 0.05}) for n in "abc"])"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_who_started_it(tmp_path, sent):
    parent = subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path)], env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE)
    until(lambda: all(state(tmp_path, name)["count"] > 2 for name in "ab"))
    children = [state(tmp_path, name)["attempts"][0]["process"] for name in "ab"]
    assert all(map(alive, children))
    parent.send_signal(sent)
    _, said = parent.communicate(timeout=60)
    until(lambda: not any(map(alive, children)), 30)
    assert not state(tmp_path, "c")["attempts"] and all(len(state(tmp_path, name)["attempts"]) == 1 for name in "ab")
    assert (b"KeyboardInterrupt" in said) == (sent == signal.SIGINT)
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".json"]  # they ended between two files


# ---- trainings ----


def asked(folder: Path, **changes) -> dict:
    what = {"env_id": "probegym/AdatomManipulation-v0", "scenario": "train", "algorithm": "ppo", "length": 64, "seed": 1, "folder": str(folder)}
    return what | {"live": 2, "final": 2, "hyperparameters": {}} | changes


def test_a_diary_forgets_what_came_after_the_checkpoint(tmp_path):
    log = training.Diary(tmp_path, asked(tmp_path))
    log.begin(0)
    for at in (10, 20, 30):
        log.point(at, at / 100)
    again = training.Diary(tmp_path, asked(tmp_path / "moved"))
    again.begin(20)
    again.end(success=float("nan"))
    kept = training.diary(tmp_path)
    assert kept["curve"] == [[10, 0.1], [20, 0.2]] and [attempt["at"] for attempt in kept["attempts"]] == [0, 20]
    assert kept["result"] == {"success": None}
    with pytest.raises(ProbeGymError, match="other length, seed: use the same"):
        training.Diary(tmp_path, asked(tmp_path, length=65, seed=2))


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b'{"told": {}}'])
def test_a_damaged_diary_is_refused(tmp_path, content):
    (tmp_path / training.DIARY).write_bytes(content)
    with pytest.raises(ProbeGymError, match="delete the folder"):
        training.train(asked(tmp_path))


@pytest.fixture
def quick(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train_command, "SELECTION_EPISODES", 4)
    monkeypatch.setattr(train_command, "LIVE_EPISODES", 4)


def test_seeds_are_trained_resumed_and_shown(quick, tmp_path):
    """Seed 2 dies behind its first checkpoint; the whole is stopped by nothing, repeated by nothing."""
    command = ("train", "AdatomManipulation", "--algorithm", "ppo", "--steps", 1500, "--seeds", 2, "--out", "run")

    def doom() -> None:
        folder = tmp_path / "run/seed-2"
        until(lambda: any(at > 1100 for at, _ in (training.diary(folder) or {"curve": []})["curve"]), 120)
        os.kill(training.diary(folder)["attempts"][0]["process"], signal.SIGKILL)

    with Beside(doom):
        done = call(*command)
    assert done.exit_code == 0, done.output
    rows = json.loads((tmp_path / "run/seeds.json").read_text())["seeds"]
    assert [(row["seed"], row["ok"], row["error"]) for row in rows] == [(1, True, ""), (2, True, "")]
    assert [attempt["at"] for attempt in rows[0]["attempts"]] == [0] and [attempt["at"] for attempt in rows[1]["attempts"]] in ([0, 1024], [0, 2048])
    for row in rows:
        steps = [at for at, _ in row["curve"]]
        assert steps == sorted(set(steps)) and steps[-1] == 1500 and row["result"]["length"] == 2048 and 0 <= row["result"]["success"] <= 1
    assert "seed-2: done in" in done.output and "at attempt 2" in done.output and "0, " in done.output.partition("attempts began at")[2]
    spec = json.loads((tmp_path / "run/seed-2/policy/policy.json").read_text())
    assert spec["command"].startswith("probegym train AdatomManipulation-v0 --algorithm ppo --scenario train --steps 1500 --seed 2 --out runs/seed-2")
    _repeated(command, tmp_path)


def _repeated(command, folder):
    """The same again: nothing without --resume, nothing done twice, nothing mixed."""
    done = call(*command)
    assert done.exit_code == 2 and "go on from them with --resume" in done.stderr
    before = (folder / "run/seed-1/training.json").read_bytes()
    assert call(*command, "--resume").exit_code == 0 and (folder / "run/seed-1/training.json").read_bytes() == before
    done = call(*command[:5], 4096, *command[6:], "--resume")
    assert done.exit_code == 2 and "2 of 2 failed (seed 1, 2; " in done.stderr and "other length" in done.stderr
    assert not any(row["ok"] for row in json.loads((folder / "run/seeds.json").read_text())["seeds"])


@pytest.mark.parametrize(("options", "mend"), [
    (["--workers", "2"], "go with --seeds"),
    (["--executor", "local"], "go with --seeds"),
    (["--first-seed", "2"], "go with --seeds"),
    (["--seeds", "2", "--seed", "5"], "use --first-seed"),
    (["--seeds", "2", "--resume"], "leave --resume out"),
    (["--seeds", "0"], "--seeds"),
    (["--seeds", "2", "--scenario", "id"], "split train"),
    (["--seeds", "2", "--out", "/dev/null/x"], "choose another with --out"),
])  # fmt: skip
def test_mistakes_about_seeds(quick, options, mend):
    done = call("train", "AdatomManipulation", "--algorithm", "ppo", *options)
    assert done.exit_code == 2 and done.stderr.count("\n") == 1 and mend in done.stderr, done.output


# ---- sweeps ----

SPACE = "learning_rate: {log_uniform: [1e-4, 1e-2]}\nn_epochs: {choice: [2, 4, 8]}\ngamma: 0.98\n"


def space(folder: Path, text: str = SPACE) -> Path:
    path = folder / "space.yaml"
    path.write_text(text)
    return path


def test_hyperparameters_depend_on_seed_and_trial_alone(tmp_path):
    read = sweep.read_space(space(tmp_path), "ppo")
    drawn = sweep.draw(read, "ppo", 40, 1)
    assert drawn[:5] == sweep.draw(read, "ppo", 5, 1) and drawn[:5] != sweep.draw(read, "ppo", 5, 2)
    rates = [trial["learning_rate"] for trial in drawn]
    assert 1e-4 <= min(rates) < 1e-3 < max(rates) <= 1e-2 and len(set(rates)) == 40
    assert {trial["n_epochs"] for trial in drawn} == {2, 4, 8} and all(type(trial["n_epochs"]) is int for trial in drawn)
    assert {trial["gamma"] for trial in drawn} == {0.98}


@pytest.mark.parametrize(("text", "told"), [
    ("a: [", "not valid YAML"),
    ("- 1\n", "its entries have no names"),
    ("{}\n", "must map hyperparameters"),
    ("", "is empty"),
    ("gamma: 0.9\nlr: 1.0\n", "line 2: unknown hyperparameter 'lr'"),
    ("gamma: 0.9\n\nclip_range: {uniform: [0.3, 0.1]}\n", "line 3: clip_range: uniform needs low <= high"),
    ("gamma: {uniform: [0.1, 0.2], choice: [1]}\n", "line 1: gamma: give exactly one"),
    ("gamma: {uniform: [0.1, .nan]}\n", "finite"),
    ("gamma: fast\n", "line 1: gamma"),
    ("gamma: {normal: [0.9, 5.0]}\n", "must lie between 0 and 1"),
    ("tau: 0.1\n", "unknown hyperparameter 'tau' of ppo"),
])  # fmt: skip
def test_a_broken_space_is_refused(quick, tmp_path, text, told):
    done = call("sweep", "AdatomManipulation", "--space", space(tmp_path, text), "--trials", 8)
    assert done.exit_code == 2 and done.stderr.count("\n") == 1 and told in done.stderr, done.output
    assert not (tmp_path / "runs").exists()


def test_a_sweep_ends_with_its_best_trial(quick, tmp_path):
    command = ("sweep", "AdatomManipulation", "--space", space(tmp_path), "--trials", 2, "--steps", 64, "--out", "run")
    done = call(*command)
    assert done.exit_code == 0, done.output
    rows = json.loads((tmp_path / "run/sweep.json").read_text())["trials"]
    assert {row["trial"] for row in rows} == {0, 1} and all(row["ok"] and row["result"]["length"] == 64 for row in rows)
    assert [sweep.rank(row) for row in rows] == sorted(map(sweep.rank, rows), reverse=True)
    assert f"best: trial {rows[0]['trial']}, policy in run/trial-{rows[0]['trial']}/policy" in done.output
    best = tmp_path / f"run/trial-{rows[0]['trial']}/policy"
    command_of_best = json.loads((best / "policy.json").read_text())["command"]
    assert (best / "policy.onnx").is_file() and command_of_best in done.output.replace("\n", "")
    assert all(f"--set {name}={value!r}" in command_of_best for name, value in rows[0]["hyperparameters"].items())
    assert "--resume" in call(*command).stderr


# ---- Ray ----

ray_group = pytest.mark.xdist_group("ray")


def _need_ray() -> None:
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install 'probegym[ray]'")


@pytest.fixture(scope="module")
def cluster():
    """A head node of one processor on this machine."""
    _need_ray()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64, "RAY_USAGE_STATS_ENABLED": "0"}.items():
            patch.setenv(name, value)  # Ray reads them when it is imported
        from ray.cluster_utils import Cluster

        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, "object_store_memory": 100_000_000})
        try:
            yield made
        finally:
            made.shutdown()


@ray_group
def test_nothing_is_lost_when_a_process_and_a_node_die(cluster, tmp_path):
    node = cluster.add_node(num_cpus=1, object_store_memory=100_000_000)
    names, raylet = "abcd", node.all_processes["raylet"][0].process.pid

    def at_work_there() -> bool:
        begun = [state(tmp_path, name) for name in names]
        return any(kept["attempts"] and 3 < kept["count"] < 25 and below(kept["attempts"][-1]["process"], raylet) for kept in begun)

    def disaster() -> None:
        kill(tmp_path, "a")
        until(lambda: len(state(tmp_path, "a")["attempts"]) == 2)
        until(at_work_there)
        cluster.remove_node(node, allow_graceful=False)

    told: list[Outcome] = []
    with Beside(disaster):
        outcomes = Ray(cluster.address).run([counting(tmp_path, name, 30, 0.1) for name in names], told.append)
    assert [(o.name, o.ok) for o in outcomes] == [(name, True) for name in names] and sorted(told, key=outcomes.index) == outcomes
    attempts = {name: state(tmp_path, name)["attempts"] for name in names}
    assert all(state(tmp_path, name)["count"] == 30 for name in names)
    assert {o.name: o.attempts for o in outcomes} == {name: len(begun) for name, begun in attempts.items()}
    again = [attempt["at"] for begun in attempts.values() for attempt in begun[1:]]
    assert len(again) >= 2 and all(at > 0 for at in again)


@ray_group
def test_what_fails_on_ray_is_reported_with_its_message(cluster, tmp_path):
    (tmp_path / "file").touch()
    bug = Work("bug", COUNT, {"file": str(tmp_path / "x.json"), "seconds": 0})
    outcomes = Ray(cluster.address, retries=1).run([counting(tmp_path / "file", "mistake"), bug, Work("none", "probegym.nowhere:f", {}), counting(tmp_path, "good")])
    mistake, wrong, missing, good = outcomes
    assert [(o.ok, o.attempts) for o in outcomes] == [(False, 2), (False, 2), (False, 2), (True, 1)]
    assert mistake.error.startswith("cannot write ") and wrong.error.splitlines()[-1] == "KeyError: 'to'" and "check the name" in missing.error
    assert good.error == ""


@ray_group
def test_a_killed_trial_of_a_sweep_on_ray_is_resumed(cluster, quick, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    killed = []

    def doom() -> None:
        def beyond() -> bool:
            kept = {path.parent.name: training.diary(path.parent) for path in tmp_path.glob("run/trial-*/training.json")}
            killed[:] = [(name, diary["attempts"][0]["process"]) for name, diary in kept.items() if any(at > 1100 for at, _ in diary["curve"])]
            return bool(killed)

        until(beyond, 300)
        os.kill(killed[0][1], signal.SIGKILL)

    with Beside(doom):
        done = call("sweep", "AdatomManipulation", "--space", space(tmp_path), "--trials", 1, "--steps", 1500, "--out", "run", "--executor", "ray")
    assert done.exit_code == 0, done.output
    rows = json.loads((tmp_path / "run/sweep.json").read_text())["trials"]
    assert [(row["trial"], row["ok"], row["result"]["length"]) for row in rows] == [(0, True, 2048)]
    attempts = {f"trial-{row['trial']}": [attempt["at"] for attempt in row["attempts"]] for row in rows}
    assert attempts[killed[0][0]] in ([0, 1024], [0, 2048])
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"sweep.json", "trial-0"}  # nothing of Ray's stays


ALONE = """if True:
    import json, sys
    from dataclasses import asdict
    from probegym.agents.executors import Work, executor
    work = [Work(n, "probegym.agents.executors.rehearsal:count", {"file": f"{sys.argv[1]}/{n}.json", "to": 2, "seconds": 0}) for n in "ab"]
    print(json.dumps([asdict(outcome) for outcome in executor("ray", 1).run(work)]))"""


@ray_group
def test_a_cluster_of_its_own_leaves_nothing_at_home(tmp_path):
    _need_ray()
    (tmp_path / "home").mkdir()
    (tmp_path / "out").mkdir()
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path / "home")}
    done = subprocess.run([sys.executable, "-c", ALONE, str(tmp_path / "out")], env=surroundings, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [(o["name"], o["ok"], o["attempts"]) for o in json.loads(done.stdout.splitlines()[-1])] == [("a", True, 1), ("b", True, 1)]
    assert not list((tmp_path / "home").rglob("*token*")) and not (tmp_path / "home/ray_results").exists()


def test_without_ray_there_is_one_clear_line(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ProbeGymError, match=r"pip install 'probegym\[ray\]', or use --executor local") as told:
        executor("ray").run([counting(tmp_path, "a")])
    assert "\n" not in str(told.value)


@ray_group
def test_a_cluster_that_is_not_there_is_refused(cluster, tmp_path):
    with pytest.raises(ProbeGymError, match=r"no Ray cluster at 127\.0\.0\.1:1 "):
        Ray("127.0.0.1:1").run([counting(tmp_path, "a")])
