"""What the symmetries of the square do to aberrations: turn or mirror a specimen and its image follows.

A mirrored or turned film is an equally good film, so every recorded frame stands for eight.
"""

from __future__ import annotations

import numpy as np

from probegym.physics.optics import split_name

QUARTER_TURNS, MIRRORS = range(4), (False, True)


def transform(names: tuple[str, ...], quarter_turns: int, mirror: bool) -> np.ndarray:
    """Matrix T (n, n) with coefficients' = T coefficients for frames turned by ``np.rot90`` and then mirrored in x.

    Frames have rows along y (downwards in the array, upwards in y) and columns along x; names must hold both
    components of every aberration they hold.
    """
    matrix = np.zeros((len(names), len(names)))
    for row, name in enumerate(names):
        n, m, component = split_name(name)
        if m == 0:
            matrix[row, row] = 1
            continue
        angle = -m * quarter_turns * np.pi / 2  # rot90 turns x into -y of the array
        other = names.index(f"C{n}{m}{'b' if component == 'a' else 'a'}")
        if component == "a":
            matrix[row, row], matrix[row, other] = np.cos(angle), -np.sin(angle)
        else:
            matrix[row, row], matrix[row, other] = np.cos(angle), np.sin(angle)
        if mirror:  # phi -> pi - phi
            matrix[row] *= (-1) ** m if component == "a" else -((-1) ** m)
    return np.round(matrix)

