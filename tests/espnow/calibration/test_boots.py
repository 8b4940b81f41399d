"""A board's two files need not have seen the same resets of its clock."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from roadsense.espnow.calibration.findings import Findings
from roadsense.espnow.calibration.logs import read_logs
from roadsense.espnow.calibration.measure import measure
from tests.espnow.calibration.test_logs import ASKED


def _measured(folder):
    findings = Findings()
    return measure(read_logs((folder,), findings), ASKED, findings), findings


@pytest.mark.parametrize("earlier_ms", [-700_000, 3050], ids=["other times", "the same times again"])
def test_a_boot_before_the_drive_in_which_nobody_was_heard(short_drive, tmp_path, earlier_ms):
    """The TX file has two boots, the RX file the second one only."""
    plain, _ = _measured(short_drive.folder)
    folder = shutil.copytree(short_drive.folder, tmp_path / "logs")
    path = folder / "V003_tx.csv"
    head, *body = path.read_text().splitlines()
    begin_ms, _, rest = body[0].split(",", 2)
    first_ms = int(begin_ms) - earlier_ms
    alone = [f"{first_ms + 100 * i},{first_ms + 100 * i},{rest}" for i in range(1750)]
    path.write_text("\n".join([head, *alone, *body]))
    measured, findings = _measured(folder)
    assert {code for code in findings.codes() if code != "relayed_rows"} == {"clock_reset"}
    assert [step.loss for step in measured.steps] == [step.loss for step in plain.steps]
    assert len(measured.clocks) == len(plain.clocks) and all(clock.two_way for clock in measured.clocks.values())


def test_an_rx_file_that_was_opened_after_a_reset(short_drive, tmp_path):
    plain, _ = _measured(short_drive.folder)
    folder = shutil.copytree(short_drive.folder, tmp_path / "logs")
    tx = folder / "V003_tx.csv"
    boot_ms = int(tx.read_text().splitlines()[800].split(",")[0])

    def rewritten(path, keeps_first):
        head, *body = path.read_text().splitlines()
        found = []
        for line in body:
            local, stamp, who, rest = line.split(",", 3)
            if path.name.startswith("V003") and int(local) >= boot_ms:
                local = str(int(local) - boot_ms + 800)
            elif path.name.startswith("V003") and not keeps_first:
                continue
            if who == "V003" and int(stamp) >= boot_ms:
                stamp = str(int(stamp) - boot_ms + 800)
            found.append(",".join([local, stamp, who, rest]))
        path.write_text("\n".join([head, *found]))

    for path in folder.glob("*.csv"):
        rewritten(path, keeps_first=path.name != "V003_rx.csv")
    measured, findings = _measured(folder)
    assert "no_overlap" not in findings.codes()
    assert {link.name for link in measured.links} == {link.name for link in plain.links}
    assert measured.clocks["V001", "V003", 0, 1].two_way
    for step, reference in zip(measured.steps, plain.steps, strict=True):
        if reference.loss is not None:
            assert step.loss.value == pytest.approx(reference.loss.value, abs=0.02)
            assert np.isfinite(step.loss.value)


def test_an_rx_file_whose_clock_agrees_with_no_part_of_the_tx_file_tells_no_distances(short_drive, tmp_path):
    """Or its receptions would count at places where the board was at another time."""
    plain, _ = _measured(short_drive.folder)
    folder = shutil.copytree(short_drive.folder, tmp_path / "logs")
    path = folder / "V003_rx.csv"
    head, *body = path.read_text().splitlines()
    cells = [line.split(",", 1) for line in body]
    path.write_text(
        "\n".join([head, *(f"{int(local) - 60_000 * (i > 2000)},{rest}" for i, (local, rest) in enumerate(cells))])
    )
    measured, findings = _measured(folder)
    assert "clock_reset" in findings.codes()
    for step, reference in zip(measured.steps, plain.steps, strict=True):
        assert (step.loss is None) or step.loss.value == pytest.approx(reference.loss.value, abs=0.03)
