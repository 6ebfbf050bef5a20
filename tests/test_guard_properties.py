"""Any JSON and any bytes at the guard: what comes through is within the limits, everything else is refused in one line; with hypothesis."""

from __future__ import annotations

import copy
import itertools
import json
import os
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from probegym.hardware_bridge import codec
from probegym.hardware_bridge.guard.gate import Admission
from probegym.hardware_bridge.world import Refused
from tests.guard_helpers import BLANK, INSPECT, ROUTINE, Bench, image, park, permitted, shift, stage, tune

PROFILE = settings(derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
COMMANDS = [park(), image(), shift(), stage(), tune(), BLANK, ROUTINE, INSPECT]


NUMBERS = st.floats() | st.integers() | st.sampled_from([0, 1e-6, -1e-6, 1e300, 1e-300, 2**63, 10**400, True, 0.1, 16])
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=5) | st.sampled_from(["m", "s", "HAADF", "PlaceProbe"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["verb", "arguments", "value", "unit", "position", "x"]), inner, max_size=3),
    max_leaves=8,
)


def entries(content: Any, path: tuple = ()) -> list[tuple]:
    """The path of everything in a nest."""
    inner = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [path, *itertools.chain.from_iterable(entries(value, (*path, key)) for key, value in inner)]


@st.composite
def requests(draw: st.DrawFn) -> Any:
    """A command of which some entries were replaced, taken away or doubled, or any JSON."""
    if draw(st.integers(0, 9)) == 0:
        return draw(JSON)
    content = codec.command_to_json(draw(st.sampled_from(COMMANDS)))
    for _ in range(draw(st.integers(0, 2))):
        path = draw(st.sampled_from(entries(content)))
        inner: Any = content
        for name in path[:-1]:
            inner = inner[name]
        if not path:
            return draw(JSON)
        how = draw(st.integers(0, 3))
        if how == 0 and isinstance(inner, list):
            inner.append(copy.deepcopy(inner[path[-1]]))
        elif how == 1:
            del inner[path[-1]]
        else:
            inner[path[-1]] = draw(NUMBERS if how == 2 else JSON)
    return content


@pytest.fixture(scope="module", autouse=True)
def disk():
    """Accounts in memory where there is such a folder, and not synchronised: thousands of them are begun here."""
    with mock.patch.object(os, "fdatasync", lambda _: None), mock.patch.object(os, "fsync", lambda _: None):
        yield


@given(content=requests(), number=st.just(1) | JSON, stamp=st.just(1010.0) | JSON, action=st.just(0) | JSON, lies=st.lists(st.floats(-2e-6, 2e-6), min_size=2, max_size=2))
@settings(PROFILE, max_examples=1000)
def test_no_json_reaches_the_instrument_beyond_its_limits(content, number, stamp, action, lies):
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder)).armed()
        bench.instrument.controls["shift"] = np.array(lies)
        try:
            admitted = bench.gate.admit(number, stamp, action, content)
        except Refused as refusal:
            assert str(refusal) and "\n" not in str(refusal)
            assert bench.gate.running is None and not bench.ledger.regions and "intent" not in bench.record.kinds()
            return
        command = admitted.command if isinstance(admitted, Admission) else codec.command_from_json(admitted.content)
        assert permitted(command, np.array(lies), np.zeros(2), 10.0)
        assert codec.command_to_json(command) == codec.command_to_json(codec.command_from_json(content))
        assert type(number) is type(action) is int and number >= 0 and action >= 0 and 1005.0 <= stamp <= 1010.0


@given(st.binary(max_size=60) | JSON.map(lambda content: json.dumps(content).encode()), st.binary(max_size=20), st.booleans())
@settings(PROFILE, max_examples=1000)
def test_any_bytes_are_a_message_or_malformed(head, body, right):
    try:
        header, arrays = codec.unpack(head, body, codec.zlib.crc32(body, codec.zlib.crc32(head)) if right else 1)
    except codec.Malformed as error:
        assert "\n" not in str(error)
        return
    assert isinstance(header, dict) and all(isinstance(array, np.ndarray) for array in arrays.values())
