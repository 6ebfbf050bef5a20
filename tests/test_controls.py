"""What a person can turn, choose and point at: all of the action space and nothing else, in the units that it says."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from gymnasium import spaces

import probegym
from probegym import scenarios
from probegym.envs import environment_type, single_env
from probegym.envs.controls import Choice, Controls, Dial, Place, of_space
from probegym.errors import ProbeGymError


def tasks(env_id: str) -> dict:
    """One task for each action space and set of controls among an environment's scenarios, by scenario."""
    kind, found = environment_type(env_id).task_type, {}
    for name in scenarios.names(kind.family):
        task = kind(scenarios.load(kind.family, name).task)
        found.setdefault((str(task.action_space), str(task.action_units)), (name, task))
    return dict(found.values())


def ends(part) -> list:
    """Values at all ends of a control; of a place the corners, of a choice every label."""
    if isinstance(part, Dial):
        return [part.low, part.high]
    if isinstance(part, Choice):
        return list(range(len(part.labels)))
    return list(itertools.product(*zip(part.low, part.high, strict=True)))


def actions(controls: Controls) -> np.ndarray:
    """Actions with one control at each of its ends, the others at their start."""
    start = controls.start()
    made = [controls.made(start | {part.name: value}) for part in controls.parts for value in ends(part)]
    return np.array([controls.made(start), *made])


@pytest.mark.parametrize("env_id", probegym.ENVIRONMENTS)
def test_controls_reach_all_of_the_action_space(env_id):
    for name, task in tasks(env_id).items():
        space, controls = task.action_space, task.controls
        reached = actions(controls)
        for action in reached:
            assert space.contains(action if action.shape else action[()]), (name, action)
        if isinstance(space, spaces.Box):
            np.testing.assert_allclose((reached.min(0), reached.max(0)), (space.low, space.high), atol=1e-6, err_msg=name)
        elif isinstance(space, spaces.MultiDiscrete):
            assert [len(set(column)) for column in reached.T] == space.nvec.tolist(), name
        else:
            every = [ends(part) if part.kind != "place" else cells(part) for part in map(named, controls.parts)]
            made = {int(controls.made(dict(zip(controls.start(), values, strict=True)))) for values in itertools.product(*every)}
            assert made == set(range(space.n)), name


def named(part):
    """The part, knowing what it is."""
    object.__setattr__(part, "kind", type(part).__name__.lower())
    return part


def cells(place: Place) -> list:
    """The middle of every cell."""
    rows, columns = place.cells
    size = [(high - low) / n for low, high, n in zip(place.low, place.high, (columns, rows), strict=True)]
    return [((column + 0.5) * size[0], (row + 0.5) * size[1]) for row in range(rows) for column in range(columns)]


@pytest.mark.parametrize("env_id", probegym.ENVIRONMENTS)
def test_moving_ends_at_the_ends_and_wrong_values_are_refused(env_id):
    for task in tasks(env_id).values():
        assert len({part.name for part in task.controls.parts}) == len(task.controls.parts)
        for part in task.controls.parts:
            assert part.meaning and part.name
            value = part.start
            for _ in range(200):
                value = part.moved(value, 1, 0)
            assert value == part.moved(value, 10, 0) == part.checked(value)
            back = part.moved(value, -1, 0)
            assert back != value
            assert not isinstance(part, Place) or part.cells is None or part.cell(back)[1] == part.cell(value)[1] - 1
            for wrong in (None, "1", True, float("nan"), [], [1], [0.0, float("inf")], {}, 1e99, -1e99):
                with pytest.raises(ProbeGymError, match="nothing was done"):
                    part.checked(wrong)


def test_controls_refuse_strangers_and_what_lacks():
    controls = of_space(spaces.MultiDiscrete([2, 3]))
    with pytest.raises(ProbeGymError, match="no control 'gain': use one of action 0, action 1"):
        controls.made(controls.start() | {"gain": 1})
    with pytest.raises(ProbeGymError, match="no value for action 1"):
        controls.made({"action 0": 1})


@pytest.mark.parametrize("space", [spaces.Box(-2, 3, (2, 2), np.float32), spaces.Discrete(4, start=-1), spaces.MultiDiscrete([2, 5])])
def test_a_task_without_controls_has_those_of_its_space(space):
    controls = of_space(space)
    reached = actions(controls)
    assert all(space.contains(action.astype(space.dtype)) for action in reached)
    low = space.low if isinstance(space, spaces.Box) else space.start
    assert np.array_equal(reached.min(0), low) and reached.dtype.kind == np.dtype(space.dtype).kind


# ---- units ----


def started(name: str, scenario: str):
    env = single_env(f"probegym/{name}-v0", scenario=scenario)
    seen, _ = env.reset(seed=3)
    task = env.episodes.task
    return env, task, seen, task.controls.start()


def test_nanometres_of_aberrations():
    env, task, seen, values = started("StemTuning", "id")
    seen, *_ = env.step(task.controls.made(values | {"C10": 5.0, "C21a": -300.0}))
    at = {part.name: part.stands(seen) for part in task.controls.parts if isinstance(part, Dial)}
    assert at["C10"] == pytest.approx(5.0) and at["C21a"] == pytest.approx(-300.0, rel=1e-5) and at["C23b"] == 0
    assert task.controls["C10"].told(2.5, seen) == "at 5 nm, change +2.5 nm, to 7.5 nm"


def test_factors_of_feedback():
    env, task, seen, values = started("AfmTuning", "id")
    assert task.controls["drive"].told(1.2, seen) == "at 25 nm, change x 1.2, to 30 nm"
    seen, *_, info = env.step(task.controls.made(values | {"line rate": 1.5, "setpoint": -0.1}))
    assert info["line_rate"] == pytest.approx(12.0) and task.controls["setpoint"].stands(seen) == pytest.approx(0.7)


def test_seconds_and_angstroms_of_the_beam():
    _, task, seen, values = started("BeamManipulation", "id")
    dwell = task.settings.dwell
    for seconds in (dwell.shortest, 0.7, dwell.longest):
        action = task.controls.made(values | {"dwell": seconds, "beam": (1.42, -2.84)})
        assert task.settings.dwell.seconds(action[2:])[0] == pytest.approx(seconds, rel=1e-4)
        assert action[:2] * task.settings.reach == pytest.approx([1.42e-10, -2.84e-10], rel=1e-5)
        assert task.settings.dwell.seconds(task.controls.made(values | {"dwell": seconds, "beam is": 1})[2:])[0] == 0
    marks = task.controls["beam"].marks(seen, values)
    assert np.hypot(*marks["C 1"]) == pytest.approx(1.42) and np.hypot(*marks["goal"]) == pytest.approx(1.42 * np.hypot(*seen["goal"][0]))


def test_the_shortest_dwell_is_a_dwell():
    kind = environment_type("probegym/BeamManipulation-v0").task_type
    task = kind(scenarios.load("beam_manipulation", "id").task | {"dwell": {"shortest": 0.25, "longest": 4.0, "blank": -0.5}})  # exact in float32
    action = task.controls.made(task.controls.start() | {"dwell": 0.25})
    assert task.settings.dwell.seconds(action[2:])[0] == pytest.approx(0.25, rel=1e-4)


@pytest.mark.parametrize("scenario", ["id", "assembly-2"])
def test_nanometres_and_millivolts_of_a_drag(scenario):
    _, task, seen, values = started("AdatomManipulation", scenario)
    last = {"atom": 1} if "atom" in values else {}
    action = task.controls.made(values | {"start": (0.1, -0.2), "end": (0.5, 1.0), "bias": 7.5, "conductance": 4.0} | last)[None]
    start, end, bias, conductance = task.drag(action, np.zeros((1, 2)))
    assert start[0] == pytest.approx([0.1e-9, -0.2e-9], rel=1e-5) and end[0] == pytest.approx([0.5e-9, 1e-9], rel=1e-5)
    assert bias[0] == pytest.approx(7.5e-3) and conductance[0] == pytest.approx(4e-6) and task.picks(action)[0] == last.get("atom", 0)
    marks = task.controls["end"].marks(seen, values | last)
    shown = seen["desired_goal"].reshape(-1, 2) - seen["achieved_goal"].reshape(-1, 2)[last.get("atom", 0)]
    assert marks["goal" if not last else "goal 0"] == pytest.approx(tuple(2 * shown[0]), rel=1e-5)


def test_atoms_lie_where_they_were_found():
    env, task, seen, _ = started("AdatomManipulation", "assembly-2")
    places = (task.controls["atom"].places(seen) - 0.5) * 2 * task.settings.limits
    np.testing.assert_allclose(places, env.episodes.memory["position"][0, :2], atol=1e-13)


def test_a_pixel_that_is_pointed_at_is_measured():
    env, task, seen, values = started("SpectrumExploration", "bare")
    row, column = np.argwhere(seen["measured"][0] == 0)[77]
    pixel = 1e9 * task.settings.image.pixel_size
    seen, *_ = env.step(task.controls.made(values | {"place": (pixel * (column + 0.9), pixel * (row + 0.1))}))
    assert seen["measured"][0, row, column] == 1


def test_flakes_lie_where_they_are():
    _, task, seen, values = started("LevelSelection", "place")
    places = task.controls["flake"].places(seen)
    assert np.isnan(places).any(1).sum() == (seen["flakes"][:, 3] == 0).sum() > 0
    action = task.controls.made(values | {"instrument": 2, "flake": 5})
    assert [int(v[0]) for v in task.chosen(action[None], started("LevelSelection", "place")[0].episodes.memory)] == [2, 5]


def test_treatments_without_room_are_masked():
    env, task, seen, _ = started("TipConditioning", "id")
    while not (seen["room"] == 0).any():
        seen, *_ = env.step(np.array(task.names.index("pulse +8 V")))
    mask = env.action_masks()
    assert np.array_equal(mask, seen["room"] > 0) and mask[0] and mask[-1] and not mask[task.names.index("pulse -8 V")]
