"""The drive that several tests look at, played and written once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from roadsense.espnow.play import Played
from tests.espnow.calibration.boards import NONE, Faults, play_drive, true_params, write_logs

SEED = 2026


@dataclass(frozen=True)
class Drive:
    folder: Path
    played: Played
    faults: Faults


@pytest.fixture(scope="session")
def field_drive(tmp_path_factory) -> Drive:
    """Twenty minutes of three boards with everything that goes wrong in the field."""
    faults = Faults()
    folder = tmp_path_factory.mktemp("field")
    played = play_drive(true_params(), SEED, faults)
    write_logs(folder, played, faults)
    return Drive(folder, played, faults)


SHORT = ((70.0, 0.0, 11.0, 31.0), (110.0, 14.0, 35.0, 38.0))


@pytest.fixture(scope="session")
def short_drive(tmp_path_factory) -> Drive:
    """Three minutes in which nothing goes wrong; tests copy the files and spoil them."""
    folder = tmp_path_factory.mktemp("short")
    played = play_drive(true_params(), SEED, NONE, SHORT)
    write_logs(folder, played, NONE)
    return Drive(folder, played, NONE)
