"""Worlds that Ray workers drive, as the learner sees them: whole fragments instead of steps.

World i of all workers' worlds is world i of as many in this process: the same seeds, the same episodes, in whatever
number of workers. Where the worlds stand is kept here (:class:`roadsense.training.episodes.Episodes`), so nothing is
lost with a worker, and rewards are normalised here, step by step over all worlds, as they are in process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from roadsense.convoy.observation import Observation
from roadsense.convoy.spaces import action_space, observation_space
from roadsense.espnow.profiles import read_params
from roadsense.randomness import episode_seed
from roadsense.training.config import TrainConfig
from roadsense.training.episodes import Episodes
from roadsense.training.experience import anywhere, play_arguments
from roadsense.training.fragments import Ends, Fragment, Lesson, Weights
from roadsense.training.ray_workers import RayWorkers, WorkersConfig
from roadsense.training.reward_scale import RewardScale
from roadsense.training.teacher import Teacher
from roadsense.training.vec_env import WholeVecEnv


class RemoteVecEnv(WholeVecEnv):
    """Worlds of workers behind as much of Stable-Baselines3's interface as a learner of fragments needs.

    Args:
        workers: who drives; each an equal part of the worlds.
        num_envs: worlds in all.
        arguments: of the :class:`roadsense.convoy.player.Player` of each worker.
        scale: normalises rewards; None leaves them as they are.

    Attributes:
        num_rows: rows of peers in an observation.
        episodes: where the worlds stand.
        collector: who fills rollouts of Stable-Baselines3 from them, if PPO learns here.
    """

    def __init__(
        self, workers: RayWorkers, num_envs: int, arguments: Mapping[str, Any], scale: RewardScale | None = None
    ) -> None:
        self.workers, self.scale = workers, scale
        self.num_rows = arguments["max_peers"] * arguments["messages_per_peer"]
        super().__init__(num_envs, observation_space(self.num_rows), action_space(arguments["control"]))
        each = num_envs // workers.config.count
        self.parts = [slice(first, first + each) for first in range(0, num_envs, each)]
        self.episodes = Episodes.begun(np.zeros(num_envs, np.uint64), np.zeros(num_envs, np.int64))
        self.collector: Any = None
        self._shared: tuple[tuple[int, str, float], Any] | None = None

    # ---------------------------------------------------------------- where the worlds stand

    @property
    def played(self) -> list[int]:
        """Episodes begun, by world."""
        return [int(count) for count in self.episodes.played]

    @property
    def seeds(self) -> list[int]:
        """Seed of the running episode, by world."""
        stand = zip(self.episodes.roots.tolist(), self.episodes.played.tolist(), strict=True)
        return [episode_seed(root, played - 1) for root, played in stand]

    def resume_at(self, played: Sequence[int]) -> None:
        """Lets the next ``reset`` go on after that many episodes of every world instead of repeating them."""
        self.episodes = Episodes.begun(self.episodes.roots, np.array(played, np.int64))

    def begin(self) -> None:
        """Begins an episode in every world, after ``seed`` the first ones of the new seeds, and looks at none."""
        roots = [old if seed is None else seed for old, seed in zip(self.episodes.roots, self._seeds, strict=True)]
        self.episodes = Episodes.begun(np.array(roots, np.uint64), self.episodes.played + 1)
        self._reset_seeds()
        self._reset_options()

    def reset(self) -> dict[str, NDArray[Any]]:
        """As :meth:`begin`, and returns what is observed."""
        self.begin()
        return self._look()

    def open_episodes(self) -> dict[str, NDArray[Any]]:
        """What :meth:`reopen` needs, the fields of :class:`Episodes`."""
        return self.episodes._asdict()

    def reopen(self, episodes: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Lets the worlds stand there again.

        Returns:
            What is observed there.
        """
        roots, played, steps, actions = (np.asarray(episodes[name]) for name in Episodes._fields)
        self.episodes = Episodes(roots.astype(np.uint64), played.astype(np.int64), steps.astype(np.int64), actions)
        self._reset_seeds()
        return self._look()

    def _look(self) -> dict[str, NDArray[Any]]:
        self.workers.launch("look", [(self.episodes.of(part),) for part in self.parts])
        return joined_observations(self.workers.gather(), axis=0)._asdict()

    # ---------------------------------------------------------------- fragments

    def launch(self, weights: Weights, num_steps: int) -> None:
        """Lets all workers begin with a fragment from where the worlds stand."""
        shared = self._share(weights)
        self.workers.launch("explore", [(shared, self.episodes.of(part), num_steps) for part in self.parts])

    def gather(self) -> Fragment:
        """Waits for the fragments that were launched, as one of all worlds; they stand at its end then."""
        parts: list[Fragment] = self.workers.gather()
        found = Fragment(
            version=parts[0].version,
            seen=joined_observations([part.seen for part in parts], axis=1),
            last=joined_observations([part.last for part in parts], axis=0),
            raw=np.concatenate([part.raw for part in parts], axis=1),
            applied=np.concatenate([part.applied for part in parts], axis=1),
            rewards=np.concatenate([part.rewards for part in parts], axis=1),
            ends=Ends.joined([part.ends for part in parts], [part.start for part in self.parts]),
            busy_s=max(part.busy_s for part in parts),
            repeated_steps=sum(part.repeated_steps for part in parts),
        )
        self.episodes = self.episodes.after(found.applied, found.ends.mask(*found.raw.shape))
        return found

    def lesson(self, weights: Weights, num_steps: int, driven: NDArray[np.bool_], teacher: Teacher) -> Lesson:
        """As :meth:`roadsense.training.vec_env.ConvoyVecEnv.lesson`, to the bit."""
        self.begin()
        shared = self._share(weights)
        orders = [(shared, self.episodes.of(part), num_steps, driven[part], teacher) for part in self.parts]
        self.workers.launch("lesson", orders)
        parts: list[Lesson] = self.workers.gather()
        told = np.concatenate([part.told for part in parts], axis=1)
        decided = np.concatenate([part.decided for part in parts], axis=1)
        ends = Ends.joined([part.ends for part in parts], [part.start for part in self.parts])
        self.episodes = self.episodes.after(np.where(driven, decided, told), ends.mask(*told.shape))
        return Lesson(
            joined_observations([part.seen for part in parts], axis=1), told, decided, ends,
            max(part.busy_s for part in parts), sum(part.repeated_steps for part in parts),
        )  # fmt: skip

    def _share(self, weights: Weights) -> Any:
        """Puts weights where every worker fetches them; one version is one object."""
        which = (weights.version, weights.signature.weights_digest, weights.std)
        if self._shared is None or self._shared[0] != which:
            self._shared = which, self.workers.share(weights)
        return self._shared[1]

    # ---------------------------------------------------------------- the rest of the interface

    def step_async(self, actions: NDArray[np.float32]) -> None:
        raise NotImplementedError("worlds of workers are driven by fragments, not by steps.")

    def step_wait(self) -> VecEnvStepReturn:
        raise NotImplementedError("worlds of workers are driven by fragments, not by steps.")

    def close(self) -> None:
        """Ends the workers; calling it again does nothing."""
        self.workers.close()


def joined_observations(parts: Sequence[Observation], axis: int) -> Observation:
    """Observations of several workers' worlds side by side, along the axis of worlds."""
    return Observation._make(np.concatenate(arrays, axis=axis) for arrays in zip(*parts, strict=True))


def open_remote(config: TrainConfig, dataset_digest: str | None, scale: RewardScale | None) -> RemoteVecEnv:
    """Workers with the worlds that a training learns in.

    Args:
        config: of the training.
        dataset_digest: of its scenarios, which every worker must have.
        scale: normalises rewards.

    Raises:
        RoadsenseError: Ray is not installed or not reached, or no worker came up.
        InputMismatchError: a worker has other code, scenarios or radio parameters.
    """
    arguments = anywhere(play_arguments(config, "train"))
    asked = WorkersConfig(
        count=config.workers, address=config.ray_address, job_limit_s=config.fragment_limit_s,
        start_limit_s=config.worker_start_limit_s,
    )  # fmt: skip
    radios = [read_params(radio).digest for radio in arguments["radio"]]
    workers = RayWorkers(asked, config.n_envs // config.workers, arguments, dataset_digest, radios)
    return RemoteVecEnv(workers, config.n_envs, arguments, scale)
