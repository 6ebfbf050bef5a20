"""Branches of episodes and regrets: exact in the same noise, never negative, and what they add up to."""

from __future__ import annotations

import json

import gymnasium as gym
import numpy as np
import pytest

from probegym.agents.base import Agent, RandomAgent, Script
from probegym.agents.baselines_adatoms import CorrectedDrag, FixedDrag
from probegym.agents.baselines_beam import BayesianGreedy
from probegym.agents.baselines_stm import FixedRecipe, GreedyTable
from probegym.agents.branches import Branch, Branches, Memories, Outcome, walk
from probegym.agents.registry import make_agent
from probegym.agents.regret import Regrets, candidates, noises, regrets
from probegym.agents.seeds import EVALUATION_SEED
from probegym.cli import app
from probegym.console import plain
from probegym.errors import ProbeGymError
from probegym.terminal.regret import _table
from tests.helpers import differences

pytestmark = pytest.mark.xdist_group("regret")  # one process makes what its tests share

TIPS, ADATOMS, BEAM = "probegym/TipConditioning-v0", "probegym/AdatomManipulation-v0", "probegym/BeamManipulation-v0"
SEED = EVALUATION_SEED + 10  # episodes long enough to be regretted
LOOK, DECLARE, PRICE = 0, 13, 0.02


class Acts(Agent):
    """Does what it is told, one action after the other, then what an oracle would."""

    def __init__(self, *actions: int):
        self.actions, self.oracle = actions, make_agent("oracle")

    def begin(self, lanes: int, seed: int) -> None:
        self.step = np.zeros(lanes, int)

    def act(self, observation, episodes):
        told = [self.actions[n] if n < len(self.actions) else -1 for n in self.step]
        self.step += 1
        return np.where(np.array(told) < 0, self.oracle.act(observation, episodes), told)


class Recited(Script):
    """The same actions as a script, then a declaration."""

    def __init__(self, *actions: int):
        self.actions = actions

    def run(self, step, env, observation, seed):
        for action in (*self.actions, DECLARE):
            step(action)


@pytest.fixture(scope="module")
def recipe() -> Regrets:
    """Of a script that treats too often, in the noise that was."""
    return regrets(FixedRecipe(), TIPS, "id", 3, SEED)


# ---- branches ----


@pytest.mark.parametrize("agent, env_id, scenario, options", [
    (GreedyTable(), TIPS, "near-classifier", {"budget": 14}), (CorrectedDrag(), ADATOMS, "far-tip-change", {}), (BayesianGreedy(), BEAM, "published-free", {"budget": 8}),
], ids=["greedy-table", "corrected-drag", "bayesian-greedy"])  # fmt: skip
def test_an_agent_that_does_what_it_did_ends_as_it_ended(agent, env_id, scenario, options):
    memories = Memories(agent)
    visits, outcome = walk(agent, env_id, scenario, SEED + 2, (), memories, **options)
    again = dict(Branches(env_id, scenario, agent, memories, 5, **options).run([Branch(visit, visit.action) for visit in visits] * 2))
    assert len(again) == 2 * len(visits) > 2
    for number, branch in again.items():
        step = number % len(visits)
        assert (branch.total, branch.success, branch.costs, branch.reached) == (outcome.total, outcome.success, outcome.costs, outcome.reached)
        assert step + branch.steps == len(visits)


def test_branches_that_do_the_same_are_the_same_to_the_bit():
    visits, _ = walk(FixedDrag(), ADATOMS, "id", SEED)
    branches = Branches(ADATOMS, "id", make_agent("oracle"), lanes=3)
    action = np.full(6, 0.25, np.float32)
    one, other, elsewhere = (dict(branches.run([Branch(visits[0], action, key)] * 2)) for key in (None, None, 77))
    assert one[0] == one[1] == other[0] == other[1] and elsewhere[0] == elsewhere[1] != one[0]


def test_a_branch_is_the_counterfactual_of_the_environment():
    visits, _ = walk(FixedRecipe(), TIPS, "id", SEED + 2)
    env = gym.make(TIPS, scenario="id").unwrapped
    for key in (None, 5):
        found = dict(Branches(TIPS, "id", Acts(), lanes=2).run([Branch(visits[1], np.int64(DECLARE), key)]))[0]
        env.restore(visits[1].start)
        (_, reward, terminated, _, info), = env.counterfactual([DECLARE], key)
        assert terminated and found.total == visits[1].total + reward and found.costs["time"] == info["time"]


def test_an_agent_goes_on_from_what_it_remembered():
    agent = FixedRecipe(("pulse -4 V", "dip 5 nm", "dip 1.2 nm", "pulse +4 V"), unsure=1e9, sure=1e9)  # treats until its room or budget is over
    memories = Memories(agent)
    visits, _ = walk(agent, TIPS, "id", SEED, (), memories)
    assert memories.paths == [("evidence",), ("treatments",)]
    assert [int(visit.memory[("treatments",)]) for visit in visits[:5]] == [1, 2, 3, 4, 5]
    agent.begin(4, 0)
    memories.put(visits[2].memory, 3, 4)
    assert agent.treatments.tolist() == [0, 0, 0, 3]


def test_advisers_are_asked_and_change_nothing():
    alone, ended = walk(FixedDrag(), ADATOMS, "id", SEED)
    advised, also = walk(FixedDrag(), ADATOMS, "id", SEED, [CorrectedDrag(), RandomAgent()])
    assert ended == also and all(not differences(a.start, b.start) and (a.action == b.action).all() for a, b in zip(alone, advised, strict=True))
    assert not np.array_equal(advised[0].advice[0], advised[0].action) and len(advised[0].advice) == 2


def test_a_script_has_the_branches_of_an_agent_that_does_the_same():
    script, agent = (regrets(who, TIPS, "id", 1, SEED) for who in (Recited(4, 12), Acts(4, 12, DECLARE)))
    assert script.taken.tolist() == agent.taken.tolist() == [4, 12, DECLARE]
    assert not differences(script, agent)


# ---- regrets ----


def test_regret_is_never_negative_and_nothing_for_the_best(recipe):
    assert (recipe.regret >= 0).all() and (recipe.regret > 0.01).any() and (recipe.q.max(1) >= recipe.q[:, LOOK]).all()
    best = recipe.best == recipe.taken
    assert best.any() and (recipe.regret[best] == 0).all() and (recipe.regret[~best] > 0).all()
    row = int(recipe.regret.argmax())
    step, episode = int(recipe.step[row]), int(recipe.episode[row])
    so_far = recipe.taken[(recipe.episode == episode) & (recipe.step < step)].tolist()
    wiser = regrets(Acts(*so_far, int(recipe.best[row])), TIPS, "id", 1, SEED + episode)
    assert wiser.regret[step] == 0 and wiser.obtained[0] == recipe.q[row].max()  # the oracle went on, as in the branch


def test_regrets_of_an_episode_add_up(recipe):
    oracle = regrets(make_agent("oracle"), TIPS, "id", 3, SEED)
    assert np.array_equal(recipe.shortfall, oracle.obtained - recipe.obtained)
    value, done = (np.take_along_axis(recipe.q, which[:, None], 1)[:, 0] for which in (recipe.guided, recipe.taken))
    follows = np.flatnonzero(recipe.step[1:])
    assert len(follows) > 6 and np.array_equal(done[follows], value[follows + 1])  # Q(s_t, a_t) = V(s_t+1), to the bit
    assert np.array_equal(done[np.append(recipe.step[1:] == 0, True)], recipe.obtained)
    assert np.allclose(recipe.of_episodes(recipe.advantage), recipe.shortfall, rtol=0, atol=1e-12)
    told = recipe.summary()
    assert told["residue"] < 1e-12 and told["regret_episode"] == pytest.approx(told["shortfall"] + told["slack_episode"], abs=1e-12)
    assert told["shortfall"] > 0 and told["slack_episode"] > 0 and (oracle.advantage == 0).all()


def test_a_look_at_a_good_tip_costs_its_price():
    found = regrets(make_agent("oracle"), TIPS, "id", 3, SEED)
    last = found.taken == DECLARE
    assert last.sum() == 3 and np.allclose(found.q[last, DECLARE] - found.q[last, LOOK], PRICE)
    assert (found.q[last].argmax(1) == DECLARE).all()


def test_the_same_in_batches_of_any_size(recipe):
    alone = regrets(FixedRecipe(), TIPS, "id", 1, SEED + 1, lanes=3)
    row = recipe.episode == 1
    assert np.array_equal(alone.values, recipe.values[row]) and np.array_equal(alone.taken, recipe.taken[row])
    whole, part = regrets(RandomAgent(), ADATOMS, "id", 2, SEED, lanes=64), regrets(RandomAgent(), ADATOMS, "id", 1, SEED + 1, lanes=5)
    assert np.array_equal(part.values, whole.values[whole.episode == 1])


def test_all_candidates_share_the_noise():
    twins = {"twin": FixedDrag(), "other": CorrectedDrag()}
    for draws in (0, 4):
        found = regrets(FixedDrag(), ADATOMS, "id", 2, SEED, draws=draws, advisers=twins, samples=2)
        assert found.names == ("own", "oracle", "twin", "other", "sample 0", "near oracle 0") and found.draws == max(draws, 1)
        assert np.array_equal(found.values[:, :, 0], found.values[:, :, 2]) and not np.array_equal(found.values[:, :, 0], found.values[:, :, 3])
    assert np.ptp(found.values[:, :, 0], axis=1).max() > 0  # draws differ
    assert not differences(found, regrets(FixedDrag(), ADATOMS, "id", 2, SEED, draws=4, advisers=twins, samples=2, lanes=7))


def test_noise_drawn_anew_depends_on_the_visit_alone():
    visits = [visit for seed in (SEED + 2, SEED + 3) for visit in walk(FixedDrag(), ADATOMS, "far-tip-change", seed)[0]]
    keys = [noises(visit, 4) for visit in visits]
    assert len(visits) > 2 and len({key for four in keys for key in four}) == 4 * len(visits) and noises(visits[0], 0) == [None]
    assert noises(visits[1], 2) == keys[1][:2]


def test_the_true_regret_lies_between_the_two_of_noisy_draws():
    rng, steps, truth = np.random.default_rng(0), 20_000, np.array([0.0, 0.1, 0.3, -0.5])
    values = truth + rng.normal(0, 0.5, (steps, 8, 4))
    zeros = np.zeros(steps, int)
    found = Regrets(("a", "b", "c", "d"), np.arange(steps), zeros, zeros, zeros, values, np.zeros(steps), np.zeros(steps, bool), "oracle")
    assert found.crossed.mean() + 0.01 < 0.3 < found.regret.mean() - 0.01
    with pytest.raises(ProbeGymError, match="ask for draws"):
        _ = Regrets(found.names, found.episode, zeros, zeros, zeros, values[:, :1], found.obtained, found.success, "oracle").crossed


def test_regret_with_the_agent_itself_is_of_what_it_makes_of_it():
    found = regrets(CorrectedDrag(), ADATOMS, "id", 3, SEED, continuation="self")
    done = np.take_along_axis(found.q, found.taken[:, None], 1)[:, 0]
    assert np.array_equal(done, found.obtained[found.episode])  # it goes on as it did, from every step
    assert (found.regret >= 0).all() and "shortfall" not in found.summary()


def test_cost_to_the_goal_as_the_value(recipe):
    found = regrets(FixedRecipe(), TIPS, "id", 3, SEED, value="measurements")
    assert np.array_equal(found.taken, recipe.taken) and found.values.max() <= -1 and found.values.min() == -40  # a failure: the whole budget
    assert found.summary()["residue"] == 0 and (found.values[:, 0, DECLARE] == -40).any()
    reached = Outcome(0.5, True, {"measurements": 3.0, "time": 60.0}, {"measurements": 4.0, "time": 80.0}, 2)
    assert (reached.worth("return", {}), reached.worth("time", {"time": 100.0})) == (0.5, -60.0)
    with pytest.raises(ProbeGymError, match="sets no budget of time"):
        regrets(FixedRecipe(), TIPS, "id", 1, value="time")


def test_which_actions_are_regretted(recipe):
    rows = {row["action"]: row for row in recipe.by_action()}
    assert sum(row["taken"] for row in rows.values()) == sum(row["best"] for row in rows.values()) == len(recipe.step)
    assert sum(row["share"] for row in rows.values()) == pytest.approx(1)
    pulse = rows["pulse -4 V"]
    assert pulse["taken"] == (recipe.taken == 4).sum() and pulse["regret"] == pytest.approx(recipe.regret[recipe.taken == 4].mean())


def test_candidates_lie_in_the_space_and_about_the_oracle():
    visits, _ = walk(FixedDrag(), ADATOMS, "id", SEED)
    space = gym.make(ADATOMS, scenario="id").action_space
    actions, taken, guided = candidates(space, visits[0], 8)
    assert (taken, guided) == (0, 1) and np.array_equal(actions[0], visits[0].action) and all(action in space for action in actions)
    apart = np.abs(actions[2:] - visits[0].guide).max(1)
    assert len(actions) == 10 and (apart[4:] <= 0.1501).all() and (apart[:4] > 0.1501).any()
    several = gym.spaces.MultiDiscrete([3, 5])
    visit = type(visits[0])(0, 0, visits[0].start, np.array([1, 1]), np.array([2, 4]), [], 0.0, None, None)
    assert all(action in several for action in candidates(several, visit, 8)[0])


# ---- refused ----


class Late(FixedRecipe):
    """Keeps something of each lane that its begin does not set."""

    def act(self, observation, episodes):
        self.late = np.zeros(len(observation["verdict"]))
        return super().act(observation, episodes)


@pytest.mark.parametrize("agent, options, told", [
    (Recited(4), {"continuation": "self"}, "cannot go on from a snapshot: use the continuation oracle"),
    (RandomAgent(), {"continuation": "self"}, "draws its actions by chance"),
    (Late(), {"continuation": "self"}, "keeps late of each lane"),
    (FixedRecipe(), {"advisers": {"recited": Recited(4)}}, "recited works through an episode .* leave it out"),
    (FixedRecipe(), {"continuation": "nobody"}, "continuation must be one of oracle, self"),
    (FixedRecipe(), {"value": "luck"}, "value must be one of return, time"),
    (FixedRecipe(), {"draws": 3}, "draws must be even"),
    (FixedRecipe(), {"draws": -2}, "draws must be a whole number from 0"),
    (FixedRecipe(), {"samples": 1.5}, "samples must be a whole number"),
    (FixedRecipe(), {"episodes": 0}, "episodes must be a whole number from 1"),
])  # fmt: skip
def test_refused_with_one_line(agent, options, told):
    with pytest.raises(ProbeGymError, match=told) as caught:
        regrets(agent, **({"env_id": TIPS, "scenario": "id", "episodes": 1, "seed": SEED} | options))
    assert "\n" not in str(caught.value)


def test_one_episode_has_no_interval(recipe, capsys):
    one = regrets(Acts(DECLARE), TIPS, "id", 1, SEED)
    for found, none in ((one, True), (recipe, False)):
        console = plain(width=200)
        console.print(_table(found, "return"))
        told = capsys.readouterr().out
        (line,) = (line for line in told.splitlines() if "regret an episode" in line)
        assert "nan" not in told and line.rstrip().endswith(" -") == none and (" to " in line) != none


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = ["regret", "--agent", "fixed-drag", "--env", "AdatomManipulation", "--episodes", "2"]
    assert app([*line, "--beside", "corrected-drag", "--out", "r.json"], standalone_mode=False) == 0
    told = capsys.readouterr().out
    assert "regret a step" in told and "short of the oracle" in told
    kept = json.loads((tmp_path / "r.json").read_text())
    assert kept["candidates"][:3] == ["own", "oracle", "corrected-drag"] and len(kept["values"]) == len(kept["regret"]) == kept["summary"]["steps"]
    assert app([*line, "--value", "time"], standalone_mode=False) == 2
    assert app([*line, "--beside", "fixed-recipe"], standalone_mode=False) == 2
    assert "not made for" in capsys.readouterr().err
