"""A policy from an ONNX file, on ONNX Runtime."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roadsense.convoy.observation import NUM_EGO, NUM_PEER, Observation, unscaled
from roadsense.errors import InputMismatchError, RoadsenseError
from roadsense.extras import missing
from roadsense.policies.base import Truth
from roadsense.policies.forward import most_used, pack, refuse
from roadsense.policies.runtime import Policy
from roadsense.policies.signature import Signature, parse_signature
from roadsense.policies.weights import REMEDY

ONNX_METADATA_KEY = "roadsense"
"""Key under which an ONNX file carries its signature."""
ONNX_FORMAT_KEY = "roadsense.format"
"""Key under which it says in which number format it decides; without it, single precision."""


class OnnxPolicy(Policy):
    """The exported network on ONNX Runtime, one thread."""

    def __init__(self, name: str, signature: Signature, session: Any, origin: Mapping[str, str]) -> None:
        super().__init__(name, signature, origin)
        self._session, self._outputs = session, [put.name for put in session.get_outputs()]
        self._packs = True

    def unpacked(self) -> OnnxPolicy:
        """The same, which shows the graph all rows: to see what that makes of unused ones."""
        whole = OnnxPolicy(self.name, self.signature, self._session, self.origin)
        whole._packs = False
        return whole

    def act_many(self, observation: Observation, truth: Truth | None = None) -> NDArray[np.float64]:
        """Actions [world]; NaN where an observation holds NaN or infinity.

        The graph takes raw values. Only used rows are shown to it, so what lies in others costs nothing and cannot
        matter.
        """
        worlds = len(observation.ego)
        if self._packs:
            rows = most_used(observation.peer_mask)
            ego, peers = np.empty((worlds, NUM_EGO), np.float32), np.zeros((worlds, rows, NUM_PEER), np.float32)
            mask = np.zeros((worlds, rows), np.float32)
            pack(*observation, ego, peers, mask)
        else:
            ego, peers, used = unscaled(observation)
            mask = (used != 0).astype(np.float32)
        inputs = {"ego": ego, "peers": peers, "peer_mask": mask}
        if self.signature.widths.lstm:
            self._make_room(worlds)
            inputs |= {"hidden": self._hidden, "cell": self._cell}
        action, *state = self._session.run(self._outputs, inputs)
        actions: NDArray[np.float64] = action[:, 0].astype(np.float64)
        refuse(ego, peers, mask, actions)
        if state:
            self._keep(state[0], state[1], actions)
        return actions


def session_of(onnxruntime: Any, content: bytes) -> Any:
    """A session on one thread of the processor; raises whatever onnxruntime does.

    Tensors are so small that keeping and reusing memory takes longer than asking for it, half a microsecond a decision.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = options.enable_mem_reuse = False
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(content, sess_options=options, providers=["CPUExecutionProvider"])


def open_onnx(path: Path, name: str) -> OnnxPolicy:
    """The policy of an ``.onnx`` file; see :meth:`roadsense.policies.runtime.Policy.load`."""
    try:
        import onnxruntime
    except ImportError as error:
        raise missing(error.name or "onnxruntime") from None
    content = path.read_bytes()
    try:
        session = session_of(onnxruntime, content)
    except Exception as error:  # onnxruntime raises a class of its own for each way a file can be broken
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if newer := re.search(r"Opset (\d+) is under development|IR version: (\d+)", str(error)):
            what = f"ONNX opset {newer[1]}" if newer[1] else f"ONNX IR version {newer[2]}"
            raise RoadsenseError(
                f"{path}: is of {what}, newer than onnxruntime {onnxruntime.__version__} reads; export the policy again"
                " or install a newer onnxruntime."
            ) from None
        raise RoadsenseError(f"{path}: cannot be read as ONNX ({reason}); {REMEDY}.") from None
    metadata = session.get_modelmeta().custom_metadata_map
    if ONNX_METADATA_KEY not in metadata:
        raise RoadsenseError(f"{path}: was not exported by roadsense, it carries no signature; {REMEDY}.")
    signature = parse_signature(metadata[ONNX_METADATA_KEY], path)
    stated = signature.document()
    if json.loads(metadata[ONNX_METADATA_KEY]).get("inputs") != stated["inputs"]:
        raise InputMismatchError(f"{path}: takes other inputs than this version gives; {REMEDY}.")
    for kind, found in (("inputs", session.get_inputs()), ("outputs", session.get_outputs())):
        if [(put.name, len(put.shape)) for put in found] != [(one["name"], len(one["shape"])) for one in stated[kind]]:
            raise InputMismatchError(f"{path}: has other {kind} than its signature states; {REMEDY}.")
    # by the file's own bytes: what its metadata says of the weights, nobody has verified
    return OnnxPolicy(name, signature, session, {"path": str(path), "sha256": hashlib.sha256(content).hexdigest()})
