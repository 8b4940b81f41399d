"""Worlds of RLlib's environment runners: seeded as any other training's, and telling what their episodes came to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from ray.rllib.callbacks.callbacks import RLlibCallback

from roadsense.convoy.vector import ConvoyVectorEnv
from roadsense.convoy.world import EndReason

ENDED = ("convoy_return", "convoy_steps", "convoy_collision")
"""A runner's figures of every episode that ended: return before normalisation, steps, and whether V001 collided."""


class RunnerWorlds(ConvoyVectorEnv):
    """All worlds of one runner, as :func:`roadsense.training.rllib.make_convoy` gives them, with seeds of their own.

    Infos are empty but for worlds that ended, which state ``episode``: RLlib keeps the infos of every step and sends
    them to the learner.

    Attributes:
        played: episodes begun, by world.
    """

    def __init__(self, num_envs: int, **kwargs: Any) -> None:
        super().__init__(num_envs, autoreset_mode=AutoresetMode.NEXT_STEP, **kwargs)
        self._seeds: list[int] = list(range(num_envs))
        self.played = [0] * num_envs
        self._returns, self._lengths = np.zeros(num_envs), np.zeros(num_envs, np.int64)
        self._over = np.zeros(num_envs, np.bool_)

    def seed_worlds(self, seeds: Sequence[int], played: Sequence[int]) -> None:
        """Lets the next ``reset`` go on after that many episodes of every world's seed."""
        self._seeds, self.played = list(seeds), list(played)

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begins an episode in every world; ``seed``, of which RLlib gives each runner one, changes nothing."""
        found = super().reset(seed=self._seeds)
        if any(self.played):
            for world, (root, index) in enumerate(zip(self._seeds, self.played, strict=True)):
                self.player.reseed(world, root, index)
            found = super().reset()
        self._begin(np.ones(self.num_envs, np.bool_))
        return found[0], {}

    def step(self, actions: NDArray[np.float32]) -> Any:
        """Moves all worlds; one that ended begins anew instead."""
        self._begin(self._over)
        observation, rewards, terminated, truncated, _ = super().step(actions)
        self._lengths += ~self._over
        self._returns += rewards
        self._over = terminated | truncated
        info: dict[str, Any] = {}
        if self._over.any():
            hit = self.worlds.records["end_reason"] == EndReason.COLLISION
            info = {"episode": np.column_stack([self._returns, self._lengths, hit]), "_episode": self._over}
        return observation, rewards, terminated, truncated, info

    def _begin(self, chosen: NDArray[np.bool_]) -> None:
        self._returns[chosen], self._lengths[chosen] = 0.0, 0
        for world in np.flatnonzero(chosen).tolist():
            self.played[world] += 1


def first_world(worker_index: int, num_envs: int) -> int:
    """Where a runner's worlds stand among all; RLlib counts runners from 1, and 0 is the learner's own process."""
    return max(0, worker_index - 1) * num_envs


def make_runner_worlds(context: Mapping[str, Any]) -> RunnerWorlds:
    """The environment creator of a training; ``seed`` and ``played`` of the context are the callback's below."""
    return RunnerWorlds(**{name: value for name, value in context.items() if name not in ("seed", "played")})


class ConvoyCallbacks(RLlibCallback):
    """Seeds worlds when a runner has made them, and reports every episode that ended."""

    def on_environment_created(self, *, env: Any, env_context: Any, **kwargs: Any) -> None:
        """World i of all runners together is seeded ``seed`` + i, as world i of any other training."""
        first = first_world(env_context.worker_index, env.num_envs)
        worlds = range(first, first + env.num_envs)
        env.seed_worlds([env_context["seed"] + k for k in worlds], [env_context["played"][k] for k in worlds])
        # RLlib registers it anew for every algorithm, and Gymnasium would warn of the one before
        gym.registry.pop("rllib-single-agent-env-v0", None)

    def on_episode_end(self, *, episode: Any, metrics_logger: Any, **kwargs: Any) -> None:
        """Takes the figures from the last info: RLlib cuts episodes, and what ends is only their last part."""
        for name, value in zip(ENDED, episode.get_infos(-1)["episode"].tolist(), strict=True):
            metrics_logger.log_value(name, value, reduce="item_series")
