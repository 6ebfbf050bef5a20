"""Scenario files of every environment: what is shifted is shifted, and mistakes are told with file and line."""

from __future__ import annotations

import io
import os
from pathlib import Path

import gymnasium as gym
import pytest

import probegym
from probegym import scenarios, tables
from probegym.console import plain
from probegym.envs import environment_type
from probegym.envs.episodes import build_world
from probegym.errors import ProbeGymError
from probegym.hardware_bridge.world import Refused
from probegym.scenarios.shifts import shifts
from probegym.terminal.scenarios import checked, listed

FAMILIES = {env_id: environment_type(env_id).task_type.family for env_id in probegym.ENVIRONMENTS}
SHIFTED = [
    (env_id, name) for env_id, family in FAMILIES.items() for name in scenarios.names(family) if scenarios.load(family, name).split in ("near", "far")
]


@pytest.mark.parametrize("env_id", FAMILIES)
def test_three_axes_at_least_are_shifted_near_and_far(env_id):
    every = [scenarios.load(FAMILIES[env_id], name) for name in scenarios.names(FAMILIES[env_id])]
    near, far = ({s.axis for s in every if s.split == split} for split in ("near", "far"))
    assert len(near & far) >= 3 and {s.split for s in every} == {"train", "id", "near", "far"}


@pytest.mark.parametrize(("env_id", "name"), SHIFTED, ids=[f"{env_id[9:]} {name}" for env_id, name in SHIFTED])
def test_what_is_shifted_is_never_drawn_in_training(env_id, name):
    """Nor in id, whose own specimens do not make another scenario a shifted one."""
    train, known, other = (scenarios.load(FAMILIES[env_id], n) for n in ("train", "id", name))
    apart = ({shift.entry for shift in shifts(scenario, other) if shift.apart} for scenario in (train, known))
    assert other.axis and other.description and set.intersection(*apart)


@pytest.mark.parametrize("env_id", FAMILIES)
def test_id_draws_what_training_draws(env_id):
    """What differs are specimens and the like that training never shows, and parts of what it draws."""
    family = FAMILIES[env_id]
    found = shifts(scenarios.load(family, "train"), scenarios.load(family, "id"))
    assert all(not shift.apart or "variants" in shift.entry for shift in found)


def test_ranges_that_share_an_end_are_apart():
    def mine(value):
        told = scenarios.load("adatom_manipulation", "train")
        return told.model_copy(update={"world": told.world | {"drift": value}})

    def apart(one, other):
        (found,) = shifts(mine(one), mine(other))
        return found.apart

    assert apart({"uniform": [0, 1]}, {"uniform": [1, 2]}) and not apart({"uniform": [0, 1]}, {"uniform": [0.9, 2]})
    assert apart(1, 2) and not apart({"choice": [1, 2]}, {"choice": [2, 3]}) and apart({"choice": [1, 2]}, 3)
    assert not apart({"normal": [0, 1]}, {"uniform": [1.5, 3]}) and apart({"normal": [0, 1]}, {"uniform": [2.5, 3]})
    assert not apart({"log_uniform": [1, 10]}, 3) and not shifts(mine(1), mine(1))


def complaint(tmp_path, env_id: str, text: str) -> str:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ProbeGymError) as caught:
        env = gym.make(env_id, scenario=f"{tmp_path / 'mine.yaml'}:mine", disable_env_checker=True)
        env.reset(seed=0)
    assert "\n" not in str(caught.value)
    return str(caught.value)


WRONG = {
    "probegym/StemTuning-v0": ["world: {beam_current: 50}", "world: {crosstalk: 30}", "world: {aberrations: {C10: 10}}", "world: {energy: 60}"],
    "probegym/AfmTuning-v0": ["world: {radius: 8}", "world: {force_limit: 200}", "world: {z_range: 2}", "world: {temperature: 30 C}"],
    "probegym/TipConditioning-v0": ["world: {drift: 3}", "world: {height_noise: 2}", "task: {area: 250}"],
    "probegym/LevelSelection-v0": ["world: {view: 40}", "world: {radius: 2.5}"],
    "probegym/SpectrumExploration-v0": ["task: {image: {field_of_view: 60}}", "world: {speed: 30 nm/s}"],
    "probegym/BeamManipulation-v0": ["world: {beam_current: 50}", "world: {drift: 5}", "world: {energy: 60}"],
    "probegym/AdatomManipulation-v0": ["world: {spacing: 0.2889}", "world: {drift: 2}", "world: {barrier: 100}"],
    "probegym/IsingInference-v0": ["world: {spacing: 0.3}", "world: {coupling: 20}"],
}
"""Quantities in nm, pA, meV and the like, and text where a number must stand."""


@pytest.mark.parametrize(("env_id", "change"), [(env_id, change) for env_id, changes in WRONG.items() for change in changes])
def test_wrong_units_are_told_with_file_and_line(tmp_path, env_id, change):
    told = complaint(tmp_path, env_id, f"# one\nmine:\n  extends: train\n  {change}\n")
    entry = change.replace("{", "").split(": ")[-2]
    assert entry in told and "(mine.yaml, line 4)" in told


@pytest.mark.parametrize("change", ["world: {temperature: 30 C}", "world: {quality: 1e2 x}", 'world: {drift: "1"}', "world: {settling: [1, 2]}", "world: {creep: true}"])
def test_a_unit_or_text_in_the_place_of_a_number_says_what_to_give(tmp_path, change):
    """``temperature`` is a plain number, the others may be drawn."""
    assert "plain number in SI units" in complaint(tmp_path, "probegym/AfmTuning-v0", f"mine:\n  extends: train\n  {change}\n")


@pytest.mark.parametrize("budget", ['measurements: "5"', "measurements: true", "time: 30 s", 'dose: "1e3"'])
def test_text_is_no_budget(tmp_path, budget):
    told = complaint(tmp_path, "probegym/AfmTuning-v0", f"mine:\n  extends: train\n  budget:\n    {budget}\n")
    assert "plain number in SI units" in told and "(mine.yaml, line 4)" in told


@pytest.mark.parametrize("env_id", WRONG)
@pytest.mark.parametrize("change", ["world: {colour: red}", "task: {colour: red}", "budget: {colour: 3}", "colour: red"])
def test_unknown_keys_are_told_with_file_and_line(tmp_path, env_id, change):
    told = complaint(tmp_path, env_id, f"mine:\n  extends: train\n\n\n  {change}\n")
    assert "colour" in told and "(mine.yaml, line 5)" in told


def test_a_mistake_in_what_is_extended_is_told_where_it_stands(tmp_path):
    told = complaint(tmp_path, "probegym/StemTuning-v0", "mine:\n  extends: base\nbase:\n  extends: train\n  world:\n    crosstalk: {uniform: [1, 0]}\n")
    assert "crosstalk" in told and "(mine.yaml, line 6)" in told


# ---- YAML ----


def read(tmp_path, text: str, most: int = 10_000):
    (tmp_path / "some.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
    return tables.read(tmp_path / "some.yaml", "table", most)


def test_scalars_are_those_of_yaml_1_2(tmp_path):
    text = "{a: 10e-9, b: 010, c: 1:30, d: no, e: true, f: .5, g: -1.5E+3, h: ~, i: 2026-11-21, j: 0x1F, k: 1_000, l: +3}"
    assert read(tmp_path, text)[0] == {
        "a": 10e-9, "b": 10, "c": "1:30", "d": "no", "e": True, "f": 0.5, "g": -1500.0, "h": None, "i": "2026-11-21", "j": "0x1F", "k": "1_000", "l": 3,
    }  # fmt: skip


def test_every_entry_knows_its_line(tmp_path):
    _, lines = read(tmp_path, "a:\n  b: 1\n  c:\n    - 2\n    - {d: 3}\n")
    assert (lines["a",], lines["a", "b"], lines["a", "c", "0"], lines["a", "c", "1", "d"]) == (1, 2, 4, 5)
    assert tables.nearest(lines, ("a", "b", "not", "there")) == 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: the key 'a' stands twice"), ("a: {b: 1, b: 2}", "stands twice"), ("a: " + "9" * 5000, "digits"), ("a: [", "not valid YAML"),
        ("a: !!python/object/apply:os.getcwd []", "not valid YAML"), (b"a: 1\nb: \xff\xfe", "line 2: no UTF-8"), ("a: 1\nb:\n " + "[" * 3000, "line 3: nested deeper"),
        ("a: 1\nb: x\0y", "line 2: the character U+0000"), ('a: 1\nb: "x\\0y"', "line 2: the text 'x"), ('a: {"x\\0": 1}', "line 1: a key"), ("? &a [*a]\n: 1", "line 1: a key"),
        ("", "is empty"), ("# nothing\n", "is empty"), ("a: 1\nb: &b\n  c: *b\n", "line 2: contains itself"),
    ],
)  # fmt: skip
def test_what_is_ambiguous_or_hostile_is_refused(tmp_path, text, told):
    with pytest.raises(ProbeGymError, match=r"table .*some\.yaml") as caught:
        read(tmp_path, text)
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_aliases_that_explode_are_refused_before_they_do(tmp_path):
    rows = ["a: &a [1, 2, 3, 4, 5, 6, 7, 8, 9]"] + [f"{n}: &{n} [*{m}, *{m}, *{m}, *{m}, *{m}, *{m}, *{m}]" for m, n in zip("abcdefghi", "bcdefghij", strict=True)]
    with pytest.raises(ProbeGymError, match="entries once its aliases"):
        read(tmp_path, "\n".join(rows))


def test_what_is_no_ordinary_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    for path in (tmp_path / "pipe.yaml", Path("/dev/zero"), tmp_path, Path("a\0b.yaml")):
        with pytest.raises(ProbeGymError, match=r"no ordinary file|cannot read table") as caught:
            tables.read(path, "table", 1000)
        assert "\n" not in str(caught.value)


# ---- probegym scenarios ----

AFM = "probegym/AfmTuning-v0"


def shown(tmp_path, text: str, check: bool = False, env_id: str = AFM) -> str:
    (tmp_path / "mine.yaml").write_text(text)
    console = plain(width=400, file=io.StringIO())
    done = checked(env_id, tmp_path / "mine.yaml", console) if check else listed(env_id, tmp_path / "mine.yaml", console)
    return f"{console.file.getvalue()}\n{done}"


def test_what_is_written_is_printed_as_it_is(tmp_path):
    told = shown(tmp_path, 'mine: {extends: train, description: "[bold]b[/bold] [/x] :smile:", axis: "[red]a[/red]", world: {radius: 20e-9}}')
    assert "[bold]b[/bold] [/x] :smile:" in told and "[red]a[/red]" in told


def test_names_with_a_colon_are_refused_with_their_line(tmp_path):
    with pytest.raises(ProbeGymError, match=r"mine\.yaml, line 2: .*'a:b'"):
        shown(tmp_path, "fine: {extends: train}\na:b: {extends: train}\n")


def test_a_scenario_that_changes_nothing_is_told(tmp_path):
    told = shown(tmp_path, "same: {extends: id, split: near, description: x}\nother: {extends: train, split: near, description: x, world: {radius: 20e-9}}")
    same, other = (line for line in told.splitlines() if line.startswith(("same", "other")))
    assert "nothing apart from train" in same and "nothing" not in other


@pytest.mark.parametrize("change", ["world: {colour: red}", "task: {colour: red}", "world: {radius: 8 nm}", "world: {force_limit: 200}"])
def test_the_listing_tells_what_cannot_be_played(tmp_path, change):
    with pytest.raises(ProbeGymError, match=r"mine\.yaml, line 3"):
        shown(tmp_path, f"mine:\n  extends: train\n  {change}\n")


@pytest.mark.parametrize("value", ["{uniform: [5e-9, 1]}", "{log_uniform: [1e-15, 8e-9]}", "{choice: [8e-9, 8e-9, 8e-9, 8e-9, 8e-9, 8e-9, 1]}", "{normal: [8e-9, 4e-9]}"])
def test_check_tries_the_ends_of_what_is_drawn(tmp_path, value):
    told = shown(tmp_path, f"fine: {{extends: patches}}\nmine:\n  extends: patches\n  world:\n    radius: {value}\n", check=True)
    assert "fine: 10 steps played" in told and "world.radius" in told and "(mine.yaml, line 5)" in told and told.endswith("1")


def test_check_tries_every_part_of_a_list(tmp_path):
    parts = "{kind: patches}, {kind: patches}, {kind: patches}, {kind: patches, parameters: {coverage: {uniform: [0.3, 7]}}}"
    told = shown(tmp_path, f"mine: {{extends: train, world: {{surfaces: [{parts}]}}}}", check=True)
    assert "coverage" in told and told.endswith("1")


@pytest.mark.parametrize("start", ["far-tip", "near-tip", "id", "terraces"])
def test_held_out_worlds_are_not_for_training(tmp_path, start):
    with pytest.raises(ProbeGymError, match=r"split: it starts from .* held-out worlds are not for training \(mine\.yaml, line 5\)"):
        shown(tmp_path, f"base: {{extends: {start}}}\nmine:\n  extends: base\n  description: x\n  split: train\n")
    assert "mine" in shown(tmp_path, f"mine: {{extends: {start}}}") and "mine" in shown(tmp_path, "id: {extends: train}\nmine: {extends: id, split: train}")


# ---- where a mistake stands ----

ADATOM, BEAM, ISING = (f"probegym/{name}-v0" for name in ("AdatomManipulation", "BeamManipulation", "IsingInference"))
LEVEL, SPECTRUM, STEM = (f"probegym/{name}-v0" for name in ("LevelSelection", "SpectrumExploration", "StemTuning"))
HERE = "mine.yaml, line 4"

PLACED = [
    (ADATOM, "world: {barrier: {uniform: [0.1]}}", "world.barrier.uniform.1", HERE), (AFM, "world: {change: {distance: [1e-9]}}", "world.change.distance", HERE),
    (AFM, "world: {surfaces: [{parameters: {}}]}", "world.surfaces.0.kind", HERE), (AFM, "world: {quality: {log_uniform: [100]}}", "world.quality.log_uniform.1", HERE),
    (AFM, "world: {surfaces: [{kind: grating, parameters: {pitch: 5}}]}", "world.surfaces.0.parameters.pitch", HERE),
    (AFM, "world: {surfaces: [{kind: nothing}]}", "world.surfaces.0", HERE), (AFM, "world: {change: {smallest: 1}}", "world.change", HERE),
    (STEM, "budget: {dose: 1}", "budget.dose", HERE), (AFM, "budget: {measurements: 1}", "budget.measurements", HERE),
    (STEM, "world: {ronchigram: {films: [nothing]}}", "world.ronchigram.films", HERE),
    (STEM, "task: {ronchigram: {pixels: 100}}", "task.ronchigram.pixels and world.ronchigram.pixels", f"{HERE}; stem_tuning.yaml, line "),
    (ISING, "task: {detector: bf}", "task.detector and world.classifier.name", f"{HERE}; ising_inference.yaml, line "),
    (ISING, "task: {overhead: 500}", "task.overhead and world.overhead", f"{HERE}; ising_inference.yaml, line "),
    (ISING, "task: {rows: 128}", "task.rows and world.rows", f"{HERE}; ising_inference.yaml, line "),
    (ISING, "world: {temperatures: [390, 400]}", "task and world", HERE),
    (LEVEL, "task: {levels: [a, b, c]}", "task.levels and world.levels", f"{HERE}; level_selection.yaml, line "),
    (LEVEL, "task: {levels: [optical, stm, eds]}", "task.levels and world.levels", f"{HERE}; level_selection.yaml, line "),
    (LEVEL, "task: {rows: 32}", "task.rows and world.rows", f"{HERE}; level_selection.yaml, line "),
    (SPECTRUM, "task: {image: {detector: bf}}", "task.image.detector and world.source", f"{HERE}; spectrum_exploration.yaml, line "),
    (SPECTRUM, "task: {spectrum: {detector: bf}}", "task.spectrum.detector and world.source", f"{HERE}; spectrum_exploration.yaml, line "),
    (SPECTRUM, "task: {scalarizers: [loop area]}", "task.scalarizers", HERE),
    (BEAM, "task: {frame: {detector: bf}}", "task.frame.detector and world.detector", f"{HERE}; beam_manipulation.yaml, line "),
]  # fmt: skip
"""What is written, the entry that it is refused as, and where."""


@pytest.mark.parametrize(("env_id", "change", "entry", "place"), PLACED, ids=[f"{env_id[9:]} {change}" for env_id, change, *_ in PLACED])
def test_whatever_is_refused_is_told_with_entry_file_and_line(tmp_path, env_id, change, entry, place):
    """Also what a scenario takes the place of, and what task and world do not agree on."""
    told = complaint(tmp_path, env_id, f"mine:\n  extends: train\n\n  {change}\n")
    assert told.startswith(f"scenario 'mine', {entry}: ") and place in told


def test_check_tells_the_same(tmp_path):
    told = shown(tmp_path, "mine:\n  extends: train\n  budget: {measurements: 1}\n", check=True)
    assert "scenario 'mine', budget.measurements: " in told and "(mine.yaml, line 3)" in told and told.endswith("1")


def test_a_budget_that_was_asked_for_is_no_mistake_of_the_scenario():
    env = gym.make(AFM, budget=1, disable_env_checker=True)
    with pytest.raises(ProbeGymError, match=r"^a budget of 1 measurements has no room") as caught:
        env.reset(seed=0)
    assert not isinstance(caught.value, scenarios.ScenarioError)


def test_what_a_world_of_ones_own_refuses_stays_its_refusal():
    """An instrument is not told by the scenario."""
    train = scenarios.load("ising_inference", "train")
    elsewhere = train.world | {"classifier": train.world["classifier"] | {"name": "bf"}}
    world = build_world(environment_type(ISING).task_type, train.model_copy(update={"world": elsewhere}), 1, None)
    with pytest.raises(Refused, match="there is no detector"):
        gym.make(ISING, world=world, disable_env_checker=True).reset(seed=0)


@pytest.mark.parametrize("table", ["tip_change: {after: 2, tip: {work_function: {uniform: [4, 9]}}}", "tip: {work_function: {uniform: [4, 9]}}"])
def test_a_tip_that_would_break_in_the_middle_of_an_episode_is_refused_before(tmp_path, table):
    """Both tables are drawn from at any time."""
    told = complaint(tmp_path, ADATOM, f"mine:\n  extends: train\n\n  world: {{{table}}}\n")
    entry = "tip_change.tip" if "change" in table else "tip"
    assert told == f"scenario 'mine', world.{entry}.work_function: must be from 1 to 6, drawn can be 9 ({HERE})"
    assert told in shown(tmp_path, f"mine:\n  extends: train\n\n  world: {{{table}}}\n", check=True, env_id=ADATOM)
