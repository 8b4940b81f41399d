"""The torch network of a run as a policy: what every exported format is compared with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from roadsense.convoy.observation import Observation
from roadsense.policies.base import Truth
from roadsense.policies.deep_sets import actor_of
from roadsense.policies.forward import refuse
from roadsense.policies.runtime import Policy
from roadsense.policies.signature import Signature, read_signature
from roadsense.policies.weights import read_weights

NETWORK = "network"
"""Its name in results."""


class NetworkPolicy(Policy):
    """The network as torch computes it."""

    def __init__(self, signature: Signature, tensors: dict[str, NDArray[np.float32]], path: Path) -> None:
        super().__init__(NETWORK, signature, {"path": str(path), "weights_digest": signature.weights_digest})
        self._actor = actor_of(tensors, signature)

    def act_many(self, observation: Observation, truth: Truth | None = None) -> NDArray[np.float64]:
        """Actions [world]; NaN where an observation holds NaN or infinity."""
        inputs = [torch.from_numpy(np.ascontiguousarray(array)) for array in observation]
        with torch.no_grad(), _one_thread():
            if self.signature.widths.lstm:
                self._make_room(len(observation.ego))
                action, *state = self._actor(*inputs, torch.from_numpy(self._hidden), torch.from_numpy(self._cell))
            else:
                action, state = self._actor(*inputs), []
        actions: NDArray[np.float64] = action[:, 0].numpy().astype(np.float64)
        refuse(*observation, actions)
        if state:
            self._keep(state[0].numpy(), state[1].numpy(), actions)
        return actions


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Threads wait for each other longer than so small a network takes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def load_network(run_dir: str | Path) -> NetworkPolicy:
    """The torch network of a run folder; raises as :meth:`roadsense.policies.runtime.Policy.load`."""
    run_dir = Path(run_dir)
    signature = read_signature(run_dir)
    return NetworkPolicy(signature, read_weights(run_dir, signature), run_dir)
