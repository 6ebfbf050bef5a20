"""Every command of ours to an STM, as what the tip does under a Nanonis controller."""

from __future__ import annotations

import numpy as np

from probegym.hardware_bridge.commands import (
    AcquireTopograph,
    Approach,
    DipTip,
    DragTip,
    LocateAdatoms,
    MoveTip,
    PulseBias,
    SetBias,
    SetTunnelling,
    Withdraw,
)
from probegym.hardware_bridge.instruments import InstrumentFault
from probegym.hardware_bridge.instruments.nanonis import commands
from probegym.hardware_bridge.instruments.nanonis.descriptor import RAMP_SECONDS, RETRACT, Facts
from probegym.hardware_bridge.instruments.nanonis.finder import Names, places
from probegym.hardware_bridge.instruments.nanonis.images import Scanner, X, Y
from probegym.hardware_bridge.instruments.nanonis.settings import Adatoms, Drag, Settings
from probegym.hardware_bridge.instruments.nanonis.tip import Tip
from probegym.hardware_bridge.instruments.nanonis.turn import Turn
from probegym.hardware_bridge.world import Refused

CURRENT = "Current (A)"
NO_VERDICT = 0.5  # P(good) of a tip that nobody judges
LEAST_DRAG = 1e-12  # m
SEEN = 0.05  # of a drag's way that its trace may lack at its beginning
RECORDED_SECONDS = 2.0  # that the recorder may lag behind the tip
Values = dict[str, np.ndarray]


class Treatments:
    """Methods take a turn and a command, and return readings of one lane. All leave the tip landed at rest, but Withdraw."""

    def __init__(self, settings: Settings, facts: Facts, tip: Tip, scanner: Scanner):
        self.settings, self.facts, self.tip, self.scanner = settings, facts, tip, scanner
        self.names = Names(settings.adatoms.jump if settings.adatoms else 0.0)

    # ---- images ----

    def topograph(self, turn: Turn, command: AcquireTopograph) -> Values:
        """An image; a controller has no classifier that judges the tip, so its verdict is even odds."""
        return {"height": self.scanner.scan(turn, command)[0].height.astype(np.float32), "verdict": np.array(NO_VERDICT)}

    def locate(self, turn: Turn, command: LocateAdatoms) -> Values:
        """An image and the adatoms in it; of both ways, places lie in the middle, so that the lag of the feedback falls out."""
        assert isinstance(self.settings.adatoms, Adatoms)
        frames = self.scanner.scan(turn, command)
        found, *back = (places(frame, self.settings.adatoms.height, self.settings.adatoms.width) for frame in frames)
        for others in back:
            found = _between(found, others, self.settings.adatoms.width)
        position, seen = self.names.named(found, command.count)
        told = {"position": position, "found": seen}
        return told | {"height": frames[0].height.astype(np.float32)} if command.image else told

    # ---- drags ----

    def drag(self, turn: Turn, command: DragTip) -> Values:
        """Go to the start, come down to the setpoint, hold the height, drag, come up to rest; the currents along the way.

        Raises Refused for a drag beyond the settings, InstrumentFault when it does not go as it should.
        """
        limits, start, end, bias, current = self.settings.drag, command.start[0], command.end[0], float(command.bias[0]), float(command.current[0])
        assert isinstance(limits, Drag)
        length = float(np.hypot(*(end - start)))
        if not 0 < current <= limits.conductance * abs(bias):
            raise Refused(f"a drag at {current:g} A and {bias:g} V is above the {limits.conductance:g} S of the settings, or has no bias")
        if not LEAST_DRAG <= length <= limits.length:
            raise Refused(f"a drag is {LEAST_DRAG:g} to {limits.length:g} m long, asked were {length:g} m")
        if lacking := {CURRENT, X, Y} - {name for name, index in self.facts.signals.items() if index in turn.ask("TipRec.DataGet")["channels"]}:
            raise Refused(f"the tip recorder does not record {', '.join(sorted(lacking))}: add it at the controller")
        turn.prepared("TipRec.BufferSize", size=limits.recorded or command.samples)
        tip = self.tip
        tip.land(turn)
        tip.rest(turn)
        tip.move(turn, start, self.settings.travel)
        tip.tune(turn, bias, current)
        z = tip.hold(turn)
        turn.ask("TipRec.BufferClear")
        self.names.dragged(start, end)
        tip.move(turn, end, command.speed, feedback=False)
        trace = self._trace(turn, start, end, command.samples)
        tip.unchanged(turn, bias, current)
        turn.set("ZCtrl.Setpnt", setpoint=self.settings.rest.current)  # at the bias of the drag: the tip goes up first
        tip.release(turn, z)
        tip.rest(turn)
        return {"trace": trace}

    def _trace(self, turn: Turn, start: np.ndarray, end: np.ndarray, samples: int) -> np.ndarray:
        """Currents (samples,) A at even distances along the way, each the nearest that was recorded."""
        way, off, kept = end - start, self.settings.place, np.zeros((2, 0))  # the last: shares of the way and their currents
        short = bool(np.hypot(*way) <= off)  # too short for places on it to be told apart: evenly in time

        def complete() -> bool:
            nonlocal kept
            current, x, y = self._recorded(turn)
            share = ((x - start[0]) * way[0] + (y - start[1]) * way[1]) / (way @ way) if not short else np.linspace(0.0, 1.0, len(x))
            kept = np.stack([np.maximum.accumulate(share), current])
            return kept.shape[1] > 0 and (short or bool(kept[0, -1] >= 1 - off / np.hypot(*way)))

        turn.until(complete, "the tip recorder did not get to the end of the drag", RECORDED_SECONDS)
        if kept[0, 0] > SEEN:
            raise InstrumentFault(f"the tip recorder kept only the last {1 - kept[0, 0]:.0%} of the way: raise drag.recorded in the settings")
        share, current = kept
        wanted = np.linspace(0.0, 1.0, samples)
        after = np.minimum(np.searchsorted(share, wanted), len(share) - 1)
        before = np.maximum(after - 1, 0)
        current = current * (np.sign(np.median(current)) or 1.0)  # which way it is counted depends on the preamplifier
        return np.asarray(current[np.where(np.abs(share[before] - wanted) <= np.abs(share[after] - wanted), before, after)])

    def _recorded(self, turn: Turn) -> list[np.ndarray]:
        """Current in A, x and y in m that the tip recorder holds."""
        told = turn.ask("TipRec.DataGet")
        channels, data = list(told["channels"]), np.asarray(told["data"], float)
        data = data if data.shape[0] == len(channels) else data.T
        if data.shape[0] != len(channels) or not np.isfinite(data).all():
            raise InstrumentFault(f"the tip recorder sent {' x '.join(map(str, data.shape))} numbers for {len(channels)} channels, or what are none")
        return [data[channels.index(self.facts.signals[name])] for name in (CURRENT, X, Y)]

    # ---- the tip itself ----

    def pulse(self, turn: Turn, command: PulseBias) -> Values:
        """A pulse with the feedback held. Raises Refused for one of no bias, InstrumentFault when the bias does not come back."""
        bias = float(command.bias[0])
        if not bias:
            raise Refused("a pulse needs a bias that is not zero")
        self._at(turn, command.position[0])
        turn.needs(command.duration, "the pulse")
        turn.ask("Bias.Pulse", lasts=command.duration, wait=1, width=command.duration, bias=bias, hold=commands.PULSE_HOLD, mode=commands.PULSE_ABSOLUTE)
        if unlike := turn.unlike("Bias.", {"bias": self.settings.rest.bias}):
            raise InstrumentFault(f"after a pulse {unlike}")
        self.tip.settle(turn)
        return {}

    def dip(self, turn: Turn, command: DipTip) -> Values:
        """The controller's tip shaper, which does not switch the feedback on again by itself: who went safe meanwhile would find the tip back."""
        depth = float(command.depth[0])
        shape = {
            "switch_off_delay": self.settings.hold, "bias": command.bias, "lift": -depth, "lift_time": RAMP_SECONDS, "bias_lift": command.bias,
            "settling": command.duration, "height": depth + RETRACT, "height_time": RAMP_SECONDS, "end": 0.0,
        }  # fmt: skip
        turn.prepared("TipShaper.Props", reads={"change_bias": 1, "restore": 0}, change_bias=commands.YES, restore=commands.NO, **shape)
        self._at(turn, command.position[0])
        lasts = self.settings.hold + 2 * (command.duration + RAMP_SECONDS)
        turn.needs(lasts, "the dip")
        turn.set("SafeTip.OnOff", reads={"on": 0, "status": None}, status=commands.SAFE_TIP_OFF)  # contact is meant here
        turn.ask("TipShaper.Start", lasts=lasts + 1.0, wait=1, timeout=round(1e3 * (lasts + 1.0)))
        turn.set("SafeTip.OnOff", reads={"on": 1, "status": None}, status=commands.SAFE_TIP_ON)
        turn.set("Bias.", bias=self.settings.rest.bias)
        self.tip.release(turn, None)
        return {}

    def _at(self, turn: Turn, place: np.ndarray) -> None:
        self.names.dragged(place, place)  # whatever is done there, adatoms elsewhere stay
        self.tip.land(turn)
        self.tip.rest(turn)
        self.tip.move(turn, place, self.settings.travel)

    # ---- controls ----

    def bias(self, turn: Turn, command: SetBias) -> Values:
        """The bias, with the feedback off where its sign changes. A tip that is withdrawn stays so, lands with what rests, and goes to this bias then; not to zero."""
        bias = float(command.bias[0])
        if self.tip.landed:
            self._gentle(bias, turn.ask("ZCtrl.SetpntGet")["setpoint"])
            self.tip.stays(turn)
            self.tip.tune(turn, bias, turn.ask("ZCtrl.SetpntGet")["setpoint"])
        else:
            current = self.tip.asked[1]
            if bias:
                self._gentle(bias, current)
            turn.set("Bias.", bias=bias)
            self.tip.asked = (bias or self.settings.rest.bias, current)
        return {}

    def tunnelling(self, turn: Turn, command: SetTunnelling) -> Values:
        """Gains and setpoint; that of a tip that is withdrawn holds from its landing on."""
        current, gain, seconds = (float(value[0]) for value in (command.current, command.proportional, command.time_constant))
        bias = turn.ask("Bias.Get")["bias"] if self.tip.landed else self.tip.asked[0]
        self._gentle(bias, current)
        turn.set("ZCtrl.Gain", reads={"integral": gain / seconds}, proportional=gain, time_constant=seconds, integral=gain / seconds)
        if self.tip.landed:
            self.tip.stays(turn)
            self.tip.tune(turn, bias, current)
        else:
            turn.set("ZCtrl.Setpnt", setpoint=current)
            self.tip.asked = (bias, current)
        return {}

    def _gentle(self, bias: float, current: float) -> None:
        if not 0 < current <= self.settings.scan.conductance * abs(bias):
            raise Refused(f"{current:g} A at {bias:g} V is above the {self.settings.scan.conductance:g} S of the settings, or has no bias")

    def move(self, turn: Turn, command: MoveTip) -> Values:
        """Move with the feedback on; a tip that lands for it goes to the bias and setpoint that were asked for, or stood when it was withdrawn."""
        lands = not self.tip.landed
        self.tip.land(turn)
        if lands:
            self.tip.tune(turn, *self.tip.asked)
        self.tip.move(turn, command.position[0], command.speed)
        return {}

    def approach(self, turn: Turn, command: Approach) -> Values:
        """The controller's own coarse approach, with the feedback off before the motor moves; nothing where the tip has landed."""
        assert self.settings.approach
        if self.tip.status(turn) == commands.Z_ON:
            self.tip.land(turn)
            return {}
        rest = self.settings.rest
        self.tip.withdraw(turn)
        self.tip.safety.surface = None  # the motor moves it
        turn.set("Bias.", bias=rest.bias)
        turn.set("ZCtrl.Setpnt", setpoint=rest.current)
        turn.ask("AutoApproach.Open")
        turn.ask("AutoApproach.OnOffSet", on=1)
        turn.until(lambda: not turn.ask("AutoApproach.OnOffGet")["on"], "the approach did not end", self.settings.approach.seconds)
        self.tip.stays(turn)
        self.tip.landed = True
        self.tip.land(turn)
        self.tip.tune(turn, *self.tip.asked)
        return {}

    def withdraw(self, turn: Turn, command: Withdraw) -> Values:
        """Feedback off, tip away; the bias stays, also over the next landing by ``move``."""
        if self.tip.landed:
            self.tip.asked = (float(turn.ask("Bias.Get")["bias"]), float(turn.ask("ZCtrl.SetpntGet")["setpoint"]))
        self.tip.withdraw(turn)
        return {}


def _between(one: np.ndarray, other: np.ndarray, width: float) -> np.ndarray:
    """The middle of each place (n, 2) m of one image and the nearest of the other; where there is none within ``width``, the place as it is."""
    out = one.copy()
    for index, place in enumerate(one):
        far = np.hypot(*(other - place).T)
        if len(other) and far.min() <= width:
            out[index] = 0.5 * (place + other[far.argmin()])
    return out
