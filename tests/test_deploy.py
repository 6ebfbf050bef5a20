"""Deploying a policy: the same episodes as in evaluation, and every mode with as much trust as it has."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from probegym.agents.bundle import BundlePolicy, find, shipped
from probegym.agents.evaluate import EVALUATION_SEED, evaluate
from probegym.errors import ProbeGymError
from probegym.hardware_bridge.deployment import Mode
from probegym.hardware_bridge.deployment.bundle import read
from probegym.hardware_bridge.deployment.run import Deployment, Orders, agreement, checked
from probegym.hardware_bridge.guard.ledger import Budget, Ledger
from probegym.hardware_bridge.records.read import Record
from probegym.hardware_bridge.records.steps import episodes as recorded
from tests.terminal import call

STEM = ("probegym/StemTuning-v0", "id", "stem-tuning-ronchigram")
TIP = ("probegym/TipConditioning-v0", "id", "tip-conditioning")


def orders(folder, what=STEM, mode=Mode.twin, episodes=2, **more) -> Orders:
    env_id, scenario, policy = what
    return Orders(env_id, scenario, find(policy), mode, folder / "runs", folder / "sample", episodes, EVALUATION_SEED, 10.0,
                  **{"seconds": 1e7, "dose": 1e18, "new_sample": True, "damage": 1e9} | more)


def played(given: Orders) -> tuple[list[dict], str]:
    with Deployment(given) as run:
        if run.operator and given.mode is Mode.twin:
            run.operator.arm(run.operator.ask(run.request())["nonce"])
        return [news for news in run.play() if news], run.record


class Keeping(BundlePolicy):
    """Remembers its actions, batch by batch."""

    def begin(self, lanes, seed):
        super().begin(lanes, seed)
        self.kept = []

    def act(self, observation, episodes):
        self.kept.append(super().act(observation, episodes))
        return self.kept[-1]


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    """News and record of two episodes of STEM tuning on the twin."""
    return played(orders(tmp_path_factory.mktemp("deployed")))


@pytest.mark.parametrize("what", [STEM, TIP], ids=lambda what: what[2])
def test_a_deployed_policy_plays_the_episodes_of_its_evaluation(what, tmp_path, deployed):
    news, record = deployed if what is STEM else played(orders(tmp_path, what))
    ends = [one["episode"] for one in news if "episode" in one]
    agent = Keeping(what[2])
    results = evaluate(agent, what[0], what[1], 2)
    assert [end["success"] for end in ends] == results.success.tolist() and [end["steps"] for end in ends] == results.steps.tolist()
    assert [end["return"] for end in ends] == pytest.approx(results.returns.tolist(), abs=1e-9)
    for lane, episode in enumerate(recorded(Record(record))):
        for step, event in enumerate(episode.actions):
            assert np.allclose(Record(record).arrays(event)["action"], agent.kept[step][lane], atol=1e-5)


@pytest.mark.parametrize("name", [name for name in shipped() if name not in (STEM[2], TIP[2], "adatom-manipulation-chen", "adatom-manipulation-trace", "stem-tuning-haadf")])
def test_every_environment_runs_behind_the_guard(name, tmp_path):
    spec = read(find(name)).spec
    news, record = played(orders(tmp_path, (spec["environment"], spec["scenario"], name), episodes=1, seconds=1e12, changes=10**6, changes_each=10**6))
    assert "done" in news[-1] and Record(record).verify().closed


def test_the_record_is_sound_and_the_policy_replays_from_it(deployed, tmp_path):
    news, record = deployed
    assert Record(record).verify().sound
    again, _ = played(orders(tmp_path, mode=Mode.replay, record=Record(record).folder))
    assert [one["episode"] for one in again if "episode" in one] == [one["episode"] for one in news if "episode" in one]
    with pytest.raises(ProbeGymError, match="is of probegym/StemTuning-v0, scenario id: replay it with these"):
        played(orders(tmp_path, ("probegym/StemTuning-v0", "far-dose", STEM[2]), Mode.replay, record=Record(record).folder))


def test_a_shadow_decides_as_the_policy_that_works_and_sends_nothing(tmp_path):
    news, worked = played(orders(tmp_path, mode=Mode.shadow, episodes=1))
    shadow = next(one["record"] for one in news if "done" in one)
    same, total = agreement(Record(shadow).folder, Record(worked).folder)
    assert same == total > 5
    kinds = {event.kind for event in Record(shadow)}
    assert {"would", "observed"} <= kinds and not kinds & {"intent", "result"}


def test_what_does_not_fit_is_refused_before_anything_starts(tmp_path):
    for wrong, why in (
        (orders(tmp_path, (STEM[0], "haadf-id", STEM[2])), "needs"), (orders(tmp_path, (TIP[0], "id", STEM[2])), "is made for"),
        (orders(tmp_path, mode=Mode.replay), "needs a record"), (orders(tmp_path, record=tmp_path), "needs a record"),
    ):  # fmt: skip
        with pytest.raises(ProbeGymError, match=why):
            checked(wrong)
    assert not (tmp_path / "runs").exists()


def test_a_dose_that_does_not_fit_stops_the_run(tmp_path):
    news, record = played(orders(tmp_path, episodes=1, dose=5e6))
    assert "has no dose left" in news[-1]["stopped"] and Record(record).verify().sound


# ---- the command line ----


class Terminal:
    """``probegym deploy`` with an operator who reads and types."""

    def __init__(self, folder, *more):
        command = [sys.executable, "-u", "-m", "probegym", "deploy", "--policy", STEM[2], "--env", "StemTuning", "--out", str(folder), "--deadline", "10", *more]
        wide = os.environ | {"COLUMNS": "500"}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=wide,
                                        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # which jobs in the background ignore  # fmt: skip
        self.said, self.seen = "", 0
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while letter := self.process.stdout.read(1):
            self.said += letter

    def until(self, pattern: str) -> re.Match:
        end = time.monotonic() + 90
        while time.monotonic() < end:
            if found := re.compile(pattern).search(self.said, self.seen):
                self.seen = found.end()
                return found
            time.sleep(0.02)
        self.process.kill()
        raise AssertionError(self.said)

    def type(self, line: str) -> None:
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()


def test_an_operator_arms_agrees_and_refuses_at_the_terminal(tmp_path):
    desk = Terminal(tmp_path, "--mode", "supervised", "--sample", str(tmp_path / "account"), "--new-sample", "--dose", "1e12")
    desk.type(desk.until(r"type (\d{6}) to arm: ").group(1))
    for _ in range(2):  # the opening: what looks at the sample exposes it
        desk.until(r"action 0: AcquireRonchigram\n(.|\n)*?exposure_time +50 ms\n(.|\n)*?agree\? ")
        desk.type("y")
    desk.until(r"SetAberrations\n  C10 +\S+ \S*m\n(.|\n)*C23b(.|\n)*agree\? \[y/n, n ends the run\] ")
    desk.type("y")
    desk.until(r"agree\? ")
    desk.type("n")
    desk.until("stopped: refused: the operator did not agree")
    assert desk.process.wait(30) == 1


def test_a_wrong_nonce_arms_nothing(tmp_path):
    desk = Terminal(tmp_path, "--mode", "autonomous", "--sample", str(tmp_path / "account"), "--new-sample", "--dose", "1e12")
    desk.until("to arm: ")
    desk.type("000")
    desk.until("not the nonce")
    assert desk.process.wait(30) == 2


def test_control_c_aborts(tmp_path):
    desk = Terminal(tmp_path, "--mode", "supervised", "--sample", str(tmp_path / "account"), "--new-sample", "--dose", "1e12")
    desk.type(desk.until(r"type (\d{6}) to arm: ").group(1))
    desk.until(r"agree\? ")
    desk.process.send_signal(signal.SIGINT)
    desk.until("aborted: the instrument is in its safe state")
    assert desk.process.wait(30) == 130
    (run,) = tmp_path.glob("run-*")
    states = [event.payload for event in Record(run) if event.kind == "state"]
    assert any(state["state"] == "fault" and "Ctrl-C" in state["why"] for state in states)


def operate(action: str, desk: Path, number: str = "") -> str:
    which = ["--number", number] if number else []
    done = subprocess.run([sys.executable, "-m", "probegym", "operate", action, "--at", str(desk), *which], capture_output=True, text=True, timeout=60, env=os.environ | {"COLUMNS": "500"})
    return done.stdout + done.stderr


def test_another_terminal_can_do_all_that_an_operator_can(tmp_path):
    desk = Terminal(tmp_path, "--mode", "supervised", "--sample", str(tmp_path / "account"), "--new-sample", "--dose", "1e12")
    desk.type(desk.until(r"type (\d{6}) to arm: ").group(1))
    at = Path(desk.until(r"operate present --at (\S+)\n").group(1))
    assert at.stat().st_mode & 0o077 == 0, "the secret is in it"
    desk.until(r"agree\? ")
    assert operate("status", at).startswith("running") and "lease 6" in operate("present", at)
    told = operate("status", at)
    assert "request 1 waits, action 0: AcquireRonchigram" in told and "exposure_time  50 ms" in told
    assert "say which request is meant" in operate("agree", at) and "request 7 does not wait" in operate("agree", at, "7")
    operate("agree", at, "1")
    assert "request 2 waits" in operate("status", at)
    assert operate("hold", at).startswith("held (from another terminal)") and operate("resume", at).startswith("running")
    assert operate("abort", at).startswith("fault (aborted: from another terminal); STEM twin: safe state confirmed")
    assert operate("reset", at).startswith("disarmed") and "nothing to go on from" in operate("resume", at)
    desk.process.send_signal(signal.SIGINT)
    assert desk.process.wait(30) == 130 and not at.exists()
    assert "cannot be read" in operate("status", at)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--mode", "autonomous"], "say which sample is in the instrument"),
        (["--mode", "autonomous", "--sample", "none"], "there is none, which counts as spent"),
        (["--mode", "autonomous", "--sample", "none", "--new-sample"], "what each region of the new sample may take at worst"),
        (["--sample", "kept", "--new-sample"], "there is one already"),
        (["--sample", "kept", "--dose", "5"], "--dose and --changes-each are for a new sample"),
        (["--dose", "5", "--dry-run"], "the first commands may take .* beyond the limits"),
        (["--seconds", "1", "--mode", "twin", "--dry-run"], None),
        (["--instrument", "nowhere.json"], "nowhere.json cannot be read"),
        (["--instrument", "there.json"], "no twin of this deployment"),
        (["--instrument", "there.json", "--dry-run"], "no twin of this deployment"),
        (["--instrument", "nowhere.json", "--mode", "shadow", "--dry-run"], "nowhere.json cannot be read"),
        (["--instrument", "tem", "--dry-run"], "there is no instrument 'tem': use twin"),
        (["--instrument", "nanonis-twin", "--dry-run"], "needs an STM of one lane"),
        (["--mode", "replay", "--record", "nowhere", "--dry-run"], "nowhere"),
        (["--instrument", "nowhere.json", "--mode", "shadow"], "nowhere.json cannot be read"),
        (["--instrument", "tem"], "there is no instrument 'tem': use twin"),
    ],
)
def test_what_lacks_or_contradicts_is_said_before_anything_starts(tmp_path, monkeypatch, given, told):
    monkeypatch.chdir(tmp_path)
    Ledger.create(tmp_path / "kept", Budget(dose=1.0, changes=1, instrument="STEM twin")).close()
    (tmp_path / "there.json").write_text('{"driver": "served", "port": 1, "secrets": {}}')
    done = call("deploy", "--policy", STEM[2], "--env", "StemTuning", "--out", "out", *given)
    if told is None:
        assert done.exit_code == 0, done.output
    else:
        assert done.exit_code == 2 and re.search(told, done.stderr) and done.stderr.count("\n") == 1, done.output
    assert not (tmp_path / "out").exists()


def test_a_hang_up_of_the_terminal_leaves_the_instrument_safe(tmp_path):
    """Guard and guardian are in sessions of their own: what kills the terminal's processes does not reach them."""
    desk = Terminal(tmp_path, "--mode", "supervised", "--sample", str(tmp_path / "account"), "--new-sample", "--dose", "1e12")
    desk.type(desk.until(r"type (\d{6}) to arm: ").group(1))
    desk.until(r"agree\? ")
    desk.process.send_signal(signal.SIGHUP)
    desk.process.wait(30)
    (run,) = tmp_path.glob("run-*/")
    end = time.monotonic() + 20
    while not (kinds := [event.kind for event in Record(run)]) or kinds[-1] != "closed":
        assert time.monotonic() < end, kinds
        time.sleep(0.1)
    last = [event.payload for event in Record(run) if event.kind == "safe"][-1]
    assert last["confirmed"] is True


def test_a_policy_that_does_not_start_is_found_before_anybody_is_asked_to_arm(tmp_path):
    broken = tmp_path / "policy"
    shutil.copytree(find(STEM[2]), broken)
    told = json.loads((broken / "policy.json").read_text())
    told["golden"][0]["action"][0][0] += 0.5
    (broken / "policy.json").write_text(json.dumps(told))
    command = [sys.executable, "-m", "probegym", "deploy", "--policy", str(broken), "--env", "StemTuning", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "armed" not in done.stdout and done.stderr.count("\n") == 1


def test_a_dry_run_prints_the_plan_and_starts_nothing(tmp_path):
    desk = Terminal(tmp_path / "none", "--dry-run")
    desk.until("first commands(.|\n)*AcquireRonchigram(.|\n)*AcquireRonchigram")
    told = desk.said
    assert desk.process.wait(30) == 0 and not (tmp_path / "none").exists()
    assert all(word in told for word in ("sha256", "safe state: blank the beam", "AcquireRonchigram(", "SetAberrations", "limits of the run: seconds without limit, irreversible commands without limit"))
