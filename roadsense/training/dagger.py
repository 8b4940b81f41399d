"""DAgger: the student drives a share of the worlds, a teacher who knows the truth says what it should have done.

Ross, Gordon and Bagnell, "A Reduction of Imitation Learning and Structured Prediction to No-Regret Online Learning"
(2011). A training is a chain of rounds. Each begins new episodes in all worlds, drives them for ``n_steps``, adds what
was seen, with the teacher's demand beside it, to the experience so far, and fits the student to samples of all of it.
A round depends on nothing but the checkpoint before it and the experience, so a training that goes on there gives
the same bits. The policy is not the last weights but their running mean (Polyak and Juditsky, "Acceleration of
Stochastic Approximation by Averaging", 1992): the last ones jump from one minibatch to the next.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from roadsense.convoy.observation import NUM_EGO, NUM_PEER, Observation
from roadsense.convoy.world import EndReason
from roadsense.errors import RoadsenseError
from roadsense.files import write_bytes
from roadsense.randomness import Purpose, generator
from roadsense.training.config import TrainConfig
from roadsense.training.model import AnyPPO, actor_parameters, decided_mean, weights_of
from roadsense.training.remote import RemoteVecEnv
from roadsense.training.teacher import Teacher, TeacherConfig
from roadsense.training.vec_env import ConvoyVecEnv


class Experience:
    """Observations of all rounds and the teacher's action for each, the newest rounds up to a number of samples.

    Args:
        config: of the training.
        num_rows: rows of peers in an observation.

    Attributes:
        rounds: how many were added so far, forgotten ones included.
    """

    def __init__(self, config: TrainConfig, num_rows: int) -> None:
        self.round_size = config.n_envs * config.n_steps
        self.kept_rounds = max(1, min(config.dagger_most_samples // self.round_size, config.dagger_rounds))
        size = self.kept_rounds * self.round_size
        self._seen = Observation(
            np.zeros((size, NUM_EGO), np.float32),
            np.zeros((size, num_rows, NUM_PEER), np.float32),
            np.zeros((size, num_rows), np.int8),
        )
        self._told = np.zeros(size, np.float32)
        self.rounds = 0

    def place(self, number: int) -> slice:
        """Where the samples of a round lie."""
        begin = number % self.kept_rounds * self.round_size
        return slice(begin, begin + self.round_size)

    def arrays(self, number: int) -> dict[str, NDArray[Any]]:
        """Views of the samples of a round."""
        place = self.place(number)
        return {name: array[place] for name, array in self._seen._asdict().items()} | {"told": self._told[place]}

    def drawn(self, places: NDArray[np.int64]) -> tuple[dict[str, Tensor], Tensor]:
        """Observations and actions at places below :attr:`size`, as tensors."""
        seen = {name: torch.from_numpy(array[places]) for name, array in self._seen._asdict().items()}
        return seen, torch.from_numpy(self._told[places])

    @property
    def size(self) -> int:
        """How many samples there are."""
        return min(self.rounds, self.kept_rounds) * self.round_size


class RoundFigures(NamedTuple):
    """What a round showed."""

    loss: float
    """Mean over its minibatches."""
    student_reward: float
    """Mean return of the episodes that the student ended, NaN without one."""
    student_collisions: float
    """Share of them that ended in a collision, NaN without one."""
    learning_rate: float
    explained_variance: float
    """Share of the variance of the teacher's actions that the student's explain, before it learned from them."""


_WARMING = 10
"""The running mean begins as the mean of all weights so far: after n gradients at most n / (n + 10) of it stays."""


class Average:
    """The running mean of an actor's weights.

    Args:
        model: whose actor it follows.
        decay: share that stays with each step.
    """

    def __init__(self, model: AnyPPO, decay: float) -> None:
        self._model, self._decay = model, decay
        self._mean = [parameter.detach().clone() for parameter in actor_parameters(model)]

    def step(self, steps_before: int) -> None:
        """Takes the model's weights in, after so many steps."""
        stays = min(self._decay, steps_before / (steps_before + _WARMING))
        torch._foreach_lerp_(self._mean, self._current(), 1.0 - stays)

    def settle(self) -> None:
        """Makes the mean the model's weights."""
        torch._foreach_copy_(self._current(), self._mean)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The model's weights are the mean meanwhile."""
        kept = [parameter.clone() for parameter in self._current()]
        self.settle()
        try:
            yield
        finally:
            torch._foreach_copy_(self._current(), kept)

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """For a checkpoint."""
        return {f"mean.{place}": tensor.numpy() for place, tensor in enumerate(self._mean)}

    def restore(self, arrays: Mapping[str, NDArray[np.float32]]) -> None:
        """Takes over those of a checkpoint."""
        self._mean = [torch.from_numpy(arrays[f"mean.{place}"]) for place in range(len(self._mean))]

    def _current(self) -> list[Tensor]:
        return [parameter.detach() for parameter in actor_parameters(self._model)]


class Imitation:
    """The rounds of a training.

    Args:
        config: of the training.
        env: worlds to drive in, with rewards as they are.
        model: whose actor is the student; its optimiser is used.
        folder: where experience is kept beside the checkpoints.

    Attributes:
        average: of the student's weights; the policy.
    """

    def __init__(self, config: TrainConfig, env: ConvoyVecEnv | RemoteVecEnv, model: AnyPPO, folder: Path) -> None:
        self.config, self.env, self.model, self.folder = config, env, model, folder
        self.teacher = Teacher(
            TeacherConfig(
                margin_m=config.dagger_margin_m, stop_s=config.dagger_stop_s, match=config.dagger_match,
                creep_mps2=config.dagger_creep_mps2, ordinary_mps2=config.dagger_ordinary_mps2,
            )
        )  # fmt: skip
        self.experience = Experience(config, env.num_rows)
        self.average = Average(model, config.dagger_average)
        self._saved = 0

    def round(self) -> RoundFigures:
        """Drives, asks the teacher, learns."""
        rewards, collisions, explained = self._drive()
        number, gradients = self.experience.rounds, self.config.dagger_gradients
        self.experience.rounds += 1
        rate = self._rate(number)
        losses = 0.0
        for place, loss in enumerate(self._fit(number, rate, gradients)):
            self.average.step(number * gradients + place)
            losses += loss
        self.model.num_timesteps += self.experience.round_size
        return RoundFigures(losses / gradients, rewards, collisions, rate, explained)

    def remind(self) -> float:
        """Fits the student to some of the experience between two updates of PPO; returns the mean loss."""
        config, group = self.config, self.model.policy.optimizer.param_groups[0]
        number = self.model.num_timesteps // self.experience.round_size
        return float(np.mean(list(self._fit(number, group["lr"], config.reminders))))

    def _rate(self, number: int) -> float:
        share = number / max(1, self.config.dagger_rounds - 1)
        return self.config.learning_rate + (self.config.learning_rate_end - self.config.learning_rate) * share

    def _drive(self) -> tuple[float, float, float]:
        """Fills the next round of the experience; the first one is the teacher's alone.

        Returns:
            Of the episodes that the student ended: mean return and share of collisions; and the explained variance.
        """
        config, env = self.config, self.env
        driven = np.arange(env.num_envs) < round(config.dagger_student_share * env.num_envs)
        driven &= self.experience.rounds > 0
        kept = {
            name: array.reshape(config.n_steps, env.num_envs, *array.shape[1:])
            for name, array in self.experience.arrays(self.experience.rounds).items()
        }
        env.seed(config.seed)
        student = weights_of(self.model, config, self.experience.rounds)
        lesson = env.lesson(student, config.n_steps, driven, self.teacher)
        for name, array in (*lesson.seen._asdict().items(), ("told", lesson.told)):
            kept[name][:] = array
        varied = float(kept["told"].var())
        explained = 1.0 - float((kept["told"] - lesson.decided).var()) / varied if varied > 0.0 else np.nan
        of_student = driven[lesson.ends.world]
        if not of_student.any():
            return np.nan, np.nan, explained
        collided = lesson.ends.reason[of_student] == EndReason.COLLISION
        return float(lesson.ends.total[of_student].mean()), float(collided.mean()), explained

    def _fit(self, number: int, rate: float, gradients: int) -> Iterator[float]:
        """Fits the student to minibatches of all samples; yields the loss after each."""
        config, optimizer = self.config, self.model.policy.optimizer
        for group in optimizer.param_groups:
            group["lr"] = rate
        draws = generator(config.seed, Purpose.LEARNING, number)
        for _ in range(gradients):
            seen, told = self.experience.drawn(draws.integers(self.experience.size, size=config.batch_size))
            loss = imitation_loss(
                decided_mean(self.model, seen), told, config.initial_action, config.dagger_braking_weight,
                config.dagger_short_weight,
            )  # fmt: skip
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.policy.parameters(), config.max_grad_norm)
            optimizer.step()
            yield float(loss.detach())

    # ---------------------------------------------------------------- checkpoints

    def _path(self, number: int) -> Path:
        return self.folder / f"experience-{number:04d}.npz"

    def save(self) -> None:
        """Writes the rounds that no file holds yet."""
        oldest = self.experience.rounds - self.experience.kept_rounds
        for number in range(max(self._saved, oldest), self.experience.rounds):
            content = io.BytesIO()
            np.savez(content, **self.experience.arrays(number))  # type: ignore[arg-type]
            write_bytes(self._path(number), content.getvalue())
        self._saved = self.experience.rounds

    def restore(self, rounds: int) -> None:
        """Takes over the experience of that many rounds.

        Raises:
            RoadsenseError: a file is missing or damaged.
        """
        for number in range(max(0, rounds - self.experience.kept_rounds), rounds):
            path = self._path(number)
            try:
                with np.load(path, allow_pickle=False) as stored:
                    for name, array in self.experience.arrays(number).items():
                        array[:] = stored[name]
            except (OSError, ValueError, KeyError, EOFError) as error:
                raise RoadsenseError(
                    f"{path}: cannot be restored ({error}); remove {self.folder} to train anew."
                ) from None
        self.experience.rounds = self._saved = rounds

    def forget(self, all_rounds: bool = False) -> None:
        """Removes files of rounds that were forgotten, or of all."""
        oldest = self.config.dagger_rounds if all_rounds else self.experience.rounds - self.experience.kept_rounds
        for number in range(oldest):
            self._path(number).unlink(missing_ok=True)


def imitation_loss(decided: Tensor, told: Tensor, rest: float, braking_weight: float, short_weight: float) -> Tensor:
    """Mean squared error of the clipped action, weighted where the teacher brakes.

    Args:
        decided: [batch], mean action before it is clipped.
        told: [batch], the teacher's action.
        rest: what to decide on at most where the teacher asks for nothing; below the dead band.
        braking_weight: weight of samples in which the teacher brakes.
        short_weight: the same, where less is decided than the teacher asks for.
    """
    error = decided - torch.where(told > 0.0, told, torch.full_like(told, rest))
    error = torch.where(told <= 0.0, error.clamp(min=0.0), error)  # any lower action is no request either
    error = torch.where(told >= 1.0, error.clamp(max=0.0), error)
    braking = torch.where(error < 0.0, torch.full_like(told, short_weight), torch.full_like(told, braking_weight))
    weight = torch.where(told > 0.0, braking, torch.ones_like(told))
    return (weight * error * error).mean()
