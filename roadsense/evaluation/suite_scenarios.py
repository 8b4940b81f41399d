"""The scenarios of a suite, written by the generator's own rules; the same suite gives the same bytes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from roadsense.convoy.loop import WARM_UP_TICKS
from roadsense.datasets.config import GenerateConfig, Ranges
from roadsense.datasets.plan import LENGTH_M, Car, Plan, draw_plan
from roadsense.datasets.road import read_base
from roadsense.datasets.write import write_scenario
from roadsense.episode_spec import EpisodeSpec
from roadsense.errors import ScenarioError, UsageError
from roadsense.randomness import Purpose, derive_seed
from roadsense.traffic.base import STEP_S
from roadsense.traffic.route import RouteCatalogue

MPS_OF_KMH = 1.0 / 3.6

PAIR_TAU_S, PAIR_DECEL_MPS2 = 0.5, 4.5
"""Headway and comfortable deceleration of a pair's cars; both are steered until the hazard begins."""


def write_convoys(
    root: Path, seed: int, roads: Sequence[str], each: int, ranges: Ranges, peers: Sequence[int], where: str
) -> list[tuple[str, tuple[int, str]]]:
    """Writes ``each`` convoys for every number of peers on every road.

    Args:
        root: folder for them.
        seed: of all draws.
        roads: names of base scenarios.
        each: how many.
        ranges: what they are drawn from.
        peers: how many cars there are ahead of V001; empty: all numbers of ``ranges``.
        where: the suite, in messages.

    Returns:
        (id, (peers, road)) of each, the roads of one turn together.

    Raises:
        UsageError: two roads have one name, or there is no such road.
        ScenarioError: a road is too short for a convoy.
    """
    catalogue = RouteCatalogue()
    bases = [read_base(name, catalogue) for name in roads]
    ids = [re.sub(r"[^a-z0-9_.-]", "-", base.name.lower()) for base in bases]
    twice = next((name for place, name in enumerate(ids) if name in ids[:place]), None)
    if twice is not None:
        raise UsageError(f"suite {where}: convoys.roads names {twice!r} more than once; give every road its own name.")
    config = GenerateConfig(seed=seed, base_scenarios=tuple(roads), ranges=ranges)
    low, high = ranges.peer_count
    written = []
    for count in peers or range(low, high + 1):
        for turn in range(each):
            for place, base in enumerate(bases):
                number = (count * 1000 + turn) * len(bases) + place
                drawn = derive_seed(seed, Purpose.GENERATOR, number)
                try:
                    plan = draw_plan(config, base, int(count), "emergency_brake", drawn)
                except ScenarioError as error:
                    raise ScenarioError(f"suite {where}: {count} peers: {error}") from None
                scenario_id = f"p{int(count):02d}-{ids[place]}-{turn:02d}"
                write_scenario(root / scenario_id, base, plan)
                written.append((scenario_id, (int(count), base.name)))
    return written


def write_pairs(
    root: Path, road: str, speeds_kmh: Sequence[float], gaps_m: Sequence[float], where: str
) -> list[tuple[str, tuple[float, float]]]:
    """Writes V001 behind one car for every speed and bumper gap; returns (id, (speed, gap)) of each.

    Args:
        root: folder for them.
        road: name of a base scenario.
        speeds_kmh: of both cars.
        gaps_m: between their bumpers.
        where: the suite, in messages.

    Raises:
        UsageError: there is no such road, or no place on it for a car.
    """
    base = read_base(road, RouteCatalogue())
    written = []
    for speed_kmh in speeds_kmh:
        speed = round(speed_kmh * MPS_OF_KMH, 3)
        start = round(LENGTH_M + WARM_UP_TICKS * STEP_S * speed + 1.0, 2)
        for gap_m in gaps_m:
            cars = tuple(
                Car(id=name, position_m=place, speed_mps=speed, tau_s=PAIR_TAU_S, sigma=0.0, speed_factor=1.0,
                    decel_mps2=PAIR_DECEL_MPS2)
                for name, place in (("V001", start), ("V002", round(start + gap_m + LENGTH_M, 2)))
            )  # fmt: skip
            stated = (f"axes.speed_kmh states {speed_kmh:g}", f"axes.gap_m states {gap_m:g}")
            for car, said in zip(cars, stated, strict=True):
                if base.road.place(car.position_m) is None:
                    raise UsageError(
                        f"suite {where}: {said}, which puts {car.id} at {car.position_m:g} m of road {base.name}, on a"
                        f" junction or beyond its {base.road.length_m:.0f} m; state another value or take another road."
                    )
            plan = Plan(
                cars=cars, kind="emergency_brake", episode=EpisodeSpec(), vehs_per_hour_factor=1.0, parameters={}
            )
            scenario_id = f"v{speed_kmh:g}-g{gap_m:g}"
            write_scenario(root / scenario_id, base, plan)
            written.append((scenario_id, (speed_kmh, gap_m)))
    return written
