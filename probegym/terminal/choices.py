"""What options of the bridge's commands choose between; it imports nothing, so that help is quick."""

from __future__ import annotations

from enum import StrEnum


class Action(StrEnum):
    """What can be asked of a guard that runs."""

    status = "status"
    present = "present"
    agree = "agree"
    deny = "deny"
    hold = "hold"
    resume = "resume"
    disarm = "disarm"
    abort = "abort"
    reset = "reset"


class Twin(StrEnum):
    """Twins by the instrument that they are, each with the environment whose scenarios it takes."""

    stem = "stem"
    adatoms = "adatoms"
    tip = "tip"
    afm = "afm"

    @property
    def environment(self) -> str:
        """Its environment."""
        return {
            Twin.stem: "probegym/StemTuning-v0", Twin.adatoms: "probegym/AdatomManipulation-v0", Twin.tip: "probegym/TipConditioning-v0", Twin.afm: "probegym/AfmTuning-v0",
        }[self]  # fmt: skip


class Protocol(StrEnum):
    """What it speaks."""

    bridge = "bridge"
    nanonis = "nanonis"
    nion = "nion"

    @property
    def instrument(self) -> str:
        """The instrument to start for it, by its name in drivers.py."""
        return "twin" if self is Protocol.bridge else f"{self}-twin"

    @property
    def twins(self) -> tuple[Twin, ...]:
        """Twins that can be served so."""
        return {Protocol.bridge: tuple(Twin), Protocol.nanonis: (Twin.adatoms, Twin.tip), Protocol.nion: (Twin.stem,)}[self]
