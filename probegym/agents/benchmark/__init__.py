"""The benchmark: agents in scenarios in and out of distribution, raw results of every run, and the report that is made of them.

A *suite* names environments, agents and scenarios (suite.py). A *run* is an agent on a block of episodes: run k of every agent meets the same
episodes, and plays the k-th of an agent's policies where it has several (jobs.py). The raw results of each run are one JSON file (results.py);
tables and figures are made of these files alone (rows.py, report.py).
"""
