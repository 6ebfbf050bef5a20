"""Programs of the hyper-language: commands in sequence with decision blocks, checked before anything runs, and their form as strings of tokens.

>>> bill = check(program, descriptor)   # refuses, with the place in the program
>>> trace = run(program, world)
"""

from __future__ import annotations

from probegym.hardware_bridge.programs.alphabet import Alphabet
from probegym.hardware_bridge.programs.blocks import Block, Do, If, Let, Program, Repeat, While
from probegym.hardware_bridge.programs.check import Bill, check
from probegym.hardware_bridge.programs.execute import Decision, Step, Stopped, Trace, run, steps
from probegym.hardware_bridge.programs.expressions import Combined, Compare, Expression, Number, Spent, Statistic, Value
from probegym.hardware_bridge.programs.interchange import dumps, from_json, loads, to_json
from probegym.hardware_bridge.programs.search import hill_climb

__all__ = [
    "Alphabet",
    "Bill",
    "Block",
    "Combined",
    "Compare",
    "Decision",
    "Do",
    "Expression",
    "If",
    "Let",
    "Number",
    "Program",
    "Repeat",
    "Spent",
    "Statistic",
    "Step",
    "Stopped",
    "Trace",
    "Value",
    "While",
    "check",
    "dumps",
    "from_json",
    "hill_climb",
    "loads",
    "run",
    "steps",
    "to_json",
]
