"""The operator's page: a client of the guard in the role of an operator, for browsers on this machine."""

from probegym.hardware_bridge.page.process import PageProcess, start_page

__all__ = ["PageProcess", "start_page"]
