"""Round trips of two ways whose loss, bursts and latencies are known."""

from __future__ import annotations

import json

import numpy as np
import pytest

from roadsense.espnow.calibration.columns import read_table
from roadsense.espnow.calibration.echo_logs import read_round_trips
from roadsense.espnow.calibration.findings import Findings
from roadsense.espnow.calibration.latency_law import ClockError
from roadsense.espnow.calibration.round_trips import echo_loss, gather, loss_steps, one_way_burst, one_way_law

N = 6000


def _chain(rng, n, loss, burst):
    leave, enter = 1.0 / burst, loss / ((1.0 - loss) * burst)
    draws, found, bad = rng.random(n), np.zeros(n, bool), rng.random() < loss
    for i in range(n):
        bad = draws[i] >= leave if bad else draws[i] < enter
        found[i] = bad
    return found


def _rows(seed, loss=0.3, burst=2.5, n=N, tail=0.0, step_ms=1.0, every_ms=100.0):
    """[n, 2]: times of requests and of their echoes, NaN where none came."""
    rng = np.random.default_rng(seed)
    sent = 5000.3 + every_ms * np.arange(n)
    late = (rng.random((2, n)) < tail) * rng.uniform(12.0, 50.0, (2, n))
    back = sent + (2.0 + rng.gamma(1.6, 1.06, (2, n)) + late).sum(0)
    back[_chain(rng, n, loss, burst) | _chain(rng, n, loss, burst)] = np.nan
    return np.floor(np.stack([sent, back], axis=1) / step_ms) * step_ms


def _read(folder, rows, none="", change=lambda i, cell: cell):
    lines = ["sequence,sent_ms,received_ms"]
    for i, (sent, back) in enumerate(rows.tolist()):
        lines.append(f"{i},{sent!r},{change(i, none if np.isnan(back) else repr(back))}")
    path = folder / "rtt.csv"
    path.write_text("\n".join(lines) + "\n")
    findings = Findings()
    return read_round_trips(path, read_table(path, findings), findings), findings


@pytest.mark.parametrize(("loss", "burst"), [(0.3, 2.5), (0.05, 1.6), (0.3, 1 / 0.7), (0.85, 14.5)])
def test_one_way_bursts_by_two_chains(loss, burst):
    """Against the exact pair of chains: P(a pair that is lost is followed by one that arrives)."""
    back, again = loss / ((1.0 - loss) * burst), 1.0 / burst
    ways = np.array([[1.0 - back, back], [again, 1.0 - again]])  # from arrived or lost, to arrived or lost
    both = np.kron(ways, ways)
    share = np.kron([1.0 - loss, loss], [1.0 - loss, loss])
    lost = 1.0 - share[0]
    run = lost / float(share[1:] @ both[1:, 0])
    assert one_way_burst(lost, run) == pytest.approx(burst, rel=1e-9)
    assert run > 1.03 * burst


def test_loss_and_bursts_of_one_way_come_back(tmp_path):
    covered = np.zeros(2)
    for seed in range(20):
        echoes = gather([_read(tmp_path, _rows(seed))[0]])
        both, one, run, one_run = echo_loss("", echoes)
        covered += [one.covers(0.3), one_run.covers(2.5)]
        assert both.value == pytest.approx(0.51, abs=0.05) and run.value > 2.8
    assert covered.min() >= 16  # of 20 at 95 %: fewer has probability .3 %


def test_one_way_loss_is_not_half_of_both():
    rows = np.tile([0.0, 5.0], (1000, 1)) + 100.0 * np.arange(1000)[:, None]
    rows[np.arange(1000) % 100 < 51, 1] = np.nan
    trips = _trips(rows)
    assert echo_loss("", gather([trips]))[1].value == pytest.approx(0.3, abs=1e-9)


def _trips(rows):
    from roadsense.espnow.calibration.records import RoundTrips

    return RoundTrips("t", rows[:, 0], rows[:, 1], np.full(len(rows), "V002"), np.full(len(rows), np.nan))


def test_half_of_one_tail_delays_twice_as_many_round_trips():
    echoes = gather([_trips(_rows(3, loss=0.05, burst=1.1, n=20_000, tail=0.01))])
    law = one_way_law(echoes, ClockError(1.0, 2), (10.0, 60.0))
    assert law.tail_probability.value == pytest.approx(0.01, rel=0.2)
    assert law.tail_probability.covers(0.01)


def test_steps_know_how_far_their_requests_are_apart():
    steps = loss_steps(gather([_trips(_rows(4, every_ms=250.0))]), (0.0,))
    assert steps[0].interval_ms == pytest.approx(250.0)
    assert steps[0].burst.value == pytest.approx(2.5, rel=0.15)


@pytest.mark.parametrize(("factor", "unit"), [(1e-3, "seconds"), (1e3, "microseconds")])
def test_times_in_other_units_are_put_right(tmp_path, factor, unit):
    rows = _rows(5)
    plain, none = _read(tmp_path, rows)
    trips, findings = _read(tmp_path, rows * factor)
    assert (none.codes(), findings.codes()) == (set(), {"time_unit"})
    assert unit in str(next(iter(findings)))
    np.testing.assert_allclose(trips.received_ms, plain.received_ms, rtol=0.0, atol=1e-6)
    np.testing.assert_allclose(trips.sent_ms, plain.sent_ms, rtol=0.0, atol=1e-6)


@pytest.mark.parametrize("none", ["", "timeout", "-1", "0", "0.0", "NaN"])
def test_words_for_no_echo(tmp_path, none):
    rows = _rows(6)
    trips, findings = _read(tmp_path, rows, none)
    assert findings.codes() == set()
    assert np.array_equal(np.isnan(trips.received_ms), np.isnan(rows[:, 1]))


def test_cells_that_tell_nothing_are_told_and_no_loss(tmp_path):
    rows = _rows(7)
    trips, findings = _read(tmp_path, rows, change=lambda i, cell: "#?" if i % 2 else cell)
    assert findings.codes() == {"bad_cells"} and f"{N // 2} cells" in str(next(iter(findings)))
    assert len(trips.sent_ms) == N // 2
    assert np.isnan(trips.received_ms).mean() == np.isnan(rows[::2, 1]).mean()


def test_echoes_at_impossible_times_were_heard(tmp_path):
    rows = _rows(8)
    wrong = np.arange(N) % 500 == 0
    rows[wrong, 1] += np.where(np.arange(N)[wrong] % 1000 == 0, 90_000.0, -50.0)
    trips, findings = _read(tmp_path, rows)
    echoes = gather([trips])
    assert findings.codes() == {"impossible_time"}
    assert np.array_equal(echoes.lost, np.isnan(rows[:, 1]))
    assert np.nanmin(echoes.half_ms) > 0.0 and np.nanmax(echoes.half_ms) < 1000.0


def test_a_file_in_which_next_to_nothing_is_lost(tmp_path):
    """The whole command: no tail, next to no loss."""
    from roadsense.cli import main

    _read(tmp_path, _rows(9, loss=1e-9, n=5000))
    out = tmp_path / "x.json"
    assert main(["calibrate", str(tmp_path), "--out", str(out)]) in (0, None)
    assert json.loads(out.read_text())["latency"]["tail_probability"] == 0.0
