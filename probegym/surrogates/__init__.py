"""Surrogates: Gaussian processes (GPyTorch) that say what is not measured yet, and acquisition functions that say what to measure."""
