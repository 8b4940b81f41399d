"""Which positions of a board can be meant: those without a fix and those that jump are taken as unknown."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from roadsense.espnow.calibration.findings import Findings
from roadsense.espnow.calibration.records import Bools, Floats, Ints, Sent

EARTH_M = 6_371_008.8

_FASTEST_MPS = 100.0
_ERROR_M = 100.0  # that a position may jump by its error alone
_NO_FIX_DEG = 1e-6


def only_possible(name: str, sent: Sent, findings: Findings) -> Sent:
    """The same frames with NaN for positions that cannot be meant; says how many."""
    lat, lon = sent.lat_deg.copy(), sent.lon_deg.copy()
    told = np.isfinite(lat) & np.isfinite(lon)
    none = told & (np.abs(lat) < _NO_FIX_DEG) & (np.abs(lon) < _NO_FIX_DEG)
    if none.any():
        text = f"{int(none.sum())} of {len(lat)} positions are 0° / 0°, which is no fix; taken as unknown"
        findings.add("no_fix", name, text)
    wrong = told & ~none & ((np.abs(lat) > 90.0) | (np.abs(lon) > 180.0))
    for epoch in np.unique(sent.epoch).tolist():
        rows = np.flatnonzero((sent.epoch == epoch) & told & ~none & ~wrong)
        wrong[rows[~_on_track(sent.local_ms[rows], lat[rows], lon[rows])]] = True
    if wrong.any():
        text = f"{int(wrong.sum())} of {len(lat)} positions lie where the board cannot have been; taken as unknown"
        findings.add("position_jumps", name, text)
    lat[none | wrong] = lon[none | wrong] = np.nan
    return replace(sent, lat_deg=lat, lon_deg=lon)


def _on_track(times_ms: Floats, lat: Floats, lon: Floats) -> Bools:
    """Which positions a car can have driven through: the longest stretch without a jump, and all that can be reached.

    Args:
        times_ms, lat, lon: [position], in the order of time.
    """
    kept = np.zeros(len(times_ms), np.bool_)
    rows = np.arange(len(times_ms))
    jumps = np.flatnonzero(~_reachable(times_ms, lat, lon, rows[:-1], rows[1:])) + 1
    for stretch in sorted(np.split(rows, jumps), key=len, reverse=True):
        if not len(stretch):
            continue
        before, after = np.flatnonzero(kept[: stretch[0]]), stretch[-1] + 1 + np.flatnonzero(kept[stretch[-1] + 1 :])
        joints = [(before[-1], stretch[0])] if len(before) else []
        joints += [(stretch[-1], after[0])] if len(after) else []
        kept[stretch] = all(_reachable(times_ms, lat, lon, np.array([a]), np.array([b]))[0] for a, b in joints)
    return kept


def _reachable(times_ms: Floats, lat: Floats, lon: Floats, one: Ints, other: Ints) -> Bools:
    """Whether a car can have come from some positions to others."""
    north = np.radians(lat[other] - lat[one]) * EARTH_M
    east = np.radians((lon[other] - lon[one] + 180.0) % 360.0 - 180.0) * EARTH_M * np.cos(np.radians(lat[one]))
    apart_s = np.abs(times_ms[other] - times_ms[one]) / 1000.0
    return np.asarray(np.hypot(north, east) <= _ERROR_M + _FASTEST_MPS * apart_s, np.bool_)
