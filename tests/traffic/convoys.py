"""Convoys drawn at random on a road, driven by two engines side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from roadsense.datasets.road import Base, read_base
from roadsense.scenario import Scenario
from roadsense.traffic.base import EGO, Traffic
from roadsense.traffic.route import RouteCatalogue
from roadsense.vehicles import Vehicle, VehicleType

BASES = ("straight", "curve", "arterial")
QUANTITIES = ("position_m", "speed_mps", "accel_mps2", "length_m", "alive", "on_route", "leaves_m", "transmits")
_FASTEST_MPS = 25.0

_CATALOGUE = RouteCatalogue()


def base_of(name: str) -> Base:
    return read_base(name, _CATALOGUE)


def drawn_type(rng: np.random.Generator, name: str, sigma: float) -> VehicleType:
    """A Krauss driver of any temper; with ``sigma`` above 0 one in five has another one."""
    attributes = {
        "carFollowModel": "Krauss",
        "length": rng.choice([4.3, 5.0, 7.5, 12.0]),
        "minGap": rng.uniform(1.0, 3.0),
        "accel": rng.uniform(1.5, 3.0),
        "decel": rng.choice([2.5, 4.5, rng.uniform(2.0, 6.0)]),
        "emergencyDecel": rng.choice([7.0, 9.0]),
        "tau": rng.choice([1.0, rng.uniform(0.1, 1.6)]),
        "sigma": rng.uniform(0.0, 1.0) if sigma > 0.0 and rng.random() < 0.2 else sigma,
        "speedFactor": rng.choice([1.0, rng.uniform(0.8, 1.2)]),
        "maxSpeed": rng.choice([55.55, rng.uniform(10.0, 30.0)]),
    }
    if rng.random() < 0.2:
        attributes["apparentDecel"] = rng.uniform(2.0, 6.0)
    return VehicleType(id=name, attributes={key: str(value) for key, value in attributes.items()})


def drawn_convoy(base: Base, rng: np.random.Generator, sigma: float, peers: tuple[int, int] = (1, 8)) -> Scenario:
    """V001 and peers ahead of it somewhere on the road, on either side of junctions, at one speed."""
    count = int(rng.integers(peers[0], peers[1] + 1))
    position = rng.uniform(0.0, base.road.length_m - 150.0 - 60.0 * count)
    speed = rng.uniform(8.0, 20.0)
    cars: list[Vehicle] = []
    for number in range(1, count + 2):
        while (place := base.road.place(position)) is None:
            position += 1.0
        cars.append(
            dataclasses.replace(
                base.scenario.ego, id=f"V{number:03d}", type=drawn_type(rng, f"type{number}", sigma), edges=place[0],
                depart_pos_m=place[1], depart_speed_mps=speed,
            )
        )  # fmt: skip
        position += 12.0 + rng.uniform(1.0, 2.0) * speed
    return dataclasses.replace(base.scenario, vehicles=tuple(cars), scenario_id=base.name)


def differs(reference: Traffic, other: Traffic) -> str | None:
    """The first quantity of the two states that is not equal bit by bit."""
    for name in QUANTITIES:
        ours, theirs = getattr(reference.state, name), getattr(other.state, name)
        if not np.array_equal(ours, theirs):
            car = int(np.flatnonzero((ours != theirs)[0])[0])
            return f"{name} of car {car}: {ours[0, car]!r} against {theirs[0, car]!r}"
    return None


def drive_both(reference: Traffic, other: Traffic, scenario: Scenario, seed: int, steps: int = 400) -> str | None:
    """Drives one convoy in both engines: an ego that changes its mind, and a peer that brakes or is pushed on.

    Returns:
        Where they differ first, None where they never do.
    """
    rng = np.random.default_rng(seed)
    cars = reference.max_cars
    speeds, steered, active = np.zeros((1, cars)), np.zeros((1, cars), np.bool_), np.ones(1, np.bool_)
    target = int(rng.integers(1, len(scenario.vehicles)))
    begin, lasts, decel = int(rng.integers(20, 200)), int(rng.integers(20, 100)), rng.uniform(3.0, 9.0)
    if rng.random() < 0.25:
        decel = -2.0
    reference.reset([scenario], [seed])
    other.reset([scenario], [seed])
    state, wish = reference.state, 0.0
    for step in range(steps):
        found = differs(reference, other)
        if found is not None:
            return f"{scenario.scenario_id}, seed {seed}, step {step}: {found}"
        ahead = state.position_m[0, 1:] - state.length_m[0, 1:]
        gap = ahead[state.alive[0, 1:]].min(initial=np.inf) - state.position_m[0, EGO]
        if gap <= 0.0 or not state.alive[0, EGO]:
            break
        if step % 20 == 0:
            wish = rng.uniform(-1.5, 1.0)
        speed = state.speed_mps[0, EGO]
        accel = wish if gap > 1.0 + 1.2 * speed else -8.0
        speeds[0, EGO], steered[0, EGO] = min(max(speed + 0.1 * accel, 0.0), _FASTEST_MPS), True
        steered[0, target] = begin <= step < begin + lasts and state.alive[0, target]
        speeds[0, target] = max(0.0, state.speed_mps[0, target] - 0.1 * decel * min(1.0, (step - begin + 1) / 3))
        reference.advance(speeds, steered, active)
        other.advance(speeds, steered, active)
    return None


def states_over_time(traffic: Traffic, scenarios: Sequence[Scenario], seeds: Sequence[int], steps: int) -> np.ndarray:
    """[step, quantity, world, car] of worlds whose egos keep their speed."""
    traffic.reset(scenarios, seeds)
    state = traffic.state
    steered = np.zeros(state.alive.shape, np.bool_)
    steered[:, EGO] = True
    seen = []
    for _ in range(steps):
        traffic.advance(state.speed_mps.copy(), steered, np.ones(len(scenarios), np.bool_))
        seen.append(np.array([getattr(state, name).astype(float) for name in QUANTITIES]))
    return np.array(seen)
