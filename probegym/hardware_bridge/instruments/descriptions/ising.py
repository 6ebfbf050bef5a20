"""The STEM with a hot stage as an instrument."""

from __future__ import annotations

import numpy as np

from probegym.hardware_bridge.capabilities import Capability, Effect, Range
from probegym.hardware_bridge.instruments.descriptions import limits
from probegym.hardware_bridge.instruments.descriptions.base import Description, description, span
from probegym.hardware_bridge.twins import ising as twin


def describe(world: twin.IsingTwin) -> Description:
    """A holder that anneals a lattice, and images that tell its atoms apart."""
    c, (coldest, hottest) = world.config, world.config.temperatures
    side = c.rows * c.spacing
    set_conditions = Capability(
        # Annealing undoes itself only on average: the arrangement of atoms that the sample had is gone, and nothing tells
        # beforehand below which temperature it would have stayed. So every change of conditions counts as irreversible.
        effect=Effect.changes,
        ranges={
            "temperature": Range(low=coldest, high=hottest, tolerance=0.0),  # no limit on its steps: the holder ramps by itself
            "field": Range(low=-twin.STRONGEST, high=twin.STRONGEST, tolerance=0.0),
            "hold": span((0.0, twin.LONGEST)),
        },
        reads_back={"temperature": "temperature", "field": "field"},
        overhead=(hottest - coldest) / min(c.heating, c.cooling) + c.settle,
        reach=side,
    )
    edge = 0.5 - 1e-9  # of an atom: halves are rounded to even
    classify = Capability(
        effect=Effect.reads,
        ranges={"centre": span((-edge * c.spacing, (c.rows - 1 + edge) * c.spacing)), "dwell_time": span((limits.LEAST_TIME, twin.LONGEST))},
        counts={"shape": (1, c.rows)}, names={"detector": (c.classifier.name,)}, readings={"labels": (-1, 1)},
        may_repeat=("labels",),  # a quenched lattice stays as it is, and a good classifier does not err
        overhead=c.overhead, dose_rate=c.classifier.dose_rate, reach=side / 2,
    )  # fmt: skip
    verbs = {"SetConditions": set_conditions, "ClassifyAtoms": classify}
    return description("hot-stage twin", "stem", verbs, {"temperature": np.array([coldest]), "field": np.zeros(1)})
