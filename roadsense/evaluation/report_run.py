"""What a run folder holds for its report; whatever is missing or damaged is noted and left out."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from roadsense.errors import RoadsenseError
from roadsense.evaluation.journal import Row, read_episodes
from roadsense.evaluation.promotion import GATES_NAME, SUITES_NAME
from roadsense.runs import CONFIG, read_record

RECORDS = (GATES_NAME, "metrics.json", "training.json", "parity.json", "environment.json", CONFIG, "manifest.json",
           "signature.json")  # fmt: skip


@dataclass(frozen=True)
class SuiteResult:
    """What a suite found.

    Attributes:
        stem: name of its files.
        document: the evaluation, as ``Evaluation.document`` states it.
        rows: the judged policy's episodes.
    """

    stem: str
    document: dict[str, Any]
    rows: list[Row]

    @property
    def policies(self) -> dict[str, Any]:
        """By name, the judged one first."""
        return dict(self.document["policies"])

    @property
    def judged(self) -> str:
        """Name of the judged policy."""
        return next(iter(self.policies))

    @property
    def radios(self) -> list[str]:
        """In the suite's order."""
        return list(self.policies[self.judged]["radios"])


@dataclass
class RunRecord:
    """A run as its report sees it."""

    path: Path
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By file name; empty where there is none."""
    suites: dict[str, SuiteResult] = field(default_factory=dict)
    training: dict[str, list[float]] = field(default_factory=dict)
    """Columns of ``training.csv``, whatever they are."""
    command: str = ""
    """With which it was begun."""
    problems: list[str] = field(default_factory=list)
    """What could not be read, a sentence each."""

    @property
    def gates(self) -> dict[str, Any]:
        return self.records[GATES_NAME]


def read_run(path: Path) -> RunRecord:
    """Reads all that a report may show."""
    run = RunRecord(path)
    for name in RECORDS:
        run.records[name] = _record(run, path / name)
    for file in sorted((path / SUITES_NAME).glob("*.json")):
        document = _record(run, file)
        policies = document.get("policies")
        if not isinstance(policies, dict) or not policies:
            run.problems.append(f"{SUITES_NAME}/{file.name} holds no evaluation.")
            continue
        try:
            rows = read_episodes(file.with_suffix(".csv"))
        except RoadsenseError as error:
            run.problems.append(str(error))
            rows = []
        run.suites[file.stem] = SuiteResult(file.stem, document, rows)
    run.training = _columns(path / "training.csv")
    command = path / "command.txt"
    run.command = command.read_bytes().decode("utf-8", "replace").strip() if command.is_file() else ""
    return run


def _record(run: RunRecord, path: Path) -> dict[str, Any]:
    try:
        found = read_record(path)
        json.dumps(found, allow_nan=False)
        return found
    except (RoadsenseError, ValueError) as error:
        run.problems.append(str(error))
        return {}


def _columns(path: Path) -> dict[str, list[float]]:
    """A table of numbers by column; what is no number is NaN. Nothing where there is no such file."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error):
        return {}
    names = [name for name in (rows[0] if rows else ()) if isinstance(name, str)]
    return {name: [_float(row.get(name)) for row in rows] for name in names}


def _float(cell: str | None) -> float:
    try:
        return float(cell or math.nan)
    except ValueError:
        return math.nan
