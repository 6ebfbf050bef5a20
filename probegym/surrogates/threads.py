"""Torch on one thread, for the time of a call and for the caller alone."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch


@functools.cache
def _thread_setters() -> tuple[Callable[[int], int], Callable[[int], None]] | None:
    """MKL's and OpenMP's functions that set the number of threads for the calling thread alone; None where torch has other libraries."""
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:
        symbols = ctypes.CDLL(str(library))
        return symbols.MKL_Set_Num_Threads_Local, symbols.omp_set_num_threads
    except (OSError, AttributeError):
        return None


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for torch's work in the calling thread; no other thread, and nothing global, is touched.

    MKL rounds differently with the number of threads, and matrices this small lose by sharing: a Cholesky factor of 25 points
    takes milliseconds where threads wait for a busy processor. Elsewhere bits are the same for the same number of threads.
    """
    setters, count = _thread_setters(), torch.get_num_threads()
    if setters is None:
        yield
        return
    of_mkl, of_openmp = setters
    before = of_mkl(1)
    of_openmp(1)
    try:
        yield
    finally:
        of_mkl(before)
        of_openmp(count)
