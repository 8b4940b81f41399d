"""Gymnasium spaces of observations and actions."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from roadsense.convoy.control import action_bounds
from roadsense.convoy.observation import EGO_FEATURES, PEER_FEATURES, Feature


def _bounds(features: tuple[Feature, ...]) -> tuple[np.ndarray, np.ndarray]:
    low = np.array([feature.low for feature in features], np.float32)
    high = np.array([feature.high for feature in features], np.float32)
    return low, high


def observation_space(num_rows: int) -> spaces.Dict:
    """``Dict(ego, peers, peer_mask)`` with ``num_rows`` rows of capacity."""
    ego_low, ego_high = _bounds(EGO_FEATURES)
    peer_low, peer_high = (np.tile(bound, (num_rows, 1)) for bound in _bounds(PEER_FEATURES))
    return spaces.Dict(
        {
            "ego": spaces.Box(ego_low, ego_high, dtype=np.float32),
            # an unused row is zeros, which every feature's range holds
            "peers": spaces.Box(peer_low, peer_high, dtype=np.float32),
            "peer_mask": spaces.MultiBinary(num_rows),
        }
    )


def action_space(control: str) -> spaces.Box:
    """[0, 1] under ``brake``, [-1, 1] under ``acceleration``."""
    low, high = action_bounds(control)
    return spaces.Box(low, high, (1,), np.float32)
