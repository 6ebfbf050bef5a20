"""A room with an STM: the simulated Nanonis controller with a twin under its tip, and the driver that is connected to it."""

from __future__ import annotations

import json
import re
import threading

import numpy as np
import pytest

from probegym import scenarios
from probegym.hardware_bridge.commands import AcquireTopograph, DragTip, LocateAdatoms
from probegym.hardware_bridge.instruments import twin
from probegym.hardware_bridge.instruments.nanonis import driver, faults, safety, server
from probegym.hardware_bridge.instruments.nanonis.controller import Controller
from probegym.hardware_bridge.instruments.nanonis.twin import settings_of

ADATOMS, STM = "probegym.hardware_bridge.twins.adatoms:AdatomTwin", "probegym.hardware_bridge.twins.stm:StmTwin"
HERE = np.zeros((1, 2))
LOOK = LocateAdatoms((64, 64), 7e-9, 50e-9, HERE, 0.5, 50e-12, 1, True)
TOPOGRAPH = AcquireTopograph((32, 64), 6e-9, 50e-9, HERE, -1.0, 25e-12)


def drag(start, end, samples: int = 512) -> DragTip:
    return DragTip(np.array([start]), np.array([end]), np.array([10e-3]), np.array([50e-9]), 5e-9, samples)


class Room:
    """A controller with a twin on three ports, and the driver that is connected to it."""

    def __init__(self, twin_name, world, pace, plan, kind, changes):
        self.lines = []
        self.world = twin.build(twin_name, world, 3)
        self.controller = kind(self.world, pace)
        self.server = server.Server(self.controller, (0, 0, 0), faults.WireFaults([]), self.lines.append)
        self.on = True
        threading.Thread(target=self.server.run, args=(lambda: self.on,), daemon=True).start()
        table = settings_of(self.controller.sample, pace) | changes
        self.told = {"driver": "nanonis", "ports": self.server.ports, "settings": json.loads(json.dumps(table))}
        self.stm = driver.writer(self.told, "test")
        self.stm.safe(5.0)
        self.stm.ready(5.0)
        self.lines.clear()
        self.server.faults = faults.WireFaults(plan)

    def sent(self, *names):
        """Commands with their arguments, of some names or all, in order."""
        found = [re.match(r"\d+ ([\w.]+)\((.*?)\)", line) for line in self.lines]
        return [(m[1], dict(pair.split("=") for pair in m[2].split(", ") if "=" in pair)) for m in found if m and (m[1] in names or not names)]

    def atom(self):
        return self.world.truth()["position"][0, 0]

    def close(self):
        self.on = False
        self.stm.close()


def rooms():
    """Gives a function that makes rooms, and closes them at the end; for a fixture."""
    made = []

    def make(twin_name=ADATOMS, scenario="steady-tip", pace=0.0, plan=(), kind=Controller, **changes):
        family = "adatom_manipulation" if twin_name == ADATOMS else "tip_conditioning"
        made.append(Room(twin_name, scenarios.load(family, scenario).world, pace, list(plan), kind, changes))
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(safety, "STEP_SECONDS", 0.5)  # the controller is a thread of this process: on a loaded machine it answers late
        yield make
    for one in made:
        one.close()
