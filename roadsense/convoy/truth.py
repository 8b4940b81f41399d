"""Ground truth of a world: leader, gap, required deceleration, contact. Reward, metrics and oracle read these.

Which cars are ahead is carried from step to step in ``side`` [world, car]: 1 ahead of the ego on its route, -1 behind,
0 elsewhere, a step ago. A short car that the ego drove through within one step is then still the car it hit.
"""

from __future__ import annotations

import math

from roadsense.jit import counted_kernel, kernel
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
def survey(traffic, w, side, reach_m):
    """Writes who is ahead and behind on the ego's route, and how far along it each car reaches, of one world.

    A car that turned off is in the way until its tail has passed the place, and reaches as far as that. A car close by
    keeps the side it had a step ago: on one lane nobody gets past but through another.

    Args:
        traffic: the true state.
        w: the world.
        side: [world, car], of a step ago; rewritten: 1 ahead of the ego, -1 behind, 0 not on its route.
        reach_m: [world, car], written: to the front bumper or to where it turned off [m]; NaN where ``side`` is 0.

    Returns:
        How many columns there are up to the last car that is in the way.
    """
    columns = 1
    own_m = traffic.position_m[w, EGO]
    reach_m[w, EGO] = own_m
    for car in range(1, traffic.alive.shape[1]):
        front_m = traffic.position_m[w, car]
        here = traffic.alive[w, car] and traffic.on_route[w, car]
        if traffic.alive[w, car] and not here:
            here = front_m - traffic.length_m[w, car] < traffic.leaves_m[w, car]
            front_m = min(front_m, traffic.leaves_m[w, car])
        if not here:
            side[w, car], reach_m[w, car] = 0, math.nan
            continue
        columns = car + 1
        reach_m[w, car] = front_m
        if side[w, car] == 0 or abs(front_m - own_m) >= CLOSE_BY_M:
            side[w, car] = 1 if front_m > own_m else -1
    return columns


@kernel
def find_leader(w, side, reach_m, columns):
    """Column of the next car ahead of the ego on its route, or -1; takes what :func:`survey` wrote and returned."""
    leader = -1
    for car in range(1, columns):
        if side[w, car] > 0 and (leader < 0 or reach_m[w, car] < reach_m[w, leader]):
            leader = car
    return leader


@kernel
def find_follower(traffic, w, side, columns):
    """Column of the next car behind the ego on its route, or -1; whose front has turned off runs into nobody."""
    follower = -1
    for car in range(1, columns):
        if side[w, car] >= 0 or not traffic.on_route[w, car]:
            continue
        if follower < 0 or traffic.position_m[w, car] > traffic.position_m[w, follower]:
            follower = car
    return follower


@kernel
def bumper_gap(traffic, w, car, lead):
    """Distance from the front bumper of ``car`` to the rear bumper of ``lead`` along the route [m]."""
    return traffic.position_m[w, lead] - traffic.length_m[w, lead] - traffic.position_m[w, car]


@kernel
def cars_between(w, reach_m, columns, lead):
    """How many cars stand on the route between the ego and ``lead``."""
    own, far = reach_m[w, EGO], reach_m[w, lead]
    count = 0
    for car in range(1, columns):
        if own < reach_m[w, car] < far:  # never of NaN
            count += 1
    return count


@kernel
def required_decel_of_all(traffic, w, side, reach_m, columns, standstill_m=STANDSTILL_M):
    """Required deceleration of the ego over all cars ahead of it [m/s²]; each car between takes its room.

    ``standstill_m`` is the gap that braking shall leave [m].
    """
    speed = traffic.speed_mps[w, EGO]
    needed = 0.0
    for car in range(1, columns):
        if side[w, car] <= 0:
            continue
        room = bumper_gap(traffic, w, EGO, car) - CAR_SPACING_M * cars_between(w, reach_m, columns, car) - standstill_m
        needed = max(needed, required_decel(speed, traffic.speed_mps[w, car], traffic.accel_mps2[w, car], room))
    return needed


@counted_kernel
def required_decel_with_margin(traffic, side, reach_m, margin_m, needed):
    """Writes the required deceleration of every world if braking shall leave ``margin_m`` more than usual.

    Args:
        traffic: the true state.
        side: [world, car], as in :func:`survey`: zeros at the beginning of an episode, then called at every step.
        reach_m: [world, car], scratch.
        margin_m: further gap that braking shall leave [m].
        needed: [world], written [m/s²].
    """
    for w in range(needed.shape[0]):
        columns = survey(traffic, w, side, reach_m)
        needed[w] = required_decel_of_all(traffic, w, side, reach_m, columns, STANDSTILL_M + margin_m)


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
def peers_touch(traffic, w, side, reach_m, columns):
    """True where two peers of the route overlap: the traffic itself crashed, which invalidates the episode."""
    for car in range(1, columns):
        if side[w, car] == 0 or not traffic.on_route[w, car]:
            continue  # whose front has turned off runs into nobody
        own_m = traffic.position_m[w, car]
        for lead in range(1, columns):
            ahead = reach_m[w, lead] > own_m  # never of NaN
            if ahead and traffic.position_m[w, lead] - traffic.length_m[w, lead] <= own_m:
                return True
    return False


@kernel
def refresh_truth(world, traffic, w, side, reach_m):
    """Writes leader, gaps, required deceleration, contacts and hazard phase of one world into its record.

    Begins with :func:`survey` of ``side`` and ``reach_m``, both [world, car].
    """
    columns = survey(traffic, w, side, reach_m)
    leader = find_leader(w, side, reach_m, columns)
    world.leader = leader
    if leader >= 0:
        world.gap_m = bumper_gap(traffic, w, EGO, leader)
        world.closing_speed_mps = traffic.speed_mps[w, EGO] - traffic.speed_mps[w, leader]
    else:
        world.gap_m = math.inf
        world.closing_speed_mps = 0.0
    follower = find_follower(traffic, w, side, columns)
    world.follower = follower
    world.rear_gap_m = bumper_gap(traffic, w, follower, EGO) if follower >= 0 else math.inf
    world.required_decel_mps2 = required_decel_of_all(traffic, w, side, reach_m, columns)
    world.peers_touch = peers_touch(traffic, w, side, reach_m, columns)
    if world.step < world.onset_step:
        world.hazard_phase = 0
    elif world.step < world.over_step:
        world.hazard_phase = 1
    else:
        world.hazard_phase = 2
