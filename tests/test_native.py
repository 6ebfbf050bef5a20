"""The compiled kernels as guests in a process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from probegym.errors import ProbeGymError
from probegym.physics import native, threads

EVERY_KERNEL = """
import numpy as np
from probegym.physics import native
for source in native.SOURCES.glob("*.c"):
    native.library(source.stem)
smallest = np.array([5e-324])
print(float((smallest * 1.0)[0]) == 5e-324)
"""


def test_loading_kernels_leaves_the_arithmetic_of_the_process_alone():
    """Fast mathematics, linked into a library, rounds subnormal numbers to zero for everybody in the process."""
    done = subprocess.run([sys.executable, "-c", EVERY_KERNEL], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and kernels that nobody has loaded from it yet."""
    monkeypatch.setenv("PROBEGYM_CACHE", str(tmp_path / "cache"))
    native.library.cache_clear()
    yield tmp_path / "cache"
    native.library.cache_clear()


def test_a_damaged_kernel_in_the_cache_is_compiled_anew(cache, tmp_path, monkeypatch, capsys):
    native.library("shot_noise")
    (good,) = cache.glob("kernels/*.so")
    damaged = tmp_path / "other/kernels" / good.name
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(good.read_bytes()[:100])
    monkeypatch.setenv("PROBEGYM_CACHE", str(tmp_path / "other"))
    native.library.cache_clear()
    assert native.library("shot_noise").shot_noise and damaged.stat().st_size == good.stat().st_size
    assert capsys.readouterr().err.count("compiling shot_noise.c") == 2


@pytest.mark.parametrize(
    ("compiler", "words"), [("/nowhere/cc", "no C compiler '/nowhere/cc' found"), ("false", r"compiling shot_noise.c failed \(no message\): check your C compiler")]
)
def test_without_a_compiler_that_works_it_is_said(cache, monkeypatch, compiler, words):
    monkeypatch.setenv("CC", compiler)
    with pytest.raises(ProbeGymError, match=words):
        native.library("shot_noise")
    assert not list(cache.glob("kernels/*"))


def test_what_a_compiler_says_is_told(cache, monkeypatch):
    monkeypatch.setenv("CC", "cc -DSIZE_MAX=1 -include /nowhere.h")
    with pytest.raises(ProbeGymError, match=r"failed \(.*error.*nowhere.h"):
        native.library("shot_noise")


def test_a_cache_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PROBEGYM_CACHE", str(tmp_path / "file"))
    native.library.cache_clear()
    with pytest.raises(ProbeGymError, match=r"cannot write the kernel cache .*set PROBEGYM_CACHE"):
        native.library("shot_noise")


@pytest.mark.parametrize("asked", ["0", "two", "-1"])
def test_a_number_of_threads_that_cannot_be_is_refused(monkeypatch, asked):
    monkeypatch.setenv("PROBEGYM_THREADS", asked)
    with pytest.raises(ProbeGymError, match="PROBEGYM_THREADS must be a whole number above 0"):
        threads.available_threads()
