"""Whether a board's columns mean what their names say: swapped axes are found by physics and put right, or left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from roadsense.espnow.calibration.findings import Findings
from roadsense.espnow.calibration.places import EARTH_M as EARTH_M
from roadsense.espnow.calibration.places import only_possible
from roadsense.espnow.calibration.recording import beacon_interval_ms
from roadsense.espnow.calibration.records import Board, Floats, Sent

_APART_S = 2.0  # in which a moving car leaves the error of its position behind
_UNITS = {"km/h": 3.6, "mph": 3600.0 / 1609.344, "knots": 3600.0 / 1852.0}
_SAME_UNIT = 0.07
_MOVING_MPS = 3.0
_GRAVITY_MPS2 = 7.0
_ONE_G_MPS2, _OF_ONE_G = 9.80665, 0.1
_FEWEST = 50


def put_right(board: Board, findings: Findings) -> Board:
    """A board with latitude and longitude, speed and forward acceleration where they belong; says what was not."""
    sent = only_possible(board.name, _the_right_way_round(board.name, board.sent, findings), findings)
    sent = _speed(board.name, _heading(board.name, sent, findings), findings)
    return replace(board, sent=_accelerations(board.name, sent, findings))


def _stride(sent: Sent) -> int:
    """Rows from one to another two seconds later; at least one."""
    return max(1, round(1000.0 * _APART_S / beacon_interval_ms([sent.stamp_ms])))


def _moves(sent: Sent, lat: Floats, lon: Floats) -> tuple[Floats, Floats, Floats]:
    """Moves between rows two seconds apart, of a car that kept moving: northward, eastward [m], time [s]."""
    stride = _stride(sent)
    later = slice(stride, None)
    time_s = (sent.local_ms[later] - sent.local_ms[:-stride]) / 1000.0
    north = np.radians(lat[later] - lat[:-stride]) * EARTH_M
    east = np.radians(lon[later] - lon[:-stride]) * EARTH_M * np.cos(np.radians(lat[:-stride]))
    usable = np.abs(time_s - _APART_S) < 0.1 * _APART_S
    usable &= np.minimum(sent.speed_mps[later], sent.speed_mps[:-stride]) > _MOVING_MPS
    usable &= np.isfinite(north) & np.isfinite(east)
    return np.where(usable, north, np.nan), np.where(usable, east, np.nan), time_s


def _turned_away_deg(sent: Sent, lat: Floats, lon: Floats) -> float:
    """Median angle between where a car moved and where it says it headed."""
    north, east, _ = _moves(sent, lat, lon)
    away = np.degrees(np.arctan2(east, north)) - sent.heading_deg[: len(north)]
    away = np.abs((away + 180.0) % 360.0 - 180.0)
    away = away[np.isfinite(away)]
    return float(np.median(away)) if len(away) >= _FEWEST else np.nan


def _the_right_way_round(name: str, sent: Sent, findings: Findings) -> Sent:
    """Latitude and longitude, swapped if most rows say so: by a latitude that none can be, or by where the car went."""
    lat, lon = sent.lat_deg, sent.lon_deg
    known = np.isfinite(lat) & np.isfinite(lon)
    beyond = float((np.abs(lat[known]) > 90.0).mean()) if known.any() else 0.0
    as_named, swapped = _turned_away_deg(sent, lat, lon), _turned_away_deg(sent, lon, lat)
    if beyond > 0.5 or (as_named > 30.0 and swapped < 15.0):
        findings.add("swapped_lat_lon", name, "latitude and longitude are swapped; taken the other way round")
        return replace(sent, lat_deg=lon, lon_deg=lat)
    return sent


def _heading(name: str, sent: Sent, findings: Findings) -> Sent:
    away = _turned_away_deg(sent, sent.lat_deg, sent.lon_deg)
    if away > 30.0:
        findings.add("heading", name, f"moves {away:.0f}° away from its heading; check the compass")
    return sent


def _speed(name: str, sent: Sent, findings: Findings) -> Sent:
    """Speed in m/s if its factor to that of the positions is a known unit's; not used if it is another's."""
    north, east, time_s = _moves(sent, sent.lat_deg, sent.lon_deg)
    moved = np.hypot(north, east)
    known = np.isfinite(moved) & (moved > 0.0)
    if known.sum() < _FEWEST:
        return sent
    factor = float(np.median(sent.speed_mps[: len(moved)][known] * time_s[known] / moved[known]))
    for unit, times in _UNITS.items():
        if abs(factor / times - 1.0) < _SAME_UNIT:
            text = f"speed is {factor:.2f} times what positions tell, so it is in {unit}; divided by {times:.4g}"
            findings.add("speed_unit", name, text)
            return replace(sent, speed_mps=sent.speed_mps / times)
    if not 0.7 < factor < 1.4:
        text = f"speed is {factor:.2f} times what positions tell, which is no unit; its noise is not measured"
        findings.add("speed", name, text)
        return replace(sent, speed_mps=np.full_like(sent.speed_mps, np.nan))
    return sent


def _accelerations(name: str, sent: Sent, findings: Findings) -> Sent:
    """Puts the axis that is the derivative of speed first, and leaves out axes among which gravity stands wrong."""
    accel = sent.accel_mps2
    if not np.isfinite(accel).any():
        return sent
    weight = np.abs(np.nanmedian(accel, axis=0)) if np.isfinite(accel).any(axis=0).all() else np.zeros(3)
    if (
        abs(weight.max() - 1.0) < _OF_ONE_G
        and abs(float(np.nanmedian(np.linalg.norm(accel, axis=1))) - 1.0) < _OF_ONE_G
    ):
        findings.add("accel_in_g", name, "accelerations have a median of 1, so they are in g; multiplied by 9.81")
        accel, weight = accel * _ONE_G_MPS2, weight * _ONE_G_MPS2
        sent = replace(sent, accel_mps2=accel)
    if weight.max() > _GRAVITY_MPS2 and weight.argmax() != 2:
        axis = "xyz"[weight.argmax()]
        findings.add("gravity_not_on_z", name, f"gravity stands on accel_{axis}; its accelerations are not used")
        return replace(sent, accel_mps2=np.full_like(accel, np.nan))
    alike = [_likeness(sent, accel[:, axis]) for axis in (0, 1)]
    best = int(np.nanargmax(np.abs(alike))) if np.isfinite(alike).any() else 0
    if best == 1 and abs(alike[1]) > 0.5 and not abs(alike[0]) > 0.3:
        findings.add("accel_axes", name, "accel_y follows the speed, not accel_x; taken the other way round")
        return replace(sent, accel_mps2=accel[:, [1, 0, 2]] * np.sign(alike[1]))
    if alike[0] < -0.5:
        findings.add("accel_axes", name, "accel_x has the sign of braking; turned round")
        return replace(sent, accel_mps2=accel * np.array([-1.0, -1.0, 1.0]))
    return sent


def _likeness(sent: Sent, accel_mps2: Floats) -> float:
    """Correlation of an axis with the derivative of speed, both over two seconds; NaN for a car that kept its speed."""
    stride = _stride(sent)
    rows = len(accel_mps2) // stride * stride
    mean = accel_mps2[:rows].reshape(-1, stride).mean(axis=1)[1:-1]
    speed = sent.speed_mps[:rows].reshape(-1, stride).mean(axis=1)
    time_s = sent.local_ms[:rows].reshape(-1, stride).mean(axis=1) / 1000.0
    apart_s = time_s[2:] - time_s[:-2]
    known = np.isfinite(mean) & np.isfinite(speed[2:] - speed[:-2]) & (np.abs(apart_s - 4.0) < 0.4)
    gain = (speed[2:] - speed[:-2]) / np.where(known, apart_s, 1.0)
    if known.sum() < _FEWEST or np.std(gain[known]) < 0.1 or np.std(mean[known]) == 0.0:
        return np.nan
    return float(np.corrcoef(mean[known], gain[known])[0, 1])
