"""Installs the bridge as on a microscope's computer, in a fresh virtual environment without torch, abTEM and SB3, and deploys a policy there."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from report import json_line, table

ROOT = Path(__file__).parents[1]
ABSENT = ("torch", "stable_baselines3", "abtem", "ase")


def run(*command: str | Path) -> str:
    """What a command printed; raises CalledProcessError, its words on stderr."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode:
        sys.stderr.write(done.stdout + done.stderr)
        done.check_returncode()
    return done.stdout


def main() -> None:
    """Print the table and one JSON line."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        begun = time.perf_counter()
        run(sys.executable, "-m", "venv", home / "venv")
        python = home / "venv" / "bin" / "python"
        run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", ROOT / "constraints.txt", f"{ROOT}[deploy]")
        installed = time.perf_counter() - begun
        packages = run(python, "-m", "pip", "list", "--format", "freeze").split()
        size = sum(path.stat().st_size for path in (home / "venv").rglob("*") if path.is_file()) / 1e6
        present = [name for name in ABSENT if subprocess.run([python, "-c", f"import {name}"], capture_output=True).returncode == 0]
        begun = time.perf_counter()
        said = run(python, "-m", "probegym", "deploy", "--policy", "stem-tuning-ronchigram", "--env", "StemTuning", "--episodes", "5", "--deadline", "5", "--out", home / "runs")
        played = time.perf_counter() - begun
    print(said)
    rows = [("packages", len(packages)), ("MB", f"{size:.0f}"), ("installation, s", f"{installed:.0f}"), ("deployment of 5 episodes, s", f"{played:.0f}"),
            ("of torch, SB3, abTEM, ASE there", ", ".join(present) or "none")]  # fmt: skip
    table("A microscope's computer", ("what", "value"), rows)
    json_line("microscope_pc", packages=len(packages), megabytes=size, installation=installed, deployment=played, present=present)


if __name__ == "__main__":
    main()
