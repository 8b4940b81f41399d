"""What a car of the native engine sees ahead, lane by lane as SUMO looks, and the speed that this allows it."""

from __future__ import annotations

import numpy as np

from roadsense.jit import kernel
from roadsense.traffic.base import STEP_S
from roadsense.traffic.krauss import (
    EPSILON,
    LAW_DTYPE,
    STANDSTILL_MPS,
    brake_gap,
    fastest_next,
    free_speed,
    limit_for,
    safe_follow_speed,
    slowest_next,
)

LOOK_AHEAD_LENGTHS = 5.0
"""A car looks over junctions at least this many lengths of its own ahead."""

CAR_DTYPE = np.dtype(
    [
        *((name, LAW_DTYPE[name]) for name in LAW_DTYPE.names or ()),
        ("last_lane", np.int64),  # of its route; lanes are rows of the lane table
        ("lane", np.int64),  # on which its front bumper stands
        ("lane_position_m", np.float64),
        ("rear_lane", np.int64),
        ("safe_mps", np.float64),  # highest speed that the cars and limits ahead allow
    ],
    align=True,
)
"""A car: its law, where it stands, and what it plans."""


@kernel
def find_rear(car, lanes):
    """Notes the lane on which a car's rear bumper stands."""
    left_m = car.length_m - car.lane_position_m
    lane = car.lane
    while left_m > 0.0 and not lanes.is_first[lane]:
        lane -= 1
        left_m -= lanes.length_m[lane]
    car.rear_lane = lane


@kernel
def back_on(car, lanes, lane):
    """Position of a car's rear bumper on ``lane`` [m], which lies between its rear lane and its own."""
    if lane == car.lane:
        return car.lane_position_m - car.length_m
    left_m = car.length_m - car.lane_position_m
    at = car.lane
    while at > lane:
        at -= 1
        left_m -= lanes.length_m[at]
    return -left_m


@kernel
def sight(car, fastest):
    """How far ahead a car looks [m] that may be as fast as ``fastest`` [m/s] at the end of the step."""
    return fastest * STEP_S + brake_gap(fastest, car.decel_mps2, car.tau_s)


@kernel
def plan(cars, order, place, lanes, speeds):
    """Writes the highest speed that the cars and limits ahead allow a car.

    Args:
        cars: [car] of ``CAR_DTYPE``.
        order: [car] columns, the one furthest ahead first.
        place: of the car in ``order``.
        lanes: table of all lanes.
        speeds: [car] [m/s].
    """
    car = cars[order[place]]
    speed = speeds[order[place]]
    most, gentle = fastest_next(car, speed), slowest_next(car, speed)
    lane = car.lane
    limit = max(limit_for(car, lanes.limit_mps[lane]), gentle)
    v = min(most, limit)
    seen_m = lanes.length_m[lane] - car.lane_position_m
    beyond_junctions_m = 0.0  # of lanes after its own
    ahead = place - 1
    while True:
        while ahead >= 0 and cars[order[ahead]].lane < lane:
            ahead -= 1
        if ahead >= 0 and cars[order[ahead]].rear_lane <= lane:
            lead = cars[order[ahead]]
            back_m = back_on(lead, lanes, lane)
            if lane == car.lane:
                gap_m = back_m - car.lane_position_m - car.min_gap_m
            else:
                gap_m = back_m + seen_m - lanes.length_m[lane] - car.min_gap_m
            v = min(v, safe_follow_speed(car, gap_m, speed, speeds[order[ahead]], lead.apparent_decel_mps2))
        if lane == car.last_lane:
            if v > limit:  # the speed toward a limit is never lower than the limit
                length_m = lanes.length_m[lane]
                left_m = seen_m + length_m - length_m - limit * STEP_S  # to the last bit: not seen_m alone
                v = min(v, max(EPSILON, free_speed(left_m, limit, car.decel_mps2)))
            break
        if v <= STANDSTILL_MPS:
            break
        if beyond_junctions_m > LOOK_AHEAD_LENGTHS * car.length_m and seen_m > sight(car, most):
            break
        lane += 1
        limit = limit_for(car, lanes.limit_mps[lane])
        if v > limit:
            v = min(v, max(free_speed(seen_m, limit, car.decel_mps2), gentle - EPSILON))
        seen_m += lanes.length_m[lane]
        if not lanes.is_internal[lane]:
            beyond_junctions_m += lanes.length_m[lane]
    car.safe_mps = v
