"""The convoy as Stable-Baselines3 wants it: all worlds in one call, an ended one begins anew in the same step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvIndices, VecEnvStepReturn

from roadsense.convoy.player import Player
from roadsense.convoy.spaces import action_space, observation_space
from roadsense.convoy.world import EndReason, is_truncation
from roadsense.errors import InputMismatchError
from roadsense.training.reward_scale import RewardScale


class ConvoyVecEnv(VecEnv):
    """Worlds of a :class:`Player` behind the interface of Stable-Baselines3.

    ``infos`` are empty but for ended worlds, which state ``terminal_observation``, ``TimeLimit.truncated`` and
    ``episode`` (``r`` return before normalisation, ``l`` steps, ``collision``).

    Args:
        player: worlds to play in.
        scale: normalises rewards; None leaves them as they are.

    Attributes:
        played: episodes begun, by world.
    """

    def __init__(self, player: Player, scale: RewardScale | None = None) -> None:
        self.player, self.worlds, self.scale = player, player.worlds, scale
        config = player.worlds.config
        space = observation_space(config.max_peers * config.messages_per_peer)
        super().__init__(player.num_worlds, space, action_space(config.control))
        self._actions = np.zeros(self.num_envs)
        self._returns = np.zeros(self.num_envs)
        self._lengths = np.zeros(self.num_envs, np.int64)
        self._applied = np.zeros((config.horizon_steps, self.num_envs))  # actions of the episodes under way
        self._places = np.arange(self.num_envs)
        self._roots = [0] * self.num_envs
        self.played = [0] * self.num_envs

    def resume_at(self, played: Sequence[int]) -> None:
        """Lets the next ``reset`` go on after that many episodes of every world instead of repeating them."""
        self.played = list(played)

    def reset(self) -> dict[str, NDArray[Any]]:
        """Begins an episode in every world, after ``seed`` the first ones of the new seeds."""
        for world, seed in enumerate(self._seeds):
            if seed is not None:
                self._roots[world] = seed
                self.player.reseed(world, seed, self.played[world])
        self._reset_seeds()
        self._reset_options()
        self._begin(np.ones(self.num_envs, np.bool_))
        return self._observation()

    def open_episodes(self) -> dict[str, NDArray[Any]]:
        """What :meth:`reopen` needs: root seed, number and steps of every world's episode, and its actions so far."""
        longest = int(self._lengths.max())
        done = np.arange(longest)[:, None] < self._lengths
        return {
            "roots": np.array(self._roots, np.uint64),
            "played": np.array(self.played),
            "steps": self._lengths.copy(),
            "actions": np.where(done, self._applied[:longest], 0.0),
        }

    def reopen(self, episodes: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Begins the same episodes again and drives them, with the same actions, to where they were.

        An engine's state cannot be saved to the bit, but an episode follows from its seed and its actions alone.

        Returns:
            What is observed there.

        Raises:
            InputMismatchError: an episode ends on the way, so this is not the world those actions were chosen in.
        """
        self._roots, self.played = episodes["roots"].tolist(), episodes["played"].tolist()
        for world, (root, played) in enumerate(zip(self._roots, self.played, strict=True)):
            self.player.reseed(world, root, played - 1)
        self._returns[:], self._lengths[:] = 0.0, episodes["steps"]
        self.player.begin(np.ones(self.num_envs, np.bool_))
        for step, actions in enumerate(episodes["actions"]):
            driven = self._lengths > step
            self._applied[step] = actions
            self.worlds.step(actions, driven)
            self._returns[driven] += self.worlds.rewards[driven]
            if self.worlds.records["end_reason"].any():
                raise InputMismatchError(f"an episode that was under way ends at step {step + 1} when driven again.")
        return self._observation()

    def step_async(self, actions: NDArray[np.float32]) -> None:
        self._actions[:] = actions[:, 0]

    def step_wait(self) -> VecEnvStepReturn:
        """Moves all worlds by 0.1 s. All arrays are the caller's own."""
        self._applied[self._lengths, self._places] = self._actions
        self.worlds.step(self._actions)
        reasons = self.worlds.records["end_reason"]
        rewards, done = self.worlds.rewards.astype(np.float32), reasons > 0
        self._returns += self.worlds.rewards
        self._lengths += 1
        if self.scale is not None:
            rewards = self.scale(self.worlds.rewards, done)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if done.any():
            seen = self.worlds.observation
            for world in np.flatnonzero(done).tolist():
                infos[world] = {
                    "terminal_observation": {name: array[world].copy() for name, array in seen._asdict().items()},
                    "TimeLimit.truncated": bool(is_truncation(reasons[world])),
                    "episode": {
                        "r": float(self._returns[world]),
                        "l": int(self._lengths[world]),
                        "collision": bool(reasons[world] == EndReason.COLLISION),
                    },
                }
            self._begin(done)
        return self._observation(), rewards, done, infos

    def _begin(self, chosen: NDArray[np.bool_]) -> None:
        self.player.begin(chosen)
        self._returns[chosen], self._lengths[chosen] = 0.0, 0
        for world in np.flatnonzero(chosen).tolist():
            self.played[world] += 1

    def _observation(self) -> dict[str, NDArray[Any]]:
        return {name: array.copy() for name, array in self.worlds.observation._asdict().items()}

    def close(self) -> None:
        """Gives the engines back; calling it again does nothing."""
        self.player.close()

    # --- the rest of the interface: one object stands for all worlds
    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        value = None if attr_name == "render_mode" else getattr(self, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        setattr(self, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any) -> list[Any]:
        raise NotImplementedError(f"worlds have no methods of their own ({method_name}).")

    def env_is_wrapped(self, wrapper_class: type[Any], indices: VecEnvIndices = None) -> list[bool]:
        wanted: Iterable[int] = self._get_indices(indices)
        return [False for _ in wanted]

    def get_images(self) -> list[Any]:
        return []
