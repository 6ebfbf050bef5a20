"""The instrument of a Nion Swift that runs already, served from its own Python console or a plug-in: Nion Swift has no socket of its own.

    from probegym.hardware_bridge.instruments.nion.inside import share
    from probegym.hardware_bridge.instruments.nion.setup import NionSetup
    shared = share(NionSetup(instrument="autostem_controller", scan="superscan", ronchigram="nion1010", controls={...}), "instrument.json")

``probegym deploy --instrument instrument.json`` then drives it; ``shared.close()`` ends that. On the loopback interface only.
"""

from __future__ import annotations

import threading
from pathlib import Path

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.instruments import drivers
from probegym.hardware_bridge.instruments.host import Host, Server
from probegym.hardware_bridge.instruments.nion.instrument import NionInstrument
from probegym.hardware_bridge.instruments.nion.setup import NionSetup
from probegym.hardware_bridge.instruments.nion.stack import found, installed

SAFE_SECONDS = 10.0


class Shared:
    """An instrument that is served until this is closed; it is made safe then."""

    def __init__(self, instrument: NionInstrument, out: Path):
        self.instrument, self.out = instrument, out
        self._server, self._open = Server(Host(instrument)), threading.Event()
        listener = self._server.listener
        try:
            drivers.write(out, {"driver": "served", "port": listener.port, "secrets": listener.secrets})
        except ProbeGymError:
            listener.close()
            raise
        self._open.set()
        threading.Thread(target=self._server.run, args=(self._open.is_set,), daemon=True).start()

    def close(self) -> None:
        """Make the instrument safe and take no more connections. Raises InstrumentFault where it did not go safe."""
        self._open.clear()
        self.out.unlink(missing_ok=True)
        self.instrument.safe(SAFE_SECONDS)


def share(setup: NionSetup, out: str | Path) -> Shared:
    """Serve an instrument of this process; ``out``: file for how it is reached. Raises ProbeGymError where a device or control is not there."""
    installed()
    return Shared(NionInstrument(found(setup), setup), Path(out))
