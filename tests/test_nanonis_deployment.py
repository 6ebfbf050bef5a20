"""Policies through the whole chain: session, guard, guardian, and the driver for Nanonis controllers on the simulated one."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from probegym.agents.bundle import BundlePolicy, find
from probegym.agents.evaluate import EVALUATION_SEED, evaluate
from probegym.errors import ProbeGymError
from probegym.hardware_bridge.deployment import Mode
from probegym.hardware_bridge.deployment.run import Deployment, Orders
from probegym.hardware_bridge.instruments import drivers
from probegym.hardware_bridge.records.read import Record
from probegym.hardware_bridge.records.steps import episodes
from probegym.hardware_bridge.twins.stm import StmTwin

TIP = ("probegym/TipConditioning-v0", "no-classifier")
EPISODES = 2


def orders(folder, instrument="nanonis-twin", mode=Mode.twin) -> Orders:
    limits = {"seconds": 1e7, "dose": 1e18, "new_sample": True, "damage": 1e9}
    return Orders(*TIP, find("tip-conditioning"), mode, folder / "runs", folder / "sample", EPISODES, EVALUATION_SEED, 10.0, instrument=instrument, **limits)


class Keeping(BundlePolicy):
    """Remembers its actions, batch by batch."""

    def begin(self, lanes, seed):
        super().begin(lanes, seed)
        self.kept = []

    def act(self, observation, of):
        self.kept.append(super().act(observation, of))
        return self.kept[-1]


def test_a_tip_is_conditioned_from_its_images_alone_as_in_process(tmp_path, monkeypatch):
    with Deployment(orders(tmp_path)) as run:
        run.operator.arm(run.operator.ask(run.request())["nonce"])
        news = [one for one in run.play() if one]
    ends, record = [one["episode"] for one in news if "episode" in one], Record(run.record)
    verdicts = [float(record.arrays(event)["verdict"][0]) for event in record if event.kind == "result" and "verdict" in record.arrays(event)]
    assert "done" in news[-1] and len(verdicts) >= EPISODES and set(verdicts) == {0.5}
    assert {event.payload["command"]["verb"] for event in record if event.kind == "intent"} & {"PulseBias", "DipTip"}, "nothing was treated"
    monkeypatch.setattr(StmTwin, "_verdict", lambda self, good, normal: np.full(self.lanes, 0.5))
    results = evaluate(agent := Keeping("tip-conditioning"), *TIP, EPISODES)
    assert [end["success"] for end in ends] == results.success.tolist() == [True] * EPISODES
    for lane, episode in enumerate(episodes(record)):
        actions = [int(record.arrays(event)["action"]) for event in episode.actions]
        assert actions == [int(batch[lane]) for batch in agent.kept[: len(actions)]]


def test_a_shadow_is_refused_with_its_reason(tmp_path):
    with pytest.raises(ProbeGymError, match="the driver 'nanonis' lets nobody look on"):
        drivers.only({"driver": "nanonis", "ports": [1, 2, 3]}, "observer")
    path = tmp_path / "stm.json"
    path.write_text(json.dumps({"driver": "nanonis", "ports": [1, 2, 3], "settings": {}}), encoding="utf-8")
    with pytest.raises(ProbeGymError, match="use --mode supervised"), Deployment(dataclasses.replace(orders(tmp_path, str(path)), mode=Mode.shadow)):
        pass
