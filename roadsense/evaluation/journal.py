"""The episodes of an evaluation as rows of a file, written as they end, so that a stopped one can go on."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, TextIO

from roadsense.errors import InputMismatchError, RoadsenseError
from roadsense.evaluation.metrics import COLUMNS, EpisodeMetrics
from roadsense.files import cannot_write, refuse_unwritable, write_json, write_text

EPISODES_NAME, IDENTITY_NAME = "episodes.csv", "identity.json"

_TRUTH = {"True": True, "False": False}
_READ: dict[str, Callable[[str], Any]] = {"str": str, "int": int, "float": float, "bool": _TRUTH.__getitem__}
_TYPES = {one.name: _READ[str(one.type)] for one in dataclasses.fields(EpisodeMetrics)}


class Row(NamedTuple):
    """One row of ``episodes.csv``."""

    policy: str
    episode: int
    """Its place in the list."""
    radio: str
    bucket: str
    metrics: EpisodeMetrics

    def cells(self) -> list[str]:
        """As text; reading them gives the same bits."""
        return [self.policy, str(self.episode), self.radio, self.bucket, *map(str, dataclasses.astuple(self.metrics))]

    def same_as(self, other: Row) -> bool:
        """Whether all is equal, NaN included."""
        return self.cells() == other.cells()


HEAD = ("policy", "episode", "radio", "bucket", *COLUMNS)
"""Columns of ``episodes.csv``."""


def _line(cells: Iterable[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _row(cells: dict[str, str]) -> Row:
    metrics = EpisodeMetrics(**{name: read(cells[name]) for name, read in _TYPES.items()})
    return Row(cells["policy"], int(cells["episode"]), cells["radio"], cells["bucket"], metrics)


def write_episodes(path: Path, rows: Iterable[Row]) -> None:
    """Writes rows as ``episodes.csv``, beside and renamed."""
    write_text(path, "".join([_line(HEAD), *(_line(row.cells()) for row in rows)]))


_DAMAGED = (ValueError, KeyError, TypeError, csv.Error)
"""What the first row raises that is not whole."""


def _lines(file: BinaryIO) -> Iterator[str]:
    for line in file:
        if not line.endswith(b"\n") or b"\0" in line:
            raise ValueError("a row is torn")
        yield line.decode("utf-8")


def _whole_rows(file: BinaryIO) -> Iterator[Row]:
    """The rows up to the first damaged one, which raises."""
    for cells in csv.DictReader(_lines(file), strict=True):
        if None in cells or None in cells.values():
            raise ValueError("a row has another length")
        yield _row(cells)


def read_episodes(path: Path) -> list[Row]:
    """The rows of an ``episodes.csv``; none where there is no such file.

    Raises:
        RoadsenseError: it is not one.
    """
    try:
        with path.open("rb") as file:
            return list(_whole_rows(file))
    except FileNotFoundError:
        return []
    except (OSError, *_DAMAGED) as error:
        raise RoadsenseError(f"{path}: is no list of episodes ({error!r}); judge the run again.") from None


class Journal:
    """The episodes of one evaluation in a folder; without a folder it keeps nothing.

    Args:
        folder: made if need be.
        identity: what the episodes follow from; a folder with another one is refused.

    Raises:
        InputMismatchError: the folder holds another evaluation.
        RoadsenseError: it cannot be written.
    """

    def __init__(self, folder: Path | None, identity: dict[str, Any]) -> None:
        self._rows: dict[str, list[Row]] = {}
        self._file: TextIO | None = None
        self._path = None if folder is None else folder / EPISODES_NAME
        if folder is None or self._path is None:
            return
        refuse_unwritable(self._path)
        known = json.loads(json.dumps(identity))
        if (folder / IDENTITY_NAME).is_file():
            _refuse_other(folder, known)
            self._rows = _read(self._path)
        elif self._path.exists():
            raise InputMismatchError(f"{self._path}: is there, but not what it was made from; name another folder.")
        else:
            write_json(folder / IDENTITY_NAME, known)
        write_episodes(self._path, [row for rows in self._rows.values() for row in rows])  # without what is damaged

    def rows_of(self, policy: str) -> list[Row]:
        """What is known of a policy's episodes already: the first ones of the list."""
        return list(self._rows.get(policy, []))

    def add(self, row: Row) -> None:
        """Keeps the next row."""
        if self._path is None:
            return
        try:
            if self._file is None:
                self._file = self._path.open("a", encoding="utf-8", newline="")
            self._file.write(_line(row.cells()))
            self._file.flush()
        except OSError as error:
            raise cannot_write(self._path, error) from None

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()


def _refuse_other(folder: Path, identity: dict[str, Any]) -> None:
    try:
        found = json.loads((folder / IDENTITY_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if found is None:
        raise InputMismatchError(f"{folder / IDENTITY_NAME}: cannot be read; remove {folder} or name another folder.")
    differing = sorted(key for key in {*found, *identity} if found.get(key) != identity.get(key))
    if differing:
        raise InputMismatchError(
            f"{folder}: holds another evaluation (it differs in {', '.join(differing)}); name another folder or"
            " remove it."
        )


def _read(path: Path) -> dict[str, list[Row]]:
    """Rows by policy, as far as they are whole and none is missing."""
    rows: dict[str, list[Row]] = {}
    if not path.is_file():
        return rows
    with path.open("rb") as file, contextlib.suppress(*_DAMAGED):
        for row in _whole_rows(file):
            kept = rows.setdefault(row.policy, [])
            if row.episode == len(kept):
                kept.append(row)
    return rows
