"""One beacon on one directed link: is it lost, and if not, how long does it take?

All that is drawn for it comes from one block of the generator: four numbers of 32 bits.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

from roadsense.jit import kernel

NOMINAL_INTERVAL_S = 0.1
"""Interval of beacons that mean bursts are stated for [s]."""

_LEVELS, _CELLS = 16, 32
_SIDE = _LEVELS * _CELLS + 1
QUANTILES = 2 * _SIDE
"""Length of the table of a distribution: from the median up, then from the median down. Each level has a quarter of the
probability of the level before, in equal cells."""


@functools.lru_cache(maxsize=64)
def gamma_quantiles(shape: float) -> NDArray[np.float64]:
    """Quantiles of the gamma distribution of scale 1, as :func:`quantile` reads them, [``QUANTILES``].

    Level k of either side covers the shares from 4⁻ᵏ to 4⁻ᵏ⁻¹ of a half; sixteen of them reach to the resolution of a
    draw, so that both ends are as true as the body. Linear in between: at most 0.002 scales off for shapes up to
    10.
    """
    from scipy.special import gammainccinv, gammaincinv

    level, cell = np.divmod(np.arange(_SIDE), _CELLS)
    share = 0.5 * 4.0 ** -level.astype(np.float64) * (1.0 - 0.75 * cell / _CELLS)
    found = np.concatenate([gammainccinv(shape, share), gammaincinv(shape, share)]).astype(np.float64)
    found.setflags(write=False)
    return found


@kernel
def quantile(quantiles, row, beyond):
    """The value that a share ``beyond``, in (0, 1), of a distribution lies above; ``row`` is its table."""
    upper = beyond < 0.5
    share = 2.0 * beyond if upper else 2.0 - 2.0 * beyond
    exponent = int(np.float64(share).view(np.int64) >> 52) - 1023  # a loop over levels would be mispredicted
    level = min(max(-(exponent + 1) >> 1, 0), _LEVELS - 1)
    place = min((1.0 - share * float(1 << (2 * level))) * (_CELLS / 0.75), _CELLS - 1e-9)
    cell = int(place)
    first = level * _CELLS + cell + (0 if upper else _SIDE)
    return quantiles[row, first] + (place - cell) * (quantiles[row, first + 1] - quantiles[row, first])


@kernel
def loss_bin(table, distance_m):
    """Which step of the loss table a distance falls into."""
    here = 0
    while here + 1 < table.loss_from_m.shape[0] and distance_m >= table.loss_from_m[here + 1]:
        here += 1
    return here


@kernel
def bad_probability(was_bad, loss, decay_per_s, elapsed_s):
    """Probability that a Gilbert–Elliott link is bad ``elapsed_s`` after it was in a known state.

    ``loss`` is the stationary share of the bad state; the correlation of the state with itself falls by
    exp(``decay_per_s`` · time). With 1 − 1/((1 − loss)·L) over 100 ms, bad runs of beacons every 100 ms last L beacons
    on average.
    """
    kept = math.exp(decay_per_s * elapsed_s)
    return loss + (1.0 - loss) * kept if was_bad else loss - loss * kept


@kernel
def set_loss(link, table, here, sender, receiver):
    """Puts a step of the loss table in force on a link, as the boards of these two cars are mounted.

    Below 1 / ((1 − loss)·burst) = 1 losses would have to repel each other: independent ones are the limit.
    """
    margin = table.loss_margin[here] + sender.placement + receiver.placement
    loss, burst = 0.5 * math.erfc(-margin * math.sqrt(0.5)), table.loss_burst[here]
    if sender.in_door or receiver.in_door:
        loss, burst = max(loss, table.door_loss), max(burst, table.door_burst)
    arriving = (1.0 - loss) * burst
    link.loss = loss
    link.decay_per_s = math.log(1.0 - 1.0 / arriving) / NOMINAL_INTERVAL_S if arriving > 1.0 else -math.inf
    link.loss_step = here


@kernel
def is_lost(link, table, draw, sent_s, distance_m, sender, receiver):
    """Advances the state of a link to the moment of sending and tells whether it swallows a frame.

    ``draw`` is uniform in (0, 1). Frames of one moment share their fate.
    """
    here = loss_bin(table, distance_m)
    if here != link.loss_step:
        set_loss(link, table, here, sender, receiver)
    elapsed_s = sent_s - link.drawn_s
    if elapsed_s > 0.0:
        # The probability lies between the loss and the present state: a draw beyond both needs no exponential.
        bad = draw < link.loss
        if bad != link.bad:
            # A link that was bad elsewhere must not stay so where nothing is ever lost.
            bad = link.loss > 0.0 and draw < bad_probability(link.bad, link.loss, link.decay_per_s, elapsed_s)
        link.bad = bad
        link.drawn_s = sent_s
    return link.bad


@kernel
def latency_s(table, quantiles, body, chance, place):
    """Time from sending to arrival: shift + gamma, and rarely a uniform tail on top; three uniform draws in (0, 1)."""
    latency = table.latency_shift_s + table.latency_scale_s * quantile(quantiles, table.latency_gamma, body)
    if chance < table.tail_probability:
        latency += table.tail_from_s + (table.tail_to_s - table.tail_from_s) * place
    return latency
