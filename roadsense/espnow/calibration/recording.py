"""When a board recorded: frames of other times tell nothing about loss.

That follows from both files of a board together, because it writes its own frames even if it hears nobody. Where these
go on while nobody is heard at all, either everything was lost or receptions were not written. What begins and ends at
once, between moments at which others were heard well, was not written; what came slowly was lost. Around rows that
cannot be read nothing is known either.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from roadsense.espnow.calibration.findings import Findings
from roadsense.espnow.calibration.records import Board, Floats, Heard

GAP_BEACONS = 5.0
"""A board that writes nothing for more beacon intervals was not recording: its own frames stand in its file."""

SILENCE_BEACONS = 20.0
"""Nobody heard for so many beacon intervals is loss or a hole in the RX file."""

_HEARD_WELL = 0.5  # of the frames of a sender, right before and after a silence
_FEWEST_SENT = 10  # frames of others that make a silence
_FEWEST_HEARD = 2  # boards, where a hole lies between rows: one link alone may be cut off for a while by itself

Span = tuple[float, float]


@dataclass
class _Silences:
    """Stretches [ms] of one board without any reception."""

    holes: list[Span]
    """Not written."""
    losses: list[Span]
    """Taken as lost."""


def recording(
    board: Board, interval_ms: float, others_ms: dict[int, Floats], findings: Findings
) -> dict[int, list[Span]]:
    """Stretches of a board's own time in which it recorded what it heard, by epoch of its clock.

    Args:
        board: with an RX file.
        interval_ms: between beacons.
        others_ms: when others sent, in order and by this board's clock, by its epoch; silence between is none.
        findings: of gaps, and of silences.
    """
    heard = board.heard
    assert heard is not None
    spans: dict[int, list[Span]] = {}
    missing, silences = 0, _Silences([], [])
    for epoch in np.unique(heard.epoch).tolist():
        own = board.aired[1][board.aired[0] == epoch]
        written = np.sort(np.concatenate([heard.local_ms[heard.epoch == epoch], own]))
        ends = np.flatnonzero(np.diff(written) > GAP_BEACONS * interval_ms)
        missing += len(ends)
        wrote = [(float(a), float(b)) for a, b in zip(written[[0, *(ends + 1)]], written[[*ends, -1]], strict=True)]
        found = _silences(heard, epoch, wrote, interval_ms, others_ms.get(epoch, np.zeros(0)))
        holes = [*found.holes, *((begin, end) for one, begin, end in heard.unreadable if one == epoch)]
        spans[epoch] = [part for span in wrote for part in _without(span, sorted(holes))]
        silences.holes += found.holes
        silences.losses += found.losses
    if missing:
        times = "once" if missing == 1 else f"{missing} times"
        text = f"recorded nothing for more than {GAP_BEACONS * interval_ms:.0f} ms, {times}"
        findings.add("gap", board.name, f"{text}; frames of that time do not count")
    if silences.holes:
        text = f"wrote no reception for {_listed(silences.holes)} right beside moments at which it heard others well"
        findings.add("rx_gap", board.name, f"{text}; taken as a gap, not as loss")
    if silences.losses:
        text = f"heard nobody for {_listed(silences.losses)} while its own frames were written"
        findings.add("rx_silence", board.name, f"{text}; counted as loss, unless the RX file lacks that time")
    return spans


def _listed(spans: list[Span]) -> str:
    shown = ", ".join(f"{(end - begin) / 1000.0:.1f} s" for begin, end in spans[:5])
    total_s = sum(end - begin for begin, end in spans) / 1000.0
    return shown if len(spans) <= 5 else f"{shown} and {len(spans) - 5} times more, {total_s:.0f} s in all,"


def _silences(heard: Heard, epoch: int, wrote: list[Span], interval_ms: float, others_ms: Floats) -> _Silences:
    """Stretches without any reception in which the board wrote something and others sent, in one epoch of its clock."""
    longest_ms = SILENCE_BEACONS * interval_ms
    order = np.flatnonzero(heard.epoch == epoch)
    order = order[np.argsort(heard.local_ms[order], kind="stable")]
    rows_ms, sources = heard.local_ms[order], heard.source[order]
    edges = np.concatenate([[wrote[0][0]], rows_ms, [wrote[-1][1]]])
    found = _Silences([], [])
    for at in np.flatnonzero(np.diff(edges) > longest_ms):
        begin, end = float(edges[at]), float(edges[at + 1])
        parts = [(max(begin, a), min(end, b)) for a, b in wrote if min(end, b) > max(begin, a)]
        sent = sum(int(np.diff(np.searchsorted(others_ms, part))[0]) for part in parts)
        if sum(b - a for a, b in parts) <= longest_ms or sent < _FEWEST_SENT:
            continue
        before, after = (rows_ms > begin - longest_ms) & (rows_ms <= begin), rows_ms >= end
        after &= rows_ms < end + longest_ms
        sides = [_heard_well(sources[side]) for side, there in ((before, at > 0), (after, at < len(rows_ms))) if there]
        enough = _FEWEST_HEARD if len(sides) == 2 else 1
        (found.holes if min(sides) >= enough else found.losses).extend(parts)
    return found


def _heard_well(sources: np.ndarray) -> int:
    """How many boards were heard in enough of the frames of such a stretch."""
    return int((np.unique(sources, return_counts=True)[1] >= _HEARD_WELL * SILENCE_BEACONS).sum())


def _without(span: Span, holes: list[Span]) -> Iterator[Span]:
    """What holes, in the order of their begins, leave of a span."""
    first, last = span
    for begin, end in holes:
        if end > first and begin < last:
            if begin > first:
                yield first, begin
            first = end
    if first < last:
        yield first, last


def beacon_interval_ms(stamps_ms: list[Floats], otherwise_ms: float = 100.0) -> float:
    """Time between the beacons of some boards, from the stamps of each; ``otherwise_ms`` where none tells it."""
    steps = [step[step > 0.0] for step in map(np.diff, stamps_ms)]
    known = [float(np.median(step)) for step in steps if len(step)]
    return float(np.median(known)) if known else otherwise_ms
