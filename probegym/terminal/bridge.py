"""Commands of the bridge: deploy a policy, look at records, write and convert policies."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from probegym.agents.seeds import EVALUATION_SEED
from probegym.console import plain, say
from probegym.envs import environment_type
from probegym.errors import ProbeGymError
from probegym.hardware_bridge.deployment import Mode
from probegym.terminal.choices import Action, Protocol, Twin
from probegym.terminal.options import MAXIMUM_SEED, ScenarioOption, environment

BY_DEFAULT = "By default without limit in modes twin and shadow, else"
record_app = typer.Typer(help="Records of runs: verify, export, compare. Data sets: record, build, replay.")
Folder = Annotated[Path, typer.Argument(metavar="RECORD", help="Folder of a record.")]


def deploy(
    policy: Annotated[str, typer.Option("--policy", help="Shipped policy by name, or a policy folder.")],
    env: Annotated[str, typer.Option("--env", help="Environment.")],
    instrument: Annotated[str, typer.Option("--instrument", help="twin, nion, nion-twin or nanonis-twin (docs/connect.md), started for this run; FILE.json: how another is reached.")] = "twin",
    mode: Annotated[Mode, typer.Option("--mode", help="How much the policy is trusted with.")] = Mode.twin,
    scenario: ScenarioOption = "id",
    episodes: Annotated[int, typer.Option("--episodes", min=1, max=10**6, help="Number of episodes.")] = 1,
    seed: Annotated[int, typer.Option("--seed", min=0, max=MAXIMUM_SEED, help="First seed.")] = EVALUATION_SEED,
    deadline: Annotated[float, typer.Option("--deadline", min=0.001, max=60, help="Seconds for each decision of the policy.")] = 0.25,
    pace: Annotated[float, typer.Option("--pace", min=0, max=1e6, help="Simulated seconds a second of a twin; 0: as fast as it can.")] = 0.0,
    seconds: Annotated[float | None, typer.Option("--seconds", min=1, max=1e12, help=f"Instrument time that the run may take. {BY_DEFAULT} 3600.")] = None,
    changes: Annotated[int | None, typer.Option("--changes", min=0, max=10**9, help=f"Irreversible commands that the run may give. {BY_DEFAULT} 1000.")] = None,
    dose: Annotated[float | None, typer.Option("--dose", min=0, max=1e18, help="Electrons per square Angstrom for each region of a new sample, at their worst case. Without limit by default in modes twin and shadow.")] = None,
    changes_each: Annotated[int | None, typer.Option("--changes-each", min=0, max=10**9, help=f"Irreversible commands for each region of a new sample. {BY_DEFAULT} 1000.")] = None,
    approvals: Annotated[int | None, typer.Option("--approvals", min=0, help="First actions that an operator must agree to, the opening counts as one; all by default.")] = None,
    damage: Annotated[float | None, typer.Option("--damage", min=0, help=f"Events of damage before the run is held. {BY_DEFAULT} 0.")] = None,
    sample: Annotated[Path | None, typer.Option("--sample", help="The sample's account: what it has been through. By default, in modes twin and shadow, a new one in --out.")] = None,
    new_sample: Annotated[bool, typer.Option("--new-sample", help="Begin the account --sample: a sample that nothing was done to yet.")] = False,
    record: Annotated[Path | None, typer.Option("--record", help="Record to replay, with --mode replay.")] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder of the records.")] = Path("runs/deploy"),
    page: Annotated[bool, typer.Option("--page", help="Arm, agree and abort on the operator page, in a browser on this machine.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and start nothing.")] = False,
) -> None:
    """Run a policy on an instrument, behind the guard.

    replay: answers come from a record. twin: a simulated instrument, armed by itself. shadow: live data, no way to write.
    supervised: an operator agrees to actions. autonomous: alone, within the lease.
    """
    from probegym.agents.bundle import find
    from probegym.hardware_bridge.deployment.run import EVERY_ACTION, WITHOUT_LIMIT, Orders
    from probegym.terminal import deploy as deployment

    simulated = mode in (Mode.twin, Mode.shadow, Mode.replay)
    if sample is None and (new_sample or not simulated):
        raise ProbeGymError("say which sample is in the instrument: --sample FILE, and --new-sample --dose N for one that has no account yet")
    if new_sample and dose is None and not simulated:
        raise ProbeGymError("say what each region of the new sample may take at worst, in electrons per square Angstrom: --dose")
    if sample is not None and sample.exists() == new_sample:
        told = "there is one already: leave --new-sample out" if new_sample else "there is none, which counts as spent: --new-sample begins one"
        raise ProbeGymError(f"sample account {sample}: {told}")
    if sample is not None and not new_sample and (dose is not None or changes_each is not None):
        raise ProbeGymError(f"{sample} has its budget: --dose and --changes-each are for a new sample")
    given = {"seconds": seconds, "changes": changes, "dose": dose, "changes_each": changes_each, "damage": damage}
    free: dict[str, Any] = WITHOUT_LIMIT if simulated else {}
    account = sample or out / f"sample-{datetime.now(UTC):%Y%m%dT%H%M%S%f}.account"
    orders = Orders(environment(env), scenario, find(policy), mode, out, account, episodes, seed, deadline, pace,
                    approvals=EVERY_ACTION if approvals is None else approvals, record=record, instrument=instrument, new_sample=new_sample or sample is None,
                    **free | {name: value for name, value in given.items() if value is not None})  # fmt: skip
    if dry_run:
        deployment.plan(orders, plain())
        return
    raise typer.Exit(deployment.deploy(orders, page, plain()))


def serve(
    twin: Annotated[Twin, typer.Option("--twin", help="Which instrument.")],
    protocol: Annotated[Protocol, typer.Option("--protocol", help="bridge: our own. nanonis: as SPECS' controller. nion: inside Nion Swift, headless.")],
    scenario: ScenarioOption = "id",
    pace: Annotated[float, typer.Option("--pace", min=0, max=1e6, help="Simulated seconds a second; 0: as fast as it can.")] = 1.0,
    out: Annotated[Path, typer.Option("--out", help="File for how it is reached, with the secret in it; gone when it ends.")] = Path("instrument.json"),
) -> None:
    """Serve a twin for others to drive, until Ctrl-C.

    On the loopback interface only. One writer at a time.
    """
    from probegym.terminal.serve import serve as run

    run(twin, protocol, scenario, pace, out, plain())


def operate(
    action: Annotated[Action, typer.Argument(help="present renews the lease; agree and deny answer what waits; hold lets nothing pass, a session that asks meanwhile ends; disarm and abort take the safe state.")],
    at: Annotated[Path, typer.Option("--at", help="FILE-operator.json that a deployment wrote beside its record.")],
    number: Annotated[int | None, typer.Option("--number", min=1, help="Which request is meant by agree and deny, as status shows it.")] = None,
) -> None:
    """Operate a deployment that runs in another terminal.

    Who starts a deployment arms it there; all else can be done from anywhere of the same user.
    """
    from probegym.terminal.operate import operate as run

    run(action, at, number, plain())


def export(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Shipped policy by name, a policy folder, or the folder of a training.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the policy.")],
) -> None:
    """Write a verified policy (ONNX and JSON) to a folder.

    From a shipped policy, a policy folder, or the last checkpoint of a training.
    """
    from probegym.terminal.export import export as write

    write(source, out, plain())


def convert(
    model: Annotated[Path, typer.Argument(metavar="MODEL.zip", help="Model saved by Stable-Baselines3, PPO or SAC.")],
    env: Annotated[str, typer.Option("--env", help="Environment that it was trained on.")],
    scenario: ScenarioOption,
    out: Annotated[Path, typer.Option("--out", help="Folder of the policy.")],
    trust: Annotated[bool, typer.Option("--trust", help="Run the code that the file may hold: it is a pickle.")] = False,
) -> None:
    """Make a policy of an SB3 model: unpickles, with --trust.

    A pickle runs what its author put into it; no other command reads one, and this one only with --trust.
    """
    from probegym.terminal.convert import convert as write

    write(model, trust, environment(env), scenario, out, plain())


@record_app.command("verify")
def verify(folder: Folder) -> None:
    """Check every event and frame of a record.

    Exit code 1 when something is damaged.
    """
    from probegym.hardware_bridge.records.read import Record

    report = Record(folder).verify()
    say(plain(), str(report))
    raise typer.Exit(0 if report.sound else 1)


@record_app.command("export")
def export_record(
    folder: Folder,
    to: Annotated[str, typer.Option("--to", help="hspy, nxs or minari.")],
    out: Annotated[Path | None, typer.Option("--out", help="File or folder; beside the record by default.")] = None,
) -> None:
    """Write a record for HyperSpy, NeXus or Minari."""
    from probegym.hardware_bridge.records.export import export as write

    typer.echo(write(folder, to, out))


@record_app.command("compare")
def compare(folder: Folder) -> None:
    """Give the commands to the twin again and compare.

    Lists every reading that differs; exit code 1 when there is one.
    """
    from probegym import scenarios
    from probegym.hardware_bridge.instruments import twin
    from probegym.hardware_bridge.instruments.descriptions import describe
    from probegym.hardware_bridge.records.read import Record
    from probegym.hardware_bridge.records.replay import compare as differences
    from probegym.hardware_bridge.records.steps import about

    told = about(Record(folder))
    task = environment_type(told["environment"]).task_type
    world = twin.build(task.twin, scenarios.load(task.family, told["scenario"]).world, 0)
    found = differences(folder, world, permitted=describe(world).descriptor.check)
    for difference in found:
        typer.echo(difference)
    typer.echo(f"{len(found)} differences")
    raise typer.Exit(1 if found else 0)
