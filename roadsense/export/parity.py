"""How two implementations of a policy are compared: on recorded observations, and on some that are made from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from roadsense.convoy.observation import EGO_FEATURES, PEER_FEATURES, Observation
from roadsense.export.sets import padded
from roadsense.policies.deep_sets import DeepSetsActor

PARITY_BOUND = 1e-5
"""Largest difference of the actions of two implementations in single precision that counts as the same."""
_CHUNK = 4096
_EACH = 50
"""Observations of each kind that is made."""

State = NDArray[np.float32]
"""What a memory holds, [hidden or cell, observation, lstm]."""


def memory(actor: DeepSetsActor, count: int, rng: np.random.Generator) -> State:
    """Any state of a network's memory for every observation; of width 0 where it has none."""
    return rng.uniform(-1.0, 1.0, (2, count, actor.widths.lstm)).astype(np.float32)


def actions_of_network(actor: DeepSetsActor, observations: Observation, state: State) -> NDArray[np.float64]:
    """What the torch network decides, [observation]."""
    found = np.empty(len(observations.ego))
    lstm = actor.widths.lstm
    with torch.no_grad():
        for chunk in _chunks(len(found)):
            inputs = [torch.from_numpy(np.ascontiguousarray(array[chunk])) for array in observations]
            action = actor(*inputs, *(torch.from_numpy(part[chunk]) for part in state)) if lstm else actor(*inputs)
            found[chunk] = (action[0] if lstm else action)[:, 0].numpy()
    return found


def actions_of_policy(policy: Any, observations: Observation, state: State) -> NDArray[np.float64]:
    """What a policy of :mod:`roadsense.policies.runtime` decides, [observation]."""
    found = np.empty(len(observations.ego))
    for chunk in _chunks(len(found)):
        policy.remember(state[0, chunk].copy(), state[1, chunk].copy())
        found[chunk] = policy.act(Observation._make(np.ascontiguousarray(array[chunk]) for array in observations))
    return found


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


def joined(parts: Sequence[Observation]) -> Observation:
    """All observations one after another, with room for the most rows."""
    room = max(part.peer_mask.shape[1] for part in parts)
    wide = [padded(part, room - part.peer_mask.shape[1]) for part in parts]
    return Observation(
        np.concatenate([part.ego for part in wide]),
        np.concatenate([part.peers for part in wide]),
        np.concatenate([part.peer_mask for part in wide]),
    )


def _some(observations: Observation, rng: np.random.Generator, size: int = _EACH) -> Observation:
    index = rng.integers(len(observations.ego), size=size)
    return Observation._make(array[index] for array in observations)


def crowd(observations: Observation, count: int, rng: np.random.Generator, size: int = _EACH) -> Observation:
    """``size`` observations of so many peers, each as some peer of the recording; of none where that has none."""
    rows = observations.peers[observations.peer_mask != 0]
    count = count if len(rows) else 0
    chosen = rng.integers(max(1, len(rows)), size=(size, count))
    return Observation(_some(observations, rng, size).ego, rows[chosen], np.ones((size, count), np.int8))


def _chunks(count: int) -> list[slice]:
    return [slice(start, start + _CHUNK) for start in range(0, count, _CHUNK)]
