"""What a policy is: a function of observations, for all worlds at once."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from roadsense.convoy.observation import Observation
from roadsense.espnow.state import RadioState
from roadsense.traffic.base import TrafficState


class Truth(NamedTuple):
    """The true state of all worlds; only privileged policies may read it."""

    records: NDArray[np.void]
    """[world] of :data:`roadsense.convoy.world.WORLD_DTYPE`."""
    traffic: TrafficState
    """[world, car]."""
    radio: RadioState
    """[world, car], what V001 has heard, with the true times of sending."""


class Policy(Protocol):
    """Decides for every world of a batch. A policy may be of this class or only look like it."""

    name: str
    control: str
    """``"brake"`` or ``"acceleration"``: the control whose actions it gives."""
    privileged: bool = False
    """Whether it reads the truth."""
    messages_per_peer: int = 1
    """Newest messages of each peer that it wants to observe."""
    origin: Mapping[str, str] = MappingProxyType({})
    """What a result needs to name it beside the code: path and weights of a trained one."""

    def reset(self, chosen: NDArray[np.bool_], seeds: NDArray[np.uint64]) -> None:
        """Begins an episode in the chosen worlds.

        Args:
            chosen: [world]; what is remembered of these is forgotten.
            seeds: [world], of the episodes; the root of whatever the policy draws, and of nothing else it does.
        """

    def act(self, observation: Observation, truth: Truth | None) -> NDArray[np.float64]:
        """Actions [world] for the observations; ``truth`` is None unless the policy is privileged."""


class Stateless(Policy):
    """A policy that remembers nothing."""

    def reset(self, chosen: NDArray[np.bool_], seeds: NDArray[np.uint64]) -> None:
        pass


class Remembering(Policy):
    """A policy that remembers something of each world, which is 0 at the begin of an episode."""

    MEMORY: np.dtype[Any] = np.dtype(np.float64)
    """What is remembered of a world."""

    def __init__(self) -> None:
        self._memory = np.zeros(0, self.MEMORY)

    def reset(self, chosen: NDArray[np.bool_], seeds: NDArray[np.uint64]) -> None:
        if len(self._memory) != len(chosen):
            self._memory = np.zeros(len(chosen), self.MEMORY)
        self._memory[chosen] = np.zeros((), self.MEMORY)
