"""A drive of boards, played by the emulator, with what became of every frame at every board."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from roadsense.espnow.clock import STEP_S
from roadsense.espnow.emulator import Emulator
from roadsense.espnow.params import RadioParams
from roadsense.espnow.state import FRAME_DTYPE, TICKS_PER_STEP

BEACON_DTYPE = np.dtype(
    [
        ("world", np.int32),
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
    """Where the cars of one or many worlds truly are, [step, world, car] each; steps of 0.1 s, the first is t = 0."""

    x_m: NDArray[np.float64]
    y_m: NDArray[np.float64]
    speed_mps: NDArray[np.float64]
    accel_mps2: NDArray[np.float64]
    heading_rad: NDArray[np.float64]
    """Counter-clockwise from east."""

    @classmethod
    def straight(cls, ahead_m: NDArray[np.float64], speed_mps: float, steps: int) -> Motion:
        """Cars that keep their speed, eastward; ``ahead_m`` is [world, car]."""
        time_s = STEP_S * np.arange(steps)[:, None, None]
        x_m = ahead_m[None] + speed_mps * time_s
        zero = np.zeros_like(x_m)
        return cls(x_m=x_m, y_m=zero, speed_mps=zero + speed_mps, accel_mps2=zero, heading_rad=zero)


@dataclass(frozen=True, kw_only=True)
class Played:
    """What was sent in a drive, and what became of it."""

    frames: NDArray[np.void]
    """[n] of ``FRAME_DTYPE``, step by step, world by world, in the order of sending: a row for every frame and every
    car that listened."""
    beacons: NDArray[np.void]
    """[n] of ``BEACON_DTYPE``, in the same order: what was told; empty unless asked for."""
    cars: NDArray[np.void]
    """[world, car] of ``CAR_DTYPE``: clocks, placement, counts at the end."""
    end_s: float
    """When the drive ended."""

    def local_ms(self, car: int, t_s: NDArray[np.float64], world: int = 0) -> NDArray[np.float64]:
        """A time by a car's own clock."""
        clock = self.cars[world, car]
        return np.asarray(1000.0 * (clock["clock_s"] + clock["clock_rate"] * np.asarray(t_s)))


def play(
    params: RadioParams,
    seeds: Sequence[int],
    motion: Motion,
    transmits: NDArray[np.bool_] | None = None,
    contents: bool = False,
) -> Played:
    """Plays a drive.

    Args:
        params: of the radio.
        seeds: [world], of the episodes.
        motion: of the cars.
        transmits: [car], which of them have a radio; all, if not given.
        contents: whether to keep what the beacons told.
    """
    steps, worlds, cars = motion.x_m.shape
    emulator = Emulator(worlds, cars, max_frames=worlds * cars * TICKS_PER_STEP * cars * cars)
    for world, seed in enumerate(seeds):
        emulator.reset(world, seed, params)
    arrays, alive = emulator.arrays, np.ones((worlds, cars), np.bool_)
    radios = alive if transmits is None else np.tile(transmits, (worlds, 1))
    frames: list[NDArray[np.void]] = [np.zeros(0, FRAME_DTYPE)]
    beacons: list[NDArray[np.void]] = [np.zeros(0, BEACON_DTYPE)]
    for step in range(steps):
        emulator.step(
            np.full(worlds, step), motion.x_m[step], motion.y_m[step], motion.speed_mps[step], motion.accel_mps2[step],
            motion.heading_rad[step], alive, radios,
        )  # fmt: skip
        frames.append(arrays.frames[: arrays.frame_count[0]].copy())
        if contents:
            beacons.append(_told(emulator, frames[-1]))
    return Played(
        frames=np.concatenate(frames), beacons=np.concatenate(beacons), cars=arrays.cars.copy(),
        end_s=(steps - 1) * STEP_S,
    )  # fmt: skip


def _told(emulator: Emulator, frames: NDArray[np.void]) -> NDArray[np.void]:
    """What the beacons among the frames of a step told."""
    own = frames[frames["sender"] == frames["source"]]
    _, first = np.unique(own[["world", "sender", "generation"]], return_index=True)
    own = own[np.sort(first)]
    messages = emulator.arrays.messages_of(own["world"], own["sender"], own["generation"])
    told = np.zeros(len(own), BEACON_DTYPE)
    told["world"], told["car"] = own["world"], own["sender"]
    for name in set(BEACON_DTYPE.names or ()) - {"world", "car"}:
        told[name] = messages[name]
    return told
