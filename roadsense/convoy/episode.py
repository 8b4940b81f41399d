"""The draws of a reset: hazard, ordinary driving and driver, from the episode's seed and the scenario's ranges."""

from __future__ import annotations

from typing import Any

import numpy as np

from roadsense.convoy.world import HISTORY, MAX_EVENTS, NEVER, HazardKind
from roadsense.episode_spec import EpisodeSpec
from roadsense.randomness import Purpose, generator
from roadsense.scenario import Scenario
from roadsense.traffic.base import EGO, STEP_S, TrafficState

_KINDS = {kind.name.lower(): kind for kind in HazardKind}
ORDINARY_FROM_STEP, ORDINARY_TO_STEP = 30, 320
"""Ordinary brakings begin within these steps."""


def steps(seconds: float) -> int:
    """Whole control steps nearest to a duration."""
    return round(seconds / STEP_S)


def columns_ahead(state: TrafficState, world: int) -> list[int]:
    """Columns of the transmitting cars ahead of the ego on its route, nearest first."""
    position = state.position_m[world]
    usable = state.alive[world] & state.on_route[world] & state.transmits[world] & (position > position[EGO])
    return sorted(np.flatnonzero(usable).tolist(), key=lambda car: position[car])


def draw_episode(
    record: Any, scenario: Scenario, spec: EpisodeSpec, seed: int, state: TrafficState, world: int
) -> None:
    """Fills the record of one world for a new episode.

    Each quantity is drawn whether it is used or not, so that overriding one range moves no other draw.

    Args:
        record: one element of an array of ``WORLD_DTYPE``.
        scenario: what is played; its ego type gives the driver's headway.
        spec: ranges to draw from, the scenario's own or overridden ones.
        seed: of the episode.
        state: traffic at t = 0.
        world: row of ``state``.
    """
    record["seed"] = seed
    record["step"] = 0
    ahead = columns_ahead(state, world)
    _draw_hazard(record, spec, seed, ahead)
    if record["hazard_kind"] == HazardKind.NONE:
        _draw_ordinary(record, spec, seed, ahead)
    _draw_driver(record, scenario, spec, seed)
    ego = scenario.ego.type
    record["max_accel_mps2"] = ego.accel_mps2
    record["max_speed_mps"] = ego.max_speed_mps
    for name in ("actuator_accel_mps2", "previous_accel_mps2", "action", "driver_accel_mps2", "demand_mps2"):
        record[name] = 0.0
    record["needed_before_mps2"] = 0.0
    record["impact_speed_mps"] = 0.0
    record["end_reason"] = 0
    record["hold_until_onset"] = spec.hold_until_onset


def _draw_hazard(record: Any, spec: EpisodeSpec, seed: int, ahead: list[int]) -> None:
    hazard, draw = spec.hazard, generator(seed, Purpose.HAZARD)
    rank_unit, decel_unit, onset_unit, release_unit, duration_unit, share_unit = draw.random(6)
    kind = _KINDS[hazard.kind] if ahead else HazardKind.NONE
    if kind == HazardKind.EMERGENCY_BRAKE and share_unit >= hazard.share:
        kind = HazardKind.NONE
    record["hazard_kind"] = kind
    record["num_events"] = 0
    record["hazard_rank"], record["hazard_target"], record["hazard_decel_mps2"] = 0, -1, 0.0
    record["onset_step"] = record["over_step"] = NEVER
    if kind == HazardKind.NONE:
        return
    low, high = min(hazard.rank[0], len(ahead)), min(hazard.rank[1], len(ahead))
    rank = low + int(rank_unit * (high - low + 1))
    decel = hazard.decel_mps2[0] + decel_unit * (hazard.decel_mps2[1] - hazard.decel_mps2[0])
    first, last = steps(hazard.onset_s[0]), steps(hazard.onset_s[1])
    onset = first + int(onset_unit * (last - first + 1))
    over = NEVER
    if hazard.release_s is not None and release_unit < hazard.release_share:
        over = onset + steps(hazard.release_s[0] + duration_unit * (hazard.release_s[1] - hazard.release_s[0]))
    if kind == HazardKind.STALLED_VEHICLE:  # it stands where the scenario put it, from the first step to the last
        rank, onset, over, decel = len(ahead), 0, NEVER, 9.0
    record["hazard_rank"], record["hazard_target"], record["hazard_decel_mps2"] = rank, ahead[rank - 1], decel
    record["onset_step"], record["over_step"] = onset, over
    _add_event(record, ahead[rank - 1], onset, over, decel)


def _draw_ordinary(record: Any, spec: EpisodeSpec, seed: int, ahead: list[int]) -> None:
    """The front car slows now and then, in disjoint slots of the episode."""
    ordinary, draw = spec.ordinary, generator(seed, Purpose.ORDINARY_DRIVING)
    low, high = ordinary.brakings
    count = low + int(draw.random() * (high - low + 1))
    units = draw.random((MAX_EVENTS, 4))
    if not ahead or count == 0:
        return
    slot = (ORDINARY_TO_STEP - ORDINARY_FROM_STEP) // count
    for event in range(count):
        place, decel_unit, duration_unit, stop_unit = units[event]
        decel = ordinary.decel_mps2[0] + decel_unit * (ordinary.decel_mps2[1] - ordinary.decel_mps2[0])
        duration = ordinary.duration_s[0] + duration_unit * (ordinary.duration_s[1] - ordinary.duration_s[0])
        if stop_unit < ordinary.stop_share:  # the wait counts from the standstill of a car at a usual speed
            duration += 15.0 / decel
        length = min(steps(duration), slot)
        start = ORDINARY_FROM_STEP + event * slot + int(place * (slot - length + 1))
        _add_event(record, ahead[-1], start, start + length, decel)


def _add_event(record: Any, target: int, start: int, end: int, decel: float) -> None:
    event = int(record["num_events"])
    record["event_target"][event], record["event_decel_mps2"][event] = target, decel
    record["event_start"][event], record["event_end"][event] = start, end
    record["num_events"] = event + 1


def _draw_driver(record: Any, scenario: Scenario, spec: EpisodeSpec, seed: int) -> None:
    driver, draw = spec.driver, generator(seed, Purpose.DRIVER)
    reaction_unit, attention_unit, inattention_unit = draw.random(3)
    reaction = driver.reaction_s[0] + reaction_unit * (driver.reaction_s[1] - driver.reaction_s[0])
    record["reaction_steps"] = min(steps(reaction), HISTORY - 1)
    record["inattentive_from"] = record["attentive_from"] = NEVER
    if record["hazard_kind"] != HazardKind.NONE and attention_unit < driver.inattentive_share:
        record["inattentive_from"] = record["onset_step"]
        if driver.inattention_s is not None:
            low, high = driver.inattention_s
            lasts = steps(low + inattention_unit * (high - low))
            record["attentive_from"] = record["onset_step"] + lasts
    ego = scenario.ego.type
    record["driver_headway_s"], record["driver_min_gap_m"] = ego.tau_s, ego.min_gap_m
    record["driver_speed_factor"] = ego.speed_factor
    record["risk_s"], record["held"] = 0.0, False
