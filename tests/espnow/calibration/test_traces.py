"""What became of frames: which were alone on the air, and which came too late to have been under way."""

from __future__ import annotations

import csv
import shutil

import numpy as np
import pytest

from roadsense.espnow.calibration.findings import Findings
from roadsense.espnow.calibration.logs import read_logs
from roadsense.espnow.calibration.measure import measure
from roadsense.espnow.calibration.records import Board
from roadsense.espnow.calibration.traces import _free
from tests.espnow.calibration.test_logs import ASKED


def test_a_frame_is_alone_unless_another_began_within_four_milliseconds_before_or_one_after():
    board = Board("B", None, (np.zeros(1, np.int64), np.array([1000.0])), None)
    times_ms = np.array([990.0, 998.5, 999.0, 1000.0, 1003.0, 1004.0, 1004.5, 1010.0])
    alone = _free(board, {0: times_ms}, len(times_ms))
    assert alone.tolist() == [True, True, False, False, False, False, True, True]
    assert _free(board, {}, 3).all(), "clocks that were never compared"


@pytest.mark.parametrize(("late_ms", "told"), [(900, False), (1500, True)])
def test_what_took_more_than_a_second_has_no_latency(short_drive, tmp_path, late_ms, told):
    folder = shutil.copytree(short_drive.folder, tmp_path / "logs")
    path = folder / "V001_rx.csv"
    with path.open() as file:
        head, *rows = csv.reader(file)
    for row in rows[1000::60]:
        row[0] = str(int(row[0]) + late_ms)
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([head, *sorted(rows, key=lambda row: int(row[0]))])
    findings = Findings()
    measured = measure(read_logs((folder,), findings), ASKED, findings)
    assert ("impossible_time" in findings.codes()) == told
    latest = max(np.nanmax(link.latency_ms) for link in measured.links)
    assert (latest > 800.0) != told
    lost = {link.name: link.lost.mean() for link in measured.links}
    assert lost["V002→V001"] < 0.2, "they were heard all the same"
