"""Tapping mode: the direct integration against identities and an independent integrator, the averaged model against it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import constants

from probegym.errors import ProbeGymError
from probegym.physics import approach, cantilever, surfaces, tapping, tips
from probegym.physics.tapping import Setup, Track
from probegym.physics.tip_forces import Interaction
from tests import tapping_reference
from tests.helpers import differences

pytestmark = pytest.mark.xdist_group("tapping")  # one process makes what its tests share

NM = 1e-9
ONE_MODE = {"direct": True, "modes": 1, "steps": 300}


def setup(stiffness=40.0, frequency=300e3, quality=400.0, radius=10.0, drive=30.0, **other) -> Setup:
    """Stiffness of the first mode, radius and drive in nm."""
    static = np.asarray(stiffness) / cantilever.modes(1).stiffness[0]
    return Setup(stiffness=static, frequency=frequency, quality=quality, radius=radius * NM, drive=drive * NM, **other)


def garcia(drive: float) -> tuple[Setup, float, float]:
    return setup(40, 350e3, 400, 20, drive), 6.4e-20, 1.51e9


def down_and_up(drive: float, points: int, low: float, high: float) -> np.ndarray:
    """Distances, m, between shares of the drive (m) and back."""
    down = np.linspace(high, low, points) * drive
    return np.r_[down, down[::-1]]


def track(height, hamaker=1e-19, modulus=10e9, viscosity=0.0, forward=0.0) -> Track:
    height = np.atleast_2d(np.asarray(height, float))
    return Track(height, *(np.broadcast_to(np.asarray(v, float), height.shape).copy() for v in (hamaker, modulus, viscosity, forward)))


def scan(one: Setup, line: Track, cycles, state=None, step: float = tapping.CYCLES_PER_STEP, key: int = 0):
    """The averaged model over a line, ``cycles`` oscillations a cell, from rest over its first cell unless a state is given."""
    lanes = len(line.height)
    state = tapping.rest(one, lanes, line.height[:, 0] + one.drive) if state is None else state
    time = np.broadcast_to(cycles / np.asarray(one.frequency, float), (lanes,))
    return tapping.scan(one, state, line, time, np.arange(key, key + lanes, dtype=np.uint64), cycles=step)


# ---- the reference: identities ----


@pytest.mark.parametrize("case", [garcia(30), (setup(drive=30), 6.4e-20, 50e9)], ids=["garcia", "hard"])
def test_phase_follows_from_the_amplitude_on_both_branches(case):
    """Sin(phase) = A / A0 for conservative forces at resonance, however hard the tip taps."""
    one, *sample = case
    found = approach.curve(one, down_and_up(one.drive, 17, 0.2, 1.1), *sample, settle=4, **ONE_MODE)
    assert np.abs(np.sin(found.phase) - found.amplitude / one.drive).max() < 1e-3
    assert np.degrees(found.phase).min() < 20 and np.degrees(found.phase).max() > 90.1


KINDS = {"elastic": (1.51e9, 0.0, 0.0), "stiff": (10e9, 0.0, 0.0), "viscous": (1e9, 100.0, 0.0), "wet": (10e9, 0.0, 5e-9)}
DISTANCES = np.array([0.4, 0.6, 0.75, 0.9]) * 30 * NM
QUALITY = 50.0


@pytest.fixture(scope="module")
def independent() -> tapping_reference.Steady:
    """Runge-Kutta over KINDS (rows) and DISTANCES (columns), flattened."""
    modulus, viscosity, neck = np.repeat(np.array(list(KINDS.values())), len(DISTANCES), axis=0).T
    interaction = Interaction(10 * NM, 6.4e-20, modulus, viscosity, 0.0, neck)
    return tapping_reference.steady(40.0, QUALITY, 30 * NM, np.tile(DISTANCES, len(KINDS)), interaction, 2 * np.pi * 300e3)


@pytest.fixture(scope="module")
def direct() -> tapping.Trace:
    """``scan_direct`` at the same places, each approached from above; (lanes,)."""
    modulus, viscosity, neck = np.repeat(np.array(list(KINDS.values())), len(DISTANCES), axis=0).T
    lanes, at = len(modulus), np.tile(DISTANCES, len(KINDS))
    one = setup(np.full(lanes, 40.0), quality=QUALITY, neck_force=neck)
    down = at[:, None] + np.linspace(1, 0, 8) ** 2 * (33 * NM - at[:, None])
    found = approach.curve(one, down, 6.4e-20, modulus, viscosity, settle=4, **ONE_MODE)
    return tapping.Trace(*(v[:, -1] for v in vars(found).values()))


def test_the_kernel_agrees_with_an_independent_integrator(independent, direct):
    assert np.abs(direct.amplitude - independent.amplitude).max() < 2e-3 * 30 * NM
    assert np.degrees(np.abs(direct.phase - independent.phase)).max() < 0.3
    assert direct.peak_force == pytest.approx(independent.peak, rel=0.02)


def test_dissipation_shows_in_the_phase(independent, direct):
    """Cleveland: sin(phase) - A / A0 = Q E / (pi k A A0), with the energy measured along the independent trajectory."""
    lost = QUALITY * independent.dissipated / (np.pi * 40 * direct.amplitude * 30 * NM)
    assert np.abs(np.sin(direct.phase) - direct.amplitude / (30 * NM) - lost).max() < 2e-3
    by_kind = lost.reshape(len(KINDS), -1)
    assert np.abs(by_kind[:2]).max() < 1e-3 and by_kind[2].min() > 0.01 and by_kind[3].min() > 2e-3


def test_a_neck_costs_its_hysteresis_every_cycle(independent):
    """It forms at 0.5 nm and breaks at 1.5 nm: force times that difference."""
    wet = independent.dissipated.reshape(len(KINDS), -1)[3]
    assert wet == pytest.approx(np.full(len(DISTANCES), 5e-9 * 1e-9), rel=0.15, abs=0)


def test_the_virial(independent):
    """<F q> = -(k A A0 / 2Q) cos(phase), to the order 1/Q^2 of the higher harmonics; mean force and deflection belong together."""
    expected = -40 * independent.amplitude * 30 * NM / (2 * QUALITY) * np.cos(independent.phase)
    assert independent.virial == pytest.approx(expected, rel=0.01, abs=0)
    assert independent.mean == pytest.approx(40 * independent.deflection, rel=0.01, abs=2e-12)


# ---- the reference: Garcia & San Paulo (1999) ----


def test_small_amplitudes_stay_attractive():
    one, *sample = garcia(15)
    found = approach.curve(one, np.linspace(1.05, 0.25, 60) * one.drive, *sample, **ONE_MODE)
    assert (found.phase > np.pi / 2).all() and not found.peak_force.any()


def test_a_compliant_lever_stays_attractive():
    one = setup(2, 70e3, 150, 10, 30)
    found = approach.curve(one, np.linspace(1.05, 0.25, 40) * one.drive, 6.4e-20, 1e9, **ONE_MODE)
    assert (found.phase > np.pi / 2).all()


@pytest.mark.parametrize(("drive", "low", "high", "least", "most"), [(30, 0.935, 0.975, 0.3, 0.6), (45, 0.965, 0.985, -0.02, 0.3)])
def test_larger_amplitudes_cross_over(drive, low, high, least, most):
    """With hysteresis at 30 nm and hardly any from 45 nm; the averaged model crosses where the reference does."""
    one, *sample = garcia(drive)
    at = down_and_up(one.drive, int((high - low) * drive / 0.03), low, high)
    (down, up), (fast_down, fast_up) = (approach.crossings(at, approach.curve(one, at, *sample, **o).phase[0]) for o in (ONE_MODE, {}))
    assert least < (up - down) / NM < most
    assert max(abs(down - fast_down), abs(up - fast_up)) < 0.06 * NM


@pytest.mark.parametrize("model", ["direct", "averaged"])
def test_a_hard_sample_holds_the_lowest_point(model):
    """DA/dz is 1, and the peak force is largest, about 38 nN, at a setpoint of about 0.58."""
    one, points = setup(), 45 if model == "direct" else 200
    at = np.linspace(1.0, 0.25, points) * one.drive
    found = approach.curve(one, at, 6.4e-20, 50e9, settle=3, **(ONE_MODE | {"steps": 400} if model == "direct" else {}))
    ratio, slope = found.amplitude[0] / one.drive, np.gradient(found.amplitude[0], at)
    assert np.ptp(slope[(ratio > 0.3) & (ratio < 0.8)]) < 0.02 and slope[(ratio > 0.3) & (ratio < 0.8)] == pytest.approx(1, abs=0.01)
    assert found.peak_force.max() == pytest.approx(38e-9, rel=0.03)
    assert ratio[found.peak_force.argmax()] == pytest.approx(0.58, abs=0.06)


# ---- the averaged model against the reference ----


CASES = {
    "garcia": garcia(30),
    "attractive": garcia(10),
    "viscous": (setup(), 6.4e-20, 1e9, 300.0),
    "electrostatic": (setup(voltage=3.0), 6.4e-20, 10e9),
    "electrostatic, soft lever": (setup(3, 100e3, voltage=2.0), 6.4e-20, 10e9),
    "neck": (setup(neck_force=5e-9), 6.4e-20, 10e9),
    "shaken": (setup(shaken=1.0), 6.4e-20, 10e9),
    "shaken, low Q": (setup(quality=30.0, shaken=1.0), 6.4e-20, 10e9),
    "shaken, viscous": (setup(quality=30.0, shaken=1.0), 6.4e-20, 1e9, 300.0),
    "detuned": (setup(detuning=1 - 1 / 800), 6.4e-20, 10e9),
    "soft lever, hard sample": (setup(2, 70e3, 150), 6.4e-20, 50e9),
    "low Q, hard sample": (setup(20, 210e3, 100, 10, 40), 1e-19, 70e9),
}


CLOSE = {"shaken, low Q": 0.005, "shaken, viscous": 0.0025, "soft lever, hard sample": 0.002, "low Q, hard sample": 0.002}  # else 0.0015


@pytest.mark.parametrize("name", CASES)
def test_steady_states_agree(name):
    """Amplitude within 1 % of the free one, nearly always within 0.15 %; phase within 1 degree, and the peak force nearly."""
    one, *sample = CASES[name]
    at = down_and_up(one.drive, 13, 0.25, 1.05)
    reference, fast = (approach.curve(one, at, *sample, **o) for o in (ONE_MODE, {}))
    same = (reference.phase < np.pi / 2) == (fast.phase < np.pi / 2)
    assert same.mean() > 0.95
    assert np.abs(fast.amplitude - reference.amplitude)[same].max() < CLOSE.get(name, 0.0015) * one.drive
    assert np.degrees(np.abs(fast.phase - reference.phase))[same].max() < 1
    assert fast.peak_force.max() == pytest.approx(reference.peak_force.max(), rel=0.15)


def test_a_soft_lever_gets_over_a_sudden_wall():
    """Every distance jumps 1.3 nm nearer: the first cycles hit a hard sample far too deep, the settled ones must not remember it."""
    one = setup(0.5, 35e3, 100, 10, 30)
    at = np.linspace(1.05, 0.3, 17) * one.drive
    reference, fast = (approach.curve(one, at, 1e-19, 50e9, **o) for o in (ONE_MODE, {}))
    apart = np.abs(fast.amplitude - reference.amplitude) / one.drive
    assert np.median(apart) < 0.005 and apart.max() < 0.05 and fast.peak_force.max() < 2 * reference.peak_force.max()


def test_two_modes_differ_little_from_one():
    """The second mode, which the averaged model leaves out."""
    one = setup(shaken=1.0)
    at = np.linspace(1.05, 0.25, 13) * one.drive
    reference, fast = approach.curve(one, at, 6.4e-20, 10e9, **(ONE_MODE | {"modes": 2})), approach.curve(one, at, 6.4e-20, 10e9)
    assert np.abs(fast.amplitude - reference.amplitude).max() < 2e-3 * one.drive
    assert np.degrees(np.abs(fast.phase - reference.phase)).max() < 0.3


def test_low_quality_needs_short_steps():
    """At Q = 50 the amplitude may grow by many contact depths within two cycles; the model shortens its steps by itself."""
    one = setup(np.repeat([5.0, 20.0, 40.0], 2), quality=50.0, drive=np.tile([20.0, 50.0], 3))
    at = np.linspace(1.05, 0.3, 16) * one.drive[:, None]
    fine, found = (approach.curve(one, at, 1e-19, 70e9, **options) for options in ({"cycles": 0.2}, {}))
    assert np.abs(fine.amplitude - found.amplitude).max(1) == pytest.approx(np.zeros(6), abs=0.01 * NM)
    assert found.peak_force == pytest.approx(fine.peak_force, rel=0.1, abs=1e-9)


def feedback(integral: float = 1500.0, **other) -> Setup:
    gains = {"proportional": 0.3 * integral * 400 / (np.pi * 300e3), "integral": integral, "setpoint": 22.5 * NM}
    return setup(radius=8, shaken=1.0, **({"bandwidth": 20e3, "piezo_frequency": 10e3, "piezo_quality": 15.0} | gains | other))


def line_of(kind: str, cells: int = 64) -> Track:
    """Of twelve lines of 2 nm a cell over a surface, as a tip of 8 nm meets them, the one with most relief."""
    surface = surfaces.build(kind, 3, (2e-7, 2e-7), (100, 100))
    where, y = np.zeros(12, int), np.linspace(0.1, 0.9, 12) * 2e-7
    height, contact = tips.dilate_lines(surface.height[None], surface.extent, tips.sharp(12), y, 3e-8, 2e-9, cells, maps=where)
    best = np.ptp(height, axis=1).argmax()
    touched = tips.touched(surface.material[None], contact[[best]], np.zeros(1, int))
    modulus, hamaker, viscosity = np.moveaxis(surface.properties()[touched], -1, 0)
    return Track(height[[best]].astype(float), hamaker, modulus, viscosity, np.zeros((1, cells)))


def settled(one: Setup, line: Track, cycles: int, direct: bool = False, step: float = tapping.CYCLES_PER_STEP) -> tapping.Trace:
    """The trace after a pass the other way."""
    back = Track(*(np.ascontiguousarray(v[:, ::-1]) for v in vars(line).values()))
    state = tapping.rest(one, len(line.height), back.height[:, 0] + one.drive)
    for way in (back, line):
        state, trace = tapping.scan_direct(one, state, way, cycles, modes=2, steps=300) if direct else scan(one, way, cycles, state, step)
    return trace


@pytest.mark.parametrize("cycles", [200, 50])
@pytest.mark.parametrize("kind", surfaces.KINDS)
def test_scan_lines_agree(kind, cycles):
    """Topography within 2 % of its range (absolute height apart), with a second mode and a shaken clamp in the reference."""
    line = line_of(kind)
    reference, fast = (settled(feedback(), line, cycles, d) for d in (True, False))
    assert (fast.height - reference.height).std() < 0.02 * np.ptp(line.height)
    assert abs((fast.height - reference.height).mean()) < 0.1 * NM
    assert np.sqrt(((fast.amplitude - reference.amplitude) ** 2).mean()) < 0.01 * 30 * NM
    followed = (reference.height - line.height).std() / line.height.std()
    assert followed < 0.7 or kind == "patches"  # a soft patch is higher than it looks


@pytest.mark.parametrize("kind", ["terraces", "nanoparticles"])
def test_the_step_does_not_matter(kind):
    line = line_of(kind)
    coarse, *finer = (settled(feedback(), line, 200, step=c) for c in (2, 1, 0.5))
    for trace in finer:
        assert np.abs(trace.height - coarse.height).max() < 3e-3 * np.ptp(line.height)
        assert np.abs(trace.amplitude - coarse.amplitude).max() < 5e-3 * 30 * NM


# ---- noise ----


@pytest.fixture(scope="module")
def far_away():
    """64 lanes a long way above the sample, 1.7 million oscillations in all."""
    return track(np.zeros((64, 13000)), modulus=1e9, hamaker=0.0)


def complex_amplitude(trace: tapping.Trace) -> np.ndarray:
    a = trace.amplitude * np.exp(-1j * trace.phase)
    return a[:, 1000:] - a[:, 1000:].mean()


def test_thermal_motion_has_its_size_and_memory(far_away):
    """Each quadrature has the variance k_B T / k (of the mode) and forgets in 2 Q / w0."""
    one = setup(2.0, 300e3, 150.0, drive=1e-3, temperature=295.0, bandwidth=140e3)
    a = complex_amplitude(scan(one, far_away, 2.0, tapping.rest(one, 64, 100 * NM))[1])
    expected = np.sqrt(constants.k * 295.0 / 2.0)
    assert expected == pytest.approx(45.1e-12, rel=1e-3, abs=0)
    assert [a.real.std(), a.imag.std()] == pytest.approx([expected] * 2, rel=0.01, abs=0)
    lag, time = 24, 150.0 / (np.pi * 300e3)
    memory = (a[:, :-lag] * a[:, lag:].conj()).real.mean() / (np.abs(a) ** 2).mean()
    assert memory == pytest.approx(np.exp(-lag * 2 / 300e3 / time), rel=0.06)
    spectrum = np.abs(np.fft.fft(a, axis=1)) ** 2
    frequency = np.fft.fftfreq(a.shape[1], 2 / 300e3)
    low, corner = spectrum[:, np.abs(frequency) < 50].mean(), spectrum[:, np.abs(np.abs(frequency) - 1e3) < 50].mean()
    assert low / corner == pytest.approx(2.0, rel=0.15)  # half the power at f / 2Q


def test_sensor_noise_passes_the_lock_in(far_away):
    """White noise n through a first-order filter of bandwidth b: each quadrature n sqrt(pi b)."""
    one = setup(drive=1.0, sensor_noise=1e-13, bandwidth=10e3)
    a = complex_amplitude(scan(one, far_away, 2.0, tapping.rest(one, 64, 100 * NM))[1])
    assert [a.real.std(), a.imag.std()] == pytest.approx([1e-13 * np.sqrt(np.pi * 10e3)] * 2, rel=0.03, abs=0)
    assert abs((a.real * a.imag).mean()) < 0.03 * a.real.var()


def test_without_temperature_and_sensor_there_is_no_noise(far_away):
    quiet = setup(2.0)
    a = complex_amplitude(scan(quiet, track(np.zeros((1, 2000))), 2.0, tapping.rest(quiet, 1, 100 * NM))[1])
    assert np.abs(a).max() < 1e-5 * 30 * NM


# ---- feedback and piezo ----


def test_off_the_surface_it_parachutes():
    """Beyond an edge the error saturates at A0 - A_set: the tip needs h / (K_i (A0 - A_set)) to come down."""
    drop, gain = 200 * NM, 1000.0
    one = setup(quality=100.0, drive=20, setpoint=16 * NM, integral=gain, bandwidth=50e3)
    line = track(np.r_[np.full(200, drop), np.zeros(1400)])
    height = scan(one, line, 20, tapping.rest(one, 1, drop + 16 * NM))[1].height[0]
    assert abs(height[190] - drop - 16 * NM) < 1 * NM and abs(height[-1] - 16 * NM) < 1 * NM
    falling = np.nonzero(height < height[190] - 0.9 * drop)[0][0] - 200
    assert falling * 20 / 300e3 == pytest.approx(0.9 * drop / (gain * 4 * NM), rel=0.03)


def piezo_positions(one: Setup, steps: int, cell_time: float, forward: float) -> np.ndarray:
    """Piezo position, m, after each cell, from rest at 0 with a command that steps to ``forward`` (m), far above the sample."""
    state, line = tapping.rest(one, 1, 0.0), track([[-2e-6]], forward=forward)
    found = []
    for _ in range(steps):
        state, _ = tapping.scan(one, state, line, np.full(1, cell_time), np.zeros(1, np.uint64))
        found.append(state["z"][0] * NM)
    return np.array(found)


@pytest.mark.parametrize(("frequency", "quality"), [(5e3, 20.0), (20e3, 8.0), (2e3, 0.8)])
def test_the_piezo_answers_a_step_like_a_resonator(frequency, quality):
    time = 1 / (40 * frequency)
    z = piezo_positions(setup(feed_forward=1.0, piezo_frequency=frequency, piezo_quality=quality), 220, time, 10 * NM) / (10 * NM)
    damping, t = np.pi * frequency / quality, time * np.arange(1, 221)
    ringing = 2 * np.pi * frequency * np.sqrt(1 - 1 / (4 * quality**2))
    assert z == pytest.approx(1 - np.exp(-damping * t) * (np.cos(ringing * t) + damping / ringing * np.sin(ringing * t)), abs=2e-4)


def test_without_a_resonance_the_piezo_follows_at_once():
    assert piezo_positions(setup(feed_forward=1.0), 2, 2 / 300e3, 10 * NM) == pytest.approx([10 * NM] * 2)


def test_creep_adds_its_share_per_decade_of_time():
    z = piezo_positions(setup(feed_forward=1.0, creep=0.02), 1100, 0.02, 100 * NM)
    steps = [(z[round(10 * t / 0.02) - 1] - z[round(t / 0.02) - 1]) / (100 * NM) for t in (0.4, 1.0, 2.0)]
    assert steps == pytest.approx([0.02] * 3, rel=0.15)
    assert z[149] / (100 * NM) - 1 == pytest.approx(0.02 * np.log10(3.0 / 0.1), rel=0.2)  # counted from 0.1 s


def test_feed_forward_moves_the_command():
    line = line_of("grating")
    blind, seeing = (settled(feedback(300.0, feed_forward=w), dataclasses.replace(line, forward=line.height - line.height[:, :1]), 50) for w in (0.0, 1.0))
    errors = [(t.height - line.height).std() for t in (blind, seeing)]
    assert errors[1] < 0.3 * errors[0]


def test_the_piezo_ends_somewhere_and_the_integrator_waits_there():
    one = feedback(z_range=40 * NM)
    line = track(np.r_[np.full(100, -20 * NM), np.full(100, 40 * NM), np.full(100, -20 * NM)])
    trace = scan(one, line, 50, tapping.rest(one, 1, 2 * NM))[1]
    assert trace.height.max() == pytest.approx(20 * NM, abs=1e-12)
    assert trace.at_limit[0, 150:200].min() == 1 and not trace.at_limit[0, :50].any() and not trace.at_limit[0, 210:].any()
    assert trace.amplitude[0, 199] < 5 * NM  # the tip is pressed into the sample
    assert trace.height[0, -1] == pytest.approx(trace.height[0, 99], abs=0.5 * NM)


def test_the_tip_moves_evenly_from_cell_to_cell():
    """A rise of 2 nm in one cell is one of 1 nm in each of two cells of half the time."""
    one = feedback()
    whole, halves = scan(one, track([0.0, 2 * NM]), 400)[0], scan(one, track([0.0, 0.0, 1 * NM, 2 * NM]), 200)[0]
    jump = scan(one, track([0.0, 0.0, 2 * NM, 2 * NM]), 200)[0]
    assert [halves[n][0] for n in halves] == pytest.approx([whole[n][0] for n in halves], rel=1e-3, abs=1e-3)
    assert abs(jump["z"][0] - whole["z"][0]) > 0.1


# ---- what must not break ----


EXTREMES = {
    "gains without end": {"proportional": 1e6, "integral": 1e9},
    "an integrator without end": {"integral": 1e9},
    "nearly overdamped": {"quality": 0.6, "integral": 1e4},
    "vacuum": {"quality": 1e6, "integral": 1e4},
    "a swing of a picometre": {"drive": 1e-12, "setpoint": 0.5e-12, "integral": 1e3},
    "a swing of a micrometre": {"drive": 1e-6, "setpoint": 0.5e-6, "integral": 1e5},
    "no setpoint": {"setpoint": 0.0, "integral": 1e4},
    "a setpoint that is never reached": {"setpoint": 1e-6, "integral": 1e5},
    "softest": {"stiffness": 1e-3, "integral": 1e4},
    "high voltage": {"voltage": 1e3, "integral": 1e4},
    "a large piezo that rings": {"piezo_frequency": 100.0, "piezo_quality": 1000.0, "integral": 1e5, "z_range": 1e-3},
}


@pytest.mark.parametrize("name", EXTREMES)
@pytest.mark.parametrize("height", [10 * NM, 1e-6], ids=["10 nm", "1 um"])
def test_unstable_is_bounded_and_finite(name, height):
    """Rough gold: steps of the height, up and down at every cell."""
    one = dataclasses.replace(feedback(), temperature=295.0, sensor_noise=1e-12, **EXTREMES[name])
    line = track(np.tile([0.0, height], 60)[None].repeat(3, 0), hamaker=4e-19, modulus=80e9, viscosity=np.array([[0.0], [300.0], [1e4]]))
    state, trace = scan(one, line, 50)
    assert all(np.isfinite(v).all() for v in [*state.values(), *vars(trace).values()])
    assert np.abs(trace.height).max() <= one.z_range / 2 * (1 + 1e-6)
    assert trace.amplitude.max() < 3 * (one.drive + height) + 50 * NM and (trace.peak_force >= 0).all()


def test_the_reference_says_when_it_diverges():
    one = dataclasses.replace(feedback(), drive=2e-3)
    with pytest.raises(ProbeGymError, match="diverged"):
        tapping.scan_direct(one, tapping.rest(one, 1, 0.0), track(np.zeros(8)), 50)


def random_lanes(lanes: int) -> tuple[Setup, Track]:
    rng = np.random.default_rng(5)
    one = setup(rng.uniform(2, 60, lanes), rng.uniform(100e3, 400e3, lanes), rng.uniform(20, 600, lanes), rng.uniform(5, 20, lanes), rng.uniform(10, 50, lanes),
                integral=rng.uniform(10, 3000, lanes), setpoint=rng.uniform(5, 20, lanes) * NM, temperature=295.0, sensor_noise=1e-13,
                piezo_frequency=1e4, neck_force=np.where(rng.random(lanes) < 0.5, 5e-9, 0.0))  # fmt: skip
    return one, track(rng.normal(0, 2, (lanes, 20)).cumsum(1) * NM, viscosity=rng.uniform(0, 100, (lanes, 1)))


def take(one: Setup, lanes) -> Setup:
    return dataclasses.replace(one, **{n: v[lanes] for n, v in vars(one).items() if np.ndim(v)})


def test_a_lane_is_the_same_in_every_batch():
    one, line = random_lanes(37)
    time, keys = np.full(37, 2e-4), np.arange(37, dtype=np.uint64)
    start = tapping.rest(one, 37, line.height[:, 0] + one.drive)
    whole = tapping.scan(one, start, line, time, keys, threads=1)
    assert differences(tapping.scan(one, start, line, time, keys, threads=2), whole) == []
    for lanes in (np.arange(37)[::-1], np.array([3]), np.array([20, 1, 36, 7, 7])):
        part = Track(*(v[lanes] for v in vars(line).values()))
        found = tapping.scan(take(one, lanes), {n: v[lanes] for n, v in start.items()}, part, time[lanes], keys[lanes])
        expected = {n: v[lanes] for n, v in whole[0].items()}, tapping.Trace(*(v[lanes] for v in vars(whole[1]).values()))
        assert differences(found, expected) == []


def test_the_key_decides_the_noise():
    one, line = random_lanes(4)
    runs = [scan(one, line, 50, key=k)[1].amplitude for k in (0, 0, 100)]
    assert np.array_equal(runs[0], runs[1]) and not np.array_equal(runs[0], runs[2])


def test_a_line_in_two_parts_is_the_line():
    """The state carries everything from one call to the next; but noise starts anew with every call."""
    one, line = feedback(), track(np.zeros((1, 40)))
    start = tapping.rest(one, 1, 35 * NM)
    after, whole = scan(one, line, 20, start)
    state, first = scan(one, track(np.zeros((1, 15))), 20, start)
    state, second = scan(one, track(np.zeros((1, 25))), 20, state)
    assert differences(state, after) == [] and np.array_equal(np.hstack([first.height, second.height]), whole.height)
    assert whole.height[0, -1] < 30 * NM


def test_rest_swings_freely():
    one = setup(np.array([40.0, 40.0]), quality=np.array([400.0, 400.0]), detuning=np.array([1.0, 1 - 1 / 800]))
    state = tapping.rest(one, 2, 50 * NM)
    assert np.hypot(state["a_re"], state["a_im"]) == pytest.approx([30, 30 / np.sqrt(2)], rel=2e-3) and (state["z"] == 50).all()
    _, trace = scan(one, track(np.zeros((2, 50)), hamaker=0.0), 20, state)
    assert trace.amplitude == pytest.approx(np.hypot(state["a_re"], state["a_im"])[:, None] * NM * np.ones(50), rel=2e-3)
    assert np.degrees(trace.phase[0, -1]) == pytest.approx(90, abs=0.1) and np.degrees(trace.phase[1, -1]) == pytest.approx(45, abs=0.2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"quality": 0.0}, {"quality": -400.0}, {"quality": 0.5}, {"stiffness": -1.0}, {"stiffness": 0.0}, {"frequency": np.nan}, {"frequency": -1.0},
        {"drive": 0.0}, {"radius": -1e-9}, {"temperature": -1.0}, {"setpoint": -1e-9}, {"bandwidth": 0.0}, {"integral": np.inf},
        {"proportional": np.nan}, {"z_range": 0.0}, {"piezo_frequency": -1.0}, {"piezo_quality": 0.5}, {"sensor_noise": -1.0},
        {"quality": np.array([100.0, -1.0])}, {"feed_forward": np.nan}, {"neck_force": -1e-9},
    ],
    ids=str,
)  # fmt: skip
def test_an_impossible_setup_is_refused(wrong):
    with pytest.raises(ProbeGymError, match=r"^tapping mode, [^\n]*$"):
        Setup(**wrong)


@pytest.mark.parametrize("options", [{"steps": 200}, {"cycles": 7}], ids=str)
def test_the_reference_refuses_coarse_steps(options):
    one = setup()
    with pytest.raises(ProbeGymError, match=r"^the reference needs[^\n]*$"):
        tapping.scan_direct(one, tapping.rest(one, 1), track(np.zeros(4)), 50, **options)
