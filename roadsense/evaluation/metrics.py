"""What an episode shows, as pure functions of its trace."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from roadsense.convoy.control import DEAD_BAND, MAX_BRAKE_MPS2
from roadsense.convoy.trace import EpisodeTrace, hazard_happened
from roadsense.convoy.world import EndReason, HazardKind
from roadsense.traffic.base import EGO, STEP_S

EVENTS_VERSION = 1
"""Version of the definitions below; a result names it."""

FALSE_BRAKE_MPS2 = 0.15 * 9.81
"""A demand from here on, with nothing that calls for it, is a false brake [m/s²]."""

CALM_REQUIRED_DECEL_MPS2 = 1.0
CALM_TTC_S = 4.0
"""A step is calm below this required deceleration and above this time to collision."""


@dataclass(frozen=True, kw_only=True)
class EpisodeMetrics:
    """One row of ``episodes.csv``; quantities that an episode cannot show are NaN."""

    scenario_id: str
    seed: int
    num_peers: int
    steps: int
    distance_km: float
    """Driven by the ego."""
    total_reward: float
    end_reason: str
    valid: bool
    """False where peers touched each other: the episode counts in nothing but the number of invalid ones."""
    collision: bool
    impact_speed_mps: float
    """Closing speed at contact, NaN without one."""
    truncated: bool
    min_ttc_s: float
    min_gap_m: float
    max_required_decel_mps2: float
    hazard_kind: str
    hazard_rank: int
    hazard_happened: bool
    false_brakes: int
    """Times the demand rose above 0.15 g in a calm step."""
    calm_steps: int
    calm_braking_steps: int
    reaction_from_onset_s: float
    """From the hazard's onset to the first request; NaN if it never came."""
    reaction_from_reception_s: float
    """From the first beacon of the target that tells of the hazard; negative if the policy was faster."""
    jerk_p95_mps3: float
    mean_time_gap_s: float
    """Mean of gap / speed while driving faster than 1 m/s."""
    delivery_ratio: float
    age_p95_s: float


def time_to_collision(gap_m: NDArray[np.float64], closing_speed_mps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gap over closing speed [s], infinite while the gap does not shrink; shape of the arguments."""
    closing = closing_speed_mps > 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(closing, gap_m / np.where(closing, closing_speed_mps, 1.0), np.inf)


def calm(trace: EpisodeTrace) -> NDArray[np.bool_]:
    """Which decisions nothing called for, [T].

    No hazard is active, the required deceleration is below 1 m/s² and the time to collision above 4 s. After a hazard
    was released a step is calm again only once the driver looks.
    """
    steps = np.arange(trace.num_steps)
    phase = trace.hazard_phase[:-1]
    inattentive = (steps >= trace.inattentive_from) & (steps < trace.attentive_from)
    quiet = (phase == 0) | ((phase == 2) & ~inattentive)
    ttc = time_to_collision(trace.gap_m[:-1], trace.closing_speed_mps[:-1])
    return quiet & (trace.required_decel_mps2[:-1] < CALM_REQUIRED_DECEL_MPS2) & (ttc > CALM_TTC_S)


def false_brakes(trace: EpisodeTrace) -> tuple[int, int, int]:
    """(events, calm steps, calm steps with a demand of at least 0.15 g)."""
    quiet, braking = calm(trace), trace.demand_mps2 >= FALSE_BRAKE_MPS2
    rises = braking & ~np.concatenate([[False], braking[:-1]])
    return int((rises & quiet).sum()), int(quiet.sum()), int((braking & quiet).sum())


def reaction_times_s(trace: EpisodeTrace) -> tuple[float, float]:
    """Seconds to the first request after the onset, from the onset and from the first beacon that tells of it."""
    if trace.hazard_kind == HazardKind.NONE or trace.num_steps <= trace.onset_step:
        return math.nan, math.nan
    asked = trace.demand_mps2[trace.onset_step :] >= DEAD_BAND * MAX_BRAKE_MPS2
    if not asked.any():
        return math.nan, math.nan
    first = trace.onset_step + int(asked.argmax())
    heard = np.flatnonzero(trace.target_heard)
    from_reception = (first - int(heard[0])) * STEP_S if len(heard) else math.nan
    return (first - trace.onset_step) * STEP_S, from_reception


def measure(trace: EpisodeTrace) -> EpisodeMetrics:
    """All metrics of one episode."""
    events, calm_steps, calm_braking = false_brakes(trace)
    from_onset, from_reception = reaction_times_s(trace)
    collided = trace.end_reason == EndReason.COLLISION
    speed, accel = trace.speed_mps[:, EGO], trace.accel_mps2[:, EGO]
    driving = (speed > 1.0) & np.isfinite(trace.gap_m)
    beacons = int(trace.beacons_received.sum() + trace.beacons_lost.sum())
    ages = trace.age_s[:, 1:][~np.isnan(trace.age_s[:, 1:])]
    jerk = np.abs(np.diff(accel)) / STEP_S
    return EpisodeMetrics(
        scenario_id=trace.scenario_id,
        seed=trace.seed,
        num_peers=trace.num_peers,
        steps=trace.num_steps,
        distance_km=float(trace.position_m[-1, EGO] - trace.position_m[0, EGO]) / 1000.0,
        total_reward=float(trace.reward.sum()),
        end_reason=EndReason(trace.end_reason).name.lower(),
        valid=trace.end_reason != EndReason.PEER_CONTACT,
        collision=collided,
        impact_speed_mps=trace.impact_speed_mps if collided else math.nan,
        truncated=trace.end_reason > EndReason.COLLISION,
        min_ttc_s=float(time_to_collision(trace.gap_m, trace.closing_speed_mps).min()),
        min_gap_m=float(trace.gap_m.min()),
        max_required_decel_mps2=float(trace.required_decel_mps2.max()),
        hazard_kind=HazardKind(trace.hazard_kind).name.lower(),
        hazard_rank=trace.hazard_rank,
        hazard_happened=hazard_happened(trace),
        false_brakes=events,
        calm_steps=calm_steps,
        calm_braking_steps=calm_braking,
        reaction_from_onset_s=from_onset,
        reaction_from_reception_s=from_reception,
        jerk_p95_mps3=float(np.percentile(jerk, 95)) if len(jerk) else math.nan,
        mean_time_gap_s=float((trace.gap_m[driving] / speed[driving]).mean()) if driving.any() else math.nan,
        delivery_ratio=float(trace.beacons_received.sum() / beacons) if beacons else math.nan,
        age_p95_s=float(np.percentile(ages, 95)) if len(ages) else math.nan,
    )


COLUMNS = tuple(field.name for field in dataclasses.fields(EpisodeMetrics))
"""Columns of ``episodes.csv``, after ``policy``."""
