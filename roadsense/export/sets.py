"""Observations made from observations: other orders, more room, crowds, and values at their bounds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from roadsense.convoy.observation import EGO_FEATURES, PEER_FEATURES, Observation

_PADDING = 3
_EACH = 50
"""Observations of each kind that is made up."""


def permuted(observations: Observation, rng: np.random.Generator) -> Observation:
    """Every observation with its rows, used and unused, in an order of its own."""
    order: NDArray[np.int64] = rng.permuted(
        np.tile(np.arange(observations.peer_mask.shape[1]), (len(observations.ego), 1)), axis=1
    )
    return Observation(
        observations.ego,
        np.take_along_axis(observations.peers, order[:, :, None], 1),
        np.take_along_axis(observations.peer_mask, order, 1),
    )


def padded(observations: Observation, rows: int = _PADDING) -> Observation:
    """Every observation with so many more unused rows behind its own."""
    return Observation(
        observations.ego,
        np.pad(observations.peers, ((0, 0), (0, rows), (0, 0))),
        np.pad(observations.peer_mask, ((0, 0), (0, rows))),
    )


def largest(differences: NDArray[np.float64]) -> float:
    """Largest absolute value, 0 of none; NaN where any is."""
    return float(np.abs(differences).max(initial=0.0))


def joined(parts: Sequence[Observation]) -> Observation:
    """All observations one after another, with room for the most rows."""
    room = max(part.peer_mask.shape[1] for part in parts)
    wide = [padded(part, room - part.peer_mask.shape[1]) for part in parts]
    return Observation(
        np.concatenate([part.ego for part in wide]),
        np.concatenate([part.peers for part in wide]),
        np.concatenate([part.peer_mask for part in wide]),
    )


def crowd(observations: Observation, count: int, rng: np.random.Generator, size: int = _EACH) -> Observation:
    """``size`` observations of so many peers, each as some peer of the recording; of none where that has none."""
    rows = observations.peers[observations.peer_mask != 0]
    count = count if len(rows) else 0
    chosen = rng.integers(max(1, len(rows)), size=(size, count))
    return Observation(_some(observations, rng, size).ego, rows[chosen], np.ones((size, count), np.int8))


def made_up(observations: Observation, rng: np.random.Generator) -> Observation:
    """Observations that a recording may lack, made of recorded rows.

    Every number of peers from none to one more than twice the capacity; and recorded ones where one feature of the ego,
    or of all its peers, is at the lowest or highest value it can have (the highest age is the stalest message).
    """
    parts = [crowd(observations, count, rng) for count in range(2 * observations.peer_mask.shape[1] + 2)]
    for number, feature in enumerate(EGO_FEATURES):
        for bound in (feature.low, feature.high):
            one = _some(observations, rng)
            one.ego[:, number] = bound
            parts.append(one)
    for number, feature in enumerate(PEER_FEATURES):
        for bound in (feature.low, feature.high):
            one = _some(observations, rng)
            one.peers[:, :, number] = np.where(one.peer_mask != 0, np.float32(bound), np.float32(0.0))
            parts.append(one)
    return joined(parts)


def _some(observations: Observation, rng: np.random.Generator, size: int = _EACH) -> Observation:
    index = rng.integers(len(observations.ego), size=size)
    return Observation._make(array[index] for array in observations)
