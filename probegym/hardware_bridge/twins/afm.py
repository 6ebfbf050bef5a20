"""The tapping-mode AFM twin: cantilever, tip and surface behind the world protocol, a scan line a command."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from probegym.errors import ProbeGymError
from probegym.hardware_bridge.commands import Command, Lanes, LaneState, Readings, ScanLine, SetFeedback, TestFeedback
from probegym.hardware_bridge.twins.lanes import LaneTwin, blamed_on, refuse_outside
from probegym.hardware_bridge.world import Refused
from probegym.physics import randomness, surfaces, tapping, tips
from probegym.scenarios import parsed
from probegym.scenarios.distributions import Sampled

MOST_LINES = 256  # an episode
PIXELS, SAMPLES = (8, 4096), (8, 65536)  # of a line, and of a relay test
LONGEST_TEST = 10.0  # s
OVERSAMPLING = 2  # points of the surface a pixel
SMOOTHING = 1.0  # pixels, standard deviation of the filter that feed-forward looks through
RECENTRING = 50.0  # 1/s, integral gain that keeps a relay test symmetric
RAIL = 0.05  # share of a line that the piezo may spend at the end of its range
PARKED = 5e-9  # m above the first point, where a new episode starts
CANTILEVER = ("stiffness", "frequency", "quality", "detuning", "piezo_frequency", "piezo_quality", "creep", "voltage", "neck_force")
LIMITS = {
    "stiffness": (1e-3, 1e4), "frequency": (1e3, 5e6), "quality": (0.6, 1e5), "detuning": (-20, 20), "piezo_frequency": (0, 1e6), "piezo_quality": (0.6, 1e3),
    "creep": (0, 0.5), "voltage": (-100, 100), "neck_force": (0, 1e-6), "radius": (1e-10, 1e-6), "half_angle": (0.01, 1.5), "drift": (-1e-6, 1e-6), "settling": (-1e-6, 1e-6),
}  # fmt: skip
"""What may be drawn; beyond it nothing is an AFM."""
TIP = ("radius", "half_angle", "second", "shift", "length", "load", "bare_radius")


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SurfaceConfig(_Table):
    """One class of surfaces; parameters are those of ``physics.surfaces.build``, numbers or distributions."""

    kind: str
    parameters: dict[str, Sampled] = {}
    materials: dict[str, str] = {}  # parameter that names a material -> its name
    debris: int = Field(default=0, ge=0, le=64)  # loose particles

    @field_validator("parameters", "materials")
    @classmethod
    def _known(cls, table: dict[str, Any]) -> dict[str, Any]:
        if reserved := {"kind", "key", "extent", "shape", "tilt", "grid"} & set(table):
            raise ValueError(f"{', '.join(sorted(reserved))} is not a number of the surface: leave it out")
        return table


def _sampled(value: Any) -> Any:
    return Field(default=value, validate_default=True)


class AfmConfig(_Table):
    """The ``world`` table of an AFM scenario. SI units."""

    surfaces: list[SurfaceConfig] = Field(min_length=1)
    field_of_view: float = Field(default=0.5e-6, ge=1e-8, le=1e-4)  # m, along a line
    line_spacing: float = Field(default=4e-9, gt=0, le=1e-6)  # m
    rows: int = Field(default=128, ge=8, le=4096)  # of the map, as far apart as its columns; lines beyond it see its mirror image
    columns: int = Field(default=320, ge=8, le=4096)  # over 1.25 fields of view

    stiffness: Sampled = _sampled(40.0)  # N/m
    frequency: Sampled = _sampled(300e3)  # Hz, for the stiffness of 40 N/m where ``scaled``
    scaled: bool = False  # the frequency grows as the square root of the stiffness
    quality: Sampled = _sampled(400.0)
    quality_walk: float = Field(default=0.0, ge=0, le=10)  # standard deviation of its logarithm, per square root of a second
    detuning: Sampled = _sampled(0.0)  # of the drive, in half widths f / 2Q
    shaken: bool = False
    voltage: Sampled = _sampled(0.0)  # V
    neck_force: Sampled = _sampled(0.0)  # N, capillary
    temperature: float = Field(default=295.0, ge=0, le=2000)  # K
    sensor_noise: float = Field(default=100e-15, ge=0, le=1e-10)  # m/sqrt(Hz)
    bandwidth: float = Field(default=20e3, ge=1, le=1e8)  # Hz, of the lock-in
    piezo_frequency: Sampled = _sampled(10e3)  # Hz
    piezo_quality: Sampled = _sampled(15.0)
    z_range: float = Field(default=2e-6, ge=1e-9, le=1e-3)  # m
    creep: Sampled = _sampled(0.0)  # per decade of time
    drift: Sampled = _sampled(0.0)  # m/s, in a random direction
    settling: Sampled = _sampled(0.0)  # m that the stage still creeps along x and y after it was placed
    settling_time: float = Field(default=5.0, gt=0, le=1e5)  # s

    radius: Sampled = _sampled(8e-9)  # m
    half_angle: Sampled = _sampled(0.35)  # rad
    blunting: float = Field(default=0.0, ge=0, le=0.1)  # m/N a line
    blunting_force: float = Field(default=100e-9, ge=0, le=1e-4)  # N, below it nothing wears
    change_rate: float = Field(default=0.0, ge=0, le=1e3)  # tip changes per s
    change_slope: float = Field(default=0.0, ge=0, le=1e12)  # 1/(s N) more for force above blunting_force
    change: dict[str, float] = {}  # physics.tips.TipChange
    pick_up: float = Field(default=0.0, ge=0, le=1)  # probability that a line over a loose particle takes it along
    let_go: float = Field(default=0.1, ge=0, le=1)  # and that a line drops it
    force_limit: float = Field(default=200e-9, ge=1e-12, le=1)  # N; a line above it counts as damage
    crash_force: float = Field(default=1e-6, ge=1e-12, le=1)  # N; above it the tip is gone


class AfmTwin(LaneTwin):
    """Implements the world protocol; ``config`` is the ``world`` table of a scenario."""

    noun = "this AFM has"

    def __init__(self, config: dict[str, Any], lanes: int) -> None:
        self.config = c = parsed(AfmConfig, config, "world")
        with blamed_on("world.change"):
            self.change = tips.TipChange(**dict[str, Any](c.change))
        self.lanes = lanes
        self._handlers = {SetFeedback: self._set_feedback, ScanLine: self._scan_line, TestFeedback: self._test_feedback}
        self.pixel = 1.25 * c.field_of_view / c.columns
        self.extent = (c.rows * self.pixel, 1.25 * c.field_of_view)
        zero, tip = np.zeros(lanes), tips.sharp(lanes)
        self.state: Lanes = {
            "key": np.zeros(lanes, np.uint64),
            "surface_key": np.zeros(lanes, np.uint64),
            "surface": np.zeros(lanes, np.int64),
            "count": np.zeros(lanes, np.int64),
            "line": np.zeros(lanes, np.int64),
            "clock": zero.copy(),
            "tuned_quality": np.ones(lanes),
            "velocity": np.zeros((lanes, 2)),
            "settling": np.zeros((lanes, 2)),
            "feedback": np.zeros((lanes, 5)),  # proportional, integral, setpoint, drive, feed-forward
            "expected": np.zeros((lanes, 0)),  # height of the line before, m; as many cells as that line had
            "profile": np.zeros((lanes, 0)),  # what the tip met on it, m
            "errors": np.zeros((lanes, MOST_LINES)),  # rms height error of every line, m
            "peak_force": zero.copy(),
            "crashed": np.zeros(lanes, bool),
            "diverged": np.zeros(lanes, bool),
            "debris": np.zeros((lanes, max([s.debris for s in c.surfaces]), 4)),
        } | {name: zero.copy() for name in CANTILEVER} | {f"tip_{name}": tip[name] for name in TIP} | {
            f"loop_{name}": zero.copy() for name in tapping.STATE
        }  # fmt: skip
        self.maps = np.zeros((lanes, c.rows, c.columns), np.float32)
        self.materials = np.zeros((lanes, c.rows, c.columns), np.uint8)
        self.properties = np.zeros((lanes, 8, 3))
        self.tops, self.corrugation = np.zeros(lanes, np.float32), np.zeros(lanes)
        self.drawn = np.zeros(lanes, object)  # what each map shows; maps follow from the state and are not part of it

    # ---- world protocol ----

    def begin(self, keys: np.ndarray, where: np.ndarray) -> None:
        lanes = np.nonzero(where)[0]
        before = {name: array[lanes].copy() for name, array in self.state.items()}
        try:
            self._begin(np.asarray(keys, np.uint64)[lanes], lanes)
        except ProbeGymError:  # an impossible world: the episodes that were there stay
            for name, array in before.items():
                self.state[name][lanes] = array
            raise

    def _begin(self, keys: np.ndarray, lanes: np.ndarray) -> None:
        s, c = self.state, self.config
        drawn = {name: getattr(c, name).sample(keys, name) for name in LIMITS}
        for name, limits in LIMITS.items():
            refuse_outside(name, drawn[name], limits)
        for array in s.values():
            array[lanes] = 0
        s["key"][lanes] = s["surface_key"][lanes] = keys
        for name in CANTILEVER:
            s[name][lanes] = drawn[name]
        if c.scaled:
            s["frequency"][lanes] *= np.sqrt(s["stiffness"][lanes] / 40.0)
        s["tuned_quality"][lanes] = s["quality"][lanes]
        place = randomness.uniform(keys, 0, "place", 3)
        s["surface"][lanes] = (place[:, 0] * len(c.surfaces)).astype(int)
        heading = 2 * np.pi * place[:, 1:2]
        s["velocity"][lanes] = drawn["drift"][:, None] * np.hstack([np.cos(heading), np.sin(heading)])
        heading = 2 * np.pi * place[:, 2:3]
        s["settling"][lanes] = drawn["settling"][:, None] * np.hstack([np.cos(heading), np.sin(heading)])
        tip = tips.sharp(len(lanes), drawn["radius"], drawn["half_angle"])
        for name in TIP:
            s[f"tip_{name}"][lanes] = tip[name]
        for lane in lanes:
            kind = c.surfaces[s["surface"][lane]]
            if kind.debris:
                s["debris"][lane, : kind.debris] = surfaces.debris(int(s["key"][lane]), self.extent, count=kind.debris)
        self._draw(lanes)
        self._setup(lanes)  # refuses an impossible cantilever before anything moves

    def _draw(self, lanes: np.ndarray) -> None:
        """Make the maps of these lanes what their state says."""
        s = self.state
        for lane in lanes:
            kind, key = self.config.surfaces[s["surface"][lane]], s["surface_key"][lane]
            shown = (int(s["surface"][lane]), int(key), s["debris"][lane].tobytes())
            if self.drawn[lane] == shown:
                continue
            one = np.array([key], np.uint64)
            numbers = {name: float(value.sample(one, f"surface {name}")[0]) for name, value in kind.parameters.items()}
            entry = f"surfaces.{s['surface'][lane]}"
            for name in numbers.keys() & surfaces.LIMITS.keys():
                refuse_outside(f"{entry}.parameters.{name}", np.array(numbers[name]), surfaces.LIMITS[name])
            with blamed_on(f"world.{entry}"):
                surface = surfaces.build(kind.kind, int(key), self.extent, self.maps.shape[1:], **numbers, **kind.materials)
            if kind.debris:
                surface = surfaces.with_debris(surface, s["debris"][lane, : kind.debris])
            self.maps[lane], self.materials[lane], self.drawn[lane] = surface.height, surface.material, shown
            self.tops[lane], self.corrugation[lane] = surface.height.max(), surface.height.std()
            properties = surface.properties()
            self.properties[lane, : len(properties)] = properties

    def execute(self, command: Command, where: np.ndarray) -> Readings:
        readings = super().execute(command, where)
        self.state["clock"] += readings.time
        return readings

    def truth(self) -> Lanes:
        s = self.state
        names = ("profile", "peak_force", "crashed", "diverged", "surface", "quality", "tuned_quality", "stiffness", "frequency", "piezo_frequency",
                 "piezo_quality", "tip_radius", "errors", "line")  # fmt: skip
        return {name: s[name].copy() for name in names} | {"corrugation": self.corrugation.copy()}

    def portrait(self, lane: int) -> Lanes:
        return {"map": self.maps[lane], "extent": np.array(self.extent), "position": np.array(self._position()[lane])}

    def restore(self, state: LaneState, lane: int) -> None:
        for name in ("expected", "profile"):  # a fresh world has no line yet
            width = state.arrays[name].shape[-1]
            if self.state[name].shape[1] != width:
                self.state[name] = np.zeros((self.lanes, width))
        state.put(self.state, lane)
        self._draw(np.array([lane]))

    # ---- commands ----

    def _set_feedback(self, command: SetFeedback, where: np.ndarray) -> Readings:
        values = np.stack([command.proportional, command.integral, command.setpoint, command.drive, command.feed_forward], 1)[where]
        if (values < 0).any() or (values[:, 2:4] <= 0).any() or (values[:, 4] > 1).any():
            raise Refused("SetFeedback: gains must not be negative, setpoint and drive above 0, feed_forward within 0 and 1")
        self.state["feedback"][where] = values
        none = np.zeros(self.lanes)
        return Readings({}, none, none, none, none)

    def _setup(self, lanes: np.ndarray) -> tapping.Setup:
        s, c = self.state, self.config
        proportional, integral, setpoint, drive, forward = s["feedback"][lanes].T
        quality = s["quality"][lanes]
        with blamed_on("world"):
            return tapping.Setup(
                stiffness=s["stiffness"][lanes], frequency=s["frequency"][lanes], quality=quality, detuning=1 + s["detuning"][lanes] / (2 * quality),
                drive=np.maximum(drive, 1e-12) * quality / s["tuned_quality"][lanes], shaken=float(c.shaken), radius=s["tip_radius"][lanes],
                voltage=s["voltage"][lanes], neck_force=s["neck_force"][lanes], temperature=c.temperature, sensor_noise=c.sensor_noise,
                bandwidth=c.bandwidth, setpoint=setpoint, proportional=proportional, integral=integral, feed_forward=forward,
                piezo_frequency=s["piezo_frequency"][lanes], piezo_quality=s["piezo_quality"][lanes], z_range=c.z_range, creep=s["creep"][lanes],
            )  # fmt: skip

    def _position(self) -> np.ndarray:
        """(lanes, 2) m: x and y of the first point of the line to come."""
        s, c = self.state, self.config
        moved = s["velocity"] * s["clock"][:, None] - s["settling"] * np.exp(-s["clock"] / c.settling_time)[:, None]
        start = np.array([0.125 * c.field_of_view, 0.125 * c.field_of_view])
        corner: np.ndarray = start + moved + s["line"][:, None] * np.array([0.0, c.line_spacing])
        return corner

    def _scan_line(self, command: ScanLine, where: np.ndarray) -> Readings:
        s, c, lanes = self.state, self.config, np.nonzero(where)[0]
        rate = np.broadcast_to(np.asarray(command.line_rate, float), (self.lanes,))[lanes]
        if not PIXELS[0] <= command.pixels <= PIXELS[1] or (rate <= 0).any():
            raise Refused(f"ScanLine: {PIXELS[0]} to {PIXELS[1]} pixels and a line rate above 0 Hz, asked were {command.pixels} and {rate.min():g} Hz")
        if (s["line"][lanes] >= MOST_LINES).any():
            raise Refused(f"ScanLine: an episode has room for {MOST_LINES} lines")
        if (s["feedback"][lanes, 3] <= 0).any():
            raise Refused("ScanLine: set the feedback before the first line")
        cells = command.pixels * OVERSAMPLING
        if s["expected"].shape[1] != cells:
            s["expected"], s["profile"] = np.zeros((self.lanes, cells)), np.zeros((self.lanes, command.pixels))
        self._walk(lanes, 1 / rate)
        track, touched = self._track(lanes, cells)
        setup, first = self._setup(lanes), s["line"][lanes] == 0
        loop = {name: s[f"loop_{name}"][lanes] for name in tapping.STATE}
        fresh = tapping.rest(setup, len(lanes), track.height[:, 0] + setup.drive + PARKED)
        loop = {name: np.where(first, fresh[name], loop[name]) for name in loop}
        keys = randomness.subkey(s["key"], s["count"], "trace")[lanes], randomness.subkey(s["key"], s["count"], "retrace")[lanes]
        cell_time = 1 / (2 * rate * cells)
        loop, trace = tapping.scan(setup, loop, track, cell_time, keys[0])
        there_and_back = tapping.Track(*(np.ascontiguousarray(v[:, ::-1]) for v in vars(track).values()))
        loop, retrace = tapping.scan(setup, loop, there_and_back, cell_time, keys[1])
        height = np.stack([trace.height, retrace.height[:, ::-1]], 1)
        amplitude = np.stack([trace.amplitude, retrace.amplitude[:, ::-1]], 1) - np.asarray(setup.setpoint)[:, None, None]
        phase = np.stack([trace.phase, retrace.phase[:, ::-1]], 1)
        peak = np.maximum(trace.peak_force.max(1), retrace.peak_force.max(1))
        values = np.stack([height, amplitude, phase], 1)
        lost = ~(np.isfinite(values).all((1, 2, 3)) & np.isfinite(peak) & np.all([np.isfinite(v) for v in loop.values()], axis=0))
        railed = np.maximum(trace.at_limit.mean(1), retrace.at_limit.mean(1)) > RAIL
        values[lost], peak[lost] = 0, c.crash_force
        crashed = lost | railed | (peak >= c.crash_force)
        for name, rested in fresh.items():
            s[f"loop_{name}"][lanes] = np.where(lost, rested, loop[name])
        s["expected"][lanes] = _smooth(values[:, 0].mean(1), OVERSAMPLING * SMOOTHING)
        s["profile"][lanes], s["peak_force"][lanes] = _pixels(track.height, command.pixels), peak
        values = _pixels(values, command.pixels)
        missed = values[:, 0, 0] - s["profile"][lanes]
        s["errors"][lanes, s["line"][lanes]] = (missed - missed.mean(1, keepdims=True)).std(1)
        s["line"][lanes] += 1
        s["crashed"][lanes] |= crashed
        s["diverged"][lanes] |= lost
        damage = crashed.astype(float) + (peak > c.force_limit) + self._wear(lanes, peak, 1 / rate, touched)
        seconds, events, lines = (np.zeros(self.lanes) for _ in range(3))
        seconds[lanes], events[lanes], lines[lanes] = 1 / rate, damage, 1
        out = np.zeros((self.lanes, 3, 2, command.pixels))
        out[lanes] = values
        readings = {"height": out[:, 0], "amplitude_error": out[:, 1], "phase": out[:, 2]}
        return Readings(readings, seconds, np.zeros(self.lanes), events, lines)

    def _test_feedback(self, command: TestFeedback, where: np.ndarray) -> Readings:
        s, lanes = self.state, np.nonzero(where)[0]
        relay = np.asarray(command.relay, float)[lanes]
        if not SAMPLES[0] <= command.samples <= SAMPLES[1] or not 0 < command.duration <= LONGEST_TEST or (relay <= 0).any():
            raise Refused(f"TestFeedback: a relay above 0 m, {SAMPLES[0]} to {SAMPLES[1]} samples, and a duration above 0 s and at most {LONGEST_TEST:g} s")
        if (s["line"][lanes] == 0).any():
            raise Refused("TestFeedback: scan a line first, the tip is not at the surface")
        here = self._track(lanes, s["expected"].shape[1])[0]
        still = tapping.Track(*(np.repeat(v[:, :1], command.samples, 1) for v in vars(here).values()))
        setup = replace(self._setup(lanes), proportional=0.0, integral=RECENTRING, relay=relay)
        loop = {name: s[f"loop_{name}"][lanes] for name in tapping.STATE}
        keys = randomness.subkey(s["key"], s["count"], "test")[lanes]
        loop, trace = tapping.scan(setup, loop, still, np.full(len(lanes), command.duration / command.samples), keys)
        for name, array in loop.items():
            s[f"loop_{name}"][lanes] = array
        error = np.zeros((self.lanes, command.samples))
        error[lanes] = np.asarray(setup.setpoint)[:, None] - trace.amplitude
        none = np.zeros(self.lanes)
        return Readings({"error": error}, np.where(where, command.duration, 0.0), none, none, none)

    def _track(self, lanes: np.ndarray, cells: int) -> tuple[tapping.Track, np.ndarray]:
        """What the tip meets along the line to come, and the debris it touches there: (lanes,) index, -1 for none."""
        s, c = self.state, self.config
        tip = {name: s[f"tip_{name}"][lanes] for name in TIP}
        x, y = self._position()[lanes].T
        heights, contact = tips.dilate_lines(self.maps, self.extent, tip, y, x, c.field_of_view / cells, cells, maps=lanes, tops=self.tops)
        touched = tips.touched(self.materials, contact, maps=lanes)
        modulus, hamaker, viscosity = np.moveaxis(self.properties[lanes[:, None], touched], -1, 0)
        expected, debris = s["expected"][lanes], np.full(len(lanes), -1)
        row, column = np.divmod(contact, c.columns)
        for i, lane in enumerate(lanes):
            particles = s["debris"][lane, : c.surfaces[s["surface"][lane]].debris]
            if particles[:, 3].any():
                debris[i] = surfaces.debris_at(particles, (column[i] + 0.5) * self.pixel, (row[i] + 0.5) * self.pixel).max()
        return tapping.Track(heights.astype(float), hamaker, modulus, viscosity, expected - expected[:, :1]), debris

    def _walk(self, lanes: np.ndarray, seconds: np.ndarray) -> None:
        """The quality factor wanders; the free amplitude with it, because the drive does not know."""
        s = self.state
        step = randomness.normal(s["key"][lanes], s["count"][lanes], "quality", 1)[:, 0]
        s["quality"][lanes] *= np.exp(self.config.quality_walk * np.sqrt(seconds) * step)

    def _wear(self, lanes: np.ndarray, peak: np.ndarray, seconds: np.ndarray, touched: np.ndarray) -> np.ndarray:
        """Blunting, tip changes, debris picked up and dropped -> events (lanes,)."""
        s, c = self.state, self.config
        keys, count = s["key"][lanes], s["count"][lanes]
        tip = tips.blunt({name: s[f"tip_{name}"][lanes] for name in TIP}, peak, c.blunting_force, c.blunting)
        rate = tips.tip_change_rate(peak, c.change_rate, c.change_slope, c.blunting_force)
        changed = tips.waiting_time(keys, count, rate) < seconds
        tip = tips.change(tip, changed, keys, count, self.change)
        chance = randomness.uniform(keys, count, "pick up", 2)
        dropped = (tip["load"] > 0) & (chance[:, 0] < c.let_go)
        taken = (touched >= 0) & (tip["load"] == 0) & (chance[:, 1] < c.pick_up)
        particle = s["debris"][lanes, np.maximum(touched, 0), 2] if s["debris"].shape[1] else np.zeros(len(lanes))
        tip = tips.let_go(tip, dropped)
        tip = tips.pick_up(tip, taken, np.maximum(particle, 1e-9), np.maximum(2 * particle, 1e-9))
        for name in TIP:
            s[f"tip_{name}"][lanes] = tip[name]
        for i in np.nonzero(taken)[0]:
            s["debris"][lanes[i], touched[i], 3] = 0
        self._draw(lanes[taken])
        damage: np.ndarray = changed.astype(float) + dropped + taken
        return damage


def _pixels(cells: np.ndarray, pixels: int) -> np.ndarray:
    """Mean over the cells of each pixel, along the last axis."""
    return np.asarray(cells.reshape(*cells.shape[:-1], pixels, -1).mean(-1))


def _smooth(cells: np.ndarray, deviation: float) -> np.ndarray:
    """Gaussian filter without phase along the last axis: what repeats from line to line passes, noise does not build up."""
    reach = int(np.ceil(3 * deviation))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(deviation, 1e-9)) ** 2)
    weights /= weights.sum()
    padded = np.pad(cells, ((0, 0), (reach, reach)), mode="edge")
    out = np.zeros_like(cells)
    for at, weight in enumerate(weights):
        out += weight * padded[:, at : at + cells.shape[1]]
    return out
