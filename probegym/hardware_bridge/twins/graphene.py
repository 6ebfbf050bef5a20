"""The graphene twin: silicon dopants that a parked beam moves by chance, an atom finder, drift and misplacement; N lanes at once."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from probegym.hardware_bridge.commands import Lanes, LocateAtoms, PlaceProbe, Readings
from probegym.hardware_bridge.twins.graphene_config import CROSS_SECTIONS, LIMITS, CrossSection, GrapheneConfig
from probegym.hardware_bridge.twins.lanes import LaneTwin, refuse_outside
from probegym.hardware_bridge.world import Refused
from probegym.physics import atom_images, beam_rates, graphene, knock_on, randomness
from probegym.physics.beam_rates import BOND, GAUSSIANS
from probegym.physics.graphene import EVENTS, RATES
from probegym.physics.image_formation import shot_noise
from probegym.scenarios import ScenarioError, parsed
from probegym.scenarios.distributions import Distribution

PIXELS, VIEWS = (8, 256), (0.5e-9, 100e-9)  # a side of an image, and its width in m
LONGEST_PIXEL, LONGEST_DWELL = 1.0, 100.0  # s, of a pixel and of a parked beam
SPECIES = "Si"
DEFECT_RADIUS = 3e-9  # m, within which vacancies and clusters of the start lie
CELL_AREA = 2 * graphene.SITE_AREA  # m^2, the exposed area of a parked beam
ANGSTROM = 1e-10

_DRAWN = ("beam_current", "healing", "drift", "jitter", "misplacement", "offset", "finder_error", "orientation_error", "miss")
_NOISE = ("jitter", "misplacement", "finder_error", "miss", "orientation_error")


class GrapheneTwin(LaneTwin):
    """Implements the world protocol; ``config`` is the ``world`` table of a scenario."""

    noun = "this STEM has"

    def __init__(self, config: dict[str, Any], lanes: int) -> None:
        self.config = c = parsed(GrapheneConfig, config, "world")
        self.lanes = lanes
        self.variance = beam_rates.gaussian_variance(c.probe.fwhm) if c.probe.fwhm else 0.0
        self._handlers = {LocateAtoms: self._locate, PlaceProbe: self._park}
        self.sheets = graphene.empty(lanes, c.silicon, 1 if c.rates.kind == "published" else GAUSSIANS)
        side = beam_rates.LOBE_SIDE
        self.state: Lanes = self.sheets | {
            "key": np.zeros(lanes, np.uint64),
            "count": np.zeros(lanes, np.int64),  # commands so far; with the key it decides all noise
            "clock": np.zeros(lanes),
            "parked": np.zeros(lanes, bool),  # whether the beam has been; before, the place is clean, or nobody would have chosen it
            "current": np.zeros(lanes),
            "velocity": np.zeros((lanes, 2)),
            "offset": np.zeros((lanes, 2)),
            "noise": np.zeros((lanes, len(_NOISE))),
            "contamination": np.zeros(lanes),  # rate while an image is scanned
            "scanned": np.zeros(lanes),  # integral of the inversion rate over all beam places, m^2/s
            "lobe": np.zeros((lanes, side, side), np.float32),
        }

    @cached_property
    def coefficients(self) -> np.ndarray:
        """Aberrations (states, n) in m of the probes that episodes have."""
        drawn = self.config.probe.aberrations
        states = self.config.probe.states if any(len(field.choice or ()) != 1 for field in drawn.values()) else 1
        keys = np.arange(states, dtype=np.uint64)
        return np.array([field.sample(keys, f"aberration {name}") for name, field in drawn.items()]).T.reshape(states, -1)

    @cached_property
    def probes(self) -> np.ndarray:
        """|psi|^2 of each of them, 1/m^2; a Gaussian probe needs none."""
        c, p = self.config, self.config.probe
        if p.fwhm:
            return np.zeros((1, 1, 1), np.float32)
        return beam_rates.current_density(c.energy, p.semiangle_cutoff, tuple(p.aberrations), self.coefficients, p.source_size, p.focal_spread)

    @cached_property
    def density_lobes(self) -> np.ndarray:
        """Current density at a neighbour by the beam's place, 1/m^2, for each probe."""
        width = self.config.probe.fwhm
        return beam_rates.gaussian_lobe(width)[None] if width else beam_rates.density_lobes(self.probes)

    @cached_property
    def profiles(self) -> atom_images.Profiles:
        """What an image shows of a carbon and of a silicon atom, for each probe."""
        c, p = self.config, self.config.probe
        if p.fwhm:
            return atom_images.gaussian_profiles(p.fwhm)
        return atom_images.profiles(c.energy, p.semiangle_cutoff, tuple(p.aberrations), self.coefficients, p.source_size, p.focal_spread)

    # ---- world protocol ----

    def begin(self, keys: np.ndarray, where: np.ndarray) -> None:
        c, s, on = self.config, self.state, np.nonzero(where)[0]
        keys = np.asarray(keys, np.uint64)[on]
        lanes = len(keys)
        drawn = self._drawn(keys)  # first, because it may refuse
        place = randomness.uniform(keys, 0, "place", 6 + 2 * graphene.CLUSTERS)
        turn, heading, aside = (2 * np.pi * place[:, k] for k in range(3))
        frame = np.stack([np.cos(turn), np.sin(turn), *(4 * BOND * (place[:, k] - 0.5) for k in (3, 4))], 1)
        mixture, rates, scanned = self._rates(keys, drawn)
        optics = (place[:, 5] * len(self.coefficients)).astype(np.int32)
        try:
            silicon = graphene.populate(frame, randomness.subkey(keys, 0, "silicon"), c.spread, c.apart, c.silicon)
        except ValueError as error:
            raise ScenarioError("world.spread", f"{error}: make it larger or apart smaller") from error
        beside = randomness.uniform(keys, 0, "folds", c.silicon) < c.four_fold
        cluster = np.zeros((lanes, graphene.CLUSTERS, 3))
        far, angle = DEFECT_RADIUS * np.sqrt(place[:, 6::2]), 2 * np.pi * place[:, 7::2]
        cluster[..., 0], cluster[..., 1] = far * np.cos(angle), far * np.sin(angle)
        cluster[:, : c.contamination.start, 2] = drawn["contamination.radius"][:, None]
        fresh = {
            "key": keys, "count": 0, "clock": 0.0, "parked": False, "events": 0, "frame": frame, "mixture": mixture, "rates": rates, "optics": optics, "silicon": silicon,
            "vacancy": graphene.perforate(frame, randomness.subkey(keys, 0, "vacancies"), DEFECT_RADIUS, c.vacancies, beside, silicon),
            "cluster": cluster, "current": drawn["beam_current"], "noise": np.stack([drawn[name] for name in _NOISE], 1),
            "velocity": drawn["drift"][:, None] * np.stack([np.cos(heading), np.sin(heading)], 1),
            "offset": drawn["offset"][:, None] * np.stack([np.cos(aside), np.sin(aside)], 1),
            "contamination": drawn["contamination.image"], "scanned": scanned,
            "lobe": self._lobes(mixture, rates, optics),
        }  # fmt: skip
        for name, value in fresh.items():
            s[name][on] = value

    def _drawn(self, keys: np.ndarray) -> Lanes:
        """Every number of the world that is drawn; raises where one lies outside LIMITS."""
        c = self.config
        fields: dict[str, Distribution] = {name: getattr(c, name) for name in _DRAWN}
        fields |= {f"contamination.{name}": getattr(c.contamination, name) for name in ("dwell", "image", "radius", "cleaning")}
        for process in CROSS_SECTIONS:
            if (told := getattr(c.cross_sections, process)) is not None:
                fields |= {f"cross_sections.{process}.{name}": getattr(told, name) for name in ("threshold", "velocity", "factor")}
        if c.rates.max_rate is not None:
            fields["rates.max_rate"] = c.rates.max_rate
        drawn = {name: field.sample(keys, name) for name, field in fields.items()}
        for name, values in drawn.items():
            refuse_outside(name, values, LIMITS[name])
        return drawn

    def _rates(self, keys: np.ndarray, drawn: Lanes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mixtures, rows of RATES, and the integrals of the inversion rate over the plane (m^2/s)."""
        c, lanes, flux = self.config, len(keys), beam_rates.flux(drawn["beam_current"])
        columns = dict.fromkeys(RATES, np.zeros(lanes)) | {"kind": np.full(lanes, graphene.KINDS[c.rates.kind]), "variance": np.full(lanes, self.variance)}
        for process in CROSS_SECTIONS:
            if (told := getattr(c.cross_sections, process)) is not None:
                columns[process] = flux * drawn[f"cross_sections.{process}.factor"] * self._cross_section(process, told, drawn)
        columns |= {"healing": drawn["healing"], "contamination": drawn["contamination.dwell"]}
        columns |= {"radius": drawn["contamination.radius"], "cleaning": drawn["contamination.cleaning"]}
        mixture = np.zeros((lanes, *self.state["mixture"].shape[1:]))
        standard = {"published": beam_rates.HUMAN_PRIOR[0], "simple": 1.0}
        most = drawn.get("rates.max_rate", np.full(lanes, standard.get(c.rates.kind, 0.0)))
        if c.rates.kind == "published":
            mixture[:, 0] = beam_rates.HUMAN_PRIOR
            mixture[:, 0, 0] = most
        elif c.rates.kind == "simple":
            columns["simple"] = most
        elif c.rates.kind == "mixture":
            if c.rates.max_rate is None:
                most = Distribution(uniform=(0.01, 1.0)).sample(keys, "rates.max_rate")
            try:
                mixture = beam_rates.draw_mixture(keys, c.rates.more, c.rates.along, c.rates.across, c.rates.variance, most)
            except ValueError as error:
                raise ScenarioError("world.rates.variance", str(error)) from error
            for name, column in (("along", 1), ("across", 2), ("variance", 3)):
                refuse_outside(f"rates.{name}", mixture[..., column][mixture[..., 0] > 0], LIMITS[f"rates.{name}"])
        return mixture, np.stack([columns[name] for name in RATES], 1), columns["inversion"] + self._integral(mixture, columns["simple"])

    def _lobes(self, mixture: np.ndarray, rates: np.ndarray, optics: np.ndarray) -> np.ndarray:
        """Rate of the swap with one neighbour by the beam's place in its frame, (lanes, along, across) on beam_rates.LOBE_AXIS."""
        if self.config.rates.kind == "physical":
            physical: np.ndarray = rates[:, RATES.index("inversion"), None, None] * self.density_lobes[optics]
            return physical
        if self.config.rates.kind == "simple":
            simple: np.ndarray = rates[:, RATES.index("simple"), None, None] * beam_rates.simple_lobe()
            return simple
        return beam_rates.lobes(mixture)

    def _integral(self, mixture: np.ndarray, simple: np.ndarray) -> np.ndarray:
        whole = np.zeros(len(mixture))
        for g in range(mixture.shape[1]):
            whole += 2 * np.pi * mixture[:, g, 0] * mixture[:, g, 3] * BOND**2
        whole += simple * np.pi / 16 * np.log(1 + 16 * 5**2) * BOND**2  # the simple rate falls too slowly: its tails beyond 5 bonds are left out
        return whole

    def _cross_section(self, process: str, told: CrossSection, drawn: Lanes) -> np.ndarray:
        number, mass = (14, knock_on.MASSES["Si"]) if process == "loss" else (6, knock_on.MASSES["12C"])
        threshold, velocity = (drawn[f"cross_sections.{process}.{name}"] for name in ("threshold", "velocity"))
        try:
            pairs, lane = np.unique(np.stack([threshold, velocity], 1), axis=0, return_inverse=True)
            return knock_on.assisted_cross_section(self.config.energy, number, mass, pairs[:, 0], pairs[:, 1], told.assisted)[lane.reshape(-1)]
        except ValueError as error:
            raise ScenarioError(f"world.cross_sections.{process}.assisted", str(error)) from error

    def truth(self) -> Lanes:
        s, found = self.state, graphene.survey(self.sheets)
        shift = s["velocity"] * s["clock"][:, None]
        found["position"] += shift[:, None]
        kept = {name: s[name] for name in ("lobe", "mixture")}  # the same all episode, and large
        return found | kept | {"shift": shift, "site": s["silicon"][..., :3].copy()} | {name: s[name].copy() for name in ("velocity", "offset", "clock", "events")}

    def portrait(self, lane: int) -> Lanes:
        s = self.state
        shift, half = s["velocity"][lane] * s["clock"][lane], 2.5e-9
        silicon = graphene.survey(self.sheets)["position"][lane]
        there, gone = s["silicon"][lane, :, 3] > 0, s["vacancy"][lane]
        carbon = graphene.carbon(self.sheets, lane, silicon.mean(0), half)
        species = np.repeat([6, 14], [len(carbon), there.sum()])
        clusters = s["cluster"][lane][s["cluster"][lane, :, 2] > 0]
        vacancies = graphene.places(s["frame"][lane], gone[gone[:, 3] > 0])
        return {
            "atoms": np.concatenate([carbon, silicon[there]]) + shift, "species": species, "vacancies": vacancies + shift,
            "clusters": clusters + [*shift, 0.0],
        }  # fmt: skip

    # ---- commands ----

    def _park(self, command: PlaceProbe, where: np.ndarray) -> Readings:
        s, c = self.state, self.config
        asked, dwell = np.asarray(command.position, float), np.asarray(command.dwell_time, float)
        self._within(asked, where, "the beam")
        if (dwell[where] < 0).any() or (dwell[where] > LONGEST_DWELL).any():
            raise Refused(f"a dwell time must be from 0 to {LONGEST_DWELL:g} s, asked were {dwell[where].min():g} to {dwell[where].max():g} s")
        seconds = np.where(where, dwell, 0.0)
        beam = np.zeros((self.lanes, 8))
        beam[:, :2] = asked + s["offset"] - s["velocity"] * s["clock"][:, None] + s["noise"][:, 1:2] * randomness.normal(s["key"], s["count"], "misplacement", 2)
        beam[:, 2:4], beam[:, 4] = -s["velocity"], seconds
        s["parked"] |= seconds > 0
        damage = self._expose(beam, "events")
        time = np.where(seconds > 0, seconds + c.dwell_overhead, 0.0)
        s["clock"] += time
        dose = beam_rates.flux(s["current"]) * seconds / (CELL_AREA / ANGSTROM**2)
        return Readings({}, time, dose, damage, np.zeros(self.lanes))

    def _expose(self, beam: np.ndarray, stream: str, sheets: Lanes | None = None) -> np.ndarray:
        """Let events happen; returns the damage that they are, (lanes,)."""
        s = self.state
        before = s["events"].copy()
        graphene.expose(sheets or self.sheets, self.probes, beam, randomness.subkey(s["key"], s["count"], stream))
        new = s["events"] - before
        damage: np.ndarray = new[:, [EVENTS.index(name) for name in ("conversions", "ejections", "losses", "contaminations")]].sum(1).astype(float)
        return damage

    def _within(self, position: np.ndarray, where: np.ndarray, noun: str) -> None:
        half = self.config.field / 2
        if position.shape != (self.lanes, 2) or not (np.abs(position[where]) <= half).all():
            raise Refused(f"{noun} must stay within {1e9 * half:g} nm of (0, 0) along x and y, with two numbers for each lane")

    def _locate(self, command: LocateAtoms, where: np.ndarray) -> Readings:
        s, c = self.state, self.config
        rows, columns, view = self._checked(command, where)
        frame_time = rows * columns * command.dwell_time
        on = where.astype(float)
        half = np.array([0.5 * view, 0.5 * view * rows / columns])
        centre = np.where(where[:, None], np.asarray(command.centre, float), 0.0)
        middle = s["velocity"] * (s["clock"] + 0.5 * frame_time)[:, None]
        damage = self._scan(centre - middle, half, 0.5 * frame_time * on, 0)
        found = graphene.survey(self.sheets)
        n = c.silicon
        normal = randomness.normal(s["key"], s["count"], "finder", 2 * n + 1)
        around = _turned(found["neighbours"], s["noise"][:, 4] * normal[:, -1])
        normal = normal[:, :-1].reshape(-1, n, 2)
        true = found["position"] + middle[:, None]
        inside = (np.abs(true - centre[:, None]) <= half).all(-1)
        missed = randomness.uniform(s["key"], s["count"], "miss", n) < s["noise"][:, 3:4]
        seen = where[:, None] & (found["folds"] > 0) & ~found["covered"] & inside & ~missed
        values = {
            "position": np.where(seen[..., None], true + s["noise"][:, 2, None, None] * normal, 0.0), "found": seen,
            "neighbours": np.where(seen[..., None, None], around, 0.0), "folds": np.where(seen, found["folds"], 0).astype(np.int8),
        }  # fmt: skip
        values = {name: _resized(value, command.count) for name, value in values.items()}
        if command.image:
            values["image"] = self._image(found["position"], (rows, columns), view, centre, command.dwell_time, where)
        damage += self._scan(centre - middle, half, 0.5 * frame_time * on, 1)
        time = (frame_time + c.image_overhead) * on
        s["clock"] += time
        dose = beam_rates.flux(s["current"]) * frame_time * on / (4 * half.prod() / ANGSTROM**2)
        return Readings(values, time, dose, damage, on)

    def _checked(self, command: LocateAtoms, where: np.ndarray) -> tuple[int, int, float]:
        c, (rows, columns) = self.config, (int(v) for v in command.shape)
        if not all(PIXELS[0] <= side <= PIXELS[1] for side in (rows, columns)):
            raise Refused(f"this STEM scans {PIXELS[0]} to {PIXELS[1]} pixels a side, asked were {rows} x {columns}")
        if not (VIEWS[0] <= command.field_of_view <= VIEWS[1] and 0 < command.dwell_time <= LONGEST_PIXEL):
            low, high = (1e9 * view for view in VIEWS)
            raise Refused(f"an image needs a field_of_view from {low:g} to {high:g} nm and a dwell time up to {LONGEST_PIXEL:g} s per pixel, more than zero")
        if command.detector != c.detector:
            raise Refused(f"there is no detector {command.detector!r}: use {c.detector!r}", "LocateAtoms.detector")
        if command.species != SPECIES or not 1 <= command.count <= graphene.SILICON:
            raise Refused(f"this STEM finds 1 to {graphene.SILICON} {SPECIES} atoms, asked were {command.count} {command.species}")
        if command.image and command.field_of_view > atom_images.LARGEST_VIEW:
            raise Refused(f"this STEM draws images up to {1e9 * atom_images.LARGEST_VIEW:g} nm wide: ask for positions alone")
        self._within(np.asarray(command.centre, float), where, "the middle of an image")
        return rows, columns, float(command.field_of_view)

    def _scan(self, centre: np.ndarray, half: np.ndarray, seconds: np.ndarray, part: int) -> np.ndarray:
        """What half an image does: events at the mean current density if the scenario wants them, healing and contamination."""
        s, c = self.state, self.config
        if not (c.scan_events or s["contamination"].any() or s["rates"][:, RATES.index("healing")].any()):
            return np.zeros(self.lanes)
        rates = s["rates"].copy()
        rates[:, RATES.index("contamination")] = s["contamination"] * s["parked"]
        if not c.scan_events:
            rates[:, [RATES.index(name) for name in ("ejection", "conversion", "loss")]] = 0.0
        beam = np.zeros((self.lanes, 8))
        beam[:, :2], beam[:, 4], beam[:, 5:7] = centre, seconds, half
        beam[:, 7] = s["scanned"] / (4 * half.prod()) if c.scan_events else 0.0
        return self._expose(beam, f"events {part}", self.sheets | {"rates": rates})

    def _image(self, seats: np.ndarray, shape: tuple[int, int], view: float, centre: np.ndarray, dwell_time: float, where: np.ndarray) -> np.ndarray:
        """Electrons counted, full width, zeros for lanes not asked. Rows are shifted by jitter and by drift since the image began."""
        s, (rows, columns), on = self.state, shape, np.nonzero(where)[0]
        pixel = view / columns
        times = s["clock"][on, None] + (np.arange(rows) + 0.5) * columns * dwell_time
        start = centre[on, None] - s["velocity"][on, None] * times[..., None]
        start[..., 0] += s["noise"][on, 0:1] * randomness.normal(s["key"][on], s["count"][on], "jitter", rows) - 0.5 * pixel * (columns - 1)
        start[..., 1] += pixel * (np.arange(rows) - 0.5 * (rows - 1))
        whole = len(on) == self.lanes
        sheets = self.sheets if whole else {name: array[on] for name, array in self.sheets.items()}
        shares = atom_images.images(sheets, seats[on], self.profiles, start, columns, pixel)
        electrons = beam_rates.flux(s["current"][on]) * dwell_time * self.config.efficiency
        counted = shot_noise(shares, electrons, randomness.subkey(s["key"][on], s["count"][on], "shot noise"))
        if whole:
            return counted
        counts = np.zeros((self.lanes, rows, columns), np.float32)
        counts[on] = counted
        return counts


def _turned(vectors: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Vectors (lanes, ..., 2) turned by angles (lanes,) in rad."""
    cosine, sine = (f(angle).reshape(-1, *[1] * (vectors.ndim - 2)) for f in (np.cos, np.sin))
    x, y = vectors[..., 0], vectors[..., 1]
    return np.stack([cosine * x - sine * y, sine * x + cosine * y], -1)


def _resized(values: np.ndarray, count: int) -> np.ndarray:
    """The first ``count`` atoms, zeros for those that there are not."""
    have = values.shape[1]
    if have >= count:
        return values[:, :count]
    return np.concatenate([values, np.zeros((len(values), count - have, *values.shape[2:]), values.dtype)], 1)
