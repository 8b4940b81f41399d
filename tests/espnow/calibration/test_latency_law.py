"""The law of latencies, seen through clocks of whole milliseconds."""

import math

import numpy as np
import pytest

from roadsense.espnow.calibration.latency_law import ClockError, density, fit_latency

TRUTH = (2.1, 1.8, 0.9, 0.006, 10.0, 50.0)
CLOCKS = (ClockError(1.0, 1), ClockError(1.0, 2), ClockError(0.0, 1))


def _sample(rng, n, error):
    shift, shape, scale, share, begin, end = TRUTH
    values = shift + rng.gamma(shape, scale, n) + (rng.random(n) < share) * rng.uniform(begin, end, n)
    return values + error.step_ms * sum(rng.random(n) - 0.5 for _ in range(error.times))


@pytest.mark.parametrize("error", CLOCKS)
def test_density_sums_to_one_and_has_the_mean_of_its_law(error):
    x = np.arange(-2.0, 120.0, 0.002)
    shift, shape, scale, share, begin, end = TRUTH
    values = density(x, np.array(TRUTH), error)
    assert values.sum() * 0.002 == pytest.approx(1.0, abs=1e-4)
    mean = shift + shape * scale + share * (begin + end) / 2
    assert (x * values).sum() * 0.002 == pytest.approx(mean, abs=1e-3)


@pytest.mark.parametrize("error", CLOCKS[:2])
def test_intervals_cover_the_truth(error):
    rng, covered, n = np.random.default_rng(1), np.zeros(7), 20
    shift, shape, scale, share, begin, end = TRUTH
    mean = shift + shape * scale + share * (begin + end) / 2
    for _ in range(n):
        law = fit_latency(_sample(rng, 15_000, error), np.arange(15_000) // 100, error, (10.0, 60.0))
        covered += [figure.covers(true) for figure, true in zip(law.figures(), (*TRUTH, mean), strict=True)]
        assert law.shape.high - law.shape.low < 0.5
    assert covered.min() >= 16  # of 20 at 95 %: fewer has probability .3 %


def test_whole_milliseconds_would_widen_the_law_if_they_were_not_allowed_for():
    values = _sample(np.random.default_rng(2), 20_000, ClockError(1.0, 2))
    naive = fit_latency(values, np.arange(20_000) // 100, ClockError(0.0, 1), (10.0, 60.0))
    assert not naive.shift_ms.covers(TRUTH[0])


def test_every_group_has_its_own_offset():
    """One sender's clock is .7 ms off: together that is a wider law, apart it is none."""
    rng, error = np.random.default_rng(3), ClockError(1.0, 1)
    values, groups = _sample(rng, 20_000, error), np.arange(20_000) % 2
    values[groups == 1] += 0.7
    clusters = np.arange(20_000) // 100
    law = fit_latency(values, clusters, error, (10.0, 60.0), 0.99, groups, np.array([1.0, 0.0]))
    assert law.shift_ms.covers(TRUTH[0]) and law.shape.covers(TRUTH[1])
    assert not fit_latency(values, clusters, error, (10.0, 60.0), 0.99).shape.covers(TRUTH[1])
    middle = fit_latency(values, clusters, error, (10.0, 60.0), 0.99, groups, np.array([0.5, 0.5]))
    assert middle.shift_ms.value == pytest.approx(law.shift_ms.value + 0.35, abs=0.03)


def test_a_tail_too_thin_to_measure_keeps_the_usual_range():
    rng = np.random.default_rng(4)
    law = fit_latency(2.0 + rng.gamma(1.6, 1.0, 3000), np.arange(3000) // 100, ClockError(0.0, 1), (10.0, 60.0))
    assert (law.tail_from_ms.value, law.tail_to_ms.value) == (10.0, 60.0)
    assert math.isnan(law.tail_from_ms.low) and "convoy" in law.tail_from_ms.note
    assert law.tail_probability.value < 0.002


def test_intervals_widen_where_blocks_are_alike():
    rng = np.random.default_rng(5)
    slow = np.repeat(rng.gamma(4.0, 0.3, 200), 100)
    values = 2.0 + slow + rng.gamma(1.6, 0.5, 20_000)
    blocks = np.arange(20_000) // 100
    error = ClockError(0.0, 1)
    honest = fit_latency(values, blocks, error, (10.0, 60.0)).mean_ms
    blind = fit_latency(values, np.arange(20_000), error, (10.0, 60.0)).mean_ms
    assert honest.high - honest.low > 3 * (blind.high - blind.low)


def test_edges_of_a_tail_are_covered_by_few_late_messages():
    """Thirty of them say less of where a uniform law ends than a quadratic likelihood has it."""
    rng, error, covered, fits = np.random.default_rng(5), ClockError(0.0, 1), np.zeros(2), 0
    for _ in range(40):
        law = fit_latency(_sample(rng, 5_000, error), np.arange(5_000) // 25, error, (10.0, 60.0))
        if math.isfinite(law.tail_to_ms.low):
            fits += 1
            covered += [law.tail_from_ms.covers(TRUTH[4]), law.tail_to_ms.covers(TRUTH[5])]
    assert fits >= 35
    assert covered.min() >= fits - 4  # more misses at 95 % have probability 2 %
