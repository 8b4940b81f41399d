"""What a car has heard of another, and what of it the car repeats."""

from __future__ import annotations

import math

import numpy as np

from roadsense.espnow.clock import key_of
from roadsense.espnow.state import NEVER, RING_MASK
from roadsense.jit import inlined, kernel
from roadsense.philox import uniform
from roadsense.randomness import Purpose

EGO = 0
"""Column of the receiver whose table is kept."""

_RELAY = int(Purpose.RADIO_RELAY)
_REMEMBERED = 64  # generations that a link remembers having heard


@kernel
def has_heard(link, generation):
    """True where the receiver has that message of the sender, or is too far beyond it to care."""
    if link.newest_generation == NEVER or generation > link.newest_generation:
        return False
    behind = link.newest_generation - generation
    return behind >= _REMEMBERED or ((link.seen >> behind) & 1) == 1


@kernel
def note_heard(link, generation, hops):
    """Takes a message down as heard; False for a duplicate."""
    if has_heard(link, generation):
        return False
    if link.newest_generation == NEVER or generation - link.newest_generation >= _REMEMBERED:
        link.seen = 0
    elif generation > link.newest_generation:
        link.seen = link.seen << (generation - link.newest_generation)
    if link.newest_generation == NEVER or generation > link.newest_generation:
        link.newest_generation = generation
        link.newest_hops = hops
    link.seen = link.seen | (np.int64(1) << (link.newest_generation - generation))
    return True


@inlined
def needs(link, flights, receiver, source, generation, sent_s):
    """True where a copy that is sent now would tell a receiver something: it has no other that is there by then."""
    if has_heard(link, generation):
        return False
    for slot in range(link.pending):
        flight = flights[slot, receiver, source]
        if flight.generation == generation and flight.arrival_s <= sent_s:
            return False
    return True


@inlined
def launch(link, flights, receiver, source, generation, arrival_s, hops):
    """Puts a copy on its way; of two copies of a message the earlier one counts.

    Returns the generation that had to give way because there is no more room, the oldest; ``NEVER`` if none had to.
    """
    for slot in range(link.pending):
        flight = flights[slot, receiver, source]
        if flight.generation == generation:
            if arrival_s < flight.arrival_s:
                flight.arrival_s, flight.hops = arrival_s, hops
            return NEVER
    place, dropped = link.pending, NEVER
    if place == flights.shape[0]:
        place, dropped = -1, generation
        for slot in range(link.pending):
            if flights[slot, receiver, source].generation < dropped:
                place, dropped = slot, int(flights[slot, receiver, source].generation)
        if place < 0:
            return dropped
    else:
        link.pending += 1
    flight = flights[place, receiver, source]
    flight.generation, flight.arrival_s, flight.hops = generation, arrival_s, hops
    return dropped


@inlined
def take_in(car, messages, c, message, arrival_s, hops, newest_generation):
    """Puts an arrived message to its place among the newest generations; older ones are dropped.

    Args:
        car: its sender, of ``CAR_DTYPE``.
        messages: [car, k], the table.
        c: column of the sender.
        message: what was told.
        arrival_s, hops: of the copy that arrived.
        newest_generation: the newest that was heard before it.
    """
    generation = message.generation
    # An empty table does not make an old message new: its successor was here and went stale.
    if car.messages == 0 and generation <= newest_generation:
        return
    place = 0
    while place < car.messages and messages[c, place].generation > generation:
        place += 1
    if place == messages.shape[1]:
        return
    car.messages = min(car.messages + 1, messages.shape[1])
    for entry in range(car.messages - 1, place, -1):
        messages[c, entry] = messages[c, entry - 1]
    messages[c, place] = message
    messages[c, place].arrival_s, messages[c, place].hops = arrival_s, hops


@inlined
def next_arrival(link, flights, receiver, source, now_s):
    """The slot of the first message that has arrived by now, the older one of two at once; −1 if there is none."""
    first = -1
    for slot in range(link.pending):
        flight = flights[slot, receiver, source]
        if flight.arrival_s > now_s:
            continue
        earliest = flights[max(first, 0), receiver, source]
        sooner = flight.arrival_s < earliest.arrival_s
        at_once = flight.arrival_s == earliest.arrival_s and flight.generation < earliest.generation
        if first < 0 or sooner or at_once:
            first = slot
    return first


@inlined
def take(cars, links, flights, sent, messages, receiver, source, now_s):
    """Takes down every message of a source that has reached a receiver by now; the ego also fills its table."""
    link = links[receiver, source]
    while link.pending > 0:
        slot = next_arrival(link, flights, receiver, source, now_s)
        if slot < 0:
            return
        flight = flights[slot, receiver, source]
        message, before = sent[flight.generation & RING_MASK, source], link.newest_generation
        is_kept = message.generation == flight.generation
        if is_kept and note_heard(link, flight.generation, flight.hops) and receiver == EGO:
            take_in(cars[source], messages, source, message, flight.arrival_s, flight.hops, before)
            cars[source].received += 1
        link.pending -= 1
        flights[slot, receiver, source] = flights[link.pending, receiver, source]


@kernel
def is_ahead(table, car, message):
    """True where the place that a message tells lies within the cone ahead of a car's own estimate."""
    dx, dy = message.x_m - car.x_m, message.y_m - car.y_m
    along = dx * car.along_x + dy * car.along_y
    return along >= table.relay_cosine * math.sqrt(dx * dx + dy * dy)


@inlined
def choose_relayed(table, cars, links, flights, sent, messages, relayer, generation, tick_s, room, seed, chosen):
    """Writes the sources whose newest message a car relays at its tick into ``chosen``; returns how many.

    Of more than there is room for, it draws some; the others' messages it never relays.

    Args:
        table: parameters in force.
        cars: [car] of ``CAR_DTYPE``.
        links: [receiver, sender] of ``LINK_DTYPE``.
        flights: [slot, receiver, sender] of ``FLIGHT_DTYPE``.
        sent: [generation & RING_MASK, car], what everybody told.
        messages: [car, k], the ego's table.
        relayer: its column.
        generation: of its own beacon.
        tick_s: time of the tick.
        room: most messages it may relay.
        seed: of the episode.
        chosen: scratch, [car, n].
    """
    count = 0
    for source in range(links.shape[0]):
        link = links[relayer, source]
        if source == relayer or (link.pending == 0 and link.newest_generation == link.considered_generation):
            continue
        take(cars, links, flights, sent, messages, relayer, source, tick_s)
        if link.newest_generation == link.considered_generation:
            continue
        link.considered_generation = link.newest_generation
        message = sent[link.newest_generation & RING_MASK, source]
        is_kept = message.generation == link.newest_generation
        if is_kept and link.newest_hops < table.relay_hops and is_ahead(table, cars[relayer], message):
            chosen[relayer, count] = source
            count += 1
    if count > room:
        for place in range(room):
            draw = uniform(seed, _RELAY, key_of(generation), relayer, place)
            other = place + int(draw * (count - place))
            chosen[relayer, place], chosen[relayer, other] = chosen[relayer, other], chosen[relayer, place]
    return min(count, room)
