"""Rewards divided by the spread of returns: without it the critic learns nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class ReturnSpread:
    """The running spread of discounted returns, with a state that is a few numbers and can be saved as JSON.

    Args:
        clip: largest normalised reward, either way.
    """

    EPSILON = 1e-8

    def __init__(self, clip: float) -> None:
        self.clip = clip
        self.mean, self.variance, self.count = 0.0, 1.0, 1e-4

    @property
    def std(self) -> float:
        """What rewards are divided by."""
        return float(np.sqrt(self.variance + self.EPSILON))

    def learn(self, returns: NDArray[np.float64]) -> None:
        """Takes returns in, of any steps and worlds."""
        batch, mean, variance = len(returns), float(returns.mean()), float(returns.var())
        total, delta = self.count + batch, mean - self.mean
        spread = self.variance * self.count + variance * batch + delta * delta * self.count * batch / total
        self.mean += delta * batch / total
        self.variance, self.count = spread / total, total

    def scaled(self, rewards: NDArray[np.float64]) -> NDArray[np.float32]:
        """Rewards divided by the spread, and clipped."""
        return np.clip(rewards / self.std, -self.clip, self.clip).astype(np.float32)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps. Running returns are left out: a resumed training begins new episodes."""
        return {"mean": self.mean, "variance": self.variance, "count": self.count}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes a saved state over."""
        self.mean, self.variance, self.count = (float(state[key]) for key in ("mean", "variance", "count"))


class RewardScale(ReturnSpread):
    """Divides rewards by the standard deviation of the discounted return so far, and clips them.

    The same arithmetic as ``VecNormalize(norm_obs=False)`` of Stable-Baselines3.

    Args:
        num_worlds: how many worlds give rewards.
        gamma: discount of a step.
        clip: largest result, either way.
    """

    def __init__(self, num_worlds: int, gamma: float, clip: float) -> None:
        super().__init__(clip)
        self.gamma = gamma
        self._returns = np.zeros(num_worlds)

    def __call__(self, rewards: NDArray[np.float64], done: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Learns from the rewards [world] of a step and returns them normalised."""
        self._returns = self.gamma * self._returns + rewards
        self.learn(self._returns)
        self._returns[done] = 0.0
        return self.scaled(rewards)
