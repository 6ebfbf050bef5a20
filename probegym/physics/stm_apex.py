"""The apex of an STM tip: an adsorbate slot, front atoms, and the facet they stand on; what is wrong with it, and what
bias pulses and dips do to it.

An apex is an array (lanes, 11, 4) of x, y, retraction in m and barrier in eV. Atom 0 is the slot of an adsorbate, atoms 1-3
are front atoms, atoms 4-10 a hexagonal facet of the shank. An absent atom is retracted by ABSENT. One atom may hop.

No statistics of single treatments are published in usable form: the chances that a treatment brings are design parameters of
a scenario. What they act on is argued: a gentle dip touches the front atoms only and draws a neck that leaves one of them
foremost; a pulse lets adsorbates go (one sign of the bias more than the other) and anneals loose atoms; deep dips and 8 V
draw the facet anew, for better or worse; everything may pick up an adsorbate, or leave an atom loose.
"""

from __future__ import annotations

import numpy as np

from probegym.physics.stm import flat_shares

ATOMS, FRONT, FACET = 11, slice(1, 4), slice(4, 11)
ABSENT = 9e-9  # m
ADATOM_HEIGHT = 0.1e-9  # m, of the standard feature in which ghosts are judged
RESOLVED = 0.35e-9  # m; atoms closer than this show one feature
GHOST_LIMIT, BARRIER_LIMIT, HOP_LIMIT = 0.2, 3.0, 0.05  # share of the feature, eV, hops/s
GOOD_BARRIER, IMAGE_TIME = 4.0, 10.0  # eV and s, scales of the quality
DRAWS = 40
"""Uniform numbers that a new apex or a treatment may need."""

CHANCES = ("clean", "settle", "reform", "single", "renew", "sharp", "pickup", "loosen")
"""Chances of a treatment: each adsorbate leaves; a loose atom is fixed; the front atoms are drawn anew; then one of them
stands alone; the facet is drawn anew; then it is retracted; an adsorbate is picked up; an atom is left loose."""

STATES = 24
"""Kinds of apex: double + 2 blunt + 4 contaminated (0 no, 1 or 2 by sign) + 12 unstable; 0 is a good one."""


def empty(lanes: int) -> dict[str, np.ndarray]:
    """State of apices that hold no atom yet: name -> (lanes, ...)."""
    apex = np.zeros((lanes, ATOMS, 4))
    apex[:, :, 2], apex[:, :, 3] = ABSENT, 4.5
    return {"apex": apex, "loose": np.zeros((lanes, 3)), "polarity": np.zeros(lanes)}


def draw(state: dict, where: np.ndarray, u: np.ndarray, double, blunt, contaminated, unstable) -> None:
    """New apices: chances of each defect, numbers or (lanes,); u: (lanes, DRAWS) uniform."""
    _facet(state, where, u[:, 0] >= blunt, u[:, 1:10])
    _front(state, where, u[:, 10] >= double, u[:, 11:22])
    _bare(state, where)
    _adsorb(state, where & (u[:, 22] < contaminated), u[:, 23:29])
    state["loose"][where] = 0
    _loosen(state, where & (u[:, 29] < unstable), u[:, 30:33])


def treat(state: dict, where: np.ndarray, u: np.ndarray, sign: np.ndarray, wrong_sign: float, **chances: np.ndarray) -> None:
    """One treatment: chances as in CHANCES, each (lanes,). sign: (lanes,) of the bias, 0 for a dip.

    wrong_sign: factor on the chance to clean when the sign of a pulse is not that of the adsorbate.
    """
    c = chances
    renewed = where & (u[:, 33] < c["renew"])
    _facet(state, renewed, u[:, 34] < c["sharp"], u[:, 1:10])
    _front(state, renewed | (where & (u[:, 35] < c["reform"])), u[:, 10] < c["single"], u[:, 11:22])
    fitting = np.where((sign == 0) | (sign == state["polarity"]), 1.0, wrong_sign)
    _bare(state, where & (u[:, 36] < c["clean"] * fitting))
    _adsorb(state, where & (u[:, 22] < c["pickup"]) & (state["polarity"] == 0), u[:, 23:29])
    state["loose"][where & (u[:, 37] < c["settle"])] = 0
    _loosen(state, where & (u[:, 29] < c["loosen"]), u[:, 30:33])
    state["loose"][where & (state["loose"][:, 1] > 0), 0] = foremost(state["apex"])[where & (state["loose"][:, 1] > 0)]


def _facet(state: dict, where: np.ndarray, sharp: np.ndarray, u: np.ndarray) -> None:
    """Seven atoms a hexagon; retracted by a layer or more under a sharp front, else level with it."""
    spacing, turn = 0.45e-9 + 0.4e-9 * u[:, 0], np.pi / 3 * u[:, 1]
    angle = turn[:, None] + np.pi / 3 * np.arange(6)
    facet = np.zeros((len(u), 7, 4))
    facet[:, 1:, 0], facet[:, 1:, 1] = spacing[:, None] * np.cos(angle), spacing[:, None] * np.sin(angle)
    depth = np.where(sharp, 0.24e-9 + 0.3e-9 * u[:, 2], 0.08e-9 * u[:, 2])
    facet[..., 2] = depth[:, None] + 0.04e-9 * u[:, 2:9]
    facet[..., 3] = (4.2 + 0.6 * u[:, 8])[:, None]
    state["apex"][where, FACET] = facet[where]


def _front(state: dict, where: np.ndarray, single: np.ndarray, u: np.ndarray) -> None:
    """One foremost atom; a second one that either is level with it or well behind; perhaps a third."""
    front = np.zeros((len(u), 3, 4))
    near, far = 0.15e-9 * (u[:, 0:2] - 0.5), 0.7e-9 + 1.5e-9 * u[:, 2:4]
    angle = 2 * np.pi * u[:, 4:6]
    front[:, 0, :2] = near
    front[:, 1:, 0], front[:, 1:, 1] = far * np.cos(angle), far * np.sin(angle)
    behind = 0.22e-9 + 0.3e-9 * u[:, 6]
    front[:, 1, 2] = np.where(single, behind, 0.09e-9 * u[:, 7])
    front[:, 2, 2] = np.where(u[:, 8] < 0.35, np.where(single, behind + 0.1e-9, 0.3e-9 * u[:, 9]), ABSENT)
    front[..., 3] = (4.2 + 0.6 * u[:, 10])[:, None]
    state["apex"][where, FRONT] = front[where]


def _bare(state: dict, where: np.ndarray) -> None:
    state["apex"][where, 0, 2] = ABSENT
    state["polarity"][where] = 0


def _adsorb(state: dict, where: np.ndarray, u: np.ndarray) -> None:
    """An adsorbate in front of the foremost atom, with a low barrier; its polarity says which pulses drive it off."""
    apex = state["apex"]
    at = np.take_along_axis(apex, foremost(apex)[:, None, None], 1)[:, 0]
    apex[where, 0, :2] = (at[:, :2] + 0.2e-9 * (u[:, 0:2] - 0.5))[where]
    apex[where, 0, 2] = (at[:, 2] - 0.08e-9 - 0.12e-9 * u[:, 2])[where]
    apex[where, 0, 3] = (0.8 + 1.4 * u[:, 3])[where]
    state["polarity"][where] = np.where(u[:, 4] < 0.5, -1.0, 1.0)[where]


def _loosen(state: dict, where: np.ndarray, u: np.ndarray) -> None:
    """The foremost atom hops, 0.1 to 3 times a second, forward by 30 to 120 pm."""
    state["loose"][where, 0] = foremost(state["apex"])[where]
    state["loose"][where, 1] = (0.1 * 30.0 ** u[:, 0])[where]
    state["loose"][where, 2] = (0.03e-9 + 0.09e-9 * u[:, 1])[where]


def foremost(apex: np.ndarray) -> np.ndarray:
    """Index of the atom that carries most of the current over a flat terrace, (lanes,)."""
    shares, _ = flat_shares(apex[..., 2], apex[..., 3])
    return shares.argmax(1)


def ghosts(apex: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Apparent height of the second picture of an adatom relative to the first, by front and by facet atoms; and the barrier.

    Each (lanes,); the barrier is the apparent one in eV, (sum of shares times sqrt phi)^2.
    """
    shares, decay = flat_shares(apex[..., 2], apex[..., 3])
    shown = np.log1p(shares * np.expm1(decay * ADATOM_HEIGHT)) / decay
    at = np.take_along_axis(apex[..., :2], shown.argmax(1)[:, None, None], 1)
    apart = np.hypot(apex[..., 0] - at[..., 0], apex[..., 1] - at[..., 1]) > RESOLVED
    relative = np.where(apart, shown / shown.max(1, keepdims=True), 0.0)
    barrier = np.zeros(len(apex))
    for index in range(ATOMS):  # one after the other, so that a lane is the same in every batch
        barrier = barrier + shares[:, index] * np.sqrt(apex[:, index, 3])
    return relative[:, : FACET.start].max(1), relative[:, FACET].max(1), barrier**2


def judged(state: dict) -> dict[str, np.ndarray]:
    """What an apex is worth; every entry (lanes,).

    ghost: see ghosts, the larger one. barrier: apparent, eV. hops: 1/s. quality: (1 - ghost) x min(1, barrier / 4 eV) /
    (1 + 10 s x hops). good: ghost below 0.2, barrier above 3 eV and less than 0.05 hops a second. state: the kind of apex,
    see STATES, where double and blunt are those of the metal under an adsorbate.
    """
    front, facet, barrier = ghosts(state["apex"])
    bare = state["apex"].copy()
    bare[:, 0, 2] = ABSENT
    double, blunt, _ = ghosts(bare)
    hops, ghost = state["loose"][:, 1].copy(), np.maximum(front, facet)
    contaminated = np.where(state["polarity"] > 0, 1, np.where(state["polarity"] < 0, 2, 0))
    code = (double >= GHOST_LIMIT) + 2 * (blunt >= GHOST_LIMIT) + 4 * contaminated + 12 * (hops >= HOP_LIMIT)
    quality = (1 - ghost) * np.minimum(1, barrier / GOOD_BARRIER) / (1 + IMAGE_TIME * hops)
    good = (ghost < GHOST_LIMIT) & (barrier > BARRIER_LIMIT) & (hops < HOP_LIMIT)
    return {"ghost": ghost, "barrier": barrier, "hops": hops, "quality": quality, "state": code.astype(np.int64), "good": good}
