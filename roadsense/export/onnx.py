"""The policy as an ONNX file, and the proof that it decides as the network it was made from."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from roadsense.convoy.observation import NUM_EGO, NUM_PEER, Observation
from roadsense.errors import RoadsenseError
from roadsense.export.parity import PARITY_BOUND, actions_of_network, actions_of_policy, memory
from roadsense.export.sets import SET_BOUND, largest, padded, permuted
from roadsense.files import write_bytes
from roadsense.manifest import file_digest
from roadsense.policies.deep_sets import DeepSetsActor, actor_of
from roadsense.policies.runtime import ONNX_METADATA_KEY, load_policy, read_weights
from roadsense.policies.signature import ONNX_NAME, read_signature

OPSET = 20


def load_actor(run_dir: str | Path) -> DeepSetsActor:
    """The torch network of a run folder; raises as :func:`roadsense.policies.runtime.load_policy`."""
    signature = read_signature(Path(run_dir))
    return actor_of(read_weights(Path(run_dir), signature), signature)


def export_onnx(run_dir: str | Path) -> Path:
    """Writes ``model.onnx`` beside the weights of a run folder and returns its path.

    The graph takes ``ego`` [batch, 4], ``peers`` [batch, row, 8] and ``peer_mask`` int8 [batch, row] as the environment
    gives them, any batch and any number of rows (also none), and gives ``action`` [batch, 1], clipped. A network with
    a memory takes and gives ``hidden`` and ``cell`` as well. The signature travels in the file's metadata. The same
    weights give the same bytes, and all of them are in the one file.

    Raises:
        RoadsenseError: the weights cannot be read or the file cannot be written.
    """
    run_dir = Path(run_dir)
    signature = read_signature(run_dir)
    actor = actor_of(read_weights(run_dir, signature), signature)
    batch, rows = torch.export.Dim("batch"), torch.export.Dim("rows")
    inputs: list[torch.Tensor] = [
        torch.zeros(2, NUM_EGO), torch.zeros(2, 3, NUM_PEER), torch.ones(2, 3, dtype=torch.int8)
    ]  # fmt: skip
    names, shapes = ["ego", "peers", "peer_mask"], [{0: batch}, {0: batch, 1: rows}, {0: batch, 1: rows}]
    outputs = ["action"]
    if signature.widths.lstm:
        inputs += [torch.zeros(2, signature.widths.lstm) for _ in range(2)]
        names, outputs = [*names, "hidden", "cell"], ["action", "next_hidden", "next_cell"]
        shapes += [{0: batch}, {0: batch}]
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the exporter's own innards
            program = torch.onnx.export(
                actor, tuple(inputs), input_names=names, output_names=outputs, opset_version=OPSET, dynamo=True,
                dynamic_shapes=tuple(shapes), external_data=False, optimize=True, verbose=False,
            )  # fmt: skip
    finally:
        logging.getLogger("torch.onnx").setLevel(level)
    assert program is not None
    model = program.model_proto
    _strip(model)
    entry = model.metadata_props.add()
    entry.key, entry.value = ONNX_METADATA_KEY, signature.text()
    onnx.checker.check_model(model, full_check=True)
    path = run_dir / ONNX_NAME
    write_bytes(path, model.SerializeToString(deterministic=True))
    return path


def _strip(model: Any) -> None:
    """Removes what the exporter notes about this machine (stack traces with paths), so that bytes are stable."""
    del model.metadata_props[:]
    model.doc_string = model.graph.doc_string = ""
    del model.graph.metadata_props[:]
    values = (*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer)
    for part in (*model.graph.node, *values):
        part.doc_string = ""
        del part.metadata_props[:]


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far the ONNX file's actions are from the network's, over recorded observations."""

    model_digest: str
    """SHA-256 (hex) of the file."""
    observations: int
    recorded: float
    """Largest difference on the observations as they are."""
    runtime: float
    """Of the torch-free runtime from the network, on the observations as they are."""
    permuted: float
    """Of the file's actions from its own, with the rows of every observation in another order."""
    padded: float
    """The same with more capacity."""

    @property
    def largest(self) -> float:
        """Of all of them; NaN where any is."""
        return float(np.max([self.recorded, self.runtime, self.permuted, self.padded]))

    @property
    def passed(self) -> bool:
        """Whether all are within their bounds; NaN is not."""
        implementations, sets = (self.recorded, self.runtime), (self.permuted, self.padded)
        return all(one <= PARITY_BOUND for one in implementations) and all(one <= SET_BOUND for one in sets)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "model_digest": self.model_digest, "observations": self.observations,
            "passed": self.passed, "largest": self.largest,
            "bound": PARITY_BOUND, "recorded": self.recorded, "runtime": self.runtime,
            "set_bound": SET_BOUND, "permuted": self.permuted, "padded": self.padded,
        }  # fmt: skip


def parity(run_dir: str | Path, observations: Observation, *, seed: int = 0) -> Parity:
    """Compares ``model.onnx`` and the runtime with the torch network, and the file with itself on other rows.

    Args:
        run_dir: folder that holds weights and ``model.onnx``.
        observations: recorded ones along the leading axis.
        seed: of the order rows are put in, and of the memory's state where the network has one.

    Raises:
        RoadsenseError: they differ by more than their bound; or a file cannot be read.
    """
    run_dir = Path(run_dir)
    actor = load_actor(run_dir)
    exported, runtime = load_policy(run_dir / ONNX_NAME), load_policy(run_dir)
    if exported.signature.weights_digest != runtime.signature.weights_digest:  # type: ignore[attr-defined]
        raise RoadsenseError(f"{run_dir / ONNX_NAME}: was exported from other weights; export again.")
    rng = np.random.default_rng(seed)
    state = memory(actor, len(observations.ego), rng)
    wanted = actions_of_network(actor, observations, state)
    own = actions_of_policy(exported, observations, state)
    found = Parity(
        model_digest=file_digest(run_dir / ONNX_NAME),
        observations=len(wanted),
        recorded=largest(own - wanted),
        runtime=largest(actions_of_policy(runtime, observations, state) - wanted),
        permuted=largest(actions_of_policy(exported, permuted(observations, rng), state) - own),
        padded=largest(actions_of_policy(exported, padded(observations), state) - own),
    )
    if not found.passed:
        other_rows = max(found.permuted, found.padded)
        raise RoadsenseError(
            f"{run_dir / ONNX_NAME}: its actions differ from the network's by {found.recorded:.3g} (the runtime's by "
            f"{found.runtime:.3g}), at most {PARITY_BOUND:g} is allowed, and with other rows from its own by "
            f"{other_rows:.3g}, at most {SET_BOUND:g}, over {found.observations} observations; it is not usable."
        )
    return found
