"""What the policy sees: the ego's own sensors, and a set of what its peers told it.

Every feature is divided by its scale and then clipped; :data:`EGO_FEATURES` and :data:`PEER_FEATURES` are the layout.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from roadsense.jit import kernel
from roadsense.philox import fill_uniform
from roadsense.randomness import Purpose
from roadsense.traffic.base import EGO, STEP_S

LAYOUT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One number of an observation: raw value / ``scale``, clipped to [``low``, ``high``]."""

    name: str
    unit: str
    scale: float
    low: float
    high: float
    meaning: str


EGO_FEATURES = (
    Feature(name="speed", unit="m/s", scale=30.0, low=0.0, high=2.0, meaning="own speed, own sensor"),
    Feature(name="accel", unit="m/s²", scale=9.0, low=-2.0, high=2.0, meaning="own acceleration, own sensor"),
    Feature(name="previous_action", unit="1", scale=1.0, low=-1.0, high=1.0, meaning="action of the step before"),
    Feature(
        name="heard_share", unit="1", scale=1.0, low=0.0, high=1.0,
        meaning="beacons heard in the last second of those expected from the peers in the table",
    ),
)  # fmt: skip

PEER_FEATURES = (
    Feature(name="forward", unit="m", scale=100.0, low=-4.0, high=4.0, meaning="offset ahead, ego frame"),
    Feature(name="left", unit="m", scale=100.0, low=-4.0, high=4.0, meaning="offset to the left, ego frame"),
    Feature(name="relative_speed", unit="m/s", scale=20.0, low=-3.0, high=3.0, meaning="peer's speed minus own"),
    Feature(name="sin_heading", unit="1", scale=1.0, low=-1.0, high=1.0, meaning="sine of heading minus own"),
    Feature(name="cos_heading", unit="1", scale=1.0, low=-1.0, high=1.0, meaning="cosine of heading minus own"),
    Feature(name="accel", unit="m/s²", scale=9.0, low=-2.0, high=2.0, meaning="acceleration the peer reported"),
    Feature(name="age", unit="s", scale=0.5, low=0.0, high=4.0, meaning="time since the message arrived"),
    Feature(name="hops", unit="1", scale=3.0, low=0.0, high=1.0, meaning="relays the message went through"),
)
NUM_EGO = len(EGO_FEATURES)
NUM_PEER = len(PEER_FEATURES)


def layout(messages_per_peer: int) -> dict[str, object]:
    """What a model must agree on to read an observation; the capacity ``max_peers`` is no part of it."""

    def rows(features: tuple[Feature, ...]) -> list[list[object]]:
        return [[f.name, f.unit, f.scale, f.low, f.high] for f in features]

    return {
        "version": LAYOUT_VERSION,
        "ego": rows(EGO_FEATURES),
        "peers": rows(PEER_FEATURES),
        "messages_per_peer": messages_per_peer,
    }


def layout_hash(messages_per_peer: int) -> str:
    """SHA-256 (hex) of the layout; it travels with every model."""
    return hashlib.sha256(json.dumps(layout(messages_per_peer), sort_keys=True).encode()).hexdigest()


class Observation(NamedTuple):
    """Observations of all worlds."""

    ego: NDArray[np.float32]
    """[world, 4], see ``EGO_FEATURES``."""
    peers: NDArray[np.float32]
    """[world, max_peers · messages_per_peer, 8], see ``PEER_FEATURES``; rows in random order, unused rows 0."""
    peer_mask: NDArray[np.int8]
    """[world, max_peers · messages_per_peer], 1 where a row is used."""

    @classmethod
    def zeros(cls, num_worlds: int, num_rows: int) -> Observation:
        return cls(
            np.zeros((num_worlds, NUM_EGO), np.float32),
            np.zeros((num_worlds, num_rows, NUM_PEER), np.float32),
            np.zeros((num_worlds, num_rows), np.int8),
        )


EGO_SCALES = np.array([f.scale for f in EGO_FEATURES], np.float32)
PEER_SCALES = np.array([f.scale for f in PEER_FEATURES], np.float32)


def unscaled(observation: Observation) -> Observation:
    """The raw values of observations, in the units of their features; what was clipped stays clipped."""
    return Observation(observation.ego * EGO_SCALES, observation.peers * PEER_SCALES, observation.peer_mask)


_EGO_SCALE = np.array([(f.scale, f.low, f.high) for f in EGO_FEATURES])
_PEER_SCALE = np.array([(f.scale, f.low, f.high) for f in PEER_FEATURES])
_ROW_ORDER = int(Purpose.ROW_ORDER)


@kernel
def _scaled(value, scale):
    return min(max(value / scale[0], scale[1]), scale[2])


@kernel
def _shuffled_rows(world, radio, w, rows, keys, units):
    """Writes the used (car, message) pairs as car·k + message into ``rows`` in random order; returns their number."""
    cars, per_peer = radio.messages.shape[1], radio.messages.shape[2]
    fill_uniform(units, (cars - 1) * per_peer, world.seed, _ROW_ORDER, world.step, per_peer)
    count = 0
    for car in range(1, cars):
        for message in range(radio.cars[w, car].messages):
            item = car * per_peer + message
            key = units[item - per_peer]
            place = count
            while place > 0 and keys[place - 1] > key:
                keys[place], rows[place] = keys[place - 1], rows[place - 1]
                place -= 1
            keys[place], rows[place] = key, item
            count += 1
    return count


@kernel
def _heard_share(radio, w):
    """Share of the beacons expected in the last second from the peers in the table that were heard."""
    peers, heard = 0, 0
    for c in range(1, radio.cars.shape[1]):
        car = radio.cars[w, c]
        if car.messages > 0:
            peers += 1
            heard += car.heard_last_second
    return min(1.0, heard / (10.0 * peers)) if peers > 0 else 0.0


@kernel
def carried_on(told_m, moved_m, along):
    """One coordinate of a reported position, carried on by ``moved_m`` in the reported direction."""
    return told_m + moved_m * along


@kernel
def observe(world, radio, w, observation, rows, keys, units):
    """Writes the observation of one world from the radio's tables and the ego's own sensors.

    Positions are both cars' own estimates; a peer's is carried on from its message by the reported speed and heading
    for the age of the message. ``rows`` and ``keys`` are scratch of length max_peers · messages_per_peer, ``units`` is
    longer by ``LANES``.
    """
    ego, peers, mask = observation.ego, observation.peers, observation.peer_mask
    now = world.step * STEP_S
    own = radio.cars[w, EGO]
    ego[w, 0] = _scaled(own.speed_mps, _EGO_SCALE[0])
    ego[w, 1] = _scaled(own.accel_mps2, _EGO_SCALE[1])
    ego[w, 2] = _scaled(world.action, _EGO_SCALE[2])
    ego[w, 3] = _scaled(_heard_share(radio, w), _EGO_SCALE[3])
    count = _shuffled_rows(world, radio, w, rows, keys, units)
    per_peer = radio.messages.shape[2]
    for row in range(count):
        message = radio.messages[w, rows[row] // per_peer, rows[row] % per_peer]
        age, carried = now - message.arrival_s, message.speed_mps * (now - message.arrival_s)
        dx = carried_on(message.x_m, carried, message.along_x) - own.x_m
        dy = carried_on(message.y_m, carried, message.along_y) - own.y_m
        turned = message.heading_rad - own.heading_rad
        peers[w, row, 0] = _scaled(own.along_x * dx + own.along_y * dy, _PEER_SCALE[0])
        peers[w, row, 1] = _scaled(own.along_x * dy - own.along_y * dx, _PEER_SCALE[1])
        peers[w, row, 2] = _scaled(message.speed_mps - own.speed_mps, _PEER_SCALE[2])
        peers[w, row, 3] = _scaled(math.sin(turned), _PEER_SCALE[3])
        peers[w, row, 4] = _scaled(math.cos(turned), _PEER_SCALE[4])
        peers[w, row, 5] = _scaled(message.accel_mps2, _PEER_SCALE[5])
        peers[w, row, 6] = _scaled(age, _PEER_SCALE[6])
        peers[w, row, 7] = _scaled(float(message.hops), _PEER_SCALE[7])
        mask[w, row] = 1
    for row in range(count, mask.shape[1]):
        if mask[w, row] == 0:
            break  # rows are used from the front, so all further ones are empty already
        peers[w, row, :] = 0.0
        mask[w, row] = 0
