"""Wrappers of the environment."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray


class PeerSequence(
    gym.ObservationWrapper[dict[str, NDArray[Any]], NDArray[np.float32], dict[str, NDArray[Any]]],
    gym.utils.RecordConstructorArgs,
):
    """Shows the peers as a set of any size, without capacity and without padding.

    The observation becomes ``Dict(ego, peers)`` with ``peers`` a stacked ``Sequence``: an array [peers, 8] of the rows
    in use, in the order of the step. Few libraries take such a space; fixed shapes and a mask are what they share.

    Example:
        >>> import roadsense
        >>> env = PeerSequence(gym.make("Convoy-v0", radio="ideal"))
        >>> observation, _ = env.reset(seed=7)
        >>> observation["peers"].shape
        (4, 8)
        >>> env.close()
    """

    def __init__(self, env: gym.Env[dict[str, NDArray[Any]], NDArray[np.float32]]) -> None:
        gym.utils.RecordConstructorArgs.__init__(self)
        gym.ObservationWrapper.__init__(self, env)
        inner = env.observation_space
        assert isinstance(inner, spaces.Dict)
        rows = inner["peers"]
        assert isinstance(rows, spaces.Box)
        row = spaces.Box(rows.low[0], rows.high[0], dtype=np.float32)
        self.observation_space = spaces.Dict({"ego": inner["ego"], "peers": spaces.Sequence(row, stack=True)})

    def observation(self, observation: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The ego's part as it is, and the used rows of the peers."""
        return {"ego": observation["ego"], "peers": observation["peers"][observation["peer_mask"] == 1]}
