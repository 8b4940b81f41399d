"""What sensors show beside the truth, at rest and in motion, from a board's own frames.

In motion the truth is unknown, but it is smooth over 0.2 s: the second difference of three readings, a − 2b + c, has
six times the variance of white noise and next to nothing of the truth. Noise that is slower than that is not seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from roadsense.espnow.calibration.clocks import BLOCK_S
from roadsense.espnow.calibration.figures import Figure, rms
from roadsense.espnow.calibration.findings import Findings
from roadsense.espnow.calibration.records import Board, Bools, Floats, Ints, Sent
from roadsense.statistics import CONFIDENCE

FEWEST = 300
"""Readings that a figure of noise needs."""

_WINDOW_S = 5.1  # of a running mean or median
_GAP_MS, _GAP_ROWS = 1000.0, 2.5  # a pause of both more is a gap
_SMOOTH_S = 0.5  # over longer spans than that second differences hold the car's motion
_STANDS_MPS, _MOVES_MPS = 0.4, 2.0  # noise of .43 m/s, never shown negative, has a mean of .17 at rest
_SHOWS_ZERO = 0.45  # share of zeros of a speed about 0, less most of a standard deviation over 50 rows
_HELD = 0.3  # a sensor that repeats itself more often than this has new readings only now and then


@dataclass(frozen=True)
class SensorNoise:
    """Standard deviations of the white noise of one sensor; None where there was too little to measure."""

    rest: Figure | None
    motion: Figure | None

    @property
    def best(self) -> Figure | None:
        """What a driving car has; failing that, what a standing one has."""
        return self.motion or self.rest


def interval_ms(sent: Sent) -> float:
    """Usual time between two rows."""
    steps = np.diff(sent.local_ms)
    steps = steps[steps > 0.0]
    return float(np.median(steps)) if len(steps) else 100.0


def standing(sent: Sent) -> Bools:
    """Rows at which the board stood, with half a window to spare on each side."""
    from scipy.ndimage import binary_erosion, uniform_filter1d

    speed, window = np.nan_to_num(sent.speed_mps, nan=100.0), _window(sent)  # unknown is not standing
    still = uniform_filter1d(speed, window, mode="nearest") < _STANDS_MPS
    still[1:] &= np.abs(np.diff(sent.local_ms)) < max(_GAP_MS, _GAP_ROWS * interval_ms(sent))
    return np.asarray(binary_erosion(still, iterations=window // 2, border_value=0), np.bool_)


def moving(sent: Sent) -> Bools:
    """Rows at which the board moved."""
    from scipy.ndimage import median_filter

    return np.asarray(median_filter(np.nan_to_num(sent.speed_mps), _window(sent), mode="nearest") > _MOVES_MPS)


def _window(sent: Sent) -> int:
    """Rows of a window, an odd number of three or more."""
    return 2 * max(1, int(500.0 * _WINDOW_S / interval_ms(sent))) + 1


def sensor_noise(boards: Sequence[Board], findings: Findings, confidence: float = CONFIDENCE) -> dict[str, SensorNoise]:
    """Noise of speed, forward acceleration and heading, by their names in ``params.Noise``, over all boards."""
    readings = {
        "speed_mps": ("speed", "m/s", [board.sent.speed_mps for board in boards]),
        "accel_mps2": ("acceleration", "m/s²", [board.sent.accel_mps2[:, 0] for board in boards]),
        "heading_deg": ("heading", "°", [board.sent.heading_deg for board in boards]),
    }
    found = {}
    for key, (name, unit, values) in readings.items():
        rest = [_at_rest(board.sent, one, key) for board, one in zip(boards, values, strict=True)]
        motion = [_in_motion(board, one, key, findings) for board, one in zip(boards, values, strict=True)]
        at_rest = _pooled(f"{name} noise at rest", rest, 1.0, unit, confidence)
        if key == "speed_mps" and at_rest is not None:
            at_rest = replace(at_rest, note="of the readings above 0, because a speed is never shown negative")
        in_motion = _pooled(f"{name} noise in motion", motion, 1.0 / math.sqrt(6.0), unit, confidence)
        span_s = max((0.002 * interval_ms(board.sent) for board in boards), default=0.0)
        if in_motion is not None and span_s > _SMOOTH_S:
            in_motion = replace(in_motion, note=f"upper bound: over {span_s:.2g} s a car's motion is in it too")
        found[key] = SensorNoise(at_rest, in_motion)
    return found


def _pooled(
    name: str, parts: Sequence[tuple[Floats, Ints]], scale: float, unit: str, confidence: float
) -> Figure | None:
    if sum(len(errors) for errors, _ in parts) < FEWEST:
        return None
    blocks = [block + 10**9 * place for place, (_, block) in enumerate(parts)]
    _, clusters = np.unique(np.concatenate(blocks), return_inverse=True)
    return rms(name, np.concatenate([errors for errors, _ in parts]), clusters, confidence, unit, scale)


def _blocks(sent: Sent) -> Ints:
    return (sent.epoch * 1_000_000 + sent.local_ms // (1000.0 * BLOCK_S)).astype(np.int64)


def _at_rest(sent: Sent, values: Floats, key: str) -> tuple[Floats, Ints]:
    """Deviations of a standing board's readings from their mean over the stand, and their blocks."""
    still = standing(sent) & np.isfinite(values)
    block = _blocks(sent)
    if key == "speed_mps":
        above = still & (values > 0.0)
        if above.sum() < 0.3 * still.sum():
            above = still  # hardly ever anything but 0
        else:
            above &= ~_creeps(values, still, _window(sent))
        return values[above], block[above]
    errors = np.full(len(values), np.nan)
    for stand in np.split(np.arange(len(values)), np.flatnonzero(np.diff(still.astype(np.int8))) + 1):
        if still[stand[0]]:
            mean = _mean_deg(values[stand]) if key == "heading_deg" else values[stand].mean()
            errors[stand] = _wrapped(values[stand] - mean, key)
    return errors[still], block[still]


def _creeps(speed_mps: Floats, still: Bools, window: int) -> Bools:
    """Where a board that seems to stand rather creeps: noise about 0 shows 0 every other time, about more less often.

    How often says nothing of how large the others are, so leaving such rows out does not bend what they tell.
    """
    from scipy.ndimage import uniform_filter1d

    zero = speed_mps <= 0.0
    if zero[still].sum() < _SHOWS_ZERO / 2.0 * still.sum() or not still.any():
        return np.zeros(len(zero), np.bool_)  # a sensor that does not show 0 like that
    return np.asarray(uniform_filter1d(zero.astype(np.float64), window, mode="nearest") < _SHOWS_ZERO, np.bool_)


def _in_motion(board: Board, values: Floats, key: str, findings: Findings) -> tuple[Floats, Ints]:
    """Second differences of a moving board's readings, and their blocks."""
    sent = board.sent
    usable = np.flatnonzero(moving(sent) & np.isfinite(values))
    fresh = np.ones(len(usable), np.bool_)
    if len(usable) > 1:
        fresh[1:] = np.diff(values[usable]) != 0.0
    if len(usable) > FEWEST and fresh.mean() < 1.0 - _HELD:
        every = (~fresh).sum() / max(fresh.sum(), 1) + 1.0
        text = f"{key} changes only every {every:.1f} rows; noise in motion rests on changes, so it is an upper bound"
        findings.add("held_values", board.name, text)
        usable = usable[fresh]
    if len(usable) < 3:
        return np.zeros(0), np.zeros(0, np.int64)
    a, b, c = usable[:-2], usable[1:-1], usable[2:]
    step_ms = np.median(np.diff(sent.local_ms[usable]))
    together = (sent.local_ms[c] - sent.local_ms[a] < 2.5 * step_ms) & (sent.epoch[a] == sent.epoch[c])
    difference = _wrapped(_wrapped(values[c] - values[b], key) - _wrapped(values[b] - values[a], key), key)
    return difference[together], _blocks(sent)[b[together]]


def _wrapped(values: Floats, key: str) -> Floats:
    return (values + 180.0) % 360.0 - 180.0 if key == "heading_deg" else values


def _mean_deg(values: Floats) -> float:
    radians = np.radians(values)
    return math.degrees(math.atan2(np.sin(radians).mean(), np.cos(radians).mean()))
