"""Logs that are not as they should be: a named finding and a result, never a traceback."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace

import numpy as np
import pytest

from roadsense.errors import RoadsenseError, UsageError
from roadsense.espnow.calibration.asked import Asked
from roadsense.espnow.calibration.findings import Findings
from roadsense.espnow.calibration.logs import read_logs
from roadsense.espnow.calibration.matching import match_frames
from roadsense.espnow.calibration.measure import measure
from roadsense.espnow.calibration.records import Board, Heard, Sent

ASKED = Asked(edges_m=(0.0, 20.0, 50.0, 100.0), least_latency_ms=2.156, usual_tail_ms=(10.0, 60.0))


@pytest.fixture
def logs(short_drive, tmp_path):
    return shutil.copytree(short_drive.folder, tmp_path / "logs")


@pytest.fixture(scope="module")
def whole(short_drive):
    findings = Findings()
    return measure(read_logs((short_drive.folder,), findings), ASKED, findings), findings


def _rewrite(path, change):
    """Applies ``change`` to the rows of a file, as dicts."""
    with path.open() as file:
        rows = list(csv.DictReader(file))
    changed = [change(i, dict(row)) for i, row in enumerate(rows)]
    changed = [row for row in changed if row is not None]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, changed[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(changed)


def _read(folder):
    findings = Findings()
    return read_logs((folder,), findings), findings


def _measured(folder):
    logs, findings = _read(folder)
    return measure(logs, ASKED, findings), findings


def _texts(findings, code):
    return [str(one) for one in findings if one.code == code]


def test_whole_logs_have_no_findings_but_relays(whole):
    measured, findings = whole
    assert findings.codes() <= {"relayed_rows"}
    assert len(measured.links) == 6


def test_a_file_without_a_needed_column_is_left_out(logs):
    _rewrite(logs / "V002_tx.csv", lambda i, row: {k: v for k, v in row.items() if k != "msg_timestamp"})
    found, findings = _read(logs)
    assert [board.name for board in found.boards] == ["V001", "V003"]
    (text,) = _texts(findings, "missing_column")
    assert "V002_tx.csv" in text and "msg_timestamp" in text
    assert any("V002_rx.csv" in text for text in _texts(findings, "rx_without_tx"))


def test_missing_optional_columns_cost_only_what_rests_on_them(logs):
    drop = {"heading", "accel_x", "accel_y", "accel_z", "hop_count"}
    for path in logs.glob("*.csv"):
        _rewrite(path, lambda i, row: {k: v for k, v in row.items() if k not in drop})
    measured, findings = _measured(logs)
    assert measured.noise["heading_deg"].best is None and measured.noise["accel_mps2"].best is None
    assert measured.noise["speed_mps"].best is not None
    assert len(_texts(findings, "missing_column")) == 3
    assert len(_texts(findings, "no_hops")) == 3


@pytest.mark.parametrize("every", [1, 9])
def test_rows_without_a_hop_count_are_told_with_what_they_do(logs, every):
    _rewrite(logs / "V001_rx.csv", lambda i, row: row if i % every else {**row, "hop_count": ""})
    found, findings = _read(logs)
    (text,) = _texts(findings, "no_hops")
    rows = len(found.boards[0].heard.hops)
    assert f"{-(-rows // every)} of {rows} rows" in text and "loss is then too low" in text
    assert "bad_cells" not in findings.codes()


def test_what_is_no_log_is_told_and_left_out(logs):
    (logs / "empty.csv").write_text("")
    (logs / "header.csv").write_text("timestamp_local_ms,msg_timestamp,vehicle_id,lat,lon,speed\n")
    (logs / "prose.csv").write_text("These are the logs of Tuesday.\n")
    (logs / "binary.csv").write_bytes(bytes(range(256)) * 20)
    (logs / "semicolons.csv").write_text((logs / "V001_tx.csv").read_text().replace(",", ";"))
    (logs / "other.csv").write_text("a,b,c\n1,2,3\n")
    found, findings = _read(logs)
    assert len(found.boards) == 3
    said = {one.where.rpartition("/")[2]: one.code for one in findings if one.code != "relayed_rows"}
    assert said == {
        "empty.csv": "empty_file", "header.csv": "empty_file", "prose.csv": "not_csv", "binary.csv": "not_csv",
        "semicolons.csv": "not_csv", "other.csv": "other_file",
    }  # fmt: skip


def test_a_card_that_lost_power_costs_its_last_row(logs, whole):
    path = logs / "V001_rx.csv"
    data = path.read_bytes()
    path.write_bytes(data[:-40] + b"\0" * 512)
    found, findings = _read(logs)
    assert {"zero_bytes", "ragged_rows"} <= findings.codes()
    assert len(found.boards[0].heard.local_ms) == len(whole[0].boards[0].heard.local_ms) - 1


def test_cells_that_are_no_numbers_are_counted_and_not_used(logs, whole):
    def spoil(i, row):
        if i % 50 == 0:
            row["speed"] = "nan"
        if i % 60 == 0:
            row["lat"] = "?"
        if i % 70 == 0:
            row["timestamp_local_ms"] = ""
        return row

    _rewrite(logs / "V001_tx.csv", spoil)
    measured, findings = _measured(logs)
    (bad,) = _texts(findings, "bad_cells")
    assert "in speed" in bad and "in lat" in bad
    assert "lack a time" in _texts(findings, "rows_dropped")[0]
    for step, reference in zip(measured.steps, whole[0].steps, strict=True):
        if reference.loss is not None:
            assert step.loss.value == pytest.approx(reference.loss.value, rel=0.1)


def test_swapped_coordinates_are_found_and_put_right(logs, whole):
    _rewrite(logs / "V002_tx.csv", lambda i, row: {**row, "lat": row["lon"], "lon": row["lat"]})
    measured, findings = _measured(logs)
    assert [text.partition(":")[0] for text in _texts(findings, "swapped_lat_lon")] == ["V002"]
    assert [step.loss and step.loss.value for step in measured.steps] == [
        step.loss and step.loss.value for step in whole[0].steps
    ]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda row: {"accel_x": row["accel_y"], "accel_y": row["accel_x"]}, "accel_axes"),
        (lambda row: {"accel_x": f"{-float(row['accel_x'])}", "accel_y": f"{-float(row['accel_y'])}"}, "accel_axes"),
        (lambda row: {"accel_x": row["accel_z"], "accel_z": row["accel_x"]}, "gravity_not_on_z"),
    ],
)
def test_swapped_axes_of_acceleration_are_found(logs, whole, change, code):
    _rewrite(logs / "V003_tx.csv", lambda i, row: {**row, **change(row)})
    measured, findings = _measured(logs)
    assert [text.partition(":")[0] for text in _texts(findings, code)] == ["V003"]
    noise, reference = measured.noise["accel_mps2"].motion, whole[0].noise["accel_mps2"].motion
    assert noise.value == pytest.approx(reference.value, rel=0.05)
    assert (noise.n == reference.n) == (code == "accel_axes"), "put right, or left out"


@pytest.mark.parametrize("factor", [3.6, 2.2369, 1.9438])
def test_speed_in_another_unit_is_put_right(logs, whole, factor):
    _rewrite(logs / "V001_tx.csv", lambda i, row: {**row, "speed": f"{factor * float(row['speed']):.4f}"})
    measured, findings = _measured(logs)
    assert "speed_unit" in findings.codes()
    assert measured.noise["speed_mps"].motion.value == pytest.approx(whole[0].noise["speed_mps"].motion.value, rel=0.01)


def test_speed_in_no_unit_is_not_used(logs, whole):
    _rewrite(logs / "V001_tx.csv", lambda i, row: {**row, "speed": f"{2.9 * float(row['speed']):.4f}"})
    measured, findings = _measured(logs)
    assert [text.partition(":")[0] for text in _texts(findings, "speed")] == ["V001"]
    noise, reference = (one.noise["speed_mps"].motion for one in (measured, whole[0]))
    assert noise.n < 0.8 * reference.n and noise.value == pytest.approx(reference.value, rel=0.05)


def test_accelerations_in_g_are_put_right(logs, whole):
    axes = ("accel_x", "accel_y", "accel_z")
    for path in logs.glob("*_tx.csv"):
        _rewrite(path, lambda i, row: {**row, **{axis: f"{float(row[axis]) / 9.80665:.6f}" for axis in axes}})
    measured, findings = _measured(logs)
    assert len(_texts(findings, "accel_in_g")) == 3
    noise, reference = (one.noise["accel_mps2"].motion for one in (measured, whole[0]))
    assert noise.value == pytest.approx(reference.value, rel=0.01)


@pytest.mark.parametrize("cell", ["0.2", "-1", "x"])
def test_a_hop_count_that_counts_nothing_is_unknown(logs, cell):
    _rewrite(logs / "V001_rx.csv", lambda i, row: {**row, "hop_count": cell})
    assert len(_texts(_read(logs)[1], "no_hops")) == 1


@pytest.mark.parametrize("column", ["timestamp_local_ms", "msg_timestamp", "from_vehicle_id"])
def test_receptions_that_cannot_be_read_are_no_losses(logs, whole, column):
    rng = np.random.default_rng(1)
    for path in logs.glob("*_rx.csv"):
        _rewrite(path, lambda i, row: {**row, column: ""} if rng.random() < 0.08 else row)
    measured, findings = _measured(logs)
    assert len(_texts(findings, "rows_dropped")) == 3
    for step, reference in zip(measured.steps, whole[0].steps, strict=True):
        if reference.loss is not None:
            assert step.loss.value == pytest.approx(reference.loss.value, abs=0.02)


def _of_some(rows, **cells):
    return lambda i, row: {**row, **cells} if i in rows else row


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (_of_some({77}, lat="120.0"), "position_jumps"),
        (_of_some(range(0, 5000, 50), lat="51.9"), "position_jumps"),
        (_of_some(range(600), lon="0"), "position_jumps"),
        (_of_some(range(600), lat="0.0000000", lon="0.0000000"), "no_fix"),
    ],
)
def test_positions_that_cannot_be_are_taken_as_unknown(logs, whole, change, code):
    _rewrite(logs / "V002_tx.csv", change)
    measured, findings = _measured(logs)
    assert {one.code for one in findings} - {"relayed_rows"} == {code}
    for step, reference in zip(measured.steps, whole[0].steps, strict=True):
        assert (step.loss is None) == (reference.loss is None)
        if reference.loss is not None:
            assert step.loss.value == pytest.approx(reference.loss.value, abs=0.025)
            assert step.loss.n <= reference.loss.n + 10, "no frame comes in from another step"


def test_a_board_whose_positions_are_all_wrong_counts_in_no_step(logs, whole):
    _rewrite(logs / "V002_tx.csv", lambda i, row: {**row, "lat": f"{float(row['lat']) + 1.0:.7f}"})
    measured, findings = _measured(logs)
    assert len(_texts(findings, "too_far")) == 4
    assert measured.steps[3].loss is None
    assert sum(step.loss.n for step in measured.steps if step.loss) < sum(s.loss.n for s in whole[0].steps if s.loss)


def test_a_held_sensor_is_told(logs):
    held = {}

    def hold(i, row):
        held.update(speed=row["speed"]) if i % 10 == 0 or not held else None
        return {**row, **held}

    _rewrite(logs / "V001_tx.csv", hold)
    assert any("speed_mps" in text for text in _texts(_measured(logs)[1], "held_values"))


def test_rows_that_stand_twice_count_once(logs, whole):
    path = logs / "V001_rx.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], *(line for line in lines[1:] for _ in (0, 1))]))
    measured, findings = _measured(logs)
    assert "stand again word for word" in _texts(findings, "duplicate_rows")[0]
    assert [link.lost.sum() for link in measured.links] == [link.lost.sum() for link in whole[0].links]


@pytest.mark.parametrize("column", ["lat", None])
def test_own_messages_that_stand_twice_are_no_losses(logs, whole, column):
    """Word for word, or with another cell changed: a frame was sent once."""
    for path in logs.glob("*_tx.csv"):
        head, *body = path.read_text().splitlines()
        at = head.split(",").index(column) if column else None
        twice = [line if at is None else ",".join([*line.split(",")[:at], "50.1", *line.split(",")[at + 1 :]])
                 for line in body[::20]]  # fmt: skip
        pairs = dict(zip(body[::20], twice, strict=True))
        path.write_text("\n".join([head, *(one for line in body for one in (line, pairs.get(line)) if one)]))
    measured, findings = _measured(logs)
    assert len(_texts(findings, "duplicate_rows")) == 3
    assert [link.lost.sum() for link in measured.links] == [link.lost.sum() for link in whole[0].links]


def test_a_tx_file_appended_to_itself_is_no_reset(logs, whole):
    path = logs / "V001_tx.csv"
    head, *body = path.read_text().splitlines()
    path.write_text("\n".join([head, *body, *body]))
    measured, findings = _measured(logs)
    assert "clock_reset" not in findings.codes() and "duplicate_rows" in findings.codes()
    assert [link.lost.sum() for link in measured.links] == [link.lost.sum() for link in whole[0].links]


def test_a_quote_that_is_not_closed_costs_no_row(logs, whole):
    path = logs / "V001_rx.csv"
    lines = path.read_text().splitlines()
    lines[-300] = '"' + lines[-300]
    path.write_text("\n".join(lines))
    measured, findings = _measured(logs)
    assert "1 rows" in _texts(findings, "stray_quotes")[0] and "ragged_rows" not in findings.codes()
    assert [link.lost.sum() for link in measured.links] == [link.lost.sum() for link in whole[0].links]


def test_quotes_around_cells_and_commas_at_line_ends_change_nothing(logs, whole):
    for path in logs.glob("*.csv"):
        head, *body = path.read_text().splitlines()
        quoted = [",".join(f'"{cell}"' for cell in line.split(",")) for line in body]
        path.write_text("\n".join([head + ",rssi,rssi", *(line + ",-50,-50," for line in quoted)]))
    measured, findings = _measured(logs)
    assert findings.codes() <= {"relayed_rows"}
    assert [link.lost.sum() for link in measured.links] == [link.lost.sum() for link in whole[0].links]


def test_a_needed_column_that_stands_twice_is_refused(logs):
    path = logs / "V001_tx.csv"
    path.write_text("\n".join(line + ("," + line.split(",")[3]) for line in path.read_text().splitlines()))
    assert "two columns lat" in _texts(_read(logs)[1], "not_csv")[0]


@pytest.mark.parametrize("encoding", ["utf-16", "one byte", "utf-8-sig", "CRLF"])
def test_encodings(logs, whole, encoding):
    for path in logs.glob("*.csv"):
        text = path.read_text()
        if encoding == "one byte":
            path.write_bytes(text[:7000].encode() + b"\xff" + text[7001:].encode())
        elif encoding == "CRLF":
            path.write_bytes(text.replace("\n", "\r\n").encode())
        else:
            path.write_bytes(text.encode(encoding))
    measured, findings = _measured(logs)
    assert ("stray_bytes" in findings.codes()) == (encoding == "one byte")
    for link, reference in zip(measured.links, whole[0].links, strict=True):
        assert abs(int(link.lost.sum()) - int(reference.lost.sum())) <= 1


def test_names_of_files_in_capitals_are_found(logs):
    for path in list(logs.glob("*.csv")):
        path.rename(path.with_suffix(".CSV"))
    assert len(_read(logs)[0].boards) == 3


def test_frames_that_a_tx_file_lacks_are_no_losses_and_part_their_neighbours(logs, whole):
    _rewrite(logs / "V001_tx.csv", lambda i, row: None if i % 7 == 3 else row)
    measured, findings = _measured(logs)
    link, reference = (next(one for one in m.links if one.name == "V001→V002") for m in (measured, whole[0]))
    dropped = len(reference.lost) - len(link.lost)
    assert dropped > 150
    assert (~link.follows).sum() == pytest.approx(dropped + 1, abs=3)
    assert link.lost.mean() == pytest.approx(reference.lost.mean(), abs=0.01)
    assert any(text.startswith("V001→V002") for text in _texts(findings, "not_in_tx"))


def test_a_relayed_copy_is_no_direct_reception(logs, whole):
    """What came only by a relay was lost on the direct link."""
    heard = whole[0].boards[0].heard
    relayed = int(((heard.source == "V003") & (heard.hops > 0)).sum())
    assert relayed > 20
    _rewrite(logs / "V001_rx.csv", lambda i, row: {**row, "hop_count": "0"})
    named = {link.name: link.lost.mean() for link in _measured(logs)[0].links}
    reference = {link.name: link.lost.mean() for link in whole[0].links}
    assert named["V003→V001"] < reference["V003→V001"] - 0.02


def test_an_rx_file_that_nobody_owns_is_left_out(logs):
    (logs / "V003_rx.csv").rename(logs / "strange_rx.csv")
    found, findings = _read(logs)
    assert found.boards[2].heard is None
    assert {"rx_without_tx", "tx_without_rx"} <= findings.codes()


@pytest.mark.parametrize(
    "names", [("tx_{}.csv", "rx_{}.csv"), ("{}-TX-2.csv", "{}-RX-2.csv"), ("log_tx_{}.csv", "{}.csv")]
)
def test_ways_to_name_files(logs, names):
    for board in ("V001", "V002", "V003"):
        for old, new in zip(("{}_tx.csv", "{}_rx.csv"), names, strict=True):
            (logs / old.format(board)).rename(logs / new.format(board))
    found, _ = _read(logs)
    assert [(board.name, board.heard is not None) for board in found.boards] == [
        ("V001", True), ("V002", True), ("V003", True),
    ]  # fmt: skip


def test_two_tx_files_of_one_board(logs):
    shutil.copy(logs / "V001_tx.csv", logs / "V001_again_tx.csv")
    assert "second_tx" in _read(logs)[1].codes()


def test_one_direction_alone_rests_on_an_assumption_that_is_told(logs):
    for board in ("V002", "V003"):
        (logs / f"{board}_rx.csv").unlink()
    logs, findings = _read(logs)
    measured = measure(logs, replace(ASKED, confidence=0.999), findings)
    assert {"tx_without_rx", "one_way", "assumed_latency"} <= findings.codes()
    assert measured.latency.shift_ms.value == 2.156
    assert np.isnan(measured.latency.shift_ms.low) and "assumed" in measured.latency.shift_ms.note
    assert measured.latency.scale_ms.covers(1.4)
    assert {link.name for link in measured.links} == {"V002→V001", "V003→V001"}


def test_no_logs_at_all(tmp_path, logs):
    with pytest.raises(UsageError, match="there is no such file or folder"):
        read_logs((tmp_path / "nowhere",), Findings())
    (tmp_path / "bare").mkdir()
    with pytest.raises(RoadsenseError, match=r"needs the TX files of two boards.*no \.csv file is there"):
        read_logs((tmp_path / "bare",), Findings())
    findings = Findings()
    with pytest.raises(RoadsenseError, match="1 TX and 0 RX files are usable"):
        read_logs((logs / "V001_tx.csv",), findings)
    assert "tx_without_rx" in findings.codes()


def test_a_second_rx_file_is_named_as_one(logs):
    shutil.copy(logs / "V001_rx.csv", logs / "V001_rx_copy.csv")
    assert "a second RX file of V001" in _texts(_read(logs)[1], "rx_without_tx")[0]


def test_senders_without_a_tx_file_are_named(logs, whole):
    (logs / "V003_tx.csv").unlink()
    (logs / "V003_rx.csv").unlink()
    texts = _texts(_measured(logs)[1], "unknown_sender")
    assert [text.partition(":")[0] for text in texts] == ["V001", "V002"]
    heard = int((whole[0].boards[0].heard.source == "V003").sum())
    assert f"V003 ({heard} rows)" in texts[0]


def _in_phase(logs):
    """Everything is heard after 5 ms, and all boards send at the same moments."""
    first = {path.name[:4]: int(path.read_text().splitlines()[1].split(",")[0]) for path in logs.glob("*_tx.csv")}
    for receiver in first:
        rows = []
        for sender in set(first) - {receiver}:
            with (logs / f"{sender}_tx.csv").open() as file:
                for row in csv.DictReader(file):
                    if row["vehicle_id"] == sender and row["hop_count"] == "0":
                        stamp = int(row["msg_timestamp"])
                        rows.append((stamp - first[sender] + first[receiver] + 5, stamp, sender, 0))
        with (logs / f"{receiver}_rx.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("timestamp_local_ms", "msg_timestamp", "from_vehicle_id", "hop_count"))
            writer.writerows(sorted(rows))


def test_boards_that_always_send_at_once_leave_no_loss_to_measure_and_it_is_said(logs):
    _in_phase(logs)
    measured, findings = _measured(logs)
    assert len(_texts(findings, "shared_air")) == 6
    assert "0 of them alone on the air" in _texts(findings, "loss_not_measured")[0]
    assert not measured.tells_radio


def test_loss_without_positions_is_not_measured_and_latency_is(logs):
    for path in logs.glob("*_tx.csv"):
        _rewrite(path, lambda i, row: {**row, "lat": "", "lon": ""})
    measured, findings = _measured(logs)
    assert "0 of these over a known distance" in _texts(findings, "loss_not_measured")[0]
    assert measured.tells_radio and "shared_air" not in findings.codes()


def _sent(stamps, epochs):
    empty = np.full(len(stamps), np.nan)
    stamps = np.array(stamps, float)
    return Sent(np.array(epochs), stamps, stamps, empty, empty, empty, empty, np.stack([empty] * 3, axis=1))


def _board(stamps, local_ms, hops=None):
    n = len(stamps)
    heard = Heard(np.zeros(n, int), np.array(local_ms, float), np.array(["A"] * n), np.array(stamps, float),
                  np.zeros(n, int) if hops is None else np.array(hops))  # fmt: skip
    return Board("B", _sent([], []), (np.zeros(0, int), np.zeros(0)), heard)


def test_stamps_that_come_again_after_a_reset_are_told_apart():
    sent = _sent([5000, 5100, 5200, 5300, 800, 900, 5000, 5100], [0, 0, 0, 0, 1, 1, 1, 1])
    match = match_frames(sent, _board([5000, 5200, 900, 5000], [10, 210, 9000, 13100]), "A", Findings())
    expected = [10, np.nan, 210, np.nan, np.nan, 9000, 13100, np.nan]
    assert np.array_equal(match.arrival_ms, expected, equal_nan=True)


def test_a_receiver_that_slept_through_a_reset_hears_the_second_part():
    sent = _sent([5000, 5100, 5200, 830, 930, 1030], [0, 0, 0, 1, 1, 1])
    match = match_frames(sent, _board([830, 930], [10, 110]), "A", Findings())
    assert np.array_equal(match.arrival_ms, [np.nan] * 3 + [10, 110, np.nan], equal_nan=True)
