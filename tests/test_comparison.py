"""Paired tests and intervals: by hand, against scipy, and by how often they cover."""

import math

import numpy as np
import pytest
from scipy import stats

from roadsense.comparison import (
    interquartile_mean,
    iqm_difference,
    iqm_over_runs,
    mcnemar,
    paired_bootstrap,
    probability_of_improvement,
)


def pairs(both, first, second, neither):
    """Outcomes of so many pairs of each kind."""
    kinds = [(1, 1)] * both + [(1, 0)] * first + [(0, 1)] * second + [(0, 0)] * neither
    return np.array(kinds, int).reshape(-1, 2).T


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [
        (8, 1, 2 * (1 + 9) / 2**9),  # none or one of nine, either way
        (1, 8, 2 * (1 + 9) / 2**9),
        (0, 5, 2 / 2**5),
        (3, 3, 1.0),
        (0, 0, 1.0),
    ],
)
def test_mcnemar_counts_the_pairs_that_differ(first, second, p):
    found = mcnemar(*pairs(4, first, second, 100))
    assert (found.b, found.c, found.n) == (first, second, 104 + first + second)
    assert found.p == pytest.approx(p, rel=1e-12)


def test_mcnemar_is_the_exact_test_of_a_fair_coin():
    rng = np.random.default_rng(3)
    for b, c in [(44, 10), (1, 300), *rng.integers(1, 60, (20, 2)).tolist()]:
        assert mcnemar(*pairs(5, b, c, 5)).p == pytest.approx(stats.binomtest(b, b + c, 0.5).pvalue, rel=1e-9)
    # at the level of 5 % it is wrong in at most 5 %
    wrong = sum(stats.binom.pmf(b, 20, 0.5) for b in range(21) if mcnemar(*pairs(0, b, 20 - b, 0)).p <= 0.05)
    assert 0.03 < wrong <= 0.05


def test_mcnemar_takes_outcomes_and_nothing_else():
    with pytest.raises(ValueError, match="neither 0 nor 1"):
        mcnemar([0, 1, math.nan], [0, 1, 1])
    with pytest.raises(ValueError, match="paired columns have 2 and 3 entries"):
        mcnemar([True, False], [True, False, True])
    assert mcnemar([], []).p == 1.0


def test_a_difference_of_means_and_of_ratios():
    # scenario a differs by 1, scenario b by 3; resampled: by 1, 2 or 3
    means = paired_bootstrap([2.0, 5.0], [1.0, 2.0], ["a", "b"])
    assert (means.value, means.low, means.high, means.clusters) == (2.0, 1.0, 3.0, 2)
    # (2 + 4)/(1 + 3) - (1 + 1)/(2 + 2), and not the mean of 2 - 1/2 and 4/3 - 1/2
    ratios = paired_bootstrap([2, 4], [1, 1], ["a", "b"], first_over=[1, 3], second_over=[2, 2])
    assert ratios.value == pytest.approx(1.0)
    assert (ratios.low, ratios.high) == (pytest.approx(4 / 3 - 0.5), pytest.approx(1.5))


def test_what_is_hard_for_both_policies_cancels():
    rng = np.random.default_rng(5)
    level = rng.normal(0.0, 10.0, 50)
    first, second = level + 1.0 + rng.normal(0.0, 0.1, 50), level + rng.normal(0.0, 0.1, 50)
    names = np.arange(50).astype(str)
    paired, shuffled = paired_bootstrap(first, second, names), paired_bootstrap(first, rng.permutation(second), names)
    assert paired.low < 1.0 < paired.high
    assert paired.high - paired.low < 0.02 * (shuffled.high - shuffled.low)
    assert paired_bootstrap(first, second, names) == paired  # the same data give the same interval


def test_scenarios_are_resampled_and_not_episodes():
    effect = np.array([0.0, 2.0] * 10)
    each = paired_bootstrap(effect, np.zeros(20), np.arange(20))
    often = paired_bootstrap(np.repeat(effect, 30), np.zeros(600), np.repeat(np.arange(20), 30))
    assert often == each


def test_the_interval_is_scipys_with_percentiles_further_out():
    rng = np.random.default_rng(6)
    first, second = rng.exponential(2.0, 15), rng.exponential(1.0, 15)
    found = paired_bootstrap(first, second, np.arange(15))
    wide = 1.0 - 2.0 * stats.norm.cdf(-math.sqrt(15 / 14) * stats.t.ppf(0.975, 14))
    reference = stats.bootstrap(
        (first, second), lambda x, y, axis: x.mean(axis) - y.mean(axis), paired=True, n_resamples=20_000,
        confidence_level=wide, method="percentile", rng=np.random.default_rng(7), vectorized=True,
    ).confidence_interval  # fmt: skip
    assert wide > 0.965
    assert (found.low, found.high) == (pytest.approx(reference.low, abs=0.1), pytest.approx(reference.high, abs=0.1))


@pytest.mark.parametrize(("scenarios", "least", "most"), [(5, 0.85, 0.94), (20, 0.92, 0.98)])
def test_intervals_of_false_brakes_per_km_cover_as_often_as_documented(scenarios, least, most):
    """Events at a rate that differs between scenarios and is twice as high with the first policy; kilometres vary."""
    rng, covered = np.random.default_rng(1), 0
    names = np.repeat(np.arange(scenarios), 5)
    for _ in range(500):
        rate = rng.gamma(2.0, 1.0, (scenarios, 1))  # per km; 2 on average
        km = rng.uniform(0.2, 0.6, (2, scenarios, 5))
        events = rng.poisson(np.stack([2.0 * rate * km[0], rate * km[1]]))
        found = paired_bootstrap(
            events[0].ravel(), events[1].ravel(), names, first_over=km[0].ravel(), second_over=km[1].ravel()
        )
        covered += found.low <= 2.0 <= found.high
    print(f"{scenarios} scenarios: {covered / 500:.3f} covered")
    assert least < covered / 500 < most


def test_where_nothing_tells_of_the_spread_there_is_no_interval():
    single = paired_bootstrap([1.0, 2.0], [0.0, 0.0], ["a", "a"])
    assert single.value == 1.5 and math.isnan(single.low) and math.isnan(single.high)
    nothing = paired_bootstrap([], [], [])
    assert math.isnan(nothing.value) and math.isnan(nothing.low)


def test_pairs_without_a_figure_are_refused():
    with pytest.raises(ValueError, match="a value is NaN; leave episodes without a figure out, for both policies"):
        paired_bootstrap([1.0, math.nan], [1.0, 1.0], ["a", "b"])
    with pytest.raises(ValueError, match="paired columns have 1 and 2 entries"):
        paired_bootstrap([1.0, 2.0], [1.0, 1.0], ["a"])


def test_the_interquartile_mean_is_that_of_the_middle_half():
    assert interquartile_mean([8, 1, 7, 2, 6, 3, 5, 4]) == 4.5
    assert interquartile_mean([1, 2, 3, 4, 1000]) == 3.0
    assert interquartile_mean([[1, 2], [3, -1000]]) == 1.5
    rng = np.random.default_rng(2)
    for size in range(1, 30):
        values = rng.normal(size=size)
        assert interquartile_mean(values) == pytest.approx(stats.trim_mean(values, 0.25))


def test_runs_are_resampled_within_their_task():
    # runs agree within each task: whatever is drawn, the figure is the same
    agreed = iqm_over_runs(np.tile([0.0, 10.0], (6, 1)))
    assert (agreed.value, agreed.low, agreed.high, agreed.runs, agreed.tasks) == (5.0, 5.0, 5.0, 6, 2)
    # each task draws on its own: were whole runs drawn, one that is good where the other is bad would have no spread
    crossed = iqm_over_runs([[0.0, 1.0], [1.0, 0.0]])
    assert (crossed.value, crossed.low, crossed.high) == (0.5, 0.0, 1.0)


def test_the_interval_of_the_interquartile_mean_is_scipys_for_one_task():
    scores = np.random.default_rng(4).normal(size=12)
    found = iqm_over_runs(scores[:, None])
    reference = stats.bootstrap(
        (scores,), lambda x, axis: stats.trim_mean(x, 0.25, axis=axis), n_resamples=20_000, method="percentile",
        rng=np.random.default_rng(7), vectorized=True,
    ).confidence_interval  # fmt: skip
    assert (found.low, found.high) == (pytest.approx(reference.low, abs=0.1), pytest.approx(reference.high, abs=0.1))


@pytest.mark.parametrize(("runs", "tasks", "least", "most"), [(5, 1, 0.85, 0.93), (10, 3, 0.91, 0.98)])
def test_intervals_of_the_interquartile_mean_cover_as_often_as_documented(runs, tasks, least, most):
    rng, covered = np.random.default_rng(3), 0
    for _ in range(400):
        found = iqm_over_runs(rng.standard_t(3, (runs, tasks)))  # symmetric about 0, with outliers
        covered += found.low <= 0.0 <= found.high
    print(f"{runs} runs of {tasks} tasks: {covered / 400:.3f} covered")
    assert least < covered / 400 < most


def test_scores_that_cannot_be_are_refused():
    for shape in ((3,), (0, 2)):
        with pytest.raises(ValueError, match="give one row a run and one column a task"):
            iqm_over_runs(np.zeros(shape))
    with pytest.raises(ValueError, match="a score is NaN"):
        iqm_over_runs([[1.0], [math.nan]])
    assert math.isnan(iqm_over_runs([[1.0, 2.0]]).low)  # one run has no spread


def test_the_difference_of_interquartile_means_is_scipys_for_one_task():
    rng = np.random.default_rng(5)
    first, second = rng.normal(1.0, 1.0, 9), rng.normal(0.0, 2.0, 14)
    found = iqm_difference(first[:, None], second[:, None])
    reference = stats.bootstrap(
        (first, second), lambda x, y, axis: stats.trim_mean(x, 0.25, axis=axis) - stats.trim_mean(y, 0.25, axis=axis),
        n_resamples=20_000, method="percentile", rng=np.random.default_rng(7), vectorized=True,
    ).confidence_interval  # fmt: skip
    assert found.value == pytest.approx(stats.trim_mean(first, 0.25) - stats.trim_mean(second, 0.25))
    assert (found.low, found.high) == (pytest.approx(reference.low, abs=0.15), pytest.approx(reference.high, abs=0.15))
    assert (found.runs, found.against) == (9, 14)


def test_equal_scores_are_redrawn_independently():
    # were both drawn alike, equal recipes would differ by nothing in every sample
    scores = np.arange(6.0)[:, None]
    found = iqm_difference(scores, scores)
    assert found.value == 0.0 and found.low < -1.0 and found.high > 1.0
    better = probability_of_improvement(scores, scores)
    assert better.value == 0.5 and better.low < 0.3 and better.high > 0.7


def test_the_probability_of_improvement_is_mann_whitneys():
    rng = np.random.default_rng(6)
    first, second = rng.integers(0, 6, 7).astype(float), rng.integers(0, 6, 5).astype(float)  # with ties
    found = probability_of_improvement(first[:, None], second[:, None])
    assert found.value == pytest.approx(stats.mannwhitneyu(first, second).statistic / 35)
    # over two tasks it is the mean, and runs are compared within their task only
    two = probability_of_improvement([[1.0, 10.0], [2.0, 11.0]], [[0.0, 20.0], [0.5, 30.0], [1.5, 10.5]])
    assert two.value == pytest.approx((5 / 6 + 1 / 6) / 2)
    assert probability_of_improvement([[2.0], [3.0]], [[0.0], [1.0]]).value == 1.0


def test_intervals_of_the_difference_cover_about_as_often_as_those_of_one_mean():
    rng, covered = np.random.default_rng(8), 0
    for _ in range(300):
        found = iqm_difference(rng.standard_t(3, (5, 1)), rng.standard_t(3, (5, 1)))
        covered += found.low <= 0.0 <= found.high
    print(f"5 against 5 runs: {covered / 300:.3f} covered")
    assert 0.86 < covered / 300 < 0.97


def test_runs_that_cannot_be_compared_are_refused_and_single_ones_have_no_interval():
    with pytest.raises(ValueError, match="scores are of 1 and 2 tasks"):
        iqm_difference([[1.0]], [[1.0, 2.0]])
    with pytest.raises(ValueError, match="a score is NaN"):
        probability_of_improvement([[1.0]], [[math.nan]])
    single = iqm_difference([[1.0]], [[2.0], [4.0]])
    assert single.value == -2.0 and math.isnan(single.low) and math.isnan(single.high)
