"""What logs hold, as arrays. Times are milliseconds of a board's own clock, which agrees with nobody else's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Sent:
    """Own frames of a board in the order of its TX file; all arrays are [frame]."""

    epoch: Ints
    """Counts the resets of the board's clock so far."""
    local_ms: Floats
    stamp_ms: Floats
    """Time in the message, of the same clock."""
    lat_deg: Floats
    lon_deg: Floats
    speed_mps: Floats
    heading_deg: Floats
    """Clockwise from north; NaN without such a column, like the next."""
    accel_mps2: Floats
    """[frame, axis]: forward, left, up; gravity included."""


@dataclass(frozen=True)
class Heard:
    """Rows of an RX file; all arrays are [row]."""

    epoch: Ints
    """Counts the resets of the receiver's clock so far."""
    local_ms: Floats
    source: NDArray[np.str_]
    """Whose message it is."""
    stamp_ms: Floats
    hops: Ints
    unreadable: tuple[tuple[int, float, float], ...] = ()
    """Epoch and times [ms] of the rows before and after some that cannot be read: whose these were is unknown."""


@dataclass(frozen=True)
class Board:
    """What one board logged."""

    name: str
    sent: Sent
    aired: tuple[Ints, Floats]
    """Epoch and local time [ms] of every frame it sent, relayed ones included."""
    heard: Heard | None


@dataclass(frozen=True)
class RoundTrips:
    """Echoes that one board asked for, in order; arrays are [request]."""

    name: str
    sent_ms: Floats
    received_ms: Floats
    """NaN where no echo came, infinite where one came at an unknown time."""
    peer: NDArray[np.str_]
    distance_m: Floats
    """NaN where it was not logged."""


@dataclass(frozen=True)
class LogSet:
    """All logs of one calibration."""

    boards: tuple[Board, ...]
    round_trips: tuple[RoundTrips, ...]
