"""Surrogate safety measures: how close an episode came to a contact that it did not have, as functions of arrays.

All are of V001 and the next car ahead: gap [m], closing speed (own speed minus the leader's) [m/s], each [T].
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from roadsense.traffic.base import STEP_S

Array = NDArray[np.float64]

TTC_THRESHOLD_S = 3.0
"""Time to collision below which exposure counts [s]."""

TTC_LEVELS_S = (1.0, 1.5, 3.0)
"""Times to collision that episodes are counted below [s]."""

DRAC_LIMIT_MPS2 = 3.4
"""Deceleration to avoid a crash that a driver is expected to manage [m/s²]. Source: AASHTO; Archer (2005)."""

PERCEPTION_REACTION_S = 1.0
"""Perception and reaction time that MDRAC grants [s]."""

MOST_DECEL_MPS2 = 20.0
"""Cap of decelerations: no car brakes harder, and in contact none would help [m/s²]."""

HARD_BRAKE_LEVELS_MPS2 = (3.0, 4.5)
"""Own decelerations whose exceedances are counted as hard braking [m/s²]."""

_JERK_AT_MPS = (5.0, 20.0)
_JERK_LIMIT_MPS3 = (5.0, 2.5)


def time_to_collision(gap_m: Array, closing_speed_mps: Array) -> Array:
    """Gap over closing speed [s]: 0 in contact, infinite while the gap does not shrink; shape of the arguments."""
    closing = closing_speed_mps > 0.0
    left_m = np.maximum(gap_m, 0.0)
    ttc: Array = np.where(closing, left_m / np.where(closing, closing_speed_mps, 1.0), np.inf)
    return np.where(left_m > 0.0, ttc, 0.0)


def time_exposed(ttc_s: Array) -> float:
    """TET: time spent below ``TTC_THRESHOLD_S`` [s]. Source: Minderhoud and Bovy, Accid. Anal. Prev. 33 (2001)."""
    return float((ttc_s < TTC_THRESHOLD_S).sum()) * STEP_S


def time_integrated(ttc_s: Array) -> float:
    """TIT: how far below ``TTC_THRESHOLD_S``, summed over time [s²]. Source as for :func:`time_exposed`."""
    return float(np.maximum(TTC_THRESHOLD_S - ttc_s, 0.0).sum()) * STEP_S


def decel_to_avoid_crash(gap_m: Array, closing_speed_mps: Array) -> Array:
    """DRAC: Δv²/(2·gap) [m/s²], 0 while the gap does not shrink, at most 20. Source: Almqvist et al. (1991)."""
    closing = np.maximum(closing_speed_mps, 0.0)
    needed = np.where(gap_m > 0.0, closing**2 / (2.0 * np.where(gap_m > 0.0, gap_m, 1.0)), MOST_DECEL_MPS2)
    capped: Array = np.minimum(needed, MOST_DECEL_MPS2)
    return np.where(closing > 0.0, capped, 0.0)


def modified_decel_to_avoid_crash(gap_m: Array, closing_speed_mps: Array) -> Array:
    """MDRAC: Δv/(2·(TTC − PRT)) [m/s²], DRAC of a driver who answers late; at most 20, also where TTC ≤ PRT.

    Source: Saccomanno et al., Transp. Res. Rec. 2083 (2008).
    """
    closing = np.maximum(closing_speed_mps, 0.0)
    left_s = time_to_collision(gap_m, closing_speed_mps) - PERCEPTION_REACTION_S
    needed = np.where(left_s > 0.0, closing / (2.0 * np.where(left_s > 0.0, left_s, 1.0)), MOST_DECEL_MPS2)
    capped: Array = np.minimum(needed, MOST_DECEL_MPS2)
    return np.where(closing > 0.0, capped, 0.0)


def jerk_limit(speed_mps: Array) -> Array:
    """Comfortable jerk [m/s³]: 5 up to 5 m/s, 2.5 from 20 m/s on, linear between. Source: ISO 15622."""
    limit: Array = np.interp(speed_mps, _JERK_AT_MPS, _JERK_LIMIT_MPS3)
    return limit


def rises(flags: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Where a flag is set that was not set a step before."""
    return flags & ~np.concatenate([[False], flags[:-1]])
