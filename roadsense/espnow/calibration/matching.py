"""Whose frame is which reception, and what one board's clock shows at another's times."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from roadsense.espnow.calibration.clocks import Line, PairClock, envelope, impossible, pair_clock
from roadsense.espnow.calibration.findings import Findings
from roadsense.espnow.calibration.records import Board, Floats, Ints, LogSet, Sent

FEWEST_MATCHED = 20
"""Messages that a stretch between two resets needs before two clocks are compared."""

_LISTED = 5


@dataclass(frozen=True)
class Match:
    """Direct receptions of one sender by one receiver; arrays are [frame of the sender]."""

    arrival_ms: Floats
    """On the receiver's clock; NaN: not heard."""
    epoch: Ints
    """Of the receiver's clock."""


Matches = dict[tuple[str, str], Match]
"""By sender and receiver."""

Clocks = dict[tuple[str, str, int, int], PairClock]
"""By names of two boards in order and epochs of their clocks."""


def match_frames(sent: Sent, board: Board, sender: str, findings: Findings) -> Match:
    """Finds each of a sender's frames in a receiver's file, by its time stamp.

    A sender whose clock was reset may repeat stamps. Where stamps go back in the receiver's file another part of the
    sender's begins: the one, not before the last, that has most of them.
    """
    assert board.heard is not None
    heard = board.heard
    arrival, epoch = np.full(len(sent.stamp_ms), np.nan), np.full(len(sent.stamp_ms), -1, np.int64)
    rows = np.flatnonzero((heard.source == sender) & (heard.hops == 0))
    parts = np.split(rows, np.flatnonzero(np.diff(heard.stamp_ms[rows]) < -1000.0) + 1) if len(rows) else []
    place = {
        int(one): {stamp: i for i, stamp in zip(of, sent.stamp_ms[of].tolist(), strict=True)}
        for one in np.unique(sent.epoch)
        if len(of := np.flatnonzero(sent.epoch == one))
    }
    last, unknown, twice = 0, 0, 0
    for part in parts:
        stamps = heard.stamp_ms[part].tolist()
        later = [one for one in place if one >= last] or [last]
        last = max(later, key=lambda one: sum(stamp in place[one] for stamp in stamps))
        for row, stamp in zip(part, stamps, strict=True):
            frame = place[last].get(stamp)
            if frame is None:
                unknown += 1
            elif np.isnan(arrival[frame]):
                arrival[frame], epoch[frame] = heard.local_ms[row], heard.epoch[row]
            else:
                twice += 1
    link = f"{sender}→{board.name}"
    if twice:
        findings.add("duplicate_rows", link, f"{twice} receptions stand twice; the first counts")
    if unknown:
        findings.add("not_in_tx", link, f"{unknown} receptions have no row in the sender's TX file; not used")
    return Match(arrival, epoch)


def tell_unknown_senders(logs: LogSet, findings: Findings) -> None:
    """Says whose messages were heard of whom there is no TX file: what became of their other frames is unknown."""
    names = [board.name for board in logs.boards]
    for board in logs.boards:
        if board.heard is None:
            continue
        heard, rows = np.unique(board.heard.source[~np.isin(board.heard.source, names)], return_counts=True)
        if len(heard):
            most = np.argsort(-rows, kind="stable")[:_LISTED]
            listed = ", ".join(f"{heard[place]} ({rows[place]} rows)" for place in most)
            listed += f" and {len(heard) - _LISTED} others" if len(heard) > _LISTED else ""
            text = f"heard {listed}, of whom there is no TX file; {int(rows.sum())} of {len(board.heard.source)} rows"
            findings.add("unknown_sender", board.name, f"{text} are not used, and frames that met theirs count")


def pair_clocks(logs: LogSet, matches: Matches, assumed_ms: float, step_ms: float, findings: Findings) -> Clocks:
    """The clocks of all pairs in all stretches between resets.

    Args:
        logs: all of them.
        matches: by sender and receiver.
        assumed_ms: least latency of pairs of which one direction was logged.
        step_ms: resolution of the times.
        findings: of pairs that never heard each other, and of one-way pairs.
    """
    clocks: Clocks = {}
    for first, second in itertools.combinations(logs.boards, 2):
        there = dict(_envelopes(first, matches.get((first.name, second.name)), second.name, step_ms, findings))
        back = dict(_envelopes(second, matches.get((second.name, first.name)), first.name, step_ms, findings))
        stretches = sorted(set(there) | {(a, b) for b, a in back})
        if not stretches:
            text = f"heard fewer than {FEWEST_MATCHED} of each other's messages, so clocks cannot be compared; not used"
            findings.add("never_heard", f"{first.name}, {second.name}", text)
        for a, b in stretches:
            clock = pair_clock(there.get((a, b)), back.get((b, a)), assumed_ms)
            clocks[first.name, second.name, a, b] = clock
            if not clock.two_way:
                text = "only one direction was heard, which tells no least latency"
                findings.add("one_way", f"{first.name}, {second.name}", text)
    return clocks


def _envelopes(
    sender: Board, match: Match | None, receiver: str, step_ms: float, findings: Findings
) -> Iterator[tuple[tuple[int, int], Line]]:
    if match is None:
        return
    arrived = np.isfinite(match.arrival_ms)
    pairs = {(int(a), int(b)) for a, b in zip(sender.sent.epoch[arrived], match.epoch[arrived], strict=True)}
    for a, b in sorted(pairs):
        here = np.flatnonzero(arrived & (sender.sent.epoch == a) & (match.epoch == b))
        if len(here) < FEWEST_MATCHED:
            continue
        stamps = sender.sent.stamp_ms[here]
        delays = match.arrival_ms[here] - stamps
        wrong = impossible(stamps, delays)
        if wrong.any():
            text = f"{int(wrong.sum())} receptions came before they were sent; their times are not used"
            findings.add("impossible_time", f"{sender.name}→{receiver}", text)
            match.arrival_ms[here[wrong]] = np.inf  # heard, at an unknown time
        yield (a, b), envelope(stamps[~wrong], delays[~wrong], step_ms)


def local_times(board: Board, other: Board, clocks: Clocks, epoch: int, times_ms: Floats) -> dict[int, Floats]:
    """Times of one board, in one epoch of its clock, as each epoch of another's clock would show them."""
    found: dict[int, Floats] = {}
    for (a, b, epoch_a, epoch_b), clock in clocks.items():
        if (a, b, epoch_a) == (board.name, other.name, epoch):
            found[epoch_b] = times_ms + np.asarray(clock.difference(times_ms))
        if (b, a, epoch_b) == (board.name, other.name, epoch):
            found[epoch_a] = clock.inverse(times_ms)
    return found
