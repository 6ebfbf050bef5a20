"""Compiles the C kernels once per machine and loads them.

The library goes into the user's cache, named after the source, the compiler flags and the processor; later
imports load it in a millisecond. Needs a C compiler (``cc``, or the one named in ``CC``).
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from platformdirs import user_cache_path

from probegym.errors import ProbeGymError

SOURCES = Path(__file__).parent / "kernels"
FLAGS = ["-O3", "-march=native", "-ffast-math", "-funroll-loops", "-fPIC", "-std=gnu11", "-fopenmp-simd", "-w"]
ORDERED = {"stem", "ronchigram", "stm", "tapping", "dilation", "tersoff", "lennard_jones", "graphene", "atom_images", "adatoms", "shadow"}
"""Kernels whose sums keep the order they are written in, so that a lane is the same in every batch."""


def cache_folder() -> Path:
    """Where kernels and user-built specimens are kept; ``PROBEGYM_CACHE`` overrides it."""
    return Path(os.environ.get("PROBEGYM_CACHE") or user_cache_path("probegym"))


def _processor() -> str:
    try:
        flags = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith(("flags", "model name"))]
        return "".join(sorted(set(flags)))
    except OSError:
        return platform.processor()


@functools.cache
def library(name: str) -> ctypes.CDLL:
    """The compiled ``kernels/<name>.c``; raises ProbeGymError without a working compiler."""
    source = SOURCES / f"{name}.c"
    compiler = shlex.split(os.environ.get("CC", "cc"))
    text = [path.read_text() for path in [source, *sorted(SOURCES.glob("*.h"))]]
    flags = [*FLAGS, "-fno-associative-math"] if name in ORDERED else FLAGS
    identity = [*text, *compiler, *flags, platform.machine(), _processor()]
    digest = hashlib.sha256("\0".join(identity).encode()).hexdigest()[:16]
    folder = cache_folder() / "kernels"
    target = folder / f"{name}-{digest}.so"
    if not target.exists():
        _compile(compiler, flags, source, target)
    try:
        return ctypes.CDLL(str(target))
    except OSError:  # a damaged file in the cache: make it anew
        _compile(compiler, flags, source, target)
        return ctypes.CDLL(str(target))


def _compile(compiler: list[str], flags: list[str], source: Path, target: Path) -> None:
    if shutil.which(compiler[0]) is None:
        raise ProbeGymError(f"no C compiler {compiler[0]!r} found: install gcc or clang, or set CC to yours")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(dir=target.parent)
    except OSError as error:
        raise ProbeGymError(f"cannot write the kernel cache {target.parent} ({error.strerror}): set PROBEGYM_CACHE") from error
    print(f"probegym: compiling {source.name} for this machine (once)", file=sys.stderr)
    with scratch as folder:
        unlinked, built = Path(folder) / "kernel.o", Path(folder) / target.name
        # Linked without the flags: with -ffast-math, compilers link code in that rounds the subnormal numbers of whoever loads the library to zero.
        for step in ([*compiler, *flags, "-c", str(source), "-o", str(unlinked)], [*compiler, "-shared", str(unlinked), "-o", str(built), "-lm"]):
            done = subprocess.run(step, capture_output=True, text=True)
            if done.returncode:
                lines = done.stderr.strip().splitlines() or ["no message"]
                reason = next((line for line in lines if "error" in line), lines[0])
                raise ProbeGymError(f"compiling {source.name} failed ({reason}): check your C compiler or set CC")
        os.replace(built, target)  # atomic: two processes may compile at once, both results are good


def pointer(array) -> ctypes.c_void_p:
    """Address of a C-contiguous array of any shape in memory."""
    return ctypes.c_void_p(array.__array_interface__["data"][0])  # a third of the time of array.ctypes
