"""The page of an environment tells what its ``info`` holds and what its oracle is."""

from __future__ import annotations

import inspect
import re

import pytest

import probegym
from probegym import scenarios
from probegym.envs import environment_type
from probegym.envs.task import Task
from tests.helpers import ROOT


def section(env_id: str, title: str) -> str:
    """A section of an environment's page."""
    text = (ROOT / "docs" / "environments" / f"{environment_type(env_id).task_type.family}.md").read_text(encoding="utf-8")
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.M | re.S)[1]


def test_every_key_of_info_stands_on_the_page(subject):
    told = set(re.findall(r"`([a-z_]+)`", "".join(row.split("|")[1] for row in section(subject.id, "Info").splitlines() if row.startswith("| `"))))
    for reward in subject.case.rewards:
        env = subject.bare(reward=reward)
        _, begun = env.reset(seed=3)
        info = env.step(subject.actions(1)[0])[4]
        assert begun.keys() <= info.keys() <= told


@pytest.mark.parametrize("env_id", probegym.ENVIRONMENTS)
def test_every_key_of_info_has_a_unit_and_a_meaning(env_id):
    for row in section(env_id, "Info").splitlines():
        if row.startswith("| `") and not row.startswith("| `reward_"):
            key, unit, meaning = (cell.strip() for cell in row.strip("|").split("|"))
            assert meaning and (unit or key == "`achieved_before`"), row  # which is in the unit of the goals


@pytest.mark.parametrize("env_id", probegym.ENVIRONMENTS)
def test_every_oracle_says_what_it_is(env_id):
    task_type = environment_type(env_id).task_type
    told = inspect.getdoc(task_type.oracle)
    assert told != inspect.getdoc(Task.oracle) and re.search(r"\bbound\b", told)
    assert told.split("\n\n")[0].replace("\n", " ") in section(env_id, "Agents")


def test_info_meanings_speak_of_keys_that_there_are():
    for env_id in probegym.ENVIRONMENTS:
        kind = environment_type(env_id).task_type
        task = kind(scenarios.load(kind.family, "train").task)
        assert set(task.info_meanings) >= set(task.metric_units), env_id
