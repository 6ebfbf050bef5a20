"""The compiled kernels as guests in a process."""

from __future__ import annotations

import subprocess
import sys

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
