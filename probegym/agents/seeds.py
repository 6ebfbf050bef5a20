"""First seeds of episodes, by what they are for, in ascending order. Training begins at 0; none of the others is trained on."""

from __future__ import annotations

LAST_TRAINING_SEED = 9_000_000
"""Training keeps below it."""
BENCHMARK_TRAINING_SEED = 9_000_000
"""The benchmark on the training scenario, by which the best script is chosen."""
SELECTION_SEED = 9_100_000
"""Choice of thresholds and constants of policies and scripts."""
SCRIPTS_SEED = 9_200_000
"""Constants of the rules of LevelSelection and IsingInference."""
TUNING_SEED = 9_300_000
"""Constants of the beam's scripts; a converted policy beside its original."""
LIVE_SEED = 9_500_000
"""Success during a training and at its end."""
REPETITION_SEED = 9_600_000
"""A training repeated with other seeds (benchmarks/five_seeds.py)."""
REFERENCE_SEED = 9_700_000
"""Random and oracle returns that come with a data set."""
EVALUATION_SEED = 10_000_000
"""Figures in pages and tables. Nothing is trained, tuned or chosen on seeds from here on."""
BENCHMARK_SEED = 20_000_000
"""The benchmark, for whose sake nobody looks at them before."""
