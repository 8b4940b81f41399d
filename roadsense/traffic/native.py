"""The native engine: SUMO's car following on one lane, to the bit, for any number of worlds in one kernel call.

It drives what it can express and refuses everything else by name. What it knows of SUMO beyond the car-following law:
cars see those ahead lane by lane, as far as they need to stop and no further; each lane dawdles by a generator of its
own, from which the car furthest ahead draws first; a car leaves when its front comes within 0.1 m of its route's end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from roadsense.jit import kernel
from roadsense.randomness import Purpose, derive_seed
from roadsense.scenario import Scenario
from roadsense.traffic.base import EGO, STEP_S, Traffic, TrafficState, refuse_crowd
from roadsense.traffic.expressible import chain_of
from roadsense.traffic.krauss import (
    EPSILON,
    LAW_DTYPE,
    brake_gap,
    fastest_next,
    free_speed,
    limit_for,
    next_speed,
    safe_follow_speed,
    slowest_next,
)
from roadsense.traffic.mersenne import WORDS, seed_stream, twist, unit_of
from roadsense.traffic.route import LaneTable, RouteCatalogue
from roadsense.vehicles import VehicleType

POSITION_SLACK_M = 0.1
"""SUMO's POSITION_EPS: so close to its route's end a car has arrived [m]."""

STANDSTILL_MPS = 0.1 * EPSILON * STEP_S
"""Speeds up to here are 0 [m/s]."""

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
            if v > limit + EPSILON:  # else the speed toward it, which is higher, cannot be the lower one
                v = min(v, EPSILON + free_speed(seen_m - limit * STEP_S, limit, car.decel_mps2))
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
def begin_world(arrays, lanes, state, w):
    """Fills order and state of a world from its cars, whose lanes and positions are set."""
    count = 0
    for column in range(state.alive.shape[1]):
        if state.alive[w, column]:
            arrays.order[w, count] = column
            find_rear(arrays.cars[w, column], lanes)
            count += 1
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


def _law(kind: VehicleType) -> tuple[float, ...]:
    """A vType as a row of ``LAW_DTYPE``."""
    return (
        kind.accel_mps2, kind.decel_mps2, kind.emergency_decel_mps2, kind.number("apparentDecel", kind.decel_mps2),
        kind.tau_s, kind.min_gap_m, kind.sigma, kind.length_m, kind.max_speed_mps,
        math.floor(kind.speed_factor * _FACTOR_UNITS + 0.5) / _FACTOR_UNITS,
    )  # fmt: skip


_FACTOR_UNITS = 1e4
"""SUMO rounds the speed factor of a car to four decimals."""


@dataclass(frozen=True)
class _Start:
    """A scenario at t = 0, ready to be copied into a world."""

    scenario: Scenario
    route: int
    cars: NDArray[np.void]
    speed_mps: NDArray[np.float64]
    transmits: NDArray[np.bool_]
    dawdles: bool


class NativeTraffic(Traffic):
    """``num_worlds`` worlds of up to ``max_cars`` cars."""

    def __init__(self, num_worlds: int, max_cars: int) -> None:
        self.num_worlds, self.max_cars = num_worlds, max_cars
        self.state = TrafficState.zeros(num_worlds, max_cars)
        self.catalogue = RouteCatalogue()
        self._arrays = NativeArrays.zeros(num_worlds, max_cars, 1)
        self._starts: dict[int, _Start] = {}
        self._lanes: LaneTable | None = None

    def reset(self, scenarios: Sequence[Scenario | None], seeds: Sequence[int]) -> None:
        starts = [None if scenario is None else self._start(scenario) for scenario in scenarios]
        if self._lanes is None or len(self._lanes.first) - 1 < self.catalogue.num_routes:
            self._learn_routes()
        for world, start in enumerate(starts):
            if start is not None:
                self._place(world, start, derive_seed(seeds[world], Purpose.TRAFFIC) & 0x7FFFFFFF)

    def _learn_routes(self) -> None:
        self._lanes, arrays = self.catalogue.lanes(), self._arrays
        more = int(np.diff(self._lanes.first).max()) - arrays.drawn.shape[1]
        self._arrays = arrays._replace(drawn=np.pad(arrays.drawn, ((0, 0), (0, max(0, more)))))
        self.routes = self.catalogue.table([0])._replace(index=arrays.route)

    def _place(self, world: int, start: _Start, seed: int) -> None:
        state, arrays, count = self.state, self._arrays, len(start.cars)
        for array in state:
            array[world] = 0
        assert self._lanes is not None
        first = self._lanes.first[start.route]
        cars = arrays.cars[world, :count]
        cars[...] = start.cars
        for name in ("lane", "last_lane"):
            cars[name] += first
        state.speed_mps[world, :count] = start.speed_mps
        state.transmits[world, :count] = start.transmits
        state.length_m[world, :count] = start.cars["length_m"]
        state.alive[world, :count] = state.on_route[world, :count] = True
        state.leaves_m[world, :count] = -math.inf
        arrays.dawdles[world], arrays.seeds[world] = start.dawdles, seed
        arrays.route[world] = start.route
        begin_world(arrays, self._lanes, state, world)

    def _start(self, scenario: Scenario) -> _Start:
        known = self._starts.get(id(scenario))
        if known is not None:
            return known
        refuse_crowd(scenario, self.max_cars)
        lanes = chain_of(scenario, self.catalogue)
        route = self.catalogue.add(scenario.net_file, scenario.net_digest, lanes)
        cars = np.zeros(len(scenario.vehicles), CAR_DTYPE)
        for column, vehicle in enumerate(scenario.vehicles):
            for name, value in zip(LAW_DTYPE.names or (), _law(vehicle.type), strict=True):
                cars[column][name] = value
            cars[column]["lane"] = lanes.index(self.catalogue.departure_lane(scenario, vehicle))
            last = max(place for place, lane in enumerate(lanes) if lane.rpartition("_")[0] == vehicle.edges[-1])
            cars[column]["last_lane"] = last
            cars[column]["lane_position_m"] = vehicle.depart_pos_m
        start = _Start(
            scenario, route, cars, np.array([vehicle.depart_speed_mps for vehicle in scenario.vehicles]),
            np.array([vehicle.transmits for vehicle in scenario.vehicles]),
            any(vehicle.type.sigma > 0.0 for vehicle in scenario.vehicles),
        )  # fmt: skip
        self._starts[id(scenario)] = start
        return start

    def advance(
        self, next_speed_mps: NDArray[np.float64], steered: NDArray[np.bool_], active: NDArray[np.bool_]
    ) -> None:
        advance_worlds(self._arrays, self._lanes, self.state, next_speed_mps, steered, active)

    def close(self) -> None:
        pass
