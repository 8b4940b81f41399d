"""The policy as a TensorRT engine, and what keeps a graph from becoming one."""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from roadsense.convoy.observation import NUM_EGO, NUM_PEER
from roadsense.errors import InputMismatchError, RoadsenseError, UsageError
from roadsense.files import write_bytes, write_json
from roadsense.policies.engine import ENGINES_NAME, PLAN_NAME, RECORD_NAME, EngineRecord
from roadsense.policies.gpu import input_shapes, listener, reason, tensorrt_and_cuda, this_device
from roadsense.policies.onnx_file import ONNX_METADATA_KEY
from roadsense.policies.signature import ONNX_NAME, Signature, parse_signature, read_signature

MAX_BATCH = 1024
MAX_ROWS = 256
_TUNED_FOR = 1, 8
"""Worlds and rows at which an engine is to be fastest: a car decides alone."""

OPSETS = range(9, 25)
"""Of ONNX, that the parser of TensorRT 11.0 to 11.4 reads; later ones read more."""
_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16}
_NUMBERS = _FLOATS | {TensorProto.INT32, TensorProto.INT64}
_ANY = _NUMBERS | {TensorProto.BOOL}
_OPERATORS = {
    operator: types
    for types, operators in (
        ((*_FLOATS,), """
            Acos Acosh Asin Asinh Atan Atanh Attention AveragePool BatchNormalization BlackmanWindow Ceil Celu Clip Conv
            ConvTranspose Cos Cosh CumSum DeformConv Dropout Einsum Elu Erf Exp Floor GRU Gemm GlobalAveragePool
            GlobalLpPool GlobalMaxPool GridSample GroupNormalization HammingWindow HannWindow HardSigmoid HardSwish
            Hardmax ImageScaler InstanceNormalization IsInf LRN LSTM LayerNormalization LeakyRelu Log LogSoftmax
            LpNormalization LpPool MatMul MaxPool MeanVarianceNormalization Mish NonMaxSuppression NonZero PRelu
            ParametricSoftplus QuantizeLinear RMSNormalization RNN RandomNormal RandomNormalLike RandomUniform
            RandomUniformLike Reciprocal Resize RoiAlign RotaryEmbedding Round STFT ScaledTanh Scan Selu Sigmoid Sin
            Sinh Softmax Softplus Softsign Sqrt Tan Tanh ThresholdedRelu Upsample"""),
        ((*_NUMBERS,), """
            Abs Add ArgMax ArgMin DepthToSpace Div Equal Gelu Greater GreaterOrEqual IsNaN Less LessOrEqual Max Mean Min
            Mod Mul Neg Pad Pow Range ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin
            ReduceProd ReduceSum ReduceSumSquare Relu Scatter ScatterElements ScatterND Shrink Sign SpaceToDepth Sub Sum
            TensorScatter TopK"""),
        ((*_ANY,), """
            Cast CastLike Concat Constant ConstantOfShape Expand EyeLike Flatten Gather GatherElements GatherND Identity
            If Loop OneHot Reshape ReverseSequence Shape Size Slice Split Squeeze Tile Transpose Trilu Unsqueeze
            Where"""),
        ((TensorProto.BOOL,), "And Not Or Xor"),
        ((TensorProto.INT8,), "DequantizeLinear"),
    )
    for operator in operators.split()
}  # fmt: skip
"""Operator → types of its first input, from the table of onnx-tensorrt (docs/operators.md) for TensorRT 10.15."""
_MASK = "peer_mask"


def why_unavailable() -> str:
    """Why no engine can be built and run here, in a clause; empty where one can.

    Loads TensorRT only where there is a GPU.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "this machine has no NVIDIA driver"
    count = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or count.value == 0:
        return "the NVIDIA driver of this machine answers no GPU"
    try:
        this_device()
    except RoadsenseError as error:
        return str(error).rstrip(".")
    return ""


def export_engine(run_dir: str | Path, *, max_batch: int = MAX_BATCH, max_rows: int = MAX_ROWS) -> Path:
    """Builds an engine from ``model.onnx`` for this GPU and returns the path of its plan.

    It lies in ``engines/<compute capability>-<TensorRT>/``, beside an ``engine.json`` that says what it was built from
    and for, and runs nowhere else. It computes in single precision: TF32, TensorRT's default, would round every factor
    to 10 bits. Kernels are chosen by their measured time, so bytes differ from build to build.

    Args:
        run_dir: folder that holds ``model.onnx``.
        max_batch: worlds that are decided on at once; the policy decides on more in parts.
        max_rows: of an observation; the policy refuses more.

    Raises:
        UsageError: there is no ``model.onnx``.
        InputMismatchError: it is of other weights than the run.
        RoadsenseError: no engine can be built here, or not from this file; or a file cannot be written.
    """
    run_dir = Path(run_dir)
    if why := why_unavailable():
        raise RoadsenseError(f"{run_dir}: no engine can be built, {why}; build it on the machine that is to run it.")
    path, signature = run_dir / ONNX_NAME, read_signature(run_dir)
    if not path.is_file():
        raise UsageError(f"{path}: no such file; export the format onnx first, an engine is built from it.")
    if problems := graph_problems(path):
        raise RoadsenseError(f"{path}: TensorRT does not take it ({'; '.join(problems)}); export it again.")
    content = path.read_bytes()
    model = onnx.load_from_string(content)
    told = {entry.key: entry.value for entry in model.metadata_props}.get(ONNX_METADATA_KEY, "")
    if parse_signature(told, path) != signature:
        raise InputMismatchError(f"{path}: was exported from other weights; export it again.")
    plan, device = _build(model, signature, max_batch, max_rows, path), this_device()
    record = EngineRecord(
        plan_sha256=hashlib.sha256(plan).hexdigest(), onnx_sha256=hashlib.sha256(content).hexdigest(),
        weights_digest=signature.weights_digest, device=device, max_batch=max_batch, max_rows=max_rows,
    )  # fmt: skip
    folder = run_dir / ENGINES_NAME / device.folder
    write_bytes(folder / PLAN_NAME, plan)
    write_json(folder / RECORD_NAME, record.model_dump())
    return folder / PLAN_NAME


def _build(model: Any, signature: Signature, max_batch: int, max_rows: int, where: Path) -> bytes:
    tensorrt, _ = tensorrt_and_cuda()
    heard = listener(tensorrt)
    try:
        builder = tensorrt.Builder(heard)
        network, config = builder.create_network(), builder.create_builder_config()
        parser = tensorrt.OnnxParser(network, heard)
        if not parser.parse(model.SerializeToString()):
            found = [parser.get_error(number).desc() for number in range(parser.num_errors)]
            raise RoadsenseError(
                f"{where}: TensorRT cannot read it ({'; '.join(found) or reason(heard)}); export again."
            )
        config.clear_flag(tensorrt.BuilderFlag.TF32)
        profile = builder.create_optimization_profile()
        best = min(_TUNED_FOR[0], max_batch), min(_TUNED_FOR[1], max_rows)
        # from one row on: not all that TensorRT is made of takes empty tensors
        smallest, usual, largest = (input_shapes(signature, *of) for of in ((1, 1), best, (max_batch, max_rows)))
        for name in largest:
            profile.set_shape(name, smallest[name], usual[name], largest[name])
        config.add_optimization_profile(profile)
        plan = builder.build_serialized_network(network, config)
    except (TypeError, ValueError, RuntimeError) as error:  # how its constructors and checks refuse
        raise RoadsenseError(
            f"{where}: no engine can be built from it ({reason(heard)}; {error}); export again."
        ) from None
    if plan is None:
        raise RoadsenseError(f"{where}: no engine can be built from it ({reason(heard)}); export again.")
    return bytes(plan)


def graph_problems(path: str | Path) -> list[str]:
    """What of an exported ONNX file TensorRT would not take, as far as that is known without it; a clause each.

    Checked against what NVIDIA documents: opset, operators and types, zero points, scales and axes of quantisation,
    and that only the dimensions vary that profiles reach. None found is no proof: only TensorRT can build an engine.
    """
    try:
        model = onnx.load(path, load_external_data=False)
        typed = onnx.shape_inference.infer_shapes(model).graph
    except Exception as error:  # protobuf and onnx raise classes of their own for each way a file can be broken
        return [f"it cannot be read as ONNX ({type(error).__name__})"]
    values = (*typed.input, *typed.value_info, *typed.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types |= {tensor.name: tensor.data_type for tensor in typed.initializer}
    return [
        *_opset_problems(model), *_shape_problems(model.graph), *_type_problems(model.graph, types),
        *_weight_problems(model.graph), *_quantisation_problems(model.graph),
    ]  # fmt: skip


def _opset_problems(model: Any) -> Iterator[str]:
    for entry in model.opset_import:
        if entry.domain not in ("", "ai.onnx"):
            yield f"it uses operators of {entry.domain}, which need plugins"
        elif entry.version not in OPSETS:
            yield f"it is of opset {entry.version}, read are {OPSETS[0]} to {OPSETS[-1]}"


def _shape_problems(graph: Any) -> Iterator[str]:
    memory = ("batch", "")  # of whatever width
    wanted = {"ego": ("batch", NUM_EGO), "peers": ("batch", "rows", NUM_PEER), _MASK: ("batch", "rows"),
              "hidden": memory, "cell": memory}  # fmt: skip
    for put in graph.input:
        shape = tuple(dim.dim_param or dim.dim_value for dim in put.type.tensor_type.shape.dim)
        stated = wanted.get(put.name)
        if stated == memory and len(shape) == 2 and isinstance(shape[1], int) and shape[1] > 0:
            shape = (shape[0], "")
        if shape != stated:
            yield f"its input {put.name} is of shape {shape}, which no profile reaches"


def _type_problems(graph: Any, types: dict[str, int]) -> Iterator[str]:
    for name, kind in types.items():
        if kind and kind not in _ANY | {TensorProto.INT8}:
            yield f"tensor {name} is of type {TensorProto.DataType.Name(kind)}, which TensorRT does not compute in"
    for node in graph.node:
        taken = _OPERATORS.get(node.op_type, ())
        if not taken:
            yield f"node {node.name} is a {node.op_type}, which TensorRT does not know"
        elif any(attribute.HasField("g") for attribute in node.attribute):
            yield f"node {node.name} holds a graph, which is not looked into"
        elif (first := types.get(node.input[0], 0) if node.input else 0) and first not in taken:
            yield f"node {node.name} ({node.op_type}) takes no {TensorProto.DataType.Name(first)}"


def _weight_problems(graph: Any) -> Iterator[str]:
    bounds = np.iinfo(np.int32)
    for tensor in graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            yield f"weights {tensor.name} lie in another file"
        elif tensor.data_type == TensorProto.INT64:
            value = numpy_helper.to_array(tensor)
            if value.size and (value.min() < bounds.min or value.max() > bounds.max):
                yield f"weights {tensor.name} do not fit into 32 bits"


def _quantisation_problems(graph: Any) -> Iterator[str]:
    weights = {tensor.name: tensor for tensor in graph.initializer if tensor.data_location != TensorProto.EXTERNAL}
    for node in graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        data, scale, zero = (*node.input, "")[:3]
        if scale not in weights or zero not in weights:
            yield f"node {node.name} has a scale or zero point that is no constant of the file"
            continue
        scales, zeros = (numpy_helper.to_array(weights[name]) for name in (scale, zero))
        if weights[zero].data_type != TensorProto.INT8:
            yield f"node {node.name} quantises to {TensorProto.DataType.Name(weights[zero].data_type)}, not to INT8"
        if np.any(zeros != 0):
            yield f"node {node.name} has a zero point other than 0"
        if zeros.size != scales.size:
            yield f"node {node.name} has {zeros.size} zero points for {scales.size} scales"
        if not np.all((scales > 0) & np.isfinite(scales)):
            yield f"node {node.name} has a scale that is not above 0"
        if scales.size > 1:
            yield from _axis_problems(graph, node, weights.get(data), scales.size)


def _axis_problems(graph: Any, node: Any, weight: Any, scales: int) -> Iterator[str]:
    """Activations have one scale, weights one or one for each output of the product that they enter."""
    if weight is None:
        yield f"node {node.name} has {scales} scales for an activation, which takes one"
        return
    stated = {attribute.name: attribute.i for attribute in node.attribute}.get("axis", 1) % max(1, len(weight.dims))
    for product in graph.node:
        if list(product.input[1:2]) == list(node.output):
            transposed = any(attribute.name == "transB" and attribute.i for attribute in product.attribute)
            axis = 0 if transposed else len(weight.dims) - 1
            if stated != axis or weight.dims[axis] != scales:
                yield f"node {node.name} has scales along axis {stated} of weights whose outputs lie along axis {axis}"
