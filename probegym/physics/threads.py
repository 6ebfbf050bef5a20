"""A batch of lanes, in tiles, on the processors there are."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from probegym.errors import ProbeGymError

TILE = 16  # lanes that share one pass through a kernel


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="probegym")


def available_threads() -> int:
    """Threads used for a batch: ``PROBEGYM_THREADS``, else the processors this process may use. Raises ProbeGymError where that is no whole number above 0."""
    asked = os.environ.get("PROBEGYM_THREADS")
    if asked and not (asked.isdigit() and int(asked)):
        raise ProbeGymError(f"PROBEGYM_THREADS must be a whole number above 0, got {asked!r}")
    return int(asked) if asked else len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_tiles(work, lanes: int, threads: int | None = None, tile: int = TILE) -> list:
    """Call ``work(slice)`` for every ``tile`` lanes, on several threads where there are several tiles; what it returned, in order, of any shape."""
    parts = [slice(at, min(at + tile, lanes)) for at in range(0, lanes, tile)]
    threads = min(threads or available_threads(), len(parts))
    return [work(part) for part in parts] if threads <= 1 else list(_pool(threads).map(work, parts))
