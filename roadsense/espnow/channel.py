"""One beacon on one directed link: is it lost, and if not, how long does it take?"""

from __future__ import annotations

import math

from roadsense.espnow.clock import key_of
from roadsense.jit import kernel
from roadsense.philox import normal_pair, uniform, uniform_pair
from roadsense.randomness import Purpose

_LOSS, _LATENCY = int(Purpose.RADIO_LOSS), int(Purpose.RADIO_LATENCY)
_TAIL, _FIRST_ATTEMPT = 0, 1  # draws of one latency


@kernel
def loss_bin(table, distance_m):
    """Which step of the loss table a distance falls into."""
    here = 0
    while here + 1 < table.loss_from_m.shape[0] and distance_m >= table.loss_from_m[here + 1]:
        here += 1
    return here


@kernel
def bad_probability(was_bad, loss, memory, elapsed_s):
    """Probability that a Gilbert–Elliott link is bad ``elapsed_s`` after it was in a known state.

    ``loss`` is the stationary share of the bad state, ``memory`` the correlation over 100 ms; with
    memory = 1 − 1/((1 − loss)·L) bad runs of beacons every 100 ms last L beacons on average.
    """
    kept = memory ** (elapsed_s / 0.1)
    return loss + (1.0 - loss) * kept if was_bad else loss - loss * kept


@kernel
def is_lost(car, table, seed, generation, link, sent_s, distance_m):
    """Advances the state of a link to the moment of sending and tells whether it swallows the beacon."""
    here = loss_bin(table, distance_m)
    loss = table.loss_probability[here]
    probability = bad_probability(car.link_bad, loss, table.loss_memory[here], sent_s - car.link_s)
    # A link that was bad elsewhere must not stay so where nothing is ever lost.
    car.link_bad = loss > 0.0 and uniform(seed, _LOSS, key_of(generation), link, 0) < probability
    car.link_s = sent_s
    return car.link_bad


@kernel
def gamma(seed, generation, link, shape):
    """A gamma variate of scale 1 (Marsaglia and Tsang 2000; shapes below 1 by their boost)."""
    key = key_of(generation)
    d = (shape if shape >= 1.0 else shape + 1.0) - 1.0 / 3.0
    c = 1.0 / math.sqrt(9.0 * d)
    draw = _FIRST_ATTEMPT
    while True:
        z, _ = normal_pair(seed, _LATENCY, key, link, draw)
        u, boost = uniform_pair(seed, _LATENCY, key, link, draw + 1)
        v = (1.0 + c * z) ** 3
        if v > 0.0 and math.log1p(-u) < 0.5 * z * z + d - d * v + d * math.log(v):
            return d * v if shape >= 1.0 else d * v * (1.0 - boost) ** (1.0 / shape)
        draw += 2


@kernel
def latency_s(table, seed, generation, link):
    """Time from sending to arrival: shift + gamma, and rarely a uniform tail on top."""
    chance, place = uniform_pair(seed, _LATENCY, key_of(generation), link, _TAIL)
    latency = table.latency_shift_s + table.latency_scale_s * gamma(seed, generation, link, table.latency_shape)
    if chance < table.tail_probability:
        latency += table.tail_from_s + (table.tail_to_s - table.tail_from_s) * place
    return latency
