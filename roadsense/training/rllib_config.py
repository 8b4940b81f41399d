"""A training's configuration in RLlib's words."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.ppo import PPO, PPOConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.tune.registry import register_env

from roadsense.training.config import TrainConfig
from roadsense.training.experience import anywhere, play_arguments
from roadsense.training.rllib_learner import ConvoyLearner
from roadsense.training.rllib_module import DeepSetsRLModule
from roadsense.training.rllib_runners import ConvoyCallbacks, make_runner_worlds

ENV_NAME = "roadsense-training"

_RESTART_DELAY_S = 1.0
"""Before a runner that died is made anew; RLlib's 60 s are for clusters that grow."""
_SAMPLE_TIMEOUT_S = 1800.0
"""For one rollout; with RLlib's 60 s an update is left out where kernels compile first, or SUMO drives many worlds."""


class ConvoyPPO(PPO):
    """RLlib's PPO without a folder in ``~/ray_results``: everything a training leaves is in its run folder."""

    def _setup_logdir(self) -> None:
        self._logdir = tempfile.gettempdir()


def algorithm_config(config: TrainConfig, played: Sequence[int] | None = None, from_step: int = 0) -> PPOConfig:
    """RLlib's configuration of a training; ``build_algo()`` makes the algorithm.

    Args:
        config: of the training.
        played: episodes begun before, by world; None: none.
        from_step: where the training goes on. Exploration is seeded by it: it goes on elsewhere than it began, the same
            for every continuation at that step.
    """
    register_env(ENV_NAME, make_runner_worlds)
    worlds = {**anywhere(play_arguments(config, "train")), "seed": config.seed,
              "played": list(played or [0] * config.n_envs)}  # fmt: skip
    runners = config.n_env_runners
    model = {"phi_widths": config.phi_widths, "head_widths": config.head_widths, "critic_widths": config.critic_widths,
             "log_std": config.log_std_start, "initial_action": config.initial_action}  # fmt: skip
    return (
        PPOConfig(algo_class=ConvoyPPO)
        .framework("torch")
        .environment(
            ENV_NAME, env_config=worlds, disable_env_checking=True,
            # what the actor gives is clipped as everywhere else, not stretched over the action space
            normalize_actions=False, clip_actions=True,
        )
        .env_runners(
            num_env_runners=runners, num_envs_per_env_runner=config.n_envs // max(1, runners),
            gym_env_vectorize_mode="vector_entry_point", rollout_fragment_length=config.n_steps,
            sample_timeout_s=_SAMPLE_TIMEOUT_S,
        )
        .learners(
            num_learners=0, num_gpus_per_learner=0, learner_class=ConvoyLearner,
            learner_config_dict={
                "reward_clip": config.reward_clip, "total_timesteps": config.total_timesteps,
                "log_std_start": config.log_std_start, "log_std_end": config.log_std_end,
            },
        )
        .rl_module(rl_module_spec=RLModuleSpec(module_class=DeepSetsRLModule, model_config=model))
        .training(
            gamma=config.gamma, lambda_=config.gae_lambda, clip_param=config.clip_range, use_kl_loss=False,
            lr=[[0, config.learning_rate], [config.total_timesteps, config.learning_rate_end]],
            vf_loss_coeff=config.vf_coef, vf_clip_param=float("inf"), entropy_coeff=0.0,
            grad_clip=config.max_grad_norm, grad_clip_by="global_norm",
            train_batch_size_per_learner=config.n_envs * config.n_steps, minibatch_size=config.minibatch_size,
            num_epochs=config.n_epochs,
        )
        .callbacks(ConvoyCallbacks)
        .fault_tolerance(delay_between_env_runner_restarts_s=_RESTART_DELAY_S)
        .debugging(seed=(config.seed + from_step) % (2**32 - 2**16), log_level="ERROR")
    )  # fmt: skip


def build_algorithm(config: TrainConfig, played: Sequence[int] | None = None, from_step: int = 0) -> Algorithm:
    """RLlib's algorithm of a training, in a Ray that runs; ``stop()`` it. Arguments as :func:`algorithm_config`."""
    logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # else it warns of being the newest of its kinds
    with _unsaid(b"has constructor arguments in the object store"):
        return algorithm_config(config, played, from_step).build_algo()


@contextlib.contextmanager
def _unsaid(notice: bytes) -> Iterator[None]:
    """Keeps a line back that Ray's C++ writes to stderr as an error, for every runner and whatever one does."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as told:
        os.dup2(told.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            told.seek(0)
            for line in told:
                if notice not in line:
                    os.write(2, line)
