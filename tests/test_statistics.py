import math

import numpy as np
import pytest
from scipy import stats

from roadsense.comparison import paired_bootstrap
from roadsense.statistics import clopper_pearson, cluster_bootstrap, clustered_mean, highest_rate_without_events


def test_exact_bounds_of_a_proportion():
    # k = 0: the upper bound solves (1 - p)^n = 0.025
    assert clopper_pearson(0, 299) == (0.0, pytest.approx(1 - 0.025 ** (1 / 299)))
    assert clopper_pearson(7, 7) == (pytest.approx(0.025 ** (1 / 7)), 1.0)
    # 1 of 10: lower solves 1 - (1 - p)^10 = 0.025; upper (1 - p)^10 + 10 p (1 - p)^9 = 0.025
    low, high = clopper_pearson(1, 10)
    assert 1 - (1 - low) ** 10 == pytest.approx(0.025)
    assert (1 - high) ** 10 + 10 * high * (1 - high) ** 9 == pytest.approx(0.025)
    assert clopper_pearson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("count", "total"), [(3, 2), (-1, 5)])
def test_counts_that_cannot_be_are_refused(count, total):
    with pytest.raises(ValueError, match=f"count {count} must lie between 0 and total {total}"):
        clopper_pearson(count, total)


def test_the_bootstrap_resamples_clusters_and_not_episodes():
    # ten scenarios of ten equal episodes each: only ten independent values
    values = np.repeat([0.0, 1.0] * 5, 10)
    together = cluster_bootstrap(values, np.ones(100), [str(number // 10) for number in range(100)])
    apart = cluster_bootstrap(values, np.ones(100), [str(number) for number in range(100)])
    assert together[0] < 0.5 < together[1]
    assert together[1] - together[0] > 2.5 * (apart[1] - apart[0])  # sqrt(10) = 3.2 by theory
    assert together == cluster_bootstrap(values, np.ones(100), [str(number // 10) for number in range(100)])


def test_a_ratio_of_sums_and_not_a_mean_of_ratios():
    # two clusters, drawn twice: 1/3, 1 + 1 of 3 + 1, or 1/1
    low, high = cluster_bootstrap([1.0, 1.0], [1.0, 3.0], ["a", "b"], expanded=True)
    assert (low, high) == (pytest.approx(1 / 3), pytest.approx(1.0))
    low, high = cluster_bootstrap([1.0] * 60, [1.0, 3.0] * 30, [str(number) for number in range(60)])
    assert low < 0.5 < high < 2 / 3  # which is the mean of the ratios


@pytest.mark.parametrize("names", [[], ["same", "same"]])
def test_where_nothing_tells_of_the_spread_there_is_no_interval(names):
    assert all(math.isnan(bound) for bound in cluster_bootstrap([1.0, 2.0][: len(names)], [1.0] * len(names), names))


def test_an_interval_of_few_clusters_is_as_wide_as_that_of_a_paired_difference():
    rng = np.random.default_rng(4)
    tops, bottoms, names = rng.poisson(3.0, 12), rng.uniform(1.0, 2.0, 12), [str(number // 2) for number in range(12)]
    against_nothing = paired_bootstrap(tops, np.zeros(12), names, first_over=bottoms)
    assert cluster_bootstrap(tops, bottoms, names, expanded=True) == (against_nothing.low, against_nothing.high)


@pytest.mark.parametrize(("clusters", "least", "most"), [(5, 0.85, 0.94), (10, 0.90, 0.97)])
def test_intervals_of_few_clusters_cover_as_often_as_documented(clusters, least, most):
    rng, covered = np.random.default_rng(2), 0
    names = np.repeat(np.arange(clusters), 4).astype(str).tolist()
    for _ in range(500):
        values = np.repeat(rng.normal(size=clusters), 4) + rng.normal(0.0, 0.3, 4 * clusters)
        low, high = cluster_bootstrap(values, np.ones(len(values)), names, expanded=True)
        covered += low <= 0.0 <= high
    print(f"{clusters} clusters: {covered / 500:.3f} covered")
    assert least < covered / 500 < most


def test_a_rate_of_which_nothing_was_seen_has_an_upper_bound_all_the_same():
    # exp(-rate * exposure) = 0.025
    assert highest_rate_without_events(5.0) == pytest.approx(0.7377759, rel=1e-6)
    assert highest_rate_without_events(3.0, confidence=0.9) == pytest.approx(poisson_bound(3.0, 0.05), rel=1e-9)
    assert highest_rate_without_events(0.0) == math.inf


def poisson_bound(exposure, chance):
    return float(stats.chi2.ppf(1.0 - chance, 2) / 2.0 / exposure)  # Garwood's bound by quantiles of chi square


def test_intervals_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        level = rng.normal(0.0, 1.0, 40)  # of each scenario
        values = np.repeat(level, 5) + rng.normal(0.0, 1.0, 200)
        low, high = cluster_bootstrap(values, np.ones(200), np.repeat(np.arange(40).astype(str), 5).tolist())
        covered += low <= 0.0 <= high
    assert (
        177 <= covered <= 199
    )  # 95 % of 200 is 190, three standard deviations are 9; the bootstrap is a little narrow


def test_a_mean_of_single_items_has_students_interval():
    values = np.array([1.0, 2.0, 4.0, 7.0])
    mean = clustered_mean(values, np.arange(4))
    reach = 3.182446 * values.std(ddof=1) / 2.0  # t of 3 degrees of freedom
    assert mean.value == 3.5
    assert (mean.low, mean.high) == (pytest.approx(3.5 - reach, rel=1e-6), pytest.approx(3.5 + reach, rel=1e-6))
    assert mean.chance == 1.0  # nothing was expected


def test_repeating_a_cluster_tells_nothing_new():
    values, clusters = np.array([1.0, 2.0, 4.0, 7.0]), np.arange(4)
    once, often = clustered_mean(values, clusters), clustered_mean(np.repeat(values, 50), np.repeat(clusters, 50))
    assert (often.low, often.high) == (pytest.approx(once.low), pytest.approx(once.high))


def test_one_cluster_tells_of_no_spread():
    """However far off it is, nothing says that it is impossible by chance."""
    mean = clustered_mean(np.array([0.9, 1.0, 1.1]), np.zeros(3), np.zeros(3))
    assert (mean.value, mean.chance) == (pytest.approx(1.0), 1.0)
    assert math.isnan(mean.low) and math.isnan(mean.high)


def test_what_is_expected_is_judged_and_does_not_widen():
    rng = np.random.default_rng(8)
    expected = np.repeat([0.1, 0.9], 500)
    clusters = np.arange(1000) // 10
    seen = (rng.random(1000) < expected).astype(float)
    right, wrong = clustered_mean(seen, clusters, expected), clustered_mean(seen, clusters, expected - 0.08)
    assert right.high - right.low < 0.5 * (clustered_mean(seen, clusters).high - clustered_mean(seen, clusters).low)
    assert wrong.chance < 1e-6 < 1e-4 < right.chance


def test_the_chance_of_a_clustered_mean_is_uniform_under_truth():
    """Clusters of dependent items: 5 % of right expectations look as far off as happens in 5 %."""
    rng, found = np.random.default_rng(9), []
    for _ in range(600):
        level = np.repeat(rng.normal(size=40), 25)
        found.append(clustered_mean(level + rng.normal(size=1000), np.repeat(np.arange(40), 25), np.zeros(1000)).chance)
    assert 0.03 < np.mean(np.array(found) < 0.05) < 0.075
