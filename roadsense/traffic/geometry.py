"""Where a position along a route lies: the one geometry that all engines share.

Apart from the tables themselves, because a traffic worker needs those and starts a second sooner without numba.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from roadsense.jit import kernel
from roadsense.traffic.base import TrafficState
from roadsense.traffic.route import RouteTable


@kernel
def _last_before(values: NDArray[np.float64], first: int, end: int, s: float) -> int:
    """Index in ``[first, end)`` of the last value below ``s``, or ``first`` if there is none.

    Below and not at: a car exactly at the end of a lane is still on it, as in SUMO.
    """
    low, high = first, end
    while low < high:
        middle = (low + high) // 2
        if values[middle] < s:
            low = middle + 1
        else:
            high = middle
    return max(low - 1, first)


@kernel
def _point(routes: RouteTable, route: int, s: float) -> tuple[float, float, float, float]:
    """The point at ``s``, x and y, and the direction of the road there, dx and dy (of any length)."""
    first, end = routes.first_vertex[route], routes.first_vertex[route + 1]
    left = min(_last_before(routes.vertex_s_m, first, end, s), end - 2)
    outside = s < 0.0 or s > routes.length_m[route]
    step = 1 if s < 0.0 else -1
    dx, dy, chord = 0.0, 0.0, 0.0
    while True:
        dx = routes.vertex_x_m[left + 1] - routes.vertex_x_m[left]
        dy = routes.vertex_y_m[left + 1] - routes.vertex_y_m[left]
        chord = math.sqrt(dx * dx + dy * dy)
        # Beyond its ends a road goes on as its outermost segment that has a direction.
        if chord > 0.0 or not outside or not first <= left + step < end - 1:
            break
        left += step
    if outside and chord > 0.0:
        corner = first if s < 0.0 else end - 1
        beyond = (s if s < 0.0 else s - routes.length_m[route]) / chord
        return routes.vertex_x_m[corner] + dx * beyond, routes.vertex_y_m[corner] + dy * beyond, dx, dy
    span = routes.vertex_s_m[left + 1] - routes.vertex_s_m[left]
    share = (s - routes.vertex_s_m[left]) / span if span > 0.0 else 0.0
    return routes.vertex_x_m[left] + dx * share, routes.vertex_y_m[left] + dy * share, dx, dy


@kernel
def pose(routes: RouteTable, route: int, s: float, length: float) -> tuple[float, float, float]:
    """Position and heading of a car as SUMO computes them.

    Args:
        routes: the table.
        route: which route of the table.
        s: front bumper along the route [m]; outside [0, route length] the road goes straight on.
        length: length of the car [m].

    Returns:
        x and y of the front bumper [m] and the heading [rad], counter-clockwise from east: the direction of the chord
        from the rear bumper to the front bumper, both on the road's axis.
    """
    x, y, road_x, road_y = _point(routes, route, s)
    rear_x, rear_y, _, _ = _point(routes, route, s - length)
    dx, dy = x - rear_x, y - rear_y
    if dx == 0.0 and dy == 0.0:
        dx, dy = road_x, road_y
    return x, y, math.atan2(dy, dx)


@kernel
def speed_limit(routes: RouteTable, route: int, s: float) -> float:
    """Speed limit at ``s`` [m/s]; before the route the first one holds, beyond it the last."""
    first, end = routes.first_limit[route], routes.first_limit[route + 1]
    return routes.limit_mps[_last_before(routes.limit_from_s_m, first, end, s)]


@kernel
def place(routes: RouteTable, state: TrafficState, first: int, end: int) -> None:
    """Fills x, y and heading of every car that is alive and on the route of its world; all others are left alone.

    Of the worlds ``first`` to ``end`` − 1.
    """
    cars = state.position_m.shape[1]
    for world in range(first, end):
        route = routes.index[world]
        for car in range(cars):
            if state.alive[world, car] and state.on_route[world, car]:
                x, y, heading = pose(routes, route, state.position_m[world, car], state.length_m[world, car])
                state.x_m[world, car] = x
                state.y_m[world, car] = y
                state.heading_rad[world, car] = heading
