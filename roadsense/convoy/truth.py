"""Ground truth of a world: leader, gap, required deceleration, contact. Reward, metrics and oracle read these.

Which cars are ahead is carried from step to step in ``side`` [world, car]: 1 ahead of the ego on its route, -1 behind,
0 elsewhere, a step ago. A short car that the ego drove through within one step is then still the car it hit.
"""

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


CLOSE_BY_M = 10.0
"""No two cars get further past each other than this within one step [m]."""


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
def in_the_way(traffic, w, car):
    """True where a car, or the tail of one that is turning off, stands on the ego's route."""
    if not traffic.alive[w, car]:
        return False
    return traffic.on_route[w, car] or traffic.position_m[w, car] - traffic.length_m[w, car] < traffic.leaves_m[w, car]


@kernel
def reach_m(traffic, w, car):
    """How far along the ego's route a car reaches [m]: to its front bumper, or to where it turned off."""
    if traffic.on_route[w, car]:
        return traffic.position_m[w, car]
    return min(traffic.position_m[w, car], traffic.leaves_m[w, car])


@kernel
def side_of_ego(traffic, w, car, before):
    """Where ``car`` is: 1 ahead of the ego on its route, -1 behind, 0 elsewhere.

    A car close by keeps the side it had a step ago (``before``): on one lane nobody gets past but through another.
    """
    if not in_the_way(traffic, w, car):
        return 0
    ahead_m = reach_m(traffic, w, car) - traffic.position_m[w, EGO]
    if before != 0 and abs(ahead_m) < CLOSE_BY_M:
        return before
    return 1 if ahead_m > 0.0 else -1


@kernel
def find_leader(traffic, w, side):
    """Column of the next car ahead of the ego on its route, or -1."""
    leader = -1
    for car in range(1, traffic.alive.shape[1]):
        if side_of_ego(traffic, w, car, side[w, car]) <= 0:
            continue
        if leader < 0 or reach_m(traffic, w, car) < reach_m(traffic, w, leader):
            leader = car
    return leader


@kernel
def find_follower(traffic, w, side):
    """Column of the next car behind the ego on its route, or -1."""
    follower = -1
    for car in range(1, traffic.alive.shape[1]):
        if not traffic.on_route[w, car] or side_of_ego(traffic, w, car, side[w, car]) >= 0:
            continue  # whose front is elsewhere runs into nobody here
        if follower < 0 or traffic.position_m[w, car] > traffic.position_m[w, follower]:
            follower = car
    return follower


@kernel
def bumper_gap(traffic, w, car, lead):
    """Distance from the front bumper of ``car`` to the rear bumper of ``lead`` along the route [m]."""
    return traffic.position_m[w, lead] - traffic.length_m[w, lead] - traffic.position_m[w, car]


@kernel
def cars_between(traffic, w, lead):
    """How many cars stand on the route between the ego and ``lead``."""
    own, far = traffic.position_m[w, EGO], reach_m(traffic, w, lead)
    count = 0
    for car in range(1, traffic.alive.shape[1]):
        if in_the_way(traffic, w, car) and own < reach_m(traffic, w, car) < far:
            count += 1
    return count


@kernel
def required_decel_of_all(traffic, w, side):
    """Required deceleration of the ego over all cars ahead of it [m/s²]; each car between takes its room."""
    speed = traffic.speed_mps[w, EGO]
    needed = 0.0
    for car in range(1, traffic.alive.shape[1]):
        if side_of_ego(traffic, w, car, side[w, car]) <= 0:
            continue
        room = bumper_gap(traffic, w, EGO, car) - CAR_SPACING_M * cars_between(traffic, w, car) - STANDSTILL_M
        needed = max(needed, required_decel(speed, traffic.speed_mps[w, car], traffic.accel_mps2[w, car], room))
    return needed


@kernel
def touches(world):
    """True where V001 touches the car ahead or the one behind."""
    return world.gap_m <= 0.0 or world.rear_gap_m <= 0.0


@kernel
def impact_speed(world, traffic, w):
    """Closing speed of the ego and the car it touches [m/s], at least 0."""
    if world.gap_m <= 0.0:
        return max(world.closing_speed_mps, 0.0)
    return max(traffic.speed_mps[w, world.follower] - traffic.speed_mps[w, EGO], 0.0)


@kernel
def peers_touch(traffic, w):
    """True where two peers of the route overlap: the traffic itself crashed, which invalidates the episode."""
    cars = traffic.alive.shape[1]
    for car in range(1, cars):
        if not (traffic.alive[w, car] and traffic.on_route[w, car]):
            continue
        for lead in range(1, cars):
            if traffic.position_m[w, lead] <= traffic.position_m[w, car] or bumper_gap(traffic, w, car, lead) > 0.0:
                continue
            if in_the_way(traffic, w, lead) and reach_m(traffic, w, lead) > traffic.position_m[w, car]:
                return True
    return False


@kernel
def refresh_truth(world, traffic, w, side):
    """Writes leader, gaps, closing speed, required deceleration and hazard phase of one world into its record.

    Reads who was ahead a step ago from ``side`` [world, car] and leaves who is ahead now there.
    """
    leader = find_leader(traffic, w, side)
    world.leader = leader
    if leader >= 0:
        world.gap_m = bumper_gap(traffic, w, EGO, leader)
        world.closing_speed_mps = traffic.speed_mps[w, EGO] - traffic.speed_mps[w, leader]
    else:
        world.gap_m = float("inf")
        world.closing_speed_mps = 0.0
    follower = find_follower(traffic, w, side)
    world.follower = follower
    world.rear_gap_m = bumper_gap(traffic, w, follower, EGO) if follower >= 0 else float("inf")
    world.required_decel_mps2 = required_decel_of_all(traffic, w, side)
    for car in range(1, traffic.alive.shape[1]):
        side[w, car] = side_of_ego(traffic, w, car, side[w, car])
    if world.step < world.onset_step:
        world.hazard_phase = 0
    elif world.step < world.over_step:
        world.hazard_phase = 1
    else:
        world.hazard_phase = 2
