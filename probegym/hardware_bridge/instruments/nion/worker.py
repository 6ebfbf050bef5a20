"""The process in which Nion Swift's stack runs, and serves its instrument: ``python -m probegym.hardware_bridge.instruments.nion.worker``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.channel import called
from probegym.hardware_bridge.codec import Json
from probegym.hardware_bridge.instruments.drivers import Meant
from probegym.hardware_bridge.instruments.faults import Faults
from probegym.hardware_bridge.instruments.host import Host, HostProcess, launched, serve

STEM = "probegym.hardware_bridge.twins.stem:StemTwin"
START_SECONDS = 120.0  # the vendor's imports take seconds


def fits(meant: Meant) -> None:
    """Raise ProbeGymError for another twin than the STEM."""
    if meant.twin != STEM:
        raise ProbeGymError(f"Nion Swift runs a STEM, not {meant.twin.rpartition(':')[2]}: use an environment such as probegym/StemTuning-v0")


def start(device: str, meant: Meant, faults: list[Json] | None = None) -> HostProcess:
    """Start a worker. device: ``usim`` or ``twin``. Raises ProbeGymError when it does not come up, or for another environment than of the STEM twin."""
    fits(meant)
    told = {"device": device, "world": meant.world, "judged": meant.judged, "faults": faults or []}
    return launched("probegym.hardware_bridge.instruments.nion.worker", told, START_SECONDS)


@contextlib.contextmanager
def hosted(device: str, world: Json, judged: bool, faults: Faults | None = None) -> Iterator[Host]:
    """The instrument of a device with the vendor's stack around it. Raises ProbeGymError."""
    from probegym.hardware_bridge.instruments.nion.instrument import NionInstrument
    from probegym.hardware_bridge.instruments.nion.setup import USIM
    from probegym.hardware_bridge.instruments.nion.stack import found, installed, stack, usim

    installed()
    if device == "usim":
        from probegym.hardware_bridge.instruments.nion.usim import UsimJudge

        with stack(usim()):
            instrument = NionInstrument(found(USIM), USIM)
            yield Host(instrument, UsimJudge(instrument, world) if judged else None, faults)
    elif device == "twin":
        from probegym.hardware_bridge.instruments.nion.device import TwinInside
        from probegym.hardware_bridge.instruments.nion.twin import setup_of
        from probegym.hardware_bridge.twins.stem import StemTwin

        twin = StemTwin(world, 1)
        inside = TwinInside(twin)
        inside.begin(0)
        with stack(inside.registered):
            setup = setup_of(twin)
            yield Host(NionInstrument(found(setup), setup), inside if judged else None, faults)
    else:
        raise ProbeGymError(f"there is no device {device!r} for Nion Swift: use usim or twin")


def main() -> None:
    """Serve until the one that started this process goes."""
    channel, told = called()
    try:
        with hosted(told["device"], told["world"], told["judged"], Faults(told["faults"])) as host:
            serve(host, channel)
    except ProbeGymError as error:
        channel.send({"error": str(error)})


if __name__ == "__main__":
    main()
