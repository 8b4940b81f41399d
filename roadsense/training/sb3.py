"""Trains a policy with Stable-Baselines3 and leaves it in a folder."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback, CallbackList

from roadsense.convoy.player import Player, radio_of
from roadsense.convoy.source import open_source, room_for
from roadsense.errors import InputMismatchError, StoppedError
from roadsense.files import cannot_write, write_bytes, write_json
from roadsense.policies.signature import Signature
from roadsense.runs import made_with
from roadsense.training.callbacks import AnnealNoise, Every, ShowProgress
from roadsense.training.checkpoints import BEST, LAST, read_facts, restore_model, save_checkpoint
from roadsense.training.config import TrainConfig
from roadsense.training.folder import INPUTS, MODEL_NAME, RESULT_NAME, earlier_state, json_number, summary, write_policy
from roadsense.training.log import LOG_NAME, TENSORBOARD_DIR, UpdateLog, open_logger
from roadsense.training.model import AnyPPO, actor_tensors, build_model
from roadsense.training.reward_scale import RewardScale
from roadsense.training.validation import Validation, validate
from roadsense.training.vec_env import ConvoyVecEnv

_NEVER = 10**9
"""A number of updates no training reaches: every update logs itself (``model.py``)."""


@dataclass
class _Training:
    """A training under way."""

    config: TrainConfig
    env: ConvoyVecEnv
    model: AnyPPO
    updates: UpdateLog
    val_player: Player
    inputs: dict[str, str | None]
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
        }

    def save_last(self) -> None:
        save_checkpoint(self.run_dir / LAST, self.model, self.facts())

    def validate(self) -> None:
        """Judges the deterministic policy and keeps it if it is the best so far."""
        steps = self.model.num_timesteps
        if self.validations and self.validations[-1]["timesteps"] == steps:
            return
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
        if self.env.scale is not None:
            self.env.scale.restore(facts["reward_scale"])
        self.validations = list(facts["validations"])
        self.best = None if facts["best"] is None else Validation(*facts["best"])
        self.resumed_at = [*facts["resumed_at"], self.model.num_timesteps]
        self.made_with = [*facts["made_with"], {**self.made_with[0], "from_step": self.model.num_timesteps}]
        # the stream of exploration goes on elsewhere than it began, the same for every continuation at this step
        torch.manual_seed(self.config.seed + self.model.num_timesteps)
        np.random.seed((self.config.seed + self.model.num_timesteps) % 2**32)  # noqa: NPY002 - SB3 shuffles with it

    def learn(self, progress: bool, extra: BaseCallback | None) -> None:
        """Trains to the end."""
        config, model = self.config, self.model
        bar = ShowProgress(config.total_timesteps, progress)
        callbacks: list[BaseCallback] = [
            AnnealNoise(config.log_std_start, config.log_std_end, config.total_timesteps),
            bar,
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
        best, rows = self.run_dir / BEST, self.updates.rows
        facts = self.facts()
        restore_model(best, self.model)
        try:
            write_bytes(self.run_dir / MODEL_NAME, best.read_bytes())
        except OSError as error:
            raise cannot_write(self.run_dir / MODEL_NAME, error) from None
        signature = write_policy(self.run_dir, self.model, self.config)
        explained = [row["explained_variance"] for row in rows]
        result = {
            "finished": True,
            **{key: facts[key] for key in ("config", "made_with", *INPUTS, "timesteps", "resumed_at", "validations")},
            "best": self.best.document() if self.best else None,
            "weights_digest": signature.weights_digest,
            "seconds": round(self.updates.seconds, 2),
            "steps_per_s": round(facts["timesteps"] / self.updates.seconds, 1),
            "explained_variance": summary(explained),
            "curve": {name: [json_number(row[name]) for row in rows]
                      for name in ("timesteps", "episode_reward", "collision_share", "explained_variance",
                                   "approx_kl", "noise_std", "steps_per_s")},
        }  # fmt: skip
        write_json(self.run_dir / RESULT_NAME, result)
        return result


def _inputs(config: TrainConfig) -> dict[str, str | None]:
    """Digests of what the experience and the choice of the best checkpoint come from."""
    found: list[str | None] = []
    for dataset_dir, split in ((config.dataset_dir, "train"), (config.eval_dir or config.dataset_dir, "val")):
        source = open_source(dataset_dir=dataset_dir, split=split)
        found += [source.digest, radio_of(config.emulator_params, source).digest]
    return dict(zip(INPUTS, found, strict=True))


def _player(config: TrainConfig, dataset_dir: str | None, split: str, num_worlds: int) -> Player:
    source = open_source(dataset_dir=dataset_dir, split=split)
    return Player(
        num_worlds, dataset_dir=dataset_dir, split=split, radio=config.emulator_params, control=config.control,
        engine=config.engine, max_peers=room_for(source.all(), config.max_peers),
        messages_per_peer=config.messages_per_peer,
    )  # fmt: skip


def train(config: TrainConfig, *, progress: bool = True, callback: BaseCallback | None = None) -> dict[str, Any]:
    """Trains, or continues a training that was stopped, and leaves the result in ``config.run_dir``.

    The folder then holds ``model.zip`` (the best checkpoint), ``policy.safetensors`` and ``signature.json`` (its
    actor), ``training.csv`` and ``training.json`` (figures), ``checkpoints/`` and ``tensorboard/``. A finished training
    is not repeated.

    Args:
        config: of the training.
        progress: whether to show a bar on stderr.
        callback: a further callback of Stable-Baselines3.

    Returns:
        The content of ``training.json``.

    Raises:
        InputMismatchError: the folder holds a training with another configuration or dataset.
        StoppedError: Ctrl-C; the last checkpoint and a policy were saved, and the same call continues.
        DivergedError: weights are no longer finite.
    """
    run_dir = Path(config.run_dir)
    earlier, inputs = earlier_state(config), _inputs(config)
    if earlier is not None and {key: earlier[key] for key in INPUTS} != inputs:
        told = "was begun on another dataset or radio"
        raise InputMismatchError(f"{run_dir}: {told}; name another run_dir or remove it.")
    if earlier is not None and earlier.get("finished"):
        return earlier
    if earlier is None and (run_dir / LOG_NAME).is_file():  # of a training that was killed before its first checkpoint
        shutil.rmtree(run_dir / TENSORBOARD_DIR, ignore_errors=True)
    torch.set_num_threads(config.torch_threads)
    env = ConvoyVecEnv(
        _player(config, config.dataset_dir, "train", config.n_envs),
        RewardScale(config.n_envs, config.gamma, config.reward_clip),
    )
    try:
        val_player = _player(config, config.eval_dir or config.dataset_dir, "val", 1)
    except BaseException:
        env.close()
        raise
    try:
        model = build_model(config, env, run_dir)
        updates = UpdateLog(run_dir / LOG_NAME, int(earlier["timesteps"]) if earlier else 0)
        model.set_logger(open_logger(run_dir, updates, config.tensorboard))
        training = _Training(config, env, model, updates, val_player, inputs, [{"from_step": 0, **made_with()}])
        if earlier is not None:
            training.resume()
        try:
            training.learn(progress, callback)
        except KeyboardInterrupt:
            training.save_last()
            write_policy(run_dir, model, config)
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
