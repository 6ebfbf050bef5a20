"""Limits where a twin takes any number: what instruments of its kind can do. An argument without limits would always be refused."""

from __future__ import annotations

DWELL = (1e-9, 1.0)  # s a pixel or an atom
EXPOSURE = (1e-6, 100.0)  # s
VIEW = (1e-11, 1e-5)  # m, of an electron image
SIDE = (1, 4096)  # pixels
DEFOCUS = FILM_SHIFT = (-1e-6, 1e-6)  # m
BIAS = (-10.0, 10.0)  # V
CURRENT = (1e-15, 1e-6)  # A
SPEED = (1e-11, 1e-4)  # m/s, of a tip along a line
PULSE = (0.0, 10.0)  # s
LEAST_LENGTH = 1e-13  # m, of what must be above zero
LEAST_TIME = 1e-9  # s
LINE_RATE = (1e-2, 1e3)  # Hz
GAINS = {"proportional": 1e6, "integral": 1e9}  # m/m, m/m/s
AMPLITUDE = 1e-6  # m
COUNTS = (0.0, 1e12)  # electrons in a pixel
