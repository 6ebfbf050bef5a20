"""One episode of an agent, played and drawn: in any environment; and for a STEM, what the column looks like before and after.

Portraits show the hidden state, so they exist for twins only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from probegym.agents.base import Agent, Script, twin_of
from probegym.envs import pictures, single_env
from probegym.envs.core import ScopeEnv
from probegym.envs.task import Observation
from probegym.hardware_bridge.twins.stem import StemTwin
from probegym.physics import specimens
from probegym.physics.image_formation import ImageFormer, raster
from probegym.physics.optics import Pupil, focal_spread
from probegym.physics.ronchigram import RonchigramFormer

FIELD_OF_VIEW, PIXELS = 2.5e-9, 128
FILM, FILM_APERTURE, FILM_PIXELS = "film-carbon", 0.040, 84
MONOLAYER = "mos2-vs"


@dataclass
class Portrait:
    """The column at one moment. pictures: title -> (h, w, 3) uint8."""

    strehl: float
    pictures: dict[str, np.ndarray]


@dataclass
class Story:
    """An episode: ``screens`` are the environment's own pictures, one a step; costs are those at the end."""

    agent: str
    scenario: str
    seed: int
    success: bool
    images: int
    seconds: float
    dose: float
    portraits: list[Portrait] = field(default_factory=list)  # before, after
    screens: list[np.ndarray] = field(default_factory=list)


@lru_cache(maxsize=4)
def _ronchigrams(energy: float, names: tuple[str, ...]) -> RonchigramFormer:
    film = specimens.load(FILM)
    assert film.films is not None
    return RonchigramFormer(film.films[:1], energy, film.extent[0], FILM_APERTURE, FILM_PIXELS, names, film.slice_thickness)


def portrait(world: StemTwin, lane: int = 0) -> Portrait:
    """HAADF image in focus, Ronchigram and phase plate for the aberrations of this moment, without noise."""
    c, names = world.config, world.names
    truth = world.truth()
    coefficients = truth["aberrations"][lane : lane + 1]
    name = c.specimens[int(world.state["specimen"][lane])] if c.specimens else MONOLAYER
    spread = focal_spread(c.chromatic, c.energy, c.energy_spread)
    former = ImageFormer(specimens.load(name).tensors["haadf"], c.semiangle_cutoff, names, c.source_size, spread)
    image = former.images(coefficients, *raster(1, PIXELS, FIELD_OF_VIEW / PIXELS), PIXELS, FIELD_OF_VIEW / PIXELS)[0]
    frame = _ronchigrams(c.energy, names).frames(coefficients, np.zeros((1, 2)), np.zeros(1, int))[0]
    plate = Pupil(c.energy, c.semiangle_cutoff, names, samples=160).phase_plate(coefficients[0])
    wrapped = np.mod(plate + np.pi, 2 * np.pi) - np.pi
    drawn = {
        f"HAADF image of {_spoken(name)}, {FIELD_OF_VIEW * 1e9:g} nm wide": pictures.coloured(image, "grey"),
        f"Ronchigram of amorphous carbon, {FILM_APERTURE * 1e3:g} mrad": pictures.coloured(frame),
        "phase of the wavefront, one colour turn is 2\u03c0": pictures.coloured(wrapped, "cyclic", -np.pi, np.pi),
    }
    return Portrait(float(truth["strehl"][lane]), drawn)


def _spoken(name: str) -> str:
    return {MONOLAYER: "MoS\u2082"}.get(name, "a Au nanoparticle" if name.startswith("au-") else name)


def _seen(observation: Observation) -> np.ndarray:
    """All frames of an observation side by side."""
    names = [name for name in ("haadf", "ronchigram") if name in observation]
    return np.hstack([pictures.coloured(frame) for name in names for frame in observation[name]])


@dataclass
class Played:
    """How an episode went: what was seen and told last. total: undiscounted return. over: it ended by itself."""

    observation: Observation
    info: dict[str, Any]
    steps: int = 0
    total: float = 0.0
    over: bool = False


def play(agent: Agent | Script, env: ScopeEnv, seed: int, look: Callable[[Observation], None], steps: int | None = None) -> Played:
    """One episode, or its first ``steps``; ``look`` is called after the reset and after every step, and may draw."""
    played = Played(*env.reset(seed=seed))
    look(played.observation)

    def act(action: Any) -> tuple[Observation, bool]:
        played.observation, reward, terminated, truncated, played.info = env.step(np.asarray(action, env.action_space.dtype))
        played.steps, played.total, played.over = played.steps + 1, played.total + reward, terminated or truncated
        look(played.observation)
        return played.observation, played.over or played.steps == steps

    if isinstance(agent, Script):
        agent.play(act, env, played.observation, seed)
        return played
    agent.begin(1, seed)
    done = False
    while not done:
        seen = {key: array[None] for key, array in played.observation.items()}
        _, done = act(agent.act(seen, env.episodes)[0])
    return played


def tell(agent: Agent | Script, name: str, env_id: str, scenario: str, seed: int) -> Story:
    """Play one episode and draw it. Raises ProbeGymError when the agent does not fit the scenario."""
    env = single_env(env_id, scenario=scenario, render_mode="rgb_array")
    world = twin_of(env.episodes, StemTwin)
    portraits: list[Portrait] = []
    screens: list[np.ndarray] = []

    def look(observation: Observation) -> None:
        if not portraits:
            portraits.append(portrait(world))
            portraits[0].pictures["the first frames that the agent saw"] = _seen(observation)
        screens.append(env.episodes.picture(0))

    played = play(agent, env, seed, look)
    portraits.append(portrait(world))
    portraits[1].pictures["the last frames that the agent saw"] = _seen(played.observation)
    env.close()
    info = played.info
    return Story(name, scenario, seed, bool(info["is_success"]), int(info["measurements"]), float(info["time"]), float(info["dose"]), portraits, screens)
