"""Bursts counted in frames of one interval and stated for those of another."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from roadsense.espnow.calibration.figures import Figure
from roadsense.espnow.calibration.findings import Findings
from roadsense.espnow.calibration.fit import burst_every, fit_params
from roadsense.espnow.calibration.logs import read_logs
from roadsense.espnow.calibration.losses import LossStep
from roadsense.espnow.calibration.measure import measure
from tests.espnow.calibration.test_logs import ASKED


@pytest.fixture(scope="module")
def measured(short_drive):
    return measure(read_logs((short_drive.folder,), Findings()), ASKED, Findings())


def _chain(loss, burst):
    enter = loss / ((1.0 - loss) * burst)
    return np.array([[1.0 - enter, enter], [1.0 / burst, 1.0 - 1.0 / burst]])


@pytest.mark.parametrize(("loss", "burst", "frames"), [(0.118, 2.35, 2), (0.3, 8.0, 5), (0.85, 14.5, 2)])
def test_every_second_frame_of_a_chain(loss, burst, frames):
    """The chain seen at every k-th frame has the k-th power of its matrix."""
    longer = 1.0 / np.linalg.matrix_power(_chain(loss, burst), frames)[1, 0]
    assert burst_every(100.0, burst, loss, 100.0 / frames) == pytest.approx(longer)
    assert burst_every(100.0 / frames, longer, loss, 100.0) == pytest.approx(burst)


def test_independent_losses_stay_so():
    assert burst_every(100.0, 1.0 / 0.7, 0.3, 20.0) == pytest.approx(1.0 / 0.7)
    assert burst_every(100.0, 1.2, 0.3, 20.0) == 1.2  # measured below what is possible: left to the caller


def _fitted(measured, interval_ms, of_step=None):
    step = LossStep(0.0, math.inf, Figure("l", 0.118, 0.1, 0.13, 9000), Figure("b", 2.35, 2.2, 2.5, 900), of_step)
    beacon = Figure("beacon interval", interval_ms, interval_ms, interval_ms, 9000, "ms")
    return fit_params(replace(measured, steps=[step], interval_ms=beacon), "x", "a test", Findings())


def test_a_params_file_states_bursts_of_beacons_every_100_ms(measured):
    expected = 1.0 / np.linalg.matrix_power(_chain(0.118, 2.35), 2)[1, 0]
    halved = _fitted(measured, 50.0)
    assert halved.loss.mean_burst[0] == pytest.approx(expected)
    assert f"which is {expected:.2f} for frames every 100 ms instead of 50 ms" in halved.provenance["loss"]
    assert _fitted(measured, 100.0).loss.mean_burst[0] == pytest.approx(2.35)


def test_requests_of_round_trips_have_an_interval_of_their_own(measured):
    assert _fitted(measured, 100.0, 50.0).loss.mean_burst == _fitted(measured, 50.0).loss.mean_burst
