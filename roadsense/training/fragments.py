"""What is asked of those who drive worlds elsewhere, and what they bring: weights, a fragment for PPO, one for DAgger.

A fragment is some steps of some worlds, and a pure function of weights and of where the worlds stood
(:class:`roadsense.training.driven_worlds.DrivenWorlds`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from roadsense.convoy.observation import Observation
from roadsense.policies.signature import Signature


class Weights(NamedTuple):
    """What decides; one object for all workers."""

    version: int
    """How many updates they have gone through."""
    signature: Signature
    tensors: Mapping[str, NDArray[np.float32]]
    """The actor's parameters."""
    std: float = 0.0
    """Of the exploration noise."""


class Ends(NamedTuple):
    """The episodes that ended in a fragment, by step, then by world."""

    step: NDArray[np.int64]
    """[end], of the fragment."""
    world: NDArray[np.int64]
    """[end], of the fragment."""
    reason: NDArray[np.int64]
    """[end] of ``EndReason``."""
    total: NDArray[np.float64]
    """[end], sum of the episode's rewards."""
    length: NDArray[np.int64]
    """[end], its steps."""
    seen: Observation
    """[end, …], the last observations."""

    @classmethod
    def joined(cls, parts: Sequence[Ends], first_worlds: Sequence[int]) -> Ends:
        """Those of fragments that lie side by side, each from its first world on."""
        moved = [part._replace(world=part.world + first) for part, first in zip(parts, first_worlds, strict=True)]
        columns = {name: np.concatenate([getattr(part, name) for part in moved]) for name in cls._fields[:-1]}
        order = np.lexsort((columns["world"], columns["step"]))
        seen = (np.concatenate(arrays)[order] for arrays in zip(*(part.seen for part in moved), strict=True))
        return cls(**{name: column[order] for name, column in columns.items()}, seen=Observation._make(seen))

    def mask(self, num_steps: int, num_worlds: int) -> NDArray[np.bool_]:
        """[step, world], where an episode ended."""
        found = np.zeros((num_steps, num_worlds), np.bool_)
        found[self.step, self.world] = True
        return found


class Fragment(NamedTuple):
    """What PPO learns from."""

    version: int
    """Of the weights it was driven with."""
    seen: Observation
    """[step, world, …], before each action."""
    last: Observation
    """[world, …], after the last one."""
    raw: NDArray[np.float32]
    """[step, world], actions before they are clipped."""
    applied: NDArray[np.float64]
    """[step, world], and after it."""
    rewards: NDArray[np.float64]
    """[step, world], as they are."""
    ends: Ends
    busy_s: float
    """What it took the worker [s]."""
    repeated_steps: int
    """Steps of all worlds that were driven again to get where it begins."""


class Lesson(NamedTuple):
    """What DAgger learns from."""

    seen: Observation
    """[step, world, …]."""
    told: NDArray[np.float64]
    """[step, world], the teacher's actions."""
    decided: NDArray[np.float64]
    """[step, world], the student's."""
    ends: Ends
    busy_s: float
    repeated_steps: int
