"""What RLlib reports of an update, under the names of the log that every training keeps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, LEARNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME

from roadsense.training.rllib_learner import APPROX_KL, CLIP_FRACTION, EXPLAINED_VARIANCE, POLICY_LOSS, VALUE_LOSS
from roadsense.training.rllib_runners import ENDED


class Ended(NamedTuple):
    """An episode that ended."""

    reward: float
    """Return before normalisation."""
    steps: float
    collision: float


def steps_of(found: Mapping[str, Any]) -> int:
    """Steps of experience up to a result of ``Algorithm.train``."""
    return int(found[ENV_RUNNER_RESULTS][NUM_ENV_STEPS_SAMPLED_LIFETIME])


def ended_episodes(found: Mapping[str, Any]) -> list[Ended]:
    """The episodes that ended in the rollout of a result."""
    series = [found[ENV_RUNNER_RESULTS].get(name) for name in ENDED]
    if not isinstance(series[0], list):  # a restored algorithm reports NaN where no episode has ended yet
        return []
    return [Ended(*one) for one in zip(*series, strict=True)]


def figures_of(found: Mapping[str, Any], ended: Iterable[Ended], steps: int) -> dict[str, float]:
    """Figures of an update by their names in the log.

    Args:
        found: what ``Algorithm.train`` returned.
        ended: episodes to take means over.
        steps: of the rollout.
    """
    learnt, episodes = found[LEARNER_RESULTS][DEFAULT_MODULE_ID], list(ended)
    reward, length, collision = np.mean(episodes, axis=0).tolist() if episodes else [math.nan] * 3
    return {
        "time/fps": steps / found["time_this_iter_s"],
        "rollout/ep_rew_mean": reward,
        "rollout/ep_len_mean": length,
        "rollout/collision_share": collision,
        "train/explained_variance": float(learnt[EXPLAINED_VARIANCE]),
        "train/value_loss": float(np.mean(learnt[VALUE_LOSS])),
        "train/policy_gradient_loss": float(np.mean(learnt[POLICY_LOSS])),
        "train/approx_kl": float(np.mean(learnt[APPROX_KL])),
        "train/clip_fraction": float(np.mean(learnt[CLIP_FRACTION])),
        "train/learning_rate": float(learnt["default_optimizer_learning_rate"]),
    }
