"""Surrogates: Gaussian processes and exact beliefs that say what is not measured yet, and acquisition functions that say what to measure."""
