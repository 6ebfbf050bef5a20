"""Agents: baselines, training, evaluation, trained policies."""
