"""Options that several commands have."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

import probegym
from probegym.errors import ProbeGymError

MAXIMUM_SEED = 2**31 - 1

Env = Annotated[str, typer.Argument(metavar="ENV", help="Environment, for example StemTuning.")]
ScenarioOption = Annotated[str, typer.Option("--scenario", help="Scenario by name, or FILE.yaml:NAME.")]
Seed = Annotated[int, typer.Option("--seed", min=0, max=MAXIMUM_SEED, help="Seed of everything random.")]
Workers = Annotated[int | None, typer.Option("--workers", min=1, max=10_000, help="Jobs at once; by default 2, with ray all processors.")]


class ExecutorName(StrEnum):
    """Where jobs are carried out."""

    local = "local"
    ray = "ray"


def environment(name: str) -> str:
    """The id for ``StemTuning``, ``StemTuning-v0`` or ``probegym/StemTuning-v0``; raises ProbeGymError."""
    short = {key.split("/")[1].rsplit("-v", 1)[0].lower(): key for key in probegym.ENVIRONMENTS}
    wanted = re.sub(r"-v0$", "", name.removeprefix("probegym/")).lower()
    if wanted not in short:
        raise ProbeGymError(f"unknown environment {name!r}: use one of {', '.join(key.split('/')[1] for key in probegym.ENVIRONMENTS)}")
    return short[wanted]


def names(option: str, text: str) -> list[str]:
    """What an option with commas between names tells, nothing for no text; raises ProbeGymError where one is empty."""
    told = [name.strip() for name in text.split(",")] if text else []
    if not all(told):
        raise ProbeGymError(f"{option}: {text!r} has an empty name: give names with one comma between two")
    return told


def results_file(out: Path | None) -> None:
    """Try where a file of results is to be, before the long work; None: none is wanted. Raises ProbeGymError."""
    if out is None:
        return
    if out.is_dir():
        raise ProbeGymError(f"{out} is a folder: name a file with --out")
    from probegym.agents import files

    files.writable(out.parent, needed=1_000_000)
