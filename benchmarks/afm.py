"""How far the averaged model of the tapping mode is from direct time integration, and how fast both are.

Approach curves, the distances at which the tip changes branch, scan lines over every class of surface, lines and
environment steps a second. The reference integrates two flexural modes with 300 steps a cycle; for approach curves one
mode too, since averaging is meant to cost little and the second mode is left out on purpose. Direct integration is timed
in the same run as the averaged model.

    python benchmarks/afm.py [--quick] [--seconds 1] [--only approach branches lines speed environments]
"""

from __future__ import annotations

import argparse
import time

import gymnasium as gym
import numpy as np
from report import json_line, rate, table

import probegym  # noqa: F401  registers the environments
from probegym.physics import approach, cantilever, surfaces, tapping, tips
from probegym.physics.threads import available_threads

NANO = 1e-9
STEPS = 300  # of the reference, per cycle
BATCHES, TARGETS = (16, 64, 256), {200: 450, 50: 1800}


def setup(stiffness: float, frequency: float, quality: float, radius: float, drive: float, **other) -> tapping.Setup:
    """A setup from the stiffness of the first mode in N/m; radius and drive in nm."""
    static = stiffness / cantilever.modes(1).stiffness[0]
    return tapping.Setup(stiffness=static, frequency=frequency, quality=quality, radius=radius * NANO, drive=drive * NANO, **other)


def garcia(drive: float) -> tuple:
    """The cantilever and sample of Garcia & San Paulo (1999) at this free amplitude, nm."""
    return setup(40, 350e3, 400, 20, drive), 6.4e-20, 1.51e9, 0.0


CASES = {
    "k 40, Q 400, R 20, E 1.51 GPa, A0 10": garcia(10),
    "the same, A0 15": garcia(15),
    "the same, A0 30": garcia(30),
    "the same, A0 60": garcia(60),
    "hard: R 10, E 50 GPa, A0 30": (setup(40, 300e3, 400, 10, 30), 6.4e-20, 50e9, 0.0),
    "gold: R 8, E 80 GPa, H 0.16 aJ, A0 30": (setup(40, 300e3, 400, 8, 30), 1.6e-19, 80e9, 0.0),
    "viscous: E 1 GPa, 100 Pa s, A0 30": (setup(40, 350e3, 400, 10, 30), 6.4e-20, 1e9, 100.0),
    "viscous: E 1 GPa, 300 Pa s, A0 30": (setup(40, 350e3, 400, 10, 30), 6.4e-20, 1e9, 300.0),
    "elastomer: k 10, E 0.2 GPa, 300 Pa s, A0 40": (setup(10, 150e3, 300, 8, 40), 1e-19, 2e8, 300.0),
    "electrostatic: 3 V, E 10 GPa, A0 30": (setup(40, 300e3, 400, 10, 30, voltage=3.0), 6.4e-20, 10e9, 0.0),
    "capillary neck: 5 nN, E 10 GPa, A0 30": (setup(40, 300e3, 400, 10, 30, neck_force=5e-9), 6.4e-20, 10e9, 0.0),
    "shaken base: E 10 GPa, A0 30": (setup(40, 300e3, 400, 10, 30, shaken=1.0), 6.4e-20, 10e9, 0.0),
    "shaken base, Q 30": (setup(40, 300e3, 30, 10, 30, shaken=1.0), 6.4e-20, 10e9, 0.0),
    "driven a half width below resonance": (setup(40, 300e3, 400, 10, 30, detuning=1 - 1 / 800), 6.4e-20, 10e9, 0.0),
    "vacuum: Q 2000, E 10 GPa, A0 30": (setup(40, 300e3, 2000, 10, 30), 6.4e-20, 10e9, 0.0),
    "soft lever: k 2, Q 150, E 1 GPa, A0 20": (setup(2, 70e3, 150, 10, 20), 6.4e-20, 1e9, 0.0),
    "soft lever, hard sample: k 2, Q 150, E 50 GPa, A0 30": (setup(2, 70e3, 150, 10, 30), 6.4e-20, 50e9, 0.0),
    "very soft, hard: k 0.5, Q 100, E 50 GPa, A0 30": (setup(0.5, 35e3, 100, 10, 30), 6.4e-20, 50e9, 0.0),
    "water-like: k 2, Q 10, E 1 GPa, A0 20": (setup(2, 70e3, 10, 10, 20), 6.4e-20, 1e9, 0.0),
}
"""Name -> setup, Hamaker constant (J), modulus (Pa), viscosity (Pa s)."""


def down_and_up(setup: tapping.Setup, points: int, lowest: float = 0.2, highest: float = 1.1) -> np.ndarray:
    """Distances, m, from above the free amplitude to ``lowest`` of it and back."""
    down = np.linspace(highest, lowest, points) * setup.drive
    return np.r_[down, down[::-1]]


def approach_errors(case: tuple, points: int, modes: int) -> dict:
    """Errors in steady state: amplitude in % of the free one, phase in degrees; where both are on the same branch."""
    one, *sample = case
    at = down_and_up(one, points)
    reference = approach.curve(one, at, *sample, direct=True, modes=modes, steps=STEPS)
    fast = approach.curve(one, at, *sample)
    same = (reference.phase < np.pi / 2) == (fast.phase < np.pi / 2)
    amplitude = 100 * np.abs(fast.amplitude - reference.amplitude)[same] / one.drive
    phase = np.degrees(np.abs(fast.phase - reference.phase))[same]
    return {
        "A median": np.median(amplitude), "A max": amplitude.max(), "phase median": np.median(phase), "phase max": phase.max(),
        "other branch": int((~same).sum()), "F max": reference.peak_force.max() / NANO, "F max, fast": fast.peak_force.max() / NANO,
    }  # fmt: skip


def approach_rows(quick: bool) -> list[dict]:
    """A row a case and number of modes."""
    cases = list(CASES.items())[:: 4 if quick else 1]
    return [{"case": name, "modes": modes} | approach_errors(case, 11 if quick else 31, modes) for name, case in cases for modes in ((1,) if quick else (1, 2))]


def branch_rows(quick: bool) -> list[dict]:
    """Distances at which the phase passes 90 degrees on the way down and up, nm, on a grid of 0.02 nm (without a crossing: 0.1 nm)."""
    rows = []
    for drive, low, high in ((15, 0.2, 0.98), (20, 0.75, 0.98), (30, 0.92, 0.98), (45, 0.96, 1.0), (60, 0.96, 1.0))[:: 2 if quick else 1]:
        one, *sample = garcia(drive)
        at = down_and_up(one, int((high - low) * drive / (0.1 if quick or drive == 15 else 0.02)), low, high)
        curves = [approach.curve(one, at, *sample, **options) for options in ({"direct": True, "modes": 1, "steps": STEPS}, {})]
        found = [approach.crossings(at, curve.phase[0]) for curve in curves]
        row = {"A0": drive, "down": None, "fast, down": None, "up": None, "fast, up": None, "hysteresis": None, "off by": None}
        if all(found):
            (down, up), (fast_down, fast_up) = ((f[0] / NANO, f[-1] / NANO) for f in found)
            row |= {"down": down, "fast, down": fast_down, "up": up, "fast, up": fast_up, "hysteresis": up - down}
            row["off by"] = max(abs(down - fast_down), abs(up - fast_up))
        elif any(found):
            raise SystemExit(f"A0 {drive} nm: one model changes branch and the other does not")
        rows.append(row)
    return rows


# ---- scan lines ----


def line(kind: str, key: int, cells: int = 256, lines: int = 2, radius: float = 8 * NANO, field: float = 0.5e-6) -> tapping.Track:
    """Lines over a surface of this kind with its default parameters, as a tip of this radius meets them."""
    surface = surfaces.build(kind, key, (2e-7, 1.25 * field), (128, 400))
    where = np.zeros(lines, int)
    y = np.linspace(0.3, 0.7, lines) * surface.extent[0]
    height, contact = tips.dilate_lines(surface.height[None], surface.extent, tips.sharp(lines, radius), y, 0.1 * field, field / cells, cells, maps=where)
    modulus, hamaker, viscosity = np.moveaxis(surface.properties()[tips.touched(surface.material[None], contact, where)], -1, 0)
    return tapping.Track(height.astype(float), hamaker, modulus, viscosity, np.zeros(height.shape))


def back(track: tapping.Track) -> tapping.Track:
    """The same lines the other way."""
    return tapping.Track(*(np.ascontiguousarray(v[:, ::-1]) for v in vars(track).values()))


def feedback(integral: float = 1500.0) -> tapping.Setup:
    """An instrument with a piezo resonance, PI gains for its cantilever, an amplitude setpoint of 75 %."""
    gains = {"proportional": 0.3 * integral * 400 / (np.pi * 300e3), "integral": integral, "setpoint": 22.5 * NANO}
    return setup(40, 300e3, 400, 8, 30, shaken=1.0, bandwidth=20e3, piezo_frequency=10e3, piezo_quality=15.0, **gains)


def scanned(one: tapping.Setup, track: tapping.Track, cycles: int, direct: bool = False, modes: int = 2) -> tapping.Trace:
    """The trace over the lines after a first pass the other way, without noise."""
    lanes = len(track.height)
    state = tapping.rest(one, lanes, track.height[:, -1] + one.drive + 2 * NANO)
    for way in (back(track), track):
        if direct:
            state, trace = tapping.scan_direct(one, state, way, cycles, modes=modes, steps=STEPS)
        else:
            state, trace = tapping.scan(one, state, way, np.full(lanes, cycles / one.frequency), np.zeros(lanes, np.uint64))
    return trace


def rms(values: np.ndarray) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(values))))


def line_rows(quick: bool) -> list[dict]:
    """A row a class and speed: topography in % of the height range, amplitude in % of the free one, phase in degrees, force in nN."""
    rows, one = [], feedback()
    for kind in list(surfaces.KINDS)[:: 3 if quick else 1]:
        for cycles in TARGETS:
            shape = (64, 1, 8 * NANO, 0.125e-6) if quick else (256, 2)
            tracks = [line(kind, key, *shape) for key in ((3,) if quick else (3, 4, 5))]
            track = tapping.Track(*(np.concatenate([getattr(t, name) for t in tracks]) for name in vars(tracks[0])))
            reference, fast = (scanned(one, track, cycles, direct) for direct in (True, False))
            span = np.ptp(track.height, axis=1)
            topography = [100 * (a - b).std() / s for a, b, s in zip(fast.height, reference.height, span, strict=True)]
            tracking = [100 * (a - b).std() / s for a, b, s in zip(reference.height, track.height, span, strict=True)]
            rows.append({
                "surface": kind, "cycles a pixel": cycles, "range, nm": np.median(span) / NANO, "tracking": np.median(tracking),
                "topography": np.median(topography), "max": max(topography), "offset, nm": (fast.height - reference.height).mean() / NANO, "amplitude": 100 * rms(fast.amplitude - reference.amplitude) / one.drive,
                "phase": np.degrees(rms(fast.phase - reference.phase)), "F, nN": np.median(reference.peak_force.max(1)) / NANO,
                "F, fast": np.median(fast.peak_force.max(1)) / NANO,
            })  # fmt: skip
    return rows


# ---- speed ----


def speed_rows(seconds: float) -> list[dict]:
    """Lines of 256 pixels a second, one way, thermal and sensor noise on; direct integration of the same lines beside it."""
    rows, one = [], feedback()
    noisy = tapping.Setup(**(vars(one) | {"temperature": 295.0, "sensor_noise": 1e-13}))
    base = line("grains", 3, lines=16)
    for cycles, target in TARGETS.items():
        first = tapping.Track(*(v[:1] for v in vars(base).values()))
        began = time.perf_counter()
        tapping.scan_direct(one, tapping.rest(one, 1, first.height[:, 0] + one.drive), first, cycles, modes=2, steps=STEPS)
        direct = 1 / (time.perf_counter() - began)
        for lanes in BATCHES:
            track = tapping.Track(*(np.tile(v, (lanes // 16, 1)) for v in vars(base).values()))
            state = tapping.rest(noisy, lanes, track.height[:, 0] + one.drive)
            arguments = noisy, state, track, np.full(lanes, cycles / one.frequency), np.arange(lanes, dtype=np.uint64)
            found = {n: rate(lambda a=arguments, n=n: tapping.scan(*a, threads=n), lanes, seconds) for n in sorted({1, available_threads()})}
            rows.append({"cycles a pixel": cycles, "batch": lanes} | {f"{n} thread{'s' * (n > 1)}": f for n, f in found.items()} | {"direct": direct, "target": target})
    return rows


def environment_rows(seconds: float) -> list[dict]:
    """Environment steps a second (a line of 128 pixels there and back), resets included."""
    rows = []
    for scenario in ("train", "far-quality"):
        env = gym.make("probegym/AfmTuning-v0", scenario=scenario)
        env.reset(seed=0)
        action = np.zeros(env.action_space.shape, np.float32)

        def steps(env=env, action=action):
            for _ in range(40):
                if any(env.step(action)[2:4]):
                    env.reset()

        rows.append({"scenario": scenario, "lanes": 1, "env-steps/s": rate(steps, 40, seconds)})
        many = gym.make_vec("probegym/AfmTuning-v0", 64, vectorization_mode="vector_entry_point", scenario=scenario)
        many.reset(seed=0)
        actions = np.zeros(many.action_space.shape, np.float32)
        rows.append({"scenario": scenario, "lanes": 64, "env-steps/s": rate(lambda many=many, a=actions: many.step(a), 64, max(seconds, 33 * 0.1))})
    return rows


def main() -> None:
    sections = {
        "approach": ("Approach curves, down and up: error of the averaged model, amplitude in % of A0, phase in degrees, force in nN", lambda o: approach_rows(o.quick)),
        "branches": ("Where the tip changes branch (k 40, Q 400, R 20 nm, E 1.51 GPa): distances in nm", lambda o: branch_rows(o.quick)),
        "lines": ("Scan lines, 2 nm a pixel, in % of their range: tracking error of the reference, difference of the averaged model (median, max); amplitude in % of A0",
                  lambda o: line_rows(o.quick)),
        "speed": ("Lines of 256 pixels a second", lambda o: speed_rows(o.seconds)),
        "environments": ("Environment steps a second, resets included", lambda o: environment_rows(o.seconds)),
    }  # fmt: skip
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few cases, coarse curves, short lines")
    parser.add_argument("--seconds", type=float, default=1.0, help="least time of one measurement of speed")
    parser.add_argument("--only", nargs="+", default=list(sections), choices=list(sections))
    options = parser.parse_args()
    if options.quick:
        options.seconds = min(options.seconds, 0.2)
    figures = {}
    for name, (title, measure) in sections.items():
        if name in options.only:
            rows = measure(options)
            table(title, tuple(rows[0]), [tuple(row.values()) for row in rows])
            figures[name] = rows
    json_line("afm", quick=options.quick, **figures)


if __name__ == "__main__":
    main()
