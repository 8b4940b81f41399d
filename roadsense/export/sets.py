"""The same observation with its rows in another order, or with more capacity: what may not change a decision."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from roadsense.convoy.observation import Observation

SET_BOUND = 1e-6
"""Largest difference that the order of rows or the capacity may make."""

_PADDING = 3


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
