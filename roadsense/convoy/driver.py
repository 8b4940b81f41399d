"""The human in V001: car following on a late view of the truth, an emergency response, and inattention."""

from __future__ import annotations

import math

from roadsense.convoy.truth import STANDSTILL_M, required_decel
from roadsense.convoy.world import HISTORY
from roadsense.jit import kernel
from roadsense.traffic.base import EGO, STEP_S

IDM_DECEL_MPS2 = 4.5
"""Comfortable deceleration b of the IDM [m/s²]."""

LIMIT_DECEL_MPS2 = 2.0
"""How hard the driver slows for a lower speed limit ahead [m/s²]."""

LOOK_AHEAD_M = 250.0
"""How far ahead the driver reads speed limits [m]."""

RISK_DECEL_MPS2 = 3.0
"""Required deceleration behind the leader at which the driver perceives a risk [m/s²]."""

PERCEPTION_AND_REACTION_S = 0.4 + 0.75
EMERGENCY_DECEL_MPS2 = 0.774 * 9.81
EMERGENCY_JERK_MPS3 = 12.65
"""UN R157, performance model of a competent human driver: perception and reaction time, deceleration and jerk."""


@kernel
def look(world, traffic, w):
    """Stores what there is to see now; the driver answers to it one reaction time later."""
    slot = world.step % HISTORY
    world.seen_gap_m[slot] = world.gap_m
    leader = world.leader
    world.seen_lead_speed_mps[slot] = traffic.speed_mps[w, leader] if leader >= 0 else 0.0


@kernel
def desired_speed(routes, route, position, speed_factor):
    """Speed the driver would like on a free road [m/s]: the limit here, eased toward lower limits ahead.

    Args:
        routes: table of all routes.
        route: which of them.
        position: along it [m].
        speed_factor: desired speed in units of the limit.
    """
    first, last = routes.first_limit[route], routes.first_limit[route + 1]
    desired = routes.limit_mps[first] * speed_factor
    for piece in range(first, last):
        start, limit = routes.limit_from_s_m[piece], routes.limit_mps[piece] * speed_factor
        if start <= position:
            desired = limit
        elif start < position + LOOK_AHEAD_M:
            desired = min(desired, math.sqrt(limit * limit + 2.0 * LIMIT_DECEL_MPS2 * (start - position)))
        else:
            break
    return desired


@kernel
def idm(speed, desired, gap, closing, max_accel, headway, min_gap):
    """Intelligent Driver Model [m/s²]: a[1 − (v/v0)⁴ − (s*/g)²], s* = s0 + max(0, vT + vΔv/(2√(ab))).

    The free-road term is floored at the deceleration a driver uses for a lower limit, or passing a sign would be an
    emergency stop. Source: Treiber, Hennecke, Helbing, Phys. Rev. E 62 (2000).

    Args:
        speed: own speed v [m/s].
        desired: speed v0 on a free road [m/s].
        gap: g, bumper to bumper [m]; infinite without a leader.
        closing: Δv, own speed minus the leader's [m/s].
        max_accel: a [m/s²].
        headway: T [s].
        min_gap: s0 [m].
    """
    free = 1.0 - (speed / max(desired, 0.1)) ** 4
    free = max(free, -LIMIT_DECEL_MPS2 / max_accel)
    if math.isinf(gap):
        return max_accel * free
    wanted = min_gap + max(0.0, speed * headway + speed * closing / (2.0 * math.sqrt(max_accel * IDM_DECEL_MPS2)))
    ratio = wanted / max(gap, 0.1)
    return max_accel * (free - ratio * ratio)


@kernel
def emergency_response(risk_s, speed, gap, lead_speed, lead_accel):
    """Advances a careful human's perception of risk by a step (UN R157, performance model of the human driver).

    Args:
        risk_s: how long there has been a risk that calls for emergency braking [s].
        speed: own speed [m/s].
        gap: to the car ahead [m]; infinite without one.
        lead_speed: of the car ahead [m/s]; without one the own speed.
        lead_accel: of the car ahead [m/s²]; without one 0.

    Returns:
        ``risk_s`` a step later, and the acceleration that the human allows at most [m/s²]; infinite before he answers.
    """
    needed = required_decel(speed, lead_speed, lead_accel, gap - STANDSTILL_M)
    answering = risk_s > PERCEPTION_AND_REACTION_S and (speed > lead_speed or needed > 1.0)
    risk_s = risk_s + STEP_S if needed > RISK_DECEL_MPS2 or answering else 0.0
    since = risk_s - PERCEPTION_AND_REACTION_S
    return risk_s, -min(EMERGENCY_DECEL_MPS2, EMERGENCY_JERK_MPS3 * since) if since > 0.0 else math.inf


@kernel
def emergency_accel(world, traffic, w):
    """Advances the driver's perception of risk by a step and returns the acceleration it allows at most."""
    speed, leader = traffic.speed_mps[w, EGO], world.leader
    lead_speed, lead_accel = speed, 0.0
    if leader >= 0:
        lead_speed, lead_accel = traffic.speed_mps[w, leader], traffic.accel_mps2[w, leader]
    world.risk_s, accel = emergency_response(world.risk_s, speed, world.gap_m, lead_speed, lead_accel)
    return accel


@kernel
def is_attentive(world):
    return world.step < world.inattentive_from or world.step >= world.attentive_from


@kernel
def driver_accel(world, traffic, routes, w):
    """The driver's wish [m/s²] at this step. Inattentive, he holds the pedal: 0, never regaining speed."""
    if not is_attentive(world):
        world.risk_s = 0.0
        return 0.0
    if world.hold_until_onset and world.step < world.onset_step:
        return 0.0
    seen = max(world.step - world.reaction_steps, 0) % HISTORY
    speed = traffic.speed_mps[w, EGO]
    desired = desired_speed(routes, routes.index[w], traffic.position_m[w, EGO], world.driver_speed_factor)
    following = idm(
        speed, desired, world.seen_gap_m[seen], speed - world.seen_lead_speed_mps[seen],
        world.max_accel_mps2, world.driver_headway_s, world.driver_min_gap_m,
    )  # fmt: skip
    return min(following, emergency_accel(world, traffic, w))
