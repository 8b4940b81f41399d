"""What a picture of a world needs beside the rules: where the policy takes the others to be, and the road.

Nothing here is read by any rule, and nothing is changed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from roadsense.convoy.core import ConvoyWorlds
from roadsense.convoy.observation import carried_on
from roadsense.traffic.base import STEP_S
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


def heard(worlds: ConvoyWorlds) -> Heard:
    """What the ego knows of the others at the present step."""
    radio = worlds.emulator.state
    known = radio.message_count > 0
    newest: dict[str, Any] = {
        name: getattr(radio, f"message_{name}")[..., 0]
        for name in ("x_m", "y_m", "speed_mps", "heading_rad", "accel_mps2", "along_x", "along_y", "hops", "arrival_s")
    }
    age = np.where(known, worlds.records["step"][:, None] * STEP_S - newest["arrival_s"], 0.0)
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
