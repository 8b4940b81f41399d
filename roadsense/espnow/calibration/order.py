"""The order of a log's rows: wild times, rows that stand elsewhere in the file than in time, and resets of the clock.

A clock that goes back was reset, or rows were written out of order. After a reset the clock runs again through times
that it showed before, so rows of both parts lie between each other in time; rows out of order fit together again.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from roadsense.espnow.calibration.findings import Findings
from roadsense.espnow.calibration.records import Bools, Floats, Ints

RESET_MS = 1000.0
"""A clock that goes back further than this was reset; less is rows written out of order."""

STALE_MS = 30_000.0
"""No message is relayed so late that its stamp is older than others of its sender by more than this."""

_WINDOW = 9  # rows whose median a wild time lies far from
_MOST_SEAMS = 1.5  # a piece: pieces of one clock that only changed places have one seam each


def wild(times_ms: Floats, far_ms: float = RESET_MS) -> Bools:
    """Times that lie ``far_ms`` off those of the rows around them, where rows are in some order."""
    from scipy.ndimage import median_filter

    found = np.zeros(len(times_ms), np.bool_)
    known = np.flatnonzero(np.isfinite(times_ms))
    if len(known) >= _WINDOW:
        # Rows at an end lie up to half a window off; in a file in no order at all, every row lies off.
        apart_ms = float(np.median(np.abs(np.diff(times_ms[known]))))
        middle_ms = median_filter(times_ms[known], _WINDOW, mode="mirror")
        found[known] = np.abs(times_ms[known] - middle_ms) > far_ms + _WINDOW / 2.0 * apart_ms
    return found


def _pieces(times_ms: Floats) -> list[Ints]:
    """Rows between jumps of the time, either way."""
    jumps = np.flatnonzero(np.abs(np.diff(times_ms)) > RESET_MS) + 1
    return np.split(np.arange(len(times_ms)), jumps)


def in_order(times_ms: Floats, path: Path, findings: Findings) -> tuple[Ints, Ints]:
    """Rows in the order of time, and how often the clock was reset before each of them.

    Args:
        times_ms: [row], all known, in the order of the file.
        path: of the file.
        findings: of resets, and of rows out of order.
    """
    epoch = np.concatenate([[0], np.cumsum(np.diff(times_ms) < -RESET_MS)]).astype(np.int64)[: len(times_ms)]
    if len(epoch) and epoch[-1] > 0 and _fit_together(times_ms):
        epoch[:] = 0
    order = np.lexsort((times_ms, epoch))
    moved = int((np.diff(times_ms) < 0.0).sum()) - int(epoch[-1:].sum())
    if moved:
        findings.add("rows_out_of_order", path, f"times go back {moved} times; rows are taken in the order of time")
    if len(epoch) and epoch[-1] > 0:
        times = "once" if epoch[-1] == 1 else f"{epoch[-1]} times"
        findings.add("clock_reset", path, f"the clock went back {times}, as by a reset; each part is taken by itself")
    return order, epoch[order]


def unreadable(rows: Ints, epoch: Ints, times_ms: Floats, count: int) -> Iterator[tuple[int, float, float]]:
    """Epoch and times of the readable rows before and after those that are not, where these are neighbours in time.

    Args:
        rows: [readable row], its place in the file.
        epoch, times_ms: [readable row].
        count: rows in the file.
    """
    gone = np.setdiff1d(np.arange(count), rows)
    in_file = np.argsort(rows)  # of the readable ones
    behind = np.unique(np.searchsorted(rows[in_file], gone))
    for place in behind[(behind > 0) & (behind < len(rows))].tolist():
        before, after = in_file[place - 1], in_file[place]
        if epoch[before] == epoch[after] and 0.0 <= times_ms[after] - times_ms[before] <= RESET_MS:
            yield int(epoch[before]), float(times_ms[before]), float(times_ms[after])


def _fit_together(times_ms: Floats) -> bool:
    """Whether pieces of the file, put in the order of time, follow each other without a jump and without overlap."""
    piece = np.concatenate([np.full(len(rows), place) for place, rows in enumerate(_pieces(times_ms))])
    order = np.argsort(times_ms, kind="stable")
    seams = np.diff(piece[order]) != 0
    close = np.diff(times_ms[order])[seams] <= RESET_MS
    return bool(len(close) <= _MOST_SEAMS * piece[-1] and close.mean() > 0.5)
