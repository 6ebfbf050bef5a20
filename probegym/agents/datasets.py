"""Data sets for offline learning, written with Minari: whole episodes on training seeds, lossless.

One episode is played at a time, so it depends on its seed and its agent alone and can be played again to the bit.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
from minari import EpisodeData, MinariDataset
from minari import __version__ as minari_version
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_storage import METADATA_FILE_NAME, MinariStorage
from minari.namespace import NAMESPACE_METADATA_FILENAME
from minari.storage import get_dataset_path

import probegym
from probegym import scenarios
from probegym.agents import files
from probegym.agents.base import Agent, OracleAgent, RandomAgent, Script
from probegym.agents.bundle import BundlePolicy
from probegym.agents.evaluate import Progress, Results, evaluate
from probegym.agents.registry import family, make_agent
from probegym.agents.seeds import EVALUATION_SEED, REFERENCE_SEED
from probegym.envs import single_env
from probegym.envs.actions import bounds
from probegym.envs.core import ScopeEnv
from probegym.envs.episodes import Episodes
from probegym.envs.task import Observation
from probegym.errors import ProbeGymError
from probegym.hardware_bridge.commands import Lanes
from probegym.hardware_bridge.records import target

REFERENCE_EPISODES = 300
ROUNDING = 1e-6  # by which the engine lets an action miss its space
FLUSHED_EPISODES, SPARE_BYTES = 32, 20_000_000
PACKED_BYTES = 2048  # arrays of more are compressed
AUTHOR, LICENCE = "ProbeGym", "MIT"

SETS: dict[str, dict[str, str]] = {
    "probegym/TipConditioning-v0": {"random": "random", "script": "fixed-recipe", "learned": "tip-conditioning"},
    "probegym/LevelSelection-v0": {"random": "random", "script": "survey-first", "learned": "level-selection"},
    "probegym/AdatomManipulation-v0": {"random": "random", "script": "corrected-drag", "learned": "adatom-manipulation"},
}
"""What ``probegym record build`` builds: environment -> kind of behaviour -> agent."""


# ---- writing ----


def within(action: np.ndarray, space: gym.Space) -> np.ndarray:
    """The action, of the shape of its space, in its type, and inside it where rounding alone has put it outside; others are left to be refused."""
    action = np.asarray(action)
    if action.dtype.kind in "iu" and not isinstance(space, gym.spaces.Box):
        return action.astype(space.dtype)
    if not isinstance(space, gym.spaces.Box):
        return action
    action = action.astype(space.dtype)
    inside = np.clip(action, *bounds(space))
    return np.where(np.abs(inside - action) <= ROUNDING, inside, action)


class _Within(Agent):
    """An agent whose actions are made elements of the action space before they are carried out, so that they can be recorded as such."""

    def __init__(self, agent: Agent):
        self.agent = agent

    def begin(self, lanes: int, seed: int) -> None:
        self.agent.begin(lanes, seed)

    def act(self, observation: Observation, episodes: Episodes) -> np.ndarray:
        return within(self.agent.act(observation, episodes), episodes.task.action_space)


class _ScriptWithin(Script):
    def __init__(self, script: Script):
        self.script = script

    def run(self, step: Callable[[np.ndarray], Observation], env: ScopeEnv, observation: Observation, seed: int) -> None:
        self.script.run(lambda action: step(within(action, env.action_space)), env, observation, seed)


class Recorder:
    """An observer of ``evaluate`` with one lane: gives every whole episode to ``keep``. Rows of infos: T + 1, as observations have."""

    def __init__(self, keep: Callable[[EpisodeBuffer], None]):
        self.keep = keep

    def begin(self, seed: int, observation: Observation, info: Lanes) -> None:
        self.seed = seed
        self.seen: list[dict[str, np.ndarray]] = []
        self.told: list[dict[str, np.ndarray]] = []
        self.rows: list[tuple[np.ndarray, float, bool, bool]] = []
        self._see(observation, info)

    def step(self, action: np.ndarray, observation: Observation, reward: np.ndarray, terminated: np.ndarray, truncated: np.ndarray, info: Lanes, where: np.ndarray) -> None:
        self._see(observation, info)
        self.rows.append((action[0].copy(), float(reward[0]), bool(terminated[0]), bool(truncated[0])))
        if terminated[0] or truncated[0]:
            self.keep(self._episode())

    def _see(self, observation: Observation, info: Lanes) -> None:
        self.seen.append({name: array[0].copy() for name, array in observation.items()})
        self.told.append({name: array[0].copy() for name, array in info.items() if not name.startswith("_") and array.dtype.kind in "fiub"})

    def _episode(self) -> EpisodeBuffer:
        actions, rewards, terminations, truncations = (np.array(column) for column in zip(*self.rows, strict=True))
        observations = {name: np.stack([seen[name] for seen in self.seen]) for name in self.seen[0]}
        infos = {name: np.stack([told.get(name, np.zeros_like(last)) for told in self.told]) for name, last in self.told[-1].items()}
        return EpisodeBuffer(None, self.seed, None, observations, actions, rewards, terminations, truncations, infos)


def folder_of(dataset_id: str, root: Path | None = None) -> Path:
    """Where a data set lies: below ``root``, or where Minari looks, ``$MINARI_DATASETS_PATH`` or ``~/.minari/datasets``."""
    return get_dataset_path(dataset_id) if root is None else root / dataset_id


def dataset_id(env_id: str, agents: Mapping[str, int], scenario: str = "train", name: str | None = None) -> str:
    """``probegym/<Env>/<agent>-v0``; other scenarios than ``train`` are named, and several agents are called mixed. Raises ProbeGymError."""
    agent = Path(next(iter(agents))).name if len(agents) == 1 else "mixed"
    wanted = name or re.sub(r"[^\w-]", "-", agent if scenario == "train" else f"{agent}-{scenario.rpartition(':')[2]}")
    if not re.fullmatch(r"[\w-]+", wanted, re.ASCII) or re.search(r"-v\d+$", wanted):
        raise ProbeGymError(f"a data set is named by letters, digits, _ and -, without a version at its end, got {wanted!r}: use --name")
    return f"probegym/{env_id.split('/')[1].rsplit('-v', 1)[0]}/{wanted}-v0"


def references(env_id: str, scenario: str, episodes: int = REFERENCE_EPISODES, progress: Progress = lambda *_: None) -> tuple[float, float]:
    """Mean returns (pure numbers) of uniformly random actions and of the oracle, on the same seeds of a scenario; ``progress`` is told of both together."""

    def played(agent: Agent, first: int) -> float:
        return float(evaluate(agent, env_id, scenario, episodes, REFERENCE_SEED, lambda done, total: progress(first + done, 2 * total)).returns.mean())

    return played(RandomAgent(), 0), played(OracleAgent(), episodes)


def _check(env_id: str, scenario: str, agents: Mapping[str, int], seed: int) -> None:
    """Refuse what is for evaluation, and what is no number of episodes."""
    if not agents or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in agents.values()):
        raise ProbeGymError(f"every agent needs a whole number of episodes above 0, got {dict(agents)}")
    split = scenarios.load(family(env_id), scenario).split
    if split != "train":
        raise ProbeGymError(f"scenario {scenario!r} is of the split {split}, which is for evaluation: record on a scenario of the split train")
    if not 0 <= seed <= EVALUATION_SEED - sum(agents.values()):
        raise ProbeGymError(f"seeds from {EVALUATION_SEED} on are for evaluation, {seed} and {sum(agents.values())} episodes would not stay below: use a lower --seed")


def asked(env_id: str, agents: Mapping[str, int], scenario: str, seed: int, root: Path | None, name: str | None) -> tuple[dict[str, Agent | Script], str, Path]:
    """The agents of a data set to be recorded, its id and its folder; raises ProbeGymError for what ``record`` would refuse beforehand."""
    _check(env_id, scenario, agents, seed)
    made = {agent: make_agent(agent, env_id) for agent in agents}
    identity = dataset_id(env_id, agents, scenario, name)
    target.require_free(folder := folder_of(identity, root))
    return made, identity, folder


def record(env_id: str, agents: Mapping[str, int], scenario: str = "train", seed: int = 0, root: Path | None = None, name: str | None = None,
           scores: tuple[float, float] | None = None, command: str = "", progress: Progress = lambda *_: None,
           referring: Progress = lambda *_: None) -> tuple[MinariDataset, dict[str, Results]]:  # fmt: skip
    """Record agents (name or folder -> episodes, one after the other on seeds seed, seed + 1, ...) as one data set.

    scores: mean returns (pure numbers) of random and oracle, measured unless given, of which ``referring`` is told. It has its name when all of it is on the disk; otherwise nothing
    stays. Raises ProbeGymError for seeds and scenarios of evaluation, a name that is taken, and an agent whose actions are not all that it did.
    """
    made, identity, folder = asked(env_id, agents, scenario, seed, root, name)
    results, total = {}, sum(agents.values())
    env = gym.make(env_id, scenario=scenario)
    low, high = scores or references(env_id, scenario, progress=referring)
    with target.appearing(folder) as scratch:
        scratch.mkdir()
        storage = MinariStorage.new(scratch / "data", env.observation_space, env.action_space, env.spec, "hdf5", jpeg_encoding=False)
        storage.update_metadata(_about(identity, env, agents, seed, low, high, command, {n: a.bundle.digest for n, a in made.items() if isinstance(a, BundlePolicy)}))
        done = 0
        for label, agent in made.items():
            buffers: list[EpisodeBuffer] = []
            recorder = Recorder(buffers.append)

            def flush(played: int, episodes: int, label: str = label, buffers: list[EpisodeBuffer] = buffers, first: int = done) -> None:
                if buffers and (len(buffers) == FLUSHED_EPISODES or played == episodes):
                    _append(storage, buffers, label)
                    buffers.clear()
                progress(first + played, total)

            watched = _ScriptWithin(agent) if isinstance(agent, Script) else _Within(agent)
            results[label] = evaluate(watched, env_id, scenario, agents[label], seed + done, flush, lanes=1, observer=recorder)
            if differences := replay(MinariDataset(storage), done):  # an operator's command beside the actions, for example
                raise ProbeGymError(f"agent {label!r} does more than its actions say ({differences[0]}), so its episodes cannot be played again: record another")
            done += agents[label]
        _pack(scratch / "data" / "main_data.hdf5")
        storage.update_metadata({"dataset_size": storage.get_size()})
    for namespace in (folder.parent.parent, folder.parent):
        if not (namespace / NAMESPACE_METADATA_FILENAME).exists():
            (namespace / NAMESPACE_METADATA_FILENAME).write_text("{}", encoding="utf-8")
    return MinariDataset(folder / "data"), results


def _about(identity: str, env: gym.Env, agents: Mapping[str, int], seed: int, low: float, high: float, command: str, policies: dict[str, str]) -> dict[str, Any]:
    """What the data set says of itself; what is ProbeGym's own stands under ``probegym``."""
    scope, spec = env.unwrapped, env.spec
    assert isinstance(scope, ScopeEnv) and spec is not None
    episodes = scope.episodes
    told = ", ".join(f"{count} episodes of {agent}" for agent, count in agents.items())
    return {
        "dataset_id": identity,
        "minari_version": minari_version,
        "algorithm_name": ", ".join(agents),
        "author": {AUTHOR},
        "license": LICENCE,
        "code_permalink": f"probegym {probegym.__version__}, commit {files.commit()}",
        "description": f"{told} on {spec.id}, scenario {episodes.scenario.name}: {episodes.scenario.description}",
        "requirements": [f"probegym=={probegym.__version__}"],
        "ref_min_score": low,
        "ref_max_score": high,
        "num_episodes_average_score": REFERENCE_EPISODES,
        "probegym": {
            "environment": spec.id,
            "scenario": spec.kwargs["scenario"],
            "resolved": episodes.scenario.model_dump(mode="json"),
            "agents": dict(agents),
            "policies": policies,  # SHA-256 of their bundles
            "first_seed": seed,
            "reference": {"random": low, "oracle": high, "first_seed": REFERENCE_SEED},
            "command": command,
        },
    }


def _append(storage: MinariStorage, buffers: list[EpisodeBuffer], agent: str) -> None:
    """Write episodes, with who acted and how it ended, in its last step as everywhere; refused before a disk is full, which HDF5 does not survive."""
    size = sum(array.nbytes for buffer in buffers for array in (*buffer.observations.values(), *buffer.infos.values()))
    free = shutil.disk_usage(storage.data_path).free
    if free < 2 * size + SPARE_BYTES:
        raise ProbeGymError(f"{free / 1e6:.0f} MB are left on the disk, the next episodes need {(2 * size + SPARE_BYTES) / 1e6:.0f} MB: free space or choose another folder")
    first = storage.total_episodes
    storage.update_episodes(buffers)
    ends = [{"agent": agent, "return": float(np.sum(b.rewards)), "success": bool(b.infos["is_success"][-1])} for b in buffers]
    storage.update_episode_metadata(ends, range(first, first + len(buffers)))


def _pack(path: Path) -> None:
    """Write the file again without room for more steps in its episodes, large arrays compressed; h5py reads them like the others."""
    packed = path.with_suffix(".packed")
    with h5py.File(path) as loose, target.Stream(packed) as stream, h5py.File(stream, "w", track_order=True) as file:

        def copy(group: h5py.Group, to: h5py.Group) -> None:
            to.attrs.update(group.attrs)
            for name, item in group.items():
                if isinstance(item, h5py.Group):
                    copy(item, to.create_group(name))
                else:
                    large = {"chunks": item.shape, "compression": "gzip", "shuffle": True} if item.nbytes > PACKED_BYTES else {}
                    to.create_dataset(name, data=item[()], **large)

        copy(loose, file)
    packed.replace(path)


# ---- reading ----


def load(name: str) -> MinariDataset:
    """A data set of ours by its folder, or by the id that Minari finds it under. Nothing in it is executed; raises ProbeGymError.

    It must say its spaces and name an environment of ours: Minari itself would import whatever its specification names.
    """
    folder = Path(name) if (Path(name) / "data" / METADATA_FILE_NAME).is_file() else folder_of(name)
    if not (folder / "data" / METADATA_FILE_NAME).is_file():
        raise ProbeGymError(f"no data set {name!r}: give the folder of one, or record one with probegym record dataset")
    try:
        told = json.loads((folder / "data" / METADATA_FILE_NAME).read_text(encoding="utf-8"))
        ours = {"observation_space", "action_space", "env_spec"} <= told.keys() and told["probegym"]["environment"] in probegym.ENVIRONMENTS
        if ours and told["data_format"] == "hdf5":
            with h5py.File(folder / "data" / "main_data.hdf5") as file:
                if len(file) != told["total_episodes"]:
                    raise ProbeGymError(f"data set {folder} holds {len(file)} of {told['total_episodes']} episodes: record it again")
            return MinariDataset(folder / "data")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError, ImportError, gym.error.Error) as error:
        raise ProbeGymError(f"data set {folder} cannot be read ({type(error).__name__}): record it again") from error
    raise ProbeGymError(f"data set {folder} is of no environment of ProbeGym's: use one that probegym record dataset has written")


def origin(dataset: MinariDataset) -> tuple[str, str]:
    """Environment and scenario that a data set was recorded in."""
    told = dataset.storage.metadata["probegym"]
    return told["environment"], told["scenario"]


def replay(dataset: MinariDataset, number: int) -> list[str]:
    """Play an episode again: its actions in the environment, reset with its seed. What differs in any bit, in the order of time."""
    env_id, scenario = origin(dataset)
    episode, env = dataset[number], single_env(env_id, scenario=scenario)
    (told,) = dataset.storage.get_episode_metadata(dataset.episode_indices[[number]])
    observation, info = env.reset(seed=told["seed"])
    found = _differences(episode, 0, observation, {}, info)
    for t, action in enumerate(episode.actions):
        observation, reward, terminated, truncated, info = env.step(action)
        outcome = {"rewards": reward, "terminations": terminated, "truncations": truncated}
        found += _differences(episode, t + 1, observation, outcome, info)
        if (terminated or truncated) and t + 1 < len(episode.actions):
            return [*found, f"the episode ends after step {t + 1}"]
    return found if terminated or truncated else [*found, f"the episode does not end after step {len(episode.actions)}"]


def _differences(episode: EpisodeData, row: int, observation: Observation, outcome: dict[str, Any], info: dict[str, Any]) -> list[str]:
    pairs = [(f"observation {name}", episode.observations[name][row], array) for name, array in observation.items()]
    pairs += [(name, getattr(episode, name)[row - 1], value) for name, value in outcome.items()]
    pairs += [(f"info {name}", episode.infos[name][row], value) for name, value in info.items()]
    return [f"step {row}: {name} differs" for name, was, now in pairs if np.asarray(was).tobytes() != np.asarray(now, np.asarray(was).dtype).tobytes()]


def normalised(dataset: MinariDataset, returns: np.ndarray | float) -> Any:
    """Returns as shares of the way from random (0) to the oracle (1), as ``minari.get_normalized_score`` counts."""
    low, high = (dataset.storage.metadata[name] for name in ("ref_min_score", "ref_max_score"))
    return (returns - low) / (high - low)
