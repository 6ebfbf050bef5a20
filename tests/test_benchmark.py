"""The benchmark: what is planned is run or told to be missing, tables follow from raw results alone, and submissions keep their word."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml

from probegym.agents import bundle
from probegym.agents.benchmark import figures, jobs, report, results, rows, submission, suite
from probegym.agents.benchmark.results import Facts, Run
from probegym.agents.bundle import find
from probegym.agents.evaluate import EVALUATION_SEED, Results, evaluate
from probegym.agents.registry import make_agent
from probegym.console import plain
from probegym.errors import ProbeGymError
from probegym.terminal.benchmark import chosen, run
from tests.helpers import python

ADATOM = "probegym/AdatomManipulation-v0"
SMALL = """
description: Small.
runs: 2
episodes: 3
environments:
  probegym/AdatomManipulation-v0:
    learned: adatom-manipulation
    scripts: [fixed-drag, corrected-drag]
    scenarios: [id, far-threshold]
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> suite.Suite:
    path = tmp_path_factory.mktemp("suite") / "small.yaml"
    path.write_text(SMALL)
    return suite.load(str(path))


@pytest.fixture(scope="module")
def played(small, tmp_path_factory) -> Path:
    """A folder with every run of the small suite."""
    folder = tmp_path_factory.mktemp("played")
    for work in jobs.jobs(small, folder):
        jobs.carry_out(json.loads(json.dumps(work.told)))
    return folder


def tabled(small, folder: Path) -> rows.Table:
    planned = jobs.planned(small)
    return rows.table(small, [results.read(folder / facts.path) for facts in planned if results.done(folder, facts)], planned)


@pytest.fixture(scope="module")
def whole(small, played) -> rows.Table:
    """The table of all of them."""
    return tabled(small, played)


# ---- suites ----


@pytest.mark.parametrize("name", suite.shipped())
def test_shipped_suites_can_be_run(name):
    assert suite.load(name).environments


def test_the_core_suite_has_every_environment_and_three_axes_near_and_far():
    import probegym
    from probegym import scenarios
    from probegym.envs import environment_type

    core = suite.load("core")
    assert set(core.environments) == set(probegym.ENVIRONMENTS) and core.runs * core.episodes >= 100
    for env_id, contest in core.environments.items():
        told = [scenarios.load(environment_type(env_id).task_type.family, name) for name in contest.scenarios]
        near, far = ({s.axis for s in told if s.split == split} for split in ("near", "far"))
        assert len(near & far) >= 3 and told[0].split == "id" and contest.learned


@pytest.mark.parametrize(
    ("old", "new", "told", "line"),
    [
        ("runs: 2", "runs: 0", "runs", 3), ("episodes: 3", "episodes: many", "episodes", 4), ("learned:", "lerned:", "lerned", 7),
        ("AdatomManipulation-v0", "Nothing-v0", "Nothing", 6), ("far-threshold", "far-nothing", "far-nothing", 9), ("far-threshold", "train", "split train", 9),
        ("fixed-drag", "no-drag", "no-drag", 6), ("fixed-drag", "beacon", "beacon", 6), ("learned: adatom-manipulation", "learned: tip-conditioning", "tip-conditioning", 6),
        ("    scenarios", "    train: id\n    scenarios", "split id", 9), ("runs: 2", "runs: 2\nruns: 3", "twice", 4),
        ("[fixed-drag, corrected-drag]", "[oracle, fixed-drag]", "oracle has two parts", 6), ("learned: adatom-manipulation", "learned: random", "random has two parts", 6),
        ("[id, far-threshold]", "[id, id]", "scenarios names one twice", 9), ("[fixed-drag, corrected-drag]", "[fixed-drag, fixed-drag]", "scripts names one twice", 8),
        ("    learned:", "    score: beauty\n    learned:", "more to be better", 7), ("    learned:", "    score: time\n    learned:", "score 'time'", 7),
    ],
)  # fmt: skip
def test_a_broken_suite_is_refused_with_file_and_line(tmp_path, old, new, told, line):
    (tmp_path / "mine.yaml").write_text(SMALL.replace(old, new))
    with pytest.raises(ProbeGymError) as caught:
        suite.load(str(tmp_path / "mine.yaml"))
    assert told in str(caught.value) and f"line {line}" in str(caught.value) and "mine.yaml" in str(caught.value) and "\n" not in str(caught.value)


def test_any_metric_that_episodes_end_with_may_be_the_score(tmp_path, played, small):
    metrics = results.read(played / jobs.planned(small)[0].path).results.metrics
    found = suite.metrics(ADATOM, small.environments[ADATOM].model_copy(update={"score": "?"}))
    assert set(found) - {"return", "success"} == set(metrics) and metrics
    (tmp_path / "mine.yaml").write_text(SMALL + f"    score: {found[-1]}\n")
    assert suite.load(str(tmp_path / "mine.yaml")).environments[ADATOM].score == found[-1]


def test_a_part_of_a_suite(small):
    assert small.narrowed([ADATOM], ["fixed-drag"]).environments[ADATOM].agents == ("fixed-drag", "random", "oracle")
    for wrong in (([ADATOM, "probegym/StemTuning-v0"], []), ([], ["beacon"])):
        with pytest.raises(ProbeGymError, match="the suite has no"):
            small.narrowed(*wrong)


# ---- runs ----


def test_every_agent_meets_the_same_episodes_and_none_of_training(small):
    planned = jobs.planned(small)
    assert len(planned) == 5 * 3 * 2 and len({facts.path for facts in planned}) == len(planned)
    seeds = {(f.agent, f.run): f.first_seed for f in planned if f.split != "train"}
    assert len({tuple(seeds[agent, run] for run in (1, 2)) for agent, _ in seeds}) == 1
    assert all(f.first_seed + f.episodes <= EVALUATION_SEED if f.split == "train" else f.first_seed > EVALUATION_SEED for f in planned)
    assert len({f.first_seed for f in planned if f.split != "train"}) == 2


def test_raw_results_are_those_of_evaluate(small, played):
    facts = next(f for f in jobs.planned(small) if f.agent == "corrected-drag" and f.scenario == "id" and f.run == 2)
    run, again = results.read(played / facts.path), evaluate(make_agent("corrected-drag"), ADATOM, "id", 3, facts.first_seed)
    assert run.facts == facts
    np.testing.assert_equal(asdict(run.results), asdict(again))


def test_what_is_there_is_not_made_again(small, played, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(played, folder)
    assert not jobs.jobs(small, folder)
    gone = folder / jobs.planned(small)[7].path
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*-*.json")}
    gone.unlink()
    (work,) = jobs.jobs(small, folder)
    jobs.carry_out(work.told)
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*-*.json")}
    assert [path for path in after if after[path] != before[path]] == [gone]


def test_a_folder_of_another_benchmark_is_refused(small, played):
    more = small.model_copy(update={"episodes": 4})
    with pytest.raises(ProbeGymError, match="is of another benchmark"):
        jobs.jobs(more, played)


@pytest.mark.parametrize("damage", [lambda text: text[:-20], lambda text: "[]", lambda text: text.replace("probegym-run/1", "other"), lambda text: text.replace('"returns"', '"earnings"'),
                                    lambda text: re.sub(r'"steps": \[\s*', '"steps": [1, ', text), lambda text: "[" * 10**5, lambda text: text.replace('"damage"', '"harm"'),
                                    lambda text: text.replace('"episodes": 3', '"episodes": 1e999')])  # fmt: skip
def test_damaged_results_are_refused_in_one_line(small, played, tmp_path, damage):
    path = tmp_path / "id-1.json"
    path.write_text(damage((played / jobs.planned(small)[0].path).read_text()))
    with pytest.raises(ProbeGymError) as caught:
        results.read(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_names_of_agents_make_files_that_differ():
    assert results.named("a/b") != results.named("a_b") and results.named("probegym/X-v0") == "X-v0" and len(results.named("x" * 500)) < 100
    assert "/" not in results.named("../../etc/passwd")


# ---- tables ----


def invented(agent: str, kind: str, scenario: str, split: str, run: int, returns, reached=None, seconds=1.0) -> Run:
    n = len(returns)
    reached = np.ones(n, bool) if reached is None else np.asarray(reached)
    spent = {name: np.full(n, 2.0) for name in ("time", "dose", "damage", "measurements")}
    facts = Facts(ADATOM, agent, kind, scenario, split, "threshold" if split == "far" else "", run, 0, n, "", "", "")
    return Run(facts, Results(reached, np.asarray(returns, float), np.full(n, 5), spent, {"error": np.asarray(returns) * 2.0}, {k: v / 2 for k, v in spent.items()}), seconds)


@pytest.fixture
def by_hand(small):
    told = {"random": (0.0, 2.0), "oracle": (10.0, 12.0), "adatom-manipulation": (6.0, 8.0), "fixed-drag": (3.0, 5.0), "corrected-drag": (9.0, 1.0)}
    kinds = {"random": "random", "oracle": "oracle", "adatom-manipulation": "learned"}
    training = {"fixed-drag": 5.0, "corrected-drag": 7.0}
    every = [invented(agent, kinds.get(agent, "script"), name, split, run, [worth, worth + 2], seconds=4.0)
             for agent, worths in told.items() for name, split in (("id", "id"), ("far-threshold", "far")) for run, worth in enumerate(worths, 1)]  # fmt: skip
    every += [invented(agent, "script", "train", "train", run, [worth]) for agent, worth in training.items() for run in (1, 2)]
    return small, every


def test_scores_lie_between_random_and_oracle(by_hand):
    table = rows.table(by_hand[0], by_hand[1], [])
    assert table.row(ADATOM, "random", "id").score == 0 and table.row(ADATOM, "oracle", "id").score == 1
    row = table.row(ADATOM, "adatom-manipulation", "id")
    assert row.score == pytest.approx(0.6) and row.values == pytest.approx([7, 9]) and row.value == pytest.approx(8)
    assert rows.normalised(*rows.tabled([row]))[:, 0] == pytest.approx([0.5, 0.7]) and row.score_interval[0] <= 0.6 <= row.score_interval[1]
    assert row.episodes == 4 and row.steps_per_second == pytest.approx(20 / 8) and row.to_goal["time"] == 1.0
    assert row.area["time"] == pytest.approx(0.5)  # of the 2 s that episodes spend at most, the goal comes after 1 s
    assert row.spent["time"] == 1.0


def test_the_best_script_is_chosen_on_the_training_scenario(by_hand):
    table = rows.table(by_hand[0], by_hand[1], [])
    assert table.best == {ADATOM: "corrected-drag"}  # though fixed-drag is better on id
    assert [row.best for row in table.rows if row.facts.agent == "corrected-drag"] == [True] * 3 and not table.row(ADATOM, "fixed-drag", "id").best


def test_figures_over_environments_by_hand(by_hand):
    table = rows.table(by_hand[0], by_hand[1], [])
    found = {(s.kind, s.split): s for s in table.summaries}
    assert found["learned", "all"].tasks == 2 and found["learned", "id"].iqm[0] == pytest.approx(0.6)
    assert found["learned", "id"].gap[0] == pytest.approx(0.4)
    assert found["learned", "id"].better[0] == pytest.approx(0.5)  # runs of 0.5 and 0.7 against 0.8 and 0
    low, high = found["learned", "id"].iqm[1:]
    assert low == high == pytest.approx(0.6) and found[rows.BEST, "id"].better is None  # random and the oracle are 2 better in run 2 as well: drawn together, nothing is left


def test_scenarios_that_share_their_episodes_are_not_counted_twice(by_hand):
    """far-threshold holds the very runs of id: an interval over both must be no narrower than over one."""
    shifted = [run if run.facts.agent in ("random", "oracle") else replace(run, results=replace(run.results, returns=run.results.returns + 3 * run.facts.run)) for run in by_hand[1]]
    found = {(s.kind, s.split): s for s in rows.table(by_hand[0], shifted, []).summaries}
    one, both = (found["learned", split].gap for split in ("id", "all"))
    assert both == pytest.approx(one) and one[1] < one[2]


def test_ahead_is_by_episodes_in_pairs_and_never_by_a_few(by_hand, monkeypatch):
    suite, every = by_hand
    wide = np.array([-50.0, 50.0])
    better = [replace(run, results=replace(run.results, returns=wide + {"adatom-manipulation": 10, "oracle": 20}.get(run.facts.agent, 0) + [0.0, 0.5])) for run in every]
    table = rows.table(suite, better, [])
    mine, other = (table.row(ADATOM, name, "id") for name in ("adatom-manipulation", "corrected-drag"))
    assert mine.episodes == 4 and rows.ahead(mine, other) == "not told apart", "of four episodes an interval of 95 % misleads in one case of five"
    monkeypatch.setattr(rows, "FEWEST", 4)
    assert mine.value_interval[0] < other.value_interval[1] and rows.ahead(mine, other) == "ahead" and rows.ahead(other, mine) == "behind"
    assert rows.ahead(mine, mine) == "not told apart"
    single = suite.model_copy(update={"runs": 1})
    table = rows.table(single, [run for run in better if run.facts.run == 1], [])
    assert np.isnan(table.summaries[0].iqm[1]) and " - " in report.markdown(table)


def decided(by_hand) -> rows.Table:
    """Enough episodes to tell: the policy is ahead of corrected-drag, the best on train, in id, and behind it and fixed-drag in far-threshold; random 0, the oracle 10."""
    suite, every = by_hand
    worth = {("adatom-manipulation", "id"): 23.3, ("adatom-manipulation", "far-threshold"): 4.0, ("corrected-drag", "id"): 5.0, ("corrected-drag", "far-threshold"): 6.0, ("fixed-drag", "id"): 3.0,
             ("fixed-drag", "far-threshold"): 5.0, ("oracle", "id"): 10.0, ("oracle", "far-threshold"): 10.0}  # fmt: skip
    spread = np.tile([-0.5, 0.5], 10)
    names = [run for run in every if run.facts.scenario == "train"]
    return rows.table(suite, names + [replace(invented(f.agent, f.kind, f.scenario, f.split, f.run, worth.get((f.agent, f.scenario), 0.0) + spread, reached=np.arange(20) < 5), facts=f)
                                      for run in every if (f := run.facts).scenario != "train"], [])  # fmt: skip


def test_the_report_says_who_is_ahead_and_by_whom_the_policy_is_passed(by_hand):
    table = decided(by_hand)
    (entry,) = (entry for entry in report.leaderboard(table)["entries"] if entry["kind"] == "learned")
    assert entry["against_best_script"] == {"ahead": ["id"], "not told apart": [], "behind": ["far-threshold"], "runs missing": []}
    text = report.markdown(table)
    assert "| AdatomManipulation | id | - | far-threshold | - | fixed-drag in far-threshold |" in text
    assert "| AdatomManipulation | adatom-manipulation | 2.33 | - | 0.40 | - | 1.93 |" in text, "score on id, near, far, and what is lost"
    for told in (text, report.page(table)):
        assert "0 is random, 1 is the oracle" in told and "Of fewer than 20 episodes nothing is told apart" in told


def test_figures_hold_what_the_rows_say(by_hand):
    table = decided(by_hand)
    numbers = re.findall(r">(-?\d+\.\d)</text>", figures.shifts(table))
    assert "2.3" in numbers, "a score beyond the axis is told at its edge"
    drawn = figures.costs(table)
    assert drawn != figures.costs(replace(table, rows=[replace(row, success=1 - row.success) for row in table.rows])) and "instrument seconds" in drawn
    for caption in report.CAPTIONS:
        assert caption in report.page(table)


@pytest.mark.parametrize("ends", [(0.3, 3.1), (19_000, 31_000), (2.05, 4.6), (1.0, 1e6)])
def test_an_axis_has_a_few_numbers(ends):
    found = figures._round_numbers(*ends)
    assert 1 <= len(found) <= 4 and all(ends[0] <= number <= ends[1] for number in found)


def test_a_split_is_told_by_the_median_of_the_scores_there_are():
    assert report._middle([0.2, float("nan"), 0.4, 9.0]) == 0.4 and np.isnan(report._middle([float("nan")]))


def test_a_missing_bound_leaves_no_score_and_others_are_compared_without_that_scenario(by_hand):
    suite, every = by_hand
    left = [run for run in every if (run.facts.agent, run.facts.scenario, run.facts.run) != ("oracle", "far-threshold", 2)]
    table = rows.table(suite, left, [run.facts for run in every])
    row = table.row(ADATOM, "adatom-manipulation", "far-threshold")
    text = report.markdown(table)
    assert np.isnan(row.score) and row.missing == 0 and "oracle (1 run missing)" in text and text.count("missing)") == 1
    other = table.row(ADATOM, "corrected-drag", "far-threshold")
    assert rows.ahead(row, other) != "runs missing", "the oracle has no part in it"
    assert {s.split for s in table.summaries} == {"id", "all"} and all(s.tasks == 1 for s in table.summaries)
    assert {entry["agent"]: entry["missing_runs"] for entry in report.leaderboard(table)["entries"]}["oracle"] == 1


def test_an_agent_without_any_run_is_in_every_table(by_hand):
    suite, every = by_hand
    left = [run for run in every if run.facts.agent != "corrected-drag"]
    table = rows.table(suite, left, [run.facts for run in every])
    assert table.row(ADATOM, "corrected-drag", "id").missing == suite.runs and "corrected-drag (2 runs missing)" in report.markdown(table)
    assert ADATOM not in table.best, "it may be the one that is missing"
    assert any(line.startswith(f"{ADATOM},id,id,") and ",corrected-drag," in line for line in report.table_csv(table).splitlines())
    (entry,) = (entry for entry in report.leaderboard(table)["entries"] if entry["agent"] == "corrected-drag")
    assert entry["missing_runs"] == 4 and "corrected-drag" in report.page(table)


def test_a_comparison_without_its_runs_is_told(by_hand):
    suite, every = by_hand
    left = [run for run in every if (run.facts.agent, run.facts.scenario, run.facts.run) != ("adatom-manipulation", "id", 1)]
    (entry,) = (entry for entry in report.leaderboard(rows.table(suite, left, [run.facts for run in every]))["entries"] if entry["kind"] == "learned")
    assert entry["against_best_script"]["runs missing"] == ["id"]


def test_results_of_other_code_are_not_mixed_in(small, played, monkeypatch):
    monkeypatch.setattr(results, "code", lambda: "0" * 64)
    with pytest.raises(ProbeGymError, match="the package has changed since"):
        jobs.jobs(small, played)


@pytest.mark.parametrize("name", ["physics/kernels/adatoms.c", "physics/data/srtio3.npz", "scenarios/stem_tuning.yaml", "rewards/__init__.py"])
def test_whatever_makes_an_episode_is_in_the_digest_of_the_code(name, tmp_path, monkeypatch):
    apart = {"agents/policies/one/policy.onnx": "has a digest of its own", "agents/benchmark/core.yaml": "names runs that tell what they are",
             "agents/benchmark/report.py": "reads what is there", "terminal/benchmark.py": "prints it", "envs/pictures_beam.py": "draws"}  # fmt: skip
    for path in (name, *apart):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"one")
    monkeypatch.setattr(results, "PACKAGE", tmp_path)
    monkeypatch.setattr(results.bundle, "SHIPPED", tmp_path / "agents/policies")
    monkeypatch.setattr(results.suite, "FOLDER", tmp_path / "agents/benchmark")
    first = results.code.__wrapped__()
    for path, why in apart.items():
        (tmp_path / path).write_bytes(b"two")
        assert results.code.__wrapped__() == first, why
    (tmp_path / name).write_bytes(b"two")
    assert results.code.__wrapped__() != first


def test_a_score_that_no_episode_has_is_told(by_hand):
    contest = by_hand[0].environments[ADATOM].model_copy(update={"score": "beauty"})
    with pytest.raises(ProbeGymError, match="no 'beauty' to score by: use one of return, success, error"):
        rows.table(by_hand[0].model_copy(update={"environments": {ADATOM: contest}}), by_hand[1], [])


def test_the_best_of_a_part_of_the_scripts_is_called_so(small, played):
    """Nobody knows whether the others are better; without them left out the words are those of the protocol."""
    part = tabled(small.narrowed([], ["adatom-manipulation", "fixed-drag"]), played)
    assert part.best == {ADATOM: "fixed-drag"} and report.leaderboard(part)["scripts_left_out"] == {ADATOM: ["corrected-drag"]}
    for told in (report.markdown(part), report.page(part)):
        assert "Learned against the best of the scripts that were run" in told and "beats best of the scripts that were run" in told
        assert "Scripts of the suite were left out (AdatomManipulation: corrected-drag)" in told and "Learned against the best script" not in told
    whole = tabled(small.narrowed([], ["adatom-manipulation", "fixed-drag", "corrected-drag"]), played)
    assert "Learned against the best script" in report.markdown(whole) and "that were run" not in report.page(whole) + report.markdown(whole)


def test_what_is_left_out_twice_adds_up(small):
    part = small.narrowed([], ["fixed-drag", "corrected-drag"]).narrowed([], ["fixed-drag"])
    assert part.environments[ADATOM].left_out == ("corrected-drag",) and part.environments[ADATOM].agents == ("fixed-drag", "random", "oracle")


def test_names_of_users_break_no_table(small, played):
    told = tabled(small.model_copy(update={"description": "<script>alert(1)</script>"}), played)
    assert "<script" not in report.page(told) and report._cell("a | b\n<b>") == "a \\| b &lt;b&gt;"


def test_a_description_is_one_line_of_text(small, played):
    described = "<script>alert(1)</script>\n\n# Results\n| a | b |\n|---|---|"
    text = report.markdown(tabled(small.model_copy(update={"description": described}), played))
    assert text.splitlines()[2] == "&lt;script&gt;alert(1)&lt;/script&gt;  # Results \\| a \\| b \\| \\|---\\|---\\|"
    assert "<script" not in text and text.count("\n# ") == 0


def test_another_metric_may_be_the_score(by_hand):
    contest = by_hand[0].environments[ADATOM].model_copy(update={"score": "error"})
    other = by_hand[0].model_copy(update={"environments": {ADATOM: contest}})
    assert rows.table(other, by_hand[1], []).row(ADATOM, "adatom-manipulation", "id").value == pytest.approx(16)


def test_where_random_is_as_good_as_the_oracle_there_is_no_score(by_hand):
    same = [run if run.facts.agent != "oracle" else replace(run, results=replace(run.results, returns=np.zeros(2))) for run in by_hand[1]]
    table = rows.table(by_hand[0], same, [])
    assert np.isnan(table.row(ADATOM, "adatom-manipulation", "id").score) and "| - |" in report.markdown(table)


def test_the_report_is_the_same_from_the_same_results(small, played, tmp_path):
    for name in ("one", "two"):
        report.write(tabled(small, played), tmp_path / name)
    for name in ("report.md", "table.csv", "report.html", "leaderboard.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_tables_made_anew_from_the_same_seeds_are_the_same(small, played, tmp_path):
    part = small.narrowed([], ["fixed-drag"])
    for work in jobs.jobs(part, tmp_path / "again"):
        jobs.carry_out(work.told)
    assert report.table_csv(tabled(part, tmp_path / "again")) == report.table_csv(tabled(part, played))


def test_the_csv_holds_what_the_markdown_says(whole):
    lines = list(csv.DictReader(io.StringIO(report.table_csv(whole))))
    assert len(lines) == 5 * 3
    first = next(line for line in lines if line["agent"] == "adatom-manipulation" and line["scenario"] == "id")
    assert f"| {float(first['success']):.1%} |" in report.markdown(whole) and first["kind"] == "learned"


def test_what_is_missing_is_told(small, played, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(played, folder)
    gone = jobs.planned(small)[3]
    (folder / gone.path).unlink()
    table = tabled(small, folder)
    assert table.missing == [gone] and "missing: 1 run, " in report.markdown(table) and "missing: 1 run, " in report.page(table)


def test_the_page_asks_nothing_of_the_network(whole):
    page = report.page(whole)
    assert page.count("<svg") == 3 and not re.search(r"(src|href)=['\"]https?:", page) and "<script" not in page


def test_the_leaderboard_is_ordered(whole):
    board = report.leaderboard(whole)["entries"]
    assert board[0]["score_id"] >= board[-1]["score_id"] and board[-1]["agent"] == "random" and {"score_far", "success_id", "agent_digests"} <= set(board[0])


# ---- submissions ----


@pytest.fixture
def handed_in(tmp_path) -> Path:
    """A submission with one policy."""
    folder = tmp_path / "mine"
    shutil.copytree(find("adatom-manipulation"), folder / "adatom")
    policy = {"folder": "adatom", "sha256": [submission.bundle_digest(folder / "adatom")], "trained_on": ["train"]}
    told = {"schema": submission.SCHEMA, "name": "mine", "authors": ["A. Author"], "description": "A test.", "licence": "MIT", "policies": {ADATOM: policy}}
    (folder / "manifest.yaml").write_text(yaml.safe_dump(told))
    return folder


def test_a_submission_takes_the_place_of_the_learned_agent(small, handed_in, tmp_path):
    mine = submission.entered(small, handed_in)
    (facts,) = [f for f in jobs.planned(mine) if f.kind == "learned" and f.scenario == "id" and f.run == 1]
    assert facts.agent == "mine" and str(handed_in) not in str(facts) and "A. Author" in mine.description
    for work in jobs.jobs(mine.narrowed([], [facts.agent]), tmp_path / "out"):
        jobs.carry_out(work.told)
    assert tabled(mine.narrowed([], [facts.agent]), tmp_path / "out").row(ADATOM, facts.agent, "id").episodes == 6


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t.pop("licence"), "licence"), (lambda t: t | {"colour": "red"}, "colour"), (lambda t: t | {"schema": "other"}, "schema"),
        (lambda t: t["policies"][ADATOM].update(sha256=["0" * 64]), "changed after"), (lambda t: t["policies"][ADATOM].update(folder="../other"), "no policy|outside"),
        (lambda t: t["policies"][ADATOM].update(trained_on=["far-threshold"]), "only the split train"), (lambda t: t["policies"][ADATOM].update(trained_on=["x"]), "unknown scenario"),
        (lambda t: t["policies"].update({"probegym/StemTuning-v0": t["policies"][ADATOM]}), "not for probegym/StemTuning"), (lambda t: t["policies"].update({"x": t["policies"][ADATOM]}), "x"),
        (lambda t: t["policies"][ADATOM]["sha256"].append("0" * 64), "one folder"), (lambda t: t["policies"][ADATOM].update(sha256=["zz"]), "sha256"),
        (lambda t: t["policies"][ADATOM].update(trained_on=["/etc/passwd.yaml:train"]), "scenarios that ship"), (lambda t: t["policies"][ADATOM].update(trained_on=["_base"]), "unknown scenario"),
        (lambda t: t["policies"][ADATOM].update(folder="a\0b"), "NUL"), (lambda t: t.update(description="\x1b[2J"), "printable"), (lambda t: t["policies"][ADATOM].update(folder="x" * 400), "name too long"),
        *((lambda t, name=name: t.update(name=name), "name") for name in (".", "..", "a b", "a/b", "a:b", "a\n", "[b]", "x" * 101)),
    ],
)  # fmt: skip
def test_a_submission_that_breaks_its_manifest_is_refused(handed_in, change, told):
    table = yaml.safe_load((handed_in / "manifest.yaml").read_text())
    new = change(table)
    (handed_in / "manifest.yaml").write_text(yaml.safe_dump(new if isinstance(new, dict) and "name" in new else table))
    with pytest.raises(ProbeGymError, match=told) as caught:
        submission.read(handed_in)
    assert "manifest.yaml" in str(caught.value) and "line " in str(caught.value) and "\n" not in str(caught.value)


def test_a_wrong_checksum_is_told_with_its_own_line(handed_in):
    path = handed_in / "manifest.yaml"
    lines = path.read_text().splitlines()
    (at,) = (n for n, line in enumerate(lines) if "sha256" in line)
    lines[at + 1] = lines[at + 1].replace(lines[at + 1][-8:], "0" * 8)
    path.write_text("\n".join(lines))
    with pytest.raises(ProbeGymError, match=f"line {at + 2}: .*changed after"):
        submission.read(handed_in)


def test_the_manifest_tells_what_the_bundle_was_trained_on(handed_in, tmp_path):
    """A bundle of an evaluation scenario, or of one that the manifest does not name, is refused."""
    model, spec = (handed_in / "adatom" / "policy.onnx").read_bytes(), bundle.read(handed_in / "adatom").spec
    for wrong in ("far-threshold", "tmp/mine.yaml:mine", "id"):
        shutil.rmtree(handed_in / "adatom")
        bundle.write(handed_in / "adatom", model, spec | {"scenario": wrong})
        table = yaml.safe_load((handed_in / "manifest.yaml").read_text())
        table["policies"][ADATOM]["sha256"] = [submission.bundle_digest(handed_in / "adatom")]
        (handed_in / "manifest.yaml").write_text(yaml.safe_dump(table))
        with pytest.raises(ProbeGymError, match=rf"line \d+: adatom says that it was trained on '{wrong}'"):
            submission.read(handed_in)


def test_a_manifest_that_is_no_file_of_the_submission_is_refused(handed_in):
    (handed_in / "manifest.yaml").rename(handed_in.parent / "manifest.yaml")
    (handed_in / "manifest.yaml").symlink_to(handed_in.parent / "manifest.yaml")
    with pytest.raises(ProbeGymError, match="outside of the submission"):
        submission.read(handed_in)
    (handed_in / "manifest.yaml").unlink()
    os.mkfifo(handed_in / "manifest.yaml")
    with pytest.raises(ProbeGymError, match="no ordinary file"):
        submission.read(handed_in)


def test_a_folder_with_the_name_of_a_shipped_policy_is_that_of_the_submission(handed_in, monkeypatch):
    """Also where the submission is the working folder."""
    monkeypatch.chdir(handed_in)
    text = (handed_in / "manifest.yaml").read_text().replace("folder: adatom", "folder: adatom-manipulation")
    (handed_in / "manifest.yaml").write_text(text)
    with pytest.raises(ProbeGymError, match=r"manifest\.yaml, line"):
        submission.read(Path())
    (handed_in / "adatom").rename(handed_in / "adatom-manipulation")
    assert submission.read(Path()).name == "mine"


def test_an_interrupted_benchmark_says_how_to_go_on(small, tmp_path):
    class Interrupted:
        def run(self, *_):
            raise KeyboardInterrupt

    console = plain(width=200, file=io.StringIO())
    with pytest.raises(KeyboardInterrupt):
        run(small, tmp_path / "out", Interrupted(), console)
    assert "interrupted: the same command goes on" in console.file.getvalue()


def test_a_part_of_a_submission(handed_in):
    both = yaml.safe_load((handed_in / "manifest.yaml").read_text())
    shutil.copytree(find("tip-conditioning"), handed_in / "tip")
    both["policies"]["probegym/TipConditioning-v0"] = {"folder": "tip", "sha256": [submission.bundle_digest(handed_in / "tip")], "trained_on": ["train"]}
    (handed_in / "manifest.yaml").write_text(yaml.safe_dump(both))
    assert set(chosen("core", [], [], None, None, handed_in).environments) == {ADATOM, "probegym/TipConditioning-v0"}
    part = chosen("core", [ADATOM], ["mine", "grid-table"], None, None, handed_in)
    assert list(part.environments) == [ADATOM] and part.environments[ADATOM].agents == ("mine", "grid-table", "random", "oracle")
    with pytest.raises(ProbeGymError, match="no policy for probegym/StemTuning-v0"):
        chosen("core", ["probegym/StemTuning-v0"], [], None, None, handed_in)


def test_a_link_to_itself_is_refused(handed_in):
    shutil.rmtree(handed_in / "adatom")
    (handed_in / "adatom").symlink_to(handed_in / "adatom")
    with pytest.raises(ProbeGymError, match=r"manifest\.yaml, line \d+"):
        submission.read(handed_in)


def test_a_submission_plays_within_a_limit_of_memory(small, handed_in, tmp_path):
    mine = submission.entered(small, handed_in)
    limited = {work.name: work.call.endswith(":carry_out_limited") for work in jobs.jobs(mine, tmp_path)}
    assert [name for name, held in limited.items() if held] == ["AdatomManipulation-v0 mine"] and len(limited) == 5
    told = "import resource; from probegym.agents.benchmark import jobs; jobs.carry_out = lambda told: print(resource.getrlimit(resource.RLIMIT_AS)[0] < 2**40); jobs.carry_out_limited({})"
    assert python(told).strip() == "True"


def test_a_policy_that_takes_all_memory_is_refused_before_it_plays(handed_in):
    """Its golden actions are asked for in a process with limits, as when it is deployed."""
    path = handed_in / "adatom/policy.onnx"
    model = onnx.load(path)
    name = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = [f"{name}_small" if one == name else one for one in node.output]
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([200, 200], np.int64), "root"))
    model.graph.node.extend([onnx.helper.make_node("Mul", ["root", "root"], ["side"]), onnx.helper.make_node("ConstantOfShape", ["side"], ["large"]), onnx.helper.make_node("ReduceSum", ["large"], ["nothing"], keepdims=0),
                             onnx.helper.make_node("Add", [f"{name}_small", "nothing"], [name])])  # fmt: skip
    spec = bundle.read(handed_in / "adatom").spec
    shutil.rmtree(handed_in / "adatom")
    bundle.write(handed_in / "adatom", model.SerializeToString(), spec)
    table = yaml.safe_load((handed_in / "manifest.yaml").read_text())
    table["policies"][ADATOM]["sha256"] = [submission.bundle_digest(handed_in / "adatom")]
    (handed_in / "manifest.yaml").write_text(yaml.safe_dump(table))
    with pytest.raises(ProbeGymError, match=r"manifest\.yaml, line \d+: .*does not start"):
        submission.read(handed_in)


def test_a_policy_outside_of_the_submission_is_refused(handed_in):
    shutil.move(handed_in / "adatom", handed_in.parent / "elsewhere")
    (handed_in / "adatom").symlink_to(handed_in.parent / "elsewhere")
    with pytest.raises(ProbeGymError, match="outside of the submission"):
        submission.read(handed_in)


def test_a_bundle_that_was_tampered_with_is_refused(handed_in):
    path = handed_in / "adatom" / "policy.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ProbeGymError):
        submission.read(handed_in)


def test_as_many_policies_as_runs(small, handed_in):
    table = yaml.safe_load((handed_in / "manifest.yaml").read_text())
    (handed_in / "adatom").rename(handed_in / "adatom-1")
    table["policies"][ADATOM]["folder"] = "adatom-{seed}"
    (handed_in / "manifest.yaml").write_text(yaml.safe_dump(table))
    with pytest.raises(ProbeGymError, match="2 runs, the submission policies for 1"):
        submission.entered(small, handed_in)
    shutil.copytree(handed_in / "adatom-1", handed_in / "adatom-2")
    table["policies"][ADATOM]["sha256"] *= 2
    (handed_in / "manifest.yaml").write_text(yaml.safe_dump(table))
    mine = submission.entered(small, handed_in)
    assert len({f.agent_digest for f in jobs.planned(mine) if f.kind == "learned"}) == 1 and mine.folders[ADATOM]["mine"].endswith("adatom-{seed}")


def test_the_leaderboard_names_every_policy_of_a_submission_and_whose_they_are(small, handed_in):
    """Also those of which no run is there yet."""
    mine = submission.entered(small, handed_in)
    planned = [replace(facts, agent_digest=f"{facts.run}" * 64) if facts.kind == "learned" else facts for facts in jobs.planned(mine)]
    board = report.leaderboard(rows.table(mine, [], reversed(planned)))
    digests = {entry["agent"]: entry["agent_digests"] for entry in board["entries"]}
    assert digests["mine"] == ["1" * 64, "2" * 64] and digests["fixed-drag"] == ["of the package"] * 2
    assert (board["authors"], board["licence"]) == (["A. Author"], "MIT") and json.dumps(board)
