"""What a scenario must state so that only a hazard is dangerous in it, and no hazard is unavoidable."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from roadsense.datasets.config import (
    LATEST_ONSET_S,
    MAX_DECEL_AT_LIMITS_MPS2,
    MIN_EGO_GAP_M,
    MIN_EMERGENCY_DECEL_MPS2,
    MIN_TAU_S,
)
from roadsense.datasets.plan import ROUTE_TIME_S
from roadsense.datasets.road import Road
from roadsense.scenario import Scenario
from roadsense.traffic.base import EGO
from roadsense.vehicles import Vehicle

_TOLERANCE_M = 1e-6


def presence_problems(scenario: Scenario) -> list[str]:
    """Which cars are not on the road at t = 0 with a state in numbers, one sentence each."""
    return [
        f"{car.id} is not on the road at t = 0 with its place and speed in numbers"
        for car in scenario.vehicles
        if not car.stated or car.depart_s > scenario.begin_s
    ]


def envelope_problems(scenario: Scenario, road: Road) -> list[str]:
    """What puts a scenario outside of the safe envelope, one sentence each, without the scenario's name.

    Args:
        scenario: all of whose cars are on the road at t = 0.
        road: V001's route.
    """
    placed = [(road.position_m(car), car) for car in scenario.vehicles]
    problems = [f"{car.id} departs off the route of {scenario.ego.id}" for position, car in placed if position is None]
    line = sorted(
        ((position, car) for position, car in placed if position is not None), key=lambda pair: -pair[0]
    )  # fmt: skip
    problems += _of_order(scenario, line)
    problems += _of_types(scenario, road)
    problems += _of_speeds(road, line)
    problems += _of_gaps(scenario, line)
    problems += _of_route(road, line)
    problems += _of_hazard(scenario)
    return problems


def _of_order(scenario: Scenario, line: list[tuple[float, Vehicle]]) -> Iterator[str]:
    names = [car.id for _, car in line]
    behind = names[names.index(scenario.ego.id) + 1 :]
    if behind:
        yield f"{', '.join(behind)} stands behind {scenario.ego.id}, which is the last car of a generated convoy"


def _of_types(scenario: Scenario, road: Road) -> Iterator[str]:
    for car in scenario.vehicles[EGO + 1 :]:
        kind = car.type
        if kind.car_follow_model != "Krauss":
            yield f"{car.id} follows {kind.car_follow_model}, but only Krauss is known to keep peers apart"
        if kind.tau_s < MIN_TAU_S:
            yield f"{car.id} has tau {kind.tau_s:g}, below {MIN_TAU_S:g}"
        if kind.emergency_decel_mps2 < MIN_EMERGENCY_DECEL_MPS2:
            yield f"{car.id} has emergencyDecel {kind.emergency_decel_mps2:g}, below {MIN_EMERGENCY_DECEL_MPS2:g}"
        if road.limits_drop and kind.decel_mps2 > MAX_DECEL_AT_LIMITS_MPS2:
            yield (
                f"{car.id} has decel {kind.decel_mps2:g} on a road whose limits drop, above"
                f" {MAX_DECEL_AT_LIMITS_MPS2:g}"
            )


def _of_speeds(road: Road, line: list[tuple[float, Vehicle]]) -> Iterator[str]:
    moving = {car.depart_speed_mps for _, car in line if car.depart_speed_mps > 0.0}
    if len(moving) > 1:
        yield f"the convoy departs at {len(moving)} speeds, from {min(moving):g} to {max(moving):g} m/s, not at one"
    for position, car in line:
        fastest = road.fastest_mps(position, car.type.speed_factor, car.type.decel_mps2)
        if car.depart_speed_mps > fastest:
            yield (
                f"{car.id} departs at {car.depart_speed_mps:g} m/s, but the limits from there on allow"
                f" {fastest:.1f} m/s without hard braking"
            )


def _of_gaps(scenario: Scenario, line: list[tuple[float, Vehicle]]) -> Iterator[str]:
    for (ahead, lead), (position, car) in pairwise(line):
        gap = ahead - lead.type.length_m - position
        least = car.type.min_gap_m + car.depart_speed_mps * car.type.tau_s
        if car.id == scenario.ego.id:
            least = max(least, MIN_EGO_GAP_M)
        # Krauss keeps more room behind a car that brakes harder than itself, and less is braking at t = 0
        harder = max(lead.type.decel_mps2, car.type.decel_mps2)
        least += max(
            0.0,
            car.depart_speed_mps**2 / (2.0 * car.type.decel_mps2) - lead.depart_speed_mps**2 / (2.0 * harder),
        )
        if gap < least - _TOLERANCE_M:
            yield f"{car.id} is {gap:.2f} m behind {lead.id}, closer than the {least:.2f} m of its headway"


def _of_route(road: Road, line: list[tuple[float, Vehicle]]) -> Iterator[str]:
    moving = [(position, car) for position, car in line if car.depart_speed_mps > 0.0]
    if not moving or len(moving) < len(line):
        return  # a standing car keeps the others on the road
    position, car = moving[0]
    fastest = min(car.type.max_speed_mps, float(road.limit_mps.max()) * car.type.speed_factor)
    needed = position + ROUTE_TIME_S * fastest
    if needed > road.length_m + _TOLERANCE_M:
        yield (
            f"the route is too short: {car.id} may reach {needed:.0f} m in {ROUTE_TIME_S:g} s, and it ends at"
            f" {road.length_m:.0f} m"
        )


def _of_hazard(scenario: Scenario) -> Iterator[str]:
    hazard = scenario.episode.hazard
    if hazard.kind == "none":
        return
    peers = sum(car.transmits for car in scenario.vehicles[EGO + 1 :])
    if hazard.rank[0] > peers:
        yield f"the hazard's rank is {hazard.rank[0]} or more, but {peers} transmitting cars are ahead"
    if hazard.kind == "emergency_brake" and hazard.onset_s[1] > LATEST_ONSET_S:
        yield f"the hazard may begin at {hazard.onset_s[1]:g} s, later than {LATEST_ONSET_S:g} s"
