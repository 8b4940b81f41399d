"""Trains a policy with Stable-Baselines3 and leaves it in a folder."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback, CallbackList

from roadsense.errors import RoadsenseError, StoppedError, UsageError
from roadsense.policies.signature import SIGNATURE_NAME, WEIGHTS_NAME
from roadsense.progress import progress_bar
from roadsense.runs import made_with
from roadsense.training.callbacks import AnnealNoise, BeforeRollout, Every, ShowProgress
from roadsense.training.checkpoints import LAST, read_arrays, reading, sweep
from roadsense.training.collection import Collector
from roadsense.training.config import TrainConfig
from roadsense.training.dagger import Imitation
from roadsense.training.experience import (
    input_digests,
    refuse_other_inputs,
    training_player,
    validation_player,
)
from roadsense.training.folder import MODEL_NAME, RESULT_NAME, earlier_state
from roadsense.training.initial import initial_weights, put_initial
from roadsense.training.log import LOG_NAME, TENSORBOARD_DIR, UpdateLog, open_logger
from roadsense.training.model import DivergedError, build_model, refuse_not_finite
from roadsense.training.remote import RemoteVecEnv, open_remote
from roadsense.training.reward_scale import RewardScale
from roadsense.training.under_way import Training
from roadsense.training.vec_env import ConvoyVecEnv

_NEVER = 10**9
"""A number of updates no training reaches: every update logs itself (``model.py``)."""


class _Learning(Training):
    """By DAgger, by PPO, or by one after the other."""

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

    def _seed_here(self) -> None:
        torch.manual_seed(self.config.seed + self.model.num_timesteps)
        np.random.seed((self.config.seed + self.model.num_timesteps) % 2**32)  # noqa: NPY002 - SB3 shuffles with it

    def _remind(self) -> None:
        assert self.imitation is not None
        if self.config.reminders and self.model.num_timesteps > self.config.critic_alone_until:
            self.model.logger.record("train/imitation_loss", self.imitation.remind())

    def _reinforce(self, progress: bool, extra: BaseCallback | None) -> None:
        config, model = self.config, self.model
        if self.env.scale is None:
            assert self.imitation is not None
            self.imitation.average.settle()
            self.explore_at_last()
            model.policy.optimizer.state.clear()
            self._seed_here()
        bar = ShowProgress(config.total_timesteps, progress)
        callbacks: list[BaseCallback] = [
            AnnealNoise(config.log_std_start, config.log_std_end, config.total_timesteps, config.dagger_steps),
            bar,
            *([Every(config.n_envs * config.n_steps, self._remind)] if self.imitation is not None else []),
            Every(config.eval_every, self.validate),
            BeforeRollout(self.at_boundary),
            Every(config.checkpoint_every, self.save_last),
        ]
        remaining = config.total_timesteps - model.num_timesteps
        try:
            if remaining > 0:
                model.learn(
                    remaining, CallbackList([*callbacks, *([extra] if extra else [])]),
                    log_interval=_NEVER, reset_num_timesteps=False,  # or worlds that were restored would begin anew
                )  # fmt: skip
            self.validate()
        finally:
            bar.close()
        model.logger.dump(model.num_timesteps)  # the last validation
        self.save_last()


def _open_worlds(
    config: TrainConfig, inputs: dict[str, str | None], scale: RewardScale | None
) -> ConvoyVecEnv | RemoteVecEnv:
    """The worlds a training learns in, here or with workers."""
    if config.workers == 0:
        return ConvoyVecEnv(training_player(config), scale)
    env = open_remote(config, inputs["dataset_digest"], scale)
    env.collector = Collector(config, env)
    return env


def train(
    config: TrainConfig, *, progress: bool = True, callback: BaseCallback | None = None, begun: bool = False
) -> dict[str, Any]:
    """Trains, or continues a training that was stopped, and leaves the result in ``config.run_dir``.

    A training that was stopped or killed and continued ends with the bits of one that was not.

    The folder then holds ``model.zip`` (the best checkpoint), ``policy.safetensors`` and ``signature.json`` (its
    actor), ``training.csv`` and ``training.json`` (figures), ``checkpoints/`` and ``tensorboard/``. A finished training
    is not repeated.

    Args:
        config: of the training.
        progress: whether to show a bar on stderr.
        callback: a further callback of Stable-Baselines3; DAgger calls it after every round.
        begun: the configuration is the one that a training under way recorded, so what it was begun with is not
            looked at again.

    Returns:
        The content of ``training.json``.

    Raises:
        InputMismatchError: the folder holds a training with another configuration or dataset, or one that cannot be
            gone on with to the same bits.
        StoppedError: Ctrl-C; the last checkpoint and a policy were saved, and the same call continues.
        DivergedError: weights are no longer finite.
    """
    if config.algorithm == "rllib-ppo":
        raise UsageError("algorithm is 'rllib-ppo'; roadsense.training.rllib_train trains it.")
    run_dir = Path(config.run_dir)
    earlier, inputs = earlier_state(config), input_digests(config)
    refuse_other_inputs(config, earlier, inputs)
    if earlier is not None and earlier.get("finished"):
        return earlier
    if earlier is None and (run_dir / LOG_NAME).is_file():  # of a training that was killed before its first checkpoint
        shutil.rmtree(run_dir / TENSORBOARD_DIR, ignore_errors=True)
    arrays = read_arrays(run_dir / LAST) if earlier is not None else {}
    initial = None if begun else initial_weights(config, earlier)
    sweep(run_dir, (MODEL_NAME, RESULT_NAME, LOG_NAME, SIGNATURE_NAME, WEIGHTS_NAME))
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
        init_digest = put_initial(config, initial, model, earlier)
        with reading(run_dir / LAST):
            updates = UpdateLog(run_dir / LOG_NAME, None if earlier is None else arrays["log"])
        model.set_logger(open_logger(run_dir, updates, config.tensorboard))
        imitation = Imitation(config, env, model, (run_dir / LAST).parent) if config.dagger_steps else None
        begun_with = [{"from_step": 0, **made_with()}]
        training = _Learning(config, env, model, updates, val_player, inputs, imitation, begun_with, init_digest)
        if earlier is not None:
            with reading(run_dir / LAST):
                training.resume(earlier, arrays)
        try:
            training.learn(progress, callback)
        except KeyboardInterrupt:
            if not training.stop():
                raise
            raise StoppedError(
                f"{run_dir}: training stopped at step {model.num_timesteps} of {config.total_timesteps}; {LAST} holds "
                "it, and the same command continues."
            ) from None
        except RoadsenseError as error:  # as where what drives the worlds is lost for good
            if not isinstance(error, DivergedError):
                training.keep_boundary()
            raise
        finally:
            model.logger.close()
        return training.finish()
    finally:
        env.close()
        val_player.close()
