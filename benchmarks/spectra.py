"""How far the simulated spectra are from what they should be: plasmons, hysteresis loops, scalarizers; and how fast they are.

Energies of single particles and dimers from the modes against closed forms; losses from the modes against solving the coupled
dipoles anew for every energy; simulated loops beside the recorded ones of a PbTiO3 film; what scalarizers make of specimens.

    python benchmarks/spectra.py [--quick] [--only energies losses loops scalarizers speed environment]
"""

from __future__ import annotations

import argparse
import time

import gymnasium as gym
import numpy as np
from report import json_line, table
from scipy import constants, ndimage
from scipy.special import k0, k1

import probegym  # noqa: F401  registers the environments
from probegym.envs.actions import sample_actions
from probegym.physics import drude, ferroelectrics, nanoparticles, plasmons, scalarizers, spectrum_files
from probegym.physics.nanoparticles import Particles
from probegym.physics.optics import lorentz_factor, velocity_ratio

NM = 1e-9


def particles(*bodies, plasma: float = 1.8) -> Particles:
    """Bodies (x, y, minor, aspect, angle) in nm and rad."""
    x, y, minor, aspect, angle = np.array(bodies, float).T
    return Particles(NM * np.stack([x, y], axis=1), NM * minor, NM * minor * aspect, angle, np.full(len(bodies), plasma))


def energy_rows() -> list[dict]:
    rows = []
    for name, material in drude.MATERIALS.items():
        for aspect in (1.0, 2.0, 4.0):
            found = plasmons.modes(particles((0, 0, 8, aspect, 0.3), plasma=material.plasma_energy), material.permittivity)[0].energy[0]
            closed = drude.spheroid_energy(material, aspect) if aspect > 1 else drude.sphere_energy(material)
            rows.append({"particle": f"{name}, aspect {aspect:g}", "closed form eV": f"{closed:.4f}", "modes eV": f"{found:.4f}", "difference meV": 1e3 * (found - closed)})
        for gap in (0.3, 1.0):
            pair = particles((0, 0, 8, 1, 0), (8 * (2 + gap), 0, 8, 1, 0), plasma=material.plasma_energy)
            found, closed = plasmons.modes(pair, material.permittivity)[0].energy, np.sort(list(drude.dimer_energies(material, gap).values()))
            rows.append({"particle": f"{name}, dimer, gap {gap:g} R", "closed form eV": f"{closed[0]:.4f}", "modes eV": f"{found[0]:.4f}",
                         "difference meV": 1e3 * np.abs(found - closed).max()})  # fmt: skip
    return rows


def direct(here: Particles, x: np.ndarray, y: np.ndarray, material: drude.Material, voltage: float, axis: np.ndarray) -> np.ndarray:
    """Loss (places, channels) of point dipoles at spheres; x, y: (places,) m. Solved for each energy on its own."""
    beta, gamma = velocity_ratio(voltage), lorentz_factor(voltage)
    size, where = here.minor / NM, here.position / NM
    apart = np.append(where[:, None] - where, np.zeros((len(size), len(size), 1)), axis=-1)
    distance = np.linalg.norm(apart, axis=-1) + np.diag(np.full(len(size), np.inf))
    field = 3 * np.einsum("ija,ijb->iajb", apart / distance[..., None] ** 5, apart) - np.einsum("ij,ab->iajb", distance**-3, np.eye(3))
    way = np.stack([x, y], axis=1)[:, None] / NM - where
    b = np.linalg.norm(way, axis=-1)
    out = []
    for energy in axis:
        eps = material.permittivity - here.plasma_energy**2 / (energy**2 + 1j * material.damping * energy)
        inverse = np.diag(np.repeat((eps + 2) / (eps - 1) / size**3, 3))
        q = energy / (drude.HBAR_C * beta * gamma)
        driven = np.concatenate([(q * k1(q * b) / b)[..., None] * way, (1j * q * k0(q * b) / gamma)[..., None]], axis=-1).reshape(len(way), -1)
        moments = np.linalg.solve(inverse - field.reshape(3 * len(size), -1), driven.T)
        out.append(4 * constants.alpha / (np.pi * drude.HBAR_C * beta**2) * (driven.conj() * moments.T).sum(1).imag)
    return np.stack(out, axis=1)


def loss_rows(specimens: int) -> list[dict]:
    rows = []
    told = plasmons.PARAMETERS | {"rods": 0.0, "clustered": 0.7}
    for name, material in drude.MATERIALS.items():
        axis = drude.energies(material.window)
        for voltage in (60e3, 200e3):
            worst, typical = [], []
            for key in range(specimens):
                here = nanoparticles.layout(np.uint64(key), told | {"plasma_energy": material.plasma_energy}, plasmons.SHAPE)
                x, y = (values[::7] for values in plasmons.pixels(plasmons.SHAPE, told["pixel_size"]))
                found, thickness = plasmons.loss(here, x, y, material, voltage, axis)
                outside = thickness == 0
                expected = direct(here, x[outside], y[outside], material, voltage, axis)
                error = np.abs(found[outside] - expected).max(1) / expected.max(1)
                worst.append(error.max())
                typical.append(np.median(error))
            figures = {"median": 100 * np.median(typical), "worst": 100 * max(worst)}
            rows.append({"material": name, "kV": voltage / 1e3, **figures, "adiabatic length nm": float(drude.cutoff(drude.sphere_energy(material), voltage)) / NM})
    return rows


def loop_rows(specimens: int) -> list[dict]:
    bias, rows = ferroelectrics.AXIS, []
    _, spectra = ferroelectrics.film(np.arange(specimens, dtype=np.uint64), {})
    spectra = spectra.reshape(-1, len(bias))
    lanes = np.arange(len(spectra))
    taken = ferroelectrics.measure(spectra, 0.03, np.full(len(lanes), 1, np.uint64), lanes, failures=0.02)
    recorded = spectrum_files.load()
    for name, axis, loops in (("simulated", bias, spectra), ("simulated, noise and failed fits", bias, taken), ("recorded", recorded.axis, recorded.spectra)):
        row = {"loops": name}
        for title in ("coercive bias", "imprint"):
            low, middle, high = np.nanpercentile(scalarizers.named(title)(axis, loops), [10, 50, 90])
            row |= {f"{title} V": f"{middle:.2f} ({low:.2f}..{high:.2f})"}
        area, remanence = (scalarizers.named(title)(axis, loops) for title in ("log loop area", "remanence"))
        ends = [np.median(loops[:, sign * axis > 0.85 * axis.max()], axis=1) for sign in (1, -1)]
        squareness = 2 * remanence / np.abs(ends[0] - ends[1])
        rows.append(row | {"squareness": np.median(squareness), "area 90 % / 10 %, decades": np.ptp(np.nanpercentile(area, [10, 90])),
                           "no switching %": 100 * np.isnan(scalarizers.named("coercive bias")(axis, loops)).mean()})  # fmt: skip
    return rows


def scalarizer_rows(specimens: int) -> list[dict]:
    keys, rows = np.arange(100, 100 + specimens, dtype=np.uint64), []
    for kind, source, axis in (("eels", plasmons.assembly, plasmons.AXIS), ("loop", ferroelectrics.film, ferroelectrics.AXIS)):
        images, spectra = source(keys, {})
        count = spectra.shape[1]
        for name in (name for name, one in scalarizers.SCALARIZERS.items() if one.kind == kind):
            of, figures = scalarizers.named(name), []
            for lane, key in enumerate(keys):
                many = np.full(count, key)
                if kind == "eels":
                    taken = plasmons.detect(spectra[lane], 0.05, many, np.arange(count))
                    taken = taken / (0.05 * plasmons.CURRENT / constants.e * (axis[1] - axis[0]))
                else:
                    taken = ferroelectrics.measure(spectra[lane], 0.02, many, np.arange(count))
                truth, noisy = of(axis, spectra[lane]), of(axis, taken)
                top = np.zeros(count, bool)
                top[np.argsort(-np.nan_to_num(truth, nan=-np.inf))[:25]] = True
                patches = ndimage.label(top.reshape(images[lane].shape), np.ones((3, 3)))[1]
                with_image = np.abs(np.corrcoef(np.nan_to_num(truth), images[lane].ravel())[0, 1])
                figures.append((np.nanstd(truth), np.nanstd(noisy - truth), with_image, patches))
            spread, noise, with_image, patches = np.mean(figures, axis=0)
            rows.append({"scalarizer": name, "spread": spread, "noise": noise, "spread / noise": spread / noise, "|r| with the image": with_image,
                         "places of the best 1 %": patches})  # fmt: skip
    return rows


def milliseconds(call, times: int) -> float:
    call()
    taken = []
    for _ in range(times):
        start = time.process_time()
        call()
        taken.append(time.process_time() - start)
    return 1e3 * float(np.median(taken))


def speed_rows(times: int) -> list[dict]:
    keys = np.arange(1, 9, dtype=np.uint64)
    rows = [{"what": name, "ms": milliseconds(lambda source=source: source(keys, {}), times) / len(keys)}
            for name, source in (("one assembly, 2,500 spectra", plasmons.assembly), ("one film, 2,500 loops", ferroelectrics.film))]  # fmt: skip
    for kind, spectra, axis in (("eels", plasmons.assembly(keys[:1], {})[1][0], plasmons.AXIS), ("loop", ferroelectrics.film(keys[:1], {})[1][0], ferroelectrics.AXIS)):
        for name in (name for name, one in scalarizers.SCALARIZERS.items() if one.kind == kind):
            rows.append({"what": f"{name} of 2,500 x 64", "ms": milliseconds(lambda name=name, a=axis, s=spectra: scalarizers.named(name)(a, s), 4 * times)})
    return rows


def environment_rows(times: int) -> list[dict]:
    """Steps a second by the wall clock over whole episodes, and the same without their resets."""
    rows = []
    for scenario, lanes in (("locate-id", 1), ("id", 1), ("locate-recorded", 1), ("bare", 1), ("bare", 64), ("locate-id", 16)):
        envs = gym.make_vec("probegym/SpectrumExploration-v0", num_envs=lanes, scenario=scenario, autoreset_mode="Disabled")
        actions = sample_actions(envs.single_action_space, (83, lanes), np.random.default_rng(0))
        spent = {"resets": 0.0, "steps": 0.0}
        for turn in range(max(2, times // 4)):
            start = time.perf_counter()
            envs.reset(seed=1000 * turn)
            spent["resets"] += time.perf_counter() - start
            start = time.perf_counter()
            for action in actions:
                envs.step(action)
            spent["steps"] += time.perf_counter() - start
        steps = len(actions) * lanes * max(2, times // 4)
        rows.append({"scenario": scenario, "surrogate": envs.episodes.task.settings.surrogate.embedding, "lanes": lanes,
                     "steps/s": steps / sum(spent.values()), "without resets": steps / spent["steps"]})  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few specimens")
    sections = {
        "energies": ("Energies of the lowest mode", lambda n: energy_rows()),
        "losses": ("Losses from modes against a direct solution, % of the largest in the same spectrum, outside particles", loss_rows),
        "loops": ("Loops: median (10..90 %)", loop_rows),
        "scalarizers": ("Scalarizers over a specimen: spread, noise of one spectrum (50 ms; 2 % of the response), connected places", scalarizer_rows),
        "speed": ("Processor time", speed_rows),
        "environment": ("SpectrumExploration: steps a second", environment_rows),
    }  # fmt: skip
    parser.add_argument("--only", nargs="+", default=list(sections), choices=list(sections))
    options = parser.parse_args()
    figures = {}
    for name in options.only:
        title, measure = sections[name]
        rows = figures[name] = measure(3 if options.quick else 10)
        table(title, tuple(rows[0]), [tuple(row.values()) for row in rows])
    json_line("spectra", quick=options.quick, **figures)


if __name__ == "__main__":
    main()
