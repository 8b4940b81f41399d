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
from roadsense.training.driven_worlds import DrivenWorlds
from roadsense.training.episodes import Episodes, drive_again
from roadsense.training.fragments import Lesson, Weights
from roadsense.training.reward_scale import RewardScale
from roadsense.training.teacher import Teacher


class WholeVecEnv(VecEnv):
    """The part of Stable-Baselines3's interface in which one object stands for all worlds."""

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


class ConvoyVecEnv(WholeVecEnv):
    """Worlds of a :class:`Player` behind the interface of Stable-Baselines3.

    ``infos`` are empty but for ended worlds, which state ``terminal_observation``, ``TimeLimit.truncated`` and
    ``episode`` (``r`` return before normalisation, ``l`` steps, ``collision``).

    Args:
        player: worlds to play in.
        scale: normalises rewards; None leaves them as they are.

    Attributes:
        played: episodes begun, by world.
        num_rows: rows of peers in an observation.
    """

    def __init__(self, player: Player, scale: RewardScale | None = None) -> None:
        self.player, self.worlds, self.scale = player, player.worlds, scale
        config = player.worlds.config
        self.num_rows = config.num_rows
        super().__init__(player.num_worlds, observation_space(self.num_rows), action_space(config.control))
        self._actions = np.zeros(self.num_envs)
        self._returns = np.zeros(self.num_envs)
        self._lengths = np.zeros(self.num_envs, np.int64)
        self._applied = np.zeros((config.horizon_steps, self.num_envs))  # actions of the episodes under way
        self._places = np.arange(self.num_envs)
        self._roots = [0] * self.num_envs
        self.played = [0] * self.num_envs

    @property
    def seeds(self) -> list[int]:
        """Seed of the running episode, by world."""
        return self.player.seeds

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
        """What :meth:`reopen` needs, the fields of :class:`Episodes`."""
        longest = int(self._lengths.max())
        done = np.arange(longest)[:, None] < self._lengths
        roots, played = np.array(self._roots, np.uint64), np.array(self.played)
        actions = np.where(done, self._applied[:longest], 0.0)
        return Episodes(roots, played, self._lengths.copy(), actions)._asdict()

    def reopen(self, episodes: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Lets the worlds stand where those episodes stood, see :func:`roadsense.training.episodes.drive_again`.

        Returns:
            What is observed there.

        Raises:
            DrivenOtherwiseError: these are not the worlds that the actions were chosen in.
        """
        found = Episodes(**episodes)
        self._roots, self.played = found.roots.tolist(), found.played.tolist()
        self._applied[: len(found.actions)], self._lengths[:] = found.actions, found.steps
        self._returns[:] = drive_again(self.player, found, np.ones(self.num_envs, np.bool_))
        return self._observation()

    def lesson(self, weights: Weights, num_steps: int, driven: NDArray[np.bool_], teacher: Teacher) -> Lesson:
        """A lesson of DAgger from the begin of an episode in every world; only ``reset`` goes on from its end.

        Args:
            weights: of the student.
            num_steps: of every world.
            driven: [world], who is driven by the student and not by the teacher.
            teacher: says what it would do.
        """
        worlds = DrivenWorlds(self.player)
        self._roots = [old if seed is None else seed for old, seed in zip(self._roots, self._seeds, strict=True)]
        self._reset_seeds()
        begun = Episodes.begun(np.array(self._roots, np.uint64), np.array(self.played) + 1)
        found = worlds.lesson(weights, begun, num_steps, driven, teacher)
        self.played = worlds.at.played.tolist()
        return found

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
