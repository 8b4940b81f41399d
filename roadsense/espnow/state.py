"""The arrays of the emulator: what sensors, links and tables hold."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from roadsense.espnow.params import PENDING_MESSAGES
from roadsense.philox import LANES

MESSAGE_DTYPE = np.dtype(
    [
        ("x_m", np.float64),
        ("y_m", np.float64),
        ("speed_mps", np.float64),
        ("heading_rad", np.float64),
        ("along_x", np.float64),  # cosine and sine of that heading
        ("along_y", np.float64),
        ("accel_mps2", np.float64),
        ("sent_s", np.float64),
        ("arrival_s", np.float64),
        ("timestamp_ms", np.int64),
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
        ("clock_s", np.float64),  # what the car's own clock shows at t = 0
        ("clock_rate", np.float64),  # and how fast it runs
        ("placement", np.float64),  # of its board: added to the margin of all its links
        ("in_door", np.bool_),
        # --- truth
        ("travelled_m", np.float64),
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
    ],
    align=True,
)
"""All that the emulator keeps about a car."""

LINK_DTYPE = np.dtype(
    [
        ("drawn_s", np.float64),  # when the link's state was last drawn; -inf: never
        ("loss", np.float64),  # in force, and the next too: of the loss step it was last in
        ("decay_per_s", np.float64),  # of the logarithm of the state's correlation with its past
        ("newest_generation", np.int64),  # of the sender, ever heard by the receiver
        ("considered_generation", np.int64),  # newest that the receiver has relayed, or chose not to
        ("seen", np.int64),  # bits: which of the 64 generations up to the newest were heard, newest lowest
        ("pending", np.int32),  # messages of the sender under way to the receiver, by whichever way
        ("newest_hops", np.int16),
        ("loss_step", np.int8),  # of the loss table, that it was last in; -1: none
        ("bad", np.bool_),
    ],
    align=True,
)
"""A directed link and what its receiver has of its sender. Small, because a batch holds very many."""

SHADOW_DTYPE = np.dtype([("gain_db", np.float64), ("drawn_m", np.float64)], align=True)
"""A directed link's shadowing, and how far its two cars had travelled together when it was drawn; -1: never."""

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

FRAME_DTYPE = np.dtype(
    [
        ("sent_s", np.float64),
        ("arrival_s", np.float64),  # inf: lost
        ("distance_m", np.float64),
        ("generation", np.int64),  # of the source
        ("world", np.int32),
        ("sender", np.int32),
        ("receiver", np.int32),
        ("source", np.int32),  # whose message it is
        ("hops", np.int32),
        ("collided", np.bool_),
    ],
    align=True,
)
"""What became of one frame at one car that listened, for whoever measures the radio."""

SENT_RING = 32
"""Generations of a car whose content is kept: longer than any of them is under way; a power of two."""
RING_MASK = SENT_RING - 1

TICKS_PER_STEP = 6
"""Most beacons of a car in one step: the shortest interval is 20 ms."""

NEVER = np.iinfo(np.int64).min
"""A generation older than all."""


def world_dtype(max_cars: int, messages_per_peer: int) -> np.dtype[np.void]:
    """All that is kept of one world, in one piece of memory: a batch goes through its worlds one after the other."""
    pairs = (max_cars, max_cars)
    return np.dtype(
        [
            ("cars", CAR_DTYPE, (max_cars,)),
            ("messages", MESSAGE_DTYPE, (max_cars, messages_per_peer)),
            ("links", LINK_DTYPE, pairs),
            ("flights", FLIGHT_DTYPE, (PENDING_MESSAGES, *pairs)),
            ("sent", MESSAGE_DTYPE, (SENT_RING, max_cars)),
            ("shadows", SHADOW_DTYPE, pairs),
        ],
        align=True,
    )


class RadioArrays(NamedTuple):
    """All that the emulator keeps, as kernels take it; rewritten in place by every step.

    Records, because one passes between kernels as a pointer while two dozen arrays cost more than the work itself.
    """

    cars: NDArray[np.void]
    """[world, car] of ``CAR_DTYPE``."""
    messages: NDArray[np.void]
    """[world, car, k] of ``MESSAGE_DTYPE``: the ego's table."""
    links: NDArray[np.void]
    """[world, receiver, sender] of ``LINK_DTYPE``."""
    shadows: NDArray[np.void]
    """[world, receiver, sender] of ``SHADOW_DTYPE``."""
    quantiles: NDArray[np.float64]
    """[row, level and cell] of the gamma distributions that tables refer to."""
    flights: NDArray[np.void]
    """[world, slot, receiver, sender] of ``FLIGHT_DTYPE``: copies under way, the first ``links.pending`` slots.

    By slot, for few are ever in use: what a step touches stands close together.
    """
    sent: NDArray[np.void]
    """[world, generation modulo SENT_RING, car] of ``MESSAGE_DTYPE``: what the car told."""
    busy_until_s: NDArray[np.float64]
    """[world], when the frame on the air ends."""
    ticks: NDArray[np.void]
    """Scratch of one step: turns to send, of ``TICK_DTYPE``."""
    relayed: NDArray[np.int64]
    """Scratch: [car, n], sources whose messages the car relays in its turn."""
    draws: NDArray[np.float64]
    """Scratch: [4, car and more], random numbers of one frame on the links to all cars, or of all cars' sensors."""
    arrivals: NDArray[np.float64]
    """Scratch: [car], when a frame arrived at each: inf if it was lost, NaN where it was not played."""
    frames: NDArray[np.void]
    """[n] of ``FRAME_DTYPE``: every frame of the step at every car that listens; what does not fit is not kept."""
    frame_count: NDArray[np.int64]
    """[1], how many frames there were."""

    def messages_of(
        self, world: NDArray[np.integer], car: NDArray[np.integer], generation: NDArray[np.integer]
    ) -> NDArray[np.void]:
        """What cars told, [n] of ``MESSAGE_DTYPE``; each generation is one of the car's last ``SENT_RING``."""
        return self.sent[world, generation & RING_MASK, car]

    @classmethod
    def zeros(
        cls,
        num_worlds: int,
        max_cars: int,
        messages_per_peer: int,
        quantiles: NDArray[np.float64],
        max_frames: int = 0,
    ) -> RadioArrays:
        whole = np.zeros(num_worlds, world_dtype(max_cars, messages_per_peer))
        return cls(
            **{name: whole[name] for name in whole.dtype.names or ()},
            quantiles=quantiles,
            busy_until_s=np.zeros(num_worlds),
            ticks=np.zeros(max_cars * TICKS_PER_STEP, TICK_DTYPE),
            relayed=np.zeros((max_cars, max_cars), np.int64),
            draws=np.zeros((4, max_cars + LANES)),
            arrivals=np.zeros(max_cars),
            frames=np.zeros(max_frames, FRAME_DTYPE),
            frame_count=np.zeros(1, np.int64),
        )


class RadioState(NamedTuple):
    """What the cars measured and what the ego has heard; rewritten in place by every step.

    Column 0 is the ego, whose reading is its own estimate of itself. ``message_*`` holds the newest messages of every
    peer, newest generation first; entries from ``message_count`` on are meaningless. All are views of
    :class:`RadioArrays`.
    """

    reading_x_m: NDArray[np.float64]
    """[world, car], the car's own estimate at this tick; likewise the next four."""
    reading_y_m: NDArray[np.float64]
    reading_speed_mps: NDArray[np.float64]
    reading_heading_rad: NDArray[np.float64]
    reading_accel_mps2: NDArray[np.float64]
    message_x_m: NDArray[np.float64]
    """[world, car, k], position at the moment of sending, as reported; likewise the next nine."""
    message_y_m: NDArray[np.float64]
    message_speed_mps: NDArray[np.float64]
    message_heading_rad: NDArray[np.float64]
    message_along_x: NDArray[np.float64]
    """Cosine of that heading."""
    message_along_y: NDArray[np.float64]
    message_accel_mps2: NDArray[np.float64]
    message_sent_s: NDArray[np.float64]
    """True time of sending, for metrics; the ego cannot know it (clocks are not synchronised)."""
    message_timestamp_ms: NDArray[np.int64]
    """The same by the sender's own clock, which is what the message tells."""
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

    @classmethod
    def of(cls, arrays: RadioArrays) -> RadioState:
        cars, messages = arrays.cars, arrays.messages
        return cls(
            **{f"reading_{name}": cars[name] for name in ("x_m", "y_m", "speed_mps", "heading_rad", "accel_mps2")},
            **{f"message_{name}": messages[name] for name in MESSAGE_DTYPE.names or ()},
            message_count=cars["messages"],
            **{name: cars[name] for name in ("heard_last_second", "received", "lost", "received_total", "lost_total")},
        )
