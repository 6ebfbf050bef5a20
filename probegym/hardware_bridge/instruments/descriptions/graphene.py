"""The STEM that moves silicon in graphene as an instrument."""

from __future__ import annotations

import numpy as np

from probegym.hardware_bridge.capabilities import Capability, Effect
from probegym.hardware_bridge.instruments.descriptions import limits
from probegym.hardware_bridge.instruments.descriptions.base import Description, around, description, flux, highest, span, spot
from probegym.hardware_bridge.twins import graphene as twin
from probegym.hardware_bridge.twins.graphene_config import LIMITS
from probegym.physics.graphene import SILICON

GAUSSIAN_FWHM = np.sqrt(8 * np.log(2))  # in standard deviations
MOST_FOLDS = 127  # bonds, of an int8


def describe(world: twin.GrapheneTwin) -> Description:
    """Images that find silicon in graphene, and a beam that is parked beside it."""
    c = world.config
    current = highest(c.beam_current, LIMITS["beam_current"][1])
    p = c.probe
    least = spot(c.energy, p.semiangle_cutoff) if p.fwhm is None else 2 * np.pi * (p.fwhm / GAUSSIAN_FWHM) ** 2
    locate = Capability(
        effect=Effect.reads,
        ranges={"field_of_view": span(twin.VIEWS), "centre": around(c.field / 2), "dwell_time": span((limits.DWELL[0], twin.LONGEST_PIXEL))},
        counts={"shape": twin.PIXELS, "count": (1, SILICON)}, names={"detector": (c.detector,), "species": (twin.SPECIES,)},
        readings={"found": (0, 1), "folds": (0, MOST_FOLDS), "image": limits.COUNTS}, overhead=c.image_overhead, current=current, spot=least,
    )  # fmt: skip
    park = Capability(
        effect=Effect.changes,  # it is what knocks atoms from their places
        ranges={"position": around(c.field / 2), "dwell_time": span((0.0, twin.LONGEST_DWELL))},
        overhead=c.dwell_overhead, dose_rate=flux(current, min(least, twin.CELL_AREA)), reach=LIMITS["offset"][1],
    )  # fmt: skip
    return description("graphene twin", "stem", {"LocateAtoms": locate, "PlaceProbe": park})
