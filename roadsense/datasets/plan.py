"""One scenario as drawn, before anything is written: cars, places, speeds, hazard and driver."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from roadsense.convoy.core import HORIZON_STEPS
from roadsense.convoy.loop import WARM_UP_TICKS
from roadsense.datasets.config import (
    MAX_DECEL_AT_LIMITS_MPS2,
    MAX_GAP_FACTOR,
    MIN_EGO_GAP_M,
    GenerateConfig,
)
from roadsense.datasets.road import Base, Road
from roadsense.episode_spec import DriverSpec, EpisodeSpec, HazardKind, HazardSpec, Range
from roadsense.errors import ScenarioError
from roadsense.randomness import Purpose, generator
from roadsense.scenario import EGO_ID
from roadsense.traffic.base import STEP_S

LENGTH_M, MIN_GAP_M, ACCEL_MPS2, EMERGENCY_DECEL_MPS2 = 5.0, 2.5, 2.6, 9.0
"""What all generated cars share."""

ROUTE_TIME_S = HORIZON_STEPS * STEP_S + 3.0
"""A route goes on for as long as an episode at the convoy's speed, and a little longer."""

EGO_EASE = 0.9
"""The ego starts at most at this share of the driver's desired speed: at it, he would first fall back."""

STALLED_AFTER_S: Range = (8.0, 20.0)
"""A standing car is this far ahead of the convoy, at the convoy's speed [s]."""

_ATTEMPTS = 200
_CM = 100.0


@dataclass(frozen=True, kw_only=True)
class Car:
    """One vehicle and its type."""

    id: str
    position_m: float
    speed_mps: float
    tau_s: float
    sigma: float
    speed_factor: float
    decel_mps2: float
    max_speed_mps: float | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A scenario to be written. ``cars`` has V001 first, then the peers from the nearest to the first of the convoy."""

    cars: tuple[Car, ...]
    kind: HazardKind
    episode: EpisodeSpec
    vehs_per_hour_factor: float
    parameters: dict[str, float | str | bool | list[float]]
    """What was drawn, for the manifest."""


@dataclass(frozen=True)
class _Draws:
    """Numbers in [0, 1) of one scenario; all are drawn whether they are used or not."""

    cars: NDArray[np.float64]
    """[car, (tau, sigma, speed factor, jitter)]."""
    decel: float
    approach: float
    reaction: float
    attention: float
    flow: float


def _between(pair: Range, unit: float) -> float:
    return float(round(pair[0] + unit * (pair[1] - pair[0]), 4))


def draw_plan(config: GenerateConfig, base: Base, peer_count: int, kind: HazardKind, seed: int) -> Plan:
    """Draws a scenario.

    Args:
        config: its ranges.
        base: the road.
        peer_count: cars ahead of the ego.
        kind: of the hazard.
        seed: of the scenario; equal arguments give an equal plan.

    Raises:
        ScenarioError: the road is too short for the convoy at the lowest speed allowed.
    """
    draw, ranges = generator(seed, Purpose.GENERATOR), config.ranges
    decel, approach, reaction, attention, flow = draw.random(5)
    draws = _Draws(draw.random((peer_count + 1, 4)), decel, approach, reaction, attention, flow)
    for place_unit, speed_unit in draw.random((_ATTEMPTS, 2)):
        cars = _settle(config, base.road, kind, draws, place_unit, _between(ranges.speed_mps, speed_unit))
        if cars is not None:
            return _plan(config, base, kind, draws, cars)
    raise ScenarioError(
        f"base scenario {base.name}: no place was found for {peer_count} peers at {ranges.speed_mps[0]:g} m/s or more"
        f" with {ROUTE_TIME_S:g} s to drive on {base.road.length_m:.0f} m of route; take a longer or faster road, fewer"
        " peers or a lower speed."
    )


def _settle(
    config: GenerateConfig, road: Road, kind: HazardKind, draws: _Draws, place_unit: float, wanted_mps: float
) -> tuple[Car, ...] | None:
    """The convoy somewhere on the road, at ``wanted_mps`` or as fast below as its limits allow; None: nowhere."""
    speed = wanted_mps
    while speed >= config.ranges.speed_mps[0]:
        cars = _line_up(config, road, kind, draws, speed)
        start = LENGTH_M + WARM_UP_TICKS * STEP_S * speed
        end = road.length_m - ROUTE_TIME_S * speed - cars[-1].position_m
        if kind == "stalled_vehicle":
            end = road.length_m - LENGTH_M - cars[-1].position_m
        if end < start:
            return None
        shift = start + place_unit * (end - start)
        cars = tuple(_moved(road, car, shift) for car in cars)
        if any(road.place(car.position_m) is None for car in cars):
            return None
        fastest = min(_allowed_mps(road, car) for car in cars if car.speed_mps > 0.0)
        if speed <= fastest:
            return cars
        speed = math.floor(min(fastest, 0.99 * speed) * _CM) / _CM
    return None


def _allowed_mps(road: Road, car: Car) -> float:
    fastest = road.fastest_mps(car.position_m, car.speed_factor, min(car.decel_mps2, MAX_DECEL_AT_LIMITS_MPS2))
    return fastest * (EGO_EASE if car.id == EGO_ID else 1.0)


def _moved(road: Road, car: Car, shift_m: float) -> Car:
    return replace(car, position_m=round(car.position_m + shift_m, 2))


def _line_up(config: GenerateConfig, road: Road, kind: HazardKind, draws: _Draws, speed: float) -> tuple[Car, ...]:
    """The convoy at one speed, with V001's front bumper at 0."""
    ranges = config.ranges
    most = min(ranges.decel[1], MAX_DECEL_AT_LIMITS_MPS2) if road.limits_drop else ranges.decel[1]
    decel = _between((min(ranges.decel[0], most), most), draws.decel)
    cars: list[Car] = []
    position = 0.0
    last = len(draws.cars) - 1
    for number, (tau_unit, sigma_unit, factor_unit, jitter_unit) in enumerate(draws.cars):
        car = Car(
            id=f"V{number + 1:03d}",
            position_m=position,
            speed_mps=speed,
            tau_s=_between(ranges.time_gap_s if number == 0 else ranges.tau, tau_unit),
            sigma=_between(ranges.sigma, sigma_unit) if number else 0.0,
            speed_factor=_between(ranges.speedFactor, factor_unit),
            decel_mps2=decel,
        )
        if number == last and kind == "stalled_vehicle":
            cars.append(_standing(car, cars[-1], draws.approach))
            break
        if number == last or (number == last - 1 and kind == "stalled_vehicle"):
            car = replace(car, max_speed_mps=speed if number else None)
        cars.append(car)
        position += LENGTH_M + _gap_m(car, road, speed, _between(ranges.spawn_jitter_s, jitter_unit))
    return tuple(cars)


def _gap_m(car: Car, road: Road, speed: float, jitter_s: float) -> float:
    """Bumper gap ahead of a car at t = 0 [m]: what its headway asks for and a jitter, 1.0 to 1.5 times that."""
    least = MIN_GAP_M + speed * car.tau_s
    gap = least + jitter_s * speed
    if car.id == EGO_ID:  # at the gap the driver's IDM settles at, nobody brakes at t = 0
        desired = float(road.limit_mps.max()) * car.speed_factor
        gap = max(gap, least / math.sqrt(1.0 - min(speed / desired, EGO_EASE) ** 4))
        return max(min(gap, MAX_GAP_FACTOR * least), MIN_EGO_GAP_M) + 0.02
    return min(gap, MAX_GAP_FACTOR * least) + 0.02  # positions are rounded to a centimetre


def _standing(car: Car, behind: Car, unit: float) -> Car:
    """The car moved ahead of the convoy to where it stands: far enough for everyone to stop at ease."""
    speed = behind.speed_mps
    stopping = speed * speed / (2.0 * behind.decel_mps2) + speed * max(behind.tau_s, 2.0)
    ahead = max(_between(STALLED_AFTER_S, unit) * speed, stopping) + MIN_GAP_M + LENGTH_M
    return replace(car, position_m=behind.position_m + ahead, speed_mps=0.0)


def _plan(config: GenerateConfig, base: Base, kind: HazardKind, draws: _Draws, cars: tuple[Car, ...]) -> Plan:
    ranges, peers = config.ranges, cars[1:]
    reaction = _between(ranges.reaction_s, draws.reaction)
    attentive = bool(draws.attention < config.attentive_share)
    factor = _between(ranges.vehsPerHour, draws.flow)
    hazard = HazardSpec(
        kind=kind,
        share=1.0,  # which scenarios have a hazard was drawn for the whole split
        rank=(len(peers), len(peers)) if kind == "stalled_vehicle" else (1, len(peers)),
        decel_mps2=ranges.hazard_decel_mps2,
        onset_s=ranges.hazard_onset_s,
        release_s=ranges.hazard_release_s,
        release_share=0.0 if kind == "stalled_vehicle" else config.release_share,
    )
    driver = DriverSpec(
        reaction_s=(reaction, reaction),
        inattentive_share=0.0 if attentive else 1.0,
        inattention_s=ranges.inattention_s,
    )
    parameters: dict[str, float | str | bool | list[float]] = {
        "hazard": kind,
        "speed_mps": cars[0].speed_mps,
        "start_m": cars[0].position_m,
        "time_gap_s": cars[0].tau_s,
        "reaction_s": reaction,
        "attentive": attentive,
        "decel": cars[0].decel_mps2,
        "tau": [car.tau_s for car in peers],
        "sigma": [car.sigma for car in peers],
        "speedFactor": [car.speed_factor for car in cars],
        "gap_m": [
            round(lead.position_m - LENGTH_M - car.position_m, 2) for car, lead in zip(cars, peers, strict=False)
        ],
    }
    if base.scenario.has_flows:
        parameters["vehsPerHour"] = factor
    return Plan(
        cars=cars,
        kind=kind,
        episode=EpisodeSpec(hazard=hazard, driver=driver),
        vehs_per_hour_factor=factor,
        parameters=parameters,
    )
