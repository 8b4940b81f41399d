"""Latencies of several links on one scale."""

from __future__ import annotations

import numpy as np
import pytest

from roadsense.espnow.calibration.latencies import clock_error, latency_quantiles, pool
from roadsense.espnow.calibration.latency_law import ClockError
from roadsense.espnow.calibration.records import LogSet, RoundTrips
from roadsense.espnow.calibration.traces import Link
from tests.espnow.calibration.test_logs import ASKED

EXACT = ClockError(0.0, 1)


def _link(sender, receiver, off_ms, seed, slope=0.0, n=6000, free=None, two_way=True):
    """Latencies of 2 ms + gamma, all off by the error of the clocks' difference."""
    numbers, yes = np.arange(n), np.ones(n, bool)
    latency = 2.0 + np.random.default_rng(seed).gamma(1.6, 1.0, n) + off_ms + slope * (numbers / n - 0.5)
    return Link(sender, receiver, numbers, ~yes, numbers > 0, np.full(n, 10.0), latency, yes if free is None else free,
                yes & two_way, np.zeros(n, int), numbers // 100)  # fmt: skip


def test_an_error_of_the_clocks_cancels_between_directions():
    links = [_link("A", "B", 0.9, 1), _link("B", "A", -0.9, 2)]
    law = pool(links, True).law(EXACT, ASKED)
    assert law.shift_ms.value == pytest.approx(2.0, abs=0.05)
    assert law.shape.covers(1.6)
    assert np.ptp(pool(links, True).weights) == 0.0


def test_a_rest_of_drift_does_not_widen_the_law():
    links = [_link("A", "B", 0.0, 1, slope=3.0), _link("B", "A", 0.0, 2, slope=-3.0)]
    both = pool(links, True)
    law = both.law(EXACT, ASKED)
    assert law.shape.covers(1.6) and law.shift_ms.value == pytest.approx(2.0, abs=0.05)
    numbers = np.concatenate([link.frame for link in links])
    assert abs(np.polyfit(numbers[:6000], both.values_ms[:6000], 1)[0]) < 1e-5


def test_frames_that_waited_for_the_medium_are_left_out():
    waited = np.arange(6000) % 3 == 0
    links = [_link("A", "B", 0.0, 1, free=~waited), _link("B", "A", 0.0, 2, free=~waited)]
    for link in links:
        link.latency_ms[waited] += 1.5
    both = pool(links, True)
    assert len(both.values_ms) == 8000
    assert both.law(EXACT, ASKED).mean_ms.covers(3.6)


def test_one_way_pairs_are_another_pool():
    links = [_link("A", "B", 0.0, 1), _link("B", "A", 0.0, 2), _link("A", "C", 55.0, 3, two_way=False)]
    assert len(pool(links, True).values_ms) == 12_000
    assert len(pool(links, False).values_ms) == 6000
    assert pool(links[:2], False).boards == 0


def test_quantiles_allow_for_the_unknown_point_within_a_millisecond():
    links = [_link("A", "B", 0.0, 1), _link("B", "A", 0.0, 2)]
    exact, rough = (next(latency_quantiles(links, error)) for error in (EXACT, ClockError(1.0, 1)))
    assert rough.high - rough.value > 0.39 > exact.high - exact.value  # 1.96 / sqrt(12 · 2 boards) = .40


@pytest.mark.parametrize(
    ("sent_ms", "step_ms", "times"),
    [
        (5000.0 + 100.0 * np.arange(500), 1.0, 1),
        (np.floor(5000.0 + 100.37 * np.arange(500)), 1.0, 2),
        (5000.3 + 100.0 * np.arange(500), 0.1, 1),
        (np.round(5000.0 + 100.0 * np.arange(500) + np.random.default_rng(0).random(500), 3), 1e-3, 2),
    ],
)
def test_steps_of_the_clocks(sent_ms, step_ms, times):
    nothing = np.zeros(len(sent_ms))
    error = clock_error(LogSet((), (RoundTrips("t", sent_ms, sent_ms, np.full(len(sent_ms), ""), nothing),)))
    assert error.step_ms == pytest.approx(step_ms)
    assert error.times == times
