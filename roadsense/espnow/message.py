"""The message that a board broadcasts: 90 bytes, little-endian, packed.

Coordinates are float32 on the wire, and the next number after 50° is 0.42 m further north: what a receiver knows of a
position is never finer than that.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, fields
from typing import Any

from roadsense.errors import RoadsenseError

VERSION = 1
"""The layout that is written and read."""

MAX_HOPS = 3
"""A message that was relayed more often is not ours."""

_LAYOUT = struct.Struct("<B8sI 7f 9f BB f B 6s")
MESSAGE_BYTES = _LAYOUT.size
_ID_BYTES, _MAC_BYTES = 8, 6


class MessageError(RoadsenseError):
    """Bytes are not a message, or a message states something impossible; says all of it."""


@dataclass(frozen=True, kw_only=True)
class V2VMessage:
    """State of a sender at its last tick before sending."""

    version: int = VERSION
    vehicle_id: str
    """1 to 8 printable ASCII characters."""
    timestamp_ms: int
    """Of the sender's own clock, which wraps after 49.7 days and agrees with nobody else's."""
    latitude_deg: float
    longitude_deg: float
    altitude_m: float
    speed_mps: float
    heading_deg: float
    """Clockwise from north, 0 up to but not 360."""
    longitudinal_accel_mps2: float
    lateral_accel_mps2: float
    accel_mps2: tuple[float, float, float]
    """Of the sensor's axes."""
    gyro_radps: tuple[float, float, float]
    mag_ut: tuple[float, float, float]
    """Magnetic field [µT]."""
    risk_level: int
    scenario_type: int
    confidence: float
    hop_count: int
    """Relays it went through."""
    source_mac: bytes
    """Of the board that sent it first."""


_BOUNDS: dict[str, tuple[float, float]] = {
    "version": (VERSION, VERSION),
    "timestamp_ms": (0, 2**32 - 1),
    "latitude_deg": (-90.0, 90.0),
    "longitude_deg": (-180.0, 180.0),
    "altitude_m": (-500.0, 10_000.0),
    "speed_mps": (0.0, 120.0),
    "heading_deg": (0.0, math.nextafter(360.0, 0.0)),
    "longitudinal_accel_mps2": (-160.0, 160.0),  # sensors of such boards end at 16 g
    "lateral_accel_mps2": (-160.0, 160.0),
    "accel_mps2": (-160.0, 160.0),
    "gyro_radps": (-35.0, 35.0),  # and at 2000 degrees a second
    "mag_ut": (-5000.0, 5000.0),
    "risk_level": (0, 255),
    "scenario_type": (0, 255),
    "confidence": (0.0, 1.0),
    "hop_count": (0, MAX_HOPS),
}
"""What each number may be; outside of it no car can have meant it."""


def problems(message: V2VMessage) -> list[str]:
    """What is impossible in a message, one phrase each."""
    found = []
    for name, (low, high) in _BOUNDS.items():
        stated: Any = getattr(message, name)
        for value in stated if isinstance(stated, tuple) else (stated,):
            if not low <= value <= high:  # neither is NaN
                found.append(f"{name} is {value:g}, outside of {low:g} to {high:g}")
    if not (message.vehicle_id.isascii() and message.vehicle_id.isprintable()):
        found.append(f"vehicle_id is {message.vehicle_id!r}, not printable ASCII")
    if not 1 <= len(message.vehicle_id) <= _ID_BYTES:
        found.append(f"vehicle_id has {len(message.vehicle_id)} characters, not 1 to {_ID_BYTES}")
    if len(message.source_mac) != _MAC_BYTES:
        found.append(f"source_mac has {len(message.source_mac)} bytes, not {_MAC_BYTES}")
    for name in ("accel_mps2", "gyro_radps", "mag_ut"):
        if len(getattr(message, name)) != 3:
            found.append(f"{name} has {len(getattr(message, name))} axes, not 3")
    return found


def _refuse(found: list[str]) -> None:
    if found:
        raise MessageError(f"not a usable message: {'; '.join(found)}.")


def encode(message: V2VMessage) -> bytes:
    """The bytes of a message.

    Raises:
        MessageError: it states something impossible.
    """
    _refuse(problems(message))
    values: list[Any] = []
    for field in fields(message):
        value = getattr(message, field.name)
        values += value if isinstance(value, tuple) else [value]
    values[1] = message.vehicle_id.encode("ascii")
    return _LAYOUT.pack(*values)


def decode(data: bytes) -> V2VMessage:
    """The message in 90 bytes.

    Raises:
        MessageError: the length or the version is another one, or it states something impossible (NaN included).
    """
    if len(data) != MESSAGE_BYTES:
        raise MessageError(f"not a usable message: {len(data)} bytes, not {MESSAGE_BYTES}.")
    if data[0] != VERSION:
        raise MessageError(f"not a usable message: layout version {data[0]}, this one reads {VERSION}.")
    raw = _LAYOUT.unpack(data)
    text, _, rest = raw[1].partition(b"\0")
    if rest.strip(b"\0"):
        raise MessageError("not a usable message: vehicle_id goes on after its end.")
    message = V2VMessage(
        vehicle_id=text.decode("latin-1"), timestamp_ms=raw[2],
        latitude_deg=raw[3], longitude_deg=raw[4], altitude_m=raw[5], speed_mps=raw[6], heading_deg=raw[7],
        longitudinal_accel_mps2=raw[8], lateral_accel_mps2=raw[9],
        accel_mps2=raw[10:13], gyro_radps=raw[13:16], mag_ut=raw[16:19],
        risk_level=raw[19], scenario_type=raw[20], confidence=raw[21], hop_count=raw[22], source_mac=raw[23],
    )  # fmt: skip
    _refuse(problems(message))
    return message
