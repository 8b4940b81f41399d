"""Deep Sets as a module of RLlib's new API stack: the same actor, under the same names, as everywhere else."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI, ValueFunctionAPI
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor, nn

from roadsense.policies.deep_sets import DeepSetsActor, SetEncoder
from roadsense.policies.signature import Widths

_HIDDEN_GAIN, _ACTION_GAIN, _VALUE_GAIN = math.sqrt(2.0), 0.01, 1.0
"""Of the orthogonal first weights, those of Stable-Baselines3: a fresh actor asks for the same whatever it sees."""


class Critic(nn.Module):
    """What a state is worth. Its encoder is its own, so that it cannot bend the actor's view of the peers.

    Args:
        phi_widths: widths of the row encoder.
        widths: of the hidden layers after pooling.
    """

    def __init__(self, phi_widths: tuple[int, ...], widths: tuple[int, ...]) -> None:
        super().__init__()
        self.phi = SetEncoder(phi_widths)
        layers = (Widths(phi=phi_widths).pooled, *widths, 1)
        self.head = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(layers))

    def forward(self, ego: Tensor, peers: Tensor, peer_mask: Tensor) -> Tensor:
        """The value, [batch]; arguments as in :class:`SetEncoder`."""
        features = self.phi(ego, peers, peer_mask)
        for layer in list(self.head)[:-1]:
            features = torch.relu(layer(features))
        value: Tensor = self.head[-1](features)
        return value.squeeze(-1)


class DeepSetsRLModule(TorchRLModule, ValueFunctionAPI, InferenceOnlyAPI):
    """An actor over a set of peers, exploration noise that is told and not learned, and a critic.

    ``model_config`` holds ``phi_widths``, ``head_widths``, ``critic_widths``, ``log_std`` and ``initial_action`` of
    :class:`roadsense.training.config.TrainConfig`. Exploration and training give the inputs of a Gaussian; inference
    gives also ``actions``, the mean clipped to the action space: what is validated, exported and driven with.
    """

    def setup(self) -> None:
        """Builds both networks; RLlib has seeded torch before."""
        told: Mapping[str, Any] = self.model_config
        phi, head = tuple(told["phi_widths"]), tuple(told["head_widths"])
        bounds = float(self.action_space.low[0]), float(self.action_space.high[0])
        self.actor = DeepSetsActor(Widths(phi=phi, head=head), bounds)
        self.critic = Critic(phi, tuple(told["critic_widths"]))
        # a buffer and not a parameter: it is part of what runners are sent, and no gradient moves it
        self.register_buffer("log_std", torch.tensor(float(told["log_std"])))
        for network, last_gain in ((self.actor, _ACTION_GAIN), (self.critic, _VALUE_GAIN)):
            for layer in (*network.phi.layers, *network.head):
                nn.init.orthogonal_(layer.weight, last_gain if layer is network.head[-1] else _HIDDEN_GAIN)
                nn.init.constant_(layer.bias, 0.0)
        nn.init.constant_(self.actor.head[-1].bias, float(told["initial_action"]))  # type: ignore[arg-type]

    def get_non_inference_attributes(self) -> list[str]:
        """What runners do without."""
        return ["critic"]

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        seen = batch[Columns.OBS]
        mean = self.actor.mean(self.actor.phi(seen["ego"], seen["peers"], seen["peer_mask"]))
        return {Columns.ACTION_DIST_INPUTS: torch.cat([mean, self.log_std.expand_as(mean)], -1)}

    def _forward_inference(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        with torch.no_grad():
            found = self._forward(batch)
        mean = found[Columns.ACTION_DIST_INPUTS][..., :1]
        return {**found, Columns.ACTIONS: mean.clamp(*self.actor.bounds)}

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> Tensor:
        """The critic's values, [batch]."""
        seen = batch[Columns.OBS]
        value: Tensor = self.critic(seen["ego"], seen["peers"], seen["peer_mask"])
        return value


def actor_tensors(module: DeepSetsRLModule) -> dict[str, NDArray[np.float32]]:
    """The parameters that decide, under the names of :class:`roadsense.policies.deep_sets.DeepSetsActor`."""
    return {name: value.detach().cpu().numpy().copy() for name, value in sorted(module.actor.state_dict().items())}
