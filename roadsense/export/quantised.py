"""The policy in fewer bits: the encoder in half precision, or encoder and head in 8-bit integers (Q/DQ).

Peers are a set, and a float sum depends on its order. Half precision therefore ends where rows are pooled. Before 8-bit
activations rows are rounded to multiples of a power of two, which add up exactly in any order.

One byte is too coarse for an activation here: trained policies then brake otherwise in up to 1 % of decisions. Each is
split in a coarse and a fine byte, and both go through the same 8-bit weights.
"""

from __future__ import annotations

import contextlib
import logging
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from roadsense.convoy.observation import PEER_FEATURES, Observation, unscaled
from roadsense.errors import RoadsenseError
from roadsense.export.graph import policy_graph, sign
from roadsense.export.sets import joined, made_up
from roadsense.files import write_bytes
from roadsense.policies.signature import Widths, read_signature
from roadsense.policies.weights import read_weights

FP16_NAME = "model.fp16.onnx"
INT8_NAME = "model.int8.onnx"

HAZARD_ACCEL_MPS2 = -3.0
"""An observation is of a hazard where a peer tells of braking this hard or harder; the gentlest hazard does."""
CALIBRATED_ON = 1000
"""So many observations of each stratum, at most."""

_ACCEL = [feature.name for feature in PEER_FEATURES].index("accel")
_BATCH = 500


def export_fp16(run_dir: str | Path) -> Path:
    """Writes ``model.fp16.onnx``: rows are encoded in half precision, the pooled set is decided on in single.

    Inputs and outputs are those of ``model.onnx``. The same weights give the same bytes.

    Raises:
        RoadsenseError: the weights cannot be read or the file cannot be written.
    """
    run_dir = Path(run_dir)
    signature = read_signature(run_dir)
    model = policy_graph(signature, read_weights(run_dir, signature), half_encoder=True)
    write_bytes(run_dir / FP16_NAME, sign(model, signature, "fp16"))
    return run_dir / FP16_NAME


def export_int8(run_dir: str | Path, observations: Observation) -> Path:
    """Writes ``model.int8.onnx``: encoder and head with 8-bit weights and two bytes an activation, as Q/DQ.

    The first layer, whose inputs differ in unit and range, the last, a memory and the head behind it stay in single
    precision. Zero points are zero, as TensorRT demands. Inputs and outputs are those of ``model.onnx``. The same
    weights and observations give the same bytes.

    Args:
        run_dir: the run folder.
        observations: recorded ones along the leading axis; :func:`strata` are calibrated on in equal parts.

    Raises:
        RoadsenseError: there is no observation of a hazard or none of calm; or as :func:`export_fp16`.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    run_dir = Path(run_dir)
    signature = read_signature(run_dir)
    widths, shown = signature.widths, _calibration(observations)
    model = policy_graph(signature, read_weights(run_dir, signature), for_bytes=True)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        beside = Path(folder) / INT8_NAME
        quantize_static(
            model, beside, _Reader(model, shown), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QInt8, weight_type=QuantType.QInt8, nodes_to_quantize=quantised_layers(widths),
            extra_options={
                "ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False,
                "OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"],
                "QDQOpTypePerChannelSupportToAxis": {"MatMul": 1},
            },
        )  # fmt: skip
        model = onnx.load(beside)
    steps = {node.input[0]: _add_fine_byte(model, node) for node in _of_type(model, "QuantizeLinear")}
    if "pooled" in steps:
        _round_rows(model, steps["pooled"])
    model.producer_name, model.producer_version = "roadsense", ""
    write_bytes(run_dir / INT8_NAME, sign(model, signature, "int8"))
    return run_dir / INT8_NAME


def quantised_layers(widths: Widths) -> list[str]:
    """Names of the nodes whose products are in 8 bits."""
    encoder = [f"phi_{k}_product" for k in range(1, len(widths.phi))]
    return [*encoder, *([] if widths.lstm else [f"head_{k}_sum" for k in range(len(widths.head))])]


def strata(observations: Observation) -> dict[str, NDArray[np.bool_]]:
    """Which observations are of a hazard, of calm, and of nobody heard: name → [observation]."""
    used = observations.peer_mask != 0
    told = np.where(used, observations.peers[:, :, _ACCEL] * PEER_FEATURES[_ACCEL].scale, 0.0)
    hazard = told.min(1, initial=0.0) <= HAZARD_ACCEL_MPS2
    heard = used.any(1)
    return {"hazard": hazard, "calm": heard & ~hazard, "nobody": ~heard}


def _calibration(observations: Observation) -> Observation:
    """Evenly spread over every stratum, and what is made up from those, so that ranges hold extreme values."""
    chosen = []
    for name, of in strata(observations).items():
        found = np.flatnonzero(of)
        if len(found) == 0 and name != "nobody":
            raise RoadsenseError(
                f"int8: none of {len(of)} observations is of {name}, so ranges cannot be calibrated; record more."
            )
        chosen.append(found[np.linspace(0, len(found) - 1, min(CALIBRATED_ON, len(found))).astype(np.int64)])
    index = np.concatenate(chosen)
    spread = Observation._make(array[index] for array in observations)
    further = made_up(spread, np.random.default_rng(1))
    return joined([spread, further])


class _Reader:
    """Batches of observations, as the calibration asks for them; a memory is empty."""

    def __init__(self, model: Any, observations: Observation) -> None:
        states = [put for put in model.graph.input if put.name in ("hidden", "cell")]
        widths = {put.name: put.type.tensor_type.shape.dim[1].dim_value for put in states}
        starts, raw = range(0, len(observations.ego), _BATCH), unscaled(observations)._asdict()
        batches = [{k: v[start : start + _BATCH].astype(np.float32) for k, v in raw.items()} for start in starts]
        self._left: Iterator[dict[str, Any]] = iter([
            {**one, **{name: np.zeros((len(one["ego"]), width), np.float32) for name, width in widths.items()}}
            for one in batches
        ])  # fmt: skip

    def get_next(self) -> dict[str, Any] | None:
        return next(self._left, None)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without advice to preprocess a graph that already is."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


def _add_fine_byte(model: Any, coarse: Any) -> float:
    """Adds what the byte of an activation leaves over as a second one, through the same products.

    Args:
        model: changed.
        coarse: the QuantizeLinear node of the activation.

    Returns:
        The step of the fine byte, a power of two; the coarse one becomes 128 times as wide.
    """
    graph, (value, scale, zero) = model.graph, coarse.input
    back = next(node for node in _of_type(model, "DequantizeLinear") if node.input[0] == coarse.output[0])
    stored = next(tensor for tensor in graph.initializer if tensor.name == scale)
    step = 2.0 ** math.ceil(math.log2(float(numpy_helper.to_array(stored)) / 128.0))
    stored.CopyFrom(numpy_helper.from_array(np.array(128.0 * step, np.float32), scale))
    graph.initializer.append(numpy_helper.from_array(np.array(step, np.float32), f"{value}_fine_scale"))
    rest, byte, fine = f"{value}_rest", f"{value}_fine_byte", f"{value}_fine"
    added = [
        helper.make_node("Sub", [value, back.output[0]], [rest], rest),
        helper.make_node("QuantizeLinear", [rest, f"{value}_fine_scale", zero], [byte], byte),
        helper.make_node("DequantizeLinear", [byte, f"{value}_fine_scale", zero], [fine], fine),
    ]
    nodes = []
    for node in graph.node:
        nodes.append(node)
        if node.name == back.name:
            nodes += added
        if back.output[0] in node.input and node.op_type in ("MatMul", "Gemm"):
            other, whole = f"{node.name}_fine", node.output[0]
            node.output[0] = f"{whole}_coarse"
            again = helper.make_node(node.op_type, [fine, node.input[1]], [other], other)
            again.attribute.extend(node.attribute)
            nodes += [again, helper.make_node("Add", [node.output[0], other], [whole], f"{node.name}_both")]
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(kept)
    return step


def _round_rows(model: Any, step: float) -> None:
    """Rounds encoded rows to multiples of a step, before they are pooled."""
    graph = model.graph
    for name, value in (("rows_per_step", 1.0 / step), ("rows_step", step)):
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
    added = [
        helper.make_node("Mul", ["encoded", "rows_per_step"], ["rows_counted"], "rows_counted"),
        helper.make_node("Round", ["rows_counted"], ["rows_whole"], "rows_whole"),
        helper.make_node("Mul", ["rows_whole", "rows_step"], ["rows_rounded"], "rows_rounded"),
    ]
    nodes = []
    for node in graph.node:
        if node.op_type in ("ReduceMax", "ReduceSum") and node.input[0] == "encoded":
            node.input[0] = "rows_rounded"
        nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
        if node.name == "encoded":
            nodes += added
    del graph.node[:]
    graph.node.extend(nodes)


def _of_type(model: Any, kind: str) -> list[Any]:
    return [node for node in model.graph.node if node.op_type == kind]
