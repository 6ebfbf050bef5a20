"""Submissions: policies of others as data, a folder with bundles and a manifest that says what they are.

``manifest.yaml`` holds name, authors, description, licence, the training scenarios, and for each environment the folder of its bundle with the
SHA-256 of both files; ``{seed}`` in a folder stands for the run where several trainings are handed in. Nothing in a submission is executed but
the ONNX graphs of its bundles, see hardware_bridge/deployment/bundle.py; each job runs in a process of its own.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from probegym import scenarios, tables
from probegym.agents import registry
from probegym.agents.benchmark.suite import SEED, Suite
from probegym.agents.bundle import BundlePolicy
from probegym.errors import ProbeGymError
from probegym.scenarios import complaint

MANIFEST = "manifest.yaml"
SCHEMA = "probegym-submission/1"
MAXIMUM_BYTES = 100_000

Text = Annotated[str, Field(min_length=1, max_length=2000)]


class Entered(BaseModel):
    """One environment's policies. sha256: of each bundle, see ``bundle_digest``, in the order of the runs. trained_on: scenarios of the split train."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: Text
    sha256: tuple[Annotated[str, Field(pattern="^[0-9a-f]{64}$")], ...] = Field(min_length=1, max_length=1000)
    trained_on: tuple[Text, ...] = Field(min_length=1)
    command: Text


class Manifest(BaseModel):
    """What a submission says of itself. command: which training, of this project or another, made each policy."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    schema_: str = Field(alias="schema", pattern=f"^{SCHEMA}$")
    name: Text
    authors: tuple[Text, ...] = Field(min_length=1)
    description: Text
    licence: Text
    policies: dict[str, Entered] = Field(min_length=1)


def bundle_digest(folder: Path) -> str:
    """SHA-256 of both files of a bundle, one after the other."""
    total = hashlib.sha256()
    for name in ("policy.onnx", "policy.json"):
        total.update((folder / name).read_bytes())
    return total.hexdigest()


def read(folder: Path) -> Manifest:
    """The manifest of a submission, all of whose promises were checked. Raises ProbeGymError, with the line where there is one."""
    path = folder / MANIFEST
    table, lines = tables.read(path, "manifest", MAXIMUM_BYTES)
    try:
        manifest = Manifest.model_validate(table)
    except ValidationError as error:
        where, told = complaint(error)
        line = tables.nearest(lines, tuple(map(str, error.errors()[0]["loc"])))
        raise ProbeGymError(f"{path.name}, line {line}: {where}: {told}") from error
    for env_id, entered in manifest.policies.items():
        try:
            _check(folder, env_id, entered)
        except ProbeGymError as error:
            raise ProbeGymError(f"{path.name}, line {tables.nearest(lines, ('policies', env_id))}: {error}") from error
    return manifest


def _check(folder: Path, env_id: str, entered: Entered) -> None:
    family = registry.family(env_id)
    for name in entered.trained_on:
        if (split := scenarios.load(family, name).split) != "train":
            raise ProbeGymError(f"{env_id} was trained on {name}, which is of the split {split}: only the split train is for training")
    for run, told in enumerate(entered.sha256, 1):
        inside = folders(folder, entered)[run - 1]
        if not inside.resolve().is_relative_to(folder.resolve()):
            raise ProbeGymError(f"{entered.folder} lies outside of the submission: put its bundles into its folder")
        policy = BundlePolicy(inside)
        if policy.spec.get("environment") != env_id:
            raise ProbeGymError(f"{inside.name} is a policy for {policy.spec.get('environment')}, not for {env_id}")
        if (found := bundle_digest(inside)) != told:
            raise ProbeGymError(f"{inside.name} has SHA-256 {found}, its manifest says {told}: it was changed after the manifest was written")


def folders(folder: Path, entered: Entered) -> list[Path]:
    """Where the policies of one environment are. Raises ProbeGymError when there are several without ``{seed}`` in their path."""
    if len(entered.sha256) > 1 and SEED not in entered.folder:
        raise ProbeGymError(f"{len(entered.sha256)} checksums, but one folder: put {SEED} where the number of the run stands")
    return [folder / entered.folder.replace(SEED, str(run)) for run in range(1, len(entered.sha256) + 1)]


def entered(suite: Suite, folder: Path) -> Suite:
    """The suite's part that a submission takes part in, its policies in the place of the learned agents. Raises ProbeGymError."""
    manifest = read(folder)
    chosen = suite.narrowed(list(manifest.policies), [])
    runs = {len(policy.sha256) for policy in manifest.policies.values() if SEED in policy.folder}
    if runs and runs != {suite.runs}:
        raise ProbeGymError(f"the suite has {suite.runs} runs, the submission policies for {', '.join(map(str, sorted(runs)))}: give as many, or --seeds")
    if manifest.name in (known := {agent for contest in suite.environments.values() for agent in contest.agents}):
        raise ProbeGymError(f"the suite has an agent {manifest.name} of its own ({', '.join(sorted(known))}): give the submission another name")
    contests = {env_id: contest.model_copy(update={"learned": manifest.name}) for env_id, contest in chosen.environments.items()}
    where = {env_id: {manifest.name: str((folder / policy.folder).absolute())} for env_id, policy in manifest.policies.items()}
    told = f"{manifest.name} ({', '.join(manifest.authors)}): {manifest.description}"
    return chosen.model_copy(update={"description": told, "environments": contests, "folders": where})
