"""Regret of every action of every agent in TipConditioning and AdatomManipulation, and a question that only an intervention answers.

In hindsight: beside the best branch in the noise that was, over all candidates, oracle afterwards. Expected: means over noise drawn anew after
each snapshot, the same for all candidates; too high where the best is chosen and valued by the same draws, too low where by two halves.
An oracle is none if even the lower figure is above zero.

The question: would another look before treating have helped? Decisions at which the agent treated, compared with those at which it looked
(as a log shows it, and with what the log shows held fixed by regression), and with what would have come of a look at the same snapshots.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
from report import json_line, table

import probegym  # noqa: F401  registers the environments
from probegym.agents.base import Agent
from probegym.agents.branches import Branch, Branches, Memories, walk
from probegym.agents.evaluate import EVALUATION_SEED
from probegym.agents.registry import make_agent
from probegym.agents.regret import EPSILON, Regrets, noises, regrets
from probegym.envs.episodes import Episodes
from probegym.envs.task import Observation


@dataclass(frozen=True)
class Subject:
    """Agents of one environment, those whose actions are candidates beside them, the scenarios, and episodes with noise drawn anew on the first."""

    env_id: str
    agents: tuple[str, ...]
    advisers: tuple[str, ...]
    scenarios: tuple[str, str]
    known: int


SUBJECTS = {
    "tips": Subject("probegym/TipConditioning-v0", ("oracle", "tip-conditioning", "fixed-recipe", "greedy-table", "random"), (), ("id", "far-efficacy"), 10),
    "adatoms": Subject(
        "probegym/AdatomManipulation-v0", ("oracle", "adatom-manipulation", "corrected-drag", "grid-table", "fixed-drag", "random"),
        ("corrected-drag", "grid-table", "fixed-drag"), ("id", "far-tip-change"), 25,
    ),
}  # fmt: skip
TIPS = SUBJECTS["tips"].env_id
PARTS = (*SUBJECTS, "unseen", "question")
LOOK = 0
QUESTIONS = (("tip-conditioning", "id", 4), ("tip-conditioning", "near-classifier", 4), ("fixed-recipe", "id", 0), ("fixed-recipe", "near-classifier", 0))
"""Agent, scenario, and further draws of the noise: the script's episodes are long."""


def span(low_high: list[float]) -> str:
    """An interval in a table."""
    return f"{low_high[0]:.3g} to {low_high[1]:.3g}"


def measured(subject: Subject, scenario: str, name: str, episodes: int, draws: int) -> Regrets:
    """Regrets of one agent."""
    start = time.perf_counter()
    advisers = {other: make_agent(other, subject.env_id) for other in subject.advisers if other != name}
    found = regrets(make_agent(name, subject.env_id), subject.env_id, scenario, episodes, draws=draws, advisers=advisers)
    print(f"{scenario}, {name}, {draws} draws: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    return found


def hindsight(found: dict[str, Regrets], title: str) -> dict[str, dict]:
    """Regrets in the noise that was, and what those of an episode are made of."""
    told = {name: each.summary() for name, each in found.items()}
    rows = [(name, f"{s['success']:.0%}", s["obtained"], s["steps"], s["regret_step"], span(s["regret_step_interval"]), f"{s['share']:.0%}",
             s["regret_50"], s["regret_90"], s["regret_99"], s["regret_100"]) for name, s in told.items()]  # fmt: skip
    header = ("agent", "success", "return", "steps", "regret a step", "95 %", f"above {EPSILON:g}", "median", "90 %", "99 %", "most")
    table(f"{title}: regret of an action, in the noise that was", header, rows)
    columns = ("shortfall", "slack_episode", "residue")
    rows = [(name, s["regret_episode"], span(s["regret_episode_interval"]), *(s[key] for key in columns)) for name, s in told.items()]
    header = ("agent", "regret an episode", "95 %", "= V_oracle - V_agent", "+ the oracle's in the same states", "residue")
    table(f"{title}: what the regret of an episode is made of", header, rows)
    return told


def expected(found: dict[str, Regrets], title: str, draws: int) -> dict[str, dict]:
    """Regrets in noise drawn anew."""
    told = {name: each.summary() for name, each in found.items()}
    rows = [(name, s["steps"], *(part for key in ("crossed_step", "regret_step") for part in (s[key], span(s[f"{key}_interval"])))) for name, s in told.items()]
    header = ("agent", "steps", "regret a step, not below", "95 %", "not above", "95 %")
    table(f"{title}: expected regret, {draws} draws of the noise", header, rows)
    return told


def actions(found: dict[str, Regrets], title: str) -> None:
    """Which actions are regretted, and what would have been better."""
    rows = [(name, r["action"], r["taken"], r["regret"], f"{r['share']:.0%}", r["instead"]) for name, each in found.items()
            for r in sorted(each.by_action(), key=lambda row: -row["share"])[:5] if r["taken"]]  # fmt: skip
    table(f"{title}: which actions are regretted most", ("agent", "action", "taken", "mean regret", "share of all", "mostly better"), rows)


def better(found: dict[str, Regrets], title: str) -> None:
    """Which kind of candidate was best."""
    rows = []
    for name, each in found.items():
        kinds = np.array([other.rsplit(" ", 1)[0] for other in each.names])[each.best]
        for kind in dict.fromkeys(kinds[np.argsort(each.best)]):
            rows.append((name, kind, f"{(kinds == kind).mean():.0%}", float(each.regret[kinds == kind].mean())))
    table(f"{title}: whose action was best", ("agent", "best", "of the steps", "regret of not taking it"), rows)


def unseen(scenario: str, episodes: int) -> dict[str, float]:
    """How much the oracle of AdatomManipulation regrets where the atom has arrived and no image has shown it, so that the episode goes on."""
    subject = SUBJECTS["adatoms"]
    found, env, arrived = measured(subject, scenario, "oracle", episodes, 0), gym.make(subject.env_id, scenario=scenario).unwrapped, []
    for n in range(episodes):
        for visit in walk(make_agent("oracle"), subject.env_id, scenario, EVALUATION_SEED + n)[0]:
            env.restore(visit.start)
            task, memory, truth = env.episodes.task, env.episodes.memory, env.episodes.truth
            arrived.append(bool(task.goals.reached(task.notes.shown(truth["position"][:, : task.settings.atoms], memory), memory["desired"])[0]))
    there, told = np.array(arrived), {}
    rows = []
    for label, on in (("atom has arrived, no image has shown it", there), ("atom is elsewhere", ~there)):
        told[label] = float(found.regret[on].sum() / found.regret.sum())
        rows.append((label, int(on.sum()), float(found.regret[on].mean()), f"{told[label]:.0%}"))
    table(f"AdatomManipulation-v0, {scenario}, {episodes} episodes: where the oracle regrets", ("before the step", "steps", "mean regret", "share of all"), rows)
    return told


# ---- an intervention ----


class BestTreatment(Agent):
    """The treatment with the least expected cost to go, by someone who sees the apex; never a look, never a declaration."""

    def begin(self, lanes: int, seed: int) -> None:
        pass

    def act(self, observation: Observation, episodes: Episodes) -> np.ndarray:
        cost = np.where(observation["room"][:, 1:-1] > 0, episodes.world.truth()["cost_to_go"][:, 1:], np.inf)
        return 1 + cost.argmin(1)


def question(name: str, scenario: str, episodes: int, draws: int) -> dict[str, tuple[float, list[float]]]:
    """What a look instead of a treatment changes in the return from there on: estimates and 95 % intervals, bootstrapped over episodes."""
    agent = make_agent(name, TIPS)
    memories = Memories(agent)
    walks = [walk(agent, TIPS, scenario, EVALUATION_SEED + n, [BestTreatment()], memories) for n in range(episodes)]
    declare = gym.make(TIPS, scenario=scenario).unwrapped.episodes.task.declare
    rows = [(n, visit, outcome) for n, (visits, outcome) in enumerate(walks) for visit in visits if visit.action != declare]
    episode, looked = np.array([n for n, *_ in rows]), np.array([visit.action == LOOK for _, visit, _ in rows])
    before = np.array([visit.total for _, visit, _ in rows])
    real = np.array([outcome.total for *_, outcome in rows]) - before
    other = np.empty(len(rows))
    todo = [Branch(visit, visit.advice[0] if visit.action == LOOK else np.int64(LOOK)) for _, visit, _ in rows]
    pool = Branches(TIPS, scenario, agent, memories)
    for number, outcome in pool.run(todo):
        other[number] = outcome.total - before[number]
    arms = [(n, sign, Branch(rows[n][1], action, key)) for n in np.flatnonzero(~looked) for key in (noises(rows[n][1], draws) if draws else ())
            for sign, action in ((1, np.int64(LOOK)), (-1, rows[n][1].action))]  # fmt: skip
    anew = np.zeros(len(rows))
    for number, outcome in pool.run([branch for *_, branch in arms]):
        anew[arms[number][0]] += arms[number][1] * outcome.total / draws
    effect = np.where(looked, real - other, other - real)  # of a look
    seen = [visit.start.observation for _, visit, _ in rows]
    columns = [np.ones(len(rows)), [v.step for _, v, _ in rows], *(np.array([s[key][0] for s in seen]) for key in ("verdict", "area", "budget"))]
    shown = np.column_stack(columns).astype(float)

    def mean(values: np.ndarray, on: np.ndarray, weight: np.ndarray) -> float:
        return float((weight * on * values).sum() / (weight * on).sum()) if (weight * on).any() else float("nan")

    def estimates(weight: np.ndarray) -> dict[str, float]:
        here, there = mean(real, looked, weight), mean(real, ~looked, weight)
        root = np.sqrt(weight)[:, None]
        held = np.linalg.lstsq(root * np.column_stack([shown, looked]), root[:, 0] * real, rcond=None)[0][-1]
        caused = mean(effect, ~looked, weight)
        return {"looked": here, "treated": there, "naive": here - there, "adjusted": float(held), "do": caused, "anew": mean(anew, ~looked, weight),
                "selection": here - there - caused, "do_where_looked": mean(effect, looked, weight)}  # fmt: skip

    rng, point = np.random.default_rng(0), estimates(np.ones(len(rows)))
    drawn = [estimates(np.bincount(rng.integers(0, episodes, episodes), minlength=episodes)[episode].astype(float)) for _ in range(1000)]
    out = {key: (value, np.nanquantile([d[key] for d in drawn], [0.025, 0.975]).tolist()) for key, value in point.items()}
    if not draws:
        del out["anew"]
    return out | {"decisions": (float(len(rows)), []), "share_looked": (float(looked.mean()), [])}


def ask(episodes: int) -> dict[str, dict]:
    """Print the answers."""
    told = {f"{name}, {scenario}": question(name, scenario, episodes, draws) for name, scenario, draws in QUESTIONS}
    labels = {"looked": "return from there on, where it looked", "treated": "... where it treated", "naive": "naive: the difference",
              "adjusted": "adjusted for verdict, image, area, budget", "do": "do(look) - do(treat), where it treated",
              "anew": "... the mean of four other draws of the noise",
              "selection": "confounding: naive - do", "do_where_looked": "do(look) - do(best treatment), where it looked"}  # fmt: skip
    for key, answers in told.items():
        share = answers["share_looked"][0]
        rows = [(label, answers[name][0], span(answers[name][1])) for name, label in labels.items() if name in answers]
        asked = f"{key}: {answers['decisions'][0]:.0f} decisions, {share:.0%} of them looks"
        table(f"Would another look before treating have helped? {asked}", ("", "estimate", "95 %"), rows)
    return told


def main() -> None:
    """Print the tables and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--far-episodes", type=int, default=50)
    parser.add_argument("--known-episodes", type=int, help="episodes with noise drawn anew")
    parser.add_argument("--draws", type=int, default=8, help="of the noise; even")
    parser.add_argument("--questions", type=int, default=300, help="episodes of the intervention")
    parser.add_argument("--only", nargs="*", default=PARTS, choices=PARTS)
    arguments = parser.parse_args()
    results: dict[str, dict] = {}
    for key in (key for key in SUBJECTS if key in arguments.only):
        subject = SUBJECTS[key]
        for scenario, episodes in zip(subject.scenarios, (arguments.episodes, arguments.far_episodes), strict=True):
            title = f"{subject.env_id.split('/')[1]}, {scenario}, seeds from {EVALUATION_SEED}"
            found = {name: measured(subject, scenario, name, episodes, 0) for name in subject.agents}
            results[f"{key} {scenario} hindsight"] = hindsight(found, f"{title}, {episodes} episodes")
            (actions if key == "tips" else better)(found, title)
            sys.stdout.flush()
        known, scenario = arguments.known_episodes or subject.known, subject.scenarios[0]
        found = {name: measured(subject, scenario, name, known, arguments.draws) for name in subject.agents}
        title = f"{subject.env_id.split('/')[1]}, {scenario}, seeds from {EVALUATION_SEED}, {known} episodes"
        results[f"{key} {scenario} expected"] = expected(found, title, arguments.draws)
        sys.stdout.flush()
    if "unseen" in arguments.only:
        results["unseen"] = {scenario: unseen(scenario, arguments.episodes) for scenario in SUBJECTS["adatoms"].scenarios}
    if "question" in arguments.only:
        results["question"] = ask(arguments.questions)
    json_line("regret", results=results)


if __name__ == "__main__":
    main()
