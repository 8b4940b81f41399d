"""Philox4x32-10 in kernels: a random number is a pure function of what it is for.

Two of the family: Philox4x32 for draws by key alone, and the Philox4x64 of numpy, whose generators
:func:`roadsense.randomness.generator` gives, so that a kernel draws the very numbers that Python would.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011; checked against the test
vectors published with Random123.
"""

from __future__ import annotations

import math

import numpy as np

from roadsense.jit import inlined, kernel

_M0 = np.uint64(0xD2511F53)
_M1 = np.uint64(0xCD9E8D57)
_W0 = np.uint64(0x9E3779B9)
_W1 = np.uint64(0xBB67AE85)
_MASK32 = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_PURPOSE_SHIFT = np.uint64(24)
_TO_UNIT = 1.0 / 9007199254740992.0  # 2**-53
_TO_UNIT_32 = 1.0 / 4294967296.0  # 2**-32
_HIGH_BITS = np.uint64(5)
_LOW_BITS = np.uint64(6)
_TWO_26 = 67108864.0


@inlined
def philox4x32(c0, c1, c2, c3, k0, k1):
    """Ten rounds on four 32-bit counter words under two key words, all held in uint64; returns four words."""
    for _ in range(10):
        p0 = _M0 * c0
        p1 = _M1 * c2
        c0, c1, c2, c3 = (p1 >> _SHIFT) ^ c1 ^ k0, p1 & _MASK32, (p0 >> _SHIFT) ^ c3 ^ k1, p0 & _MASK32
        k0 = (k0 + _W0) & _MASK32
        k1 = (k1 + _W1) & _MASK32
    return c0, c1, c2, c3


@inlined
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


_M0_64, _M1_64 = np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157)
_W0_64, _W1_64 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBB67AE8584CAA73B)
_ELEVEN, _ONE = np.uint64(11), np.uint64(1)


@kernel
def _product(a, b):
    """High and low half of the product of two 64-bit words."""
    a0, a1, b0, b1 = a & _MASK32, a >> _SHIFT, b & _MASK32, b >> _SHIFT
    middle = a1 * b0 + ((a0 * b0) >> _SHIFT)
    other = a0 * b1 + (middle & _MASK32)
    return a1 * b1 + (middle >> _SHIFT) + (other >> _SHIFT), a * b


@kernel
def philox4x64(c0, c1, c2, c3, k0, k1):
    """Ten rounds on four 64-bit counter words under two key words; returns four words."""
    for _ in range(10):
        high0, low0 = _product(_M0_64, c0)
        high1, low1 = _product(_M1_64, c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0 += _W0_64
        k1 += _W1_64
    return c0, c1, c2, c3


@kernel
def generator_uniform(key, place):
    """What ``generator(…).random(place + 1)[place]`` is, in [0, 1).

    Args:
        key: ``derive_seed`` of the generator's seed, purpose and index; uint64.
        place: of the draw among those of that generator.
    """
    zero = np.uint64(0)
    words = philox4x64(np.uint64(place // 4) + _ONE, zero, zero, zero, np.uint64(key), zero)
    return float(words[place % 4] >> _ELEVEN) * _TO_UNIT


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
def four_uniforms(seed, purpose, step, item, draw):
    """Four independent float64 in (0, 1), of 32 random bits each, from one key."""
    w0, w1, w2, w3 = _words(seed, purpose, step, item, draw)
    return (
        (float(w0) + 0.5) * _TO_UNIT_32, (float(w1) + 0.5) * _TO_UNIT_32,
        (float(w2) + 0.5) * _TO_UNIT_32, (float(w3) + 0.5) * _TO_UNIT_32,
    )  # fmt: skip


LANES = 8
"""How many items are drawn at once where many are."""


@kernel
def fill_uniforms(out, count, seed, purpose, step, item, stride, draw):
    """The same as :func:`four_uniforms` for items ``item + i·stride``: in vector registers, at the cost of one or two.

    Args:
        out: [4, n] float64, its first ``count`` columns are written, and further ones up to a multiple of ``LANES``.
        count: how many items.
        seed, purpose, step, item, stride, draw: the keys.
    """
    first, second, third, fourth = out[0], out[1], out[2], out[3]
    for i in range((count + LANES - 1) // LANES * LANES):
        w0, w1, w2, w3 = _words(seed, purpose, step, item + i * stride, draw)
        first[i], second[i] = (float(w0) + 0.5) * _TO_UNIT_32, (float(w1) + 0.5) * _TO_UNIT_32
        third[i], fourth[i] = (float(w2) + 0.5) * _TO_UNIT_32, (float(w3) + 0.5) * _TO_UNIT_32


@kernel
def fill_uniform(out, count, seed, purpose, step, item):
    """The same as :func:`uniform` for items ``item + i`` and draw 0, in vector registers.

    Args:
        out: [n] float64, its first ``count`` numbers are written, and further ones up to a multiple of ``LANES``.
        count: how many items.
        seed, purpose, step, item: the keys.
    """
    for i in range((count + LANES - 1) // LANES * LANES):
        w0, w1, _, _ = _words(seed, purpose, step, item + i, 0)
        out[i] = _unit(w0, w1)


@kernel
def normal_quantile(share):
    """Quantile of the standard normal distribution, for shares from 1e-11 to 1 - 1e-11.

    Source: Wichura, algorithm AS 241 (PPND16), Applied Statistics 37 (1988); about 16 digits.
    """
    q = share - 0.5
    if abs(q) <= 0.425:
        r = 0.180625 - q * q
        above = ((((((2.5090809287301226727e3 * r + 3.3430575583588128105e4) * r + 6.7265770927008700853e4) * r
                    + 4.5921953931549871457e4) * r + 1.3731693765509461125e4) * r + 1.9715909503065514427e3) * r
                 + 1.3314166789178437745e2) * r + 3.3871328727963666080e0  # fmt: skip
        below = ((((((5.2264952788528545610e3 * r + 2.8729085735721942674e4) * r + 3.9307895800092710610e4) * r
                    + 2.1213794301586595867e4) * r + 5.3941960214247511077e3) * r + 6.8718700749205790830e2) * r
                 + 4.2313330701600911252e1) * r + 1.0  # fmt: skip
        return q * above / below
    r = math.sqrt(-math.log(min(share, 1.0 - share))) - 1.6
    above = ((((((7.74545014278341407640e-4 * r + 2.27238449892691845833e-2) * r + 2.41780725177450611770e-1) * r
                + 1.27045825245236838258e0) * r + 3.64784832476320460504e0) * r + 5.76949722146069140550e0) * r
             + 4.63033784615654529590e0) * r + 1.42343711074968357734e0  # fmt: skip
    below = ((((((1.05075007164441684324e-9 * r + 5.47593808499534494600e-4) * r + 1.51986665636164571966e-2) * r
                + 1.48103976427480074590e-1) * r + 6.89767334985100004550e-1) * r + 1.67638483018380384940e0) * r
             + 2.05319162663775882187e0) * r + 1.0  # fmt: skip
    return above / below if q > 0.0 else -above / below


@kernel
def normal_pair(seed, purpose, step, item, draw):
    """Two independent standard normal float64 from one key (Box and Muller)."""
    u, v = uniform_pair(seed, purpose, step, item, draw)
    radius = math.sqrt(-2.0 * math.log1p(-u))
    return radius * math.cos(2.0 * math.pi * v), radius * math.sin(2.0 * math.pi * v)
