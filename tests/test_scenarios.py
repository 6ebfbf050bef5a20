"""Scenarios as data: distributions, inheritance, the user's own files, and mistakes in them."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from pydantic import BaseModel, ConfigDict, ValidationError
from scipy import stats

from probegym import scenarios
from probegym.errors import ProbeGymError
from probegym.scenarios.distributions import Sampled

KEYS = np.arange(4000, dtype=np.uint64)
STEM = "probegym/StemTuning-v0"


class Holder(BaseModel):
    model_config = ConfigDict(extra="forbid")

    value: Sampled


def draw(value, keys=KEYS, stream: str = "test") -> np.ndarray:
    return Holder(value=value).value.sample(keys, stream)


# ---- distributions ----


def test_a_number_is_a_constant():
    assert (draw(3.0) == 3.0).all() and (draw(-2) == -2).all()


def test_uniform():
    seen = draw({"uniform": [-2, 6]})
    assert stats.kstest(seen, stats.uniform(-2, 8).cdf).pvalue > 1e-3 and seen.min() >= -2 and seen.max() <= 6


def test_normal():
    assert stats.kstest(draw({"normal": [5, 0.1]}), stats.norm(5, 0.1).cdf).pvalue > 1e-3
    assert (draw({"normal": [5, 0]}) == 5).all()


def test_log_uniform():
    seen = draw({"log_uniform": [1e-3, 10]})
    assert stats.kstest(np.log10(seen), stats.uniform(-3, 4).cdf).pvalue > 1e-3


def test_choice():
    values, counts = np.unique(draw({"choice": [1.0, 2.5, 7.0]}), return_counts=True)
    assert values.tolist() == [1.0, 2.5, 7.0] and stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("value", [{"uniform": [0, 1]}, {"normal": [0, 1]}, {"log_uniform": [1, 2]}, {"choice": [1, 2, 3]}])
def test_a_draw_depends_on_key_and_stream_alone(value):
    together = draw(value)
    assert [draw(value, KEYS[i : i + 1])[0] for i in (0, 17, 3999)] == together[[0, 17, 3999]].tolist()
    assert not np.array_equal(draw(value, stream="other"), together)


BAD_DISTRIBUTIONS = [
    {}, {"uniform": [0, 1], "normal": [0, 1]}, {"uniform": [1, 0]}, {"uniform": [1]}, {"uniform": [0, 1, 2]}, {"uniform": "ab"},
    {"normal": [0, -1]}, {"log_uniform": [0, 1]}, {"log_uniform": [-1, 1]}, {"choice": []}, {"uniform": [0, float("inf")]},
    {"uniform": [float("nan"), 1]}, {"triangular": [0, 1]}, float("nan"), float("inf"), True, "3 nm", None, [0, 1],
]  # fmt: skip


@pytest.mark.parametrize("value", BAD_DISTRIBUTIONS, ids=repr)
def test_bad_distributions_are_refused(value):
    with pytest.raises(ValidationError):
        Holder(value=value)


# ---- files ----


def test_unseen_means_unseen():
    """No particle of the training split is shown in the id split; of films see test_stem_tuning.py."""
    one, other = (set(scenarios.load("stem_tuning", n).world["specimens"]) for n in ("haadf-train", "haadf-id"))
    assert not one & other


@pytest.fixture
def mine(tmp_path):
    """Writes a scenario file and loads one of its scenarios."""

    def load(text: str, name: str = "mine", suffix: str = ".yaml"):
        path = tmp_path / f"file{suffix}"
        path.write_text(text)
        return scenarios.load("stem_tuning", f"{path}:{name}")

    return load


def complaint(load, *arguments) -> str:
    with pytest.raises(ProbeGymError) as caught:
        load(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_of_ones_own_extends_what_ships(mine):
    got, base = mine("mine: {extends: train, description: Strong drift, world: {crosstalk: 0.5}}"), scenarios.load("stem_tuning", "train")
    assert got.name == "mine" and got.description == "Strong drift" and got.world["crosstalk"] == 0.5
    assert got.world["energy"] == base.world["energy"] and got.task == base.task and got.budget == base.budget


def test_extending_reaches_through_generations_and_into_tables(mine):
    text = """
first: {extends: train, description: a, world: {aberrations: {C10: 1e-9}}}
mine: {extends: first, world: {aberrations: {C12a: 2e-9}}}"""
    got = mine(text).world["aberrations"]
    assert got["C10"] == 1e-9 and got["C12a"] == 2e-9 and "C30" in got
    assert scenarios.load("stem_tuning", "train").world["aberrations"]["C10"] != 1e-9


def test_lists_replace_lists(mine):
    assert mine("mine: {extends: train, task: {ronchigram: {excursions: [5e-9]}}}").task["ronchigram"]["excursions"] == [5e-9]


def test_numbers_without_a_point_are_numbers(mine):
    assert mine("mine: {extends: train, world: {energy: 60e3, crosstalk: 1e-2}}").world["energy"] == 60000.0


def test_ones_own_file_may_be_changed_while_running(tmp_path):
    import os

    path = tmp_path / "file.yaml"
    for second, value in enumerate((0.1, 0.2)):
        path.write_text(f"mine: {{extends: train, world: {{crosstalk: {value}}}}}")
        os.utime(path, (second, second))
        assert scenarios.load("stem_tuning", f"{path}:mine").world["crosstalk"] == value


def test_ones_own_scenario_can_be_played(tmp_path):
    (tmp_path / "file.yml").write_text("mine: {extends: train, budget: {measurements: 12}}")
    env = gym.make(STEM, scenario=f"{tmp_path / 'file.yml'}:mine")
    env.reset(seed=0)
    assert env.unwrapped.episodes.limits["measurements"] == 12


def test_unknown_names_list_the_known(mine):
    assert "train" in complaint(scenarios.load, "stem_tuning", "nonsense")
    assert "mine" in complaint(mine, "mine: {extends: train}", "other")
    assert "nonsense" in complaint(mine, "mine: {extends: nonsense}")


def test_a_circle_is_refused(mine):
    assert "extends itself" in complaint(mine, "mine: {extends: other}\nother: {extends: mine}")
    assert "extends itself" in complaint(mine, "mine: {extends: mine}")


@pytest.mark.parametrize(
    "text",
    ["mine: [", "- a\n- b", "mine: 3", "", "\t", "mine: !!python/object/apply:os.getcwd []", "mine: {extends: [train]}", "mine: {extends: {a: 1}}",
     "mine: {1: 2, extends: train}", "mine: {name: other, extends: train}", "3: {extends: train}\nmine: 4", "mine: {extends: train, budget: 5}"],
)  # fmt: skip
def test_bad_yaml_is_refused(mine, text):
    complaint(mine, text)


def test_aliases_that_explode_are_refused(mine):
    rows = ["a: &a {x: 1}"] + [f"{n}: &{n} {{p: *{m}, q: *{m}, r: *{m}, s: *{m}}}" for m, n in zip("abcdefgh", "bcdefghi", strict=True)]
    complaint(mine, "\n".join(rows) + "\nmine: {extends: nonsense}")


def test_a_binary_file_is_refused(tmp_path):
    (tmp_path / "file.yaml").write_bytes(bytes(range(128, 256)))
    complaint(scenarios.load, "stem_tuning", f"{tmp_path / 'file.yaml'}:mine")


def test_a_huge_file_is_refused(tmp_path):
    (tmp_path / "file.yaml").write_text("# " + "x" * 2_000_000)
    assert "larger" in complaint(scenarios.load, "stem_tuning", f"{tmp_path / 'file.yaml'}:mine")


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    assert "cannot read" in complaint(scenarios.load, "stem_tuning", f"{tmp_path / 'no.yaml'}:mine")
    (tmp_path / "folder.yaml").mkdir()
    assert "cannot read" in complaint(scenarios.load, "stem_tuning", f"{tmp_path / 'folder.yaml'}:mine")


@pytest.mark.parametrize("name", [3, None, ["train"], b"train"])
def test_a_name_must_be_text(name):
    assert "must be a name" in complaint(scenarios.load, "stem_tuning", name)


@pytest.mark.parametrize(
    ("change", "named"),
    [("colour: red", "colour"), ("budget: {measurement: 3}", "measurement"), ("budget: {measurements: -1}", "measurements"),
     ("budget: {measurements: .nan}", "measurements"), ("budget: {measurements: .inf}", "measurements"), ("split: other", "split")],
)  # fmt: skip
def test_a_bad_scenario_names_the_entry(mine, change, named):
    assert named in complaint(mine, f"mine: {{extends: train, {change}}}")


def played(scenario: str) -> None:
    """One step, in which nothing is moved."""
    env = gym.make(STEM, scenario=scenario)
    env.reset(seed=0)
    env.step(np.zeros(env.action_space.shape, np.float32))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("world: {colour: red}", "colour"), ("world: {energy: -1}", "energy"), ("world: {energy: hot}", "energy"),
        ("world: {energy: .nan}", "energy"), ("world: {energy: .inf}", "energy"), ("world: {aberrations: {C99: 1e-9}}", "C99"),
        ("world: {crosstalk: {uniform: [1, 0]}}", "crosstalk"), ("world: {lens_drift: {C10: -1}}", "lens_drift"),
        ("world: {ronchigram: {films: [unobtainium]}}", "unobtainium"), ("world: {ronchigram: {semiangle_cutoff: 0.2}}", "aperture"),
        ("world: {ronchigram: {films: [graphene-si]}}", "film"), ("world: {ronchigram: {variants: [0.5, 0.5]}}", "variants"),
        ("world: {ronchigram: {variants: [0.0, 7.0]}}", "variants"), ("world: {ronchigram: {pixels: 64}}", "pixels"),
        ("task: {colour: red}", "colour"), ("task: {ronchigram: null}", "haadf"), ("task: {ronchigram: {excursions: []}}", "excursions"),
        ("task: {largest_step: 0}", "largest_step"), ("task: {controls: {C10: 1e-8, C99: 1e-8}}", "C99"),
        ("task: {haadf: {detector: haadf}}", "specimen"),
    ],
)  # fmt: skip
def test_a_bad_world_or_task_names_the_entry(tmp_path, change, named):
    (tmp_path / "file.yaml").write_text(f"mine: {{extends: train, {change}}}")
    assert named in complaint(lambda: played(f"{tmp_path / 'file.yaml'}:mine"))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("world: {specimens: [unobtainium]}", "unobtainium"), ("world: {specimens: [film-carbon]}", "detector"),
        ("task: {haadf: {detector: edx}}", "edx"), ("world: {energy: 80e3}", "60000 eV"),
        ("world: {semiangle_cutoff: 0.06}", "aperture"),
    ],
)  # fmt: skip
def test_a_bad_specimen_names_the_entry(tmp_path, change, named):
    (tmp_path / "file.yaml").write_text(f"mine: {{extends: haadf-train, {change}}}")
    assert named in complaint(lambda: played(f"{tmp_path / 'file.yaml'}:mine"))


# ---- budgets ----


@pytest.mark.parametrize("limit", ["time: 3.0", "dose: 300000", "measurements: 9"])
def test_every_limit_ends_the_episode(tmp_path, limit):
    name = limit.split(":")[0]
    (tmp_path / "file.yaml").write_text(f"mine: {{extends: train, budget: {{measurements: 30, {limit}}}}}".replace("30, measurements: 9", "9"))
    env = gym.make(STEM, scenario=f"{tmp_path / 'file.yaml'}:mine").unwrapped
    env.reset(seed=0)
    action = np.full(env.action_space.shape, -0.01, np.float32)
    steps = env.counterfactual([action] * 60)
    left = [float(s[0]["budget"][0]) for s in steps]
    assert steps[-1][3] and not steps[-1][2] and steps[-1][4][name] <= float(limit.split(":")[1])
    assert left == sorted(left, reverse=True) and 0 <= left[-1] < left[0] < 1


def test_a_smaller_budget_shortens_the_episode():
    lengths = []
    for budget in (6, 12):
        env = gym.make(STEM, budget=budget).unwrapped
        env.reset(seed=0)
        lengths.append(len(env.counterfactual([np.full(env.action_space.shape, -0.01, np.float32)] * 60)))
    assert 0 < lengths[0] < lengths[1]
