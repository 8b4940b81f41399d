"""Policies that are what they should not be, to show that an evaluation would notice."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from roadsense.convoy.observation import Observation
from roadsense.philox import uniform
from roadsense.policies.base import BatchPolicy, Truth
from roadsense.randomness import Purpose

SHUFFLED = ":shuffled"
"""What stands behind the name of a policy that is shown its messages in another order of time."""

_SHUFFLE = int(Purpose.SHUFFLE)


class Shuffled(BatchPolicy):
    """A policy that decides on what its peers told at a random earlier step of the episode.

    What it hears is as true and as frequent as ever, only not of now. Its own sensors are left as they are.
    """

    def __init__(self, policy: BatchPolicy) -> None:
        self.inner = policy
        self.name = policy.name + SHUFFLED
        self.control, self.privileged = policy.control, policy.privileged
        self.messages_per_peer, self.origin = policy.messages_per_peer, policy.origin
        self._seen: list[tuple[NDArray[np.float32], NDArray[np.int8]]] = []
        self._steps, self._seeds = np.zeros(0, np.int64), np.zeros(0, np.uint64)

    def reset(self, chosen: NDArray[np.bool_], seeds: NDArray[np.uint64]) -> None:
        self.inner.reset(chosen, seeds)
        if len(self._steps) != len(chosen):
            self._steps, self._seeds, self._seen = np.zeros(len(chosen), np.int64), seeds.copy(), []
        self._steps[chosen], self._seeds[chosen] = 0, seeds[chosen]

    def act_many(self, observation: Observation, truth: Truth | None) -> NDArray[np.float64]:
        peers, mask = observation.peers.copy(), observation.peer_mask.copy()
        for world, (step, seed) in enumerate(zip(self._steps.tolist(), self._seeds, strict=True)):
            if step == len(self._seen):
                self._seen.append((np.zeros_like(peers), np.zeros_like(mask)))
            self._seen[step][0][world], self._seen[step][1][world] = peers[world], mask[world]
            earlier = int(uniform(seed, _SHUFFLE, step, 0, 0) * (step + 1))
            peers[world], mask[world] = self._seen[earlier][0][world], self._seen[earlier][1][world]
        self._steps += 1
        return self.inner.act_many(Observation(observation.ego, peers, mask), truth)
