"""Times in other units and counters that begin anew: the same parameters come out, and it is said."""

import csv
import json
import random
import shutil

import numpy as np
import pytest

from roadsense.cli import main
from roadsense.espnow.calibration.findings import Findings
from roadsense.espnow.calibration.order import in_order, wild
from roadsense.espnow.calibration.times import put_right

WRAP = 2**32


def rewritten(drive, folder, change):
    """The drive's logs with both times of every row changed: change(board, own, milliseconds) → text."""
    shutil.copytree(drive.folder, folder)
    for path in folder.glob("*.csv"):
        with path.open(newline="") as file:
            rows = list(csv.reader(file))
        head, owner = rows[0], path.stem[:4]
        who = head.index("vehicle_id" if "vehicle_id" in head else "from_vehicle_id")
        for row in rows[1:]:
            row[0], row[1] = change(owner, float(row[0])), change(row[who], float(row[1]))
        with path.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
    return folder


def calibrated(logs, out, capsys):
    assert main(["calibrate", str(logs), "--out", str(out)]) == 0
    document = json.loads(out.read_text())
    return {key: document[key] for key in ("loss", "latency", "noise")}, capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("time_unit", lambda who, ms: f"{ms / 1000:.3f}"),
        ("time_unit", lambda who, ms: f"{ms * 1000:.0f}"),
        # of each board at another moment, so that stale relayed stamps come after the counter began anew
        ("clock_wrap", lambda who, ms: f"{(ms + WRAP - 200_000 - 10_000 * int(who[-1])) % WRAP:.0f}"),
    ],
    ids=["seconds", "microseconds", "wrap"],
)
def test_the_same_comes_out(short_drive, tmp_path, capsys, code, change):
    plain, said = calibrated(short_drive.folder, tmp_path / "plain.json", capsys)
    assert f"[{code}]" not in said
    found, said = calibrated(rewritten(short_drive, tmp_path / "logs", change), tmp_path / "found.json", capsys)
    assert f"[{code}]" in said
    for section, values in plain.items():
        for key, value in values.items():
            assert found[section][key] == pytest.approx(value, rel=1e-3), (section, key)


@pytest.mark.parametrize(("unit", "factor"), [("seconds", 0.001), ("microseconds", 1000.0), ("", 1.0)])
def test_the_unit_is_found_however_few_rows_were_heard(unit, factor):
    """Bursts of three beacons of 100 ms, a minute apart."""
    times_ms = np.add.outer(60_000.0 * np.arange(20), [800.0, 900.0, 1000.0]).ravel()
    findings, columns = Findings(), dict.fromkeys(("timestamp_local_ms", "msg_timestamp"), times_ms * factor)
    found = put_right(columns, np.full(len(times_ms), "V001"), None, findings)
    assert found["timestamp_local_ms"] == pytest.approx(times_ms)
    assert findings.codes() == ({"time_unit"} if unit else set())
    assert all(unit in str(one) for one in findings)


def test_the_two_times_of_a_row_may_be_in_different_units(short_drive, tmp_path, capsys):
    plain, _ = calibrated(short_drive.folder, tmp_path / "plain.json", capsys)
    shutil.copytree(short_drive.folder, tmp_path / "logs")
    for path in (tmp_path / "logs").glob("*.csv"):
        head, *body = path.read_text().splitlines()
        cells = [line.split(",", 1) for line in body]
        path.write_text("\n".join([head, *(f"{int(local) / 1000:.3f},{rest}" for local, rest in cells)]))
    found, said = calibrated(tmp_path / "logs", tmp_path / "found.json", capsys)
    assert "times look like seconds; taken as such [time_unit]" in said
    assert found["loss"]["probability"] == pytest.approx(plain["loss"]["probability"], rel=1e-3)


def _shuffled(body):
    return random.Random(1).sample(body, len(body))


def _in_chunks(body):
    chunks = _shuffled(np.array_split(body, len(body) // 50))
    return [line for chunk in chunks for line in chunk]


def _neighbours_swapped(body):
    return [line for i in range(0, len(body), 2) for line in reversed(body[i : i + 2])]


@pytest.mark.parametrize(
    "order", [_shuffled, _in_chunks, _neighbours_swapped, lambda body: body[::-1], lambda body: body[900:] + body[:900]]
)
def test_the_order_of_rows_changes_nothing_and_is_told(short_drive, tmp_path, capsys, order):
    plain, _ = calibrated(short_drive.folder, tmp_path / "plain.json", capsys)
    shutil.copytree(short_drive.folder, tmp_path / "logs")
    for path in (tmp_path / "logs").glob("*.csv"):
        head, *body = path.read_text().splitlines()
        path.write_text("\n".join([head, *order(body)]))
    found, said = calibrated(tmp_path / "logs", tmp_path / "found.json", capsys)
    assert found == plain
    assert "[rows_out_of_order]" in said and "[clock_reset]" not in said and "[time_unit]" not in said


@pytest.mark.parametrize("column", [0, 1])
@pytest.mark.parametrize("cell", ["4294967295", "0"])
def test_a_wild_time_costs_its_row_only(short_drive, tmp_path, capsys, cell, column):
    plain, _ = calibrated(short_drive.folder, tmp_path / "plain.json", capsys)
    shutil.copytree(short_drive.folder, tmp_path / "logs")
    for path in (tmp_path / "logs").glob("*.csv"):
        lines = path.read_text().splitlines()
        cells = lines[500].split(",")
        cells[column] = cell
        lines[500] = ",".join(cells)
        path.write_text("\n".join(lines))
    found, said = calibrated(tmp_path / "logs", tmp_path / "found.json", capsys)
    assert "[wild_times]" in said and "[clock_wrap]" not in said and "[clock_reset]" not in said
    assert found["loss"]["probability"] == pytest.approx(plain["loss"]["probability"], abs=0.003)
    assert found["latency"]["shape"] == pytest.approx(plain["latency"]["shape"], rel=0.03)


def _epochs(times_ms):
    findings = Findings()
    return in_order(np.array(times_ms, float), None, findings)[1].tolist(), findings.codes()


def test_resets_are_told_from_rows_out_of_order():
    drive = list(range(800, 60_000, 100))
    assert _epochs([*drive, *drive[:100]]) == ([0] * len(drive) + [1] * 100, {"clock_reset"})
    away = list(range(900_000, 960_000, 100))
    assert _epochs([*away, *drive]) == ([0] * len(away) + [1] * len(drive), {"clock_reset"})
    often = 30 * drive[:100]
    assert _epochs(often) == ([place // 100 for place in range(len(often))], {"clock_reset"})
    assert _epochs([*drive[300:], *drive[:300]]) == ([0] * len(drive), {"rows_out_of_order"})
    assert _epochs([]) == ([], set())


def test_a_few_rows_far_off_those_around_them_are_wild():
    times = np.arange(0.0, 5000.0, 100.0)
    for rows, expected in ((slice(20, 21), 1), (slice(20, 24), 4), (slice(20, 26), 0), (slice(0, 1), 1)):
        spoilt = times.copy()
        spoilt[rows] += 1e6
        assert wild(spoilt).sum() == expected
    assert not wild(np.concatenate([times, times])).any(), "a reset"
    assert not wild(10.0 * times).any(), "a beacon a second"
    assert not wild(np.concatenate([times, times + 1e6])).any(), "a gap"
    assert not wild(np.random.default_rng(0).permutation(times)).any(), "another order"
