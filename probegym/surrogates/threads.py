"""Linear algebra on one thread, for the time of a call.

Matrices this small lose by sharing: a Cholesky factor of 25 points takes milliseconds, an inverse of 60 a tenth of a second, where
threads wait for a busy processor. And libraries round differently with the number of threads.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from threadpoolctl import ThreadpoolController


@functools.cache
def _libraries() -> ThreadpoolController:
    """Those of NumPy and SciPy."""
    import scipy.linalg  # noqa: F401  loads its own beside NumPy's

    return ThreadpoolController().select(user_api="blas")


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for the linear algebra of NumPy and SciPy."""
    with _libraries().limit(limits=1):
        yield


@functools.cache
def _torch_setters() -> tuple[Callable[[int], int], Callable[[int], None]] | None:
    """MKL's and OpenMP's functions that set the number of threads for the calling thread alone; None where torch has other libraries."""
    import torch

    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:
        symbols = ctypes.CDLL(str(library))
        return symbols.MKL_Set_Num_Threads_Local, symbols.omp_set_num_threads
    except (OSError, AttributeError):
        return None


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """One thread for torch's work in the calling thread; no other thread, and nothing global, is touched."""
    import torch

    setters, count = _torch_setters(), torch.get_num_threads()
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
