"""The native engine: SUMO's car following on one lane, to the bit, for any number of worlds in one kernel call.

It drives what it can express and refuses everything else by name. What it knows of SUMO beyond the car-following law:
cars see those ahead lane by lane, as far as they need to stop and no further; each lane dawdles by a generator of its
own, from which the car furthest ahead draws first; a car leaves when its front comes within 0.1 m of its route's end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from roadsense.errors import TrafficError
from roadsense.scenario import Scenario
from roadsense.traffic.base import Traffic, TrafficState, engine_seed, refuse_crowd
from roadsense.traffic.expressible import chain_of
from roadsense.traffic.krauss import LAW_DTYPE
from roadsense.traffic.motion import NativeArrays, advance_worlds, begin_world
from roadsense.traffic.route import LaneTable, RouteCatalogue
from roadsense.traffic.sight import CAR_DTYPE
from roadsense.vehicles import VehicleType


def _law(kind: VehicleType) -> tuple[float, ...]:
    """A vType as a row of ``LAW_DTYPE``."""
    return (
        kind.accel_mps2, kind.decel_mps2, kind.emergency_decel_mps2, kind.apparent_decel_mps2,
        kind.tau_s, kind.min_gap_m, kind.sigma, kind.length_m, kind.max_speed_mps,
        math.floor(kind.speed_factor * _FACTOR_UNITS + 0.5) / _FACTOR_UNITS,
    )  # fmt: skip


_FACTOR_UNITS = 1e4
"""SUMO rounds the speed factor of a car to four decimals."""


_MOST_STARTS = 10_000
"""So many scenarios are kept ready."""


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
        self._closed = False
        self._lanes: LaneTable | None = None

    def reset(self, scenarios: Sequence[Scenario | None], seeds: Sequence[int]) -> None:
        self._refuse_if_closed()
        starts = [(world, self._start(scenario)) for world, scenario in enumerate(scenarios) if scenario is not None]
        if self._lanes is None or len(self._lanes.first) - 1 < self.catalogue.num_routes:
            self._learn_routes()
        for world, start in starts:
            begin_world(
                self._arrays, self._lanes, self.state, world, engine_seed(seeds[world]), start.route, start.cars,
                start.speed_mps, start.transmits, start.dawdles,
            )  # fmt: skip

    def _learn_routes(self) -> None:
        self._lanes, arrays = self.catalogue.lanes(), self._arrays
        more = int(np.diff(self._lanes.first).max()) - arrays.drawn.shape[1]
        self._arrays = arrays._replace(drawn=np.pad(arrays.drawn, ((0, 0), (0, max(0, more)))))
        self.routes = self.catalogue.table([0])._replace(index=arrays.route)

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
        if len(self._starts) >= _MOST_STARTS:
            self._starts.clear()
        self._starts[id(scenario)] = start
        return start

    def advance(
        self, next_speed_mps: NDArray[np.float64], steered: NDArray[np.bool_], active: NDArray[np.bool_]
    ) -> None:
        self._refuse_if_closed()
        advance_worlds(self._arrays, self._lanes, self.state, next_speed_mps, steered, active)

    def close(self) -> None:
        self._closed = True

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise TrafficError("these worlds are closed; open new ones.")
