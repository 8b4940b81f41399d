"""What becomes of figures that a params file cannot hold as they are, and of those that are missing."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from roadsense.espnow.calibration.figures import Figure
from roadsense.espnow.calibration.findings import Findings
from roadsense.espnow.calibration.fit import fit_params, least_latency_ms
from roadsense.espnow.calibration.gps_law import GpsError
from roadsense.espnow.calibration.logs import read_logs
from roadsense.espnow.calibration.losses import LossStep
from roadsense.espnow.calibration.measure import measure
from roadsense.espnow.profiles import read_params
from tests.espnow.calibration.test_logs import ASKED


@pytest.fixture(scope="module")
def measured(short_drive):
    return measure(read_logs((short_drive.folder,), Findings()), ASKED, Findings())


def _figure(value, low=math.nan, high=math.nan):
    return Figure("f", value, low, high, 500)


def _step(begin_m, end_m, loss=None, burst=math.nan):
    return LossStep(begin_m, end_m, None if loss is None else _figure(loss), None if loss is None else _figure(burst))


def _fitted(measured, **changes):
    findings = Findings()
    return fit_params(replace(measured, **changes), "x", "a test", findings), findings


def test_bursts_shorter_than_independent_losses_are_those(measured):
    steps = [_step(0.0, 20.0, 0.3, 1.2), _step(20.0, math.inf, 0.4, 3.0)]
    loss = _fitted(measured, steps=steps)[0].loss
    assert loss.mean_burst == pytest.approx((1 / 0.7, 3.0))


def test_a_step_that_was_not_measured_is_no_better_than_the_one_before(measured):
    steps = [_step(0.0, 20.0), _step(20.0, 50.0, 0.4, 3.0), _step(50.0, 100.0), _step(100.0, math.inf)]
    params, _ = _fitted(measured, steps=steps)
    convoy = read_params("convoy").loss
    assert params.loss.probability == (convoy.probability[0], 0.4, 0.4, 0.4)
    assert params.loss.mean_burst == (convoy.mean_burst[0], 3.0, 3.0, 3.0)
    assert "steps from 0, 50, 100 m: not measured" in params.provenance["loss"]


def test_a_step_that_lost_all_and_one_that_lost_nothing(measured):
    steps = [_step(0.0, 20.0, 0.0), _step(20.0, math.inf, 1.0)]
    assert _fitted(measured, steps=steps)[0].loss.probability == (0.0, 1.0)


def test_a_least_latency_below_the_airtime_is_told(measured):
    law = replace(measured.latency, shift_ms=_figure(0.8))
    params, findings = _fitted(measured, latency=law)
    assert params.latency.shift_ms == 0.0
    assert findings.codes() == {"latency_below_airtime"}


def test_a_receiver_that_holds_its_position_tells_nothing_of_its_error(measured):
    frozen = GpsError(_figure(0.03, 0.01, 0.06), _figure(20.0, 5.0, 60.0))
    params, findings = _fitted(measured, gps=frozen)
    assert params.gps.sigma_m == read_params("convoy").gps.sigma_m
    assert findings.codes() == {"gps_frozen"}


def test_a_correlation_time_without_upper_bound_is_not_used(measured):
    params, _ = _fitted(measured, gps=GpsError(_figure(3.0, 1.0, 9.0), _figure(400.0, 90.0, math.inf)))
    assert (params.gps.sigma_m, params.gps.tau_s) == (3.0, read_params("convoy").gps.tau_s)
    assert "at least 90 s" in params.provenance["gps"]


def test_nothing_measured_is_the_profile_and_says_so(measured):
    noise = {name: replace(one, rest=None, motion=None) for name, one in measured.noise.items()}
    params, _ = _fitted(measured, latency=None, gps=None, fixes=None, noise=noise, interval_ms=None, drift_sd_ppm=None)
    convoy = read_params("convoy")
    for section in ("latency", "gps", "noise", "beacon"):
        assert getattr(params, section) == getattr(convoy, section)
        assert "not measured; as in the profile convoy" in params.provenance[section]


def test_the_physics_of_the_least_latency():
    assert least_latency_ms() == pytest.approx(read_params("convoy").latency.shift_ms + 1.256)
