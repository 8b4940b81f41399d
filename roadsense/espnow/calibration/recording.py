"""When a board recorded: frames of other times tell nothing about loss.

That follows from both files of a board together, because it writes its own frames even if it hears nobody.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from roadsense.espnow.calibration.findings import Findings
from roadsense.espnow.calibration.records import Board, Floats

GAP_MS = 500.0
"""A board that writes nothing for longer was not recording: its own frames stand in its file ten times a second."""

SILENCE_MS = 5000.0
"""Nobody heard for so long between two well-heard moments is a gap in an RX file."""


def recording(board: Board, findings: Findings) -> dict[int, list[tuple[float, float]]]:
    """Stretches of a board's own time in which it recorded what it heard, by epoch of its clock."""
    heard = board.heard
    assert heard is not None
    spans: dict[int, list[tuple[float, float]]] = {}
    missing = 0
    for epoch in np.unique(heard.epoch).tolist():
        rows = heard.local_ms[heard.epoch == epoch]
        own = board.aired[1][board.aired[0] == epoch]
        written = np.sort(np.concatenate([rows, own]))
        ends = np.flatnonzero(np.diff(written) > GAP_MS)
        missing += len(ends)
        firsts, lasts = written[[0, *(ends + 1)]], written[[*ends, len(written) - 1]]
        sources = heard.source[heard.epoch == epoch]
        silent = [
            hole
            for first, last in zip(firsts, lasts, strict=True)
            for hole in _silences(sources[(rows >= first) & (rows <= last)], rows[(rows >= first) & (rows <= last)])
        ]
        kept = [
            part
            for first, last in zip(firsts, lasts, strict=True)
            for part in _without(float(first), float(last), silent)
        ]
        if silent:
            text = f"wrote no reception for {', '.join(f'{(b - a) / 1000:.1f} s' for a, b in silent)} while heard well"
            findings.add("rx_gap", board.name, f"{text} before and after; taken as a gap, not as loss")
        spans[epoch] = kept
    if missing:
        times = "once" if missing == 1 else f"{missing} times"
        text = f"recorded nothing for more than {GAP_MS:g} ms, {times}; frames of that time do not count"
        findings.add("gap", board.name, text)
    return spans


def _silences(sources: NDArray[np.str_], rows_ms: Floats) -> Iterator[tuple[float, float]]:
    """Stretches without any reception between two moments at which several boards were heard well."""
    order = np.argsort(rows_ms, kind="stable")
    sources, rows_ms = sources[order], rows_ms[order]
    for at in np.flatnonzero(np.diff(rows_ms) > SILENCE_MS):
        before = (rows_ms > rows_ms[at] - SILENCE_MS) & (rows_ms <= rows_ms[at])
        after = (rows_ms >= rows_ms[at + 1]) & (rows_ms < rows_ms[at + 1] + SILENCE_MS)
        if min(_heard_well(sources[side]) for side in (before, after)) >= 2:
            yield float(rows_ms[at]), float(rows_ms[at + 1])


def _heard_well(sources: NDArray[np.str_]) -> int:
    """How many boards were heard in at least half of the frames of such a stretch."""
    return int((np.unique(sources, return_counts=True)[1] >= SILENCE_MS / 200.0).sum())


def _without(first: float, last: float, holes: list[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    for begin, end in holes:
        if first < begin < last:
            yield first, begin
            first = min(end, last)
    yield first, last
