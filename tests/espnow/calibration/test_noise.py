"""Noise at rest and in motion, and the error of positions, of boards whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from roadsense.espnow.calibration.axes import EARTH_M
from roadsense.espnow.calibration.findings import Findings
from roadsense.espnow.calibration.gps_law import gps_error, holds_fixes
from roadsense.espnow.calibration.noise import sensor_noise, standing
from roadsense.espnow.calibration.records import Board, Sent


def _board(speed_mps, accel=0.0, heading_deg=0.0, lat_deg=50.0, lon_deg=8.0, name="V001"):
    n = len(speed_mps)
    local_ms = 1000.0 + 100.0 * np.arange(n)
    whole = np.zeros(n)
    accel3 = np.stack([whole + accel, whole, whole + 9.81], axis=1)
    sent = Sent(whole.astype(int), local_ms, local_ms, whole + lat_deg, whole + lon_deg, speed_mps,
                (whole + heading_deg) % 360.0, accel3)  # fmt: skip
    return Board(name, sent, (sent.epoch, local_ms), None)


def _ornstein_uhlenbeck(rng, n, sigma, tau_s):
    kept = np.exp(-1.0 / tau_s)
    error = np.zeros(n)
    error[0] = sigma * rng.normal()
    for i in range(1, n):
        error[i] = kept * error[i - 1] + sigma * np.sqrt(1.0 - kept**2) * rng.normal()
    return error


def test_a_stand_is_a_stand_even_if_its_speed_is_noisy():
    rng = np.random.default_rng(0)
    true = np.concatenate([np.zeros(600), np.linspace(0, 15, 150), np.full(600, 15.0)])
    sent = _board(np.maximum(0.0, true + 0.43 * rng.normal(size=len(true)))).sent
    still = standing(sent)
    assert still[40:560].all() and not still[590:].any()


def test_noise_in_motion_is_told_from_a_drive_that_speeds_up_and_turns():
    rng, n = np.random.default_rng(1), 6000
    time_s = 0.1 * np.arange(n)
    true = 15.0 + 5.0 * np.sin(time_s / 8.0)
    board = _board(
        true + 0.3 * rng.normal(size=n), 0.625 * np.cos(time_s / 8.0) + 0.2 * rng.normal(size=n),
        359.0 + 40.0 * np.sin(time_s / 20.0) + 2.0 * rng.normal(size=n),
    )  # fmt: skip
    noise = sensor_noise([board], Findings(), 0.999)
    for key, sigma in (("speed_mps", 0.3), ("accel_mps2", 0.2), ("heading_deg", 2.0)):
        figure = noise[key].motion
        assert figure.covers(sigma), figure.text()
        assert figure.high - figure.low < 0.3 * sigma
        assert noise[key].rest is None


def test_noise_at_rest_is_about_the_stand_not_about_zero():
    """A sensor with a bias is not noisy for that; a compass may point across north."""
    rng, n = np.random.default_rng(2), 3000
    board = _board(
        np.maximum(0.0, 0.2 * rng.normal(size=n)), 0.5 + 0.074 * rng.normal(size=n), 0.3 * rng.normal(size=n)
    )
    noise = sensor_noise([board], Findings(), 0.999)
    for key, sigma in (("speed_mps", 0.2), ("accel_mps2", 0.074), ("heading_deg", 0.3)):
        assert noise[key].rest.covers(sigma), noise[key].rest.text()
        assert noise[key].motion is None


def test_a_sensor_that_shows_zero_at_rest_has_no_noise():
    noise = sensor_noise([_board(np.zeros(3000))], Findings())
    assert noise["speed_mps"].rest.value == 0.0


def test_a_gap_is_no_jump_of_a_sensor():
    rng, n = np.random.default_rng(3), 4000
    board = _board(np.linspace(5.0, 25.0, n) + 0.1 * rng.normal(size=n))
    kept = np.arange(n) % 400 < 360  # the speed differs by .2 m/s across each gap
    sent = Sent(*(values[kept] for values in vars(board.sent).values()))
    noise = sensor_noise([Board("V001", sent, (sent.epoch, sent.local_ms), None)], Findings())
    assert noise["speed_mps"].motion.n == 10 * (360 - 2)


@pytest.mark.parametrize(("sigma", "tau_s"), [(3.0, 60.0), (1.5, 20.0)])
def test_gps_error_of_stands_is_covered_by_its_intervals(sigma, tau_s):
    rng, covered = np.random.default_rng(4), np.zeros(2)
    for _ in range(6):
        boards = []
        for name in ("V001", "V002", "V003"):
            north, east = (np.repeat(_ornstein_uhlenbeck(rng, 300, sigma, tau_s), 10) for _ in range(2))
            lat = np.float32(50.0 + np.degrees(north / EARTH_M)).astype(float)  # as on the wire
            lon = np.float32(8.0 + np.degrees(east / EARTH_M / np.cos(np.radians(50.0)))).astype(float)
            boards.append(_board(np.zeros(3000), lat_deg=lat, lon_deg=lon, name=name))
        error = gps_error(boards, 0.95)
        covered += [error.sigma_m.covers(sigma), error.tau_s.covers(tau_s)]
        assert error.sigma_m.low > sigma / 3
    assert covered.min() >= 4  # of 6 at 95 %: fewer has probability .2 %


def test_rounding_of_positions_is_no_error_of_the_receiver():
    """At 50° the next float32 is .42 m further, white noise that would pass for a short correlation time."""
    rng, boards = np.random.default_rng(5), []
    for name in ("V001", "V002", "V003"):
        north = np.repeat(_ornstein_uhlenbeck(rng, 600, 0.5, 200.0), 10)
        lat = np.float32(50.0 + np.degrees(north / EARTH_M)).astype(float)
        east = np.repeat(_ornstein_uhlenbeck(rng, 600, 0.5, 200.0), 10)
        lon = np.round((8.0 + np.degrees(east / EARTH_M / 0.643)) * 2e5) / 2e5  # .36 m
        boards.append(_board(np.zeros(6000), lat_deg=lat, lon_deg=lon, name=name))
    error = gps_error(boards, 0.99)
    assert error.sigma_m.covers(0.5) and error.tau_s.covers(200.0)


def test_short_stands_tell_no_error():
    assert gps_error([_board(np.zeros(400))]) is None


@pytest.mark.parametrize("held", [True, False])
def test_whether_positions_are_held_between_fixes(held):
    n = 3000
    along_m = 15.0 * 0.1 * np.arange(n)
    lat = 50.0 + np.degrees((along_m // 15.0 * 15.0 if held else along_m) / EARTH_M)
    found = holds_fixes([_board(np.full(n, 15.0), lat_deg=lat)])
    assert found[0] is held
    assert found[1] == pytest.approx(1.0 if held else 10.0, rel=0.02)
