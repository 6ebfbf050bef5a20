"""Hyperparameters of ppo and sac that may be chosen, by their names in Stable-Baselines3, and what they must lie between."""

from __future__ import annotations

from collections.abc import Sequence

import gymnasium as gym

from probegym.errors import ProbeGymError

SHARED = {"learning_rate": (1e-8, 1.0), "gamma": (0.0, 1.0)}
LIMITS: dict[str, dict[str, tuple[float, float]]] = {
    "ppo": SHARED | {"gae_lambda": (0.0, 1.0), "ent_coef": (0.0, 1.0), "vf_coef": (0.0, 10.0), "clip_range": (1e-3, 1.0), "max_grad_norm": (1e-3, 100.0), "n_epochs": (1, 100)},
    "sac": SHARED | {"tau": (1e-6, 1.0), "batch_size": (1, 65_536), "gradient_steps": (1, 64)},
}  # fmt: skip
WHOLE = {"n_epochs", "batch_size", "gradient_steps"}


def refuse_actions(algorithm: str, env_id: str, space: gym.Space) -> None:
    """Raises ProbeGymError for an algorithm that cannot take actions of the kind of the environment."""
    if algorithm == "sac" and not isinstance(space, gym.spaces.Box):
        raise ProbeGymError(f"sac needs continuous actions, {env_id} has {space}: use ppo")


def refuse_unknown(algorithm: str, name: str, place: str = "") -> None:
    """Raises ProbeGymError for an algorithm without hyperparameters, and for one that it does not have; place: where it was read."""
    if algorithm not in LIMITS:
        raise ProbeGymError(f"algorithm {algorithm!r} has no hyperparameters to choose: use one of {', '.join(LIMITS)}")
    if name not in LIMITS[algorithm]:
        raise ProbeGymError(f"{place}unknown hyperparameter {name!r} of {algorithm}: use {', '.join(LIMITS[algorithm])}")


def checked(algorithm: str, name: str, value: float, mend: str) -> float | int:
    """The value, without unit, as an integer where only those are meant; raises ProbeGymError with the mend for one that is out of its limits."""
    low, high = LIMITS[algorithm][name]
    if not low <= value <= high:
        raise ProbeGymError(f"{name} is {value:g}, it must lie between {low:g} and {high:g}: {mend}")
    return round(value) if name in WHOLE else value


def parsed(algorithm: str, texts: Sequence[str]) -> dict[str, float | int]:
    """Those of texts like ``learning_rate=3e-4``, without units; raises ProbeGymError."""
    chosen: dict[str, float | int] = {}
    for text in texts:
        name, _, number = text.partition("=")
        refuse_unknown(algorithm, name)
        try:
            value = float(number)
        except ValueError as error:
            raise ProbeGymError(f"--set {text!r} holds no number: give NAME=NUMBER, as learning_rate=3e-4") from error
        chosen[name] = checked(algorithm, name, value, "give another with --set")
    return chosen
