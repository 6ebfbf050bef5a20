"""Simulators: arrays in, arrays out; no rewards, no Gymnasium."""
