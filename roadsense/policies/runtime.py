"""Runs a trained policy without torch: from a run folder's weights, or from an ONNX file."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roadsense.convoy.observation import NUM_EGO, NUM_PEER, Observation
from roadsense.errors import InputMismatchError, RoadsenseError, UsageError
from roadsense.extras import missing
from roadsense.policies.base import Policy, Truth
from roadsense.policies.forward import decide
from roadsense.policies.signature import (
    WEIGHTS_NAME,
    Signature,
    Widths,
    parse_signature,
    read_signature,
    weights_digest,
)

ONNX_METADATA_KEY = "roadsense"
"""Key under which an ONNX file carries its signature."""
ONNX_FORMAT_KEY = "roadsense.format"
"""Key under which it says in which number format it decides; without it, single precision."""

_REMEDY = "train or export the policy again"


class _Learned(Policy):
    """What both forms share: name, signature, and the memory of every world where the network has one."""

    def __init__(self, name: str, signature: Signature, origin: Mapping[str, str]) -> None:
        self.name, self.signature, self.origin = name, signature, dict(origin)
        self.control, self.messages_per_peer = signature.control, signature.messages_per_peer
        self._hidden = self._cell = np.zeros((0, signature.widths.lstm), np.float32)

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


class DeepSetsPolicy(_Learned):
    """The network from its parameters: deterministic, the same bits alone and in a batch."""

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

    def act(self, observation: Observation, truth: Truth | None = None) -> NDArray[np.float64]:
        """Actions [world]."""
        num_worlds = len(observation.ego)
        if len(self._hidden) != num_worlds:
            self.reset(np.ones(num_worlds, np.bool_))
        actions = np.empty(num_worlds)
        low, high = self.signature.bounds
        decide(*observation, self._phi, self._memory, self._head, low, high, self._hidden, self._cell, actions)
        return actions


class OnnxPolicy(_Learned):
    """The exported network on ONNX Runtime, one thread."""

    def __init__(self, name: str, signature: Signature, session: Any, origin: Mapping[str, str]) -> None:
        super().__init__(name, signature, origin)
        self._session = session

    def act(self, observation: Observation, truth: Truth | None = None) -> NDArray[np.float64]:
        """Actions [world]."""
        inputs = observation._asdict()
        if self.signature.widths.lstm:
            if len(self._hidden) != len(observation.ego):
                self.reset(np.ones(len(observation.ego), np.bool_))
            inputs |= {"hidden": self._hidden, "cell": self._cell}
        action, *state = self._session.run(None, inputs)
        if state:
            self._hidden, self._cell = state
        return action[:, 0].astype(np.float64)


def _layers(tensors: Mapping[str, NDArray[np.float32]], prefix: str) -> tuple[tuple[Any, Any], ...]:
    count = sum(name.startswith(f"{prefix}.") and name.endswith(".weight") for name in tensors)
    return tuple(
        (np.ascontiguousarray(tensors[f"{prefix}.{k}.weight"].T), np.ascontiguousarray(tensors[f"{prefix}.{k}.bias"]))
        for k in range(count)
    )


def parameter_shapes(widths: Widths) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the actor's parameters, as in ``policy.safetensors``."""
    shapes: dict[str, tuple[int, ...]] = {}
    chains = {
        "phi.layers": (NUM_PEER + NUM_EGO, *widths.phi),
        "head": (widths.lstm or widths.pooled, *widths.head, 1),
    }
    for prefix, chain in chains.items():
        for k, (entering, leaving) in enumerate(itertools.pairwise(chain)):
            shapes[f"{prefix}.{k}.weight"], shapes[f"{prefix}.{k}.bias"] = (leaving, entering), (leaving,)
    if widths.lstm:
        gates = 4 * widths.lstm
        shapes |= {
            "lstm.weight_ih": (gates, widths.pooled), "lstm.weight_hh": (gates, widths.lstm), "lstm.bias": (gates,)
        }  # fmt: skip
    return shapes


def read_weights(folder: Path, signature: Signature) -> dict[str, NDArray[np.float32]]:
    """Reads ``policy.safetensors`` of a run folder and checks it against the signature.

    Raises:
        RoadsenseError: the file is missing or cut short.
        InputMismatchError: it holds other weights than the signature says.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load
    except ImportError as error:
        raise missing(error.name or "safetensors") from None
    path = folder / WEIGHTS_NAME
    try:
        tensors = load(path.read_bytes())
    except FileNotFoundError:
        raise RoadsenseError(f"{path}: no such file; {_REMEDY}.") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise RoadsenseError(f"{path}: cannot be read ({error}); {_REMEDY}.") from None
    if {name: value.shape for name, value in tensors.items()} != parameter_shapes(signature.widths):
        raise InputMismatchError(f"{path}: does not hold the layers that its signature states; {_REMEDY}.")
    if any(value.dtype != np.float32 for value in tensors.values()) or (
        weights_digest(tensors) != signature.weights_digest
    ):
        raise InputMismatchError(f"{path}: holds other weights than its signature states; {_REMEDY}.")
    return tensors


def _open_onnx(path: Path, name: str) -> OnnxPolicy:
    try:
        import onnxruntime
    except ImportError as error:
        raise missing(error.name or "onnxruntime") from None
    content = path.read_bytes()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(content, sess_options=options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a class of its own for each way a file can be broken
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if newer := re.search(r"Opset (\d+) is under development|IR version: (\d+)", str(error)):
            what = f"ONNX opset {newer[1]}" if newer[1] else f"ONNX IR version {newer[2]}"
            raise RoadsenseError(
                f"{path}: is of {what}, newer than onnxruntime {onnxruntime.__version__} reads; export the policy again"
                " or install a newer onnxruntime."
            ) from None
        raise RoadsenseError(f"{path}: cannot be read as ONNX ({reason}); {_REMEDY}.") from None
    metadata = session.get_modelmeta().custom_metadata_map
    if ONNX_METADATA_KEY not in metadata:
        raise RoadsenseError(f"{path}: was not exported by roadsense, it carries no signature; {_REMEDY}.")
    signature = parse_signature(metadata[ONNX_METADATA_KEY], path)
    # by the file's own bytes: what its metadata says of the weights, nobody has verified
    return OnnxPolicy(name, signature, session, {"path": str(path), "sha256": hashlib.sha256(content).hexdigest()})


def load_policy(path: str | Path, name: str | None = None) -> Policy:
    """Loads a trained policy; its action is the clipped mean, without exploration noise.

    Args:
        path: a run folder (``policy.safetensors`` and ``signature.json``) or an ``.onnx`` file.
        name: of the policy in results; default: the folder's name, or ``folder/file`` of an ``.onnx`` file.

    Raises:
        UsageError: there is nothing of that kind.
        RoadsenseError: a file is missing or cut short.
        InputMismatchError: the model reads another observation layout, or its weights are not the ones recorded.
    """
    path = Path(path)
    where = path.resolve()
    if name is None:
        name = where.name if path.is_dir() else f"{where.parent.name}/{where.name}"
    if path.is_dir():
        signature = read_signature(path)
        return DeepSetsPolicy(name, signature, read_weights(path, signature), path)
    if not path.exists():
        raise UsageError(f"{path}: no such run folder or .onnx file.")
    if path.suffix != ".onnx":
        raise UsageError(f"{path}: is neither a run folder nor an .onnx file.")
    return _open_onnx(path, name)
