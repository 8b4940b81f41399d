"""A simulated drive of three boards, with all that goes wrong in the field, is calibrated back to its parameters.

The seed is fixed and not chosen to pass. Every interval is that of 1 − 0.05/m for the m figures that are compared, so
a right calibration passes with a probability of about 0.95.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

from roadsense.espnow.calibration.asked import Asked
from roadsense.espnow.calibration.findings import Findings
from roadsense.espnow.calibration.fit import fit_params
from roadsense.espnow.calibration.logs import read_logs
from roadsense.espnow.calibration.losses import loss_by_distance
from roadsense.espnow.calibration.measure import measure
from roadsense.espnow.calibration.resimulate import clock_noise_ms, resimulate
from roadsense.espnow.params import RadioParams
from tests.espnow.calibration.boards import NAMES, NONE, STAGES, TRUTH, clock_ms, play_drive, true_params, write_logs
from tests.espnow.calibration.conftest import SHORT

FIGURES = 38
EDGES_M = (0.0, 20.0, 50.0, 100.0)
ASKED = Asked(
    edges_m=EDGES_M, least_latency_ms=9.0, usual_tail_ms=(10.0, 60.0), confidence=1.0 - 0.05 / FIGURES
)  # fmt: skip
SPANS = ("0–20 m", "20–50 m", "50–100 m", "100 m and more")


@pytest.fixture(scope="module")
def calibrated(field_drive):
    findings = Findings()
    measured = measure(read_logs((field_drive.folder,), findings), ASKED, findings)
    params = fit_params(measured, "field", "a simulated drive", findings)
    return measured, params, findings


@pytest.fixture(scope="module")
def figures(calibrated):
    return {figure.name: figure for figure in calibrated[0].figures()}


def _truth(params):
    loss, latency = TRUTH["loss"], TRUTH["latency"]
    shift = latency["shift_ms"] + 1000.0 * params.phy.airtime_s
    late = latency["tail_probability"] * sum(latency["tail_ms"]) / 2
    expected = {
        "latency shift": shift,
        "latency shape": latency["shape"],
        "latency scale": latency["scale_ms"],
        "latency tail probability": latency["tail_probability"],
        "latency tail begin": latency["tail_ms"][0],
        "latency tail end": latency["tail_ms"][1],
        "latency mean": shift + latency["shape"] * latency["scale_ms"] + late,
        "clock drift over boards, standard deviation": TRUTH["beacon"]["drift_ppm_sd"],
        "gps sigma at rest": TRUTH["gps"]["sigma_m"],
        "gps correlation time at rest": TRUTH["gps"]["tau_s"],
    }
    for where in ("at rest", "in motion"):
        expected[f"speed noise {where}"] = TRUTH["noise"]["speed_mps"]
        expected[f"acceleration noise {where}"] = TRUTH["noise"]["accel_mps2"]
        expected[f"heading noise {where}"] = TRUTH["noise"]["heading_deg"]
    for where, share, burst in zip(SPANS, loss["probability"], loss["mean_burst"], strict=True):
        expected[f"loss at {where}"], expected[f"mean burst at {where}"] = share, burst
    rng = np.random.default_rng(1)  # quantiles as clocks of whole milliseconds show them
    n = 2_000_000
    values = shift + rng.gamma(latency["shape"], latency["scale_ms"], n) + rng.random(n) - 0.5
    values += (rng.random(n) < latency["tail_probability"]) * rng.uniform(*latency["tail_ms"], n)
    for share in (0.5, 0.95, 0.99):
        expected[f"latency p{100 * share:.0f} as logged"] = np.quantile(values, share)
    return expected


def test_every_figure_comes_back(figures):
    expected = _truth(true_params())
    missed = {
        name: f"{figures[name].text()} is not {true:.4g}"
        for name, true in expected.items()
        if not figures[name].covers(true)
    }
    assert missed == {}
    assert len(expected) == 27


def test_intervals_are_narrow_enough_to_mean_something(figures):
    """Relative half widths at 99.9 %; all of them would pass with intervals without end."""
    limits = {"loss at 20–50 m": 0.1, "mean burst at 20–50 m": 0.1, "latency scale": 0.12, "latency shape": 0.12,
              "latency shift": 0.3, "speed noise in motion": 0.05, "gps sigma at rest": 0.8}  # fmt: skip
    for name, limit in limits.items():
        figure = figures[name]
        assert (figure.high - figure.low) / 2 < limit * figure.value, name


def test_clocks_of_all_pairs_come_back_on_both_sides_of_the_reset(calibrated, field_drive):
    clocks, played = calibrated[0].clocks, field_drive.played
    assert set(clocks) == {("V001", "V002", 0, 0), ("V001", "V003", 0, 0), ("V001", "V003", 0, 1),
                           ("V002", "V003", 0, 0), ("V002", "V003", 0, 1)}  # fmt: skip
    for (first, second, _, b), clock in clocks.items():
        times_s = np.array([60.0, 650.0]) if b == 0 and second == "V003" else np.array([720.0, 1100.0])
        one, other = (
            clock_ms(played, field_drive.faults, NAMES.index(name), times_s) for name in (first, second)
        )  # fmt: skip
        assert one + clock.difference(one) == pytest.approx(other, abs=3.5), "two clock steps and half the asymmetry"
    rate = played.cars[0]["clock_rate"]
    drifts = [figure for figure in calibrated[0].figures() if figure.name.startswith("clock drift V")]
    offsets = [figure for figure in calibrated[0].figures() if figure.name.startswith("clock offset")]
    assert len(drifts) == len(offsets) == 5
    for figure in drifts:
        second, first = (NAMES.index(word.strip(",")) for word in figure.name.split() if word.startswith("V0"))
        true_ppm = 1e6 * (rate[second] / rate[first] - 1.0)
        assert figure.covers(true_ppm), f"{figure.text()} is not {true_ppm:.2f}"
        assert figure.high - figure.low < 25.0


def test_the_bad_link_is_left_out_by_name_and_its_figures_stand_beside(calibrated, figures):
    measured, params, findings = calibrated
    assert [link.name for link in measured.bad_links] == ["V003→V001"]
    assert len(measured.links) == 5
    assert "bad_link" in findings.codes()
    assert 0.85 < figures["loss on V003→V001, left out"].value < 0.93  # what the link itself loses comes on top
    assert "V003→V001" in params.provenance["loss"]


def test_what_went_wrong_is_named(calibrated):
    found = {(one.code, one.where.rpartition("/")[2]) for one in calibrated[2]}
    assert {
        ("relayed_rows", "V001_tx.csv"), ("relayed_rows", "V002_tx.csv"), ("clock_reset", "V003_tx.csv"),
        ("clock_reset", "V003_rx.csv"), ("gap", "V002"), ("rx_gap", "V003"), ("bad_link", "V003→V001"),
    } <= found  # fmt: skip
    assert not {"one_way", "assumed_latency", "swapped_lat_lon", "accel_axes"} & {code for code, _ in found}


def test_gaps_and_resets_are_not_counted_as_loss(calibrated, field_drive):
    """Of a link without faults of its own, every frame outside of the holes counts, and none inside."""
    measured, frames = calibrated[0], field_drive.played.frames
    link = next(one for one in measured.links if one.name == "V001→V003")
    true = frames[(frames["sender"] == 0) & (frames["source"] == 0) & (frames["receiver"] == 2)]
    sent_s = true["sent_s"]
    for _, begin, end in (field_drive.faults.reset, field_drive.faults.rx_gap):
        true = true[(true["sent_s"] < begin) | (true["sent_s"] >= end)]
    assert len(link.lost) == pytest.approx(len(true), abs=15)
    assert len(true) < len(sent_s) - 220
    assert link.lost.mean() == pytest.approx(np.isinf(true["arrival_s"]).mean(), abs=0.002)


def test_parameters_hold_the_figures_and_say_where_the_rest_is_from(calibrated, figures):
    _, params, _ = calibrated
    assert params.loss.probability == tuple(figures[f"loss at {where}"].value for where in SPANS)
    assert params.latency.shift_ms == pytest.approx(figures["latency shift"].value - 1.256)
    assert params.noise.speed_mps == figures["speed noise in motion"].value
    assert params.gps.extrapolate is True
    for section in ("phy", "relays", "placement", "randomisation"):
        assert "not measured" in params.provenance[section]
    for section, figure in (("loss", "loss at 0–20 m"), ("latency", "latency scale"), ("gps", "gps sigma at rest")):
        assert figures[figure].text() in params.provenance[section]
        assert f"n {figures[figure].n}" in params.provenance[section]


def test_the_drive_played_again_gives_the_figures_again(calibrated, figures):
    measured, params, _ = calibrated
    played = resimulate(measured, params)
    again = loss_by_distance([link for link in played if link.name != "V003→V001"], EDGES_M)
    for step, where in zip(again, SPANS, strict=True):
        assert step.loss.value == pytest.approx(figures[f"loss at {where}"].value, rel=0.1)
        assert step.burst.value == pytest.approx(figures[f"mean burst at {where}"].value, rel=0.1)
    latencies = np.concatenate([link.latency_ms[np.isfinite(link.latency_ms)] for link in played])
    for share in (0.5, 0.95):
        seen = figures[f"latency p{100 * share:.0f} as logged"].value
        assert np.quantile(latencies, share) == pytest.approx(seen, rel=0.05)


def test_clock_noise_has_the_variance_of_its_steps():
    from roadsense.espnow.calibration.latency_law import ClockError

    for error in (ClockError(1.0, 1), ClockError(1.0, 2)):
        noise = clock_noise_ms(error, 200_000, np.random.default_rng(0))
        assert noise.var() == pytest.approx(error.variance, rel=0.02)


@pytest.mark.parametrize("interval_ms", [50.0, 1000.0])
def test_loss_comes_back_whatever_the_interval_of_the_beacons(tmp_path, interval_ms):
    document = true_params().model_dump(mode="json")
    document["beacon"]["interval_ms"] = interval_ms
    params = RadioParams.model_validate_json(json.dumps(document))
    stages = STAGES if interval_ms > 100.0 else SHORT
    write_logs(tmp_path, play_drive(params, 3, NONE, stages), NONE)
    findings = Findings()
    measured = measure(read_logs((tmp_path,), findings), ASKED, findings)
    assert findings.codes() <= {"relayed_rows", "held_values"}
    assert len(measured.links) == 6
    steps = [step.loss for step in measured.steps if step.loss is not None]
    assert len(steps) >= 2
    for loss, true in zip(steps, TRUTH["loss"]["probability"], strict=False):
        assert loss.covers(true), f"{loss.text()} is not {true}"
