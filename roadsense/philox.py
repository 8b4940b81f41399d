"""Philox4x32-10 in kernels: a random number is a pure function of what it is for.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011; checked against the test
vectors published with Random123.
"""

from __future__ import annotations

import math

import numpy as np

from roadsense.jit import kernel

_M0 = np.uint64(0xD2511F53)
_M1 = np.uint64(0xCD9E8D57)
_W0 = np.uint64(0x9E3779B9)
_W1 = np.uint64(0xBB67AE85)
_MASK32 = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_PURPOSE_SHIFT = np.uint64(24)
_TO_UNIT = 1.0 / 9007199254740992.0  # 2**-53
_HIGH_BITS = np.uint64(5)
_LOW_BITS = np.uint64(6)
_TWO_26 = 67108864.0


@kernel
def philox4x32(c0, c1, c2, c3, k0, k1):
    """Ten rounds on four 32-bit counter words under two key words, all held in uint64; returns four words."""
    for _ in range(10):
        p0 = _M0 * c0
        p1 = _M1 * c2
        c0, c1, c2, c3 = (p1 >> _SHIFT) ^ c1 ^ k0, p1 & _MASK32, (p0 >> _SHIFT) ^ c3 ^ k1, p0 & _MASK32
        k0 = (k0 + _W0) & _MASK32
        k1 = (k1 + _W1) & _MASK32
    return c0, c1, c2, c3


@kernel
def _words(seed, purpose, step, item, draw):
    key = np.uint64(seed)
    # The purpose shares a word with the draw index (< 2**24) so that step and item keep 32 bits each.
    tag = (np.uint64(purpose) << _PURPOSE_SHIFT) | np.uint64(draw)
    return philox4x32(
        tag & _MASK32,
        np.uint64(step) & _MASK32,
        np.uint64(item) & _MASK32,
        np.uint64(0),
        key & _MASK32,
        key >> _SHIFT,
    )


@kernel
def _unit(high, low):
    return (float(high >> _HIGH_BITS) * _TWO_26 + float(low >> _LOW_BITS)) * _TO_UNIT


@kernel
def uniform(seed, purpose, step, item, draw):
    """One float64 in [0, 1) with 53 random bits, keyed by episode seed, purpose, step, item (car or link) and draw."""
    w0, w1, _, _ = _words(seed, purpose, step, item, draw)
    return _unit(w0, w1)


@kernel
def uniform_pair(seed, purpose, step, item, draw):
    """Two independent float64 in [0, 1) from one key."""
    w0, w1, w2, w3 = _words(seed, purpose, step, item, draw)
    return _unit(w0, w1), _unit(w2, w3)


@kernel
def normal_pair(seed, purpose, step, item, draw):
    """Two independent standard normal float64 from one key (Box and Muller)."""
    u, v = uniform_pair(seed, purpose, step, item, draw)
    radius = math.sqrt(-2.0 * math.log1p(-u))
    return radius * math.cos(2.0 * math.pi * v), radius * math.sin(2.0 * math.pi * v)
