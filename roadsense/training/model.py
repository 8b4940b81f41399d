"""The learner: PPO of Stable-Baselines3 over Deep Sets, and the actor inside it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from sb3_contrib import RecurrentPPO
from stable_baselines3 import PPO
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from roadsense.errors import RoadsenseError
from roadsense.files import write_bytes
from roadsense.policies.deep_sets import SetEncoder
from roadsense.policies.signature import Signature, Widths
from roadsense.training.config import TrainConfig
from roadsense.training.fragments import Weights

DUMP_NAME = "nan.npz"

AnyPPO = PPO | RecurrentPPO


class DeepSetsExtractor(BaseFeaturesExtractor):
    """:class:`SetEncoder` as the features extractor of a Stable-Baselines3 policy.

    Args:
        observation_space: ``Dict(ego, peers, peer_mask)``.
        phi_widths: widths of the row encoder.
    """

    def __init__(self, observation_space: spaces.Dict, phi_widths: tuple[int, ...] = Widths().phi) -> None:
        super().__init__(observation_space, Widths(phi=tuple(phi_widths)).pooled)
        self.encoder = SetEncoder(tuple(phi_widths))

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        return self.encoder(observations["ego"], observations["peers"], observations["peer_mask"])


class DivergedError(RoadsenseError):
    """Training produced numbers that are not finite."""


class _Watched:
    """Looks after every update that the weights are still numbers, and then logs it."""

    dump_dir: Path | None = None
    critic_alone_until = 0
    """Step up to which the actor stays as it is."""

    def collect_rollouts(self, env: Any, callback: Any, rollout_buffer: Any, n_rollout_steps: int) -> bool:
        collector = getattr(env, "collector", None)
        if collector is not None:  # the worlds are elsewhere
            return bool(collector.collect(self, callback, rollout_buffer))
        collected: bool = super().collect_rollouts(env, callback, rollout_buffer, n_rollout_steps)  # type: ignore[misc]
        return collected

    def train(self) -> None:
        model: Any = self
        for parameter in actor_parameters(model):
            parameter.requires_grad_(model.num_timesteps > self.critic_alone_until)
        try:
            super().train()  # type: ignore[misc]
        except ValueError as error:  # torch's distributions refuse NaN before an update is through
            if "invalid values" not in str(error):
                raise
        refuse_not_finite(model)
        model.dump_logs(model.num_timesteps // (model.n_steps * model.n_envs))  # rollout and its update in one row


def refuse_not_finite(model: Any) -> None:
    """Stops a training whose weights are no numbers any more, and leaves the last rollout of PPO.

    Raises:
        DivergedError: a weight is not finite.
    """
    if not is_finite(model.policy):
        if model.dump_dir is None or not model.rollout_buffer.full:
            raise diverged(model.num_timesteps)
        path = model.dump_dir / DUMP_NAME
        buffer = model.rollout_buffer
        arrays = dict(buffer.observations) | {
            name: getattr(buffer, name) for name in ("actions", "rewards", "returns", "values")
        }
        dump = io.BytesIO()
        np.savez_compressed(dump, **arrays, seeds=np.array(model.env.get_attr("seeds")[0], np.uint64))
        write_bytes(path, dump.getvalue())
        raise diverged(model.num_timesteps, f"the last rollout lies in {path}; ")


def is_finite(module: torch.nn.Module) -> bool:
    """Whether all that it learns are numbers."""
    return all(bool(torch.isfinite(parameter).all()) for parameter in module.parameters())


def diverged(timesteps: int, left: str = "") -> DivergedError:
    """The error for weights that are no numbers any more.

    Args:
        timesteps: done so far.
        left: what there is to look at.
    """
    return DivergedError(
        f"training diverged at step {timesteps}: a weight is not a finite number; {left}lower learning_rate or "
        "max_grad_norm."
    )


class _WatchedPPO(_Watched, PPO):
    pass


class _WatchedRecurrentPPO(_Watched, RecurrentPPO):
    pass


def build_model(config: TrainConfig, env: VecEnv, dump_dir: Path | None = None) -> AnyPPO:
    """A fresh learner.

    Args:
        config: of the training.
        env: to learn in.
        dump_dir: where the last rollout is left if training diverges.
    """
    recurrent = config.algorithm == "recurrent-ppo"
    end = config.learning_rate_end
    start = end if config.dagger_steps else config.learning_rate  # DAgger sets its own before PPO begins
    policy_kwargs: dict[str, Any] = {
        "features_extractor_class": DeepSetsExtractor,
        "features_extractor_kwargs": {"phi_widths": config.phi_widths},
        # the critic must not bend the actor's view of the peers
        "share_features_extractor": False,
        "net_arch": {"pi": list(config.head_widths), "vf": list(config.critic_widths)},
        "activation_fn": torch.nn.ReLU,
        "log_std_init": config.log_std_start,
    }
    if recurrent:
        policy_kwargs |= {"lstm_hidden_size": config.lstm_width, "enable_critic_lstm": True}
    model: AnyPPO = (_WatchedRecurrentPPO if recurrent else _WatchedPPO)(
        "MultiInputLstmPolicy" if recurrent else "MultiInputPolicy",
        env,
        learning_rate=lambda remaining: end + (start - end) * remaining,
        n_steps=config.n_steps,
        batch_size=config.minibatch_size,
        n_epochs=config.n_epochs,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
        clip_range=config.clip_range,
        vf_coef=config.vf_coef,
        max_grad_norm=config.max_grad_norm,
        target_kl=config.target_kl,
        policy_kwargs=policy_kwargs,
        seed=config.seed,
        device="cpu",
    )
    model.dump_dir = dump_dir  # type: ignore[union-attr]
    model.critic_alone_until = config.critic_alone_until  # type: ignore[union-attr]
    model.policy.log_std.requires_grad_(False)  # annealed by a callback
    with torch.no_grad():
        torch.nn.init.constant_(model.policy.action_net.bias, config.initial_action)  # type: ignore[arg-type]
    return model


def actor_parameters(model: AnyPPO) -> list[torch.nn.Parameter]:
    """What the actor alone learns; the noise is no part of it."""
    policy: Any = model.policy
    parts = [policy.pi_features_extractor, policy.mlp_extractor.policy_net, policy.action_net]
    parts += [policy.lstm_actor] if hasattr(policy, "lstm_actor") else []
    return [parameter for part in parts for parameter in part.parameters()]


def decided_mean(model: AnyPPO, seen: dict[str, Tensor]) -> Tensor:
    """The actor's mean action before it is clipped, [batch]; without a memory."""
    policy: Any = model.policy
    hidden = policy.mlp_extractor.forward_actor(policy.pi_features_extractor(seen))
    decided: Tensor = policy.action_net(hidden)[:, 0]
    return decided


def weights_of(model: AnyPPO, config: TrainConfig, version: int, std: float = 0.0) -> Weights:
    """What decides as the model does now, for those who drive worlds without torch."""
    tensors = actor_tensors(model)
    signature = Signature.of(tensors, config.widths, config.control, config.messages_per_peer)
    return Weights(version, signature, tensors, std)


def actor_tensors(model: AnyPPO) -> dict[str, NDArray[np.float32]]:
    """The parameters that decide, under the names of :class:`roadsense.policies.deep_sets.DeepSetsActor`."""
    policy: Any = model.policy
    found: dict[str, torch.Tensor] = {
        f"phi.{name}": value for name, value in policy.pi_features_extractor.encoder.state_dict().items()
    }
    hidden = [layer for layer in policy.mlp_extractor.policy_net if isinstance(layer, torch.nn.Linear)]
    for k, layer in enumerate([*hidden, policy.action_net]):
        found[f"head.{k}.weight"], found[f"head.{k}.bias"] = layer.weight, layer.bias
    if hasattr(policy, "lstm_actor"):
        lstm = policy.lstm_actor
        found["lstm.weight_ih"], found["lstm.weight_hh"] = lstm.weight_ih_l0, lstm.weight_hh_l0
        found["lstm.bias"] = lstm.bias_ih_l0 + lstm.bias_hh_l0
    return {name: value.detach().cpu().numpy().copy() for name, value in sorted(found.items())}
