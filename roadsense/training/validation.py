"""Which checkpoint is best: the deterministic policy on a fixed list of episodes of ``val``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from roadsense.convoy.player import Player
from roadsense.evaluation.metrics import measure
from roadsense.evaluation.rollout import play
from roadsense.policies.runtime import DeepSetsPolicy
from roadsense.policies.signature import Signature


class Validation(NamedTuple):
    """Figures of one validation, compared in this order: collisions, false brakes, then reward."""

    collisions: int
    """Broken-off episodes included."""
    false_brakes_per_calm_km: float
    minus_average_reward: float
    episodes: int
    timesteps: int

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Validation:
        """The one that :meth:`document` gave."""
        return cls(**{name: document[name] for name in document if name != "average_reward"},
                   minus_average_reward=-document["average_reward"])  # fmt: skip

    @property
    def merit(self) -> tuple[float, ...]:
        """Lowest is best."""
        return self[:3]

    def better_than(self, other: Validation | None) -> bool:
        """Whether this one is strictly better."""
        return other is None or self.merit < other.merit

    def document(self) -> dict[str, Any]:
        """As JSON."""
        found = self._asdict()
        return {"average_reward": -found.pop("minus_average_reward"), **found}


def validate(
    player: Player, episodes: int, tensors: Mapping[str, NDArray[np.float32]], signature: Signature, timesteps: int
) -> Validation:
    """Plays the deterministic policy over the first ``episodes`` of the player's list, always with the same seeds."""
    policy = DeepSetsPolicy("validated", signature, tensors)
    measured = [measure(trace) for trace in play(policy, player, episodes)]
    valid = [episode for episode in measured if episode.valid] or measured
    calm_km = sum(episode.calm_distance_km for episode in valid)
    return Validation(
        collisions=sum(episode.crashed for episode in valid),
        false_brakes_per_calm_km=sum(episode.false_brakes for episode in valid) / max(calm_km, 1e-9),
        minus_average_reward=-float(np.mean([episode.total_reward for episode in valid])),
        episodes=len(valid),
        timesteps=timesteps,
    )
