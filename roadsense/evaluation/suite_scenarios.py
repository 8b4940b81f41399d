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
from roadsense.randomness import Purpose, derive_seed
from roadsense.traffic.base import STEP_S
from roadsense.traffic.route import RouteCatalogue

MPS_OF_KMH = 1.0 / 3.6

PAIR_TAU_S, PAIR_DECEL_MPS2 = 0.5, 4.5
"""Headway and comfortable deceleration of a pair's cars; both are steered until the hazard begins."""


def write_convoys(
    root: Path, seed: int, roads: Sequence[str], each: int, ranges: Ranges, peers: Sequence[int]
) -> list[tuple[str, tuple[int, str]]]:
    """Writes ``each`` convoys for every number of peers on every road.

    Args:
        root: folder for them.
        seed: of all draws.
        roads: names of base scenarios.
        each: how many.
        ranges: what they are drawn from.
        peers: how many cars there are ahead of V001; empty: all numbers of ``ranges``.

    Returns:
        (id, (peers, road)) of each, the roads of one turn together.
    """
    catalogue = RouteCatalogue()
    bases = [read_base(name, catalogue) for name in roads]
    config = GenerateConfig(seed=seed, base_scenarios=tuple(roads), ranges=ranges)
    low, high = ranges.peer_count
    written = []
    for count in peers or range(low, high + 1):
        for turn in range(each):
            for place, base in enumerate(bases):
                number = (count * 1000 + turn) * len(bases) + place
                plan = draw_plan(
                    config, base, int(count), "emergency_brake", derive_seed(seed, Purpose.GENERATOR, number)
                )
                road = re.sub(r"[^a-z0-9_.-]", "-", base.name.lower())
                scenario_id = f"p{int(count):02d}-{road}-{turn:02d}"
                write_scenario(root / scenario_id, base, plan)
                written.append((scenario_id, (int(count), base.name)))
    return written


def write_pairs(
    root: Path, road: str, speeds_kmh: Sequence[float], gaps_m: Sequence[float]
) -> list[tuple[str, tuple[float, float]]]:
    """Writes V001 behind one car for every speed and bumper gap; returns (id, (speed, gap)) of each."""
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
            plan = Plan(
                cars=cars, kind="emergency_brake", episode=EpisodeSpec(), vehs_per_hour_factor=1.0, parameters={}
            )
            scenario_id = f"v{speed_kmh:g}-g{gap_m:g}"
            write_scenario(root / scenario_id, base, plan)
            written.append((scenario_id, (speed_kmh, gap_m)))
    return written
