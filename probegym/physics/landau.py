"""Landau's theory of a uniaxial ferroelectric: spontaneous polarisation, domain walls, coercive field, and the creep of walls.

F = integral of -a/2 P^2 + b/4 P^4 + g/2 |grad P|^2 - E P with a, b, g > 0. Closed forms of the uniform state, of the wall
P_s tanh(x / width) between two of them, and of the field at which one of them ceases to exist (Landau & Khalatnikov 1954; Zhirnov
1959, Sov. Phys. JETP 35, 822). All arguments broadcast; in SI, P is in C/m^2, a in m/F, b in m^5/(F C^2), g in m^3/F, E in V/m.
"""

from __future__ import annotations

import numpy as np


def spontaneous_polarisation(a, b) -> np.ndarray:
    """Polarisation sqrt(a / b) of a domain without a field, C/m^2 of a in m/F and b in m^5/(F C^2)."""
    return np.sqrt(np.divide(a, b))


def wall_width(a, g) -> np.ndarray:
    """Length sqrt(2 g / a) in tanh(x / length), the profile of a wall, m of a in m/F and g in m^3/F."""
    return np.sqrt(2 * np.divide(g, a))


def wall_energy(a, b, g) -> np.ndarray:
    """Energy of a wall per area, 2 sqrt(2) / 3 sqrt(g) a^(3/2) / b, J/m^2 of a in m/F, b in m^5/(F C^2) and g in m^3/F."""
    return 2 * np.sqrt(2) / 3 * np.sqrt(g) * np.power(a, 1.5) / b


def coercive_field(a, b) -> np.ndarray:
    """Field 2 / (3 sqrt 3) a^(3/2) / sqrt(b) at which the domain against it loses its minimum (the spinodal), V/m of a in m/F and b in m^5/(F C^2)."""
    return 2 / (3 * np.sqrt(3)) * np.power(a, 1.5) / np.sqrt(b)


def driving_force(polarisation: np.ndarray, field, a, b, g, spacing: float) -> np.ndarray:
    """-dF/dP = a P - b P^3 + g P'' + E of a line (..., points) with points ``spacing`` apart and ends at which P' = 0.

    With dP/dt in proportion to it a state relaxes (Landau & Khalatnikov 1954).
    """
    p = np.asarray(polarisation, float)
    ends = np.concatenate([p[..., :1], p, p[..., -1:]], -1)
    return a * p - b * p**3 + g * np.diff(ends, 2, axis=-1) / spacing**2 + field


def creep_exponent(dimension, roughness) -> np.ndarray:
    """Exponent (d - 2 + 2 zeta) / (2 - zeta) = mu in a wall's velocity exp(-(E_a / E)^mu), of its dimension d and roughness zeta.

    Paruch, Giamarchi & Triscone 2005, 10.1103/PhysRevLett.94.197601.
    """
    return (np.asarray(dimension) - 2 + 2 * np.asarray(roughness)) / (2 - np.asarray(roughness))
