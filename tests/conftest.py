"""Tests that ask for ``subject`` run for every case of every registered environment, those that ask for ``main`` for its first case."""

from __future__ import annotations

import os

import pytest

from probegym.hardware_bridge import channel
from probegym.hardware_bridge.deployment import policy
from tests.environments import CASES, Registered, registered
from tests.guard_helpers import armed, bench

__all__ = ["armed", "bench"]

if "COVERAGE_PROCESS_CONFIG" in os.environ:  # the bridge's processes are told little of what surrounds them, and must hear of this
    channel.PASSED_ON += ("COVERAGE_PROCESS_CONFIG",)
    policy.FOUND_BY += ("COVERAGE_PROCESS_CONFIG",)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    grouped = [item for item in items if item.get_closest_marker("xdist_group")]
    if getattr(config.option, "loadgroup", False) and not all("@" in item.nodeid for item in grouped):  # as pytest-xdist 3.8 does with pytest 9.2: four processes make what one could
        raise pytest.UsageError("this pytest-xdist does not group the tests of this pytest: install both as constraints.txt has them")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for name, every in (("subject", True), ("main", False)):
        if name in metafunc.fixturenames:
            subjects = [s for s in registered() if every or s.case is CASES[s.id][0]]
            metafunc.parametrize(name, subjects, ids=[f"{s.id.split('/')[1]}-{s.case.scenario}" for s in subjects])


@pytest.fixture
def env(subject: Registered):
    """The environment without wrappers, after its first reset."""
    environment = subject.bare()
    environment.reset(seed=3)
    yield environment
    environment.close()
