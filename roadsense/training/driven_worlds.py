"""Worlds in a process of their own that are asked for fragments. Needs no torch and no Ray.

What is kept between two fragments only saves time. Asked for another place than the one the worlds stand at, they drive
the episodes there again; so any worker can do what another one was lost with, to the same bits.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roadsense import jit
from roadsense.convoy.observation import Observation
from roadsense.convoy.player import Player
from roadsense.policies.base import Truth
from roadsense.policies.runtime import DeepSetsPolicy
from roadsense.training.episodes import DrivenOtherwiseError, Episodes, drive_again
from roadsense.training.exploration import explore
from roadsense.training.fragments import Ends, Fragment, Lesson, Weights
from roadsense.training.teacher import Teacher


class DrivenWorlds:
    """Worlds of a :class:`Player` that can be asked for fragments.

    Args:
        player: worlds to play in.

    Attributes:
        at: where they stand.
    """

    def __init__(self, player: Player) -> None:
        self.player, self.worlds = player, player.worlds
        count = player.num_worlds
        self.at = Episodes.begun(np.zeros(count, np.uint64), np.zeros(count, np.int64))  # nowhere yet
        self._totals = np.zeros(count)
        self._ended: list[tuple[int, int, int, float, int, Observation]] = []
        self._policy: tuple[str, DeepSetsPolicy] | None = None

    def go_to(self, episodes: Episodes) -> int:
        """Makes the worlds stand there, by beginning episodes and driving them again where they do not yet.

        Returns:
            Steps of all worlds that were driven again.

        Raises:
            DrivenOtherwiseError: an episode ends on the way, so here worlds are others than where it was driven first.
        """
        away = ~self.at.stand_as(episodes)
        if not away.any():
            return 0
        try:
            with self._driving():
                totals = drive_again(self.player, episodes, away)
        except DrivenOtherwiseError as error:
            told = "install the same versions on all machines, of one kind"
            raise DrivenOtherwiseError(f"{str(error).rstrip('.')}; {told}.") from None
        self._totals[away] = totals[away]
        self.at = episodes
        return int(episodes.steps[away].sum())

    @contextlib.contextmanager
    def _driving(self) -> Iterator[None]:
        """Worlds that are left half-way stand nowhere."""
        try:
            yield
        except BaseException:
            self.at, self._ended = self.at._replace(played=np.full_like(self.at.played, -1)), []
            raise

    def look(self, episodes: Episodes) -> Observation:
        """What is observed there."""
        self.go_to(episodes)
        return Observation._make(array.copy() for array in self.worlds.observation)

    def explore(self, weights: Weights, episodes: Episodes, num_steps: int) -> Fragment:
        """Drives on from there by a policy with noise."""
        began = time.perf_counter()
        repeated = self.go_to(episodes)
        policy, (low, high), worlds = self._deciding(weights), weights.signature.bounds, self.worlds
        shape = (num_steps, worlds.num_worlds)
        seen = _room(worlds.observation, num_steps)
        raw, applied, rewards = np.zeros(shape, np.float32), np.zeros(shape), np.zeros(shape)
        with self._driving():
            for step in range(num_steps):
                seen.ego[step], seen.peers[step], seen.peer_mask[step] = worlds.observation
                means = policy.means(worlds.observation)
                explore(means, worlds.records, weights.std, low, high, raw[step], applied[step])
                rewards[step], _ = self._move(step, applied[step])
        last = Observation._make(array.copy() for array in worlds.observation)
        ends = self._arrive(applied)
        return Fragment(weights.version, seen, last, raw, applied, rewards, ends, time.perf_counter() - began, repeated)

    def lesson(
        self, weights: Weights, episodes: Episodes, num_steps: int, driven: NDArray[np.bool_], teacher: Teacher
    ) -> Lesson:
        """Drives on from there; the student drives the ``driven`` worlds, the teacher the others."""
        began = time.perf_counter()
        repeated = self.go_to(episodes)
        student, worlds = self._deciding(weights), self.worlds
        truth = Truth(worlds.records, worlds.traffic.state, worlds.emulator.state)
        seen = _room(worlds.observation, num_steps)
        told, decided, applied = (np.zeros((num_steps, worlds.num_worlds)) for _ in range(3))
        fresh = np.ones(worlds.num_worlds, np.bool_)
        with self._driving():
            for step in range(num_steps):
                if fresh.any():
                    teacher.reset(fresh, np.array(self.player.seeds, np.uint64))
                seen.ego[step], seen.peers[step], seen.peer_mask[step] = worlds.observation
                told[step] = teacher.act_many(worlds.observation, truth)
                decided[step] = student.act_many(worlds.observation)
                applied[step] = np.where(driven, decided[step], told[step])
                _, fresh = self._move(step, applied[step])
        ends = self._arrive(applied)
        return Lesson(seen, told, decided, ends, time.perf_counter() - began, repeated)

    def _deciding(self, weights: Weights) -> DeepSetsPolicy:
        digest = weights.signature.weights_digest
        if self._policy is None or self._policy[0] != digest:
            own = {name: array.copy() for name, array in weights.tensors.items()}  # shared memory cannot be written to
            self._policy = digest, DeepSetsPolicy("worker", weights.signature, own)
        return self._policy[1]

    def _move(self, step: int, actions: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """One step of all worlds; ended ones begin anew. Returns rewards, and which ended, both [world]."""
        worlds = self.worlds
        worlds.step(actions)
        rewards, reasons = worlds.rewards.copy(), worlds.records["end_reason"]
        self._totals += rewards
        ended: NDArray[np.bool_] = reasons > 0
        if ended.any():
            for world in np.flatnonzero(ended).tolist():
                last = Observation._make(array[world].copy() for array in worlds.observation)
                facts = (step, world, int(reasons[world]), float(self._totals[world]))
                self._ended.append((*facts, int(worlds.records["step"][world]), last))
            self.player.begin(ended)
            self._totals[ended] = 0.0
        return rewards, ended

    def _arrive(self, applied: NDArray[np.float64]) -> Ends:
        """Notes where the worlds stand now, and gives the ends on the way there."""
        found, self._ended = self._ended, []
        none = Observation._make(array[:0] for array in self.worlds.observation)
        lasts = [Observation._make(array[None] for array in end[-1]) for end in found]
        seen = Observation._make(np.concatenate(arrays) for arrays in zip(none, *lasts, strict=True))
        step, world, reason, length = (np.array([end[place] for end in found], np.int64) for place in (0, 1, 2, 4))
        ends = Ends(step, world, reason, np.array([end[3] for end in found], np.float64), length, seen)
        self.at = self.at.after(applied, ends.mask(*applied.shape))
        return ends


def _room(observation: Observation, num_steps: int) -> Observation:
    """[step, world, …] for observations."""
    return Observation._make(np.zeros((num_steps, *array.shape), array.dtype) for array in observation)


class Worker:
    """What runs in a process of its own: worlds are opened once, then asked for fragments."""

    def open(self, num_worlds: int, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Opens worlds.

        Args:
            num_worlds: how many.
            arguments: of :class:`Player`.

        Returns:
            What the learner compares with itself.
        """
        player = Player(num_worlds, **arguments)
        self._worlds = DrivenWorlds(player)
        radios = [radio.digest for radio in player.radios]
        return {"kernels": jit.source_digest(), "dataset_digest": player.source.digest, "radio_digests": radios}

    def look(self, episodes: Episodes) -> Observation:
        """See :meth:`DrivenWorlds.look`."""
        return self._worlds.look(episodes)

    def explore(self, weights: Weights, episodes: Episodes, num_steps: int) -> Fragment:
        """See :meth:`DrivenWorlds.explore`."""
        return self._worlds.explore(weights, episodes, num_steps)

    def lesson(self, weights: Weights, *asked: Any) -> Lesson:
        """See :meth:`DrivenWorlds.lesson`."""
        return self._worlds.lesson(weights, *asked)
