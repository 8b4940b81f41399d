"""How the cars of the native engine move: all plan from what they see, then all drive, the one furthest ahead first."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from roadsense.jit import kernel
from roadsense.prefetch import prefetch
from roadsense.traffic.base import EGO, STEP_S
from roadsense.traffic.krauss import STANDSTILL_MPS, limit_for, next_speed
from roadsense.traffic.mersenne import WORDS, seed_stream, twist, unit_of
from roadsense.traffic.sight import CAR_DTYPE, find_rear, plan

POSITION_SLACK_M = 0.1
"""SUMO's POSITION_EPS: so close to its route's end a car has arrived [m]."""


_CAR_BYTES, _WORD_BYTES = CAR_DTYPE.itemsize, np.dtype(np.uint32).itemsize


class NativeArrays(NamedTuple):
    """What the engine keeps beside the state."""

    cars: NDArray[np.void]
    """[world, car] of ``CAR_DTYPE``."""
    order: NDArray[np.int64]
    """[world, car], columns of the cars on the road, the one furthest ahead first."""
    num_cars: NDArray[np.int64]
    """[world], how many they are."""
    dawdles: NDArray[np.bool_]
    """[world], whether any driver does; without, nobody draws."""
    seeds: NDArray[np.uint32]
    """[world], of SUMO."""
    streams: NDArray[np.uint32]
    """[world, car, 624], generators of the lanes in use: never more than cars."""
    stream_lane: NDArray[np.int64]
    """[world, car], the lane that each belongs to, -1: none."""
    route: NDArray[np.int64]
    """[world], which route it drives."""
    drawn: NDArray[np.int64]
    """[world, lane of its route], how many numbers were drawn on it."""

    @classmethod
    def zeros(cls, num_worlds: int, max_cars: int, max_lanes: int) -> NativeArrays:
        shape = (num_worlds, max_cars)
        return cls(
            np.zeros(shape, CAR_DTYPE), np.zeros(shape, np.int64), np.zeros(num_worlds, np.int64),
            np.zeros(num_worlds, np.bool_), np.zeros(num_worlds, np.uint32), np.zeros((*shape, WORDS), np.uint32),
            np.full(shape, -1), np.zeros(num_worlds, np.int64), np.zeros((num_worlds, max_lanes), np.int64),
        )  # fmt: skip


@kernel
def cars_on(arrays, w, lane):
    """How many cars have their front on a lane."""
    number = 0
    for place in range(arrays.num_cars[w]):
        number += arrays.cars[w, arrays.order[w, place]].lane == lane
    return number


@kernel
def stream_of(arrays, w, lane, lanes):
    """Which of the world's generators is at the lane's state; takes one from a lane that nobody drives on if need be.

    A lane whose generator was taken gets it back by drawing again what it has drawn.
    """
    free = 0
    for slot in range(arrays.stream_lane.shape[1]):
        if arrays.stream_lane[w, slot] == lane:
            return slot
        if arrays.stream_lane[w, slot] < 0 or cars_on(arrays, w, arrays.stream_lane[w, slot]) == 0:
            free = slot
    arrays.stream_lane[w, free] = lane
    seed_stream(arrays.streams[w, free], arrays.seeds[w] + np.uint32(lanes.stream[lane]))
    drawn = arrays.drawn[w, lane - lanes.first[arrays.route[w]]]
    for _ in range(math.ceil(drawn / WORDS)):
        twist(arrays.streams[w, free])
    return free


@kernel
def draw(arrays, w, lane, lanes):
    """The next number in [0, 1) of a lane's generator."""
    words = arrays.streams[w, stream_of(arrays, w, lane, lanes)]
    here = lane - lanes.first[arrays.route[w]]
    place = arrays.drawn[w, here] % WORDS
    if place == 0:
        twist(words)
    arrays.drawn[w, here] += 1
    return unit_of(words, place)


@kernel
def roll(car, lanes, speed):
    """Moves a car by a step, over the ends of lanes; returns whether it is still on the road."""
    car.lane_position_m += speed * STEP_S
    while car.lane_position_m > lanes.length_m[car.lane] and car.lane < car.last_lane:
        car.lane_position_m -= lanes.length_m[car.lane]
        car.lane += 1
    if car.lane == car.last_lane and car.lane_position_m > lanes.length_m[car.lane] - POSITION_SLACK_M:
        return False
    find_rear(car, lanes)
    return True


@kernel
def sort_cars(cars, order, count):
    """Puts the car furthest ahead first; on one lane the order seldom changes."""
    for place in range(1, count):
        column = order[place]
        car = cars[column]
        before = place
        while before > 0:
            other = cars[order[before - 1]]
            if other.lane > car.lane or (other.lane == car.lane and other.lane_position_m >= car.lane_position_m):
                break
            order[before] = order[before - 1]
            before -= 1
        order[before] = column


@kernel
def begin_world(arrays, lanes, state, w, seed, route, cars, speeds, transmits, dawdles):
    """Puts a world to t = 0.

    Args:
        arrays, lanes, state: of all worlds, written.
        w: which one.
        seed: of SUMO.
        route: row of the route that it drives.
        cars: [car] of ``CAR_DTYPE``, their lanes counted from the first of the route.
        speeds: [car] [m/s].
        transmits: [car], whether it carries a radio.
        dawdles: whether any driver does.
    """
    arrays.dawdles[w], arrays.seeds[w], arrays.route[w] = dawdles, seed, route
    count = cars.shape[0]
    for column in range(state.alive.shape[1]):
        remove(arrays, state, w, column)
    for column in range(count):
        arrays.cars[w, column] = cars[column]
        car = arrays.cars[w, column]
        car.lane += lanes.first[route]
        car.last_lane += lanes.first[route]
        find_rear(car, lanes)
        arrays.order[w, column] = column
        state.speed_mps[w, column], state.length_m[w, column] = speeds[column], car.length_m
        state.alive[w, column], state.on_route[w, column] = True, True
        state.transmits[w, column], state.leaves_m[w, column] = transmits[column], -math.inf
    arrays.num_cars[w] = count
    sort_cars(arrays.cars[w], arrays.order[w], count)
    arrays.stream_lane[w] = -1
    arrays.drawn[w] = 0
    for place in range(count):
        column = arrays.order[w, place]
        car = arrays.cars[w, column]
        state.position_m[w, column] = lanes.from_m[car.lane] + car.lane_position_m


@kernel
def remove(arrays, state, w, column):
    """Takes a car that arrived out of the state."""
    state.position_m[w, column], state.speed_mps[w, column], state.accel_mps2[w, column] = 0.0, 0.0, 0.0
    state.length_m[w, column], state.leaves_m[w, column] = 0.0, 0.0
    state.alive[w, column], state.on_route[w, column], state.transmits[w, column] = False, False, False
    state.x_m[w, column], state.y_m[w, column], state.heading_rad[w, column] = 0.0, 0.0, 0.0


@kernel
def advance_worlds(arrays, lanes, state, next_speeds, steered, active):
    """Moves the ``active`` worlds by a step: all plan from what they see, then all drive."""
    for w in range(active.shape[0]):
        if not active[w]:
            continue
        if w + 1 < active.shape[0]:
            prefetch(arrays.cars, w + 1, 0, arrays.cars.shape[1] * _CAR_BYTES)
            prefetch(arrays.streams, w + 1, arrays.drawn[w + 1, 0] % WORDS * _WORD_BYTES, 1)
        cars, order, count = arrays.cars[w], arrays.order[w], arrays.num_cars[w]
        for place in range(count):
            plan(cars, order, place, lanes, state.speed_mps[w])
        left = 0
        for place in range(count):
            column = order[place]
            car = cars[column]
            speed = state.speed_mps[w, column]
            random = draw(arrays, w, car.lane, lanes) if arrays.dawdles[w] else 0.0
            if column == EGO and steered[w, column]:
                now = next_speeds[w, column]
            elif steered[w, column]:
                now = min(next_speeds[w, column], car.safe_mps)
            else:
                now = next_speed(car, speed, car.safe_mps, limit_for(car, lanes.limit_mps[car.lane]), random)
                if now < STANDSTILL_MPS:
                    now = 0.0
            state.speed_mps[w, column] = now
            state.accel_mps2[w, column] = (now - speed) / STEP_S
            if roll(car, lanes, now):
                state.position_m[w, column] = lanes.from_m[car.lane] + car.lane_position_m
                order[left] = column
                left += 1
            else:
                remove(arrays, state, w, column)
        arrays.num_cars[w] = left
        sort_cars(cars, order, left)
