"""What the plots of a report show, and that they say so where they show nothing."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest

from roadsense.espnow.calibration.asked import Asked
from roadsense.espnow.calibration.bands import burst_curve, share_below
from roadsense.espnow.calibration.findings import Findings
from roadsense.espnow.calibration.fit import fit_params
from roadsense.espnow.calibration.logs import read_logs
from roadsense.espnow.calibration.measure import measure
from roadsense.espnow.calibration.plots import burst_plot, delivery_plot, latency_plot, logged_latencies
from roadsense.espnow.calibration.resimulate import resimulate

pytest.importorskip("matplotlib")

ASKED = Asked(edges_m=(0.0, 20.0, 50.0), least_latency_ms=2.156, usual_tail_ms=(10.0, 60.0), confidence=0.95)


@pytest.fixture(scope="module")
def measured(short_drive):
    return measure(read_logs((short_drive.folder,), Findings()), ASKED, Findings())


def _without_losses(measured):
    links = [replace(link, lost=np.zeros(len(link.lost), bool)) for link in measured.links]
    return replace(measured, links=links)


def _without_positions(measured):
    links = [replace(link, distance_m=np.full(len(link.lost), np.nan)) for link in measured.links]
    return replace(measured, links=links, steps=[replace(step, loss=None, burst=None) for step in measured.steps])


def _without_latencies(measured):
    links = [replace(link, latency_ms=np.full(len(link.lost), np.nan)) for link in measured.links]
    return replace(measured, links=links, latency=None)


@pytest.mark.parametrize("spoil", [_without_losses, _without_positions, _without_latencies])
def test_plots_of_nothing_say_so_and_warn_of_nothing(measured, spoil, monkeypatch):
    said = []
    monkeypatch.setattr("matplotlib.axes.Axes.text", lambda *args, **more: said.append(args[3]))
    spoilt = spoil(measured)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images = [delivery_plot(spoilt, []), burst_plot(spoilt.links, []), latency_plot(spoilt, [])]
    assert all(image.startswith(b"\x89PNG") for image in images)
    expected = {"_without_losses": "bursts", "_without_positions": "positions", "_without_latencies": "latency"}
    assert len(said) == 1 and expected[spoil.__name__] in said[0]


def test_one_way_latencies_lie_on_those_of_the_emulator(short_drive, tmp_path):
    """The file is played with the least latency that is given here, so both must agree wherever the clocks put it."""
    folder = tmp_path / "logs"
    folder.mkdir()
    for name in ("V001_tx", "V002_tx", "V001_rx"):
        (folder / f"{name}.csv").write_bytes((short_drive.folder / f"{name}.csv").read_bytes())
    one_way = measure(read_logs((folder,), Findings()), ASKED, Findings())
    params = fit_params(one_way, "x", "a test", Findings())
    values, clusters = logged_latencies(one_way)
    assert len(values) == len(clusters) > 1000
    played = np.concatenate([link.latency_ms[link.free] for link in resimulate(one_way, params)])
    assert np.median(values) == pytest.approx(np.nanmedian(played), abs=0.1)


def test_bands_hold_the_truth_about_as_often_as_they_say():
    """Bursts that last longer than k with 0.6^k, and an exponential latency whose mean differs between blocks."""
    covered = np.zeros(2)
    for seed in range(60):
        rng = np.random.default_rng(seed)
        bad, lost = False, np.zeros(8000, bool)
        for i, draw in enumerate(rng.random(8000)):
            bad = draw < (0.6 if bad else 0.1)
            lost[i] = bad
        curve = burst_curve(lost, np.ones(8000, bool), np.arange(8000) // 100)
        covered[0] += curve.low[2] <= 0.36 <= curve.high[2]
        means = rng.uniform(0.5, 1.5, 80)
        values = rng.exponential(np.repeat(means, 100))
        below = share_below(values, np.repeat(np.arange(80), 100), np.array([0.5, 1.0, 2.0]))
        u = np.linspace(0.5, 1.5, 2001)
        covered[1] += below.low[1] <= 1.0 - np.exp(-1.0 / u).mean() <= below.high[1]
    assert covered.min() >= 51  # of 60 at 95 %: fewer has probability .3 %


def test_few_blocks_have_no_band():
    curve = burst_curve(np.arange(400) % 5 == 0, np.ones(400, bool), np.arange(400) // 100)
    assert curve.value.tolist() == [1.0, 0.0] and np.isnan(curve.low).all()
