"""From a trained policy to actions on an instrument: bundles read with suspicion, and run in a process of their own."""

from enum import StrEnum


class Mode(StrEnum):
    """How much a policy is trusted with."""

    replay = "replay"
    twin = "twin"
    shadow = "shadow"
    supervised = "supervised"
    autonomous = "autonomous"
