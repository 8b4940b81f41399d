"""Who sends when: the turns of one step in order, and the medium that all cars of a world share.

A car that finds the medium idle sends at once. Others sense a frame only a slot after its start, so whoever begins
within that slot collides with it. All that find it busy contend when the frame has ended: each waits a number of slots
of its own, the fewest go first, equal numbers collide. A car sends its own beacon and what it relays in one go, and
gives up what has not had its turn when its next beacon is due, as a driver that queues one frame does.
Everybody is within everybody's carrier sense, and a frame that collides is lost for all: there is no capture.
Source: the distributed coordination function of IEEE 802.11, broadcast frames (no acknowledgement, no retry).
"""

from __future__ import annotations

import math

from roadsense.espnow.clock import STEP_S, key_of
from roadsense.jit import inlined, kernel
from roadsense.philox import uniform
from roadsense.randomness import Purpose

_ACCESS = int(Purpose.RADIO_ACCESS)


@inlined
def list_turns(cars, ticks, step, alive, transmits):
    """Lists the beacons that are due in the step that ends now, by time; returns how many.

    Args:
        cars: [car] of ``CAR_DTYPE``.
        ticks: scratch of ``TICK_DTYPE``, written.
        step: number of the step.
        alive, transmits: [car].
    """
    begin_s, end_s = (step - 1) * STEP_S, step * STEP_S
    count = 0
    for c in range(cars.shape[0]):
        car = cars[c]
        if not (alive[c] and transmits[c] and car.sensing):
            continue
        first = math.floor((begin_s - car.beacon_phase_s) / car.beacon_period_s) + 1
        last = math.floor((end_s - car.beacon_phase_s) / car.beacon_period_s)
        for generation in range(first, last + 1):
            tick_s = car.beacon_phase_s + generation * car.beacon_period_s
            place = count
            while place > 0 and ticks[place - 1].tick_s > tick_s:
                ticks[place] = ticks[place - 1]
                place -= 1
            ticks[place].tick_s = tick_s
            ticks[place].car = c
            ticks[place].generation = generation
            count += 1
    return count


@inlined
def turns_together(table, ticks, first, count, busy_until_s):
    """How many turns from ``first`` on are decided together: who collides with it, or waits for the same frame."""
    idle = ticks[first].tick_s >= busy_until_s
    until_s = ticks[first].tick_s + table.slot_s if idle else busy_until_s
    end = first + 1
    while end < count and ticks[end].tick_s < until_s:
        for one in range(first, end):
            if ticks[one].car == ticks[end].car:
                return end - first  # its own next turn comes after this one
        end += 1
    return end - first


@inlined
def take_turns(table, ticks, first, number, seed, busy_until_s):
    """Gives the turns of a group their start and collisions; returns when the medium is idle again.

    Args:
        table: parameters in force.
        ticks: turns, whose ``frames`` are known; the group's are reordered by their start.
        first, number: the group.
        seed: of the episode.
        busy_until_s: end of the frame on the air.
    """
    airtime_s = table.airtime_s
    if ticks[first].tick_s >= busy_until_s:
        for one in range(first, first + number):
            ticks[one].start_s = ticks[one].tick_s
            busy_until_s = max(busy_until_s, ticks[one].start_s + ticks[one].frames * airtime_s)
            ticks[one].collided = _most_frames_of_others(ticks, first, number, one) if number > 1 else 0
        return busy_until_s
    for one in range(first, first + number):
        draw = uniform(seed, _ACCESS, key_of(ticks[one].generation), ticks[one].car, 0)
        backoff = int(draw * table.backoff_slots if ticks[one].frames > 0 else table.backoff_slots)
        turn = ticks[one]
        tick_s, car, generation, frames = turn.tick_s, turn.car, turn.generation, turn.frames
        place = one
        while place > first and ticks[place - 1].backoff > backoff:
            ticks[place] = ticks[place - 1]
            place -= 1
        ticks[place].tick_s, ticks[place].car, ticks[place].generation = tick_s, car, generation
        ticks[place].frames, ticks[place].backoff = frames, backoff
    one, counted = first, 0
    while one < first + number and ticks[one].frames > 0:  # those that gave up come last
        equal = 1
        while one + equal < first + number and ticks[one + equal].backoff == ticks[one].backoff:
            equal += 1
        start_s = busy_until_s + table.difs_s + (ticks[one].backoff - counted) * table.slot_s
        counted = ticks[one].backoff
        for other in range(one, one + equal):
            ticks[other].start_s = start_s
            busy_until_s = max(busy_until_s, start_s + ticks[other].frames * airtime_s)
            ticks[other].collided = _most_frames_of_others(ticks, one, equal, other) if equal > 1 else 0
        one += equal
    return busy_until_s


@kernel
def _most_frames_of_others(ticks, first, number, one):
    most = 0
    for other in range(first, first + number):
        if other != one:
            most = max(most, ticks[other].frames)
    return most
