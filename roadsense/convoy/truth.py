"""Ground truth of a world: leader, gap, required deceleration, contact. Reward, metrics and oracle read these."""

from __future__ import annotations

from roadsense.jit import kernel
from roadsense.traffic.base import EGO

STANDSTILL_M = 2.0
"""Gap that braking shall leave [m]."""

CAR_SPACING_M = 7.5
"""Room taken by each car that stands between the ego and a car further ahead: length and minimum gap [m]."""

BRAKING_MPS2 = 0.5
"""A lead that decelerates by more than this is taken to brake to a standstill [m/s²]."""

REQUIRED_DECEL_LIMIT_MPS2 = 20.0
"""Cap of the required deceleration: no car can brake harder, so larger values say nothing more [m/s²]."""


@kernel
def required_decel(speed, lead_speed, lead_accel, room):
    """Constant deceleration [m/s²] with which the ego just does not reach a car ahead.

    Args:
        speed: of the ego [m/s].
        lead_speed: of the car ahead [m/s].
        lead_accel: of the car ahead [m/s²].
        room: distance that may be used up [m].

    Returns:
        The larger of Δv²/(2·room), for a lead that keeps its speed, and v²/(2·(room + v_l²/(2|a_l|))), for one that
        brakes to a standstill (standing cars included); between 0 and 20 m/s².
    """
    needed = 0.0
    closing = speed - lead_speed
    if closing > 0.0:
        needed = closing * closing / (2.0 * room) if room > 0.0 else REQUIRED_DECEL_LIMIT_MPS2
    if lead_accel < -BRAKING_MPS2 and speed > 0.0:
        total = room + lead_speed * lead_speed / (-2.0 * lead_accel)
        to_stop = speed * speed / (2.0 * total) if total > 0.0 else REQUIRED_DECEL_LIMIT_MPS2
        needed = max(needed, to_stop)
    return min(needed, REQUIRED_DECEL_LIMIT_MPS2)


@kernel
def find_leader(traffic, w):
    """Column of the next car ahead of the ego on its route, or -1."""
    own = traffic.position_m[w, EGO]
    leader = -1
    for car in range(1, traffic.alive.shape[1]):
        if not (traffic.alive[w, car] and traffic.on_route[w, car]) or traffic.position_m[w, car] <= own:
            continue
        if leader < 0 or traffic.position_m[w, car] < traffic.position_m[w, leader]:
            leader = car
    return leader


@kernel
def bumper_gap(traffic, w, car, lead):
    """Distance from the front bumper of ``car`` to the rear bumper of ``lead`` along the route [m]."""
    return traffic.position_m[w, lead] - traffic.length_m[w, lead] - traffic.position_m[w, car]


@kernel
def cars_between(traffic, w, lead):
    """How many cars stand on the route between the ego and ``lead``."""
    own, far = traffic.position_m[w, EGO], traffic.position_m[w, lead]
    count = 0
    for car in range(1, traffic.alive.shape[1]):
        if traffic.alive[w, car] and traffic.on_route[w, car] and own < traffic.position_m[w, car] < far:
            count += 1
    return count


@kernel
def required_decel_of_all(traffic, w):
    """Required deceleration of the ego over all cars ahead of it [m/s²]; each car between takes its room."""
    speed = traffic.speed_mps[w, EGO]
    needed = 0.0
    for car in range(1, traffic.alive.shape[1]):
        if not (traffic.alive[w, car] and traffic.on_route[w, car]):
            continue
        if traffic.position_m[w, car] <= traffic.position_m[w, EGO]:
            continue
        room = bumper_gap(traffic, w, EGO, car) - CAR_SPACING_M * cars_between(traffic, w, car) - STANDSTILL_M
        needed = max(needed, required_decel(speed, traffic.speed_mps[w, car], traffic.accel_mps2[w, car], room))
    return needed


@kernel
def peers_touch(traffic, w):
    """True where two peers of the route overlap: the traffic itself crashed, which invalidates the episode."""
    cars = traffic.alive.shape[1]
    for car in range(1, cars):
        if not (traffic.alive[w, car] and traffic.on_route[w, car]):
            continue
        for lead in range(1, cars):
            if lead == car or not (traffic.alive[w, lead] and traffic.on_route[w, lead]):
                continue
            ahead = traffic.position_m[w, lead] > traffic.position_m[w, car]
            if ahead and bumper_gap(traffic, w, car, lead) <= 0.0:
                return True
    return False


@kernel
def refresh_truth(world, traffic, w):
    """Writes leader, gap, closing speed, required deceleration and hazard phase of one world into its record."""
    leader = find_leader(traffic, w)
    world.leader = leader
    if leader >= 0:
        world.gap_m = bumper_gap(traffic, w, EGO, leader)
        world.closing_speed_mps = traffic.speed_mps[w, EGO] - traffic.speed_mps[w, leader]
    else:
        world.gap_m = float("inf")
        world.closing_speed_mps = 0.0
    world.required_decel_mps2 = required_decel_of_all(traffic, w)
    if world.step < world.onset_step:
        world.hazard_phase = 0
    elif world.step < world.over_step:
        world.hazard_phase = 1
    else:
        world.hazard_phase = 2
