"""What is particular to TipConditioning and its twin: discs and area, statistics of treatments, verdicts, declarations."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from scipy import stats

from probegym.agents.baselines_stm import FixedRecipe, GreedyTable
from probegym.agents.bundle import BundlePolicy
from probegym.agents.evaluate import evaluate
from probegym.agents.registry import make_agent
from probegym.envs.clean_area import PITCH, CleanArea
from probegym.envs.tip_conditioning import TipConditioning
from probegym.errors import ProbeGymError
from probegym.hardware_bridge.commands import AcquireTopograph, DipTip, PulseBias, SetAberrations
from probegym.hardware_bridge.twins.stm import LIMITS, StmTwin
from probegym.hardware_bridge.world import Refused
from probegym.physics import stm_apex
from probegym.scenarios import load

ENV_ID = "probegym/TipConditioning-v0"
DECLARE, LOOK = 13, 0
QUIET = {"tip_change": {"rate": 0.0}}


def twin(lanes: int = 1, scenario: str = "id", **changes) -> StmTwin:
    """A twin with some entries of its world replaced, after the start of an episode."""
    world = StmTwin(load("tip_conditioning", scenario).world | changes, lanes)
    world.begin(np.arange(100, 100 + lanes, dtype=np.uint64), np.ones(lanes, bool))
    return world


def topograph(lanes: int = 1, pixels: int = 16, **changes) -> AcquireTopograph:
    told = {"shape": (pixels, pixels), "field_of_view": 10e-9, "speed": 100e-9, "centre": np.zeros((lanes, 2)), "bias": -1.0, "current": 25e-12}
    return AcquireTopograph(**told | changes)


def pulse(bias: float, lanes: int = 1) -> PulseBias:
    return PulseBias(np.zeros((lanes, 2)), np.full(lanes, bias), 0.2)


def dip(depth: float, lanes: int = 1) -> DipTip:
    return DipTip(np.zeros((lanes, 2)), np.full(lanes, depth), 0.02, 0.2)


def batch(lanes: int, scenario: str = "id", **options):
    return gym.make_vec(ENV_ID, num_envs=lanes, scenario=scenario, autoreset_mode="Disabled", **options)


# ---- the twin ----


def test_time_and_damage():
    world, on = twin(**QUIET), np.ones(1, bool)
    seen = world.execute(topograph(pixels=64), on)
    assert seen.time[0] == pytest.approx(64 * 2 * 10e-9 / 100e-9 + 2.0)  # every line there and back, and the approach
    assert (seen.measurements[0], seen.damage[0], seen.dose[0]) == (1.0, 0.0, 0.0)
    for command in (pulse(4.0), dip(1e-9)):
        spent = world.execute(command, on)
        assert spent.time[0] == pytest.approx(2.2) and (spent.measurements[0], spent.damage[0]) == (0.0, 1.0)


@pytest.mark.parametrize(("bias", "index"), [(2.5, 0), (-4.0, 1), (8.0, 2)])
def test_pulses_fix_loose_atoms_as_often_as_configured(bias, index):
    n = 4000
    world = twin(n, unstable=1.0, contaminated=0.0, **QUIET)
    chance = load("tip_conditioning", "id").world["pulses"]["settle"][index]
    loosen = load("tip_conditioning", "id").world["pulses"]["loosen"][index]
    world.execute(pulse(bias, n), np.ones(n, bool))
    known = chance * (1 - loosen)
    assert np.mean(world.state["loose"][:, 1] == 0) == pytest.approx(known, abs=4 * np.sqrt(known * (1 - known) / n))


def test_chances_between_the_listed_strengths_are_interpolated():
    dips = twin().config.dips
    listed = load("tip_conditioning", "id").world["dips"]["reform"]
    assert dips.at(np.array([0.9e-9]))["reform"][0] == pytest.approx((listed[0] + listed[1]) / 2)
    assert dips.at(np.array([0.1e-9]))["reform"][0] == listed[0]


def test_the_sign_of_a_pulse_matters_for_what_it_drives_off():
    n = 4000
    world = twin(n, contaminated=1.0, unstable=0.0, **QUIET)
    right = world.state["polarity"] > 0
    world.execute(pulse(4.0, n), np.ones(n, bool))
    gone = stm_apex.judged(world.state)["barrier"] > 3
    assert gone[right].mean() > 0.6 and gone[~right].mean() < 0.25


@pytest.mark.parametrize("rate", [0.03, 0.11, 0.35])
def test_the_classifier_errs_as_often_as_configured(rate):
    n, wrong, shown = 2000, 0, []
    world = twin(n, error_rate=rate, **QUIET)
    for _ in range(3):
        verdict = world.execute(topograph(n, 2), np.ones(n, bool)).values["verdict"]
        wrong += np.sum((verdict > 0.5) != world.truth()["good"])
        shown.append(verdict)
    assert wrong / (3 * n) == pytest.approx(rate, abs=4 * np.sqrt(rate * (1 - rate) / (3 * n)))
    bad = ~world.truth()["good"]
    assert abs(np.corrcoef(shown[0][bad], shown[1][bad])[0, 1]) < 0.1  # errors of two images have nothing in common


def test_verdicts_are_calibrated():
    """Among as many good as bad tips, a verdict of p is right in a share p."""
    n = 8000
    world = twin(n, error_rate=0.11, double=0.5, blunt=0.0, contaminated=0.0, unstable=0.0, **QUIET)
    verdict, good = world.execute(topograph(n, 2), np.ones(n, bool)).values["verdict"], world.truth()["good"]
    for low in (0.2, 0.4, 0.6, 0.8):
        here = (verdict > low) & (verdict < low + 0.2)
        assert good[here].mean() == pytest.approx(verdict[here].mean(), abs=0.09)


def test_tips_change_by_themselves_as_often_as_configured():
    n = 3000
    world = twin(n, tip_change=dict.fromkeys(("clean", "settle", "reform", "single", "renew", "sharp", "pickup", "loosen"), 1.0) | {"rate": 0.02})
    before = world.state["apex"].copy()
    world.execute(topograph(n, 16), np.ones(n, bool))
    known = 1 - np.exp(-0.02 * 16 * 0.2)
    assert np.mean((world.state["apex"] != before).any((1, 2))) == pytest.approx(known, abs=4 * np.sqrt(known / n))


def test_debris_is_seen_where_it_fell_and_nowhere_else():
    still = {"current_noise": 0.0, "height_noise": 0.0, "line_noise": 0.0, "drift": 0.0, "double": 0.0, "blunt": 0.0, "contaminated": 0.0, "unstable": 0.0}
    clean = {"step_height": 0.236e-9, "terrace_width": 1.0, "meander_period": 1e-8}
    world, on = twin(surface=clean, **still, **QUIET), np.ones(1, bool)
    apex = world.state["apex"].copy()
    before = np.ptp(world.execute(topograph(), on).values["height"])
    world.execute(dip(1e-9), on)
    world.state["apex"][:], world.state["loose"][:] = apex, 0
    assert np.ptp(world.execute(topograph(), on).values["height"]) > before + 0.1e-9
    far = topograph(centre=np.array([[30e-9, 0.0]]))
    assert np.ptp(world.execute(far, on).values["height"]) == pytest.approx(before, abs=1e-12)


@pytest.mark.parametrize(
    ("command", "mend"),
    [
        (pulse(9.0), "up to 8 V"), (pulse(0.0), "not zero"), (pulse(np.nan), "not finite"), (dip(6e-9), "up to 5 nm"), (dip(0.0), "more than zero"),
        (topograph(pixels=300), "1 to 256 pixels"), (topograph(field_of_view=-1.0), "positive field_of_view"), (topograph(bias=0.0), "bias"),
        (topograph(field_of_view=1.0), "up to 1 um"), (topograph(current=1.0), "contact"),
        (topograph(centre=np.full((1, 2), np.inf)), "not finite"), (SetAberrations(("C10",), np.zeros((1, 1))), "no SetAberrations"),
    ],
)  # fmt: skip
def test_commands_outside_the_limits_are_refused_and_nothing_happens(command, mend):
    world = twin()
    before = world.snapshot(0)
    with pytest.raises(Refused, match=mend):
        world.execute(command, np.ones(1, bool))
    assert all(np.array_equal(world.snapshot(0).arrays[name], array) for name, array in before.arrays.items())


def test_lanes_that_are_not_asked_stay():
    world, where = twin(3), np.array([False, True, False])
    before = [world.snapshot(lane) for lane in range(3)]
    for command in (topograph(3), pulse(8.0, 3), dip(5e-9, 3)):
        spent = world.execute(command, where)
        assert spent.time[[0, 2]].tolist() == [0, 0] and spent.time[1] > 0
    for lane in (0, 2):
        assert all(np.array_equal(world.snapshot(lane).arrays[name], array) for name, array in before[lane].arrays.items())


@pytest.mark.parametrize(
    ("change", "mend"),
    [
        ({"double": 1.5}, "double"), ({"error_rate": 0.6}, "between 0 and 0.5"), ({"surface": {"step_height": 1e-10}}, "terrace_width"),
        ({"surface": {"height": 1.0}}, "unknown surface field"), ({"bogus": 1}, "bogus"),
        ({"pulses": {"strength": [1.0], "spoil_radius": [1e-8, 1e-8]}}, "pulses"),
    ],
)  # fmt: skip
def test_an_impossible_world_is_refused_in_one_line(change, mend):
    with pytest.raises(ProbeGymError, match=mend) as caught:
        twin(**change)
    assert "\n" not in str(caught.value)


def test_densities_above_one_a_cell_are_refused():
    surface = load("tip_conditioning", "id").world["surface"] | {"adatom_density": 1e18}
    with pytest.raises(ProbeGymError, match="adatom_density is above"):
        twin(surface=surface)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("terrace_width", 0.0), ("terrace_width", -1e-9), ("terrace_width", {"normal": [30e-9, 20e-9]}), ("step_height", -1.0), ("adatom_height", 1e300),
        ("reconstruction", 1e30), ("adatom_density", -1.0), ("cluster_radius", -1e-9), ("meander_period", 0.0), ("current_noise", 1e30),
        ("line_noise", 1e300), ("efficacy", -1.0), ("feedback_bandwidth", 0.0), ("feedback_bandwidth", -5.0), ("drift", 1.0), ("rate", -1.0),
    ],
)  # fmt: skip
def test_an_impossible_draw_is_refused_and_the_episodes_stay(name, value):
    config, lanes = load("tip_conditioning", "id").world, 8
    known = name in StmTwin(config, 1).config.surface or name == "reconstruction"
    change = {"surface": config["surface"] | {name: value}} if known else {"tip_change": {name: value}} if name == "rate" else {name: value}
    world = StmTwin(config | change, lanes)
    world.restore(twin().snapshot(0), 3)
    before = {field: array.copy() for field, array in world.state.items()}
    with pytest.raises(ProbeGymError, match=rf"^scenario, world\.\S*{name}: must be from \S+ to \S+, drawn was \S+$"):
        world.begin(np.arange(lanes, dtype=np.uint64), np.ones(lanes, bool))
    assert all(np.array_equal(world.state[field], array) for field, array in before.items())


@pytest.mark.parametrize("side", [0, 1])
def test_images_at_the_limits_are_finite(side):
    edge = {name: pair[side] for name, pair in LIMITS.items()}
    surface = {name.removeprefix("surface."): edge.pop(name) for name in list(edge) if name.startswith("surface.")}
    world, on = twin(2, surface=surface, tip_change={"rate": edge.pop("tip_change.rate")}, **edge), np.ones(2, bool)
    world.execute(dip(5e-9, 2), on)
    for _ in range(3):
        assert all(np.isfinite(values).all() for values in world.execute(topograph(2, 64), on).values.values())


# ---- places ----


def overlap(discs: np.ndarray) -> float:
    """How far two discs (n, 3) reach into each other at most."""
    gaps = [discs[i, 2] + discs[j, 2] - np.hypot(*(discs[i, :2] - discs[j, :2])) for i in range(len(discs)) for j in range(i)]
    return max(gaps, default=-1.0)


@pytest.mark.parametrize("scenario", ["id", "far-area"])
def test_discs_never_overlap_and_images_keep_clear_of_them(scenario):
    env, rng = TipConditioning(scenario), np.random.default_rng(0)
    for seed in range(8):
        env.reset(seed=seed)
        over = False
        while not over:
            _, _, terminated, truncated, info = env.step(rng.integers(0, DECLARE))
            over, memory, task = terminated or truncated, env.episodes.memory, env.episodes.task
            discs = memory["discs"][0][: memory["treated"][0]]
            assert overlap(discs) <= 1e-14 and (np.abs(discs[:, :2]).max(1) + discs[:, 2] <= task.settings.area / 2 + 1e-14).all()
            assert info["area_spoiled"] == pytest.approx(1e18 * np.pi * np.sum(discs[:, 2] ** 2))
            if not terminated:
                away = np.hypot(*(discs[:, :2] - task.area.places[memory["place"][0]]).T) - discs[:, 2]
                assert (away >= 0.71 * task.settings.image.field_of_view).all()


def test_area_and_observation_agree():
    env = TipConditioning("id")
    env.reset(seed=1)
    for action, radius in ((3, 10), (11, 25), (5, 50)):
        observation, _, _, _, info = env.step(action)
        assert env.episodes.memory["just_spoiled"][0] == pytest.approx(np.pi * (radius * 1e-9) ** 2)
    assert info["area_spoiled"] == pytest.approx(np.pi * (10**2 + 25**2 + 50**2)) and info["actions"] == 3 and info["damage"] == 3
    assert observation["area"][0] == pytest.approx(1 - info["area_spoiled"] / 250**2) and observation["last_action"].argmax() == 5


def test_a_treatment_without_room_is_a_look():
    env = TipConditioning("far-area")
    observation, info = env.reset(seed=0)
    assert observation["room"].tolist() == [1] * 5 + [0, 0] + [1] * 7  # no disc of 50 nm fits into 75 nm
    observation, _, _, _, after = env.step(5)
    assert observation["last_action"].argmax() == LOOK and after["area_spoiled"] == 0 and after["damage"] == 0
    assert after["measurements"] == info["measurements"] + 1


def test_an_episode_fails_when_no_clean_place_is_left():
    env = TipConditioning("far-area")
    env.reset(seed=0)
    steps = [env.step(7)]
    while not (steps[-1][2] or steps[-1][3]):
        steps.append(env.step(7))
    assert len(steps) == 9 and steps[-1][2] and not steps[-1][4]["is_success"] and steps[-1][4]["reward_failure"] == -1
    assert steps[-1][4]["measurements"] == steps[-2][4]["measurements"]  # and takes no image


def test_looks_go_to_places_that_were_not_seen_yet():
    env = TipConditioning("id")
    env.reset(seed=0)
    places = [int(env.episodes.memory["place"][0])]
    for _ in range(20):
        env.step(LOOK)
        places.append(int(env.episodes.memory["place"][0]))
    assert len(set(places)) == 21 and env.episodes.memory["treated"][0] == 0


def test_a_dip_goes_where_it_is_flat():
    env = TipConditioning("id")
    env.reset(seed=0)
    memory, task = env.episodes.memory, env.episodes.task
    memory["height"][0] = np.random.default_rng(0).normal(0, 1e-10, (64, 64))
    memory["height"][0, 40:50, 40:50] = 0.0  # 2 nm to the lower right
    env.step(8)
    assert memory["discs"][0, 0, :2] - task.area.places[task.area.memory(1)["place"][0]] == pytest.approx([2e-9, 2e-9])


def test_nearest_place_that_fits():
    area = CleanArea(4 * PITCH)
    memory = area.memory(1)
    assert area.room(memory, np.array([10e-9, 25e-9, 50e-9])).tolist() == [[True, True, False]]
    area.spoil(memory, np.ones(1, bool), area.places[memory["place"]], np.array([10e-9]))
    place = area.nearest(memory, np.array([10e-9]))[0]
    assert np.hypot(*(area.places[place] - memory["discs"][0, 0, :2])) == pytest.approx(PITCH)
    assert area.nearest(memory, np.array([90e-9]))[0] == -1 and area.spoiled(memory)[0] == pytest.approx(np.pi * 1e-16)


# ---- the task ----


def test_declarations():
    rewards, env = {}, TipConditioning("id")
    for seed in range(80):
        _, before = env.reset(seed=seed)
        good = bool(env.episodes.world.truth()["good"][0])
        _, reward, terminated, truncated, info = env.step(DECLARE)
        assert terminated and not truncated and info["is_success"] == good and info["actions"] == 0
        assert info["measurements"] == before["measurements"]
        rewards[good] = reward
    assert rewards == {True: 1.0, False: -1.0}


def test_a_passive_operator_has_unusable_images_in_most_episodes():
    envs = batch(200)
    envs.reset(seed=0)
    good = []
    for _ in range(10):
        envs.step(np.zeros(200, int))
        good.append(envs.episodes.truth["good"])
    assert 0.03 < np.mean(good[0]) < 0.2 and 0.03 < np.mean(good[-1]) < 0.25 and np.mean(np.any(good, axis=0)) < 0.35


def test_images_show_the_state_of_the_tip():
    """Streaks of an apex that hops, and the finer grain of a good one."""
    envs = batch(300)
    observation, _ = envs.reset(seed=0)
    truth, image = envs.episodes.truth, observation["image"][:, 0].astype(float)
    jumps = np.abs(np.diff(image, axis=1)).mean(2).max(1)
    moving = truth["hops"] > 0.3
    assert stats.mannwhitneyu(jumps[moving], jumps[~moving], alternative="greater").pvalue < 1e-10


def test_progress_pays_for_quality():
    env = TipConditioning("id")
    _, info = env.reset(seed=3)
    for action in (8, 3, 4, 12, 0):
        before = info["tip_quality"]
        _, _, _, _, info = env.step(action)
        assert info["reward_progress"] == pytest.approx(0.2 * (info["tip_quality"] - before))
        assert info["reward_measurements"] == pytest.approx(-0.02)
    assert info["reward_area"] == 0.0


def test_observable_reward_needs_no_truth():
    env = TipConditioning("id", reward="observable")
    before = env.reset(seed=3)[0]["verdict"][0]
    observation, reward, _, _, info = env.step(8)
    assert info["reward_verdict"] == pytest.approx(0.2 * (observation["verdict"][0] - before), abs=1e-6)
    assert reward == pytest.approx(info["reward_verdict"] - 0.02 - 0.02 * np.pi * 0.01, abs=1e-6)


def test_the_oracle_restores_the_tip():
    results = evaluate(make_agent("oracle", ENV_ID), ENV_ID, "id", 64, seed=0)
    assert results.success.all() and results.metrics["actions"].mean() < 5


def test_the_oracle_says_when_task_and_world_differ(tmp_path):
    (tmp_path / "mine.yaml").write_text("mine: {extends: id, task: {pulses: {bias: [4.0], radius: [10e-9]}}}")
    env = TipConditioning(f"{tmp_path / 'mine.yaml'}:mine")
    env.reset(seed=0)
    assert env.action_space.n == 10
    with pytest.raises(ProbeGymError, match="same pulses and dips"):
        env.episodes.task.oracle(env.episodes.truth, env.episodes.memory)


@pytest.mark.parametrize(
    ("task", "mend"),
    [("pulses: {bias: [4.0]}", "as many entries"), ("image: {field_of_view: 20e-9}", "field_of_view"), ("dips: {radius: [1e-9]}", "entries"),
     ("area: 1e-9", "area"), ("bogus: 1", "bogus"), ("image: {bias: 0}", "image.bias: .*1 mV to 10 V"), ("image: {current: 1.0}", "image.current"),
     ("pulses: {bias: [2.5, 4.0, 80.0]}", "pulses.bias"), ("dips: {depth: [5e-6], radius: [10e-9], flat: [1e-9]}", "dips.depth")],
)  # fmt: skip
def test_an_impossible_task_is_refused_in_one_line(task, mend, tmp_path):
    (tmp_path / "mine.yaml").write_text(f"mine: {{extends: id, task: {{{task}}}}}")
    with pytest.raises(ProbeGymError, match=mend) as caught:
        TipConditioning(f"{tmp_path / 'mine.yaml'}:mine")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("task", "mend"), [("pulses: {bias: [2.5, 4.0, 9.0]}", "up to 8 V"), ("dips: {depth: [8e-9], radius: [10e-9], flat: [1e-9]}", "up to 5 nm")]
)
def test_a_treatment_beyond_the_world_is_refused_at_reset(task, mend, tmp_path):
    (tmp_path / "mine.yaml").write_text(f"mine: {{extends: id, task: {{{task}}}}}")
    with pytest.raises(ProbeGymError, match=rf"^scenario 'mine', .*{mend}.*mine.yaml, line 1"):
        TipConditioning(f"{tmp_path / 'mine.yaml'}:mine").reset(seed=0)


def test_a_treatment_that_the_world_refuses_spoils_nothing():
    env = TipConditioning("id")
    env.reset(seed=0)
    env.episodes.task.bias[5] = 9.0
    before = {name: array.copy() for name, array in env.episodes.memory.items()}
    with pytest.raises(Refused, match="up to 8 V"):
        env.step(5)
    assert all(np.array_equal(env.episodes.memory[name], array) for name, array in before.items())


# ---- agents ----


class Seen:
    """Observations of a script's test: always bad, or always good."""

    def __init__(self, verdict: float):
        self.verdict = verdict

    def of(self, action: int) -> dict[str, np.ndarray]:
        room = np.ones((1, 14), np.float32)
        return {"verdict": np.full((1, 1), self.verdict, np.float32), "last_action": np.eye(14, dtype=np.float32)[[action]], "room": room,
                "budget": np.ones((1, 1), np.float32)}  # fmt: skip


def played(agent, verdict: float, steps: int) -> list[str]:
    """Names of the actions that a script takes while the verdict stays the same."""
    episodes = batch(1).episodes
    agent.begin(1, 0)
    taken, last = [], 0
    for _ in range(steps):
        last = int(agent.act(Seen(verdict).of(last), episodes)[0])
        taken.append(episodes.task.names[last])
    return taken


def test_a_recipe_is_followed_in_order_and_from_the_start_again():
    recipe = ("dip 1 nm", "pulse +4 V", "dip 5 nm")
    assert played(FixedRecipe(recipe, 4.0, 0.0), 0.01, 5) == [*recipe, *recipe[:2]]


def test_scripts_look_again_before_they_declare():
    assert played(FixedRecipe(sure=4.0, unsure=0.0), 0.9, 2) == ["look", "declare"]  # log odds 2.2 twice
    assert played(GreedyTable(sure=2.0, unsure=0.0), 0.9, 1) == ["declare"]


def test_a_table_goes_by_the_last_treatment():
    table = {"": ("dip 1 nm", "look"), "dip 1 nm": ("pulse +4 V",), "pulse +4 V": ("dip 1 nm",)}
    assert played(GreedyTable(table, 4.0, 0.0), 0.01, 4) == ["dip 1 nm", "pulse +4 V", "dip 1 nm", "pulse +4 V"]


def test_a_script_with_actions_that_the_scenario_lacks_is_refused(tmp_path):
    (tmp_path / "mine.yaml").write_text("mine: {extends: id, task: {pulses: {bias: [4.0], radius: [10e-9]}}}")
    with pytest.raises(ProbeGymError, match="has no action"):
        evaluate(FixedRecipe(("pulse +8 V",)), ENV_ID, f"{tmp_path / 'mine.yaml'}:mine", 8)


@pytest.mark.parametrize("name", ["nelder-mead", "stem-tuning-ronchigram"])
def test_agents_of_other_environments_are_refused(name):
    with pytest.raises(ProbeGymError, match="made for"):
        make_agent(name, ENV_ID)
    with pytest.raises(ProbeGymError, match="made for"):
        make_agent("fixed-recipe", "probegym/StemTuning-v0")


@pytest.mark.parametrize("scenario", ["id", "id-classifier-11"])
def test_the_shipped_policy_needs_fewer_actions_and_less_area_than_the_scripts(scenario):
    runs = {name: evaluate(make_agent(name, ENV_ID), ENV_ID, scenario, 64) for name in ("tip-conditioning", "fixed-recipe", "greedy-table")}
    policy = runs.pop("tip-conditioning")
    assert policy.success.mean() > 0.93
    for script in runs.values():
        for metric in ("actions", "area_spoiled"):
            ours, theirs = (np.where(r.success, r.metrics[metric], np.inf) for r in (policy, script))
            assert stats.mannwhitneyu(ours, theirs, alternative="less").pvalue < 0.05


def test_the_bundle_is_small_and_carries_its_command():
    policy = BundlePolicy("tip-conditioning")
    assert sum(path.stat().st_size for path in policy.folder.iterdir()) < 500_000
    assert policy.spec["command"].startswith("probegym train TipConditioning-v0 --algorithm distil") and "--out runs/" in policy.spec["command"]


def test_a_student_resumes_where_it_was(tmp_path):
    import torch

    from probegym.agents.train_stm import EPISODE, Conditioning, Trainer

    torch.set_num_threads(1)
    config = Conditioning(updates=2 * EPISODE, lanes=8)
    whole, parts = Trainer(config, tmp_path / "whole"), Trainer(config, tmp_path / "parts")
    whole.run(checkpoint_every=EPISODE)
    examples = parts.examples(0)
    for _ in range(EPISODE):
        parts.learn(*next(examples))
        parts.update += 1
    parts.save()
    resumed = Trainer(config, tmp_path / "parts")
    resumed.load()
    resumed.run(checkpoint_every=EPISODE)
    states = [trainer.reader.state_dict() for trainer in (whole, resumed)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0]) and np.array_equal(whole.counts, resumed.counts)
    with pytest.raises(ProbeGymError, match="other lanes"):
        other = Trainer(Conditioning(updates=2 * EPISODE, lanes=16), tmp_path / "parts")
        other.load()


def test_statistics_of_treatments_are_chances(tmp_path):
    from probegym.agents.train_stm import Conditioning, Trainer

    trainer = Trainer(Conditioning(updates=24, lanes=16), tmp_path)
    trainer.run()
    moves, cost = trainer.moves(), trainer.cost_to_go()
    assert np.allclose(moves.sum(2), 1) and (moves >= 0).all() and (cost[:, 1:-1] >= 1).all() and np.isfinite(cost).all()


def test_variations_of_training_images():
    import torch

    from probegym.agents.stm_networks import varied

    images = torch.full((500, 1, 32, 32), 127.0)
    images[:, :, 10:20] = 180.0
    one, same = (varied(images, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, same) and one.min() >= 0 and one.max() <= 255 and one.shape == images.shape
    kept = (one == images).flatten(1).all(1)
    assert 0.3 < kept.float().mean() < 0.5


def test_a_doubtful_policy_is_moved_less_by_an_image():
    import torch

    from probegym.agents.stm_networks import ApexReader, ConditionerPolicy

    torch.manual_seed(0)
    reader = ApexReader(24)
    reader.head[-1].weight.data *= 100
    observation = [torch.randint(0, 255, (8, 1, 64, 64)), torch.full((8, 1), 0.5), torch.eye(14)[[0] * 8], torch.ones(8, 14), torch.ones(8, 1)]
    belief = torch.full((8, 24), 1 / 24)
    moved = []
    for doubt in (0.0, 0.5, 1.0):
        policy = ConditionerPolicy(reader, np.tile(np.eye(24), (14, 1, 1)), np.ones((24, 14)), np.ones(24) / 24, 0.02, doubt=doubt).eval()
        with torch.no_grad():
            moved.append(float((policy(*observation, belief)[1] - belief).abs().sum()))
    assert moved[0] > moved[1] > moved[2] and moved[2] < 1e-4
