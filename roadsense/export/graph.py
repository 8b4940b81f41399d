"""The network as an ONNX graph, written node by node: a decision alone takes as long as its graph has nodes.

Each node of a run on ONNX Runtime costs about half a microsecond, however little it computes, and a graph traced from
torch has a third more of them. What saves them:

- The bias of an inner layer of the encoder is one more row of its weights, for a unit before it that is always 1.
- Rows are encoded used or not, and multiplied by the mask. After ReLU an unused row is then zero, which neither a
  maximum of numbers that are not negative nor a sum sees. Of no row at all the maximum is -inf: one more ReLU.
- Clipping to [0, 1] is a hard sigmoid of slope 1, which ONNX Runtime takes into the product before it. So a raw value
  is divided by its scale and clipped as one unit, its share of the upper bound, or as two, where the lower bound is
  negative; the next layer has the bounds in its weights.
- The mean over used rows is a product with the mask that was divided by its own sum.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from roadsense.convoy.observation import EGO_FEATURES, NUM_EGO, NUM_PEER, PEER_FEATURES, Feature
from roadsense.policies.onnx_file import ONNX_FORMAT_KEY, ONNX_METADATA_KEY
from roadsense.policies.signature import OPSET, Signature, Widths

_IR_VERSION = 10
_MASK = "peer_mask"

Tensors = Mapping[str, NDArray[np.float32]]


class GraphWriter:
    """Nodes and constants of a graph; every node and tensor has a name of its own."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}

    def constant(self, name: str, value: Any, dtype: Any = np.float32) -> str:
        """A constant of that name, which is given back."""
        self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(value, dtype), name)
        return name

    def axis(self, number: int) -> str:
        """The number of an axis, as nodes want it."""
        return self.constant(f"axis_{number}", [number], np.int64)

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """A node with one output, whose name is given back."""
        self._nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def split(self, whole: str, outputs: list[str]) -> list[str]:
        """Equal parts along axis 1."""
        node = helper.make_node("Split", [whole], outputs, name=f"{whole}_split", axis=1, num_outputs=len(outputs))
        self._nodes.append(node)
        return outputs

    def model(self, inputs: list[Any], outputs: list[Any]) -> Any:
        """The checked model."""
        graph = helper.make_graph(self._nodes, "policy", inputs, outputs, list(self._constants.values()))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=_IR_VERSION)
        model.producer_name = "roadsense"
        onnx.checker.check_model(model, full_check=True)
        return model


def policy_graph(signature: Signature, tensors: Tensors, *, half_encoder: bool = False, for_bytes: bool = False) -> Any:
    """The model of a network.

    Inputs are ``ego`` [batch, 4] and ``peers`` [batch, rows, 8], raw values in the units of the features, and
    ``peer_mask`` [batch, rows], 1 where a row is used and 0 elsewhere; the output is ``action`` [batch, 1], clipped.
    With a memory also ``hidden`` and ``cell``, ``next_hidden`` and ``next_cell`` [batch, lstm]. Any batch and any
    number of rows, also none.

    Args:
        signature: of the network.
        tensors: its parameters.
        half_encoder: whether rows are encoded in half precision; they are pooled in single precision.
        for_bytes: whether it is to be quantised: biases inside the encoder are added, and rows are summed up before
            they are divided by their number, which takes more nodes.
    """
    graph, widths = GraphWriter(), signature.widths
    (ego, ego_bounds), (peers, peer_bounds) = (
        _clipped(graph, "ego", EGO_FEATURES),
        _clipped(graph, "peers", PEER_FEATURES),
    )
    tensors = _with_bounds(tensors, widths, ego_bounds, peer_bounds)
    rows = _encode(graph, (ego, peers), signature, tensors, half_encoder, for_bytes)
    features = _pool(graph, rows, ego, for_bytes)
    batch = ("batch", widths.lstm)
    inputs = [
        helper.make_tensor_value_info("ego", TensorProto.FLOAT, ["batch", NUM_EGO]),
        helper.make_tensor_value_info("peers", TensorProto.FLOAT, ["batch", "rows", NUM_PEER]),
        helper.make_tensor_value_info(_MASK, TensorProto.FLOAT, ["batch", "rows"]),
    ]
    outputs = [helper.make_tensor_value_info("action", TensorProto.FLOAT, ["batch", 1])]
    if widths.lstm:
        features = _remember(graph, features, tensors)
        inputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, batch) for name in ("hidden", "cell")]
        outputs += [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, batch) for name in ("next_hidden", "next_cell")
        ]
    _decide(graph, features, tensors, len(widths.head) + 1, signature.bounds)
    return graph.model(inputs, outputs)


def sign(model: Any, signature: Signature, number_format: str = "") -> bytes:
    """The file of a model, with its signature and the name of its number format in its metadata.

    The same model gives the same bytes.
    """
    stated = {ONNX_METADATA_KEY: signature.text()}
    del model.metadata_props[:]
    helper.set_model_props(model, {**stated, ONNX_FORMAT_KEY: number_format} if number_format else stated)
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _clipped(graph: GraphWriter, name: str, features: tuple[Feature, ...]) -> tuple[str, NDArray[np.float64]]:
    """Raw values as clipped shares of their bounds, and the bounds of these units: [..., unit] and [unit, feature].

    clip(x / scale, low, high) = high · clip(x / (scale · high), 0, 1) + low · clip(x / (scale · low), 0, 1), where
    low <= 0 < high; the second part is nothing where low is 0.
    """
    bounds = []
    for column, feature in enumerate(features):
        for bound in (feature.high, feature.low):
            if bound != 0.0:
                bounds.append(np.zeros(len(features)))
                bounds[-1][column] = bound
    of_units = np.array(bounds)
    scales = np.array([feature.scale for feature in features])
    shares = np.divide(1.0, of_units * scales, where=of_units != 0.0, out=np.zeros_like(of_units)).T
    weight = graph.constant(f"{name}_shares_per_unit", shares)
    if name == "ego":
        shown = graph.node("Gemm", [name, weight], f"{name}_shares")
    else:
        shown = graph.node("MatMul", [name, weight], f"{name}_shares")
    return graph.node("HardSigmoid", [shown], f"{name}_clipped", alpha=1.0, beta=0.0), of_units


def _with_bounds(
    tensors: Tensors, widths: Widths, ego: NDArray[np.float64], peers: NDArray[np.float64]
) -> dict[str, NDArray[np.float32]]:
    """Parameters of the same network, for units instead of features."""
    found = dict(tensors)
    first, entering = "phi.layers.0.weight", "lstm.weight_ih" if widths.lstm else "head.0.weight"
    weight = tensors[first].astype(np.float64)
    found[first] = np.hstack([weight[:, :NUM_PEER] @ peers.T, weight[:, NUM_PEER:] @ ego.T]).astype(np.float32)
    weight = tensors[entering].astype(np.float64)
    found[entering] = np.hstack([weight[:, :-NUM_EGO], weight[:, -NUM_EGO:] @ ego.T]).astype(np.float32)
    return found


def _encode(
    graph: GraphWriter, shown: tuple[str, str], signature: Signature, tensors: Tensors, half: bool, for_bytes: bool
) -> str:
    """Rows, encoded: [batch, rows, phi]."""
    dtype = np.float16 if half else np.float32
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    ego, peers = (graph.node("Cast", [one], f"{one}_half", to=kind) for one in shown) if half else shown
    with np.errstate(over="ignore"):  # weights that half precision cannot hold are found when actions are compared
        layers = [
            (tensors[f"phi.layers.{k}.weight"].T.astype(dtype), tensors[f"phi.layers.{k}.bias"].astype(dtype))
            for k in range(len(signature.widths.phi))
        ]
    (first, bias), *further = layers
    units = sum(1 + (feature.low != 0.0) for feature in PEER_FEATURES)
    of_peers, of_ego = first[:units], first[units:]
    if not for_bytes and further:
        of_peers, of_ego, bias = _with_unit(of_peers), _with_unit(of_ego), np.append(bias, dtype(1.0))
    shared = graph.node("Gemm", [
        ego, graph.constant("phi_0_of_ego", of_ego, dtype), graph.constant("phi_0_bias", bias, dtype)
    ], "shared")  # fmt: skip
    shared = graph.node("Unsqueeze", [shared, graph.axis(1)], "shared_by_rows")
    rows = graph.node("MatMul", [peers, graph.constant("phi_0_of_peers", of_peers, dtype)], "phi_0_rows")
    rows = graph.node("Relu", [graph.node("Add", [rows, shared], "phi_0_sum")], "phi_0")
    for k, (weight, bias) in enumerate(further, 1):
        if not for_bytes:
            weight = np.vstack([weight, bias])
            if k < len(further):
                weight = _with_unit(weight)
                weight[-1, -1] = 1.0
        rows = graph.node("MatMul", [rows, graph.constant(f"phi_{k}_weight", weight, dtype)], f"phi_{k}_product")
        if for_bytes:
            rows = graph.node("Add", [rows, graph.constant(f"phi_{k}_bias", bias, dtype)], f"phi_{k}_sum")
        rows = graph.node("Relu", [rows], f"phi_{k}")
    if half:
        rows = graph.node("Cast", [rows], "encoded_single", to=TensorProto.FLOAT)
    return rows


def _with_unit(weight: NDArray[Any]) -> NDArray[Any]:
    """Weights with one more unit, which nothing leads to."""
    return np.hstack([weight, np.zeros((len(weight), 1), weight.dtype)])


def _pool(graph: GraphWriter, rows: str, ego: str, for_bytes: bool) -> str:
    """Maximum and mean over used rows, and the ego: [batch, pooled]."""
    by_row = graph.node("Unsqueeze", [_MASK, graph.axis(2)], "used_by_row")
    encoded = graph.node("Mul", [rows, by_row], "encoded")
    most = graph.node("ReduceMax", [encoded, graph.axis(1)], "most_or_none", keepdims=0)
    most = graph.node("Relu", [most], "most")
    if for_bytes:
        total = graph.node("ReduceSum", [encoded, graph.axis(1)], "total", keepdims=0)
        count = graph.node("ReduceSum", [_MASK, graph.axis(1)], "count_or_none", keepdims=1)
        count = graph.node("Max", [count, graph.constant("one", 1.0)], "count")
        mean = graph.node("Div", [total, count], "mean")
    else:
        shares = graph.node("LpNormalization", [_MASK], "used_shares", axis=1, p=1)  # of no row at all: zeros
        shares = graph.node("Unsqueeze", [shares, graph.axis(1)], "used_shares_as_row")
        mean = graph.node("Squeeze", [graph.node("MatMul", [shares, encoded], "mean_as_row"), graph.axis(1)], "mean")
    return graph.node("Concat", [most, mean, ego], "pooled", axis=1)


def _remember(graph: GraphWriter, features: str, tensors: Tensors) -> str:
    """One LSTM step, gates in torch's order i, f, g, o; the new hidden state."""
    entering = [graph.constant(f"lstm_{part}", tensors[f"lstm.{part}"].T) for part in ("weight_ih", "bias")]
    back = graph.constant("lstm_weight_hh", tensors["lstm.weight_hh"].T)
    gates = graph.node("Gemm", [features, *entering], "lstm_entering")
    gates = graph.node("Gemm", ["hidden", back, gates], "lstm_gates")
    enter, keep, new, out = graph.split(gates, ["gate_enter", "gate_keep", "gate_new", "gate_out"])
    enter, keep, out = (graph.node("Sigmoid", [gate], f"{gate}_open") for gate in (enter, keep, out))
    new = graph.node("Tanh", [new], "cell_new")
    kept, added = graph.node("Mul", [keep, "cell"], "cell_kept"), graph.node("Mul", [enter, new], "cell_added")
    cell = graph.node("Add", [kept, added], "next_cell")
    return graph.node("Mul", [out, graph.node("Tanh", [cell], "cell_shown")], "next_hidden")


def _decide(graph: GraphWriter, features: str, tensors: Tensors, layers: int, bounds: tuple[float, float]) -> None:
    """The head, and the clipped action."""
    for k in range(layers):
        weight = graph.constant(f"head_{k}_weight", tensors[f"head.{k}.weight"].T)
        features = graph.node("Gemm", [features, weight, graph.constant(f"head_{k}_bias", tensors[f"head.{k}.bias"])],
                              f"head_{k}_sum")  # fmt: skip
        if k < layers - 1:
            features = graph.node("Relu", [features], f"head_{k}")
    if bounds == (0.0, 1.0):
        graph.node("HardSigmoid", [features], "action", alpha=1.0, beta=0.0)
    else:
        low, high = (graph.constant(name, value) for name, value in zip(("low", "high"), bounds, strict=True))
        graph.node("Clip", [features, low, high], "action")
