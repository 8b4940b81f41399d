"""A csv file as arrays of its columns; what cannot be read is left out and told."""

from __future__ import annotations

import codecs
import csv
import math
import re
from collections.abc import Callable, Iterable, Sequence
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

_COUNTS = {"hop_count"}
_KNOWN = {*LIMITS, "vehicle_id", "from_vehicle_id", "sequence", "peer_id"}
_LINE_END = re.compile(r"\r\n|\n|\r")  # and not what else Unicode counts as one


def read_table(path: Path, findings: Findings) -> dict[str, list[str]] | None:
    """The cells of a csv file by the lower-case name of their column; None where there is nothing to read.

    A line is a row, and one that stands again word for word counts once. Rows with another number of cells than the
    header are left out: a board that loses its power cuts the last one.
    """
    text = _text(path, findings)
    if text is None:
        return None
    lines = [line for line in _LINE_END.split(text) if line.strip()]
    if not lines:
        findings.add("empty_file", path, "is empty; left out")
        return None
    rows = _rows(list(dict.fromkeys(lines)), path, findings)
    if len(rows) < len(lines):
        findings.add("duplicate_rows", path, f"{len(lines) - len(rows)} rows stand again word for word; one counts")
    head = [name.strip().lower() for name in rows[0]]
    twice = sorted({name for name in head if name in _KNOWN and head.count(name) > 1})
    if len(head) < 3 or twice:
        why = f"has two columns {twice[0]}" if twice else "does not begin with a line of column names, commas between"
        findings.add("not_csv", path, f"{why}; left out")
        return None
    whole = [row for row in map(_without_trailing(len(head)), rows[1:]) if len(row) == len(head)]
    if len(whole) < len(rows) - 1:
        cut = len(rows) - 1 - len(whole)
        findings.add("ragged_rows", path, f"{cut} rows have another number of cells than the header; left out")
    if not whole:
        findings.add("empty_file", path, "has a header and no rows; left out")
        return None
    return dict(zip(reversed(head), (list(column) for column in reversed([*zip(*whole, strict=True)])), strict=True))


def _text(path: Path, findings: Findings) -> str | None:
    """What a file says, whatever its encoding; bytes that no board writes are told."""
    try:
        data = path.read_bytes()
    except OSError as error:
        findings.add("unreadable", path, f"cannot be read ({error.strerror}); left out")
        return None
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors="replace")
    if b"\0" in data:
        findings.add("zero_bytes", path, f"{data.count(0)} zero bytes, as after a loss of power; left out")
        data = data.replace(b"\0", b"")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        strange = len(data) - len(data.decode("ascii", errors="ignore"))
        findings.add("stray_bytes", path, f"{strange} bytes are not UTF-8; the cells with them are read as Latin-1")
        return data.decode("latin-1")


def _rows(lines: list[str], path: Path, findings: Findings) -> list[list[str]]:
    """The cells of each line. A quote that is not closed on its own line is none, or it would swallow what follows."""
    if not any('"' in line for line in lines):
        return [line.split(",") for line in lines]
    stray = [line.count('"') % 2 == 1 for line in lines]
    if any(stray):
        findings.add("stray_quotes", path, f"{sum(stray)} rows have a quote that is not closed; read without it")
    closed = (line.replace('"', "") if odd else line for line, odd in zip(lines, stray, strict=True))
    return [next(csv.reader([line])) for line in closed]


def _without_trailing(cells: int) -> Callable[[list[str]], list[str]]:
    """Cuts empty cells behind the last column, which a comma at the end of a line makes."""
    return lambda row: row if any(cell.strip() for cell in row[cells:]) else row[:cells]


def numbers(
    table: dict[str, list[str]], names: Iterable[str], path: Path, findings: Findings, may_be_empty: Sequence[str] = ()
) -> Columns:
    """Columns as float64, NaN for cells that hold no possible number; how many of these there are is told."""
    found: Columns = {}
    bad: dict[str, int] = {}
    for name in names:
        values = _parse(table[name])
        values[np.abs(values) > LIMITS.get(name, np.inf)] = np.nan
        if name in _COUNTS:
            values[(values < 0.0) | (values % 1.0 != 0.0)] = np.nan
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
