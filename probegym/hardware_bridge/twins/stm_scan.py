"""What every image of an STM twin must keep to."""

from __future__ import annotations

from probegym.hardware_bridge.commands import AcquireTopograph, LocateAdatoms
from probegym.hardware_bridge.world import Refused
from probegym.physics import stm


def lines(command: AcquireTopograph | LocateAdatoms) -> tuple[int, int, float]:
    """Rows, columns, and seconds of a line, there and back; raises Refused for a shape or conditions that no STM could scan with."""
    rows, columns = (int(v) for v in command.shape)
    if not (0 < rows <= stm.WIDEST and 0 < columns <= stm.WIDEST):
        raise Refused(f"this STM scans 1 to {stm.WIDEST} pixels a side, asked were {rows} x {columns}")
    if min(command.field_of_view, command.speed, command.current) <= 0 or command.bias == 0:
        raise Refused("an image needs a positive field_of_view, speed and current and a bias that is not zero")
    return rows, columns, 2 * command.field_of_view / command.speed
