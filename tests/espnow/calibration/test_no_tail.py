"""Laws of latencies without a tail, or next to none."""

import numpy as np
import pytest

from roadsense.espnow.calibration.latency_law import ClockError, fit_latency

MILLISECONDS = ClockError(1.0, 1)


def _law(latencies_ms, confidence=0.95):
    seen = latencies_ms + np.random.default_rng(9).random(len(latencies_ms)) - 0.5
    return fit_latency(seen, np.arange(len(seen)) // 100, MILLISECONDS, (10.0, 60.0), confidence)


@pytest.mark.parametrize("n", [3000, 20_000])
def test_without_late_messages_the_tail_is_nothing_up_to_three_in_all(n):
    share = _law(2.0 + np.random.default_rng(1).gamma(1.0, 1.4, n)).tail_probability
    assert (share.value, share.low) == (0.0, 0.0)
    assert share.high == pytest.approx(-np.log(0.025) / n, rel=0.01)  # P(none of n) = 2.5 % at this share


def test_two_late_messages_are_a_tail_of_two():
    values = 2.0 + np.random.default_rng(2).gamma(1.6, 1.0, 5000)
    values[[1234, 3456]] += (33.0, 48.0)
    share = _law(values).tail_probability
    assert share.value * 5000 == pytest.approx(2.0, abs=0.2)
    assert 0.0 < share.low and share.high * 5000 < 12.0


def test_intervals_of_a_law_without_a_tail_cover_it():
    covered = np.zeros(5)
    for seed in range(20):
        law = _law(2.0 + np.random.default_rng(seed).gamma(1.0, 1.4, 5000))
        found = (law.shift_ms, law.shape, law.scale_ms, law.tail_probability, law.mean_ms)
        covered += [figure.covers(true) for figure, true in zip(found, (2.0, 1.0, 1.4, 0.0, 3.4), strict=True)]
    assert covered.min() >= 16  # of 20 at 95 %: fewer has probability .3 %


def test_a_constant_latency_is_a_law_without_width():
    law = _law(np.full(5000, 4.0))
    assert law.shape.value * law.scale_ms.value**2 < 0.05  # the variance, ms²
    assert law.mean_ms.value == pytest.approx(4.0, abs=0.02)
    assert law.tail_probability.high == pytest.approx(-np.log(0.025) / 5000, rel=0.01)
    assert law.shape.high - law.shape.low > law.shape.value  # which of many narrow laws it is, nothing tells
