"""Seconds by which leases, nonces and the age of decisions are told."""

from __future__ import annotations

import time


def now() -> float:
    """Seconds that only grow, also while the computer sleeps, where the system can tell (Linux)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
