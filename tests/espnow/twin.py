"""The radio once more in plain Python, from the description of the model; only random numbers are shared."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from scipy.special import gammainccinv, gammaincinv, ndtr, ndtri

from roadsense.espnow.params import RadioParams
from roadsense.philox import four_uniforms, normal_pair, uniform, uniform_pair
from roadsense.randomness import Purpose

EGO = 0


@dataclass
class Reading:
    x: float
    y: float
    speed: float
    heading: float
    accel: float


@dataclass
class Message:
    """A copy that the ego knows."""

    generation: int
    sent: float
    arrival: float
    hops: int
    stamp: int
    reading: Reading


@dataclass
class Turn:
    """A car's turn to send: (source, generation, hops) of every frame, its own beacon first."""

    tick: float
    car: int
    generation: int
    frames: list[tuple[int, int, int]] = field(default_factory=list)
    start: float = 0.0
    collided: int = 0


@dataclass
class Link:
    bad: bool = False
    drawn_at: float = -math.inf
    shadow: float = 0.0
    shadow_at: float | None = None


@dataclass
class Inbox:
    """What one car has of another: copies under way as generation → (arrival, hops), and what it has heard."""

    under_way: dict[int, tuple[float, int]] = field(default_factory=dict)
    heard: set[int] = field(default_factory=set)
    newest: int | None = None
    newest_hops: int = 0
    considered: int | None = None

    def has(self, generation):
        return self.newest is not None and (generation in self.heard or generation <= self.newest - 64)

    def note(self, generation, hops):
        if self.has(generation):
            return False
        self.heard.add(generation)
        if self.newest is None or generation > self.newest:
            self.newest, self.newest_hops = generation, hops
        return True

    def landed(self, now):
        """Takes out what has arrived, in that order: [(generation, arrival, hops)]."""
        found = [(one, *way) for one, way in self.under_way.items() if way[0] <= now]
        found.sort(key=lambda copy: (copy[1], copy[0]))
        for generation, *_ in found:
            del self.under_way[generation]
        return found


def _key(number):
    return number + 2**20


def _gamma(shape, beyond):
    """What a share of a gamma distribution lies beyond, read off straight lines between its quantiles."""
    find = gammainccinv if beyond < 0.5 else gammaincinv
    half, level = 2 * min(beyond, 1 - beyond), 0
    while level < 15 and half <= 4.0 ** -(level + 1):
        level += 1
    edges = 4.0**-level * (1.0 - 0.75 * np.arange(33) / 32)
    return np.interp(-half, -edges, find(shape, edges / 2))


@dataclass
class Car:
    """One car and its sensors."""

    params: RadioParams
    seed: int
    item: int
    reading: Reading | None = None
    error: tuple[float, float] = (0.0, 0.0)
    fixes: int = 0
    fix_step: int = 0
    travelled: float = 0.0

    def __post_init__(self):
        interval = self.params.beacon.interval_ms / 1000
        beacon, fix = uniform_pair(self.seed, int(Purpose.RADIO_PHASE), _key(0), self.item, 0)
        drift, _ = normal_pair(self.seed, int(Purpose.RADIO_PHASE), _key(0), self.item, 1)
        self.phase = beacon * interval
        self.period = interval * (1 + self.params.beacon.drift_ppm_sd * 1e-6 * drift)
        self.gps_phase = fix / self.params.gps.rate_hz
        low, high = self.params.beacon.running_s
        self.clock = low + (high - low) * uniform(self.seed, int(Purpose.RADIO_PHASE), _key(0), self.item, 2)
        self.margin, self.in_door = 0.0, False
        if self.params.placement:
            draw, _ = normal_pair(self.seed, int(Purpose.RADIO_PLACEMENT), _key(0), self.item, 0)
            lot = uniform(self.seed, int(Purpose.RADIO_PLACEMENT), _key(0), self.item, 1)
            self.margin = self.params.placement.link_sd / math.sqrt(2) * draw
            self.in_door = lot < self.params.placement.door_probability

    def ticks(self, step):
        """(generation, time) of the beacons due in a step."""
        generation = math.floor(((step - 1) * 0.1 - self.phase) / self.period) + 1
        while self.phase + generation * self.period <= step * 0.1:
            yield generation, self.phase + generation * self.period
            generation += 1

    def stamp(self, tick):
        """A time by its own clock, which counts an interval between two of its beacons."""
        return math.floor(1000 * (self.clock + tick * self.params.beacon.interval_ms / 1000 / self.period))

    def telling(self, ahead, lying):
        """Its reading, carried on for a time; or what it claims, if it has been lying for some time."""
        seen, ahead = self.reading, ahead if self.params.gps.extrapolate else 0.0
        x = seen.x + seen.speed * ahead * math.cos(seen.heading)
        y = seen.y + seen.speed * ahead * math.sin(seen.heading)
        if lying is None:
            return Reading(x, y, seen.speed, seen.heading, seen.accel)
        decel = self.params.alarms.decel_mps2
        return Reading(x, y, max(0.0, seen.speed - decel * lying), seen.heading, -decel)

    def sense(self, step, x, y, speed, heading, accel):
        """Makes the reading of a step."""
        noise, gps = self.params.noise, self.params.gps
        z_speed, z_accel, z_heading, _ = ndtri(four_uniforms(self.seed, int(Purpose.SENSOR), _key(step), self.item, 0))
        now = Reading(
            0.0, 0.0, max(0.0, speed + noise.speed_mps * z_speed),
            heading + math.radians(noise.heading_deg) * z_heading, accel + noise.accel_mps2 * z_accel,
        )  # fmt: skip
        fixes = math.floor((step * 0.1 - self.gps_phase) * gps.rate_hz)
        if self.reading is None or fixes > self.fixes:
            kept = 0.0 if self.reading is None else math.exp(-(step - self.fix_step) * 0.1 / gps.tau_s)
            draws = normal_pair(self.seed, int(Purpose.GPS), _key(step), self.item, 0)
            spread = gps.sigma_m * math.sqrt(1 - kept**2)
            self.error = tuple(kept * old + spread * draw for old, draw in zip(self.error, draws, strict=True))
            self.fixes, self.fix_step = fixes, step
            now.x, now.y = x + self.error[0], y + self.error[1]
        else:
            ahead = 0.1 * now.speed if gps.extrapolate else 0.0
            now.x = self.reading.x + ahead * math.cos(now.heading)
            now.y = self.reading.y + ahead * math.sin(now.heading)
        self.reading = now


class World:
    """Cars that are all on the road, their links, and what the ego knows of each."""

    def __init__(self, params, seed, cars, kept):
        self.params, self.seed, self.kept = params, seed, kept
        self.cars = [Car(params, seed, item) for item in range(cars)]
        pairs = [(receiver, sender) for receiver in range(cars) for sender in range(cars)]
        self.links, self.inboxes = {pair: Link() for pair in pairs}, {pair: Inbox() for pair in pairs}
        self.told = {}
        self.known = [[] for _ in range(cars)]
        self.lost = [0] * cars
        self.arrivals = [[] for _ in range(cars)]
        self.idle_from = -math.inf
        self.airtime = params.phy.airtime_s if params.phy else 0.0

    def step(self, step, x, y, speed, heading, accel, transmits):
        """Moves the radio to the end of a step, then makes readings."""
        self.lost, self.fresh = [0] * len(self.cars), [0] * len(self.cars)
        self.transmits = transmits
        for car, pace in zip(self.cars, speed, strict=True):
            car.travelled += 0.1 * pace
        turns = [
            Turn(tick, item, generation)
            for item, car in enumerate(self.cars)
            if transmits[item] and car.reading is not None
            for generation, tick in car.ticks(step)
        ]
        turns.sort(key=lambda turn: turn.tick)
        while turns:
            group = self._together(turns)
            turns = turns[len(group) :]
            for turn in group:
                self._compose(turn, (step - 1) * 0.1, len(group))
            for turn in self._in_order(group):
                self._send(turn, x, y)
        for item in range(1, len(self.cars)):
            self._hear(item, step * 0.1)
        for item, car in enumerate(self.cars):
            car.sense(step, x[item], y[item], speed[item], heading[item], accel[item])

    def _together(self, turns):
        first = turns[0]
        slot = self.params.phy.slot_us * 1e-6 if self.params.phy else 0.0
        until = first.tick + slot if first.tick >= self.idle_from else self.idle_from
        group = [first]
        for turn in turns[1:]:
            if turn.tick >= until or turn.car in {one.car for one in group}:
                break
            group.append(turn)
        return group

    def _compose(self, turn, last_tick, contenders):
        car, relays = self.cars[turn.car], self.params.relays
        told = car.telling(turn.tick - last_tick, self._lying_since(turn))
        self.told[turn.car, turn.generation] = (turn.tick, told)
        left = turn.tick + car.period - max(turn.tick, self.idle_from)
        if left <= 0:
            self.lost[turn.car] += turn.car != EGO
            return
        turn.frames = [(turn.car, turn.generation, 0)]
        if relays is None:
            return
        room = relays.per_tick
        if self.airtime:
            room = min(room, max(0, int(left / (contenders * self.airtime)) - 1))
        found = []
        for source in range(len(self.cars)):
            if source == turn.car:
                continue
            inbox = self.inboxes[turn.car, source]
            if turn.car == EGO:
                self._take(source, turn.tick)
            for generation, _, hops in inbox.landed(turn.tick):
                inbox.note(generation, hops)
            if inbox.newest == inbox.considered:
                continue
            inbox.considered = inbox.newest
            there = self.told[source, inbox.newest][1]
            angle = math.atan2(there.y - car.reading.y, there.x - car.reading.x) - car.reading.heading
            angle = (angle + math.pi) % (2 * math.pi) - math.pi
            ahead = abs(angle) <= math.radians(relays.cone_deg)
            if ahead and inbox.newest_hops < relays.max_hops:
                found.append((source, inbox.newest, inbox.newest_hops + 1))
        for place in range(room if len(found) > room else 0):
            draw = uniform(self.seed, int(Purpose.RADIO_RELAY), _key(turn.generation), turn.car, place)
            other = place + int(draw * (len(found) - place))
            found[place], found[other] = found[other], found[place]
        turn.frames += found[:room]

    def _lying_since(self, turn):
        alarms = self.params.alarms
        number = math.floor(turn.tick / alarms.every_s) if alarms else 0
        if number < 1 or turn.tick - number * alarms.every_s >= alarms.lasts_s:
            return None
        lots = {
            item: uniform(self.seed, int(Purpose.RADIO_ALARM), _key(number), item, 0)
            for item in range(1, len(self.cars))
            if self.transmits[item]
        }
        return turn.tick - number * alarms.every_s if turn.car == min(lots, key=lots.get, default=None) else None

    def _in_order(self, group):
        if group[0].tick >= self.idle_from:
            for turn in group:
                turn.start = turn.tick
                self._occupy(turn, group)
            return group
        phy, group = self.params.phy, [turn for turn in group if turn.frames]
        draws = {
            turn.car: int(
                uniform(self.seed, int(Purpose.RADIO_ACCESS), _key(turn.generation), turn.car, 0) * phy.backoff_slots
            )
            for turn in group
        }
        group.sort(key=lambda turn: draws[turn.car])
        counted = 0
        for backoff in sorted(set(draws.values())):
            tied = [turn for turn in group if draws[turn.car] == backoff]
            start = self.idle_from + phy.difs_us * 1e-6 + (backoff - counted) * phy.slot_us * 1e-6
            counted = backoff
            for turn in tied:
                turn.start = start
                self._occupy(turn, tied)
        return group

    def _occupy(self, turn, tied):
        self.idle_from = max(self.idle_from, turn.start + len(turn.frames) * self.airtime)
        turn.collided = max((len(other.frames) for other in tied if other is not turn), default=0)

    def _send(self, turn, x, y):
        listeners = range(len(self.cars)) if self.params.relays else [EGO]
        for number, (source, generation, hops) in enumerate(turn.frames):
            sent = turn.start + number * self.airtime
            for receiver in listeners:
                inbox = self.inboxes[receiver, source]
                if receiver in (turn.car, source):
                    continue
                there = inbox.under_way.get(generation, (math.inf, 0))[0] <= sent
                if number > 0 and (there or inbox.has(generation)):
                    continue
                fate, *further = four_uniforms(
                    self.seed, int(Purpose.RADIO_LINK), _key(turn.generation), receiver * 2**16 + turn.car,
                    0 if number == 0 else 1 + source,
                )  # fmt: skip
                distance = math.hypot(x[turn.car] - x[receiver], y[turn.car] - y[receiver])
                lost = self._swallows((receiver, turn.car), fate, sent, distance)
                if self.params.propagation:
                    draws = four_uniforms(
                        self.seed, int(Purpose.RADIO_PROPAGATION), _key(turn.generation), receiver * 2**16 + turn.car,
                        0 if number == 0 else 1 + source,
                    )  # fmt: skip
                    lost |= self._is_weak((receiver, turn.car), draws, x, y, distance)
                lost |= number < turn.collided
                if not lost:
                    arrival = sent + self.airtime + self._latency(*further)
                    if generation in inbox.under_way:
                        inbox.under_way[generation] = min(inbox.under_way[generation], (arrival, hops))
                    elif len(inbox.under_way) < 16 or generation > min(inbox.under_way):
                        if len(inbox.under_way) == 16:
                            del inbox.under_way[min(inbox.under_way)]
                            self.lost[source] += receiver == EGO
                        inbox.under_way[generation] = arrival, hops
                    else:
                        lost = True
                if lost and number == 0 and receiver == EGO:
                    self.lost[turn.car] += 1

    def _swallows(self, pair, draw, sent, distance):
        loss, placement, link = self.params.loss, self.params.placement, self.links[pair]
        p, burst = 1.0, 1.0
        if distance < loss.range_m:
            here = max(index for index, edge in enumerate(loss.from_m) if distance >= edge)
            p, burst = loss.probability[here], loss.mean_burst[here]
        if placement:
            offset = sum(self.cars[item].margin for item in pair)
            p = ndtr(math.sqrt(1 + placement.link_sd**2) * ndtri(p) + offset)
            if any(self.cars[item].in_door for item in pair):
                p, burst = max(p, placement.door_loss), max(burst, placement.door_burst)
        memory = max(0.0, 1 - 1 / ((1 - p) * burst)) if p < 1 else 0.0
        if sent > link.drawn_at:
            kept = memory ** ((sent - link.drawn_at) / 0.1)
            chance = p + (1 - p) * kept if link.bad else p - p * kept
            link.bad, link.drawn_at = p > 0 and draw < chance, sent
        return link.bad

    def _is_weak(self, pair, draws, x, y, distance):
        physics, link = self.params.propagation, self.links[pair]
        shadow, fade, chance, _ = draws
        travelled = sum(self.cars[item].travelled for item in pair)
        kept = 0.0 if link.shadow_at is None else math.exp(-(travelled - link.shadow_at) / physics.shadow_corr_m)
        link.shadow = kept * link.shadow + physics.shadow_sd_db * math.sqrt(1 - kept**2) * ndtri(shadow)
        link.shadow_at = travelled
        (a, b), between = (complex(x[item], y[item]) for item in pair), 0
        for item in set(range(len(self.cars))) - set(pair):
            seen = (complex(x[item], y[item]) - a) / (b - a)  # along and aside, in lengths of the link
            between += 0 < seen.real < 1 and abs(seen.imag) * distance <= 1.5
        m = physics.fading_m[distance >= physics.fading_far_from_m]
        power = (
            physics.power_dbm - physics.loss_1m_db - 10 * physics.exponent * math.log10(max(1.0, distance))
            - physics.blocking_db * between + link.shadow + 10 * math.log10(_gamma(m, fade) / m)
        )  # fmt: skip
        return chance < 1 / (1 + math.exp((power - physics.sensitivity_dbm) / physics.error_width_db))

    def _latency(self, beyond, chance, place):
        """Shift + gamma + tail."""
        latency = self.params.latency
        body = _gamma(latency.shape, beyond)
        total = latency.shift_ms + latency.scale_ms * body
        if chance < latency.tail_probability:
            low, high = latency.tail_ms
            total += low + (high - low) * place
        return total / 1000

    def _hear(self, item, now):
        """What the ego knows of a car at the end of a step."""
        self._take(item, now)
        if self.known[item] and now - self.known[item][0].arrival > self.params.stale_after_ms / 1000 + 1e-9:
            self.known[item] = []
        self.arrivals[item].append(self.fresh[item])

    def _take(self, item, now):
        """Puts what has reached the ego into its table."""
        inbox = self.inboxes[EGO, item]
        for generation, arrival, hops in inbox.landed(now):
            before = inbox.newest
            if not inbox.note(generation, hops):
                continue
            self.fresh[item] += 1
            if self.known[item] or before is None or generation > before:
                sent, reading = self.told[item, generation]
                stamp = self.cars[item].stamp(sent)
                self.known[item].append(Message(generation, sent, arrival, hops, stamp, reading))
        self.known[item] = sorted(self.known[item], key=lambda message: -message.generation)[: self.kept]
