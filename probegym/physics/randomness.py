"""Counter-based random numbers: a value depends on (key, step, stream, index) and on nothing else.

So a lane's noise does not depend on how many lanes run beside it, needs no generator state in a snapshot, and two
branches of one snapshot see the same noise. The mixing function is SplitMix64's finaliser (Steele, Lea & Flood,
OOPSLA 2014, 10.1145/2660193.2660195); kernels/stem.c draws shot noise from the same one.
"""

from __future__ import annotations

import functools
import zlib

import numpy as np
from scipy.special import ndtri

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_A, _B = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def mix(z: np.ndarray) -> np.ndarray:
    """Bijective scrambling of uint64 arrays (wraps around by design)."""
    z = (z ^ (z >> np.uint64(30))) * _A
    z = (z ^ (z >> np.uint64(27))) * _B
    return z ^ (z >> np.uint64(31))


@functools.cache
def _stream_code(stream: str) -> np.uint64:
    return np.uint64((zlib.crc32(stream.encode()) | 1 << 32) * int(GOLDEN) % 2**64)


def subkey(keys, step, stream: str) -> np.ndarray:
    """Key of one stream at one step; keys, step broadcast to (lanes,) uint64."""
    keys, step = np.atleast_1d(np.asarray(keys, np.uint64)), np.atleast_1d(np.asarray(step, np.uint64))
    return mix(mix(keys + GOLDEN * (step + np.uint64(1))) ^ _stream_code(stream))


def uniform(keys, step, stream: str, size: int) -> np.ndarray:
    """(lanes, size) floats in the open interval (0, 1)."""
    index = np.arange(1, size + 1, dtype=np.uint64)
    bits = mix(subkey(keys, step, stream)[:, None] + GOLDEN * index)
    return ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def normal(keys, step, stream: str, size: int) -> np.ndarray:
    """(lanes, size) standard normal floats."""
    return ndtri(uniform(keys, step, stream, size))
