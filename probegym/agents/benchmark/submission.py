"""Submissions: policies of others as data, a folder with bundles and a manifest that says what they are.

``manifest.yaml`` holds name, authors, description, licence, and for each environment the scenarios trained on and the folder of its bundle with
the SHA-256 of both files; ``{seed}`` in a folder stands for the run where several trainings are handed in. The command that trained a policy
stands in its bundle. Nothing outside of a submission's folder is opened, and nothing in it is executed but the ONNX graphs of its bundles, see
hardware_bridge/deployment/bundle.py; each job runs in a process of its own.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from probegym import scenarios, tables
from probegym.agents import registry
from probegym.agents.benchmark.suite import SEED, Suite
from probegym.errors import ProbeGymError
from probegym.hardware_bridge.deployment import bundle
from probegym.hardware_bridge.deployment.policy import PolicyProcess

MANIFEST = "manifest.yaml"
SCHEMA = "probegym-submission/1"
MAXIMUM_BYTES = 100_000


def _printable(text: str) -> str:
    if not all(letter.isprintable() or letter == "\n" for letter in text):
        raise ValueError("must be printable")
    return text


Text = Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(_printable)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}$")]
"""Of a submission: it becomes part of names of files."""


class Entered(BaseModel):
    """One environment's policies. sha256: of each bundle, see ``bundle_digest``, in the order of the runs. trained_on: shipped scenarios of the split train."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: Text
    sha256: tuple[Annotated[str, Field(pattern="^[0-9a-f]{64}$")], ...] = Field(min_length=1, max_length=1000)
    trained_on: tuple[Text, ...] = Field(min_length=1)


class Manifest(BaseModel):
    """What a submission says of itself."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    schema_: str = Field(alias="schema", pattern=f"^{SCHEMA}$")
    name: Name
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
    _inside(folder, path)
    table, lines = tables.read_mapping(path, "manifest", MAXIMUM_BYTES)
    try:
        manifest = Manifest.model_validate(table)
    except ValidationError as error:
        where, told = tables.complaint(error)
        with _line_of(lines, *where.split(".")):
            raise ProbeGymError(f"{where}: {told}") from error
    for env_id, entered in manifest.policies.items():
        _check(folder, env_id, entered, lines)
    return manifest


@contextmanager
def _line_of(lines: tables.Lines, *entry: str) -> Iterator[None]:
    """What goes wrong here is told with the line of an entry of the manifest."""
    try:
        yield
    except (ProbeGymError, OSError) as error:
        raise ProbeGymError(f"{MANIFEST}, line {tables.nearest(lines, entry)}: {error}") from error


def _inside(folder: Path, path: Path) -> None:
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise ProbeGymError(f"{path.name} lies outside of the submission: put it into its folder, not a link to it")


def _check(folder: Path, env_id: str, entered: Entered, lines: tables.Lines) -> None:
    at = ("policies", env_id)
    with _line_of(lines, *at):
        family = registry.family(env_id)
    allowed = [name for name in scenarios.names(family) if scenarios.load(family, name).split == "train"]
    for index, name in enumerate(entered.trained_on):
        with _line_of(lines, *at, "trained_on", str(index)):
            if name not in scenarios.names(family):
                raise ProbeGymError(f"unknown scenario {name!r}: only scenarios that ship count, {', '.join(allowed)}")
            if name not in allowed:
                raise ProbeGymError(f"{env_id} was trained on {name}, which is of the split {scenarios.load(family, name).split}: only the split train is for training")
    with _line_of(lines, *at, "sha256"):
        every = folders(folder, entered)
    for index, inside in enumerate(every):
        with _line_of(lines, *at, "folder"):
            _inside(folder, inside)
            spec = bundle.read(inside).spec
            if spec["environment"] != env_id:
                raise ProbeGymError(f"{inside.name} is a policy for {spec['environment']}, not for {env_id}")
        with _line_of(lines, *at, "trained_on"):
            if spec["scenario"] not in entered.trained_on:
                raise ProbeGymError(f"{inside.name} says that it was trained on {spec['scenario']!r}, trained_on does not name it: it must tell all of the training")
        with _line_of(lines, *at, "sha256", str(index)):
            if (found := bundle_digest(inside)) != entered.sha256[index]:
                raise ProbeGymError(f"{inside.name} has SHA-256 {found}, its manifest says {entered.sha256[index]}: it was changed after the manifest was written, or the sum is not that of policy.onnx and policy.json, one after the other")
        with _line_of(lines, *at, "folder"):
            with PolicyProcess(inside):  # which gives its golden actions there, within limits of memory and time
                pass


def folders(folder: Path, entered: Entered) -> list[Path]:
    """Where the policies of one environment are. Raises ProbeGymError when there are several without ``{seed}`` in their path."""
    if len(entered.sha256) > 1 and SEED not in entered.folder:
        raise ProbeGymError(f"{len(entered.sha256)} checksums, but one folder: put {SEED} where the number of the run stands")
    return [folder.absolute() / entered.folder.replace(SEED, str(run)) for run in range(1, len(entered.sha256) + 1)]


def entered(suite: Suite, folder: Path, environments: Sequence[str] = ()) -> Suite:
    """The suite's part that a submission takes part in, or these environments of it, with its policies for the learned agents. Raises ProbeGymError."""
    manifest = read(folder)
    if missing := sorted(set(environments) - set(manifest.policies)):
        raise ProbeGymError(f"the submission has no policy for {', '.join(missing)}: use {', '.join(manifest.policies)}")
    if manifest.name in (known := {agent for contest in suite.environments.values() for agent in contest.agents}):
        raise ProbeGymError(f"the suite has an agent {manifest.name} of its own ({', '.join(sorted(known))}): give the submission another name")
    chosen = suite.narrowed(list(environments or manifest.policies), [])
    taken = {env_id: manifest.policies[env_id] for env_id in chosen.environments}
    runs = {len(policy.sha256) for policy in taken.values() if SEED in policy.folder}
    if runs and runs != {suite.runs}:
        raise ProbeGymError(f"the suite has {suite.runs} runs, the submission policies for {', '.join(map(str, sorted(runs)))}: give as many, or --seeds")
    contests = {env_id: contest.model_copy(update={"learned": manifest.name}) for env_id, contest in chosen.environments.items()}
    where = {env_id: suite.folders.get(env_id, {}) | {manifest.name: str(folder.absolute() / policy.folder)} for env_id, policy in taken.items()}
    told = f"{manifest.name} ({', '.join(manifest.authors)}): {manifest.description}"
    return chosen.model_copy(update={"description": told, "environments": contests, "folders": where, "authors": manifest.authors, "licence": manifest.licence})
