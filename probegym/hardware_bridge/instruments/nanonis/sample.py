"""What a simulated controller has under its tip: a twin of one lane, touched only by typed commands that its descriptor allows."""

from __future__ import annotations

import numpy as np
from scipy import constants

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.capabilities import Range
from probegym.hardware_bridge.commands import AcquireTopograph, Command, DipTip, DragTip, LaneState, LocateAdatoms, PulseBias
from probegym.hardware_bridge.instruments.descriptions import describe
from probegym.hardware_bridge.instruments.nanonis.settings import CONTACT
from probegym.hardware_bridge.world import World

ON = np.ones(1, bool)
BARRIER = 4.5  # eV, of a clean apex
DECAY = 2 * np.sqrt(2 * constants.m_e * constants.e * BARRIER) / constants.hbar  # 1/m: a conductance falls as exp(-DECAY gap)
FERMI = 1.2e10  # 1/m, wave vector in the noble metals
PIEZO = 1e-6  # m that the scanner reaches each way; a twin may have a larger surface


def conductance(gap: float) -> float:
    """S at a distance in m from contact; below zero that of a contact as wide as it is deep (Sharvin, Sov. Phys. JETP 21, 655 (1965))."""
    return float(CONTACT * (np.exp(-DECAY * gap) if gap >= 0 else 1 + (0.5 * FERMI * gap) ** 2))


def gap(siemens: float) -> float:
    """Distance in m from contact at which that conductance is held."""
    return float(np.log(CONTACT / siemens) / DECAY)


class Sample:
    """The twin. reach: m from the centre of the piezo that the tip reaches. Raises ProbeGymError for a world that is no STM of one lane."""

    def __init__(self, world: World):
        self.world, self.descriptor = world, describe(world).descriptor
        if world.lanes != 1 or self.descriptor.kind != "stm":
            raise ProbeGymError(f"a Nanonis controller needs an STM of one lane, {self.descriptor.name} is {self.descriptor.kind} with {world.lanes}: use an environment such as probegym/TipConditioning-v0")
        self.looks = LocateAdatoms if self.has(LocateAdatoms) else AcquireTopograph
        self.reach = min(PIEZO, float(np.max(self._range(self.looks, "centre").high)))
        self.most_samples = self.descriptor.capabilities["DragTip"].counts["samples"][1] if self.has(DragTip) else 0

    def has(self, verb: type[Command]) -> bool:
        """Whether this twin can do that."""
        return verb.__name__ in self.descriptor.capabilities

    def image(self, shape: tuple[int, int], width: float, speed: float, centre: np.ndarray, bias: float, current: float) -> np.ndarray:
        """Heights (rows, columns) in m, from the lowest y on; raises Refused. width: m; speed: m/s; centre: (2,) m; bias: V; current: A."""
        asked = (shape, width, speed, centre[None], bias, current)
        if self.looks is LocateAdatoms:
            count = self.descriptor.capabilities["LocateAdatoms"].counts["count"][1]
            return self._do(LocateAdatoms(*asked, count, True))["height"]
        return self._do(AcquireTopograph(*asked))["height"]

    def pulse(self, position: np.ndarray, bias: float, seconds: float) -> None:
        """A bias pulse in V at a place (2,) m; raises Refused."""
        self._do(PulseBias(position[None], np.array([bias]), seconds))

    def dip(self, position: np.ndarray, depth: float, bias: float, seconds: float) -> None:
        """Push the tip ``depth`` m into a place (2,) m; raises Refused."""
        self._do(DipTip(position[None], np.array([depth]), bias, seconds))

    def drag(self, start: np.ndarray, end: np.ndarray, bias: float, current: float, speed: float, samples: int) -> np.ndarray:
        """Currents (samples,) in A along a drag at constant height; raises Refused. start, end: (2,) m."""
        return self._do(DragTip(start[None], end[None], np.array([bias]), np.array([current]), speed, samples))["trace"]

    def kept(self) -> LaneState:
        """All that decides what comes next, to go back to."""
        return self.world.snapshot(0)

    def back(self, state: LaneState) -> None:
        """Undo what was done since."""
        self.world.restore(state, 0)

    def _range(self, verb: type[Command], name: str) -> Range:
        return self.descriptor.capabilities[verb.__name__].ranges[name]

    def _do(self, command: Command) -> dict[str, np.ndarray]:
        self.descriptor.check(command)
        return {name: values[0] for name, values in self.world.execute(command, ON).values.items()}
