"""Electron microscopes: the tunable STEM, the one that moves atoms, and the one with a hot stage."""

from __future__ import annotations

import numpy as np

from probegym.hardware_bridge.capabilities import Capability, Descriptor, Effect, Range
from probegym.hardware_bridge.instruments.descriptions import limits
from probegym.hardware_bridge.instruments.descriptions.base import REGION, SAFE_STEPS, Description, around, flux, highest, span, spot
from probegym.hardware_bridge.twins import graphene as graphene_twin
from probegym.hardware_bridge.twins import graphene_config, ising
from probegym.hardware_bridge.twins.graphene import GrapheneTwin
from probegym.hardware_bridge.twins.ising import IsingTwin
from probegym.hardware_bridge.twins.stem import RonchigramOptics, StemConfig, StemTwin
from probegym.physics import specimens
from probegym.physics.graphene import SILICON

GAUSSIAN_FWHM = np.sqrt(8 * np.log(2))  # in standard deviations
MOST_FOLDS = 127  # bonds, of an int8


def stem(world: StemTwin) -> Description:
    """Corrector, images and Ronchigrams, as far as the scenario has a specimen and a film."""
    c, controls = world.config, len(world.config.controls)
    most = tuple((c.limits * world.lenses.scales[:controls]).tolist())
    # A command may move a control by half of its range. No rates: a twin's clock is not the guard's. It reads back what was set.
    values = Range(low=tuple(-v for v in most), high=most, step=most, tolerance=0.0)
    verbs = {
        "SetAberrations": Capability(
            effect=Effect.sets, ranges={"values": values}, names={"names": tuple(c.controls)}, reads_back={"values": "aberrations"}, overhead=c.command_time,
        )
    }  # fmt: skip
    if c.specimens:
        verbs["AcquireImage"] = _image(c)
    if c.ronchigram:
        verbs["AcquireRonchigram"] = _ronchigram(c, c.ronchigram)
    return Description(_stem("STEM twin", verbs), {"aberrations": np.zeros((1, controls))})


def _stem(name: str, verbs: dict[str, Capability]) -> Descriptor:
    return Descriptor(name=name, kind="stem", capabilities=verbs, safe=SAFE_STEPS["stem"], region=REGION)


def _image(c: StemConfig) -> Capability:
    every = [set(specimens.load(name).detectors) for name in c.specimens]
    detectors = tuple(sorted(set.intersection(*every)))  # an episode has any of the specimens
    return Capability(
        effect=Effect.reads,
        ranges={"field_of_view": span(limits.VIEW), "dwell_time": span(limits.DWELL), "defocus": span(limits.DEFOCUS)},
        counts={"shape": limits.SIDE}, names={"detector": detectors}, readings=dict.fromkeys(detectors, limits.COUNTS),
        overhead=c.frame_overhead, line_overhead=c.flyback_time, current=c.beam_current, spot=spot(c.energy, c.semiangle_cutoff),
    )  # fmt: skip


def _ronchigram(c: StemConfig, optics: RonchigramOptics) -> Capability:
    return Capability(
        effect=Effect.reads,
        ranges={"exposure_time": span(limits.EXPOSURE), "defocus": span(limits.DEFOCUS), "film_shift": span(limits.FILM_SHIFT)},
        counts={"shape": (optics.pixels, optics.pixels)}, readings={"ronchigram": limits.COUNTS},
        overhead=c.frame_overhead, dose_rate=flux(optics.beam_current, spot(c.energy, optics.semiangle_cutoff)),
        reach=2 * limits.DEFOCUS[1] * optics.semiangle_cutoff,  # the excursion, and as much defocus before it
    )  # fmt: skip


def graphene(world: GrapheneTwin) -> Description:
    """Images that find silicon in graphene, and a beam that is parked beside it."""
    c, twin = world.config, graphene_twin
    current = highest(c.beam_current, graphene_config.LIMITS["beam_current"][1])
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
        overhead=c.dwell_overhead, dose_rate=flux(current, min(least, twin.CELL_AREA)), reach=graphene_config.LIMITS["offset"][1],
    )  # fmt: skip
    return Description(_stem("graphene twin", {"LocateAtoms": locate, "PlaceProbe": park}), {})


def lattice(world: IsingTwin) -> Description:
    """A holder that anneals a lattice, and images that tell its atoms apart."""
    c, (coldest, hottest) = world.config, world.config.temperatures
    side = c.rows * c.spacing
    set_conditions = Capability(
        # Annealing undoes itself only on average: the arrangement of atoms that the sample had is gone, and nothing tells
        # beforehand below which temperature it would have stayed. So every change of conditions counts as irreversible.
        effect=Effect.changes,
        ranges={
            "temperature": Range(low=coldest, high=hottest, tolerance=0.0),  # no limit on its steps: the holder ramps by itself
            "field": Range(low=-ising.STRONGEST, high=ising.STRONGEST, tolerance=0.0),
            "hold": span((0.0, ising.LONGEST)),
        },
        reads_back={"temperature": "temperature", "field": "field"},
        overhead=(hottest - coldest) / min(c.heating, c.cooling) + c.settle,
        reach=side,
    )
    edge = 0.5 - 1e-9  # of an atom: halves are rounded to even
    classify = Capability(
        effect=Effect.reads,
        ranges={"centre": span((-edge * c.spacing, (c.rows - 1 + edge) * c.spacing)), "dwell_time": span((limits.LEAST_TIME, ising.LONGEST))},
        counts={"shape": (1, c.rows)}, names={"detector": (c.classifier.name,)}, readings={"labels": (-1, 1)},
        may_repeat=("labels",),  # a quenched lattice stays as it is, and a good classifier does not err
        overhead=c.overhead, dose_rate=c.classifier.dose_rate, reach=side / 2,
    )  # fmt: skip
    verbs = {"SetConditions": set_conditions, "ClassifyAtoms": classify}
    return Description(_stem("hot-stage twin", verbs), {"temperature": np.array([coldest]), "field": np.zeros(1)})
