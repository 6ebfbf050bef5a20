"""The command line, called within the process of the test."""

from __future__ import annotations

from typer.testing import CliRunner

from probegym.cli import app


def call(*arguments, **options):
    """What the command line does in this process, on a wide terminal."""
    return CliRunner(env={"COLUMNS": "500"}).invoke(app, [str(a) for a in arguments], **options)
