"""IsingInference: what the belief claims to know is what it knows, whatever is imaged, with a classifier as told and with an unknown one."""

from __future__ import annotations

import numpy as np
import pytest

import probegym  # noqa: F401  registers the environments
from probegym.agents import baselines_ising
from probegym.agents.base import Agent, RandomAgent
from probegym.agents.evaluate import evaluate
from probegym.agents.seeds import TUNING_SEED

ENV = "probegym/IsingInference-v0"


class RepeatedQuarter(Agent):
    """One quarter of the first state again and again, with the shortest look."""

    def begin(self, lanes: int, seed: int) -> None:
        pass

    def act(self, observation, episodes) -> np.ndarray:
        return np.tile([0, 0, 0, 0, 1], (len(observation["budget"]), 1))


AGENTS = {
    "uniform": (baselines_ising.UniformSweep, None), "fisher": (baselines_ising.MaximumFisher, None), "patient": (baselines_ising.MaximumFisherPatient, None),
    "repeat": (RepeatedQuarter, 120), "random": (RandomAgent, None),
}  # fmt: skip


@pytest.mark.parametrize("scenario", ["train-known", "train"])
def test_errors_are_as_large_as_the_belief_says(scenario):
    mean = {}
    for name, (agent, images) in AGENTS.items():
        surprise = evaluate(agent(), ENV, scenario, 32, seed=TUNING_SEED, budget=images).metrics["surprise"]
        mean[name] = surprise.mean()
        assert 0.2 < np.median(surprise) < 0.8, (name, np.median(surprise))
    assert 0.7 < np.mean(list(mean.values())) < 1.4 and all(0.55 < value < 1.8 for value in mean.values()), mean
