"""What an episode shows, as pure functions of its trace."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from roadsense.convoy.control import DEAD_BAND, MAX_BRAKE_MPS2
from roadsense.convoy.rss import rss_distance
from roadsense.convoy.trace import EpisodeTrace, hazard_happened
from roadsense.convoy.world import EndReason, HazardKind, is_termination, is_truncation
from roadsense.evaluation.surrogates import (
    DRAC_LIMIT_MPS2,
    HARD_BRAKE_LEVELS_MPS2,
    decel_to_avoid_crash,
    jerk_limit,
    modified_decel_to_avoid_crash,
    rises,
    time_exposed,
    time_integrated,
    time_to_collision,
)
from roadsense.traffic.base import EGO, STEP_S

EVENTS_VERSION = 4
"""Version of the definitions below; a result names it."""

FALSE_BRAKE_MPS2 = 0.15 * 9.81
"""A demand from here on, with nothing that calls for it, is a false brake [m/s²]."""

ANSWER_STEPS = 3
"""A request below that is an answer to a hazard only if it lasts so long."""

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
    """With the car ahead."""
    rear_contact: bool
    """With the car behind."""
    impact_speed_mps: float
    """Closing speed at either contact, NaN without one."""
    truncated: bool
    failure: str
    """Why the episode was broken off; empty where it was played to its end."""
    min_ttc_s: float
    min_gap_m: float
    max_required_decel_mps2: float
    tet_s: float
    """Time exposed to a TTC below 3 s."""
    tit_s2: float
    """TTC below 3 s, integrated over time."""
    max_drac_mps2: float
    drac_share: float
    """Share of steps with a DRAC above 3.4 m/s²."""
    max_mdrac_mps2: float
    mdrac_share: float
    """The same of MDRAC with a perception and reaction time of 1 s."""
    rss_deficit_share: float
    """Share of steps with a car ahead in which the gap is below the RSS distance."""
    max_rss_deficit_m: float
    min_time_gap_s: float
    """Least gap / speed while driving faster than 1 m/s."""
    hard_brakes_3: int
    """Times that V001 came to brake harder than 3.0 m/s²."""
    hard_brakes_4_5: int
    """The same of 4.5 m/s²."""
    hazard_kind: str
    hazard_rank: int
    hazard_happened: bool
    false_brakes: int
    """Times the demand rose above 0.15 g in a calm step."""
    calm_steps: int
    calm_braking_steps: int
    calm_distance_km: float
    """Driven in calm steps: where a false brake could have happened."""
    peak_added_decel_mps2: float
    """Most that the demand went beyond the driver's own braking in a calm step."""
    hazard_called: bool
    """The hazard came to call for an answer; a car that stands far ahead may never."""
    braking_at_onset: bool
    """The assistant braked already when the hazard began to call for it, and braked on."""
    reacted: bool
    """It began to brake after the hazard's beginning."""
    reaction_from_onset_s: float
    """From the hazard's beginning to the first step at which the assistant begins to brake; NaN if none does."""
    reaction_from_reception_s: float
    """From the first beacon of the target that tells of the hazard; negative if the policy was faster."""
    jerk_p95_mps3: float
    jerk_share: float
    """Share of steps with a jerk beyond the comfortable one for the speed."""
    mean_time_gap_s: float
    """Mean of gap / speed while driving faster than 1 m/s."""
    head_to_tail_gain: float
    """Standard deviation of V001's speed over that of the first car's: above 1 it amplifies; NaN without peers ahead
    that vary theirs."""
    delivery_ratio: float
    age_p95_s: float

    @property
    def crashed(self) -> bool:
        """It hit the car ahead, or was broken off, which counts as if it had."""
        return self.collision or bool(self.failure)

    @property
    def tested(self) -> bool:
        """Its hazard happened, or it crashed before it could."""
        return self.hazard_happened or (self.hazard_kind != "none" and self.crashed)


def _needless(trace: EpisodeTrace) -> NDArray[np.bool_]:
    """At which decisions the truth asks for no braking, [T]: required deceleration below 1 m/s², TTC above 4 s."""
    ttc = time_to_collision(trace.gap_m[:-1], trace.closing_speed_mps[:-1])
    return (trace.required_decel_mps2[:-1] < CALM_REQUIRED_DECEL_MPS2) & (ttc > CALM_TTC_S)


def hazard_begins(trace: EpisodeTrace) -> int:
    """Step from which the hazard calls for an answer; the number of steps where none does.

    A braking peer does from its onset on. A car that stands there from t = 0 far ahead does once the truth asks for
    braking.
    """
    if trace.hazard_kind == HazardKind.NONE:
        return trace.num_steps
    if trace.hazard_kind == HazardKind.EMERGENCY_BRAKE:
        return min(trace.onset_step, trace.num_steps)
    needed = ~_needless(trace)
    return int(needed.argmax()) if needed.any() else trace.num_steps


def calm(trace: EpisodeTrace) -> NDArray[np.bool_]:
    """Which decisions nothing called for, [T].

    No hazard calls for an answer (:func:`hazard_begins`), the required deceleration is below 1 m/s² and the time to
    collision above 4 s. After a hazard was released a step is calm again only once the driver looks.
    """
    steps = np.arange(trace.num_steps)
    inattentive = (steps >= trace.inattentive_from) & (steps < trace.attentive_from)
    quiet = (steps < hazard_begins(trace)) | ((steps >= trace.over_step) & ~inattentive)
    return quiet & _needless(trace)


def false_brakes(trace: EpisodeTrace) -> tuple[int, int, int]:
    """(events, calm steps, calm steps with a demand of at least 0.15 g)."""
    quiet, braking = calm(trace), trace.demand_mps2 >= FALSE_BRAKE_MPS2
    return int((rises(braking) & quiet).sum()), int(quiet.sum()), int((braking & quiet).sum())


class Reaction(NamedTuple):
    """When the assistant began to brake for a hazard."""

    braking_at_onset: bool
    """It braked already at the step before the hazard's beginning, and at that step too."""
    from_onset_s: float
    """To the first step from the hazard's beginning on, and not calm, at which its request rises above the dead band to
    an answer; NaN where there is none."""
    from_reception_s: float
    """The same from the first beacon that tells of the hazard on; NaN where none was heard."""


def reaction(trace: EpisodeTrace) -> Reaction:
    """How the assistant answered to the hazard of an episode.

    Braking that was on before is no answer, and neither is one that begins in a calm step, after the hazard, or a
    flicker: a request that stays above the dead band for less than 0.3 s and never reaches 0.15 g.
    """
    begins = hazard_begins(trace)
    asked = trace.demand_mps2 >= DEAD_BAND * MAX_BRAKE_MPS2
    braking_at_onset = 0 < begins < trace.num_steps and bool(asked[begins - 1] and asked[begins])
    risen = np.flatnonzero((_answers(trace, asked) & ~calm(trace))[begins:])
    if len(risen) == 0:
        return Reaction(braking_at_onset, math.nan, math.nan)
    heard = np.flatnonzero(trace.target_heard)
    since_heard = begins + int(risen[0]) - max(int(heard[0]), begins) if len(heard) else math.nan
    return Reaction(braking_at_onset, int(risen[0]) * STEP_S, since_heard * STEP_S)


def _answers(trace: EpisodeTrace, asked: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """At which decisions a request begins that is an answer: held for 0.3 s, or strong, or cut off by the end, [T]."""
    found = np.zeros(len(asked), np.bool_)
    for begin in np.flatnonzero(rises(asked)).tolist():
        ends = np.flatnonzero(~asked[begin:])
        end = begin + int(ends[0]) if len(ends) else len(asked)
        strong = trace.demand_mps2[begin:end].max() >= FALSE_BRAKE_MPS2
        found[begin] = strong or end == len(asked) or end - begin >= ANSWER_STEPS
    return found


def _rss_deficit(trace: EpisodeTrace) -> NDArray[np.float64]:
    """How much the gap falls short of the RSS distance [m] at every moment with a car ahead, at least 0."""
    led = np.flatnonzero(trace.leader >= 0)
    safe_m = rss_distance(trace.speed_mps[led, EGO], trace.speed_mps[led, trace.leader[led]])
    short: NDArray[np.float64] = np.maximum(safe_m - trace.gap_m[led], 0.0)
    return short


def _peak_added(trace: EpisodeTrace) -> float:
    """Most that the demand exceeds the driver's own braking in a calm step [m/s²], at least 0."""
    added = trace.demand_mps2 - np.maximum(-trace.driver_accel_mps2, 0.0)
    return float(np.maximum(added[calm(trace)], 0.0).max(initial=0.0))


def _head_to_tail_gain(trace: EpisodeTrace) -> float:
    ahead = trace.alive[0] & (trace.position_m[0] > trace.position_m[0, EGO])
    if not ahead.any():
        return math.nan
    head = int(np.where(ahead, trace.position_m[0], -np.inf).argmax())
    whole = trace.alive[:, head]
    varied = float(trace.speed_mps[whole, head].std())
    return float(trace.speed_mps[whole, EGO].std()) / varied if varied > 0.1 else math.nan


def measure(trace: EpisodeTrace) -> EpisodeMetrics:
    """All metrics of one episode."""
    events, calm_steps, calm_braking = false_brakes(trace)
    answer = reaction(trace)
    touched = is_termination(trace.end_reason)
    moved_m = np.diff(trace.position_m[:, EGO])
    speed, accel = trace.speed_mps[:, EGO], trace.accel_mps2[:, EGO]
    driving = (speed > 1.0) & np.isfinite(trace.gap_m)
    beacons = int(trace.beacons_received.sum() + trace.beacons_lost.sum())
    ages = trace.age_s[:, 1:][~np.isnan(trace.age_s[:, 1:])]
    jerk = np.abs(np.diff(accel)) / STEP_S
    ttc = time_to_collision(trace.gap_m, trace.closing_speed_mps)
    drac = decel_to_avoid_crash(trace.gap_m, trace.closing_speed_mps)
    mdrac = modified_decel_to_avoid_crash(trace.gap_m, trace.closing_speed_mps)
    deficit = _rss_deficit(trace)
    time_gap = trace.gap_m[driving] / speed[driving]
    return EpisodeMetrics(
        scenario_id=trace.scenario_id,
        seed=trace.seed,
        num_peers=trace.num_peers,
        steps=trace.num_steps,
        distance_km=float(trace.position_m[-1, EGO] - trace.position_m[0, EGO]) / 1000.0,
        total_reward=float(trace.reward.sum()),
        end_reason=EndReason(trace.end_reason).name.lower(),
        valid=trace.end_reason != EndReason.PEER_CONTACT,
        collision=trace.end_reason == EndReason.COLLISION,
        rear_contact=trace.end_reason == EndReason.REAR_CONTACT,
        impact_speed_mps=trace.impact_speed_mps if touched else math.nan,
        truncated=is_truncation(trace.end_reason),
        failure=trace.failure,
        min_ttc_s=float(ttc.min()),
        min_gap_m=float(trace.gap_m.min()),
        max_required_decel_mps2=float(trace.required_decel_mps2.max()),
        tet_s=time_exposed(ttc),
        tit_s2=time_integrated(ttc),
        max_drac_mps2=float(drac.max()),
        drac_share=float((drac > DRAC_LIMIT_MPS2).mean()),
        max_mdrac_mps2=float(mdrac.max()),
        mdrac_share=float((mdrac > DRAC_LIMIT_MPS2).mean()),
        rss_deficit_share=float((deficit > 0.0).mean()) if len(deficit) else math.nan,
        max_rss_deficit_m=float(deficit.max()) if len(deficit) else math.nan,
        min_time_gap_s=float(time_gap.min()) if len(time_gap) else math.nan,
        hard_brakes_3=int(rises(accel < -HARD_BRAKE_LEVELS_MPS2[0]).sum()),
        hard_brakes_4_5=int(rises(accel < -HARD_BRAKE_LEVELS_MPS2[1]).sum()),
        hazard_kind=HazardKind(trace.hazard_kind).name.lower(),
        hazard_rank=trace.hazard_rank,
        hazard_happened=hazard_happened(trace),
        false_brakes=events,
        calm_steps=calm_steps,
        calm_braking_steps=calm_braking,
        calm_distance_km=float(moved_m[calm(trace)].sum()) / 1000.0,
        peak_added_decel_mps2=_peak_added(trace),
        hazard_called=hazard_begins(trace) < trace.num_steps,
        braking_at_onset=answer.braking_at_onset,
        reacted=not math.isnan(answer.from_onset_s),
        reaction_from_onset_s=answer.from_onset_s,
        reaction_from_reception_s=answer.from_reception_s,
        jerk_p95_mps3=float(np.percentile(jerk, 95)) if len(jerk) else math.nan,
        jerk_share=float((jerk > jerk_limit(speed[:-1])).mean()) if len(jerk) else math.nan,
        mean_time_gap_s=float(time_gap.mean()) if len(time_gap) else math.nan,
        head_to_tail_gain=_head_to_tail_gain(trace),
        delivery_ratio=float(trace.beacons_received.sum() / beacons) if beacons else math.nan,
        age_p95_s=float(np.percentile(ages, 95)) if len(ages) else math.nan,
    )


COLUMNS = tuple(field.name for field in dataclasses.fields(EpisodeMetrics))
"""Columns of ``episodes.csv``, after ``policy``."""
