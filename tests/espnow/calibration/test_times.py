"""Times in other units and counters that begin anew: the same parameters come out, and it is said."""

import csv
import json
import shutil

import pytest

from roadsense.cli import main

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
