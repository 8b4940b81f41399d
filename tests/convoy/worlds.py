"""Small hand-made worlds for tests of the rules: arrays of one world, no engine."""

import numpy as np

from roadsense.convoy.world import WORLD_DTYPE
from roadsense.traffic.base import TrafficState
from roadsense.traffic.route import RouteTable


def unseen(traffic: TrafficState) -> tuple[np.ndarray, np.ndarray]:
    """``side`` and ``reach_m`` of a world in which nothing is known about who was ahead a step ago."""
    return np.zeros(traffic.alive.shape, np.int8), np.zeros(traffic.alive.shape)


def traffic_of(*cars: tuple[float, float, float]) -> TrafficState:
    """One world with the given (position, speed, acceleration) cars, all 5 m long; the first is the ego."""
    state = TrafficState.zeros(1, max(len(cars), 2))
    for column, (position, speed, accel) in enumerate(cars):
        state.position_m[0, column] = position
        state.speed_mps[0, column] = speed
        state.accel_mps2[0, column] = accel
        state.length_m[0, column] = 5.0
        state.alive[0, column] = state.on_route[0, column] = state.transmits[0, column] = True
    return state


def one_record(**values: float) -> np.ndarray:
    """One world record with plausible constants, overridden by ``values``."""
    record = np.zeros(1, WORLD_DTYPE)
    defaults = {
        "hazard_target": -1, "onset_step": 10**9, "over_step": 10**9, "inattentive_from": 10**9,
        "attentive_from": 10**9, "driver_headway_s": 1.0, "driver_min_gap_m": 2.5, "driver_speed_factor": 1.0,
        "max_accel_mps2": 2.6, "max_speed_mps": 55.0, "leader": -1, "gap_m": np.inf,
        "follower": -1, "rear_gap_m": np.inf,
    }  # fmt: skip
    for name, value in {**defaults, **values}.items():
        record[name] = value
    return record


def straight_road(length_m: float = 1000.0, limits: tuple[tuple[float, float], ...] = ((0.0, 25.0),)) -> RouteTable:
    """A road along x with piecewise limits (from_s, limit)."""
    return RouteTable(
        index=np.zeros(1, np.int64),
        vertex_s_m=np.array([0.0, length_m]),
        vertex_x_m=np.array([0.0, length_m]),
        vertex_y_m=np.zeros(2),
        first_vertex=np.array([0, 2]),
        limit_from_s_m=np.array([start for start, _ in limits]),
        limit_mps=np.array([limit for _, limit in limits]),
        first_limit=np.array([0, len(limits)]),
        length_m=np.array([length_m]),
    )
