"""The ``probegym`` command. Mistakes get one red line on stderr and exit code 2; Ctrl-C gives 130.

torch, SB3 and abTEM are imported inside the commands that need them, so that listing and help are quick.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

import probegym
from probegym import scenarios
from probegym.console import plain, say
from probegym.envs import environment_type
from probegym.errors import ProbeGymError
from probegym.terminal import bridge, datasets, gallery, regret
from probegym.terminal.options import MAXIMUM_SEED, Env, ExecutorName, ScenarioOption, Seed, Workers, environment, names
from probegym.terminal.sweep import sweep

_CLICK_ERROR: Any = typer.BadParameter.__mro__[2]  # ClickException, which typer carries but does not name


class Algorithm(StrEnum):
    """How ``train`` learns."""

    distil = "distil"
    ppo = "ppo"
    sac = "sac"


def _complain(message: str) -> None:
    line = Text.assemble(("error: ", "red"), " ".join(message.split()))
    plain(stderr=True, soft_wrap=True).print(line)


class _Command(TyperGroup):
    """The group of commands with our way of ending: exit codes 0, 2 and 130, one line an error."""

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, complete_var: str | None = None, standalone_mode: bool = True,
             windows_expand_args: bool = True, **extra: Any) -> Any:  # fmt: skip
        code = self._run(args, prog_name or "probegym", complete_var, extra | {"windows_expand_args": windows_expand_args})
        if standalone_mode:
            sys.exit(code)
        return code

    def _run(self, args: Sequence[str] | None, prog_name: str, complete_var: str | None, extra: dict[str, Any]) -> int:
        try:
            result = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
            return result if isinstance(result, int) else 0
        except ProbeGymError as error:
            _complain(str(error))
        except _CLICK_ERROR as error:
            hint = "" if "--help" in error.format_message() else " (see --help)"
            _complain(f"{error.format_message().rstrip('.')}{hint}")
        except (KeyboardInterrupt, typer.Abort):
            return 130
        except ModuleNotFoundError as error:
            if (error.name or "probegym").startswith("probegym"):
                raise
            _complain(f"this needs {error.name}, which is not installed: pip install 'probegym[train]' (training, specimens), 'probegym[data]' (data sets) or 'probegym[deploy]' (the bridge)")
        except OSError as error:
            _complain(f"{error.filename or 'a file'}: {error.strerror or error}: check the path, free space or choose another folder")
        return 2


app = typer.Typer(cls=_Command, add_completion=False, rich_markup_mode=None, help="Reinforcement learning for electron and tip microscopes.")
specimen_app = typer.Typer(help="List specimens, or build others with abTEM.")
app.add_typer(specimen_app, name="specimen")


def _help_alone(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


for _group in (specimen_app, bridge.record_app):
    _group.callback(invoke_without_command=True)(_help_alone)


@app.callback(invoke_without_command=True)
def _top(context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    if version:
        typer.echo(f"probegym {probegym.__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


# ---- looking ----


@app.command("list")
def list_() -> None:
    """Environments, scenarios, scripts, policies, specimens."""
    from probegym.agents.registry import BASELINES, policies, scripts
    from probegym.physics.specimens import available

    console = plain(soft_wrap=True)
    for env_id in probegym.ENVIRONMENTS:
        family = environment_type(env_id).task_type.family
        say(console, env_id, style="bold")
        console.print(_scenario_table(family))
        say(console, f"  scripts: {', '.join(scripts(family)) or 'none'}\n  policies: {', '.join(policies(env_id)) or 'none'}\n")
    say(console, f"every environment also has the agents {' and '.join(BASELINES[None])}")
    say(console, "\nspecimens", style="bold")
    say(console, f"  {', '.join(sorted(available()))}")


def _scenario_table(family: str) -> Table:
    table = Table("  scenario", "split", "axis", "description", box=None, pad_edge=False, header_style="dim")
    for name in scenarios.names(family):
        scenario = scenarios.load(family, name)
        table.add_row(f"  {name}", scenario.split, scenario.axis, scenario.description)
    return table


@app.command()
def show(env: Env, scenario: Annotated[str | None, typer.Option("--scenario", help="Print this scenario instead.")] = None) -> None:
    """The page of an environment, or one scenario in full."""
    from rich.markdown import Markdown

    env_id = environment(env)
    kind = environment_type(env_id)
    if scenario is not None:
        import yaml

        resolved = scenarios.load(kind.task_type.family, scenario).model_dump(exclude_none=True, mode="json")
        typer.echo(yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True, width=120), nl=False)
        return
    console = plain()
    say(console, f"{env_id}\n", style="bold")
    console.print(Markdown(inspect.getdoc(kind) or ""))
    console.print()
    console.print(_scenario_table(kind.task_type.family))


@app.command("scenarios")
def scenarios_(
    env: Annotated[str | None, typer.Argument(help="Environment; all of them by default.")] = None,
    file: Annotated[Path | None, typer.Option("--file", help="A scenario file of your own, for ENV.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Play some steps of each instead.")] = False,
) -> None:
    """Scenarios, and what sets each apart from training.

    With --file, those of your own file: what is wrong in it is told with its line. --check plays each for some steps.
    """
    from probegym.terminal import scenarios as shown

    if file is not None and env is None:
        raise ProbeGymError("a scenario file is for one environment: name it, as in 'probegym scenarios StemTuning --file mine.yaml'")
    ids, console = [environment(env)] if env else list(probegym.ENVIRONMENTS), plain()
    if check:
        raise typer.Exit(max(shown.checked(env_id, file, console) for env_id in ids))
    for env_id in ids:
        shown.listed(env_id, file, console)


# ---- doing ----


@app.command()
def demo(out: Annotated[Path, typer.Option("--out", help="Folder of the report.")] = Path("runs/demo")) -> None:
    """Train a small agent live, compare it, write a report. Some minutes."""
    from probegym.agents import files

    files.replaceable(out)  # before torch is loaded
    from probegym.agents.demo import run

    run(out, console=plain())


@app.command()
def train(
    env: Env,
    algorithm: Annotated[Algorithm, typer.Option("--algorithm", help="distil: the environment's own trainer, which may learn from what is hidden; ppo and sac: by reward alone.")] = Algorithm.distil,
    scenario: ScenarioOption = "train",
    updates: Annotated[int | None, typer.Option("--updates", min=1, max=10**8, help="Gradient steps (distil; by default the environment's own number).")] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, max=10**10, help="Environment steps (ppo, sac; 100000).")] = None,
    seed: Seed = 1,
    out: Annotated[Path, typer.Option("--out", help="Folder of checkpoints, TensorBoard logs and policy.")] = Path("runs/train"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in the folder.")] = False,
    chosen: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=NUMBER", help="A hyperparameter of ppo or sac, as probegym sweep finds them.")] = None,
    seeds: Annotated[int | None, typer.Option("--seeds", min=1, max=10_000, help="Train so many seeds, each into OUT/seed-k.")] = None,
    first_seed: Annotated[int | None, typer.Option("--first-seed", min=0, max=MAXIMUM_SEED, help="The first of --seeds; 1.")] = None,
    executor: Annotated[ExecutorName | None, typer.Option("--executor", help="Where --seeds are trained: local (a process each) or ray.")] = None,
    workers: Workers = None,
) -> None:
    """Train an agent, with checkpoints and TensorBoard logs.

    The policy goes to OUT/policy at the end. After an interruption, the same command with --resume goes on.
    """
    wrong, other = ("--steps", "--updates") if algorithm is Algorithm.distil else ("--updates", "--steps")
    if (steps if algorithm is Algorithm.distil else updates) is not None:
        raise ProbeGymError(f"{wrong} does not go with --algorithm {algorithm}: use {other}")
    env_id = environment(env)
    from probegym.agents.hyperparameters import parsed
    from probegym.terminal import train as training

    hyperparameters = parsed(str(algorithm), chosen or [])

    training.refuse_unfit(env_id, scenario, str(algorithm))
    if seeds is None and (first_seed is not None or executor or workers):
        raise ProbeGymError("--first-seed, --executor and --workers go with --seeds: give that too, or leave them out")
    if seeds is not None and seed != 1:
        raise ProbeGymError("--seed does not go with --seeds: use --first-seed")
    console = plain()
    if seeds is not None:
        from probegym.agents.executors import executor as made

        first = 1 if first_seed is None else first_seed
        training.many(env_id, scenario, str(algorithm), updates or steps, hyperparameters, range(first, first + seeds), out, resume,
                      made(executor or ExecutorName.local, workers), console)  # fmt: skip
    elif algorithm is Algorithm.distil:
        training.distil(env_id, scenario, updates, seed, out, resume, console)
    else:
        from probegym.agents.sb3 import Training

        asked = Training(env_id, scenario, str(algorithm), steps or training.DEFAULT_STEPS, seed, hyperparameters)
        training.reinforce(asked, out, resume, console)


app.command()(sweep)


@app.command()
def evaluate(
    agent: Annotated[str, typer.Option("--agent", help="Baseline or shipped policy by name, or a policy folder.")],
    env: Annotated[str, typer.Option("--env", help="Environment.")] = "StemTuning",
    scenario: ScenarioOption = "id",
    episodes: Annotated[int, typer.Option("--episodes", min=1, max=10**7, help="Number of episodes.")] = 200,
    seed: Annotated[int | None, typer.Option("--seed", min=0, max=MAXIMUM_SEED, help="First seed; by default beyond those of training.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Also write the results to this JSON file.")] = None,
) -> None:
    """Measure an agent on whole episodes.

    Success with its 95 % interval; measurements, seconds and dose to the goal; the environment's own figures.
    """
    env_id = environment(env)
    scenarios.load(environment_type(env_id).task_type.family, scenario)
    from probegym.terminal import measure

    measure.report(agent, env_id, scenario, episodes, seed, out, plain())


@app.command()
def benchmark(
    suite: Annotated[str, typer.Option("--suite", help="Suite by name, or a YAML file.")] = "core",
    envs: Annotated[str, typer.Option("--envs", help="Only these environments, with commas between.")] = "",
    agents: Annotated[str, typer.Option("--agents", help="Only these agents; random and oracle stay.")] = "",
    seeds: Annotated[int | None, typer.Option("--seeds", min=1, max=1000, help="Runs, each on episodes of its own.")] = None,
    episodes: Annotated[int | None, typer.Option("--episodes", min=1, max=100_000, help="Episodes of each run.")] = None,
    submission: Annotated[Path | None, typer.Option("--submission", help="Folder with a manifest and the policies of others.")] = None,
    executor: Annotated[ExecutorName, typer.Option("--executor", help="local: a process for each job. ray: many machines.")] = ExecutorName.local,
    workers: Workers = None,
    report: Annotated[bool, typer.Option("--report", help="Only make the report anew of the raw results in OUT.")] = False,
    out: Annotated[Path, typer.Option("--out", help="Folder of raw results and report.")] = Path("runs/benchmark"),
) -> None:
    """Benchmark agents in and out of distribution.

    Raw results are kept as they come; the same command goes on where it was stopped. Exit code 1 when runs are missing.
    """
    from probegym.terminal import benchmark as running

    ids = [environment(name) for name in names("--envs", envs)]
    meant = running.chosen(suite, ids, names("--agents", agents), seeds, episodes, submission)
    console = plain()
    raise typer.Exit(running.shown(meant, out, console) if report else running.run(meant, out, running.executors.executor(str(executor), workers), console))


@app.command()
def play(
    env: Env,
    scenario: ScenarioOption = "id",
    seed: Annotated[int | None, typer.Option("--seed", min=0, max=MAXIMUM_SEED, help="Episode; a new one by default.")] = None,
    browser: Annotated[bool, typer.Option("--browser", help="On a page in a browser on this machine, not in the terminal.")] = False,
    everybody: Annotated[bool, typer.Option("--all", help="Wait for agents that take long, too.")] = False,
    out: Annotated[Path, typer.Option("--out", help="Folder of frame.png.")] = Path("runs/play"),
) -> None:
    """Play an environment by hand, in the terminal or in a browser.

    Compares you with scripts, shipped policies and the oracle on the same seed. Keys may be piped in, one a line.
    """
    import numpy as np

    from probegym.agents.files import writable
    from probegym.terminal.compare import PATIENCE
    from probegym.terminal.game import open_game

    env_id, patience = environment(env), float("inf") if everybody else PATIENCE
    seed = int(np.random.default_rng().integers(MAXIMUM_SEED)) if seed is None else seed
    if browser:
        from probegym.terminal.play_page.server import serve

        serve(open_game(env_id, scenario, seed), plain(), patience)
        return
    from probegym.terminal.play import Play

    game = open_game(env_id, scenario, seed)  # before the folder, which a mistake must not leave behind
    Play(game, writable(out, 1_000_000), plain(), patience).run(sys.stdin)


app.command()(gallery.gallery)
app.command()(regret.regret)


# ---- the bridge ----

_command: Callable[..., None]
for _command in (bridge.deploy, bridge.operate, bridge.serve, bridge.export, bridge.convert):
    app.command()(_command)
for _command in (datasets.dataset, datasets.build, datasets.replay):
    bridge.record_app.command()(_command)
app.add_typer(bridge.record_app, name="record")
app.command()(datasets.clone)


# ---- specimens ----


@specimen_app.command("list")
def specimen_list() -> None:
    """Specimens that can be used, and where they come from."""
    from probegym.physics import specimens

    table = Table("specimen", "energy", "aperture", "detectors", "description", box=None, pad_edge=False, header_style="dim")
    for name, path in sorted(specimens.available().items()):
        s = specimens.read(path)
        detectors = ", ".join(f"{d} {1e3 * a:g}-{1e3 * b:g}" for d, (a, b) in s.detectors.items()) or f"{0 if s.films is None else len(s.films)} films"
        own = "" if path.parent == specimens.SHIPPED else " (yours)"
        table.add_row(name, f"{s.energy / 1e3:g} kV", f"{1e3 * s.semiangle_cutoff:g} mrad", detectors, s.description + own)
    plain(soft_wrap=True).print(table)


@specimen_app.command("build")
def specimen_build(
    what: Annotated[str, typer.Argument(metavar="NAME|FILE", help="A standard specimen, or a structure as .cif or .xyz.")],
    energy: Annotated[float | None, typer.Option("--energy", min=1e4, max=1e6, help="Beam energy in eV.")] = None,
    semiangle: Annotated[float | None, typer.Option("--semiangle", min=1, max=100, help="Aperture in mrad.")] = None,
    detector: Annotated[list[str] | None, typer.Option("--detector", help="name=inner-outer in mrad; repeatable.")] = None,
    thickness: Annotated[float, typer.Option("--thickness", min=0, max=200, help="nm along the beam, for periodic files.")] = 0.0,
    name: Annotated[str | None, typer.Option("--name", help="Name in scenarios; by default that of the recipe or file.")] = None,
) -> None:
    """Run abTEM's multislice once and keep the scattering tensors in your cache folder."""
    from probegym.terminal.specimen import build

    build(what, energy, semiangle, detector or [], thickness, name, plain())


def main() -> None:
    """Entry point."""
    app()
