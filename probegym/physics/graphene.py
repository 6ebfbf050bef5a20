"""A graphene sheet with silicon dopants that a beam changes event by event.

Sites are (i, j, sublattice) of an unbounded honeycomb lattice; stored is only what differs from carbon: silicon atoms,
vacancies and clusters of contamination. A silicon atom beside a vacancy sits between the two sites and has four bonds, else
three. Waiting times are exponential and rates are computed anew after every event (Gillespie 1977, 10.1021/j100540a008):

- bond inversion: the electron hits a carbon neighbour and silicon takes its place (Susi et al. 2014, 10.1103/PhysRevLett.113.115501);
- conversion of three bonds to four: a carbon neighbour is knocked out; back, when the vacancy heals;
- ejection of any other carbon, loss of the silicon atom; vacancies heal at a thermal rate;
- contamination arrives as clusters that cover sites and hold what is under them; a beam parked on one removes it.
"""

from __future__ import annotations

import ctypes

import numpy as np

from probegym.physics import native
from probegym.physics.beam_rates import BOND, PIXEL
from probegym.physics.threads import in_tiles

SILICON, VACANCIES, CLUSTERS = 8, 32, 8
"""The most a sheet holds; what would not fit does not happen."""
EVENTS = ("inversions", "conversions", "ejections", "losses", "healings", "contaminations", "cleanings")
RATES = ("kind", "simple", "inversion", "ejection", "conversion", "loss", "healing", "contamination", "radius", "cleaning", "variance")
"""Columns of a lane's rates: the kind of the inversion rate (KINDS), 1/s of the simple one; cross-section times electrons per
second in m^2/s (inversion, ejection, conversion, loss); 1/s; m; 1/s; and the variance of a Gaussian probe in m^2, 0: use the table."""
KINDS = {"published": 0, "mixture": 0, "simple": 1, "physical": 2}
TILE = 2048  # a thread more pays only above
SITE_AREA = 0.75 * np.sqrt(3) * BOND**2


def empty(lanes: int, silicon: int, gaussians: int) -> dict[str, np.ndarray]:
    """State of sheets, (lanes, ...) each."""
    return {
        "frame": np.zeros((lanes, 4)),  # cosine and sine of the orientation, place of site (0, 0, 0) in m
        "rates": np.zeros((lanes, len(RATES))),
        "mixture": np.zeros((lanes, gaussians, 4)),
        "optics": np.zeros(lanes, np.int32),  # which of the probes
        "silicon": np.zeros((lanes, silicon, 4), np.int32),  # i, j, sublattice, whether it is there
        "vacancy": np.zeros((lanes, VACANCIES, 4), np.int32),
        "cluster": np.zeros((lanes, CLUSTERS, 3)),  # x, y, radius in m; 0: none
        "events": np.zeros((lanes, len(EVENTS)), np.int64),
    }


def expose(sheets: dict[str, np.ndarray], probes: np.ndarray, beam: np.ndarray, keys: np.ndarray) -> None:
    """Let happen what does while the beam is on; changes silicon, vacancy, cluster and events in place.

    beam: (lanes, 8) x, y in m at first and their velocity in m/s, in the sheet's frame; s; half sides in m of the field that is
    scanned (0: the beam is parked) and the inversion rate per neighbour (1/s) while it is. Lanes of 0 s stay. keys: (lanes,) uint64. probes: (states, side, side)
    float32 of beam_rates.current_density, of which ``optics`` picks one a lane.
    """
    s, kernel = sheets, native.library("graphene").expose
    beam, keys = np.ascontiguousarray(beam, float), np.ascontiguousarray(keys, np.uint64)
    counts = [s[name].shape[1] for name in ("mixture", "silicon", "vacancy", "cluster")]

    def tile(part: slice) -> None:
        at = {name: native.pointer(s[name][part]) for name in s}
        kernel(part.stop - part.start, at["frame"], at["rates"], counts[0], at["mixture"], probes.shape[1], ctypes.c_double(PIXEL), native.pointer(probes),
               at["optics"], counts[1], at["silicon"], counts[2], at["vacancy"], counts[3], at["cluster"], native.pointer(beam[part]),
               native.pointer(keys[part]), at["events"])  # fmt: skip

    in_tiles(tile, len(keys), tile=TILE)


def survey(sheets: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Where the silicon atoms are, in the sheet's frame.

    ``position`` (lanes, n, 2) m; ``neighbours`` (lanes, n, 3, 2) m from its site to those around; ``folds`` (lanes, n), 0: lost;
    ``covered`` (lanes, n) by contamination; ``open`` (lanes, n, 3) neighbours that it can swap with.
    """
    s = sheets
    lanes, n = s["silicon"].shape[:2]
    out: dict[str, np.ndarray] = {
        "position": np.empty((lanes, n, 2)), "neighbours": np.empty((lanes, n, 3, 2)), "folds": np.empty((lanes, n), np.int8),
        "covered": np.empty((lanes, n), bool), "open": np.empty((lanes, n, 3), bool),
    }  # fmt: skip
    p = {name: native.pointer(array) for name, array in (s | out).items()}
    native.library("graphene").survey(
        lanes, p["frame"], n, p["silicon"], s["vacancy"].shape[1], p["vacancy"], s["cluster"].shape[1], p["cluster"],
        p["position"], p["neighbours"], p["folds"], p["covered"], p["open"],
    )  # fmt: skip
    return out


def populate(frame: np.ndarray, keys: np.ndarray, spread: float, apart: float, count: int) -> np.ndarray:
    """Silicon (lanes, count, 4) on random sites within ``spread`` (m) of (0, 0), ``apart`` (m) from one another; ValueError without room."""
    silicon, frame, keys = np.zeros((len(keys), count, 4), np.int32), np.ascontiguousarray(frame), np.ascontiguousarray(keys, np.uint64)
    crowded = native.library("graphene").populate(
        len(keys), native.pointer(frame), native.pointer(keys), ctypes.c_double(spread), ctypes.c_double(apart), count, native.pointer(silicon)
    )
    if crowded:
        raise ValueError(f"no room for {count} silicon atoms, {apart:g} m apart, within {spread:g} m")
    return silicon


def perforate(frame: np.ndarray, keys: np.ndarray, spread: float, more: int, beside: np.ndarray, silicon: np.ndarray) -> np.ndarray:
    """Vacancies (lanes, VACANCIES, 4): one beside each silicon atom of ``beside`` (lanes, n) bool, and ``more`` within ``spread`` (m) of (0, 0)."""
    vacancy = np.zeros((len(keys), VACANCIES, 4), np.int32)
    arrays = [np.ascontiguousarray(a, kind) for a, kind in ((frame, float), (keys, np.uint64), (beside, np.uint8), (silicon, np.int32))]
    at = [native.pointer(a) for a in arrays]
    native.library("graphene").perforate(
        len(vacancy), at[0], at[1], ctypes.c_double(spread), more, at[2], arrays[3].shape[1], at[3], VACANCIES, native.pointer(vacancy)
    )
    return vacancy


def carbon(sheets: dict[str, np.ndarray], lane: int, centre: np.ndarray, half: float) -> np.ndarray:
    """Places (n, 2) in m of one lane's carbon atoms within a square of half side ``half`` (m) around ``centre``."""
    most = int(6 * (half / BOND) ** 2 + 64)
    out = np.empty((most, 2))
    rows = [sheets[name][lane] for name in ("frame", "silicon", "vacancy")]
    frame, silicon, vacancy = (np.ascontiguousarray(row) for row in rows)
    count = native.library("graphene").carbon(
        native.pointer(frame), *map(ctypes.c_double, (*centre, half, half)), len(silicon), native.pointer(silicon), len(vacancy),
        native.pointer(vacancy), most, native.pointer(out),
    )  # fmt: skip
    return out[:count]


def places(frame: np.ndarray, sites: np.ndarray) -> np.ndarray:
    """Places (n, 2) in m of sites (n, 3 or more) of a lane with ``frame`` (4,)."""
    i, j, sublattice = (sites[:, k].astype(float) for k in range(3))
    u, v = np.sqrt(3) * (i + 0.5 * j + 0.5 * sublattice), 1.5 * j + 0.5 * sublattice
    return frame[2:] + BOND * np.stack([frame[0] * u - frame[1] * v, frame[1] * u + frame[0] * v], -1)
