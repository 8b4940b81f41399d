"""Trains a policy with Stable-Baselines3 and leaves it in a folder."""

from __future__ import annotations

import contextlib
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback, CallbackList

from roadsense.convoy.player import Player
from roadsense.errors import StoppedError
from roadsense.files import cannot_write, write_bytes
from roadsense.policies.signature import Signature
from roadsense.progress import progress_bar
from roadsense.runs import made_with
from roadsense.training.callbacks import AnnealNoise, Every, ShowProgress
from roadsense.training.checkpoints import BEST, LAST, read_arrays, read_facts, restore_model, save_checkpoint
from roadsense.training.collection import Collector
from roadsense.training.config import TrainConfig
from roadsense.training.dagger import Imitation
from roadsense.training.experience import (
    input_digests,
    refuse_other_inputs,
    training_player,
    validation_player,
)
from roadsense.training.folder import MODEL_NAME, earlier_state, write_policy, write_result
from roadsense.training.log import LOG_NAME, TENSORBOARD_DIR, UpdateLog, open_logger
from roadsense.training.model import AnyPPO, actor_tensors, build_model, refuse_not_finite
from roadsense.training.remote import RemoteVecEnv, open_remote
from roadsense.training.reward_scale import RewardScale
from roadsense.training.validation import Validation, validate
from roadsense.training.vec_env import ConvoyVecEnv

_NEVER = 10**9
"""A number of updates no training reaches: every update logs itself (``model.py``)."""


@dataclass
class _Training:
    """A training under way."""

    config: TrainConfig
    env: ConvoyVecEnv | RemoteVecEnv
    model: AnyPPO
    updates: UpdateLog
    val_player: Player
    inputs: dict[str, str | None]
    imitation: Imitation | None
    made_with: list[dict[str, Any]]
    """Commit and versions, from each step on at which it was begun or taken up again."""
    resumed_at: list[int] = field(default_factory=list)
    validations: list[dict[str, Any]] = field(default_factory=list)
    best: Validation | None = None

    @property
    def run_dir(self) -> Path:
        return Path(self.config.run_dir)

    def facts(self) -> dict[str, Any]:
        """What a checkpoint states beside weights and optimiser."""
        scale = self.env.scale
        return {
            "config": self.config.document(),
            "seeds": {"root": self.config.seed, "episodes_begun": self.env.played},
            "made_with": self.made_with,
            **self.inputs,
            "timesteps": self.model.num_timesteps,
            "reward_scale": None if scale is None else scale.state(),
            "resumed_at": self.resumed_at,
            "validations": self.validations,
            "best": None if self.best is None else list(self.best),
            "workers": self.env.collector.figures() if isinstance(self.env, RemoteVecEnv) else None,
        }

    def save_last(self) -> None:
        if self.imitation is not None:
            self.imitation.save()
        save_checkpoint(
            self.run_dir / LAST, self.model, self.facts(), self.imitation.average.arrays() if self.imitation else None
        )
        if self.imitation is not None:
            self.imitation.forget()

    @property
    def imitates(self) -> bool:
        """Whether DAgger is not through yet."""
        return self.model.num_timesteps < self.config.dagger_steps

    def validate(self) -> None:
        """Judges the deterministic policy and keeps it if it is the best so far."""
        if self.validations and self.validations[-1]["timesteps"] == self.model.num_timesteps:
            return
        with self._policy_in_place():
            self._validate(self.model.num_timesteps)

    def _policy_in_place(self) -> contextlib.AbstractContextManager[None]:
        """The model's weights are the policy's meanwhile; of DAgger, the mean."""
        imitates = self.imitation is not None and (self.imitates or self.config.algorithm == "dagger")
        return self.imitation.average.in_place() if self.imitation and imitates else contextlib.nullcontext()

    def _validate(self, steps: int) -> None:
        tensors = actor_tensors(self.model)
        signature = Signature.of(tensors, self.config.widths, self.config.control, self.config.messages_per_peer)
        found = validate(self.val_player, self.config.eval_episodes, tensors, signature, steps)
        self.validations.append(found.document())
        self.model.logger.record("val/collisions", found.collisions)
        self.model.logger.record("val/false_brakes_per_calm_km", found.false_brakes_per_calm_km)
        self.model.logger.record("val/average_reward", -found.minus_average_reward)
        if found.better_than(self.best):
            self.best = found
            save_checkpoint(self.run_dir / BEST, self.model, self.facts())

    def resume(self) -> None:
        """Takes the last checkpoint over."""
        path = self.run_dir / LAST
        facts = read_facts(path)
        restore_model(path, self.model)
        self.model.num_timesteps = int(facts["timesteps"])
        self.env.resume_at(facts["seeds"]["episodes_begun"])
        if self.imitation is not None:
            steps = min(self.model.num_timesteps, self.config.dagger_steps)
            self.imitation.restore(steps // self.imitation.experience.round_size)
            self.imitation.average.restore(read_arrays(path))
        if facts["reward_scale"] is not None:
            self._explore_at_last()
            assert self.env.scale is not None
            self.env.scale.restore(facts["reward_scale"])
        self.validations = list(facts["validations"])
        self.best = None if facts["best"] is None else Validation(*facts["best"])
        self.resumed_at = [*facts["resumed_at"], self.model.num_timesteps]
        self.made_with = [*facts["made_with"], {**self.made_with[0], "from_step": self.model.num_timesteps}]
        # the stream of exploration goes on elsewhere than it began, the same for every continuation at this step
        self._seed_here()

    def _seed_here(self) -> None:
        torch.manual_seed(self.config.seed + self.model.num_timesteps)
        np.random.seed((self.config.seed + self.model.num_timesteps) % 2**32)  # noqa: NPY002 - SB3 shuffles with it

    def _explore_at_last(self) -> None:
        """Goes over from DAgger to PPO, whose critic wants rewards of one size."""
        self.env.scale = RewardScale(self.config.n_envs, self.config.gamma, self.config.reward_clip)

    def learn(self, progress: bool, extra: BaseCallback | None) -> None:
        """Trains to the end."""
        if self.imitates:
            self._imitate(progress, extra)
        if self.config.algorithm == "dagger":
            self.validate()
            self.model.logger.dump(self.model.num_timesteps)
            self.save_last()
        else:
            self._reinforce(progress, extra)

    def _imitate(self, progress: bool, extra: BaseCallback | None) -> None:
        """All rounds of DAgger that are left; a callback is called after each."""
        config, model, imitation = self.config, self.model, self.imitation
        assert imitation is not None
        if extra is not None:
            extra.init_callback(model)
        if model.num_timesteps == 0:
            self.save_last()
        with progress_bar(
            config.dagger_steps, "step", visible=progress, initial=model.num_timesteps, desc="train", unit_scale=True
        ) as bar:
            while self.imitates:
                begun, before = time.perf_counter(), model.num_timesteps
                found = imitation.round()
                for name, value in (
                    ("time/fps", imitation.experience.round_size / (time.perf_counter() - begun)),
                    ("rollout/ep_rew_mean", found.student_reward),
                    ("rollout/collision_share", found.student_collisions),
                    ("train/imitation_loss", found.loss),
                    ("train/imitation_explained_variance", found.explained_variance),
                    ("train/learning_rate", found.learning_rate),
                ):
                    model.logger.record(name, value)
                if model.num_timesteps // config.eval_every > before // config.eval_every:
                    self.validate()
                model.logger.dump(model.num_timesteps)
                refuse_not_finite(model)
                if model.num_timesteps // config.checkpoint_every > before // config.checkpoint_every:
                    self.save_last()
                bar.update(imitation.experience.round_size)
                if extra is not None:
                    extra.on_step()

    def _remind(self) -> None:
        assert self.imitation is not None
        if self.config.reminders and self.model.num_timesteps > self.config.critic_alone_until:
            self.model.logger.record("train/imitation_loss", self.imitation.remind())

    def stop(self) -> None:
        """Leaves what is there in the run folder; a round of DAgger that was begun is done again."""
        if self.imitates:
            assert self.imitation is not None
            last = self.run_dir / LAST
            restore_model(last, self.model)
            self.imitation.average.restore(read_arrays(last))
            self.model.num_timesteps = int(read_facts(last)["timesteps"])
        else:
            self.save_last()
        with self._policy_in_place():
            write_policy(self.run_dir, actor_tensors(self.model), self.config)

    def _reinforce(self, progress: bool, extra: BaseCallback | None) -> None:
        config, model = self.config, self.model
        if self.env.scale is None:
            assert self.imitation is not None
            self.imitation.average.settle()
            self._explore_at_last()
            model.policy.optimizer.state.clear()
            self._seed_here()
        bar = ShowProgress(config.total_timesteps, progress)
        callbacks: list[BaseCallback] = [
            AnnealNoise(config.log_std_start, config.log_std_end, config.total_timesteps, config.dagger_steps),
            bar,
            *([Every(config.n_envs * config.n_steps, self._remind)] if self.imitation is not None else []),
            Every(config.eval_every, self.validate),
            Every(config.checkpoint_every, self.save_last),
        ]
        remaining = config.total_timesteps - model.num_timesteps
        try:
            if remaining > 0:
                model.learn(
                    remaining, CallbackList([*callbacks, *([extra] if extra else [])]),
                    log_interval=_NEVER, reset_num_timesteps=model.num_timesteps == 0,
                )  # fmt: skip
            self.validate()
        finally:
            bar.close()
        model.logger.dump(model.num_timesteps)  # the last validation
        self.save_last()

    def finish(self) -> dict[str, Any]:
        """Leaves the best policy in the run folder, and what the training looked like."""
        best, facts = self.run_dir / BEST, self.facts()
        restore_model(best, self.model)
        try:
            write_bytes(self.run_dir / MODEL_NAME, best.read_bytes())
        except OSError as error:
            raise cannot_write(self.run_dir / MODEL_NAME, error) from None
        signature = write_policy(self.run_dir, actor_tensors(self.model), self.config)
        result = write_result(self.run_dir, facts, self.best, signature, self.updates.rows, self.updates.seconds)
        if self.imitation is not None:
            self.imitation.forget(all_rounds=True)
        return result


def _open_worlds(
    config: TrainConfig, inputs: dict[str, str | None], scale: RewardScale | None
) -> ConvoyVecEnv | RemoteVecEnv:
    """The worlds a training learns in, here or with workers."""
    if config.workers == 0:
        return ConvoyVecEnv(training_player(config), scale)
    env = open_remote(config, inputs["dataset_digest"], scale)
    env.collector = Collector(config, env)
    return env


def train(config: TrainConfig, *, progress: bool = True, callback: BaseCallback | None = None) -> dict[str, Any]:
    """Trains, or continues a training that was stopped, and leaves the result in ``config.run_dir``.

    The folder then holds ``model.zip`` (the best checkpoint), ``policy.safetensors`` and ``signature.json`` (its
    actor), ``training.csv`` and ``training.json`` (figures), ``checkpoints/`` and ``tensorboard/``. A finished training
    is not repeated.

    Args:
        config: of the training.
        progress: whether to show a bar on stderr.
        callback: a further callback of Stable-Baselines3; DAgger calls it after every round.

    Returns:
        The content of ``training.json``.

    Raises:
        InputMismatchError: the folder holds a training with another configuration or dataset.
        StoppedError: Ctrl-C; the last checkpoint and a policy were saved, and the same call continues.
        DivergedError: weights are no longer finite.
    """
    run_dir = Path(config.run_dir)
    earlier, inputs = earlier_state(config), input_digests(config)
    refuse_other_inputs(config, earlier, inputs)
    if earlier is not None and earlier.get("finished"):
        return earlier
    if earlier is None and (run_dir / LOG_NAME).is_file():  # of a training that was killed before its first checkpoint
        shutil.rmtree(run_dir / TENSORBOARD_DIR, ignore_errors=True)
    torch.set_num_threads(config.torch_threads)
    scale = None if config.dagger_steps else RewardScale(config.n_envs, config.gamma, config.reward_clip)
    env = _open_worlds(config, inputs, scale)
    try:
        val_player = validation_player(config)
    except BaseException:
        env.close()
        raise
    try:
        model = build_model(config, env, run_dir)
        updates = UpdateLog(run_dir / LOG_NAME, int(earlier["timesteps"]) if earlier else 0)
        model.set_logger(open_logger(run_dir, updates, config.tensorboard))
        imitation = Imitation(config, env, model, (run_dir / LAST).parent) if config.dagger_steps else None
        begun_with = [{"from_step": 0, **made_with()}]
        training = _Training(config, env, model, updates, val_player, inputs, imitation, begun_with)
        if earlier is not None:
            training.resume()
        try:
            training.learn(progress, callback)
        except KeyboardInterrupt:
            training.stop()
            raise StoppedError(
                f"{run_dir}: training stopped at step {model.num_timesteps} of {config.total_timesteps}; {LAST} holds "
                "it, and the same command continues."
            ) from None
        finally:
            model.logger.close()
        return training.finish()
    finally:
        env.close()
        val_player.close()
