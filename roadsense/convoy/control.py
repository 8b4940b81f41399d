"""From the policy's action to the ego's next speed: request, driver, actuator, limits; and the steered peers."""

from __future__ import annotations

import math

from roadsense.convoy.driver import driver_accel, is_attentive
from roadsense.convoy.world import Control
from roadsense.jit import kernel
from roadsense.traffic.base import EGO, STEP_S

MAX_BRAKE_MPS2 = 8.0
"""Deceleration at full request [m/s²]."""

DEAD_BAND = 0.05
"""Requests below this leave the driver alone; from here on the assistant "brakes"."""

ACTUATOR_LAG_S = 0.2
"""Time constant of the first-order actuator [s]."""

HOLD_BELOW_MPS = 1.0
"""Auto-hold takes a car that was braked below this speed under an inattentive driver [m/s]."""

HOLD_DECEL_MPS2 = 3.0
"""With this much the car is brought to, and kept at, a standstill by auto-hold [m/s²]."""

RAMP_STEPS = 3
"""A braking peer reaches its deceleration within this many steps."""


def action_bounds(control: str) -> tuple[float, float]:
    """Lowest and highest action under ``control``: [0, 1] for ``"brake"``, [-1, 1] for ``"acceleration"``."""
    return (0.0, 1.0) if control == "brake" else (-1.0, 1.0)


_LAG_FACTOR = 1.0 - math.exp(-STEP_S / ACTUATOR_LAG_S)
_BRAKE = int(Control.BRAKE)


@kernel
def requested_decel(action, control):
    """Deceleration the policy asks for [m/s²], 0 where it asks for none.

    ``action`` lies within :func:`action_bounds` of ``control``, a value of :class:`Control`.
    """
    if control == _BRAKE:
        return MAX_BRAKE_MPS2 * action if action >= DEAD_BAND else 0.0
    return max(0.0, -MAX_BRAKE_MPS2 * action)


@kernel
def commanded_accel(world, action, control, driver):
    """Acceleration asked of the actuator [m/s²]: the policy's and the driver's wishes combined.

    Under ``brake`` the harder of both brakes. Under ``acceleration`` the policy drives alone; -1 is full braking, 0 no
    acceleration, +1 the vehicle's full acceleration.

    Args:
        world: its record.
        action: within :func:`action_bounds`.
        control: a value of :class:`Control`.
        driver: the driver's wish [m/s²].
    """
    if control != _BRAKE:
        return MAX_BRAKE_MPS2 * action if action < 0.0 else world.max_accel_mps2 * action
    if action >= DEAD_BAND:
        return min(driver, -MAX_BRAKE_MPS2 * action)
    return driver


@kernel
def auto_hold(world, speed, accel):
    """Acceleration [m/s²] that keeps a car at a standstill which the assistant braked while the driver does not look.

    Takes its speed [m/s] and the acceleration [m/s²] that was asked for.
    """
    if is_attentive(world):
        world.held = False
    elif world.demand_mps2 > 0.0 and speed < HOLD_BELOW_MPS:
        world.held = True
    return min(accel, -HOLD_DECEL_MPS2) if world.held else accel


@kernel
def actuate(world, speed, accel):
    """Next speed [m/s] after the first-order actuator and the vehicle's limits, from speed [m/s] and wish [m/s²]."""
    accel = min(max(accel, -MAX_BRAKE_MPS2), world.max_accel_mps2)
    world.actuator_accel_mps2 += _LAG_FACTOR * (accel - world.actuator_accel_mps2)
    faster = speed + world.actuator_accel_mps2 * STEP_S
    if faster <= 0.0:
        world.actuator_accel_mps2 = max(world.actuator_accel_mps2, 0.0)  # a standing car stores up no braking
        return 0.0
    return min(faster, max(world.max_speed_mps, speed))


@kernel
def steer_ego(world, traffic, routes, targets, w, action, control):
    """Decides the next speed of world ``w``'s ego for an action within :func:`action_bounds`."""
    speed = traffic.speed_mps[w, EGO]
    driver = driver_accel(world, traffic, routes, w) if control == _BRAKE else 0.0
    world.action = action
    world.driver_accel_mps2 = driver
    world.demand_mps2 = requested_decel(action, control)
    accel = commanded_accel(world, action, control, driver)
    if control == _BRAKE:
        accel = auto_hold(world, speed, accel)
    targets.next_speed_mps[w, EGO] = actuate(world, speed, accel)
    targets.steered[w, EGO] = True


@kernel
def steer_peers(world, traffic, targets, w):
    """Applies the episode's brakings and its wave, and the stated speeds where they are held until the onset."""
    holds = world.hold_until_onset and world.step < world.onset_step
    for car in range(1, traffic.alive.shape[1]):
        targets.steered[w, car] = holds and traffic.alive[w, car]
        targets.next_speed_mps[w, car] = targets.stated_speed_mps[w, car]
    swinging = world.wave_target
    if swinging > EGO and traffic.alive[w, swinging]:
        phase = 2.0 * math.pi * world.wave_hz * (world.step + 1) * STEP_S
        swung = targets.stated_speed_mps[w, swinging] - world.wave_amplitude_mps * (1.0 - math.cos(phase))
        targets.steered[w, swinging], targets.next_speed_mps[w, swinging] = True, max(0.0, swung)
    for event in range(world.num_events):
        car = world.event_target[event]
        since = world.step - world.event_start[event]
        if since < 0 or world.step >= world.event_end[event] or not traffic.alive[w, car]:
            continue
        decel = world.event_decel_mps2[event] * min(1.0, (since + 1) / RAMP_STEPS)
        targets.steered[w, car] = True
        targets.next_speed_mps[w, car] = max(0.0, traffic.speed_mps[w, car] - decel * STEP_S)
