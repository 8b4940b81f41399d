"""Boards that do not send ten times a second: what rests on time must not count rows."""

from __future__ import annotations

import numpy as np
import pytest

from roadsense.espnow.calibration.axes import EARTH_M
from roadsense.espnow.calibration.findings import Findings
from roadsense.espnow.calibration.gps_law import gps_error, holds_fixes, standing_tracks
from roadsense.espnow.calibration.noise import moving, sensor_noise, standing
from roadsense.espnow.calibration.records import Board, Sent

INTERVALS_MS = (50.0, 100.0, 200.0, 1000.0)


def _board(interval_ms, speed_mps, north_m=0.0, east_m=0.0, name="V001"):
    n = len(speed_mps)
    local_ms, whole = 1000.0 + interval_ms * np.arange(n), np.zeros(n)
    lat = 50.0 + np.degrees((whole + north_m) / EARTH_M)
    lon = 8.0 + np.degrees((whole + east_m) / EARTH_M / np.cos(np.radians(50.0)))
    accel = np.stack([whole, whole, whole + 9.81], axis=1)
    sent = Sent(whole.astype(int), local_ms, local_ms, lat, lon, speed_mps, whole, accel)
    return Board(name, sent, (sent.epoch, local_ms), None)


def _stop_and_go(interval_ms):
    """60 s of standing, 60 s of driving, and so on, ten times, and its times [s]."""
    time_s = 0.001 * interval_ms * np.arange(round(600_000 / interval_ms))
    return np.where(time_s // 60.0 % 2 == 0, 0.0, 15.0), time_s


@pytest.mark.parametrize("interval_ms", INTERVALS_MS)
def test_a_stand_of_a_minute_is_one_at_any_interval(interval_ms):
    speed, time_s = _stop_and_go(interval_ms)
    sent = _board(interval_ms, speed).sent
    into_s, stands = time_s % 60.0, speed == 0.0
    still, moves = standing(sent), moving(sent)
    assert still[stands & (into_s > 7.0) & (into_s < 53.0)].all() and not still[~stands].any()
    assert moves[~stands & (into_s > 4.0) & (into_s < 56.0)].all() and not moves[stands & (into_s > 4.0)][:-10].all()


@pytest.mark.parametrize("interval_ms", INTERVALS_MS)
def test_a_correlation_time_is_in_seconds_at_any_interval(interval_ms):
    rng, boards, tau_s, n = np.random.default_rng(11), [], 30.0, round(600_000 / interval_ms)
    kept = np.exp(-0.001 * interval_ms / tau_s)
    for name in ("V001", "V002", "V003"):
        error = np.zeros((n, 2))
        error[0] = 2.0 * rng.normal(size=2)
        for i in range(1, n):
            error[i] = kept * error[i - 1] + 2.0 * np.sqrt(1.0 - kept**2) * rng.normal(size=2)
        boards.append(_board(interval_ms, np.zeros(n), *error.T, name))
    error = gps_error(boards, 0.99)
    assert error.tau_s.covers(tau_s) and error.sigma_m.covers(2.0)
    assert error.tau_s.high < 4.0 * tau_s
    for board in boards:
        assert {len(track) for track in standing_tracks(board)} == {110}  # every 5 s, in tens


@pytest.mark.parametrize("interval_ms", INTERVALS_MS)
def test_noise_over_long_spans_is_called_an_upper_bound(interval_ms):
    time_s = 0.001 * interval_ms * np.arange(6000)
    speed = 15.0 + 5.0 * np.sin(time_s / 3.0) + 0.3 * np.random.default_rng(1).normal(size=6000)
    figure = sensor_noise([_board(interval_ms, speed)], Findings(), 0.999)["speed_mps"].motion
    assert figure.covers(0.3) == (interval_ms < 500.0)
    assert figure.note.startswith("upper bound") == (interval_ms > 500.0)
    assert figure.high > 0.3


@pytest.mark.parametrize(("interval_ms", "held"), [(50.0, True), (200.0, True), (1000.0, None)])
def test_fixes_of_a_second_are_seen_by_boards_that_write_more_often(interval_ms, held):
    along_m = 15.0 * 0.001 * interval_ms * np.arange(3000)
    found = holds_fixes([_board(interval_ms, np.full(3000, 15.0), along_m // 15.0 * 15.0)])
    assert (found and found[0]) is held


def test_a_board_that_creeps_does_not_stand():
    """A driver who closes a gap at walking pace between two stands: not noise of the sensor."""
    errors = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        true = np.concatenate([np.zeros(1500), np.full(300, 0.15), np.zeros(1500)])
        shown = np.maximum(0.0, true + 0.3 * rng.normal(size=len(true)))
        errors.append(sensor_noise([_board(100.0, shown)], Findings())["speed_mps"].rest.value - 0.3)
    assert np.mean(errors) == pytest.approx(0.0, abs=3.0 * np.std(errors) / np.sqrt(10.0))
