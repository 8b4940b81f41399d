"""A csv file as arrays of its columns; what cannot be read is left out and told."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from roadsense.espnow.calibration.findings import Findings

LIMITS = {
    "timestamp_local_ms": 1e13, "msg_timestamp": 1e13, "sent_ms": 1e13, "received_ms": 1e13, "lat": 180.0, "lon": 180.0,
    "speed": 500.0, "heading": 720.0, "accel_x": 200.0, "accel_y": 200.0, "accel_z": 200.0, "hop_count": 255.0,
    "distance_m": 1e5,
}  # fmt: skip
"""Beyond this, either way, a number cannot be meant."""

Columns = dict[str, NDArray[np.float64]]


def read_table(path: Path, findings: Findings) -> dict[str, list[str]] | None:
    """The cells of a csv file by the lower-case name of their column; None where there is nothing to read.

    Rows with another number of cells than the header are left out: a board that loses its power cuts the last one.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        findings.add("unreadable", path, f"cannot be read ({error.strerror}); left out")
        return None
    except UnicodeDecodeError:
        findings.add("not_csv", path, "is not text; left out")
        return None
    if "\0" in text:
        text = _without_zeros(text, path, findings)
    rows = [row for row in csv.reader(text.splitlines()) if row]
    if not rows:
        findings.add("empty_file", path, "is empty; left out")
        return None
    head = [name.strip().lower() for name in rows[0]]
    if len(set(head)) != len(head) or len(head) < 3:
        findings.add("not_csv", path, "does not begin with a line of column names with commas between; left out")
        return None
    whole = [row for row in rows[1:] if len(row) == len(head)]
    if len(whole) < len(rows) - 1:
        cut = len(rows) - 1 - len(whole)
        findings.add("ragged_rows", path, f"{cut} rows have another number of cells than the header; left out")
    if not whole:
        findings.add("empty_file", path, "has a header and no rows; left out")
        return None
    return dict(zip(head, (list(column) for column in zip(*whole, strict=True)), strict=True))


def _without_zeros(text: str, path: Path, findings: Findings) -> str:
    """Text without the zero bytes that a card leaves where it lost power before a block was written."""
    findings.add("zero_bytes", path, f"{text.count(chr(0))} zero bytes, as after a loss of power; left out")
    return text.replace("\0", "")


def numbers(
    table: dict[str, list[str]], names: Iterable[str], path: Path, findings: Findings, may_be_empty: Sequence[str] = ()
) -> Columns:
    """Columns as float64, NaN for cells that hold no possible number; how many of these there are is told."""
    found: Columns = {}
    bad: dict[str, int] = {}
    for name in names:
        values = _parse(table[name])
        values[np.abs(values) > LIMITS.get(name, np.inf)] = np.nan
        found[name] = values
        count = int(np.isnan(values).sum())
        if count and name not in may_be_empty:
            bad[name] = count
    if bad:
        listed = ", ".join(f"{count} in {name}" for name, count in bad.items())
        findings.add("bad_cells", path, f"cells without a possible number: {listed}; taken as not measured")
    return found


def _parse(cells: list[str]) -> NDArray[np.float64]:
    try:
        values = np.array(cells, np.float64)
    except ValueError:
        values = np.array([_number(cell) for cell in cells])
    values[~np.isfinite(values)] = np.nan
    return values


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan
