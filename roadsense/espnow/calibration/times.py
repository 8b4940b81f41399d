"""Times of logs put right before anything rests on them: their unit, and counters of 32 bits that begin anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from roadsense.espnow.calibration.columns import Columns
from roadsense.espnow.calibration.findings import Findings
from roadsense.espnow.calibration.order import STALE_MS, wild
from roadsense.espnow.calibration.records import Floats

_FEWEST = 20
_WRAP_MS = 2.0**32  # a counter of milliseconds in 32 bits lasts 49.7 days
_MEAN_OF_SECONDS, _MEDIAN_OF_MICROSECONDS = 1.0, 10_000.0  # between two rows; boards send some ten times a second


def put_right(columns: Columns, names: NDArray[np.str_], path: Path, findings: Findings) -> Columns:
    """The same columns with times in milliseconds that do not begin anew at 2³².

    Args:
        columns: with ``timestamp_local_ms`` and ``msg_timestamp``, in the order of the file.
        names: [row], whose message it is; every sender has a counter of its own.
        path: of the file.
        findings: one if anything was put right.
    """
    local, stamp = columns["timestamp_local_ms"], columns["msg_timestamp"]
    unit, factor = _unit(local)
    if unit:
        findings.add("time_unit", path, f"times look like {unit}; taken as such")
        local, stamp = local * factor, stamp * factor
    local, stamp = local.copy(), stamp.copy()
    off = wild(local)
    of_sender = [np.flatnonzero(names == name) for name in np.unique(names)]
    for rows in of_sender:
        off[rows] |= wild(stamp[rows], STALE_MS)
    if off.any():
        text = f"{int(off.sum())} rows show a time far off those before and after them, which go on; not used"
        findings.add("wild_times", path, text)
        local[off] = stamp[off] = np.nan
    steady_local, steady_stamp = _unwrapped(local), stamp.copy()
    for rows in of_sender:
        steady_stamp[rows] = _unwrapped(stamp[rows])
    if not (_same(steady_local, local) and _same(steady_stamp, stamp)):
        findings.add("clock_wrap", path, "a counter of milliseconds reached 2^32 and began anew; carried on")
    return {**columns, "timestamp_local_ms": steady_local, "msg_timestamp": steady_stamp}


def _unit(times: Floats) -> tuple[str, float]:
    """Name of the unit, if it is not milliseconds, and how many of these it has."""
    apart = np.diff(np.sort(times[np.isfinite(times)]))  # rows may stand in any order
    if len(apart) >= _FEWEST and 0.0 < apart.mean() < _MEAN_OF_SECONDS:
        return "seconds", 1000.0
    if len(apart) >= _FEWEST and np.median(apart) > _MEDIAN_OF_MICROSECONDS:
        return "microseconds", 0.001
    return "", 1.0


def _unwrapped(times_ms: Floats) -> Floats:
    found, known = times_ms.copy(), np.isfinite(times_ms)
    found[known] = np.unwrap(times_ms[known], period=_WRAP_MS)
    return found


def _same(one: Floats, other: Floats) -> bool:
    return np.array_equal(one, other, equal_nan=True)
