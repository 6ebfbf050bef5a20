"""The operator's page, and what it and the command line ask of a guard."""

from probegym.hardware_bridge.page.operator import Operator
from probegym.hardware_bridge.page.process import PageProcess, start_page

__all__ = ["Operator", "PageProcess", "start_page"]
