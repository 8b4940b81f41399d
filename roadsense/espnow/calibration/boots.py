"""Which part of a board's RX file belongs to which part of its TX file, where its clock was reset.

Each file counts the resets that it saw: one that was opened later, or in which nobody was heard before the first reset,
counts fewer. Two parts are of the same boot if they show the same difference to another board's clock, once by what the
board sent and once by what it heard; where nobody can be compared, if they share most of their time.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from roadsense.espnow.calibration.matching import FEWEST_MATCHED, Matches
from roadsense.espnow.calibration.records import Board, Heard, Ints, LogSet

_SAME_MS = 1000.0
"""Differences of two clocks that agree this well are of the same boots; latencies and drift are much less."""

Offsets = list[tuple[int, int, float, int]]
"""Part of the sender's TX file and of the receiver's RX file, the latter's clock minus the former's [ms], messages."""


def align(logs: LogSet, matches: Matches) -> tuple[LogSet, Matches]:
    """The same logs and matches with the parts of every RX file numbered as those of the board's TX file."""
    boards, renumbered = [], dict(matches)
    for board in logs.boards:
        if board.heard is None:
            boards.append(board)
            continue
        number = _numbers(board, board.heard, logs, matches)
        around = tuple((number.get(one, one), begin, end) for one, begin, end in board.heard.unreadable)
        heard = replace(board.heard, epoch=_renumbered(board.heard.epoch, number), unreadable=around)
        boards.append(replace(board, heard=heard))
        for (sender, receiver), match in matches.items():
            if receiver == board.name:
                renumbered[sender, receiver] = replace(match, epoch=_renumbered(match.epoch, number))
    return replace(logs, boards=tuple(boards)), renumbered


def _renumbered(epoch: Ints, number: dict[int, int]) -> Ints:
    return np.array([number.get(one, one) for one in epoch.tolist()], np.int64)


def _numbers(board: Board, heard: Heard, logs: LogSet, matches: Matches) -> dict[int, int]:
    """The part of the TX file that each part of the RX file belongs to; a number of its own where there is none."""
    parts = np.unique(board.aired[0]).tolist()
    votes: dict[tuple[int, int], int] = {}
    compared = set()
    for other in logs.boards:
        if (board.name, other.name) not in matches or (other.name, board.name) not in matches:
            continue
        for own, _, there_ms, n in _offsets(board, other, matches):
            for _, part, back_ms, m in _offsets(other, board, matches):
                compared.add(part)
                if abs(there_ms + back_ms) < _SAME_MS:
                    votes[part, own] = votes.get((part, own), 0) + min(n, m)
    found: dict[int, int] = {}
    for part in np.unique(heard.epoch).tolist():
        told = {own: votes[part, own] for own in parts if (part, own) in votes}
        shared = {own: _shared_ms(board, heard, own, part) for own in parts}
        best = max(told or shared, key=lambda own: (told or shared)[own], default=-1)
        alone = not told and (part in compared or best < 0 or shared[best] == 0.0)
        found[part] = max(parts, default=-1) + 1 + part if alone else best
    return found


def _offsets(sender: Board, receiver: Board, matches: Matches) -> Offsets:
    match, sent = matches[sender.name, receiver.name], sender.sent
    found = []
    arrived = np.isfinite(match.arrival_ms)
    for own in np.unique(sent.epoch[arrived]).tolist():
        for part in np.unique(match.epoch[arrived & (sent.epoch == own)]).tolist():
            rows = arrived & (sent.epoch == own) & (match.epoch == part)
            if rows.sum() >= FEWEST_MATCHED:
                found.append((own, part, float(np.median((match.arrival_ms - sent.stamp_ms)[rows])), int(rows.sum())))
    return found


def _shared_ms(board: Board, heard: Heard, own: int, part: int) -> float:
    """For how long [ms] the times of two parts overlap, less for how long they do not; 0 where they do not meet."""
    aired, rows = board.aired[1][board.aired[0] == own], heard.local_ms[heard.epoch == part]
    overlap = min(aired.max(), rows.max()) - max(aired.min(), rows.min())
    outside = max(0.0, rows.max() - aired.max()) + max(0.0, aired.min() - rows.min())
    return float(max(overlap - outside, 1.0)) if overlap >= 0.0 else 0.0
