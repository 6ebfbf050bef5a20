"""Reward and cost terms: small pure functions of arrays; their weights live with the environment."""
