"""The arrays of the emulator: parameters per world, and what sensors, links and tables hold."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from roadsense.espnow.channel import QUANTILE_CELLS, QUANTILE_LEVELS, gamma_quantiles
from roadsense.espnow.params import LOSS_BINS, PENDING_MESSAGES, RadioParams
from roadsense.philox import uniform
from roadsense.randomness import Purpose

NOMINAL_INTERVAL_S = 0.1
"""Interval of beacons that mean bursts are stated for [s]."""

TABLE_DTYPE = np.dtype(
    [
        ("beacon_interval_s", np.float64),
        ("beacon_drift_sd", np.float64),
        # Steps of the loss table; the one after the last is the end of range, where everything is lost.
        ("loss_from_m", np.float64, (LOSS_BINS,)),
        ("loss_probability", np.float64, (LOSS_BINS,)),
        ("loss_decay_per_s", np.float64, (LOSS_BINS,)),  # of the logarithm of a link's correlation with its past
        ("latency_shift_s", np.float64),
        ("latency_quantiles", np.float64, (QUANTILE_LEVELS * QUANTILE_CELLS + 1,)),  # of its body, at scale 1
        ("latency_scale_s", np.float64),
        ("tail_probability", np.float64),
        ("tail_from_s", np.float64),
        ("tail_to_s", np.float64),
        ("gps_rate_hz", np.float64),
        ("gps_sigma_m", np.float64),
        ("gps_tau_s", np.float64),
        ("extrapolate", np.bool_),
        ("speed_sd_mps", np.float64),
        ("accel_sd_mps2", np.float64),
        ("heading_sd_rad", np.float64),
        ("stale_after_s", np.float64),
        # --- medium
        ("airtime_s", np.float64),  # of one frame; 0: frames take no time and never meet
        ("slot_s", np.float64),
        ("difs_s", np.float64),
        ("backoff_slots", np.float64),
        # --- relays
        ("relay_hops", np.int64),  # most relays a message may go through
        ("relay_cosine", np.float64),  # of the half angle of the cone ahead whose messages are relayed
        ("relays_per_tick", np.int64),
    ]
)
"""Parameters in force in one world, randomisation applied; :data:`RadioTables` is [world] of it."""

RadioTables = NDArray[np.void]
"""[world] of ``TABLE_DTYPE``."""

MESSAGE_DTYPE = np.dtype(
    [
        ("x_m", np.float64),
        ("y_m", np.float64),
        ("speed_mps", np.float64),
        ("heading_rad", np.float64),
        ("accel_mps2", np.float64),
        ("sent_s", np.float64),
        ("arrival_s", np.float64),
        ("generation", np.int64),
        ("hops", np.int64),
    ]
)
"""A message under way or in a table."""

CAR_DTYPE = np.dtype(
    [
        # --- drawn at the begin of the episode
        ("beacon_phase_s", np.float64),
        ("beacon_period_s", np.float64),
        ("gps_phase_s", np.float64),
        # --- sensors
        ("sensing", np.bool_),  # the car was alive at the last tick, so it has a reading to send
        ("gps_fixes", np.int64),  # fixes due since t = 0 (negative before), counted at the last one
        ("gps_step", np.int64),  # of the last fix
        ("gps_error_x_m", np.float64),
        ("gps_error_y_m", np.float64),
        ("x_m", np.float64),  # its reading: the car's own estimates at this tick
        ("y_m", np.float64),
        ("speed_mps", np.float64),
        ("heading_rad", np.float64),
        ("accel_mps2", np.float64),
        ("along_x", np.float64),  # cosine and sine of that heading
        ("along_y", np.float64),
        # --- what the ego knows of it
        ("messages", np.int64),  # in the table
        ("heard_window", np.int64),  # beacons per step of the last second, four bits each, newest lowest
        ("heard_last_second", np.int64),
        ("received", np.int64),
        ("lost", np.int64),
        ("received_total", np.int64),
        ("lost_total", np.int64),
    ]
)
"""All that the emulator keeps about a car."""

LINK_DTYPE = np.dtype(
    [
        ("drawn_s", np.float64),  # when the link's state was last drawn; -inf: never
        ("newest_generation", np.int64),  # of the sender, ever heard by the receiver
        ("considered_generation", np.int64),  # newest that the receiver has relayed, or chose not to
        ("seen", np.int64),  # bits: which of the 64 generations up to the newest were heard, newest lowest
        ("pending", np.int32),  # messages of the sender under way to the receiver, by whichever way
        ("newest_hops", np.int16),
        ("bad", np.bool_),
    ],
    align=True,
)
"""A directed link and what its receiver has of its sender. Small, because a batch holds very many."""

FLIGHT_DTYPE = np.dtype([("arrival_s", np.float64), ("generation", np.int32), ("hops", np.int32)], align=True)
"""A copy of a message under way to one receiver."""

TICK_DTYPE = np.dtype(
    [
        ("tick_s", np.float64),
        ("car", np.int64),
        ("generation", np.int64),
        ("start_s", np.float64),
        ("backoff", np.int64),
        ("frames", np.int64),
        ("collided", np.int64),  # how many of its first frames
    ]
)
"""A car's turn to send within one step."""

SENT_RING = 32
"""Generations of a car whose content is kept: longer than any of them is under way; a power of two."""
RING_MASK = SENT_RING - 1

TICKS_PER_STEP = 6
"""Most beacons of a car in one step: the shortest interval is 20 ms."""

NEVER = np.iinfo(np.int64).min
"""A generation older than all."""


class RadioState(NamedTuple):
    """What the cars measured and what the ego has heard; rewritten in place by every step.

    Column 0 is the ego, whose reading is its own estimate of itself. ``message_*`` holds the newest messages of every
    peer, newest generation first; entries from ``message_count`` on are meaningless. The fields up to ``cars`` are
    views for readers: kernels work on the records behind them, because a record passes between kernels as one pointer
    while two dozen arrays cost more than the work itself.
    """

    reading_x_m: NDArray[np.float64]
    """[world, car], the car's own estimate at this tick; likewise the next four."""
    reading_y_m: NDArray[np.float64]
    reading_speed_mps: NDArray[np.float64]
    reading_heading_rad: NDArray[np.float64]
    reading_accel_mps2: NDArray[np.float64]
    message_x_m: NDArray[np.float64]
    """[world, car, k], position at the moment of sending, as reported; likewise the next eight."""
    message_y_m: NDArray[np.float64]
    message_speed_mps: NDArray[np.float64]
    message_heading_rad: NDArray[np.float64]
    message_accel_mps2: NDArray[np.float64]
    message_sent_s: NDArray[np.float64]
    """True time of sending, for metrics; the ego cannot know it (clocks are not synchronised)."""
    message_arrival_s: NDArray[np.float64]
    message_generation: NDArray[np.int64]
    """Consecutive number of the sender's beacon."""
    message_hops: NDArray[np.int64]
    """Relays it went through."""
    message_count: NDArray[np.int64]
    """[world, car], how many messages of the car are in the table; 0 when it is unknown or stale."""
    heard_last_second: NDArray[np.int64]
    """[world, car], beacons of the car that arrived in the last ten steps."""
    received: NDArray[np.int64]
    """[world, car], beacons that arrived in this step."""
    lost: NDArray[np.int64]
    """[world, car], beacons sent in this step that will never arrive."""
    received_total: NDArray[np.int64]
    """[world, car], sum of ``received`` over the steps after t = 0; likewise ``lost_total``."""
    lost_total: NDArray[np.int64]
    cars: NDArray[np.void]
    """[world, car] of ``CAR_DTYPE``."""
    messages: NDArray[np.void]
    """[world, car, k] of ``MESSAGE_DTYPE``: the ego's table."""
    links: NDArray[np.void]
    """[world, receiver, sender] of ``LINK_DTYPE``."""
    flights: NDArray[np.void]
    """[world, receiver, sender, slot] of ``FLIGHT_DTYPE``: copies under way, the first ``links.pending`` slots."""
    sent: NDArray[np.void]
    """[world, car, generation modulo SENT_RING] of ``MESSAGE_DTYPE``: what the car told."""
    busy_until_s: NDArray[np.float64]
    """[world], when the frame on the air ends."""
    ticks: NDArray[np.void]
    """Scratch of one step: turns to send, of ``TICK_DTYPE``."""
    relayed: NDArray[np.int64]
    """Scratch: [turn, n], sources whose messages the n-th further frame of a turn relays."""

    @classmethod
    def zeros(cls, num_worlds: int, max_cars: int, messages_per_peer: int) -> RadioState:
        cars = np.zeros((num_worlds, max_cars), CAR_DTYPE)
        messages = np.zeros((num_worlds, max_cars, messages_per_peer), MESSAGE_DTYPE)
        return cls(
            **{f"reading_{name}": cars[name] for name in ("x_m", "y_m", "speed_mps", "heading_rad", "accel_mps2")},
            **{f"message_{name}": messages[name] for name in MESSAGE_DTYPE.names or ()},
            message_count=cars["messages"],
            **{name: cars[name] for name in ("heard_last_second", "received", "lost", "received_total", "lost_total")},
            cars=cars,
            messages=messages,
            links=np.zeros((num_worlds, max_cars, max_cars), LINK_DTYPE),
            flights=np.zeros((num_worlds, max_cars, max_cars, PENDING_MESSAGES), FLIGHT_DTYPE),
            sent=np.zeros((num_worlds, max_cars, SENT_RING), MESSAGE_DTYPE),
            busy_until_s=np.zeros(num_worlds),
            ticks=np.zeros(max_cars * TICKS_PER_STEP, TICK_DTYPE),
            relayed=np.zeros((max_cars * TICKS_PER_STEP, max_cars), np.int64),
        )


def _factors(params: RadioParams, seed: int | None) -> dict[str, float]:
    """The factor of every randomised quantity: 1 without a seed, else drawn from its range."""
    ranges = dict(params.randomisation)
    if seed is None:
        return dict.fromkeys(ranges, 1.0)
    key = np.uint64(seed)
    draws = (uniform(key, int(Purpose.RADIO_DOMAIN), 0, index, 0) for index in range(len(ranges)))
    return {name: low + (high - low) * draw for (name, (low, high)), draw in zip(ranges.items(), draws, strict=True)}


def fill_tables(tables: RadioTables, world: int, params: RadioParams, seed: int | None = None) -> None:
    """Puts parameters in force in one world.

    Args:
        tables: [world] of ``TABLE_DTYPE``.
        world: which one.
        params: as read.
        seed: of the episode; if given, the parameters are varied within ``params.randomisation``.
    """
    row, factor = tables[world], _factors(params, seed)
    row["beacon_interval_s"] = params.beacon.interval_ms / 1000.0
    row["beacon_drift_sd"] = params.beacon.drift_ppm_sd * 1e-6
    steps = len(params.loss.from_m)
    share = np.ones(LOSS_BINS)
    share[:steps] = np.minimum(1.0, np.array(params.loss.probability) * factor["loss_scale"])
    burst = np.ones(LOSS_BINS)
    burst[:steps] = np.maximum(1.0, np.array(params.loss.mean_burst) * factor["burst_scale"])
    row["loss_from_m"] = (*params.loss.from_m, params.loss.range_m, *[math.inf] * (LOSS_BINS - steps - 1))
    row["loss_probability"] = share
    # Below 1 / ((1 − p) L) = 1 losses would have to repel each other: independent ones are the limit.
    arriving = 1.0 - share
    memory = np.where(arriving * burst > 1.0, 1.0 - 1.0 / np.maximum(arriving * burst, 1.0), 0.0)
    with np.errstate(divide="ignore"):
        row["loss_decay_per_s"] = np.log(memory) / NOMINAL_INTERVAL_S
    late = factor["latency_scale"] / 1000.0
    row["latency_shift_s"] = params.latency.shift_ms * late
    row["latency_quantiles"] = gamma_quantiles(params.latency.shape)
    row["latency_scale_s"] = params.latency.scale_ms * late
    row["tail_probability"] = params.latency.tail_probability
    row["tail_from_s"], row["tail_to_s"] = (edge * late for edge in params.latency.tail_ms)
    row["gps_rate_hz"], row["gps_tau_s"] = params.gps.rate_hz, params.gps.tau_s
    row["gps_sigma_m"] = params.gps.sigma_m * factor["gps_sigma_scale"]
    row["extrapolate"] = params.gps.extrapolate
    row["speed_sd_mps"] = params.noise.speed_mps * factor["noise_scale"]
    row["accel_sd_mps2"] = params.noise.accel_mps2 * factor["noise_scale"]
    row["heading_sd_rad"] = math.radians(params.noise.heading_deg) * factor["noise_scale"]
    row["stale_after_s"] = params.stale_after_ms / 1000.0
    phy, relays = params.phy, params.relays
    row["airtime_s"] = phy.airtime_s if phy else 0.0
    row["slot_s"], row["difs_s"] = (phy.slot_us * 1e-6, phy.difs_us * 1e-6) if phy else (0.0, 0.0)
    row["backoff_slots"] = phy.backoff_slots if phy else 1
    row["relay_hops"] = relays.max_hops if relays else 0
    row["relay_cosine"] = math.cos(math.radians(relays.cone_deg)) if relays else 1.0
    row["relays_per_tick"] = relays.per_tick if relays else 0
