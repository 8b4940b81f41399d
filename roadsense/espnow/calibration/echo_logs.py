"""A file of round trips as arrays: which echoes came, which did not, and which nobody knows of."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from roadsense.espnow.calibration.columns import numbers
from roadsense.espnow.calibration.findings import Findings
from roadsense.espnow.calibration.records import Floats, RoundTrips
from roadsense.espnow.calibration.traces import LONGEST_MS

COLUMNS = ("sequence", "sent_ms", "received_ms")
"""What a file of round trips must have."""

_NONE_CAME = {"", "-", "-1", "0", "lost", "n/a", "na", "nan", "none", "null", "timeout"}
_SHORTEST_MS = 0.4  # the airtime of two empty frames, 2 · 192 µs: a usual echo of less is none of milliseconds


def read_round_trips(path: Path, table: dict[str, list[str]], findings: Findings) -> RoundTrips:
    """The requests of a file.

    Args:
        path: of the file.
        table: its columns, as text.
        findings: takes times in another unit, and cells that tell no time.
    """
    present = [name for name in (*COLUMNS, "distance_m") if name in table]
    columns = numbers(table, present, path, findings, may_be_empty=("received_ms",))
    sent_ms, received_ms = columns["sent_ms"], columns["received_ms"]
    none_came = np.array([_says_none(cell) for cell in table["received_ms"]])
    received_ms[none_came] = np.nan
    unit, factor = _unit(received_ms - sent_ms)
    if unit:
        findings.add("time_unit", path, f"times look like {unit}; taken as such")
        sent_ms, received_ms = sent_ms * factor, received_ms * factor
    unreadable = np.isnan(received_ms) & ~none_came
    if unreadable.any():
        text = f"{int(unreadable.sum())} cells of received_ms hold neither a time nor that no echo came"
        findings.add("bad_cells", path, f"{text}; these requests are left out")
    taken_ms = received_ms - sent_ms
    wrong = (taken_ms < 0.0) | (taken_ms > 2.0 * LONGEST_MS)
    if wrong.any():
        text = f"{int(wrong.sum())} echoes came before they were asked for or after more than {2.0 * LONGEST_MS:g} ms"
        findings.add("impossible_time", path, f"{text}; they count as heard, their times are not used")
        received_ms[wrong] = np.inf
    usable = np.isfinite(sent_ms) & ~unreadable
    peer = np.array([cell.strip() for cell in table.get("peer_id", [""] * len(usable))], np.str_)
    distance_m = columns.get("distance_m", np.full(len(usable), np.nan))
    return RoundTrips(path.stem, sent_ms[usable], received_ms[usable], peer[usable], distance_m[usable])


def _says_none(cell: str) -> bool:
    text = cell.strip().lower()
    return text in _NONE_CAME or text.rstrip("0") in ("-1.", "0.")


def _unit(taken: Floats) -> tuple[str, float]:
    """Name of the unit, if it is not milliseconds, and how many of these it has, by what echoes usually take."""
    taken = taken[taken > 0.0]
    usual = float(np.median(taken)) if len(taken) else 1.0
    if usual < _SHORTEST_MS:
        return "seconds", 1000.0
    if usual > 2.0 * LONGEST_MS:
        return "microseconds", 0.001
    return "", 1.0
