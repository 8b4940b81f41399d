"""Trains a policy with RLlib and leaves it in a folder, as :mod:`roadsense.training.sb3` does."""

from __future__ import annotations

import contextlib
import shutil
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from stable_baselines3.common.logger import Logger

from roadsense.convoy.observation import layout_hash
from roadsense.convoy.player import Player
from roadsense.errors import StoppedError, UsageError
from roadsense.files import cannot_write, write_bytes
from roadsense.policies.signature import SIGNATURE_NAME, WEIGHTS_NAME, Signature
from roadsense.progress import progress_bar
from roadsense.runs import made_with
from roadsense.training.checkpoints import BEST, LAST, keep_best, read_arrays, read_facts, sweep
from roadsense.training.config import TrainConfig
from roadsense.training.experience import input_digests, refuse_other_inputs, validation_player
from roadsense.training.folder import MODEL_NAME, RESULT_NAME, earlier_state, write_policy, write_result
from roadsense.training.log import LOG_NAME, TENSORBOARD_DIR, UpdateLog, open_logger
from roadsense.training.model import DivergedError
from roadsense.training.ray_connection import running_ray
from roadsense.training.rllib_checkpoint import pack_algorithm, read_actor, restore_algorithm
from roadsense.training.rllib_config import build_algorithm
from roadsense.training.rllib_figures import Ended, ended_episodes, figures_of, steps_of
from roadsense.training.rllib_learner import ConvoyLearner, learner_of, module_of
from roadsense.training.rllib_module import DeepSetsRLModule, actor_tensors
from roadsense.training.rllib_runners import first_world
from roadsense.training.undisturbed import undisturbed
from roadsense.training.validation import Validation, validate

_EPISODES = 100
"""Ended ones that figures of the log are means over, as in Stable-Baselines3."""

AfterUpdate = Callable[[Algorithm], None]
"""What a caller wants done after every update."""


@dataclass
class _Training:
    """A training under way."""

    config: TrainConfig
    algorithm: Algorithm
    logger: Logger
    updates: UpdateLog
    val_player: Player
    inputs: dict[str, str | None]
    made_with: list[dict[str, Any]]
    """Commit and versions, from each step on at which it was begun or taken up again."""
    played: list[int]
    """Episodes begun, by world; of a runner that died, as far as the last checkpoint knew."""
    timesteps: int = 0
    resumed_at: list[int] = field(default_factory=list)
    validations: list[dict[str, Any]] = field(default_factory=list)
    best: Validation | None = None
    updating: bool = False
    """Whether an update is under way, after which nothing is whole until its end."""
    ended: deque[Ended] = field(default_factory=lambda: deque(maxlen=_EPISODES))

    @property
    def run_dir(self) -> Path:
        return Path(self.config.run_dir)

    @property
    def learner(self) -> ConvoyLearner:
        return learner_of(self.algorithm)

    @property
    def module(self) -> DeepSetsRLModule:
        return module_of(self.algorithm)

    def facts(self) -> dict[str, Any]:
        """What a checkpoint states beside RLlib's state."""
        for first, begun in self.algorithm.env_runner_group.foreach_env_runner(
            _episodes_begun, local_env_runner=self.config.n_env_runners == 0
        ):
            self.played[first : first + len(begun)] = begun
        return {
            "config": self.config.document(),
            "seeds": {"root": self.config.seed, "episodes_begun": self.played},
            "made_with": self.made_with,
            **self.inputs,
            "layout_hash": layout_hash(self.config.messages_per_peer),
            "timesteps": self.timesteps,
            "reward_scale": self.learner.spread.state(),
            "resumed_at": self.resumed_at,
            "validations": self.validations,
            "best": None if self.best is None else list(self.best),
        }

    def packed(self) -> bytes:
        """A checkpoint of what there is after a whole update."""
        return pack_algorithm(self.algorithm, self.facts(), {"log": self.updates.array()}, actor_tensors(self.module))

    def save_last(self) -> None:
        """Writes it, with the log's row of that update."""
        self.logger.dump(self.timesteps)
        write_bytes(self.run_dir / LAST, self.packed())

    def resume(self) -> None:
        """Takes the last checkpoint over."""
        facts = read_facts(self.run_dir / LAST)
        restore_algorithm(self.run_dir / LAST, self.algorithm)
        self.timesteps = int(facts["timesteps"])
        self.validations = list(facts["validations"])
        if (self.run_dir / BEST).is_file():  # what is left at last; it may be younger than the last checkpoint
            judged = read_facts(self.run_dir / BEST)
            known = {one["timesteps"] for one in self.validations}
            self.validations += [one for one in judged["validations"] if one["timesteps"] not in known]
            self.best = Validation(*judged["best"])
        self.resumed_at = [*facts["resumed_at"], self.timesteps]
        self.made_with = [*facts["made_with"], {**self.made_with[0], "from_step": self.timesteps}]

    def validate(self) -> None:
        """Judges the deterministic policy and keeps it if it is the best so far."""
        if self.validations and self.validations[-1]["timesteps"] == self.timesteps:
            return
        tensors, config = actor_tensors(self.module), self.config
        signature = Signature.of(tensors, config.widths, config.control, config.messages_per_peer)
        found = validate(self.val_player, config.eval_episodes, tensors, signature, self.timesteps)
        self.validations.append(found.document())
        self.logger.record("val/collisions", found.collisions)
        self.logger.record("val/false_brakes_per_calm_km", found.false_brakes_per_calm_km)
        self.logger.record("val/average_reward", -found.minus_average_reward)
        before = self.best
        self.best = found if found.better_than(before) else before
        try:
            content = self.packed()
            if self.best is not before:
                write_bytes(self.run_dir / BEST, content)
        except BaseException:
            self.best = before
            raise
        judged = [(one["timesteps"], Validation.of(one).merit) for one in self.validations]
        keep_best(self.run_dir, content, judged, self.config.keep_best)

    def learn(self, progress: bool, after_update: AfterUpdate | None) -> None:
        """Trains to the end."""
        config = self.config
        if self.timesteps == 0:
            write_bytes(self.run_dir / LAST, self.packed())
        with progress_bar(
            config.total_timesteps, "step", visible=progress, initial=self.timesteps, desc="train", unit_scale=True
        ) as bar:
            while self.timesteps < config.total_timesteps:
                before = self.timesteps
                self._update()
                bar.update(self.timesteps - before)
                for period, action in ((config.eval_every, self.validate), (config.checkpoint_every, self.save_last)):
                    if self.timesteps // period > before // period:
                        action()
                self.logger.dump(self.timesteps)
                if after_update is not None:
                    after_update(self.algorithm)
        self.validate()
        self.save_last()

    def _update(self) -> None:
        """One rollout and what is learnt from it; Ctrl-C finds the step, the weights and the figures of one update."""
        self.updating = True
        with undisturbed():
            noise_std = float(np.exp(float(self.module.log_std)))
            try:
                found: dict[str, Any] = self.algorithm.train()
            except ValueError as error:  # torch's distributions refuse NaN before an update is through
                if "invalid values" not in str(error):
                    raise
                raise self._diverged() from None
            before, self.timesteps = self.timesteps, steps_of(found)
            if not all(bool(torch.isfinite(parameter).all()) for parameter in self.module.parameters()):
                raise self._diverged()
            self.ended.extend(ended_episodes(found))
            figures = figures_of(found, self.ended, self.timesteps - before)
            for name, value in {**figures, "rollout/noise_std": noise_std,
                                "rollout/reward_scale": self.learner.spread.std}.items():  # fmt: skip
                self.logger.record(name, value)
            self.updating = False

    def _diverged(self) -> DivergedError:
        return DivergedError(
            f"training diverged at step {self.timesteps}: a weight is not a finite number; "
            "lower learning_rate or max_grad_norm."
        )

    def stop(self) -> StoppedError:
        """Leaves what is there in the run folder; an update that was begun is done again."""
        if not self.updating:
            self.save_last()
        write_policy(self.run_dir, read_actor(self.run_dir / LAST), self.config)
        steps = read_facts(self.run_dir / LAST)["timesteps"]
        return StoppedError(
            f"{self.run_dir}: training stopped at step {steps} of {self.config.total_timesteps}; {LAST} holds it, and "
            "the same command continues."
        )

    def finish(self) -> dict[str, Any]:
        """Leaves the best policy in the run folder, and what the training looked like."""
        best = self.run_dir / BEST
        try:
            write_bytes(self.run_dir / MODEL_NAME, best.read_bytes())
        except OSError as error:
            raise cannot_write(self.run_dir / MODEL_NAME, error) from None
        signature = write_policy(self.run_dir, read_actor(best), self.config)
        return write_result(self.run_dir, self.facts(), self.best, signature, self.updates.rows, self.updates.seconds)


def _episodes_begun(runner: Any) -> tuple[int, list[int]]:
    """A runner's first world, and episodes begun in each of its worlds."""
    worlds = runner.env.unwrapped
    return first_world(runner.worker_index, worlds.num_envs), worlds.played


def train(config: TrainConfig, *, progress: bool = True, after_update: AfterUpdate | None = None) -> dict[str, Any]:
    """Trains, or continues a training that was stopped, and leaves the result in ``config.run_dir``.

    The folder then holds what :func:`roadsense.training.sb3.train` leaves in it; ``model.zip`` and the checkpoints hold
    RLlib's state (``rllib/``, for ``Algorithm.restore_from_path``) and the actor (``policy.safetensors``).

    Args:
        config: of the training, with the algorithm ``rllib-ppo``.
        progress: whether to show a bar on stderr.
        after_update: called with RLlib's algorithm after every update.

    Returns:
        The content of ``training.json``.

    Raises:
        InputMismatchError: the folder holds a training with another configuration or dataset.
        StoppedError: Ctrl-C; the last checkpoint and a policy were saved, and the same call continues.
        DivergedError: weights are no longer finite.
    """
    if config.algorithm != "rllib-ppo":
        raise UsageError(f"algorithm is {config.algorithm!r}; roadsense.training.sb3 trains it.")
    run_dir = Path(config.run_dir)
    earlier, inputs = earlier_state(config), input_digests(config)
    refuse_other_inputs(config, earlier, inputs)
    if earlier is not None and earlier.get("finished"):
        return earlier
    if earlier is None and (run_dir / LOG_NAME).is_file():  # of a training that was killed before its first checkpoint
        shutil.rmtree(run_dir / TENSORBOARD_DIR, ignore_errors=True)
    sweep(run_dir, (MODEL_NAME, RESULT_NAME, LOG_NAME, SIGNATURE_NAME, WEIGHTS_NAME))
    torch.set_num_threads(config.torch_threads)
    played, steps = [0] * config.n_envs, 0
    if earlier is not None:
        played, steps = list(earlier["seeds"]["episodes_begun"]), int(earlier["timesteps"])
    with contextlib.ExitStack() as opened:
        opened.enter_context(running_ray(config.n_env_runners + 1))
        algorithm = build_algorithm(config, played, steps)
        opened.callback(algorithm.stop)
        val_player = opened.enter_context(contextlib.closing(validation_player(config)))
        log = None if earlier is None else read_arrays(run_dir / LAST).get("log")
        updates = UpdateLog(run_dir / LOG_NAME, log)
        logger = open_logger(run_dir, updates, config.tensorboard)
        opened.callback(logger.close)
        begun_with = [{"from_step": 0, **made_with()}]
        training = _Training(config, algorithm, logger, updates, val_player, inputs, begun_with, played)
        if earlier is not None:
            training.resume()
        try:
            training.learn(progress, after_update)
        except KeyboardInterrupt:
            raise training.stop() from None
        return training.finish()
