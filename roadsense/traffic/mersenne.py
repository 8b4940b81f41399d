"""MT19937 in kernels: the generator that SUMO keeps for every lane.

Source: Matsumoto, Nishimura, "Mersenne Twister", ACM TOMACS 8 (1998); the first outputs are those of the C++ standard's
``std::mt19937``.
"""

from __future__ import annotations

import numpy as np

from roadsense.jit import kernel

WORDS = 624
_MIDDLE = 397
_MATRIX = np.uint32(0x9908B0DF)
_UPPER, _LOWER = np.uint32(0x80000000), np.uint32(0x7FFFFFFF)
_INITIAL = np.uint32(1812433253)
_TEMPER_B, _TEMPER_C = np.uint32(0x9D2C5680), np.uint32(0xEFC60000)
_ONE = np.uint32(1)
_TO_UNIT = 1.0 / 4294967296.0


@kernel
def seed_stream(words, seed):
    """Puts a stream to its begin; it is due to be :func:`twisted <twist>` before its first draw.

    Args:
        words: [624] uint32, written.
        seed: uint32.
    """
    words[0] = np.uint32(seed)
    for i in range(1, WORDS):
        before = words[i - 1]
        words[i] = np.uint32(_INITIAL * np.uint32(before ^ (before >> np.uint32(30))) + np.uint32(i))


@kernel
def twist(words):
    """Moves a stream on by 624 draws."""
    for i in range(WORDS):
        y = (words[i] & _UPPER) | (words[(i + 1) % WORDS] & _LOWER)
        mixed = words[(i + _MIDDLE) % WORDS] ^ (y >> _ONE)
        words[i] = mixed ^ _MATRIX if y & _ONE else mixed


@kernel
def unit_of(words, place):
    """The draw at ``place`` of the present 624 as a number in [0, 1)."""
    y = words[place]
    y ^= y >> np.uint32(11)
    y ^= (y << np.uint32(7)) & _TEMPER_B
    y ^= (y << np.uint32(15)) & _TEMPER_C
    y ^= y >> np.uint32(18)
    return y * _TO_UNIT
