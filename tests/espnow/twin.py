"""The radio once more in plain Python, from the description of the model; only random numbers are shared."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from roadsense.espnow.params import RadioParams
from roadsense.philox import normal_pair, uniform, uniform_pair
from roadsense.randomness import Purpose


@dataclass
class Reading:
    x: float
    y: float
    speed: float
    heading: float
    accel: float


@dataclass
class Message:
    generation: int
    sent: float
    arrival: float
    reading: Reading


def _key(number):
    return number + 2**20


@dataclass
class Car:
    """One car, its sensors and its link to the ego; sends to and is known by one ego."""

    params: RadioParams
    seed: int
    item: int
    reading: Reading | None = None
    error: tuple[float, float] = (0.0, 0.0)
    fixes: int = 0
    fix_step: int = 0
    bad: bool = False
    drawn_at: float | None = None
    under_way: list[Message] = field(default_factory=list)
    known: list[Message] = field(default_factory=list)
    newest: int | None = None
    arrivals: list[int] = field(default_factory=list)
    lost: int = 0

    def __post_init__(self):
        interval = self.params.beacon.interval_ms / 1000
        beacon, fix = uniform_pair(self.seed, int(Purpose.RADIO_PHASE), _key(0), self.item, 0)
        drift, _ = normal_pair(self.seed, int(Purpose.RADIO_PHASE), _key(0), self.item, 1)
        self.phase = beacon * interval
        self.period = interval * (1 + self.params.beacon.drift_ppm_sd * 1e-6 * drift)
        self.gps_phase = fix / self.params.gps.rate_hz

    def hear(self, step, distance, transmits, kept):
        """What the ego knows of the car at the end of a step."""
        now = step * 0.1
        self.lost = 0
        if transmits and self.reading is not None:
            generation = math.floor(((step - 1) * 0.1 - self.phase) / self.period) + 1
            while self.phase + generation * self.period <= now:
                self._send(generation, (step - 1) * 0.1, distance)
                generation += 1
        landed = [message for message in self.under_way if message.arrival <= now]
        self.under_way = [message for message in self.under_way if message.arrival > now]
        if not self.known and self.newest is not None:
            candidates = [message for message in landed if message.generation > self.newest]
        else:
            candidates = landed
        self.known = sorted(self.known + candidates, key=lambda message: -message.generation)[:kept]
        if self.known:
            self.newest = self.known[0].generation
            if now - self.known[0].arrival > self.params.stale_after_ms / 1000 + 1e-9:
                self.known = []
        self.arrivals.append(len(landed))

    def _send(self, generation, tick, distance):
        sent = self.phase + generation * self.period
        loss, link = self.params.loss, self.item
        p, memory = 1.0, 0.0
        if distance < loss.range_m:
            here = max(index for index, edge in enumerate(loss.from_m) if distance >= edge)
            p = loss.probability[here]
            memory = max(0.0, 1 - 1 / ((1 - p) * loss.mean_burst[here])) if p < 1 else 0.0
        if self.drawn_at is None:
            chance = p
        elif self.bad:
            chance = p + (1 - p) * memory ** ((sent - self.drawn_at) / 0.1)
        else:
            chance = p - p * memory ** ((sent - self.drawn_at) / 0.1)
        draw = uniform(self.seed, int(Purpose.RADIO_LOSS), _key(generation), link, 0)
        self.bad, self.drawn_at = p > 0 and draw < chance, sent
        if self.bad:
            self.lost += 1
            return
        seen, ahead = self.reading, (sent - tick if self.params.gps.extrapolate else 0.0)
        carried = Reading(
            seen.x + seen.speed * ahead * math.cos(seen.heading), seen.y + seen.speed * ahead * math.sin(seen.heading),
            seen.speed, seen.heading, seen.accel,
        )  # fmt: skip
        self.under_way.append(Message(generation, sent, sent + self._latency(generation), carried))

    def _latency(self, generation):
        latency, purpose = self.params.latency, int(Purpose.RADIO_LATENCY)
        d = latency.shape - 1 / 3
        c = 1 / math.sqrt(9 * d)
        for draw in range(1, 1000, 2):
            z, _ = normal_pair(self.seed, purpose, _key(generation), self.item, draw)
            u, _ = uniform_pair(self.seed, purpose, _key(generation), self.item, draw + 1)
            v = (1 + c * z) ** 3
            if v > 0 and math.log(1 - u) < z * z / 2 + d - d * v + d * math.log(v):
                break
        total = latency.shift_ms + latency.scale_ms * d * v
        chance, place = uniform_pair(self.seed, purpose, _key(generation), self.item, 0)
        if chance < latency.tail_probability:
            low, high = latency.tail_ms
            total += low + (high - low) * place
        return total / 1000

    def sense(self, step, x, y, speed, heading, accel):
        """Makes the reading of a step."""
        noise, gps = self.params.noise, self.params.gps
        z_speed, z_accel = normal_pair(self.seed, int(Purpose.SENSOR), _key(step), self.item, 0)
        z_heading, _ = normal_pair(self.seed, int(Purpose.SENSOR), _key(step), self.item, 1)
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
