"""The network: peers are a set. Every row is encoded alone, the set is pooled, the pooled set is decided on.

Rows are encoded by φ(row, ego), which ends in ReLU, multiplied by the mask, and pooled by maximum and by mean over used
rows. After ReLU and mask an unused row is exactly zero, which neither a maximum of non-negative numbers nor a sum
sees: no −inf, no sentinel, and one more row of zeros makes the empty set a set like any other.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from roadsense.convoy.observation import NUM_EGO, NUM_PEER
from roadsense.policies.signature import Signature, Widths


class SetEncoder(nn.Module):
    """(ego, set of rows) → [batch, 2·width + 4]: maximum and mean of the encoded rows, and the ego."""

    def __init__(self, phi_widths: tuple[int, ...]) -> None:
        super().__init__()
        widths = (NUM_PEER + NUM_EGO, *phi_widths)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))

    def forward(self, ego: Tensor, peers: Tensor, peer_mask: Tensor) -> Tensor:
        """Pools; any number of rows, also 0.

        Args:
            ego: [batch, 4].
            peers: [batch, row, 8].
            peer_mask: [batch, row], not zero where a row is used.
        """
        used = (peer_mask != 0).unsqueeze(-1)
        # selected before it is multiplied: not even NaN in an unused row gets into the output or a gradient
        rows = torch.where(used, peers, torch.zeros((), dtype=peers.dtype))
        first, *further = self.layers
        assert isinstance(first, nn.Linear)
        of_ego = functional.linear(ego, first.weight[:, NUM_PEER:], first.bias)
        encoded = torch.relu(functional.linear(rows, first.weight[:, :NUM_PEER]) + of_ego.unsqueeze(1))
        for layer in further:
            encoded = torch.relu(layer(encoded))
        present = used.to(encoded.dtype)
        encoded = functional.pad(encoded * present, (0, 0, 0, 1))
        count = present.sum(1).clamp(min=1.0)
        return torch.cat([encoded.amax(1), encoded.sum(1) / count, ego], -1)


class _Memory(nn.Module):
    """One step of an LSTM (gates in torch's order i, f, g, o), spelled out so that it exports as plain products."""

    def __init__(self, entering: int, width: int) -> None:
        super().__init__()
        self.weight_ih = nn.Parameter(torch.zeros(4 * width, entering))
        self.weight_hh = nn.Parameter(torch.zeros(4 * width, width))
        self.bias = nn.Parameter(torch.zeros(4 * width))

    def forward(self, features: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        gates = functional.linear(features, self.weight_ih, self.bias) + functional.linear(hidden, self.weight_hh)
        enter, keep, new, out = gates.chunk(4, -1)
        cell = torch.sigmoid(keep) * cell + torch.sigmoid(enter) * torch.tanh(new)
        return torch.sigmoid(out) * torch.tanh(cell), cell


class DeepSetsActor(nn.Module):
    """The deterministic policy: observation → clipped mean, [batch, 1]; what is exported and compared.

    Args:
        widths: of its layers.
        bounds: lowest and highest action.
    """

    def __init__(self, widths: Widths, bounds: tuple[float, float]) -> None:
        super().__init__()
        self.widths, self.bounds = widths, bounds
        self.phi = SetEncoder(widths.phi)
        self.lstm = _Memory(widths.pooled, widths.lstm) if widths.lstm else None
        layers = (widths.lstm or widths.pooled, *widths.head, 1)
        self.head = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(layers))

    def forward(
        self, ego: Tensor, peers: Tensor, peer_mask: Tensor, hidden: Tensor | None = None, cell: Tensor | None = None
    ) -> Any:
        """The action; with a memory (action, hidden, cell), the last two [batch, lstm]."""
        features = self.phi(ego, peers, peer_mask)
        if self.lstm is not None:
            assert hidden is not None and cell is not None
            hidden, cell = self.lstm(features, hidden, cell)
            features = hidden
        action = self.mean(features).clamp(*self.bounds)
        return action if self.lstm is None else (action, hidden, cell)

    def mean(self, features: Tensor) -> Tensor:
        """What the action is before it is clipped, [batch, 1], from the pooled set or the memory."""
        for layer in list(self.head)[:-1]:
            features = torch.relu(layer(features))
        mean: Tensor = self.head[-1](features)
        return mean


def actor_of(tensors: Mapping[str, Any], signature: Signature) -> DeepSetsActor:
    """The actor with the given parameters (numpy arrays by name)."""
    actor = DeepSetsActor(signature.widths, signature.bounds)
    actor.load_state_dict({name: torch.as_tensor(value) for name, value in tensors.items()})
    return actor.eval()
