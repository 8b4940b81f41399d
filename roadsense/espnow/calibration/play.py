"""A drive of boards, played by the emulator, with what became of every frame at every board."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from roadsense.espnow.clock import STEP_S
from roadsense.espnow.emulator import Emulator
from roadsense.espnow.params import RadioParams
from roadsense.espnow.state import FRAME_DTYPE, TICKS_PER_STEP

BEACON_DTYPE = np.dtype(
    [
        ("car", np.int32),
        ("generation", np.int64),
        ("sent_s", np.float64),
        ("timestamp_ms", np.int64),  # by the sender's own clock
        ("x_m", np.float64),
        ("y_m", np.float64),
        ("speed_mps", np.float64),
        ("heading_rad", np.float64),
        ("accel_mps2", np.float64),
    ]
)
"""What one beacon told."""


@dataclass(frozen=True, kw_only=True)
class Motion:
    """Where the cars of a drive truly are, [step, car] each; steps of 0.1 s, the first is t = 0."""

    x_m: NDArray[np.float64]
    y_m: NDArray[np.float64]
    speed_mps: NDArray[np.float64]
    accel_mps2: NDArray[np.float64]
    heading_rad: NDArray[np.float64]
    """Counter-clockwise from east."""

    @classmethod
    def straight(cls, ahead_m: NDArray[np.float64], speed_mps: float, steps: int) -> Motion:
        """Cars one behind the other that keep their speed, eastward; ``ahead_m`` is [car], from the first."""
        time_s = STEP_S * np.arange(steps)[:, None]
        zero = np.zeros((steps, len(ahead_m)))
        return cls(
            x_m=ahead_m[None, :] + speed_mps * time_s, y_m=zero, speed_mps=np.full_like(zero, speed_mps),
            accel_mps2=zero, heading_rad=zero,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Played:
    """What was sent in a drive, and what became of it."""

    frames: NDArray[np.void]
    """[n] of ``FRAME_DTYPE``, in the order of sending: one row for every frame and every car that listened."""
    beacons: NDArray[np.void]
    """[n] of ``BEACON_DTYPE``, in the order of sending."""
    clock_s: NDArray[np.float64]
    """[car], what each car's own clock shows at t = 0."""
    clock_rate: NDArray[np.float64]
    """[car], seconds that it counts in a second."""

    def local_ms(self, car: int, t_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """A time by a car's own clock."""
        return np.asarray(1000.0 * (self.clock_s[car] + self.clock_rate[car] * np.asarray(t_s)))


def play(params: RadioParams, seed: int, motion: Motion, transmits: NDArray[np.bool_] | None = None) -> Played:
    """Plays a drive.

    Args:
        params: of the radio.
        seed: of the episode.
        motion: of the cars.
        transmits: [car], which of them have a radio; all, if not given.
    """
    steps, cars = motion.x_m.shape
    emulator = Emulator(1, cars, max_frames=cars * TICKS_PER_STEP * cars * cars)
    emulator.reset(0, seed, params)
    state, alive = emulator.state, np.ones((1, cars), np.bool_)
    radios = alive if transmits is None else transmits[None]
    frames: list[NDArray[np.void]] = []
    beacons: list[NDArray[np.void]] = []
    for step in range(steps):
        emulator.step(
            np.array([step]), motion.x_m[step : step + 1], motion.y_m[step : step + 1],
            motion.speed_mps[step : step + 1], motion.accel_mps2[step : step + 1],
            motion.heading_rad[step : step + 1], alive, radios,
        )  # fmt: skip
        frames.append(state.frames[: state.frame_count[0]].copy())
        beacons += _told(emulator, frames[-1])
    return Played(
        frames=np.concatenate(frames) if frames else np.zeros(0, FRAME_DTYPE),
        beacons=np.concatenate(beacons) if beacons else np.zeros(0, BEACON_DTYPE),
        clock_s=state.cars["clock_s"][0].copy(), clock_rate=state.cars["clock_rate"][0].copy(),
    )  # fmt: skip


def _told(emulator: Emulator, frames: NDArray[np.void]) -> Iterator[NDArray[np.void]]:
    """What the beacons among the frames of a step told."""
    own = frames[frames["sender"] == frames["source"]]
    _, first = np.unique(own[["sender", "generation"]], return_index=True)
    for frame in own[np.sort(first)]:
        message = emulator.state.message_of(0, frame["sender"], frame["generation"])
        row = np.zeros(1, BEACON_DTYPE)
        row["car"] = frame["sender"]
        for name in BEACON_DTYPE.names or ():
            if name != "car":
                row[name] = message[name]
        yield row
