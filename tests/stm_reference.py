"""How wide a point is in an image of an STM, to hold images against."""

from __future__ import annotations

import numpy as np

from probegym.physics import stm


def point_width(bias: float, current: float) -> float:
    """Standard deviation in m of the Gaussian that a point feature appears as to a clean apex; bias in V, current in A.

    Tersoff & Hamann (1985), 10.1103/PhysRevB.31.805.
    """
    return float(np.sqrt((stm.APEX_RADIUS + stm.gap(bias, current)) / (2 * stm.decay_constant(stm.CLEAN_BARRIER))))
