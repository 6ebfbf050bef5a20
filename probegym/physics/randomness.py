"""Counter-based random numbers: a value depends on (key, step, stream, index) and on nothing else.

So a lane's noise does not depend on how many lanes run beside it, needs no generator state in a snapshot, and two
branches of one snapshot see the same noise. The mixing function is SplitMix64's finaliser (Steele, Lea & Flood,
OOPSLA 2014, 10.1145/2660193.2660195), in kernels/random.h; shot noise is drawn from the same one.
"""

from __future__ import annotations

import ctypes
import functools
import zlib

import numpy as np
from scipy.special import ndtri

from probegym.physics import native

_GOLDEN = 0x9E3779B97F4A7C15


@functools.cache
def _stream_code(stream: str) -> ctypes.c_uint64:
    return ctypes.c_uint64((zlib.crc32(stream.encode()) | 1 << 32) * _GOLDEN % 2**64)


def _counters(keys, step) -> tuple[int, np.ndarray, np.ndarray]:
    keys = np.ascontiguousarray(keys, np.uint64).reshape(-1)
    steps = np.ascontiguousarray(step, np.int64).reshape(-1)
    if len(steps) != len(keys):
        steps = np.ascontiguousarray(np.broadcast_to(steps, keys.shape))
    return len(keys), keys, steps


def subkey(keys, step, stream: str) -> np.ndarray:
    """Key of one stream at one step; keys (lanes,) uint64, step a number or (lanes,). Returns (lanes,) uint64."""
    lanes, keys, steps = _counters(keys, step)
    out = np.empty(lanes, np.uint64)
    native.library("randomness").subkeys(lanes, *map(native.pointer, (keys, steps)), _stream_code(stream), native.pointer(out))
    return out


def uniform(keys, step, stream: str, size: int) -> np.ndarray:
    """(lanes, size) floats in the open interval (0, 1)."""
    lanes, keys, steps = _counters(keys, step)
    out = np.empty((lanes, size))
    native.library("randomness").uniforms(lanes, size, *map(native.pointer, (keys, steps)), _stream_code(stream), native.pointer(out))
    return out


def normal(keys, step, stream: str, size: int) -> np.ndarray:
    """(lanes, size) standard normal floats."""
    return ndtri(uniform(keys, step, stream, size))
