"""The logs of a drive: TX and RX files of boards, and files of round trips.

A TX file has a row for every frame that its board sent, relayed ones too; an RX file a row for every frame it heard.
Times are milliseconds of the board's own clock, which begins at its boot and agrees with nobody else's.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from roadsense.errors import RoadsenseError, UsageError
from roadsense.espnow.calibration import echo_logs
from roadsense.espnow.calibration.columns import Columns, numbers, read_table
from roadsense.espnow.calibration.findings import Findings
from roadsense.espnow.calibration.order import in_order, unreadable
from roadsense.espnow.calibration.records import Board, Bools, Floats, Heard, Ints, LogSet, RoundTrips, Sent
from roadsense.espnow.calibration.times import put_right

_TIMES = ("timestamp_local_ms", "msg_timestamp")
_PLACE = ("lat", "lon", "speed")
_OPTIONAL = ("heading", "accel_x", "accel_y", "accel_z", "hop_count")


def read_logs(places: tuple[Path, ...], findings: Findings) -> LogSet:
    """Reads files, and all ``.csv`` files of folders and the folders in them.

    Raises:
        UsageError: a place does not exist.
        RoadsenseError: there is no usable log; the findings say why.
    """
    files = _files(places)
    findings.folder = Path(os.path.commonpath([path.parent for path in files])) if files else None
    tables = [(path, table) for path in files if (table := read_table(path, findings)) is not None]
    boards: dict[str, tuple[Path, Sent, tuple[Ints, Floats]]] = {}
    receptions: list[tuple[Path, Heard]] = []
    trips: list[RoundTrips] = []
    for path, table in tables:
        match _kind(table):
            case "tx" if _has(table, (*_TIMES, *_PLACE), path, findings):
                name, sent, aired = _read_tx(path, table, findings)
                if name in boards:
                    findings.add("second_tx", path, f"is a second TX file of {name}, give one set at a time; left out")
                elif name:
                    boards[name] = (path, sent, aired)
            case "rx" if _has(table, _TIMES, path, findings):
                receptions.append((path, _read_rx(path, table, findings)))
            case "round trips" if _has(table, echo_logs.COLUMNS, path, findings):
                trips.append(echo_logs.read_round_trips(path, table, findings))
            case "":
                findings.add("other_file", path, "has neither vehicle_id, from_vehicle_id nor sequence; left out")
    heard = _owners({name: path for name, (path, _, _) in boards.items()}, receptions, findings)
    for name in sorted(set(boards) - set(heard)):
        findings.add("tx_without_rx", boards[name][0], f"there is no RX file of {name}; what it heard is unknown")
    logs = LogSet(
        tuple(Board(name, sent, aired, heard.get(name)) for name, (_, sent, aired) in sorted(boards.items())),
        tuple(trips),
    )
    if not logs.round_trips and (not heard or len(boards) < 2):
        found = f"{len(boards)} TX and {len(heard)} RX files are usable" if files else "no .csv file is there"
        raise RoadsenseError(
            f"{', '.join(map(str, places))}: a calibration needs the TX files of two boards and the RX file of one, "
            f"or a file of round trips; {found}."
        )
    return logs


def _files(places: tuple[Path, ...]) -> list[Path]:
    found: set[Path] = set()
    for place in places:
        if not place.exists():
            raise UsageError(f"{place}: there is no such file or folder; give the logs or their folder.")
        found |= {path for path in place.rglob("*") if path.suffix.lower() == ".csv"} if place.is_dir() else {place}
    return sorted(found)


def _kind(table: dict[str, list[str]]) -> str:
    kinds = {"from_vehicle_id": "rx", "vehicle_id": "tx", "sequence": "round trips"}
    return next((kind for column, kind in kinds.items() if column in table), "")


def _has(table: dict[str, list[str]], columns: tuple[str, ...], path: Path, findings: Findings) -> bool:
    missing = [name for name in columns if name not in table]
    if missing:
        findings.add("missing_column", path, f"has no column {', '.join(missing)}; the file is left out")
    return not missing


def _names(cells: list[str]) -> NDArray[np.str_]:
    return np.array([cell.strip() for cell in cells], np.str_)


def _usable(columns: Columns, names: NDArray[np.str_], path: Path, findings: Findings) -> Bools:
    """Which rows say whose message it is and when; the others are told and dropped."""
    usable = (names != "") & np.isfinite(columns["timestamp_local_ms"]) & np.isfinite(columns["msg_timestamp"])
    if not usable.all():
        findings.add("rows_dropped", path, f"{int((~usable).sum())} rows lack a time or a vehicle; left out")
    return usable


def _ordered(columns: Columns, usable: Bools, path: Path, findings: Findings) -> tuple[Ints, Ints]:
    """Usable rows in the order of time, and the resets before each."""
    rows = np.flatnonzero(usable)
    order, epoch = in_order(columns["timestamp_local_ms"][rows], path, findings)
    return rows[order], epoch


def _hops(columns: Columns) -> Ints:
    """Hops of every row, 0 where unknown."""
    return np.nan_to_num(columns.get("hop_count", np.zeros(len(columns["msg_timestamp"])))).astype(np.int64)


def _tell_unknown_hops(columns: Columns, path: Path, findings: Findings) -> None:
    """What came by a relay passes for a direct reception where there is no hop count."""
    rows = len(columns["msg_timestamp"])
    unknown = int(np.isnan(columns["hop_count"]).sum()) if "hop_count" in columns else rows
    if unknown:
        text = f"{unknown} of {rows} rows have no hop count and are taken as heard directly"
        findings.add("no_hops", path, f"{text}; where boards relay, loss is then too low and latency too high")


def _read_tx(path: Path, table: dict[str, list[str]], findings: Findings) -> tuple[str, Sent, tuple[Ints, Floats]]:
    names = _names(table["vehicle_id"])
    present = [name for name in (*_TIMES, *_PLACE, *_OPTIONAL) if name in table]
    absent = [name for name in _OPTIONAL if name not in table]
    if absent:
        findings.add("missing_column", path, f"has no column {', '.join(absent)}; what rests on it is not measured")
    columns = put_right(numbers(table, present, path, findings, ["hop_count"]), names, path, findings)
    rows, epoch = _ordered(columns, _usable(columns, names, path, findings), path, findings)
    names, columns = names[rows], {name: values[rows] for name, values in columns.items()}
    hops = _hops(columns)
    candidates, counts = np.unique(names[hops == 0], return_counts=True)
    name = str(candidates[counts.argmax()]) if len(counts) else ""
    if not name:
        findings.add("empty_file", path, "has no row of the board's own messages; left out")
    own = (names == name) & (hops == 0)
    if not own.all():
        findings.add("relayed_rows", path, f"{int((~own).sum())} of {len(own)} rows relay others; {name}'s own count")
    again = own & ~_first_of_each(epoch, columns["msg_timestamp"], own)
    if again.any():
        findings.add("duplicate_rows", path, f"{int(again.sum())} own messages stand again; the first of each counts")
        own &= ~again
    nothing = np.full(len(names), np.nan)
    accel = np.stack([columns.get(f"accel_{axis}", nothing) for axis in "xyz"], axis=1)
    sent = Sent(
        epoch[own], columns["timestamp_local_ms"][own], columns["msg_timestamp"][own], columns["lat"][own],
        columns["lon"][own], columns["speed"][own], columns.get("heading", nothing)[own], accel[own],
    )  # fmt: skip
    return name, sent, (epoch, columns["timestamp_local_ms"])


def _first_of_each(epoch: Ints, stamp_ms: Floats, among: Bools) -> Bools:
    """Which of some rows are the first with their time stamp since a reset."""
    rows = np.flatnonzero(among)
    found = np.zeros(len(among), np.bool_)
    found[rows[np.unique(np.stack([epoch[rows], stamp_ms[rows]]), axis=1, return_index=True)[1]]] = True
    return found


def _read_rx(path: Path, table: dict[str, list[str]], findings: Findings) -> Heard:
    names = _names(table["from_vehicle_id"])
    present = [name for name in (*_TIMES, "hop_count") if name in table]
    columns = put_right(numbers(table, present, path, findings, ["hop_count"]), names, path, findings)
    rows, epoch = _ordered(columns, _usable(columns, names, path, findings), path, findings)
    columns = {name: values[rows] for name, values in columns.items()}
    _tell_unknown_hops(columns, path, findings)
    local_ms = columns["timestamp_local_ms"]
    around = tuple(unreadable(rows, epoch, local_ms, len(names)))
    return Heard(epoch, local_ms, names[rows], columns["msg_timestamp"], _hops(columns), around)


def _owners(boards: dict[str, Path], receptions: list[tuple[Path, Heard]], findings: Findings) -> dict[str, Heard]:
    """RX files by the board they belong to: the one whose TX file has the same name but for tx, or named in it."""
    owners: dict[str, Heard] = {}
    for path, heard in receptions:
        pairs = [name for name, tx in boards.items() if tx.parent == path.parent and _twin(tx) == _twin(path)]
        named = [name for name in boards if re.search(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", path.stem)]
        name = next(iter([*pairs, *named]), None)
        if name is None or name in owners:
            if name is None:
                why = "no TX file is named like it, so whose it is is unknown"
            else:
                why = f"is a second RX file of {name}, give one set at a time"
            findings.add("rx_without_tx", path, f"{why}; left out")
        else:
            owners[name] = heard
    return owners


def _twin(path: Path) -> str:
    """A file's name without the word that tells TX from RX."""
    return re.sub(r"(?<![a-z])[tr]x(?![a-z])", "", path.stem.lower())
