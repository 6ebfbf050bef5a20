"""Adatoms under a tip: hops by rates against Langevin dynamics, where pulling sets in, and speed.

The reference moves the adatom through the same potential by overdamped Langevin dynamics with time steps of a few femtoseconds,
which allows tips of 0.1 to 10 m/s; the rates are told the same speeds. Drags start above the adatom, 1.2 nm in random directions.
"""

from __future__ import annotations

import argparse
import os
import time

import numpy as np
from report import json_line, table

from probegym.hardware_bridge.commands import DragTip, LocateAdatoms
from probegym.hardware_bridge.twins.adatoms import AdatomTwin
from probegym.physics import adatoms, stm

METALS = {"Ag(111)": {"spacing": 0.2889e-9, "barrier": 0.10, "depth": 3.0}, "Cu(111)": {"spacing": 0.2556e-9, "barrier": 0.04, "depth": 1.3}}
RANGE, REST_DISTANCE, CONTACT, APPARENT, BIAS = 1.4e10, 0.32e-9, 0.29e-9, 0.09e-9, 0.01
LENGTH, SAMPLES, RADIUS = 1.2e-9, 1024, 0.1663e-9


def told(lanes: int, spacing: float, barrier: float, depth: float, temperature: float = 5.0) -> np.ndarray:
    """Rows of one metal under the standard tip."""
    full = [np.full(lanes, v) for v in (spacing, barrier, 0.003, temperature, 0.0, APPARENT)]
    tip = np.tile([0.0, 0.0, depth, RANGE, REST_DISTANCE, 0.0, 0.0], (lanes, 1))
    return adatoms.rows(*full, tip=tip, work_function=np.full(lanes, 4.5), contact=CONTACT, attempt_rate=1e12)


def fast(rows: np.ndarray, spacing: float, conductance, start, end, speed: float, samples: int, step: float = adatoms.STEP, rest: float = 1e-12):
    """(sites, trace, told) of drags from above the adatoms, without noise."""
    lanes = len(rows)
    first, origin = np.zeros((lanes, 1, 3), np.int32), np.zeros((lanes, 2))
    sites, _, trace, out = adatoms.drag(
        rows, np.arange(lanes, dtype=np.uint64), first, np.zeros((lanes, 1), np.int32), origin, start, end, np.full(lanes, BIAS), conductance * BIAS, speed,
        samples, np.zeros((lanes, 2)), np.full(lanes, np.inf), np.full(lanes, np.inf), step=step, rest=rest,
    )  # fmt: skip
    return sites, trace, out


def agreement(metal: str, speed: float, lanes: int, seed: int = 0) -> dict[str, float]:
    """How often the two end on the same hollow, and how far hops, last places and currents differ."""
    m, rng = METALS[metal], np.random.default_rng(seed)
    scale = adatoms.threshold(told(1, **m))[0]
    conductance, angle = scale * np.exp(rng.uniform(np.log(0.6), np.log(6.0), lanes)), rng.uniform(0, 2 * np.pi, lanes)
    rows, lattice = told(lanes, **m), (np.zeros((lanes, 2)), np.full(lanes, m["spacing"]), np.zeros(lanes))
    at = adatoms.site_positions(np.zeros((lanes, 1, 3)), *lattice)[:, 0]
    end = at + LENGTH * np.stack([np.cos(angle), np.sin(angle)], 1)
    sites, trace, out = fast(rows, m["spacing"], conductance, at, end, speed, SAMPLES)
    damping = adatoms.friction(np.full(lanes, m["barrier"]), m["spacing"])
    stiffness = 16 * np.pi**2 / (3 * (1e10 * m["spacing"]) ** 2) * 3 * m["barrier"]
    clock = time.process_time()
    track = adatoms.langevin(rows, np.arange(lanes, dtype=np.uint64) + 10**6, at, at, end, out["height"], LENGTH / speed, SAMPLES, damping, 0.15 * damping[0] / stiffness)
    seconds = (time.process_time() - clock) / lanes
    visited = adatoms.nearest_sites(track, *lattice)
    same = (visited[:, -1:] == sites).all((1, 2))
    missed = [np.hypot(*(adatoms.site_positions(s, *lattice)[:, 0] - end).T) for s in (visited[:, -1:], sites)]
    along = np.linspace(0, 1, SAMPLES)
    aside = ((track - at[:, None] - along[None, :, None] * (end - at)[:, None]) ** 2).sum(-1)
    decay, height = 2 * stm.decay_constant(4.5), out["height"][:, None]
    known = BIAS * stm.CONDUCTANCE_QUANTUM * (np.exp(-decay * (np.sqrt(aside + height**2) - CONTACT)) + np.exp(-decay * (height + APPARENT - CONTACT)))
    away = (visited != visited[:, :1]).any(-1)
    left = away & np.roll(away, -3, 1) & np.roll(away, -6, 1)  # gone for good, not for an instant
    hopped = left[:, :-6].any(1) & (out["first_hop"] >= 0)
    later = (out["first_hop"] - LENGTH * along[left.argmax(1)])[hopped]
    rms = np.sqrt((np.log(trace / known) ** 2).mean(1))
    return {
        "same hollow": same.mean(), "same success": ((missed[0] < RADIUS) == (missed[1] < RADIUS)).mean(), "success, Langevin": (missed[0] < RADIUS).mean(),
        "success, rates": (missed[1] < RADIUS).mean(), "hop later by, pm": 1e12 * np.median(later), "spread, pm": 1e12 * (np.subtract(*np.quantile(later, [0.84, 0.16])) / 2),
        "current rms, %": 100 * np.median(rms), "Langevin, ms": 1e3 * seconds,
    }  # fmt: skip


def steps(lanes: int) -> list[tuple]:
    """What the longest step of the tip at low barriers does to last hollow and current."""
    m, rng = METALS["Ag(111)"], np.random.default_rng(1)
    rows, angle, conductance = told(lanes, **m), rng.uniform(0, 2 * np.pi, lanes), np.exp(rng.uniform(np.log(2e-6), np.log(2e-5), lanes))
    at = adatoms.site_positions(np.zeros((lanes, 1, 3)), np.zeros((lanes, 2)), np.full(lanes, m["spacing"]), np.zeros(lanes))[:, 0]
    end = at + LENGTH * np.stack([np.cos(angle), np.sin(angle)], 1)
    runs = {}
    for step in (0.0025e-9, 0.005e-9, 0.01e-9, 0.02e-9):
        clock = time.process_time()
        runs[step] = (*fast(rows, m["spacing"], conductance, at, end, 5e-9, 2048, step, adatoms.REST), (time.process_time() - clock) / lanes)
    exact = runs[0.0025e-9]
    return [(1e12 * step, float((run[0] == exact[0]).all((1, 2)).mean()), 100 * float(np.median(np.sqrt((np.log(run[1] / exact[1]) ** 2).mean(1)))), 1e6 * run[3])
            for step, run in runs.items()]  # fmt: skip


def onset(metal: str, lanes: int) -> list[tuple]:
    """Share of drags of 1.5 nm at 5 nm/s that end within 0.25 nm and within the radius of success, by conductance."""
    m = METALS[metal]
    angle = 2 * np.pi * (np.arange(lanes) + 0.37) / lanes
    rows = told(lanes, **m)
    at = adatoms.site_positions(np.zeros((lanes, 1, 3)), np.zeros((lanes, 2)), np.full(lanes, m["spacing"]), np.zeros(lanes))[:, 0]
    out = []
    for conductance in (0.5e-6, 1e-6, 2e-6, 3e-6, 4e-6, 5e-6, 6e-6, 10e-6, 20e-6, 39e-6):
        row = [metal, 1e6 * conductance, 1e-3 / conductance]
        for beyond in (0.0, 0.05e-9, 0.1e-9):
            aim = 1.5e-9 * np.stack([np.cos(angle), np.sin(angle)], 1)
            sites, _, told_ = fast(rows, m["spacing"], np.full(lanes, conductance), at, at + aim * (1 + beyond / 1.5e-9), 5e-9, 0, rest=adatoms.REST)
            there = adatoms.site_positions(sites, np.zeros((lanes, 2)), np.full(lanes, m["spacing"]), np.zeros(lanes))[:, 0]
            row.append(float((np.hypot(*(there - at - aim).T) < RADIUS).mean()))
        out.append((*row, float(told_["hops"].mean())))
    return out


def speed(lanes: int, samples: int, image: int, repeats: int = 6) -> tuple[float, float]:
    """Drags of 1.5 nm, each with the finder's answer, a second, and a second of processor time; with images of so many pixels a side if any."""
    world, where = AdatomTwin({"tip": {"depth": {"uniform": [2.6, 3.8]}, "offset": {"uniform": [0, 0.1e-9]}}}, lanes), np.ones(lanes, bool)
    world.begin(np.arange(lanes, dtype=np.uint64), where)
    angle, best, used = 2 * np.pi * (np.arange(lanes) + 0.37) / lanes, np.inf, np.inf
    way, bias = 1.5e-9 * np.stack([np.cos(angle), np.sin(angle)], 1), np.full(lanes, BIAS)
    look = LocateAdatoms((image or 128,) * 2, 7e-9, 200e-9, np.zeros((lanes, 2)), 0.5, 50e-12, 1, bool(image))
    for turn in range(repeats):
        at = world.truth()["position"][:, 0]
        clock, work = time.perf_counter(), time.process_time()
        world.execute(DragTip(at, at + (way if turn % 2 else -way), bias, 5e-6 * bias, 5e-9, samples), where)
        world.execute(look, where)
        best, used = min(best, time.perf_counter() - clock), min(used, time.process_time() - work)
    return lanes / best, lanes / used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few drags")
    few = parser.parse_args().quick
    found = {(metal, v): agreement(metal, v, n // 4 if few else n) for metal in METALS for v, n in ((10.0, 256), (1.0, 128), (0.1, 32))}
    names = list(next(iter(found.values())))
    table("hops by rates against Langevin dynamics, conductance 0.6 to 6 thresholds", ("metal", "tip, m/s", *names), [(k[0], k[1], *v.values()) for k, v in found.items()])
    cut = steps(128 if few else 1024)
    table("step of the tip at low barriers, against 2.5 pm", ("pm", "same hollow", "current rms, %", "us a drag"), cut)
    sets_in = [row for metal in METALS for row in onset(metal, 60 if few else 360)]
    table("success of drags 1.5 nm long that end 0, 50 or 100 pm beyond the goal", ("metal", "uS", "kOhm", "0 pm", "50 pm", "100 pm", "hops"), sets_in)
    threads = int(os.environ.get("PROBEGYM_THREADS") or len(os.sched_getaffinity(0)))
    rates = {(n, s, i): speed(n, s, i) for n, s, i in ((1, 2048, 0), (64, 2048, 0), (1024, 1, 0), (1024, 512, 0), (1024, 2048, 0), (256, 2048, 64), (256, 2048, 128))}
    table(f"drag and finder, {threads} threads", ("lanes", "samples", "image", "a second", "a core second"), [(*k, *v) for k, v in rates.items()])
    json_line("adatoms", agreement={f"{k[0]} {k[1]:g} m/s": v for k, v in found.items()}, steps=cut, onset=sets_in, speed={str(k): v for k, v in rates.items()})


if __name__ == "__main__":
    main()
