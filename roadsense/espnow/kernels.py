"""A step of the radio for all worlds in one call: send, deliver, age, sense.

The step that ends at t covers the beacons sent since the tick before; they carry their senders' readings of that tick.
New readings are made last, so nothing that happens at t is told before t.
"""

from __future__ import annotations

import math

from roadsense.espnow.channel import is_lost, latency_s
from roadsense.espnow.clock import STEP_S, key_of, link_of
from roadsense.espnow.sensors import sense
from roadsense.espnow.state import NEVER
from roadsense.jit import kernel
from roadsense.philox import normal_pair, uniform_pair
from roadsense.randomness import Purpose

EGO = 0
"""Column of the receiver."""

_PHASE = int(Purpose.RADIO_PHASE)
_BITS, _WINDOW, _MOST = 4, 10, 15  # bits per step of the heard window, its steps, and what those bits can count
_WINDOW_MASK = (1 << (_BITS * _WINDOW)) - 1
_EPSILON_S = 1e-9  # multiples of 0.1 s are inexact


@kernel
def forget(car):
    """Empties what the ego knows of a car and what is under way from it."""
    car.sensing = False
    car.link_bad = False
    car.link_s = -math.inf
    car.newest_generation = NEVER
    car.pending = 0
    car.messages = 0
    car.heard_window = 0
    car.heard_last_second = 0


@kernel
def begin_episode(tables, state, seeds, world):
    """Clears one world and draws each car's beacon phase, beacon period and phase of GPS fixes.

    Args:
        tables: [world] of ``TABLE_DTYPE``, filled for this world.
        state: ``RadioState``.
        seeds: [world] uint64, episode seeds.
        world: which one.
    """
    table, seed = tables[world], seeds[world]
    for c in range(state.cars.shape[1]):
        car = state.cars[world, c]
        forget(car)
        car.received, car.lost, car.received_total, car.lost_total = 0, 0, 0, 0
        beacon, fix = uniform_pair(seed, _PHASE, key_of(0), c, 0)
        drift, _ = normal_pair(seed, _PHASE, key_of(0), c, 1)
        car.beacon_phase_s = beacon * table.beacon_interval_s
        car.beacon_period_s = table.beacon_interval_s * (1.0 + table.beacon_drift_sd * drift)
        car.gps_phase_s = fix / table.gps_rate_hz


@kernel
def put_on_air(table, car, pending, generation, sent_s, latency, since_reading_s):
    """Adds a message with the sender's last reading to those under way; False if there is no room."""
    if car.pending == pending.shape[0]:
        return False
    message = pending[car.pending]
    carried = car.speed_mps * since_reading_s if table.extrapolate else 0.0
    message.x_m = car.x_m + carried * math.cos(car.heading_rad)
    message.y_m = car.y_m + carried * math.sin(car.heading_rad)
    message.speed_mps = car.speed_mps
    message.heading_rad = car.heading_rad
    message.accel_mps2 = car.accel_mps2
    message.sent_s = sent_s
    message.arrival_s = sent_s + latency
    message.generation = generation
    message.hops = 0
    car.pending += 1
    return True


@kernel
def transmit(table, car, pending, seed, step, link, distance_m):
    """Sends the beacons of a car that are due in the step that ends now; counts the lost ones."""
    begin_s, end_s = (step - 1) * STEP_S, step * STEP_S
    first = math.floor((begin_s - car.beacon_phase_s) / car.beacon_period_s) + 1
    last = math.floor((end_s - car.beacon_phase_s) / car.beacon_period_s)
    for generation in range(first, last + 1):
        sent = car.beacon_phase_s + generation * car.beacon_period_s
        if is_lost(car, table, seed, generation, link, sent, distance_m):
            car.lost += 1
            continue
        latency = latency_s(table, seed, generation, link)
        if not put_on_air(table, car, pending, generation, sent, latency, sent - begin_s):
            car.lost += 1


@kernel
def take_in(car, messages, message):
    """Puts an arrived message to its place among the newest generations; duplicates and older ones are dropped."""
    generation = message.generation
    # An empty table does not make an old message new: its successor was here and went stale.
    if car.messages == 0 and generation <= car.newest_generation:
        return
    place = 0
    while place < car.messages and messages[place].generation > generation:
        place += 1
    if place == messages.shape[0] or (place < car.messages and messages[place].generation == generation):
        return
    car.messages = min(car.messages + 1, messages.shape[0])
    for entry in range(car.messages - 1, place, -1):
        messages[entry] = messages[entry - 1]
    messages[place] = message
    car.newest_generation = max(car.newest_generation, generation)


@kernel
def deliver(car, messages, pending, now_s):
    """Takes in every message of a car that has arrived by now, and refreshes the count of the last second."""
    car.received = 0
    slot = 0
    while slot < car.pending:
        if pending[slot].arrival_s > now_s:
            slot += 1
            continue
        take_in(car, messages, pending[slot])
        car.received += 1
        car.pending -= 1
        pending[slot] = pending[car.pending]
    heard = min(car.received, _MOST)
    forgotten = car.heard_window >> (_BITS * (_WINDOW - 1))
    car.heard_window = ((car.heard_window << _BITS) | heard) & _WINDOW_MASK
    car.heard_last_second += heard - forgotten


@kernel
def age(table, car, messages, now_s):
    """Lets a car leave the table when its newest message arrived too long ago."""
    if car.messages > 0 and now_s - messages[0].arrival_s > table.stale_after_s + _EPSILON_S:
        car.messages = 0


@kernel
def step_radio(tables, state, seeds, step, x, y, speed, accel, heading, alive, transmits, active):
    """Moves the radio and all sensors of the ``active`` worlds to the end of a control step.

    The first call after ``begin_episode`` only makes readings. A world's steps must follow each other without gaps;
    they may begin below 0 (virtual ticks that fill the tables before t = 0).

    Args:
        tables: [world] of ``TABLE_DTYPE``.
        state: ``RadioState``, rewritten.
        seeds: [world] uint64, episode seeds.
        step: [world] int64, number of the step whose end this is: t = 0.1 s · step.
        x, y: [world, car] true position of the front bumper at its end [m].
        speed, accel: [world, car] [m/s], [m/s²].
        heading: [world, car], counter-clockwise from east [rad].
        alive: [world, car], whether the car is on the road.
        transmits: [world, car], whether it carries a radio.
        active: [world], which worlds move; the others keep everything as it is.
    """
    for w in range(active.shape[0]):
        if not active[w]:
            continue
        table, seed, now_s = tables[w], seeds[w], step[w] * STEP_S
        for c in range(1, alive.shape[1]):
            car = state.cars[w, c]
            car.lost, car.received = 0, 0
            if not alive[w, c] and car.pending == car.messages == car.heard_window == 0:
                continue  # a column that nobody uses
            messages, pending = state.messages[w, c], state.pending[w, c]
            if alive[w, c] and not car.sensing:
                forget(car)  # another car may have had this column before
            elif alive[w, c] and transmits[w, c]:
                distance = math.hypot(x[w, c] - x[w, EGO], y[w, c] - y[w, EGO])
                transmit(table, car, pending, seed, step[w], link_of(EGO, c), distance)
            deliver(car, messages, pending, now_s)
            age(table, car, messages, now_s)
            if step[w] > 0:
                car.received_total += car.received
                car.lost_total += car.lost
        for c in range(alive.shape[1]):
            car = state.cars[w, c]
            if alive[w, c]:
                sense(table, car, seed, step[w], c, x[w, c], y[w, c], speed[w, c], accel[w, c], heading[w, c])
            else:
                car.sensing = False
