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
_CLOSE = 0.1  # quantile of the times between two rows of a sender: most are apart by losses and gaps if few are heard
_LEAST_MS, _MOST_MS = 1.0, 10_000.0  # of that quantile; beacons are 20 to 1000 ms apart


def put_right(columns: Columns, names: NDArray[np.str_], path: Path, findings: Findings) -> Columns:
    """The same columns with times in milliseconds that do not begin anew at 2³².

    Args:
        columns: with ``timestamp_local_ms`` and ``msg_timestamp``, in the order of the file.
        names: [row], whose message it is; every sender has a counter of its own.
        path: of the file.
        findings: one if anything was put right.
    """
    of_sender = [np.flatnonzero(names == name) for name in np.unique(names)]
    local, stamp = columns["timestamp_local_ms"], columns["msg_timestamp"]
    often = max(of_sender, key=len)  # rows of several senders may lie as close to each other as they like
    (of_local, local_factor), (of_stamp, stamp_factor) = _unit(local[often]), _unit(stamp[often])
    if of_local or of_stamp:
        told = [f"{what} look like {unit}" for what, unit in (("times", of_local), ("stamps", of_stamp)) if unit]
        findings.add("time_unit", path, f"{', '.join(told)}; taken as such")
        local, stamp = local * local_factor, stamp * stamp_factor
    local, stamp = local.copy(), stamp.copy()
    off = wild(local)
    local[off] = np.nan
    for rows in of_sender:  # a stamp by itself may be far from the next one, if few of its sender were heard
        off[rows] |= wild(stamp[rows] - local[rows], STALE_MS)
    if off.any():
        text = f"{int(off.sum())} rows show a time far off those of the rows around them; not used"
        findings.add("wild_times", path, text)
        local[off] = stamp[off] = np.nan
    steady_local, steady_stamp = _unwrapped(local), stamp.copy()
    for rows in of_sender:
        steady_stamp[rows] = _unwrapped(stamp[rows])
    if not (_same(steady_local, local) and _same(steady_stamp, stamp)):
        findings.add("clock_wrap", path, "a counter of milliseconds reached 2^32 and began anew; carried on")
    return {**columns, "timestamp_local_ms": steady_local, "msg_timestamp": steady_stamp}


def _unit(times: Floats) -> tuple[str, float]:
    """Name of the unit of one sender's times, if it is not milliseconds, and how many of these it has."""
    apart = np.diff(np.sort(times[np.isfinite(times)]))  # rows may stand in any order
    apart = apart[apart > 0.0]
    if len(apart) < _FEWEST:
        return "", 1.0
    close = np.quantile(apart, _CLOSE)
    if close < _LEAST_MS:
        return "seconds", 1000.0
    return ("microseconds", 0.001) if close > _MOST_MS else ("", 1.0)


def _unwrapped(times_ms: Floats) -> Floats:
    found, known = times_ms.copy(), np.isfinite(times_ms)
    found[known] = np.unwrap(times_ms[known], period=_WRAP_MS)
    return found


def _same(one: Floats, other: Floats) -> bool:
    return np.array_equal(one, other, equal_nan=True)
