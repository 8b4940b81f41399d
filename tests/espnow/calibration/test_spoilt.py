"""Logs spoilt at random: figures or one sentence, never a traceback (warnings are errors here)."""

from __future__ import annotations

import csv
import random

import pytest

from roadsense.errors import RoadsenseError
from roadsense.espnow.calibration.findings import Findings
from roadsense.espnow.calibration.fit import fit_params
from roadsense.espnow.calibration.logs import read_logs
from roadsense.espnow.calibration.measure import measure
from tests.espnow.calibration.test_logs import ASKED

CELLS = ["", "nan", "inf", "-1", "1e300", "x", "0", "99999999999"]


def _column_gone(rng, head, body):
    gone = rng.randrange(len(head))
    return [[cell for i, cell in enumerate(row) if i != gone] for row in [head, *body]]


def _cells_wrong(rng, head, body):
    for _ in range(rng.choice([1, 50, 2000])):
        rng.choice(body)[rng.randrange(len(head))] = rng.choice(CELLS)
    return [head, *body]


def _shuffled(rng, head, body):
    return [head, *rng.sample(body, len(body))]


def _cut(rng, head, body):
    return [head, *body[: rng.choice([0, 1, 2, 30])]]


def _heads_swapped(rng, head, body):
    i, j = rng.sample(range(len(head)), 2)
    head[i], head[j] = head[j], head[i]
    return [head, *body]


def _column_constant(rng, head, body):
    column, value = rng.randrange(len(head)), rng.choice(["0", "5", "nan", "V001"])
    return [head, *([*row[:column], value, *row[column + 1 :]] for row in body)]


def _thinned(rng, head, body):
    return [head, *(row for row in body if rng.random() < 0.02)]


def _vehicles_mixed(rng, head, body):
    return [head, *([*row[:2], rng.choice(["V001", "V002", "V004"]), *row[3:]] for row in body)]


def _clock_set_back(rng, head, body):
    at = rng.randrange(len(body))
    return [head, *body[:at], *([str(int(row[0]) - 100_000), *row[1:]] for row in body[at:])]


def _doubled(rng, head, body):
    return [head, *body, *body]


def _nothing(rng, head, body):
    return []


WAYS = {
    _column_gone: {"missing_column", "no_hops", "other_file"},
    _cells_wrong: {"bad_cells", "rows_dropped", "wild_times", "unknown_sender", "no_hops"},
    _shuffled: {"rows_out_of_order"},
    _cut: {"empty_file", "never_heard", "rx_silence", "rx_gap", "gap"},
    _heads_swapped: {"unknown_sender", "rows_dropped", "no_hops", "position_jumps", "never_heard", "bad_cells",
                     "accel_axes", "gravity_not_on_z", "speed", "other_file", "not_in_tx", "wild_times"},
    _column_constant: {"rows_dropped", "no_hops", "no_fix", "never_heard", "bad_cells", "unknown_sender", "held_values",
                       "duplicate_rows", "not_in_tx", "time_unit", "rx_without_tx", "gps_frozen", "heading"},
    _thinned: {"rx_silence", "rx_gap", "gap"},
    _vehicles_mixed: {"unknown_sender"},
    _clock_set_back: {"clock_reset"},
    _doubled: {"duplicate_rows"},
    _nothing: {"empty_file"},
}  # fmt: skip
"""Ways to spoil a file, and the findings of which at least one must name it."""

UNREAD = (_column_gone, _cells_wrong, _heads_swapped, _column_constant)
"""Of these some change nothing that is read."""

FALSE = {"time_unit", "clock_wrap", "clock_reset", "swapped_lat_lon", "speed_unit", "accel_in_g", "shared_air"}
"""None of the ways makes the logs look so, but where it stands beside the way."""


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_spoilt_logs(short_drive, tmp_path, way, seed):
    rng = random.Random(seed)
    paths = sorted(short_drive.folder.glob("*.csv"))
    spoilt = rng.sample(paths, rng.choice([1, 2, 6]))
    for path in paths:
        text = path.read_text()
        if path in spoilt:
            head, *body = csv.reader(text.splitlines())
            text = "\n".join(",".join(row) for row in way(rng, head, body))
        (tmp_path / path.name).write_text(text)
    findings = Findings()
    refused = ""
    try:
        measured = measure(read_logs((tmp_path,), findings), ASKED, findings)
        fit_params(measured, "spoilt", "spoilt logs", findings)
        assert all(figure.text() and figure.document()["n"] >= 0 for figure in measured.figures())
    except RoadsenseError as error:
        refused = str(error)
    assert refused == "" or "a calibration needs" in refused, "one sentence"
    found = findings.codes() - {"relayed_rows"}
    assert found & WAYS[way] or (way in UNREAD and not found)
    assert not found & (FALSE - WAYS[way])
