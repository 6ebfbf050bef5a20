"""Nion Swift: a driver for its instruments, and the STEM twin inside of it.

All of Nion's packages are GPL-3.0 and come with the extra ``nion``. They are imported in the worker's process alone, see worker.py.
Tested with nionswift 16.16.2, nionswift-instrumentation 23.6.2 and nionswift-usim 5.4.2; never on a microscope.
"""
