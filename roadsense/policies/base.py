"""What a policy is: a function of observations, for all worlds at once."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from roadsense.convoy.observation import EGO_FEATURES, NUM_EGO, NUM_PEER, PEER_FEATURES, Observation
from roadsense.errors import ObservationError, UsageError
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


class BatchPolicy(Protocol):
    """Decides for every world of a batch, or for one. A policy may be of this class or only look like it."""

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

    def act_many(self, observation: Observation, truth: Truth | None) -> NDArray[np.float64]:
        """Actions [world] for the observations; ``truth`` is None unless the policy is privileged.

        NaN is no decision: it ends an episode.
        """

    @property
    def fallback(self) -> float:
        """What to do where there is no decision: ask for nothing where a driver drives, else brake fully."""
        return 0.0 if self.control == "brake" else -1.0

    _begun: bool = False

    def begin(self, seed: int = 0) -> None:
        """Begins an episode that is decided on by :meth:`act`; the first one begins by itself."""
        self.reset(np.ones(1, np.bool_), np.array([seed], np.uint64))
        self._begun = True

    def act(self, observation: Mapping[str, Any]) -> NDArray[np.float32]:
        """The action for one observation, as the environment gives it and takes it.

        Args:
            observation: ``ego`` [4], ``peers`` [row, 8] and ``peer_mask`` [row], in any number of rows, also none.

        Returns:
            The action, [1].

        Raises:
            ObservationError: it has other parts or shapes, or holds NaN or infinity where it is read; the caller falls
                back on :attr:`fallback`.
            UsageError: the policy reads the truth, which an observation does not hold.
        """
        if self.privileged:
            raise UsageError(f"{self.name} reads the truth, which no observation holds; play it with an evaluation.")
        one = _one(observation)
        if not self._begun:
            self.begin()
        action = self.act_many(one, None)[0]
        if action != action:
            raise ObservationError(
                f"{self.name} cannot decide on NaN or infinity ({_place(observation)}); fall back on {self.fallback:g}."
            )
        return np.array([action], np.float32)


def _one(observation: Mapping[str, Any]) -> Observation:
    """An observation of one world."""
    try:
        ego = np.asarray(observation["ego"], np.float32)[None]
        peers = np.asarray(observation["peers"], np.float32)[None]
        mask = np.asarray(observation["peer_mask"])[None]
        if mask.dtype != np.int8:
            if not np.isfinite(mask).all():
                raise ValueError("peer_mask holds NaN or infinity")
            mask = (mask != 0).astype(np.int8)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ObservationError(f"an observation holds numbers as ego, peers and peer_mask ({error!r}).") from None
    if ego.shape != (1, NUM_EGO) or peers.shape != (*mask.shape, NUM_PEER) or mask.ndim != 2:
        raise ObservationError(
            f"ego, peers and peer_mask are of shapes {ego.shape[1:]}, {peers.shape[1:]} and {mask.shape[1:]}; they must"
            f" be ({NUM_EGO},), (rows, {NUM_PEER}) and (rows,)."
        )
    return Observation(ego, peers, mask)


def _place(observation: Mapping[str, Any]) -> str:
    """Where an observation holds what is no finite number."""
    one = _one(observation)
    used = one.peer_mask != 0
    for name, features, values in (("ego", EGO_FEATURES, one.ego), ("peers", PEER_FEATURES, one.peers[used])):
        columns = np.flatnonzero(~np.isfinite(values).all(0))
        if len(columns):
            return f"{name}: {features[columns[0]].name}"
    return "sums without a result"


class Stateless(BatchPolicy):
    """A policy that remembers nothing."""

    def reset(self, chosen: NDArray[np.bool_], seeds: NDArray[np.uint64]) -> None:
        pass


class Remembering(BatchPolicy):
    """A policy that remembers something of each world, which is 0 at the begin of an episode."""

    MEMORY: np.dtype[Any] = np.dtype(np.float64)
    """What is remembered of a world."""

    def __init__(self) -> None:
        self._memory = np.zeros(0, self.MEMORY)

    def reset(self, chosen: NDArray[np.bool_], seeds: NDArray[np.uint64]) -> None:
        if len(self._memory) != len(chosen):
            self._memory = np.zeros(len(chosen), self.MEMORY)
        self._memory[chosen] = np.zeros((), self.MEMORY)
