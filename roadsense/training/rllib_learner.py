"""RLlib's PPO learner with what this task needs: rewards of one size, annealed noise, and figures of every update."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.connectors.learner import GeneralAdvantageEstimation
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.learner import POLICY_LOSS_KEY, VF_LOSS_KEY
from ray.rllib.evaluation.postprocessing import Postprocessing
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME
from scipy.signal import lfilter
from torch import Tensor

from roadsense.training.reward_scale import ReturnSpread
from roadsense.training.rllib_module import DeepSetsRLModule

REWARD_SCALE = "reward_scale"
"""Of the learner's state: the spread of returns that rewards are divided by."""

EXPLAINED_VARIANCE = "convoy_explained_variance"
APPROX_KL = "convoy_approx_kl"
CLIP_FRACTION = "convoy_clip_fraction"
POLICY_LOSS = "convoy_policy_loss"
VALUE_LOSS = "convoy_value_loss"
"""Figures of an update: of the critic before it, and means over all of its minibatches."""


class ScaledAdvantages(GeneralAdvantageEstimation):
    """Advantages of rewards that were divided by the spread of returns; without it the critic learns nothing.

    Runners keep the rewards as they are: an episode's return is reported before normalisation. All rewards of an
    update are divided by the same number, that of the returns up to it.

    Args:
        spread: of returns so far.
        gamma: discount of a step.
        lambda_: decay of generalised advantage estimation.
    """

    def __init__(self, spread: ReturnSpread, *, gamma: float, lambda_: float) -> None:
        super().__init__(gamma=gamma, lambda_=lambda_)
        self._spread = spread
        self._running: dict[str, float] = {}

    def __call__(
        self, *, rl_module: Any, episodes: Sequence[Any], batch: dict[str, Any], metrics: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """Normalises, estimates advantages and targets, and measures the critic by them."""
        self._learn(episodes)
        learnt = batch[DEFAULT_MODULE_ID]
        scaled = self._spread.scaled(learnt[Columns.REWARDS].numpy().astype(np.float64))
        learnt[Columns.REWARDS] = torch.from_numpy(scaled)
        found: dict[str, Any] = super().__call__(rl_module=rl_module, episodes=episodes, batch=batch, **kwargs)
        with torch.no_grad():
            values = rl_module[DEFAULT_MODULE_ID].compute_values(learnt)
        counted = learnt[Columns.LOSS_MASK]
        targets = learnt[Postprocessing.VALUE_TARGETS][counted]
        explained = 1.0 - float((targets - values[counted]).var() / targets.var().clamp(min=1e-12))
        metrics.log_value((DEFAULT_MODULE_ID, EXPLAINED_VARIANCE), explained, window=1)
        return found

    def _learn(self, episodes: Sequence[Any]) -> None:
        """Takes in the discounted return up to every step.

        RLlib cuts episodes at the end of a rollout; a return runs on in the next one, found by the episode's id.
        """
        returns: list[NDArray[np.float64]] = []
        running: dict[str, float] = {}
        for episode in episodes:
            # RLlib has added a step that bootstraps the value and a number to the id
            name, rewards = episode.id_.rpartition("_")[0], np.asarray(episode.get_rewards(), np.float64)[:-1]
            before = running.get(name, self._running.get(name, 0.0))
            found, _ = lfilter([1.0], [1.0, -self.gamma], rewards, zi=[self.gamma * before])
            running[name] = float(found[-1])
            returns.append(found)
        self._running = running
        self._spread.learn(np.concatenate(returns))


class ConvoyLearner(PPOTorchLearner):
    """PPO over :class:`roadsense.training.rllib_module.DeepSetsRLModule`.

    ``learner_config_dict`` holds ``reward_clip``, ``log_std_start``, ``log_std_end`` and ``total_timesteps``.
    """

    def build(self) -> None:
        """Puts its own estimation of advantages where RLlib's stands."""
        self.spread = ReturnSpread(self.config.learner_config_dict["reward_clip"])
        super().build()
        scaled = ScaledAdvantages(self.spread, gamma=self.config.gamma, lambda_=self.config.lambda_)
        self._learner_connector.insert_before(GeneralAdvantageEstimation, scaled)
        self._learner_connector.remove(GeneralAdvantageEstimation)

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: dict[str, Any], fwd_out: dict[str, Any]
    ) -> Tensor:
        """PPO's loss, and how far the policy has moved since the rollout."""
        loss: Tensor = super().compute_loss_for_module(module_id=module_id, config=config, batch=batch, fwd_out=fwd_out)
        with torch.no_grad():
            counted = batch[Columns.LOSS_MASK]
            now = self.module[module_id].get_train_action_dist_cls().from_logits(fwd_out[Columns.ACTION_DIST_INPUTS])
            difference = (now.logp(batch[Columns.ACTIONS]) - batch[Columns.ACTION_LOGP])[counted]
            ratio = difference.exp()
            clipped = (ratio - 1.0).abs() > config.clip_param
        for name, value in (
            (APPROX_KL, float((ratio - 1.0 - difference).mean())),
            (CLIP_FRACTION, float(clipped.float().mean())),
            (POLICY_LOSS, self._last(module_id, POLICY_LOSS_KEY)),
            (VALUE_LOSS, self._last(module_id, VF_LOSS_KEY)),
        ):
            self.metrics.log_value((module_id, name), value, reduce="item_series")
        return loss

    def _last(self, module_id: str, name: str) -> float:
        """A figure that RLlib took of this minibatch."""
        return float(self.metrics.peek((module_id, name)).detach())

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Anneals the noise of the next rollout; runners are sent it with the weights."""
        super().after_gradient_based_update(timesteps=timesteps)
        told = self.config.learner_config_dict
        share = min(1.0, timesteps.get(NUM_ENV_STEPS_SAMPLED_LIFETIME, 0) / told["total_timesteps"])
        start, end = told["log_std_start"], told["log_std_end"]
        self.module[DEFAULT_MODULE_ID].log_std.fill_(start + (end - start) * share)

    def get_state(self, components: Any = None, *, not_components: Any = None, **kwargs: Any) -> dict[str, Any]:
        """RLlib's state, and the spread of returns."""
        state: dict[str, Any] = super().get_state(components, not_components=not_components, **kwargs)
        if self._check_component(REWARD_SCALE, components, not_components):
            state[REWARD_SCALE] = self.spread.state()
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Takes a saved state over."""
        super().set_state(state)
        if REWARD_SCALE in state:
            self.spread.restore(state[REWARD_SCALE])


def learner_of(algorithm: Algorithm) -> ConvoyLearner:
    """The one learner of an algorithm, in this process."""
    (found,) = algorithm.learner_group.foreach_learner(lambda learner: learner)
    learner: ConvoyLearner = found.get()
    return learner


def module_of(algorithm: Algorithm) -> DeepSetsRLModule:
    """What it learns."""
    module: DeepSetsRLModule = learner_of(algorithm).module[DEFAULT_MODULE_ID]
    return module
