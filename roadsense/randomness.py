"""Every random number comes from one episode seed, keyed by what it is for.

Two forms share the keys. :func:`generator` gives a numpy generator for the draws of a reset (scenario, hazard, driver).
:mod:`roadsense.philox` gives single numbers inside kernels, keyed also by step, link and index: nothing is stored
between steps, so an episode is the same alone, in a batch, and in another process.
"""

from __future__ import annotations

import enum

import numpy as np

_MASK64 = (1 << 64) - 1


class Purpose(enum.IntEnum):
    """What a random number is for. Values are part of the reproducibility contract: append, never renumber."""

    EPISODE = 1
    SCENARIO = 2
    TRAFFIC = 3
    HAZARD = 4
    DRIVER = 5
    RADIO_DOMAIN = 6
    ROW_ORDER = 7
    RADIO_PHASE = 8
    RADIO_LOSS = 9  # retired, like the next: RADIO_LINK draws both
    RADIO_LATENCY = 10
    GPS = 11
    SENSOR = 12
    POLICY = 13
    GENERATOR = 14
    ORDINARY_DRIVING = 15
    RADIO_LINK = 16
    RADIO_ACCESS = 17
    RADIO_PLACEMENT = 18
    RADIO_PROPAGATION = 19
    RADIO_ALARM = 20
    RADIO_RELAY = 21
    SHUFFLE = 22
    RADIO_PROFILE = 40
    LEARNING = 41
    EXPLORATION = 42


def _splitmix64(value: int) -> int:
    value = (value + 0x9E3779B97F4A7C15) & _MASK64
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK64
    return value ^ (value >> 31)


def derive_seed(seed: int, purpose: Purpose, index: int = 0) -> int:
    """Returns a 63-bit seed for ``purpose`` and ``index`` below ``seed`` (splitmix64 of the three in turn)."""
    mixed = _splitmix64(seed & _MASK64)
    mixed = _splitmix64(mixed ^ int(purpose))
    return _splitmix64(mixed ^ (index & _MASK64)) >> 1


def episode_seed(root_seed: int, episode_index: int) -> int:
    """The seed of the ``episode_index``-th episode after an environment was seeded with ``root_seed``."""
    return derive_seed(root_seed, Purpose.EPISODE, episode_index)


def generator(seed: int, purpose: Purpose, index: int = 0) -> np.random.Generator:
    """A numpy generator (Philox4x64) for all draws of one purpose of one episode."""
    return np.random.Generator(np.random.Philox(key=derive_seed(seed, purpose, index)))
