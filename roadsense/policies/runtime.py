"""Runs a trained policy without torch: from a run folder's weights, or from any format it was exported in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roadsense.convoy.observation import Observation
from roadsense.errors import UsageError
from roadsense.policies.base import BatchPolicy, Truth
from roadsense.policies.forward import decide
from roadsense.policies.signature import WEIGHTS_NAME, Signature, read_signature
from roadsense.policies.weights import read_weights


class Policy(BatchPolicy):
    """A trained policy: deterministic, its action is the clipped mean.

    ``act`` decides on one observation of the environment, ``act_many`` on those of many worlds at once.

        >>> import gymnasium as gym, roadsense
        >>> from roadsense.policies.runtime import Policy
        >>> policy = Policy.load("runs/s7-standard/model.onnx")  # doctest: +SKIP
        >>> env = gym.make("Convoy-v0")  # doctest: +SKIP
        >>> observation, info = env.reset(seed=7)  # doctest: +SKIP
        >>> observation, *_ = env.step(policy.act(observation))  # doctest: +SKIP

    Attributes:
        signature: what it reads and what its action means.
    """

    def __init__(self, name: str, signature: Signature, origin: Mapping[str, str]) -> None:
        self.name, self.signature, self.origin = name, signature, dict(origin)
        self.control, self.messages_per_peer = signature.control, signature.messages_per_peer
        self._hidden = self._cell = np.zeros((0, signature.widths.lstm), np.float32)

    @staticmethod
    def load(path: str | Path, name: str | None = None) -> Policy:
        """Loads a trained policy; no format needs torch.

        Args:
            path: a run folder (or its ``policy.safetensors``), an ``.onnx`` file, a ``model.c`` beside the weights it
                was made from (compiled for this machine), or a TensorRT ``.plan`` of this machine.
            name: of the policy in results; default: the folder's name, or ``folder/file``.

        Raises:
            UsageError: there is nothing of that kind.
            RoadsenseError: a file is missing or cut short, or what runs it is not installed.
            InputMismatchError: the model reads another observation layout, or is not of the weights beside it.
        """
        path = Path(path)
        if path.name == WEIGHTS_NAME:
            path = path.parent
        where = path.resolve()
        if name is None:
            name = where.name if path.is_dir() else f"{where.parent.name}/{where.name}"
        if path.is_dir():
            signature = read_signature(path)
            return DeepSetsPolicy(name, signature, read_weights(path, signature), path)
        if not path.exists():
            raise UsageError(f"{path}: no such run folder or file of a policy.")
        if path.suffix == ".onnx":
            from roadsense.policies.onnx_file import open_onnx

            return open_onnx(path, name)
        if path.suffix == ".c":
            from roadsense.policies.compiled import open_compiled

            return open_compiled(path, name)
        if path.suffix == ".plan":
            from roadsense.policies.engine import open_engine

            return open_engine(path, name)
        raise UsageError(f"{path}: is neither a run folder nor an .onnx, .c or .plan file.")

    def reset(self, chosen: NDArray[np.bool_], seeds: NDArray[np.uint64] | None = None) -> None:
        """Forgets what the chosen worlds remember, [world]."""
        if len(self._hidden) != len(chosen):
            self._hidden = np.zeros((len(chosen), self.signature.widths.lstm), np.float32)
            self._cell = self._hidden.copy()
        self._hidden[chosen] = 0.0
        self._cell[chosen] = 0.0

    def remember(self, hidden: NDArray[np.float32], cell: NDArray[np.float32]) -> None:
        """Sets what every world remembers, both [world, lstm]."""
        self._hidden, self._cell = hidden, cell

    @property
    def memory(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What every world remembers, hidden and cell, both [world, lstm]."""
        return self._hidden, self._cell

    def _keep(self, hidden: NDArray[np.float32], cell: NDArray[np.float32], actions: NDArray[np.float64]) -> None:
        """Remembers a new state, in the worlds that were decided on."""
        decided = ~np.isnan(actions)[:, None]
        self.remember(np.where(decided, hidden, self._hidden), np.where(decided, cell, self._cell))

    def _make_room(self, num_worlds: int) -> None:
        """Begins anew where another number of worlds is decided on than before."""
        if len(self._hidden) != num_worlds:
            self.reset(np.ones(num_worlds, np.bool_))


class DeepSetsPolicy(Policy):
    """The network from its parameters: the same bits alone and in a batch."""

    def __init__(
        self, name: str, signature: Signature, tensors: Mapping[str, NDArray[np.float32]], path: Path | None = None
    ) -> None:
        where = {} if path is None else {"path": str(path)}
        super().__init__(name, signature, {**where, "weights_digest": signature.weights_digest})
        self._phi, self._head = _layers(tensors, "phi.layers"), _layers(tensors, "head")
        lstm = signature.widths.lstm
        self._memory = (
            tuple(np.ascontiguousarray(tensors[f"lstm.{part}"].T) for part in ("weight_ih", "weight_hh", "bias"))
            if lstm
            else (np.zeros((0, 0), np.float32), np.zeros((0, 0), np.float32), np.zeros(0, np.float32))
        )

    def act_many(self, observation: Observation, truth: Truth | None = None) -> NDArray[np.float64]:
        """Actions [world]; NaN where an observation holds NaN or infinity."""
        return self._decide(observation, *self.signature.bounds)

    def means(self, observation: Observation) -> NDArray[np.float64]:
        """Actions [world] before they are clipped: what exploration noise is added to."""
        return self._decide(observation, -np.inf, np.inf)

    def _decide(self, observation: Observation, low: float, high: float) -> NDArray[np.float64]:
        num_worlds = len(observation.ego)
        self._make_room(num_worlds)
        actions = np.empty(num_worlds)
        decide(*observation, self._phi, self._memory, self._head, low, high, self._hidden, self._cell, actions)
        return actions


def _layers(tensors: Mapping[str, NDArray[np.float32]], prefix: str) -> tuple[tuple[Any, Any], ...]:
    count = sum(name.startswith(f"{prefix}.") and name.endswith(".weight") for name in tensors)
    return tuple(
        (np.ascontiguousarray(tensors[f"{prefix}.{k}.weight"].T), np.ascontiguousarray(tensors[f"{prefix}.{k}.bias"]))
        for k in range(count)
    )
