"""What a picture of a world needs beside the rules: where the policy takes the others to be, and the road.

Nothing here is read by any rule, and nothing is changed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from roadsense.convoy.core import ConvoyWorlds
from roadsense.convoy.observation import carried_on
from roadsense.traffic.base import EGO, STEP_S
from roadsense.traffic.route import RouteTable


class Heard(NamedTuple):
    """What the newest message of each car says, [world, car]; NaN where none is in the ego's table."""

    x_m: NDArray[np.float64]
    """Position as it was reported, carried on for the age of the message: what the policy is told."""
    y_m: NDArray[np.float64]
    heading_rad: NDArray[np.float64]
    speed_mps: NDArray[np.float64]
    accel_mps2: NDArray[np.float64]
    age_s: NDArray[np.float64]
    """Time since it arrived."""
    hops: NDArray[np.float64]
    """Relays it went through."""


def heard(worlds: ConvoyWorlds, chosen: slice | NDArray[np.intp]) -> Heard:
    """What the egos of the chosen worlds know of the others at the present step."""
    radio = worlds.emulator.state
    known = radio.message_count[chosen] > 0
    newest: dict[str, Any] = {
        name: getattr(radio, f"message_{name}")[chosen, :, 0]
        for name in ("x_m", "y_m", "speed_mps", "heading_rad", "accel_mps2", "along_x", "along_y", "hops", "arrival_s")
    }
    age = np.where(known, worlds.records["step"][chosen, None] * STEP_S - newest["arrival_s"], 0.0)
    carry = carried_on.py_func  # type: ignore[attr-defined]
    found = Heard(
        carry(newest["x_m"], newest["speed_mps"] * age, newest["along_x"]),
        carry(newest["y_m"], newest["speed_mps"] * age, newest["along_y"]),
        newest["heading_rad"], newest["speed_mps"], newest["accel_mps2"], age, newest["hops"],
    )  # fmt: skip
    return Heard(*(np.where(known, values, np.nan) for values in found))


def road(routes: RouteTable, world: int) -> NDArray[np.float64]:
    """Axis of the road that a world's ego drives, [vertex, 2], network coordinates [m]."""
    route = routes.index[world]
    vertices = slice(routes.first_vertex[route], routes.first_vertex[route + 1])
    return np.column_stack([routes.vertex_x_m[vertices], routes.vertex_y_m[vertices]])


MAX_FRAMES = 16_384
"""Frames of one step that are kept at most: more than 60 cars that all relay send."""


class Picture(NamedTuple):
    """What a trace of T steps with C cars needs beside the rest to be drawn. Arrays are over time as in
    :class:`roadsense.convoy.trace.EpisodeTrace`.
    """

    names: tuple[str, ...]
    """Of the first cars; those that a flow inserted have none."""
    x_m: NDArray[np.float64]
    """[T+1, C], front bumper, network coordinates."""
    y_m: NDArray[np.float64]
    heading_rad: NDArray[np.float64]
    """[T+1, C], counter-clockwise from east."""
    transmits: NDArray[np.bool_]
    """[T+1, C]"""
    own_x_m: NDArray[np.float64]
    """[T+1], V001's estimate of itself; likewise the next four."""
    own_y_m: NDArray[np.float64]
    own_heading_rad: NDArray[np.float64]
    own_speed_mps: NDArray[np.float64]
    own_accel_mps2: NDArray[np.float64]
    heard: Heard
    """[T+1, C] each."""
    road: NDArray[np.float64]
    """[vertex, 2], see :func:`road`."""
    frames: NDArray[np.void]
    """[n] of ``FRAME_DTYPE``: what became of every frame after t = 0 at every car, in the order they were sent."""
    frames_left_out: int
    """Frames that there was no room for."""


_TRUTH = ("x_m", "y_m", "heading_rad", "transmits")
_OWN = ("x_m", "y_m", "heading_rad", "speed_mps", "accel_mps2")


class PictureRecorder:
    """Records what pictures of the worlds of a batch need; they must keep frames (``WorldsConfig.max_frames``)."""

    def __init__(self, worlds: ConvoyWorlds) -> None:
        self._worlds = worlds
        steps, num, cars = worlds.config.horizon_steps + 1, worlds.num_worlds, worlds.config.max_peers + 1
        self._over_time: dict[str, NDArray[Any]] = {
            **{name: np.zeros((num, steps, cars), getattr(worlds.traffic.state, name).dtype) for name in _TRUTH},
            **{f"own_{name}": np.zeros((num, steps)) for name in _OWN},
        }
        self._heard = Heard(*(np.zeros((num, steps, cars)) for _ in Heard._fields))
        self._frames: list[list[NDArray[np.void]]] = [[] for _ in range(num)]
        self._left_out = np.zeros(num, np.int64)

    def begin(self, rows: NDArray[np.intp]) -> None:
        """Starts anew in worlds that were just reset."""
        for world in rows:
            self._frames[world] = []
        self._left_out[rows] = 0
        self._write(rows)

    def record(self, rows: NDArray[np.intp]) -> None:
        """Stores the step that the worlds just took."""
        radio = self._worlds.emulator.arrays
        kept = radio.frames[: int(radio.frame_count[0])].copy()
        self._left_out[rows] += int(radio.frame_count[0]) - len(kept)
        for world in rows:
            self._frames[world].append(kept[kept["world"] == world])
        self._write(rows)

    def _write(self, rows: NDArray[np.intp]) -> None:
        worlds, step = self._worlds, self._worlds.records["step"][rows]
        for name in _TRUTH:
            self._over_time[name][rows, step] = getattr(worlds.traffic.state, name)[rows]
        for name in _OWN:
            self._over_time[f"own_{name}"][rows, step] = getattr(worlds.emulator.state, f"reading_{name}")[rows, EGO]
        for kept, now in zip(self._heard, heard(worlds, rows), strict=True):
            kept[rows, step] = now

    def picture(self, world: int) -> Picture:
        """What was recorded of a world's episode so far, copied."""
        scenario, until = self._worlds.scenarios[world], int(self._worlds.records["step"][world]) + 1
        assert scenario is not None, "a picture begins with a reset"
        none = np.zeros(0, self._worlds.emulator.arrays.frames.dtype)
        frames = np.concatenate([none, *self._frames[world]])
        return Picture(
            names=tuple(vehicle.id for vehicle in scenario.vehicles),
            heard=Heard(*(values[world, :until].copy() for values in self._heard)),
            road=road(self._worlds.traffic.routes, world),
            frames=frames[np.argsort(frames["sent_s"], kind="stable")],
            frames_left_out=int(self._left_out[world]),
            **{name: values[world, :until].copy() for name, values in self._over_time.items()},
        )
