"""Offset and drift from delays that are never negative."""

import math

import numpy as np
import pytest

from roadsense.espnow.calibration.clocks import envelope, impossible, lower_hull, lower_line, pair_clock


def test_hull_by_hand():
    x = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 2.0])
    y = np.array([1.0, 0.0, 2.0, 0.5, 2.0, 5.0])
    assert lower_hull(x, y).tolist() == [0, 1, 3, 4]


def test_the_line_lies_below_all_points_and_no_other_such_line_is_closer():
    rng = np.random.default_rng(2)
    x, y = rng.uniform(0, 100, 200), rng.exponential(1.0, 200)
    line = lower_line(x, y)
    assert (y - line(x)).min() >= -1e-12
    for slope in line.slope + np.linspace(-0.1, 0.1, 41):
        highest = (y - slope * x).min()
        assert (y - slope * x - highest).sum() >= (y - line(x)).sum() - 1e-9


def _messages(rng, seconds, sender_rate, receiver_rate, offset_ms, whole=True):
    """Stamps and delays of a message every 100 ms with at least 2 ms of latency."""
    true_s = np.arange(0.03, seconds, 0.1)
    stamp = 1000.0 * true_s * sender_rate
    arrival = 1000.0 * (true_s + 0.002 + rng.gamma(1.6, 1.06e-3, len(true_s))) * receiver_rate + offset_ms
    return (np.floor(stamp), np.floor(arrival) - np.floor(stamp)) if whole else (stamp, arrival - stamp)


@pytest.mark.parametrize("drift_ppm", [-17.0, 0.4, 113.0])
def test_drift_is_within_its_interval(drift_ppm):
    rng, covered = np.random.default_rng(3), 0
    for _ in range(20):
        line = envelope(*_messages(rng, 300.0, 1.0, 1.0 + 1e-6 * drift_ppm, 5000.0), step_ms=1.0)
        covered += abs(1e6 * line.slope - drift_ppm) < 1.96 * 1e6 * line.slope_sd
        assert 1e6 * line.slope_sd < 10.0
    assert covered >= 18


def test_delays_in_bursts_do_not_move_the_line():
    """A mean would follow the slow half; the envelope does not."""
    rng = np.random.default_rng(4)
    stamp, delay = _messages(rng, 300.0, 1.0, 1.00002, 0.0, whole=False)
    delay[len(delay) // 2 :] += rng.exponential(20.0, len(delay) - len(delay) // 2)
    line = envelope(stamp, delay)
    assert 1e6 * line.slope == pytest.approx(20.0, abs=1.0)
    assert abs(1e6 * np.polyfit(stamp, delay, 1)[0] - 20.0) > 50.0


def test_both_directions_tell_offset_and_least_latency():
    rng = np.random.default_rng(5)
    there = envelope(*_messages(rng, 600.0, 1.00001, 0.99996, 70_000.0, whole=False))
    # back: from the second clock, which is 70 s ahead, to the first
    true_s = np.arange(0.08, 600.0, 0.1)
    stamp = 1000.0 * true_s * 0.99996 + 70_000.0
    arrival = 1000.0 * (true_s + 0.002 + rng.gamma(1.6, 1.06e-3, len(true_s))) * 1.00001
    clock = pair_clock(there, envelope(stamp, arrival - stamp), assumed_least_ms=9.0)
    assert clock.two_way
    assert clock.least_latency_ms == pytest.approx(2.0, abs=0.05)
    for now_s in (0.0, 300.0, 600.0):
        first, second = 1000.0 * now_s * 1.00001, 1000.0 * now_s * 0.99996 + 70_000.0
        assert first + clock.difference(first) == pytest.approx(second, abs=0.05)
        assert clock.inverse(np.array([second]))[0] == pytest.approx(first, abs=0.05)


@pytest.mark.parametrize("forward", [True, False])
def test_one_direction_rests_on_the_assumption(forward):
    line = envelope(*_messages(np.random.default_rng(6), 600.0, 1.0, 1.00005, 70_000.0, whole=False))
    clock = pair_clock(line if forward else None, None if forward else line, assumed_least_ms=2.0)
    sender_ms = np.array([1000.0, 500_000.0])
    receiver_ms = sender_ms * 1.00005 + 70_000.0
    assert not clock.two_way
    if forward:
        assert sender_ms + clock.difference(sender_ms) == pytest.approx(receiver_ms, abs=0.1)
    else:  # the first board of the pair is the receiver
        assert receiver_ms + clock.difference(receiver_ms) == pytest.approx(sender_ms, abs=0.1)


def test_a_short_record_knows_no_drift():
    assert math.isinf(envelope(*_messages(np.random.default_rng(7), 20.0, 1.0, 1.0, 0.0)).slope_sd)


def test_times_before_sending_are_found():
    stamp, delay = _messages(np.random.default_rng(8), 100.0, 1.0, 1.00005, 0.0)
    delay[[5, 700]] -= 250.0
    assert np.flatnonzero(impossible(stamp, delay)).tolist() == [5, 700]
