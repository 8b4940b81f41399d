"""A step of the radio for all worlds in one call: send, deliver, age, sense.

The step that ends at t covers the beacons due since the tick before; they carry their senders' readings of that tick.
New readings are made last, so nothing that happens at t is told before t. Where nobody relays, only the links to the
ego are played: nobody listens at the other ones, and their draws belong to them alone.
"""

from __future__ import annotations

import math

from roadsense.espnow.alarms import is_lying
from roadsense.espnow.channel import is_lost, latency_s
from roadsense.espnow.clock import STEP_S, key_of, link_of
from roadsense.espnow.medium import list_turns, take_turns, turns_together
from roadsense.espnow.propagation import is_too_weak
from roadsense.espnow.recorder import record
from roadsense.espnow.relay import EGO, choose_relayed, launch, needs, take
from roadsense.espnow.sensors import draw_noise, sense
from roadsense.espnow.state import CAR_DTYPE, FLIGHT_DTYPE, LINK_DTYPE, MESSAGE_DTYPE, NEVER, RING_MASK
from roadsense.espnow.tables import TABLE_BYTES
from roadsense.jit import inlined, kernel
from roadsense.philox import fill_uniforms, four_uniforms, normal_pair, uniform, uniform_pair
from roadsense.prefetch import prefetch
from roadsense.randomness import Purpose

_PHASE, _PLACEMENT, _LINK = int(Purpose.RADIO_PHASE), int(Purpose.RADIO_PLACEMENT), int(Purpose.RADIO_LINK)
_BITS, _WINDOW, _MOST = 4, 10, 15  # bits per step of the heard window, its steps, and what those bits can count
_WINDOW_MASK = (1 << (_BITS * _WINDOW)) - 1
_CAR_BYTES, _MESSAGE_BYTES = CAR_DTYPE.itemsize, MESSAGE_DTYPE.itemsize
_LINK_BYTES, _FLIGHT_BYTES = LINK_DTYPE.itemsize, FLIGHT_DTYPE.itemsize
_NEAR_BYTES = 8192  # most that is worth asking for at once
_EPSILON_S = 1e-9  # multiples of 0.1 s are inexact


@kernel
def forget(cars, links, shadows, sent, c):
    """Empties what everybody knows of a car and what it knows of them, and all that is under way."""
    car = cars[c]
    car.sensing = False
    car.messages = 0
    car.heard_window = 0
    car.heard_last_second = 0
    for generation in range(sent.shape[0]):
        sent[generation, c].generation = NEVER
    for other in range(cars.shape[0]):
        forget_link(links[c, other])
        forget_link(links[other, c])
        shadows[c, other].drawn_m, shadows[other, c].drawn_m = -1.0, -1.0


@kernel
def forget_link(link):
    """Puts a link back to its begin."""
    link.bad = False
    link.drawn_s = -math.inf
    link.pending = 0
    link.newest_generation = NEVER
    link.considered_generation = NEVER
    link.newest_hops = 0
    link.seen = 0
    link.loss_step = -1


@kernel
def begin_episode(tables, state, seeds, world):
    """Clears one world and draws what every car has of its own: clock, phases of beacons and GPS fixes, placement.

    Args:
        tables: [world] of ``TABLE_DTYPE``, filled for this world.
        state: ``RadioArrays``.
        seeds: [world] uint64, episode seeds.
        world: which one.
    """
    table, seed = tables[world], seeds[world]
    state.busy_until_s[world] = -math.inf
    for c in range(state.cars.shape[1]):
        car = state.cars[world, c]
        forget(state.cars[world], state.links[world], state.shadows[world], state.sent[world], c)
        car.received, car.lost, car.received_total, car.lost_total = 0, 0, 0, 0
        beacon, fix = uniform_pair(seed, _PHASE, key_of(0), c, 0)
        drift, _ = normal_pair(seed, _PHASE, key_of(0), c, 1)
        car.beacon_phase_s = beacon * table.beacon_interval_s
        car.beacon_period_s = table.beacon_interval_s * (1.0 + table.beacon_drift_sd * drift)
        car.gps_phase_s = fix / table.gps_rate_hz
        running = uniform(seed, _PHASE, key_of(0), c, 2)
        car.clock_s = table.running_from_s + (table.running_to_s - table.running_from_s) * running
        car.clock_rate = table.beacon_interval_s / car.beacon_period_s  # it sends by that clock
        mounted, _ = normal_pair(seed, _PLACEMENT, key_of(0), c, 0)
        car.placement = table.placement_sd * mounted
        car.in_door = uniform(seed, _PLACEMENT, key_of(0), c, 1) < table.door_probability
        car.travelled_m = 0.0


@kernel
def tell(table, car, message, generation, tick_s, since_reading_s, braking_s):
    """Writes what a car tells at its tick: its last reading; for how long it claims to brake, −1 if it does not lie."""
    carried = car.speed_mps * since_reading_s if table.extrapolate else 0.0
    message.x_m = car.x_m + carried * car.along_x
    message.y_m = car.y_m + carried * car.along_y
    message.speed_mps = car.speed_mps
    message.heading_rad, message.along_x, message.along_y = car.heading_rad, car.along_x, car.along_y
    message.accel_mps2 = car.accel_mps2
    if braking_s >= 0.0:
        message.speed_mps = max(0.0, car.speed_mps - table.alarm_decel_mps2 * braking_s)
        message.accel_mps2 = -table.alarm_decel_mps2
    message.sent_s = tick_s
    message.timestamp_ms = math.floor(1000.0 * (car.clock_s + car.clock_rate * tick_s))
    message.generation = generation


@inlined
def transmit(
    table, cars, links, shadows, quantiles, flights, draws, arrivals, frames, frame_count, world, seed, turn, chosen,
    listeners, keepers, x, y, alive,
):  # fmt: skip
    """Sends the frames of one turn to all that listen: the car's own beacon, then what it relays.

    Args:
        table: parameters in force.
        cars, links, shadows, quantiles, flights: of the world, as in ``RadioArrays``.
        draws, arrivals: scratch, as there.
        frames, frame_count: what became of every frame, as there.
        world: which one.
        seed: of the episode.
        turn: of ``TICK_DTYPE``, with its start.
        chosen: [car, n], sources of the further frames of each car.
        listeners: how many columns the frames are played for, from the ego's on.
        keepers: how many of them have a use for what they hear.
        x, y: [car] true positions [m].
        alive: [car].
    """
    sender = turn.car
    for frame in range(turn.frames):
        own = frame == 0
        source = sender if own else chosen[sender, frame - 1]
        generation = turn.generation if own else links[sender, source].considered_generation
        hops = 0 if own else links[sender, source].newest_hops + 1
        sent_s = turn.start_s + frame * table.airtime_s
        index = 0 if own else 1 + source
        if own:
            fill_uniforms(draws, listeners, seed, _LINK, key_of(turn.generation), link_of(0, sender), link_of(1, 0), 0)
        for receiver in range(listeners):
            arrivals[receiver] = math.nan
            if receiver in (sender, source) or not alive[receiver]:
                continue
            copy, link = links[receiver, source], links[receiver, sender]
            if own:
                fate, body, chance = draws[0, receiver], draws[1, receiver], draws[2, receiver]
                place = draws[3, receiver]
            else:
                if not needs(copy, flights, receiver, source, generation, sent_s):
                    continue
                fate, body, chance, place = four_uniforms(
                    seed, _LINK, key_of(turn.generation), link_of(receiver, sender), index
                )
            dx, dy = x[sender] - x[receiver], y[sender] - y[receiver]
            distance_m = math.sqrt(dx * dx + dy * dy)
            lost = is_lost(link, table, fate, sent_s, distance_m, cars[sender], cars[receiver])
            if table.propagates and is_too_weak(
                table, quantiles, shadows[receiver, sender], cars, x, y, alive, sender, receiver, seed,
                turn.generation, index, distance_m,
            ):  # fmt: skip
                lost = True
            lost = lost or frame < turn.collided
            if not lost:
                arrivals[receiver] = sent_s + table.airtime_s + latency_s(table, quantiles, body, chance, place)
                if receiver < keepers:
                    dropped = launch(copy, flights, receiver, source, generation, arrivals[receiver], hops)
                    lost = dropped == generation
                    if dropped != NEVER and not lost and receiver == EGO:
                        cars[source].lost += 1
            if lost:
                arrivals[receiver] = math.inf
                if own and receiver == EGO:
                    cars[sender].lost += 1
        if frames.shape[0] > 0:
            record(frames, frame_count, arrivals, listeners, world, turn, frame, source, generation, hops, sent_s, x, y)


@inlined
def send_all(
    table, cars, links, shadows, quantiles, flights, sent, messages, ticks, chosen, draws, arrivals, frames,
    frame_count, busy_until_s, world, seed, step, x, y, alive, transmits,
):  # fmt: skip
    """Plays all turns of a step: composes them in the order of their ticks, then sends them as the medium allows.

    Returns when the medium is idle again.
    """
    count = list_turns(cars, ticks, step, alive, transmits)
    everybody, keepers = cars.shape[0], cars.shape[0] if table.relay_hops > 0 else 1
    listeners = everybody if frames.shape[0] > 0 else keepers
    first = 0
    while first < count:
        number = turns_together(table, ticks, first, count, busy_until_s)
        for one in range(first, first + number):
            compose(
                table, cars, links, flights, sent, messages, ticks[one], number, chosen, busy_until_s, seed, step,
                alive, transmits,
            )  # fmt: skip
        busy_until_s = take_turns(table, ticks, first, number, seed, busy_until_s)
        for one in range(first, first + number):
            transmit(
                table, cars, links, shadows, quantiles, flights, draws, arrivals, frames, frame_count, world, seed,
                ticks[one], chosen, listeners, keepers, x, y, alive,
            )  # fmt: skip
        first += number
    return busy_until_s


@inlined
def compose(
    table, cars, links, flights, sent, messages, turn, number, chosen, busy_until_s, seed, step, alive, transmits
):  # fmt: skip
    """Writes the beacon of a turn, one of ``number`` that contend, and which messages follow it."""
    car = cars[turn.car]
    message = sent[turn.generation & RING_MASK, turn.car]
    braking_s = -1.0
    if table.alarm_every_s > 0.0:
        braking_s = is_lying(table, seed, turn.car, turn.tick_s, alive, transmits)
    tell(table, car, message, turn.generation, turn.tick_s, turn.tick_s - (step - 1) * STEP_S, braking_s)
    turn.frames, turn.collided = 1, 0
    # What cannot be sent before its car's next tick is dropped, or a crowd would never be done.
    left_s = turn.tick_s + car.beacon_period_s - max(turn.tick_s, busy_until_s)
    if left_s <= 0.0:
        turn.frames = 0
        if turn.car != EGO and alive[EGO]:
            car.lost += 1
    elif table.relay_hops > 0:
        room = table.relays_per_tick
        if table.airtime_s > 0.0:
            room = min(room, max(0, int(left_s / (number * table.airtime_s)) - 1))
        turn.frames += choose_relayed(
            table, cars, links, flights, sent, messages, turn.car, turn.generation, turn.tick_s, room, seed, chosen
        )


@inlined
def count_heard(car):
    """Refreshes the count of the last second by what was received in this step."""
    heard = min(car.received, _MOST)
    forgotten = car.heard_window >> (_BITS * (_WINDOW - 1))
    car.heard_window = ((car.heard_window << _BITS) | heard) & _WINDOW_MASK
    car.heard_last_second += heard - forgotten


@inlined
def age(table, car, messages, c, now_s):
    """Lets a car leave the table when its newest message arrived too long ago."""
    if car.messages > 0 and now_s - messages[c, 0].arrival_s > table.stale_after_s + _EPSILON_S:
        car.messages = 0


@inlined
def prefetch_world(tables, state, step, w):
    """Brings what a step needs of a world near: all of its first bytes, and what was told in the last two steps."""
    cars, per_peer = state.messages.shape[1], state.messages.shape[2]
    table_bytes = cars * (_CAR_BYTES + per_peer * _MESSAGE_BYTES + cars * (_LINK_BYTES + _FLIGHT_BYTES))
    prefetch(state.cars, w, 0, min(table_bytes, _NEAR_BYTES))
    prefetch(state.sent[w], (step - 2) & RING_MASK, 0, min(2 * cars * _MESSAGE_BYTES, _NEAR_BYTES))
    prefetch(tables, w, 0, TABLE_BYTES)


@kernel
def step_radio(tables, state, seeds, step, x, y, speed, accel, heading, alive, transmits, active, first, end):
    """Moves the radio and all sensors of the ``active`` worlds among ``first`` to ``end`` − 1 to the end of a step.

    The first call after ``begin_episode`` only makes readings. A world's steps must follow each other without gaps;
    they may begin below 0 (virtual ticks that fill the tables before t = 0).

    Args:
        tables: [world] of ``TABLE_DTYPE``.
        state: ``RadioArrays``, rewritten.
        seeds: [world] uint64, episode seeds.
        step: [world] int64, number of the step whose end this is: t = 0.1 s · step.
        x, y: [world, car] true position of the front bumper at its end [m].
        speed, accel: [world, car] [m/s], [m/s²].
        heading: [world, car], counter-clockwise from east [rad].
        alive: [world, car], whether the car is on the road.
        transmits: [world, car], whether it carries a radio.
        active: [world], which worlds move; the others keep everything as it is.
        first, end: which worlds are looked at.
    """
    if first == 0:
        state.frame_count[0] = 0
    for w in range(first, end):
        if not active[w]:
            continue
        table, seed, now_s = tables[w], seeds[w], step[w] * STEP_S
        if w + 1 < end:
            prefetch_world(tables, state, step[w + 1], w + 1)
        cars, links, flights, sent = state.cars[w], state.links[w], state.flights[w], state.sent[w]
        messages, shadows = state.messages[w], state.shadows[w]
        for c in range(alive.shape[1]):
            cars[c].lost, cars[c].received = 0, 0
            if alive[w, c]:
                cars[c].travelled_m += speed[w, c] * STEP_S
            if alive[w, c] and not cars[c].sensing:
                forget(cars, links, shadows, sent, c)  # another car may have had this column before
        state.busy_until_s[w] = send_all(
            table, cars, links, shadows, state.quantiles, flights, sent, messages, state.ticks, state.relayed,
            state.draws, state.arrivals, state.frames, state.frame_count, state.busy_until_s[w], w, seed, step[w],
            x[w], y[w], alive[w], transmits[w],
        )  # fmt: skip
        for c in range(1, alive.shape[1]):
            car = cars[c]
            if not alive[w, c] and links[EGO, c].pending == car.messages == car.heard_window == 0:
                continue  # a column that nobody uses
            take(cars, links, flights, sent, messages, EGO, c, now_s)
            count_heard(car)
            age(table, car, messages, c, now_s)
            if step[w] > 0:
                car.received_total += car.received
                car.lost_total += car.lost
        draw_noise(state.draws, alive.shape[1], seed, step[w])
        for c in range(alive.shape[1]):
            car = cars[c]
            if alive[w, c]:
                sense(
                    table, car, state.draws, seed, step[w], c, x[w, c], y[w, c], speed[w, c], accel[w, c], heading[w, c]
                )
            else:
                car.sensing = False
