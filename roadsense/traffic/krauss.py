"""Krauss car following as SUMO computes it, to the bit: Euler steps of 0.1 s, every operation in SUMO's order.

The formulas are those of S. Krauß, "Microscopic Modeling of Traffic Flow" (1998), in the discrete form of SUMO 1.28: a
car stops within a whole number of steps, brakes harder than its ``decel`` only where it must, and dawdles by a random
share of its acceleration.
"""

from __future__ import annotations

import math

import numpy as np

from roadsense.jit import kernel
from roadsense.traffic.base import STEP_S

EPSILON = 0.001
"""SUMO's NUMERICAL_EPS: slack of distances [m], speeds [m/s] and decelerations [m/s²]."""

EMERGENCY_AMPLIFIER = 1.2
"""How much harder than needed a car brakes in an emergency."""

STANDSTILL_MPS = 0.1 * EPSILON * STEP_S
"""Speeds up to here are 0 [m/s]."""

LAW_DTYPE = np.dtype(
    [
        ("accel_mps2", np.float64),
        ("decel_mps2", np.float64),
        ("emergency_decel_mps2", np.float64),
        ("apparent_decel_mps2", np.float64),
        ("tau_s", np.float64),
        ("min_gap_m", np.float64),
        ("sigma", np.float64),
        ("length_m", np.float64),
        ("max_speed_mps", np.float64),
        ("speed_factor", np.float64),
    ],
    align=True,
)
"""A car's own constants, named as the attributes of a SUMO vType."""


@kernel
def brake_gap(speed, decel, headway_s):
    """Distance [m] a car needs to stop in whole steps of ``decel`` [m/s²], after ``headway_s`` at its speed [m/s]."""
    reduction = decel * STEP_S
    steps = math.trunc(speed / reduction)
    return (steps * speed - reduction * steps * (steps + 1) / 2) * STEP_S + speed * headway_s


@kernel
def safe_stop_speed(gap, decel, headway_s):
    """Highest speed [m/s] from which a car stops within ``gap`` [m], reacting ``headway_s`` late."""
    g = gap - EPSILON
    if g < 0.0:
        return 0.0
    b = decel * STEP_S
    t = headway_s
    root = math.sqrt((STEP_S * STEP_S) + (4.0 * ((STEP_S * (2.0 * g / b - t)) + (t * t))))
    n = math.floor(0.5 - ((t + (root * -0.5)) / STEP_S))
    h = 0.5 * n * (n - 1) * b * STEP_S + n * b * t
    return n * b + (g - h) / (n * STEP_S + t)


@kernel
def required_emergency_decel(car, gap, speed, lead_speed, lead_decel):
    """Deceleration [m/s²] that just avoids the car ahead, should that one brake with ``lead_decel`` [m/s²]."""
    if gap <= 0.0:
        return car.emergency_decel_mps2
    lead_brakes_m = 0.5 * lead_speed * lead_speed / lead_decel
    gentle = 0.5 * speed * speed / (gap + lead_brakes_m)
    if gentle <= lead_decel:
        return gentle
    return 0.5 * (speed * speed - lead_speed * lead_speed) / gap


@kernel
def safe_follow_speed(car, gap, speed, lead_speed, lead_decel):
    """Highest speed [m/s] at which a car can stop behind the one ahead.

    Args:
        car: of ``LAW_DTYPE``.
        gap: between bumpers, less the car's minimum gap [m].
        speed: own speed [m/s].
        lead_speed: of the car ahead [m/s].
        lead_decel: how hard that one seems to be able to brake [m/s²].
    """
    if gap >= 0.0:
        ahead_m = gap + brake_gap(lead_speed, max(car.decel_mps2, lead_decel), 0.0)
        safe = safe_stop_speed(ahead_m, car.decel_mps2, car.tau_s)
    else:
        safe = max(speed - car.emergency_decel_mps2 * STEP_S, 0.0)
    if car.decel_mps2 != car.emergency_decel_mps2:
        asked = (speed - safe) / STEP_S
        if asked > car.decel_mps2 + EPSILON:
            needed = EMERGENCY_AMPLIFIER * required_emergency_decel(car, gap, speed, lead_speed, lead_decel)
            needed = min(max(needed, car.decel_mps2), asked)
            safe = max(speed - needed * STEP_S, 0.0)
    return safe


@kernel
def free_speed(distance, target, decel):
    """Highest speed [m/s] from which a car slows to ``target`` [m/s] within ``distance`` [m], in whole steps."""
    v = target * STEP_S
    if distance < v:
        return target
    b = decel * STEP_S * STEP_S
    y = max(0.0, ((math.sqrt((b + 2.0 * v) * (b + 2.0 * v) + 8.0 * b * distance) - b) * 0.5 - v) / b)
    full = math.floor(y)
    exact = (full * full + full) * 0.5 * b + full * v + (v if y > full else 0.0)
    return max(0.0, distance - exact) / (full + 1.0) / STEP_S + full * (decel * STEP_S) + target


@kernel
def fastest_next(car, speed):
    """Speed [m/s] a step later at full acceleration."""
    return min(speed + car.accel_mps2 * STEP_S, car.max_speed_mps)


@kernel
def slowest_next(car, speed):
    """Speed [m/s] a step later at comfortable braking."""
    return max(speed - car.decel_mps2 * STEP_S, 0.0)


@kernel
def limit_for(car, limit):
    """Speed [m/s] a car drives where the lane allows ``limit`` [m/s]."""
    return min(car.max_speed_mps, limit * car.speed_factor)


@kernel
def dawdled(speed, accel, sigma, random):
    """Speed [m/s] less what the driver dawdles: SUMO compares a speed with an acceleration here, and so must we."""
    if speed < accel:
        return max(0.0, speed - sigma * speed * random * STEP_S)
    return max(0.0, speed - sigma * accel * random * STEP_S)


@kernel
def next_speed(car, speed, safe, limit, random):
    """Speed [m/s] of a car that drives on its own, a step later.

    Args:
        car: of ``LAW_DTYPE``.
        speed: now [m/s].
        safe: highest that traffic and limits ahead allow [m/s].
        limit: what it drives on its lane, see :func:`limit_for` [m/s].
        random: from its lane's stream, in [0, 1).
    """
    hardest = max(speed - car.emergency_decel_mps2 * STEP_S, 0.0)
    lowest = min(slowest_next(car, speed), max(safe, hardest))
    most = (max(limit, safe) - speed) / STEP_S
    highest = max(lowest, min(speed + most * STEP_S, fastest_next(car, speed), safe))
    return max(lowest, dawdled(highest, car.accel_mps2, car.sigma, random))
