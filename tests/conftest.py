"""Tests that ask for ``subject`` run for every case of every registered environment."""

from __future__ import annotations

import pytest

from tests.environments import Registered, registered
from tests.guard_helpers import armed, bench

__all__ = ["armed", "bench"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "subject" in metafunc.fixturenames:
        subjects = registered()
        metafunc.parametrize("subject", subjects, ids=[f"{s.id.split('/')[1]}-{s.case.scenario}" for s in subjects])


@pytest.fixture
def env(subject: Registered):
    """The environment without wrappers, after its first reset."""
    environment = subject.bare()
    environment.reset(seed=3)
    yield environment
    environment.close()
