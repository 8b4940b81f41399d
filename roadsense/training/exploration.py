"""Exploration noise as a function of episode and step: the same wherever, and beside whom, a world is driven."""

from __future__ import annotations

import numpy as np

from roadsense.jit import kernel
from roadsense.philox import normal_pair
from roadsense.randomness import Purpose

_EXPLORATION = int(Purpose.EXPLORATION)


@kernel
def explore(means, worlds, std, low, high, raw, applied):
    """Draws every world's action around its mean, keyed by the seed and step of its episode.

    Args:
        means: [world] float64, before they are clipped.
        worlds: [world] of ``WORLD_DTYPE``.
        std: of the noise.
        low, high: bounds of the action.
        raw: [world] float32, written: the action before it is clipped, as Stable-Baselines3 keeps it.
        applied: [world] float64, written: the same, clipped.
    """
    for w in range(means.shape[0]):
        noise, _ = normal_pair(worlds[w].seed, _EXPLORATION, worlds[w].step, 0, 0)
        raw[w] = np.float32(means[w] + std * noise)
        applied[w] = min(max(np.float64(raw[w]), low), high)
