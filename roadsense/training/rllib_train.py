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
from roadsense.policies.signature import SIGNATURE_NAME, WEIGHTS_NAME
from roadsense.progress import progress_bar
from roadsense.runs import made_with
from roadsense.training.checkpoints import BEST, LAST, read_arrays, read_facts, sweep
from roadsense.training.config import TrainConfig
from roadsense.training.experience import input_digests, refuse_other_inputs, validation_player
from roadsense.training.folder import MODEL_NAME, RESULT_NAME, earlier_state, write_policy, write_result
from roadsense.training.judged import Judged
from roadsense.training.log import LOG_NAME, TENSORBOARD_DIR, UpdateLog, open_logger
from roadsense.training.model import diverged, is_finite
from roadsense.training.ray_connection import running_ray
from roadsense.training.rllib_checkpoint import pack_algorithm, read_actor, restore_algorithm
from roadsense.training.rllib_config import build_algorithm
from roadsense.training.rllib_figures import Ended, ended_episodes, figures_of, steps_of
from roadsense.training.rllib_learner import ConvoyLearner, learner_of, module_of
from roadsense.training.rllib_module import DeepSetsRLModule, actor_tensors
from roadsense.training.rllib_runners import first_world
from roadsense.training.undisturbed import undisturbed

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
    judged: Judged = field(default_factory=Judged)
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
            **self.judged.facts(),
        }

    def pack(self) -> bytes:
        """A checkpoint of what there is after a whole update."""
        return pack_algorithm(self.algorithm, self.facts(), {"log": self.updates.array()}, actor_tensors(self.module))

    def save_last(self) -> None:
        write_bytes(self.run_dir / LAST, self.pack())

    def resume(self) -> None:
        """Takes the last checkpoint over."""
        facts = read_facts(self.run_dir / LAST)
        restore_algorithm(self.run_dir / LAST, self.algorithm)
        self.timesteps = int(facts["timesteps"])
        self.judged.restore(facts)
        self.resumed_at = [*facts["resumed_at"], self.timesteps]
        self.made_with = [*facts["made_with"], {**self.made_with[0], "from_step": self.timesteps}]

    def validate(self) -> None:
        """Judges the deterministic policy and keeps it if it is among the best so far."""
        if self.judged.last_step == self.timesteps:
            return
        tensors = actor_tensors(self.module)
        self.judged.judge(self.config, self.val_player, tensors, self.timesteps, self.logger, self.pack)
        self.logger.dump(self.timesteps)

    def _validate_in_time(self) -> None:
        if self.timesteps // self.config.eval_every > self.judged.last_step // self.config.eval_every:
            self.validate()

    def learn(self, progress: bool, after_update: AfterUpdate | None) -> None:
        """Trains to the end."""
        config = self.config
        if self.timesteps == 0:
            self.save_last()
        with progress_bar(
            config.total_timesteps, "step", visible=progress, initial=self.timesteps, desc="train", unit_scale=True
        ) as bar:
            self._validate_in_time()  # of an update after which the training was stopped
            while self.timesteps < config.total_timesteps:
                before = self.timesteps
                self._update()
                bar.update(self.timesteps - before)
                self._validate_in_time()
                if self.timesteps // config.checkpoint_every > before // config.checkpoint_every:
                    self.save_last()
                if after_update is not None:
                    after_update(self.algorithm)
        self.validate()
        self.save_last()

    def _update(self) -> None:
        """One rollout and what is learnt from it, with its line in the log: all of it or nothing counts."""
        self.updating = True
        with undisturbed():
            noise_std = float(np.exp(float(self.module.log_std)))
            found = self._train()
            before, self.timesteps = self.timesteps, steps_of(found)
            if not is_finite(self.module):
                raise diverged(self.timesteps)
            self.ended.extend(ended_episodes(found))
            figures = figures_of(found, self.ended, self.timesteps - before)
            for name, value in {**figures, "rollout/noise_std": noise_std,
                                "rollout/reward_scale": self.learner.spread.std}.items():  # fmt: skip
                self.logger.record(name, value)
            self.logger.dump(self.timesteps)
            self.updating = False

    def _train(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = self.algorithm.train()
        except ValueError as error:  # torch's distributions refuse NaN before an update is through
            if "invalid values" not in str(error):
                raise
            raise diverged(self.timesteps) from None
        return found

    def stop(self) -> StoppedError:
        """Leaves what is there in the run folder; an update that was begun is done again."""
        if not self.updating:
            self.save_last()
        steps = _newest(self.run_dir)["timesteps"]
        write_policy(self.run_dir, read_actor(self.run_dir / LAST), self.config)
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
        signature, log = write_policy(self.run_dir, read_actor(best), self.config), self.updates
        return write_result(self.run_dir, self.facts(), self.judged.best, signature, log.rows, log.seconds)


def _newest(run_dir: Path) -> dict[str, Any]:
    """Facts of the last checkpoint, which the best one becomes where a kill came between the two.

    Otherwise the training would go on without knowing of its best checkpoint, and end with figures of another one.
    """
    last, best = run_dir / LAST, run_dir / BEST
    facts = read_facts(last)
    if best.is_file():
        of_best = read_facts(best)
        if len(of_best["validations"]) > len(facts["validations"]):
            write_bytes(last, best.read_bytes())
            return of_best
    return facts


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
    if earlier is None:
        (run_dir / BEST).unlink(missing_ok=True)  # of a training whose last checkpoint was removed
    else:
        earlier = _newest(run_dir)
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
