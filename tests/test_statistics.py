"""Statistics of runs against the published formulas, by hand and by scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from probegym.agents import statistics
from probegym.agents.statistics import (
    efficiency_area,
    interquartile_mean,
    interval,
    mean_interval,
    median_interval,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
    ratio_interval,
    score_interval,
)

RNG = np.random.default_rng(0)
RUNS = RNG.normal(0.6, 0.2, (10, 6))


def test_the_interquartile_mean_by_hand():
    scores = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 100.0]])
    assert interquartile_mean(scores) == pytest.approx((2 + 3 + 4 + 5) / 4)  # of eight, two go at either end
    assert interquartile_mean(RUNS) == pytest.approx(stats.trim_mean(RUNS.ravel(), 0.25))


def test_outliers_do_not_move_the_interquartile_mean():
    wild = RUNS.copy()
    wild[RUNS == RUNS.max()] = 1e9
    assert interquartile_mean(wild) == interquartile_mean(RUNS)


def test_the_optimality_gap_by_hand():
    assert optimality_gap(np.array([[0.5, 2.0], [1.0, 0.0]])) == pytest.approx(1 - (0.5 + 1 + 1 + 0) / 4)
    assert optimality_gap(np.array([[0.5]]), aim=2.0) == pytest.approx(1.5)


def test_the_performance_profile_by_hand():
    scores = np.array([[0.1, 0.9], [0.5, 0.5]])
    assert performance_profile(scores, np.array([-1.0, 0.1, 0.5, 0.8, 2.0])).tolist() == [1.0, 0.75, 0.25, 0.25, 0.0]


def test_the_probability_of_improvement_is_mann_whitneys():
    others = RNG.normal(0.5, 0.2, (7, 6))
    by_task = [stats.mannwhitneyu(RUNS[:, task], others[:, task]).statistic / (10 * 7) for task in range(6)]
    assert probability_of_improvement(RUNS, others) == pytest.approx(np.mean(by_task))
    assert probability_of_improvement(RUNS, RUNS) == pytest.approx(0.5)
    assert probability_of_improvement(RUNS + 10, others) == 1 and probability_of_improvement(np.zeros((3, 2)), np.zeros((4, 2))) == 0.5


@pytest.mark.parametrize(("environments", "low", "high"), [(1, 0.79, 0.88), (8, 0.87, 0.94)])
def test_how_often_an_interval_of_five_runs_holds_the_truth(environments, low, high):
    """What docs/benchmark.md says of it: less often than the 95 % that many runs would come to."""
    rng, held, groups = np.random.default_rng(1), 0, np.repeat(np.arange(environments), 11)  # so many scenarios each
    for _ in range(300):
        ends = interval(interquartile_mean, rng.normal(size=(5, len(groups))), together=groups, resamples=300)
        held += ends[0] <= 0 <= ends[1]
    assert low < held / 300 < high


def test_how_often_the_difference_of_equals_misleads():
    """Near the ceiling, where one episode in a hundred decides, an interval of a hundred differences misses its mean in a third of the cases, else in a twentieth."""
    rng = np.random.default_rng(2)

    def missed(draw) -> float:
        ends = np.array([mean_interval(draw(), resamples=400) for _ in range(400)])
        return float(1 - ((ends[:, 0] <= 0) & (ends[:, 1] >= 0)).mean())

    rare = missed(lambda: 2 * (rng.random(100) < 0.01) - 0.02 + rng.normal(0, 0.01, 100))
    assert 0.25 < rare < 0.45 and 0.03 < missed(lambda: rng.normal(size=100)) < 0.09


def test_the_interval_draws_runs_within_each_task():
    """Tasks that differ widely do not widen it: no run of one task is drawn for another."""
    scores = np.tile([0.0, 10.0, 20.0, 30.0], (5, 1))
    low, high = interval(lambda table: table.mean((-2, -1)), scores)
    assert low == high == 15.0


def test_what_shares_episodes_is_drawn_together():
    """Two agents that differ by 1 in every run, and two copies of a task: the difference is certain, and copies tell nothing new."""
    runs = RNG.normal(0.0, 1.0, (8, 1))
    ends = interval(lambda a, b: a.mean((-2, -1)) - b.mean((-2, -1)), runs + 1, runs, together=[0])
    assert ends == pytest.approx([1.0, 1.0])
    alone, twice, apart = (
        np.ptp(interval(lambda table: table.mean((-2, -1)), np.repeat(runs, n, 1), together=groups)) for n, groups in ((1, [0]), (2, [0, 0]), (2, [0, 1]))
    )
    assert twice == pytest.approx(alone) and apart < 0.85 * alone
    with pytest.raises(ValueError, match="same runs and tasks"):
        interval(lambda a, b: 0.0, runs, runs[:4], together=[0])


def test_many_tables_are_as_one_after_another():
    many, others = RNG.normal(0.6, 0.2, (7, 10, 6)), RNG.normal(0.5, 0.2, (7, 4, 6))
    for of in (interquartile_mean, optimality_gap, lambda table: performance_profile(table, np.linspace(0, 1, 5))):
        assert np.allclose(of(many), [of(table) for table in many], rtol=1e-12)
    better = [probability_of_improvement(mine, theirs) for mine, theirs in zip(many, others, strict=True)]
    assert np.allclose(probability_of_improvement(many, others), better, rtol=1e-12)


def test_one_run_has_no_interval():
    assert np.isnan(interval(interquartile_mean, RUNS[:1])).all() and np.isnan(mean_interval(np.ones(1))).all()


def test_the_interval_of_a_score_pairs_episodes_and_knows_that_its_ends_are_estimates():
    random, oracle = RNG.normal(0.0, 1.0, 100), RNG.normal(10.0, 1.0, 100)
    assert score_interval(random, random, oracle) == pytest.approx((0.0, 0.0)) and score_interval(oracle, random, oracle) == pytest.approx((1.0, 1.0))
    low, high = score_interval(np.full(100, 5.0), random, oracle)
    assert low < 0.5 < high and high - low == pytest.approx(2 * 1.96 * 0.1 * np.sqrt(2) * 0.5 / 10, rel=0.4)


def test_the_interval_is_that_of_scipy():
    values = RNG.exponential(1.0, 60)
    known = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=1).confidence_interval
    assert mean_interval(values, resamples=20_000) == pytest.approx((known.low, known.high), abs=0.01)


def test_the_interval_of_a_ratio_is_over_episodes_in_pairs():
    low, high = ratio_interval(np.array([1.0, 3.0, 2.0, 4.0]), np.array([1.0, 1.0, 2.0, 2.0]))
    assert 1.0 <= low < 10 / 6 < high <= 3.0
    assert ratio_interval(np.arange(1.0, 4.0), np.arange(1.0, 4.0)) == (1.0, 1.0)


def test_many_episodes_are_drawn_in_blocks(monkeypatch):
    values = np.random.default_rng(1).normal(size=300)
    at_once = mean_interval(values), median_interval(values), ratio_interval(values + 9, values + 8)
    whole = interval(interquartile_mean, RUNS).tolist(), interval(probability_of_improvement, RUNS, RUNS + 0.1, together=[0, 0, 1, 1, 2, 2]).tolist()
    monkeypatch.setattr(statistics, "BLOCK", 1000)
    assert at_once == (mean_interval(values), median_interval(values), ratio_interval(values + 9, values + 8))
    assert whole == (interval(interquartile_mean, RUNS).tolist(), interval(probability_of_improvement, RUNS, RUNS + 0.1, together=[0, 0, 1, 1, 2, 2]).tolist())


def test_the_interval_covers_as_often_as_it_says():
    rng, hits = np.random.default_rng(3), 0
    for _ in range(200):
        low, high = mean_interval(rng.normal(2.0, 1.0, 60), resamples=400)
        hits += low <= 2.0 <= high
    assert 0.89 <= hits / 200 <= 0.99


def test_intervals_repeat():
    assert interval(interquartile_mean, RUNS, seed=4).tolist() == interval(interquartile_mean, RUNS, seed=4).tolist()
    assert interval(interquartile_mean, RUNS, seed=4).tolist() != interval(interquartile_mean, RUNS, seed=5).tolist()


def test_an_interval_of_a_profile_has_one_for_each_level():
    levels = np.linspace(0, 1, 5)
    ends = interval(lambda table: performance_profile(table, levels), RUNS, resamples=200)
    assert ends.shape == (2, 5) and (ends[0] <= performance_profile(RUNS, levels)).all() and (performance_profile(RUNS, levels) <= ends[1]).all()


def test_the_efficiency_area_is_the_area_under_the_curve():
    spent, reached = np.array([1.0, 2.0, 8.0, 3.0]), np.array([True, True, True, False])
    axis = np.linspace(0, 4, 400_001)
    curve = ((spent[:, None] <= axis) & reached[:, None]).mean(0)
    assert efficiency_area(spent, reached, 4.0) == pytest.approx(np.trapezoid(curve, axis) / 4, abs=1e-5)
    assert efficiency_area(np.zeros(3), np.ones(3, bool), 1.0) == 1 and efficiency_area(np.zeros(3), np.zeros(3, bool), 1.0) == 0


@pytest.mark.parametrize("scores", [np.zeros(3), np.zeros((0, 3)), np.zeros((2, 0, 2))])
def test_what_is_no_table_of_scores_is_refused(scores):
    with pytest.raises(ValueError, match="runs by tasks"):
        interquartile_mean(scores)
    with pytest.raises(ValueError, match="runs by tasks"):
        interval(interquartile_mean, np.zeros((2, 2, 2)))
    with pytest.raises(ValueError, match="cannot be compared"):
        probability_of_improvement(np.zeros((2, 3)), np.zeros((2, 4)))
