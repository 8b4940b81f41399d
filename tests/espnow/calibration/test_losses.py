"""Which links are bad, and when a board recorded."""

from __future__ import annotations

import numpy as np
import pytest

from roadsense.errors import UsageError
from roadsense.espnow.calibration.findings import Findings
from roadsense.espnow.calibration.losses import gather, loss_by_distance, split_bad, steps_of
from roadsense.espnow.calibration.recording import recording
from roadsense.espnow.calibration.records import Board, Heard
from roadsense.espnow.calibration.traces import Link

EDGES_M = (0.0, 20.0, 50.0)


def _link(sender, receiver, loss, distance_m=10.0, n=2000):
    lost = np.random.default_rng(len(sender + receiver) + round(1000 * loss)).random(n) < loss
    numbers, yes = np.arange(n), np.ones(n, bool)
    return Link(sender, receiver, numbers, lost, numbers > 0, np.full(n, distance_m), np.full(n, 3.0), yes, yes,
                np.zeros(n, int), numbers // 100)  # fmt: skip


def _split(*links, excluded=()):
    findings = Findings()
    healthy, bad = split_bad(links, EDGES_M, excluded, findings)
    return [link.name for link in healthy], [link.name for link in bad], findings


def test_a_link_that_loses_where_others_do_not_is_bad():
    healthy, bad, findings = _split(_link("A", "B", 0.1), _link("B", "A", 0.85), _link("C", "A", 0.1))
    assert bad == ["B→A"] and healthy == ["A→B", "C→A"]
    assert findings.codes() == {"bad_link"}


def test_a_link_that_loses_because_it_is_long_is_not_bad():
    healthy, bad, findings = _split(_link("A", "B", 0.1), _link("B", "A", 0.85, distance_m=200.0))
    assert bad == [] and len(healthy) == 2
    assert findings.codes() == {"lossy_link"}


def test_links_that_all_lose_are_not_bad():
    _, bad, findings = _split(*(_link(*pair, 0.7) for pair in ("AB", "BA", "AC", "CA")))
    assert bad == [] and findings.codes() == {"lossy_link"}


def test_a_link_is_left_out_by_name():
    assert _split(_link("A", "B", 0.1), _link("B", "A", 0.1), excluded=("A:B",))[1] == ["A→B"]
    with pytest.raises(UsageError, match="--exclude A:D is no link of these logs; did you mean"):
        _split(_link("A", "B", 0.1), excluded=("A:D",))


def test_distances_fall_into_the_step_that_begins_at_or_below_them():
    assert steps_of(np.array([0.0, 19.99, 20.0, 50.0, 900.0, np.nan]), EDGES_M).tolist() == [0, 0, 1, 2, 2, -1]


def test_steps_with_few_frames_are_not_measured():
    near, _, far = loss_by_distance([_link("A", "B", 0.1), _link("A", "C", 0.5, 60.0, n=150)], EDGES_M)
    assert near.loss.covers(0.1) and near.loss.n == 2000
    assert far.loss is None and far.burst is None


def test_frames_that_met_others_are_left_out_and_join_nothing():
    link = _link("A", "B", 0.5, n=400)
    met = np.arange(400) % 10 == 5
    frames = gather([Link(**{**vars(link), "free": ~met})])
    assert len(frames.lost) == 360
    assert (~frames.follows).sum() == 1 + 40


def _recorder(rows_ms, sources, own_ms):
    n = len(rows_ms)
    heard = Heard(
        np.zeros(n, int), np.array(rows_ms, float), np.array(sources), np.array(rows_ms, float), np.zeros(n, int)
    )
    return Board("R", None, (np.zeros(len(own_ms), int), np.array(own_ms, float)), heard)


def _spans(seconds, heard, own, senders="AB", step_s=0.1, sent=lambda t: True):
    """Senders heard at times that ``heard`` allows, own frames written at times that ``own`` allows."""
    times = np.arange(0.0, seconds, step_s)
    rows = [t * 1000.0 for t in times if heard(t) for _ in senders]
    findings = Findings()
    others_ms = {0: np.array([t * 1000.0 for t in times if sent(t) for _ in senders])}
    board = _recorder(rows, [*senders] * (len(rows) // len(senders)), [t * 1000.0 for t in times if own(t)])
    return [
        (round(a / 1000), round(b / 1000)) for a, b in recording(board, 1000.0 * step_s, others_ms, findings)[0]
    ], findings.codes()


def test_a_board_that_writes_nothing_does_not_record():
    off = lambda t: not 20 < t < 31  # noqa: E731
    assert _spans(60, off, off) == ([(0, 20), (31, 60)], {"gap"})


def test_sudden_silence_of_all_is_a_gap_in_the_file():
    assert _spans(60, lambda t: not 20 < t < 31, lambda t: True) == ([(0, 20), (31, 60)], {"rx_gap"})


def test_many_short_holes_are_gaps_in_the_file():
    spans, codes = _spans(60, lambda t: t % 20 >= 4, lambda t: True)
    assert spans == [(4, 20), (24, 40), (44, 60)] and codes == {"rx_gap"}


def test_silence_of_the_only_board_that_is_heard_is_loss_and_told():
    """One link may be cut off for a while by itself; two at the same moment are not."""
    assert _spans(60, lambda t: not 20 < t < 31, lambda t: True, "A") == ([(0, 60)], {"rx_silence"})


def test_silence_that_came_slowly_is_loss_and_told():
    """Out of range: few are heard before and after."""
    thin = lambda t: t < 10 or t > 50 or (not 20 < t < 31 and int(10 * t) % 7 == 0)  # noqa: E731
    assert _spans(60, thin, lambda t: True) == ([(0, 60)], {"rx_silence"})


def test_sudden_silence_until_the_end_is_a_file_that_ends_early():
    for senders in ("A", "AB"):
        assert _spans(60, lambda t: t < 30, lambda t: True, senders) == ([(0, 30)], {"rx_gap"})
        assert _spans(60, lambda t: t >= 30, lambda t: True, senders) == ([(30, 60)], {"rx_gap"})
    assert _spans(60, lambda t: t < 30, lambda t: not 30 < t < 33) == ([(0, 30)], {"rx_gap", "gap"})


def test_silence_while_nobody_sent_is_none():
    """Boards are switched on one after the other."""
    on = lambda t: t > 20  # noqa: E731
    assert _spans(60, on, lambda t: True, sent=on) == ([(0, 60)], set())


def test_gaps_are_counted_in_beacons_whatever_their_interval():
    """At one beacon a second half a second without a row is no gap; at 50 it is."""
    assert _spans(600, lambda t: True, lambda t: True, step_s=1.0) == ([(0, 599)], set())
    off = lambda t: not 20 < t < 20.3  # noqa: E731
    assert _spans(60, off, off, step_s=0.02)[1] == {"gap"}
    assert _spans(60, off, off, step_s=0.1)[1] == set()
