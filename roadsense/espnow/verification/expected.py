"""What parameters say about figures that can be measured, in closed form and apart from the emulator's kernels."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from roadsense.espnow.params import RadioParams
from roadsense.espnow.sections import Latency, Placement

Floats = NDArray[np.float64]


def link_loss(
    params: RadioParams, step: NDArray[np.intp], offset: Floats, in_door: NDArray[np.bool_]
) -> tuple[Floats, Floats]:
    """Loss of links, and the memory of their state over 100 ms.

    Args:
        params: parameters; beyond the last step of their loss table everything is lost.
        step: [n], of the loss table.
        offset: [n], sum of both boards' offsets of the margin.
        in_door: [n], whether a board of the link lies in a door.

    Returns:
        [n] each: share of beacons lost, and the correlation of the state with itself 100 ms later (Gilbert–Elliott:
        bad runs of beacons every 100 ms last 1/((1 − loss)(1 − memory)) on average).
    """
    from scipy.special import ndtr, ndtri

    placement = params.placement or Placement(link_sd=0.0)
    loss = ndtr(math.sqrt(1.0 + placement.link_sd**2) * ndtri([*params.loss.probability, 1.0])[step] + offset)
    burst = np.array([*params.loss.mean_burst, 1.0])[step]
    loss = np.where(in_door, np.maximum(loss, placement.door_loss), loss)
    burst = np.where(in_door, np.maximum(burst, placement.door_burst), burst)
    arriving = np.maximum((1.0 - loss) * burst, 1.0)  # below 1 losses would repel each other; independent is the limit
    return np.asarray(loss, np.float64), np.asarray(1.0 - 1.0 / arriving)


def still_bad(loss: Floats, memory: Floats, elapsed_s: Floats) -> Floats:
    """Probability that a link that swallowed a frame swallows one sent ``elapsed_s`` later."""
    return loss + (1.0 - loss) * memory ** (elapsed_s / 0.1)


def latency_share(latency: Latency, value_ms: Floats) -> Floats:
    """Share of latencies up to a value: shift + gamma, and with a small probability a uniform tail on top."""
    from scipy.special import gammainc

    def body(x: Floats) -> Floats:
        if latency.scale_ms == 0.0:
            return np.asarray(x >= 0.0, np.float64)
        return np.asarray(gammainc(latency.shape, np.maximum(x, 0.0) / latency.scale_ms))

    def body_integral(x: Floats) -> Floats:
        """Of the distribution function from 0 to x: x·F_k(x) − k·θ·F_{k+1}(x)."""
        x = np.maximum(x, 0.0)
        if latency.scale_ms == 0.0:
            return x
        return np.asarray(
            x * body(x) - latency.shape * latency.scale_ms * gammainc(latency.shape + 1.0, x / latency.scale_ms)
        )

    late = np.asarray(value_ms, np.float64) - latency.shift_ms
    low, high = latency.tail_ms
    with_tail = (
        body(late - low) if high == low else (body_integral(late - low) - body_integral(late - high)) / (high - low)
    )
    return (1.0 - latency.tail_probability) * body(late) + latency.tail_probability * with_tail


def latency_quantile_ms(latency: Latency, share: float) -> float:
    """The latency that a share of all does not exceed; found by bisection."""
    low, high = latency.shift_ms, latency.shift_ms + max(latency.longest_ms, 1.0)
    for _ in range(80):
        middle = 0.5 * (low + high)
        if float(latency_share(latency, np.array(middle))) < share:
            low = middle
        else:
            high = middle
    return high
