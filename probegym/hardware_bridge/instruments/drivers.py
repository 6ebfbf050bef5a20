"""Instruments and their drivers by name.

How an instrument is reached is told as plain JSON with its ``driver``, so that guard and guardian can each open it in their own process.
"""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from probegym.errors import ProbeGymError
from probegym.hardware_bridge import codec
from probegym.hardware_bridge.codec import Json
from probegym.hardware_bridge.instruments import Instrument

DRIVERS = {"served": "probegym.hardware_bridge.instruments.wire", "nanonis": "probegym.hardware_bridge.instruments.nanonis.driver"}
"""Driver -> module with ``writer(told, name)`` and ``safety(told, name)``."""

STARTED = {
    "twin": "probegym.hardware_bridge.instruments.twin",
    "nion": "probegym.hardware_bridge.instruments.nion.usim",
    "nion-twin": "probegym.hardware_bridge.instruments.nion.twin",
    "nanonis-twin": "probegym.hardware_bridge.instruments.nanonis.server",
}
"""Instrument that is started for a deployment -> module with ``started(meant)``, and ``fits(meant)``, which raises ProbeGymError where it cannot be."""

LONGEST_FILE = 1 << 20


@dataclass(frozen=True)
class Meant:
    """What a deployment is about. twin: ``module:Class`` of the environment; world: of its scenario.

    pace: simulated seconds a second, 0 for as fast as it can. judged: whether the session may ask for truth and begin episodes by their keys.
    """

    twin: str
    world: dict[str, Any]
    pace: float = 0.0
    judged: bool = False


class Reached(Protocol):
    """An instrument that can be connected to, as long as this is not closed."""

    @property
    def reached(self) -> Json:
        """What a driver needs to connect."""

    def alive(self) -> bool:
        """Whether what was started for it still runs."""

    def close(self) -> None:
        """End what was started for it."""


@dataclass(frozen=True)
class Running:
    """An instrument that somebody else runs: nothing was started, and nothing is ended."""

    reached: Json

    def alive(self) -> bool:
        """As far as is known here."""
        return True

    def close(self) -> None:
        """It stays."""


class Safety(Protocol):
    """The part of an instrument that a guardian has."""

    def safe(self, seconds: float) -> None:
        """Go to the safe state; raises InstrumentFault."""

    def is_safe(self) -> bool:
        """Whether the safe state is read back now."""

    def close(self) -> None:
        """Close the connection."""


def reach(instrument: str, meant: Meant) -> Reached:
    """An instrument by name, started for this, or by a file FILE.json that tells how it is reached. Raises ProbeGymError."""
    if instrument in STARTED:
        return cast(Reached, importlib.import_module(STARTED[instrument]).started(meant))
    return Running(_told(instrument, meant))


def check(instrument: str, meant: Meant) -> None:
    """Raise ProbeGymError where ``reach`` could not succeed, as far as that is known without starting anything."""
    if instrument in STARTED:
        importlib.import_module(STARTED[instrument]).fits(meant)
    else:
        _told(instrument, meant)


def _told(instrument: str, meant: Meant) -> Json:
    if not instrument.endswith(".json"):
        raise ProbeGymError(f"there is no instrument {instrument!r}: use {', '.join(STARTED)}, or a FILE.json that tells how it is reached")
    reached = from_file(Path(instrument))
    _module(reached)
    if meant.judged:
        raise ProbeGymError(f"{instrument} is no twin of this deployment: use --mode shadow, supervised or autonomous")
    return reached


def write(path: Path, reached: Json) -> None:
    """Write down how something is reached, for this user alone: the secret is in it. Raises ProbeGymError, also when the file exists."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(codec.dumps(reached) + "\n")
    except FileExistsError as error:
        raise ProbeGymError(f"{path} exists: another run may be using it; choose another folder, or delete it when none does") from error
    except OSError as error:
        raise ProbeGymError(f"{path} cannot be written ({error.strerror}): choose another folder") from error


def from_file(path: Path) -> Json:
    """How an instrument is reached, from a file; the path of its ``settings`` counts from the folder of that file. Raises ProbeGymError."""
    try:
        with path.open("rb") as file:
            content = codec.loads(file.read(LONGEST_FILE))
    except OSError as error:
        raise ProbeGymError(f"{path} cannot be read ({error.strerror}): give the file that was written when it was started, or that describes your instrument") from error
    except codec.Malformed as error:
        raise ProbeGymError(f"{path} is no JSON ({error}): give the file that was written when it was started, or that describes your instrument") from error
    if not isinstance(content, dict):
        raise ProbeGymError(f"{path} must hold an object: give the file that was written when it was started, or that describes your instrument")
    told = content.get("settings")
    return content | {"settings": str(path.absolute().parent / told)} if isinstance(told, str) else content


def only(reached: Json, *roles: str) -> Json:
    """How it is reached by these roles alone: nobody is handed another's secret. Raises ProbeGymError for an observer where a driver has none."""
    secrets = reached.get("secrets")
    if "observer" in roles and reached.get("driver", "served") != "served":
        told = f"a shadow looks on at what somebody else acquires, and the driver {codec.shown(reached.get('driver'))} lets nobody look on: its wire answers only who asks"
        raise ProbeGymError(f"{told}; use --mode supervised, in which an operator agrees to every action")
    return reached | {"secrets": {role: secret for role, secret in secrets.items() if role in roles}} if isinstance(secrets, dict) else reached


def open_writer(told: Json, name: str) -> Instrument:
    """The instrument, to write to; raises ProbeGymError when it is not there, or when another guard holds it."""
    return cast(Instrument, _module(told).writer(told, name))


def open_safety(told: Json, name: str) -> Safety:
    """A connection that can only go safe."""
    return cast(Safety, _module(told).safety(told, name))


def _module(told: Json):  # type: ignore[no-untyped-def]
    driver = told.get("driver")
    if driver not in DRIVERS:
        raise ProbeGymError(f"there is no driver {codec.shown(driver)}: use one of {', '.join(DRIVERS)}")
    return importlib.import_module(DRIVERS[driver])
