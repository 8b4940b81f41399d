"""The verb ``calibrate``: from logs of boards to a params file and a report."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from roadsense.errors import RoadsenseError, UsageError
from roadsense.espnow.calibration.asked import Asked
from roadsense.espnow.calibration.figures import Figure
from roadsense.espnow.calibration.findings import Findings
from roadsense.espnow.calibration.fit import BASE, fit_params, least_latency_ms
from roadsense.espnow.calibration.logs import read_logs
from roadsense.espnow.calibration.measure import Measured, measure
from roadsense.espnow.calibration.traces import FARTHEST_M
from roadsense.espnow.params import RadioParams
from roadsense.espnow.profiles import read_params
from roadsense.files import refuse_unwritable, write_json
from roadsense.statistics import CONFIDENCE

_LINK = re.compile(r"[^:→\s]+[:→][^:→\s]+")


@dataclass(frozen=True, kw_only=True)
class CalibrationConfig:
    """Fits radio parameters to the logs of boards; prints every figure with its interval and writes a report."""

    logs: tyro.conf.Positional[tuple[Path, ...]]
    """TX and RX csv files, files of round trips, or folders of them."""
    out: Path
    """The params file to write, NAME.json; the report goes beside it, NAME.html."""
    name: str | None = None
    """Name of the parameters; that of the file, if not given."""
    exclude: tuple[str, ...] = ()
    """Links to leave out, sender first, as V003:V001; bad ones are found without."""
    edges_m: tuple[float, ...] = (0.0, 20.0, 50.0, 100.0)
    """Begins of the steps of distance."""
    least_latency_ms: float | None = None
    """Least latency where logs of one direction cannot tell it; airtime and software of the profile convoy."""
    confidence: float = CONFIDENCE
    """Of every interval by itself."""

    def check(self) -> None:
        """Refuses what cannot be meant.

        Raises:
            UsageError: says what and what to give instead.
        """
        if not self.logs and self.exclude:
            raise UsageError("calibrate needs logs; name them before --exclude, which takes all words behind it.")
        if not self.logs:
            raise UsageError("calibrate needs logs; name the csv files or their folder.")
        if self.out.suffix != ".json" or self.out.is_dir():
            raise UsageError(f"--out {self.out} is no name of a params file; let it end in .json.")
        rising = all(one < other for one, other in zip(self.edges_m, self.edges_m[1:], strict=False))
        if not self.edges_m or self.edges_m[0] != 0.0 or not rising or not self.edges_m[-1] <= FARTHEST_M:
            given = " ".join(f"{edge:g}" for edge in self.edges_m)
            raise UsageError(f"--edges-m {given} must ascend from 0 to {FARTHEST_M:g} at most, as 0 20 50 100.")
        if not 0.5 <= self.confidence < 1.0:
            raise UsageError(f"--confidence {self.confidence:g} is outside of 0.5 to 1; give 0.95, say.")
        if self.least_latency_ms is not None and not 0.0 <= self.least_latency_ms <= 1000.0:
            raise UsageError(f"--least-latency-ms {self.least_latency_ms:g} is outside of 0 to 1000.")
        for link in self.exclude:
            if not _LINK.fullmatch(link):
                raise UsageError(f"--exclude {link} names no link; give sender and receiver, as V003:V001.")


def calibrate(config: CalibrationConfig) -> Path:
    """Writes the params file and the report; returns the file.

    Figures go to stdout, findings to stderr.

    Raises:
        UsageError: an option is impossible, or names what the logs do not have.
        RoadsenseError: there is no usable log, or nothing can be written where asked.
    """
    from roadsense.espnow.calibration.report import write_report

    config.check()
    report = config.out.with_suffix(".html")
    for file in (config.out, report):
        refuse_unwritable(file)
    findings = Findings()
    try:
        measured, params = _fitted(config, findings)
    finally:
        for finding in findings:
            print(finding, file=sys.stderr)
    print(figure_table(list(measured.figures())))
    write_report(report, measured, params, findings, _asked(config))
    document: dict[str, Any] = params.model_dump(mode="json", exclude_none=True)
    write_json(config.out, document)
    print(f"{config.out}\n{report}")
    return config.out


def _asked(config: CalibrationConfig) -> Asked:
    least = config.least_latency_ms
    return Asked(
        edges_m=config.edges_m, least_latency_ms=least_latency_ms() if least is None else least,
        usual_tail_ms=read_params(BASE).latency.tail_ms, excluded=config.exclude, confidence=config.confidence,
    )  # fmt: skip


def _fitted(config: CalibrationConfig, findings: Findings) -> tuple[Measured, RadioParams]:
    """Figures and parameters.

    Raises:
        UsageError: a link to leave out is none.
        RoadsenseError: there is no usable log, or neither loss nor latency can be measured.
    """
    logs = read_logs(config.logs, findings)
    measured = measure(logs, _asked(config), findings)
    if not measured.tells_radio:
        raise RoadsenseError(
            f"{', '.join(map(str, config.logs))}: neither loss nor latency can be measured, for the reasons above; a "
            "calibration needs logs of boards that heard each other for a minute or more. Nothing was written."
        )
    names = ", ".join([*(board.name for board in logs.boards), *(trips.name for trips in logs.round_trips)])
    source = f"logs of {names}; intervals at {config.confidence:.6g}"
    return measured, fit_params(measured, config.name or config.out.stem, source, findings)


def figure_table(figures: Sequence[Figure]) -> str:
    """The figures as text, one a line."""
    rows = [("figure", "value [interval]", "n", ""), *((one.name, one.text(), str(one.n), one.note) for one in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]).rstrip()
             for row in rows]  # fmt: skip
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)
